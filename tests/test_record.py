"""run.json as typed objects: what was written comes back, whatever version wrote it."""

from dataclasses import replace
from pathlib import Path

import pytest

import kerasft
from kerasft.errors import UserError
from kerasft.metrics import Figures
from kerasft.progress import PartTime
from kerasft.record import Device, Gap, PhaseResult, RunRecord, RunResult, Solving, Steps, StoreUse

MACHINE = Device("tensorflow", "cpu", "", 2)
HEAD = PhaseResult(
    name="head",
    blocks=0,
    how=Steps(epochs=4, best_epoch=3),
    trainable_parameters=120,
    seconds=3.5,
    improved=True,
    validation=Figures(0.75, 0.5, 8),
    train_loss=0.4,
    train_accuracy=0.9,
    val_loss=0.51,
    val_accuracy=0.75,
    batch_norm_trained=("norm",),
    parts=(PartTime("epochs", None, 2.0), PartTime("scoring", 1.0, 1.5)),
    activations=StoreUse(False, 4, 1024, "float16", "folded", "float32"),
    gap=Gap(0.0, 0.01),
)
SVM = PhaseResult(
    name="svm",
    blocks=0,
    how=Solving("svm", {"C": 0.1}, ({"C": 0.1, "score": 0.8},), "accuracy", True, ("A note.",)),
    trainable_parameters=99,
    seconds=1.0,
    improved=False,
    validation=Figures(0.5, 0.9, 8),
    train_loss=0.1,
    train_accuracy=1.0,
    val_loss=0.9,
    val_accuracy=0.5,
)
RECORD = RunRecord("running", {"kerasft": "0.2.0"}, MACHINE, seed=7).with_phase(HEAD)


def test_what_was_written_comes_back():
    rough = replace(HEAD, how=Steps(4, 3, "mixed_bfloat16"))
    record = RECORD.with_phase(SVM).with_phase(rough).with_test(Figures(0.625, 0.6, 16))
    assert RunRecord.from_json(record.to_json(), Path("run.json")) == record


def test_a_phase_that_helped_is_the_best_and_takes_the_test_figures_of_the_one_before_away():
    assert (RECORD.best_phase, RECORD.validation) == ("head", Figures(0.75, 0.5, 8))
    tested = RECORD.with_test(Figures(0.625, 0.6, 16))
    assert (tested.test, tested.test_scored) == (Figures(0.625, 0.6, 16), 1)
    assert tested.with_phase(SVM).test == tested.test
    again = tested.with_phase(HEAD)
    assert (again.test, again.test_scored, len(again.phases)) == (None, 1, 2)


def test_run_json_holds_a_phases_facts_side_by_side():
    phase = RECORD.to_json()["phases"][0]
    assert phase["precision"] == "float32"
    assert list(phase)[:10] == [
        "name",
        "blocks",
        "epochs",
        "best_epoch",
        "precision",
        "head_start",
        "alpha",
        "alphas",
        "trainable_parameters",
        "batch_norm_trained",
    ]
    assert phase["parts"][1] == {"name": "scoring", "predicted_seconds": 1.0, "seconds": 1.5}
    assert phase["gap"] == {"accuracy": 0.0, "loss": 0.01}
    solved = SVM.to_json()
    assert (solved["method"], solved["parameters"]) == ("svm", {"C": 0.1})
    assert (solved["activations"], solved["gap"]) == (None, None)


def test_the_result_has_the_interval_of_the_test_accuracy_and_hides_what_few_need():
    record = RECORD.with_test(Figures(0.5, 0.7, 16))
    printed = RunResult.of(Path("runs/a"), record).to_json()
    assert printed["run"] == str(Path("runs/a"))
    low, high = printed["test"]["ci95"]
    assert (round(low, 3), round(high, 3)) == (0.28, 0.72)
    assert {"batch_norm_trained", "validation"} & set(printed["phases"][0]) == set()


def test_what_an_earlier_version_did_not_write_has_a_default():
    phase = {
        name: value
        for name, value in HEAD.to_json().items()
        if name not in ("parts", "activations", "gap", "batch_norm_trained", "precision")
    }
    facts = {"schema": 1, "status": "finished", "threads": 2, "phases": [phase]}
    record = RunRecord.from_json(facts, Path("run.json"))
    assert record.machine == MACHINE
    assert (record.phases[0].parts, record.phases[0].activations) == ((), None)
    assert record.phases[0].how == Steps(4, 3, "float32")
    assert record.test_scored == 0


def test_a_later_schema_is_refused_with_the_version_that_wrote_it():
    facts = {**RECORD.to_json(), "schema": 2, "versions": {"kerasft": "0.9.0"}}
    with pytest.raises(UserError) as refused:
        RunRecord.from_json(facts, Path("runs/a/run.json"))
    assert str(refused.value) == (
        f"{Path('runs/a/run.json')}: written by kerasft 0.9.0, in a form that this version, "
        f"{kerasft.__version__}, does not know (schema 2, known up to 1). Update kerasft."
    )


def test_a_record_without_its_status_is_damaged():
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        RunRecord.from_json({"schema": 1}, Path("run.json"))
