"""The user's cache folder: its place, free space, locks, measurements and error messages.

`activations/` keeps stores in it, `unpacked.py` the photos of archives.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.text import size_text
from kerasft.untrusted import checked, read_json

RESERVE = 10**9  # bytes that the cache leaves free on the disk
SETTINGS = "settings.json"
LOCKS = "locks"
PROGRAMS = "programs"  # folder of the programs that JAX has compiled for a GPU


def cache_folder() -> Path:
    """Returns the path in KERASFT_CACHE (environment), else the user's cache folder for kerasft.

    Does not make the folder.
    """
    named = os.environ.get("KERASFT_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    return platformdirs.user_cache_path("kerasft", appauthor=False)


@contextmanager
def explaining(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns an OSError in the block into a UserError that says what to do.

    Args:
        path: the file or folder that is read or written.
        needed: number of bytes to be written; None if size is not the problem.
    """
    what, advice = (
        "used",
        "Set KERASFT_CACHE to another folder, or train without a store.",
    )
    if needed is not None:
        what = "written"
        advice = (
            f"{size_text(needed)} are needed.\n"
            "  Free some space, empty the cache (`kerasft cache clear`), or set KERASFT_CACHE\n"
            "  to a folder on another disk."
        )
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        reason = reason[:1].lower() + reason[1:]
        raise UserError(f"{path} can't be {what}: {reason}. {advice}") from error
    except UserError as error:  # of write_atomic
        raise UserError(f"{error} {advice}") from error


def free_bytes(folder: Path) -> int:
    """Returns the free bytes on the disk of a folder, which need not exist."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def hold(folder: Path, digest: str, *, wait: bool) -> FileLock | None:
    """Takes the lock of a key; it is released with the process at the latest.

    Args:
        folder: the folder that `locks/` is in; it is made if need be.
        digest: digest of the key.
        wait: whether to wait if another process holds the lock.

    Returns:
        The lock, to be released; None if another process holds it and `wait` is off.

    Raises:
        UserError: the folder can't be made or written.
    """
    with explaining(folder):
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        guard = FileLock(folder / LOCKS / f"{digest}.lock")
        try:
            guard.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return None
    return guard


MEASURED = "measured.json"


def remember(folder: Path, key: str, numbers: Mapping[str, float]) -> None:
    """Keeps a measurement of this machine beside the stores.

    Args:
        folder: the cache folder.
        key: text that identifies what was measured, and the machine.
        numbers: the measured numbers by name.
    """
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / MEASURED, json.dumps({**_measured(folder), key: dict(numbers)}))


def remembered(folder: Path, key: str, names: Iterable[str]) -> dict[str, float] | None:
    """Returns the numbers that `remember` kept under a key.

    Args:
        folder: the cache folder.
        key: the key.
        names: names of the numbers.

    Returns:
        The numbers by name; None if any is missing or damaged, and has to be measured again.
    """
    try:
        facts = checked(_measured(folder).get(key), Mapping[str, float])
    except ValueError:
        return None
    numbers = {name: facts.get(name, math.nan) for name in names}
    fine = all(math.isfinite(number) and number >= 0 for number in numbers.values())
    return numbers if fine else None


def _measured(folder: Path) -> Mapping[str, Any]:
    try:
        measured: Mapping[str, Any] = checked(read_json(folder / MEASURED), Mapping[str, Any])
    except (OSError, ValueError):
        return {}
    return measured
