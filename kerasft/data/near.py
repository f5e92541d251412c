"""Near copies: photos that show the same picture, altered, found by their looks and their names.

Two looks are alike if they differ in at most NEAR of 256 bits, in whatever turn. A group of photos
that are alike has no pair that is not (complete linkage), so that chains of similar photos do not
merge unlike ones. Names that say that one file was made from another (`names.py`) allow for more.

Shapes: N photos.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kerasft.data.names import altered_copies, series_of
from kerasft.data.source import Source
from kerasft.pixels.likeness import Bits, bits_of, distances

NEAR = 56  # of 256 bits. Strong JPEG, half size and turns: up to 38; unlike photos: from 80
IN_A_ROW = 64  # for photos at most ROW places apart in a series of numbers
ROW = 10
LOW = 18  # of 64 bits, for names that say that one photo was made from the other
FAMILY = 20  # files of one photo; more are many photos with one name, which chains would merge
BLOCK = 64  # photos that are compared with all others at a time; the numbers fit into a CPU's cache
MOST = 2000  # photos in a chain of pairs that are still divided into groups
MOST_PAIRS = 5_000_000  # with more, looks do not tell the photos apart, and memory is short
SHARE, FEW = 0.05, 20  # a group is used up to this share of its class, or this number of photos

log = logging.getLogger("kerasft")


class Pairs(NamedTuple):
    """Photos that look alike.

    Attributes:
        one: int [P], positions of photos.
        other: int [P], positions of the photos that they are like, larger ones.
        distance: number of bits in which they differ, [P].
    """

    one: np.ndarray
    other: np.ndarray
    distance: np.ndarray


class NearCopies(NamedTuple):
    """The groups of photos that are copies of each other.

    Attributes:
        groups: positions of the photos of each group, ascending, at least two.
        too_large: groups that are too large a part of their class to be copies of one photo.
    """

    groups: list[list[int]]
    too_large: list[list[int]]


def find_near_copies(
    paths: Sequence[str], looks: Sequence[str], labels: np.ndarray, *, share: float = SHARE
) -> NearCopies:
    """Finds groups of near copies within each class.

    Args:
        paths: N posix paths of photos.
        looks: N looks, see `likeness.look_of`; a photo with the look "" is like none.
        labels: int [N].
        share: largest share of a class that a group may be; groups up to FEW are always used.
    """
    found = NearCopies([], [])
    has_look = np.array([look != "" for look in looks], bool)
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        members = np.flatnonzero((labels == label) & has_look).tolist()
        most = largest_group(size, share)
        of_class = _of_class([paths[i] for i in members], [looks[i] for i in members], most)
        for groups, own in zip(found, of_class, strict=True):
            groups += [[members[i] for i in group] for group in own]
    return found


def largest_group(size: int, share: float = SHARE) -> int:
    """Returns the largest number of photos of a class, of `size` photos, that copies may be."""
    return max(FEW, int(share * size))


def _of_class(paths: Sequence[str], looks: Sequence[str], most: int) -> NearCopies:
    """Finds the groups of at most `most` photos of one class, which all have looks.

    Files of one photo by their names form a group first. One by the looks that would merge with it
    to more than `most` is left out, so that it takes no certain one with it.
    """
    alike = pairs_alike(looks)
    if len(alike.one) >= MOST_PAIRS:
        return NearCopies([], [np.union1d(alike.one, alike.other).tolist()])
    groups = {min(group): group for group in _altered_copies(paths, looks)}
    first = {position: key for key, group in groups.items() for position in group}
    too_large = []
    pairs = _joined([alike, _pairs_in_a_row(paths, looks)])
    for clique in sorted(_cliques(pairs, len(looks)), key=len):
        keys = {first.get(position, position) for position in clique}
        merged = sorted({one for key in keys for one in groups.get(key, [key])})
        if len(merged) > most:
            too_large.append(clique)
            continue
        for key in keys:
            groups.pop(key, None)
        groups[merged[0]] = merged
        first |= dict.fromkeys(merged, merged[0])
    return NearCopies([groups[key] for key in sorted(groups)], too_large)


def pairs_alike(looks: Sequence[str]) -> Pairs:
    """Finds all pairs of photos whose looks are alike.

    Args:
        looks: N looks, none of them "". 20,000 take 2 seconds on one core.

    Returns:
        Pairs, by position. The search ends at MOST_PAIRS.
    """
    bits = _bits(looks)
    found: list[Pairs] = []
    number = 0
    for start in range(0, len(looks), BLOCK):
        block = distances(bits[start : start + BLOCK, None], bits[None, start:])
        one, other = np.nonzero(np.triu(block <= NEAR, 1))
        found.append(Pairs(one + start, other + start, block[one, other]))
        number += len(one)
        if number >= MOST_PAIRS:
            break
    return _joined(found)


def _bits(looks: Sequence[str], *, low: bool = False) -> Bits:
    return bits_of(looks, low=low) if looks else np.zeros((0, 2, 4), np.uint64)


def _joined(parts: Sequence[Pairs]) -> Pairs:
    if not parts:
        return Pairs(*np.zeros((3, 0), int))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _pairs_in_a_row(paths: Sequence[str], looks: Sequence[str]) -> Pairs:
    """Finds neighbours in a series of numbers, such as frames of a film, that look related."""
    bits = _bits(looks)
    found: list[Pairs] = []
    for series in series_of(paths):
        order = np.array(series)
        for step in range(1, min(ROW, len(order) - 1) + 1):
            one, other = order[:-step], order[step:]
            distance = distances(bits[one], bits[other])
            near = distance <= IN_A_ROW
            one, other = np.minimum(one, other)[near], np.maximum(one, other)[near]
            found.append(Pairs(one, other, distance[near]))
    return _joined(found)


def _cliques(pairs: Pairs, n: int) -> list[list[int]]:
    """Divides photos into groups in which all pairs are alike, the most alike ones first.

    Args:
        pairs: pairs that are alike.
        n: number of photos.

    Returns:
        Groups of at least two. Of more than MOST photos that hang together by a chain, no
        groups are made: they are one group.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    if not len(pairs.one):
        return []
    edges = coo_array((np.ones(len(pairs.one)), (pairs.one, pairs.other)), shape=(n, n))
    _, chain_of = connected_components(edges, directed=False)
    place = np.empty(n, int)  # of a photo in its chain
    groups: list[list[int]] = []
    edges_of = _positions(chain_of[pairs.one])
    members_of = _positions(chain_of)
    for chain, numbers in edges_of.items():
        members = members_of[chain]
        if len(members) == 2 or len(members) > MOST:
            groups.append(members.tolist())
            continue
        place[members] = np.arange(len(members))
        apart = np.full((len(members), len(members)), UNLIKE, np.float32)
        np.fill_diagonal(apart, 0)
        one, other = place[pairs.one[numbers]], place[pairs.other[numbers]]
        apart[one, other] = apart[other, one] = pairs.distance[numbers]
        tree = linkage(squareform(apart, checks=False), "complete")
        group_of = fcluster(tree, UNLIKE - 1, "distance")
        groups += [members[of].tolist() for of in _positions(group_of).values() if len(of) > 1]
    return groups


UNLIKE = 1000
"""Distance of photos that are not alike, larger than any other."""


def _positions(values: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the positions of each value, ascending."""
    order = np.argsort(values, kind="stable")
    distinct, starts = np.unique(values[order], return_index=True)
    return dict(zip(distinct.tolist(), np.split(order, starts[1:]), strict=True))


def _altered_copies(paths: Sequence[str], looks: Sequence[str]) -> list[list[int]]:
    """Finds photos whose names say that they were made from one photo, and that look like it.

    Returns:
        Groups of at least two, linked by pairs that are alike in the lowest frequencies, which a
        shift, a small turn or a crop leaves as they are.
    """
    from scipy.sparse.csgraph import connected_components

    bits = _bits(looks, low=True)
    groups: list[list[int]] = []
    for of in altered_copies(paths):
        if len(of) > FAMILY:
            continue
        alike = distances(bits[of][:, None], bits[of][None], low=True) <= LOW
        _, chain_of = connected_components(alike, directed=False)
        chains = (positions for positions in _positions(chain_of).values() if len(positions) > 1)
        groups += [[of[position] for position in chain] for chain in chains]
    return groups


def copies_among(source: Source, some: np.ndarray, others: np.ndarray) -> dict[int, int]:
    """Finds the photos that are near copies of one of their class among others.

    Args:
        source: photos with looks.
        some: positions of photos.
        others: positions of the photos to compare them with.

    Returns:
        Position among `some` -> position of the most alike photo among `others`.
    """
    has_look = np.array([look != "" for look in source.looks], bool)
    found: dict[int, int] = {}
    for label in np.unique(source.labels[some]):
        of_class = has_look & (source.labels == label)
        mine, theirs = some[of_class[some]], others[of_class[others]]
        if not len(mine) or not len(theirs):
            continue
        members = np.concatenate([mine, theirs])
        paths, looks = ([values[i] for i in members] for values in (source.paths, source.looks))
        for group in _altered_copies(paths, looks):
            first = next((one for one in group if one >= len(mine)), None)
            if first is not None:
                found |= {int(members[i]): int(members[first]) for i in group if i < len(mine)}
        bits = _bits(looks)
        for start in range(0, len(mine), BLOCK):
            apart = distances(
                bits[start : min(start + BLOCK, len(mine)), None], bits[None, len(mine) :]
            )
            place, distance = apart.argmin(axis=1), apart.min(axis=1)
            alike = np.flatnonzero(distance <= NEAR)
            found |= dict(
                zip(mine[start + alike].tolist(), theirs[place[alike]].tolist(), strict=True)
            )
    return dict(sorted(found.items()))
