"""Sets of photos: PhotoFolder (where they are), Listing (what the source says), Source (labelled).

Photos are files below one folder, whatever the kind of source: archives and TFDS datasets are
unpacked first. So there is one way to read, check and split them, and to find them again.

Shapes: N images, K classes.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
UNUSED = "unused"
"""Split of the images that a run does not use: training images that `data.fraction` leaves out,
and, if the source has splits, images that a later one of `SPLITS` has as well."""


class Photo(NamedTuple):
    """A file that the source lists as an image.

    Attributes:
        path: posix path relative to `PhotoFolder.root`.
        class_name: name of the class that the photo shows.
        split: one of `SPLITS`, or "" if the source has no splits.
        group: name of the group whose photos stay together (a patient, a series); "" for none.
    """

    path: str
    class_name: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True, eq=False)
class Listing:
    """The photos of a source as it lists them, before any photo is read.

    Attributes:
        photos: photos in any order, each path once.
        classes: split -> names of its classes, sorted, including classes without photos. If the
            source has no splits, the only key is "".
    """

    photos: list[Photo]
    classes: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, photos: list[Photo]) -> "Listing":
        """Builds a listing whose classes are those of its photos."""
        names: dict[str, set[str]] = {}
        for photo in photos:
            names.setdefault(photo.split, set()).add(photo.class_name)
        return cls(photos, {split: tuple(sorted(found)) for split, found in names.items()})


@dataclass(frozen=True, eq=False)
class PhotoFolder:
    """The folder that holds the photos of a source.

    Attributes:
        name: source as the user wrote it; messages begin with it.
        root: folder that the paths are relative to.
        read: function that lists the photos. It is not called for a run that has its splits.csv.
        held: lock on the unpacked photos, which are not removed while this object exists; None
            if nothing was unpacked.
    """

    name: str
    root: Path
    read: Callable[[], Listing]
    held: object = None


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels and splits.

    Attributes:
        root: folder that `paths` are relative to.
        class_names: K names; labels are indices into them.
        paths: N posix paths, sorted when the source was scanned. If files are moved later, the
            order stays.
        labels: int32 [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`, or UNUSED.
        digests: digests of the N files, 32 hexadecimal digits each; see `folders.examine`.
        pixels: digests of the N decoded images, see `folders.examine`; () in runs of earlier
            versions, which did not record them.
        skipped: files that were left out because they cannot be used, each with the reason.
        groups: N names of groups whose images stay together, "" for an image without a group;
            () if there are no groups.
        held: lock on the unpacked photos, see `PhotoFolder`.
        read: function that lists the photos as the source has them now, see `PhotoFolder`; None
            for photos that were listed just now.
        splits_from: directory of the run whose splits the photos keep, see `known.py`; None if
            the splits are those of the source, or drawn for all photos, or read from splits.csv.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    digests: tuple[str, ...]
    pixels: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    held: object = None
    read: Callable[[], Listing] | None = None
    splits_from: Path | None = None

    def indices(self, split: str) -> np.ndarray:
        """Returns the positions in `paths` of a split's images: int64, ascending, maybe empty."""
        return np.flatnonzero(self.splits == split)

    def pictures(self) -> tuple[str, ...]:
        """Returns N names of pictures: images with equal names are copies of each other.

        The name is the smallest digest of the files that decode to the same pixels, so that
        it is the digest of the file if there is no copy.
        """
        if not self.pixels:
            return self.digests
        names: dict[str, str] = {}
        for pixels, digest in zip(self.pixels, self.digests, strict=True):
            names[pixels] = min(names.get(pixels, digest), digest)
        return tuple(names[pixels] for pixels in self.pixels)

    def without_classes(self, labels: Collection[int]) -> "Source":
        """Returns the images of the other classes, whose labels close the gaps."""
        keep = np.flatnonzero(~np.isin(self.labels, list(labels)))
        rest = [label for label in range(len(self.class_names)) if label not in labels]
        new = np.zeros(len(self.class_names), np.int32)
        new[rest] = np.arange(len(rest))

        def kept(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[position] for position in keep.tolist()) if values else ()

        return replace(
            self,
            class_names=tuple(self.class_names[label] for label in rest),
            paths=kept(self.paths),
            labels=new[self.labels[keep]],
            splits=self.splits[keep],
            digests=kept(self.digests),
            pixels=kept(self.pixels),
            groups=kept(self.groups),
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Counts images by class and split: `{"daisy": {"train": 210, "validation": 45, ...}}`."""
        by_split = {
            split: np.bincount(self.labels[self.indices(split)], minlength=len(self.class_names))
            for split in SPLITS
        }
        return {
            name: {split: int(numbers[label]) for split, numbers in by_split.items()}
            for label, name in enumerate(self.class_names)
        }
