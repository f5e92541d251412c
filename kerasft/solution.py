"""What a solved head is: the images that it is solved from, and the numbers that were found.

Only NumPy: `methods.py` and `solvers.py` fill these by scikit-learn, `solved_heads.py` writes
them as Keras layers.

Shapes: N images, F features, K classes, S support vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
        form: the numbers that `solved_heads.py` writes into layers.
    """

    method: str
    parameters: dict[str, float | int]
    tried: list[dict]
    score: str
    converged: bool
    notes: tuple[str, ...]
    estimator: Any
    form: Form
