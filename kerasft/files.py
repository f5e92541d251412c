"""Files: atomic writes, which appear whole or not at all, and the digest of a file's bytes.

Whatever ends the process, the old file stays until the new one is complete.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kerasft.errors import UserError

PART = ".part."


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all; an old one stays until the new one is complete.

    Args:
        path: path of the file, in a directory that exists.
        data: content of the file; text is written as UTF-8, with its line ends unchanged.

    Raises:
        UserError: the file can't be written, for example because the disk is full or read-only.
            Nothing is left behind.
    """
    with replacing(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, whose file replaces `path` at the end of the block.

    It is for writers that need a path, such as `model.save`. The yielded path has the same suffix;
    the block must close the file.

    Raises:
        UserError: from an OSError in the block (disk full, read-only). After this or any other
            exception `path` has not changed and nothing is left beside it.
    """
    # A fixed name: the leftover of a killed process is overwritten by the next write.
    part = path.with_name(part_of(path.name))
    try:
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:  # Ctrl-C as well
            if part.is_file():
                part.unlink()
            raise
    except OSError as error:
        raise UserError(f"{path} can't be written: {reason_of(error)}.") from error


def part_of(name: str) -> str:
    """Returns the name under which `replacing` writes a file, beside it, until it is whole."""
    return f"{PART}{name}"


def remove_parts(folder: Path, names: Sequence[str]) -> None:
    """Removes what processes that were killed have left of files that `replacing` wrote.

    Args:
        folder: folder of the files.
        names: names of the files; the caller makes sure that nobody writes them now.
    """
    for name in names:
        with suppress(OSError):  # a folder that can't be written is told of where that matters
            (folder / part_of(name)).unlink()


def discard(folder: Path) -> None:
    """Removes a folder, if it is there. Nobody sees half of it: first it gets another name.

    What a killed process has left under that name is removed, too.
    """
    removed = folder.with_name(f".removed.{folder.name}")
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """Refuses a folder to be made that is there already and not empty.

    Raises:
        UserError: exit code 2.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} is there already and not an empty folder. Choose another one.", exit_code=2
        )


def refuse_no_file(path: Path, field: str) -> None:
    """Refuses a file to be written that is a folder, or lies in none that exists.

    Args:
        path: path of the file.
        field: name of the argument, for the message.

    Raises:
        UserError: exit code 2.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"expected a file in a folder that exists, got '{path}'.", field=field, exit_code=2
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which becomes `folder` at the end of the block.

    Args:
        folder: folder to make; it must be absent or empty.

    Raises:
        UserError: the folder is not empty, or an OSError in the block (exit code 2). After this or
            any other exception nothing is left behind, and what a process that was killed has left
            is removed.
    """
    refuse_filled(folder)
    beginning = f".{folder.name}.part-"
    part = folder.absolute().parent / f"{beginning}{os.getpid()}"
    _remove_left(part.parent, beginning)
    try:
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rmdir()  # it is empty; Windows can't replace a folder
        part.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} can't be written: {reason_of(error)}.", exit_code=2) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_left(parent: Path, beginning: str) -> None:
    """Removes folders of `new_folder` whose process has ended."""
    if os.name == "nt" or not parent.is_dir():  # on Windows, `os.kill` would end the process
        return
    for left in parent.iterdir():
        number = left.name.removeprefix(beginning)
        if left.name == number or not number.isdecimal():
            continue
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, OverflowError):
            continue  # of somebody else, who may still write it


def reason_of(error: OSError) -> str:
    """Returns the system's message as part of a sentence: "no space left on device"."""
    text = error.strerror or str(error)
    if re.fullmatch(r"\d+ requested and \d+ written", text):  # NumPy loses the reason
        text = os.strerror(errno.ENOSPC)
    return text[:1].lower() + text[1:]


def digest_of_file(path: Path) -> str:
    """Computes `digest_of` of the bytes of a file, which may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of(encoded: bytes) -> str:
    """Computes the digest of a file's bytes: 32 hexadecimal digits."""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()
