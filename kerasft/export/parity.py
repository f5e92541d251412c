"""Proof that an export agrees with model.keras, each computed in a fresh process.

`prove` starts `python -m kerasft.export.parity export ...`, which loads the export with what its
format needs, and `python -m kerasft.export.parity reference ...`, which loads model.keras with
Keras. Both get the same noise and the same photos: as files, which the reference feeds through
`pixels/images.py`; for a format that takes pixels, as the pixels of these files.

Shapes: N images, K classes, S side of the model's square input in pixels.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.errors import UserError
from kerasft.export.facts import ExportFacts, read_facts
from kerasft.export.formats import EXPORTERS
from kerasft.export.scorer import Scorer, logarithms_of
from kerasft.input_rule import InputRule
from kerasft.lazy_tensorflow import tf
from kerasft.processes import importing, run_fresh
from kerasft.progress import Progress, silent
from kerasft.results import Result

LIMIT = 1e-4
"""Largest allowed difference in scores, and in logits as a share of the largest logit.

Two graphs of a net differ by about 1e-6 in float32.
"""

LIMITS: Mapping[str | None, float] = {None: LIMIT, "float16": 0.05, "int8": 1.0}
"""Largest allowed difference in scores, by quantization.

Weights of 11 bits move the scores of unsure images by hundredths (0.026 at most on 225 photos of
flowers5, MobileNetV2 in LiteRT, of which each got the same label); 8 bits may move any score, so
what counts is the accuracy that they lose (`measure.py`).
"""

MEAN_LIMIT = 0.1
"""Largest allowed mean over the images of the largest difference in an image's scores, in int8.

It is 0.02 for MobileNetV2 on flowers5. A net whose scores are saturated or have nothing to do with
the images is refused by it, also where the labels happen to be right.
"""

BATCH_SIZES = (1, 7)
NOISE = 8
"""Number of images of noise, which are fed as pixels."""

PIXELS = "pixels.npy"  # in the folder of task.json, for formats that take pixels


@dataclass(frozen=True)
class Proof(Result):
    """How closely an export agrees with the model file that it was made from.

    Attributes:
        n: number of images that both have scored.
        max_abs_diff: largest difference between any two scores.
        max_abs_diff_logits: largest difference between any two logits.
        top1_agreement: share of the images that get the same label from both.
    """

    n: int
    max_abs_diff: float
    max_abs_diff_logits: float
    top1_agreement: float


def prove(
    export: Path,
    model: Path,
    photos: Sequence[Path],
    *,
    work: Path,
    facts: ExportFacts,
    progress: Progress = silent,
) -> Proof:
    """Compares an export with the model file that it was made from, on the CPU.

    Inputs are `photos`, the images of `generated_images`, and pixels of noise, in batches of 1 and
    of 7, of which some runtimes get 4 and 3 (`scorer.BATCH`).

    Args:
        export: folder that the format has written.
        model: `.keras` file.
        photos: image files.
        work: empty folder for inputs, outputs and logs; the caller removes it.
        facts: what the export is to be: its format, its classes, its input rule, its threshold.
        progress: receiver of an event of stage "check" after each process.

    Raises:
        UserError: scores or logits that differ by more than LIMITS allows, or are NaN; labels that
            are not the classes in order; a process that failed.
    """
    # Imported here, so that the process of the export loads nothing of it.
    from kerasft.pixels.convert import as_readable, kind_of
    from kerasft.pixels.decode import read_squares

    inputs = []
    for number, path in enumerate(photos):
        encoded = path.read_bytes()
        if kind_of(encoded):  # an export reads what TensorFlow reads
            path = work / f"photo_{number}.png"
            path.write_bytes(as_readable(encoded))
        inputs.append(path)
    for name, encoded in generated_images().items():
        (work / name).write_bytes(encoded)
        inputs.append(work / name)
    takes = EXPORTERS[facts.format].takes
    if takes == "pixels":
        squares, errors = read_squares([path.read_bytes() for path in inputs], facts.rule)
        if any(errors):
            bad = next(path for path, error in zip(inputs, errors, strict=True) if error)
            raise UserError(f"{bad}: can't be read any more. Nothing was exported.")
        np.save(work / PIXELS, squares)
    task = {
        "format": facts.format,
        "takes": takes,
        "inputs": [str(path) for path in inputs],
        "rule": facts.rule.to_json(),
    }
    (work / "task.json").write_text(json.dumps(task), "utf-8")
    jobs = {
        f"loads the {role}": ("kerasft.export.parity", role, str(path), str(work))
        for role, path in (("export", export), ("reference", model))
    }
    run_fresh(jobs, work, what="parity proof", progress=progress)
    with np.load(work / "export.npz") as ours, np.load(work / "reference.npz") as reference:
        return compare(
            dict(ours), dict(reference), facts.class_names, facts.threshold, facts.quantize
        )


def compare(
    export: dict[str, np.ndarray],
    reference: dict[str, np.ndarray],
    class_names: Sequence[str],
    threshold: float | None = None,
    quantize: str | None = None,
) -> Proof:
    """Compares the results of the two processes.

    Args:
        export: arrays by name: "scores_files_1", "logits_noise_7" and so on, [N,K]; "labels"
            [K]; for each batch size "top_label_1" [N], "top_score_1" [N], "abstain_1" [N] and
            "answered_1" [N,K], the logits that come with the scores of the files, and "error_1"
            [N]; each if the format gives it. Where it gives no logits, logarithms of scores are
            compared in their place.
        reference: scores and logits under the same names.
        class_names: K names.
        threshold: score below which the model abstains; None if it always answers.
        quantize: quantization, a key of LIMITS.

    Raises:
        UserError: they do not agree.
    """
    if "logits_files_1" not in export:
        export, reference = _with_logarithms(export), _with_logarithms(reference)

    def largest(kind: str) -> float:
        names = [name for name in reference if name.startswith(kind)]
        return max_difference((export[name], reference[name]) for name in names)

    logits, theirs = export["logits_files_1"], reference["logits_files_1"]
    answered = [
        (export[f"answered_{size}"], reference[f"logits_files_{size}"])
        for size in BATCH_SIZES
        if f"answered_{size}" in export
    ]
    result = Proof(
        n=len(logits),
        max_abs_diff=largest("scores"),
        max_abs_diff_logits=float(np.max([largest("logits"), max_difference(answered)])),
        top1_agreement=float(np.mean(logits.argmax(axis=1) == theirs.argmax(axis=1))),
    )
    # Scores alone do not prove the ranks of classes whose scores are 0.
    limit = LIMITS[quantize]
    largest_logit = max(np.max(np.abs(reference[n])) for n in reference if n.startswith("logits"))
    allowed = limit * max(1.0, float(largest_logit)) if quantize is None else math.inf
    # Written so that a NaN does not pass.
    if not (result.max_abs_diff <= limit and result.max_abs_diff_logits <= allowed):
        logits_text = (
            f", logits by {result.max_abs_diff_logits:.3g} (allowed: {allowed:.3g})"
            if quantize is None
            else ""
        )
        raise UserError(
            f"The export does not agree with model.keras: scores of {result.n} images differ "
            f"by up to {result.max_abs_diff:.3g} (allowed: {limit:g}){logits_text}; "
            f"{result.top1_agreement:.1%} get the same label. Nothing was exported."
        )
    if reason := _no_scores(export):
        raise UserError(
            f"The export does not agree with model.keras: {reason}. Nothing was exported."
        )
    apart = np.abs(export["scores_files_1"] - reference["scores_files_1"]).max(axis=1).mean()
    if apart > MEAN_LIMIT:
        raise UserError(
            f"The export does not agree with model.keras: scores differ by {apart:.3f} in the mean "
            f"over {result.n} images (allowed: {MEAN_LIMIT:g}). Nothing was exported."
        )
    errors = [str(error) for size in BATCH_SIZES for error in export.get(f"error_{size}", ())]
    if any(errors):
        raise UserError(
            "The export does not agree with model.keras: it can't read an image that kerasft "
            f"reads; it {next(filter(None, errors))}. Nothing was exported."
        )
    if not _names_fit(export, class_names):
        raise UserError(
            "The export does not agree with model.keras: its labels are not the model's classes. "
            f"Expected {', '.join(class_names)}, got {', '.join(export['labels'].tolist())}. "
            "Nothing was exported."
        )
    if not _abstains_as_it_should(export, threshold):
        raise UserError(
            "The export does not agree with model.keras: it abstains on other images than those "
            f"whose best score is below the threshold, {threshold}. Nothing was exported."
        )
    return result


def _no_scores(export: dict[str, np.ndarray]) -> str:
    """Returns why an export's numbers are no scores, whatever the model's are; "" if they are."""
    for name in (name for name in export if name.startswith("scores")):
        scores = export[name]
        if not (scores.min() >= 0 and scores.max() <= 1 + 1e-3):
            return "its scores do not lie between 0 and 1"
        if np.abs(scores.sum(axis=1) - 1).max() > 1e-3:
            return "its scores of an image do not add up to 1"
    first, other = BATCH_SIZES
    for name in ("files", "noise"):
        alone, together = (export[f"scores_{name}_{size}"] for size in (first, other))
        if np.abs(alone - together).max() > 1e-3:
            return "an image gets other scores alone than together with others"
    return ""


def _with_logarithms(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Puts logarithms of scores in the place of the logits; a NaN stays one."""
    logarithms = {
        name.replace("scores", "logits"): logarithms_of(values)
        for name, values in arrays.items()
        if name.startswith("scores")
    }
    return arrays | logarithms


def _abstains_as_it_should(export: dict[str, np.ndarray], threshold: float | None) -> bool:
    if "top_label_1" not in export:  # a format that takes pixels: whoever opens it compares
        return True
    for size in BATCH_SIZES:
        unsure = export.get(f"abstain_{size}")
        if (unsure is None) != (threshold is None):
            return False
        if unsure is not None:
            below = export[f"scores_files_{size}"].max(axis=1) < np.float32(threshold or 0)
            if not np.array_equal(unsure, below):
                return False
    return True


def _names_fit(export: dict[str, np.ndarray], class_names: Sequence[str]) -> bool:
    """Returns whether the labels are the classes, and the best ones fit scores and logits."""
    fits = [export["labels"].tolist() == list(class_names)]
    for size in BATCH_SIZES:
        scores = export[f"scores_files_{size}"]
        ranks = export.get(f"answered_{size}", scores)
        best = [class_names[i] for i in ranks.argmax(axis=1)]
        if f"top_label_{size}" in export:
            fits.append(export[f"top_label_{size}"].tolist() == best)
        if f"top_score_{size}" in export:
            fits.append(np.array_equal(export[f"top_score_{size}"], scores.max(axis=1)))
    return all(fits)


def max_difference(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Returns the largest absolute difference over pairs of arrays; NaN if one holds a NaN.

    Without any pairs it is 0.
    """
    return float(np.max([np.max(np.abs(ours - theirs)) for ours, theirs in pairs], initial=0.0))


def compute_export(export: Path, task: dict) -> dict[str, np.ndarray]:
    """Computes the argument `export` of `compare`, with an export that its format opens."""
    with importing():  # the packages that the format needs
        scorer = EXPORTERS[task["format"]].open_scorer(export)
    outputs: dict[str, np.ndarray] = {}
    given = {"noise": noise_pixels(task["rule"]["image_size"])}
    if task["takes"] == "pixels":
        given["files"] = np.load(Path(task["inputs"][-1]).parent / PIXELS)
        outputs["labels"] = np.array(read_facts(export).class_names)
    else:
        outputs |= _answers(scorer, [Path(path).read_bytes() for path in task["inputs"]])
    for size in BATCH_SIZES:
        for name, pixels in given.items():
            computed = [scorer.pixels(part) for part in _parts(pixels, size)]
            outputs[f"scores_{name}_{size}"] = np.concatenate([scores for scores, _ in computed])
            logits = [some for _, some in computed if some is not None]
            if logits:
                outputs[f"logits_{name}_{size}"] = np.concatenate(logits)
    return outputs


def _answers(scorer: Scorer, encoded: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Computes what an export says about files, by the names of `compare`."""
    outputs: dict[str, np.ndarray] = {}
    for size in BATCH_SIZES:
        answers = [scorer.files(part) for part in _parts(encoded, size)]
        outputs["labels"] = np.array(answers[-1].labels)
        outputs[f"scores_files_{size}"] = np.concatenate([one.scores for one in answers])
        if scorer.file_logits:
            logits = [scorer.file_logits(part) for part in _parts(encoded, size)]
            outputs[f"logits_files_{size}"] = np.concatenate(logits)
        columns: dict[str, list[Any]] = {
            "answered": [one.logits for one in answers],
            "top_label": [one.top_labels for one in answers],
            "top_score": [one.top_scores for one in answers],
            "abstain": [one.abstain for one in answers],
            "error": [one.errors or None for one in answers],
        }
        for name, parts in columns.items():
            there = [np.asarray(part) for part in parts if part is not None]
            if there:
                outputs[f"{name}_{size}"] = np.concatenate(there)
    return outputs


def compute_reference(model: Path, task: dict) -> dict[str, np.ndarray]:
    """Computes the argument `reference` of `compare`, with model.keras and `pixels/images.py`."""
    # Imported here, so that the process of the export loads neither.
    with importing():
        import keras

        from kerasft.pixels import images

    rule = InputRule.from_json(task["rule"])
    whole = keras.models.load_model(model)
    both = keras.Model(whole.inputs[0], [whole.outputs[0], whole.get_layer("logits").output])

    def load(path: tf.Tensor) -> tf.Tensor:
        return images.square_of(tf.io.read_file(path), rule)

    if task["takes"] == "pixels":
        files = np.load(Path(task["inputs"][-1]).parent / PIXELS)
    else:
        files = np.stack(list(tf.data.Dataset.from_tensor_slices(task["inputs"]).map(load)))
    outputs: dict[str, np.ndarray] = {}
    for size in BATCH_SIZES:
        for name, pixels in (("files", files), ("noise", noise_pixels(task["rule"]["image_size"]))):
            computed = [both.predict_on_batch(part) for part in _parts(pixels, size)]
            outputs[f"scores_{name}_{size}"] = np.concatenate([scores for scores, _ in computed])
            outputs[f"logits_{name}_{size}"] = np.concatenate([logits for _, logits in computed])
    return outputs


def _parts(inputs: Any, size: int) -> list:
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


def noise_pixels(image_size: int) -> np.ndarray:
    """Returns noise, float32 [NOISE,S,S,3], 0 to 255, the same numbers in every process."""
    shape = (NOISE, image_size, image_size, 3)
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def generated_images() -> dict[str, bytes]:
    """Makes image files of the kinds on which decoders disagree, by name.

    Returns:
        JPEGs with the EXIF orientations 1 to 8 (odd ones little-endian, even ones big-endian), a
        gray JPEG, a PNG with an alpha channel and a GIF with a palette. The image that they show
        has no symmetry: turning, mirroring or swapping channels changes it.
    """
    y, x = np.mgrid[0:44, 0:60]
    red, green, blue = 4 * x, 5 * y, np.where((x < 20) & (y < 15), 255, 40)
    pixels = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    jpeg = tf.io.encode_jpeg(pixels, quality=95).numpy()
    alpha = np.concatenate([pixels, (255 - red)[..., None].astype(np.uint8)], axis=-1)
    palette = np.random.default_rng(1).integers(0, 256, (128, 3)).astype(np.uint8)
    return {
        **{f"exif_{turn}.jpg": with_orientation(jpeg, turn) for turn in range(1, 9)},
        "gray.jpg": tf.io.encode_jpeg(pixels[..., :1], format="grayscale", quality=95).numpy(),
        "alpha.png": tf.io.encode_png(alpha).numpy(),
        "palette.gif": encode_gif(((x + 2 * y) % 128).astype(np.uint8), palette),
    }


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Puts an EXIF block with an orientation tag into a JPEG file.

    Args:
        jpeg: contents of the file.
        orientation: number from 1 to 8. Odd ones are written little-endian, even ones big-endian.

    Source: EXIF 2.32, sections 4.5 and 4.6.2: after the start of the image a segment APP1,
        "Exif", then a TIFF header and a directory of one entry, tag 0x0112, one short.
    """
    order, mark = ("<", b"II") if orientation % 2 else (">", b"MM")
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = mark + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def encode_gif(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """Encodes a GIF file, without compression.

    Args:
        indices: uint8 [h, w], 0 to 127.
        palette: uint8 [128, 3], RGB.

    Source: GIF89a, sections 18 to 22 and appendix F. With 7 bits a pixel, codes have 8 bits
        (128 clears the table, 129 ends) until 126 pixels have followed a clear code.
    """
    height, width = indices.shape
    flat = indices.tobytes()
    runs = [b"\x80" + flat[start : start + 100] for start in range(0, len(flat), 100)]
    codes = b"".join(runs) + b"\x81"
    blocks = [codes[start : start + 255] for start in range(0, len(codes), 255)]
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0xF6, 0, 0)
        + palette.tobytes()
        + struct.pack("<BHHHHBB", 0x2C, 0, 0, width, height, 0, 7)
        + b"".join(bytes([len(block)]) + block for block in blocks)
        + b"\0;"
    )


ROLES = {"export": compute_export, "reference": compute_reference}


def main(role: str, path: str, work: str) -> None:
    """Computes one side and writes `<role>.npz` into the folder that holds task.json.

    Args:
        role: "export" or "reference".
        path: folder of the export, or path of the `.keras` file.
        work: folder with task.json.
    """
    task = json.loads((Path(work) / "task.json").read_text("utf-8"))
    arrays: dict[str, Any] = ROLES[role](Path(path), task)
    np.savez(Path(work) / f"{role}.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
