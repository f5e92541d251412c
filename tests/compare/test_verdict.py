"""Rows, winner, p-values and advice, from entries that are written out here."""

from dataclasses import replace

import numpy as np
import pytest

from kerasft.compare import verdict
from kerasft.compare.correction import Correction
from kerasft.compare.entry import Entry, SplitResult
from kerasft.compare.request import Trial
from kerasft.compare.verdict import (
    advice_of,
    corrected_of,
    curves_of,
    p_values,
    winner_of,
)
from kerasft.metrics import Answers, Figures

UNITS = {0: np.arange(10), 1: np.arange(5, 15), 2: np.arange(10)}  # the images of each seed
IMAGES = {0: [f"{i}.jpg" for i in range(10)], 1: [f"{i}.jpg" for i in range(5, 15)]}


def entry(name, right, *, seed=0, backbone="MobileNetV2", loss=0.5, size=10.0, **more):
    """Makes an entry with `right`, 0 or 1 per image, on validation and on test."""
    hits = tuple(bool(one) for one in right)
    result = SplitResult(Figures(sum(hits) / len(hits), loss, len(hits)), hits)
    figures = {
        "validation": result,
        "test": result,
        "macro_f1": result.figures.accuracy,
        "seconds": 2.0 + 2 * seed,
        "ms_per_image": 5.0,
        "size_mb": size,
        "converged": True,
        "settings": {},
        "classes": 3,
    }
    return Entry(Trial(seed, 1.0, backbone, name), **figures | more)


def rows_of(entries):
    return verdict.rows_of(entries, Correction.of(entries, UNITS))


ALL, NONE, HALF = [1] * 10, [0] * 10, [1] * 5 + [0] * 5


def test_a_row_is_the_mean_over_the_seeds():
    (row,) = rows_of([entry("svm", ALL), entry("svm", HALF, seed=1)])
    assert (row.title, row.seeds) == ("svm on MobileNetV2", 2)
    means = row.means
    assert (means.val_accuracy, means.test_accuracy, means.macro_f1) == (0.75, 0.75, 0.75)
    assert (means.seconds, means.size_mb, means.converged) == (3.0, 10.0, True)
    # Wilson's interval of 8 of 10 (0.75 of 10, rounded to even).
    assert means.ci95 == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))


def test_a_way_that_was_stopped_in_one_seed_has_no_figures():
    stopped = Entry(Trial(1, 1.0, "MobileNetV2", "full"), stopped=True)
    (row,) = rows_of([entry("full", ALL), stopped])
    assert (row.stopped, row.means, row.settings) == (True, None, ())
    assert row.to_json()["val_accuracy"] is None
    assert winner_of([row], 3) is None


def test_validation_chooses_the_winner_whatever_test_says():
    knn, svm = entry("knn", HALF), entry("svm", ALL)
    rows = rows_of([replace(knn, test=svm.test), replace(svm, test=knn.test)])
    assert winner_of(rows, 3).way == "svm"


def test_a_way_that_won_by_choosing_among_guesses_loses_to_a_better_one():
    # Each of ten epochs is right on nine images and badly wrong on one: on most resamples another
    # epoch is chosen, and the image on which it is wrong was left out.
    wrong = np.eye(10, dtype=bool)
    losses = np.where(wrong, 5.0, 0.1) + np.arange(10)[:, None] / 1000
    guesses = Answers(losses.astype(np.float32), ~wrong)
    nine, eight = [0] + [1] * 9, [0, 0] + [1] * 8
    entries = [entry("linear", nine, answers=guesses), entry("knn", eight)]
    rows = rows_of(entries)
    linear, knn = (row.means for row in rows)
    assert (linear.val_accuracy, knn.val_accuracy) == (0.9, 0.8)
    assert linear.val_corrected < 0.8 == knn.val_corrected
    winner = winner_of(rows, 3)
    assert winner.way == "knn"
    # The choice among the two ways is subtracted as well.
    assert corrected_of(winner, rows, entries, Correction.of(entries, UNITS)) < 0.8


def test_of_equal_accuracies_the_lower_loss_wins():
    rows = rows_of([entry("knn", ALL, loss=0.4), entry("svm", ALL, loss=0.2)])
    assert winner_of(rows, 3).way == "svm"


def test_a_net_that_knows_two_of_three_classes_cannot_win():
    rows = rows_of([entry("as-is", ALL, classes=2), entry("svm", HALF)])
    assert winner_of(rows, 3).way == "svm"


def test_an_image_counts_once_however_many_seeds_have_it():
    entries = [
        entry("svm", ALL),
        entry("svm", ALL, seed=1),
        entry("knn", HALF),  # wrong on 5 to 9
        entry("knn", [0] * 5 + [1] * 5, seed=1),  # again wrong on 5 to 9
    ]
    rows = rows_of(entries)
    svm, knn = p_values(rows, rows[0], entries, split="test", images=IMAGES)
    assert svm is None
    assert knn == pytest.approx(2 / 2**5)  # five images, not ten


def test_an_image_of_two_seeds_counts_as_the_first_seed_has_it():
    entries = [
        entry("svm", ALL),
        entry("svm", ALL, seed=1),
        entry("knn", HALF),  # wrong on 5 to 9
        entry("knn", ALL, seed=1),  # right on 5 to 14
    ]
    rows = rows_of(entries)
    for split in ("test", "validation"):
        _, knn = p_values(rows, rows[0], entries, split=split, images=IMAGES)
        assert knn == pytest.approx(2 / 2**5)  # the last seed would have all right, p = 1


def test_size_classes_and_note_of_a_row_are_those_of_the_first_seed_that_has_them():
    (row,) = rows_of(
        [
            entry("svm", ALL, size=10.0, settings={"C": 1.0}, notes=("a", "b")),
            entry("svm", ALL, seed=1, size=12.0, settings={"C": 2.0}, notes=("b", "c"), note="x"),
            entry("svm", ALL, seed=2, size=14.0, settings={"C": 3.0}, classes=None, note="y"),
        ]
    )
    assert (row.means.size_mb, row.classes, row.note) == (10.0, 3, "x")
    assert row.settings == ({"C": 1.0}, {"C": 2.0}, {"C": 3.0})
    assert row.notes == ("a", "b", "c")


def advised(*entries, curve=()):
    rows = rows_of(entries)
    winner = winner_of(rows, 3)
    corrected = corrected_of(winner, rows, entries, Correction.of(entries, UNITS))
    p = p_values(rows, winner, entries, split="validation", images=IMAGES, corrected=corrected)
    return advice_of(rows, winner, corrected, p, curve)


def test_a_winner_that_is_sure_is_advised():
    assert advised(entry("svm", ALL), entry("knn", NONE)) == (
        "Take svm on MobileNetV2 (corrected validation accuracy 1.000, "
        "1.000 after the choice among ways): on validation it is better "
        "than every other way (p < 0.05)."
    )


def test_the_advice_tells_what_remains_after_each_choice():
    row, other = rows_of([entry("svm", HALF), entry("knn", NONE)])
    assert advice_of([row, other], row, 0.4, [None, 0.01], ()).startswith(
        "Take svm on MobileNetV2 (corrected validation accuracy 0.500, "
        "0.400 after the choice among ways): on validation it is better"
    )
    assert advice_of([row], row, 0.5, [None], ()) == (
        "Take svm on MobileNetV2 (corrected validation accuracy 0.500)."
    )


def test_a_simpler_way_within_chance_is_advised_instead():
    nine = [1] * 9 + [0]
    assert advised(entry("unfreeze", ALL), entry("knn", NONE), entry("linear", nine)) == (
        "unfreeze on MobileNetV2 (corrected validation accuracy 1.000, "
        "1.000 after the choice among ways) is the best on validation, "
        "but the lead over linear on MobileNetV2 (0.900), which is simpler, may be chance "
        "(p = 1.00): start with linear on MobileNetV2."
    )


def test_one_net_is_simpler_than_two():
    said = advised(
        entry("svm", ALL, backbone="A+B", size=20.0), entry("svm", [1] * 9 + [0], backbone="A")
    )
    assert "but the lead over svm on A (0.900), which is simpler, may be chance" in said


def test_a_costlier_way_within_chance_is_not_advised():
    nine = [1] * 9 + [0]
    assert advised(entry("knn", ALL), entry("unfreeze", nine)) == (
        "Take knn on MobileNetV2 (corrected validation accuracy 1.000, "
        "1.000 after the choice among ways)."
    )
    # Nearest neighbours train at once, but ship all features.
    assert advised(entry("svm", ALL), entry("knn", nine, size=30.0)) == (
        "Take svm on MobileNetV2 (corrected validation accuracy 1.000, "
        "1.000 after the choice among ways)."
    )


@pytest.mark.parametrize(("size", "other"), [(None, 10.0), (10.0, None)])
def test_a_way_is_not_called_simpler_where_a_size_is_unknown(size, other):
    nine = [1] * 9 + [0]
    assert advised(entry("svm", ALL, size=size), entry("knn", nine, size=other)) == (
        "Take svm on MobileNetV2 (corrected validation accuracy 1.000, "
        "1.000 after the choice among ways)."
    )


@pytest.mark.parametrize(("size", "simpler"), [(9.81, False), (9.79, True), (10.21, False)])
def test_models_whose_sizes_differ_by_up_to_2_percent_are_of_equal_size(size, simpler):
    said = advised(
        entry("svm", ALL, backbone="A", size=10.0),
        entry("svm", [1] * 9 + [0], backbone="B", size=size),
    )
    assert ("svm on B (0.900), which is simpler" in said) is simpler


def test_the_learning_curve_says_whether_more_photos_would_help():
    rising = advised(entry("svm", ALL), curve=[(0.1, 0.5), (0.5, 0.8), (1.0, 0.85)])
    assert rising.endswith(
        "More photos would help: from 50% to 100% of the training photos, validation accuracy rose "
        "by 5.0 points."
    )
    flat = advised(entry("svm", ALL), curve=[(0.5, 0.85), (1.0, 0.85)])
    assert flat.endswith(
        "More photos would hardly help: from 50% to 100% of the training photos, validation "
        "accuracy changed by 0.0 points."
    )


def test_without_anything_finished_nothing_is_advised():
    assert (
        advice_of([], None, None, [], ()) == "Nothing was finished, so there is nothing to advise."
    )


def test_a_way_has_a_learning_curve_if_it_is_finished_with_every_fraction():
    smaller = Trial(0, 0.5, "MobileNetV2", "svm")
    entries = [entry("svm", ALL), entry("knn", ALL), replace(entry("svm", HALF), trial=smaller)]
    correction = Correction.of(entries, UNITS)
    assert curves_of(entries, correction) == {"svm on MobileNetV2": ((0.5, 0.5), (1.0, 1.0))}
    assert curves_of(entries[:2], correction) == {}


def test_a_row_prints_as_an_object_with_all_its_keys():
    (row,) = rows_of([entry("svm", ALL, settings={"c": 1.0}, notes=("Too sure.",))])
    assert row.to_json() == {
        **{"name": "svm", "backbone": "MobileNetV2", "seeds": 1, "stopped": False, "note": ""},
        **{
            "val_accuracy": 1.0,
            "val_corrected": 1.0,
            "val_loss": 0.5,
            "test_accuracy": 1.0,
            "macro_f1": 1.0,
        },
        **{"seconds": 2.0, "ms_per_image": 5.0, "ci95": pytest.approx([0.7225, 1.0], abs=1e-4)},
        **{"size_mb": 10.0, "converged": True, "settings": [{"c": 1.0}], "classes": 3},
        **{"notes": ["Too sure."], "p_vs_best": None},
    }
