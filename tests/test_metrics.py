"""Figures from logits: accuracy by the highest logit, loss of the label."""

import numpy as np
import pytest

from kerasft.metrics import Figures, mcnemar


def test_figures_count_the_highest_logit_and_average_the_loss_of_the_label():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], "float32"))
    figures = Figures.of(logits, np.array([0, 2]))
    assert (figures.accuracy, figures.n) == (0.5, 2)
    assert figures.loss == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-6)
    assert figures.to_json() == {"accuracy": 0.5, "loss": figures.loss, "n": 2}


def test_figures_by_class_count_recall_of_classes_that_have_images():
    logits = np.eye(4)[[0, 0, 0, 1, 1, 0]] * 9.0
    figures = Figures.by_class(logits, np.array([0, 0, 0, 1, 0, 3]), ("a", "b", "c", "d"))
    assert figures.to_json() == {
        "accuracy": 4 / 6,
        "loss": Figures.of(logits, np.array([0, 0, 0, 1, 0, 3])).loss,
        "n": 6,
        "base_rate": 4 / 6,
        "balanced_accuracy": (0.75 + 1 + 0) / 3,
        "recall": {"a": 0.75, "b": 1.0, "d": 0.0},
        "never_predicted": ["d"],
    }


def test_mcnemar_is_the_exact_test_on_the_images_that_only_one_has_right():
    # 5 against 1: the binomial tail of 6 images, twice: 2 * (1 + 6) / 64.
    ours, theirs = [1, 1, 1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1, 1, 0]
    assert mcnemar(ours, theirs) == pytest.approx(0.21875)
    assert mcnemar(theirs, ours) == pytest.approx(0.21875)
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1.0
    assert mcnemar([1] * 10, [0] * 10) == pytest.approx(2 / 1024)


def test_mcnemar_takes_a_lead_that_is_smaller_than_the_one_on_the_images():
    ours, theirs = [1] * 6, [0] * 6  # a lead of 6, or of 4 after the choice: 5 against 1
    assert mcnemar(ours, theirs, lead=4.2) == pytest.approx(0.21875)
    assert mcnemar(ours, theirs, lead=9.0) == mcnemar(ours, theirs) == pytest.approx(2 / 64)
    assert mcnemar(ours, theirs, lead=-2.0) == 1.0
