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
from kerasft.config.fields import Solved
from kerasft.data.source import Source
from kerasft.heads import methods, solved, solver
from kerasft.heads.solved import Examples
from kerasft.heads.trained import STANDARD, set_standard
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.cut import digest_of, fingerprint, may_change, thaw
from kerasft.models.live import restore_precision, set_precision
from kerasft.models.net import Net
from kerasft.progress import Event, Part
from kerasft.record import Solving, Steps
from kerasft.run import read_metrics, write_metrics
from kerasft.training.fit import fit
from kerasft.training.trainable import open_trainable


@dataclass(frozen=True, eq=False)
class PhaseOutcome:
    """What a phase has made, before it is saved, proven and judged.

    Attributes:
        model: the whole model, pixels to scores.
        start: `cut.fingerprint` of it as the phase began.
        trained: positions in `model.weights` that the phase may have changed.
        line: the line of metrics.jsonl whose weights the model has.
        how: steps that were taken, or how the head was solved.
        parameters: number of weights that the phase could change.
        learning_norms: names of the BatchNormalization layers that learned.
        stored: what it was made from; None: from pixels.
        parts: what it took.
    """

    model: keras.Model
    start: list[tuple[str, str]]
    trained: set[int]
    line: dict[str, Any]
    how: Steps | Solving
    parameters: int
    learning_norms: tuple[str, ...]
    stored: Stored | None
    parts: list[Part]


def train_suffix(context: RunContext, index: int, net: Net, seed: int) -> PhaseOutcome:
    """Trains what is above the cut until its best epoch, or goes on with it.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: the whole net as the phase begins; it is trained in place.
        seed: the phase's seed.

    Raises:
        PhaseFailed, UserError: see `prefix_pass.activations_at` and `fit.fit`.
    """
    model, start = net.model, fingerprint(net.model)
    images = len(context.source.indices("train"))
    trainable = open_trainable(context.plan, index, net, images)
    phase, cut, parameters = trainable.phase, trainable.cut, trainable.parameters
    changing = may_change(model, cut, phase.batch_norm)
    figures = {
        "blocks": len(cut.blocks),
        "epochs": phase.epochs,
        "trainable_parameters": parameters,
    }
    context.progress(Event("phase", 0, 1, phase.name, figures))
    stored = activations_at(context, index, net, cut) if trainable.stored else None
    if index == 0 and _has_standard(model) and cut.prefix is not None:
        features = _features(context, "train", net.base, None if cut.blocks else stored)
        set_standard(model, features)
        pairs = zip(start, fingerprint(model), strict=True)
        start = [now if now[0].startswith(f"{STANDARD}/") else before for before, now in pairs]

    policies = set_precision(model, phase.precision)
    done, epochs = fit(context, trainable, seed, start=digest_of(start), stored=stored)
    restore_precision(policies)
    thaw(model)
    return PhaseOutcome(
        model=model,
        start=start,
        trained=changing,
        line=done.lines[done.best_epoch - 1],
        how=Steps(done.epoch, done.best_epoch),
        parameters=parameters,
        learning_norms=trainable.learning_norms,
        stored=stored,
        parts=[part for part in (stored and stored.part, epochs) if part],
    )


def _has_standard(model: keras.Model) -> bool:
    return STANDARD in {layer.name for layer in model.layers}


def solve_head(context: RunContext, index: int, phase: Solved, net: Net, seed: int) -> PhaseOutcome:
    """Puts a head that scikit-learn solves on the features of a model.

    Training and validation images are taken as they are, without augmentation. What is tried is
    settled by cross-validation inside the training split; the test split is not looked at.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        phase: the phase's settings.
        net: the whole net as the phase begins; its head is left away.
        seed: the phase's seed.

    Raises:
        PhaseFailed, UserError: see `prefix_pass.activations_at` and `solver.solve`.
    """
    source, classes = context.source, len(context.source.class_names)
    context.progress(Event("phase", 0, 1, phase.name, {"method": phase.method}))
    before = fingerprint(net.model)
    stored = None
    if context.plan.phases[index].stored:
        stored = activations_at(context, index, net, net.cut(0))
    base = net.base
    features = {name: _features(context, name, base, stored) for name in TRAIN_AND_VALIDATION}
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
    whole = solved.attach(base, solution, classes)
    part.end()

    # What the base was before anything was computed; the head's weights are new.
    known = {id(v): at for v, at in zip(net.model.weights, before, strict=True)}
    of_base = {id(variable) for variable in base.weights}
    now = fingerprint(whole)
    start = [
        known[id(v)] if id(v) in of_base else at for v, at in zip(whole.weights, now, strict=True)
    ]
    trained = {i for i, variable in enumerate(whole.weights) if id(variable) not in of_base}
    suffix = Net(whole, net.rows).cut(0).suffix
    line = {"phase": phase.name, "epoch": 1, **_figures(suffix, examples)}
    line |= {"method": phase.method, "parameters": solution.parameters}
    if stored:
        line["activations"] = stored.dtype
    earlier = [x for x in read_metrics(context.run) if x["phase"] != phase.name]
    write_metrics(context.run, [*earlier, line])
    return PhaseOutcome(
        model=whole,
        start=start,
        trained=trained,
        line=line,
        how=Solving(
            method=solution.method,
            parameters=solution.parameters,
            tried=tuple(solution.tried),
            score=solution.score,
            converged=solution.converged,
            notes=tuple(solution.notes),
        ),
        parameters=sum(int(np.prod(whole.weights[i].shape)) for i in trained),
        learning_norms=(),
        stored=stored,
        parts=[one for one in (stored and stored.part, part) if one],
    )


def _features(
    context: RunContext, name: str, base: keras.Model, stored: Stored | None
) -> np.ndarray:
    """Returns features float32 [N,F] of a split, each image as it is."""
    if stored:
        rows = stored.train[0] if name == "train" else stored.validation
        return np.asarray(rows, np.float32)
    total = len(context.labels(name))
    computed = bundle.compute(
        base, context.batches(name), total=total, what="features", progress=context.progress
    )
    return np.asarray(computed, np.float32)


def _examples(source: Source, name: str, features: np.ndarray) -> Examples:
    """The images of a split as a solver takes them."""
    positions = source.indices(name)
    groups = [source.groups[i] for i in positions] if source.groups else None
    return Examples(features, source.labels[positions], groups)


def _figures(suffix: keras.Model, examples: dict[str, Examples]) -> dict[str, float]:
    """Loss and accuracy on training and validation features, named as in metrics.jsonl."""
    figures: dict[str, float] = {}
    for name, prefix in zip(TRAIN_AND_VALIDATION, ("", "val_"), strict=True):
        labels = examples[name].labels
        logits = np.asarray(bundle.compute(suffix, _read(examples[name].features)))
        of_split = Figures.of(logits, labels)
        figures |= {f"{prefix}loss": of_split.loss, f"{prefix}accuracy": of_split.accuracy}
    return figures


def _read(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[i : i + SCORING_BATCH] for i in range(0, len(rows), SCORING_BATCH))
