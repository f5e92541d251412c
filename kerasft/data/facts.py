"""Facts of photos, remembered: a file that has kept its size and time is not read again.

facts/DIGEST.tsv           facts of the files below one folder, whose path gives the digest
facts/locks/DIGEST.lock    held by the process that writes them

The facts lie in the cache folder, and count only for the code that computed them. Whoever decodes a
photo later compares its digest (`batches.read_unchanged`), so a file that was changed without a
trace stops a run, but gets no wrong activations into a store.
"""

import functools
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kerasft.cache import LOCKS, cache_folder, hold
from kerasft.errors import UserError
from kerasft.files import replacing
from kerasft.input_rule import WHITE, Color
from kerasft.pixels.measure import Picture
from kerasft.results import Result
from kerasft.text import is_writable
from kerasft.untrusted import parse_json

FOLDER = "facts"
RACY = 2 * 10**9  # nanoseconds: FAT keeps times to 2 s, so a later change may have the same time
KEPT_DAYS = 90


class Facts:
    """The remembered facts of the files below a folder.

    Attributes:
        read: paths of files that had to be read, in any order.
    """

    def __init__(self, lines: dict[str, str], began: int) -> None:
        self.read: list[str] = []
        self._lines = lines
        self._began = began
        self._new: dict[str, str] = {}

    def find(self, path: str, status: os.stat_result, *, decoded: bool) -> Picture | None:
        """Returns what is known of a file; None if it has changed, or is to be read anyway.

        Args:
            path: posix path relative to the folder.
            status: present status of the file.
            decoded: whether facts of the decoded image are wanted, too.
        """
        stamp = _stamp(status)
        before, _, facts = self._lines.get(path, "").rpartition("\t")
        if before == stamp + _checksum(path, stamp, facts):
            with suppress(ValueError, TypeError):
                found = Picture("", *parse_json(facts))
                if found.pixels or not decoded:
                    return found
        self.read.append(path)
        return None

    def keep(self, path: str, status: os.stat_result, found: Picture) -> None:
        """Keeps the facts of an image that was read.

        A file that may be changed again within the same tick of its clock is not kept; nor is one
        that cannot be used, because a library may be installed that reads it.

        Args:
            path: posix path relative to the folder.
            status: status of the file before it was read.
            found: facts of the file.
        """
        if found.digest and not found.reason and status.st_mtime_ns < self._began - RACY:
            stamp, facts = _stamp(status), json.dumps(found[1:])
            self._new[path] = f"{stamp}{_checksum(path, stamp, facts)}\t{facts}"

    def lines(self, root: Path) -> Iterator[str]:
        """Yields the lines to be written: new facts, and those of other files that still exist."""
        for path, line in self._lines.items():
            if path not in self._new and (root / path).exists():
                yield f"{path}\t{line}\n"
        for path, line in self._new.items():
            if is_writable(path):
                yield f"{path}\t{line}\n"

    def __len__(self) -> int:
        """The number of new facts."""
        return len(self._new)


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ino}\t"


def _checksum(path: str, stamp: str, facts: str) -> str:
    """Returns what shows that a line was damaged: a wrong digest would pass for a changed photo."""
    return f"{zlib.crc32((path + stamp + facts).encode()):08x}"


@contextmanager
def remembered(root: Path, background: Color | None = WHITE) -> Iterator[Facts]:
    """Yields the facts of the files below a folder; new ones are written at the end.

    They are written after Ctrl-C and errors, too. A file of facts that is damaged, or was written
    by other code, is replaced; a cache that can't be written is left as it is.

    Args:
        root: the folder.
        background: colour that transparent pixels lie on, on which some facts depend.
    """
    place = os.fsencode(os.path.realpath(root))
    rule = b"" if background == WHITE else repr(background).encode()
    key = hashlib.blake2b(place + rule, digest_size=16).hexdigest()
    folder = cache_folder() / FOLDER
    path = folder / f"{key}.tsv"
    known = Facts(_read(path), time.time_ns())
    try:
        yield known
    finally:
        if len(known):
            with suppress(UserError, OSError):
                _write(folder, key, root, known)


def _read(path: Path) -> dict[str, str]:
    lines: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            if file.readline() != _header():
                return {}
            for line in file:
                name, _, rest = line.removesuffix("\n").partition("\t")
                lines[name] = rest
        os.utime(path)  # the last use
    except (OSError, ValueError):
        return {}
    return lines


def _write(folder: Path, key: str, root: Path, known: Facts) -> None:
    guard = hold(folder, key, wait=False)
    if guard is None:  # another process scans the same photos
        return
    try:
        with (
            replacing(folder / f"{key}.tsv") as part,
            part.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.write(_header())
            file.writelines(known.lines(root))
    finally:
        guard.release()
    for old in folder.glob("*.tsv"):
        if old.stat().st_mtime < time.time() - KEPT_DAYS * 24 * 3600:
            old.unlink(missing_ok=True)


@functools.cache
def _header() -> str:
    """Returns the first line: the form of the others, and a digest of the code behind them."""
    code = hashlib.blake2b(",".join(Picture._fields).encode(), digest_size=16)
    pixels = resources.files("kerasft.pixels")
    for file in sorted(pixels.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            code.update(file.read_bytes())
    return f"kerasft facts 2 {code.hexdigest()}\n"


@dataclass(frozen=True)
class FactReport(Result):
    """The remembered facts: number of folders, and size of the files in bytes."""

    fact_folders: int
    fact_bytes: int


def report() -> FactReport:
    """Returns how much is remembered, for `kerasft cache list`."""
    sizes = [path.stat().st_size for path in (cache_folder() / FOLDER).glob("*.tsv")]
    return FactReport(len(sizes), sum(sizes))


def forget() -> FactReport:
    """Removes all remembered facts, so that every file is read again.

    Returns:
        What was removed.
    """
    folder, removed = cache_folder() / FOLDER, report()
    for path in (*folder.glob("*.tsv"), *folder.glob(".part.*"), *(folder / LOCKS).glob("*")):
        with suppress(OSError):
            path.unlink()
    return removed
