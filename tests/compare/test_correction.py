"""Accuracies without the luck of the choice: by hand, and on noise, where the truth is known."""

import itertools

import numpy as np
import pytest
from PIL import Image

from kerasft.compare import verdict
from kerasft.compare.compare import run_request
from kerasft.compare.correction import Correction, accuracies_on, chosen_on
from kerasft.compare.entry import Entry, SplitResult
from kerasft.compare.request import Request, Trial
from kerasft.heads.methods import METHODS
from kerasft.heads.solved import Examples
from kerasft.heads.solver import solve
from kerasft.metrics import Answers, Figures

A = ([0.1, 0.1, 2.0], [1, 1, 0])  # losses and hits on three images
B = ([1.0, 1.0, 0.1], [0, 0, 1])


def answers(*models):
    losses, right = zip(*models, strict=True)
    return Answers(np.array(losses, np.float32), np.array(right, bool))


def luck_of(*models):
    tried = answers(*models)
    one = entry("bayes", tried)
    return Correction.of([one], {0: np.arange(3)}).luck(one.trial)


def test_each_resample_chooses_by_loss_and_is_scored_on_what_it_left_out():
    tried, drawn = answers(A, B), np.array([[3, 0, 0], [0, 0, 3], [1, 1, 1]])
    chosen = chosen_on(tried, drawn)
    assert chosen.tolist() == [0, 1, 1]  # A, B, and B by a mean loss of 0.7
    np.testing.assert_allclose(accuracies_on(tried, chosen, drawn == 0), [0.5, 0, np.nan])
    # Of the images left out by the first one, image 1 counts three times.
    weights = np.array([[0, 3, 1]])
    np.testing.assert_allclose(accuracies_on(tried, chosen[:1], weights), [0.75])


def test_an_epoch_that_diverged_is_never_chosen():
    diverged = ([np.nan, 0.0, 0.0], [1, 1, 1])
    assert chosen_on(answers(diverged, B), np.array([[0, 3, 0]])).tolist() == [1]


def test_where_nothing_was_chosen_nothing_is_subtracted():
    assert luck_of(A) == 0


def test_the_luck_is_the_lead_on_the_images_left_out():
    # B has the lower mean loss, 0.7 and not 0.733. Of the 27 resamples, 21 leave an image out;
    # with image 0 or 1 in it they more often choose A, else B.
    leads = []
    for one in itertools.product(range(3), repeat=3):
        drawn = np.bincount(one, minlength=3)
        _, right = A if drawn @ A[0] <= drawn @ B[0] else B
        out = np.flatnonzero(drawn == 0)
        if len(out):
            leads.append(np.mean(np.array(B[1])[out]) - np.mean(np.array(right)[out]))
    assert len(leads) == 21
    assert luck_of(A, B) == pytest.approx(np.mean(leads), abs=0.04)


def test_where_every_resample_chooses_alike_there_is_no_luck_whatever_the_sizes_of_units():
    units = np.repeat(np.arange(10), [40, 20, 10, 5, 5, 3, 2, 2, 2, 1])
    right = np.random.default_rng(0).random(90) < 0.8
    same = Answers(np.zeros((2, 90), np.float32), np.stack([right, right]))
    entries = [entry("linear", same), entry("knn", Answers(same.losses[:1], same.right[:1]))]
    correction = Correction.of(entries, {0: units})
    assert [correction.luck(one.trial) for one in entries] == [0.0, 0.0]
    assert correction.luck_of_winner([[one.trial] for one in entries], 0) == 0.0


def test_one_way_without_a_choice_wins_without_luck():
    one = entry("svm", answers(A))
    assert Correction.of([one], {0: np.arange(3)}).luck_of_winner([[one.trial]], 0) == 0.0


def entry(way, tried, *, seed=0):
    """Makes the entry of a way that has chosen the lowest loss of what it tried."""
    best = int(tried.losses.mean(axis=1).argmin())
    accuracy, loss = tried.right[best].mean(), tried.losses[best].mean()
    right = tuple(tried.right[best].tolist())
    validation = SplitResult(Figures(float(accuracy), float(loss), len(right)), right)
    chosen = tried if len(tried.right) > 1 else None
    return Entry(Trial(seed, 1.0, "Net", way), classes=10, validation=validation, answers=chosen)


def test_copies_of_a_photo_are_drawn_together():
    tried = answers(([0.1] * 4, [1, 1, 0, 0]), ([0.2] * 4, [0, 0, 1, 1]))
    one = entry("bayes", tried)
    # A resample that leaves something out has one of the two units, and leaves out the other. Each
    # photo on its own would leave out one, two or three.
    as_units = Correction.of([one], {0: np.array([7, 7, 9, 9])}).luck(one.trial)
    assert as_units == pytest.approx(0.5 - 0.5, abs=0.05)


def judged(entries, units):
    """Returns the corrected accuracy of each way, and of the winner."""
    correction = Correction.of(entries, units)
    rows = verdict.rows_of(entries, correction)
    winner = verdict.winner_of(rows, 10)
    corrected = {row.way: row.means.val_corrected for row in rows}
    return corrected, winner, verdict.corrected_of(winner, rows, entries, correction)


def within_chance(values, truth):
    values = np.array(values)
    return abs(values.mean() - truth) < 3 * values.std(ddof=1) / np.sqrt(len(values))


def test_on_guesses_the_corrected_accuracy_is_that_of_chance_and_the_chosen_one_is_not():
    random = np.random.default_rng(0)
    ways, winners, flattered = [], [], []
    for _ in range(15):
        entries = []
        for number, way in enumerate(("linear", "fc", "unfreeze")):
            losses = random.normal(2.3, 0.3, (20 * (number + 1), 40))
            right = random.random(losses.shape) < 0.1 - 0.05 * (losses - 2.3)
            entries.append(entry(way, Answers(losses.astype(np.float32), right)))
        corrected, _, of_winner = judged(entries, {0: np.arange(40)})
        ways.append(list(corrected.values()))
        winners.append(of_winner)
        flattered.append(max(one.validation.figures.accuracy for one in entries))
    for of_way in np.transpose(ways):
        assert within_chance(of_way, 0.1)
    assert within_chance(winners, 0.1)
    assert np.mean(flattered) > 0.13


def noise(n, seed):
    """Ten classes about which the features say nothing."""
    x = np.random.default_rng(seed).normal(0, 1, (n, 20))
    return Examples(x.astype("float32"), np.arange(n) % 10)


def solved(method, train, validation, fresh):
    """Solves a head on noise; returns its entry and its accuracy on fresh images."""
    solution = solve(method, train, validation, num_classes=10)
    logs = np.log(np.maximum(solution.estimator.predict_proba(validation.features), 1e-15))
    tried = solution.answers or Answers.of(logs, validation.labels)
    hits = solution.estimator.predict_proba(fresh.features).argmax(axis=1) == fresh.labels
    return entry(method, tried), float(hits.mean())


def differences(methods, seeds):
    """Returns corrected minus true accuracy, a row per seed: each way, then the winner."""
    rows = []
    for seed in range(seeds):
        train, validation = noise(60, 3 * seed), noise(40, 3 * seed + 1)
        fresh = noise(2000, 3 * seed + 2)
        made = {method: solved(method, train, validation, fresh) for method in methods}
        entries, truth = [one for one, _ in made.values()], {m: t for m, (_, t) in made.items()}
        corrected, winner, of_winner = judged(entries, {0: np.arange(40)})
        row = [corrected[method] - truth[method] for method in methods]
        rows.append([*row, of_winner - truth[winner.way]])
    return np.array(rows)


def test_on_noise_the_corrected_accuracy_of_bayes_and_of_the_winner_is_the_true_one():
    for column in differences(["bayes", "lda"], 25).T:
        assert within_chance(column, 0)


@pytest.mark.slow
def test_on_noise_the_corrected_accuracy_of_each_solved_way_is_the_true_one():
    for column in differences(list(METHODS), 200).T:
        assert within_chance(column, 0)


def noise_photos(folder, seed):
    """Draws 14 photos for each of ten classes, each of a colour that says nothing of its class."""
    random = np.random.default_rng(seed)
    for number in range(10):
        (folder / f"class{number}").mkdir(parents=True)
        for i in range(14):
            colour = tuple(random.integers(0, 256, 3).tolist())
            Image.new("RGB", (16, 16), colour).save(folder / f"class{number}" / f"{i}.png")
    return folder


@pytest.mark.slow
def test_on_noise_the_corrected_accuracy_of_trained_ways_is_that_of_chance(tiny_backbone, tmp_path):
    rows = []
    for seed in range(20):
        photos = noise_photos(tmp_path / f"photos{seed}", seed)
        request = Request(
            flags={
                **{"data.source": str(photos), "data.validation": 0.29, "data.test": 0.0},
                **{"model.weights": "none", "model.image_size": 32},
            },
            sets=(
                "augment.flip=false",
                "phases.0.epochs=8",
                "phases.0.head_learning_rate_multiplier=100",
            ),
            backbones=("Tiny",),
            ways=("linear", "unfreeze"),
        )
        result = run_request(request, tmp_path / f"out{seed}")
        assert result.images == {"train": 100, "validation": 40, "test": 0}
        rows.append([*(row.means.val_corrected for row in result.ways), result.corrected])
    for column in np.transpose(rows):
        assert within_chance(column, 0.1)
