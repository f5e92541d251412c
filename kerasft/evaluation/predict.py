"""Predictions: labels and scores for image files, from a run, a model file or a SavedModel.

Shapes: N files that are images, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.data.batches import image_batches, read_unchanged
from kerasft.data.scan import refuse_edited_classes
from kerasft.errors import UserError
from kerasft.evaluation.photo_files import find_photos
from kerasft.export import scorer
from kerasft.export.formats import find_export
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.target import open_model, prepare_for
from kerasft.progress import Event, Progress, silent
from kerasft.results import Result, plain
from kerasft.run import Run
from kerasft.text import printable

BATCH = 32


@dataclass(frozen=True)
class Label(Result):
    """A label, and its score, 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The best labels of an image file, or why there are none.

    Attributes:
        file: path of the file.
        labels: best labels, the highest logit first; () for a file that cannot be read.
        error: why the file cannot be read; "" where it can.
    """

    file: str
    labels: tuple[Label, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the object that stands for the file in the JSON result of `kerasft predict`."""
        if self.error:
            return {"file": self.file, "error": self.error}
        return {"file": self.file, "predictions": plain(self.labels)}


Scorer = Callable[[list[str], Progress], tuple[np.ndarray, np.ndarray, Sequence[str]]]
"""A function from N files, at least one, to their scores [N,K], what ranks the classes [N,K], and
the K class names. The logits rank them: the score of many a class is 0 in float32."""


def predict(
    target: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    progress: Progress = silent,
) -> list[Prediction]:
    """Predicts the classes of image files.

    Args:
        target: run directory, model file, SavedModel that kerasft exported (or the folder of its
            versions, of which the highest is used), "imagenet:NAME", or a file that
            `import-caffe` or `import-torch` wrote.
        files: file or folder, or several of them. Folders are searched for images, including
            nested folders.
        top: number of labels for each file, at least 1; at most K are returned.
        progress: receiver of events, as files are read ("images") and predicted ("check").

    Returns:
        A Prediction for each file, in the order of `files`, sorted within a folder.

    Raises:
        UserError: `top` below 1 (exit code 2); a run whose classes.txt was edited; see also
            `target.open_model`.
    """
    if top < 1:
        raise UserError(f"top: expected 1 or more, got {top}.", exit_code=2)
    prepare_for(target)
    score = _open(target)
    found = find_photos(files, progress)
    good = [photo.file for photo in found if not photo.error]
    scored = iter(_ranked(*score(good, progress), top) if good else [])
    return [
        Prediction(printable(photo.file), error=photo.error)
        if photo.error
        else Prediction(printable(photo.file), labels=next(scored))
        for photo in found
    ]


def _open(target: str | Path) -> Scorer:
    found = find_export(Path(target))
    if found:
        exporter, folder = found
        return _of_export(exporter.open_scorer(folder))
    opened = open_model(target)
    if Path(target).is_dir():
        refuse_edited_classes(Run(Path(target)), opened.class_names)
    return _of_bundle(opened)


def _of_bundle(opened: Bundle) -> Scorer:
    def score(paths: list[str], progress: Progress) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
        batches = image_batches(paths, rule=opened.rule, batch_size=BATCH)
        scores, logits = bundle.compute(
            opened.scores_and_logits,
            batches,
            total=len(paths),
            what="predicting",
            progress=progress,
        )
        return scores, logits, opened.class_names

    return score


def _of_export(export: scorer.Scorer) -> Scorer:
    """Makes a scorer from an export, which decodes the files itself.

    Exports of older versions of kerasft rank by scores, because they give no logits with them.
    """

    def score(paths: list[str], progress: Progress) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
        answers = []
        for start in range(0, len(paths), BATCH):
            encoded = [read_unchanged(path, "") for path in paths[start : start + BATCH]]
            answers.append(export.files(encoded))
            done = start + len(encoded)
            progress(Event("check", done, len(paths), figures={"what": "predicting"}))
        scores = np.concatenate([answer.scores for answer in answers])
        logits = [answer.logits for answer in answers if answer.logits is not None]
        return scores, np.concatenate(logits) if logits else scores, answers[-1].labels

    return score


def _ranked(
    scores: np.ndarray, ranks: np.ndarray, names: Sequence[str], top: int
) -> Iterator[tuple[Label, ...]]:
    """Yields the best labels of each row, best first; ties are in the order of the classes."""
    for row, by in zip(scores, ranks, strict=True):
        best = np.argsort(-by, kind="stable")[:top]
        yield tuple(Label(names[i], float(row[i])) for i in best)
