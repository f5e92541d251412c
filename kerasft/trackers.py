"""Trackers: TensorBoard and MLflow, which show the epochs of runs beside each other.

`tracking` opens those that a run has, each a row of `TRACKERS`. They are fed with the rows of
metrics.jsonl after every epoch, and each writes the rows that it lacks: after an interruption no
epoch is there twice. A tracker that fails is left out with a warning, and training goes on.
"""

import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kerasft import __version__
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.lazy_tensorflow import is_installed, tf
from kerasft.progress import Event, Progress
from kerasft.record import RunRecord, with_interval
from kerasft.run import Run, read_metrics, read_record
from kerasft.untrusted import checked, read_json

log = logging.getLogger("kerasft")

TENSORBOARD = "tensorboard"  # folder in the run
MLFLOW = "mlflow.json"  # file in the run with the id of its MLflow run
MLFLOW_URI = "MLFLOW_TRACKING_URI"  # environment variable, by which MLflow itself goes

Row = Mapping[str, Any]


class Tracker(Protocol):
    """One place to which the epochs of a run are told."""

    def tell(self, rows: Sequence[Row]) -> None:
        """Writes the epochs that it lacks.

        Args:
            rows: all rows of metrics.jsonl so far.
        """

    def close(self, record: RunRecord, status: str) -> None:
        """Writes the final figures, if there are any, and closes what is open.

        Args:
            record: the record of the run.
            status: how training ended: "FINISHED", "FAILED" or "KILLED" (Ctrl-C).
        """


class Tracking:
    """The trackers of a run while it trains."""

    def __init__(self, run: Run, trackers: Mapping[str, Tracker]) -> None:
        self._run = run
        self._trackers = dict(trackers)

    def watching(self, progress: Progress) -> Progress:
        """Returns a callback that tells the trackers of each epoch, and passes on all events."""

        def watched(event: Event) -> None:
            if event.stage == "epoch" and self._trackers:
                rows = read_metrics(self._run)
                self._each(lambda tracker: tracker.tell(rows))
            progress(event)

        return watched

    def close(self, status: str) -> None:
        """Tells the trackers of what they lack, and closes them."""
        if not self._trackers:
            return
        try:
            rows, record = read_metrics(self._run), read_record(self._run)
        except UserError as error:  # what ended training matters more
            log.warning("%s: %s", ", ".join(self._trackers), error)
            return
        self._each(lambda tracker: tracker.tell(rows))
        self._each(lambda tracker: tracker.close(record, status))

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                do(tracker)
            except Exception as error:  # whatever a server or its client comes up with
                del self._trackers[name]
                _warn(name, error)


def _warn(name: str, error: Exception) -> None:
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    log.warning("%s: %s. Training goes on without it.", name, _without_password(reason.rstrip(".")))


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


@dataclass(frozen=True)
class Tracked:
    """What trackers are told of a run when it begins.

    Attributes:
        run: the run directory, with its record.
        config: the settled config, as nested mappings and sequences.
        whole: whether the run is of its own, and not a trial of a comparison.
    """

    run: Run
    config: Mapping[str, Any]
    whole: bool


@contextmanager
def tracking(tracked: Tracked) -> Iterator[Tracking]:
    """Opens the trackers of a run, and closes them at the end of the block, however it ends.

    If the block has removed the run (its only phase failed), what the trackers wrote into its
    directory is removed too.
    """
    run, trackers = tracked.run, {}
    for name, opening in TRACKERS.items():
        try:
            tracker = opening(tracked)
        except Exception as error:
            _warn(name, error)
        else:
            if tracker is not None:
                trackers[name] = tracker
    opened = Tracking(run, trackers)
    status = "FAILED"
    try:
        yield opened
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if run.record_path.is_file():
            opened.close(status)
        else:
            shutil.rmtree(run.path / TENSORBOARD, ignore_errors=True)
            (run.path / MLFLOW).unlink(missing_ok=True)


def figures_of(row: Row) -> dict[str, float]:
    """Returns the figures of an epoch by name, its learning rates as `learning_rate/GROUP`."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    figures = {name: float(row[name]) for name in names if name in row}
    rates = row.get("learning_rates", {})
    return figures | {f"learning_rate/{group}": float(rate) for group, rate in rates.items()}


def flattened(value: Any, name: str = "") -> Mapping[str, Any]:
    """Returns the settings of a config by dotted key, "phases.0.epochs"; those not set are absent.

    Args:
        value: the config, or a part of it.
        name: dotted key of the part.
    """
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        parts = list(enumerate(value))
    else:
        return {} if value is None else {name: value}
    found: dict[str, Any] = {}
    for key, part in parts:
        found |= flattened(part, f"{name}.{key}" if name else str(key))
    return found


class TensorBoard:
    """Scalar logs in RUN/tensorboard/PHASE, a step per epoch; a solved start of a head is step 0.

    They are written as records of TensorFlow, because `tf.summary.scalar` needs the package
    tensorboard, which TensorFlow does not bring any more.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tf.io.TFRecordWriter] = {}
        self._written: dict[str, set[int]] = {}

    def tell(self, rows: Sequence[Row]) -> None:
        """Writes the epochs that are not in the logs; see `Tracker`."""
        phases = list(dict.fromkeys(row["phase"] for row in rows))
        for phase in phases:
            of_phase = [row for row in rows if row["phase"] == phase]
            if phase not in self._written:
                self._written[phase] = self._steps_in(phase, of_phase)
            for row in of_phase:
                if row["epoch"] not in self._written[phase]:
                    self._write(phase, row)
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in phases:  # a phase that failed and was taken out of the run
                shutil.rmtree(path, ignore_errors=True)

    def _steps_in(self, phase: str, rows: Sequence[Row]) -> set[int]:
        """Returns the epochs that an earlier process wrote, or removes logs that do not fit."""
        folder = self._folder / phase
        files = sorted(str(path) for path in folder.glob("events.out.tfevents.*"))
        try:
            events = [
                tf.compat.v1.Event.FromString(record.numpy())
                for record in tf.data.TFRecordDataset(files)
            ]
        except tf.errors.DataLossError:  # a killed process left half a record
            events = None
        if events is not None:
            steps = {event.step for event in events if event.summary.value}
            if steps <= {row["epoch"] for row in rows}:
                return steps
        shutil.rmtree(folder)  # the phase began anew, or the logs are damaged: all is written again
        return set()

    def _write(self, phase: str, row: Row) -> None:
        if phase not in self._files:
            folder = self._folder / phase
            folder.mkdir(parents=True, exist_ok=True)
            number = len(list(folder.iterdir()))  # two processes may begin in the same second
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{number}"
            self._files[phase] = tf.io.TFRecordWriter(str(folder / name))
            version = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
            self._files[phase].write(version.SerializeToString())
        summary = tf.compat.v1.Summary()
        for name, figure in figures_of(row).items():
            summary.value.add(tag=name, simple_value=figure)
        event = tf.compat.v1.Event(wall_time=time.time(), step=row["epoch"], summary=summary)
        self._files[phase].write(event.SerializeToString())
        self._files[phase].flush()
        self._written[phase].add(row["epoch"])

    def close(self, record: RunRecord, status: str) -> None:
        """Closes the files; see `Tracker`."""
        for file in self._files.values():
            file.close()


def open_tensorboard(tracked: Tracked) -> TensorBoard | None:
    """Opens the logs for TensorBoard if the config has `tensorboard = true`."""
    if not tracked.config["tensorboard"]:
        return None
    if not is_installed():
        log.warning(
            "tensorboard = true: the logs can't be written, because TensorFlow is not installed. "
            "Install it: pip install tensorflow."
        )
        return None
    return TensorBoard(tracked.run.path / TENSORBOARD)


class Mlflow:
    """An MLflow run: settings as params, epochs as metrics PHASE/FIGURE, final figures, tags.

    Params can't be changed in MLflow: a setting that a later command changes keeps the value that
    was logged first.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._id = client, run_id
        self._written: dict[str, dict[int, float]] = {}  # by name of the metric, then by epoch

    def begin(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Logs the params that the MLflow run lacks, and its tags."""
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self._id).data.params
        new = [Param(name, str(x)[:6000]) for name, x in params.items() if name not in known]
        for first in range(0, len(new), 100):  # as many as MLflow takes at once
            self._client.log_batch(self._id, params=new[first : first + 100])
        self._client.log_batch(self._id, tags=[RunTag(name, text) for name, text in tags.items()])

    def tell(self, rows: Sequence[Row]) -> None:
        """Logs the epochs that the MLflow run lacks; see `Tracker`."""
        figures = []
        for row in rows:
            for name, figure in figures_of(row).items():
                figures.append((f"{row['phase']}/{name}", row["epoch"], figure))
        self._log(figures)

    def close(self, record: RunRecord, status: str) -> None:
        """Logs the figures of model.keras after the last phase; see `Tracker`."""
        step = len(record.phases)
        figures: list[tuple[str, int, float]] = []
        for split in ("validation", "test"):
            scored = getattr(record, split)
            if scored and status == "FINISHED":
                facts = with_interval(scored)
                low, high = facts["ci95"]
                numbers = {"accuracy_ci95_low": low, "accuracy_ci95_high": high}
                for name in ("accuracy", "loss", "base_rate", "balanced_accuracy"):
                    if facts.get(name) is not None:
                        numbers[name] = facts[name]
                figures += [(f"{split}_{name}", step, number) for name, number in numbers.items()]
        if figures:
            figures.append(("seconds", step, record.seconds))
        self._log(figures)
        if record.best_phase:
            self._client.set_tag(self._id, "kerasft.best_phase", record.best_phase)
        self._client.set_terminated(self._id, status)

    def _log(self, figures: Sequence[tuple[str, int, float]]) -> None:
        from mlflow.entities import Metric

        now, new = int(1000 * time.time()), []
        for name, step, figure in figures:
            key = re.sub(r"[^\w\-. /]", "_", name)  # what MLflow allows in a name
            if key not in self._written:
                history = self._client.get_metric_history(self._id, key)
                self._written[key] = {metric.step: metric.value for metric in history}
            before = self._written[key].get(step)
            # Two that are not a number are told apart by their text.
            if before is None or (before != figure and str(before) != str(figure)):
                new.append(Metric(key, figure, now, step))
                self._written[key][step] = figure
        for first in range(0, len(new), 500):
            self._client.log_batch(self._id, metrics=new[first : first + 500])


def open_mlflow(tracked: Tracked) -> Mlflow | None:
    """Opens the MLflow run of a kerasft run, or makes one, if MLFLOW_TRACKING_URI is set.

    Trials of a comparison are not told: they are kept only until the comparison is over.
    """
    uri = os.environ.get(MLFLOW_URI)
    if not uri or not tracked.whole:
        return None
    if importlib.util.find_spec("mlflow") is None:
        log.warning(
            f"{MLFLOW_URI} is set, but MLflow is not told of this run, because its package is not "
            "installed. Install it: pip install 'kerasft[mlflow]'."
        )
        return None
    from mlflow.tracking import MlflowClient

    # By itself MLflow tries for four minutes to reach a server that is away.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    shown = _without_password(uri)
    log.info("MLflow: this run is logged at %s.", shown)
    run, client = tracked.run, MlflowClient(uri)
    tracker = Mlflow(client, _mlflow_id(client, shown, run))
    record = read_record(run)
    versions = {f"kerasft.versions.{name}": text for name, text in record.versions.items()}
    tags = {"kerasft.run": str(run.path.resolve()), "kerasft.device": record.machine.to_text()}
    tracker.begin(flattened(tracked.config), {**tags, "kerasft.version": __version__, **versions})
    return tracker


def _mlflow_id(client: Any, uri: str, run: Run) -> str:
    """Returns the id of the MLflow run that goes on; makes one if there is none at this URI."""
    from mlflow.exceptions import MlflowException

    path = run.path / MLFLOW
    if path.is_file():
        try:
            facts = checked(read_json(path), Mapping[str, str])
        except (OSError, ValueError) as error:
            log.warning("MLflow: %s is damaged (%s): a new run begins there.", path, error)
            facts = {}
        if facts.get("tracking_uri") == uri and "run_id" in facts:
            try:
                client.update_run(facts["run_id"], status="RUNNING")
                return facts["run_id"]
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                log.info("MLflow does not know run %s any more: a new one begins.", facts["run_id"])
    made = client.create_run(_experiment(client), run_name=run.path.resolve().name)
    facts = {"tracking_uri": uri, "run_id": made.info.run_id}
    write_atomic(path, json.dumps(facts, indent=2) + "\n")
    return made.info.run_id


def _experiment(client: Any) -> str:
    """Returns the id of the experiment that MLflow's environment variables name; made if new."""
    given, name = os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if given or not name:
        return given or "0"  # the one that MLflow calls Default
    known = client.get_experiment_by_name(name)
    return known.experiment_id if known else client.create_experiment(name)


TRACKERS: Mapping[str, Callable[[Tracked], Tracker | None]] = {
    "TensorBoard": open_tensorboard,
    "MLflow": open_mlflow,
}
"""The function that opens each tracker; None if the run does not have it."""
