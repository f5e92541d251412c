"""Stratified splits into training, validation and test, and splits.csv, which stores them.

The split depends on the contents of the files and on the seed, not on file names or the order
in which a source lists the files. Images that must stay together form a unit: files that decode
to the same pixels, which are one picture, near copies, and images of the same group. A unit is in
one split.

Shapes: N images, K classes.
"""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from kerasft.data.source import UNUSED, Source
from kerasft.errors import UserError
from kerasft.files import replacing
from kerasft.sources.photos import SPLITS
from kerasft.text import is_writable, shortened

COLUMNS = ["path", "label", "split", "digest", "group", "pixels", "near"]
PIXELS = COLUMNS.index("pixels")
LEAST = 5  # columns of the earliest version; later ones added some at the end
_DIGEST = re.compile("(?:[0-9a-f]{2})+")
TRIES = 20  # number of attempts to split groups so that every class is in every split


def units_of(pictures: Sequence[str], groups: Sequence[str] = ()) -> list[list[int]]:
    """Finds the units, the images that must be in the same split.

    Args:
        pictures: N names of pictures, see `Source.pictures`; equal ones are copies.
        groups: N names of groups, "" for an image without a group; () if there are no groups.

    Returns:
        Units, as ascending positions, in the order of their first positions. Images that are
        linked by a chain of equal pictures and equal groups are one unit.
    """
    first = list(range(len(pictures)))

    def find(position: int) -> int:
        while first[position] != position:
            first[position] = position = first[first[position]]
        return position

    for names in (pictures, groups):
        seen: dict[str, int] = {}
        for position, name in enumerate(names):
            other = seen.setdefault(name, position) if name else position
            if other != position:
                a, b = find(other), find(position)
                first[max(a, b)] = min(a, b)
    units: dict[int, list[int]] = {}
    for position in range(len(pictures)):
        units.setdefault(find(position), []).append(position)
    return list(units.values())


def bound_names(source: Source) -> Sequence[str]:
    """Returns N names of what stays together: groups, and near copies; () if there is neither.

    Images that are linked by a chain of equal groups and near copies have one name.
    """
    if not (source.groups and source.near):
        return source.groups or source.near
    linked = Counter(numbers := unit_numbers(source.groups, source.near).tolist())
    return [str(number) if linked[number] > 1 else "" for number in numbers]


def unit_numbers(pictures: Sequence[str], groups: Sequence[str] = ()) -> np.ndarray:
    """Returns the number of each image's unit, int [N]; the arguments are those of `units_of`."""
    numbers = np.empty(len(pictures), int)
    for number, unit in enumerate(units_of(pictures, groups)):
        numbers[unit] = number
    return numbers


def units_of_split(source: Source, split_name: str) -> np.ndarray:
    """Returns the numbers of the units that a split's images belong to, int [N].

    Copies of a photo, and photos of a group, are one unit.
    """
    return unit_numbers(source.pictures(), bound_names(source))[source.indices(split_name)]


def without_copies(splits: np.ndarray, pictures: Sequence[str]) -> np.ndarray:
    """Marks images as unused that are in a later split as well.

    Args:
        splits: str [N], each one of `SPLITS`.
        pictures: N names of pictures, see `Source.pictures`.

    Returns:
        str [N], a new array. Of copies in several splits, those in test are left, or those in
        validation if test has none.
    """
    places = [SPLITS.index(split) for split in splits.tolist()]
    last: dict[str, int] = {}
    for picture, place in zip(pictures, places, strict=True):
        last[picture] = max(last.get(picture, 0), place)
    left = splits.copy()
    left[[last[one] > place for one, place in zip(pictures, places, strict=True)]] = UNUSED
    return left


def movable(
    units: Iterable[list[int]],
    labels: np.ndarray,
    splits: np.ndarray,
    pictures: Sequence[str],
    fixed: np.ndarray | None = None,
) -> list[list[int]]:
    """Returns the units that may leave the training split.

    An image with two labels stays in training, with its group, because no model can be right
    about both. A unit with an image in another split stays too.

    Args:
        units: units of the N images, see `units_of`.
        labels: int [N].
        splits: str [N], each one of `SPLITS`.
        pictures: N names of pictures, see `Source.pictures`.
        fixed: bool [N], whether an image stays in its split; None: none has to.
    """
    can_go = splits == "train" if fixed is None else (splits == "train") & ~fixed
    in_training, label_of = can_go.tolist(), labels.tolist()
    label_of_image: dict[str, int] = {}
    ambiguous = {
        picture
        for picture, label in zip(pictures, label_of, strict=True)
        if label_of_image.setdefault(picture, label) != label
    }
    return [
        unit
        for unit in units
        if all(in_training[position] and pictures[position] not in ambiguous for position in unit)
    ]


def stratified_split(
    labels: np.ndarray,
    splits: np.ndarray,
    pictures: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int,
    groups: Sequence[str] = (),
    fixed: np.ndarray | None = None,
) -> np.ndarray:
    """Moves a share of every class's training images into other splits.

    Args:
        labels: int [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`.
        pictures: N names of pictures, hexadecimal, see `Source.pictures`.
        shares: split -> share of each class that is to be in it, 0 to 1, of the images in training
            and in these splits. Each class is in more training units than there are of these
            splits that lack it, and in at least as many movable units.
        seed: 0 to 2**32 - 1.
        groups: N names of groups, or (), see `units_of`.
        fixed: bool [N], whether an image stays in its split; None: none has to. They count for
            the shares.

    Returns:
        str [N], a new array. The sizes are the rounded shares as far as whole units permit. Each
        of these splits, and training, has at least one image of each class, unless groups
        hold several classes and no such split was found in TRIES attempts.
    """
    units = units_of(pictures, groups)
    free = movable(units, labels, splits, pictures, fixed)
    label_of, num_classes = labels.tolist(), int(labels.max()) + 1
    one_image = [((label, 1),) for label in range(num_classes)]  # shared, most units are like it
    holds = [
        one_image[label_of[unit[0]]]
        if len(unit) == 1
        else tuple(Counter(label_of[position] for position in unit).items())
        for unit in free
    ]
    training, *others = (
        np.bincount(labels[splits == split], minlength=num_classes).tolist()
        for split in ("train", *shares)
    )
    having = dict(zip(shares, others, strict=True))
    totals = np.sum([training, *others], axis=0).tolist()
    sizes = [_sizes(number, shares) for number in totals]
    wanted = {
        split: [of_class[split] - has for of_class, has in zip(sizes, having[split], strict=True)]
        for split in shares
    }
    # Number of training units that hold each class; all units that can't move count as one.
    spread: Counter[int] = Counter()
    can_go = [0] * num_classes
    for one in holds:
        for label, number in one:
            spread[label] += 1
            can_go[label] += number
    spread.update(label for label in range(num_classes) if training[label] > can_go[label])
    lacking_it = {
        split: [not has and going > 0 for has, going in zip(having[split], can_go, strict=True)]
        for split in shares
    }
    best: tuple[int, dict[int, str]] | None = None
    for attempt in range(TRIES):
        key = seed.to_bytes(4, "big") + bytes([attempt]) * bool(attempt)
        ranks = [_rank(min(pictures[position] for position in unit), key) for unit in free]
        order = sorted(range(len(free)), key=ranks.__getitem__)
        failed, side = _divide(order, holds, wanted, lacking_it, Counter(spread))
        if best is None or failed < best[0]:
            best = failed, side
        if not failed:
            break
    assert best is not None
    moved = splits.copy()
    for unit, split in best[1].items():
        moved[free[unit]] = split
    return moved


Holds = tuple[tuple[int, int], ...]
"""The contents of a unit: pairs of a label and its number of images."""


def _rank(digest: str, key: bytes) -> bytes:
    return hashlib.blake2b(bytes.fromhex(digest), key=key, digest_size=16).digest()


def _sizes(n: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divides n images by shares: rounded (halves up), at least one each, one left for training."""
    sizes = {split: max(1, int(n * share + 0.5)) for split, share in shares.items()}
    while sum(sizes.values()) >= n and max(sizes.values()) > 1:
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    return sizes


def _divide(
    order: Sequence[int],
    holds: Sequence[Holds],
    wanted: Mapping[str, Sequence[int]],
    lacking: Mapping[str, Sequence[bool]],
    spread: Counter[int],
) -> tuple[int, dict[int, str]]:
    """Chooses a split for some of the units; the others stay in training.

    Args:
        order: numbers of the movable units, in the order in which they are tried.
        holds: contents of each unit.
        wanted: split -> number of images of each class that it is to get; below 1 for none.
        lacking: split -> whether it lacks each class, so that it must get an image of it.
        spread: label -> number of training units that hold the class; changed in place.

    Returns:
        Number of cases in which a split got no image of a class, and unit -> split.
    """
    failed = 0
    side: dict[int, str] = {}
    for number, (split, sizes) in enumerate(wanted.items(), 1):
        # Each class must keep a unit for each later split that lacks it, and one for training.
        later = [lacking[other] for other in list(wanted)[number:]]
        leave = [1 + sum(one[label] for one in later) for label in range(len(sizes))]
        left = [u for u in order if u not in side]
        taken, without = _choose(left, holds, list(sizes), lacking[split], spread, leave=leave)
        side |= dict.fromkeys(taken, split)
        failed += without
    return failed, side


def _choose(
    order: Sequence[int],
    holds: Sequence[Holds],
    room: list[int],
    lacking: Sequence[bool],
    spread: Counter[int],
    *,
    leave: Sequence[int],
) -> tuple[list[int], int]:
    """Chooses the units of one split.

    Args:
        order: numbers of the units that are still in training, in the order of trying.
        holds: contents of each unit.
        room: label -> number of images that the split may still take; changed in place.
        lacking: label -> whether the split must get an image of the class.
        spread: label -> number of training units that hold the class; changed in place.
        leave: label -> number of units of the class that must remain.

    Returns:
        Numbers of the chosen units, and the number of classes that the split still lacks.
    """
    taken: list[int] = []
    gone: set[int] = set()

    def may_go(unit: int) -> bool:
        return unit not in gone and all(spread[k] > leave[k] for k, _ in holds[unit])

    def take(unit: int) -> None:
        taken.append(unit)
        gone.add(unit)
        for label, number in holds[unit]:
            room[label] -= number
            spread[label] -= 1

    def excess(unit: int) -> int:
        """Counts the images of a unit that exceed the room of their class."""
        return sum(number - min(number, max(0, room[label])) for label, number in holds[unit])

    for whole in (True, False):  # units that fit, then units of which more than half fits
        for unit in order:
            most = 0 if whole else (sum(number for _, number in holds[unit]) - 1) // 2
            if may_go(unit) and excess(unit) <= most:
                take(unit)
    without = {label for label, lacks in enumerate(lacking) if lacks}
    without -= {label for unit in taken for label, _ in holds[unit]}
    failed = 0
    for label in sorted(without, key=lambda label: (spread[label], label)):
        if any(one == label for unit in taken for one, _ in holds[unit]):
            continue
        having = [u for u in order if may_go(u) and any(one == label for one, _ in holds[u])]
        if having:
            take(min(having, key=excess))
        else:
            failed += 1
    return taken, failed


def subsample(
    labels: np.ndarray,
    splits: np.ndarray,
    pictures: Sequence[str],
    fraction: float,
    *,
    seed: int,
    groups: Sequence[str] = (),
) -> np.ndarray:
    """Keeps a share of every class's training images and marks the others as unused.

    Args:
        labels: int [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`.
        pictures: N names of pictures, hexadecimal, see `Source.pictures`.
        fraction: share of the training images of each class that is kept, above 0, at most 1.
        seed: 0 to 2**32 - 1.
        groups: N names of groups, or (), see `units_of`.

    Returns:
        str [N], a new array, with "unused" instead of "train" for images that are left out. Each
        class keeps its rounded share as far as whole units permit, at least one unit. With the
        same seed, the images of a smaller fraction are a subset of those of a larger one.
    """
    training = (splits == "train").tolist()
    units = [
        [position for position in unit if training[position]] for unit in units_of(pictures, groups)
    ]
    key = seed.to_bytes(4, "big")
    ranks = {min(pictures[p] for p in unit): unit for unit in units if unit}
    label_of, totals = labels.tolist(), Counter(labels[splits == "train"].tolist())
    seen: Counter[int] = Counter()
    first: dict[int, tuple[float, int]] = {}  # label -> place and number of its first unit
    places: list[tuple[float, list[int]]] = []
    for digest in sorted(ranks, key=lambda digest: _rank(digest, key)):
        holds = Counter(label_of[position] for position in ranks[digest])
        # Position of the unit's middle in the sequence of its class, from 0 to 1, so that half of
        # it has to fit. For a unit with several classes, the average over its images.
        middles = {k: (seen[k] + number / 2) / totals[k] for k, number in holds.items()}
        place = sum(middles[k] * n for k, n in holds.items()) / len(ranks[digest])
        if len(holds) == 1:
            (place,) = middles.values()  # exact; a rounded average could exceed the share
        seen.update(holds)
        for label in holds:
            first[label] = min(first.get(label, (place, len(places))), (place, len(places)))
        places.append((place, ranks[digest]))
    indispensable = {number for _, number in first.values()}
    left = splits.copy()
    for number, (place, unit) in enumerate(places):
        if place > fraction and number not in indispensable:
            left[unit] = UNUSED
    return left


def write_rows(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Writes splits.csv.

    Args:
        path: path of the file.
        rows: values of `COLUMNS`: path relative to the source, label (a line number of
            classes.txt, from 0), split (one of `SPLITS`, or UNUSED), digest of the file, group
            ("" for none), digest of the decoded image ("" if unknown), name of the near copies
            ("" for none).
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_rows(path: Path, num_classes: int) -> list[list[str]]:
    """Reads splits.csv as `write_rows` wrote it, in this version or an earlier one.

    Args:
        path: path of the file.
        num_classes: number of classes; labels are below it.

    Returns:
        Values of `COLUMNS` of each image; "" in columns that an earlier version did not write.

    Raises:
        UserError: unreadable, or an invalid row; the message names its line. Paths that lead out
            of the folder of the photos are invalid.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = list(lines)
    except csv.Error as error:
        raise UserError(f"{path}: line {lines.line_num}: {error}.") from error
    known_columns = [COLUMNS[:number] for number in range(LEAST, len(COLUMNS) + 1)]
    if not rows or rows[0] not in known_columns:
        raise UserError(
            f"{path}: line 1: expected {','.join(COLUMNS)}, "
            f"got {shortened(','.join(rows[0]), most=200) if rows else 'an empty file'}."
        )
    labels, known = {str(label) for label in range(num_classes)}, (*SPLITS, UNUSED)
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]) or row[1] not in labels or row[2] not in known:
            raise UserError(
                f"{path}: line {number}: expected {','.join(rows[0])} with a label from 0 to "
                f"{num_classes - 1} and a split of {', '.join(known)}, "
                f"got {shortened(','.join(row), most=200)}."
            )
        if problem := _problem_of(row):
            raise UserError(
                f"{path}: line {number}: {problem} in {shortened(','.join(row), most=200)}."
            )
    missing = [""] * (len(COLUMNS) - len(rows[0]))
    return [row + missing for row in rows[1:]]


def _problem_of(row: Sequence[str]) -> str:
    """Returns what is wrong with a path or a digest of a row, "" for nothing."""
    where, _, _, *digests = row
    if not where or not all(map(is_writable, row)):
        return "expected a path, and texts without control characters,"
    if PurePosixPath(where).is_absolute() or ".." in PurePosixPath(where).parts:
        return "expected a path below the folder of the photos"
    if not _DIGEST.fullmatch(digests[0]) or not (
        len(row) <= PIXELS or not row[PIXELS] or _DIGEST.fullmatch(row[PIXELS])
    ):
        return "expected digests, hexadecimal,"
    return ""


def read_class_names(classes_txt: Path) -> list[str]:
    """Reads the names of a run's classes, in the order of its labels; raises as `read_text`."""
    return read_text(classes_txt).split("\n")[:-1]


def read_text(path: Path) -> str:
    """Reads a UTF-8 text file of a run, without changing line ends."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text.") from error
