"""Solvers of heads, by scikit-learn: SVMs, discriminants, Bayes, nearest neighbours.

Each has a function that makes the estimator for a setting, and a `_finish_...` function, which
takes the numbers for the layers from the fitted one. The `Solver`s at the end join the two, and
`methods.METHODS` assigns them to the methods.

Shapes: N images, F features, K classes.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.extmath import softmax

from kerasft.errors import UserError
from kerasft.heads.solved import Examples, Form, Gaussians, Linear, Neighbours, SupportVectors
from kerasft.heads.sums import SHRINKAGES, centred

SATURATED = 1 - 1e-6  # a score above it counts as saturated
LARGEST_MATRIX = 8192  # most rows of the square matrix that "lda" solves: 0.5 GB


@dataclass(frozen=True)
class Task:
    """The inputs of a solver other than the images.

    Attributes:
        num_classes: number of classes, K.
        class_weight: weights of the classes, "none" or "balanced".
        seed: seed of the solver.
    """

    num_classes: int
    class_weight: str
    seed: int

    @property
    def weights(self) -> str | None:
        """The class weights as scikit-learn names them."""
        return None if self.class_weight == "none" else "balanced"

    @property
    def priors(self) -> np.ndarray | None:
        """Equal priors [K] where classes are balanced; None takes the classes' shares."""
        equal = np.full(self.num_classes, 1 / self.num_classes)
        return None if self.class_weight == "none" else equal


# ------------------------------------------------------------------ SVMs

Setting = dict[str, Any]
Folds = list[tuple[np.ndarray, np.ndarray]]
"""Pairs of rows to fit and rows to hold out."""
Finished = tuple[Any, Form, list[str]]


class _Scaler(StandardScaler):
    """A StandardScaler that does not scale a feature that is constant except for float32 noise."""

    def fit(self, X: np.ndarray, y: Any = None) -> "_Scaler":
        super().fit(X)
        flat = np.sqrt(self.var_) <= 1e-6 * np.maximum(1, np.abs(self.mean_))
        self.scale_[flat] = 1.0
        return self


def _svm(setting: Setting, task: Task) -> Any:
    svm = ManyClassSVC(
        C=setting["C"], class_weight=task.weights, random_state=task.seed, max_iter=10_000
    )
    return make_pipeline(_Scaler(), svm)


def _finish_svm(fitted: Any, train: Examples, validation: Examples, task: Task) -> Finished:
    pipeline, slopes, offsets, notes = _sigmoids_of(fitted, train, task)
    svm = pipeline[-1]
    kernel, bias = svm.coef_.T * slopes, svm.intercept_ * slopes + offsets
    if task.num_classes == 2:  # one decision, for class 1
        kernel, bias = np.hstack([-kernel, kernel]), np.concatenate([-bias, bias])
    return fitted, Linear(_scaler_of(pipeline), kernel, bias, sigmoid=True), notes


def _rbf_svm(setting: Setting, task: Task) -> Any:
    svm = SVC(C=setting["C"], gamma=setting["gamma"], class_weight=task.weights)
    return make_pipeline(_Scaler(), svm)


def _finish_rbf_svm(fitted: Any, train: Examples, validation: Examples, task: Task) -> Finished:
    pipeline, slopes, offsets, notes = _sigmoids_of(fitted, train, task)
    svm = pipeline[-1]
    form = SupportVectors(
        scaler=_scaler_of(pipeline),
        gamma=float(svm.gamma),
        vectors=svm.support_vectors_,
        counts=svm.n_support_,
        coefficients=svm.dual_coef_.T,
        intercepts=svm.intercept_,
        slopes=slopes,
        offsets=offsets,
    )
    size = _megabytes(len(form.vectors) * (train.features.shape[1] + task.num_classes))
    notes.append(f"The head holds {len(form.vectors):,} support vectors, {size}.")
    return fitted, form, notes


def fit_calibrated(svm: Any, train: Examples, folds: Folds, task: Task) -> Any:
    """Fits an SVM to all training images, and Platt's sigmoids to decisions out of fold.

    For the sigmoids, a copy of the SVM is fitted to each fold's other images and decides on the
    images held out; one sigmoid per class, or one for K = 2, is fitted to all these decisions. So
    neither an image's own label nor the validation split has a part in its score.

    Args:
        svm: the SVM, not fitted.
        train: the training images.
        folds: the folds; each image is held out once.
        task: the inputs of the solver other than the images.

    Returns:
        The fitted estimator, with probabilities.
    """
    weights = None
    if task.weights:  # else the sigmoids would learn the imbalance that the SVM compensates
        weights = compute_sample_weight("balanced", train.labels)
    platt = CalibratedClassifierCV(svm, method="sigmoid", cv=folds, ensemble=False)
    with warnings.catch_warnings():
        # It warns that only the sigmoids use the weights. The SVM balances its classes itself.
        warnings.filterwarnings("ignore", "Since Pipeline", UserWarning)
        return platt.fit(train.features, train.labels, sample_weight=weights)


def _sigmoids_of(
    fitted: Any, train: Examples, task: Task
) -> tuple[Any, np.ndarray, np.ndarray, list[str]]:
    """Takes the numbers from what `fit_calibrated` returned.

    Returns:
        The SVM that was fitted to all images; slopes and offsets of z = slope * decision + offset,
        one of each per class, or one for K = 2; notes.
    """
    (calibrated,) = fitted.calibrated_classifiers_
    slopes = np.array([-one.a_ for one in calibrated.calibrators])
    offsets = np.array([-one.b_ for one in calibrated.calibrators])
    notes = []
    if (slopes <= 0).any():
        turned = np.flatnonzero(slopes <= 0)
        of = "the decision" if task.num_classes == 2 else f"classes {', '.join(map(str, turned))}"
        notes.append(
            f"Platt scaling reversed {of}: on training images that were held out the SVM does "
            "worse than chance there. More training images would help."
        )
    return calibrated.estimator, slopes, offsets, notes


def _scaler_of(pipeline: Any) -> tuple[np.ndarray, np.ndarray]:
    return pipeline[0].mean_, pipeline[0].scale_


# ------------------------------------------------------------------ linear probabilities


def _logistic(setting: Setting, task: Task) -> Any:
    regression = LogisticRegression(C=setting["C"], class_weight=task.weights, max_iter=1000)
    return make_pipeline(_Scaler(), regression)


def _finish_logistic(fitted: Any, train: Examples, validation: Examples, task: Task) -> Finished:
    kernel, bias = fitted[-1].coef_.T, fitted[-1].intercept_
    if task.num_classes == 2:  # the softmax of -d/2 and d/2 is the sigmoid of d
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    return fitted, Linear(_scaler_of(fitted), kernel, bias), []


class _Discriminant:
    """`LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)`, by one linear system.

    scikit-learn solves least squares by singular values, which takes 10 times as long for 1,280
    features and 30 times for 2,048. If there are fewer images than features, the system has a row
    per image (Woodbury's identity), so that flat features of a convolution are possible too.
    """

    def __init__(self, shrinkage: float, priors: np.ndarray | None) -> None:
        self.shrinkage = shrinkage
        self.priors = priors

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "_Discriminant":
        x = features.astype(np.float64)
        n, f = x.shape
        if min(n, f) > LARGEST_MATRIX:
            raise UserError(
                f"lda: needs a matrix with {min(n, f):,} rows (images or features, whichever is "
                f"fewer), expected at most {LARGEST_MATRIX:,}. Use logistic, or fewer features."
            )
        counts = np.bincount(labels)
        priors = counts / n if self.priors is None else self.priors
        means = np.stack([x[labels == k].mean(axis=0) for k in range(len(counts))])
        x = (x - means[labels]) * np.sqrt(priors / counts)[labels, None]  # xᵀx: the covariance
        spread = np.einsum("nf,nf->", x, x) / f  # mean variance of a feature
        if spread <= 0:
            raise UserError(
                "lda: the training images of each class have the same features, so there is no "
                "variance to learn from. Expected two different images in some class. Use knn."
            )
        x *= np.sqrt(1 - self.shrinkage)
        added = self.shrinkage * spread
        if f <= n:
            inverse = np.linalg.solve(x.T @ x + added * np.eye(f), means.T)
        else:
            small = x @ x.T + added * np.eye(n)
            inverse = np.linalg.solve(small, x @ means.T)
            inverse = (means.T - x.T @ inverse) / added
        self.kernel = inverse
        self.bias = np.log(priors) - 0.5 * np.einsum("kf,fk->k", means, inverse)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        return softmax(features.astype(np.float64) @ self.kernel + self.bias)


def _lda(setting: Setting, task: Task) -> Any:
    return _Discriminant(setting["shrinkage"], task.priors)


def _finish_lda(fitted: Any, train: Examples, validation: Examples, task: Task) -> Finished:
    kernel, bias = centred(fitted.kernel, fitted.bias)
    return fitted, Linear(None, kernel, bias), _saturated(fitted, validation)


# ------------------------------------------------------------------ Bayes


class _Bayes(GaussianNB):
    """A GaussianNB that sums the variances in float64, not in the dtype of the features."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "_Bayes":
        super().fit(X.astype(np.float64), y)
        return self


def _bayes(setting: Setting, task: Task) -> Any:
    return _Bayes(priors=task.priors, var_smoothing=setting["var_smoothing"])


def _finish_bayes(fitted: Any, train: Examples, validation: Examples, task: Task) -> Finished:
    form = Gaussians(fitted.theta_, fitted.var_, np.log(fitted.class_prior_))
    return fitted, form, _saturated(fitted, validation)


def _saturated(fitted: Any, validation: Examples) -> list[str]:
    """Returns a note if scores are saturated, so that they are no longer probabilities."""
    best = fitted.predict_proba(validation.features).max(axis=1)
    share = float((best > SATURATED).mean())
    if share == 0:
        return []
    return [
        f"{share:.0%} of the validation images get a score within a millionth of 1: the labels may "
        "be right, but these scores are not probabilities."
    ]


# ------------------------------------------------------------------ nearest neighbours


class _Voters:
    """scikit-learn's nearest neighbours by cosine similarity, with scores that are never 0.

    Cosine of the raw features gave 86% in cross-validation (MobileNetV2, flowers), of standardised
    features 85%, Euclidean distance 80% at best (a few photos are then everybody's neighbours). A
    class without a vote gets a small floor, because logits are logs of scores. With balanced
    classes, a vote counts the more, the fewer photos its class has.
    """

    def __init__(self, k: int, task: Task) -> None:
        self.k = k
        self.task = task
        self.floor = 5e-5 / task.num_classes  # all floors together change a score by under 1e-4

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "_Voters":
        # Euclidean distances of unit vectors have the order of their cosines, and scikit-learn
        # compares them in float64.
        neighbours = KNeighborsClassifier(self.k, algorithm="brute")
        self.pipeline = make_pipeline(Normalizer(), neighbours).fit(features, labels)
        counts = np.bincount(labels)
        equal = self.task.weights is None
        self.weights = np.ones(len(counts)) if equal else counts.max() / counts
        self.votes = np.eye(len(counts))[labels] * self.weights
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        shares = self.pipeline.predict_proba(features) * self.weights + self.floor
        return shares / shares.sum(axis=1, keepdims=True)


def _knn(setting: Setting, task: Task) -> Any:
    return _Voters(setting["k"], task)


def _finish_knn(fitted: Any, train: Examples, validation: Examples, task: Task) -> Finished:
    n, f = train.features.shape
    vectors = fitted.pipeline[0].transform(train.features)
    form = Neighbours(vectors, fitted.votes, fitted.k, fitted.floor)
    size = _megabytes(n * (f + task.num_classes))
    return fitted, form, [f"The head holds the features of {n:,} training images, {size}."]


def _megabytes(floats: int) -> str:
    return f"{4 * floats / 1e6:,.1f} MB"


# ------------------------------------------------------------------ the solvers


@dataclass(frozen=True)
class Solver:
    """The functions that solve a head by one method.

    Attributes:
        settings: function from the numbers of features and of images to the `methods.TRIES`
            settings that are tried, simplest first.
        estimator: function from a setting and the task to an estimator, not fitted.
        score: score that compares settings, "log loss" or "accuracy".
        finish: function from the fitted estimator, the training images, the validation images and
            the task to the reference estimator, the numbers for the layers, and notes.
        folds: whether settings are compared by cross-validation.
        platt: whether `fit_calibrated` fits the chosen setting, for which the training images must
            permit two folds.
    """

    settings: Callable[[int, int], list[Setting]]
    estimator: Callable[[Setting, Task], Any]
    score: str
    finish: Callable[[Any, Examples, Examples, Task], Finished]
    folds: bool = True
    platt: bool = False


def _each(name: str, *values: float) -> Callable[[int, int], list[Setting]]:
    return lambda f, n: [{name: value} for value in values]


# The grids include the settings that were best, or one step less regularised, for MobileNetV2's
# features of ants_bees (277 images) and flowers5 (1,049). A `var_smoothing` over 0.1 amounts to the
# nearest mean: 47% instead of 68% on flowers5. Each gamma is a share of scikit-learn's default,
# 1 / F.
KNN = Solver(lambda f, n: [{"k": min(k, n)} for k in (25, 10, 3)], _knn, "log loss", _finish_knn)
BAYES = Solver(
    _each("var_smoothing", 1e-1, 3e-3, 1e-4), _bayes, "log loss", _finish_bayes, folds=False
)
LDA = Solver(_each("shrinkage", *SHRINKAGES), _lda, "log loss", _finish_lda)
LOGISTIC = Solver(_each("C", 1e-2, 1e-1, 1.0), _logistic, "log loss", _finish_logistic)
SVM = Solver(_each("C", 1e-4, 1e-3, 1e-2), _svm, "accuracy", _finish_svm, platt=True)
RBF_SVM = Solver(
    lambda f, n: [{"C": c, "gamma": share / f} for c, share in ((1, 0.1), (3, 0.25), (10, 1))],
    _rbf_svm,
    "accuracy",
    _finish_rbf_svm,
    platt=True,
)

MANY = 10  # number of classes from which it is faster to solve all of them at once
GRADIENT = 1e-6  # largest entry of the final gradient; liblinear's default tolerance leaves more


class ManyClassSVC(LinearSVC):
    """A LinearSVC that minimises the same loss for all classes at once if there are many.

    The loss is LinearSVC's: squared hinge, one class against the rest, the intercept regularised
    like a weight, "balanced" weights for a class's own images and not for the rest. With many
    classes, `tol` and `random_state` have no effect; decision values of liblinear, which stops at
    `tol`, are up to 1e-4 off.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> "ManyClassSVC":
        classes, rows = np.unique(y, return_inverse=True)
        if len(classes) < MANY:
            return super().fit(X, y)
        weights = compute_class_weight(self.class_weight, classes=classes, y=y)
        x = np.hstack([X, np.ones((len(X), 1))])
        signs = np.where(rows[:, None] == np.arange(len(classes)), 1.0, -1.0)
        costs = self.C * np.where(signs > 0, weights, 1.0)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = flat.reshape(x.shape[1], -1)
            slack = np.maximum(0, 1 - signs * (x @ w))
            pull = costs * slack
            gradient = w - 2 * (x.T @ (signs * pull))
            return 0.5 * np.vdot(w, w) + np.vdot(pull, slack), gradient.ravel()

        found = minimize(
            loss,
            np.zeros(x.shape[1] * len(classes)),
            jac=True,
            method="L-BFGS-B",
            # maxcor: the loss is stiff, and a step costs more than keeping 30 corrections.
            options={"gtol": GRADIENT, "ftol": 0, "maxiter": self.max_iter, "maxcor": 30},
        )
        if np.abs(found.jac).max() > GRADIENT and found.nit >= self.max_iter:
            warnings.warn(
                f"no solution after {found.nit} steps.",
                ConvergenceWarning,
                stacklevel=2,
            )
        kernel = found.x.reshape(x.shape[1], -1)
        self.classes_, self.n_features_in_, self.n_iter_ = classes, X.shape[1], found.nit
        self.coef_, self.intercept_ = np.ascontiguousarray(kernel[:-1].T), kernel[-1]
        return self
