"""What a version computes: its signatures, as functions from inputs to rows, and as JSON.

    serving_default   image files to scores, logits, labels, top_label, top_score and so on
    serve_logits      image files to logits
    serve_pixels      pixels [S,S,3], 0 to 255, to scores, and logits where the format has them

A file that cannot be read gets the row {"error": "..."}; the others of a batch are answered.

Shapes: N images, S side of the model's square input in pixels, K classes.
"""

import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.export.formats import Exporter
from kerasft.export.scorer import Answer, Scorer
from kerasft.input_rule import MAX_PIXELS
from kerasft.serving.batching import Compute, Row

log = logging.getLogger("kerasft")

DEFAULT = "serving_default"
FILES, PIXELS = "image_bytes", "pixels"
ERROR = "error"


@dataclass(frozen=True, eq=False)
class Signature:
    """A function of a version.

    Attributes:
        takes: name of its input: "image_bytes" or "pixels".
        gives: names of its outputs.
        compute: function from N inputs, bytes or float32 [S,S,3], to N rows.
        side: S.
    """

    takes: str
    gives: Sequence[str]
    compute: Compute
    side: int


@dataclass(frozen=True, eq=False)
class Model:
    """An export that is ready to answer.

    Attributes:
        format: label of its format.
        signatures: its signatures by name.
        metadata: their description as TensorFlow Serving gives it.
        class_names: K names.
        threshold: score below which it abstains; None if it always answers or does not say.
    """

    format: str
    signatures: Mapping[str, Signature]
    metadata: Mapping[str, Any]
    class_names: Sequence[str]
    threshold: float | None = None


def open_model(exporter: Exporter, folder: Path) -> Model:
    """Opens an export, and tries it out on a drawn image.

    Args:
        exporter: its row in the table of formats.
        folder: folder of the version.

    Raises:
        UserError: it is damaged, or was not written by kerasft.
        ValueError: its answer to the drawn image makes no sense.
    """
    scorer = exporter.open_scorer(folder)
    metadata, side = _described(folder)
    answer = scorer.files([warm_up_image()])
    _check(answer)
    files = _files(scorer)
    rows = files([warm_up_image()])
    signatures = {DEFAULT: Signature(FILES, tuple(rows[0]), files, side)}
    if scorer.file_logits:
        logits = _logits(scorer.file_logits)
        signatures["serve_logits"] = Signature(FILES, ("logits",), logits, side)
    pixels = _pixels(scorer)
    given = pixels([np.zeros((side, side, 3), "float32")])[0]
    signatures["serve_pixels"] = Signature(PIXELS, tuple(given), pixels, side)
    return Model(exporter.label, signatures, metadata, tuple(answer.labels))


def warm_up_image() -> bytes:
    """Draws an image on which versions are tried out: a PNG of 64 x 48 pixels, in two colours."""
    from PIL import Image

    image = Image.new("RGB", (64, 48), (200, 120, 40))
    image.paste((30, 60, 160), (0, 0, 32, 24))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _check(answer: Answer) -> None:
    scores, names = np.asarray(answer.scores), list(answer.labels)
    if scores.shape != (1, len(names)) or not len(names):
        raise ValueError(f"it gives scores of shape {scores.shape} for {len(names)} classes")
    if not np.isfinite(scores).all() or abs(float(scores.sum()) - 1) > 1e-3:
        raise ValueError("its scores for a drawn image do not add up to 1")


def pixels_of(encoded: bytes) -> int:
    """Returns the number of pixels that a file's header claims; the most there can be if unclear.

    It only decides which files share a batch; the model refuses what is too large.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as image:
                return min(image.width * image.height, MAX_PIXELS)
    except Exception:  # Pillow raises many kinds for hostile files
        return MAX_PIXELS


def _files(scorer: Scorer) -> Compute:
    def rows_of(encoded: Sequence[bytes]) -> list[Row]:
        answer = scorer.files(encoded)
        columns: dict[str, Any] = {
            "scores": answer.scores,
            "logits": answer.logits,
            "labels": [answer.labels] * len(encoded),
            "top_label": answer.top_labels,
            "top_score": answer.top_scores,
            "abstain": answer.abstain,
        }
        there = {name: column for name, column in columns.items() if column is not None}
        return [
            _bad(encoded[i])
            if answer.errors and answer.errors[i]
            else {name: column[i] for name, column in there.items()}
            for i in range(len(encoded))
        ]

    return _one_by_one_if_bad(rows_of)


def _bad(encoded: bytes) -> Row:
    from kerasft.pixels.images import reason_of

    return {ERROR: f"The file {reason_of(encoded)}."}


def _logits(file_logits: Callable[[Sequence[bytes]], np.ndarray]) -> Compute:
    def rows_of(encoded: Sequence[bytes]) -> list[Row]:
        return [{"logits": row} for row in file_logits(encoded)]

    return _one_by_one_if_bad(rows_of)


def _pixels(scorer: Scorer) -> Compute:
    def rows_of(pixels: Sequence[np.ndarray]) -> list[Row]:
        scores, logits = scorer.pixels(np.stack(pixels))
        columns = {"scores": scores} | ({} if logits is None else {"logits": logits})
        return [{name: column[i] for name, column in columns.items()} for i in range(len(pixels))]

    return rows_of


def _one_by_one_if_bad(rows_of: Callable[[Sequence[bytes]], list[Row]]) -> Compute:
    """Computes images one by one where a bad one fails the call for all of them."""

    def compute(encoded: Sequence[bytes]) -> list[Row]:
        try:
            return rows_of(encoded)
        except Exception as error:
            if len(encoded) > 1:
                return [row for one in encoded for row in compute([one])]
            if type(error).__name__ != "InvalidArgumentError":
                raise
        return [_bad(encoded[0])]

    return compute


def _described(folder: Path) -> tuple[Mapping[str, Any], int]:
    """Reads the signatures of a SavedModel: as TensorFlow Serving describes them, and S."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    described = {
        name: MessageToDict(
            signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, signature in signatures.items()
    }
    side = signatures["serve_pixels"].inputs[PIXELS].tensor_shape.dim[1].size
    return {"signature_def": {"signature_def": described}}, int(side)
