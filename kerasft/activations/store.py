"""Stores: activations at a cut, kept on disk between runs and memory-mapped.

`segments.py` finds the rows of photos in them. Use: `open_store` opens a store that exists. To make
one, enter `filling`, check again whether it is missing, call `eviction.make_room`, then `writing`.
The layout of the folder is described in `eviction.py`.

Shapes: N images of a store, B images of a batch; "..." is the shape at the cut.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kerasft.cache import explaining, hold
from kerasft.files import write_atomic
from kerasft.progress import Part
from kerasft.untrusted import checked, read_array_header

TENSOR = 16  # number of digits that the digests of all stores of one tensor begin with
RowId = tuple[str, int]
"""What a row is of: the digest of a photo's file, and the number of the view."""

TOLERANCE = 1e-3  # largest rounding error of an image, relative to its L2 norm


@dataclass(frozen=True)
class Key:
    """Everything that could change the numbers of a store: equal keys mean equal numbers.

    Attributes:
        facts: facts about what the numbers are and how they are computed, JSON values.
        rows: photos and views that the store has, in the order of its rows; () if they are not
            known, or if the key stands for all stores with these facts.
    """

    facts: Mapping[str, Any]
    rows: tuple[RowId, ...] = ()

    @property
    def digest(self) -> str:
        """The key in 32 hexadecimal digits; the order of the facts does not matter.

        Stores with the same facts have the same first `TENSOR` digits.
        """
        text = json.dumps(dict(self.facts), sort_keys=True, separators=(",", ":"), allow_nan=False)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        if not self.rows:
            return digest
        rows = "".join(f"{photo} {view}\n" for photo, view in self.rows)
        return digest[:TENSOR] + hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()


def open_store(folder: Path, key: Key) -> np.ndarray | None:
    """Memory-maps a store, and marks it as used now.

    Args:
        folder: the cache folder.
        key: the key of the store.

    Returns:
        float16 or float32 [N, ...], read-only; None if there is no store. A damaged one is
        removed.

    Raises:
        UserError: the folder can't be read.
    """
    path = array_path(folder, key.digest)
    with explaining(folder):
        try:
            read_header(path)
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            with suppress(OSError):
                path.unlink()
            return None
    with suppress(OSError):  # a cache that can only be read
        os.utime(path)
    return rows


class Concatenated:
    """Several stores of the same images as one array: the flattened rows of all, side by side.

    Read it like an array: `rows[3:7]`, `rows[[2, 5]]`, `np.asarray(rows)`.

    Attributes:
        stores: the stores, [N, ...] each, of one dtype.
        shape: shape of the whole, [N,F], where F counts the numbers of an image in all stores.
        dtype: dtype of the stores.
        nbytes: size of all stores together, in bytes.
    """

    def __init__(self, stores: Sequence[np.ndarray | Gathered]) -> None:
        """Joins two or more stores."""
        self.stores = tuple(stores)
        widths = [math.prod(rows.shape[1:]) for rows in self.stores]
        self.shape = (len(self.stores[0]), sum(widths))
        self.dtype = self.stores[0].dtype
        self.nbytes = sum(rows.nbytes for rows in self.stores)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads some rows: `index` is a slice, or positions int [B]. Returns [B,F]."""
        read = [rows[index] for rows in self.stores]
        return np.concatenate([rows.reshape(len(rows), -1) for rows in read], axis=1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads all rows into memory."""
        return self[:].astype(dtype or self.dtype, copy=False)


class Gathered:
    """Rows that lie in one or more stores, in any order, as one array.

    Read it like an array: `rows[3:7]`, `rows[[2, 5]]`, `np.asarray(rows)`.

    Attributes:
        stores: the stores, [M, ...] each, of one shape of a row and one dtype.
        which: position in `stores` of the store that has each row, int [N].
        places: position of each row in its store, int [N].
        shape: shape of the whole, [N, ...].
        dtype: dtype of the stores.
        nbytes: size of the rows in bytes.
    """

    def __init__(self, stores: Sequence[np.ndarray], which: np.ndarray, places: np.ndarray) -> None:
        """Gathers rows; `which` and `places` say where each of them lies."""
        self.stores, self.which, self.places = tuple(stores), which, places
        self.shape = (len(which), *self.stores[0].shape[1:])
        self.dtype = self.stores[0].dtype
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads some rows: `index` is a slice, or positions int [B]. Returns [B, ...]."""
        which, places = self.which[index], self.places[index]
        rows = np.empty((len(which), *self.shape[1:]), self.dtype)
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            here = here[np.argsort(places[here], kind="stable")]  # ascending on the disk
            rows[here] = self.stores[number][places[here]]
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads all rows into memory."""
        return self[:].astype(dtype or self.dtype, copy=False)


def gathered(
    stores: Sequence[np.ndarray], which: np.ndarray, places: np.ndarray
) -> np.ndarray | Gathered:
    """Returns rows of some stores as one array; a stretch of a single store as it lies there."""
    used, which = np.unique(which, return_inverse=True)
    stores = [stores[number] for number in used]
    if len(stores) == 1 and (np.diff(places) == 1).all():
        return stores[0][places[0] : places[0] + len(places)]
    return Gathered(stores, which, places)


Rows = np.ndarray | Gathered | Concatenated
"""The activations that a phase reads: a store, rows of several, or several side by side."""


def concatenated(stores: Sequence[np.ndarray | Gathered]) -> Rows:
    """Returns a single store as it is, or several as one."""
    return stores[0] if len(stores) == 1 else Concatenated(stores)


def release(rows: Rows) -> None:
    """Releases the memory that reading a memory-mapped store has taken.

    The pages stay in the system's disk cache as long as there is room. Without this call they
    count as memory of this process, up to the size of the store.
    """
    if isinstance(rows, Concatenated | Gathered):
        for one in rows.stores:
            release(one)
    mapped = getattr(rows, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):  # Unix
        mapped.madvise(mmap.MADV_DONTNEED)


def holds(folder: Path, key: Key) -> bool:
    """Returns whether `open_store` would find a store; its time of last use does not change."""
    try:
        read_header(array_path(folder, key.digest))
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def filling(
    folder: Path, keys: Sequence[Key], *, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Keeps other processes from writing or removing some stores.

    It waits for processes that are writing them, so check again inside the block which stores are
    still missing.

    Args:
        folder: the cache folder; it is made if need be.
        keys: keys of the stores to write.
        waiting: the function that is called once before waiting for other processes.

    Raises:
        UserError: the folder can't be made or written.
    """
    told = False
    with ExitStack() as held:
        # In the same order everywhere, so that no two processes wait for each other.
        for digest in sorted({key.digest[:TENSOR] for key in keys}):
            guard = hold(folder, digest, wait=False)
            while guard is None:
                if not told:
                    waiting()
                told = True
                guard = hold(folder, digest, wait=True)
            held.callback(guard.release)
        yield


def as_stored(rows: np.ndarray, dtype: str) -> np.ndarray | None:
    """Converts activations to the dtype of a store; nothing is ever clipped.

    Args:
        rows: the activations, float32 [B, ...].
        dtype: dtype of the store, "float16" or "float32".

    Returns:
        [B, ...] in that dtype; None if the values don't fit it: one is not finite, or the rounding
        error of an image is over 1e-3 of its L2 norm.
    """
    with np.errstate(over="ignore"):  # overflow gives inf, which is checked below
        stored = rows.astype(dtype)
        flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        squares = np.vecdot(flat, flat)
    if not np.isfinite(stored).all():
        return None
    # Rounding to float16 changes a number by at most 2**-11 of it, or by 2**-25 if it is
    # subnormal. So only an image whose root mean square is below 5.9e-5 can have an error over
    # 1e-3; measuring all images would double the time. Squares that underflow to 0 are covered.
    doubtful = squares < flat.shape[1] * 1e-4**2
    for exact, kept in zip(rows[doubtful], stored[doubtful], strict=True):
        lost = np.linalg.norm(exact.astype(np.float64) - kept)
        if lost > TOLERANCE * np.linalg.norm(exact.astype(np.float64)):
            return None
    return stored


@contextmanager
def writing(folder: Path, key: Key, shape: tuple[int, ...], dtype: str) -> Iterator[Writer]:
    """Writes a store from batches of rows. Call it inside `filling`.

    Args:
        folder: the cache folder.
        key: key of the store.
        shape: shape of the whole store, [N, ...].
        dtype: dtype of the store, "float16" or "float32".

    Yields:
        The writer, which must get exactly N rows. The store appears at the end of the block;
        after an exception nothing of it is left.

    Raises:
        UserError: the disk is full, or the like.
    """
    path = array_path(folder, key.digest)
    part = path.with_name(f".part.{path.name}")
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = part.open("wb")
    try:
        writer = Writer(path, file, shape, dtype)
        yield writer
        writer.finish()
        with explaining(path, needed=writer.bytes):
            record: dict[str, Any] = {"facts": dict(key.facts), "made": time.time()}
            record |= {"crc32": writer.crc, "rows": rows_to_json(key.rows)}
            write_atomic(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
            os.replace(part, path)
    except BaseException:  # Ctrl-C as well
        with suppress(OSError):  # closing tries again to write what did not fit a full disk
            file.close()
        with suppress(OSError):
            part.unlink()
        if not path.exists():
            with suppress(OSError):
                path.with_suffix(".json").unlink()
        raise


class Writer:
    """A file that takes the rows of one store.

    The rows go through `write`, which raises OSError on a full disk; a writable memory map would
    end the process with SIGBUS.
    """

    def __init__(self, path: Path, file: BinaryIO, shape: tuple[int, ...], dtype: str) -> None:
        """Writes the header.

        Args:
            path: path of the store, for messages.
            file: the file to write to.
            shape: shape of the whole store, [N, ...].
            dtype: dtype of the store.
        """
        self._path, self._file, self._dtype = path, file, np.dtype(dtype)
        self._shape = tuple(int(side) for side in shape)
        self._rows = 0
        self.crc = 0  # checksum of the rows so far
        self.bytes = math.prod(self._shape) * self._dtype.itemsize
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": self._shape,
        }
        with explaining(path, needed=self.bytes):
            np.lib.format.write_array_header_1_0(file, header)

    def append(self, rows: np.ndarray) -> None:
        """Appends rows [B, ...] in the dtype of the store."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._shape[1:]:
            raise ValueError(f"{rows.dtype} {rows.shape} for {self._dtype} {self._shape}")
        if self._rows + len(rows) > self._shape[0]:
            raise ValueError(f"{self._rows + len(rows)} rows for {self._shape}")
        with explaining(self._path, needed=self.bytes):
            data = np.ascontiguousarray(rows).data
            self._file.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self._rows += len(rows)

    def finish(self) -> None:
        """Flushes the file to the disk and closes it."""
        if self._rows != self._shape[0]:
            raise ValueError(f"{self._rows} rows for {self._shape}")
        with explaining(self._path, needed=self.bytes):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def rows_to_json(rows: Sequence[RowId]) -> Mapping[str, object]:
    """Returns what the description of a store says of its rows."""
    return {"photos": "".join(photo for photo, _ in rows), "views": [view for _, view in rows]}


def rows_from_json(record: object) -> tuple[RowId, ...]:
    """Reads what `rows_to_json` has returned. Raises ValueError if it is something else."""
    read = checked(record, Mapping[str, Any])
    photos, views = checked(read.get("photos"), str), checked(read.get("views"), tuple[int, ...])
    width = len(photos) // len(views) if views else 0
    return tuple((photos[i * width : (i + 1) * width], view) for i, view in enumerate(views))


def array_path(folder: Path, digest: str) -> Path:
    """Returns the path of the array with a digest; it need not exist."""
    return folder / f"{digest}.npy"


def read_header(path: Path) -> tuple[tuple[int, ...], str]:
    """Returns shape and dtype of an array. Raises OSError, or ValueError if it is damaged."""
    with path.open("rb") as file:
        shape, in_columns, dtype = read_array_header(file)
        size = os.fstat(file.fileno()).st_size
        # The checksum is of the bytes alone, which have another order in other types.
        if dtype.str not in ("<f2", "<f4") or in_columns:
            raise ValueError(f"dtype {dtype}")
        if size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{size} bytes")
    return shape, dtype.name


@dataclass(frozen=True, eq=False)
class Stored:
    """Stored activations that a phase trains on instead of pixels.

    Attributes:
        train: one array for each of V views, [N, ...], a row per training image, memory-mapped;
            those of several backbones are concatenated.
        validation: the plain view of the validation images, [N, ...], in the same form.
        found: whether nothing had to be computed.
        difference: mean relative error of bfloat16 on the first images; None if it was not
            measured, in float32 or where all stores were found.
        part: the timed pass; None if all stores were found.
    """

    train: tuple[Rows, ...]
    validation: Rows
    found: bool
    difference: float | None = None
    part: Part | None = None

    @property
    def dtype(self) -> str:
        """Dtype of the stored numbers, "float16" or "float32"."""
        return str(self.validation.dtype)

    @property
    def bytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(array.nbytes for array in (*self.train, self.validation))
