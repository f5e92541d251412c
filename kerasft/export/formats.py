"""The table of export formats: how each is written, recognised and opened again.

The command's choice of formats, the parity proof, `predict`, `evaluate` and `serve` are made of it.
A new format is a row here and the two functions that the row names. This module loads no
TensorFlow: a format's module is loaded when something is exported or opened.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kerasft.errors import UserError, did_you_mean
from kerasft.export.facts import ExportFacts
from kerasft.export.scorer import Scorer

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle

Write = Callable[["Bundle", Path, ExportFacts, Path | None], None]
"""A function that writes a model into an existing folder: model, folder, facts, calibration.

Calibration is a NumPy file of training photos, float32 [N,S,S,3], 0 to 255, for int8; None for
others.
"""

Open = Callable[[Path], Scorer]
"""A function that opens such a folder. It raises UserError if that is damaged or not one of
kerasft."""


@dataclass(frozen=True)
class Exporter:
    """One row of the table: a format.

    Attributes:
        label: name of the format for people.
        marker: file that every export of this format has, relative to its folder.
        write: function that writes it. It runs where Keras computes with TensorFlow.
        open_scorer: function that opens it, with the packages of the row alone.
        takes: what the model in it takes: image "files", or "pixels" of squares.
        quantized: kinds of quantization that it can be written with.
        extra: extra of kerasft that installs its packages; "" if kerasft has them anyway.
        writing: packages that writing needs beside kerasft's own, by import name.
        opening: packages that opening needs, by import name.
    """

    label: str
    marker: str
    write: Write
    open_scorer: Open
    takes: Literal["files", "pixels"] = "pixels"
    quantized: tuple[str, ...] = ()
    extra: str = ""
    writing: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()

    def open(self, folder: Path) -> Scorer:
        """Opens an export of this format.

        Raises:
            UserError: its packages are missing; it is damaged, or not one of kerasft.
        """
        self.require(self.opening)
        return self.open_scorer(folder)

    def require(self, packages: tuple[str, ...]) -> None:
        """Refuses to go on where one of the packages is missing.

        Raises:
            UserError: which are missing, and the command that installs them.
        """
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise UserError(
                f"{self.label} needs {' and '.join(missing)}, which {verb} not installed. Install "
                f"what it needs: pip install 'kerasft[{self.extra}]'."
            )


def _of(module: str) -> tuple[Write, Open]:
    """Returns the functions `write` and `open_scorer` of a module, which is loaded when called."""

    def write(opened: "Bundle", folder: Path, facts: ExportFacts, calibration: Path | None) -> None:
        importlib.import_module(module).write(opened, folder, facts, calibration)

    def open_scorer(folder: Path) -> Scorer:
        scorer: Scorer = importlib.import_module(module).open_scorer(folder)
        return scorer

    return write, open_scorer


QUANTIZATIONS = ("float16", "int8")
DEFAULT = "saved-model"
EXPORTERS: dict[str, Exporter] = {
    DEFAULT: Exporter(
        "SavedModel", "saved_model.pb", *_of("kerasft.export.savedmodel"), takes="files"
    ),
    "litert": Exporter(
        "LiteRT",
        "model.tflite",
        *_of("kerasft.export.litert"),
        quantized=("float16", "int8"),
        extra="litert",
        opening=("ai_edge_litert",),
    ),
    "onnx": Exporter(
        "ONNX",
        "model.onnx",
        *_of("kerasft.export.onnx_format"),
        quantized=("int8",),
        extra="onnx",
        writing=("onnx", "tf2onnx"),
        opening=("onnxruntime",),
    ),
    "openvino": Exporter(
        "OpenVINO",
        "model.xml",
        *_of("kerasft.export.openvino_format"),
        quantized=("float16",),
        extra="openvino",
        opening=("openvino",),
    ),
    "keras": Exporter("Keras", "classifier.keras", *_of("kerasft.export.keras_format")),
}


def row_of(format: str, quantize: str | None = None) -> Exporter:
    """Returns the row of a format.

    Raises:
        UserError: no such format, or one that can't be quantized like that (exit code 2).
    """
    if format not in EXPORTERS:
        raise UserError(
            f"expected one of {', '.join(EXPORTERS)}, got '{format}'."
            f"{did_you_mean(format, EXPORTERS)}",
            field="format",
            exit_code=2,
        )
    row = EXPORTERS[format]
    if quantize is not None and quantize not in row.quantized:
        can = [key for key, other in EXPORTERS.items() if quantize in other.quantized]
        raise UserError(
            f"{row.label} is not written in {quantize}"
            + (f"; it takes {' or '.join(row.quantized)}" if row.quantized else "")
            + f". {quantize} is written by: {', '.join(can) or 'no format'}.",
            field="quantize",
            exit_code=2,
        )
    return row


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
    found = versions_in(folder)
    return found[max(found)] if found else None


def versions_in(folder: Path) -> dict[int, tuple[Exporter, Path]]:
    """Returns the exports in a folder of versions, by their number."""
    return {
        int(place.name): (row, place)
        for row in EXPORTERS.values()
        for place in (path.parent for path in folder.glob(f"*/{row.marker}"))
        if place.name.isdecimal()
    }


def open_export(folder: Path) -> Scorer | None:
    """Opens the export that a folder holds.

    Args:
        folder: as in `find_export`.

    Returns:
        The opened export; None if there is none.

    Raises:
        UserError: its packages are missing; it is damaged, or not one of kerasft.
    """
    found = find_export(folder)
    if found is None:
        return None
    row, place = found
    return row.open(place)
