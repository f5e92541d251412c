import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from kerasft.confidence import (
    Abstention,
    Calibration,
    Quality,
    abstain_at,
    calibrate,
    fewest,
    fit_temperature,
    lower_bound,
)
from kerasft.metrics import log_loss
from kerasft.record import Device, RunRecord


def answers(n, *, sharper=1.0, classes=3, seed=0):
    """Draws logits whose softmax is the truth, then multiplies them: (logits [N,K], labels)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return sharper * logits, labels


def test_the_temperature_of_logits_that_were_multiplied_is_the_factor():
    logits, labels = answers(4000, sharper=3.0)
    assert fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.05)
    # Naive Bayes is as sure as that.
    assert fit_temperature(100 * logits, labels) == pytest.approx(300, rel=0.05)


def test_no_temperature_near_the_fitted_one_has_a_lower_loss():
    logits, labels = answers(200, sharper=2.0)
    best = fit_temperature(logits, labels)
    for other in (0.98 * best, 1.02 * best):
        assert log_loss(logits / best, labels) < log_loss(logits / other, labels)


def test_a_temperature_of_sure_logits_is_kept_and_judged_out_of_fold():
    logits, labels = answers(300, sharper=3.0)
    found = calibrate(logits, labels)
    assert found.n == 300
    assert found.temperature == fit_temperature(logits, labels)
    assert found.before == Quality.of(logits, labels)
    assert found.after.loss < found.before.loss
    # What was fitted on all of them would look better than it is.
    assert found.after.loss > log_loss(logits / found.temperature, labels)
    assert found.after.ece < found.before.ece


def test_a_small_gain_that_chance_could_make_is_left_out():
    logits, labels = answers(60, sharper=1.35, seed=1)
    fitted = fit_temperature(logits, labels)
    assert fitted > 1 and log_loss(logits / fitted, labels) < log_loss(logits, labels)
    assert calibrate(logits, labels).temperature == 1


def test_scores_are_not_made_surer_where_validation_has_hardly_a_mistake():
    labels = np.arange(90) % 3
    logits = 2.0 * np.eye(3)[labels]
    assert fit_temperature(logits, labels) < 0.03
    assert calibrate(logits, labels).temperature == 1
    hundreds = np.tile(labels, 20)
    answered = np.where(np.arange(1800) % 200 < 3, (hundreds + 1) % 3, hundreds)  # 27 mistakes
    found = calibrate(2.0 * np.eye(3)[answered], hundreds)
    assert 0.3 < found.temperature < 0.6


def test_a_temperature_that_does_not_help_out_of_fold_is_left_out():
    logits, labels = answers(40, sharper=1.0, seed=3)
    found = calibrate(logits, labels)
    assert found == Calibration(1.0, 40, found.before, found.before)


def test_copies_of_a_photo_stay_in_one_fold():
    logits, labels = answers(60, sharper=3.0, seed=1)
    doubled = np.concatenate([logits, logits]), np.concatenate([labels, labels])
    together = calibrate(*doubled, units=np.tile(np.arange(60), 2))
    # Judged with its copy among those that it was fitted on, a photo is judged too well.
    assert together.after.loss > calibrate(*doubled).after.loss


def test_fewer_units_than_folds_are_not_calibrated():
    logits, labels = answers(40, sharper=3.0)
    found = calibrate(logits, labels, units=np.arange(40) % 4)
    assert (found.temperature, found.before) == (1.0, found.after)


def test_a_calibration_is_read_as_it_was_written():
    found = Calibration(1.25, 60, Quality(0.5, 0.1), Quality(0.4, 0.05))
    record = RunRecord("finished", {}, Device("tensorflow", "cpu", "", 2), 0, calibration=found)
    assert RunRecord.from_json(record.to_json(), Path("run.json")).calibration == found


def test_the_bound_is_that_of_clopper_and_pearson():
    # R: binom.test(57, 60, alternative = "greater")$conf.int[1]
    assert lower_bound(57, 60) == pytest.approx(0.8759, abs=1e-4)
    assert lower_bound(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert lower_bound(0, 10) == 0


@pytest.mark.parametrize(("precision", "images"), [(0.9, 29), (0.95, 59), (0.99, 299)])
def test_the_fewest_images_that_could_show_a_precision(precision, images):
    assert fewest(precision) == images
    assert lower_bound(images, images) >= precision > lower_bound(images - 1, images - 1)


def test_the_threshold_is_the_lowest_before_the_first_that_fails():
    confidence = np.linspace(0.999, 0.5, 200)
    hits = np.ones(200, bool)
    hits[100:] = np.arange(100) % 2 == 0  # every second one is wrong
    found, lacking = abstain_at(0.9, confidence, hits)
    assert lacking is None
    answered = round(found.coverage * 200)
    assert lower_bound(int(hits[:answered].sum()), answered) == found.bound >= 0.9
    assert lower_bound(int(hits[: answered + 1].sum()), answered + 1) < 0.9
    assert found.threshold == pytest.approx(confidence[answered - 1], abs=1e-6)
    assert found.threshold <= confidence[answered - 1]
    assert (found.promised, found.n) == (0.9, 200)


def test_images_of_equal_score_are_answered_together():
    confidence = np.repeat([0.9, 0.8], 50)
    found, _ = abstain_at(0.9, confidence, np.ones(100, bool))
    assert (found.threshold, found.coverage) == (0.8, 1.0)


def test_a_wrong_answer_among_the_surest_ends_the_test_though_looser_ones_would_hold():
    hits = np.ones(500, bool)
    hits[5] = False
    found, lacking = abstain_at(0.9, np.linspace(1, 0.5, 500), hits)
    assert found is None
    assert lacking == (
        "Of the 29 surest validation images 28 are right. To show a precision of 0.9 at that rate "
        "it would take about 78 images that the model is as sure of; there are 500 in all."
    )


def test_copies_of_a_photo_are_one_photo_in_the_promise():
    confidence, hits = np.repeat(np.linspace(1, 0.5, 30), 2), np.ones(60, bool)
    assert abstain_at(0.95, confidence, hits)[0] is not None
    found, lacking = abstain_at(0.95, confidence, hits, np.repeat(np.arange(30), 2))
    assert found is None
    assert lacking == (
        "It takes at least 59 validation images, all answered right, to show a precision of 0.95; "
        "there are 30."
    )


def test_images_that_are_all_equally_sure_are_judged_together():
    _, lacking = abstain_at(0.95, np.ones(100), np.arange(100) < 60)
    assert lacking == (
        "Of the 100 surest validation images, the fewest that could show a precision of 0.95, 60 "
        "are right. The model is not as good as that."
    )


def test_too_few_images_are_told_with_the_number_that_it_takes():
    found, lacking = abstain_at(0.95, np.linspace(1, 0.5, 40), np.ones(40, bool))
    assert found is None
    assert lacking == (
        "It takes at least 59 validation images, all answered right, to show a precision of 0.95; "
        "there are 40."
    )


def test_a_model_that_is_not_good_enough_is_told():
    hits = np.arange(200) % 2 == 0
    _, lacking = abstain_at(0.9, np.linspace(1, 0.5, 200), hits)
    assert lacking == (
        "Of the 29 surest validation images, the fewest that could show a precision of 0.9, 15 are "
        "right. The model is not as good as that."
    )


def test_the_promise_is_broken_in_at_most_5_of_100_validation_splits():
    rng = np.random.default_rng(0)
    broken = given = 0
    for _ in range(400):
        confidence = rng.uniform(0.4, 1, 300)
        found, _ = abstain_at(0.9, confidence, rng.uniform(size=300) < confidence)
        if found:
            given += 1
            # The score is the truth here: above a threshold t it is (1 + t) / 2 in the mean.
            broken += (1 + found.threshold) / 2 < 0.9
    assert given > 100
    assert broken / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_an_abstention_is_written_with_all_its_figures():
    assert Abstention(0.9, 0.8, 0.7, 0.95, 0.91, 60).to_json() == {
        "promised": 0.9,
        "threshold": 0.8,
        "coverage": 0.7,
        "precision": 0.95,
        "bound": 0.91,
        "n": 60,
    }
