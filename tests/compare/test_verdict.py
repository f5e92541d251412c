"""What a comparison says, from entries that are written out."""

import pytest

from kerasft.compare.verdict import advice_of, mcnemar, p_values, rows_of, winner_of

IMAGES = {0: [f"{i}.jpg" for i in range(10)], 1: [f"{i}.jpg" for i in range(5, 15)]}


def entry(name, right, *, seed=0, backbone="MobileNetV2", loss=0.5, size=10.0, **more):
    """An entry whose accuracy on validation and test is that of `right`, 0 or 1 per image."""
    accuracy = sum(right) / len(right)
    return {
        "name": name,
        "backbone": backbone,
        "seed": seed,
        "stopped": False,
        "note": "",
        "notes": [],
        "val_accuracy": accuracy,
        "val_loss": loss,
        "test_accuracy": accuracy,
        "macro_f1": accuracy,
        "seconds": 2.0 + 2 * seed,
        "ms_per_image": 5.0,
        "size_mb": size,
        "converged": True,
        "settings": {},
        "classes": 3,
        "n_test": len(right),
        "val_right": right,
        "test_right": right,
    } | more


ALL, NONE, HALF = [1] * 10, [0] * 10, [1] * 5 + [0] * 5


def test_mcnemar_is_the_exact_test_on_the_images_that_only_one_has_right():
    # 5 against 1: the binomial tail of 6 images, twice: 2 * (1 + 6) / 64.
    ours, theirs = [1, 1, 1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1, 1, 0]
    assert mcnemar(ours, theirs) == pytest.approx(0.21875)
    assert mcnemar(theirs, ours) == pytest.approx(0.21875)
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1.0
    assert mcnemar([1] * 10, [0] * 10) == pytest.approx(2 / 1024)


def test_a_row_is_the_mean_over_the_seeds():
    (row,) = rows_of([entry("svm", ALL), entry("svm", HALF, seed=1)])
    assert (row["name"], row["seeds"], row["val_accuracy"]) == ("svm", 2, 0.75)
    assert (row["seconds"], row["size_mb"], row["converged"]) == (3.0, 10.0, True)
    # Wilson's interval of 8 of 10 (0.75 of 10, rounded to even).
    assert row["ci95"] == [pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3)]


def test_a_way_that_was_stopped_in_one_seed_has_no_figures():
    stopped = {**entry("full", ALL, seed=1), "stopped": True, "val_accuracy": None}
    (row,) = rows_of([entry("full", ALL), stopped])
    assert (row["stopped"], row["val_accuracy"], row["test_accuracy"]) == (True, None, None)
    assert winner_of([row], 3) is None


def test_validation_chooses_the_winner_whatever_test_says():
    rows = rows_of([entry("knn", HALF, test_accuracy=1.0), entry("svm", ALL, test_accuracy=0.0)])
    assert winner_of(rows, 3)["name"] == "svm"


def test_of_equal_accuracies_the_lower_loss_wins():
    rows = rows_of([entry("knn", ALL, loss=0.4), entry("svm", ALL, loss=0.2)])
    assert winner_of(rows, 3)["name"] == "svm"


def test_a_net_that_knows_two_of_three_classes_cannot_win():
    rows = rows_of([entry("as-is", ALL, classes=2), entry("svm", HALF)])
    assert winner_of(rows, 3)["name"] == "svm"


def test_an_image_counts_once_however_many_seeds_have_it():
    entries = [
        entry("svm", ALL),
        entry("svm", ALL, seed=1),
        entry("knn", HALF),  # wrong on 5 to 9
        entry("knn", [0] * 5 + [1] * 5, seed=1),  # again wrong on 5 to 9
    ]
    rows = rows_of(entries)
    svm, knn = p_values(rows, rows[0], entries, "test", IMAGES)
    assert svm is None
    assert knn == pytest.approx(2 / 2**5)  # five images, not ten


def advised(*entries, curve=()):
    rows = rows_of(entries)
    winner = winner_of(rows, 3)
    p = p_values(rows, winner, entries, "val", IMAGES)
    return advice_of(rows, winner, p, curve)


def test_a_winner_that_is_sure_is_advised():
    assert advised(entry("svm", ALL), entry("knn", NONE)) == (
        "Take svm on MobileNetV2 (validation accuracy 1.000): on validation it is better than "
        "every other way (p < 0.05)."
    )


def test_a_simpler_way_within_chance_is_advised_instead():
    nine = [1] * 9 + [0]
    assert advised(entry("unfreeze", ALL), entry("knn", NONE), entry("linear", nine)) == (
        "unfreeze on MobileNetV2 (validation accuracy 1.000) is the best on validation, but linear "
        "on MobileNetV2 (0.900) is within what chance explains (p = 1.00) and simpler: start with "
        "that one."
    )


def test_one_net_is_simpler_than_two():
    said = advised(
        entry("svm", ALL, backbone="A+B", size=20.0), entry("svm", [1] * 9 + [0], backbone="A")
    )
    assert "but svm on A (0.900) is within what chance explains" in said


def test_a_costlier_way_within_chance_is_not_advised():
    nine = [1] * 9 + [0]
    assert advised(entry("knn", ALL), entry("unfreeze", nine)) == (
        "Take knn on MobileNetV2 (validation accuracy 1.000)."
    )
    # Nearest neighbours train at once, but ship all features.
    assert advised(entry("svm", ALL), entry("knn", nine, size=30.0)) == (
        "Take svm on MobileNetV2 (validation accuracy 1.000)."
    )


def test_the_learning_curve_says_whether_more_photos_would_help():
    rising = advised(entry("svm", ALL), curve=[(0.1, 0.5), (0.5, 0.8), (1.0, 0.85)])
    assert rising.endswith(
        "More photos would help: from 50% to 100% of the training photos it rose by 5.0 points."
    )
    flat = advised(entry("svm", ALL), curve=[(0.5, 0.85), (1.0, 0.85)])
    assert flat.endswith(
        "More photos would hardly help: from 50% to 100% of the training photos it changed by 0.0 "
        "points."
    )


def test_without_anything_finished_nothing_is_advised():
    assert advice_of([], None, [], ()) == "Nothing was finished, so there is nothing to advise."
