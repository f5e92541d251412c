from dataclasses import replace

import numpy as np
import pytest

from kerasft.confidence import softmax
from kerasft.reports.measured import Scored, class_rows, reliability

# Six photos of three classes: labels a a a b b c; predictions a a b b b a.
SCORES = np.array(
    [
        [0.9, 0.05, 0.05],
        [0.5, 0.3, 0.2],
        [0.1, 0.8, 0.1],  # a mistake: the label has 0.1
        [0.2, 0.6, 0.2],
        [0.3, 0.4, 0.3],
        [0.97, 0.02, 0.01],  # a worse one: the label has 0.01
    ],
    "float32",
)


@pytest.fixture
def six():
    labels = np.array([0, 0, 0, 1, 1, 2])
    return Scored("test", np.arange(6), labels, SCORES, np.log(SCORES), ("a", "b", "c"))


def test_rows_of_the_confusion_are_labels(six):
    assert six.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_mistakes_come_with_the_lowest_score_of_the_label_first(six):
    assert six.worst_mistakes(5) == [5, 2]
    assert six.worst_mistakes(1) == [5]


def test_the_least_certain_are_those_with_the_lowest_highest_score(six):
    assert six.least_certain(3) == [4, 1, 3]
    assert six.least_certain(2, without=[4]) == [1, 3]


def test_shares_of_a_class_have_wilson_intervals(six):
    a, b, c = class_rows(six)
    assert (a.images, a.predicted) == (3, 3)
    assert (a.recall, a.precision) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    # 2 of 3: 0.2077 to 0.9385, by the formula with z = 1.96
    assert a.recall_interval == (pytest.approx(0.2077, abs=5e-4), pytest.approx(0.9385, abs=5e-4))
    assert (b.recall, b.precision) == (1.0, pytest.approx(2 / 3))
    assert (c.recall, c.predicted, c.precision) == (0.0, 0, None)
    assert c.precision_interval == (0, 1)


def test_bins_hold_the_mean_score_and_the_share_that_is_right(six):
    bins, error = reliability(SCORES, six.hits)
    shown = [(round(15 * one.low), one.n, round(one.confidence, 4), one.accuracy) for one in bins]
    # 0.4 lies in (5/15, 6/15], 0.5 in (7/15, 8/15], 0.6 in (8/15, 9/15], 0.8 in (11/15, 12/15]
    assert shown[1:] == [
        (7, 1, 0.5, 1),
        (9, 1, 0.6, 1),
        (12, 1, 0.8, 0),
        (13, 1, 0.9, 1),
        (14, 1, 0.97, 0),
    ]
    assert error == pytest.approx((0.6 + 0.5 + 0.4 + 0.8 + 0.1 + 0.97) / 6, abs=1e-6)


def test_softmax_gives_the_scores_back(six):
    np.testing.assert_allclose(softmax(six.logits), SCORES, atol=1e-6)


def test_the_loss_on_test_has_the_temperature_and_the_one_on_validation_has_not(six):
    # -log of the labels' scores: 0.9, 0.5, 0.1, 0.6, 0.4, 0.01
    plain = -np.log([0.9, 0.5, 0.1, 0.6, 0.4, 0.01]).mean()
    assert replace(six, split="validation", temperature=2.0).figures.loss == pytest.approx(plain)
    softer = np.sqrt(SCORES) / np.sqrt(SCORES).sum(axis=1, keepdims=True)
    halved = -np.log(softer[np.arange(6), six.labels]).mean()
    assert replace(six, temperature=2.0).figures.loss == pytest.approx(halved, rel=1e-5)
