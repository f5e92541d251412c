"""The table of answers, a row for each photo, as a CSV file.

Shapes: N images.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasft.files import write_atomic
from kerasft.text import cell


def write_answers_csv(
    path: str | Path,
    photos: Sequence[str],
    labels: Sequence[str] | None,
    predicted: Sequence[str],
    scores: np.ndarray,
    abstain: np.ndarray | None,
) -> None:
    """Writes the columns path, label, predicted, score and abstain, whole or not at all.

    Args:
        path: path of the file; an older one is replaced.
        photos: paths of N images.
        labels: their labels; None leaves the column empty.
        predicted: their predicted labels.
        scores: scores of these, [N].
        abstain: whether the model says "I don't know", bool [N]; None leaves the column empty.

    Raises:
        UserError: the file can't be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "label", "predicted", "score", "abstain"])
    given = labels or [""] * len(photos)
    unsure = [""] * len(photos) if abstain is None else [str(bool(x)).lower() for x in abstain]
    for row in zip(photos, given, predicted, scores.tolist(), unsure, strict=True):
        table.writerow([*map(cell, row[:3]), f"{row[3]:.6f}", row[4]])
    write_atomic(Path(path), text.getvalue())
