"""All that can be said about a set of photos before a model is trained on it.

Shapes: N photos.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasft.checking.copies import Copies, find_copies, named
from kerasft.checking.features import (
    LabelSuspect,
    Outlier,
    Suspects,
    find_suspects,
    missing_weights,
)
from kerasft.config.load import load_config
from kerasft.data.files import Examined, examine_files
from kerasft.errors import UserError
from kerasft.progress import Progress, silent
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


def check_photos(flags: Mapping[str, Any], *, progress: Progress = silent) -> Checked:
    """Looks at all photos of a source. Changes nothing.

    Args:
        flags: fields of the config by dotted key: `data.source`, how it is read, and the backbone
            whose features are used, such as `{"data.source": "photos"}`.
        progress: receiver of events, as files are read ("images") and scored ("check").

    Raises:
        UserError: no such source, or a field that does not fit (exit code 2).
    """
    config = load_config(None, flags=flags)
    place, listed = list_photos(config.data, progress)
    photos = sorted(listed.photos)
    facts, _ = examine_files(place.root, [photo.path for photo in photos], progress)
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
    return _report(photos, facts, refused, found)


def _report(
    photos: Sequence[Photo], facts: Sequence[Examined], refused: str, found: Suspects
) -> Checked:
    """Puts together what is known of each photo."""
    good = [pair for pair in zip(photos, facts, strict=True) if not pair[1].reason]
    usable = [photo for photo, _ in good]
    groups = find_copies(usable, [fact for _, fact in good])
    seen = [(printable(photo.path), fact) for photo, fact in good]
    return Checked(
        files=len(photos),
        unreadable=tuple(
            Unreadable(printable(photo.path), fact.reason)
            for photo, fact in zip(photos, facts, strict=True)
            if fact.reason
        ),
        converted=(),
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
        copies=tuple(named(group, usable) for group in groups),
        label_suspects=found.label_suspects,
        outliers=found.outliers,
        refused=refused,
        left_out=found.left_out,
    )


def _is_odd(fact: Examined) -> bool:
    short, long = sorted((fact.height, fact.width))
    return short < SMALL or long > LONG * short
