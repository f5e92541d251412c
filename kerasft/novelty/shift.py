"""Shift: whether new photos differ, as a group, from the known ones, and in what.

    features of new and known photos --overall-------> do they differ at all?
    the same, known photos drawn in the class shares
    of the new ones                  --looks---------> do they look different within their classes?
    predicted classes of both        --class shares--> are other classes frequent?
    the photos of one class          --classes, Holm-> which classes look different?

The known photos are those of training. That is fair, because the *pretrained* features were not
fitted on them; what was fitted, the head, has no say (`class_mix.py`).

Of all statements together at most one in a hundred (`LEVEL`) calls a shift where there is none. The
overall test has one half of it, the classes have the other half together, by Holm: a shift of one
class is too small a part of all photos for the overall test, and one of all photos may be too small
in each class. Looks and class shares explain a shift that the overall test has found: each has half
of its level, and they speak only then.

Shapes: N new photos, M known photos, F features, K classes.
"""

from dataclasses import dataclass, replace

import numpy as np

from kerasft.novelty.class_mix import Classes, draw_with_mix, estimate_mix, fit_classes
from kerasft.novelty.known import unit
from kerasft.novelty.two_sample import (
    Outcome,
    counts_test,
    holm,
    kernel_of,
    permutation_test,
    witness,
)
from kerasft.seeds import derive_seed

LEVEL = 0.01
LEAST = 10  # photos of either side with which anything can be said
LEAST_OF_CLASS = 5  # photos of a class, of either side, with which something can be said of it
MOST = 1024  # new photos that are tested; with more, p-values hardly change and memory grows
MOST_CLASSES = 20  # those with most new photos; more would take more divisions than time
MOST_OF_CLASS = 256  # photos of a class of either side
PERMUTATIONS = 1999
FOR_EACH_CLASS = 1000  # divisions for each class that is tested, so that Holm's bound is in reach


@dataclass(frozen=True, eq=False)
class Reference:
    """The photos that new ones are compared with, see `refer_to`.

    Attributes:
        features: features of the known photos, scaled to length 1, float32 [M,F].
        labels: their classes, int [M].
        num_classes: K.
        classes: the classes of photos by these.
    """

    features: np.ndarray
    labels: np.ndarray
    num_classes: int
    classes: Classes


@dataclass(frozen=True)
class OfClass:
    """The result for one class.

    Attributes:
        label: number of the class.
        test: test of its looks, with p as if it were the only class; None if there are too few
            photos of it.
        adjusted: p by Holm; None without a test.
        new: number of new photos that are predicted as this class.
        known: number of known ones.
    """

    label: int
    test: Outcome | None
    adjusted: float | None
    new: int
    known: int


@dataclass(frozen=True, eq=False)
class Shift:
    """What is said of N new photos.

    Attributes:
        overall: test of all new photos with all known ones; the statistic is the squared MMD.
        looks: the same with known photos drawn in the class shares of the new ones; None if these
            are fewer than `LEAST`.
        shares: test of the class shares; the statistic is a chi-square.
        classes: what is said of each class, in their order.
        predicted: class of each new photo by the known ones, int [N].
        mix: estimated shares of the classes among the new photos, [K].
        witness: how much more each new photo is like the others than like the known photos of its
            mix of classes, [N]; the largest show what has shifted.
        tested: number of new photos in the tests of looks.
        drawn: number of known photos that were drawn for `looks`.
    """

    overall: Outcome
    looks: Outcome | None
    shares: Outcome
    classes: tuple[OfClass, ...]
    predicted: np.ndarray
    mix: np.ndarray
    witness: np.ndarray
    tested: int
    drawn: int

    @property
    def shifted(self) -> bool:
        """Whether anything has shifted: all photos together, or a class."""
        return self.overall.shifted or any(one.test and one.test.shifted for one in self.classes)


def refer_to(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Reference:
    """Prepares known photos for comparisons.

    Args:
        features: features of the known photos, [M,F], in any scale.
        labels: their classes, int [M].
        num_classes: K.
    """
    known = unit(features)
    return Reference(known, labels, num_classes, fit_classes(known, labels, num_classes))


def find_shift(reference: Reference, features: np.ndarray, seed: int = 0) -> Shift:
    """Compares new photos with the known ones.

    The order of the new photos does not matter. 1,024 of more new photos, chosen by the seed, are
    tested; all get a class and a witness.

    Args:
        reference: the known photos, at least `LEAST`.
        features: features of the new photos, [N,F], in any scale; N is at least `LEAST`.
        seed: seed of all choices and divisions.
    """
    given, known = unit(features), reference.features
    order = np.argsort(_bytes_of(given), kind="stable")
    new = given[order]
    classes = reference.classes
    predicted = classes.of(new)
    counts = np.bincount(predicted, minlength=reference.num_classes)
    of_known = np.bincount(classes.known, minlength=reference.num_classes)
    mix = estimate_mix(counts / len(new), classes.known, reference.labels)
    chosen = _sample(len(new), MOST, derive_seed(seed, "drift", "new"))
    drawn = draw_with_mix(reference.labels, mix, derive_seed(seed, "drift", "mix"))

    def test(old: np.ndarray, name: str, level: float) -> tuple[Outcome, np.ndarray, float]:
        alike, width = kernel_of(np.concatenate([new[chosen], old]))
        tested = permutation_test(
            alike,
            len(chosen),
            level=level,
            permutations=PERMUTATIONS,
            seed=derive_seed(seed, "drift", name),
        )
        return tested, alike, width

    overall, _, width = test(known, "overall", LEVEL / 2)
    shares = counts_test(
        counts,
        of_known,
        level=LEVEL / 4,
        permutations=PERMUTATIONS,
        seed=derive_seed(seed, "drift", "shares"),
    )
    looks, of_classes, old = None, _untested(counts, of_known), known
    if len(drawn) >= LEAST:
        old = known[drawn]
        looks, alike, width = test(old, "looks", LEVEL / 4)
        looks = _only_if(overall.shifted, looks)
        labels = np.concatenate([predicted[chosen], classes.known[drawn]])
        of_classes = _test_classes(
            of_classes, alike, labels, len(chosen), derive_seed(seed, "drift", "class")
        )
    own = np.isin(np.arange(len(new)), chosen)
    back = np.argsort(order)
    return Shift(
        overall,
        looks,
        _only_if(overall.shifted, shares),
        of_classes,
        predicted[back],
        mix,
        witness(new, new[chosen], old, width, own)[back],
        len(chosen),
        len(drawn),
    )


def _bytes_of(rows: np.ndarray) -> np.ndarray:
    """Returns each row as one value that can be sorted, so that the order of files is gone."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def _sample(total: int, most: int, seed: int) -> np.ndarray:
    """Returns positions below `total`, ascending: all, or `most` that the seed chooses."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


def _only_if(condition: bool, tested: Outcome) -> Outcome:
    """Returns a test that calls a shift only if another has called one before."""
    return replace(tested, shifted=tested.shifted and condition)


def _untested(new: np.ndarray, known: np.ndarray) -> tuple[OfClass, ...]:
    pairs = zip(new.tolist(), known.tolist(), strict=True)
    return tuple(OfClass(label, None, None, *counts) for label, counts in enumerate(pairs))


def _test_classes(
    classes: tuple[OfClass, ...],
    alike: np.ndarray,
    labels: np.ndarray,
    n: int,
    seed: int,
) -> tuple[OfClass, ...]:
    """Tests the looks of each class that has enough photos.

    Args:
        classes: the classes, untested.
        alike: kernel of n new and the drawn known photos.
        labels: predicted class of each of these.
        n: number of new ones.
        seed: seed of the divisions and of what is left out of large classes.
    """
    rows = {}
    for label in range(len(classes)):
        own = np.flatnonzero(labels == label)
        sides = own[own < n], own[own >= n]
        if min(map(len, sides)) >= LEAST_OF_CLASS:
            seeds = [derive_seed(seed, label, side) for side in (0, 1)]
            rows[label] = [
                side[_sample(len(side), MOST_OF_CLASS, one)]
                for side, one in zip(sides, seeds, strict=True)
            ]
    rows = dict(sorted(rows.items(), key=lambda item: -classes[item[0]].new)[:MOST_CLASSES])
    tested = {
        label: permutation_test(
            alike[np.ix_(both := np.concatenate(sides), both)],
            len(sides[0]),
            level=LEVEL / 2,
            permutations=max(PERMUTATIONS, FOR_EACH_CLASS * len(rows) - 1),
            seed=derive_seed(seed, label),
        )
        for label, sides in rows.items()
    }
    adjusted = dict(zip(tested, holm([one.p for one in tested.values()]), strict=True))
    return tuple(
        replace(
            one,
            test=replace(
                tested[one.label],
                shifted=adjusted[one.label] <= LEVEL / 2,
            ),
            adjusted=adjusted[one.label],
        )
        if one.label in tested
        else one
        for one in classes
    )
