"""Photos that somebody names as files and folders: searched for, read once, and checked.

New photos in a folder are looked at beside a run, see `open_beside`.
"""

import logging
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasft.data.checks import tell_pages
from kerasft.data.files import examine, for_each_file
from kerasft.data.scan import refuse_edited_classes
from kerasft.errors import UserError
from kerasft.models.bundle import Bundle, load
from kerasft.models.target import prepare_for
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.pixels.convert import MULTI_PAGE
from kerasft.pixels.images import is_image_content
from kerasft.pixels.measure import Picture
from kerasft.progress import Progress
from kerasft.results import Result
from kerasft.run import Run, model_file, open_run
from kerasft.sources.folders import is_image_name, walk
from kerasft.text import count, in_line, printable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoFile(Result):
    """A file that was named, or found in a folder that was named.

    Attributes:
        file: path of the file, or of a folder that cannot be searched or holds no images.
        error: why it cannot be read as an image; "" if it can.
    """

    file: str
    error: str


@dataclass(frozen=True)
class Inbox:
    """A folder of new photos, without labels.

    Attributes:
        fresh: paths of the photos that count, sorted.
        copies: paths of photos with the pixels of a known photo, or of another new one.
        errors: files that cannot be read.
    """

    fresh: tuple[str, ...]
    copies: tuple[str, ...]
    errors: tuple[PhotoFile, ...]


def open_inbox(folder: Path, digests: Collection[str], progress: Progress) -> Inbox:
    """Searches a folder of new photos, and divides them into those that count and others.

    Copies are known photos, and all but the first of equal new ones. Photos that were compressed
    again count as new: by features, neighbours in a series can't be told from them, and without
    neighbours any photos look shifted.

    Args:
        folder: the folder; those in it are searched, too.
        digests: digests of files and pixels of the photos that are known.
        progress: receiver of events of stage "images", as files are read.

    Raises:
        UserError: no photo in it can be read.
    """
    found = examine_photos(folder, progress)
    errors = tuple(PhotoFile(printable(p.file), p.error) for p, _ in found if p.error)
    good = [(photo.file, fact) for photo, fact in found if not photo.error]
    if not good:
        listed = "".join(f"\n  {one.file}: {one.error}" for one in errors[:10])
        raise UserError(f"{folder}: no photo in it can be read. Expected images.{listed}")
    fresh: list[str] = []
    copies: list[str] = []
    before = set(digests)
    for file, fact in good:
        same = before & {fact.digest, fact.pixels}
        (copies if same else fresh).append(file)
        before |= {fact.digest, fact.pixels}
    return Inbox(tuple(fresh), tuple(copies), errors)


def open_beside(path: str | Path, inbox: Path) -> tuple[Run, Bundle, Known | None]:
    """Opens a run to look at a folder of new photos: the run, its model, and its known photos.

    Args:
        path: run directory.
        inbox: the folder.

    Raises:
        UserError: no such folder, or a file (exit code 2); not a run, or one without a model, or
            whose files do not belong together.
    """
    of_run = open_run(Path(path))
    _refuse_no_folder(inbox)
    model = model_file(of_run)
    prepare_for(path)
    opened = load(model)
    refuse_edited_classes(of_run, opened.class_names)
    return of_run, opened, known.load_beside(of_run.known_path, opened)


def _refuse_no_folder(folder: Path) -> None:
    """Refuses what is no folder of photos; raises UserError with exit code 2."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}. Expected a folder of photos.", exit_code=2)


def find_photos(files: str | Path | Sequence[str | Path], progress: Progress) -> list[PhotoFile]:
    """Finds the photos that somebody names, and checks that each is an image.

    Args:
        files: file or folder, or several of them. Folders are searched for images, including
            nested folders.
        progress: receiver of events of stage "images", as files are read.

    Returns:
        The files in the order of `files`, sorted within a folder.
    """
    return [photo for photo, _ in examine_photos(files, progress)]


def examine_photos(
    files: str | Path | Sequence[str | Path], progress: Progress
) -> list[tuple[PhotoFile, Picture]]:
    """Finds photos as `find_photos` does; returns each with its facts, which have its digests."""
    names = [files] if isinstance(files, str | Path) else files
    found = [photo for name in names for photo in _search(Path(name))]
    paths = [photo.file for photo in found if not photo.error]
    facts = for_each_file(examine, Path(), paths, progress)
    tell_pages("photos", sum(fact.kind == MULTI_PAGE for fact in facts if not fact.reason))
    of_path = dict(zip(paths, facts, strict=True))
    return [
        (one, Picture(one.error))
        if one.error
        else (PhotoFile(one.file, of_path[one.file].reason), of_path[one.file])
        for one in found
    ]


def _search(path: Path) -> list[PhotoFile]:
    """Lists a file, or the images of a folder."""
    if path.is_dir():
        try:
            below = list(walk(path))
        except UserError as error:
            return [PhotoFile(str(path), str(error))]
        found = [name for name in below if is_image_name(name) or _is_image(path / name)]
        _tell_others(path, below, found)
        return [PhotoFile(str(path / name), "") for name in found] or [
            PhotoFile(str(path), "holds no images")
        ]
    return [PhotoFile(str(path), "" if path.exists() else "no such file")]


def _is_image(path: Path) -> bool:
    """Returns whether a file holds an image, whatever its name is."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return is_image_content(file.read(64))
    except OSError:
        return False


def _tell_others(folder: Path, below: Sequence[str], found: Sequence[str]) -> None:
    """Tells which files of a folder are no images, so that nobody waits for their labels."""
    others = sorted(set(below) - set(found))
    if others:
        log.info(
            "%s: passed over %s that hold no image: %s",
            printable(str(folder)),
            count(others, "file"),
            in_line(others, 5),
        )
