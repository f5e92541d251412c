"""Damaged and hostile files: how they are drawn, and what must not happen when they are read.

A reader answers with a value or refuses with a `UserError` in plain text that names the file. It
raises nothing else, runs no code, writes nothing outside the folders that it is given, ends soon,
and takes no more memory than files of its size need.

    @cases
    def test_a_damaged_run_json_is_read_or_refused(number, place):
        prove(number, documents(GOOD), lambda content: survives(place, content, read, RunRecord))
"""

import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from kerasft.errors import UserError
from kerasft.text import is_writable

FEW, MANY = 30, 10_000
SECONDS = 20  # of computing, after which a reader hangs; most take milliseconds
MEMORY = 1 << 30  # bytes that a reader of a small file may take
WARNINGS = 10  # Pillow has one for each tag
LONGEST = 10_000  # characters of a message

cases = pytest.mark.parametrize(
    "number", [FEW, pytest.param(MANY, marks=pytest.mark.slow, id="slow")]
)


def prove(
    number: int,
    contents: st.SearchStrategy,
    check: Callable[[Any], object],
    examples: Iterable[Any] = (),
) -> None:
    """Calls a check with explicit examples, and with drawn contents.

    Args:
        number: number of contents to draw. `FEW` are always the same ones; `MANY` differ from one
            run of the tests to the next.
        contents: strategy of the contents.
        check: function that raises an exception if something is wrong.
        examples: contents that were found to be read wrongly once.
    """

    def proof(content: Any) -> None:
        check(content)

    for content in examples:
        proof = example(content)(proof)
    settings(
        max_examples=int(os.environ.get("KERASFT_CASES", number)),
        derandomize=number == FEW,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )(given(contents)(proof))()


# what must not happen


@dataclass
class Place:
    """A file in a folder of its own, in which a test changes it again and again.

    Attributes:
        path: path of the file, two folders below the sandbox that is watched.
        top: the sandbox.
        may_write: folders that the reader may write into.
    """

    path: Path
    top: Path
    may_write: tuple[Path, ...] = ()

    @classmethod
    def of(cls, top: Path, name: str, *may_write: Path) -> "Place":
        """Makes the folders for a file of this name."""
        path = top / "outer" / "inside" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path, top, may_write)

    def listing(self) -> dict[str, tuple[int, int]]:
        """Returns size and time of all files in the sandbox, except where the reader may write."""
        return dict(_files_below(str(self.top), tuple(map(str, self.may_write))))


def _files_below(folder: str, left_out: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, int]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.path in left_out:
                continue
            status = entry.stat(follow_symlinks=False)
            directory = entry.is_dir(follow_symlinks=False)
            yield entry.path, (0, 0) if directory else (status.st_size, status.st_mtime_ns)
            if directory:
                yield from _files_below(entry.path, left_out)


def survives(
    place: Place,
    content: bytes,
    read: Callable[[], Any],
    fits: Callable[[Any], bool] | type = object,
    *,
    bounded: bool = True,
    named: str = "",
) -> object:
    """Writes content into the file of a place, reads it, and checks what happens.

    Args:
        place: the file and its sandbox.
        content: content of the file.
        read: reader to be tried.
        fits: type of what the reader returns, or function that returns whether a value is right.
        bounded: whether memory is limited; not for readers that let TensorFlow compute.
        named: text that each refusal must hold; "" for the name of the file.

    Returns:
        What the reader returned, or the UserError that it raised.
    """
    place.path.write_bytes(content)
    return outcome(place, read, fits, bounded=bounded, named=named)


def outcome(
    place: Place,
    read: Callable[[], Any],
    fits: Callable[[Any], bool] | type = object,
    *,
    bounded: bool = True,
    named: str = "",
) -> object:
    """Checks what happens when files that lie there are read; arguments as in `survives`."""
    before = place.listing()
    value: object
    with (
        warnings.catch_warnings(record=True) as caught,
        _no_code_runs(place.may_write),
        _limited_time(),
        _limited_memory() if bounded else _unlimited(),
    ):
        warnings.simplefilter("always")
        try:
            value = read()
        except UserError as error:
            value = error
    assert place.listing() == before, "files have changed"
    said = {str(one.message) for one in caught}  # Python shows each of them once
    assert len(said) <= WARNINGS, f"a flood of warnings: {said}"
    if isinstance(value, UserError):
        _check_message(str(value), named or place.path.name)
    elif isinstance(fits, type):
        assert isinstance(value, fits), f"of another type: {value!r}"
    else:
        assert fits(value), f"of another kind: {value!r}"
    return value


def _check_message(text: str, named: str) -> None:
    assert named in text, f"does not name {named}: {text!r}"
    assert len(text) <= LONGEST, f"a message of {len(text)} characters: {text[:300]!r}"
    assert all(map(is_writable, text.split("\n"))), f"a message that can't be shown: {text!r}"


class Hangs(BaseException):
    """A reader that does not end; no `except Exception` takes it."""


@contextmanager
def _limited_time() -> Iterator[None]:
    """Ends a reader that computes for too long, or waits for ten times as long."""

    def end(*_: object) -> None:
        raise Hangs(f"computes for more than {SECONDS} s, or takes more than {10 * SECONDS} s")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, 1), (signal.SIGALRM, signal.ITIMER_REAL, 10))
    before = [signal.signal(sign, end) for sign, _, _ in timers]
    for _, timer, times in timers:
        signal.setitimer(timer, times * SECONDS)
    began = time.process_time()
    try:
        yield
    finally:
        for (sign, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(sign, handler)
    assert time.process_time() - began < SECONDS  # in code that takes no signals


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Makes whoever claims much more memory than is in use now fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _unlimited() -> Iterator[None]:
    yield


NEVER = (
    *("pickle.find_class", "marshal.loads", "code.__new__", "ctypes.dlopen", "os.system"),
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen"),
    *("pty.spawn", "socket.connect", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"),
)
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_watched: list[tuple[list[str], tuple[str, ...]]] = []  # what was seen, and where writing is fine
_hooked: list[bool] = []


@contextmanager
def _no_code_runs(may_write: Sequence[Path]) -> Iterator[None]:
    """Fails if anything is unpickled, evaluated, started, fetched, or written elsewhere.

    Python tells of it before it happens: "Audit events table" in its documentation. The modules
    that a reader imports when it needs them are let through.
    """
    if not _hooked:
        sys.addaudithook(_audit)  # it can't be taken away again
        _hooked.append(True)
    seen: list[str] = []
    _watched.append((seen, tuple(map(str, may_write))))
    try:
        yield
    finally:
        _watched.clear()
    assert not seen, f"a file made Python do this: {seen}"


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    seen, may_write = _watched[-1]
    if event in NEVER:
        if not (event == "marshal.loads" and _importing()):
            seen.append(f"{event} {arguments!r:.200}")
    elif event == "exec":
        code = arguments[0]
        module = code.co_name == "<module>" and os.path.isfile(code.co_filename)
        if not (module or _importing()):
            seen.append(f"exec {code!r:.200}")
    elif event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        writes = writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
        if writes and not _is_below(path, may_write) and not _importing():
            seen.append(f"open {path} {mode}")
    elif event in CHANGES:
        paths = [path for path in arguments if isinstance(path, str | bytes | Path)]
        if not all(_is_below(path, may_write) for path in paths) and not _importing():
            seen.append(f"{event} {arguments!r:.200}")


def _importing() -> bool:
    """Returns whether a module is being imported, whose own start is no business of a file."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _is_below(path: object, folders: tuple[str, ...]) -> bool:
    if not isinstance(path, str | bytes | Path):
        return True  # a descriptor, which was opened by its path before
    absolute = os.path.abspath(os.fsdecode(path))
    return any(absolute == folder or absolute.startswith(folder + os.sep) for folder in folders)


# bytes


class _Good(tuple):
    """Good files, which would fill the screen where a strategy is shown."""

    def __repr__(self) -> str:
        return f"{len(self)} good ones"


_WHERE = st.floats(0, 1)
_PIECES = st.sampled_from([b"", b"\0", b"\xff" * 8, b"\0" * 64, b"\n", b'"', b"{", b"["])


def _at(content: bytearray, where: float) -> int:
    return min(int(where * (len(content) + 1)), len(content))


def damaged(*good: bytes) -> st.SearchStrategy[bytes]:
    """Draws a good file with bits flipped, and pieces cut, put in, doubled or taken from others.

    Args:
        good: files that are read without error; one of them is damaged.
    """
    return _damaged(_Good(good))


@st.composite
def _damaged(draw: Any, good: Sequence[bytes]) -> bytes:
    content = bytearray(draw(st.sampled_from(list(good))))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "set", "cut", "end", "put", "double", "splice"]))
        start = _at(content, draw(_WHERE))
        if kind == "flip" and start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and start < len(content):
            content[start] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[start : start + draw(st.integers(1, 64))]
        elif kind == "end":
            del content[start:]
        elif kind == "put":
            content[start:start] = draw(_PIECES | st.binary(max_size=8))
        elif kind == "double":
            content[start:start] = content[start : start + draw(st.integers(1, 64))]
        elif kind == "splice":
            other = bytearray(draw(st.sampled_from(list(good))))
            content[start:] = other[_at(other, draw(_WHERE)) :]
    return bytes(content)


# JSON


NAMES = (
    *("", ".", "..", "../../x", "/etc/passwd", "C:\\x", "CON", "a/../../b", "~", "~root", "a\0b"),
    *("\ud800", "\x1b[31m", "\u202eb", "a\nb", "x" * 300, "\u00e4", "nan", "-0", "1e999"),
)
"""Names and paths that lead elsewhere, or can't be written, or look like something else."""

DEEP, DIGITS = "@deep@", "@digits@"  # replaced in the text, as Python can't write them
_NUMBERS = (0, 1, -1, 0.5, 2**31, 2**60, 2**63, -(2**64), 10**400, 1e300)
_SPECIAL = (float("nan"), float("inf"), float("-inf"))
ODD = st.sampled_from([None, True, False, *_NUMBERS, *_SPECIAL, *NAMES, [], {}, DEEP, DIGITS])
VALUES = st.recursive(
    ODD | st.text(max_size=4) | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "", "kerasft"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    yield place
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(one, (*place, key))


def _changed(value: Any, place: tuple, change: Callable[[Any, Any], None]) -> Any:
    """Returns a copy of a value in which `change` was called with the holder and key of a place."""
    whole = json.loads(json.dumps([value]))
    holder, key = whole, 0
    for step in place:
        holder, key = holder[key], step
    change(holder, key)
    return whole[0] if whole else None


def objects(*good: Any) -> st.SearchStrategy:
    """Draws a good JSON value in which some values are of other types, missing, or doubled."""
    return _objects(_Good(good))


@st.composite
def _objects(draw: Any, good: Sequence[Any]) -> Any:
    value = draw(st.sampled_from(list(good)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        place = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["set", "set", "set", "remove", "add"]))
        new = draw(VALUES)

        def change(holder: Any, key: Any, kind: str = kind, new: Any = new) -> None:
            if kind == "remove" and holder is not None:
                del holder[key]
            elif kind == "add" and isinstance(holder[key], list):
                holder[key].append(new)
            elif kind == "add" and isinstance(holder[key], dict):
                holder[key][str(new)[:9]] = new
            else:
                holder[key] = new

        value = _changed(value, place, change)
    return value


def as_json(value: Any) -> bytes:
    """Writes a value as JSON, with what Python can't write: endless nesting and digits."""
    text = json.dumps(value)
    text = text.replace(f'"{DEEP}"', "[" * 20_000 + "]" * 20_000)
    return text.replace(f'"{DIGITS}"', "9" * 5_000).encode()


def documents(*good: Any) -> st.SearchStrategy[bytes]:
    """Draws JSON files: good ones with odd values, and good ones with damaged bytes."""
    texts = [json.dumps(value, indent=1).encode() for value in good]
    return objects(*good).map(as_json) | damaged(*texts)
