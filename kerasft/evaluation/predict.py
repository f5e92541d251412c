"""Predictions: labels and scores for image files, from a run, a model file or a SavedModel.

Shapes: N files that are images, K classes.
"""

import logging
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.data.batches import image_batches, read_unchanged
from kerasft.data.checks import tell_pages
from kerasft.data.files import examine, for_each_file
from kerasft.data.scan import refuse_edited_classes
from kerasft.errors import UserError
from kerasft.export import scorer
from kerasft.export.formats import find_export
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.target import open_model, prepare_for
from kerasft.pixels.convert import MULTI_PAGE
from kerasft.pixels.images import is_image_content
from kerasft.progress import Event, Progress, silent
from kerasft.results import Result, plain
from kerasft.run import Run
from kerasft.sources.folders import is_image_name, walk
from kerasft.text import count, in_line, printable

BATCH = 32

log = logging.getLogger(__name__)


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
    names = [files] if isinstance(files, str | Path) else files
    found = [entry for name in names for entry in _search(Path(name))]
    paths = [path for path, error in found if not error]
    facts = for_each_file(examine, Path(), paths, progress)
    tell_pages("photos", sum(fact.kind == MULTI_PAGE for fact in facts if not fact.reason))
    reasons = {path: fact.reason for path, fact in zip(paths, facts, strict=True)}
    good = [path for path in paths if not reasons[path]]
    scored = iter(_ranked(*score(good, progress), top) if good else [])
    return [
        Prediction(printable(path), error=error or reasons[path])
        if error or reasons[path]
        else Prediction(printable(path), labels=next(scored))
        for path, error in found
    ]


def _search(path: Path) -> list[tuple[str, str]]:
    """Lists a file, or the images of a folder, as pairs (file, error); "" means no error."""
    if path.is_dir():
        try:
            below = list(walk(path))
        except UserError as error:
            return [(str(path), str(error))]
        found = [name for name in below if is_image_name(name) or _is_image(path / name)]
        _tell_others(path, below, found)
        return [(str(path / name), "") for name in found] or [(str(path), "holds no images")]
    return [(str(path), "" if path.exists() else "no such file")]


def _is_image(path: Path) -> bool:
    """Returns whether a file holds an image, whatever its name is."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return is_image_content(file.read(64))
    except OSError:
        return False


def _tell_others(folder: Path, below: Sequence[str], found: Sequence[str]) -> None:
    """Tells which files of a folder are no images, so that nobody waits for their labels."""
    others = sorted(set(below) - set(found))
    if others:
        log.info(
            "%s: passed over %s that hold no image: %s",
            printable(str(folder)),
            count(others, "file"),
            in_line(others, 5),
        )


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
