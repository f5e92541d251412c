"""How a phase fills what is above its cut: `train_suffix` by steps, `solve_head` at once.

Shapes: N images, F features, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasft.activations.context import SCORING_BATCH, RunContext
from kerasft.activations.keys import TRAIN_AND_VALIDATION
from kerasft.activations.prefix_pass import activations_at
from kerasft.activations.store import Stored
from kerasft.backbones import spec
from kerasft.config.fields import Phase, Solved
from kerasft.data.source import Source
from kerasft.heads import methods, solved, solver
from kerasft.heads.solved import Examples, Solution
from kerasft.heads.trained import STANDARD, features_of, set_standard
from kerasft.metrics import log_loss
from kerasft.models import bundle
from kerasft.models.cut import digest_of, fingerprint, freeze, may_change, split, thaw
from kerasft.models.live import restore_precision, set_precision
from kerasft.progress import Event, Part
from kerasft.run import read_metrics, write_metrics
from kerasft.training.fit import fit


@dataclass(frozen=True, eq=False)
class PhaseOutcome:
    """What a phase has made, before it is saved, proven and judged.

    Attributes:
        model: the whole model, pixels to scores.
        start: `cut.fingerprint` of it as the phase began.
        trained: positions in `model.weights` that the phase may have changed.
        line: the line of metrics.jsonl whose weights the model has.
        facts: what run.json records of it and of nothing else.
        stored: what it was made from; None: from pixels.
        parts: what it took.
    """

    model: keras.Model
    start: list[tuple[str, str]]
    trained: set[int]
    line: dict[str, Any]
    facts: dict[str, Any]
    stored: Stored | None
    parts: list[Part]


def train_suffix(
    context: RunContext, index: int, phase: Phase, model: keras.Model, seed: int
) -> PhaseOutcome:
    """Trains what is above the cut until its best epoch, or goes on with it.

    Args:
        context: the run.
        index: of the phase.
        phase: how to train.
        model: the whole model as the phase begins; it is trained in place.
        seed: the phase's.

    Raises:
        PhaseFailed, UserError: see `prefix_pass.activations_at` and `fit.fit`.
    """
    start = fingerprint(model)
    cut = split(model, phase.blocks, *spec.rows_of(context.config.model.backbone))
    released = freeze(cut, phase.batch_norm)
    trained = may_change(model, cut, phase.batch_norm)
    trainable = int(sum(np.prod(v.shape) for v in cut.suffix.trainable_variables))
    figures = {"blocks": len(cut.blocks), "epochs": phase.epochs, "trainable_parameters": trainable}
    context.progress(Event("phase", 0, 1, phase.name, figures))
    stored = activations_at(context, index, model, cut) if phase.stored else None
    if index == 0 and _has_standard(model) and cut.prefix is not None:
        features = _standard(context, model, stored if not cut.blocks else None)
        set_standard(model, features)
        pairs = zip(start, fingerprint(model), strict=True)
        start = [now if now[0].startswith(f"{STANDARD}/") else before for before, now in pairs]

    policies = set_precision(model, phase.precision)
    done, epochs = fit(context, phase, cut, seed, start=digest_of(start), stored=stored)
    restore_precision(policies)
    thaw(model)
    facts = {
        "epochs": done.epoch,
        "best_epoch": done.best_epoch,
        "trainable_parameters": trainable,
        "batch_norm_trained": released,
    }
    parts = [part for part in (stored and stored.part, epochs) if part]
    return PhaseOutcome(
        model, start, trained, done.lines[done.best_epoch - 1], facts, stored, parts
    )


def _has_standard(model: keras.Model) -> bool:
    return STANDARD in {layer.name for layer in model.layers}


def _standard(context: RunContext, model: keras.Model, stored: Stored | None) -> np.ndarray:
    """The features that several backbones make of the training images, float32 [N,F]."""
    return _features(context, "train", keras.Model(model.inputs[0], features_of(model)), stored)


def solve_head(
    context: RunContext, index: int, phase: Solved, model: keras.Model, seed: int
) -> PhaseOutcome:
    """Puts a head that scikit-learn solves on the features of a model.

    Training and validation images are taken as they are, without augmentation. What is tried is
    settled by cross-validation inside the training split; the test split is not looked at.

    Args:
        context: the run.
        index: of the phase.
        phase: which method.
        model: the whole model as the phase begins; its head is left away.
        seed: the phase's.

    Raises:
        PhaseFailed, UserError: see `prefix_pass.activations_at` and `solver.solve`.
    """
    source, classes = context.source, len(context.source.class_names)
    context.progress(Event("phase", 0, 1, phase.name, {"method": phase.method}))
    rows = spec.rows_of(context.config.model.backbone)
    cut = split(model, 0, *rows)
    before = fingerprint(model)
    stored = activations_at(context, index, model, cut) if phase.stored else None
    features = {name: _features(context, name, cut.prefix, stored) for name in TRAIN_AND_VALIDATION}
    examples = {name: _examples(source, name, features[name]) for name in TRAIN_AND_VALIDATION}

    part = Part("solving", methods.TRIES, context.progress, phase.name)

    def tell(done: int, total: int) -> None:
        context.progress(Event("check", done, total, phase.name, {"what": "solving"}))

    solution = solver.solve(
        phase.method,
        examples["train"],
        examples["validation"],
        num_classes=classes,
        class_weight=phase.class_weight,
        seed=seed,
        progress=tell,
    )
    base = keras.Model(model.inputs[0], features_of(model))
    whole = solved.attach(base, solution, classes)
    part.end()

    # What the base was before anything was computed; the head's weights are new.
    known = {id(v): at for v, at in zip(model.weights, before, strict=True)}
    of_base = {id(variable) for variable in base.weights}
    now = fingerprint(whole)
    start = [
        known[id(v)] if id(v) in of_base else at for v, at in zip(whole.weights, now, strict=True)
    ]
    trained = {i for i, variable in enumerate(whole.weights) if id(variable) not in of_base}
    suffix = split(whole, 0, *rows).suffix
    line = {"phase": phase.name, "epoch": 1, **_figures(suffix, examples)}
    line |= {"method": phase.method, "parameters": solution.parameters}
    if stored:
        line["activations"] = stored.dtype
    earlier = [x for x in read_metrics(context.run) if x["phase"] != phase.name]
    write_metrics(context.run, [*earlier, line])
    parameters = sum(int(np.prod(whole.weights[i].shape)) for i in trained)
    facts = {**_facts(solution), "trainable_parameters": parameters, "batch_norm_trained": []}
    parts = [one for one in (stored and stored.part, part) if one]
    return PhaseOutcome(whole, start, trained, line, facts, stored, parts)


def _features(
    context: RunContext, name: str, prefix: keras.Model | None, stored: Stored | None
) -> np.ndarray:
    """float32 [N,F] of a split, each image as it is."""
    if stored:
        rows = stored.train[0] if name == "train" else stored.validation
        return np.asarray(rows, np.float32)
    assert prefix is not None  # only the head is above the cut
    total = len(context.labels(name))
    computed = bundle.compute(
        prefix, context.batches(name), total=total, what="features", progress=context.progress
    )
    return np.asarray(computed, np.float32)


def _examples(source: Source, name: str, features: np.ndarray) -> Examples:
    """The images of a split as a solver takes them."""
    positions = source.indices(name)
    groups = [source.groups[i] for i in positions] if source.groups else None
    return Examples(features, source.labels[positions], groups)


def _figures(suffix: keras.Model, examples: dict[str, Examples]) -> dict[str, float]:
    """Loss and accuracy on training and validation features, named as in metrics.jsonl."""
    figures = {}
    for name, prefix in zip(TRAIN_AND_VALIDATION, ("", "val_"), strict=True):
        labels = examples[name].labels
        logits = np.asarray(bundle.compute(suffix, _read(examples[name].features)))
        figures[f"{prefix}loss"] = log_loss(logits, labels)
        figures[f"{prefix}accuracy"] = float(np.mean(logits.argmax(axis=1) == labels))
    return figures


def _read(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[i : i + SCORING_BATCH] for i in range(0, len(rows), SCORING_BATCH))


def _facts(solution: Solution) -> dict[str, Any]:
    return {
        "method": solution.method,
        "parameters": solution.parameters,
        "tried": solution.tried,
        "score": solution.score,
        "converged": solution.converged,
        "notes": list(solution.notes),
    }
