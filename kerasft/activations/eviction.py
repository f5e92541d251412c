"""The cache folder of stores: its layout, its limit, and the eviction of stores when it is full.

    DIGEST.npy         a store; it is there whole or not at all, and its mtime is its last use
    DIGEST.json        what the store was computed from and when, its rows and its checksum
    .part.DIGEST.npy   a store that is being written
    locks/TENSOR.lock  held by the process that writes stores whose digests begin so; their files
                       are not removed meanwhile
    programs/          what JAX has compiled for a GPU (`devices.py`), up to 2 GB beside the limit

`store.py` reads and writes stores.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft.activations.store import (
    TENSOR,
    RowId,
    array_path,
    read_header,
    rows_from_json,
)
from kerasft.cache import LOCKS, PROGRAMS, RESERVE, SETTINGS, explaining, free_bytes, hold
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.results import Result
from kerasft.text import count, size_text
from kerasft.untrusted import checked, read_json

log = logging.getLogger("kerasft")

DEFAULT_LIMIT = 20 * 10**9  # bytes


@dataclass(frozen=True)
class StoreInfo(Result):
    """A store in the cache; a damaged one has shape () and dtype "".

    Attributes:
        digest: digest of its key.
        bytes: size of the file.
        made, used: time at which it was made, and last used, in seconds since 1970.
        facts: facts of its key.
        shape: shape of the array, [N, ...].
        dtype: dtype of the array.
        rows: photos and views of its rows; () if an earlier version made it.
    """

    digest: str
    bytes: int
    made: float
    used: float
    facts: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str
    rows: tuple[RowId, ...]


def list_stores(folder: Path) -> list[StoreInfo]:
    """Returns the stores of a cache, most recently used first; [] if there is no cache."""
    stores = []
    for digest, size, used in _files(folder):
        path = array_path(folder, digest)
        try:
            shape, dtype = read_header(path)
        except (OSError, ValueError):
            shape, dtype = (), ""
        try:
            record = checked(read_json(path.with_suffix(".json")), Mapping[str, Any])
            facts = checked(record.get("facts"), Mapping[str, Any])
            made = checked(record.get("made"), float)
            rows = rows_from_json(record["rows"]) if "rows" in record else ()
        except (OSError, ValueError):
            facts, made, rows = {}, used, ()
        stores.append(StoreInfo(digest, size, made, used, facts, shape, dtype, rows))
    return stores


def digests_in(folder: Path) -> set[str]:
    """Returns the digests of all stores of a cache."""
    return {digest for digest, *_ in _files(folder)}


def _files(folder: Path) -> list[tuple[str, int, float]]:
    """Returns digest, size in bytes and last use of each store, most recently used first."""
    files = []
    for digest in sorted(_digests(folder)):
        try:
            file = array_path(folder, digest).stat()
        except OSError:
            continue  # only parts of it exist, or it has just been removed
        files.append((digest, file.st_size, file.st_mtime))
    return sorted(files, key=lambda one: -one[2])


def _of_all_views(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: fact for key, fact in facts.items() if key != "augment"}


@dataclass(frozen=True)
class HeldTensors(Result):
    """What the cache holds of one net at one cut: a plain view and others, in all their stores.

    Attributes:
        facts: facts of the keys, but for how views are augmented; {} if they were lost.
        photos: number of photos.
        views: number of views, the plain one included.
        stores: number of stores, the segments that passes have appended.
        bytes: size of them all.
        made, used: time at which the first was made, and the last used, in seconds since 1970.
        dtype: dtype of the numbers; "" if a store is damaged.
    """

    facts: Mapping[str, Any]
    photos: int
    views: int
    stores: int
    bytes: int
    made: float
    used: float
    dtype: str

    @classmethod
    def of(cls, stores: Sequence[StoreInfo]) -> "HeldTensors":
        """Sums up stores, at least one, of the same net and cut."""
        rows = {row for one in stores for row in one.rows}
        return cls(
            facts=_of_all_views(stores[0].facts),
            photos=len({photo for photo, _ in rows}),
            views=len({view for _, view in rows}),
            stores=len(stores),
            bytes=sum(one.bytes for one in stores),
            made=min(one.made for one in stores),
            used=max(one.used for one in stores),
            dtype=stores[0].dtype,
        )


@dataclass(frozen=True)
class StoreReport(Result):
    """The activations in a cache.

    Attributes:
        tensors: nets and cuts, most recently used first.
        bytes: total size of their stores.
        limit: number of bytes that the stores may take up.
        folder: folder of the cache.
    """

    tensors: tuple[HeldTensors, ...]
    bytes: int
    limit: int
    folder: Path


def report(folder: Path) -> StoreReport:
    """Returns what a cache holds, its total size, the limit and the folder."""
    stores = list_stores(folder)
    groups: dict[str, list[StoreInfo]] = {}
    for one in stores:
        shared = json.dumps(_of_all_views(one.facts), sort_keys=True)
        groups.setdefault(shared, []).append(one)
    held = tuple(HeldTensors.of(group) for group in groups.values())
    return StoreReport(held, sum(one.bytes for one in stores), limit_of(folder), folder)


def _digests(folder: Path) -> set[str]:
    """Returns the digests of all stores of which any file exists; ignores other files."""
    ours = re.compile(r"(?:\.part\.)?([0-9a-f]{32}|[0-9a-f]{16})\.(?:npy|json|lock)")
    names: list[str] = []
    for place in (folder, folder / LOCKS):
        with explaining(folder):
            names += os.listdir(place) if place.is_dir() else []
    return {match[1] for match in map(ours.fullmatch, names) if match}


def lack_of_room(folder: Path, needed: int, *, keep: Collection[str] = ()) -> str | None:
    """Checks whether new stores would fit if all others were evicted.

    Args:
        folder: the cache folder, which need not exist.
        needed: size of the new stores in bytes.
        keep: digests of stores that must stay.

    Returns:
        None if they fit the limit and the disk, else the reason as a clause for a message.
    """
    if not needed:
        return None
    sizes = {digest: size for digest, size, _ in _files(folder)}
    kept = sum(size for digest, size in sizes.items() if digest in keep)
    limit = limit_of(folder)
    if kept + needed > limit:
        return (
            f"{size_text(kept + needed)} are needed, but the cache's limit is {size_text(limit)} "
            "(`kerasft cache limit`)"
        )
    free = free_bytes(folder) + sum(sizes.values()) - kept + _left_behind(folder, set(sizes))
    if needed + RESERVE > free:
        return (
            f"{size_text(needed)} are needed and {size_text(RESERVE)} must stay free, but only "
            f"{size_text(free)} are free on the disk of {folder}"
        )
    return None


def _left_behind(folder: Path, whole: set[str]) -> int:
    """Returns the size of partly written stores that killed processes left."""
    size = 0
    for path in folder.glob(".part.*.npy") if folder.is_dir() else ():
        digest = path.name.removeprefix(".part.").removesuffix(".npy")
        guard = None
        if digest not in whole:
            with suppress(UserError):  # a cache that can only be read
                guard = hold(folder, digest[:TENSOR], wait=False)
        if guard is not None:
            with suppress(OSError):
                size += path.stat().st_size
            guard.release()
    return size


def limit_of(folder: Path) -> int:
    """Returns the size limit of a cache in bytes.

    Raises:
        UserError: the settings file is damaged.
    """
    path = folder / SETTINGS
    try:
        limit = checked(read_json(path), Mapping[str, Any]).get("limit")
    except (FileNotFoundError, NotADirectoryError):
        return DEFAULT_LIMIT
    except (OSError, ValueError):
        limit = None
    if type(limit) is not int or limit < 0:
        raise UserError(f"{path} is damaged. `kerasft cache limit 20GB` replaces it.")
    return limit


def make_room(
    folder: Path, needed: int, *, keep: Collection[str], held: Collection[str] = ()
) -> None:
    """Evicts the least recently used stores until new ones fit the limit and the disk.

    Args:
        folder: the cache folder.
        needed: size of the new stores in bytes.
        keep: digests of stores that must stay. A store that is being written stays anyway.
        held: tensors whose locks this process holds (the beginnings of their digests); of these it
            writes nothing yet.

    Raises:
        UserError: the new stores can't be made to fit.
    """
    lack = lack_of_room(folder, needed, keep=keep)
    if needed and lack is None:
        limit = limit_of(folder)

        def fits(total: int) -> bool:
            return total + needed <= limit and free_bytes(folder) >= needed + RESERVE

        _evict(folder, until=fits, keep=keep, held=held)
        # Some can't be removed: they are being written, or under Windows memory-mapped.
        left = digests_in(folder)
        lack = lack_of_room(folder, needed, keep=left)
    if lack is not None:
        raise UserError(no_room(lack))


def remove_rests(folder: Path) -> None:
    """Removes what killed processes have left of stores, in a pass or while segments were merged.

    Raises:
        UserError: the folder can't be written.
    """
    for digest in _digests(folder) - digests_in(folder):
        if len(digest) > TENSOR:
            _remove(folder, digest)


def tidy(folder: Path) -> None:
    """Removes what killed processes left, and stores of versions that knew no photos of rows."""
    remove_rests(folder)
    there = digests_in(folder)
    earlier = [digest for digest in there if not _names_rows(folder, digest)]
    freed = sum(size for digest in earlier if (size := _remove(folder, digest)))
    if freed:
        log.info(
            "Removed %s of an earlier kerasft (%s): activations are found by photo now.",
            count(earlier, "store"),
            size_text(freed),
        )


def _names_rows(folder: Path, digest: str) -> bool:
    """Returns whether a store's description names its rows; it is not parsed, as it is long."""
    try:
        return '"rows"' in array_path(folder, digest).with_suffix(".json").read_text("utf-8")
    except (OSError, ValueError):
        return False


def no_room(lack: str) -> str:
    """Returns the message for activations that can't be stored; `lack` is from `lack_of_room`."""
    return f"The activations cannot be stored: {lack}. Make room with `kerasft cache clear`."


def set_limit(folder: Path, limit: int) -> tuple[int, int]:
    """Sets the size limit of a cache, and evicts stores until it is met.

    Args:
        folder: the cache folder; it is made if need be.
        limit: the limit in bytes.

    Returns:
        The number of removed stores and their size in bytes.

    Raises:
        UserError: the folder can't be made or written.
    """
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / SETTINGS, json.dumps({"limit": limit}) + "\n")
    return _evict(folder, until=lambda total: total <= limit)


def clear(folder: Path) -> tuple[int, int]:
    """Removes all stores and leftovers of killed processes, except stores that are being written.

    Programs that were compiled for a GPU go too. The limit stays.

    Returns:
        The number of removed stores and their size in bytes.
    """
    shutil.rmtree(folder / PROGRAMS, ignore_errors=True)
    return _evict(folder, until=lambda total: False)


def _evict(
    folder: Path,
    *,
    until: Callable[[int], bool],
    keep: Collection[str] = (),
    held: Collection[str] = (),
) -> tuple[int, int]:
    """Removes leftovers of killed processes, then the least recently used stores.

    Args:
        folder: the cache folder.
        until: the condition that ends the eviction, given the size of the remaining stores.
        keep: digests of stores that must stay.
        held: tensors whose locks this process holds, see `make_room`.

    Returns:
        The number of removed stores and their size in bytes.
    """
    sizes = {digest: size for digest, size, _ in reversed(_files(folder))}
    total, number, freed = sum(sizes.values()), 0, 0
    for digest in [*sorted(_digests(folder) - set(sizes)), *sizes]:
        if until(total):
            break
        removed = None if digest in keep else _remove(folder, digest, held)
        if removed is not None:
            total -= sizes.get(digest, 0)
            number += digest in sizes
            freed += removed
    return number, freed


def _remove(folder: Path, digest: str, held: Collection[str] = ()) -> int | None:
    """Removes all files of a store.

    Returns:
        The size of its arrays in bytes; None if nothing was removed, because the store is being
        written or, under Windows, is memory-mapped.
    """
    guard = None if digest[:TENSOR] in held else hold(folder, digest[:TENSOR], wait=False)
    if guard is None and digest[:TENSOR] not in held:
        return None
    path, freed = array_path(folder, digest), 0
    try:
        for array in (path, path.with_name(f".part.{path.name}")):
            if array.exists():
                size = array.stat().st_size
                array.unlink()
                freed += size
        for text in (f"{digest}.json", f".part.{digest}.json"):
            (folder / text).unlink(missing_ok=True)
    except PermissionError:
        return None
    finally:
        if guard is not None:
            # While the lock is held: filelock notices that a file that it has just locked is gone,
            # and makes it anew.
            with suppress(OSError):  # Windows removes the file when the lock is released
                Path(guard.lock_file).unlink()
            guard.release()
    return freed
