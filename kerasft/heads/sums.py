"""Sums over the features of photos, by which a class can be learned when its photos are gone.

A discriminant (LDA) needs of its training images only how many each class has, the mean of their
features, and how they scatter around it: sums that do not grow with the number of images, to which
those of new images are added. `RUN/sums.npz` keeps them, and the features of the validation and
test images, without which nobody could say how good the new head is on the classes that are gone.

    Memory    what the file holds
    Sums      counts, means and scatter of components; each class has one, a merged class several
    solve     the discriminant, with the shrinkage that suits the validation images

Source: Hayes and Kanan, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis,
    2020, sections 3.1 and 3.2; Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances, 1979, for sums of two sets of images.

Shapes: N images, F features, K classes, C components.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerasft.errors import UserError
from kerasft.files import replacing
from kerasft.metrics import log_loss
from kerasft.untrusted import read_arrays

SHRINKAGES = (0.9, 0.6, 0.3)  # that are tried, for "lda" too
LEAST = 1e-12  # is added to scores that were summed, so that they have a log


@dataclass(frozen=True, eq=False)
class Sums:
    """What is kept of training images.

    Attributes:
        counts: number of images of each component, float64 [C].
        means: their mean features, float64 [C,F].
        scatter: sum of (x - mean) (x - mean)ᵀ over all images, float64 [F,F].
        class_of: class of each component, int [C].
    """

    counts: np.ndarray
    means: np.ndarray
    scatter: np.ndarray
    class_of: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[tuple[np.ndarray, np.ndarray]], num_classes: int) -> "Sums":
        """Sums the images of each class, which is one component.

        Args:
            batches: features [n,F] and labels int [n], a batch at a time.
            num_classes: K; classes without images have no component.
        """
        counts, shift = np.zeros(num_classes), np.zeros(0)
        for features, labels in batches:
            wide = features.astype(np.float64)
            if not len(shift):  # near the mean, so that little is lost when it is taken out
                shift = wide.mean(axis=0)
                sums = np.zeros((num_classes, len(shift)))
                squares = np.zeros((len(shift), len(shift)))
            wide -= shift
            np.add.at(sums, labels, wide)
            counts += np.bincount(labels, minlength=num_classes)
            squares += wide.T @ wide
        there = np.flatnonzero(counts)
        means = sums[there] / counts[there, None]
        squares -= (means * counts[there, None]).T @ means
        return cls(counts[there], means + shift, squares, there)

    def taken(self, classes: Sequence[int]) -> "Sums":
        """Returns the sums with other classes; components of one class stay apart.

        Args:
            classes: new class of each class, -1 for one that is left out. The scatter stays: it is
                that of all classes, and of some not known.
        """
        now = np.asarray(classes)[self.class_of]
        kept = now >= 0
        share = self.counts[kept].sum() / self.counts.sum()
        return Sums(self.counts[kept], self.means[kept], self.scatter * share, now[kept])

    def plus(self, other: "Sums") -> "Sums":
        """Adds the sums of other images, with the same numbers of classes.

        A component joins the one of its class; if that class has several, it stays apart.
        """
        counts, means = [*self.counts], [*self.means]
        class_of = self.class_of.tolist()
        scatter = self.scatter + other.scatter
        for n, mean, label in zip(other.counts, other.means, other.class_of.tolist(), strict=True):
            if class_of.count(label) != 1:
                counts.append(n)
                means.append(mean)
                class_of.append(label)
                continue
            at = class_of.index(label)
            between, total = mean - means[at], counts[at] + n
            scatter = scatter + np.outer(between, between) * (counts[at] * n / total)
            means[at] = means[at] + between * (n / total)
            counts[at] = total
        return Sums(np.array(counts), np.array(means), scatter, np.array(class_of, int))

    def discriminant(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Solves the discriminant: kernel [F,C] and bias [C] of the logits of the components.

        Args:
            shrinkage: share of the covariance that is replaced by the mean variance, 0 to 1.
        """
        total, f = self.counts.sum(), len(self.scatter)
        spread = np.trace(self.scatter) / f
        if spread <= 0:
            raise UserError(
                "The photos of each class have the same features, so there is no variance to "
                "learn from. Expected two different photos in some class."
            )
        covariance = (1 - shrinkage) * self.scatter + shrinkage * spread * np.eye(f)
        kernel = np.linalg.solve(covariance / total, self.means.T)
        bias = np.log(self.counts / total) - 0.5 * np.einsum("cf,fc->c", self.means, kernel)
        return centred(kernel, bias)


def centred(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Takes out of a kernel [F,C] and biases [C] what all logits share.

    A softmax ignores that, but in float32 it would cost digits.
    """
    return kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()


@dataclass(frozen=True, eq=False)
class Discriminant:
    """A head that was solved from sums.

    Attributes:
        kernel, bias: of the logits of the components, [F,C] and [C].
        class_of: class of each component, int [C].
        shrinkage: the shrinkage that was chosen.
        tried: pairs of shrinkage and log loss on the validation images.
    """

    kernel: np.ndarray
    bias: np.ndarray
    class_of: np.ndarray
    shrinkage: float
    tried: tuple[tuple[float, float], ...]

    @property
    def plain(self) -> bool:
        """Whether each class has one component, in order."""
        return self.class_of.tolist() == list(range(len(self.class_of)))


def solve(sums: Sums, features: np.ndarray, labels: np.ndarray, num_classes: int) -> Discriminant:
    """Solves a head, with the shrinkage of the lowest log loss on the validation images.

    Args:
        sums: sums of the training images.
        features: features of the validation images, [N,F].
        labels: their labels, int [N].
        num_classes: number of classes, K.

    Raises:
        UserError: no two photos of a class differ.
    """
    best: Discriminant | None = None
    tried: list[tuple[float, float]] = []
    for shrinkage in SHRINKAGES:
        kernel, bias = sums.discriminant(shrinkage)
        logits = class_logits(features @ kernel + bias, sums.class_of, num_classes)
        tried.append((shrinkage, log_loss(logits, labels)))
        if best is None or tried[-1][1] < min(loss for _, loss in tried[:-1]):
            best = Discriminant(kernel, bias, sums.class_of, shrinkage, ())
    assert best is not None
    return replace(best, tried=tuple(tried))


def class_logits(logits: np.ndarray, class_of: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns logits of classes [N,K] from those of components [N,C], whose scores are summed."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    return np.asarray(np.log(scores @ (class_of[:, None] == np.arange(num_classes)) + LEAST))


@dataclass(frozen=True, eq=False)
class Memory:
    """What a run keeps of its photos, in the features that enter its head.

    Attributes:
        sums: sums of the training images.
        validation, test: features of the images of these splits, [N,F], in the order of splits.csv.
    """

    sums: Sums
    validation: np.ndarray
    test: np.ndarray


def save(memory: Memory, path: Path) -> None:
    """Writes `sums.npz`, whole or not at all. Raises UserError if it can't be written."""
    sums = memory.sums
    upper = np.triu_indices(len(sums.scatter))
    arrays = {
        "counts": sums.counts,
        "means": sums.means.astype(np.float32),
        "scatter": sums.scatter[upper].astype(np.float32),  # symmetric
        "class_of": sums.class_of,
        "validation": narrow(memory.validation),
        "test": narrow(memory.test),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def narrow(features: np.ndarray) -> np.ndarray:
    """Returns features as float16, or as float32 where they are too large for that."""
    fits = np.abs(features).max(initial=0) < np.finfo(np.float16).max
    return features.astype(np.float16 if fits else np.float32)


def load(path: Path) -> Memory | None:
    """Reads `sums.npz`; None if there is none. Raises UserError if it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path, path.stat().st_size)
        counts, means = arrays["counts"], arrays["means"].astype(np.float64)
        class_of, packed = arrays["class_of"], arrays["scatter"]
        held = [arrays[name].astype(np.float32) for name in ("validation", "test")]
        c, f = means.shape
        shapes = [counts.shape, class_of.shape, packed.shape, *(one.shape[1:] for one in held)]
        if shapes != [(c,), (c,), (f * (f + 1) // 2,), (f,), (f,)]:
            raise ValueError(f"arrays of the shapes {shapes}")
        if class_of.dtype.kind != "i" or class_of.min(initial=0) < 0:
            raise ValueError("classes that are no numbers from 0")
        if not all(np.isfinite(one).all() for one in (counts, means, packed, *held)):
            raise ValueError("numbers that are not finite")
        if counts.min(initial=1) <= 0:
            raise ValueError("a class of no images")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    scatter = np.zeros((f, f))
    scatter[np.triu_indices(f)] = packed
    scatter = scatter + np.triu(scatter, 1).T
    return Memory(Sums(counts, means, scatter, class_of), *held)
