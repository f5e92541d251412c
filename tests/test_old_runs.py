"""Runs of earlier versions are opened, scored, resumed and unfrozen as if they were today's."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from html_page import Page

import kerasft
from kerasft.cli.main import main
from kerasft.data.scan import open_source
from kerasft.errors import UserError
from kerasft.evaluation.report import report_run
from kerasft.models import bundle
from kerasft.run import Run, read_metrics, read_record

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")

OLD = Path(__file__).resolve().parent / "old_runs"
VERSIONS = ("fe3cd76", "858f120")
FINISHED = (*(f"{version}/head" for version in VERSIONS), "858f120/solved")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A copy of the runs and the photos."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "runs"))


def copy_of(old: Path, name: str, new: str) -> Path:
    """A copy of a run beside it, since its config names the photos relative to it."""
    run = old / name
    return Path(shutil.copytree(run, run.with_name(new)))


@pytest.mark.parametrize("name", FINISHED)
def test_its_model_scores_what_its_record_says(old, name):
    run = copy_of(old, name, f"{Path(name).name}-scored")
    before = read_record(Run(run))
    report = kerasft.evaluate_run(run)
    assert (report.split, report.n, report.accuracy) == ("test", 6, before.test.accuracy)
    # Another processor may round differently.
    assert report.loss == pytest.approx(before.test.loss, rel=1e-4)
    after = read_record(Run(run))
    assert (before.test_scored, after.test_scored) == (1, 2)
    assert after.phases == before.phases


@pytest.mark.parametrize("name", FINISHED)
def test_it_has_a_report(old, name, tmp_path):
    run = copy_of(old, name, f"{Path(name).name}-reported")
    made = report_run(run, to=tmp_path / "a.html")
    page = Page(made.path)
    assert page.unclosed == [] and page.from_elsewhere() == []
    test = read_record(Run(run)).test
    assert next(row for row in page.rows if row[0] == "test")[1:3] == ["6", f"{test.accuracy:.3f}"]


@pytest.mark.parametrize("name", FINISHED)
def test_its_splits_name_every_photo(old, name):
    run = Run(old / name)
    data = kerasft.load_config(run.config_path).data
    source = open_source(run.splits_path, run.classes_path, data)
    assert source.class_names == ("circle", "cross", "stripes")
    assert source.pixels == () and source.pictures() == source.digests
    assert {split: len(source.indices(split)) for split in ("train", "validation", "test")} == {
        **{"train": 18, "validation": 6, "test": 6}
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupted_run_goes_on_and_is_told_that_the_numbers_differ_slightly(
    old, version, caplog
):
    run = copy_of(old, f"{version}/interrupted", "resumed")
    expected = json.loads((old / version / "uninterrupted.json").read_text("utf-8"))
    result = kerasft.continue_run(run, resume=True)
    assert any("computed with" in m and "numerics 1 (now 3)" in m for m in caplog.messages)
    assert [phase.name for phase in result.phases] == ["head", "unfreeze"]
    assert result.best_phase == expected["best_phase"] == "unfreeze"
    assert result.validation.loss == pytest.approx(expected["validation"]["loss"], rel=1e-3)
    assert result.test.accuracy == expected["test"]["accuracy"]
    lines = read_metrics(Run(run))
    assert [(line["phase"], line["epoch"]) for line in lines] == [
        *(("head", epoch) for epoch in (1, 2, 3)),
        *(("unfreeze", epoch) for epoch in (1, 2, 3)),
    ]
    # The third epoch, with the optimizer's slots and the seeds of the second. In those versions
    # augmented photos looked otherwise, which is 0.02 of its training loss.
    for figure, tolerance in (("loss", 0.03), ("val_loss", 1e-3)):
        before = expected["metrics"][-1][figure]
        assert lines[-1][figure] == pytest.approx(before, rel=tolerance)
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("name", ["fe3cd76/head", "858f120/solved"])
def test_a_finished_run_gets_another_phase(old, name):
    run = copy_of(old, name, f"{Path(name).name}-longer")
    flags = {"phases.-1.blocks": 1, "phases.-1.epochs": 3, "phases.-1.batch_size": 8}
    result = kerasft.continue_run(run, flags=flags)
    assert [phase.name for phase in result.phases][1:] == ["unfreeze"]
    assert result.phases[1].frozen_proof == "equal"
    # Version 0.1.0 trained on a new view in every epoch, and stored nothing.
    stored = result.phases[1].activations is not None
    assert stored == (not name.startswith("fe3cd76"))
    assert read_record(Run(run)).versions["kerasft"] == "0.1.0"


@pytest.mark.parametrize("name", FINISHED)
def test_the_commands_show_it(old, name):
    done = CliRunner().invoke(main, ["train", "--run", str(old / name), "--resume", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["phases"][0]["name"] == Path(name).name.replace("solved", "svm")
    text = CliRunner().invoke(main, ["train", "--run", str(old / name), "--resume"])
    assert text.exit_code == 0 and "\nRun: " in text.stdout, text.output


@pytest.mark.parametrize("version", VERSIONS)
def test_its_base_is_what_another_run_starts_from(old, version):
    flags = {"data.source": str(old / "photos"), "model.weights": str(old / version / "head")}
    model = kerasft.load_config(flags=flags).model
    assert (model.backbone, model.image_size) == ("Tiny", 32)


def test_it_predicts(old):
    answers = kerasft.predict(old / "fe3cd76" / "head", old / "photos" / "cross", top=1)
    labels = [answer.labels[0].label for answer in answers]
    assert len(labels) == 10 and set(labels) <= {"circle", "cross", "stripes"}


def test_a_run_of_a_later_version_is_refused_by_every_command(old):
    run = copy_of(old, "858f120/head", "later")
    record = json.loads((run / "run.json").read_text("utf-8"))
    record |= {"schema": 2, "versions": {"kerasft": "3.1.0"}}
    (run / "run.json").write_text(json.dumps(record))
    for use in (
        lambda: kerasft.evaluate_run(run, split="validation"),
        lambda: kerasft.export_run(run),
        lambda: kerasft.continue_run(run),
        lambda: kerasft.predict(run, old / "photos"),
    ):
        with pytest.raises(UserError, match=r"run\.json: written by kerasft 3\.1\.0, in a form"):
            use()


def test_a_model_file_of_a_later_version_is_refused(old, tmp_path):
    path = tmp_path / "model.keras"
    facts = {"format": 2, "versions": {"kerasft": "3.1.0"}, "class_names": ["a", "b"]}
    with (
        zipfile.ZipFile(old / "858f120" / "head" / "model.keras") as archive,
        zipfile.ZipFile(path, "w") as later,
    ):
        for name in archive.namelist():
            known = archive.read(name)
            later.writestr(name, json.dumps(facts) if name == bundle.MEMBER else known)
    with pytest.raises(UserError) as refused:
        bundle.load(path)
    assert str(refused.value) == (
        f"{path}: written by kerasft 3.1.0, in a form that this version, {kerasft.__version__}, "
        "does not know (schema 2, known up to 1). Update kerasft."
    )


def test_a_model_file_says_which_version_wrote_it(old, tmp_path):
    opened = bundle.load(old / "858f120" / "head" / "model.keras")
    bundle.save(opened, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        facts = json.loads(archive.read("kerasft.json"))
    assert (facts["format"], facts["versions"]) == (1, {"kerasft": kerasft.__version__})
