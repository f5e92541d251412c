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

CHUNK = 256  # divisions, or rows, that are computed at once
ROUNDING = 1e-9  # by which statistics of equal divisions differ, of a kernel up to 1


@dataclass(frozen=True)
class Outcome(Result):
    """The outcome of a test.

    Attributes:
        statistic: what was compared with random divisions; larger means more different.
        p: probability, if both samples are from one distribution, of a statistic as large as that.
        shifted: whether p is below the level of the test.
    """

    statistic: float
    p: float
    shifted: bool


def kernel_of(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns how alike rows are, and the width of the kernel.

    Args:
        rows: rows of both samples, [N+M,F].

    Returns:
        The kernel, float64 [N+M,N+M], 0 to 1 (equal), and the median squared distance between two
        rows; 1 if that is 0.
    """
    distances = _squared_distances(rows, rows)
    width = float(np.median(distances[~np.eye(len(rows), dtype=bool)])) or 1.0
    return np.exp(-distances / width), width


def _squared_distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns squared distances, float64 [N,M], from products in float32."""
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None]
    return np.asarray(np.maximum(squares - 2 * some @ others.T, 0), np.float64)


def mmd(alike: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Returns the squared MMD, without bias, of divisions of rows into two samples.

    Args:
        alike: kernel of all rows, with zeros on the diagonal, [N+M,N+M].
        first: positions of the rows of one sample, int [divisions,N]; N and M are at least 2.

    Returns:
        float64 [divisions]; 0 in the mean if both samples are from one distribution, so half of
        them are negative then.
    """
    n, m = first.shape[1], len(alike) - first.shape[1]
    touching = alike.sum(axis=1)
    inside = _sums_inside(alike, first)
    across = touching[first].sum(axis=1) - inside
    beyond = touching.sum() - inside - 2 * across
    return np.asarray(inside / (n * (n - 1)) + beyond / (m * (m - 1)) - 2 * across / (n * m))


def _sums_inside(alike: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Returns the sums of the kernel over all pairs of `first`, [divisions]."""
    from scipy.sparse import csr_array  # imports of scipy cost every command time

    # Of 60 rows among 1,109 this takes a fifth of the time of a dense product.
    starts = np.arange(0, first.size + 1, first.shape[1])
    chosen = csr_array((np.ones(first.size), first.ravel(), starts), (len(first), len(alike)))
    return np.asarray(np.take_along_axis(chosen @ alike, first, axis=1).sum(axis=1))


def permutation_test(
    alike: np.ndarray, n: int, *, level: float, permutations: int, seed: int
) -> Outcome:
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
    rows = np.arange(len(alike))[None]
    statistic = float(mmd(alike, rows[:, :n])[0])
    smaller = min(n, len(alike) - n)  # either sample names the division
    as_large = 0
    for start in range(0, permutations, CHUNK):
        number = min(CHUNK, permutations - start)
        drawn = rng.permuted(np.repeat(rows, number, axis=0), axis=1)[:, :smaller]
        as_large += int((mmd(alike, drawn) >= statistic - ROUNDING).sum())
    p = (1 + as_large) / (1 + permutations)
    return Outcome(statistic, p, p <= level)


def counts_test(
    new: np.ndarray, old: np.ndarray, *, level: float, permutations: int, seed: int
) -> Outcome:
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
    return Outcome(statistic, p, p <= level)


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
        to_new[part] = np.exp(-_squared_distances(rows[part], new) / width).sum(axis=1)
        to_old[part] = np.exp(-_squared_distances(rows[part], old) / width).mean(axis=1)
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
