"""Exports of runs, each with its proof.

The folder has TF Serving's layout, `DIR/1`, `DIR/2`, ... A version appears complete, and only
after `parity.py` has proven that it computes the same as model.keras.
"""

import contextlib
import errno
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft import run
from kerasft.config.load import load_config
from kerasft.data.scan import open_images
from kerasft.data.source import Source
from kerasft.errors import UserError, did_you_mean
from kerasft.export import parity
from kerasft.export.card import FILE as CARD
from kerasft.export.card import Origin, card_text
from kerasft.export.formats import DEFAULT, EXPORTERS
from kerasft.export.parity import Proof
from kerasft.lazy_tensorflow import require_tensorflow, tf
from kerasft.models import bundle, target
from kerasft.models.bundle import Bundle
from kerasft.processes import run_fresh
from kerasft.progress import Progress, silent
from kerasft.results import Result

PHOTOS = 64
"""Maximum number of validation images in the parity proof."""


@dataclass(frozen=True)
class ExportResult(Result):
    """An export that was proven.

    Attributes:
        path: folder of the new version.
        format: key of EXPORTERS.
        proof: agreement of the export with model.keras.
    """

    path: Path
    format: str
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON result of `kerasft export`."""
        return {"path": str(self.path), **self.proof.to_json()}


def export_run(
    path: str | Path,
    *,
    to: str | Path | None = None,
    data: str | Path | None = None,
    format: str = DEFAULT,
    progress: Progress = silent,
) -> ExportResult:
    """Exports the model of a run, and proves that the export agrees with it.

    Args:
        path: run directory.
        to: folder of the versions, made if absent; None means "export" in the run. The new
            version gets the next number.
        data: present place of the run's photos, if they were moved.
        format: key of EXPORTERS.
        progress: receiver of events, as photos are read ("images") and for the proof ("check").

    Returns:
        Where the export is, and its proof, which `parity.json` in that folder holds too, beside
        MODEL_CARD.md.

    Raises:
        UserError: not a run, a run without a model, missing photos, no TensorFlow, an unknown
            format (exit code 2); an export that does not agree or cannot be written, of which
            nothing is left behind.
    """
    if format not in EXPORTERS:
        raise UserError(
            f"expected one of {', '.join(EXPORTERS)}, got '{format}'."
            f"{did_you_mean(format, EXPORTERS)}",
            field="format",
            exit_code=2,
        )
    require_tensorflow()  # before a model is loaded: the export and its proof need it
    of_run = run.open_run(Path(path))
    target.prepare_for(path)
    source_file = run.model_file(of_run)
    to = Path(to or of_run.path / "export")
    with _writing(to) as temporary:
        model, written, work = (temporary / name for name in ("model.keras", "version", "parity"))
        work.mkdir()
        bundle.copy(source_file, model)  # training may replace it meanwhile
        opened = bundle.load(model)
        found = open_images(of_run, opened.class_names, data=data, progress=progress)
        _write(format, opened, model, written, progress)
        proof = parity.prove(
            format,
            written,
            model,
            _photos(found),
            work=work,
            class_names=opened.class_names,
            rule=opened.rule,
            threshold=opened.threshold,
            progress=progress,
        )
        versions = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow")}
        record = {**proof.to_json(), "limit": parity.LIMIT, "versions": versions}
        (written / "parity.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        origin = Origin(load_config(of_run.config_path), run.read_record(of_run), found.counts())
        name = of_run.path.resolve().name
        card = card_text(name, opened.class_names, opened.rule, proof=proof, origin=origin)
        (written / CARD).write_text(card, "utf-8")
        _sync(written)
        return ExportResult(_number(written, to), format, proof)


def _write(format: str, opened: Bundle, model: Path, folder: Path, progress: Progress) -> None:
    """Writes the export with TensorFlow: in a fresh process if Keras has another backend.

    Args:
        format: key of EXPORTERS.
        opened: model to export.
        model: file of the same model.
        folder: folder to create in an existing folder.
    """
    if keras.backend.backend() == "tensorflow":
        EXPORTERS[format].write(opened, folder)
        return
    job = ("kerasft.export.export", format, str(model), str(folder))
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


def main(format: str, model: str, folder: str) -> None:
    """Exports a model file. Runs in a fresh process."""
    EXPORTERS[format].write(bundle.load(model), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
