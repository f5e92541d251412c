"""All that can be said about a set of photos before a model is trained on it.

Shapes: N photos.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasft.checking.clean import Clean, refuse_target, write_clean
from kerasft.checking.copies import Copies, CopyGroup, find_copies, named
from kerasft.checking.features import (
    LabelSuspect,
    Outlier,
    Suspects,
    find_suspects,
    missing_weights,
)
from kerasft.config.load import load_config
from kerasft.data.files import examine_files
from kerasft.errors import UserError
from kerasft.files import refuse_no_file
from kerasft.input_rule import color_of
from kerasft.pixels.measure import Picture
from kerasft.progress import Progress, silent
from kerasft.reports.check_page import write_check
from kerasft.results import Result
from kerasft.sources.find import list_photos
from kerasft.sources.photos import Photo
from kerasft.text import printable
from kerasft.training.train import plan_run

DARK = 20.0  # mean of the gray picture, 0 to 255
BLURRED = 5.0  # variance of the Laplacian of the shrunk gray picture
SMALL = 32  # pixels of the shorter side
LONG = 4.0  # longer side by shorter side


@dataclass(frozen=True)
class Unreadable(Result):
    """A file that cannot be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class OddSize(Result):
    """A photo that is very small, or very long, in pixels."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class Checked(Result):
    """What is known of a set of photos.

    Attributes:
        files: number of files that are listed as photos.
        unreadable: files that cannot be used.
        converted: photos that are read by way of Pillow.
        plain: photos of a single colour.
        dark: photos that are almost black.
        blurred: other photos without any sharp edge.
        odd_sizes: photos that are very small or very long.
        classes: number of photos of each class.
        copies: groups of photos that show the same picture.
        label_suspects: photos whose label may be wrong, the most suspicious first.
        outliers: photos that are unlike all others, the most unlike first.
        refused: what `train` says to these photos; "" if it takes them.
        left_out: why label suspects and outliers are missing; "" if they are not.
        clean: the clean copy that was asked for; None if there is none.
        page: path of the page that was asked for; None if there is none.
    """

    files: int
    unreadable: tuple[Unreadable, ...]
    converted: tuple[str, ...]
    plain: tuple[str, ...]
    dark: tuple[str, ...]
    blurred: tuple[str, ...]
    odd_sizes: tuple[OddSize, ...]
    classes: Mapping[str, int]
    copies: tuple[Copies, ...]
    label_suspects: tuple[LabelSuspect, ...]
    outliers: tuple[Outlier, ...]
    refused: str
    left_out: str
    clean: Clean | None = None
    page: Path | None = None


def check_photos(
    flags: Mapping[str, Any],
    *,
    fix_to: Path | None = None,
    page: Path | None = None,
    progress: Progress = silent,
) -> Checked:
    """Looks at all photos of a source. Changes none of them.

    Args:
        flags: fields of the config by dotted key: `data.source`, how it is read, and the backbone
            whose features are used, such as `{"data.source": "photos"}`.
        fix_to: folder to make, with a clean copy of the photos, see `clean.py`; None makes none.
        page: HTML file to write, with pictures of what was found; None writes none.
        progress: receiver of events, as files are read ("images") and scored ("check").

    Raises:
        UserError: no such source, a field that does not fit, a folder for the clean copy that
            holds files, or a page in a folder that does not exist (exit code 2).
    """
    if page is not None:
        refuse_no_file(page, "page")
    config = load_config(None, flags=flags)
    place, listed = list_photos(config.data, progress)
    if fix_to is not None:
        refuse_target(fix_to, place.root)
    photos = sorted(listed.photos)
    paths = [photo.path for photo in photos]
    facts, _ = examine_files(place.root, paths, progress, color_of(config.data.background))
    missing = missing_weights(config.model)
    if missing:  # the photos are checked all the same, and nothing is downloaded
        config = load_config(None, flags={**flags, "model.weights": "none"})
    plan, refused = None, ""
    try:
        plan = plan_run(config, progress=progress)
    except UserError as error:
        if error.exit_code == 2:  # an option is at fault, and no photo
            raise
        refused = str(error)
    found = find_suspects(flags, plan, missing, progress=progress)
    good = [pair for pair in zip(photos, facts, strict=True) if not pair[1].reason]
    copies = find_copies([photo for photo, _ in good], [fact for _, fact in good])
    clean = None
    if fix_to is not None:
        clean = write_clean(fix_to, place.root, photos, facts, copies, progress=progress)
    checked = _report(photos, facts, copies, found, refused=refused, clean=clean)
    if page is not None:
        write_check(page, place.root, checked.to_json(), place.name)
        checked = replace(checked, page=page)
    return checked


def _report(
    photos: Sequence[Photo],
    facts: Sequence[Picture],
    copies: Sequence[CopyGroup],
    found: Suspects,
    *,
    refused: str,
    clean: Clean | None,
) -> Checked:
    """Puts together what is known of each photo."""
    good = [pair for pair in zip(photos, facts, strict=True) if not pair[1].reason]
    usable = [photo for photo, _ in good]
    seen = [(printable(photo.path), fact) for photo, fact in good]
    return Checked(
        files=len(photos),
        unreadable=tuple(
            Unreadable(printable(photo.path), fact.reason)
            for photo, fact in zip(photos, facts, strict=True)
            if fact.reason
        ),
        converted=tuple(path for path, fact in seen if fact.kind),
        plain=tuple(path for path, fact in seen if fact.plain),
        dark=tuple(path for path, fact in seen if not fact.plain and fact.brightness < DARK),
        blurred=tuple(
            path
            for path, fact in seen
            if not fact.plain and fact.brightness >= DARK and fact.sharpness < BLURRED
        ),
        odd_sizes=tuple(
            OddSize(path, fact.width, fact.height) for path, fact in seen if _is_odd(fact)
        ),
        classes=dict(sorted(Counter(photo.class_name for photo, _ in good).items())),
        copies=tuple(named(group, usable) for group in copies),
        label_suspects=found.label_suspects,
        outliers=found.outliers,
        refused=refused,
        left_out=found.left_out,
        clean=clean,
    )


def _is_odd(fact: Picture) -> bool:
    short, long = sorted((fact.height, fact.width))
    return short < SMALL or long > LONG * short
