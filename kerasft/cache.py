"""The user's cache folder: where it is, how much room its disk has, locks and messages.

`activations/` keeps stores of activations in it, `unpacked.py` the photos of archives.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from kerasft.errors import UserError
from kerasft.text import size_text

RESERVE = 10**9  # bytes of the disk that the cache leaves free
SETTINGS = "settings.json"
LOCKS = "locks"


def cache_folder() -> Path:
    """Returns the environment variable KERASFT_CACHE, else the user's cache folder for kerasft.

    Makes nothing.
    """
    named = os.environ.get("KERASFT_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    return platformdirs.user_cache_path("kerasft", appauthor=False)


@contextmanager
def explaining(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns an OSError in the block into a UserError that says what to do.

    Args:
        path: what could not be read or written.
        needed: bytes that were to be written to it; None where it is not about its size.
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
    """Bytes free on the disk that a folder, which need not exist, is or would be on."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def hold(folder: Path, digest: str, *, wait: bool) -> FileLock | None:
    """Takes the lock of a key, which ends with the process at the latest.

    Returns:
        The lock, to be released. None, if not to wait, where another holds it.

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
