"""A clean copy of photos: those that can be used, with a table that says what is known of them.

photos.csv      path,label,split,group: a row per photo, and the group of copies that it is in
DIR/...         the photos, at the paths that they had; as PNG where Pillow has to convert them

Shapes: N photos.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasft.checking.copies import CopyGroup
from kerasft.config.load import load_config
from kerasft.data.batches import read_unchanged
from kerasft.data.near import largest_group
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.files import new_folder, refuse_filled
from kerasft.pixels.measure import Picture
from kerasft.progress import Event, Progress
from kerasft.results import Result
from kerasft.sources.photos import Photo
from kerasft.text import agreeing, count, printable

TABLE = "photos.csv"

log = logging.getLogger("kerasft")


@dataclass(frozen=True)
class Clean(Result):
    """A clean copy of photos.

    Attributes:
        folder: folder of the copy.
        photos: number of photos in it.
        converted: number of these that were converted to PNG.
        left_out: number of files that cannot be used, so that they are not in it.
        groups: number of groups of photos that the table keeps in one split.
        refused: what `train` says to the copy; "" if it takes it.
    """

    folder: Path
    photos: int
    converted: int
    left_out: int
    groups: int
    refused: str


def refuse_target(folder: Path, root: Path) -> None:
    """Refuses a folder for the copy that holds files, or that lies among the photos.

    Raises:
        UserError: exit code 2.
    """
    refuse_filled(folder)
    if folder.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{folder} lies in {root}, whose photos would then be there twice. Choose a folder "
            "outside of it.",
            field="fix_to",
            exit_code=2,
        )


def write_clean(
    folder: Path,
    root: Path,
    photos: Sequence[Photo],
    facts: Sequence[Picture],
    copies: Sequence[CopyGroup],
    *,
    progress: Progress,
) -> Clean:
    """Copies the photos that can be used. The originals stay as they are.

    Args:
        folder: folder to make, see `refuse_target`. It appears whole or not at all.
        root: folder that the paths are relative to.
        photos: N photos, also those that cannot be used.
        facts: facts of these photos.
        copies: groups of copies, as positions among the photos that can be used.
        progress: receiver of events of the stages "check" and "images".

    Raises:
        UserError: the folder can't be written; a photo has changed since it was examined.
    """
    good = [pair for pair in zip(photos, facts, strict=True) if not pair[1].reason]
    usable = [photo for photo, _ in good]
    paths = _new_paths(good)
    groups = _group_names(usable, copies)
    with new_folder(folder) as part:
        for done, ((photo, fact), path) in enumerate(zip(good, paths, strict=True), start=1):
            target = part / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read_unchanged(str(root / photo.path), fact.digest))
            progress(Event("check", done, len(good), figures={"what": "clean copy"}))
        (part / TABLE).write_bytes(_table(usable, paths, groups))
    return Clean(
        folder=folder,
        photos=len(good),
        converted=sum(fact.kind != "" for _, fact in good),
        left_out=len(photos) - len(good),
        groups=len(set(groups) - {""}),
        refused=_refused(folder / TABLE, progress),
    )


def _refused(table: Path, progress: Progress) -> str:
    try:
        config = load_config(None, flags={"data.source": str(table)})
        with _quietly():
            scan_source(config.data, seed=config.seed, progress=progress)
    except UserError as error:
        return str(error)
    return ""


@contextmanager
def _quietly() -> Iterator[None]:
    """Leaves out the log of the block: what it says of the copy has been said of the photos."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _new_paths(photos: Sequence[tuple[Photo, Picture]]) -> list[str]:
    """Returns the paths in the copy: a.tif becomes a.tif.png."""
    taken = {photo.path.lower() for photo, _ in photos}
    paths = []
    for photo, fact in photos:
        path = photo.path
        if fact.kind:
            path += ".png"
            while path.lower() in taken:
                path = path.removesuffix(".png") + "-converted.png"
            taken.add(path.lower())
        paths.append(path)
    return paths


def _table(photos: Sequence[Photo], paths: Sequence[str], groups: Sequence[str]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "label", "split", "group"])
    for photo, path, group in zip(photos, paths, groups, strict=True):
        rows.writerow([path, photo.class_name, photo.split, group])
    return text.getvalue().encode()


def _group_names(photos: Sequence[Photo], copies: Sequence[CopyGroup]) -> list[str]:
    """Names the groups of photos that have to stay in one split; "" for a photo that is alone.

    Groups of the source keep their names. Copies in several splits of the source are a group in
    each, because `train` refuses a group that the source has torn. As in `train`, near copies that
    are a large part of their class, or all of it, are no group.
    """
    left_out = [group for group in copies if group.kind == "near" and _is_large(group, photos)]
    if left_out:
        log.warning(
            "%s of near copies %s too large to be copies of one photo; %s has no group for them.",
            count(left_out, "group"),
            agreeing(len(left_out), "are"),
            TABLE,
        )
    used = [group.positions for group in copies if group not in left_out]
    names = _joined(photos, used)
    small = _small_classes(photos, names)
    if small:
        log.warning(
            "Copies of %s have no group in %s, because too few groups would be left to divide.",
            ", ".join(printable(name) for name in small),
            TABLE,
        )
        names = _joined(
            photos, [[one for one in of if photos[one].class_name not in small] for of in used]
        )
    return names


def _is_large(group: CopyGroup, photos: Sequence[Photo]) -> bool:
    """Returns whether `train` would not keep a group together, see `near.py`."""
    sizes = Counter(photo.class_name for photo in photos)
    smallest = min(sizes[photos[one].class_name] for one in group.positions)
    return len(group.positions) > largest_group(smallest)


def _small_classes(photos: Sequence[Photo], names: Sequence[str]) -> list[str]:
    """Returns the classes that have enough photos to be divided, but too few groups of them.

    Divided are training photos, or all if the source has no splits, into each split that it lacks.
    """
    least = 1 + len({"validation", "test"} - {photo.split for photo in photos})
    parts: dict[str, set[str]] = {}
    sizes: Counter[str] = Counter()
    for photo, name in zip(photos, names, strict=True):
        if photo.split in ("", "train"):
            sizes[photo.class_name] += 1
            part = f"group {name}" if name else f"photo {photo.path}"
            parts.setdefault(photo.class_name, set()).add(part)
    return sorted(name for name, of in parts.items() if len(of) < least <= sizes[name])


def _joined(photos: Sequence[Photo], copies: Sequence[Sequence[int]]) -> list[str]:
    """Joins the groups of the source and copies within a split, and names them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[tuple[str, str], int] = {}
    pairs = []
    for number, of in enumerate(copies):
        for one in of:
            pairs.append((first.setdefault((f"copies {number}", photos[one].split), one), one))
    for one, photo in enumerate(photos):
        if photo.group:
            pairs.append((first.setdefault((f"group {photo.group}", photo.split), one), one))
    if not pairs:
        return [""] * len(photos)
    one, other = np.array(pairs).T
    edges = coo_array((np.ones(len(pairs)), (one, other)), shape=(len(photos), len(photos)))
    _, part_of = connected_components(edges, directed=False)
    sizes = np.bincount(part_of)
    own: dict[int, str] = {}
    for part, photo in zip(part_of.tolist(), photos, strict=True):
        if photo.group:
            own[part] = min(own.get(part, photo.group), photo.group)
    taken, names = {photo.group for photo in photos}, []
    for part in part_of.tolist():
        if part not in own and sizes[part] > 1:
            number = part + 1
            while f"copies-{number}" in taken:
                number += len(photos)
            own[part] = f"copies-{number}"
        names.append(own.get(part, ""))
    return names
