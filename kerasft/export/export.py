"""Exports of runs, each with its proof.

The folder has TF Serving's layout, `DIR/1`, `DIR/2`, ... A version appears complete, and only
after `parity.py` has proven that it computes the same as model.keras.
"""

import contextlib
import errno
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from kerasft import run
from kerasft.config.load import load_config
from kerasft.data.batches import read_unchanged
from kerasft.data.scan import open_images
from kerasft.data.source import Source
from kerasft.errors import UserError, first_line
from kerasft.export import parity
from kerasft.export.card import FILE as CARD
from kerasft.export.card import Origin, card_text, licence_of
from kerasft.export.facts import ExportFacts, read_facts, write_example, write_facts
from kerasft.export.formats import DEFAULT, EXPORTERS, Exporter, row_of, versions_in
from kerasft.export.measure import Accuracy, accuracy_of, latency_ms, refuse_losses, size_of
from kerasft.export.parity import Proof
from kerasft.files import digest_of_file, reason_of
from kerasft.lazy_tensorflow import require_tensorflow, tf
from kerasft.models import bundle, target
from kerasft.models.bundle import Bundle
from kerasft.pixels.decode import read_squares
from kerasft.processes import run_fresh
from kerasft.progress import Progress, silent
from kerasft.results import Result
from kerasft.text import count

log = logging.getLogger("kerasft")

UNPROVEN, LOCK = ".unproven-", ".lock"  # how temporary folders begin, and the lock of each ends

PHOTOS = 64
"""Maximum number of validation images in the parity proof."""


CALIBRATION = 100
"""Maximum number of training photos that show int8 the range of the numbers in a net."""


@dataclass(frozen=True)
class ExportResult(Result):
    """An export that was proven.

    Attributes:
        path: folder of the new version.
        format: key of EXPORTERS.
        quantize: "float16" or "int8"; None for float32.
        bytes: size of what the runtime loads, without what lies beside it for people.
        latency_ms: median time for one image of pixels, in milliseconds, on this machine.
        proof: agreement of the export with model.keras.
        accuracy: accuracy on validation; None where it was not measured: where nothing is
            quantized and no least accuracy was asked for.
    """

    path: Path
    format: str
    quantize: str | None
    bytes: int
    latency_ms: float
    proof: Proof
    accuracy: Accuracy | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON result of `kerasft export`."""
        facts = super().to_json()
        proof = facts.pop("proof")
        return {**facts, **proof}


def export_run(
    path: str | Path,
    *,
    to: str | Path | None = None,
    data: str | Path | None = None,
    format: str = DEFAULT,
    quantize: str | None = None,
    max_accuracy_drop: float | None = None,
    least_accuracy: float | None = None,
    progress: Progress = silent,
) -> ExportResult:
    """Exports the model of a run, and proves that the export agrees with it.

    Args:
        path: run directory.
        to: folder of the versions, made if absent. None means "export" in the run for a
            SavedModel, "export-litert", "export-onnx-int8" and so on for others, because TF Serving
            takes the highest version in a folder for a SavedModel. The new version gets the next
            number.
        data: present place of the run's photos, if they were moved.
        format: key of EXPORTERS.
        quantize: "float16" or "int8", for formats that can; None for float32.
        max_accuracy_drop: accuracy on validation that a quantized export may lose, 0 to 1; None
            means the larger of 0.01 and one photo. That of validation, which chose the model, so
            it is a check of the quantization and no figure of quality.
        least_accuracy: accuracy on validation below which nothing is exported; None for any.
        progress: receiver of events, as photos are read ("images") and for the proof ("check").

    Returns:
        Where the export is, and its proof, which `parity.json` in that folder holds too, beside
        MODEL_CARD.md, kerasft.json and labels.txt.

    Raises:
        UserError: not a run, a run without a model, missing photos, no TensorFlow or package of
            the format, an unknown format or a quantization that it hasn't (exit code 2); a folder
            with versions of another format; an export that does not agree, loses too much or
            cannot be written, of which nothing is left behind.
    """
    row = row_of(format, quantize)
    _refuse_shares(quantize, max_accuracy_drop, least_accuracy)
    require_tensorflow()  # before a model is loaded: the export and its proof need it
    row.require((*row.writing, *row.opening))
    of_run = run.open_run(Path(path))
    target.prepare_for(path)
    source_file = run.model_file(of_run)
    to = Path(to or of_run.path / folder_of(format, quantize))
    _refuse_mixture(to, row)
    with _writing(to) as temporary:
        model, written, work = (temporary / name for name in ("model.keras", "version", "parity"))
        written.mkdir()
        work.mkdir()
        bundle.copy(source_file, model)  # training may replace it meanwhile
        opened = bundle.load(model)
        measured = quantize is not None or least_accuracy is not None
        found = open_images(
            of_run, opened.class_names, data=data, some=not measured, progress=progress
        )
        config = load_config(of_run.config_path)
        digest = digest_of_file(model)
        facts = ExportFacts.of(opened, format, quantize, licence_of(config), digest)
        packages = ("keras", "tensorflow", *row.writing, *row.opening)
        versions = {name: importlib.metadata.version(name) for name in packages}
        facts = replace(facts, versions={**facts.versions, **versions})
        write_facts(written, facts)
        write_example(written, format)
        beside = size_of(written)
        calibration = _calibration(found, facts, work) if quantize == "int8" else None
        _write(opened, model, written, facts, calibration, progress)
        size = size_of(written) - beside
        proof = parity.prove(
            written, model, _spread(found, "validation", PHOTOS), work=work, facts=facts,
            progress=progress,
        )  # fmt: skip
        scorer = row.open_scorer(written)
        accuracy = None
        if measured:
            accuracy = accuracy_of(scorer, opened, found, progress)
            refuse_losses(accuracy, facts, max_accuracy_drop, least_accuracy)
        result = ExportResult(
            written, format, quantize, size, latency_ms(scorer, facts), proof, accuracy
        )
        record = {**result.to_json(), "limit": parity.LIMITS[quantize], "versions": facts.versions}
        del record["path"]
        (written / "parity.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        origin = Origin(config, run.read_record(of_run), found.counts())
        name = of_run.path.resolve().name
        card = card_text(name, facts, proof=proof, origin=origin, accuracy=accuracy)
        (written / CARD).write_text(card, "utf-8")
        _sync(written)
        return replace(result, path=_number(written, to))


def folder_of(format: str, quantize: str | None = None) -> str:
    """Returns the name of the folder in a run that holds the exports of a format."""
    parts = ["export", *([] if format == DEFAULT else [format]), *filter(None, [quantize])]
    return "-".join(parts)


def _refuse_shares(quantize: str | None, drop: float | None, least: float | None) -> None:
    """Refuses shares that are none, and a limit of losses where nothing can be lost."""
    for field, value in (("max_accuracy_drop", drop), ("least_accuracy", least)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"expected 0 to 1, got {value}.", field=field, exit_code=2)
    if drop is not None and quantize is None:
        raise UserError(
            "holds for a quantized export only: one in float32 computes what model.keras computes.",
            field="max_accuracy_drop",
            exit_code=2,
        )


def _refuse_mixture(to: Path, row: Exporter) -> None:
    """Refuses a folder of versions of another format: a server would take the highest."""
    for number, (other, _) in sorted(versions_in(to).items()) if to.is_dir() else ():
        if other is not row:
            raise UserError(
                f"{to}: its version {number} is in the format {other.label}, and what serves a "
                f"folder takes its highest version. Choose another folder for {row.label}.",
                field="to",
                exit_code=2,
            )


def _calibration(found: Source, facts: ExportFacts, work: Path) -> Path:
    """Writes pixels of training photos, for int8."""
    paths = _spread(found, "train", CALIBRATION)
    squares, errors = read_squares([read_unchanged(str(path), "") for path in paths], facts.rule)
    for path, error in zip(paths, errors, strict=True):
        if error:
            raise UserError(f"{path}: {error}. It is a photo of the run, needed for int8.")
    np.save(work / "calibration.npy", squares)
    return work / "calibration.npy"


def _write(
    opened: Bundle,
    model: Path,
    folder: Path,
    facts: ExportFacts,
    calibration: Path | None,
    progress: Progress,
) -> None:
    """Writes the export with TensorFlow: in a fresh process if Keras has another backend.

    Args:
        opened: model to export.
        model: file of the same model.
        folder: folder to write into, which holds kerasft.json.
        facts: facts of the export.
        calibration: pixels of training photos, for int8.
        progress: receiver of events of stage "check".
    """
    if keras.backend.backend() == "tensorflow":
        EXPORTERS[facts.format].write(opened, folder, facts, calibration)
        return
    job = ("kerasft.export.export", str(model), str(folder), str(calibration or ""))
    run_fresh({"writes it": job}, folder.parent, what="export", progress=progress)


def _spread(source: Source, split: str, most: int) -> list[Path]:
    """Selects at most `most` images of a split, evenly spaced, so that all classes occur.

    Raises:
        UserError: none of them is there any more.
    """
    of_split = source.indices(split)
    found = [i for i in of_split.tolist() if source.paths[i]]
    if len(found) < len(of_split):
        missing = f"{len(of_split) - len(found):,} of the {count(of_split, f'{split} photo')}"
        if not found:
            raise UserError(
                f"All {split} photos of the run are missing, and the export is proven on some of "
                "them. Pass the folder that they are in now: `data=FOLDER`."
            )
        log.warning("%s are missing: the export is proven on the others.", missing)
    spread = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [source.root / source.paths[found[i]] for i in spread]


@contextlib.contextmanager
def _writing(to: Path) -> Iterator[Path]:
    """Makes a temporary folder in `to`. Removes it afterwards, and a new `to` that stays empty.

    Those of exports that were killed are removed, too.
    """
    there = to.exists()
    try:
        to.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(to)
        # TF Serving ignores folders whose names are not numbers.
        temporary = to / f"{UNPROVEN}{uuid.uuid4().hex}"
        with FileLock(_lock_of(temporary)):  # before the folder: one without it is abandoned
            try:
                temporary.mkdir()
                yield temporary
            finally:
                _remove(temporary)
    except (OSError, tf.errors.OpError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else first_line(error)
        raise UserError(f"{to}: the export can't be written: {reason}.") from error
    finally:
        if not there:
            with contextlib.suppress(OSError):
                to.rmdir()


def _lock_of(temporary: Path) -> Path:
    return temporary.with_name(temporary.name + LOCK)


def _remove_abandoned(to: Path) -> None:
    """Removes the temporary folders of exports whose process has ended, however shortly ago."""
    names = {path.name.removesuffix(LOCK) for path in to.glob(f"{UNPROVEN}*")}
    for temporary in (to / name for name in names):
        with contextlib.suppress(OSError, Timeout), FileLock(_lock_of(temporary), timeout=0):
            _remove(temporary)


def _remove(temporary: Path) -> None:
    """Removes a temporary folder and, while it is held, the lock beside it."""
    shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):  # Windows removes the file when the lock is released
        _lock_of(temporary).unlink()


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


def main(model: str, folder: str, calibration: str) -> None:
    """Exports a model file. Runs in a fresh process."""
    facts = read_facts(Path(folder))
    write = EXPORTERS[facts.format].write
    write(bundle.load(model), Path(folder), facts, Path(calibration) if calibration else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
