"""Files below a folder, listed. Hidden files and those of operating systems are ignored.

What folders mean, such as classes and splits, is in `layouts.py`.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kerasft.errors import UserError
from kerasft.pixels import images

LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
MAX_BYTES = 1 << 29  # room for headers.MAX_PIXELS pixels of four bytes, but not for a video


def walk(root: Path, below: str = "") -> Iterator[str]:
    """Yields the files below a folder, including those of nested and linked folders.

    Args:
        root: folder that the paths are relative to.
        below: folder to start in, relative to `root`; "" means `root` itself.

    Yields:
        Posix paths, folder by folder, sorted by name.
    """
    yield from _walk(root / below, f"{below}/" if below else "", ())


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:  # a link to one of the folders that it lies in
        return
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries(folder):
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above)
        else:
            yield prefix + entry.name


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Lists a folder, sorted by name, without hidden files and those of operating systems.

    Raises:
        UserError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as listed:
            found = [entry for entry in listed if not is_left_behind(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}.") from error
    return sorted(found, key=lambda entry: entry.name)


def is_left_behind(name: str) -> bool:
    """Returns whether a file is hidden, or one that operating systems put into folders."""
    return name[:1] == "." or name.lower() in LEFT_BEHIND


def is_image_name(path: str) -> bool:
    """Returns whether a path has the file ending of an image."""
    return PurePosixPath(path).suffix.lower() in images.SUFFIXES
