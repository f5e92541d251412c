"""Which image is for training, validation and test, and splits.csv, which keeps it.

The choice depends on the contents of the files and on the seed; not on their names or the
order in which a file system lists them. Files with the same contents are one image: all
of them go to the same side.

Shapes: N images, K classes.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kerasft.errors import UserError
from kerasft.run import write_atomic

SPLITS = ("train", "validation", "test")
COLUMNS = ["path", "label", "split", "digest", "group"]


def movable_groups(
    labels: np.ndarray, splits: np.ndarray, digests: Sequence[str], num_classes: int
) -> list[list[list[int]]]:
    """Returns what may leave the training split.

    An image in the folders of two classes stays in training: whoever is measured by it is
    wrong either way. One that is in another split already stays too.

    Args:
        labels: int [N].
        splits: str [N], each one of `SPLITS`.
        digests: N; equal ones are the same image.
        num_classes: K.

    Returns:
        For each label, groups of positions; those of a group are files of the same image.
    """
    same: dict[str, list[int]] = {}
    for position, digest in enumerate(digests):
        same.setdefault(digest, []).append(position)
    groups: list[list[list[int]]] = [[] for _ in range(num_classes)]
    for positions in same.values():
        of_labels = set(labels[positions].tolist())
        if len(of_labels) == 1 and set(splits[positions].tolist()) == {"train"}:
            groups[of_labels.pop()].append(positions)
    return groups


def carve(
    labels: np.ndarray,
    splits: np.ndarray,
    digests: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int,
) -> np.ndarray:
    """Moves a share of every class's training images into other splits.

    Args:
        labels: int [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`.
        digests: N, hexadecimal.
        shares: split -> share of the training images of each class, 0 to 1. Each class has
            more different training images than there are shares, and as many movable groups.
        seed: 0 to 2**32 - 1.

    Returns:
        str [N], a new array. Of each class at least one image is in each of these splits and
        in training; the sizes are the rounded shares unless copies of an image stand in the way.
    """
    moved = splits.copy()
    num_classes = int(labels.max()) + 1
    for label, groups in enumerate(movable_groups(labels, splits, digests, num_classes)):
        training = np.flatnonzero((labels == label) & (splits == "train"))
        ranked = sorted(groups, key=lambda group: _rank(digests[group[0]], seed))
        stays = sum(map(len, ranked)) < len(training)  # something that can't be moved is left
        sizes = _sizes(len(training), shares)
        for needed_later, split in zip(range(len(sizes) - 1, -1, -1), sizes, strict=True):
            taken = _take(ranked, sizes[split], leave=needed_later + (not stays))
            positions = [position for group in taken for position in group]
            moved[positions] = split
            ranked = [group for group in ranked if moved[group[0]] == "train"]
    return moved


def _rank(digest: str, seed: int) -> bytes:
    key = seed.to_bytes(4, "big")
    return hashlib.blake2b(bytes.fromhex(digest), key=key, digest_size=16).digest()


def _sizes(n: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of n images go where: rounded (halves up), at least one each, one left over."""
    sizes = {split: max(1, int(n * share + 0.5)) for split, share in shares.items()}
    while sum(sizes.values()) >= n and max(sizes.values()) > 1:
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    return sizes


def _take(groups: list[list[int]], size: int, *, leave: int) -> list[list[int]]:
    """The first groups that fit into `size` images, at least one; leaves `leave` groups."""
    taken: list[list[int]] = []
    for group in groups:
        if len(groups) - len(taken) > leave and len(group) <= size:
            taken.append(group)
            size -= len(group)
    return taken or [min(groups, key=len)]


def write_rows(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Writes splits.csv.

    Args:
        path: where.
        rows: the values of `COLUMNS`: path relative to the source, label (a line number of
            classes.txt, from 0), split, digest of the file, group ("" is none).
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomic(path, text.getvalue())


def read_rows(path: Path, num_classes: int) -> list[list[str]]:
    """Reads what `write_rows` wrote; UserError names the row that makes no sense."""
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = list(lines)
    except csv.Error as error:
        raise UserError(f"{path}: line {lines.line_num}: {error}.") from error
    if not rows or rows[0] != COLUMNS:
        raise UserError(
            f"{path}: line 1: expected {','.join(COLUMNS)}, "
            f"got {','.join(rows[0]) if rows else 'an empty file'}."
        )
    labels = {str(label) for label in range(num_classes)}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or row[1] not in labels or row[2] not in SPLITS:
            raise UserError(
                f"{path}: line {number}: expected {','.join(COLUMNS)} with a label from 0 to "
                f"{num_classes - 1} and a split of {', '.join(SPLITS)}, got {','.join(row)}."
            )
    return rows[1:]


def read_text(path: Path) -> str:
    """Reads a text file of a run, line ends as they are."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text.") from error
