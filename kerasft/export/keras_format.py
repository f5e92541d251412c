"""The format Keras: `model.keras` again, for programs that go on with the model in plain Keras.

The file opens with `keras.models.load_model`, in safe mode and without kerasft, and computes with
TensorFlow, JAX or PyTorch: pixels in, scores out.

Shapes: N images, S side of the model's square input in pixels, K classes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasft.errors import UserError
from kerasft.export.facts import ExportFacts, read_facts
from kerasft.export.scorer import Scorer, of_pixels

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle

FILE = "classifier.keras"
"""Name of the file: not that of a run's model.keras, so that no folder is taken for the other."""

BATCH = 32


def write(
    opened: "Bundle", folder: Path, facts: ExportFacts, calibration: Path | None = None
) -> None:
    """Writes FILE: pixels float32 [B,S,S,3], 0 to 255, to scores float32 [B,K].

    Args:
        opened: model to export.
        folder: folder to write into.
        facts: not used; they lie beside the file.
        calibration: not used.
    """
    from kerasft.models import bundle  # loads Keras

    bundle.save(opened, folder / FILE)


def open_scorer(folder: Path) -> Scorer:
    """Opens FILE with Keras, in the backend at hand.

    Raises:
        UserError: the file is damaged, or has other classes than the facts beside it.
    """
    from kerasft.models import bundle

    facts, opened = read_facts(folder), bundle.load(folder / FILE)
    if opened.class_names != facts.class_names:
        raise UserError(
            f"{folder / FILE}: has other classes than kerasft.json beside it. Expected "
            f"{', '.join(facts.class_names)}, got {', '.join(opened.class_names)}. Export again."
        )

    def compute(pixels: np.ndarray) -> np.ndarray:
        starts = range(0, len(pixels), BATCH)
        parts = [pixels[start : start + BATCH] for start in starts]
        scores = bundle.compute(opened.model, parts)
        assert isinstance(scores, np.ndarray)  # the model has one output
        return scores

    return of_pixels(compute, facts, batch=None)
