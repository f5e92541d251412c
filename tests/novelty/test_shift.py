"""What has shifted: looks, class shares or one class; on drawn features."""

import numpy as np
import pytest

from kerasft.novelty import shift
from kerasft.novelty.shift import find_shift, refer_to

CENTRES = np.eye(3, 12) * 4 + 3
"""Three classes; all numbers are above 0 as features of a net are."""


def drawn(labels, seed, moved=()):
    """Draws features of photos; those of some classes are moved where no class differs."""
    rng = np.random.default_rng(seed)
    rows = CENTRES[labels] + rng.normal(size=(len(labels), 12))
    rows[np.isin(labels, moved), 6:] += 2
    return rows.astype("float32")


def labels_of(*counts):
    return np.repeat(np.arange(3), counts)


@pytest.fixture(scope="module")
def reference():
    labels = labels_of(50, 50, 50)
    return refer_to(drawn(labels, 0), labels, 3)


def said(found):
    """Returns what has shifted: overall, looks, shares, and the classes by number."""
    classes = [one.label for one in found.classes if one.test and one.test.shifted]
    return found.overall.shifted, found.looks.shifted, found.shares.shifted, classes


def test_photos_like_the_known_ones_are_hardly_ever_called_shifted(reference):
    found = [find_shift(reference, drawn(labels_of(14, 13, 13), seed)) for seed in range(1, 7)]
    assert sum(one.shifted for one in found) <= 1  # a level of 0.01: twice in six is 0.15%
    assert [said(one)[:3] for one in found] == [(False, False, False)] * 6


def test_other_looks_are_told_from_other_shares(reference):
    every = find_shift(reference, drawn(labels_of(20, 20, 20), 1, moved=(0, 1, 2)))
    assert said(every) == (True, True, False, [0, 1, 2])
    mix = find_shift(reference, drawn(labels_of(50, 5, 5), 1))
    assert said(mix) == (True, False, True, [])
    assert mix.mix == pytest.approx([50 / 60, 5 / 60, 5 / 60], abs=0.05)
    assert mix.drawn == 60  # all 50 of class 0, and a tenth as many of the others
    both = find_shift(reference, drawn(labels_of(50, 5, 5), 1, moved=(0, 1, 2)))
    assert said(both)[:3] == (True, True, True)


def test_one_class_that_looks_different_is_named(reference):
    found = find_shift(reference, drawn(labels_of(20, 20, 20), 1, moved=(1,)))
    assert said(found) == (True, True, False, [1])
    shown = np.argsort(-found.witness)[:20]
    assert np.isin(shown, np.arange(20, 40)).mean() >= 0.9  # they are those of class 1


def test_a_class_of_few_photos_is_not_tested(reference):
    found = find_shift(reference, drawn(labels_of(30, 26, 4), 1, moved=(0, 1, 2)))
    assert [one.new for one in found.classes] == [30, 26, 4]
    assert [one.test is None for one in found.classes] == [False, False, True]
    assert [one.adjusted is None for one in found.classes] == [False, False, True]


def test_a_class_too_small_for_the_overall_test_is_found_by_its_own(reference):
    found = find_shift(reference, drawn(labels_of(30, 30, 10), 2, moved=(2,)))
    assert said(found) == (False, False, False, [2])
    assert found.shifted
    assert found.overall.p > shift.LEVEL / 2 >= found.classes[2].adjusted


def test_shares_alone_call_no_shift_that_the_overall_test_does_not(reference, monkeypatch):
    monkeypatch.setattr(shift, "LEVEL", 0.013)
    found = find_shift(reference, drawn(labels_of(16, 3, 3), 3))
    assert found.shares.p <= shift.LEVEL / 4 and found.overall.p > shift.LEVEL / 2  # the control
    assert said(found) == (False, False, False, [])
    assert not found.shifted


def test_the_order_of_new_photos_does_not_matter(reference):
    rows = drawn(labels_of(15, 10, 5), 2)
    order = np.random.default_rng(0).permutation(30)
    one, other = find_shift(reference, rows), find_shift(reference, rows[order])
    assert one.overall.p not in (1 / 2000, 1)  # the control
    assert one.overall == other.overall and one.classes == other.classes
    assert other.witness == pytest.approx(one.witness[order], abs=1e-6)
    assert (other.predicted == one.predicted[order]).all()


def test_of_very_many_photos_some_are_tested_and_all_are_judged(reference, monkeypatch):
    monkeypatch.setattr(shift, "MOST", 40)
    rows = drawn(labels_of(50, 50, 50), 3, moved=(2,))
    found = find_shift(reference, rows)
    assert found.tested == 40
    assert len(found.witness) == len(found.predicted) == 150
    shown = np.argsort(-found.witness)[:50]
    assert np.isin(shown, np.arange(100, 150)).mean() >= 0.9  # they are those that were moved
    assert sum(one.new for one in found.classes) == 150
