"""Solved heads: the numbers that a method found, and the stock layers that compute with them.

Shapes: N images, F features, K classes.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasft.metrics import Answers
from kerasft.results import Result


@dataclass(frozen=True, eq=False)
class Examples:
    """The images of one split, as features.

    Attributes:
        features: features of the plain view, float32 [N,F].
        labels: labels, int [N], 0 to K - 1.
        units: number of each image's unit, int [N]; cross-validation keeps the images of a unit
            together (copies and groups, see `data/splits.py`). None if each is its own.
    """

    features: np.ndarray
    labels: np.ndarray
    units: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Examples":
        """Returns the images at some positions, without units."""
        return Examples(self.features[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Linear:
    """A head whose logits, or Platt's z for "svm", are linear in the features.

    Attributes:
        scaler: mean and scale [F] that standardise the features; None if they are not.
        kernel: weights, [F,K].
        bias: biases, [K].
        sigmoid: whether a log-sigmoid follows.
    """

    scaler: tuple[np.ndarray, np.ndarray] | None
    kernel: np.ndarray
    bias: np.ndarray
    sigmoid: bool = False


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A head with a normal distribution per class and feature.

    Attributes:
        means: means, [K,F].
        variances: variances, [K,F].
        log_priors: logs of the classes' prior probabilities, [K].
    """

    means: np.ndarray
    variances: np.ndarray
    log_priors: np.ndarray


@dataclass(frozen=True, eq=False)
class SupportVectors:
    """A head of one-vs-one SVMs with a Gaussian kernel, and Platt's sigmoids.

    Attributes:
        scaler: mean and scale [F] that standardise the features.
        gamma: parameter of the kernel exp(-gamma |x - s|²).
        vectors: support vectors, standardised, sorted by class, [S,F].
        counts: number of support vectors of each class, [K].
        coefficients: dual coefficients, [S,K-1]; that of a vector of class i in the pair with
            class j is in column j, or j - 1 if j > i.
        intercepts: intercepts of the pairs (0,1), (0,2), ... (1,2), ...; a positive decision is
            for the first of a pair, but for K = 2 it is for class 1, as in scikit-learn.
        slopes: slopes of Platt's z = slope * decision + offset, [K], or [1] for K = 2.
        offsets: offsets of Platt's z, shaped like `slopes`.
    """

    scaler: tuple[np.ndarray, np.ndarray]
    gamma: float
    vectors: np.ndarray
    counts: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A head in which the nearest training images vote.

    Attributes:
        vectors: features of the training images, scaled to length 1, [N,F].
        votes: weight of each image's vote in the column of its class, 0 in the others, [N,K].
        k: number of images that vote, the nearest by cosine similarity.
        floor: number that is added to each class's mean vote, so that it has a log.
    """

    vectors: np.ndarray
    votes: np.ndarray
    k: int
    floor: float


Form = Linear | Gaussians | SupportVectors | Neighbours


@dataclass(frozen=True)
class Tried(Result):
    """A setting of a method that was tried, and its score."""

    parameters: dict[str, float]
    score: float


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved head.

    Attributes:
        method: name of the method, a key of METHODS.
        parameters: the setting that was chosen.
        tried: settings with their scores, the simplest one first.
        score: name of the score, for people, such as "log loss in 5-fold cross-validation". The
            lowest log loss or the highest accuracy won; on a tie, the simplest setting.
        converged: whether the solver converged with the chosen setting.
        notes: sentences for people.
        estimator: fitted estimator, whose `predict_proba` [N,K] is the reference for the layers.
        form: the numbers that `attach` writes into layers.
        answers: answers of all settings on the validation images; None if these did not choose.
    """

    method: str
    parameters: dict[str, float | int]
    tried: list[Tried]
    score: str
    converged: bool
    notes: tuple[str, ...]
    estimator: Any
    form: Form
    answers: Answers | None = None


def attach(base: keras.Model, solution: Solution, num_classes: int) -> keras.Model:
    """Puts a solved head on a backbone.

    Args:
        base: the base, pixels [B,S,S,3] to the features [B,F] that the head was solved from.
        solution: the solution, from `solver.solve`.
        num_classes: number of classes, K.

    Returns:
        One flat model, pixels to scores float32 [B,K] that sum to 1. Its layer "logits" gives
        logits whose softmax is the `predict_proba` of the solution's estimator.
    """
    return attach_form(base, solution.form, num_classes)


def attach_form(base: keras.Model, form: Form, num_classes: int) -> keras.Model:
    """Puts the numbers of a head on a backbone, see `attach`."""
    logits = _write(base.outputs[0], form, num_classes)
    scores = keras.layers.Softmax(dtype="float32", name="scores")(logits)
    return keras.Model(base.inputs[0], scores)


def _write(features: keras.KerasTensor, form: Form, num_classes: int) -> keras.KerasTensor:
    match form:
        case Linear():
            return _linear(features, form)
        case Gaussians():
            return _gaussians(features, form, num_classes)
        case SupportVectors():
            return _support_vectors(features, form, num_classes)
        case Neighbours():
            return _neighbours(features, form)


def _linear(features: keras.KerasTensor, form: Linear) -> keras.KerasTensor:
    x = features if form.scaler is None else _standardised(features, form.scaler)
    if not form.sigmoid:
        return _dense(x, "logits", form.kernel, form.bias)
    # The softmax of log-sigmoids is each sigmoid divided by the sum of all.
    return _log_sigmoid(_dense(x, "head_svm", form.kernel, form.bias))


def _gaussians(features: keras.KerasTensor, form: Gaussians, num_classes: int) -> keras.KerasTensor:
    """Adds log prior - ½ Σ log 2π variance - ½ Σ (x - mean)² / variance, up to a common term.

    The squares are computed of differences: expanded to a Dense layer of [x, x²], probabilities
    are off by up to 0.29 on real features. The sums reach 15,000, where float32 has steps of
    0.001, while their differences are small; so each feature's mean over the classes is subtracted
    before summing.
    """
    x = keras.layers.RepeatVector(num_classes, name="head_repeat")(features)
    z = _normalised(x, "head_gaussians", (1, 2), form.means, form.variances)
    squares = _named(keras.ops.square(z), "head_squares")
    shared = _named(keras.ops.mean(squares, axis=1, keepdims=True), "head_shared")
    own = keras.layers.Subtract(name="head_own")([squares, shared])
    distances = _named(keras.ops.sum(own, axis=2), "head_distances")
    twice = 2 * form.log_priors - np.log(2 * np.pi * form.variances).sum(axis=1)
    # (d - c) / √4 instead of a Dense, whose matrix product may be less than float32 on a GPU.
    halves = _normalised(distances, "head_priors", -1, twice - twice.mean(), np.full(len(twice), 4))
    return keras.layers.Rescaling(-1.0, name="logits")(halves)


def _support_vectors(
    features: keras.KerasTensor, form: SupportVectors, num_classes: int
) -> keras.KerasTensor:
    """Adds kernel values exp(-gamma |x - s|²), decisions of the pairs, votes, Platt's sigmoids.

    The coefficients of a pair sum to 0, but their absolute values sum to thousands. So a value
    that all kernel values have roughly in common is subtracted from each (by expm1, exact where it
    is most of the value), and decisions keep more digits in float32: on flowers5 they are off by
    4e-6 instead of 1.4e-5. Where the decision of a pair is closer to 0 than that, the vote may
    differ from scikit-learn's.

    Source: `_ovr_decision_function` of scikit-learn: the sums of decisions, squeezed to less than
        half a vote, break ties between equal votes.
    """
    lengths = np.square(form.vectors).sum(axis=1)
    log_common = -2 * form.gamma * (lengths.mean() - np.square(form.vectors.mean(axis=0)).sum())
    common = np.exp(log_common)

    x = _standardised(features, form.scaler)
    own = keras.layers.Dot(axes=1, name="head_squares")([x, x])
    own = keras.layers.Rescaling(form.gamma, name="head_gamma")(own)
    inner = _dense(
        x, "head_vectors", 2 * form.gamma * form.vectors.T, -form.gamma * lengths - log_common
    )
    exponents = keras.layers.Subtract(name="head_exponents")([inner, own])
    near = _named(keras.ops.expm1(exponents), "head_kernel")
    kernel, bias = common * form.coefficients, form.intercepts
    if num_classes == 2:  # one decision, for class 1
        slope = form.slopes[0] * np.array([-1, 1])
        offset = form.offsets[0] * np.array([-1, 1])
        z = _dense(near, "head_platt", kernel * slope, bias * slope + offset)
        return _log_sigmoid(z)

    parts = keras.ops.split(near, np.cumsum(form.counts)[:-1].tolist(), axis=1)
    _named(parts[0], "head_split")
    rows = [
        _dense(part, f"head_class_{i}", own_kernel, own_bias)
        for i, (part, own_kernel, own_bias) in enumerate(
            zip(parts, *_by_class(kernel, bias, form.counts), strict=True)
        )
    ]
    # half [B,i,j]: sum over the vectors of class i for i against j, plus half of the intercept
    half = _named(keras.ops.stack(rows, axis=1), "head_half")
    other = keras.layers.Permute((2, 1), name="head_other_half")(half)
    pairs = keras.layers.Subtract(name="head_pairs")([half, other])  # > 0: for i against j
    signs = _named(keras.ops.sign(pairs), "head_signs")
    won = _named(keras.ops.sum(signs, axis=2), "head_won")  # votes for i minus votes against
    sums = _named(keras.ops.sum(pairs, axis=2), "head_sums")
    squeezed = keras.layers.Activation("softsign", name="head_squeezed")(sums)
    both = keras.layers.Concatenate(name="head_decisions")([won, squeezed])
    # votes = (won + K - 1) / 2; decision = votes + squeezed / 3; z = slope * decision + offset
    kernel = np.vstack([np.diag(form.slopes / 2), np.diag(form.slopes / 3)])
    bias = form.offsets + form.slopes * (num_classes - 1) / 2
    return _log_sigmoid(_dense(both, "head_platt", kernel, bias))


def _by_class(
    coefficients: np.ndarray, intercepts: np.ndarray, counts: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits the coefficients by class.

    Returns:
        For each class i, the coefficients [vectors of i, K] and the halved intercepts [K], for i
        against each class j.
    """
    k = len(counts)
    halves = np.zeros((k, k))
    first, second = np.triu_indices(k, 1)
    halves[first, second] = intercepts / 2
    halves -= halves.T
    kernels = []
    for i, own in enumerate(np.split(coefficients, np.cumsum(counts)[:-1])):
        kernel = np.zeros((len(own), k))
        kernel[:, :i] = -own[:, :i]  # in a pair (j,i), a positive decision is for j
        kernel[:, i + 1 :] = own[:, i:]
        kernels.append(kernel)
    return kernels, list(halves)


def _neighbours(features: keras.KerasTensor, form: Neighbours) -> keras.KerasTensor:
    x = keras.layers.UnitNormalization(name="head_unit")(features)
    cosines = _dense(x, "head_neighbours", form.vectors.T)
    _, nearest = keras.ops.top_k(cosines, form.k)
    _named(nearest, "head_nearest")
    count, width = form.votes.shape
    votes = _filled(keras.layers.Embedding(count, width, name="head_votes"), nearest, form.votes)
    shares = keras.layers.GlobalAveragePooling1D(name="head_shares")(votes)
    # Not added to the votes: sums of ones are exact, so equal votes give equal scores.
    shares = keras.layers.Rescaling(1.0, offset=form.floor, name="head_floor")(shares)
    logs = _named(keras.ops.log(shares), "head_log")
    return keras.layers.Activation("linear", name="logits")(logs)


def _standardised(x: keras.KerasTensor, scaler: tuple[np.ndarray, np.ndarray]) -> keras.KerasTensor:
    mean, scale = scaler
    return _normalised(x, "head_standardise", -1, mean, np.square(scale))


def _normalised(
    x: keras.KerasTensor,
    name: str,
    axis: int | tuple[int, ...],
    mean: np.ndarray,
    variance: np.ndarray,
) -> keras.KerasTensor:
    """Adds (x - mean) / √variance, as weights: constructor arguments would go into the config."""
    layer = keras.layers.Normalization(axis=axis, name=name)
    y = _filled(layer, x, mean, variance, np.array(0))
    layer.finalize_state()  # recomputes what `call` uses; set_weights does not
    return y


def _dense(
    x: keras.KerasTensor, name: str, kernel: np.ndarray, bias: np.ndarray | None = None
) -> keras.KerasTensor:
    layer = keras.layers.Dense(kernel.shape[1], use_bias=bias is not None, name=name)
    return _filled(layer, x, kernel, *([] if bias is None else [bias]))


def _filled(layer: Any, x: keras.KerasTensor, *weights: np.ndarray) -> keras.KerasTensor:
    y = layer(x)
    layer.set_weights(list(weights))
    return y


def _log_sigmoid(z: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Activation("log_sigmoid", name="logits")(z)


def _named(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Names the operation that a function of `keras.ops` has made, as those take no name.

    An automatic name could already be in the base, if that was loaded from a file.
    """
    tensor._keras_history.operation.name = name
    return tensor
