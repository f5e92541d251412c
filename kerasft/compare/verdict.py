"""What a comparison says: a row for each way, the winner, and a sentence of advice.

    entries -> rows_of -> winner_of -> corrected_of -> p_values -> advice_of

The validation split alone decides on winner and advice, by accuracies that are corrected for all
that was chosen on it (`correction.py`). The test split only describes: accuracy, its interval, and
how sure it is that the winner is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasft.compare.correction import Correction
from kerasft.compare.entry import Entry, Split
from kerasft.compare.ways import AS_IS, WAYS
from kerasft.metrics import mcnemar, wilson

SIGNIFICANCE = 0.05  # a difference with a lower p is not taken for chance
MORE = 0.01  # a rise of the learning curve by less than a point is not worth collecting photos
SIMILAR_SIZE = 0.02  # models whose sizes differ by a smaller share are of equal size

Curve = tuple[tuple[float, float], ...]
"""Pairs of a share of the training images and the corrected accuracy with it, ascending."""


@dataclass(frozen=True)
class Means:
    """Figures of a way, averaged over the seeds.

    Attributes:
        val_accuracy: validation accuracy, 0 to 1.
        val_corrected: the same, corrected for the way's own choices on validation.
        val_loss: validation loss, nats.
        test_accuracy: test accuracy, 0 to 1; None without test images, as macro_f1 and ci95.
        macro_f1: mean F1 of the classes on the test split, 0 to 1.
        seconds: time of all settings that were tried, without the prefix passes that ways share.
        ms_per_image: time to score an image within a batch, milliseconds.
        ci95: Wilson's 95% interval of the test accuracy.
        size_mb: size of the model of the first seed, 10^6 bytes.
        converged: whether training has converged with every seed; False for as-is.
    """

    val_accuracy: float
    val_corrected: float
    val_loss: float
    test_accuracy: float | None
    macro_f1: float | None
    seconds: float | None
    ms_per_image: float | None
    ci95: tuple[float, float] | None
    size_mb: float | None
    converged: bool


@dataclass(frozen=True)
class WayResult:
    """One row of the table: a way on a backbone.

    Attributes:
        way: key of WAYS.
        backbone: the backbone, perhaps several nets joined by "+".
        seeds: number of seeds.
        stopped: whether the budget ended it before all seeds were done.
        note: a remark for the table; "" if there is none.
        classes: number of classes that it knows; None if it was never measured.
        means: figures over the seeds; None if it was stopped or could not be measured.
        settings: the setting chosen with each seed.
        notes: remarks of its phases, each once.
        p_vs_best: p-value of the difference to the winner on the test split (`p_values`).
    """

    way: str
    backbone: str
    seeds: int
    stopped: bool
    note: str
    classes: int | None
    means: Means | None
    settings: tuple[Mapping[str, Any] | None, ...]
    notes: tuple[str, ...]
    p_vs_best: float | None = None

    @property
    def title(self) -> str:
        """The way and its backbone: "svm on MobileNetV2"."""
        return f"{self.way} on {self.backbone}"

    def to_json(self) -> dict[str, Any]:
        """Returns the object that stands in "ways" of the JSON of `kerasft compare`."""
        means = dict.fromkeys(Means.__dataclass_fields__) | (vars(self.means) if self.means else {})
        return {
            "name": self.way,
            "backbone": self.backbone,
            "seeds": self.seeds,
            "stopped": self.stopped,
            "note": self.note,
            **means,
            "ci95": list(self.means.ci95) if self.means and self.means.ci95 else None,
            "settings": [None if one is None else dict(one) for one in self.settings],
            "classes": self.classes,
            "notes": list(self.notes),
            "p_vs_best": self.p_vs_best,
        }


def rows_of(entries: Sequence[Entry], correction: Correction) -> list[WayResult]:
    """Makes a row for each way and backbone, over all seeds.

    Args:
        entries: entries of one fraction.
        correction: the answers by which their accuracies are corrected.

    Returns:
        Rows in the order of the entries, without p-values.
    """
    keys = dict.fromkeys((entry.trial.way, entry.trial.backbone) for entry in entries)
    return [_row(_entries_of(entries, *key), correction) for key in keys]


def _entries_of(entries: Sequence[Entry], way: str, backbone: str) -> list[Entry]:
    return [e for e in entries if (e.trial.way, e.trial.backbone) == (way, backbone)]


def _row(entries: Sequence[Entry], correction: Correction) -> WayResult:
    first = entries[0]
    means = _means(entries, correction)
    return WayResult(
        way=first.trial.way,
        backbone=first.trial.backbone,
        seeds=len(entries),
        stopped=any(entry.stopped for entry in entries),
        note=next((entry.note for entry in entries if entry.note), ""),
        classes=first.classes,
        means=means,
        settings=tuple(entry.settings for entry in entries) if means else (),
        notes=tuple(dict.fromkeys(note for entry in entries for note in entry.notes)),
    )


def _means(entries: Sequence[Entry], correction: Correction) -> Means | None:
    """Averages the entries of one way; None if any was stopped or could not be measured."""
    validation = [entry.validation.figures for entry in entries if entry.validation is not None]
    if any(entry.stopped for entry in entries) or len(validation) < len(entries):
        return None
    test = [entry.test.figures for entry in entries if entry.test is not None]
    accuracy = _mean([figures.accuracy for figures in test])
    interval = None if accuracy is None else wilson(round(accuracy * test[0].n), test[0].n)
    val_accuracy = float(np.mean([figures.accuracy for figures in validation]))
    luck = float(np.mean([correction.luck(entry.trial) for entry in entries]))
    return Means(
        val_accuracy=val_accuracy,
        val_corrected=_without(luck, val_accuracy),
        val_loss=float(np.mean([figures.loss for figures in validation])),
        test_accuracy=accuracy,
        macro_f1=_mean([entry.macro_f1 for entry in entries]),
        seconds=_mean([entry.seconds for entry in entries]),
        ms_per_image=_mean([entry.ms_per_image for entry in entries]),
        ci95=interval,
        size_mb=entries[0].size_mb,
        converged=all(entry.converged for entry in entries),
    )


def _without(luck: float, accuracy: float) -> float:
    return min(1.0, max(0.0, accuracy - luck))


def _mean(values: Sequence[float | None]) -> float | None:
    """Averages what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def winner_of(rows: Sequence[WayResult], num_classes: int) -> WayResult | None:
    """Returns the row with the best corrected accuracy, among equals the lowest validation loss.

    A way that was stopped, or that does not know all classes, cannot win.
    """
    able = [row for row in rows if row.means and row.classes == num_classes]
    return max(able, key=_on_validation, default=None)


def _on_validation(row: WayResult) -> tuple[float, float]:
    assert row.means is not None
    return row.means.val_corrected, -row.means.val_loss


def corrected_of(
    winner: WayResult,
    rows: Sequence[WayResult],
    entries: Sequence[Entry],
    correction: Correction,
) -> float:
    """Returns the winner's validation accuracy, corrected for its own choices and for its choice.

    Args:
        winner: one of the rows.
        rows: rows of the table.
        entries: entries of one fraction, which the rows summarize.
        correction: the answers by which their accuracies are corrected.
    """
    assert winner.means is not None
    able = [row for row in rows if row.means and row.classes == winner.classes]
    ways = [[entry.trial for entry in _entries_of(entries, row.way, row.backbone)] for row in able]
    luck = correction.luck_of_winner(ways, next(i for i, row in enumerate(able) if row is winner))
    return _without(luck, winner.means.val_accuracy)


def p_values(
    rows: Sequence[WayResult],
    winner: WayResult,
    entries: Sequence[Entry],
    *,
    split: Split,
    images: Mapping[int, Sequence[str]],
    corrected: float | None = None,
) -> list[float | None]:
    """Tests for each way whether its difference to the winner may be chance.

    An image counts once, even if it is in the split of several seeds.

    Args:
        rows: rows of the table.
        winner: one of the rows.
        entries: entries of one fraction, which the rows summarize.
        split: the split that is compared.
        images: for each seed the names of the split's images, in order.
        corrected: the winner's accuracy from `corrected_of`, for the validation split. Its lead is
            then the one over the corrected accuracies, not the one on the images.

    Returns:
        McNemar's p-values in the order of the rows; None for the winner itself, for ways
        without figures, and for those that do not know all classes.
    """
    best = _right(winner, entries, split, images)
    values: list[float | None] = []
    for row in rows:
        if row is winner or row.means is None or row.classes != winner.classes:
            values.append(None)
            continue
        own = _right(row, entries, split, images)
        lead = None if corrected is None else len(own) * (corrected - row.means.val_corrected)
        values.append(mcnemar([best[i] for i in own], list(own.values()), lead) if own else None)
    return values


def _right(
    row: WayResult,
    entries: Sequence[Entry],
    split: Split,
    images: Mapping[int, Sequence[str]],
) -> Mapping[str, bool]:
    """Maps each image to whether it was right, with the first seed that has it in the split."""
    right: dict[str, bool] = {}
    for entry in _entries_of(entries, row.way, row.backbone):
        result = entry.on(split)
        if result is not None:
            pairs = zip(images[entry.trial.seed], result.right, strict=True)
            for image, is_right in pairs:
                right.setdefault(image, is_right)
    return right


def curves_of(entries: Sequence[Entry], correction: Correction) -> Mapping[str, Curve]:
    """Draws up the learning curve of each way that is finished with every fraction.

    Args:
        entries: entries of all fractions.
        correction: the answers by which their accuracies are corrected.

    Returns:
        Curves by title, such as "svm on MobileNetV2"; none if there is a single fraction.
    """
    fractions = sorted({entry.trial.fraction for entry in entries})
    if len(fractions) < 2:
        return {}
    points: dict[str, list[tuple[float, float]]] = {}
    for fraction in reversed(fractions):
        of_fraction = [entry for entry in entries if entry.trial.fraction == fraction]
        for row in rows_of(of_fraction, correction):
            if row.means is not None:
                points.setdefault(row.title, []).insert(0, (fraction, row.means.val_corrected))
    return {title: tuple(pairs) for title, pairs in points.items() if len(pairs) == len(fractions)}


def advice_of(
    rows: Sequence[WayResult],
    winner: WayResult | None,
    corrected: float | None,
    p_on_validation: Sequence[float | None],
    curve: Curve,
) -> str:
    """Says in one or two sentences which way to take, as far as validation supports it.

    Args:
        rows: rows of the largest fraction.
        winner: one of the rows; None if nothing was finished.
        corrected: the winner's accuracy from `corrected_of`; None without a winner.
        p_on_validation: p-values of the rows on the validation split.
        curve: learning curve of the winner; () if there is none.
    """
    if winner is None or corrected is None:
        return "Nothing was finished, so there is nothing to advise."
    among = "" if len(rows) == 1 else f", {corrected:.3f} after the choice among ways"
    best = f"{_named(winner)} (corrected validation accuracy {_accuracy(winner):.3f}{among})"
    simpler = [
        (row, p)
        for row, p in zip(rows, p_on_validation, strict=True)
        if p is not None and p >= SIGNIFICANCE and _is_cheaper(row, winner)
    ]
    if simpler:
        row, p = max(simpler, key=lambda pair: _accuracy(pair[0]))
        advised = (
            f"{best} is the best on validation, but the lead over {_named(row)} "
            f"({_accuracy(row):.3f}), which is simpler, may be chance (p = {p:.2f}): start with "
            f"{_named(row)}."
        )
    else:
        beaten = [p for p in p_on_validation if p is not None]
        advised = f"Take {best}."
        if beaten and max(beaten) < SIGNIFICANCE:
            better = "on validation it is better than every other way"
            advised = f"Take {best}: {better} (p < {SIGNIFICANCE:g})."
    return advised + _more_photos(curve)


def _accuracy(row: WayResult) -> float:
    assert row.means is not None
    return row.means.val_corrected


def _named(row: WayResult) -> str:
    return f"{row.backbone} as it is" if row.way == AS_IS else row.title


def _is_cheaper(row: WayResult, winner: WayResult) -> bool:
    """Returns whether a way takes less than the winner: to train, in size, or both, and not more.

    How much training takes is the order of WAYS.
    """
    assert row.means is not None and winner.means is not None
    order = list(WAYS)
    training = order.index(row.way) - order.index(winner.way)
    if not row.means.size_mb or not winner.means.size_mb:
        return False
    size = row.means.size_mb / winner.means.size_mb - 1
    if training > 0 or size > SIMILAR_SIZE:
        return False
    return training < 0 or size < -SIMILAR_SIZE


def _more_photos(curve: Curve) -> str:
    """Says whether more photos would help, by the end of the learning curve."""
    if len(curve) < 2:
        return ""
    (before, lower), (now, upper) = curve[-2:]
    rise = upper - lower
    helps, verb = ("help", "rose") if rise >= MORE else ("hardly help", "changed")
    return (
        f" More photos would {helps}: from {before:.0%} to {now:.0%} of the training photos, "
        f"validation accuracy {verb} by {100 * rise:.1f} points."
    )
