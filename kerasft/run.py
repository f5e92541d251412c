"""The run directory: its files, how they are read and written, and its lock.

Every file appears whole or not at all, so whatever ends a run leaves nothing half-written.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from kerasft.errors import UserError
from kerasft.files import part_of, reason_of, remove_parts, replacing, write_atomic
from kerasft.metrics import Answers
from kerasft.record import SCHEMA, RunRecord, refuse_later
from kerasft.untrusted import fill, parse_json, read_arrays

CONFIG = "config.toml"
RECORD = "run.json"
CLASSES = "classes.txt"
SPLITS = "splits.csv"
METRICS = "metrics.jsonl"
ANSWERS = "answers.npz"
TEST = "test.csv"
KNOWN = "known.keras"
SUMS = "sums.npz"
CHECKPOINTS = "checkpoints"
MODEL = "model.keras"
REPORT = "report.html"
LOCK = ".lock"
WRITTEN = (CONFIG, RECORD, CLASSES, SPLITS, METRICS, ANSWERS, TEST, KNOWN, SUMS, MODEL, REPORT)
"""Files that are written by whoever holds the lock."""


@dataclass(frozen=True)
class Run:
    """A run directory and the paths in it. Creating the object touches no file.

    Attributes:
        path: the run directory.
    """

    path: Path

    @property
    def config_path(self) -> Path:
        """The settled config, including phases that were appended later."""
        return self.path / CONFIG

    @property
    def record_path(self) -> Path:
        """The record of the run (`RunRecord`); a directory that has this file is a run."""
        return self.path / RECORD

    @property
    def classes_path(self) -> Path:
        """The class names, one per line; the line number, from 0, is the label."""
        return self.path / CLASSES

    @property
    def splits_path(self) -> Path:
        """The images, each with its label, split and digest."""
        return self.path / SPLITS

    @property
    def metrics_path(self) -> Path:
        """The metrics, a line of JSON per epoch."""
        return self.path / METRICS

    @property
    def answers_path(self) -> Path:
        """The validation answers (`metrics.Answers`) of all that was tried, by phase."""
        return self.path / ANSWERS

    @property
    def test_path(self) -> Path:
        """The answers of model.keras on the test images (`answers.split_csv`), if it was scored."""
        return self.path / TEST

    @property
    def known_path(self) -> Path:
        """The features of the training photos (`novelty/known.py`), if they are kept."""
        return self.path / KNOWN

    @property
    def sums_path(self) -> Path:
        """What is kept of photos for the time when they are gone (`heads/sums.py`), if it is."""
        return self.path / SUMS

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, which a resumed run needs."""
        return self.path / CHECKPOINTS

    @property
    def model_path(self) -> Path:
        """The model, the best of all phases by validation log loss."""
        return self.path / MODEL


def create_run(path: Path, *, resume: bool) -> Run:
    """Makes the directory of a new run, or opens an existing run to resume it.

    Args:
        path: an absent or empty directory; with `resume` also a run, finished or not.
        resume: whether an existing run is to be continued.

    Raises:
        UserError: the directory holds a run and `resume` is off, or holds something else, or
            can't be made. Nothing has changed. Exit code 2.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{path} is a file. Choose a directory for the run.", exit_code=2)
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    # The rest of a run that was killed before it wrote run.json counts as a run.
    ours = {CONFIG, CLASSES, SPLITS, METRICS, ANSWERS, CHECKPOINTS, LOCK}
    begun = names - {LOCK} and names <= ours | {part_of(name) for name in (*ours, RECORD)}
    if (RECORD in names or begun) and not resume:
        raise UserError(
            f"{path} already holds a run. Choose another directory, or\n"
            "  pass `resume=True` to continue an unfinished one.",
            exit_code=2,
        )
    if names - {LOCK} and RECORD not in names and not begun:
        raise UserError(
            f"{path} is not empty and is not a run: no {RECORD} in it. Choose another directory.",
            exit_code=2,
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} can't be made: {reason_of(error)}.", exit_code=2) from error
    return Run(path)


def open_run(path: Path) -> Run:
    """Opens the run in a directory.

    Raises:
        UserError: there is no such directory (exit code 2); it is not a run, or one of a later
            version (1).
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such directory.", exit_code=2)
    run = Run(path)
    if not os.path.isfile(run.record_path):
        raise UserError(f"{path} is not a run: no {RECORD} in it.")
    facts = _parse(run.record_path, _read(run.record_path))
    refuse_later(run.record_path, facts.get("schema", SCHEMA), SCHEMA, facts.get("versions"))
    return run


def how_to_resume(run: Run, sets: Sequence[str] = ()) -> str:
    """Returns the call that trains an unfinished run to its end, for messages.

    Args:
        run: the run.
        sets: settings to change, as texts "key=value".
    """
    changed = f", sets={list(sets)!r}" if sets else ""
    return f"continue_run({str(run.path)!r}, resume=True{changed})"


def model_file(run: Run) -> Path:
    """Returns the path of a run's model. Raises UserError if there is none yet."""
    if not run.model_path.is_file():
        raise UserError(
            f"{run.path}: no model yet: its training has not finished a phase. Continue it: "
            f"`{how_to_resume(run)}`"
        )
    return run.model_path


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Keeps other processes from writing in the run, until the block or the process ends.

    What a killed process has left half-written is removed.

    Raises:
        UserError: another process holds it, or the directory can't be written.
    """
    guard = FileLock(run.path / LOCK, timeout=0.3)  # `kerasft runs` tries it for a moment
    try:
        guard.acquire()
    except Timeout as error:
        raise UserError(
            f"another kerasft process is working in {run.path}. Wait until it has finished."
        ) from error
    except OSError as error:
        raise UserError(f"{run.path} can't be written: {reason_of(error)}.") from error
    try:
        remove_parts(run.path, WRITTEN)
        yield
    finally:
        guard.release()


def write_record(run: Run, record: RunRecord) -> None:
    """Replaces run.json. Raises UserError if it can't be written."""
    write_atomic(run.record_path, json.dumps(record.to_json(), indent=2) + "\n")


def read_record(run: Run) -> RunRecord:
    """Reads run.json. Raises UserError if it is missing or damaged."""
    facts = _parse(run.record_path, _read(run.record_path))
    return RunRecord.from_json(facts, run.record_path)


def write_metrics(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces metrics.jsonl with these rows, a line of JSON each, with keys in their order.

    Floats are written in full (`repr`), so equal figures give equal bytes. A diverged loss is
    `NaN`. Raises UserError if the file can't be written.
    """
    write_atomic(run.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """Reads the rows of metrics.jsonl, [] if there is none. Raises UserError if it is damaged."""
    if not run.metrics_path.exists():
        return []
    lines = _read(run.metrics_path).splitlines()
    rows = [_parse(run.metrics_path, line, number) for number, line in enumerate(lines, start=1)]
    for number, row in enumerate(rows, start=1):
        try:
            fill(_Row, row)
        except ValueError as error:
            raise UserError(f"{run.metrics_path} is damaged: line {number}: {error}.") from error
    return rows


@dataclass(frozen=True)
class _Row:
    """What every row of metrics.jsonl has; a solved phase has no epochs."""

    phase: str
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    epoch: int = 1


def write_answers(path: Path, parts: Mapping[str, Answers]) -> None:
    """Writes answers by name into an .npz file. Raises UserError if the disk is full."""
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        arrays |= {f"{name}.losses": part.losses, f"{name}.right": part.right}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_answers(path: Path) -> dict[str, Answers]:
    """Reads what `write_answers` has written, by name; nothing if it is absent or damaged."""
    try:
        arrays = read_arrays(path, path.stat().st_size)
        ends = [name for name in arrays if name.endswith(".losses")]
        names = [name.removesuffix(".losses") for name in ends]
        return {name: Answers(arrays[f"{name}.losses"], arrays[f"{name}.right"]) for name in names}
    except (OSError, ValueError, KeyError):
        return {}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: not UTF-8 text.") from error


def _parse(path: Path, text: str, line: int | None = None) -> dict[str, Any]:
    """Parses a JSON object; `line` is the number of its line, None for the whole file."""
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        where = f"line {line or error.lineno}, column {error.colno}"
        raise UserError(f"{path} is damaged: {where}: {error.msg}.") from error
    except ValueError as error:
        where = f" in line {line}" if line else ""
        raise UserError(f"{path} is damaged{where}: {error}.") from error
    if not isinstance(value, dict):
        where = f" in line {line}" if line else ""
        raise UserError(f"{path} is damaged: no JSON object{where}.")
    return value
