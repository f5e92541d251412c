"""Photos of archives and of TFDS as files: unpacked once, kept in the user's cache, reused.

Each set is a folder `photos/DIGEST/` in the cache that stands there whole or not at all, with
`DIGEST.json` beside it: what it was made of, and how many files of how many bytes it holds. The
time of change of the .json is when it was last used. While it is being made it is
`.part.DIGEST/`, and its maker holds `locks/DIGEST.lock`. Whoever reads it holds a lock
file of its own in `used/`, so that it is not removed under a run.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kerasft.cache import RESERVE, cache_folder, explaining, free_bytes, hold
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.text import size_text

log = logging.getLogger(__name__)

FOLDER = "photos"
USED = "used"
_ADVICE = (
    "\n  Free some space, empty the cache (`kerasft cache clear`), or set KERASFT_CACHE to a "
    "folder on another disk."
)


@dataclass(frozen=True)
class Unpacked:
    """A set of photos in the cache. `name` is what the user called it when it was made."""

    digest: str
    name: str
    files: int
    bytes: int
    used: float  # seconds since 1970


def photo_folder() -> Path:
    """Where the sets stand; makes nothing."""
    return cache_folder() / FOLDER


def unpacked(
    name: str, facts: Mapping[str, Any], unpack: Callable[[Path], None]
) -> tuple[Path, object]:
    """Returns the folder of a set of photos; it is made if it is not there.

    Args:
        name: what the user calls it.
        facts: what its files depend on, as JSON; sets of equal facts are one.
        unpack: writes the files into the empty folder that it is given; may raise OSError. If
            it fails, nothing is left.

    Returns:
        (folder, held): the set is not removed as long as `held` is referred to.

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
    """Bytes that may be unpacked: what is free on the disk but a reserve."""
    return max(0, free_bytes(photo_folder()) - RESERVE)


def no_room(name: str) -> str:
    """The sentence for photos that do not fit the disk."""
    return (
        f"{name}: can't be unpacked: the disk of {photo_folder()} is full but for "
        f"{size_text(RESERVE)}, which must stay free.{_ADVICE}"
    )


def _use(folder: Path, key: str) -> FileLock:
    """Marks a set as used by this process, until the mark is let go or the process ends."""
    with explaining(folder):
        (folder / USED).mkdir(parents=True, exist_ok=True)
        _is_used(folder, key)  # sweeps
        mark = FileLock(folder / USED / f"{key}.{uuid.uuid4().hex}.lock", thread_local=False)
        mark.acquire()
    return mark


def _is_used(folder: Path, key: str) -> bool:
    """Whether somebody holds a mark; those that nobody holds are removed.

    For holders of the key's lock: a mark is made and taken under it.
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
    """Whether all files are there: a crash of the system, or somebody, may have emptied some."""
    found = _read_record(folder, key)
    return found is not None and _measure(folder / key) == (found.files, found.bytes)


def _measure(folder: Path) -> tuple[int, int]:
    """Number of files below a folder, and their bytes."""
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
        record = json.loads(path.read_text("utf-8"))
        used = path.stat().st_mtime
        return Unpacked(key, str(record["name"]), int(record["files"]), int(record["bytes"]), used)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def list_unpacked(folder: Path) -> list[Unpacked]:
    """The sets of a cache, most recently used first.

    Args:
        folder: of `photo_folder`; need not exist.
    """
    found = []
    for key in sorted(_keys(folder)):
        if (folder / key).is_dir():
            known = _read_record(folder, key)
            files, size = _measure(folder / key)
            found.append(known or Unpacked(key, "unknown", files, size, 0.0))
    return sorted(found, key=lambda one: -one.used)


def report(folder: Path) -> dict[str, Any]:
    """Lists each set of photos, and the bytes of all, for `kerasft cache list`."""
    found = list_unpacked(folder)
    return {
        "photos": [asdict(one) for one in found],
        "photo_bytes": sum(one.bytes for one in found),
    }


def clear(folder: Path) -> tuple[int, int]:
    """Removes all sets, and what killed processes left, but those that somebody uses or makes.

    Returns:
        Number of sets and bytes that were removed.
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
            with suppress(OSError):  # while it is held, see `eviction._remove`
                Path(guard.lock_file).unlink()
            guard.release()
    return number, freed


def _keys(folder: Path) -> set[str]:
    """The keys that anything is there of. What has other names is not ours."""
    ours = re.compile(r"(?:\.part\.)?([0-9a-f]{32})(?:\.json|\.lock|\.[0-9a-f]{32}\.lock)?")
    names: list[str] = []
    for place in (folder, folder / "locks", folder / USED):
        with explaining(folder):
            names += os.listdir(place) if place.is_dir() else []
    return {match[1] for match in map(ours.fullmatch, names) if match}


def _remove_files(folder: Path, key: str) -> None:
    """Removes a set: renamed first, so that nobody sees half of it."""
    part = folder / f".part.{key}"
    shutil.rmtree(part, ignore_errors=True)
    with explaining(folder):
        if (folder / key).is_dir():
            os.rename(folder / key, part)
        _record_path(folder, key).unlink(missing_ok=True)
    shutil.rmtree(part, ignore_errors=True)
