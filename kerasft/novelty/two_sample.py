"""Two samples of features: whether both are from one distribution, and where they differ.

The test is the maximum mean discrepancy (MMD) with a Gaussian kernel. Its p-value is the share of
random divisions of all rows into two samples of these sizes that differ at least as much, the
division at hand counted in: so it is never 0, and holds for samples of any size.

The width of the kernel is the median of all distances, which found blurred and darkened photos at
least as often as smaller widths and mixtures of widths (`scripts/results/bench_drift.md`).

Sources: Gretton et al., A Kernel Two-Sample Test, JMLR 2012, sections 2 to 5 and 8; Rabanser,
    Günnemann and Lipton, Failing Loudly, NeurIPS 2019, who find it best on features of a net.

Shapes: N and M rows of two samples, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerasft.results import Result

CHUNK = 256  # divisions that are computed at once
ROUNDING = 1e-9  # by which statistics of equal divisions differ, of a kernel up to 1


@dataclass(frozen=True)
class Tested(Result):
    """The outcome of a test.

    Attributes:
        statistic: what was compared with random divisions; larger means more different.
        p: probability, if both samples are from one distribution, of a statistic as large as that.
        shifted: whether p is below the level of the test.
    """

    statistic: float
    p: float
    shifted: bool


def width_of(features: np.ndarray) -> float:
    """Returns the median squared distance between two of N rows, [N,F]; 1 if it is 0."""
    distances = _squared_distances(features, features)
    away = distances[~np.eye(len(features), dtype=bool)]
    return float(np.median(away)) or 1.0


def kernel(some: np.ndarray, others: np.ndarray, width: float) -> np.ndarray:
    """Returns how alike rows are: [N,F] and [M,F] -> float64 [N,M], 0 to 1 (equal)."""
    return np.asarray(np.exp(-_squared_distances(some, others) / width))


def _squared_distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    some, others = np.asarray(some, np.float64), np.asarray(others, np.float64)
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None]
    return np.asarray(np.maximum(squares - 2 * some @ others.T, 0))


def mmd(alike: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Returns the squared MMD, without bias, of divisions of rows into two samples.

    Args:
        alike: kernel of all rows, with zeros on the diagonal, [N+M,N+M].
        first: 1 for the rows of the first sample, 0 for the others, float64 [divisions, N+M]; N
            and M are at least 2, and the same in each division.

    Returns:
        float64 [divisions]; 0 in the mean if both samples are from one distribution, so half of
        them are negative then.
    """
    n = first[0].sum()
    m = len(alike) - n
    inside = ((first @ alike) * first).sum(axis=1)
    across = first @ alike.sum(axis=1) - inside
    beyond = alike.sum() - inside - 2 * across
    return np.asarray(inside / (n * (n - 1)) + beyond / (m * (m - 1)) - 2 * across / (n * m))


def permutation_test(
    alike: np.ndarray, n: int, *, level: float, permutations: int, seed: int
) -> Tested:
    """Tests whether the first n rows are from the distribution of the others.

    Args:
        alike: kernel of all rows, [N+M,N+M].
        n: N, number of rows of the first sample; N and M are at least 2.
        level: largest p of a shift.
        permutations: number of random divisions; the smallest p is 1 / (permutations + 1).
        seed: seed of the divisions.
    """
    rng = np.random.default_rng(seed)
    alike = alike.copy()
    np.fill_diagonal(alike, 0)  # a row and itself say nothing of the distribution
    own = np.zeros((1, len(alike)))
    own[0, :n] = 1
    statistic = float(mmd(alike, own)[0])
    as_large = 0
    for start in range(0, permutations, CHUNK):
        rows = min(CHUNK, permutations - start)
        drawn = rng.permuted(np.repeat(own, rows, axis=0), axis=1)
        as_large += int((mmd(alike, drawn) >= statistic - ROUNDING).sum())
    p = (1 + as_large) / (1 + permutations)
    return Tested(statistic, p, p <= level)


def counts_test(
    new: np.ndarray, old: np.ndarray, *, level: float, permutations: int, seed: int
) -> Tested:
    """Tests whether the classes of two samples have the same shares.

    The statistic is Pearson's chi-square. Divisions of few photos make it large more often than
    its table says, so p is from random divisions here, too.

    Args:
        new: numbers of rows of each class in the first sample, int [K].
        old: those in the second sample, int [K].
        level, permutations, seed: as in `permutation_test`.
    """
    both = (new + old)[new + old > 0]
    expected = both * new.sum() / both.sum()

    def chi_square(counts: np.ndarray) -> np.ndarray:
        # With the other sample's part this is the same number times a constant.
        return np.asarray(((counts - expected) ** 2 / expected).sum(axis=-1))

    statistic = float(chi_square(new[new + old > 0]))
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(both, int(new.sum()), size=permutations)
    as_large = int((chi_square(drawn) >= statistic - ROUNDING).sum())
    p = (1 + as_large) / (1 + permutations)
    return Tested(statistic, p, p <= level)


def witness(
    rows: np.ndarray, new: np.ndarray, old: np.ndarray, width: float, own: np.ndarray
) -> np.ndarray:
    """Returns how much more a row is like the first sample than like the second.

    Args:
        rows: rows to judge, [R,F].
        new: first sample, [N,F].
        old: second sample, [M,F].
        width: width of the kernel.
        own: whether a row is in the first sample itself, bool [R]; it is not compared with itself.

    Returns:
        float64 [R]: the difference between the mean kernels. Where samples differ in most rows,
        the largest values show how; a few strangers among many are like neither sample.
    """
    to_new = np.empty(len(rows))
    to_old = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        to_new[part] = kernel(rows[part], new, width).sum(axis=1)
        to_old[part] = kernel(rows[part], old, width).mean(axis=1)
    return (to_new - own) / (len(new) - own) - to_old


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number, so that each may be compared with the level.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted
