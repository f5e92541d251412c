"""Source: photos with labels and splits, the type that the other modules pass on.

Shapes: N images, K classes.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerasft.results import Result
from kerasft.sources.photos import SPLITS, Listing

UNUSED = "unused"
"""Split of the images that a run does not use: training images that `data.fraction` leaves out,
and, if the source has splits, images that a later one of `SPLITS` has as well."""


@dataclass(frozen=True)
class Scan(Result):
    """The work of a scan: number of files, how many of them were read, and the time it took."""

    files: int
    read: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels and splits.

    Attributes:
        root: folder that `paths` are relative to.
        class_names: K names; labels are indices into them.
        paths: N posix paths, sorted when the source was scanned. If files are moved later, the
            order stays. "" for a file that is missing, where some are enough (`scan.open_source`).
        labels: int32 [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`, or UNUSED.
        digests: digests of the N files, 32 hexadecimal digits each; see `files.examine`.
        pixels: digests of the N decoded images, see `files.examine`; () in runs of earlier
            versions, which did not record them.
        skipped: files that were left out because they cannot be used, each with the reason.
        groups: N names of groups whose images stay together, "" for an image without a group;
            () if there are no groups.
        looks: N looks of the images, see `pixels.likeness`, "" for an image that has none; () in
            images that were read from splits.csv.
        near: N names of near copies, "" for an image without any: images of one name show the
            same picture, altered, and stay together where splits are drawn; () if there are none,
            or nobody has looked for them.
        held: lock on the unpacked photos, see `PhotoFolder`.
        read: function that lists the photos as the source has them now, see `PhotoFolder`; None
            for photos that were listed just now.
        splits_from: directory of the run whose splits the photos keep, see `known.py`; None if
            the splits are those of the source, or drawn for all photos, or read from splits.csv.
        peak: largest number in files with 16 bits per channel, such as 4,095; 0 if there are none.
        scan: number of files that were scanned, and how many of them were read; None for photos
            of a run.
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
    looks: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    held: object = None
    read: Callable[[], Listing] | None = None
    splits_from: Path | None = None
    scan: Scan | None = None
    peak: int = 0

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
        rest = [label for label in range(len(self.class_names)) if label not in labels]
        new = np.zeros(len(self.class_names), np.int32)
        new[rest] = np.arange(len(rest))
        left = self.only(np.flatnonzero(~np.isin(self.labels, list(labels))))
        names = tuple(self.class_names[label] for label in rest)
        return replace(left, class_names=names, labels=new[left.labels])

    def only(self, keep: np.ndarray) -> "Source":
        """Returns the images at some positions, int [M]; all classes stay."""

        def kept(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[position] for position in keep.tolist()) if values else ()

        return replace(
            self,
            paths=kept(self.paths),
            labels=self.labels[keep],
            splits=self.splits[keep],
            digests=kept(self.digests),
            pixels=kept(self.pixels),
            groups=kept(self.groups),
            looks=kept(self.looks),
            near=kept(self.near),
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
