"""The folder of stores: what lies in it, how much it may hold, and what goes when it is full.

A store is `DIGEST.npy`, a NumPy file that stands there whole or not at all, with `DIGEST.json`
beside it for people: what it was made of, and when. The time of change of the .npy is when it
was last used. While it is being made it is `.part.DIGEST.npy`, and its maker holds
`locks/DIGEST.lock`; no file of a key whose lock is held is removed. `store.py` reads and makes
stores.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kerasft.activations.store import array_path, read_header
from kerasft.cache import LOCKS, RESERVE, SETTINGS, explaining, free_bytes, hold
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.text import size_text

DEFAULT_LIMIT = 20 * 10**9  # bytes


@dataclass(frozen=True)
class StoreInfo:
    """A store in the cache. A damaged one has shape () and dtype ""."""

    digest: str
    bytes: int
    made: float  # seconds since 1970, as is `used`
    used: float
    facts: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str


def list_stores(folder: Path) -> list[StoreInfo]:
    """Returns the stores of a cache, most recently used first; [] where there is none."""
    stores = []
    for digest in sorted(_digests(folder)):
        path = array_path(folder, digest)
        try:
            file = path.stat()
        except OSError:
            continue  # only parts of it are there, or it has just gone
        try:
            shape, dtype = read_header(path)
        except (OSError, ValueError):
            shape, dtype = (), ""
        try:
            record = json.loads(path.with_suffix(".json").read_text("utf-8"))
            facts, made = dict(record["facts"]), float(record["made"])
        except (OSError, ValueError, KeyError, TypeError):
            facts, made = {}, file.st_mtime
        stores.append(StoreInfo(digest, file.st_size, made, file.st_mtime, facts, shape, dtype))
    return sorted(stores, key=lambda store: -store.used)


def report(folder: Path) -> dict[str, Any]:
    """What `cache list --json` prints: the stores, their bytes, the limit and the folder."""
    stores = list_stores(folder)
    return {
        "stores": [asdict(store) for store in stores],
        "bytes": sum(store.bytes for store in stores),
        "limit": limit_of(folder),
        "folder": str(folder),
    }


def _digests(folder: Path) -> set[str]:
    """The keys that any file is there of. Files of other names are not ours."""
    ours = re.compile(r"(?:\.part\.)?([0-9a-f]{32})\.(?:npy|json|lock)")
    names: list[str] = []
    for place in (folder, folder / LOCKS):
        with explaining(folder):
            names += os.listdir(place) if place.is_dir() else []
    return {match[1] for match in map(ours.fullmatch, names) if match}


def lack_of_room(folder: Path, needed: int, *, keep: Collection[str] = ()) -> str | None:
    """Says what stands against so many bytes more, all other stores evicted if need be.

    Args:
        folder: the cache; need not exist.
        needed: bytes.
        keep: digests of stores that must stay.

    Returns:
        None where they fit the limit and the disk, else a clause for people.
    """
    if not needed:
        return None
    sizes = {store.digest: store.bytes for store in list_stores(folder)}
    kept = sum(size for digest, size in sizes.items() if digest in keep)
    limit = limit_of(folder)
    if kept + needed > limit:
        return (
            f"{size_text(kept + needed)} are needed, the cache's limit is {size_text(limit)} "
            "(`kerasft cache limit`)"
        )
    free = free_bytes(folder) + sum(sizes.values()) - kept + _left_behind(folder, set(sizes))
    if needed + RESERVE > free:
        return (
            f"{size_text(needed)} are needed and {size_text(RESERVE)} must stay free, "
            f"{size_text(free)} are free on the disk of {folder}"
        )
    return None


def _left_behind(folder: Path, whole: set[str]) -> int:
    """Bytes of what killed passes left, which nobody fills any more."""
    size = 0
    for digest in _digests(folder) - whole if folder.is_dir() else ():
        guard = hold(folder, digest, wait=False)
        if guard is not None:
            part = array_path(folder, digest).with_name(f".part.{digest}.npy")
            size += part.stat().st_size if part.exists() else 0
            guard.release()
    return size


def limit_of(folder: Path) -> int:
    """Returns how many bytes a cache may hold.

    Raises:
        UserError: the file that says it is damaged.
    """
    path = folder / SETTINGS
    try:
        limit = json.loads(path.read_text("utf-8"))["limit"]
    except (FileNotFoundError, NotADirectoryError):
        return DEFAULT_LIMIT
    except (OSError, ValueError, KeyError, TypeError):
        limit = None
    if type(limit) is not int or limit < 0:
        raise UserError(f"{path} is damaged. `kerasft cache limit 20GB` writes it anew.")
    return limit


def make_room(folder: Path, needed: int, *, keep: Collection[str]) -> None:
    """Evicts the least recently used stores until so many bytes fit the limit and the disk.

    Args:
        folder: the cache.
        needed: bytes.
        keep: digests of stores that must stay. One that somebody is filling stays anyway.

    Raises:
        UserError: they can't be made to fit.
    """
    lack = lack_of_room(folder, needed, keep=keep)
    if needed and lack is None:
        limit = limit_of(folder)

        def fits(total: int) -> bool:
            return total + needed <= limit and free_bytes(folder) >= needed + RESERVE

        _evict(folder, until=fits, keep=keep)
        # Some can't be removed: they are being filled, or under Windows mapped.
        left = {store.digest for store in list_stores(folder)}
        lack = lack_of_room(folder, needed, keep=left)
    if lack is not None:
        raise UserError(no_room(lack))


def no_room(lack: str) -> str:
    """The sentence for activations that cannot be stored; `lack` is of `lack_of_room`."""
    return f"The activations cannot be stored: {lack}. Make room with `kerasft cache clear`."


def set_limit(folder: Path, limit: int) -> tuple[int, int]:
    """Keeps a new limit in the cache, and evicts what is over it.

    Returns:
        Number of stores and bytes that were removed.

    Raises:
        UserError: the folder can't be made or written.
    """
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / SETTINGS, json.dumps({"limit": limit}) + "\n")
    return _evict(folder, until=lambda total: total <= limit)


def clear(folder: Path) -> tuple[int, int]:
    """Removes all stores, and what killed passes left, but those that somebody is filling.

    Returns:
        Number of stores and bytes that were removed. The limit stays.
    """
    return _evict(folder, until=lambda total: False)


def _evict(
    folder: Path, *, until: Callable[[int], bool], keep: Collection[str] = ()
) -> tuple[int, int]:
    """Removes leftovers of killed passes, then the least recently used stores.

    Args:
        folder: the cache.
        until: given the bytes of the stores that are left, whether that is enough.
        keep: digests of stores that must stay.

    Returns:
        Number of stores and bytes that were removed.
    """
    sizes = {store.digest: store.bytes for store in reversed(list_stores(folder))}
    total, number, freed = sum(sizes.values()), 0, 0
    for digest in [*sorted(_digests(folder) - set(sizes)), *sizes]:
        if until(total):
            break
        removed = None if digest in keep else _remove(folder, digest)
        if removed is not None:
            total -= sizes.get(digest, 0)
            number += digest in sizes
            freed += removed
    return number, freed


def _remove(folder: Path, digest: str) -> int | None:
    """Removes all files of a key.

    Returns:
        The bytes of the arrays. None where nothing was removed: somebody is filling the store,
        or, under Windows, has mapped it.
    """
    guard = hold(folder, digest, wait=False)
    if guard is None:
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
        # While it is held: filelock notices that a file it has just locked is gone, and makes
        # it anew.
        with suppress(OSError):  # Windows removes it at release
            Path(guard.lock_file).unlink()
        guard.release()
    return freed
