"""Classes by the known photos, and the shares of the classes."""

import numpy as np
import pytest

from kerasft.novelty.class_mix import draw_with_mix, estimate_mix, fit_classes


def two_heaps():
    """Two heaps of rows; the first row of the second heap has the label of the first."""
    rows = np.random.default_rng(0).normal(size=(40, 5)).astype("float32")
    rows[20:] += 6
    labels = np.arange(40) // 20
    labels[20] = 0
    return rows, labels


def test_a_known_photo_has_the_class_that_all_others_say():
    rows, labels = two_heaps()
    assert fit_classes(rows, labels, 2).known.tolist() == [0] * 20 + [1] * 20


def test_what_is_said_of_a_row_that_is_left_out_is_what_a_fit_without_it_says():
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(size=(30, 6)), rng.integers(0, 3, 30)  # labels by chance
    centred = rows - rows.mean(axis=0)
    variance = (centred**2).sum() / 30
    kernel = centred @ centred.T + variance
    said = []
    for i in range(30):
        rest = np.arange(30) != i
        weights = np.linalg.solve(
            kernel[rest][:, rest] + 0.5 * variance * np.eye(29), np.eye(3)[labels[rest]]
        )
        said.append(int((kernel[i, rest] @ weights).argmax()))
    assert fit_classes(rows, labels, 3).known.tolist() == said
    assert said != labels.tolist()


def test_new_photos_get_the_class_of_their_heap():
    rows, labels = two_heaps()
    new = np.array([[0.0] * 5, [6.0] * 5], "float32")
    assert fit_classes(rows, labels, 2).of(new).tolist() == [0, 1]


def test_the_mix_is_that_behind_the_predictions_not_their_own():
    # Of ten photos of class 0 eight are predicted right, of those of class 1 nine.
    labels = np.repeat([0, 1], 10)
    predicted = np.array([0] * 8 + [1] * 2 + [0] + [1] * 9)
    assert estimate_mix(np.array([0.275, 0.725]), predicted, labels) == pytest.approx([0.25, 0.75])
    assert estimate_mix(np.array([0.0, 1.0]), predicted, labels) == pytest.approx([0, 1])


def test_a_class_that_no_known_photo_is_predicted_as_leaves_the_shares_of_the_known_ones():
    labels = np.array([0, 0, 0, 1])
    shares = estimate_mix(np.array([0.0, 0.0, 1.0]), np.zeros(4, int), labels)
    assert shares == pytest.approx([0.75, 0.25, 0])


def test_photos_are_drawn_in_the_shares_as_many_as_the_scarcest_class_allows():
    labels = np.repeat([0, 1, 2], [10, 40, 30])
    drawn = draw_with_mix(labels, np.array([0.25, 0.75, 0.0]), seed=0)
    assert np.bincount(labels[drawn]).tolist() == [10, 30]
    assert len(set(drawn.tolist())) == 40
    assert drawn.tolist() != draw_with_mix(labels, np.array([0.25, 0.75, 0.0]), seed=1).tolist()
