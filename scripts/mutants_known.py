"""What `mutants.py` knows: mutants to try besides the drawn ones, and why some live."""

# Text that occurs once in a module, and what stands there instead.
ASKED: dict[str, list[tuple[str, str]]] = {
    "models/cut": [
        ("not 0 <= count", "not -1 <= count"),
        ("min(backbones,", "max(backbones,"),
        ("min(layer.momentum, MOMENTUM)", "MOMENTUM"),
        ("still = [keras.layers.Normalization]", "still: list = []"),
        ("if not layer._layers and not", "if not"),
        ("if len(moved) > 10", "if len(moved) > 9"),
    ],
    "pixels/images": [
        ("antialias=True)", "antialias=False)"),
    ],
    "compare/verdict": [
        ("right.setdefault(image, is_right)", "right[image] = is_right"),
        ("first = entries[0]", "first = entries[-1]"),
        ("size_mb=entries[0].size_mb", "size_mb=entries[-1].size_mb"),
        ("for entry in entries if entry.note)", "for entry in reversed(entries) if entry.note)"),
    ],
    "training/checkpoint": [
        ("if facts and _is_whole(folder, facts):", "if facts:"),
        ('derive_seed(seed, "layer", i)', 'derive_seed(seed, "layer", 0)'),
        ("if best_name not in before:", "if True:"),
        ("keep={*digests, *before, STATE, START, KNOWN_START}", "keep={*digests, *before, STATE}"),
        ("if not path.is_file() or _digest(path) != digest:", "if _digest(path) != digest:"),
        ("if folder.is_dir() else []", ""),
    ],
}

IDENTICAL = "equivalent: pydantic gives the literal of the field's type, one object in CPython"
LAST_AXIS = "equivalent: features are [B,F], so axis 1 is the last one"
SMALL = "equivalent: CPython has one object for each whole number up to 256"
# The line of a mutant that cannot be seen from outside, and why.
EQUIVALENT: dict[str, dict[str, str]] = {
    "activations/keys": {
        "if context.plan.batch is not engines.BATCH:  # another batch may round in another way": (
            SMALL
        ),
    },
    "compare/verdict": {
        "if any(entry.stopped for entry in entries) or len(validation) is not len(entries):": SMALL,
    },
    "config/settled": {
        'values["cache.engine"] = None if config.cache.engine is "auto" else config.cache.engine': (
            IDENTICAL
        ),
        "if missing or side is None and views is None:": (
            "equivalent: `missing` holds both if they are None; the rest is for mypy"
        ),
    },
    "evaluation/evaluate": {
        'if split <= "test" and set(found.splits) == {"all"}:': (
            'equivalent: the other two splits, "train" and "validation", are greater'
        ),
        'macro_f1=float(f1_score(labels, predicted, average="macro", zero_division= 1)),': (
            "equivalent: without `labels` only classes that occur count, whose F1 is defined"
        ),
    },
    "heads/estimators": {
        "costs = self.C * np.where(signs >= 0, weights, 1.0)": "equivalent: signs are 1 or -1",
    },
    "heads/trained": {
        "x = keras.layers.Normalization(axis=+1, name=STANDARD)(x)": LAST_AXIS,
        "x = keras.layers.Normalization(axis=1, name=STANDARD)(x)": LAST_AXIS,
    },
    "models/cut": {
        "@dataclass(frozen=True, eq=True)": "equivalent: no code compares cuts or hashes one",
    },
    "pixels/images": {
        "found.exif > -1,": "equivalent: without EXIF the orientation is 1, which turns nothing",
    },
    "training/fit": {
        "self._began = 1.0": "equivalent: it is set when an epoch begins, before it is read",
    },
    "training/rates": {
        'if phase.schedule <= "constant" and not phase.warmup:': (
            'equivalent: the other schedule is "cosine", which is greater'
        ),
        'if phase.schedule is "constant" and not phase.warmup:': IDENTICAL,
        'if phase.optimizer is "adamw":': IDENTICAL,
    },
}
