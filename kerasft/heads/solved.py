"""Solved heads as numbers and as stock layers: what a method found, and the layers that compute it.

Shapes: N images, F features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class Examples:
    """The images of one split, as a head sees them.

    Attributes:
        features: float32 [N,F], of the plain view.
        labels: int [N], 0 to K - 1.
        groups: N names of groups that cross-validation keeps together; "" is none. Or None.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: Sequence[str] | None = None

    def take(self, rows: np.ndarray) -> "Examples":
        """Returns some of the images, without groups."""
        return Examples(self.features[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Linear:
    """Logits (or, for "svm", what Platt's sigmoid takes) that are linear in the features.

    Attributes:
        scaler: mean and scale [F] of the features, or None where they enter as they are.
        kernel: [F,K].
        bias: [K].
        sigmoid: whether a log-sigmoid makes the logits.
    """

    scaler: tuple[np.ndarray, np.ndarray] | None
    kernel: np.ndarray
    bias: np.ndarray
    sigmoid: bool = False


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A normal distribution per class and feature: means, variances [K,F], log priors [K]."""

    means: np.ndarray
    variances: np.ndarray
    log_priors: np.ndarray


@dataclass(frozen=True, eq=False)
class SupportVectors:
    """An SVM with a Gaussian kernel, one-vs-one, and Platt's sigmoids.

    Attributes:
        scaler: mean and scale [F] of the features.
        gamma: of the kernel exp(-gamma |x - s|²).
        vectors: [S,F], scaled, class by class.
        counts: [K], how many belong to each class.
        coefficients: [S,K-1]: of a vector of class i in the pair with the class j, in
            column j, or j - 1 where j > i.
        intercepts: of the pairs (0,1), (0,2), ... (1,2), ...; a positive decision is for the
            first of a pair, but for K = 2 for class 1, as in scikit-learn.
        slopes: [K] ([1] for K = 2); Platt's z = slope * decision + offset.
        offsets: like `slopes`.
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
    """Stored features that vote.

    Attributes:
        vectors: of the training images, [N,F], of length 1.
        votes: [N,K], what each image says for its class, and 0.
        k: how many vote, the nearest by cosine.
        floor: added to the mean vote for each class, so that it has a log.
    """

    vectors: np.ndarray
    votes: np.ndarray
    k: int
    floor: float


Form = Linear | Gaussians | SupportVectors | Neighbours


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved head.

    Attributes:
        method: a key of METHODS.
        parameters: the setting that was chosen.
        tried: `{"parameters", "score"}` of each setting, the simplest one first.
        score: what the scores are, for people: "log loss in 5-fold cross-validation". Of a
            log loss the lowest was chosen, of an accuracy the highest; of equals the simplest.
        converged: whether the solver of the chosen setting came to its end.
        notes: sentences for people.
        estimator: features [N,F] to the reference by its `predict_proba` [N,K].
        form: the numbers that `heads/solved.py` writes into layers.
    """

    method: str
    parameters: dict[str, float | int]
    tried: list[dict]
    score: str
    converged: bool
    notes: tuple[str, ...]
    estimator: Any
    form: Form


def attach(base: keras.Model, solution: Solution, num_classes: int) -> keras.Model:
    """Puts a solved head on a backbone.

    Args:
        base: pixels [B,S,S,3] to features [B,F], those that the head was solved from.
        solution: of `solver.solve`.
        num_classes: K.

    Returns:
        One flat model, pixels to scores float32 [B,K] that sum to 1. Its layer "logits" gives
        logits whose softmax is the `predict_proba` of the solution's estimator.
    """
    logits = _write(base.outputs[0], solution.form, num_classes)
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
    # The softmax of log-sigmoids is each sigmoid over the sum of all.
    return _log_sigmoid(_dense(x, "head_svm", form.kernel, form.bias))


def _gaussians(features: keras.KerasTensor, form: Gaussians, num_classes: int) -> keras.KerasTensor:
    """log prior - ½ Σ log 2π variance - ½ Σ (x - mean)² / variance, without what all share.

    Centred: expanded to a Dense layer of [x, x²] it is off by 0.29 in probability on real
    features. And the sums run to 15,000, where float32 has steps of 0.001, but their
    differences do not: so each feature's mean over the classes goes before the sum.
    """
    x = keras.layers.RepeatVector(num_classes, name="head_repeat")(features)
    z = _normalised(x, "head_gaussians", (1, 2), form.means, form.variances)
    squares = _named(keras.ops.square(z), "head_squares")
    shared = _named(keras.ops.mean(squares, axis=1, keepdims=True), "head_shared")
    own = keras.layers.Subtract(name="head_own")([squares, shared])
    distances = _named(keras.ops.sum(own, axis=2), "head_distances")
    twice = 2 * form.log_priors - np.log(2 * np.pi * form.variances).sum(axis=1)
    # (d - c) / √4 and not a Dense: its matrix product may be of less than float32 on a GPU.
    halves = _normalised(distances, "head_priors", -1, twice - twice.mean(), np.full(len(twice), 4))
    return keras.layers.Rescaling(-1.0, name="logits")(halves)


def _support_vectors(
    features: keras.KerasTensor, form: SupportVectors, num_classes: int
) -> keras.KerasTensor:
    """exp(-gamma |x - s|²), the decisions of the pairs, their votes, Platt's sigmoids.

    The coefficients of a pair sum to 0, but their sizes to thousands. So from each kernel value
    goes what all have about in common, exactly where that is most (expm1), and a decision keeps
    more digits in float32: on flowers5 it is off by 4e-6 in place of 1.4e-5. An image that a pair
    decides by less than that may get another vote than from scikit-learn.

    Source: `_ovr_decision_function` of scikit-learn: of equal votes the sums of decisions decide,
        squeezed to less than half a vote.
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
    # half [B,i,j]: what the vectors of class i say for i against j, and half of the intercept
    half = _named(keras.ops.stack(rows, axis=1), "head_half")
    other = keras.layers.Permute((2, 1), name="head_other_half")(half)
    pairs = keras.layers.Subtract(name="head_pairs")([half, other])  # > 0: for i against j
    signs = _named(keras.ops.sign(pairs), "head_signs")
    won = _named(keras.ops.sum(signs, axis=2), "head_won")  # votes for i, less those against
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
    """For each class i: [vectors of i, K] coefficients and [K] half intercepts, for i against j."""
    k = len(counts)
    halves = np.zeros((k, k))
    first, second = np.triu_indices(k, 1)
    halves[first, second] = intercepts / 2
    halves -= halves.T
    kernels = []
    for i, own in enumerate(np.split(coefficients, np.cumsum(counts)[:-1])):
        kernel = np.zeros((len(own), k))
        kernel[:, :i] = -own[:, :i]  # of the pair (j,i) the decision is for j
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
    # Not in the votes: sums of ones are exact, so that equal votes give equal scores.
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
    """(x - mean) / √variance. As weights: those given to the constructor go into the config."""
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
    """Names the operation that a function of `keras.ops` has made; they take no name.

    An automatic name could be in the base already, if that was loaded from a file.
    """
    tensor._keras_history.operation.name = name
    return tensor
