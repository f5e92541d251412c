"""Files that appear whole or not at all.

Whatever ends the process, what was there before stays until the new file is complete.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasft.errors import UserError


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all; what was there before stays until the new one is.

    Args:
        path: in a directory that exists.
        data: the contents; text is written as UTF-8, line ends as they are.

    Raises:
        UserError: the disk is full, or read-only, or the like. Nothing is left behind.
    """
    with replacing(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to, which takes its place at the end of the block.

    The block closes what it opens. For writers that need a name, such as `model.save`; the
    name has the same suffix.

    Raises:
        UserError: from an OSError in the block (disk full, read-only). After this and any
            other exception `path` is what it was and nothing is left beside it.
    """
    # One fixed name: what a killed process left here is overwritten by the next write.
    part = path.with_name(f".part.{path.name}")
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


def reason_of(error: OSError) -> str:
    """What the system says, as part of a sentence: "no space left on device"."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
