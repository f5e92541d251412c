"""Files of photos: read and checked once, and found again by their contents."""

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from kerasft.data.facts import Facts, remembered
from kerasft.data.source import Scan
from kerasft.data.threads import in_order
from kerasft.errors import UserError
from kerasft.files import digest_of
from kerasft.input_rule import WHITE, Color
from kerasft.pixels.measure import Picture, Sketch, finish, sketch
from kerasft.progress import Event, Progress
from kerasft.sources.folders import MAX_BYTES, walk
from kerasft.sources.photos import PhotoFolder
from kerasft.text import agreeing, count, is_writable, listing

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def examine(path: Path) -> Picture:
    """Reads and decodes a file once: computes its digests and checks that it is an image."""
    return _finished([_read(path)])[0]


def examine_files(
    root: Path,
    paths: Sequence[str],
    progress: Progress,
    background: Color | None = WHITE,
) -> tuple[list[Picture], Scan]:
    """Examines files in a pool of threads, but those of which the facts are remembered.

    Args:
        root: folder that the paths are relative to.
        paths: paths of the files.
        progress: receiver of about a hundred events of stage "images".
        background: colour that transparent pixels lie on, see `images.decode_image`.

    Returns:
        Facts in the order of `paths`, and how many files were read.
    """
    began = time.perf_counter()
    with remembered(root, background) as known:

        def examine_some(some: Sequence[str]) -> list[Picture]:
            looked = [_look_up(known, root, path) for path in some]
            unread = [i for i, found in enumerate(looked) if found is None]
            read = [_read(root / some[i], background) for i in unread]
            results: dict[int, Picture] = {}
            for i, file, found in zip(unread, read, _finished(read), strict=True):
                results[i] = found
                if file.status is not None:
                    known.keep(some[i], file.status, found)
            return [found or results[i] for i, found in enumerate(looked)]

        found = _for_each_handful(examine_some, paths, progress)
    return found, Scan(len(paths), len(known.read), round(time.perf_counter() - began, 3))


def _look_up(known: Facts, root: Path, path: str, *, decoded: bool = True) -> Picture | None:
    try:
        return known.find(path, os.stat(root / path), decoded=decoded)
    except (OSError, ValueError):
        known.read.append(path)
        return None


class _File(NamedTuple):
    """A file that was read.

    Attributes:
        status: status before it was read; None if it was not.
        digest: digest of its bytes; "" if it was not read.
        sketch: what decoding it shows.
    """

    status: os.stat_result | None
    digest: str
    sketch: Sketch


def _read(path: Path, background: Color | None = WHITE) -> _File:
    if not is_writable(str(path)):
        return _unread("has a name with control characters, or one that is not UTF-8; rename it")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _unread("is not a regular file")
        if status.st_size > MAX_BYTES:
            return _unread(f"has {status.st_size >> 20} MiB, more than {MAX_BYTES >> 20}")
        encoded = path.read_bytes()
    except OSError as error:
        return _unread(f"cannot be read: {error.strerror}")
    return _File(status, digest_of(encoded), sketch(encoded, background))


def _unread(reason: str) -> _File:
    return _File(None, "", Sketch(Picture(reason), None))


def _finished(files: Sequence[_File]) -> list[Picture]:
    pictures = finish([file.sketch for file in files])
    return [
        picture._replace(digest=file.digest) for file, picture in zip(files, pictures, strict=True)
    ]


def digest(path: Path) -> str:
    """Computes the digest of a file as `examine` does, without decoding; "" if it is unreadable."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return ""


def _digests(known: Facts, root: Path, paths: Sequence[str], progress: Progress) -> list[str]:
    """Returns the digests of files, the remembered ones without reading the files."""

    def digest_one(path: str) -> str:
        found = _look_up(known, root, path, decoded=False)
        if found is not None:
            return found.digest
        try:
            status = os.stat(root / path)
        except (OSError, ValueError):
            return ""
        now = digest(root / path)
        known.keep(path, status, Picture("", now))
        return now

    def digest_some(some: Sequence[str]) -> list[str]:
        return [digest_one(path) for path in some]

    return _for_each_handful(digest_some, paths, progress)


def find_files(
    place: PhotoFolder,
    paths: Sequence[str],
    digests: Sequence[str],
    progress: Progress,
    *,
    some: bool = False,
) -> Sequence[str]:
    """Finds the files of a run again, by their contents if they were moved or renamed.

    Args:
        place: folder with the photos.
        paths: paths at which the files were seen, relative to `place.root`.
        digests: digests of the files at that time, see `examine`.
        progress: receiver of events of stage "images", as files are read.
        some: whether some of them are enough: those that are missing have the path "" then.

    Returns:
        Present paths, in the order of `paths`. A file that was moved is found anywhere in the
        folders of the place, by its contents; of several copies, one in a folder of the old name
        is preferred.

    Raises:
        UserError: files that are missing or have changed, all at once.
    """
    with remembered(place.root) as known:
        return _find_files(place, known, paths, digests, progress, some)


def _find_files(
    place: PhotoFolder,
    known: Facts,
    paths: Sequence[str],
    digests: Sequence[str],
    progress: Progress,
    some: bool,
) -> Sequence[str]:
    root = place.root
    now = _digests(known, root, paths, progress)
    lost = [i for i, (key, found) in enumerate(zip(digests, now, strict=True)) if key != found]
    if not lost:
        return paths
    settled = set(paths) - {paths[i] for i in lost}
    endings = {PurePosixPath(paths[i]).suffix.lower() for i in lost}
    others = [
        path
        for below in place.below
        if (root / below).is_dir()
        for path in walk(root, below)
        if path not in settled and PurePosixPath(path).suffix.lower() in endings
    ]
    found_at: dict[str, list[str]] = {}
    for key, path in zip(_digests(known, root, others, progress), others, strict=True):
        found_at.setdefault(key, []).append(path)
    gone = [i for i in lost if digests[i] not in found_at]
    if gone and not some:
        lines = [f"{paths[i]}: {'has changed' if now[i] else 'is missing'}" for i in gone]
        raise UserError(
            f"{place.name}: {len(gone):,} of the {len(paths):,} images of the run "
            f"{'is missing or has' if len(gone) == 1 else 'are missing or have'} changed, and "
            f"{agreeing(len(gone), 'are')} under no other name:"
            + listing(lines, 10)
            + "\n  If the photos were moved, pass `data=FOLDER`. Changed photos need a new run."
        )
    moved = {i: _likely(paths[i], found_at[digests[i]]) for i in lost if digests[i] in found_at}
    if moved:
        log.info("%s: found %s under other names", place.name, count(moved, "image"))
    moved |= dict.fromkeys(gone, "")
    return [moved.get(i, path) for i, path in enumerate(paths)]


def _likely(before: str, places: Sequence[str]) -> str:
    folder = PurePosixPath(before).parent.name
    return next((path for path in places if PurePosixPath(path).parent.name == folder), places[-1])


def for_each_file(
    read: Callable[[Path], Result], root: Path, paths: Sequence[str], progress: Progress
) -> list[Result]:
    """Calls `read(root / path)` in a pool of threads.

    Args:
        read: function that reads one file.
        root: folder that the paths are relative to.
        paths: paths of the files.
        progress: receiver of about a hundred events of stage "images".

    Returns:
        Results of `read`, in the order of `paths`.
    """

    def read_some(some: Sequence[str]) -> list[Result]:
        return [read(root / path) for path in some]

    return _for_each_handful(read_some, paths, progress)


def _for_each_handful(
    read: Callable[[Sequence[str]], list[Result]], paths: Sequence[str], progress: Progress
) -> list[Result]:
    """Hands over files by the handful: a future takes as long as reading a small one."""
    step = max(1, len(paths) // 100)
    results: list[Result] = []
    workers = min(32, os.cpu_count() or 1)
    size = min(16, max(1, len(paths) // (8 * workers)))
    handfuls = (paths[start : start + size] for start in range(0, len(paths), size))
    for found in in_order(read, handfuls, workers=workers, ahead=4 * workers):
        for result in found:
            results.append(result)
            if len(results) % step == 0 or len(results) == len(paths):
                progress(Event("images", len(results), len(paths)))
    return results
