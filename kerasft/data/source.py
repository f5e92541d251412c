"""A set of photos, from what the user named to what is trained on: PhotoFolder, Listing, Source.

Whatever the kind of source, photos are files below one folder: archives and sets of TFDS are
unpacked first. So all that follows has one way to read, check, split and find them again.

Shapes: N images, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
UNUSED = "unused"  # the split of training images that `data.fraction` leaves out


class Photo(NamedTuple):
    """A file that is said to be an image.

    Attributes:
        path: posix, relative to the root of its place.
        class_name: what it shows.
        split: one of `SPLITS` where the source says so, else "".
        group: what it belongs to together with others (a patient, a series); "" is nothing.
    """

    path: str
    class_name: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True, eq=False)
class Listing:
    """The photos of a source as it lists them, before any of them is read.

    Attributes:
        photos: in any order, each path once.
        classes: split -> names of its classes, sorted, those without photos too. The only split
            is "" where the source says nothing about splits.
    """

    photos: list[Photo]
    classes: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, photos: list[Photo]) -> "Listing":
        """Of photos alone, without classes that have none."""
        names: dict[str, set[str]] = {}
        for photo in photos:
            names.setdefault(photo.split, set()).add(photo.class_name)
        return cls(photos, {split: tuple(sorted(found)) for split, found in names.items()})


@dataclass(frozen=True, eq=False)
class PhotoFolder:
    """Where the photos of a source lie.

    Attributes:
        name: what the user named; messages begin with it.
        root: the folder that paths are relative to.
        read: makes the listing. A run that has its splits.csv needs none.
        held: keeps what was unpacked for it from being removed, as long as it is referred to.
    """

    name: str
    root: Path
    read: Callable[[], Listing]
    held: object = None


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels and splits.

    Attributes:
        root: the folder that `paths` are relative to.
        class_names: K names; a label is a position in them.
        paths: N posix paths, sorted when the source was scanned; later moves keep the order.
        labels: int32 [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`, or UNUSED.
        digests: of the N files, 32 hexadecimal digits each; see `folders.examine`.
        skipped: files that are no images and were left out, each with its reason.
        groups: N names of groups whose images stay together, "" is none; () is none at all.
        held: as in `PhotoFolder`.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    digests: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    held: object = None

    def indices(self, split: str) -> np.ndarray:
        """int64 positions in `paths` of the images of a split, ascending; maybe none."""
        return np.flatnonzero(self.splits == split)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by class and split: `{"daisy": {"train": 210, "validation": 45, "test": 45}}`."""
        by_split = {
            split: np.bincount(self.labels[self.indices(split)], minlength=len(self.class_names))
            for split in SPLITS
        }
        return {
            name: {split: int(numbers[label]) for split, numbers in by_split.items()}
            for label, name in enumerate(self.class_names)
        }
