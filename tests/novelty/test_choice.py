"""`choose` on points whose groups are known."""

import numpy as np
import pytest

from kerasft.novelty.choice import BETA, choose, farthest, margins

AXES = np.eye(4, dtype=np.float32)


def scores_of(sure):
    """Scores of three classes whose best two are `sure` apart."""
    sure = np.asarray(sure, np.float64)
    return np.stack([(0.9 + sure) / 2, (0.9 - sure) / 2, np.full(len(sure), 0.1)], 1)


def test_the_margin_is_the_best_score_minus_the_second_best():
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0, 0, 1]])
    assert margins(scores) == pytest.approx([0.2, 0.0, 1.0])


def test_of_photos_that_look_alike_the_most_unsure_one_is_chosen():
    features = np.repeat(AXES, 3, axis=0) + 0.01 * np.arange(12)[:, None] * AXES[0]
    sure = [0.3, 0.2, 0.4, 0.1, 0.5, 0.6, 0.7, 0.05, 0.8, 0.25, 0.35, 0.45]
    assert choose(scores_of(sure), features, 4).tolist() == [7, 3, 1, 9]


def test_sure_photos_are_not_chosen_however_different_they_are():
    some = np.random.default_rng(0).normal(size=(BETA * 3 + 5, 8))
    sure = np.where(np.arange(len(some)) < BETA * 3, 0.1, 0.8)
    sure[:3] = 0.0
    assert set(choose(scores_of(sure), some, 3)) <= set(range(BETA * 3))


def test_all_photos_are_chosen_where_there_are_no_more():
    features = np.ones((3, 4))
    assert choose(scores_of([0.5, 0.1, 0.3]), features, 3).tolist() == [1, 2, 0]
    assert choose(scores_of([0.5, 0.1, 0.3]), features, 9).tolist() == [1, 2, 0]


def test_equal_photos_fill_up_what_there_are_no_different_ones_for():
    features = np.concatenate([np.repeat(AXES[:1], 6, axis=0), AXES[1:2]])
    sure = [0.6, 0.2, 0.3, 0.4, 0.5, 0.7, 0.75]
    assert choose(scores_of(sure), features, 4).tolist() == [1, 2, 3, 6]


def test_the_order_of_the_photos_does_not_matter():
    draw = np.random.default_rng(1)
    features, sure = draw.normal(size=(200, 16)), draw.uniform(size=200) * 0.9
    order = draw.permutation(200)
    one = choose(scores_of(sure), features, 12)
    other = choose(scores_of(sure)[order], features[order], 12)
    assert order[other].tolist() == one.tolist()


def test_no_photo_is_chosen_where_none_is_wanted():
    assert choose(scores_of([0.5, 0.1]), np.ones((2, 4)), 0).tolist() == []


def test_of_far_photos_those_that_look_alike_are_chosen_last():
    features = np.array([AXES[0], AXES[0], AXES[1], AXES[0] + 0.1 * AXES[2]])
    assert farthest(np.array([0.5, 0.6, 0.4, 0.55]), features, 3).tolist() == [1, 2, 3]
    assert farthest(np.array([0.5]), AXES[:1], 3).tolist() == [0]
    assert farthest(np.zeros(0), np.zeros((0, 4)), 3).tolist() == []
