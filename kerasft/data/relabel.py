"""Photos that now lie in another class than when their run was made, and their new labels.

A run keeps the labels of its photos in splits.csv. Somebody who corrects labels moves photos to
other class folders, or edits the table that lists them.

Shapes: N images.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kerasft.data.source import UNUSED, Source
from kerasft.errors import UserError
from kerasft.text import count, listing, printable

MOST = 5
"""Largest number of photos that a message names."""

log = logging.getLogger(__name__)


class Move(NamedTuple):
    """A photo whose class has changed.

    Attributes:
        position: position of the photo in `Source.paths`.
        before: name of its class when the run was made.
        now: name of its present class, which the run may not know.
    """

    position: int
    before: str
    now: str


def find_moves(found: Source, split: str | None = None) -> list[Move]:
    """Finds the photos of a split whose class has changed since the run was made.

    Args:
        found: photos of a run, at their present paths, see `scan.open_source`.
        split: name of the split; None means all that the run uses.

    Returns:
        Moves, in the order of the photos. A photo that the source does not list any more is not
        among them.

    Raises:
        UserError: the source cannot be listed, or none of its classes is one of the run's.
    """
    if found.read is None:
        return []
    listed = found.read()
    class_of = {photo.path: photo.class_name for photo in listed.photos}
    classes = {name for names in listed.classes.values() for name in names}
    if not classes & set(found.class_names):
        raise UserError(
            f"{found.root}: holds none of the run's classes. Expected some of: "
            f"{', '.join(found.class_names[:20])}{', ...' if len(found.class_names) > 20 else '.'}"
        )
    moves = []
    positions = np.flatnonzero(found.splits != UNUSED) if split is None else found.indices(split)
    for position in positions.tolist():
        before = found.class_names[found.labels[position]]
        now = class_of.get(found.paths[position], before)
        if now != before:
            moves.append(Move(position, before, now))
    return moves


def warn_about_moves(name: str, found: Source, split: str | None = None) -> None:
    """Warns about photos that have left the class by which the run trains or measures them.

    Args:
        name: name of the run, with which the messages begin.
        found: photos of the run, at their present paths.
        split: name of the split that is measured; None if the run is to be trained further.
    """
    try:
        moves = find_moves(found, split)
    except UserError as error:  # such as a table that is gone: the run does not need it
        reason = str(error).splitlines()[0]
        log.info("%s: not known whether photos changed their class: %s", name, reason)
        return
    if moves:
        unknown = [move for move in moves if move.now not in found.class_names]
        advice = "Trained by the old class, as before. For the present one, start a new run."
        if split:
            advice = "Measured by the old class. Pass `relabel=True` to measure by the present one."
        log.warning(
            "%s: %s%s now %s in another class than when the run was made:%s\n  %s%s",
            name,
            count(moves, "photo"),
            f" of the {split} split" if split else "",
            "lies" if len(moves) == 1 else "lie",
            _named(found, moves),
            advice,
            f" The run does not know {_classes(unknown)}." if unknown else "",
        )


def relabelled(name: str, found: Source, split: str) -> Source:
    """Gives the photos of a split the labels of their present classes.

    Photos whose present class the run does not know leave the split, with a warning: no score of
    the model is theirs.

    Args:
        name: name of the run, with which the messages begin.
        found: photos of the run, at their present paths.
        split: name of the split.

    Raises:
        UserError: see `find_moves`.
    """
    moves = find_moves(found, split)
    known = [move for move in moves if move.now in found.class_names]
    unknown = [move for move in moves if move.now not in found.class_names]
    if known:
        log.info(
            "%s: measured by another class than in the run: %s of the %s split:%s",
            name,
            count(known, "photo"),
            split,
            _named(found, known),
        )
    if unknown:
        log.warning(
            "%s: left out %s of the %s split, because the run does not know %s:%s",
            name,
            count(unknown, "photo"),
            split,
            _classes(unknown),
            _named(found, unknown),
        )
    labels, splits = found.labels.copy(), found.splits.copy()
    for move in known:
        labels[move.position] = found.class_names.index(move.now)
    splits[np.array([move.position for move in unknown], np.int64)] = UNUSED
    return replace(found, labels=labels, splits=splits)


def _named(found: Source, moves: Sequence[Move]) -> str:
    lines = [
        f"{printable(found.paths[move.position])} ({move.before}, now {move.now})" for move in moves
    ]
    return listing(lines, MOST)


def _classes(moves: Sequence[Move]) -> str:
    names = sorted({move.now for move in moves})
    return ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")
