"""Names of photo files: those that say that a file was made from another one, or follows it.

Names alone prove nothing (`IMG_0001` and `IMG_0002` may show anything), so whoever uses them looks
at the photos, too.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

# Endings that programs give to altered copies, whether the photo itself is there or not.
MADE = re.compile(
    r"""(?:
        (?:_(?:jpe?g|png|bmp|webp))?\.rf\.[0-9a-z]{8,}            # Roboflow
      | _[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}             # Augmentor
      | [ _-]+(?:aug(?:ment(?:ed|ation))?|[hv]?flip(?:ped)?|mirror(?:ed)?|rotated?|blurred|noisy|
          brightened|darkened|cropped|resized|scaled)(?:[ _-]?\d{1,5})?
      | [ _-]+rot[ _-]?(?:90|180|270)
    )$""",
    re.VERBOSE | re.IGNORECASE,
)
# Endings of browsers and file managers: "cat (1)", "cat - Copy (2)". Numbers in brackets also count
# photos of all sorts, so these say something only beside the photo itself, "cat".
COPIED = re.compile(
    r"(?:[ _-]?\(\d{1,3}\)|[ _-]+(?:copy|copia|copie|kopie)(?:[ _-]?\d{1,3})?)$", re.IGNORECASE
)
NUMBER = re.compile(r"\d+$")


def altered_copies(paths: Sequence[str]) -> list[list[int]]:
    """Finds files whose names say that they were made from the same photo.

    Args:
        paths: posix paths of photos.

    Returns:
        Positions of the files of each photo, at least two, in whatever folders they lie: a photo
        and its altered copies, or the copies alone.
    """
    of: dict[str, list[int]] = {}
    altered: set[str] = set()
    names = [PurePosixPath(path).stem.lower() for path in paths]
    there = set(names)
    for position, name in enumerate(names):
        stem = _photo_of(name, there)
        of.setdefault(stem, []).append(position)
        if stem != name:
            altered.add(stem)
    return [of[stem] for stem in sorted(altered) if len(of[stem]) > 1]


def _photo_of(name: str, there: set[str]) -> str:
    """Returns the name of the photo that a file was made from, which may be the file itself."""
    while True:
        made, copied = MADE.search(name), COPIED.search(name)
        if made and made.start() > 0:
            name = name[: made.start()]
        elif copied and name[: copied.start()] in there:
            name = name[: copied.start()]
        else:
            return name


def series_of(paths: Sequence[str]) -> list[list[int]]:
    """Finds photos that are numbered one after the other, such as the frames of a film.

    Args:
        paths: posix paths of photos.

    Returns:
        Positions of the photos of each series, by number: at least two photos of one folder, whose
        names differ in the number at their end only.
    """
    series: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for position, path in enumerate(paths):
        stem = PurePosixPath(path).stem
        match = NUMBER.search(stem)
        if match:
            key = str(PurePosixPath(path).parent), stem[: match.start()]
            series.setdefault(key, []).append((int(match.group()), position))
    return [[position for _, position in sorted(of)] for of in series.values() if len(of) > 1]
