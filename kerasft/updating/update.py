"""A new run from an old one: the same settings on the photos and classes as they are now."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasft.config.fields import Config, Solved
from kerasft.config.load import changed, load_config
from kerasft.config.photo_names import same_form
from kerasft.data.scan import scan_source
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.progress import Progress, silent
from kerasft.record import RunRecord, RunResult
from kerasft.results import Result
from kerasft.run import Run, how_to_resume, open_run, read_record
from kerasft.sources.find import labels_of
from kerasft.text import in_line
from kerasft.training.plan import of_older_version
from kerasft.training.reopen import is_finished
from kerasft.training.train import DryRun, plan_run, train_run
from kerasft.updating.asked import Asked, classes_of, table_of
from kerasft.updating.changes import Changes, changes_of, class_names_of
from kerasft.updating.effect import Effect, effect_of

log = logging.getLogger("kerasft")


@dataclass(frozen=True)
class Update(Result):
    """What an update does, or has done.

    Attributes:
        old: directory of the old run.
        changes: what has changed since it was made.
        start: what the new run begins with: "imagenet" or another value of `model.weights`.
        phases: names of the phases that are trained or solved.
        run: the new run; None for a dry run.
        effect: both models on the old test photos; None for a dry run, or where it can't be known.
        why: why there is no effect; "".
    """

    old: Path
    changes: Changes
    start: str
    phases: tuple[str, ...]
    run: RunResult | None = None
    effect: Effect | None = None
    why: str = ""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An update before anything is written."""

    old: Run
    config: Config
    found: Source
    now: Mapping[str, str]
    update: Update


def plan_update(
    run_dir: str | Path, asked: Asked, *, progress: Progress = silent
) -> tuple[Update, DryRun]:
    """Checks everything, and returns what `update_run` would do. Trains nothing.

    Raises:
        UserError: see `update_run`.
    """
    ready = _prepared(run_dir, asked, progress)
    return ready.update, plan_run(ready.config, found=ready.found, progress=progress)


def update_run(
    run_dir: str | Path,
    new_dir: str | Path,
    asked: Asked,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> Update:
    """Makes a new run from an old one, whose photos or classes have changed. The old one stays.

    A photo that the old run knows keeps its split, so that the old test photos say what was gained
    and what was forgotten. The head is trained or solved anew, by the first phase of the old run.
    Below it the new run has the base of the old one if a later phase has improved that, and else
    the same pretrained base, whose stored activations are found.

    Args:
        run_dir: the old run, finished.
        new_dir: directory of the new one; absent or empty.
        asked: what has become of photos and classes.
        resume: whether the new run was interrupted and is continued.
        progress: the callback that receives each `progress.Event`.

    Raises:
        UserError: the old run is not finished; classes that it does not have, or names that are
            taken (exit code 2); photos as in `scan.scan_source`, such as a class with too few.
            Nothing is written then.
    """
    ready = _prepared(run_dir, asked, progress)
    result = train_run(ready.config, new_dir, resume=resume, found=ready.found, progress=progress)
    effect, why = effect_of(ready.old, open_run(Path(new_dir)), ready.now)
    return replace(ready.update, run=result, effect=effect, why=why)


def _prepared(run_dir: str | Path, asked: Asked, progress: Progress) -> _Prepared:
    old = open_run(Path(run_dir))
    record, config = read_record(old), of_older_version(load_config(old.config_path))
    if not is_finished(record, config):
        raise UserError(
            f"{old.path} was interrupted before it was finished. Finish it first: "
            f"`{how_to_resume(old)}`"
        )
    now = classes_of(asked, class_names_of(old))
    config = changed(config, {**_start(old, config, record), "data.splits_from": str(old.path)})
    config = _with_photos(config, asked, now)
    found = scan_source(
        config.data, seed=config.seed, weights=config.model.weights, progress=progress
    )
    changes = changes_of(old, found, now)
    _refuse_what_is_lost(old, changes, now)
    if record.abstention:
        log.info(
            "The threshold of %.3f belongs to the old model: `kerasft calibrate` sets a new one.",
            record.abstention.threshold,
        )
    phases = tuple(phase.name for phase in config.phases)
    update = Update(old.path, changes, config.model.weights, phases)
    return _Prepared(old, config, found, now, update)


def _start(old: Run, config: Config, record: RunRecord) -> dict[str, Any]:
    """Returns settings of what the new run begins with, and of its phases."""
    first = config.phases[0]
    if not isinstance(first, Solved) and first.blocks != 0:
        return {}  # the base was trained from the start: all phases are, again
    improved = any(phase.improved for phase in record.phases[1:])
    start = {"model.weights": str(old.path)} if improved else {}
    return {**start, "phases": [first.model_dump(exclude_unset=True)]}


def _with_photos(config: Config, asked: Asked, now: Mapping[str, str]) -> Config:
    """Returns the config with the places of the photos, and with the table of classes."""
    source = {} if asked.data is None else {"data.source": asked.data, "data.data_dir": None}
    before = () if asked.data else config.data.added  # SRC is the whole new set
    divided = tuple(asked.divide.values())
    config = changed(config, {**source, "data.added": [*before, *asked.added, *divided]})
    labels = labels_of(config.data)
    for name, place in asked.divide.items():
        parts = labels_of(config.data.model_copy(update={"source": place, "added": ()}))
        if same_form(name) in map(same_form, parts):
            raise UserError(
                f"{place} holds a folder or label {name}, the class that is divided. Give its "
                "photos there the name of a new class.",
                exit_code=2,
            )
    return changed(config, {"data.classes": table_of(now, config.data.classes, labels)})


def _refuse_what_is_lost(old: Run, changes: Changes, now: Mapping[str, str]) -> None:
    """Refuses photos that cannot be those of the run, and classes that lose all photos."""
    lost = [name for name in changes.gone_classes if now[name]]
    if lost:
        raise UserError(
            f"No photo is left of {in_line(lost, 10)}. If the run is to forget "
            f"{'this class' if len(lost) == 1 else 'these classes'}, drop "
            f"{'it' if len(lost) == 1 else 'them'}; if the photos are elsewhere, pass all places.",
            exit_code=2,
        )
