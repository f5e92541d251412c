"""Calibration of a finished run: its temperature, its threshold for "I don't know", known photos.

Training does the first and the last by itself at the end of each phase (`calibrate = true`). The
command fits the temperature anew, sets a threshold, and serves runs of older versions.

Shapes: N images, K classes, F features.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kerasft import confidence, run
from kerasft.confidence import Abstention, Calibration
from kerasft.config.load import load_config
from kerasft.data.scan import open_images
from kerasft.data.source import Source
from kerasft.data.splits import units_of_split
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import batches_of
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.bundle import Bundle, score
from kerasft.models.net import Net
from kerasft.models.target import prepare_for
from kerasft.models.tta import with_temperature
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.progress import Progress, silent
from kerasft.record import RunRecord
from kerasft.results import Result

log = logging.getLogger("kerasft")


@dataclass(frozen=True)
class Calibrated(Result):
    """The result of calibrating a run.

    Attributes:
        run: the run directory.
        calibration: temperature, and the figures before and after it.
        abstention: threshold of "I don't know"; None if none is set.
        lacking: sentence that says why the promised precision can't be shown; None if it can, or
            was not asked for.
        known: number of training photos that new photos are compared with; None if there are none.
    """

    run: Path
    calibration: Calibration
    abstention: Abstention | None
    lacking: str | None
    known: int | None


def calibrate_run(
    path: str | Path,
    *,
    abstain_at: float | None = None,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> Calibrated:
    """Fits a run's temperature on validation and, if asked for, a threshold of "I don't know".

    model.keras is replaced, whole or not at all; its weights stay. A threshold that was set before
    is dropped if none is asked for now. If the temperature changes, the figures on test in run.json
    are measured again.

    Args:
        path: run directory.
        abstain_at: precision that answers are to have, more than 0.5 and less than 1: the model
            gets the lowest threshold at which validation shows it with 95% confidence. None: no
            threshold.
        data: present place of the run's photos, if they were moved.
        progress: receiver of events, as photos are read ("images") and scored ("check").

    Raises:
        UserError: a precision outside of these limits (exit code 2); not a run, or one without a
            model; missing photos; another process works in the run.
    """
    if abstain_at is not None and not 0.5 < abstain_at < 1:
        raise UserError(
            f"expected a precision above 0.5 and below 1, got {abstain_at:g}.",
            field="abstain_at",
            exit_code=2,
        )
    of_run = run.open_run(Path(path))
    with run.lock(of_run):
        prepare_for(path)
        file = run.model_file(of_run)
        before, record = bundle.load(file), run.read_record(of_run)
        found = open_images(of_run, before.class_names, data=data, progress=progress)
        positions = found.indices("validation")
        if not len(positions):
            raise UserError(f"{path}: has no validation images, which calibration needs.")
        labels = found.labels[positions]
        scores, logits = score(
            before,
            batches_of(found, "validation", before.rule),
            total=len(labels),
            progress=progress,
        )
        units = units_of_split(found, "validation")
        calibration = confidence.calibrate(logits, labels, units)
        abstention, lacking = None, None
        if abstain_at is not None:
            scores = confidence.softmax(logits / calibration.temperature)
            hits = logits.argmax(axis=1) == labels
            best = scores.max(axis=1)
            abstention, lacking = confidence.abstain_at(abstain_at, best, hits, units)
        if before.abstention and not abstention:
            log.info(
                "The threshold of %.3f that the run had is dropped.", before.abstention.threshold
            )
        sure = replace(
            before,
            model=with_temperature(before.model, calibration.temperature),
            abstention=abstention,
        )
        seen = known.load(of_run.known_path)
        if seen is None and (seen := _known(of_run, record, before, found, progress)):
            known.save(seen, of_run.known_path)
        measured = record.calibration.temperature if record.calibration else 1.0
        if record.test and calibration.temperature != measured:
            record = record.with_test(_on_test(sure, found, progress))
        # One after the other, when all is known: an interruption before leaves the run as it was.
        bundle.save(sure, file)
        run.write_record(of_run, replace(record, calibration=calibration, abstention=abstention))
    count = None if seen is None or seen.features is None else len(seen.features)
    return Calibrated(of_run.path, calibration, abstention, lacking, count)


def _on_test(opened: Bundle, found: Source, progress: Progress) -> Figures:
    """Measures the model on test again: a temperature changes the log loss."""
    labels = found.labels[found.indices("test")]
    batches = batches_of(found, "test", opened.rule)
    _, logits = score(opened, batches, total=len(labels), progress=progress)
    return Figures.by_class(logits / opened.temperature, labels, opened.class_names)


def _known(
    of_run: run.Run, record: RunRecord, opened: Bundle, found: Source, progress: Progress
) -> Known | None:
    """Computes the pretrained features of the training photos, where no block was trained."""
    config = load_config(of_run.config_path)
    kept = [phase for phase in record.phases if phase.improved]
    if config.model.weights == "none" or any(phase.blocks != 0 for phase in kept):
        return None
    begun = known.begin(Net.of(opened.model, config.model.backbone), 0, 0, None)
    if begun is None:
        return None
    features = keras.Model(opened.model.inputs[0], opened.model.get_layer(begun.layer).output)

    def of(split: str) -> np.ndarray:
        batches, total = batches_of(found, split, opened.rule), len(found.indices(split))
        return np.asarray(
            bundle.compute(features, batches, total=total, what="features", progress=progress)
        )

    return known.complete(begun, of("train"), of("validation"))
