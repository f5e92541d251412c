"""Tables of answers as CSV: a row for each photo, with its label and what a model says of it.

A review table holds photos that a person is to label.

Shapes: N images, K classes.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kerasft.errors import UserError
from kerasft.files import reason_of
from kerasft.rows import open_csv
from kerasft.text import cell

COLUMNS = ["path", "label", "predicted", "score", "abstain"]


def answers_csv(
    photos: Sequence[str],
    labels: Sequence[str] | None,
    predicted: Sequence[str],
    scores: np.ndarray,
    abstain: np.ndarray | None,
) -> str:
    """Returns the text of a table with the columns path, label, predicted, score and abstain.

    Args:
        photos: paths of N images.
        labels: their labels; None leaves the column empty.
        predicted: their predicted labels.
        scores: scores of these, [N].
        abstain: whether the model says "I don't know", bool [N]; None leaves the column empty.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    given = labels or [""] * len(photos)
    unsure = [""] * len(photos) if abstain is None else [str(bool(x)).lower() for x in abstain]
    for row in zip(photos, given, predicted, scores.tolist(), unsure, strict=True):
        table.writerow([*map(cell, row[:3]), f"{row[3]:.6f}", row[4]])
    return text.getvalue()


def split_csv(
    photos: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray,
    logits: np.ndarray,
    abstain: np.ndarray | None = None,
) -> str:
    """Returns the text of the table of a split, from the scores and logits of a model.

    Args:
        photos: paths of N images.
        labels: int [N], positions in `class_names`.
        class_names: K names.
        scores, logits: [N,K]; the highest logit is the prediction.
        abstain: see `answers_csv`.
    """
    best = logits.argmax(axis=1)
    given, predicted = ([class_names[k] for k in some] for some in (labels, best))
    return answers_csv(photos, given, predicted, scores[np.arange(len(best)), best], abstain)


REVIEW = ["path", "guess", "score", "why", "label"]
"""Columns of a table for a person who labels photos: rows without a label are not labelled yet."""


def review_rows(photos: Sequence[tuple[str, str, float, str]]) -> list[list[str]]:
    """Returns the rows of a table of photos to be labelled, without the column label.

    Args:
        photos: path of each photo below the table's folder, its predicted label, the score of that,
            and why it is worth a look.
    """
    return [
        # The path is read again: `./` keeps it from being a formula, or from losing a blank.
        [
            path if cell(path) == path == path.strip() else f"./{path}",
            str(cell(guess)),
            f"{score:.6f}",
            str(cell(why)),
        ]
        for path, guess, score, why in photos
    ]


def review_csv(rows: Sequence[Sequence[str]]) -> str:
    """Returns the text of a table of photos to be labelled, with an empty column label."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([REVIEW, *([*row, ""] for row in rows)])
    return text.getvalue()


def is_review(names: Iterable[str]) -> bool:
    """Returns whether columns are those of a table of photos to be labelled, in any order.

    A spreadsheet may have moved them, or others beside them.
    """
    return {"path", "guess", "why", "label"} <= {name.strip().lower() for name in names}


def read_review(table: Path) -> dict[str, str] | None:
    """Reads the label of each photo, "" for none, from a table of photos to be labelled.

    Returns:
        Path below the table's folder -> label, in the order of the table; None if the file is no
        such table.

    Raises:
        UserError: it is no CSV file.
    """
    with open_csv(table) as opened:
        if not is_review(opened.header):
            return None
        names = [name.strip().lower() for name in opened.header]
        rows = [row for _, row in opened.rows([names.index("path"), names.index("label")]) if row]
    return {path.removeprefix("./"): label.strip() for path, label in rows}


def read_labels(path: Path) -> list[tuple[str, str]]:
    """Reads label and predicted label of each photo from a table with labels.

    Raises:
        UserError: the file is missing, or no such table.
    """
    return [(label, predicted) for _, label, predicted, *_ in _rows(path)]


def with_names(path: Path, names: Mapping[str, str]) -> str:
    """Returns the text of a table with labels, in which classes have other names.

    Args:
        path: the table.
        names: name of each class -> its new name.

    Raises:
        UserError: the file is missing, no such table, or has other classes.
    """
    of_cell = {str(cell(name)): new for name, new in names.items()}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for photo, label, predicted, *rest in _rows(path):
        if not {label, predicted} <= set(of_cell):
            raise UserError(f"{path} is damaged: it has other classes than its run.")
        table.writerow([photo, cell(of_cell[label]), cell(of_cell[predicted]), *rest])
    return text.getvalue()


def _rows(path: Path) -> list[list[str]]:
    """Reads the rows of a table below its title; raises UserError as `read_labels` does."""
    try:
        rows = list(csv.reader(io.StringIO(path.read_text("utf-8"), newline=""), strict=True))
    except OSError as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    if not rows or rows[0] != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(f"{path} is damaged: expected rows of {','.join(COLUMNS)}.")
    return rows[1:]
