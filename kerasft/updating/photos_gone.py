"""The photos of an update whose old photos are gone: those are rows of splits.csv and sums.npz.

The new run lists all photos, those that are gone too, so what needs none works: predicting,
comparing, the next update. Whatever needs them says which are missing; an export is proven on those
that are there.

Shapes: N images.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerasft.config.fields import Config
from kerasft.data import checks, scan
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import read_class_names, read_rows
from kerasft.errors import UserError
from kerasft.heads import sums
from kerasft.heads.sums import Memory
from kerasft.progress import Progress
from kerasft.record import RunRecord
from kerasft.run import Run, read_record
from kerasft.sources.find import list_labels
from kerasft.text import agreeing, count, in_line, listing, printable
from kerasft.updating.asked import Asked, classes_of, new_labels, table_of
from kerasft.updating.changes import photos_of

log = logging.getLogger("kerasft")


@dataclass(frozen=True, eq=False)
class Gone:
    """A run whose photos are gone, with the new ones.

    Attributes:
        config: the new config.
        now: what each class of the old run and each new label is called now; "" for none.
        photos: photos of the old run that count, then the new ones.
        new: the new ones, in the same classes; None if there are none.
        memory: what the old run has kept of its photos.
    """

    config: Config
    now: Mapping[str, str]
    photos: Source
    new: Source | None
    memory: Memory


def read_gone(
    old: Run, config: Config, asked: Asked, sets: Sequence[str], progress: Progress
) -> Gone:
    """Reads what is known of the photos that are gone, and the new ones. Writes nothing.

    Args:
        old: the old run, finished.
        config: its config.
        asked: what has become of its classes.
        sets: settings that the user gives.
        progress: receiver of events, as new photos are read.

    Raises:
        UserError: the run has kept nothing; what needs its photos (exit code 2); new photos as in
            `scan.scan_source`.
    """
    _refuse_what_needs_photos(asked, sets)
    memory = sums.load(old.sums_path)
    if memory is None:
        raise UserError(
            f"{old.path} has no {old.sums_path.name}, so nothing is known of photos that are gone. "
            "Runs have it if they are of this version, have test photos and trained on stored "
            "activations, of one view and at most 4,096 features. Only photos help here: pass "
            "all of them without `photos_gone=True`, as `data=FOLDER`."
        )
    names = read_class_names(old.classes_path)
    rows = read_rows(old.splits_path, len(names))
    _tell_of_present(old, config, rows)
    data = config.data.model_copy(
        update={
            "source": next(iter(asked.added), config.data.source),
            "added": tuple(asked.added[1:]),
            **dict.fromkeys(("data_dir", "label_from")),
            "columns": (),
            "layout": "auto",
            "fraction": 1.0,
            "splits_from": None,
            "classes": {},
        }
    )
    labels: list[str] = []
    if asked.added:
        labels = sorted({label for of_split in list_labels(data).values() for label in of_split})
    before = config.data.classes
    now = classes_of(asked, names, new_labels(asked, names, before, labels))
    new = None
    if asked.added:
        data = data.model_copy(update={"classes": table_of(now, before, labels)})
        weights = weights_below(old, read_record(old)).get("model.weights", config.model.weights)
        new = scan.scan_source(data, seed=config.seed, weights=weights, least=1, progress=progress)
    of_labels = [*(before or dict.fromkeys(names)), *labels]
    photos, new = _together(old, names, rows, now, new)
    given = {
        "added": (*config.data.added, *asked.added),
        "classes": table_of(now, before, of_labels),
        "splits_from": str(old.path),
    }
    config = config.model_copy(update={"data": config.data.model_copy(update=given)})
    return Gone(config, now, photos, new, memory)


def weights_below(old: Run, record: RunRecord) -> Mapping[str, str]:
    """Returns `model.weights` of a run that follows another one: its, if a phase improved them."""
    improved = any(phase.improved for phase in record.phases[1:])
    return {"model.weights": str(old.path)} if improved else {}


def _refuse_what_needs_photos(asked: Asked, sets: Sequence[str]) -> None:
    for value, field, why in (
        (asked.data, "data", "names all photos, and `photos_gone=True` says that there are none"),
        (asked.divide, "divide", "needs the photos of the class that is divided"),
        (sets, "sets", "has no effect with `photos_gone=True`: the head is solved in one way"),
    ):
        if value:
            raise UserError(f"{why}. Leave out one of them.", field=field, exit_code=2)


def _tell_of_present(old: Run, config: Config, rows: Sequence[Sequence[str]]) -> None:
    """Says how many photos of the old run are still where they were."""
    source = Path(config.data.source)
    root = source if source.is_dir() else source.parent
    there = sum((root / row[0]).is_file() for row in rows) if source.exists() else 0
    if there:
        log.warning(
            "%s of the %s of %s %s still in %s, and would be trained on without "
            "`photos_gone=True`. With it, what the run has kept of them counts.",
            f"{there:,}",
            count(rows, "photo"),
            old.path,
            agreeing(there, "are"),
            printable(config.data.source),
        )


def _together(
    old: Run,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    now: Mapping[str, str],
    new: Source | None,
) -> tuple[Source, Source | None]:
    """Lists the photos of a run that count and the new ones, in the new classes.

    Args:
        old: the old run.
        names: names of its classes.
        rows: rows of its splits.csv.
        now: what each class is called now.
        new: the new photos; None if there are none.

    Returns:
        All photos, and the new ones; those that the old run knows are not among them.
    """
    found = [] if new is None else sorted(new.class_names)
    listed = [now[name] for name in names] + found
    class_names = tuple(dict.fromkeys(filter(None, listed)))
    if len(class_names) < 2:
        raise UserError(
            f"One class would be left, {', '.join(class_names) or 'none'}. Expected at least two.",
            exit_code=2,
        )
    number = {name: label for label, name in enumerate(class_names)}
    gone = _listed(rows, [number.get(now[name], -1) for name in names], class_names)
    if new is None:
        return gone, None
    checks.warn_of_similar_names("Old and new photos", class_names)
    of_name = np.array([number[name] for name in new.class_names], np.int32)
    new = replace(new, class_names=class_names, labels=of_name[new.labels])
    new = _unknown(old, now, new)
    of_new = set(found) - {now[name] for name in names}
    _refuse_nothing_to_learn(new, of_new)
    if not new.paths:
        return gone, None
    new = _with_groups(old, gone, new)
    checks.warn_of_gaps("The new photos", new, of_new)
    taken = set(gone.paths)
    return replace(
        gone,
        root=new.root,
        paths=(*gone.paths, *(_free(path, taken) for path in new.paths)),
        labels=np.concatenate([gone.labels, new.labels]),
        splits=np.concatenate([gone.splits, new.splits]),
        digests=(*gone.digests, *new.digests),
        groups=(*gone.groups, *_or_none(new.groups, new)),
        pixels=(*gone.pixels, *_or_none(new.pixels, new)),
        near=(*gone.near, *_or_none(new.near, new)),
    ), new


def _listed(
    rows: Sequence[Sequence[str]], classes: Sequence[int], class_names: tuple[str, ...]
) -> Source:
    """Returns the photos of splits.csv that count; where they lay is not known.

    Args:
        rows: rows of splits.csv.
        classes: new label of each class; -1 for one that is left out.
        class_names: names of the new classes.
    """
    rows = [row for row in rows if row[2] != UNUSED and classes[int(row[1])] >= 0]
    paths, labels, splits, digests, groups, pixels, near = (
        tuple(row[column] for row in rows) for column in range(7)
    )
    return Source(
        root=Path(),
        class_names=class_names,
        paths=paths,
        labels=np.array([classes[int(label)] for label in labels], np.int32),
        splits=np.array(splits, scan.SPLIT_TYPE),
        digests=digests,
        groups=groups,
        pixels=pixels,
        near=near,
    )


def _with_groups(old: Run, gone: Source, new: Source) -> Source:
    """Gives new photos of a group that the old run has the split of that group.

    Raises:
        UserError: a class would have no photo for training then.
    """
    groups = dict(zip(gone.groups, gone.splits.tolist(), strict=True))
    splits = [
        groups.get(group, split) if group else split
        for group, split in zip(_or_none(new.groups, new), new.splits.tolist(), strict=True)
    ]
    labels = new.labels.tolist()
    learned = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    learned |= set(gone.labels[gone.splits == "train"].tolist()) if learned else set()
    if lost := [new.class_names[label] for label in sorted(set(labels) - learned)]:
        raise UserError(
            f"{in_line(lost, 10)}: no new photo can be for training, because all are in groups of "
            f"which {old.path} has photos in validation or test. Add photos of other groups."
        )
    return replace(new, splits=np.array(splits, scan.SPLIT_TYPE))


def _unknown(old: Run, now: Mapping[str, str], new: Source) -> Source:
    """Returns the new photos that are not in the sums of the old run already.

    Those of a class that is left out are new: its sums are left out, too.
    """
    known = {key: one for key, one in photos_of(old).items() if now[one.label]}
    pixels = new.pixels or new.digests
    seen = [
        known.get(key) or known.get(same) for key, same in zip(new.digests, pixels, strict=True)
    ]
    if number := sum(one is not None for one in seen):
        log.info("%d of the new photos are photos of %s, and count once.", number, old.path)
    labels = [new.class_names[label] for label in new.labels.tolist()]
    moved = [
        f"{printable(path)}: {printable(now[one.label])}, not {printable(label)}"
        for path, label, one in zip(new.paths, labels, seen, strict=True)
        if one is not None and now[one.label] != label
    ]
    if moved:
        log.warning(
            "%d of them %s another class than in %s. They stay there, because a single photo can't "
            "be taken out of the sums:%s",
            len(moved),
            agreeing(len(moved), "have"),
            old.path,
            listing(moved, 5),
        )
    is_new = np.array([one is None for one in seen], bool)
    return new.only(np.flatnonzero(is_new & (new.splits != UNUSED)))


def _refuse_nothing_to_learn(new: Source, names: Collection[str]) -> None:
    """Refuses classes, unknown to the old run, that have no new photos for training."""
    counts = new.counts()
    lost = [name for name in counts if name in names and not counts[name]["train"]]
    if lost:
        raise UserError(
            f"{in_line(lost, 10)}: no new photos for training are left. Photos that the run has "
            "learned in another class count there. If a class has another name now, pass "
            "`rename=OLD=NEW`.",
            exit_code=2,
        )


def _or_none(values: Sequence[str], photos: Source) -> Sequence[str]:
    return values or ("",) * len(photos.paths)


def _free(path: str, taken: set[str]) -> str:
    """Returns a path that no other photo has; where the photo lies is found by its digest."""
    while path in taken:
        path = f"new/{path}"
    taken.add(path)
    return path
