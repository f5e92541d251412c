"""What has changed since a run was made: photos kept, new, gone, with another label; classes.

Photos are the same if their files or their decoded pixels are, whatever they are called now.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import read_rows, read_text
from kerasft.results import Result
from kerasft.run import Run


@dataclass(frozen=True)
class ClassChange(Result):
    """A class of the new run.

    Attributes:
        name: name of the class.
        before: classes of the old run that it is made of; () for a new class.
        images: number of its photos in each split.
        new: number of its photos that the old run does not use.
    """

    name: str
    before: tuple[str, ...]
    images: Mapping[str, int]
    new: int


@dataclass(frozen=True)
class Changes(Result):
    """What has changed between a run and its photos as they are now.

    Attributes:
        kept: number of photos of the old run that are still there and used.
        new: number of photos that the old run does not use.
        gone: number of photos of the old run that are not there any more.
        dropped: number of photos of classes that are left out now.
        relabelled: number of kept photos that are in another class, its new name considered.
        classes: classes of the new run.
        gone_classes: classes of the old run that no class is made of.
    """

    kept: int
    new: int
    gone: int
    dropped: int
    relabelled: int
    classes: tuple[ClassChange, ...]
    gone_classes: tuple[str, ...]

    @property
    def names_alone(self) -> bool:
        """Whether nothing but names of classes has changed."""
        same_photos = not (self.new or self.gone or self.dropped or self.relabelled)
        return same_photos and all(len(one.before) == 1 for one in self.classes)


@dataclass(frozen=True)
class OldPhoto:
    """A photo of the old run: name of its class, and its split."""

    label: str
    split: str


def photos_of(run: Run) -> dict[str, OldPhoto]:
    """Reads the photos that a run uses, by the digests of their files and of their pixels."""
    names = class_names_of(run)
    found: dict[str, OldPhoto] = {}
    for _, label, split, digest, _, pixels, *_ in read_rows(run.splits_path, len(names)):
        if split != UNUSED:
            photo = OldPhoto(names[int(label)], split)
            found |= {one: photo for one in (pixels, digest) if one}
    return found


def class_names_of(run: Run) -> list[str]:
    """Reads the names of a run's classes, in the order of its labels."""
    return read_text(run.classes_path).split("\n")[:-1]


def changes_of(run: Run, found: Source, now: Mapping[str, str]) -> Changes:
    """Compares the photos of a run with those that are there now.

    Args:
        run: the old run.
        found: photos of the new one.
        now: what each class of the old run is called now, "" for one that is left out.
    """
    now = {name: now[name] for name in class_names_of(run)}  # no new labels
    old = photos_of(run)
    rows = read_rows(run.splits_path, len(now))
    pixels = found.pixels or found.digests
    before = [
        old.get(digest) or old.get(same) for digest, same in zip(found.digests, pixels, strict=True)
    ]
    labels = [found.class_names[label] for label in found.labels.tolist()]
    there = {*found.digests, *pixels}
    names = class_names_of(run)
    missing = [
        names[int(row[1])]
        for row in rows
        if row[2] != UNUSED and row[3] not in there and (not row[5] or row[5] not in there)
    ]
    dropped = sum(not now[name] for name in missing)
    new_of = [label for label, photo in zip(labels, before, strict=True) if photo is None]
    parts = {
        name: tuple(old_name for old_name, new in now.items() if new == name)
        for name in found.class_names
    }
    kept = [
        (label, photo.label)
        for label, photo in zip(labels, before, strict=True)
        if photo is not None
    ]
    counts = found.counts()
    return Changes(
        kept=len(kept),
        new=len(new_of),
        gone=len(missing) - dropped,
        dropped=dropped,
        relabelled=sum(now[was] != label for label, was in kept if now[was]),
        classes=tuple(
            ClassChange(name, parts[name], counts[name], new_of.count(name))
            for name in found.class_names
        ),
        gone_classes=tuple(name for name in now if name not in sum(parts.values(), ())),
    )
