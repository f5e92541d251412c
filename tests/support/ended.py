"""Processes that end in the middle of their work, as if the power went: no handler runs.

A child does a work (`ended_works.py`) and its folder is copied at each boundary: before everything
that it does to a file (an audit hook hears of it), and with half of a file that it makes durable.
A copy is what a process that ends there leaves behind; equal ones are kept once. Then other
children do the work again, each from one of these states.

Children are forks, so TensorFlow is imported once; but a process that has computed with it must not
fork. So `python ended.py FOLDER` is a process that only forks, and a test talks to it by `Forker`
and `Ended`. Children run functions of TensorFlow eagerly: tracing them takes four times the rest.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE, BEGUN, STATES = "here", "begun", "states"  # folders: of the work, before it, and as it ended
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Work(NamedTuple):
    """A work that is ended.

    Attributes:
        go: does the work in a folder, as a command that is typed again does.
        facts: what must be equal once the work is done, of the folder.
        prepare: makes the folder as it is before the work.
        after: what is done after an end; None does the work again.
        is_whole: says what is wrong in a folder at any moment; "" if nothing is.
    """

    go: Callable[[Path], None]
    facts: Callable[[Path], Mapping[str, Any]]
    prepare: Callable[[Path], None]
    after: Callable[[Path], None] | None = None
    is_whole: Callable[[Path], str] = lambda folder: ""


class Boundary(NamedTuple):
    """A moment at which a process may end.

    Attributes:
        kind: what it was about to do: "write", "fsync", "rename", "remove", "mkdir", "rmdir", or
            "half" for a file of which half of the bytes are there; "end" when all is done.
        name: name of the file or folder.
        state: number of the folder's state, from 0.
    """

    kind: str
    name: str
    state: int


class _Watch:
    """Copies the folder of a work at its boundaries, or ends the process at one of them."""

    def __init__(self, folder: Path, end_at: int | None = None) -> None:
        self.boundaries: list[Boundary] = []
        self.placed: set[str] = set()  # paths that something was renamed to
        self._here, self._states = folder / HERE, folder / STATES
        self._end_at = end_at
        self._known: dict[str, int] = {}
        self._lock = threading.RLock()
        self._inside = threading.local()
        self._on = True

    def start(self) -> None:
        """Begins to listen."""
        sys.addaudithook(self._hear)
        fsync = os.fsync

        def watched(descriptor: Any) -> None:
            path = _path_of(descriptor if isinstance(descriptor, int) else descriptor.fileno())
            if self._on and self._is_ours(path):
                self._meet("fsync", path)
                self._meet("half", path, half=True)
            fsync(descriptor)

        os.fsync = watched  # it has no audit event

    def _hear(self, event: str, args: tuple) -> None:
        if not self._on or getattr(self._inside, "on", False):
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes) and flags & WRITING:
                self._meet_ours("write", os.fsdecode(path))
        elif event == "os.rename":
            to = _resolved(args[1], args[3])
            if self._meet_ours("rename", to):
                self.placed.add(to)
        elif event in ("os.remove", "os.rmdir"):
            self._meet_ours(event[3:], _resolved(*args[:2]))
        elif event == "os.mkdir" and not os.path.isdir(_resolved(args[0], args[2])):
            self._meet_ours("mkdir", _resolved(args[0], args[2]))

    def _meet_ours(self, kind: str, path: str) -> bool:
        ours = self._is_ours(path)
        if ours:
            self._meet(kind, path)
        return ours

    def _is_ours(self, path: str) -> bool:
        return os.path.abspath(path).startswith(f"{self._here}{os.sep}")

    def _meet(self, kind: str, path: str, half: bool = False) -> None:
        self._inside.on = True
        try:
            with self._lock:
                if self._end_at == len(self.boundaries):
                    if half:
                        os.truncate(path, os.path.getsize(path) // 2)
                    os._exit(9)
                self.boundaries.append(Boundary(kind, Path(path).name, self._state(path, half)))
        finally:
            self._inside.on = False

    def _state(self, path: str, half: bool) -> int:
        if self._end_at is not None:
            return 0
        number = len(self._known)
        copy = self._states / str(number)
        shutil.copytree(self._here, copy, symlinks=True)
        if half:
            halved = copy / Path(path).relative_to(self._here)
            os.truncate(halved, halved.stat().st_size // 2)
        known = self._known.setdefault(digest_of(copy), number)
        if known != number:
            shutil.rmtree(copy)
        return known

    def finish(self) -> None:
        """Copies the folder as the work has left it."""
        self._meet("end", str(self._here))
        self._on = False


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _resolved(path: Any, folder: int) -> str:
    """Returns a path that is perhaps relative to an open folder."""
    path = os.fsdecode(path)
    return os.path.join(_path_of(folder), path) if folder >= 0 else os.path.abspath(path)


def digest_of(folder: Path) -> str:
    """Returns a digest of all names and bytes in a folder."""
    digest = hashlib.blake2b()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.is_dir()}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Place:
    """The folder of a work, in the process that forks."""

    def __init__(self, folder: Path, work: Work) -> None:
        self.folder, self.here, self.work = folder, folder / HERE, work
        for name in (HERE, STATES):
            (folder / name).mkdir(parents=True)
        self._child(lambda: work.prepare(self.here))
        shutil.copytree(self.here, folder / BEGUN)

    def whole(self) -> dict[str, Any]:
        """Lets a child do all of the work; see `Ended` for what is returned."""
        watch = _Watch(self.folder)

        def go() -> Mapping[str, Any]:
            watch.start()
            counts = _counted(self.work.go, self.here)
            watch.finish()
            unplaced = [
                str(path.relative_to(self.here))
                for path in sorted(self.here.rglob("*"))
                if path.is_file()
                and not (self.folder / BEGUN / path.relative_to(self.here)).exists()
                and not watch.placed & {str(one) for one in (path, *path.parents)}
            ]
            if self.work.after:
                self.work.after(self.here)
            found = {"boundaries": watch.boundaries, "unplaced": unplaced}
            return {**found, "counts": counts}

        return {**self._child(go), "facts": self._facts()}

    def again(self, state: int | None) -> dict[str, Any]:
        """Lets a child do the work from one of the states, or from the folder as it is."""
        if state is not None:
            shutil.rmtree(self.here)
            shutil.copytree(self.folder / STATES / str(state), self.here, symlinks=True)
        before = _done_in(self.here)
        wrong = self.work.is_whole(self.here)
        counts = self._child(lambda: _counted(self.work.after or self.work.go, self.here))
        return {"before": before, "wrong": wrong, "counts": counts, "facts": self._facts()}

    def end(self, number: int) -> str:
        """Ends a child at a boundary; returns the digest of what it leaves behind."""
        self._begin()

        def go() -> None:
            _Watch(self.folder, number).start()
            self.work.go(self.here)

        assert self._child(go) is None
        return digest_of(self.here)

    def kill(self, seconds: float) -> bool:
        """Kills a child after some seconds; returns whether it was still working."""
        self._begin()
        child = _fork(lambda: self.work.go(self.here), None)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def seconds(self) -> float:
        """Returns how long a child takes for the work when nothing is copied."""
        self._begin()
        began = time.monotonic()
        self._child(lambda: self.work.go(self.here))
        return time.monotonic() - began

    def digest(self, state: int) -> str:
        """Returns the digest of a state."""
        return digest_of(self.folder / STATES / str(state))

    def _begin(self) -> None:
        shutil.rmtree(self.here)
        shutil.copytree(self.folder / BEGUN, self.here, symlinks=True)

    def _facts(self) -> Any:
        return self._child(lambda: self.work.facts(self.here))

    def _child(self, what: Callable[[], Any]) -> Any:
        """Lets a child compute something; returns None if it ended early or failed."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        os.waitpid(_fork(what, answer), 0)
        return json.loads(answer.read_text()) if answer.exists() else None


def _fork(what: Callable[[], Any], answer: Path | None) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        given = what()
        if answer:
            answer.write_text(json.dumps(given))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _counted(go: Callable[[Path], None], here: Path) -> Mapping[str, Any]:
    """Does a work; returns what must not be done twice: epochs and rows of activations."""
    from kerasft.activations import prefix_pass
    from kerasft.activations.store import TENSOR
    from kerasft.training import checkpoint

    epochs: list[list[Any]] = []
    rows: list[list[Any]] = []
    save, writers = checkpoint.save, prefix_pass._writers

    def counted_save(folder: Path, progress: Any, *args: Any) -> None:
        epochs.append([folder.parent.name, progress.phase, progress.epoch])
        save(folder, progress, *args)

    def counted_writers(stack: Any, folder: Path, lacking: Any, here: Any, dtype: str) -> Any:
        for need, missing in lacking:
            rows.extend([need.tensor.digest[:TENSOR], *row] for row in here if row in missing)
        return writers(stack, folder, lacking, here, dtype)

    checkpoint.save, prefix_pass._writers = counted_save, counted_writers
    go(here)
    return {"epochs": epochs, "rows": rows}


def _done_in(here: Path) -> Mapping[str, Any]:
    """Returns what a folder holds of what `_counted` counts."""
    epochs, rows = [], []
    for path in here.rglob("state.json"):
        progress = json.loads(path.read_text())["progress"]
        run, phase = path.parent.parent.name, progress["phase"]
        epochs += [[run, phase, number] for number in range(1, progress["epoch"] + 1)]
    for path in here.rglob("run.json"):
        for phase in json.loads(path.read_text())["phases"]:
            numbers = range(1, phase.get("epochs", 0) + 1)
            epochs += [[path.parent.name, phase["name"], number] for number in numbers]
    for path in here.rglob("*.npy"):
        with_rows = path.with_suffix(".json")
        if path.name.startswith(".part") or not with_rows.exists():
            continue
        found = json.loads(with_rows.read_text())["rows"]
        width = len(found["photos"]) // len(found["views"])
        for number, view in enumerate(found["views"]):
            photo = found["photos"][number * width :][:width]
            rows.append([path.name[:16], photo, view])
    return {"epochs": epochs, "rows": rows}


class Forker:
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
        self._works: dict[str, Ended] = {}

    def work(self, name: str) -> "Ended":
        """Returns a work, which is done as a whole the first time."""
        if name not in self._works:
            self._works[name] = Ended(self, name)
        return self._works[name]

    def ask(self, work: str, asked: str, *arguments: Any) -> Any:
        """Calls a method of the `Place` of a work."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([work, asked, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class Ended:
    """A work, seen from a test.

    Attributes:
        boundaries: boundaries of the whole work.
        unplaced: new files that were not renamed into their place when all is done.
        facts, counts: facts of the whole work, and what it has counted.
    """

    def __init__(self, forker: Forker, name: str) -> None:
        self._forker, self._name = forker, name
        whole = self.ask("whole")
        self.boundaries = [Boundary(*one) for one in whole["boundaries"]]
        self.unplaced, self.facts = whole["unplaced"], whole["facts"]
        self.counts = whole["counts"]

    @property
    def states(self) -> Mapping[int, Boundary]:
        """The different states in which the work may end, each with the first boundary of it."""
        return {one.state: one for one in reversed(self.boundaries)}

    def state(self, kind: str, name: str, which: int = 0) -> int:
        """Returns the state at one of the boundaries of a kind at files whose names end so."""
        at = [one for one in self.boundaries if one.kind == kind and one.name.endswith(name)]
        return at[which].state

    def goes_on(self, state: int | None) -> dict[str, Any]:
        """Lets the work go on from a state, or from what is there; returns what is wrong then."""
        done = self.ask("again", state)
        if done["counts"] is None:
            return {"it failed": True}
        wrong = {"at the end": done["wrong"]} if done["wrong"] else {}
        facts, counts = done["facts"], done["counts"]
        wrong |= {name: facts[name] for name in facts if facts[name] != self.facts[name]}
        for what, before in done["before"].items():
            if twice := [one for one in counts[what] if one in before]:
                wrong[f"{what} done twice"] = twice
        return wrong

    def ask(self, asked: str, *arguments: Any) -> Any:
        """Calls a method of the work's `Place`."""
        return self._forker.ask(self._name, asked, *arguments)


def main(folder: str) -> None:
    """Answers a test."""
    warnings.simplefilter("ignore")  # TensorFlow's, of functions that are run eagerly
    from kerasft.processes import importing

    with importing():  # once, for all forks, and no garbage collection looks through it
        import keras
        from ended_works import WORKS
        from tiny import TINY, tiny_constructor

        import kerasft.training.train  # noqa: F401
        from kerasft.backbones.table import BACKBONES

    BACKBONES["Tiny"] = TINY
    keras.applications.Tiny = tiny_constructor
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what children print
    places: dict[str, Place] = {}
    for line in sys.stdin:
        work, asked, *arguments = json.loads(line)
        os.environ["KERASFT_CACHE"] = str(Path(folder).absolute() / work / HERE / "cache")
        if work not in places:
            places[work] = Place(Path(folder).absolute() / work, WORKS[work])
        answers.write(json.dumps(getattr(places[work], asked)(*arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
