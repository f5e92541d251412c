"""Photos as a source lists them: Photo, Listing, and PhotoFolder, the folder that they lie in.

Photos are files below one folder, whatever the kind of source: archives and TFDS datasets are
unpacked first. So there is one way to read, check and split them, and to find them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "validation", "test")


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
        classes: split -> names of its classes, sorted (those of `data.classes` first, in its
            order), including classes without photos. If the source has no splits, the only key
            is "".
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
        below: folders below the root that hold the photos, posix paths; "" is the root itself.
    """

    name: str
    root: Path
    read: Callable[[], Listing]
    held: object = None
    below: tuple[str, ...] = ("",)
