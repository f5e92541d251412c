"""What a version computes: its signatures, as functions from inputs to rows, and as JSON.

    serving_default   image files to scores, logits, labels, top_label, top_score and so on
    serve_logits      image files to logits, where the format has them
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

from kerasft.export.facts import FILE as FACTS
from kerasft.export.facts import read_facts
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
        model_digest: digest of the model.keras that it was made of; "" if it does not say.
    """

    format: str
    signatures: Mapping[str, Signature]
    metadata: Mapping[str, Any]
    class_names: Sequence[str]
    threshold: float | None = None
    model_digest: str = ""


def open_model(exporter: Exporter, folder: Path) -> Model:
    """Opens an export, and tries it out on a drawn image.

    Args:
        exporter: its row in the table of formats.
        folder: folder of the version.

    Raises:
        UserError: its packages are missing; it is damaged, or was not written by kerasft.
        ValueError: its answer to the drawn image makes no sense.
    """
    scorer = exporter.open(folder)
    answer = scorer.files([warm_up_image()])
    _check(answer)
    is_savedmodel = exporter.takes == "files"
    facts = read_facts(folder) if (folder / FACTS).is_file() or not is_savedmodel else None
    side = facts.rule.image_size if facts else _side_of_savedmodel(folder)
    computes: dict[str, tuple[str, Compute]] = {DEFAULT: (FILES, _files(scorer))}
    if scorer.file_logits:
        told = answer.errors and answer.logits is not None
        logits = _part(_files(scorer), "logits") if told else _logits(scorer.file_logits)
        computes["serve_logits"] = (FILES, logits)
    computes["serve_pixels"] = (PIXELS, _pixels(scorer))
    signatures, described = {}, {}
    for name, (takes, compute) in computes.items():
        good = warm_up_image() if takes == FILES else np.zeros((side, side, 3), "float32")
        row = compute([good])[0]
        signatures[name] = Signature(takes, tuple(row), compute, side)
        described[name] = _description(signatures[name], row)
    signatures[DEFAULT].compute([b""])  # the first bad file is not to be slow
    if is_savedmodel:
        described = _describe_savedmodel(folder)
    return Model(
        exporter.label,
        signatures,
        {"signature_def": {"signature_def": described}},
        tuple(answer.labels),
        facts.threshold if facts else None,
        facts.model_digest if facts else "",
    )


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
            ERROR: answer.errors or None,
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


def _part(compute: Compute, name: str) -> Compute:
    """Returns a function that gives one of the outputs, and the errors."""

    def rows_of(given: Sequence[Any]) -> list[Row]:
        return [{key: row[key] for key in (name, ERROR) if key in row} for row in compute(given)]

    return rows_of


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


def _description(signature: Signature, row: Row) -> Mapping[str, Any]:
    """Describes a signature as TensorFlow Serving describes those of a SavedModel."""
    side = signature.side
    image = ("DT_STRING", ()) if signature.takes == FILES else ("DT_FLOAT", (side, side, 3))
    outputs = {}
    for name, value in row.items():
        shape = (len(value),) if isinstance(value, list | tuple) else np.shape(value)
        outputs[name] = _tensor(name, _dtype_of(value), shape)
    return {
        "inputs": {signature.takes: _tensor(signature.takes, *image)},
        "outputs": outputs,
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def _dtype_of(value: Any) -> str:
    if isinstance(value, str | list | tuple):
        return "DT_STRING"
    return "DT_BOOL" if np.asarray(value).dtype == bool else "DT_FLOAT"


def _tensor(name: str, dtype: str, shape: Sequence[int]) -> Mapping[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in (-1, *shape)]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": f"{name}:0",
    }


def _describe_savedmodel(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Describes the signatures of a SavedModel as TensorFlow Serving does."""
    from google.protobuf.json_format import MessageToDict

    return {
        name: MessageToDict(
            signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, signature in _signature_defs(folder).items()
    }


def _side_of_savedmodel(folder: Path) -> int:
    pixels = _signature_defs(folder)["serve_pixels"].inputs[PIXELS]
    return int(pixels.tensor_shape.dim[1].size)


def _signature_defs(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def
