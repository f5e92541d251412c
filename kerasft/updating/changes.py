"""What has changed since a run was made: photos kept, new, gone, with another label; classes.

Photos are the same if their files or their decoded pixels are, whatever they are called now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import read_class_names, read_rows
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
    return _by_digest(_used_in(run, read_class_names(run.classes_path)))


def _used_in(run: Run, names: Sequence[str]) -> list[tuple[set[str], OldPhoto]]:
    """Reads the photos that a run uses, each with the digests of its file and of its pixels."""
    return [
        ({row[3], row[5]} - {""}, OldPhoto(names[int(row[1])], row[2]))
        for row in read_rows(run.splits_path, len(names))
        if row[2] != UNUSED
    ]


def _by_digest(photos: Sequence[tuple[set[str], OldPhoto]]) -> dict[str, OldPhoto]:
    return {digest: photo for digests, photo in photos for digest in digests}


def changes_of(run: Run, found: Source, now: Mapping[str, str]) -> Changes:
    """Compares the photos of a run with those that are there now.

    Args:
        run: the old run.
        found: photos of the new one.
        now: what each class of the old run is called now, "" for one that is left out.
    """
    names = read_class_names(run.classes_path)
    now = {name: now[name] for name in names}  # no new labels
    used = _used_in(run, names)
    old = _by_digest(used)
    pixels = found.pixels or found.digests
    before = [
        old.get(digest) or old.get(same) for digest, same in zip(found.digests, pixels, strict=True)
    ]
    labels = [found.class_names[label] for label in found.labels.tolist()]
    there = {*found.digests, *pixels}
    missing = [photo.label for digests, photo in used if there.isdisjoint(digests)]
    dropped = sum(not now[name] for name in missing)
    pairs = list(zip(labels, before, strict=True))
    new = [label for label, photo in pairs if photo is None]
    kept = [(label, photo.label) for label, photo in pairs if photo is not None]
    counts = found.counts()
    return Changes(
        kept=len(kept),
        new=len(new),
        gone=len(missing) - dropped,
        dropped=dropped,
        relabelled=sum(now[was] != label for label, was in kept if now[was]),
        classes=tuple(
            ClassChange(
                name,
                tuple(before for before, after in now.items() if after == name),
                counts[name],
                new.count(name),
            )
            for name in found.class_names
        ),
        gone_classes=tuple(name for name in names if now[name] not in found.class_names),
    )
