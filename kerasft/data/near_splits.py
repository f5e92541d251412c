"""Near copies and splits: they stay together where splits are drawn, and are reported elsewhere.

Shapes: N images.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from kerasft.data import checks
from kerasft.data.near import copies_among, find_near_copies
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import unit_numbers
from kerasft.sources.photos import SPLITS
from kerasft.text import agreeing, count, listing, printable

log = logging.getLogger("kerasft")

MOST = 3
"""Largest number of groups that a message names."""


def keep_near_copies_together(
    name: str, source: Source, shares: Collection[str], fixed: np.ndarray | None
) -> tuple[Source, np.ndarray | None]:
    """Names the near copies of images whose splits are to be drawn, and says how many there are.

    Args:
        name: source as the user wrote it.
        source: images with looks, and with the splits that the source has, or that are kept from
            an earlier run. The images to be divided are in "train".
        shares: splits that are still to be drawn from the training images; if there are none,
            nothing is done.
        fixed: bool [N], whether an image stays in its split; None: none has to.

    Returns:
        The source, with names of near copies; a class that they would make too small to be divided
        has none. And `fixed`: an image that is new gets the split of the near copies that an
        earlier run knows.
    """
    if not shares:
        return source, fixed
    there = source.splits == "train" if fixed is None else (source.splits == "train") | fixed
    looks = np.where(there, np.array(source.looks, object), "").tolist()
    found = find_near_copies(source.paths, looks, source.labels)
    _warn_of_large_groups(name, source, found.too_large)
    marked = _with_names(source, found.groups)
    if fixed is not None:
        marked, fixed = _with_known_ones(marked, fixed)
    before = checks.find_small_classes(source, shares, fixed)
    small = [one for one in checks.find_small_classes(marked, shares, fixed) if one not in before]
    if small:
        log.warning(
            "%s: near copies of %s are split like other photos, because too few photos would be "
            "left to divide.",
            name,
            ", ".join(source.class_names[label] for label in small),
        )
        near = np.where(np.isin(source.labels, small), "", np.array(marked.near, object)).tolist()
        marked = replace(marked, near=tuple(near) if any(near) else ())
    _tell(name, marked, found.groups)
    return marked, fixed


def _with_names(source: Source, groups: Sequence[Sequence[int]]) -> Source:
    """Names groups by the digests of their pictures, so that names do not depend on the order.

    A group with an image that has a name already gets that name.
    """
    if not groups:
        return source
    pictures = source.pictures()
    names = list(source.near or ("",) * len(pictures))
    for group in groups:
        given = sorted({names[position] for position in group} - {""})
        name = given[0] if given else min(pictures[position] for position in group)[:12]
        for position in group:
            names[position] = names[position] or name
    return replace(source, near=tuple(names))


def _groups(source: Source) -> Iterator[list[int]]:
    """Yields the positions of the images of each name of near copies."""
    positions: dict[str, list[int]] = {}
    for position, near in enumerate(source.near):
        if near:
            positions.setdefault(near, []).append(position)
    yield from positions.values()


def _with_known_ones(source: Source, fixed: np.ndarray) -> tuple[Source, np.ndarray]:
    """Gives new images, with their units, the first split of their near copies that are known."""
    units = unit_numbers(source.pictures(), source.groups)
    splits, fixed = source.splits.copy(), fixed.copy()
    for group in _groups(source):
        known = [SPLITS.index(splits[one]) for one in group if fixed[one] and splits[one] != UNUSED]
        if known:
            new = np.isin(units, units[[one for one in group if not fixed[one]]])
            splits[new], fixed[new] = SPLITS[min(known)], True
    return replace(source, splits=splits), fixed


def _tell(name: str, source: Source, groups: Sequence[Sequence[int]]) -> None:
    groups = [group for group in groups if source.near and source.near[group[0]]]
    if groups:
        number = sum(map(len, groups))
        log.info(
            "%s: %s near copies of each other, by their looks or names, in %s; each group stays in "
            "one split:%s",
            name,
            count(number, "photo", "are"),
            count(groups, "group"),
            listing([_named(source, group) for group in groups], MOST),
        )


def _named(source: Source, group: Sequence[int]) -> str:
    first, *others = (printable(source.paths[position]) for position in group)
    rest = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"{first}, {others[0]}{rest}"


def _warn_of_large_groups(name: str, source: Source, groups: Sequence[Sequence[int]]) -> None:
    if groups:
        log.warning(
            "%s: %s too large to be copies of one photo, so the splits do not keep them together. "
            "If these are copies, or frames of one film, the figures flatter: give a group for "
            "each photo, in a column group of a table.%s",
            name,
            f"{count(groups, 'group')} of photos that look alike " + agreeing(len(groups), "are"),
            listing([f"{len(group):,} photos: {_named(source, group)}" for group in groups], MOST),
        )


def mark_near_copies_across(name: str, source: Source) -> Source:
    """Names near copies of training images in the other splits, which the source has given.

    A warning says how many there are: the model has seen almost the same picture.

    Args:
        name: source as the user wrote it.
        source: images with looks and with the splits of the source.
    """
    training = source.indices("train")
    measured = np.flatnonzero(np.isin(source.splits, SPLITS[1:]))
    pairs = copies_among(source, measured, training)
    if not pairs:
        return source
    pictures = source.pictures()
    names = [""] * len(pictures)
    for photo, of in pairs.items():
        names[photo] = names[of] = pictures[of][:12]
    numbers = [
        f"{sum(str(source.splits[photo]) == split for photo in pairs):,} of the "
        f"{count(source.indices(split), 'image')} of {split}"
        for split in SPLITS[1:]
        if any(source.splits[photo] == split for photo in pairs)
    ]
    log.warning(
        "%s: %s near copies of training images, so figures on them flatter. `kerasft evaluate` "
        "gives the figures without them as well.%s",
        name,
        f"{' and '.join(numbers)} {agreeing(len(pairs), 'are')}",
        listing(
            [f"{source.paths[photo]} and {source.paths[of]}" for photo, of in pairs.items()], 10
        ),
    )
    return replace(source, near=tuple(names))
