"""What an export costs: its size, its time, and the accuracy that quantizing it has lost.

Shapes: S side of the model's square input in pixels, K classes.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasft.data.batches import split_batches
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.export.facts import ExportFacts
from kerasft.export.parity import noise_pixels
from kerasft.export.scorer import Scorer
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.progress import Event, Progress
from kerasft.results import Result
from kerasft.text import count


@dataclass(frozen=True)
class Accuracy(Result):
    """Accuracy of an export on the validation photos of its run, beside that of model.keras.

    Attributes:
        n: number of validation photos.
        export: share that the export labels as the run does, 0 to 1.
        model: the same of model.keras.
        coverage: share whose best score reaches the threshold; None without a threshold.
        precision: share of these that the export labels as the run does; None without a threshold,
            or if there are none. The threshold was chosen for the scores of model.keras.
    """

    n: int
    export: float
    model: float
    coverage: float | None = None
    precision: float | None = None


def accuracy_of(scorer: Scorer, opened: Bundle, found: Source, progress: Progress) -> Accuracy:
    """Measures an export and its model on the validation photos, from the same pixels."""
    rows = found.indices("validation")
    labels = found.labels[rows]
    hits = np.zeros(2, int)
    answered, right = 0, 0
    batches = split_batches(found, "validation", rule=opened.rule, batch_size=32)
    start = 0
    for pixels in batches:
        given = labels[start : start + len(pixels)]
        scores, logits = scorer.pixels(np.asarray(pixels))
        ranks = scores if logits is None else logits
        theirs = bundle.compute(opened.scores_and_logits, [pixels])[1]
        hits += [(ranks.argmax(axis=1) == given).sum(), (theirs.argmax(axis=1) == given).sum()]
        if opened.threshold is not None:
            known = scores.max(axis=1) >= opened.threshold
            answered += int(known.sum())
            right += int((known & (ranks.argmax(axis=1) == given)).sum())
        start += len(pixels)
        progress(Event("check", start, len(rows), figures={"what": "accuracy"}))
    n = len(rows)
    coverage = None if opened.threshold is None else answered / n
    precision = right / answered if answered else None
    return Accuracy(n, float(hits[0] / n), float(hits[1] / n), coverage, precision)


def refuse_losses(
    found: Accuracy, facts: ExportFacts, drop: float | None, least: float | None
) -> None:
    """Refuses an export that loses too much, or does not reach what was asked for.

    Args:
        found: accuracy of the export and of its model.
        facts: facts of the export.
        drop: largest loss of a quantized export; None for the larger of 0.01 and one photo.
        least: least accuracy; None for any.

    Raises:
        UserError: both figures, and what was allowed.
    """
    photos = count(found.n, "validation photo")
    allowed = max(0.01, 1 / found.n) if drop is None else drop
    lost = found.model - found.export
    if facts.quantize and lost > allowed + 1e-9:
        raise UserError(
            f"The {facts.quantize} export gets {found.export:.3f} of {photos} "
            f"right, model.keras {found.model:.3f}: it loses {lost:.3f} (allowed: {allowed:.3f}). "
            "Nothing was exported. Allow more with `max_accuracy_drop`, or leave out `quantize`."
        )
    if least is not None and found.export < least:
        raise UserError(
            f"The export gets {found.export:.3f} of {photos} right, and "
            f"at least {least:.3f} was asked for. Nothing was exported."
        )


def size_of(folder: Path) -> int:
    """Returns the number of bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def latency_ms(scorer: Scorer, facts: ExportFacts) -> float:
    """Measures the median time for one image of pixels, in milliseconds, here and now."""
    pixels = noise_pixels(facts.rule.image_size)[:1]
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 25 and (len(times) < 5 or time.perf_counter() - begun < 5):
        start = time.perf_counter()
        scorer.pixels(pixels)
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times[2:]), 2)  # the first ones prepare
