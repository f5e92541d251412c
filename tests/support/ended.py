"""Processes that end in the middle of their work, as if the power went: no handler runs.

A child counts what it does to files: each fsync, replace, rename and mkdir is a boundary, with its
name. `ended_at` ends it right before or after one, or with the file of an fsync written by half.

Children are forks, so TensorFlow is imported once; but a process that has computed with it must not
fork. So `python ended.py FOLDER` is a process that only forks, and a test talks to it: `Trainer`.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAYS = ("before", "half", "after")  # "half" is for a file whose bytes were to be made durable


def boundaries(work: Callable[[], None], log: Path) -> list[tuple[str, str]]:
    """Lets a child do the work, and returns what it did to files: kind and name of each."""
    assert _in_child(work, None, "after", log) == 0
    return [(kind, name) for kind, name in json.loads(log.read_text())]


def ended_at(work: Callable[[], None], number: int, way: str) -> bool:
    """Lets a child begin the work and end at a boundary, from 0. Returns whether it got there."""
    return _in_child(work, number, way, None) == 9


def done_in_child(work: Callable[[], None]) -> int:
    """Lets a child do the work; returns its exit status, 0 if it was done."""
    return _in_child(work, None, "after", None)


def _in_child(work: Callable[[], None], number: int | None, way: str, log: Path | None) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 3
    try:
        seen = _watch(number, way)
        work()
        if log:
            log.write_text(json.dumps(seen))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _watch(end_at: int | None, way: str) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []

    def watched(kind: str, real: Callable, name_of: Callable[..., str]) -> Callable:
        def call(*args, **options):
            here = len(seen) == end_at
            seen.append((kind, name_of(*args)))
            if here and way == "half" and kind == "fsync":
                os.truncate(args[0], os.fstat(args[0]).st_size // 2)
            if here and way != "after":
                os._exit(9)
            result = real(*args, **options)
            if here:
                os._exit(9)
            return result

        return call

    def opened(descriptor: int) -> str:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        return Path(os.readlink(f"/proc/self/fd/{number}")).name

    os.fsync = watched("fsync", os.fsync, opened)
    os.replace = watched("replace", os.replace, lambda source, to: Path(to).name)
    os.rename = watched("rename", os.rename, lambda source, to: Path(to).name)
    os.mkdir = watched("mkdir", os.mkdir, lambda path, *_: Path(path).name)
    return seen


class Place:
    """A folder with photos and a cache, and a run in it that is ended and goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.photos = folder, folder / "run", folder / "photos"

    def work(self) -> None:
        """Trains the run, or goes on with it."""
        from tiny_run import both_phases

        from kerasft.training.train import train_run

        logging.disable(logging.CRITICAL)
        os.environ["KERASFT_CACHE"] = str(self.folder / "cache")
        train_run(both_phases(self.photos), self.run, resume=self.run.exists())

    def write_facts(self) -> None:
        """Writes what must be equal: weights, metrics, figures, and the names of all files."""
        from tiny_run import weights

        record = json.loads((self.run / "run.json").read_text())
        cache = sorted(path.name for path in (self.folder / "cache").rglob("*"))
        facts = {
            "weights": weights(self.run),
            "metrics": (self.run / "metrics.jsonl").read_text(),
            "record": [record[name] for name in ("status", "test", "test_scored", "best_phase")],
            "improved": [phase["improved"] for phase in record["phases"]],
            "splits": (self.run / "splits.csv").read_text(),
            "files": sorted(path.name for path in self.run.iterdir()),
            "left in the cache": [name for name in cache if ".part" in name],
        }
        (self.folder / "facts.json").write_text(json.dumps(facts))

    def answer(self, asked: str, *arguments: Any) -> Any:
        """Does what a test asks for."""
        if asked == "clear":
            for name in ("run", "cache"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        if asked == "boundaries":
            return boundaries(self.work, self.folder / "log.json")
        if asked == "work":
            return done_in_child(self.work)
        if asked == "end":
            return ended_at(self.work, *arguments)
        if asked == "kill":
            return killed_after(self.work, *arguments)
        if asked == "facts":
            assert done_in_child(self.write_facts) == 0
            return json.loads((self.folder / "facts.json").read_text())
        return None


def killed_after(work: Callable[[], None], seconds: float) -> bool:
    """Lets a child begin the work, and kills it; returns whether it was still working."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


class Trainer:
    """The process that forks, seen from a test."""

    def __init__(self, folder: Path) -> None:
        searched = [*filter(None, sys.path), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(searched)},
        )

    def ask(self, asked: str, *arguments: Any) -> Any:
        """Asks for something, see `Place.answer`."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([asked, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def main(folder: str) -> None:
    """Answers a test."""
    import keras
    import tensorflow  # noqa: F401  # once, for all forks
    from tiny import TINY, tiny_constructor

    import kerasft.training.train  # noqa: F401
    from kerasft.backbones.table import BACKBONES

    BACKBONES["Tiny"] = TINY
    keras.applications.Tiny = tiny_constructor
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what children print
    place = Place(Path(folder))
    for line in sys.stdin:
        answers.write(json.dumps(place.answer(*json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
