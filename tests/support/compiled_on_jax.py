"""What test_compiled.py compares: the compiled engine and whole epochs, with Keras on JAX.

    KERAS_BACKEND=jax python tests/support/compiled_on_jax.py FOLDER
    KERAS_BACKEND=jax python tests/support/compiled_on_jax.py FOLDER more
    KERAS_BACKEND=jax python tests/support/compiled_on_jax.py FOLDER runs

Prints one line of JSON. The second form goes on with more cases of the first. FOLDER holds
`photos`, on which the third form trains whole runs.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tiny import TINY, batch, moved, tiny_constructor, tiny_model, weights_by_name
from tiny_run import SECOND, small

from kerasft.activations import engines, store
from kerasft.activations.context import FINITE
from kerasft.activations.whole_epochs import WholeEpochs
from kerasft.backbones.table import BACKBONES
from kerasft.config.load import append_phase
from kerasft.data.batches import Epoch
from kerasft.models.cut import freeze, split
from kerasft.models.live import LiveModel, NormMean
from kerasft.run import open_run, read_metrics, read_record
from kerasft.training.feed import epoch_order, stored_batches
from kerasft.training.train import train_run

PIXELS = batch(32)[0]


def prefix_of(scale: float = 1.0) -> keras.Model:
    """Returns a prefix with two outputs: the features [B,4], what enters block_2 [B,4,4,4]."""
    model = tiny_model(base_dropout=0.5)
    rng = np.random.default_rng(0)
    for place in ("stem", "block_1_a", "block_2_a"):
        factor, variance = rng.uniform(0.5, 2, (2, 4))
        offset, mean = rng.normal(0, 0.5, (2, 4))
        last = scale if place == "block_2_a" else 1.0
        norm = model.get_layer(f"{place}_norm")
        norm.set_weights([last * factor, last * offset, mean, variance])
    cuts = [split(model, blocks, TINY).prefix.outputs[0] for blocks in (0, 1)]
    return keras.Model(model.inputs[0], cuts)


def largest(ours: Any, theirs: Any) -> float:
    """Returns the largest difference between two lists of arrays."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(np.subtract(a, b, dtype="float64")).max()) for a, b in pairs)


def compute() -> dict[str, Any]:
    """Compares the compiled engine with Keras' own predictions."""
    prefix = prefix_of()
    before = weights_by_name(prefix)
    exact = prefix.predict(PIXELS, verbose=0)
    engine = engines.build(prefix, "compiled", "float32", 8)
    whole = engine(PIXELS[:8])
    part = engine(PIXELS[3:5])
    grey = np.round(PIXELS[:8]).astype("uint8")
    rough = engines.build(prefix, "compiled", "bfloat16", 8)(PIXELS[:8])
    batches = [PIXELS[start : start + 8] for start in range(0, 29, 8)]
    batches[-1] = batches[-1][:5]
    halves = list(engine.over(batches, "float16"))
    columns = [np.concatenate([outputs[i] for _, outputs in halves]) for i in (0, 1)]
    return {
        "error": largest(whole, [one[:8] for one in exact]),
        "alone": largest(part, [one[3:5] for one in whole]),
        "uint8": largest(engine(grey), engine(grey.astype("float32"))),
        "bfloat16": engines.relative_error(exact[0][:8], rough[0]),
        "over": largest(columns, [store.as_stored(one[:29], "float16") for one in exact]),
        "dtypes": sorted({str(one.dtype) for one in columns}),
        "pixels": [len(pixels) for pixels, _ in halves],
        "in order": all(a is b for (a, _), b in zip(halves, batches, strict=True)),
        "moved": moved(before, prefix),
        "policies": sorted({layer.dtype_policy.name for layer in prefix.layers}),
    }


def fits(*scales: float) -> dict[str, list]:
    """Says of which scales of the features float16 holds them, as the CPU's rule and this one."""
    found = {}
    for scale in scales:
        engine = engines.build(prefix_of(scale), "compiled", "float32", 32)
        ((_, (ours, _)),) = list(engine.over([PIXELS], "float16"))
        theirs = store.as_stored(engine(PIXELS)[0], "float16")
        found[f"{scale:g}"] = [ours is not None, theirs is not None]
        if ours is not None and theirs is not None:
            assert largest([ours], [theirs]) == 0
    return found


KINDS: dict[str, tuple[bool, np.ndarray | None]] = {  # mixup, weights of the classes
    "plain": (False, None),
    "all": (True, np.array([0.5, 2.0])),
    "norms": (False, None),
}


def train_epochs(*names: str) -> dict[str, Any]:
    """Trains a suffix from batches and by whole epochs: with views, mixup, weights and norms.

    Args:
        names: keys of KINDS.
    """
    rng = np.random.default_rng(0)
    count = 37  # four batches of 8, and a rest of 5
    cut = split(tiny_model(), 1, TINY)
    suffix, begin = cut.suffix, cut.suffix.get_weights()
    views = [rng.normal(0, 1, (count, *suffix.input_shape[1:])).astype("float16") for _ in "ab"]
    labels = rng.integers(0, 2, count)
    found: dict[str, Any] = {}
    for name in names:
        mix, per_class = KINDS[name]
        norms = freeze(cut, "train" if name == "norms" else "frozen")
        epochs = [
            Epoch(
                epoch_order(0, epoch, count),
                rng.integers(0, 2, count),
                np.zeros(count, np.int64),
                rng.uniform(0.5, 1, count).astype("float32") if mix else None,
            )
            for epoch in range(3)
        ]
        how: Any = {"num_classes": 2, "batch_size": 8, "sample_weights": per_class}
        curves, ends, means = [], [], []
        for whole in (False, True):
            suffix.set_weights(begin)
            mean = NormMean(suffix, norms, momentum=0.9, first=2)
            model: Any
            if whole:
                model = WholeEpochs(suffix, views, labels, norm_mean=mean, **how)
                feed, steps = model.orders(epochs), 1
            else:
                model = LiveModel(None, suffix, mean)
                feed, steps = stored_batches(views, labels, epochs, **how), 5
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            # A bias in front of a norm has no gradient but rounding, of which Adam makes steps.
            optimizer = keras.optimizers.SGD(0.5) if norms else keras.optimizers.Adam(0.01)
            model.compile(optimizer, loss, metrics=["accuracy"])
            fitted = model.fit(feed, epochs=3, steps_per_epoch=steps, shuffle=False, verbose=0)
            curves.append([fitted.history["loss"], fitted.history["accuracy"]])
            ends.append(suffix.get_weights())
            means.append([np.array(keras.ops.convert_to_numpy(v)) for v in mean.variables])
        found[name] = {
            "curves": largest(*curves),
            "weights": largest(*ends),
            "means": largest(*means),
            "batches": [int(batches) for batches, *_ in means],
            "learned": largest(begin, ends[1]),
            "finite": fitted.history[FINITE],
        }
    if "norms" not in found:
        return found
    suffix.set_weights(begin)
    for view in views:
        view[epochs[0].rows[17]] = np.nan  # in the third batch of 8
    model = WholeEpochs(suffix, views, labels, **how)
    model.compile(keras.optimizers.Adam(0.01), loss)
    fitted = model.fit(model.orders(epochs), epochs=3, steps_per_epoch=1, shuffle=False, verbose=0)
    found["norms"]["finite of a bad one"] = fitted.history[FINITE]
    return found


def run(folder: Path) -> dict[str, Any]:
    """Trains whole runs with both engines."""
    found: dict[str, Any] = {}
    for engine in ("keras", "compiled"):
        config = small(folder / "photos", "head.dropout=0", f"cache.engine={engine}")
        config = append_phase(config, flags=SECOND)
        train_run(config, folder / engine)
        opened = open_run(folder / engine)
        record = read_record(opened)
        found[engine] = {
            "lines": read_metrics(opened),
            "engines": [phase.activations.engine for phase in record.phases],
            "found": [phase.activations.found for phase in record.phases],
        }
    return found


if __name__ == "__main__":
    BACKBONES["Tiny"], keras.applications.Tiny = TINY, tiny_constructor
    place = Path(sys.argv[1])
    os.environ["KERASFT_CACHE"] = str(place / "cache")
    if sys.argv[2:] == ["runs"]:
        answer = run(place)
    elif sys.argv[2:] == ["more"]:
        answer = {"fits": fits(1e-3, 3e-5, 1e-30, 0.0), "epochs": train_epochs("plain", "all")}
    else:
        answer = {
            "engine": compute(),
            "fits": fits(1.0, 1e6, 5e-6),
            "epochs": train_epochs("norms"),
        }
    print(json.dumps(answer))
