"""TensorBoard and MLflow: every epoch once, also after an interruption, and never in the way."""

import json
import logging
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from drawing import draw_photos
from tiny_run import SECOND, small

from kerasft import trackers
from kerasft.record import Device, RunRecord
from kerasft.run import Run, write_record
from kerasft.trackers import TensorBoard, Tracked, Tracking, figures_of, flattened, tracking
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly")


ROWS = [
    {
        "phase": phase,
        "epoch": epoch,
        "loss": 0.5,
        "accuracy": 0.75,
        "val_loss": 0.25 * epoch,
        "val_accuracy": 0.5,
        "learning_rates": {"head": 0.001},
        "activations": "float32",
    }
    for phase, epoch in [("head", 1), ("head", 2), ("unfreeze", 1)]
]
RECORD = RunRecord("running", {"keras": "3.15.0"}, Device("tensorflow", "cpu", "", 2), seed=0)


def logged(folder):
    """The scalars in a folder of logs, [(step, {tag: value})] in the order of writing."""
    files = sorted(str(path) for path in folder.glob("events.out.tfevents.*"))
    events = [tf.compat.v1.Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(files)]
    return [
        (event.step, {value.tag: value.simple_value for value in event.summary.value})
        for event in events
        if event.summary.value
    ]


def steps(folder):
    return [step for step, _ in logged(folder)]


def test_figures_and_settings_have_flat_names():
    assert figures_of(ROWS[1]) == {
        "loss": 0.5,
        "accuracy": 0.75,
        "val_loss": 0.5,
        "val_accuracy": 0.5,
        "learning_rate/head": 0.001,
    }
    config = {"seed": 0, "data": {"columns": ["a"], "label_from": None}, "phases": [{"epochs": 5}]}
    assert flattened(config) == {"seed": 0, "data.columns": ["a"], "phases.0.epochs": 5}


# TensorBoard


def test_tensorboard_gets_each_epoch_once_in_the_folder_of_its_phase(tmp_path):
    first = TensorBoard(tmp_path)
    first.tell(ROWS[:1])
    first.tell(ROWS[:1])
    first.close(RECORD, "KILLED")
    second = TensorBoard(tmp_path)  # another process goes on
    second.tell(ROWS)
    second.tell(ROWS)
    second.close(RECORD, "FINISHED")
    assert steps(tmp_path / "head") == [1, 2]
    ((step, figures),) = logged(tmp_path / "unfreeze")
    assert step == 1
    assert figures["val_loss"] == 0.25
    assert figures["learning_rate/head"] == pytest.approx(0.001)


def test_logs_of_a_phase_that_began_anew_or_was_taken_out_are_removed(tmp_path):
    TensorBoard(tmp_path).tell(ROWS)
    TensorBoard(tmp_path).tell(ROWS[:1])
    assert steps(tmp_path / "head") == [1]
    assert not (tmp_path / "unfreeze").exists()


def test_half_a_record_of_a_killed_process_is_written_again(tmp_path):
    TensorBoard(tmp_path).tell(ROWS[:1])
    (file,) = (tmp_path / "head").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    TensorBoard(tmp_path).tell(ROWS[:2])
    assert steps(tmp_path / "head") == [1, 2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, tiny_backbone):
    return draw_photos(tmp_path_factory.mktemp("tracked") / "photos")


@pytest.fixture
def interrupted(photos, tmp_path):
    """A run that was interrupted after its first epoch."""

    def progress(event):
        if event.stage == "epoch":
            raise KeyboardInterrupt

    def interrupt():
        with pytest.raises(KeyboardInterrupt):
            train_run(small(photos, "tensorboard=true"), tmp_path / "run", progress=progress)
        return tmp_path / "run"

    return interrupt


def test_a_run_that_was_resumed_and_continued_has_every_epoch_once(interrupted, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = interrupted()
    assert steps(run / "tensorboard" / "head")[-1] == 1
    continue_run(run, resume=True)
    continue_run(run, flags=SECOND)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for phase in ("head", "unfreeze"):
        expected = [row for row in rows if row["phase"] == phase]
        found = logged(run / "tensorboard" / phase)
        assert [step for step, _ in found] == [row["epoch"] for row in expected]
        for (_, figures), row in zip(found, expected, strict=True):
            assert figures["val_loss"] == pytest.approx(row["val_loss"], rel=1e-6)  # float32


def opened(tmp_path, **config):
    write_record(Run(tmp_path), RECORD)
    return Tracked(Run(tmp_path), {"tensorboard": False, **config}, whole=True)


def test_without_tensorflow_a_sentence_says_that_no_logs_are_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with tracking(opened(tmp_path, tensorboard=True)):
        pass
    assert caplog.messages == [
        "tensorboard = true: the logs can't be written, because TensorFlow is not installed. "
        "Install it: pip install tensorflow."
    ]


# all


class Away:
    """A server that is away."""

    def tell(self, rows):
        raise ConnectionError("http://me:secret@there:5000/api is away.\nand more")

    def close(self, record, status):
        raise AssertionError("it was left out")


def test_a_tracker_that_fails_is_left_out_with_a_warning(tmp_path, caplog):
    opened(tmp_path)
    kept = TensorBoard(tmp_path / "logs")
    tracking = Tracking(Run(tmp_path), {"Away": Away(), "TensorBoard": kept})
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    tracking.close("FINISHED")
    assert caplog.messages == ["Away: http://there:5000/api is away. Training goes on without it."]
    assert steps(tmp_path / "logs" / "head") == [1]


def test_a_run_that_was_removed_leaves_nothing_of_the_trackers(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        tracking(opened(tmp_path, tensorboard=True)),
    ):
        (tmp_path / "tensorboard" / "head").mkdir(parents=True)
        (tmp_path / "mlflow.json").touch()
        (tmp_path / "run.json").unlink()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


# MLflow


def test_without_mlflow_a_sentence_says_what_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with tracking(opened(tmp_path)):
        pass
    assert caplog.messages == [
        "MLFLOW_TRACKING_URI is set, but MLflow is not told of this run, because its package is "
        "not installed. Install it: pip install 'kerasft[mlflow]'."
    ]


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of a file store in a temporary folder."""
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return MlflowClient(uri)


def runs_in(client):
    return client.search_runs(["0"])


def test_all_phases_of_a_run_are_one_mlflow_run(client, interrupted, caplog):
    caplog.set_level(logging.INFO, "kerasft")
    run = interrupted()
    assert [one.info.status for one in runs_in(client)] == ["KILLED"]
    continue_run(run, resume=True)
    result = continue_run(run, flags=SECOND)
    (one,) = runs_in(client)
    assert (one.info.status, one.info.run_name) == ("FINISHED", "run")
    assert one.info.run_id == json.loads((run / "mlflow.json").read_text())["run_id"]
    params = one.data.params
    assert (params["seed"], params["phases.0.epochs"], params["phases.1.blocks"]) == ("0", "2", "1")
    assert params["model.backbone"] == "Tiny"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for phase in ("head", "unfreeze"):
        history = client.get_metric_history(one.info.run_id, f"{phase}/val_loss")
        assert [(metric.step, metric.value) for metric in history] == [
            (row["epoch"], row["val_loss"]) for row in rows if row["phase"] == phase
        ]
    assert one.data.metrics["test_accuracy"] == result.test.accuracy
    assert one.data.metrics["test_accuracy_ci95_low"] == result.test.interval[0]
    assert one.data.metrics["validation_loss"] == result.validation.loss
    assert one.data.tags["kerasft.best_phase"] == result.best_phase
    assert one.data.tags["kerasft.device"].startswith("tensorflow on cpu with ")
    assert not [message for message in caplog.messages if "Training goes on" in message]


def test_trials_of_a_comparison_are_not_told(client, tmp_path):
    tracked = opened(tmp_path)
    with tracking(Tracked(tracked.run, tracked.config, whole=False)):
        pass
    assert runs_in(client) == []


def test_the_experiment_is_that_of_mlflows_variables(client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "insects")
    for _ in range(2):
        with tracking(opened(tmp_path)):
            pass
    made = client.get_experiment_by_name("insects")
    (one,) = client.search_runs([made.experiment_id])  # the second process went on with it
    assert one.info.status == "FINISHED"


def test_a_store_that_refuses_is_a_warning(client, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://user:secret@there")
    with tracking(opened(tmp_path)):
        pass
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("MLflow: ")
    assert caplog.messages[0].endswith(" Training goes on without it.")
    assert not Path(tmp_path / "mlflow.json").exists()
    assert trackers.TRACKERS.keys() == {"TensorBoard", "MLflow"}
