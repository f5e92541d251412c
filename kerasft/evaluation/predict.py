"""Predictions: labels and scores for image files, from a run, a model file or an export.

Shapes: N files that are images, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.answers import answers_csv
from kerasft.data.batches import image_batches, read_unchanged
from kerasft.data.scan import refuse_edited_classes
from kerasft.errors import UserError
from kerasft.evaluation.photo_files import find_photos
from kerasft.export import scorer
from kerasft.export.formats import open_export
from kerasft.files import refuse_no_file, write_atomic
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.target import open_model, prepare_for
from kerasft.novelty import known
from kerasft.novelty.known import Known
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
        abstain: whether the best score is below the model's threshold, so that it does not know;
            None for a model that always answers.
        distance: distance to the nearest training photo, 0 to 2 (`novelty/known.py`); None if
            the run keeps none, or there is no run.
        novel: whether that distance is larger than almost all of the validation photos have.
    """

    file: str
    labels: tuple[Label, ...] = ()
    error: str = ""
    abstain: bool | None = None
    distance: float | None = None
    novel: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the object that stands for the file in the JSON result of `kerasft predict`."""
        if self.error:
            return {"file": self.file, "error": self.error}
        doubts = {"abstain": self.abstain, "novel": self.novel, "distance": self.distance}
        there = {name: value for name, value in doubts.items() if value is not None}
        return {"file": self.file, "predictions": plain(self.labels), **there}


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model says about N files.

    Attributes:
        scores: [N,K].
        ranks: what ranks the classes, [N,K]: the logits, as the score of many a class is 0 in
            float32.
        names: K names of classes.
        abstain: bool [N]; None for a model that always answers.
        distances: distances to the nearest training photo, [N]; None if none is known.
        novel: bool [N], as in Prediction.
        errors: N reasons why a file could not be read, "" for the others; () if all were.
    """

    scores: np.ndarray
    ranks: np.ndarray
    names: Sequence[str]
    abstain: np.ndarray | None = None
    distances: np.ndarray | None = None
    novel: np.ndarray | None = None
    errors: Sequence[str] = ()

    def prediction(self, i: int, file: str, top: int) -> Prediction:
        """Returns the best labels of a file, best first; ties are in the order of the classes."""
        if self.errors and self.errors[i]:
            return Prediction(file, error=self.errors[i])
        best = np.argsort(-self.ranks[i], kind="stable")[:top]
        return Prediction(
            file,
            labels=tuple(Label(self.names[k], float(self.scores[i, k])) for k in best),
            abstain=None if self.abstain is None else bool(self.abstain[i]),
            distance=None if self.distances is None else round(float(self.distances[i]), 6),
            novel=None if self.novel is None else bool(self.novel[i]),
        )


Scorer = Callable[[list[str], Progress], Scored]
"""A function from N files, at least one, to what a model says about them."""


def predict(
    target: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    csv: str | Path | None = None,
    progress: Progress = silent,
) -> list[Prediction]:
    """Predicts the classes of image files.

    Args:
        target: run directory, model file, export of any format (or the folder of its versions,
            of which the highest is used), "imagenet:NAME", or a file that `import-caffe` or
            `import-torch` wrote.
        files: file or folder, or several of them. Folders are searched for images, including
            nested folders.
        top: number of labels for each file, at least 1; at most K are returned.
        csv: file for a table of all files that could be read, a row each: path, label (empty),
            predicted, score, abstain; None writes none.
        progress: receiver of events, as files are read ("images") and predicted ("check").

    Returns:
        A Prediction for each file, in the order of `files`, sorted within a folder.

    Raises:
        UserError: `top` below 1 (exit code 2); a run whose classes.txt was edited; see also
            `target.open_model`.
    """
    if top < 1:
        raise UserError(f"top: expected 1 or more, got {top}.", exit_code=2)
    if csv is not None:
        refuse_no_file(Path(csv), "csv")
    prepare_for(target)
    score = _open(target)
    found = find_photos(files, progress)
    good = [photo.file for photo in found if not photo.error]
    said = score(good, progress) if good else None
    if csv is not None:
        _write_csv(csv, [printable(path) for path in good], said)
    places = iter(range(len(good)))
    return [
        Prediction(printable(photo.file), error=photo.error)
        if photo.error or said is None
        else said.prediction(next(places), printable(photo.file), top)
        for photo in found
    ]


def _write_csv(path: str | Path, good: Sequence[str], said: Scored | None) -> None:
    """Writes the table of the files that could be read, which may be none."""
    if said is None:
        write_atomic(Path(path), answers_csv([], None, [], np.zeros(0), None))
        return
    read = [i for i in range(len(good)) if not (said.errors and said.errors[i])]
    best = said.ranks[read].argmax(axis=1)
    predicted, top = [said.names[k] for k in best], said.scores[read, best]
    unsure = None if said.abstain is None else said.abstain[read]
    text = answers_csv([good[i] for i in read], None, predicted, top, unsure)
    write_atomic(Path(path), text)


def _open(target: str | Path) -> Scorer:
    exported = open_export(Path(target))
    if exported:
        return _of_export(exported)
    opened = open_model(target)
    if Path(target).is_dir():
        refuse_edited_classes(Run(Path(target)), opened.class_names)
        return _of_bundle(opened, known.load_beside(Run(Path(target)).known_path, opened))
    return _of_bundle(opened)


def _of_bundle(opened: Bundle, seen: Known | None = None) -> Scorer:
    def score(paths: list[str], progress: Progress) -> Scored:
        batches = image_batches(paths, rule=opened.rule, batch_size=BATCH)
        scores, logits, *features = bundle.compute(
            seen.beside(opened) if seen else opened.scores_and_logits,
            batches,
            total=len(paths),
            what="predicting",
            progress=progress,
        )
        abstain = opened.abstains(scores)
        if seen is None:
            return Scored(scores, logits, opened.class_names, abstain)
        far = seen.distances(features[0])
        return Scored(scores, logits, opened.class_names, abstain, far, far > seen.threshold)

    return score


def _of_export(export: scorer.Scorer) -> Scorer:
    """Makes a scorer from an export, which decodes the files itself.

    Exports of older versions of kerasft rank by scores, because they give no logits with them.
    """

    def score(paths: list[str], progress: Progress) -> Scored:
        answers = []
        for start in range(0, len(paths), BATCH):
            encoded = [read_unchanged(path, "") for path in paths[start : start + BATCH]]
            answers.append(export.files(encoded))
            done = start + len(encoded)
            progress(Event("check", done, len(paths), figures={"what": "predicting"}))
        scores = np.concatenate([answer.scores for answer in answers])
        logits = [answer.logits for answer in answers if answer.logits is not None]
        ranks = np.concatenate(logits) if logits else scores
        abstain = [answer.abstain for answer in answers if answer.abstain is not None]
        unsure = np.concatenate(abstain) if abstain else None
        errors = [error for answer in answers for error in answer.errors]
        return Scored(scores, ranks, answers[-1].labels, unsure, errors=errors)

    return score
