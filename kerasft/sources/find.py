"""The photos of a source, found: a function for each kind of `source_names.KINDS`."""

import logging
from collections.abc import Callable, Mapping

from kerasft.config.fields import Data
from kerasft.config.source_names import TABLES, kind_of
from kerasft.errors import UserError
from kerasft.progress import Progress, silent
from kerasft.sources.archives import find_archive
from kerasft.sources.classes import mapped, refuse_unknown, tell_classes, with_classes
from kerasft.sources.joined import joined
from kerasft.sources.layouts import find_folder
from kerasft.sources.photos import Listing, PhotoFolder
from kerasft.sources.tables import find_csv, find_list, find_parquet
from kerasft.sources.tfds import find_tfds

# The function that opens each kind of `source_names.KINDS`.
SOURCES: dict[str, Callable[[Data, Progress], PhotoFolder]] = {
    "folder": find_folder,
    "csv": find_csv,
    "parquet": find_parquet,
    "list": find_list,
    "archive": find_archive,
    "tfds": find_tfds,
}


def list_photos(data: Data, progress: Progress) -> tuple[PhotoFolder, Listing]:
    """Finds the photos of a source, see `find_photos`, and lists them.

    Raises:
        UserError: see `find_photos` and `PhotoFolder.read`; a field that says how another kind of
            source is to be read, two that contradict each other, or a label in `data.classes` that
            no photo has (exit code 2).
    """
    kind = kind_of(data.source)
    folder = kind in ("folder", "archive")
    for name, takes, what in (
        ("layout", folder or data.layout == "auto", "a folder or an archive"),
        ("columns", kind in TABLES or not data.columns, "a table"),
        ("label_from", kind in TABLES or folder or data.label_from is None, "files"),
    ):
        if not takes:
            raise UserError(
                f"has no effect with {data.source}, which is not {what}. Leave out `data.{name}`.",
                field=f"data.{name}",
                exit_code=2,
            )
    if data.label_from is not None and any(text.startswith("label=") for text in data.columns):
        raise UserError(
            "says that the labels are in a column, and `data.label_from` that they are in the "
            "paths of the photos. Leave out one of them.",
            field="data.columns",
            exit_code=2,
        )
    by_label = _by_label(data, progress)
    place = with_classes(by_label, data.classes)
    listed = by_label.read()
    if not data.classes:
        return place, listed
    refuse_unknown(place.name, listed, data.classes)
    tell_classes(place.name, listed, data.classes)
    return place, mapped(listed, data.classes)


def list_labels(data: Data) -> Mapping[str, tuple[str, ...]]:
    """Lists the labels of the photos of a source, before `data.classes` gives them names.

    Quietly: what is to be said of the source is said when its photos are listed.

    Returns:
        Split -> its labels, sorted; the only key is "" if there are no splits.

    Raises:
        UserError: see `find_photos` and `PhotoFolder.read`.
    """
    ours = logging.getLogger("kerasft")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        return _by_label(data, silent).read().classes
    finally:
        ours.setLevel(level)


def find_photos(data: Data, progress: Progress) -> PhotoFolder:
    """Finds the photos of a source; unpacks an archive or TFDS dataset if necessary.

    Args:
        data: section `data` of the config; `source` names the source.
        progress: receiver of events of stage "unpack".

    Raises:
        UserError: the source cannot be found, read or unpacked.
    """
    return with_classes(_by_label(data, progress), data.classes)


def _by_label(data: Data, progress: Progress) -> PhotoFolder:
    """Finds the photos of the source and of the places that are added to it."""
    added = [Data(source=one) for one in data.added]
    return joined([SOURCES[kind_of(one.source)](one, progress) for one in (data, *added)])
