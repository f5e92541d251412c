"""Several places of photos as one source: `data.added` adds photos to those of the source.

The folder of all photos is the one that all places lie in, so that paths still lead nowhere else.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from kerasft.errors import UserError
from kerasft.sources.photos import Listing, Photo, PhotoFolder
from kerasft.text import count, listing, printable

log = logging.getLogger(__name__)


def joined(places: Sequence[PhotoFolder]) -> PhotoFolder:
    """Joins places of photos; `read` raises what theirs do.

    Args:
        places: the source, then the places that are added to it; a single one is returned as it is.

    Raises:
        UserError: the places lie on different drives.
    """
    if len(places) == 1:
        return places[0]
    roots = [Path(os.path.realpath(place.root)) for place in places]
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError as error:  # of Windows
        raise UserError(
            f"{printable(places[1].name)} lies on another drive than {printable(places[0].name)}. "
            "Copy the photos to one drive.",
            field="data.added",
        ) from error
    starts = [one.relative_to(root).as_posix() for one in roots]

    def read() -> Listing:
        return _joined([place.name for place in places], starts, [one.read() for one in places])

    return PhotoFolder(
        name=" + ".join(place.name for place in places),
        root=root,
        read=read,
        held=[place.held for place in places],
        below=tuple("" if start == "." else start for start in starts),
    )


def _joined(names: Sequence[str], starts: Sequence[str], listed: Sequence[Listing]) -> Listing:
    """Joins listings: paths begin in the common folder.

    Args:
        names: the places as the user wrote them.
        starts: their folders, posix paths below the common one; "." for that itself.
        listed: their photos.

    Raises:
        UserError: a place has splits and the source has none; a file that two of them list with
            different labels.
    """
    divided = set(listed[0].classes) != {""}
    photos, classes = [], {split: set(names) for split, names in listed[0].classes.items()}
    for name, start, one in zip(names, starts, listed, strict=True):
        own = set(one.classes) != {""}
        if own and not divided:
            raise UserError(
                f"{printable(name)} has splits of its own, and {printable(names[0])} has none. "
                "Add its photos without folders or columns of splits, so that they are split like "
                "the others.",
                field="data.added",
            )
        split = "train" if divided and not own else ""
        if split and one.photos:
            log.info("%s has no splits: its photos are for training.", printable(name))
        begin = "" if start == "." else f"{start}/"
        photos += [
            photo._replace(path=begin + photo.path, split=photo.split or split)
            for photo in one.photos
        ]
        for its, found in one.classes.items():
            classes.setdefault(its or split, set()).update(found)
    photos, twice = _once(photos)
    if twice:
        raise UserError(
            f"{count(len(twice), 'photo')} of {printable(' + '.join(names))} "
            f"{'is' if len(twice) == 1 else 'are'} in two of these places, with other labels:"
            + listing(sorted(twice), 5)
            + "\n  Name places that do not hold each other, or give each photo one label.",
            field="data.added",
        )
    return Listing(photos, {split: tuple(sorted(found)) for split, found in classes.items()})


def _once(photos: Sequence[Photo]) -> tuple[list[Photo], list[str]]:
    """Lists each photo once that several places list alike, as two tables of a folder may.

    Returns:
        The photos; and, for people, those that have different labels, splits or groups.
    """
    found: dict[str, Photo] = {}
    problems: dict[str, str] = {}
    for photo in photos:
        first = found.setdefault(photo.path, photo)
        if first != photo:
            labels = f"{printable(first.class_name)} and {printable(photo.class_name)}"
            what = labels if first.class_name != photo.class_name else "splits or groups differ"
            problems[photo.path] = f"{printable(photo.path)}: {what}"
    return list(found.values()), list(problems.values())
