"""A new run from an old one: the same settings on the photos and classes as they are now."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kerasft.config.fields import Config, Data, Solved
from kerasft.config.load import changed, load_config
from kerasft.config.photo_names import same_form
from kerasft.config.source_names import kind_of
from kerasft.data.scan import open_source, scan_source
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import read_class_names, read_rows
from kerasft.errors import UserError
from kerasft.progress import Progress, silent
from kerasft.record import RunRecord, RunResult
from kerasft.results import Result
from kerasft.run import Run, how_to_resume, open_run, read_record
from kerasft.sources.find import list_labels
from kerasft.text import count, in_line, listing, printable
from kerasft.training.plan import of_older_version
from kerasft.training.reopen import is_finished
from kerasft.training.train import DryRun, plan_run, train_run
from kerasft.updating.asked import Asked, classes_of, new_labels, table_of
from kerasft.updating.changes import Changes, changes_of, photos_of
from kerasft.updating.effect import Effect, effect_of
from kerasft.updating.from_sums import write_from_sums
from kerasft.updating.photos_gone import Gone, read_gone, weights_below
from kerasft.updating.renamed import write_renamed

log = logging.getLogger("kerasft")


@dataclass(frozen=True)
class Update(Result):
    """The plan of an update, or its result.

    Attributes:
        old: directory of the old run.
        changes: what has changed since it was made.
        start: what the new run begins with: "imagenet" or another value of `model.weights`.
        phases: names of the phases that are trained or solved.
        run: the new run; None for a dry run.
        effect: both models on the old test photos; None for a dry run, or where it can't be known.
        why: why there is no effect; "".
        photos_gone: whether the photos of the old run are gone; they count as kept in `changes`.
    """

    old: Path
    changes: Changes
    start: str
    phases: tuple[str, ...]
    run: RunResult | None = None
    effect: Effect | None = None
    why: str = ""
    photos_gone: bool = False


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An update before anything is written."""

    old: Run
    config: Config
    found: Source
    now: Mapping[str, str]
    update: Update
    gone: Gone | None = None


def plan_update(
    run_dir: str | Path, asked: Asked, *, sets: Sequence[str] = (), progress: Progress = silent
) -> tuple[Update, DryRun | None]:
    """Checks everything, and returns what `update_run` would do. Trains nothing.

    Returns:
        What has changed, and the plan of the new run; None where photos are gone, because nothing
        is trained then.

    Raises:
        UserError: see `update_run`.
    """
    ready = _prepared(run_dir, asked, sets, progress)
    if ready.gone:
        return ready.update, None
    return ready.update, plan_run(ready.config, found=ready.found, progress=progress)


def update_run(
    run_dir: str | Path,
    new_dir: str | Path,
    asked: Asked,
    *,
    sets: Sequence[str] = (),
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
        sets: texts "key=value" that set fields of the new config, as in `load_config`.
        resume: whether the new run was interrupted and is continued.
        progress: the callback that receives each `progress.Event`.

    Raises:
        UserError: the old run is not finished; classes that it does not have, or names that are
            taken (exit code 2); photos as in `scan.scan_source`, such as a class with too few.
            Nothing is written then.
    """
    ready = _prepared(run_dir, asked, sets, progress)
    new = Run(Path(new_dir))
    names_alone = ready.update.changes.names_alone and not sets
    if (names_alone or ready.gone) and resume and new.record_path.is_file():
        _refuse_another(new, ready.found)
        result = RunResult.of(new.path, read_record(new))
    elif names_alone:
        result = _renamed(ready, new, progress)
    elif ready.gone:
        result = write_from_sums(ready.old, new, ready.gone, progress)
    else:
        result = train_run(
            ready.config, new.path, resume=resume, found=ready.found, progress=progress
        )
    effect, why = effect_of(ready.old, open_run(Path(new_dir)), ready.now)
    return replace(ready.update, run=result, effect=effect, why=why)


def _refuse_another(new: Run, found: Source) -> None:
    """Refuses a run to be resumed that was made of other photos or classes."""
    names = read_class_names(new.classes_path)
    there = Counter((names[int(row[1])], row[2]) for row in read_rows(new.splits_path, len(names)))
    labels = [found.class_names[label] for label in found.labels.tolist()]
    asked = Counter(zip(labels, found.splits.tolist(), strict=True))
    if any(there[one] != asked[one] for one in {*there, *asked} if one[1] != UNUSED):
        raise UserError(
            f"{new.path} is finished, with other photos or classes than those of this update. "
            "Choose another directory.",
            exit_code=2,
        )


def _renamed(ready: _Prepared, new: Run, progress: Progress) -> RunResult:
    """Writes the new run where nothing has changed but names of classes."""
    old = ready.old
    before = load_config(old.config_path)
    data = ready.config.data.model_copy(update={"splits_from": before.data.splits_from})
    config = before.model_copy(update={"data": data})
    found = ready.found
    if not ready.gone:
        found = open_source(old.splits_path, old.classes_path, data, progress=progress)
    log.info("Only names of classes have changed: the model stays as it is.")
    return write_renamed(old, new, config, found, ready.now)


def _prepared(
    run_dir: str | Path, asked: Asked, sets: Sequence[str], progress: Progress
) -> _Prepared:
    old = open_run(Path(run_dir))
    record, config = read_record(old), of_older_version(load_config(old.config_path))
    if not is_finished(record, config):
        raise UserError(
            f"{old.path} was interrupted before it was finished. Finish it first: "
            f"`{how_to_resume(old)}`"
        )
    if asked.photos_gone:
        gone = read_gone(old, config, asked, sets, progress)
        changes = changes_of(old, gone.photos, gone.now)
        _refuse_nothing_and_loss(old, changes, gone.now, sets)
        _tell_of_threshold(record)
        if gone.new and weights_below(old, record):
            log.info(
                "%s has fitted its base to its own classes: new ones may be told apart less well "
                "than by a pretrained base.",
                old.path,
            )
        start, phases = config.model.weights, tuple(phase.name for phase in config.phases)
        if gone.new is not None:  # else the model stays, and how it was made
            start, phases = weights_below(old, record).get("model.weights", start), phases[:1]
        update = Update(old.path, changes, start, phases, photos_gone=True)
        return _Prepared(old, gone.config, gone.photos, gone.now, update, gone)
    _refuse_lost(old, config, asked)
    config = changed(config, _start(old, config, record))
    config, now = _with_photos(config, asked, old)
    config = changed(config, {}, sets)
    try:
        found = scan_source(
            config.data, seed=config.seed, weights=config.model.weights, progress=progress
        )
    except UserError as error:
        if error.field != "data.splits_from":
            raise
        raise UserError(
            f"{config.data.source} has none of the photos of {old.path}, which are to be kept. "
            "Pass all photos as they are now, or further ones as `added=SRC`.",
            field="data" if asked.data else "",
            exit_code=2,
        ) from error
    if config.data.splits_from is None:
        _refuse_other_sides(old, found)
    changes = changes_of(old, found, now)
    _refuse_nothing_and_loss(old, changes, now, sets)
    _tell_of_threshold(record)
    phases = tuple(phase.name for phase in config.phases)
    update = Update(old.path, changes, config.model.weights, phases)
    return _Prepared(old, config, found, now, update)


def _tell_of_threshold(record: RunRecord) -> None:
    if record.abstention:
        log.info(
            "The threshold of %.3f belongs to the old model: `kerasft calibrate` sets a new one.",
            record.abstention.threshold,
        )


def _start(old: Run, config: Config, record: RunRecord) -> Mapping[str, object]:
    """Returns settings of what the new run begins with, and of its phases."""
    first = config.phases[0]
    if not isinstance(first, Solved) and first.blocks != 0:
        return {}  # the base was trained from the start: all phases are, again
    return {**weights_below(old, record), "phases": [first.model_dump(exclude_unset=True)]}


def _with_photos(config: Config, asked: Asked, old: Run) -> tuple[Config, Mapping[str, str]]:
    """Puts the places of the photos, the table of classes and the splits into a config.

    Returns:
        The config, and what each class of the old run and each new label is called now.
    """
    source = {} if asked.data is None else {"data.source": asked.data, "data.data_dir": None}
    kept = () if asked.data else config.data.added  # SRC is the whole new set
    divided = tuple(asked.divide.values())
    # A table that the run has already may hold more by now.
    added = {os.path.realpath(one): one for one in (*kept, *asked.added, *divided)}
    config = changed(config, {**source, "data.added": list(added.values())})
    listed, before = list_labels(config.data), config.data.classes
    labels = sorted({label for of_split in listed.values() for label in of_split})
    splits = {"data.splits_from": str(old.path) if set(listed) == {""} else None}
    for name, place in asked.divide.items():
        parts = list_labels(Data(source=place)).values()
        if same_form(name) in {same_form(label) for of_split in parts for label in of_split}:
            raise UserError(
                f"{place} holds a folder or label {name}, the class that is divided. Give its "
                "photos there the name of a new class.",
                exit_code=2,
            )
    names = read_class_names(old.classes_path)
    now = classes_of(asked, names, new_labels(asked, names, before, labels))
    return changed(config, {**splits, "data.classes": table_of(now, before, labels)}), now


def _refuse_lost(old: Run, config: Config, asked: Asked) -> None:
    """Refuses a run whose photos have no place any more."""
    source = config.data.source
    if asked.data is not None or kind_of(source) == "tfds" or os.path.exists(source):
        return
    raise UserError(
        f"{printable(source)}, with the photos of {old.path}, is not there any more. If they lie "
        "elsewhere, pass `data=SRC`. If they are gone, `photos_gone=True` goes on with what the "
        "run has kept of them.",
        exit_code=2,
    )


def _refuse_other_sides(old: Run, found: Source) -> None:
    """Refuses photos whose source has put them into another split than that of the old run."""
    known = photos_of(old)
    moved = [
        f"{printable(path)} ({known[digest].split}, now {split})"
        for path, digest, split in zip(found.paths, found.digests, found.splits, strict=True)
        if digest in known and split not in (known[digest].split, UNUSED)
    ]
    if moved:
        raise UserError(
            f"{count(moved, 'photo', 'are')} in another split than in {old.path}:"
            + listing(moved, 5)
            + "\n  What a model was trained on proves nothing on test. Move them back."
        )


def _refuse_nothing_and_loss(
    old: Run, changes: Changes, now: Mapping[str, str], sets: Sequence[str]
) -> None:
    """Refuses classes that lose all photos, and an update that changes nothing."""
    same = changes.names_alone and all(one.before == (one.name,) for one in changes.classes)
    if same and not sets:
        raise UserError(
            f"Nothing has changed since {old.path} was made: {count(changes.kept, 'photo')}, with "
            "the same labels."
        )
    lost = [name for name in changes.gone_classes if now[name]]
    if lost:
        raise UserError(
            f"No photo is left of {in_line(lost, 10)}. If the run is to forget "
            f"{'this class' if len(lost) == 1 else 'these classes'}, pass "
            f"{' '.join(f'`drop={name}`' for name in lost[:10])}; if the photos are elsewhere, "
            "pass all places; if they are gone, `photos_gone=True` goes on with what the run has "
            "kept of them.",
            exit_code=2,
        )
