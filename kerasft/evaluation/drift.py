"""Drift: whether a folder of new photos still looks like those that a run was trained on.

Photos need no labels. What is compared, and how sure it is, says `novelty/shift.py`.

Shapes: N new photos that count, M known photos, F features, K classes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasft.backbones.compatibility import weights_of
from kerasft.config.load import load_config
from kerasft.data.batches import image_batches
from kerasft.data.splits import read_rows
from kerasft.errors import UserError
from kerasft.evaluation.photo_files import Inbox, PhotoFile, open_beside, open_inbox
from kerasft.models.bundle import Bundle, score_with
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.novelty.shift import (
    LEAST,
    LEAST_OF_CLASS,
    LEVEL,
    MOST_CLASSES,
    PERMUTATIONS,
    OfClass,
    Reference,
    Shift,
    find_shift,
    refer_to,
)
from kerasft.novelty.two_sample import Outcome
from kerasft.progress import Progress, silent
from kerasft.results import Result
from kerasft.run import Run
from kerasft.text import count, printable

log = logging.getLogger("kerasft")

BATCH = 32
SEED = 0
FEW = 30  # photos below which only large shifts are found (`scripts/results/bench_drift.md`)


@dataclass(frozen=True)
class ClassDrift(Result):
    """The result for one class.

    Attributes:
        label: its name.
        new: number of new photos that are predicted as this class, by the known photos.
        share: estimated share of the new photos that are of this class, 0 to 1: predictions, with
            the mistakes that they make on known photos taken out.
        known: share of the known photos that are of this class.
        p: p-value of its looks, as if it were the only class; None if too few photos are of it.
        adjusted: the same by Holm, for all classes together.
        shifted: whether its photos look different.
    """

    label: str
    new: int
    share: float
    known: float
    p: float | None
    adjusted: float | None
    shifted: bool


@dataclass(frozen=True)
class DriftPhoto(Result):
    """A new photo.

    Attributes:
        file: its path.
        label: its class, by the known photos; the model may predict another one.
        witness: how much more it is like the other new photos than like known ones, -1 to 1. If
            looks have shifted, the largest show how.
        distance: distance to the nearest known photo, 0 to 2.
        novel: whether this is larger than almost all validation photos have, as in `predict`.
    """

    file: str
    label: str
    witness: float
    distance: float
    novel: bool


@dataclass(frozen=True)
class Drift(Result):
    """The result for a folder of new photos.

    Attributes:
        run: the run directory.
        inbox: the folder.
        shifted: whether all new photos together or those of a class differ from the known ones.
        level: probability, at most, that any shift is called where there is none.
        overall: test of the features of all photos; the statistic is the squared MMD.
        looks: test of the looks within classes: known photos are drawn in the class shares of the
            new ones. None if there are too few of these classes.
        shares: test of the class shares.
        classes: result for each class, in the order of the run.
        photos: the new photos, those with the largest witness first.
        n: number of new photos that count.
        tested: number of them in the tests of looks: the seed chooses some of very many.
        known: number of known photos.
        drawn: number of these that were drawn for `looks`.
        novel: number of new photos that are unlike all known ones.
        copies: photos with the pixels of a training photo or of another new one; they don't count.
        errors: files that cannot be read.
        lacking: what so few photos, or the tests of so many classes, can't show; "" if nothing.
        permutations: number of random divisions behind the p-values of all photos.
        seed: seed of all choices.
    """

    run: Path
    inbox: Path
    shifted: bool
    level: float
    overall: Outcome
    looks: Outcome | None
    shares: Outcome
    classes: tuple[ClassDrift, ...]
    photos: tuple[DriftPhoto, ...]
    n: int
    tested: int
    known: int
    drawn: int
    novel: int
    copies: tuple[str, ...]
    errors: tuple[PhotoFile, ...]
    lacking: str
    permutations: int
    seed: int


def drift_run(path: str | Path, inbox: str | Path, *, progress: Progress = silent) -> Drift:
    """Compares a folder of new photos with the training photos of a run.

    The photos of the run need not be there: it keeps the features of its training photos.

    Args:
        path: run directory.
        inbox: folder of photos, including nested folders.
        progress: receiver of events, as files are read ("images") and computed ("check").

    Raises:
        UserError: no such folder, or a file (exit code 2); no photos, or fewer than 10 that are no
            copies; not a run, one without a model or without known photos, or with fewer than 10.
    """
    folder = Path(inbox)
    of_run, opened, seen = open_beside(path, folder)
    reference, training = _reference(of_run, seen, len(opened.class_names))
    assert seen is not None
    _warn_of_fitted_base(of_run)

    found = open_inbox(folder, training, progress)
    fresh = found.fresh
    if len(fresh) < LEAST:
        raise UserError(_too_few(folder, found))
    features = _features(opened, seen, fresh, progress)
    shift, distances = find_shift(reference, features, SEED), seen.distances(features)
    novel = distances > seen.threshold
    return Drift(
        run=of_run.path,
        inbox=folder,
        shifted=shift.shifted,
        level=LEVEL,
        overall=shift.overall,
        looks=shift.looks,
        shares=shift.shares,
        classes=_classes(shift, reference, opened.class_names),
        photos=_photos(shift, fresh, distances, novel, opened.class_names),
        n=len(fresh),
        tested=shift.tested,
        known=len(reference.labels),
        drawn=shift.drawn,
        novel=int(novel.sum()),
        copies=tuple(sorted(map(printable, found.copies))),
        errors=found.errors,
        lacking=_lacking(len(fresh), shift),
        permutations=PERMUTATIONS,
        seed=SEED,
    )


def _reference(
    of_run: Run, seen: Known | None, num_classes: int
) -> tuple[Reference, frozenset[str]]:
    """Returns the known photos with their labels, and the digests of all training photos.

    Raises:
        UserError: the run keeps no known photos, or too few; splits.csv lists others.
    """
    if seen is None or seen.features is None:
        raise UserError(
            f"{of_run.path}: keeps no features of its training photos ({of_run.known_path.name}), "
            "which new photos are compared with. Expected a run of a pretrained net. "
            f"`calibrate_run({str(of_run.path)!r})` adds them if the head alone was trained; if "
            "blocks were, train again."
        )
    rows = [row for row in read_rows(of_run.splits_path, num_classes) if row[2] == "train"]
    kept = known.kept_rows(len(rows)) if rows else np.zeros(0, int)
    if len(kept) != len(seen.features):
        raise UserError(
            f"{of_run.path}: {of_run.splits_path.name} lists {count(rows, 'training photo')}, but "
            f"{of_run.known_path.name} has features of {len(seen.features):,}. Expected "
            f"{len(kept):,}; one of the files was changed since the run. Train again."
        )
    if len(kept) < LEAST:
        raise UserError(
            f"{of_run.path}: was trained on {count(kept, 'photo')}. Expected at least {LEAST} to "
            "compare new ones with."
        )
    labels = np.array([int(row[1]) for row in rows])[kept]
    digests = frozenset(one for row in rows for one in (row[3], row[5]) if one)
    return refer_to(seen.features, labels, num_classes), digests


def _warn_of_fitted_base(of_run: Run) -> None:
    """Warns where the base may have been fitted on the training photos, by another run."""
    for one in weights_of(load_config(of_run.config_path).model.weights):
        earlier = Run(Path(one).parent)
        if earlier.splits_path.is_file() and earlier.record_path.is_file():
            log.warning(
                "%s: its base comes from %s. If that run has trained blocks on the same photos, "
                "new photos look shifted even if they are not.",
                of_run.path,
                earlier.path,
            )


def _features(opened: Bundle, seen: Known, files: Sequence[str], progress: Progress) -> np.ndarray:
    """Computes the pretrained features of photos, [N,F]."""
    batches = image_batches(files, rule=opened.rule, batch_size=BATCH)
    model = seen.beside(opened)
    return np.asarray(score_with(model, batches, total=len(files), progress=progress)[2])


def _too_few(folder: Path, found: Inbox) -> str:
    copies, errors = len(found.copies), len(found.errors)
    others = [
        text
        for number, text in (
            (copies, f"{count(copies, 'copy', 'are')} of training photos or of other new ones"),
            (errors, f"{count(errors, 'file')} cannot be read"),
        )
        if number
    ]
    why = f" ({'; '.join(others)})" if others else ""
    return (
        f"{folder}: holds {count(found.fresh, 'new photo')}{why}. Expected at least {LEAST}, "
        "because fewer show nothing about the next ones."
    )


def _lacking(n: int, shift: Shift) -> str:
    sentences = []
    if n < FEW and not shift.shifted:
        sentences.append(
            f"With {count(n, 'photo')}, only a large shift is found; {FEW} or more show smaller "
            "ones, too."
        )
    tested = sum(one.test is not None for one in shift.classes)
    left = sum(
        one.test is None and min(one.new, one.known) >= LEAST_OF_CLASS for one in shift.classes
    )
    if tested == MOST_CLASSES and left > 0:
        sentences.append(
            f"The {tested} classes with the most new photos were tested by themselves, "
            f"{left:,} more {'was' if left == 1 else 'were'} not."
        )
    return " ".join(sentences)


def _classes(shift: Shift, reference: Reference, names: tuple[str, ...]) -> tuple[ClassDrift, ...]:
    known_shares = np.bincount(reference.labels, minlength=len(names)) / len(reference.labels)

    def named(one: OfClass) -> ClassDrift:
        return ClassDrift(
            names[one.label],
            one.new,
            round(float(shift.mix[one.label]), 4),
            round(float(known_shares[one.label]), 4),
            one.test.p if one.test else None,
            one.adjusted,
            one.test.shifted if one.test else False,
        )

    return tuple(map(named, shift.classes))


def _photos(
    shift: Shift,
    files: Sequence[str],
    distances: np.ndarray,
    novel: np.ndarray,
    names: tuple[str, ...],
) -> tuple[DriftPhoto, ...]:
    return tuple(
        DriftPhoto(
            printable(files[i]),
            names[shift.predicted[i]],
            round(float(shift.witness[i]), 6),
            round(float(distances[i]), 6),
            bool(novel[i]),
        )
        for i in np.argsort(-shift.witness, kind="stable").tolist()
    )
