"""Activations at a cut, kept on disk between runs: computed once, memory-mapped afterwards.

How to use it: `open_store` what is there; for the rest `filling`, look again, `make_room`,
and `writing` in one pass over the images. `activations/eviction.py` says what lies in the folder.

Shapes: N images of a store, B images of a batch; what follows them is the shape at the cut.
"""

import hashlib
import json
import math
import mmap
import os
import time
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kerasft.cache import explaining, hold
from kerasft.files import write_atomic
from kerasft.progress import Part

TOLERANCE = 1e-3  # of an image's L2 norm: what a store may lose of it


@dataclass(frozen=True)
class Key:
    """All that could change the numbers of a store; equal keys, equal numbers."""

    facts: Mapping[str, Any]  # JSON values

    @property
    def digest(self) -> str:
        """32 hexadecimal digits; the order of the facts counts for nothing."""
        facts = dict(self.facts)
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def open_store(folder: Path, key: Key) -> np.ndarray | None:
    """Maps a store into memory, and notes that it was used now.

    Returns:
        float16 or float32 [N, ...], read-only. None where there is none or it is damaged; a
        damaged one is removed.

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
    """Several stores of the same images as one: an image's numbers in a row, store by store.

    Read like an array: `rows[3:7]`, `rows[[2, 5]]`, `np.asarray(rows)`.

    Attributes:
        stores: [N, ...] each, of one dtype.
        shape: [N,F], F the numbers of an image in all of them.
        dtype: of all of them.
        nbytes: of all of them together.
    """

    def __init__(self, stores: Sequence[np.ndarray]) -> None:
        """Args: stores: two or more."""
        self.stores = tuple(stores)
        widths = [math.prod(rows.shape[1:]) for rows in self.stores]
        self.shape = (len(self.stores[0]), sum(widths))
        self.dtype = self.stores[0].dtype
        self.nbytes = sum(rows.nbytes for rows in self.stores)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Args: index: a slice, or positions int [B]. Returns [B,F]."""
        read = [rows[index] for rows in self.stores]
        return np.concatenate([rows.reshape(len(rows), -1) for rows in read], axis=1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)


Rows = np.ndarray | Concatenated
"""What a phase reads activations from: a store, or several in a row."""


def concatenated(stores: Sequence[np.ndarray]) -> Rows:
    """One store as it is, or several as one."""
    return stores[0] if len(stores) == 1 else Concatenated(stores)


def release(rows: Rows) -> None:
    """Gives back the memory into which reading a mapped store has brought it.

    What was read stays in the system's cache of the disk as long as there is room; without this
    it counts as memory of this process, up to the size of the store.
    """
    if isinstance(rows, Concatenated):
        for one in rows.stores:
            release(one)
    mapped = getattr(rows, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):  # Unix
        mapped.madvise(mmap.MADV_DONTNEED)


def holds(folder: Path, key: Key) -> bool:
    """Whether `open_store` would return it. Leaves the time of its last use as it is."""
    try:
        read_header(array_path(folder, key.digest))
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def filling(
    folder: Path, keys: Sequence[Key], *, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Keeps other processes from making or removing these stores.

    Waits for those who are at it. So inside the block look again which are still missing.

    Args:
        folder: the cache; is made if need be.
        keys: of the stores to make.
        waiting: called once before waiting for other processes.

    Raises:
        UserError: the folder can't be made or written.
    """
    told = False
    with ExitStack() as held:
        # In one order for all, so that no two wait for each other.
        for digest in sorted({key.digest for key in keys}):
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
        rows: float32 [B, ...].
        dtype: "float16" or "float32".

    Returns:
        [B, ...] in that dtype. None where the numbers don't fit it: one is not finite, or an
        image loses more than 1e-3 of its L2 norm.
    """
    with np.errstate(over="ignore"):  # to inf, which is looked for
        stored = rows.astype(dtype)
        flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        squares = np.vecdot(flat, flat)
    if not np.isfinite(stored).all():
        return None
    # Rounding to float16 moves a number by at most 2**-11 of it, or by 2**-25 where it is
    # subnormal. So only an image whose root mean square is below 5.9e-5 can lose more than 1e-3;
    # to measure all of them would double the time. Squares that underflow to 0 are below too.
    doubtful = squares < flat.shape[1] * 1e-4**2
    for exact, kept in zip(rows[doubtful], stored[doubtful], strict=True):
        lost = np.linalg.norm(exact.astype(np.float64) - kept)
        if lost > TOLERANCE * np.linalg.norm(exact.astype(np.float64)):
            return None
    return stored


@contextmanager
def writing(folder: Path, key: Key, shape: tuple[int, ...], dtype: str) -> Iterator["Writer"]:
    """Makes a store from rows that come one batch after the other. Hold `filling` meanwhile.

    Args:
        folder: the cache.
        key: of the store.
        shape: [N, ...] of the whole store.
        dtype: "float16" or "float32".

    Yields:
        What takes the rows. At the end of the block exactly N must have come; then the store
        appears. After any exception nothing of it is left.

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
            record = {"facts": dict(key.facts), "made": time.time()}
            write_atomic(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
            os.replace(part, path)
    except BaseException:  # Ctrl-C as well
        with suppress(OSError):  # closing tries again what a full disk did not take
            file.close()
        with suppress(OSError):
            part.unlink()
        if not path.exists():
            with suppress(OSError):
                path.with_suffix(".json").unlink()
        raise


class Writer:
    """Takes the rows of one store.

    They go through `write`: on a full disk that raises OSError, where a writable memory map
    would end the process with SIGBUS.
    """

    def __init__(self, path: Path, file: BinaryIO, shape: tuple[int, ...], dtype: str) -> None:
        """Args: path: named in messages; file: what is written to; shape: [N, ...] of all."""
        self._path, self._file, self._dtype = path, file, np.dtype(dtype)
        self._shape = tuple(int(side) for side in shape)
        self._rows = 0
        self.bytes = math.prod(self._shape) * self._dtype.itemsize
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": self._shape,
        }
        with explaining(path, needed=self.bytes):
            np.lib.format.write_array_header_1_0(file, header)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows [B, ...], in the dtype of the store, behind those before."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._shape[1:]:
            raise ValueError(f"{rows.dtype} {rows.shape} for {self._dtype} {self._shape}")
        if self._rows + len(rows) > self._shape[0]:
            raise ValueError(f"{self._rows + len(rows)} rows for {self._shape}")
        with explaining(self._path, needed=self.bytes):
            self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def finish(self) -> None:
        """Closes the file, which is safe on the disk then."""
        if self._rows != self._shape[0]:
            raise ValueError(f"{self._rows} rows for {self._shape}")
        with explaining(self._path, needed=self.bytes):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def array_path(folder: Path, digest: str) -> Path:
    """Where the array of a key stands, if it does."""
    return folder / f"{digest}.npy"


def read_header(path: Path) -> tuple[tuple[int, ...], str]:
    """Returns shape and dtype of an array. Raises OSError, or ValueError if it is damaged."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        except (SyntaxError, TypeError, tokenize.TokenError) as error:
            raise ValueError("no header") from error
        size = os.fstat(file.fileno()).st_size
        if dtype.name not in ("float16", "float32"):
            raise ValueError(f"dtype {dtype}")
        if size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{size} bytes")
    return shape, dtype.name


@dataclass(frozen=True, eq=False)
class Stored:
    """What a phase trains on in the place of pixels.

    Attributes:
        train: V arrays [N, ...], a row per training image, memory-mapped.
        validation: [N, ...], the plain view of the validation images, memory-mapped. Of several
            backbones the arrays of all of them in a row.
        found: whether nothing had to be computed.
        difference: mean relative error of bfloat16 on the first images; None where it was not
            measured: in float32, and where all was found.
        part: the pass, timed; None if all was found.
    """

    train: tuple[Rows, ...]
    validation: Rows
    found: bool
    difference: float | None = None
    part: Part | None = None

    @property
    def dtype(self) -> str:
        """Of the stored numbers: "float16" or "float32"."""
        return str(self.validation.dtype)

    @property
    def bytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for array in (*self.train, self.validation))
