"""Evaluation of a model: images are scored in float32, from pixels, and measured in a Report.

Log loss and calibration error are of the scores as they are given, temperature included.

Shapes: N images, K classes, B images in a batch, S side of the model's square input.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from kerasft import run
from kerasft.answers import split_csv
from kerasft.confidence import Quality
from kerasft.config.load import data_at
from kerasft.data import checks, scan
from kerasft.data.batches import split_batches
from kerasft.data.known import relabelled, warn_about_moves
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.evaluation.classifier import of_bundle, of_export
from kerasft.export.formats import find_export
from kerasft.files import refuse_no_file, write_atomic
from kerasft.input_rule import InputRule
from kerasft.metrics import calibration_error, log_loss, wilson
from kerasft.models.target import open_model, prepare_for
from kerasft.progress import Progress, silent
from kerasft.results import Result
from kerasft.sources.photos import SPLITS


@dataclass(frozen=True)
class ClassReport(Result):
    """The figures of one class, 0 to 1, and its number of images."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class WithoutCopies(Result):
    """The figures of a split without the photos that have a near copy in training.

    Attributes:
        n: number of photos that are left.
        accuracy: share of them whose label has the highest logit, 0 to 1; None if none is left.
        ci95: Wilson's 95% interval of the accuracy.
    """

    n: int
    accuracy: float | None
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Answered(Result):
    """The images that a model answers, where it may say "I don't know".

    Attributes:
        threshold: lowest score of an answer, 0 to 1.
        n: number of images with such a score.
        coverage: share of all images, 0 to 1.
        accuracy: share of the answered images whose label was predicted; None if none is answered.
        ci95: Wilson's 95% interval of that accuracy.
    """

    threshold: float
    n: int
    coverage: float
    accuracy: float | None
    ci95: tuple[float, float]

    @classmethod
    def of(cls, threshold: float, scores: np.ndarray, hits: np.ndarray) -> "Answered":
        """Measures the images whose highest score [N,K] reaches a threshold; `hits` bool [N]."""
        right = hits[scores.max(axis=1) >= threshold]
        n = len(right)
        accuracy = float(right.mean()) if n else None
        return cls(threshold, n, n / len(hits), accuracy, wilson(int(right.sum()), n))


@dataclass(frozen=True, eq=False)
class Report(Result):
    """The figures of a model on one split.

    Attributes:
        split: "train", "validation", "test", or "all" for photos without splits.
        n: number of images.
        accuracy: share of images whose label has the highest logit, 0 to 1.
        ci95: Wilson's 95% interval of the accuracy.
        top5: share of images whose label is among the five highest logits; None with 5 classes or
            fewer.
        macro_f1: mean F1 of the classes that occur, as a label or as a prediction.
        loss: mean log loss, nats, without label smoothing and class weights.
        ece: expected calibration error over 15 bins of equal width, 0 to 1.
        per_class: K rows, in the order of the classes.
        confusion: int64 [K,K]; rows are labels, columns are predictions.
        without_near_copies: figures without the photos that have a near copy in training; None if
            none is known to have one, or for the training split.
        answered: figures of the images that the model answers; None for one that always answers.
        out_of_fold: log loss and calibration error on validation with temperatures that were
            fitted without the image; None for other splits and without a temperature. The
            temperature was fitted on these images, so `loss` and `ece` flatter.
    """

    split: str
    n: int
    accuracy: float
    ci95: tuple[float, float]
    top5: float | None
    macro_f1: float
    loss: float
    ece: float
    per_class: tuple[ClassReport, ...]
    confusion: np.ndarray
    without_near_copies: WithoutCopies | None = None
    answered: Answered | None = None
    out_of_fold: Quality | None = None


def evaluate_run(
    target: str | Path,
    *,
    split: str = "test",
    data: str | Path | None = None,
    flags: Mapping[str, object] | None = None,
    relabel: bool = False,
    csv: str | Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Scores a model on the images of one split.

    The run.json of a run counts how often its test split was scored. Photos of a run are measured
    by their labels in the run; a warning names those that lie in another class now.

    Args:
        target: run directory, model file, export, or "imagenet:NAME". An export in the folder of
            its run is measured on the photos of the run.
        split: "train", "validation" or "test". If the photos have no splits and belong to no
            run, "test" scores all of them, and the report's split is "all".
        data: source of photos. For a run, their present place if they were moved; for any other
            target it is required, and its classes are named like the model's.
        flags: fields that say how `data` is read, by dotted key, such as
            `{"data.layout": "classes"}`. The photos of a run are read as when it was made.
        relabel: whether photos of a run are measured by the classes that they have now, for this
            report only: nothing is written into the run, not even that its test split was
            scored. Photos in a class that the run does not
            know are left out, with a warning.
        csv: file for a table of all images, a row each (`answers.py`); None writes none.
        progress: receiver of events, as images are read ("images") and scored ("check").

    Raises:
        UserError: an unknown split, a model file without `data` or with `relabel` (exit code 2);
            no images in the split; classes that the model does not know; `relabel` for photos
            whose classes are not known any more; see also `target.open_model`.
    """
    if split not in SPLITS:
        raise UserError(
            f"expected {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, got '{split}'.",
            field="split",
            exit_code=2,
        )
    if csv is not None:
        refuse_no_file(Path(csv), "csv")
    exported = find_export(Path(target))
    of_run = _run_of(Path(target), exported[1] if exported else None)
    if of_run and flags:
        raise UserError(
            f"{target}: is a run, whose photos are read as when it was made. Leave out "
            f"{', '.join(f'`{key}`' for key in flags)}.",
            exit_code=2,
        )
    if relabel and not of_run:
        raise UserError(
            f"{target}: is not a run, so its photos are measured by their present classes anyway. "
            "Leave out `relabel`.",
            exit_code=2,
        )
    prepare_for(target)
    opened = of_export(Path(target)) if exported else of_bundle(open_model(target))
    if of_run:
        found = scan.open_images(of_run, opened.class_names, data=data, progress=progress)
        if relabel:
            found = relabelled(str(target), found, split)
        else:
            warn_about_moves(str(target), found, split)
    elif data is None:
        raise UserError(
            f"{target}: is not a run, so it has no photos of its own. Pass `data=SRC`, such as a "
            "folder of images per class.",
            exit_code=2,
        )
    else:
        found = scan.scan_for_model(
            data_at(data, flags=flags),
            opened.class_names,
            background=opened.rule.background,
            progress=progress,
        )
        checks.warn_of_depth("The model's depth", found.peak, opened.rule.depth)
        if split == "test" and set(found.splits) == {"all"}:
            split = "all"
    positions = found.indices(split)
    if not len(positions):
        there = ", ".join(name for name in (*SPLITS, "all") if len(found.indices(name)))
        raise UserError(f"{data or target}: no images in the {split} split. It has: {there}.")
    scores, logits = opened.score(batches_of(found, split, opened.rule), len(positions), progress)
    labels = found.labels[positions]
    paths = [found.paths[i] for i in positions.tolist()]
    table = split_csv(paths, labels, opened.class_names, scores, logits, opened.abstains(scores))
    if of_run and split == "test" and not relabel:
        count_test(of_run, None if exported else table)
    if csv is not None:
        write_atomic(Path(csv), table)
    measured = report(scores, logits, labels, opened.class_names, split=split)
    answered = None
    if opened.threshold is not None:
        hits = logits.argmax(axis=1) == labels
        answered = Answered.of(opened.threshold, scores, hits)
    copies = without_copies(found, split, logits)
    return replace(
        measured,
        without_near_copies=copies,
        answered=answered,
        out_of_fold=_out_of_fold(of_run, split) if of_run and not exported else None,
    )


def _run_of(target: Path, exported: Path | None) -> run.Run | None:
    """Returns the run that a target is, or that its export lies in; None if there is none."""
    if exported is None:
        return run.open_run(target) if target.is_dir() else None
    around = run.Run(exported.resolve().parent.parent)
    return around if around.record_path.is_file() else None


def _out_of_fold(of_run: run.Run, split: str) -> Quality | None:
    """Returns what run.json says of a temperature on images that it was not fitted on."""
    calibration = run.read_record(of_run).calibration
    fitted_here = split == "validation" and calibration and calibration.temperature != 1
    return calibration.after if calibration and fitted_here else None


def without_copies(found: Source, split: str, logits: np.ndarray) -> WithoutCopies | None:
    """Measures the photos of a split that have no near copy in training.

    Args:
        found: photos with the names of near copies.
        split: name of the split.
        logits: [N,K], logits of its photos.

    Returns:
        The figures; None if no photo is known to have a near copy in training, or for training.
    """
    if split == "train" or not found.near:
        return None
    in_training = {found.near[i] for i in found.indices("train").tolist()} - {""}
    positions = found.indices(split)
    left = np.array([found.near[i] not in in_training for i in positions.tolist()], bool)
    if left.all():
        return None
    hits = (logits.argmax(axis=1) == found.labels[positions])[left]
    accuracy = float(hits.mean()) if len(hits) else None
    return WithoutCopies(len(hits), accuracy, wilson(int(hits.sum()), len(hits)))


def batches_of(found: Source, split: str, rule: InputRule) -> Iterable:
    """Feeds the pixels of a split, in the order of its images, for `bundle.score`.

    Args:
        found: images with splits.
        split: name of the split.
        rule: rule of the model.
    """
    return split_batches(found, split, rule=rule, batch_size=32)


def count_test(of_run: run.Run, table: str | None = None) -> None:
    """Counts in run.json that the test split of a run was scored once more.

    Args:
        of_run: the run.
        table: table of the answers of model.keras, which test.csv is going to hold; None leaves it.
    """
    with run.lock(of_run):
        if table is not None:
            write_atomic(of_run.test_path, table)
        record = run.read_record(of_run)
        run.write_record(of_run, replace(record, test_scored=record.test_scored + 1))


def report(
    scores: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    split: str,
) -> Report:
    """Measures scores against labels.

    The logits rank the classes: in float32, scores that differ can be rounded to the same number,
    and those of unlikely classes to 0.

    Args:
        scores: [N,K], softmax of the logits; N is at least 1.
        logits: [N,K], inputs of the softmax, divided by the temperature.
        labels: int [N], 0 to K-1.
        class_names: K names.
        split: name of the split, for the Report.
    """
    n, k = scores.shape
    predicted = logits.argmax(axis=1)
    hits = predicted == labels
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(k), zero_division=0
    )
    rows = zip(class_names, precision, recall, f1, support, strict=True)
    five_best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return Report(
        split=split,
        n=n,
        accuracy=float(hits.mean()),
        ci95=wilson(int(hits.sum()), n),
        top5=float((five_best == labels[:, None]).any(axis=1).mean()) if k > 5 else None,
        macro_f1=float(f1_score(labels, predicted, average="macro", zero_division=0)),
        loss=log_loss(logits, labels),
        ece=calibration_error(scores.max(axis=1), hits),
        per_class=tuple(
            ClassReport(name, float(p), float(r), float(f), int(s)) for name, p, r, f, s in rows
        ),
        confusion=confusion_matrix(labels, predicted, labels=range(k)),
    )
