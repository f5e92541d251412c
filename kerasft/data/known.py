"""What runs know of photos: the splits that photos of a new run keep, and labels that differ now.

A base remembers the photos that it was trained on, so they must not be in the validation or test
split of a run that starts from its weights. `keep_splits` gives the photos of a new run the splits
that they have in an earlier one; `warn_of_known_photos` is for photos whose splits are given.

A photo is known by the digest of its file or of its decoded pixels. Photos that a run marks as
unused are new to it: nothing was trained on them, and nothing was measured.

A run keeps the labels of its photos in splits.csv. Somebody who corrects labels moves photos to
other class folders, or edits the table that lists them; `find_moves` finds these photos.

Shapes: N images.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasft.backbones.compatibility import WEIGHTS, weights_of
from kerasft.config.fields import Config
from kerasft.config.load import load_config
from kerasft.config.overrides import NO_RUN
from kerasft.config.photo_names import same_form
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import read_class_names, read_rows, units_of
from kerasft.errors import UserError
from kerasft.run import Run, open_run
from kerasft.sources.photos import SPLITS
from kerasft.text import agreeing, count, listing, printable

log = logging.getLogger("kerasft")

MOST = 5
"""Largest number of photos that a message names."""


@dataclass(frozen=True, eq=False)
class KeptSplits:
    """The splits that the photos of a new run have in an earlier one.

    Attributes:
        run: directory of the earlier run.
        splits: str [N], each one of `SPLITS`; "train" for new photos, from which validation and
            test are still to be drawn.
        fixed: bool [N], whether a photo stays in its split. True for known photos, and for new
            ones that are a copy, or in the group, of a known photo.
    """

    run: Path
    splits: np.ndarray
    fixed: np.ndarray


def keep_splits(
    name: str, source: Source, splits_from: str | None, weights: str
) -> KeptSplits | None:
    """Finds the splits of photos that earlier runs know.

    A photo that one of the runs behind the weights was trained on is for training. Any other has
    the split that it has in `splits_from`, or else in the nearest run behind the weights that
    knows it. Copies of a picture, and photos of a group, are in one split: the first of `SPLITS`
    that one of them has. A line says how many photos keep their split.

    Args:
        name: source as the user wrote it.
        source: photos that have no splits yet.
        splits_from: value of `data.splits_from`. None means the runs behind the weights, if one
            of them was trained on any of the photos.
        weights: value of `model.weights`.

    Returns:
        The splits; None if the photos are to be split anew.

    Raises:
        UserError: `splits_from` is no run, or knows none of the photos (exit code 2).
    """
    if splits_from == NO_RUN:
        return None
    asked = {} if splits_from is None else _asked_splits(splits_from, name, source)
    behind = {run.path: _of_photos(source, _splits_in(run)) for run in _runs_behind(weights)}
    trained_on = np.zeros(len(source.paths), bool)
    for own in behind.values():
        trained_on |= own == "train"
    if not asked and not trained_on.any():
        return None
    nearest_first = {**asked, **behind}
    nearest = next(path for path, own in nearest_first.items() if (own != "").any())
    before = np.full(len(source.paths), "", source.splits.dtype)
    for own in nearest_first.values():
        before = np.where(before == "", own, before)
    splits, fixed = _whole_units(source, np.where(trained_on, "train", before))
    _tell(name, nearest, before, splits, asked=bool(asked))
    return KeptSplits(nearest, splits, fixed)


def _asked_splits(splits_from: str, name: str, source: Source) -> dict[Path, np.ndarray]:
    """Returns the splits of the photos in the run that the user has named, by its directory."""
    try:
        run = open_run(Path(splits_from))
        own = _of_photos(source, _read_splits(run))
    except UserError as error:
        raise UserError(error.message, field="data.splits_from", exit_code=2) from error
    if not (own != "").any():
        raise UserError(
            f"{splits_from} knows none of the {count(source.paths, 'photo')} of {name}. Expected "
            "a run of the same photos. Leave out `data.splits_from`, or name another run.",
            field="data.splits_from",
            exit_code=2,
        )
    return {run.path: own}


def _of_photos(source: Source, splits: dict[str, str]) -> np.ndarray:
    """Returns the split of each photo in a run, str [N]; "" for a photo that is new to it."""
    pixels = source.pixels or source.digests
    own = [
        splits.get(digest) or splits.get(decoded, "")
        for digest, decoded in zip(source.digests, pixels, strict=True)
    ]
    return np.array(own, source.splits.dtype)


def _whole_units(source: Source, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives all photos of a unit the first split of `SPLITS` that one of them has.

    Args:
        source: the photos.
        own: str [N], the split of each photo; "" for a new one.

    Returns:
        Splits and `fixed`, as in `KeptSplits`.
    """
    splits, fixed = np.full_like(own, "train"), np.zeros(len(own), bool)
    for unit in units_of(source.pictures(), source.groups):
        places = [SPLITS.index(split) for split in own[unit].tolist() if split]
        if places:
            splits[unit], fixed[unit] = SPLITS[min(places)], True
    return splits, fixed


def _tell(name: str, run: Path, before: np.ndarray, splits: np.ndarray, *, asked: bool) -> None:
    """Says how many photos keep their split, and how many have left it for another one."""
    known = before != ""
    moved = int((known & (before != splits)).sum())
    kept, new = int(known.sum()) - moved, int((~known).sum())
    log.info(
        "%s: %s the split that %s in %s%s; %s new.",
        name,
        count(kept, "photo", "keep"),
        "it has" if kept == 1 else "they have",
        run,
        "" if asked else ", whose weights are taken",
        f"{new:,} {agreeing(new, 'are')}",
    )
    if moved:
        log.warning(
            "%s: %s of validation or test in %s can't stay there: copies of a photo and photos of "
            "a group stay together, and what the weights were trained on stays in training.",
            name,
            f"{moved:,} {'photo' if moved == 1 else 'photos'}",
            run,
        )


def warn_of_known_photos(config: Config, source: Source) -> None:
    """Warns of validation and test photos that a run behind the weights was trained on.

    It warns of runs behind them that can't be read, too, since they may have known the photos.

    Args:
        config: config of a new run.
        source: photos with their splits.
    """
    for run in _runs_behind(config.model.weights, tell=True):
        own = _of_photos(source, _splits_in(run, tell=True))
        known = own == "train"
        counts = {s: int(known[source.indices(s)].sum()) for s in ("validation", "test")}
        if not any(counts.values()):
            continue
        anew = config.data.splits_from == NO_RUN
        log.warning(
            "%s, whose weights are taken, was trained on %s validation and %s test photos of this "
            "run, so their figures flatter. %s photos for validation and test that it has not "
            "seen.",
            run.path,
            f"{counts['validation']:,}",
            f"{counts['test']:,}",
            "Leave out `data.splits_from`, or take" if anew else "Take",
        )


def _splits_in(run: Run, *, tell: bool = False) -> dict[str, str]:
    """Reads the splits of a run that may be damaged by now: nothing is known then.

    Args:
        run: the run.
        tell: whether a warning says so.
    """
    try:
        return _read_splits(run)
    except UserError as error:
        if tell:
            log.warning("%s So it is not known which photos %s was trained on.", error, run.path)
        return {}


def _read_splits(run: Run) -> dict[str, str]:
    """Reads the split of each photo that a run has used.

    Returns:
        Digest of a file or of its pixels -> split. If copies are in several splits, the first of
        `SPLITS` counts.
    """
    rows = read_rows(run.splits_path, len(read_class_names(run.classes_path)))
    found: dict[str, str] = {}
    for split in reversed(SPLITS):
        found |= {one: split for row in rows if row[2] == split for one in (row[3], row[5]) if one}
    return found


def _runs_behind(weights: str, *, tell: bool = False) -> Iterator[Run]:
    """Yields the runs that weights come from, the nearest first.

    Args:
        weights: value of `model.weights`.
        tell: whether a warning says where the chain of runs is broken.
    """
    waiting, seen = [weights], set()
    while waiting:
        for one in weights_of(waiting.pop(0)):
            run = Run(Path(one).parent)
            if one in WEIGHTS or run.path in seen or not run.splits_path.is_file():
                continue
            seen.add(run.path)
            yield run
            try:
                waiting.append(load_config(run.config_path).model.weights)
            except UserError as error:  # its own base is gone or damaged
                if tell:
                    log.warning(
                        "%s\n  %s comes from it, and it is not known which photos it was trained "
                        "on. If they are in validation or test now, the figures flatter.",
                        error,
                        run.path,
                    )
                continue


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
    written = {same_form(name): name for name in found.class_names}  # an old run may differ in form
    class_of = {p.path: written.get(same_form(p.class_name), p.class_name) for p in listed.photos}
    classes = {
        written.get(same_form(name), name) for names in listed.classes.values() for name in names
    }
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
