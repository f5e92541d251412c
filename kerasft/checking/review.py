"""New photos without labels: those worth a person's minute, as a table and a page to label them.

    review.csv   path, guess, score, why and an empty label, a row for each photo
    review.html  the same photos, with a key for each class, which gives the table filled

Shapes: N new photos, M known training photos, F features, K classes.
"""

import itertools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasft.answers import read_review, review_csv, review_rows
from kerasft.checking.features import LabelSuspect, suspects_of
from kerasft.config.load import load_config
from kerasft.config.source_names import kind_of
from kerasft.data.batches import image_batches
from kerasft.data.splits import read_rows
from kerasft.errors import UserError
from kerasft.evaluation.photo_files import PhotoFile, open_beside, open_inbox
from kerasft.files import write_atomic
from kerasft.models.bundle import Bundle, score_with
from kerasft.novelty import known
from kerasft.novelty.choice import choose, farthest
from kerasft.novelty.known import Known
from kerasft.progress import Progress, silent
from kerasft.reports.review_page import write_review
from kerasft.results import Result
from kerasft.run import Run
from kerasft.sources.find import find_photos
from kerasft.text import count, printable

log = logging.getLogger("kerasft")

BATCH = 32
NOVEL = 4  # one of so many chosen photos, at most, is there because it is unlike all known ones
MOST = 500  # photos of a page


@dataclass(frozen=True)
class ReviewPhoto(Result):
    """A photo that is worth a look.

    Attributes:
        path: its path below the inbox, with forward slashes.
        guess: its predicted label.
        score: score of that, 0 to 1.
        why: why it was chosen, for people.
        novel: whether it is unlike all training photos, as in `predict`.
    """

    path: str
    guess: str
    score: float
    why: str
    novel: bool


@dataclass(frozen=True)
class Review(Result):
    """The photos that a person is to label, and where they are written.

    Attributes:
        run: the run directory.
        inbox: the folder of new photos.
        table: the table, in the inbox, with an empty column label.
        page: the page to label them, beside it.
        classes: classes of the run.
        photos: the chosen photos: some that are unlike all training photos, then the most unsure.
        n: number of new photos that they were chosen from.
        asked_before: number of photos that a person has labelled, or passed over, in an earlier
            table of the inbox; left out.
        copies: photos with the pixels of a photo of the run or of another new one; left out.
        errors: files that cannot be read.
        suspects: training photos of the run whose own label may be wrong, the worst first.
        unchecked: why there are no suspects; "" if the labels were checked.
    """

    run: Path
    inbox: Path
    table: Path
    page: Path
    classes: tuple[str, ...]
    photos: tuple[ReviewPhoto, ...]
    n: int
    asked_before: int
    copies: tuple[str, ...]
    errors: tuple[PhotoFile, ...]
    suspects: tuple[LabelSuspect, ...]
    unchecked: str


def review_run(
    path: str | Path, inbox: str | Path, *, n: int = 60, progress: Progress = silent
) -> Review:
    """Chooses new photos for a person to label, and writes a table and a page of them.

    Both lie in the inbox: review.csv and review.html, or review-2, -3, ... where a table with that
    name has labels already, or a file with the page's name is there. A table without any is
    replaced.

    Args:
        path: run directory.
        inbox: folder of photos, including nested folders.
        n: number of photos to choose, 1 to 500; fewer are chosen where there are not as many.
        progress: receiver of events, as files are read ("images") and computed ("check").

    Raises:
        UserError: n out of range, no such folder, or a file (exit code 2); no photo can be read,
            or all are photos of the run; not a run, or one without a model; the inbox can't be
            written to.
    """
    if not 1 <= n <= MOST:
        raise UserError(f"n: expected 1 to {MOST}, got {n}.", exit_code=2)
    folder = Path(inbox)
    of_run, opened, seen = open_beside(path, folder)
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} can't be written to. A table and a page have to be.")
    _refuse_inside(of_run, folder)
    photos = read_rows(of_run.splits_path, len(opened.class_names))
    of_the_run = {one for row in photos for one in (row[3], row[5]) if one}

    found = open_inbox(folder, of_the_run, progress)
    table, asked = _tables(folder)
    fresh = [file for file in found.fresh if _below(file, folder) not in asked]
    known_already = len(found.fresh) - len(fresh)
    if not fresh:
        before = (
            f", {count(known_already, 'photo', 'have')} been labelled or left out in tables here"
        )
        raise UserError(
            f"{folder}: nothing to label: {count(found.copies, 'photo', 'are')} of {of_run.path} "
            f"or copies{before if known_already else ''}. Expected new ones."
        )
    chosen = _chosen(opened, seen, fresh, folder, n, progress)
    suspects, unchecked = _suspects(opened, seen, photos)
    page = table.with_suffix(".html")
    rows = review_rows([(one.path, one.guess, one.score, one.why) for one in chosen])
    # The page first: if it can't be written, the older table still fits the older page.
    write_review(
        page,
        inbox=folder,
        table=table,
        photos=chosen,
        rows=rows,
        run=of_run.path,
        class_names=opened.class_names,
        root=_root(of_run),
        suspects=suspects,
    )
    write_atomic(table, review_csv(rows))
    return Review(
        run=of_run.path,
        inbox=folder,
        table=table,
        page=page,
        classes=opened.class_names,
        photos=chosen,
        n=len(fresh),
        asked_before=known_already,
        copies=tuple(sorted(map(printable, found.copies))),
        errors=found.errors,
        suspects=suspects,
        unchecked=unchecked,
    )


def _refuse_inside(of_run: Run, folder: Path) -> None:
    """Refuses an inbox among the photos of the run, where it would count as a class."""
    data = load_config(of_run.config_path).data
    for one in (data.source, *data.added):
        if kind_of(one) == "folder" and folder.resolve().is_relative_to(Path(one).resolve()):
            raise UserError(
                f"{folder} lies in {one}, whose photos the run has: an inbox there would count as "
                "a class. Move it out of that folder.",
                exit_code=2,
            )


def _root(of_run: Run) -> Path | None:
    """Returns the folder of the run's photos, for pictures; None if it isn't there."""
    data = load_config(of_run.config_path).data
    if kind_of(data.source) in ("archive", "tfds"):
        return None  # they would be unpacked
    try:
        return find_photos(data, silent).root
    except UserError:
        return None


def _below(file: str, folder: Path) -> str:
    return Path(file).relative_to(folder).as_posix()


def _chosen(
    opened: Bundle,
    seen: Known | None,
    files: Sequence[str],
    folder: Path,
    n: int,
    progress: Progress,
) -> tuple[ReviewPhoto, ...]:
    """Scores new photos and chooses from them."""
    batches = image_batches(files, rule=opened.rule, batch_size=BATCH)
    model = seen.beside(opened) if seen else opened.scores_and_logits
    scores, logits, *more = score_with(model, batches, total=len(files), progress=progress)
    features = more[0] if more else logits
    novel, strange = np.zeros(len(files), bool), np.zeros(0, int)
    if seen:
        distances = seen.distances(features)
        novel = distances > seen.threshold
        places = np.flatnonzero(novel)
        strange = places[farthest(distances[places], features[places], n // NOVEL)]
    others = np.setdiff1d(np.arange(len(files)), strange)
    picked = choose(scores[others], features[others], n - len(strange))
    names = opened.class_names

    def told(i: int, why: str) -> ReviewPhoto:
        first, second = np.argsort(-logits[i], kind="stable")[:2]
        best, next_best = (f"{names[k]} {scores[i, k]:.2f}" for k in (first, second))
        return ReviewPhoto(
            path=_below(files[i], folder),
            guess=names[first],
            score=round(float(scores[i, first]), 6),
            why=f"{why}: {best}, {next_best}",
            novel=bool(novel[i]),
        )

    unlike = [told(i, "looks like none of the training photos") for i in strange.tolist()]
    return (*unlike, *(told(i, "unsure") for i in others[picked].tolist()))


def _suspects(
    opened: Bundle, seen: Known | None, rows: Sequence[Sequence[str]]
) -> tuple[tuple[LabelSuspect, ...], str]:
    """Finds training photos whose label may be wrong, by the features that the run keeps."""
    training = [row for row in rows if row[2] == "train"]
    kept = known.kept_rows(len(training)) if training else np.zeros(0, int)
    if seen is None or seen.features is None or len(kept) != len(seen.features):
        return (), (
            "The run keeps no features of its training photos. So its labels were not checked, and "
            "photos unlike them are not known."
        )
    photos = [training[i] for i in kept]
    labels = np.array([int(row[1]) for row in photos])
    features = np.asarray(seen.features, np.float32)
    return suspects_of(features, labels, [printable(row[0]) for row in photos], opened.class_names)


def _tables(folder: Path) -> tuple[Path, set[str]]:
    """Looks at the tables of earlier reviews in a folder: review.csv, review-2.csv, ...

    Returns:
        The first of them that is free, or has no labels yet; and the photos that a person has seen:
        those that have a label, or stand above one that has.
    """
    seen: set[str] = set()
    for table in sorted(folder.glob("review*.csv")):
        labels = _labels_in(table)
        last = max((i for i, label in enumerate(labels.values()) if label), default=-1)
        seen |= set(list(labels)[: last + 1])
    names = ("review" if number == 1 else f"review-{number}" for number in itertools.count(1))
    return next(
        table
        for name in names
        if _is_free(table := folder / f"{name}.csv", table.with_suffix(".html"))
    ), seen


def _is_free(table: Path, page: Path) -> bool:
    if not table.exists():
        return not page.exists()
    labels = _labels_in(table)
    return bool(labels) and not any(labels.values()) and not page.is_dir()


def _labels_in(table: Path) -> dict[str, str]:
    """Reads the labels of a table; {} for one of something else."""
    try:
        return read_review(table) or {}
    except UserError as error:
        log.warning("%s So its photos may be asked for again.", error)
        return {}
