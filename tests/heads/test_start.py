"""The solved start of a head is the minimum of its loss, and validation chooses its strength."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from kerasft.heads import start
from kerasft.heads.start import STRENGTHS, costs_too_much, solve_start


@pytest.fixture(scope="module")
def photos():
    """Features of three classes that overlap: two views for training, and validation."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 20)) * 0.7
    labels, held = np.repeat(np.arange(3), 40), np.repeat(np.arange(3), 30)
    views = [means[labels] + rng.normal(size=(120, 20)) for _ in range(2)]
    views = [view.astype("float16") for view in views]
    return views, labels, (means[held] + rng.normal(size=(90, 20))).astype("float16"), held


def solved(photos, **settings):
    return solve_start(*photos, num_classes=3, **settings)


def test_the_strengths_go_down_by_half_powers_of_ten():
    assert STRENGTHS == (0.32, 0.1, 0.032, 0.01, 0.0032, 0.001, 0.00032, 0.0001)


def test_the_head_is_that_of_scikit_learn_on_all_views(photos):
    views, labels, *_ = photos
    head = solved(photos)
    features = np.concatenate(views).astype("float32")
    variance = views[0].astype("float64").var(axis=0).mean()
    inverse = 1 / (head.strength * variance * len(features))
    theirs = LogisticRegression(C=inverse, tol=1e-8, max_iter=1000)
    theirs.fit(features, np.tile(labels, 2))
    mine, its = head.kernel + head.bias * 0, theirs.coef_.T
    apart = np.abs((mine - mine.mean(1, keepdims=True)) - (its - its.mean(1, keepdims=True)))
    assert apart.max() < 0.01 * np.abs(its).max()


def test_the_strength_with_the_lowest_validation_loss_is_taken(photos):
    head = solved(photos)
    losses = {one.strength: one.val_loss for one in head.tried}
    assert head.strength == min(losses, key=losses.get)
    assert head.validation.loss == losses[head.strength]
    assert head.answers.losses.mean(axis=1) == pytest.approx(list(losses.values()), rel=1e-6)
    # This strength is neither the first nor the last: after two worse ones no more are tried.
    assert list(losses) == list(STRENGTHS[: list(losses).index(head.strength) + 3])
    assert len(losses) < len(STRENGTHS)


def test_classes_far_apart_take_a_weak_ridge(photos):
    views, labels, held, of_held = photos
    far = np.eye(3, 20)[labels] * 12, np.eye(3, 20)[of_held] * 12
    head = solved(([view + far[0] for view in views], labels, held + far[1], of_held))
    assert head.strength <= 0.001
    assert head.validation.accuracy == 1.0
    assert head.validation.loss < 0.01


def test_other_scales_of_the_features_give_the_same_scores(photos):
    views, labels, held, of_held = photos
    views, held = [view.astype("float32") for view in views], held.astype("float32")
    head = solved((views, labels, held, of_held))
    for scale in (64, 1 / 256):
        other = solved(([view * scale for view in views], labels, held * scale, of_held))
        assert other.strength == head.strength
        assert other.validation.loss == pytest.approx(head.validation.loss, abs=5e-3)


def test_many_classes_are_solved_to_the_minimum_too():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(50, 64)) * 0.12
    labels = np.repeat(np.arange(50), 8)
    view = (means[labels] + rng.normal(size=(400, 64)) * 0.04).astype("float32")
    head = solve_start([view], labels, view, labels, num_classes=50)
    losses = [one.val_loss for one in head.tried]
    # The loss on what it is fitted to falls with every weaker strength; none is a copy.
    assert all(later < 0.9 * former for former, later in pairwise(losses))
    assert losses[-1] < 0.1


def test_a_head_that_would_take_longer_than_its_epochs_is_not_solved():
    assert not costs_too_much(20_000 * 4 * 1280, 10)
    assert costs_too_much(20_000 * 4 * 1280, 500)


def test_standardised_features_are_solved_as_the_model_sees_them(photos):
    views, labels, held, of_held = photos
    mean, deviation = np.full(20, 3.0, "float32"), np.full(20, 2.0, "float32")
    moved = [view.astype("float32") * 2 + 3 for view in views], held.astype("float32") * 2 + 3
    head = solved((moved[0], labels, moved[1], of_held), standard=(mean, deviation))
    assert head.kernel == pytest.approx(solved(photos).kernel, abs=5e-3)


def test_views_that_are_too_large_for_memory_are_read_in_parts_and_released(photos, monkeypatch):
    held = solved(photos)
    monkeypatch.setattr(start, "IN_MEMORY", 0)
    monkeypatch.setattr(start, "CHUNK", 7 * 20)
    released = []
    read = solved(photos, release=lambda view: released.append(view.dtype))
    assert read.kernel == pytest.approx(held.kernel, abs=2e-3)
    assert set(released) == {np.dtype("float16")}


def test_balanced_classes_move_the_bias_to_the_rare_one(photos):
    views, labels, held, of_held = photos
    few = np.flatnonzero((labels != 2) | (np.arange(120) % 8 == 0))
    rare = [view[few] for view in views], labels[few], held, of_held
    weights = len(few) / (3 * np.bincount(labels[few]))
    plain, balanced = solved(rare), solved(rare, class_weights=weights)
    apart = [head.bias - head.bias.mean() for head in (plain, balanced)]
    assert apart[1][2] > apart[0][2] + 0.2


def test_label_smoothing_keeps_the_scores_from_certainty(photos):
    views, labels, held, of_held = photos
    far = np.eye(3, 20)[labels] * 12, np.eye(3, 20)[of_held] * 12
    photos = [view + far[0] for view in views], labels, held + far[1], of_held
    sharp, smooth = solved(photos), solved(photos, label_smoothing=0.2)
    assert smooth.validation.loss > 10 * sharp.validation.loss
    assert smooth.validation.loss == pytest.approx(-np.log(1 - 0.2 * 2 / 3), abs=0.05)
