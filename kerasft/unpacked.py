"""Photos of archives and of TFDS as files: unpacked once, kept in the user's cache, reused.

photos/DIGEST/              a set of photos; it is there whole or not at all
photos/DIGEST.json          its name, number of files and size; its mtime is the last use
photos/.part.DIGEST/        a set that is being unpacked
photos/locks/DIGEST.lock    held by the process that unpacks it
photos/used/DIGEST.*.lock   one per process that reads it, so that it is not removed meanwhile
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kerasft.cache import RESERVE, cache_folder, explaining, free_bytes, hold
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.results import Result
from kerasft.text import size_text
from kerasft.untrusted import fill, read_json

log = logging.getLogger(__name__)

FOLDER = "photos"
USED = "used"
_ADVICE = (
    "\n  Free some space, empty the cache (`kerasft cache clear`), or set KERASFT_CACHE to a "
    "folder on another disk."
)


@dataclass(frozen=True)
class Unpacked(Result):
    """A set of photos in the cache.

    Attributes:
        digest: digest of the set's facts, which names its folder.
        name: the source as the user named it when the set was unpacked.
        files: number of files.
        bytes: size of all files in bytes.
        used: time of last use.
    """

    digest: str
    name: str
    files: int
    bytes: int
    used: float  # seconds since 1970


def photo_folder() -> Path:
    """Returns the folder of all sets, without making it."""
    return cache_folder() / FOLDER


def unpacked(
    name: str, facts: Mapping[str, Any], unpack: Callable[[Path], None]
) -> tuple[Path, object]:
    """Returns the folder of a set of photos, which is unpacked if need be.

    Args:
        name: the source as the user names it.
        facts: facts that the files depend on, as JSON; equal facts mean the same set.
        unpack: function that writes the files into the empty folder that it is given; it may
            raise OSError. If it fails, nothing is left.

    Returns:
        (folder, held): the set is not removed as long as `held` is referenced.

    Raises:
        UserError: the cache can't be written; whatever `unpack` raises.
    """
    folder = photo_folder()
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
    guard = hold(folder, key, wait=True)
    assert guard is not None  # it was waited for
    try:
        held = _use(folder, key)
        record = _record_path(folder, key)
        if _is_whole(folder, key):
            with suppress(OSError):
                os.utime(record)
            log.info("%s: was unpacked before, found in the cache", name)
            return folder / key, held
        part = folder / f".part.{key}"
        _remove_files(folder, key)
        try:
            part.mkdir()
            unpack(part)
            files, size = _measure(part)
            facts = {"name": name, "files": files, "bytes": size, "made": time.time()}
            write_atomic(record, json.dumps(facts))
            os.rename(part, folder / key)
            log.info(
                "%s: %s files unpacked into the cache, %s", name, f"{files:,}", size_text(size)
            )
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise UserError(
                f"{name}: can't be unpacked into {folder}: {error.strerror or error}.{_ADVICE}"
            ) from error
        except BaseException:  # Ctrl-C as well
            shutil.rmtree(part, ignore_errors=True)
            raise
        return folder / key, held
    finally:
        guard.release()


def room() -> int:
    """Returns the number of bytes that may be unpacked: the free ones on the disk minus RESERVE."""
    return max(0, free_bytes(photo_folder()) - RESERVE)


def no_room(name: str) -> str:
    """Returns the message for photos that do not fit the disk."""
    return (
        f"{name}: can't be unpacked: the disk of {photo_folder()} is full but for "
        f"{size_text(RESERVE)}, which must stay free.{_ADVICE}"
    )


def _use(folder: Path, key: str) -> FileLock:
    """Marks a set as used by this process, until the mark is released or the process ends."""
    with explaining(folder):
        (folder / USED).mkdir(parents=True, exist_ok=True)
        _is_used(folder, key)  # removes old marks
        mark = FileLock(folder / USED / f"{key}.{uuid.uuid4().hex}.lock", thread_local=False)
        mark.acquire()
    return mark


def _is_used(folder: Path, key: str) -> bool:
    """Returns whether a process uses a set; removes marks of processes that have ended.

    Call it with the key's lock held, under which marks are made and removed.
    """
    used = False
    for path in (folder / USED).glob(f"{key}.*.lock"):
        mark = FileLock(path, timeout=0)
        try:
            mark.acquire()
        except Timeout:
            used = True
        else:
            with suppress(OSError):
                path.unlink()
            mark.release()
    return used


def _record_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _is_whole(folder: Path, key: str) -> bool:
    """Returns whether a set is complete: a crash of the system may have emptied some files."""
    found = _read_record(folder, key)
    return found is not None and _measure(folder / key) == (found.files, found.bytes)


def _measure(folder: Path) -> tuple[int, int]:
    """Returns the number of files below a folder, and their size in bytes."""
    files = size = 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        files += 1
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return files, size


def _read_record(folder: Path, key: str) -> Unpacked | None:
    path = _record_path(folder, key)
    try:
        read = fill(Unpacked, read_json(path), digest=key, used=path.stat().st_mtime)
        return read if min(read.files, read.bytes) >= 0 else None
    except (OSError, ValueError):
        return None


def list_unpacked(folder: Path) -> list[Unpacked]:
    """Lists the sets of a cache, most recently used first.

    Args:
        folder: the folder of all sets (`photo_folder`), which need not exist.
    """
    found = []
    for key in sorted(_keys(folder)):
        if (folder / key).is_dir():
            known = _read_record(folder, key)
            files, size = _measure(folder / key)
            found.append(known or Unpacked(key, "unknown", files, size, 0.0))
    return sorted(found, key=lambda one: -one.used)


@dataclass(frozen=True)
class PhotoReport(Result):
    """The sets of photos in the cache, and their total size in bytes."""

    photos: tuple[Unpacked, ...]
    photo_bytes: int


def report(folder: Path) -> PhotoReport:
    """Returns the sets of photos and their total size, for `kerasft cache list`."""
    found = list_unpacked(folder)
    return PhotoReport(tuple(found), sum(one.bytes for one in found))


def clear(folder: Path) -> tuple[int, int]:
    """Removes all sets and leftovers of killed processes, except sets that are in use.

    Returns:
        The number of removed sets and their size in bytes.
    """
    number = freed = 0
    for key in sorted(_keys(folder)):
        guard = hold(folder, key, wait=False)
        if guard is None:
            continue
        try:
            if not _is_used(folder, key):
                number += (folder / key).is_dir()
                freed += sum(_measure(path)[1] for path in (folder / key, folder / f".part.{key}"))
                _remove_files(folder, key)
        finally:
            with suppress(OSError):  # while the lock is held, see `eviction._remove`
                Path(guard.lock_file).unlink()
            guard.release()
    return number, freed


def _keys(folder: Path) -> set[str]:
    """Returns the digests of all sets of which anything exists; ignores other files."""
    ours = re.compile(r"(?:\.part\.)?([0-9a-f]{32})(?:\.json|\.lock|\.[0-9a-f]{32}\.lock)?")
    names: list[str] = []
    for place in (folder, folder / "locks", folder / USED):
        with explaining(folder):
            names += os.listdir(place) if place.is_dir() else []
    return {match[1] for match in map(ours.fullmatch, names) if match}


def _remove_files(folder: Path, key: str) -> None:
    """Removes a set; it is renamed first, so that nobody sees half of it."""
    part = folder / f".part.{key}"
    shutil.rmtree(part, ignore_errors=True)
    with explaining(folder):
        if (folder / key).is_dir():
            os.rename(folder / key, part)
        _record_path(folder, key).unlink(missing_ok=True)
    shutil.rmtree(part, ignore_errors=True)
