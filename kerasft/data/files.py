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
from kerasft.pixels import images
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
        pixels: digest of the decoded image, 32 hexadecimal digits; "" if it does not decode.
    """

    reason: str
    digest: str = ""
    pixels: str = ""


def examine(path: Path) -> Examined:
    """Reads and decodes a file once: computes its digests and checks that it is an image."""
    if not is_writable(str(path)):
        return Examined("has a name with control characters, or one that is not UTF-8; rename it")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Examined("is not a regular file")
        if status.st_size > MAX_BYTES:
            return Examined(f"has {status.st_size >> 20} MiB, more than {MAX_BYTES >> 20}")
        encoded = path.read_bytes()
    except OSError as error:
        return Examined(f"cannot be read: {error.strerror}")
    pixels, reason = images.check_image(encoded)
    return Examined(reason, digest_of(encoded), pixels)


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
    step = max(1, len(paths) // 100)
    results: list[Result] = []
    workers = min(32, os.cpu_count() or 1)
    files = (root / path for path in paths)
    for result in in_order(read, files, workers=workers, ahead=16 * workers):
        results.append(result)
        if len(results) % step == 0 or len(results) == len(paths):
            progress(Event("images", len(results), len(paths)))
    return results
