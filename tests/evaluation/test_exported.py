"""Exports are measured like runs: in their runtime, on the photos of the run they lie in."""

import json
import shutil

import numpy as np
import pytest
from small_run import NAMES, small_run, swapped

from kerasft.confidence import Abstention
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.export.facts import ExportFacts, write_facts
from kerasft.export.formats import EXPORTERS
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.tta import with_temperature


def put(opened, folder, format="keras"):
    """Writes an export without its proof."""
    folder.mkdir(parents=True)
    facts = ExportFacts.of(opened, format)
    write_facts(folder, facts)
    EXPORTERS[format].write(opened, folder, facts, None)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, and an export of its model in it that has a temperature and a threshold."""
    folder = tmp_path_factory.mktemp("exported")
    run = small_run(folder)
    opened = bundle.load(run / "model.keras")
    at = Abstention(0.9, 0.5, 0.5, 0.95, 0.91, 60)
    warm = Bundle(with_temperature(opened.model, 2.0), NAMES, opened.rule, at)
    bundle.save(warm, run / "model.keras")
    put(warm, run / "export" / "1", "saved-model")
    put(warm, run / "export-keras" / "1")  # opened in a tenth of the time
    return folder


def test_an_export_in_its_run_gets_the_figures_of_the_run(made):
    ours = evaluate_run(made / "run", split="validation")
    theirs = evaluate_run(made / "run/export", split="validation")
    assert (theirs.n, theirs.accuracy, theirs.answered.n) == (6, ours.accuracy, ours.answered.n)
    assert theirs.loss == pytest.approx(ours.loss, abs=1e-5)  # of scores with the temperature
    assert theirs.ece == pytest.approx(ours.ece, abs=1e-5)
    np.testing.assert_array_equal(theirs.confusion, ours.confusion)


def test_a_test_split_that_an_export_is_measured_on_is_counted(made):
    before = json.loads((made / "run/run.json").read_text())["test_scored"]
    evaluate_run(made / "run/export-keras/1")
    assert json.loads((made / "run/run.json").read_text())["test_scored"] == before + 1


def test_another_model_in_the_export_gets_other_figures(made):
    opened = bundle.load(made / "run/model.keras")
    put(swapped(opened), made / "run" / "other" / "1")
    ours = evaluate_run(made / "run", split="train").loss
    assert abs(evaluate_run(made / "run/other", split="train").loss - ours) > 0.1


def test_an_export_without_a_run_needs_photos_and_takes_them(made, tmp_path):
    alone = shutil.copytree(made / "run/export-keras/1", tmp_path / "served")
    with pytest.raises(UserError, match=r"served: is not a run, so it has no photos of its own"):
        evaluate_run(alone)
    found = evaluate_run(alone, data=made / "photos")
    assert (found.split, found.n) == ("all", 36)
    assert found.accuracy == evaluate_run(made / "run/model.keras", data=made / "photos").accuracy


def test_an_export_that_does_not_say_what_it_takes_is_refused(made, tmp_path):
    alone = shutil.copytree(made / "run/export-keras/1", tmp_path / "served")
    (alone / "kerasft.json").write_text('{"kerasft": 1}')
    with pytest.raises(UserError, match=r"kerasft\.json: is damaged .* Export again\."):
        evaluate_run(alone, data=made / "photos")
    (alone / "kerasft.json").unlink()
    with pytest.raises(UserError, match=r"served: has no kerasft\.json, .* export again\."):
        evaluate_run(alone, data=made / "photos")
