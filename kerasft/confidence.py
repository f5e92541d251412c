"""How far a score can be trusted: a temperature, and a threshold for "I don't know".

A net that is trained on few photos says 0.99 more often than it is right. A temperature T divides
its logits, so that of the answers with score 0.9 about 90% are right; the order of the classes
stays. Below a threshold the model abstains. (Photos unlike all training photos: `novelty/`.)

Everything here is fitted on validation. The figures of a temperature are out-of-fold: each photo
is judged with a temperature that was fitted without it.

Shapes: N images, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerasft.metrics import calibration_error, log_loss, log_losses
from kerasft.results import Result

FOLDS = 5
SURE = 2.0  # standard errors by which the loss must fall
HOTTEST = 1000.0  # largest temperature that is tried; the lowest is its inverse
RISK = 0.05  # of a threshold whose precision is lower than promised


@dataclass(frozen=True)
class Quality(Result):
    """How well scores fit the truth.

    Attributes:
        loss: mean log loss, nats.
        ece: expected calibration error over 15 bins, 0 to 1 (`metrics.calibration_error`).
    """

    loss: float
    ece: float

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "Quality":
        """Measures the scores of logits [N,K] against labels int [N]."""
        scores = softmax(logits)
        hits = logits.argmax(axis=1) == labels
        return cls(log_loss(logits, labels), calibration_error(scores.max(axis=1), hits))


@dataclass(frozen=True)
class Calibration(Result):
    """A temperature, and what it does to the scores of the validation images.

    Attributes:
        temperature: number that the logits are divided by; 1 where none helped.
        n: number of validation images.
        before: quality of the scores without a temperature.
        after: quality with it, out-of-fold: each image is scored with a temperature that was
            fitted on other folds. Equal to `before` where none helped.
    """

    temperature: float
    n: int
    before: Quality
    after: Quality


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns scores float64 [N,K] that sum to 1, from logits [N,K]."""
    wide = np.asarray(logits, np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the lowest log loss, 1/1000 to 1000 (naive Bayes needs 100s).

    Args:
        logits: [N,K].
        labels: int [N].

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The
        loss is convex in 1/T.
    """
    from scipy.optimize import minimize_scalar  # imports of scipy cost every command time

    wide = np.asarray(logits, np.float64)
    limit = math.log(HOTTEST)
    found = minimize_scalar(
        lambda log_t: log_loss(wide / math.exp(log_t), labels),
        bounds=(-limit, limit),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(math.exp(found.x))


def calibrate(
    logits: np.ndarray, labels: np.ndarray, units: Sequence[int] | np.ndarray | None = None
) -> Calibration:
    """Fits a temperature, and keeps it only if the out-of-fold log loss falls for sure.

    The fall must be larger than `SURE` standard errors: a smaller one made scores worse on test
    as often as not (`scripts/results/bench_confidence.md`). A temperature below 1, which makes
    scores surer, needs at least `FOLDS` mistakes as well.

    Args:
        logits: logits of the validation images, [N,K], N at least 1.
        labels: their labels, int [N].
        units: number of each image's unit, int [N]: copies of a photo and photos of a group are
            one unit, and stay in one fold. None: each image is its own.

    Returns:
        The calibration; temperature 1 where none is kept, or where there are fewer than `FOLDS`
        units.
    """
    before = Quality.of(logits, labels)
    units = np.arange(len(labels)) if units is None else np.asarray(units)
    names, of_image = np.unique(units, return_inverse=True)
    unchanged = Calibration(1.0, len(labels), before, before)
    if len(names) < FOLDS:
        return unchanged
    folds = (np.random.default_rng(0).permutation(len(names)) % FOLDS)[of_image]
    wide = np.asarray(logits, np.float64)
    held_out = wide.copy()
    for fold in range(FOLDS):
        of_fold = folds == fold
        held_out[of_fold] /= fit_temperature(wide[~of_fold], labels[~of_fold])
    after, temperature = Quality.of(held_out, labels), fit_temperature(wide, labels)
    gains = log_losses(wide, labels) - log_losses(held_out, labels)
    of_unit = np.bincount(of_image, weights=gains)
    error = float(of_unit.std(ddof=1) * math.sqrt(len(of_unit)) / len(labels))
    mistakes = int((wide.argmax(axis=1) != labels).sum())
    if not after.loss < before.loss - SURE * error:
        return unchanged
    if temperature < 1 and mistakes < FOLDS:
        return unchanged  # without mistakes, the surer the better: nothing is known of the limit
    if not 1.01 / HOTTEST < temperature < HOTTEST / 1.01:
        return unchanged
    return Calibration(temperature, len(labels), before, after)


@dataclass(frozen=True)
class Abstention(Result):
    """A threshold below which the model says "I don't know".

    Attributes:
        promised: precision that was asked for, 0 to 1.
        threshold: lowest score that counts as an answer, 0 to 1.
        coverage: share of the validation images with such a score.
        precision: share of these whose label was predicted.
        bound: one-sided 95% lower bound of the precision; at least `promised`.
        n: number of validation images.
    """

    promised: float
    threshold: float
    coverage: float
    precision: float
    bound: float
    n: int


def lower_bound(hits: int, n: int) -> float:
    """Returns the one-sided 95% lower bound of a share; 0 for n = 0.

    Source: Clopper and Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934).
    """
    from scipy.stats import beta

    return float(beta.ppf(RISK, hits, n - hits + 1)) if hits else 0.0


def fewest(precision: float) -> int:
    """Returns how many images, all of them right, it takes to show a precision below 1."""
    return math.ceil(math.log(RISK) / math.log(precision) - 1e-9)


def abstain_at(
    precision: float,
    confidence: np.ndarray,
    hits: np.ndarray,
    units: Sequence[int] | np.ndarray | None = None,
) -> tuple[Abstention | None, str | None]:
    """Finds the lowest threshold at which answers have a precision, with 95% confidence.

    Thresholds are tested from the strictest one on that could show the precision at all (with all
    its images right), and the first that fails ends the test. So the risk of a threshold whose
    precision is lower than promised stays at 5%, though many are looked at.

    Args:
        precision: the precision, more than 0 and less than 1.
        confidence: highest score of each validation image, [N].
        hits: whether its label was predicted, bool [N].
        units: number of each image's unit, as for `calibrate`. A unit counts once in the bound, as
            right if all its images are, with its highest score. None: each image is its own.

    Returns:
        (the threshold, None), or (None, a sentence that says what it would take).

    Source: fixed-sequence testing, as in Angelopoulos et al., Learn then Test, 2021, section 3.2.
    """
    _, of_image = np.unique(np.arange(len(hits)) if units is None else units, return_inverse=True)
    surest = np.zeros(of_image.max(initial=-1) + 1)
    np.maximum.at(surest, of_image, confidence)
    wrong = np.bincount(of_image, weights=~hits) > 0
    order = np.argsort(-surest, kind="stable")
    sure, right = surest[order], np.cumsum(~wrong[order])
    n, least = len(sure), fewest(precision)
    # Images of equal score are answered together, or not at all.
    ends = [i + 1 for i in range(n) if i + 1 == n or sure[i + 1] < sure[i]]
    found = None
    for count in (end for end in ends if end >= least):
        bound = lower_bound(int(right[count - 1]), count)
        if bound < precision:
            break
        # Rounded down, so that the last bits of a float32 score don't decide.
        threshold = math.floor(float(sure[count - 1]) * 1e6) / 1e6
        answered = confidence >= threshold
        share, covered = float(hits[answered].mean()), float(answered.mean())
        found = Abstention(precision, threshold, covered, share, bound, len(hits))
    if found:
        return found, None
    first = next((end for end in ends if end >= least), n)
    return None, _what_it_takes(precision, n, least, first, int(right[first - 1]) if n else 0)


def _what_it_takes(precision: float, n: int, least: int, surest: int, hits: int) -> str:
    """Says why no threshold can be set: of the `surest` of n images, `hits` are right."""
    if n < least:
        return (
            f"It takes at least {least} validation images, all answered right, to show a precision "
            f"of {precision:g}; there are {n}."
        )
    share = hits / surest
    if share <= precision:
        return (
            f"Of the {surest} surest validation images, the fewest that could show a precision of "
            f"{precision:g}, {hits} are right. The model is not as good as that."
        )
    needed = surest
    while lower_bound(math.floor(share * needed), needed) < precision:
        needed += max(1, needed // 20)
    return (
        f"Of the {surest} surest validation images {hits} are right. To show a precision of "
        f"{precision:g} at that rate it would take about {needed} images that the model is as "
        f"sure of; there are {n} in all."
    )
