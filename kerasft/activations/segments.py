"""Rows of activations, found by photo: whatever run has computed them, they are not computed again.

A tensor is what a prefix computes of an image: at one cut, with certain weights, in one way of
decoding, resizing and augmenting. A row is a tensor of one photo in one view. Stores with rows of
the same tensor are its segments: a pass appends one or more, each there whole or not at all, so an
interrupted pass goes on after the last one. In which segment a row lies is part of no key.

    tensor (a `Key` without rows) + photos and views -> segments -> rows, or those that are missing

Shapes: N rows; a row has the shape of the tensor.
"""

import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.activations import store
from kerasft.activations.store import TENSOR, Gathered, Key, RowId, Rows, Writer
from kerasft.errors import UserError
from kerasft.untrusted import checked, read_json

log = logging.getLogger("kerasft")

SMALL = 64 << 20  # segments with fewer bytes are merged
MANY = 4  # number of small segments from which they are
READ = 16 << 20  # bytes that are read at once where a whole segment is
_verified: set[Path] = set()  # segments whose checksum was compared in this process
_damaged: set[Path] = set()  # those that were found damaged, and perhaps can't be removed


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of a tensor that are there.

    Attributes:
        tensor: key of the tensor.
        keys: keys of the segments, with their rows.
        checksums: checksum of the rows of each segment.
        places: position in `keys` and in the segment of each row.
        opened: segments that were opened, by position; each is opened once, for all views.
    """

    tensor: Key
    keys: tuple[Key, ...]
    checksums: tuple[int, ...]
    places: dict[RowId, tuple[int, int]]
    opened: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, tensor: Key) -> "Segments":
        """Looks up the segments of a tensor; their time of last use does not change."""
        keys: list[Key] = []
        checksums: list[int] = []
        places: dict[RowId, tuple[int, int]] = {}
        for path in sorted(folder.glob(f"{tensor.digest[:TENSOR]}*.npy")):
            described = _described(path, tensor)
            if described is None:
                continue
            key, checksum = described
            places |= {row: (len(keys), number) for number, row in enumerate(key.rows)}
            keys.append(key)
            checksums.append(checksum)
        return cls(tensor, tuple(keys), tuple(checksums), places)

    def missing(self, rows: Sequence[RowId]) -> list[RowId]:
        """Returns the rows that are in no segment, each once, in order."""
        return [row for row in dict.fromkeys(rows) if row not in self.places]

    def open(self, folder: Path, rows: Sequence[RowId]) -> np.ndarray | Gathered | None:
        """Opens rows, memory-mapped, and marks their segments as used now.

        Args:
            folder: the cache folder.
            rows: photos and views, at least one; a row may be named twice.

        Returns:
            The rows in this order, [N, ...]; None if any is missing. A segment whose bytes are not
            those that were written is removed, so its rows are missing.
        """
        if self.missing(rows):
            return None
        found = np.array([self.places[row] for row in rows])
        numbers = np.unique(found[:, 0]).tolist()
        for number in numbers:
            if number not in self.opened:
                array = _open_whole(folder, self.keys[number], self.checksums[number])
                if array is None:
                    return None
                self.opened[number] = array
        which = np.searchsorted(numbers, found[:, 0])
        return store.gathered([self.opened[number] for number in numbers], which, found[:, 1])

    def holding(self, rows: Iterable[RowId]) -> set[str]:
        """Returns the digests of the segments that hold any of some rows."""
        numbers = {self.places[row][0] for row in rows if row in self.places}
        return {self.keys[number].digest for number in numbers}


def _described(path: Path, tensor: Key) -> tuple[Key, int] | None:
    """Reads key and checksum of a segment; None if it is damaged or of another tensor."""
    if path in _damaged:
        return None
    try:
        shape, _ = store.read_header(path)
        record = checked(read_json(path.with_suffix(".json")), Mapping[str, Any])
        key = Key(tensor.facts, store.rows_from_json(record.get("rows")))
        checksum = checked(record.get("crc32"), int)
    except (OSError, ValueError):
        return None
    fits = (key.digest, len(key.rows)) == (path.stem, *shape[:1])
    return (key, checksum) if fits else None


def _open_whole(folder: Path, key: Key, checksum: int) -> np.ndarray | None:
    """Opens a segment; the first time in this process its checksum is compared."""
    array = store.open_store(folder, key)
    if array is None:  # merged or evicted meanwhile
        return None
    path = store.array_path(folder, key.digest)
    if path in _verified:
        return array
    if _checksum(array) == checksum:
        _verified.add(path)
        return array
    log.warning("%s is damaged, so what it holds is computed again.", path)
    _damaged.add(path)
    del array  # Windows removes no file that is mapped
    with suppress(OSError):
        path.unlink()
    return None


def _checksum(array: np.ndarray) -> int:
    crc = 0
    for part in _parts(array):
        crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
    return crc


def _parts(array: Rows) -> Iterator[np.ndarray]:
    """Yields rows in parts of about `READ` bytes, and releases the memory of each."""
    step = max(1, READ * max(1, len(array)) // max(1, array.nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]
        store.release(array)


@contextmanager
def writing(
    folder: Path, tensor: Key, rows: Sequence[RowId], shape: tuple[int, ...], dtype: str
) -> Iterator[Writer]:
    """Writes a segment; see `store.writing`. Call it inside `store.filling` of the tensor.

    Args:
        folder: the cache folder.
        tensor: key of the tensor.
        rows: photos and views of the rows to be appended, in order, at least one.
        shape: shape of a row.
        dtype: dtype of the tensor, "float16" or "float32".
    """
    key = Key(tensor.facts, tuple(rows))
    with store.writing(folder, key, (len(rows), *shape), dtype) as writer:
        yield writer
    path = store.array_path(folder, key.digest)
    _verified.discard(path)
    _damaged.discard(path)


def merge(folder: Path, tensor: Key) -> None:
    """Makes one segment of many small ones. Call it inside `store.filling` of the tensor.

    Rows that lie in several of them are kept once. Nothing is lost if it is interrupted: the small
    ones are removed when the large one is there. If there is no room, they stay.
    """
    there = Segments.of(folder, tensor)
    paths = [store.array_path(folder, key.digest) for key in there.keys]
    small = [number for number, path in enumerate(paths) if path.stat().st_size < SMALL]
    if len(small) < MANY:
        return
    rows = [row for row, (number, _) in there.places.items() if number in set(small)]
    merged = Key(tensor.facts, tuple(rows)).digest
    # An interrupted merge may have left the merged segment, or a large one that has all the rows.
    if rows and merged not in {there.keys[number].digest for number in small}:
        try:
            whole = there.open(folder, rows)
            if whole is None:  # a damaged one, which is gone now
                return
            with writing(folder, tensor, rows, whole.shape[1:], str(whole.dtype)) as writer:
                for part in _parts(whole):
                    writer.append(part)
        except UserError:  # the disk is full, or too many files are open
            return
    there.opened.clear()
    for number in small:
        if there.keys[number].digest != merged:
            for path in (paths[number], paths[number].with_suffix(".json")):
                with suppress(OSError):  # under Windows, another process has it open
                    path.unlink()
