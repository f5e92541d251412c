"""A classifier that is to be measured: a model of a run, or an export.

Shapes: N images, B images in a batch, S side of the model's square input, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasft.errors import UserError
from kerasft.export.facts import read_facts
from kerasft.export.formats import find_export
from kerasft.export.scorer import logarithms_of
from kerasft.input_rule import InputRule
from kerasft.models.bundle import Bundle, score
from kerasft.progress import Event, Progress


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier that is to be measured.

    Attributes:
        class_names: names of the K classes, in the order of the scores.
        rule: rule by which an image file becomes its input.
        threshold: score below which it does not know; None if it always answers.
        score: function from batches of pixels [B,S,S,3], the number of images and a receiver of
            events to scores [N,K] and the logits of these scores [N,K].
    """

    class_names: tuple[str, ...]
    rule: InputRule
    threshold: float | None
    score: Callable[[Iterable, int, Progress], tuple[np.ndarray, np.ndarray]]

    def abstains(self, scores: np.ndarray) -> np.ndarray | None:
        """Returns for which images it does not know, bool [N]; None if it always answers."""
        return None if self.threshold is None else scores.max(axis=1) < self.threshold


def of_bundle(opened: Bundle) -> Classifier:
    """Makes a classifier of a model."""

    def compute(batches: Iterable, total: int, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        scores, logits = score(opened, batches, total=total, progress=progress)
        return scores, logits / opened.temperature

    return Classifier(opened.class_names, opened.rule, opened.threshold, compute)


def of_export(folder: Path) -> Classifier:
    """Makes a classifier of an export; its runtime gets the pixels that kerasft reads.

    Args:
        folder: as in `formats.find_export`; it holds one.

    Raises:
        UserError: see `Exporter.open` and `facts.read_facts`.
    """
    found = find_export(folder)
    assert found
    row, place = found
    exported, facts = row.open(place), read_facts(place)

    def compute(batches: Iterable, total: int, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        done = 0
        for pixels in batches:
            scores, logits = exported.pixels(np.asarray(pixels))
            if not np.isfinite(scores).all():
                raise UserError(f"{folder}: its scores are not numbers. Export again.")
            ranks = logarithms_of(scores) if logits is None else logits
            parts.append((scores, ranks / (1.0 if logits is None else facts.temperature)))
            done += len(pixels)
            progress(Event("check", done, max(done, total), figures={"what": "scoring"}))
        scores, ranks = (np.concatenate(part) for part in zip(*parts, strict=True))
        return scores, ranks

    return Classifier(facts.class_names, facts.rule, facts.threshold, compute)
