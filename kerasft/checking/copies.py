"""Photos that show the same picture, in whatever class or split they lie.

Shapes: N photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kerasft.data.near import find_near_copies
from kerasft.pixels.measure import Picture
from kerasft.results import Result
from kerasft.sources.photos import Photo
from kerasft.text import printable


@dataclass(frozen=True)
class Copies(Result):
    """Photos that show the same picture.

    Attributes:
        paths: paths of the photos, at least two.
        kind: "exact" for equal pixels, "near" for altered copies.
        across_splits: whether they are in several splits of the source.
        across_labels: whether they have several labels.
    """

    paths: tuple[str, ...]
    kind: str
    across_splits: bool
    across_labels: bool


class CopyGroup(NamedTuple):
    """Positions of photos that show the same picture, ascending; "exact" or "near"."""

    kind: str
    positions: list[int]


def find_copies(photos: Sequence[Photo], facts: Sequence[Picture]) -> list[CopyGroup]:
    """Finds exact copies, and near copies of which not all are exact ones, of any number.

    Args:
        photos: N photos that can be used.
        facts: facts of these photos.
    """
    same: dict[str, list[int]] = {}
    for position, fact in enumerate(facts):
        same.setdefault(fact.pixels, []).append(position)
    exact = [group for group in same.values() if len(group) > 1]
    paths, looks = [photo.path for photo in photos], [fact.look for fact in facts]
    near = find_near_copies(paths, looks, np.zeros(len(paths), int), share=1.0)
    altered = [
        group
        for group in [*near.groups, *near.too_large]
        if len({facts[position].pixels for position in group}) > 1
    ]
    return [
        *(CopyGroup("exact", group) for group in exact),
        *(CopyGroup("near", group) for group in altered),
    ]


def named(group: CopyGroup, photos: Sequence[Photo]) -> Copies:
    """Returns a group with the paths of its photos, and with what they do not have in common."""
    of = [photos[position] for position in group.positions]
    return Copies(
        tuple(printable(photo.path) for photo in of),
        group.kind,
        len({photo.split for photo in of}) > 1,
        len({photo.class_name for photo in of}) > 1,
    )
