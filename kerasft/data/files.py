"""Files of photos: read and checked once, and found again by their contents."""

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from kerasft.data.threads import in_order
from kerasft.errors import UserError
from kerasft.files import digest_of
from kerasft.pixels.measure import Picture, Sketch, finish, sketch
from kerasft.progress import Event, Progress
from kerasft.sources.folders import MAX_BYTES, walk
from kerasft.sources.photos import PhotoFolder
from kerasft.text import count, is_writable, listing

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Examined(NamedTuple):
    """What reading a file once shows.

    Attributes:
        reason: reason why the file cannot be used, such as "is truncated"; "" for an image.
        digest: digest of the file, 32 hexadecimal digits; "" if it cannot be read.
        pixels: digest of the decoded image, 32 hexadecimal digits; "" if it does not decode. This
            and the other facts are those of `measure.Picture`.
        height: height in pixels, upright.
        width: width in pixels, upright.
        plain: whether all pixels have the same colour.
        brightness: mean of the image in gray, 0 to 255.
        sharpness: variance of the Laplacian of the image, shrunk and in gray.
        peak: largest value of a colour in a file of more than 8 bits per channel; 0 for others.
        look: perceptual hash, see `likeness.look_of`; "" if the picture has too little in it.
    """

    reason: str
    digest: str = ""
    pixels: str = ""
    height: int = 0
    width: int = 0
    plain: bool = False
    brightness: float = 0.0
    sharpness: float = 0.0
    peak: int = 0
    look: str = ""


def examine(path: Path) -> Examined:
    """Reads and decodes a file once: computes its digests and checks that it is an image."""
    return examine_all([path])[0]


def examine_all(paths: Sequence[Path]) -> list[Examined]:
    """Examines several files, one after the other; see `examine`."""
    read = [_read(path) for path in paths]
    pictures = finish([found for _, found in read])
    return [
        Examined._make((picture.reason, known, *picture[1:]))
        for (known, _), picture in zip(read, pictures, strict=True)
    ]


def _read(path: Path) -> tuple[str, Sketch]:
    """Reads and decodes a file; returns its digest, "" if it cannot be read, and a sketch."""
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
    return digest_of(encoded), sketch(encoded)


def _unread(reason: str) -> tuple[str, Sketch]:
    return "", Sketch(Picture(reason), None)


def digest(path: Path) -> str:
    """Computes the digest of a file as `examine` does, without decoding; "" if it is unreadable."""
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
    """Finds the files of a run again, by their contents if they were moved or renamed.

    Args:
        place: folder with the photos.
        paths: paths at which the files were seen, relative to `place.root`.
        digests: digests of the files at that time, see `examine`.
        progress: receiver of events of stage "images", as files are read.

    Returns:
        Present paths, in the order of `paths`. A file that was moved is found anywhere below the
        root, by its contents; of several copies, one in a folder of the old name is preferred.

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
    found_at: dict[str, list[str]] = {}
    for key, path in zip(for_each_file(digest, root, others, progress), others, strict=True):
        found_at.setdefault(key, []).append(path)
    gone = [i for i in lost if digests[i] not in found_at]
    if gone:
        lines = [f"{paths[i]}: {'has changed' if now[i] else 'is missing'}" for i in gone]
        raise UserError(
            f"{place.name}: {len(gone):,} of the {len(paths):,} images of the run are missing or "
            "have changed, and are under no other name:"
            + listing(lines, 10)
            + "\n  If the photos were moved, pass `data=FOLDER`. Changed photos need a new run."
        )
    log.info("%s: found %s under other names", place.name, count(lost, "image"))
    moved = {i: _likely(paths[i], found_at[digests[i]]) for i in lost}
    return [moved.get(i, path) for i, path in enumerate(paths)]


def _likely(before: str, places: Sequence[str]) -> str:
    folder = PurePosixPath(before).parent.name
    return next((path for path in places if PurePosixPath(path).parent.name == folder), places[-1])


def examine_files(root: Path, paths: Sequence[str], progress: Progress) -> list[Examined]:
    """Examines files in a pool of threads; arguments and order are those of `for_each_file`."""
    return _for_each_handful(examine_all, root, paths, progress)


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
    return _for_each_handful(lambda some: [read(path) for path in some], root, paths, progress)


def _for_each_handful(
    read: Callable[[Sequence[Path]], list[Result]],
    root: Path,
    paths: Sequence[str],
    progress: Progress,
) -> list[Result]:
    """Hands over files by the handful: a future takes as long as reading a small one."""
    step = max(1, len(paths) // 100)
    results: list[Result] = []
    workers = min(32, os.cpu_count() or 1)
    size = min(16, max(1, len(paths) // (8 * workers)))
    handfuls = (paths[start : start + size] for start in range(0, len(paths), size))

    def read_all(some: Sequence[str]) -> list[Result]:
        return read([root / path for path in some])

    for found in in_order(read_all, handfuls, workers=workers, ahead=4 * workers):
        for result in found:
            results.append(result)
            if len(results) % step == 0 or len(results) == len(paths):
                progress(Event("images", len(results), len(paths)))
    return results
