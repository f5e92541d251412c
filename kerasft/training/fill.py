"""The work of a phase: `train_suffix` trains the suffix step by step, `solve_head` solves a head.

Shapes: N images, F features, K classes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from kerasft.activations.context import SCORING_BATCH, RunContext
from kerasft.activations.keys import TRAIN_AND_VALIDATION
from kerasft.activations.prefix_pass import activations_at
from kerasft.activations.reading import read_in_order
from kerasft.activations.store import Stored, release
from kerasft.config.fields import Phase, Solved
from kerasft.data.source import Source
from kerasft.data.splits import bound_names, unit_numbers
from kerasft.errors import PhaseFailed
from kerasft.heads import methods, solved, solver
from kerasft.heads.co_tuning import CoTuning, relation
from kerasft.heads.solved import Examples
from kerasft.heads.start import STRENGTHS, HeadStart, solve_start
from kerasft.heads.trained import STANDARD, features_of, set_standard
from kerasft.metrics import Answers, Figures
from kerasft.models import build, bundle
from kerasft.models.cut import Cut, digest_of, fingerprint, may_change, thaw, with_features
from kerasft.models.live import computing_in
from kerasft.models.net import Net
from kerasft.progress import Event, Part
from kerasft.record import Solving, Steps
from kerasft.run import read_metrics, write_metrics
from kerasft.training import checkpoint
from kerasft.training.feed import class_weights
from kerasft.training.fit import fit
from kerasft.training.trainable import open_trainable

log = logging.getLogger("kerasft")


@dataclass(frozen=True, eq=False)
class PhaseOutcome:
    """The outcome of a phase, before its model is saved, proven and judged.

    Attributes:
        model: the whole model, pixels to scores.
        start: fingerprint of the model at the start of the phase (`cut.fingerprint`).
        trained: positions in `model.weights` that the phase may have changed.
        line: the line of metrics.jsonl that belongs to the model's weights.
        answers: validation answers of all epochs or settings among which validation chose; None
            if an older version has trained them.
        how: the training steps taken, or how the head was solved.
        parameters: number of parameters that the phase could change.
        learning_norms: names of the BatchNormalization layers that learned.
        stored: the stored activations that the phase used; None if it read pixels.
        parts: the parts of the work so far, with their times.
    """

    model: keras.Model
    start: list[tuple[str, str]]
    trained: set[int]
    line: Mapping[str, Any]
    answers: Answers | None
    how: Steps | Solving
    parameters: int
    learning_norms: tuple[str, ...]
    stored: Stored | None
    parts: list[Part]


def train_suffix(context: RunContext, index: int, net: Net, seed: int) -> PhaseOutcome:
    """Trains the suffix of a phase and keeps its best epoch; an interrupted phase is continued.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: the net that the phase begins with; it is trained in place.
        seed: the phase's seed.

    Raises:
        PhaseFailed, UserError: see `prefix_pass.activations_at` and `fit.fit`.
    """
    model, start = net.model, fingerprint(net.model)
    images = len(context.source.indices("train"))
    trainable = open_trainable(context.plan, index, net, images)
    phase, cut, parameters = trainable.phase, trainable.cut, trainable.parameters
    continued = checkpoint.load(context.run.checkpoints, phase.name) is not None
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

    if phase.co_tuning:
        second = _co_tuning(context, phase, model, cut, stored)
        trainable = replace(trainable, co_tuning=second)
    solving = head_start = None
    if phase.head_start == "solved" and stored and not continued:
        solving = Part("solving", len(STRENGTHS), context.progress, phase.name)
        head_start = _solve_start(context, phase, model, stored, solving)
        solving.end()
    with computing_in(model, phase.precision):
        fitted = fit(
            context,
            trainable,
            seed,
            # The head's own weights are not in it: solved on another machine, they differ a bit.
            start=digest_of(start),
            stored=stored,
            head_start=head_start,
            wise=phase.wise and index > 0 and phase.head_start == "kept",
        )
    thaw(model)
    return PhaseOutcome(
        model=model,
        start=start,
        trained=changing,
        line=fitted.line,
        answers=fitted.answers,
        how=fitted.how,
        parameters=parameters,
        learning_norms=trainable.learning_norms,
        stored=stored,
        parts=[part for part in (stored and stored.part, solving, fitted.part) if part],
    )


def _co_tuning(
    context: RunContext, phase: Phase, model: keras.Model, cut: Cut, stored: Stored | None
) -> CoTuning:
    """Sets Co-Tuning up: the relation between classes is read from the plain training images."""
    classifier = build.classifier(context.config.model.backbone)
    assert classifier is not None  # `plan.settle` has refused such a net
    both = with_features(model, cut)
    labels = context.labels("train")
    above, rows = keras.Model(model.inputs[0], features_of(model)), context.batches("train")
    if stored:  # the suffix alone will do
        above, plain = keras.Model(both.inputs[0], both.outputs[1]), stored.train[0]
        rows = (np.asarray(part, np.float32) for part in read_in_order(plain, SCORING_BATCH))
    features = np.asarray(bundle.compute(above, rows))
    related = relation(features, labels, *classifier, len(context.source.class_names))
    return CoTuning(both, classifier, related, phase.co_tuning)


def _solve_start(
    context: RunContext, phase: Phase, model: keras.Model, stored: Stored, part: Part
) -> HeadStart:
    """Solves the weights that a head begins with, puts them into the model and tells of them."""
    labels, classes = context.labels("train"), len(context.source.class_names)
    standard = None
    if _has_standard(model):
        layer = model.get_layer(STANDARD)
        mean, variance = (np.asarray(v, np.float32).ravel() for v in (layer.mean, layer.variance))
        standard = mean, np.sqrt(variance)
    solved_start = solve_start(
        stored.train,
        labels,
        np.asarray(stored.validation),
        context.labels("validation"),
        num_classes=classes,
        standard=standard,
        class_weights=class_weights(phase, labels, classes),
        label_smoothing=phase.label_smoothing,
        release=release,
        progress=part.step,
    )
    model.get_layer("logits").set_weights([solved_start.kernel, solved_start.bias])
    log.info(
        "%s: the head begins solved (ridge of strength %g, chosen on validation): validation "
        "accuracy %.3f, loss %.4f.",
        phase.name,
        solved_start.strength,
        solved_start.validation.accuracy,
        solved_start.validation.loss,
    )
    return solved_start


def _has_standard(model: keras.Model) -> bool:
    return STANDARD in {layer.name for layer in model.layers}


def solve_head(context: RunContext, index: int, phase: Solved, net: Net, seed: int) -> PhaseOutcome:
    """Solves a head with scikit-learn and puts it in place of the net's own.

    Training and validation images are used without augmentation. The method's settings are
    compared as `solver.solve` says; the test split is not used.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        phase: the phase's settings.
        net: the net that the phase begins with; its head is dropped.
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

    # The base's digests from before anything was computed; the head's weights are new.
    known = {id(v): at for v, at in zip(net.model.weights, before, strict=True)}
    of_base = {id(variable) for variable in base.weights}
    now = fingerprint(whole)
    start = [
        known[id(v)] if id(v) in of_base else at for v, at in zip(whole.weights, now, strict=True)
    ]
    trained = {i for i, variable in enumerate(whole.weights) if id(variable) not in of_base}
    suffix = Net(whole, net.rows).cut(0).suffix
    logits = {
        name: bundle.compute_rows(suffix, features[name], SCORING_BATCH)
        for name in TRAIN_AND_VALIDATION
    }
    line = {"phase": phase.name, "epoch": 1, **_figures(logits, examples)}
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
        answers=solution.answers or Answers.of(logits["validation"], examples["validation"].labels),
        how=Solving(
            method=solution.method,
            parameters=solution.parameters,
            tried=tuple(one.to_json() for one in solution.tried),
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
    """Returns the features of a split without augmentation, float32 [N,F]."""
    if stored:
        rows = stored.train[0] if name == "train" else stored.validation
        return np.asarray(rows, np.float32)
    total = len(context.labels(name))
    computed = bundle.compute(
        base, context.batches(name), total=total, what="features", progress=context.progress
    )
    features = np.asarray(computed, np.float32)
    if not np.isfinite(features).all():  # stores hold numbers alone
        raise PhaseFailed(
            "The frozen part computes features that are not numbers (NaN or infinite). Its weights "
            "are damaged, or do not belong to this net."
        )
    return features


def _examples(source: Source, name: str, features: np.ndarray) -> Examples:
    """Returns the images of a split in the form that a solver takes."""
    positions = source.indices(name)
    pictures = source.pictures()
    bound = bound_names(source)
    names = [bound[i] for i in positions] if bound else ()
    units = unit_numbers([pictures[i] for i in positions], names)
    return Examples(features, source.labels[positions], units)


def _figures(logits: dict[str, np.ndarray], examples: dict[str, Examples]) -> dict[str, float]:
    """Returns loss and accuracy on training and validation, named as in metrics.jsonl."""
    figures: dict[str, float] = {}
    for name, prefix in zip(TRAIN_AND_VALIDATION, ("", "val_"), strict=True):
        of_split = Figures.of(logits[name], examples[name].labels)
        figures |= {f"{prefix}loss": of_split.loss, f"{prefix}accuracy": of_split.accuracy}
    return figures
