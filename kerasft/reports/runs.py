"""The runs in a folder, as their records have them: what they are, how good, whether they are done.

Nothing is opened but run.json and config.toml, so a folder of hundreds is listed at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kerasft import run
from kerasft.config.load import load_config
from kerasft.config.source_names import is_path
from kerasft.errors import UserError
from kerasft.record import RunRecord
from kerasft.results import Result
from kerasft.run import Run, how_to_resume

DEPTH = 3  # folders below the one that is named


@dataclass(frozen=True)
class Score(Result):
    """An accuracy, 0 to 1, and the number of photos that it is of."""

    accuracy: float
    n: int


@dataclass(frozen=True)
class ListedRun(Result):
    """A run, as its record has it.

    Attributes:
        path: run directory.
        backbone: backbone, as in `model.backbone`; "" if the config is lost.
        data: name of the photos' folder, file or set; "" if the config is lost.
        best_phase: name of the phase whose model is model.keras; None before the first.
        validation: accuracy of model.keras on validation, which chose it; None before the first
            phase.
        test: accuracy of model.keras on test; None if it was not scored.
        date: time of its last change, "2026-11-27 16:20", local time.
        state: "finished", "interrupted", "running" in another process, or "damaged".
        problem: why it is damaged, or how an interrupted one goes on; "" for others.
    """

    path: Path
    backbone: str
    data: str
    best_phase: str | None
    validation: Score | None
    test: Score | None
    date: str
    state: str
    problem: str = ""


def list_runs(folder: str | Path = "runs") -> list[ListedRun]:
    """Lists the runs in a folder, in the order of their paths.

    Args:
        folder: a folder, searched to a depth of DEPTH, or a run. Trials of a comparison are no
            runs of their own.

    Raises:
        UserError: there is no such folder (exit code 2).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory.", exit_code=2)
    return [listed(one) for one in _runs_below(folder, DEPTH)]


def _runs_below(folder: Path, depth: int) -> Iterator[Run]:
    here = Run(folder)
    if here.record_path.is_file():
        yield here
        return
    if not depth:
        return
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # not ours to read
        return
    of_comparison = (folder / "entries").is_dir()  # whose trials in "runs" are no runs of their own
    for path in inside:
        if not path.name.startswith(".") and not (of_comparison and path.name == "runs"):
            yield from _runs_below(path, depth - 1)


def listed(of_run: Run) -> ListedRun:
    """Lists one run, damaged or not."""
    stamp = of_run.record_path.stat().st_mtime
    date = datetime.fromtimestamp(stamp).strftime("%Y-%m-%d %H:%M")
    backbone = data = ""
    phases = 0
    problems = []
    try:
        config = load_config(of_run.config_path)
        source = str(config.data.source)
        backbone, phases = config.model.backbone, len(config.phases)
        data = Path(source).name if is_path(source) else source
    except UserError as error:
        problems.append(str(error))
    try:
        record = run.read_record(of_run)
    except UserError as error:
        problems.append(str(error))
        return ListedRun(
            *(of_run.path, backbone, data, None, None, None, date, "damaged"), "\n".join(problems)
        )
    state = "damaged" if problems else _state_of(of_run, record, phases)
    return ListedRun(
        path=of_run.path,
        backbone=backbone,
        data=data,
        best_phase=record.best_phase,
        validation=_score(record, "validation"),
        test=_score(record, "test"),
        date=date,
        state=state,
        problem="\n".join(problems)
        or (f"`{how_to_resume(of_run)}`" if state == "interrupted" else ""),
    )


def _score(record: RunRecord, split: str) -> Score | None:
    figures = getattr(record, split)
    return Score(figures.accuracy, figures.n) if figures and figures.n else None


def _state_of(of_run: Run, record: RunRecord, phases: int) -> str:
    if record.status == "finished" and len(record.phases) >= phases:
        return "finished"
    lock = of_run.path / run.LOCK
    if lock.is_file():
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            return "running"
        except OSError:  # of another user: nobody can tell
            pass
    return "interrupted"
