"""The files of a folder of photos: which there are, of which class, and which are images.

Two layouts are known. A folder per class, `photos/daisy/1.jpg`; or folders of splits with
a folder per class in each, `photos/train/daisy/1.jpg`, where `train` is there and
`validation` (also `val`, `valid`) and `test` may be. Folders inside a class folder belong
to that class. Hidden files and what operating systems leave behind are passed over;
every other file in a class folder must be an image.
"""

import hashlib
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from kerasft.config.fields import Data
from kerasft.config.source_names import TFDS
from kerasft.data.source import Listing, Photo, PhotoFolder
from kerasft.errors import UserError
from kerasft.pixels import images
from kerasft.progress import Event, Progress
from kerasft.text import count, is_writable, listing, printable

log = logging.getLogger(__name__)
Result = TypeVar("Result")

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
MAX_BYTES = 1 << 29  # images.MAX_PIXELS pixels of four bytes fit; a film in the folder does not


def find_folder(data: Data, progress: Progress) -> PhotoFolder:
    """The photos of a folder in one of the two layouts; `read` raises as `find_classes`."""
    return place_of_folder(data.source, Path(data.source))


def place_of_folder(name: str, root: Path, held: object = None) -> PhotoFolder:
    """As `find_folder`, of a folder that is called otherwise in messages."""

    def read() -> Listing:
        folders = find_classes(root)
        photos = [
            Photo(path, class_name, split)
            for split, classes in folders.items()
            for class_name, paths in classes.items()
            for path in paths
        ]
        return Listing(photos, {split: tuple(sorted(names)) for split, names in folders.items()})

    return PhotoFolder(name, root, read, held)


def find_classes(root: Path) -> dict[str, dict[str, list[str]]]:
    """Lists the files of every class.

    Args:
        root: the folder of photos.

    Returns:
        split -> class name -> paths of files, posix, relative to `root`, not sorted. The only
        split is `""` if the folders of `root` are the classes; folders without files are there.

    Raises:
        UserError: no such folder (exit status 2); no folders in it; images outside of class
            folders; folders of splits without `train`, or mixed with other folders.
    """
    folders = _class_folders(root)
    by_split: dict[str, list[str]] = {}
    for name in folders:
        by_split.setdefault(SPLIT_FOLDERS.get(name.lower(), ""), []).append(name)
    others = by_split.pop("", [])
    if others and not ("train" in by_split and len(by_split) > 1):
        return {"": {name: list(walk(root, name)) for name in folders}}
    _check_split_folders(root, by_split, others)
    return {
        split: {
            name: list(walk(root, f"{folder}/{name}")) for name in _class_folders(root / folder)
        }
        for split, (folder,) in by_split.items()
    }


def _class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted; UserError where images lie beside them."""
    expected = "Expected a folder that holds a folder of images per class"
    if not folder.exists():
        hint = f" Sets of TFDS are named {TFDS}NAME." if re.match(r"\w+:\w", folder.name) else ""
        raise UserError(f"{folder}: no such folder. {expected}.{hint}", exit_code=2)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: is a file. {expected}, or a table (.csv, .tsv, .parquet) or an archive "
            "(.zip, .tar, .tar.gz) of photos.",
            exit_code=2,
        )
    entries = _entries(folder)
    stray = [e.name for e in entries if not e.is_dir() and is_image_name(e.name)]
    if stray:
        raise UserError(
            f"{folder}: holds {count(stray, 'image')} outside of class folders, such as "
            f"{printable(stray[0])}. Expected a folder of images per class.\n"
            f"  Move them into folders named after their classes, or away."
        )
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        raise UserError(
            f"{folder}: is empty. Expected a folder of images per class, such as "
            f"{folder.name}/daisy/1.jpg."
        )
    unwritable = [name for name in names if not is_writable(name)]
    if unwritable:
        raise UserError(
            f"{folder}: the names of {count(unwritable, 'folder')} hold control characters or "
            f"are not UTF-8. Rename: {', '.join(printable(name) for name in unwritable)}."
        )
    return names


def _check_split_folders(root: Path, by_split: dict[str, list[str]], others: list[str]) -> None:
    there = [name for names in by_split.values() for name in names]
    if others:
        raise UserError(
            f"{root}: holds folders of splits ({', '.join(there)}) and others beside them "
            f"({', '.join(others[:5])}{', ...' if len(others) > 5 else ''}). Expected either "
            f"a folder per class or only train, validation and test.\n  Move the others away."
        )
    if "train" not in by_split:
        raise UserError(
            f"{root}: holds {', '.join(there)} but no folder train. Expected the training images "
            f"in {root.name}/train, a folder per class."
        )
    for split, names in by_split.items():
        if len(names) > 1:
            raise UserError(
                f"{root}: holds {' and '.join(names)}, which both mean the {split} split. Keep one."
            )


def walk(root: Path, below: str = "") -> Iterator[str]:
    """Yields the files below a folder, those of nested and linked folders included.

    Args:
        root: paths are relative to this folder.
        below: where to start, relative to `root`; all of `root` if empty.

    Yields:
        Paths, posix, folder by folder in the order of their names.
    """
    yield from _walk(root / below, f"{below}/" if below else "", ())


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:  # a link to one of the folders that it lies in
        return
    above = (*above, (here.st_dev, here.st_ino))
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above)
        else:
            yield prefix + entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without what nobody put there on purpose."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_left_behind(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}.") from error
    return sorted(found, key=lambda entry: entry.name)


def is_left_behind(name: str) -> bool:
    """True for what is hidden, and for what operating systems put into folders."""
    return name[:1] == "." or name.lower() in LEFT_BEHIND


def examine(path: Path) -> tuple[str, str]:
    """Reads one file, once: its digest, and what is wrong with it as an image.

    Returns:
        (digest, reason): 32 hexadecimal digits, "" if the file can't be read; "" if it
        is an image that decodes, else a short reason such as "is truncated".
    """
    if not is_writable(str(path)):
        return "", "has a name with control characters, or one that is not UTF-8; rename it"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "", "is not a regular file"
        if status.st_size > MAX_BYTES:
            return "", f"has {status.st_size >> 20} MiB, more than {MAX_BYTES >> 20}"
        encoded = path.read_bytes()
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
    return hashlib.blake2b(encoded, digest_size=16).hexdigest(), images.check_image(encoded) or ""


def digest(path: Path) -> str:
    """The digest of a file as in `examine`, without decoding; "" if it can't be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return ""


def find_files(
    place: PhotoFolder, paths: Sequence[str], digests: Sequence[str], progress: Progress
) -> Sequence[str]:
    """Says where files are now that were seen before.

    Args:
        place: where the photos are.
        paths: where the files were, relative to its root.
        digests: what they held, see `examine`.
        progress: told of files as they are read, stage "images".

    Returns:
        Paths, in the order of `paths`. A file that is not where it was is taken from wherever
        its contents are below the root.

    Raises:
        UserError: files that are missing or have changed, all at once.
    """
    root = place.root
    now = for_each_file(digest, root, paths, progress)
    lost = [i for i, (key, found) in enumerate(zip(digests, now, strict=True)) if key != found]
    if not lost:
        return paths
    settled = set(paths) - {paths[i] for i in lost}
    endings = {PurePosixPath(paths[i]).suffix.lower() for i in lost}
    others = [
        path
        for path in walk(root)
        if path not in settled and PurePosixPath(path).suffix.lower() in endings
    ]
    found_at = dict(zip(for_each_file(digest, root, others, progress), others, strict=True))
    gone = [i for i in lost if digests[i] not in found_at]
    if gone:
        lines = [f"{paths[i]}: {'has changed' if now[i] else 'is missing'}" for i in gone]
        raise UserError(
            f"{place.name}: {len(gone):,} of the {len(paths):,} images of the run are not there as "
            "they were, under any name:"
            + listing(lines, 10)
            + "\n  If the photos were moved, pass --data FOLDER. Changed photos need a new run."
        )
    log.info("%s: found %s under other names", place.name, count(lost, "image"))
    moved = {i: found_at[digests[i]] for i in lost}
    return [moved.get(i, path) for i, path in enumerate(paths)]


def for_each_file(
    read: Callable[[Path], Result], root: Path, paths: Sequence[str], progress: Progress
) -> list[Result]:
    """Calls `read(root / path)` in a pool of threads.

    Returns:
        The results, in the order of `paths`. About a hundred events of stage "images" are told.
    """
    step = max(1, len(paths) // 100)
    results: list[Result] = []
    workers = min(32, os.cpu_count() or 1)
    # What waits is bounded: a hundred thousand futures would take 200 MB.
    waiting: deque[Future[Result]] = deque()

    def take() -> None:
        results.append(waiting.popleft().result())
        if len(results) % step == 0 or len(results) == len(paths):
            progress(Event("images", len(results), len(paths)))

    pool = ThreadPoolExecutor(workers, "kerasft-images")
    try:
        for path in paths:
            if len(waiting) == 16 * workers:
                take()
            waiting.append(pool.submit(read, root / path))
        while waiting:
            take()
    finally:  # after Ctrl-C the files that nobody waits for are not read
        pool.shutdown(cancel_futures=True)
    return results


def is_image_name(path: str) -> bool:
    """True for a name that ends as image files do."""
    return PurePosixPath(path).suffix.lower() in images.SUFFIXES
