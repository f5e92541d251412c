"""Tests of two samples: statistics written out, level, power, and what does not matter."""

import numpy as np
import pytest

from kerasft.novelty.two_sample import (
    counts_test,
    holm,
    kernel_of,
    mmd,
    permutation_test,
    witness,
)


def normal(seed, n, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(n, 4)) + shift).astype("float32")


def compared(new, old, seed=0):
    alike, _ = kernel_of(np.concatenate([new, old]))
    return permutation_test(alike, len(new), level=0.1, permutations=99, seed=seed)


def test_the_squared_mmd_is_that_of_the_paper_without_a_row_and_itself():
    alike = np.array(
        [[0, 0.5, 0.1, 0.2], [0.5, 0, 0.3, 0.4], [0.1, 0.3, 0, 0.7], [0.2, 0.4, 0.7, 0]]
    )
    # Inside 0.5 and 0.7, across 0.25 in the mean.
    assert mmd(alike, np.array([[0, 1]])) == pytest.approx([0.5 + 0.7 - 2 * 0.25])


def test_either_sample_may_name_a_division():
    alike, _ = kernel_of(normal(0, 150))
    np.fill_diagonal(alike, 0)
    rows = np.random.default_rng(1).permutation(150)[None]
    assert mmd(alike, rows[:, :140]) == pytest.approx(mmd(alike, rows[:, 140:]), abs=1e-12)


def test_the_kernel_has_the_median_squared_distance_as_its_width():
    rows = np.array([[0.0], [1.0], [3.0]], "float32")  # squared distances 1, 4, 9
    alike, width = kernel_of(rows)
    assert width == 4
    assert alike[0] == pytest.approx([1, np.exp(-1 / 4), np.exp(-9 / 4)])
    assert kernel_of(np.ones((3, 2), "float32"))[1] == 1  # all are equal


def test_without_a_shift_as_many_draws_are_called_one_as_the_level_says():
    found = [compared(normal(i, 12), normal(1000 + i, 40), i) for i in range(300)]
    assert 15 <= sum(one.shifted for one in found) <= 45  # 30 in the mean, standard deviation 5.2
    assert abs(np.mean([one.statistic for one in found])) < 0.01  # without bias


def test_a_shift_is_found_and_its_p_is_the_smallest_but_never_0():
    found = [compared(normal(i, 12, shift=1.0), normal(1000 + i, 40), i) for i in range(20)]
    assert all(one.shifted for one in found)
    assert min(one.p for one in found) == 0.01  # 1 of 100: the division at hand counts


def test_equal_rows_are_no_shift():
    assert compared(np.ones((5, 2), "float32"), np.ones((7, 2), "float32")).p == 1


def test_other_shares_are_found_and_equal_ones_are_called_as_often_as_the_level_says():
    def p(new, old, seed=0):
        new, old = np.array(new), np.array(old)
        return counts_test(new, old, level=0.1, permutations=199, seed=seed)

    assert p([20, 10, 0], [100, 50, 0]).p == 1
    assert p([0, 30, 0], [100, 50, 0]).p == 1 / 200
    rng = np.random.default_rng(0)
    draws = rng.multinomial(20, [0.5, 0.3, 0.2], 300), rng.multinomial(60, [0.5, 0.3, 0.2], 300)
    called = sum(p(new, old, i).shifted for i, (new, old) in enumerate(zip(*draws, strict=True)))
    assert 15 <= called <= 45


def test_the_witness_is_large_where_new_rows_are_and_does_not_compare_a_row_with_itself():
    new, old = np.array([[0.0], [1.0]], "float32"), np.array([[1.0], [5.0]], "float32")
    found = witness(new, new, old, 1.0, np.array([True, False]))
    first = np.exp(-1) - (np.exp(-1) + np.exp(-25)) / 2
    second = (np.exp(-1) + 1) / 2 - (1 + np.exp(-16)) / 2
    assert found == pytest.approx([first, second], abs=1e-6)


def test_holm_multiplies_each_p_by_the_number_of_those_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.2]) == pytest.approx([0.9, 0.4])
    assert holm([]) == []
