"""A small disk, which a test fills: a file system in memory, where the system lets us mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A disk of some megabytes.

    Attributes:
        path: folder at which it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, *, leave: int = 0) -> None:
        """Takes all that is free, but for some bytes."""
        with self._filler.open("ab") as file:
            while (free := self._free() - leave) > 0:
                file.write(bytes(free))
                file.flush()

    def _free(self) -> int:
        now = os.statvfs(self.path)
        return now.f_bavail * now.f_frsize

    def make_room(self) -> None:
        """Frees what `fill` has taken."""
        self._filler.unlink()

    def remount(self, option: str) -> None:
        """Mounts it read-only ("ro") or as before ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)


@contextmanager
def small_disk(path: Path, megabytes: int = 8) -> Iterator[SmallDisk]:
    """Mounts a small disk at a new folder; skips the test where that is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system here")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True)
