"""The temperature that a phase ends with, and the figures that have it or don't."""

import json
import shutil

import keras
import numpy as np
import pytest
from drawing import draw_photos
from tiny_run import SECOND, train_head

from kerasft.config.load import load_config
from kerasft.data.scan import open_images
from kerasft.evaluation.calibrate import calibrate_run
from kerasft.evaluation.evaluate import batches_of, evaluate_run
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.tta import with_temperature
from kerasft.progress import silent
from kerasft.run import Run, read_record
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


def _photos(run, opened):
    return open_images(Run(run), opened.class_names, data=None, progress=silent)


def _validation_logits(run, opened):
    return bundle.score(opened, batches_of(_photos(run, opened), "validation", opened.rule))[1]


def _labels(run):
    found = _photos(run, bundle.load(run / "model.keras"))
    return found.labels[found.indices("validation")]


def bayes(photos, *sets):
    flags = {"model.weights": "sample", "phases.0.method": "bayes", "data.validation": 0.4}
    return load_config(None, flags={**flags, "data.source": str(photos)}, sets=sets)


@pytest.fixture(scope="module")
def oversure(tmp_path_factory, tiny_backbone):
    """A run of naive Bayes, whose scores are surer than they should be, and a copy of it."""
    folder = tmp_path_factory.mktemp("oversure")
    photos = draw_photos(folder / "photos", per_class=40)
    rng = np.random.default_rng(0)
    for path in sorted(photos.rglob("*.*"))[::2]:  # every second photo shows nothing of its class
        keras.utils.save_img(path, rng.integers(0, 256, (32, 32, 3), dtype="uint8"), scale=False)
    train_run(bayes(photos), folder / "run")
    return folder


def test_a_phase_ends_with_a_temperature_that_its_figures_have(oversure):
    record = read_record(Run(oversure / "run"))
    (phase,) = record.phases
    found = record.calibration
    assert found == phase.calibration
    assert found.temperature > 1.2
    assert found.after.loss < found.before.loss == pytest.approx(phase.validation.loss, rel=1e-6)
    assert bundle.load(oversure / "run" / "model.keras").temperature == pytest.approx(
        found.temperature
    )
    # The figures on test are those of the scores as they are given.
    assert evaluate_run(oversure / "run", split="test").loss == pytest.approx(
        record.test.loss, rel=1e-5
    )


def test_validation_is_reported_with_the_figures_out_of_fold(oversure):
    report = evaluate_run(oversure / "run", split="validation")
    assert report.out_of_fold == read_record(Run(oversure / "run")).calibration.after
    assert evaluate_run(oversure / "run", split="train").out_of_fold is None


def test_without_calibrate_there_is_no_temperature_and_the_same_plain_model(oversure, tmp_path):
    result = train_run(bayes(oversure / "photos", "calibrate=false"), tmp_path / "run")
    assert result.calibration is None
    opened = bundle.load(tmp_path / "run" / "model.keras")
    assert opened.temperature == 1
    assert result.validation == read_record(Run(oversure / "run")).validation


def test_a_later_phase_begins_without_the_temperature_and_fits_its_own(
    tiny_backbone, tmp_path_factory
):
    run = train_head(tmp_path_factory.mktemp("warm"), "phases.0.head_start=kept").run
    opened = bundle.load(run / "model.keras")
    warm = with_temperature(opened.model, 5.0)
    bundle.save(bundle.Bundle(warm, opened.class_names, opened.rule), run / "model.keras")
    result = continue_run(run, flags={**SECOND, "phases.-1.learning_rate": 1e-2})
    assert result.phases[-1].improved
    again = bundle.load(run / "model.keras")
    assert again.temperature == result.calibration.temperature != 5
    plain = Figures.of(_validation_logits(run, again), _labels(run))
    assert plain.loss == pytest.approx(result.validation.loss, rel=1e-5)


def test_an_interrupted_calibration_is_measured_again(oversure):
    run = shutil.copytree(oversure / "run", oversure / "interrupted")
    facts = json.loads((run / "run.json").read_text())
    facts["calibration"] = None  # as a run of an older version, whose model has no temperature
    facts["test"]["loss"] = 9.0
    (run / "run.json").write_text(json.dumps(facts))
    calibrate_run(run)
    again = read_record(Run(run))
    assert again.test.loss == pytest.approx(evaluate_run(run, split="test").loss, rel=1e-5)
