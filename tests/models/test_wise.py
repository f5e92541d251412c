"""Weights between the start of a phase and its best epoch are tried, and validation chooses."""

import numpy as np
import pytest

from kerasft.metrics import Answers, Figures
from kerasft.models.wise import between

START = [np.array([0.0, 2.0], "float32"), np.array([7, 8], "uint32")]
BEST = [np.array([4.0, 2.0], "float32"), np.array([9, 9], "uint32")]


def chosen(losses, of_best=0.5):
    """Chooses where weights of 3, 2 and 1 have these losses."""
    seen = []

    def score(weights):
        seen.append([weight.tolist() for weight in weights])
        loss = dict(zip((3.0, 2.0, 1.0), losses, strict=True))[weights[0][0]]
        return Figures(0.5, loss, 1), Answers(np.array([[loss]], "float32"), np.array([[True]]))

    return between(START, BEST, Figures(0.5, of_best, 1), score), seen


def test_three_shares_are_tried_and_random_states_are_not_mixed():
    _, seen = chosen((1.0, 1.0, 1.0))
    assert seen == [[[3.0, 2.0], [9, 9]], [[2.0, 2.0], [9, 9]], [[1.0, 2.0], [9, 9]]]


@pytest.mark.parametrize(
    ("losses", "alpha", "weights"),
    [
        ((1.0, 1.0, 1.0), 1.0, [4.0, 2.0]),
        ((0.5, 0.5, 0.5), 1.0, [4.0, 2.0]),  # on a tie the epoch as it is
        ((0.4, 0.3, 0.6), 0.5, [2.0, 2.0]),
        ((0.4, 0.3, 0.2), 0.25, [1.0, 2.0]),
    ],
)
def test_the_share_with_the_lowest_loss_is_kept(losses, alpha, weights):
    found, _ = chosen(losses)
    assert (found.alpha, found.weights[0].tolist()) == (alpha, weights)
    assert [one.alpha for one in found.tried] == [1.0, 0.75, 0.5, 0.25]
    assert [one.val_loss for one in found.tried] == [0.5, *losses]
    assert [float(own.losses[0, 0]) for own in found.answers] == pytest.approx(losses)


def test_a_weight_that_has_not_moved_keeps_its_last_bit():
    odd = [np.array([0.1, 1 / 3, -0.0], "float32")]
    same = []

    def score(weights):
        same.append(weights[0].tobytes() == odd[0].tobytes())
        return Figures(0.5, 1.0, 1), Answers(np.zeros((1, 1), "float32"), np.ones((1, 1), bool))

    between(odd, [odd[0].copy()], Figures(0.5, 0.5, 1), score)
    assert same == [True] * 3
