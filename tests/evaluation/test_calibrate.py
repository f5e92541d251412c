"""Calibration of a finished run: temperature, threshold, the table of answers."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy.special import softmax
from small_run import small_run

from kerasft.confidence import Abstention
from kerasft.errors import UserError
from kerasft.evaluation.calibrate import calibrate_run
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.predict import predict
from kerasft.models import bundle
from kerasft.models.tta import temperature_of, trained_part, with_temperature, with_views
from kerasft.run import Run, read_record


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("calibrate"))


@pytest.fixture
def made_copy(made):
    copy = made.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(made, copy)


def pixels(n=6, side=32):
    return np.random.default_rng(0).uniform(0, 255, (n, side, side, 3)).astype("float32")


def test_a_temperature_divides_the_logits_and_keeps_their_order(made):
    opened = bundle.load(made / "model.keras")
    plain = opened.logits_model().predict_on_batch(pixels())
    warm = with_temperature(opened.model, 2.5)
    assert temperature_of(warm) == pytest.approx(2.5)
    assert warm.predict_on_batch(pixels()) == pytest.approx(softmax(plain / 2.5, axis=1), abs=1e-6)
    assert temperature_of(with_temperature(warm, 1)) == 1
    assert [layer.name for layer in warm.layers][-3:] == ["logits", "temperature", "scores"]


def test_what_a_later_phase_trains_has_neither_temperature_nor_views(made):
    model = bundle.load(made / "model.keras").model
    plain = model.predict_on_batch(pixels())
    for finished in (with_temperature(model, 3), with_temperature(with_views(model, "flip"), 3)):
        inner = trained_part(finished)
        assert temperature_of(inner) == 1
        assert inner.predict_on_batch(pixels()) == pytest.approx(plain, abs=1e-6)


def test_temperature_and_threshold_are_read_back_from_model_keras(made, tmp_path):
    opened = bundle.load(made / "model.keras")
    threshold = Abstention(0.9, 0.8, 0.5, 0.95, 0.91, 60)
    warm = bundle.Bundle(
        with_temperature(opened.model, 2), opened.class_names, opened.rule, threshold
    )
    bundle.save(warm, tmp_path / "warm.keras")
    again = bundle.load(tmp_path / "warm.keras")
    assert (again.temperature, again.abstention, again.threshold) == (2.0, threshold, 0.8)
    scores = again.model.predict_on_batch(pixels())
    assert again.abstains(scores).tolist() == (scores.max(axis=1) < 0.8).tolist()
    assert opened.abstains(scores) is None


def test_a_run_is_calibrated_and_its_record_says_so(made_copy):
    result = calibrate_run(made_copy)
    record = read_record(Run(made_copy))
    assert record.calibration == result.calibration
    assert bundle.load(made_copy / "model.keras").temperature == pytest.approx(
        result.calibration.temperature
    )
    assert (result.abstention, result.lacking, record.abstention) == (None, None, None)
    assert json.loads((made_copy / "run.json").read_text())["abstention"] is None


def test_evaluate_measures_the_scores_as_they_are_given(made_copy):
    plain = evaluate_run(made_copy, split="validation")
    opened = bundle.load(made_copy / "model.keras")
    warm = with_temperature(opened.model, 4)
    bundle.save(bundle.Bundle(warm, opened.class_names, opened.rule), made_copy / "model.keras")
    cooler = evaluate_run(made_copy, split="validation")
    assert cooler.accuracy == plain.accuracy
    assert cooler.loss != pytest.approx(plain.loss, rel=1e-3)
    assert cooler.ece != pytest.approx(plain.ece, rel=1e-3)


def test_a_promise_that_cannot_be_shown_sets_no_threshold(made_copy):
    result = calibrate_run(made_copy, abstain_at=0.99)
    assert result.abstention is None
    assert result.lacking.startswith("It takes at least 299 validation images")
    assert bundle.load(made_copy / "model.keras").threshold is None


def _with_threshold(run, threshold):
    opened = bundle.load(run / "model.keras")
    abstention = Abstention(0.9, threshold, 0.5, 0.95, 0.91, 60)
    made = bundle.Bundle(opened.model, opened.class_names, opened.rule, abstention)
    bundle.save(made, run / "model.keras")


def test_a_threshold_is_measured_and_written_into_tables(made_copy, tmp_path):
    table = tmp_path / "answers.csv"
    plain = evaluate_run(made_copy, split="validation", csv=table)
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == ["path", "label", "predicted", "score", "abstain"]
    assert len(rows) == plain.n and {row["abstain"] for row in rows} == {""}
    assert np.mean([row["label"] == row["predicted"] for row in rows]) == plain.accuracy
    scores = sorted(float(row["score"]) for row in rows)
    _with_threshold(made_copy, scores[len(scores) // 2])
    report = evaluate_run(made_copy, split="validation", csv=table)
    rows = list(csv.DictReader(table.open()))
    answered = [row for row in rows if row["abstain"] == "false"]
    assert report.answered.n == len(answered) < plain.n
    assert report.answered.coverage == len(answered) / plain.n
    right = np.mean([row["label"] == row["predicted"] for row in answered])
    assert report.answered.accuracy == right
    photo = made_copy.parent / "photos" / rows[0]["path"]
    (said,) = predict(made_copy, photo, csv=table)
    (row,) = csv.DictReader(table.open())
    assert row["label"] == "" and row["predicted"] == said.labels[0].label
    assert row["abstain"] == str(said.abstain).lower() == rows[0]["abstain"]


@pytest.mark.parametrize("precision", [0.5, 1.0, 95])
def test_a_precision_outside_of_the_limits_is_refused(made_copy, precision):
    with pytest.raises(UserError) as error:
        calibrate_run(made_copy, abstain_at=precision)
    assert error.value.exit_code == 2
    assert str(error.value).startswith(
        "abstain_at: expected a precision above 0.5 and below 1, got "
    )


def test_older_runs_without_calibration_are_read(made_copy):
    facts = json.loads((made_copy / "run.json").read_text())
    for name in ("calibration", "abstention"):
        facts.pop(name, None)
    (made_copy / "run.json").write_text(json.dumps(facts))
    record = read_record(Run(made_copy))
    assert (record.calibration, record.abstention) == (None, None)
