"""SavedModels of runs: image bytes in, labels and scores out; they do not need kerasft.

The folder has TF Serving's layout, `DIR/1`, `DIR/2`, ... A version appears complete, and only
after `parity.py` has proven that it computes the same as model.keras.

Shapes: B images in a batch, S side of the model's square input in pixels, K classes.
"""

import contextlib
import errno
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasft import run
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.evaluation import target
from kerasft.evaluation.evaluate import open_images
from kerasft.export import parity
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.pixels import images
from kerasft.processes import run_fresh
from kerasft.progress import Progress, silent

PHOTOS = 64
"""Maximum number of validation images in the parity proof."""


def export_run(
    path: str | Path,
    *,
    to: str | Path | None = None,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> dict:
    """Exports the model of a run, and proves that the export agrees with it.

    Args:
        path: run directory.
        to: folder of the versions, made if absent; None means "export" in the run. The new
            version gets the next number.
        data: present place of the run's photos, if they were moved.
        progress: receiver of events, as photos are read ("images") and for the proof ("check").

    Returns:
        `{"path", "n", "max_abs_diff", "max_abs_diff_logits", "top1_agreement"}`; see
        `parity.prove`. `parity.json` in the new folder holds the same without the path.

    Raises:
        UserError: not a run, a run without a model, missing photos; an export that does not
            agree or cannot be written, of which nothing is left behind.
    """
    of_run = run.open_run(Path(path))
    target.prepare_for(path)
    source_file = run.model_file(of_run)
    to = Path(to or of_run.path / "export")
    with _writing(to) as temporary:
        model, written, work = (temporary / name for name in ("model.keras", "version", "parity"))
        work.mkdir()
        bundle.copy(source_file, model)  # training may replace it meanwhile
        opened = bundle.load(model)
        found = open_images(of_run, opened, data=data, progress=progress)
        _write(opened, model, written, progress)
        proof = parity.prove(
            written,
            model,
            _photos(found),
            work=work,
            class_names=opened.class_names,
            image_size=opened.image_size,
            resize=opened.resize,
            progress=progress,
        )
        versions = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow")}
        record = {**proof, "limit": parity.LIMIT, "versions": versions}
        (written / "parity.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        _sync(written)
        return {"path": str(_number(written, to)), **proof}


def _write(opened: Bundle, model: Path, folder: Path, progress: Progress) -> None:
    """Writes the export with TensorFlow: in a fresh process if Keras has another backend.

    Args:
        opened: model to export.
        model: file of the same model.
        folder: folder to create in an existing folder.
    """
    if keras.backend.backend() == "tensorflow":
        EXPORTERS["savedmodel"](opened, folder)
        return
    job = ("kerasft.export.savedmodel", "savedmodel", str(model), str(folder))
    run_fresh({"writes it": job}, folder.parent, what="export", progress=progress)


def _photos(source: Source) -> list[Path]:
    """Selects at most PHOTOS validation images, evenly spaced, so that all classes occur."""
    found = source.indices("validation")
    spread = np.linspace(0, len(found) - 1, min(PHOTOS, len(found))).round().astype(int)
    return [source.root / source.paths[found[i]] for i in spread]


@contextlib.contextmanager
def _writing(to: Path) -> Iterator[Path]:
    """Makes a temporary folder in `to`. Removes it afterwards, and a new `to` that stays empty."""
    there = to.exists()
    temporary = None
    try:
        to.mkdir(parents=True, exist_ok=True)
        # TF Serving ignores folders whose names are not numbers.
        temporary = Path(tempfile.mkdtemp(prefix=".unproven-", dir=to))
        yield temporary
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{to}: the export can't be written: {reason}.") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        if not there:
            with contextlib.suppress(OSError):
                to.rmdir()


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


def _number(written: Path, to: Path) -> Path:
    """Moves the folder to the next free number in `to`, from 1, and returns its new path."""
    taken = [int(entry.name) for entry in to.iterdir() if entry.name.isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        try:
            os.rename(written, to / str(number))
            return to / str(number)
        except OSError as error:  # another export has just taken the number
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            number += 1


def write_savedmodel(opened: Bundle, folder: Path) -> None:
    """Writes a SavedModel that decodes, applies EXIF, resizes, preprocesses, scores and labels.

    Signatures, for any B, including 0:
        serving_default: image_bytes string [B], contents of image files, to scores float32 [B,K]
            in the order of the classes, labels string [B,K] in the same order, top_label
            string [B] and top_score float32 [B].
        serve_logits: image_bytes string [B] to logits float32 [B,K].
        serve_pixels: pixels float32 [B,S,S,3], 0 to 255, to scores and logits [B,K].
    A file that is not an image, or has too many pixels by its header, fails the call with
    InvalidArgument before it is decoded.

    Args:
        opened: model to export.
        folder: folder to create.

    Source: TensorFlow's guide "Using the SavedModel format". A plain tf.Module that tracks
        the variables leaves no class of Keras or of kerasft in the file.
    """
    size = opened.image_size
    model = opened.scores_and_logits
    names = tf.constant(opened.class_names)
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    pixels = tf.TensorSpec([None, size, size, 3], tf.float32, name="pixels")
    square = tf.TensorSpec([size, size, 3], tf.float32)

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return images.resize_image(images.decode_image(encoded), size, opened.resize)

    @tf.function(input_signature=[pixels])
    def serve_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(pixels)[0]
        # Some kernels of TensorFlow fail on an empty batch, so it is padded with one image.
        pixels = tf.pad(pixels, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        scores, logits = model(pixels, training=False)
        return {"scores": scores[:count], "logits": logits[:count]}

    @tf.function(input_signature=[image_bytes])  # traced once for both signatures that call it
    def compute(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return serve_pixels(tf.map_fn(decode, image_bytes, fn_output_signature=square))

    @tf.function(input_signature=[image_bytes])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = compute(image_bytes)["scores"]
        return {
            "scores": scores,
            "labels": tf.broadcast_to(names, tf.shape(scores)),
            "top_label": tf.gather(names, tf.argmax(scores, axis=1)),
            "top_score": tf.reduce_max(scores, axis=1),
        }

    @tf.function(input_signature=[image_bytes])
    def serve_logits(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": compute(image_bytes)["logits"]}

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


EXPORTERS: dict[str, Callable[[Bundle, Path], None]] = {"savedmodel": write_savedmodel}


def main(exporter: str, model: str, folder: str) -> None:
    """Exports a model file. Runs in a fresh process."""
    EXPORTERS[exporter](bundle.load(model), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
