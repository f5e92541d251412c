"""The start of a trained head: ridge logistic regression on stored features, solved at once.

A new head that begins with random weights needs more epochs the closer its classes lie together,
and no fixed number of epochs fits all photos. The loss of a single Dense layer is convex, so its
minimum is found instead: for several strengths of ridge regularisation, on all stored views, and
validation chooses among them. The epochs of the phase begin there.

Shapes: N training images, F features, K classes, M validation images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kerasft.metrics import Answers, Figures
from kerasft.results import Result

STRENGTHS = tuple(float(f"{10**power:.2g}") for power in np.arange(-0.5, -4.1, -0.5))
"""Strengths that are tried, the largest first; relative to the mean variance of the features."""

RISES = 2  # strengths in a row with a higher validation loss than the best, after which no more
# Products of a feature and a weight that all fits together may take, some 20 s on one core;
# the epochs do the rest. Evaluations of the loss for one strength are as many as fit in, at most
# MOST; a head for which fewer than FEWEST fit in is not solved (`costs_too_much`).
WORK = 2**39
FEWEST, MOST = 5, 100
IN_MEMORY = 2**24  # numbers of features that are kept; of more, CHUNK are read at a time
CHUNK = 2**22
LARGEST = 2**20  # weights of a head that is solved; the solver needs 15 numbers of 8 bytes for each


@dataclass(frozen=True)
class TriedStrength(Result):
    """A strength that was tried, and the head's figures on validation with it."""

    strength: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, eq=False)
class HeadStart:
    """The weights that a head begins with.

    Attributes:
        kernel: weights, float32 [F,K].
        bias: biases, float32 [K].
        strength: strength of the ridge, the one with the lowest validation loss; on a tie the
            largest.
        tried: strengths in the order in which they were tried.
        train: figures on the plain view of the training images.
        validation: figures on the validation images.
        answers: validation answers of all strengths.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    tried: tuple[TriedStrength, ...]
    train: Figures
    validation: Figures
    answers: Answers


def costs_too_much(features: int, num_classes: int) -> bool:
    """Returns whether solving a head would take longer than training it.

    Args:
        features: number of features of all training images together, each view counted.
        num_classes: number of classes, K.
    """
    return _evaluations(features, num_classes) < FEWEST


def _evaluations(features: int, num_classes: int) -> int:
    return int(WORK // (2 * features * num_classes * len(STRENGTHS)))


# With one thread of BLAS the sums are the same for any number of cores.
@threadpool_limits.wrap(limits=1, user_api="blas")
def solve_start(
    views: Sequence[Any],
    labels: np.ndarray,
    validation: np.ndarray,
    validation_labels: np.ndarray,
    *,
    num_classes: int,
    standard: tuple[np.ndarray, np.ndarray] | None = None,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    release: Callable[[Any], None] = lambda view: None,
    progress: Callable[[int], None] = lambda done: None,
) -> HeadStart:
    """Solves the head for each strength and takes the one that validation prefers.

    The loss is the mean cross entropy over all images and views, plus half the strength times the
    mean variance of the features times the sum of the squared weights; biases are free. Each
    strength begins with the solution of the one before. Weakly regularised heads fit training
    closely, so after RISES strengths that are worse on validation no weaker one is tried.

    Args:
        views: features of the training images, [N,F] for each view, the plain one first; arrays,
            or memory-mapped ones, which are read again and again if they are large.
        labels: labels of the training images, int [N].
        validation: features of the validation images, [M,F].
        validation_labels: their labels, int [M].
        num_classes: number of classes, K.
        standard: mean and standard deviation [F] by which the model standardises the features;
            None if it does not.
        class_weights: weight of each class in the loss, float [K]; None: no weights.
        label_smoothing: share of the target that is spread evenly over all classes, 0 to 1.
        release: the function that frees the memory which reading a memory-mapped view has taken.
        progress: the callback that receives the number of strengths that are done.

    Source: L-BFGS-B of SciPy. The strengths are relative to the variance, so that nets whose
        features have other scales get the same ones.
    """
    from scipy.optimize import minimize  # takes 0.2 s to load; not every command solves

    width = views[0].shape[1]
    size = len(labels) * len(views) * width
    if size <= IN_MEMORY:
        views = [np.asarray(view, np.float32) for view in views]
    one_hot = np.eye(num_classes, dtype=np.float32)
    targets = one_hot * (1 - label_smoothing) + label_smoothing / num_classes  # of each class
    weights = np.ones(len(labels), np.float32)
    if class_weights is not None:
        weights = class_weights[labels].astype(np.float32)
    total = float(weights.sum()) * len(views)
    deviation = math.sqrt(_mean_variance(views[0], standard))
    evaluations = min(MOST, max(FEWEST, _evaluations(size, num_classes)))

    def loss(flat: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        # The kernel is that of features of deviation 1: the solver stops where the gradient is
        # small, and that of small features always is.
        kernel, bias = _parts(flat, width, num_classes)
        kernel = kernel / deviation
        gradient = np.zeros_like(kernel)
        of_bias = np.zeros(num_classes)
        summed = 0.0
        for view in views:
            for rows, x in _chunks(view, standard):
                logs = _log_softmax(x @ kernel + bias)
                wanted = targets[labels[rows]]
                summed -= float((weights[rows] * (wanted * logs).sum(axis=1)).sum())
                difference = weights[rows, None] * (np.exp(logs) - wanted)
                gradient += x.T @ difference
                of_bias += difference.sum(axis=0)
            release(view)
        squares = float(np.square(kernel * deviation, dtype=np.float64).sum())
        of_kernel = gradient / (total * deviation) + strength * deviation * kernel
        slope = np.concatenate([of_kernel.ravel(), of_bias / total])
        return summed / total + strength / 2 * squares, slope.astype(np.float64)

    flat = np.zeros(width * num_classes + num_classes)
    best: tuple[Figures, float, np.ndarray, np.ndarray] | None = None
    tried: list[TriedStrength] = []
    answers: list[Answers] = []
    rises = 0
    for strength in STRENGTHS:
        flat = minimize(
            loss,
            flat,
            args=(strength,),
            jac=True,
            method="L-BFGS-B",
            options={"maxfun": evaluations, "gtol": 1e-6, "ftol": 1e-7, "maxcor": 5},
        ).x
        kernel, bias = _parts(flat, width, num_classes)
        kernel = kernel / deviation
        logits = _logits(validation, kernel, bias, standard)
        figures = Figures.of(logits, validation_labels)
        tried.append(TriedStrength(strength, figures.loss, figures.accuracy))
        answers.append(Answers.of(logits, validation_labels))
        progress(len(tried))
        if best is None or figures.loss < best[0].loss:
            best, rises = (figures, strength, kernel, bias), 0
        else:
            rises += 1
            if rises == RISES:
                break
    assert best is not None
    figures, strength, kernel, bias = best
    return HeadStart(
        kernel=kernel,
        bias=bias,
        strength=strength,
        tried=tuple(tried),
        train=Figures.of(_logits(views[0], kernel, bias, standard), labels),
        validation=figures,
        answers=Answers.joined(answers),
    )


def _parts(flat: np.ndarray, width: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel [F,K] and bias [K] in float32, from the solver's numbers."""
    both = flat.astype(np.float32)
    return both[: width * num_classes].reshape(width, num_classes), both[width * num_classes :]


def _logits(
    features: Any,
    kernel: np.ndarray,
    bias: np.ndarray,
    standard: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """Returns logits [N,K] of features [N,F]."""
    return np.concatenate([x @ kernel + bias for _, x in _chunks(features, standard)])


def _chunks(
    view: Any, standard: tuple[np.ndarray, np.ndarray] | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the rows of a view as float32, standardised, CHUNK numbers at a time."""
    step = max(1, CHUNK // view.shape[1])
    for start in range(0, len(view), step):
        rows = slice(start, min(start + step, len(view)))
        yield rows, _scaled(np.asarray(view[rows], np.float32), standard)


def _scaled(features: np.ndarray, standard: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    if standard is None:
        return features
    mean, deviation = standard
    return ((features - mean) / deviation).astype(np.float32)


def _mean_variance(view: Any, standard: tuple[np.ndarray, np.ndarray] | None) -> float:
    """Returns the variance of each feature, averaged over the features; 1 if none varies."""
    sums = squares = np.zeros(view.shape[1])
    for _, x in _chunks(view, standard):
        sums = sums + x.sum(axis=0, dtype=np.float64)
        squares = squares + np.square(x, dtype=np.float64).sum(axis=0)
    variance = float((squares / len(view) - np.square(sums / len(view))).mean())
    return variance if variance > 0 else 1.0


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
