"""The format SavedModel: image bytes in, labels and scores out, without kerasft.

Shapes: B images in a batch, S side of the model's square input in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasft.errors import UserError, first_line
from kerasft.export.facts import ExportFacts
from kerasft.export.scorer import DAMAGED, Answer, Scorer
from kerasft.lazy_tensorflow import tf

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle


def write(
    opened: Bundle, folder: Path, facts: ExportFacts | None = None, calibration: Path | None = None
) -> None:
    """Writes a SavedModel that decodes, applies EXIF, resizes, preprocesses, scores and labels.

    Signatures, for any B, including 0:
        serving_default: image_bytes string [B], contents of image files, to scores float32 [B,K]
            in the order of the classes, logits float32 [B,K] and labels string [B,K] in the same
            order, top_label string [B], top_score float32 [B] and error string [B]. Logits rank
            the classes: scores of unlikely ones are rounded to 0. A model with a threshold gives
            abstain bool [B] too: whether top_score is below it.
        serve_logits: image_bytes string [B] to logits float32 [B,K] and error string [B].
        serve_pixels: pixels float32 [B,S,S,3], 0 to 255, to scores and logits [B,K].
    A file that can't be read, or has too many pixels by its header (which is not decoded then),
    gets the reason as its error ("is not an image"), a top_label "", scores and logits of 0; the
    others of its batch are answered. The error of a file that was read is "".

    Args:
        opened: model to export.
        folder: folder to write into, made if absent.
        facts: not used; the graph holds what other formats keep beside them.
        calibration: not used.

    Source: TensorFlow's guide "Using the SavedModel format". A plain tf.Module that tracks
        the variables leaves no class of Keras or of kerasft in the file.
    """
    # Imported here, so that the process that opens an export knows nothing of it.
    from kerasft.pixels import images

    size = opened.rule.image_size
    model = opened.scores_and_logits
    names = tf.constant(opened.class_names)
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    pixels = tf.TensorSpec([None, size, size, 3], tf.float32, name="pixels")

    # Nothing here is for AutoGraph, which would parse the code of Keras, too.
    of_bytes, of_pixels = (
        tf.function(input_signature=[spec], autograph=False) for spec in (image_bytes, pixels)
    )

    @of_pixels
    def serve_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(pixels)[0]
        # Some kernels of TensorFlow fail on an empty batch, so it is padded with one image.
        # Not by tf.pad, which loses S here; then LiteRT can convert no convolution.
        black = tf.zeros([tf.cast(count == 0, tf.int32), size, size, 3])
        pixels = tf.concat([pixels, black], axis=0)
        scores, logits = model(pixels, training=False)
        return {"scores": scores[:count], "logits": logits[:count]}

    @of_bytes  # traced once for both signatures that call it
    def compute(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        squares, error = images.squares_of(image_bytes, opened.rule)
        fine = tf.cast(error == "", tf.float32)[:, tf.newaxis]
        computed = serve_pixels(squares)
        return {name: fine * values for name, values in computed.items()} | {"error": error}

    @of_bytes
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        computed = compute(image_bytes)
        scores, logits, error = computed["scores"], computed["logits"], computed["error"]
        top_score = tf.reduce_max(scores, axis=1)
        threshold = opened.threshold
        unsure = {} if threshold is None else {"abstain": top_score < threshold}
        best = tf.gather(names, tf.argmax(logits, axis=1))
        return {
            "scores": scores,
            "logits": logits,
            "labels": tf.broadcast_to(names, tf.shape(scores)),
            "top_label": tf.where(error == "", best, ""),
            "top_score": top_score,
            "error": error,
            **unsure,
        }

    @of_bytes
    def serve_logits(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        computed = compute(image_bytes)
        return {"logits": computed["logits"], "error": computed["error"]}

    module = tf.Module()
    module.weights = [variable.value for variable in opened.model.variables]
    signatures = {
        "serving_default": serve,
        "serve_logits": serve_logits,
        "serve_pixels": serve_pixels,
    }
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(folder), signatures)
    _write_warm_up(folder)


WARM_UP = "assets.extra/tf_serving_warmup_requests"


def _write_warm_up(folder: Path) -> None:
    """Writes requests that TF Serving sends itself when it loads a version, so that none is slow.

    They are PredictionLog messages in a TFRecord, of one image and of eight. Each field that is
    written here is a message or a string, so the messages take no package of TF Serving.

    Source: "SavedModel Warmup" in the documentation of TF Serving; prediction_log.proto,
    predict.proto and model.proto in its `apis`.
    """
    drawn = np.zeros((480, 640, 3), "uint8")
    drawn[:240, :320] = (200, 120, 40)
    photo = tf.io.encode_jpeg(drawn).numpy()
    path = folder / WARM_UP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for count in (1, 8):
            tensor = tf.make_tensor_proto([photo] * count, tf.string).SerializeToString()
            model_spec = _field(3, b"serving_default")  # signature_name
            entry = _field(1, b"image_bytes") + _field(2, tensor)  # of the map of inputs
            request = _field(1, model_spec) + _field(2, entry)
            writer.write(_field(6, _field(1, request)))  # predict_log, its request


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of a protobuf message that is a message or a string."""
    length, digits = len(content), b""
    while length > 127:
        digits += bytes([128 | length & 127])
        length >>= 7
    return bytes([number << 3 | 2]) + digits + bytes([length]) + content


def open_scorer(folder: Path) -> Scorer:
    """Opens a SavedModel of `write` with TensorFlow alone.

    Raises:
        UserError: a SavedModel that is damaged, or has other signatures. The logits and the error
            of serving_default may be absent: older versions of kerasft did not write them.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, LookupError, tf.errors.OpError) as error:
        raise UserError(
            f"{folder}: the SavedModel can't be loaded: {first_line(error)}. {DAMAGED}"
        ) from error
    serve = loaded.signatures.get("serving_default")
    takes = sorted(serve.structured_input_signature[1]) if serve else []
    gives = sorted(serve.structured_outputs) if serve else []
    if takes != ["image_bytes"] or not {"scores", "labels"} <= set(gives):
        raise UserError(
            f"{folder}: not a SavedModel of `kerasft export`. Expected a signature "
            "serving_default that takes image_bytes and returns scores and labels, "
            f"got one that takes {takes} and returns {gives}."
        )

    def files(encoded: Sequence[bytes]) -> Answer:
        given = loaded.signatures["serving_default"](image_bytes=tf.constant(encoded))
        return Answer(
            scores=given["scores"].numpy(),
            labels=[name.decode() for name in given["labels"][0].numpy()],
            logits=given["logits"].numpy()
            if "logits" in given
            else None,  # absent in older exports
            top_labels=[name.decode() for name in given["top_label"].numpy()],
            top_scores=given["top_score"].numpy(),
            abstain=given["abstain"].numpy() if "abstain" in given else None,
            errors=[one.decode() for one in given["error"].numpy()] if "error" in given else (),
        )

    def file_logits(encoded: Sequence[bytes]) -> np.ndarray:
        given = loaded.signatures["serve_logits"](image_bytes=tf.constant(encoded))
        logits: np.ndarray = given["logits"].numpy()
        return logits

    def pixels(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = loaded.signatures["serve_pixels"](pixels=tf.constant(pixels))
        return given["scores"].numpy(), given["logits"].numpy()

    return Scorer(files, pixels, file_logits)
