"""Figures: accuracy, log loss and calibration, computed from scores or logits and labels.

Shapes: T models that were tried, N images, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

BINS = 15
"""Number of bins of the expected calibration error, of equal width from 0 to 1."""


@dataclass(frozen=True)
class Figures:
    """Accuracy and loss of a model on some images.

    Attributes:
        accuracy: share of images whose highest logit is that of their label, 0 to 1.
        loss: mean log loss in nats, without label smoothing and class weights.
        n: number of images.
        base_rate: share of the most frequent class: the accuracy of always naming it. This and
            what follows is None, or (), for figures that were not computed class by class.
        balanced_accuracy: mean recall of the classes that have images.
        recall: share of each class's images that are recognized, by the name of the class;
            classes without images are not in it.
        never_predicted: names of the classes that have images, and that no image is taken for.
    """

    accuracy: float
    loss: float
    n: int
    base_rate: float | None = None
    balanced_accuracy: float | None = None
    recall: Mapping[str, float] | None = None
    never_predicted: Sequence[str] = ()

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "Figures":
        """Computes the figures from logits [N,K] and labels int [N]."""
        hits = logits.argmax(axis=1) == labels
        return cls(float(np.mean(hits)), log_loss(logits, labels), len(labels))

    @classmethod
    def by_class(
        cls, logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
    ) -> "Figures":
        """Computes the figures as `of` does, and those of each class.

        Args:
            logits: [N,K].
            labels: int [N].
            class_names: K names.
        """
        predicted = logits.argmax(axis=1)
        images = np.bincount(labels, minlength=len(class_names))
        hits = np.bincount(labels[predicted == labels], minlength=len(class_names))
        there = np.flatnonzero(images).tolist()
        return replace(
            cls.of(logits, labels),
            base_rate=float(images.max() / len(labels)),
            balanced_accuracy=float(np.mean(hits[there] / images[there])),
            recall={class_names[label]: float(hits[label] / images[label]) for label in there},
            never_predicted=[class_names[k] for k in there if not (predicted == k).any()],
        )

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        return wilson(round(self.accuracy * self.n), self.n)

    def to_json(self) -> dict[str, Any]:
        """Returns `{"accuracy", "loss", "n"}`, and the figures by class if there are any."""
        facts: dict[str, Any] = {"accuracy": self.accuracy, "loss": self.loss, "n": self.n}
        if self.recall is None:
            return facts
        return facts | {
            "base_rate": self.base_rate,
            "balanced_accuracy": self.balanced_accuracy,
            "recall": dict(self.recall),
            "never_predicted": list(self.never_predicted),
        }


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of several models on the same images: what a choice among them was based on.

    Training tries an epoch after the other, a method of solving tries settings, `compare` tries
    ways; the validation images choose. With the answers of all that was tried,
    `compare/correction.py` says how much of the chosen one's accuracy is luck.

    Attributes:
        losses: log loss of each image in nats, float32 [T,N]; the model with the lowest mean is
            chosen.
        right: whether the label of the image was predicted, bool [T,N].
    """

    losses: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "Answers":
        """Returns the answers of one model, from logits [N,K] and labels int [N]."""
        losses = log_losses(logits, labels).astype(np.float32)
        return cls(losses[None], (logits.argmax(axis=1) == labels)[None])

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Returns the answers of all models of several parts, in their order."""
        return cls(
            np.concatenate([part.losses for part in parts]),
            np.concatenate([part.right for part in parts]),
        )


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Returns the 95% confidence interval of a share.

    Args:
        successes: number of successes.
        n: number of trials.

    Returns:
        (low, high) within 0 and 1; (0, 1) for n = 0, when nothing is known.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical
        Inference, JASA 22 (1927). Unlike the normal approximation it holds for 0 and n successes.
    """
    if n == 0:
        return 0.0, 1.0
    z = 1.959963984540054  # 0.975 quantile of the normal distribution
    share = successes / n
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool], lead: float | None = None) -> float:
    """Returns the probability of a difference as large as this if both were equally good.

    Args:
        ours, theirs: for each image whether it was right; the same images in both.
        lead: number of images by which `ours` is taken to be better, because it was chosen on
            them; a negative one counts as none. None takes the number on the images.

    Source: McNemar 1947; the exact test on the images where one is right and the other wrong.
    """
    from scipy import stats  # not with every command

    one, other = np.asarray(ours, bool), np.asarray(theirs, bool)
    only_one, only_other = int((one & ~other).sum()), int((~one & other).sum())
    apart = only_one + only_other
    if not apart:
        return 1.0
    if lead is not None:
        only_one = (apart + min(apart, max(0, round(lead)))) // 2
    return float(stats.binomtest(only_one, apart, 0.5).pvalue)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of `log_losses`."""
    return float(log_losses(logits, labels).mean())


def log_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns -log(score of the label) of each image in nats, float64 [N], from logits [N,K].

    It is computed from logits, because the score of a confident mistake is 0 in float32. That of
    an infinite logit is NaN.
    """
    wide = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore"):
        wide = wide - wide.max(axis=1, keepdims=True)
    log_scores = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return -log_scores[np.arange(len(labels)), labels]


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """Returns the bin of each confidence, [N], 0 to 1, of the calibration error: int [N]."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def calibration_error(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Returns the expected calibration error: 0 if 80% of images with confidence 0.8 are right.

    Args:
        confidence: highest score of each image, [N], 0 to 1.
        hits: bool [N], whether the label of the image was predicted.

    Returns:
        Mean over the images of |accuracy - mean confidence| in their bin, with 15 bins of equal
        width that are open on the left, such as (0.8, 0.867].

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    confidence = confidence.astype(np.float64)
    bins = bins_of(confidence)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=BINS)  # n · (accuracy - mean)
    return float(np.abs(gaps).sum() / len(hits))
