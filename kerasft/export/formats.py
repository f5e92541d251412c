"""The table of export formats: how each is written, recognised and opened again.

The command's choice of formats, the parity proof and `predict` are made of it. A new format is a
row here and the two functions that the row names. This module loads no TensorFlow: a format's
module is loaded when something is exported or opened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kerasft.export.scorer import Scorer

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle


@dataclass(frozen=True)
class Exporter:
    """One row of the table: a format.

    Attributes:
        label: name of the format for people.
        marker: file that every export of this format has, relative to its folder.
        write: function that makes a folder of a model. It runs where Keras computes with
            TensorFlow.
        open_scorer: function that opens such a folder. It raises UserError if that is damaged, or
            was not written by `write`.
    """

    label: str
    marker: str
    write: Callable[["Bundle", Path], None]
    open_scorer: Callable[[Path], Scorer]


def _write_savedmodel(opened: "Bundle", folder: Path) -> None:
    from kerasft.export.savedmodel import write_savedmodel  # loads TensorFlow

    write_savedmodel(opened, folder)


def _open_savedmodel(folder: Path) -> Scorer:
    from kerasft.export.savedmodel import open_savedmodel  # loads TensorFlow

    return open_savedmodel(folder)


DEFAULT = "savedmodel"
EXPORTERS: dict[str, Exporter] = {
    DEFAULT: Exporter("SavedModel", "saved_model.pb", _write_savedmodel, _open_savedmodel),
}


def find_export(folder: Path) -> tuple[Exporter, Path] | None:
    """Finds the export that a folder holds.

    Args:
        folder: an export, or the folder of its versions, of which the highest number is taken.

    Returns:
        Its row of the table, and where it lies; None if there is none.
    """
    for row in EXPORTERS.values():
        if (folder / row.marker).is_file():
            return row, folder
    versions = [
        (int(place.name), row, place)
        for row in EXPORTERS.values()
        for place in (path.parent for path in folder.glob(f"*/{row.marker}"))
        if place.name.isdecimal()
    ]
    if not versions:
        return None
    _, row, place = max(versions, key=lambda version: version[0])
    return row, place
