"""What the pages say of scored photos: figures by class, confusions, mistakes, calibration.

Shapes: N photos of a split, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kerasft.metrics import BINS, Figures, bins_of, calibration_error, log_losses, wilson


@dataclass(frozen=True, eq=False)
class Scored:
    """The photos of one split, and the model's scores of them.

    Attributes:
        split: name of the split.
        positions: positions of the photos in the source, int [N].
        labels: labels of the photos, int [N].
        scores: scores, float32 [N,K].
        logits: logits, float32 [N,K], which rank the classes.
        class_names: K names.
        temperature: number that the model divides its logits by to get the scores.
    """

    split: str
    positions: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    logits: np.ndarray
    class_names: tuple[str, ...]
    temperature: float = 1.0

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predicted classes, int [N]."""
        return self.logits.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest score of each photo, [N]."""
        return self.scores.max(axis=1)

    @cached_property
    def hits(self) -> np.ndarray:
        """Whether the label is predicted, bool [N]."""
        return self.predicted == self.labels

    @cached_property
    def figures(self) -> Figures:
        """Accuracy, loss, base rate and recall, as run.json has them.

        The loss on test is that of the scores, temperature included; the one on validation is
        that of the plain logits, by which the model was chosen.
        """
        divisor = self.temperature if self.split == "test" else 1.0
        return Figures.by_class(self.logits / divisor, self.labels, self.class_names)

    @cached_property
    def confusion(self) -> np.ndarray:
        """The number of photos of each label (rows) and prediction (columns), int [K,K]."""
        counts = np.zeros((len(self.class_names),) * 2, np.int64)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def worst_mistakes(self, most: int) -> list[int]:
        """Returns the wrong photos, 0 to N-1, those with the largest log loss first."""
        losses = log_losses(self.logits / self.temperature, self.labels)
        order = np.argsort(-losses, kind="stable")
        return [i for i in order.tolist() if not self.hits[i]][:most]

    def least_certain(self, most: int, without: Sequence[int] = ()) -> list[int]:
        """Returns the photos with the lowest confidence, 0 to N-1, the least certain first.

        Args:
            most: largest number of photos.
            without: photos that are left out.
        """
        order = np.argsort(self.confidence, kind="stable")
        return [i for i in order.tolist() if i not in set(without)][:most]


@dataclass(frozen=True)
class ClassRow:
    """The figures of one class, each share with its Wilson interval.

    Attributes:
        name: name of the class.
        images: number of its photos.
        predicted: number of photos that are taken for it.
        recall, recall_interval: share of its photos that are recognized.
        precision, precision_interval: share of the photos taken for it that are of it.
    """

    name: str
    images: int
    predicted: int
    recall: float | None
    recall_interval: tuple[float, float]
    precision: float | None
    precision_interval: tuple[float, float]


def class_rows(scored: Scored) -> list[ClassRow]:
    """Returns a row for each class; a share of no photos is None."""
    counts = scored.confusion
    rows = []
    for k, name in enumerate(scored.class_names):
        right, images, predicted = int(counts[k, k]), int(counts[k].sum()), int(counts[:, k].sum())
        rows.append(
            ClassRow(
                name=name,
                images=images,
                predicted=predicted,
                recall=right / images if images else None,
                recall_interval=wilson(right, images),
                precision=right / predicted if predicted else None,
                precision_interval=wilson(right, predicted),
            )
        )
    return rows


@dataclass(frozen=True)
class Bin:
    """The photos whose highest score lies in one interval.

    Attributes:
        low, high: ends of the interval.
        n: number of photos.
        confidence: mean of their highest scores.
        accuracy: share of them that are right.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(scores: np.ndarray, hits: np.ndarray) -> tuple[list[Bin], float]:
    """Sorts photos into the bins of the calibration error.

    Args:
        scores: [N,K].
        hits: bool [N], whether the label is predicted.

    Returns:
        The bins that hold photos, from low to high, and the expected calibration error.
    """
    confidence = scores.max(axis=1).astype(np.float64)
    which = bins_of(confidence)
    bins = [
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            n=int((which == number).sum()),
            confidence=float(confidence[which == number].mean()),
            accuracy=float(hits[which == number].mean()),
        )
        for number in np.unique(which).tolist()
    ]
    return bins, calibration_error(confidence, hits)
