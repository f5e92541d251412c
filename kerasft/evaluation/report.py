"""The report of a run: one split is scored, looked at closely, and written as a page.

Shapes: N photos of the split, T training photos, F features, S side of the model's square input.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import keras
import numpy as np

from kerasft import run as runs
from kerasft.data import scan
from kerasft.data.batches import ImageBatches, image_batches, split_batches
from kerasft.data.known import warn_about_moves
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import count_test
from kerasft.evaluation.explain import heat_maps, overlay
from kerasft.files import refuse_no_file
from kerasft.heads.trained import features_of
from kerasft.models.bundle import Bundle, compute, score_with
from kerasft.models.target import open_model, prepare_for
from kerasft.models.tta import trained_part
from kerasft.novelty import known
from kerasft.novelty.known import Known, unit
from kerasft.progress import Progress, silent
from kerasft.reports.measured import Scored
from kerasft.reports.run_page import (
    Closer,
    Content,
    close_photos,
    scored_photos,
    write_page_of,
)
from kerasft.results import Result
from kerasft.run import REPORT

SPLITS = ("validation", "test")
NEAREST = 3
"""Number of training photos that are shown beside a photo."""

MOST_TRAINING = 2000
"""Largest number of training photos that are compared with; of more, every n-th is taken."""

BATCH = 32


@dataclass(frozen=True)
class RunReport(Result):
    """The page that was written.

    Attributes:
        path: path of the page.
        split: split whose photos are shown with their predictions.
        accuracy: share of its photos whose label has the highest logit, 0 to 1.
        bytes: size of the page.
        seconds: time that it took.
    """

    path: Path
    split: str
    accuracy: float
    bytes: int
    seconds: float


def report_run(
    run: str | Path,
    *,
    split: str = "validation",
    to: str | Path | None = None,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> RunReport:
    """Writes the report of a run: one HTML file that loads nothing from elsewhere.

    Args:
        run: directory of a run that has finished a phase.
        split: "validation" or "test": the split whose mistakes are shown. The run.json counts how
            often its test split was scored.
        to: path of the HTML file; None is report.html in the run.
        data: present place of the run's photos, if they were moved.
        progress: receiver of events, as images are read ("images") and scored ("check").

    Raises:
        UserError: another split, or a folder as `to` (exit code 2); not a run, or one without a
            model; photos that are missing or have changed; no images in the split.
    """
    began = time.perf_counter()
    if split not in SPLITS:
        raise UserError(f"expected validation or test, got '{split}'.", field="split", exit_code=2)
    of_run = runs.open_run(Path(run))
    path = of_run.path / REPORT if to is None else Path(to)
    refuse_no_file(path, "to")
    prepare_for(run)
    opened = open_model(run)
    source = scan.open_images(of_run, opened.class_names, data=data, progress=progress)
    warn_about_moves(str(run), source, split)
    total = len(source.indices(split))
    if not total:
        raise UserError(f"{run}: no images in the {split} split.")
    batches = split_batches(source, split, rule=opened.rule, batch_size=BATCH)
    seen = known.load_beside(of_run.known_path, opened)
    model = seen.beside(opened) if seen else opened.scores_and_logits
    scores, logits, *features = score_with(model, batches, total=total, progress=progress)
    unlike = _unlike(seen, features[0]) if seen else None
    if split == "test":
        count_test(of_run)
    scored = scored_photos(source, split, scores, logits, opened.temperature)
    content = Content(of_run, runs.read_record(of_run), source, scored)
    worst, unsure = close_photos(scored)
    closer = _look_closer(opened, source, scored, worst + unsure, progress)
    closer = replace(closer, unlike=unlike)
    size = write_page_of(path, content, closer=closer)
    seconds = round(time.perf_counter() - began, 2)
    return RunReport(path, split, scored.figures.accuracy, size, seconds)


def _look_closer(
    opened: Bundle, source: Source, scored: Scored, photos: Sequence[int], progress: Progress
) -> Closer:
    """Computes heat maps and nearest training photos of some photos.

    Args:
        opened: the model.
        source: the photos of its run.
        scored: the scored photos.
        photos: photos to look at, 0 to N-1.
        progress: receiver of events of stage "check".
    """
    train = source.indices("train")
    train = train[:: max(1, -(-len(train) // MOST_TRAINING))]
    stretched = opened.rule.resize == "stretch"
    if not photos:
        return Closer(compared=len(train), stretched=stretched)
    own = scored.positions[list(photos)]
    pixels = np.concatenate(list(_pixels(opened, source, own)))
    note, heat = "", {}
    try:
        maps = heat_maps(opened, pixels, scored.predicted[list(photos)])
        heat = dict(zip(photos, overlay(pixels, maps), strict=True))
    except UserError as error:  # a head of neighbours has no gradient
        note = str(error)
    model = trained_part(opened.model)
    features = compute(
        keras.Model(model.inputs[0], features_of(model)),
        chain([pixels], _pixels(opened, source, train)),
        total=len(pixels) + len(train),
        what="features",
        progress=progress,
    )
    rows = np.asarray(features)
    nearest = nearest_of(rows[: len(pixels)], rows[len(pixels) :], NEAREST)
    return Closer(
        heat=heat,
        nearest={
            photo: [(int(train[place]), similarity) for place, similarity in row]
            for photo, row in zip(photos, nearest, strict=True)
        },
        note=note,
        compared=len(train),
        stretched=stretched,
    )


def _unlike(seen: Known, features: np.ndarray) -> list[tuple[int, float]]:
    """Finds the photos that are unlike all training photos, from features [N,F], farthest first."""
    far = seen.distances(features)
    there = np.flatnonzero(far > seen.threshold)
    order = there[np.argsort(-far[there], kind="stable")]
    return [(int(i), float(far[i])) for i in order]


def _pixels(opened: Bundle, source: Source, positions: np.ndarray) -> ImageBatches:
    """Returns photos by their positions in the source, as the model takes them."""
    return image_batches(
        [source.root / source.paths[i] for i in positions.tolist()],
        rule=opened.rule,
        batch_size=BATCH,
        digests=[source.digests[i] for i in positions.tolist()],
    )


def nearest_of(
    features: np.ndarray, training: np.ndarray, most: int
) -> list[list[tuple[int, float]]]:
    """Finds the training photos with the most similar features.

    Args:
        features: features of photos, float32 [N,F].
        training: features of training photos, float32 [T,F].
        most: largest number of training photos for each photo.

    Returns:
        For each photo, positions 0 to T-1 and cosine similarities, the most similar first.
    """
    similar = unit(features) @ unit(training).T
    order = np.argsort(-similar, axis=1, kind="stable")[:, :most]
    return [
        [(i, float(row[i])) for i in own.tolist()] for row, own in zip(similar, order, strict=True)
    ]
