"""What a comparison says: a row for each way, the winner, and a sentence of advice.

Winner and advice are settled on validation alone. The test split is only described: accuracy, its
interval, and how sure it is that the winner is better.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kerasft.compare.ways import AS_IS, WAYS
from kerasft.metrics import wilson

SIGNIFICANCE = 0.05  # p below which a difference is no chance
MORE = 0.01  # a rise of the learning curve below a point is not worth collecting photos


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Probability of a difference as large as this one if both were equally good.

    Args:
        ours, theirs: whether each of the same images was right.

    Source: McNemar 1947; the exact test on the images where one is right and the other wrong.
    """
    one, other = np.asarray(ours, bool), np.asarray(theirs, bool)
    only_one, only_other = int((one & ~other).sum()), int((~one & other).sum())
    if not only_one + only_other:
        return 1.0
    return float(stats.binomtest(only_one, only_one + only_other, 0.5).pvalue)


def rows_of(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each way and backbone, over all seeds.

    Args:
        entries: of one fraction, as `compare.py` records them.

    Returns:
        Rows with the keys of `compare --json`, all but "p_vs_best" filled in, in the order of
        the entries. A way that was stopped before all its seeds were done has "stopped": True
        and no figures.
    """
    keys = list(dict.fromkeys((entry["name"], entry["backbone"]) for entry in entries))
    return [
        _row([entry for entry in entries if (entry["name"], entry["backbone"]) == key])
        for key in keys
    ]


_FIGURES = ("val_accuracy", "val_loss", "test_accuracy", "macro_f1", "seconds", "ms_per_image")


def _row(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = entries[0]
    row: dict[str, Any] = {"name": first["name"], "backbone": first["backbone"]}
    row |= {"seeds": len(entries), "stopped": any(entry["stopped"] for entry in entries)}
    notes = [entry["note"] for entry in entries if entry["note"]]
    row["note"] = notes[0] if notes else ""
    known = not row["stopped"] and all(entry["val_accuracy"] is not None for entry in entries)
    for key in _FIGURES:
        values = [entry[key] for entry in entries if entry[key] is not None] if known else []
        row[key] = float(np.mean(values)) if values else None
    row["ci95"] = None
    if row["test_accuracy"] is not None:
        n = entries[0]["n_test"]
        row["ci95"] = list(wilson(round(row["test_accuracy"] * n), n))
    row["size_mb"] = first["size_mb"] if known else None
    row["converged"] = all(entry["converged"] for entry in entries) if known else None
    row["settings"] = [entry["settings"] for entry in entries] if known else []
    row["classes"] = first["classes"]
    row["notes"] = list(dict.fromkeys(note for entry in entries for note in entry["notes"]))
    return row


def winner_of(rows: Sequence[Mapping[str, Any]], num_classes: int) -> Mapping[str, Any] | None:
    """The row with the best validation accuracy; of equal ones the lower validation loss.

    A way that was stopped, or that does not know all classes, cannot win.
    """
    able = [r for r in rows if r["val_accuracy"] is not None and r["classes"] == num_classes]
    return max(able, key=lambda row: (row["val_accuracy"], -row["val_loss"]), default=None)


def p_values(
    rows: Sequence[Mapping[str, Any]],
    winner: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    split: str,
    images: Mapping[int, Sequence[str]],
) -> list[float | None]:
    """For each row how likely chance alone makes it differ from the winner as much as it does.

    Every image counts once, whatever the number of seeds in whose split it is.

    Args:
        rows: of `rows_of`.
        winner: one of them.
        entries: of one fraction.
        split: "val" or "test".
        images: for each seed the names of the split's images, in order.

    Returns:
        In the order of the rows; None for the winner itself, for those without figures, and
        for those that do not know all classes.
    """
    best = _right(winner, entries, split, images)
    values: list[float | None] = []
    for row in rows:
        if row is winner or row["val_accuracy"] is None or row["classes"] != winner["classes"]:
            values.append(None)
            continue
        own = _right(row, entries, split, images)
        values.append(mcnemar([best[i] for i in own], list(own.values())) if own else None)
    return values


def _right(
    row: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    split: str,
    images: Mapping[int, Sequence[str]],
) -> dict[str, bool]:
    """Image -> whether it was right, by the first seed that has it."""
    right: dict[str, bool] = {}
    for entry in entries:
        if (entry["name"], entry["backbone"]) == (row["name"], row["backbone"]):
            pairs = zip(images[entry["seed"]], entry[f"{split}_right"], strict=True)
            for image, is_right in pairs:
                right.setdefault(image, bool(is_right))
    return right


def advice_of(
    rows: Sequence[Mapping[str, Any]],
    winner: Mapping[str, Any] | None,
    p_on_validation: Sequence[float | None],
    curve: Sequence[tuple[float, float]],
) -> str:
    """One or two sentences that the numbers of the validation split support.

    Args:
        rows: of the largest fraction.
        winner: one of them.
        p_on_validation: of `p_values` for the rows.
        curve: fraction and validation accuracy of the winner's way, ascending.
    """
    if winner is None:
        return "Nothing was finished, so there is nothing to advise."
    best = f"{_named(winner)} (validation accuracy {winner['val_accuracy']:.3f})"
    cheaper = [
        (row, p)
        for row, p in zip(rows, p_on_validation, strict=True)
        if p is not None and p >= SIGNIFICANCE and _cheaper(row, winner)
    ]
    if not cheaper:
        said = f"Take {best}."
        beaten = [p for p in p_on_validation if p is not None]
        if beaten and max(beaten) < SIGNIFICANCE:
            better = "on validation it is better than every other way"
            said = f"Take {best}: {better} (p < {SIGNIFICANCE:g})."
        return f"{said}{_more_photos(curve)}"
    simple = max((row for row, _ in cheaper), key=lambda row: row["val_accuracy"])
    p = next(p for row, p in cheaper if row is simple)
    return (
        f"{best} is the best on validation, but {_named(simple)} ({simple['val_accuracy']:.3f}) "
        f"is within what chance explains (p = {p:.2f}) and simpler: start with that one."
        f"{_more_photos(curve)}"
    )


def _cheaper(row: Mapping[str, Any], winner: Mapping[str, Any]) -> bool:
    """Whether a way asks for less than the winner: in training, in what is shipped, or in both."""
    order = list(WAYS)
    trained = order.index(row["name"]) - order.index(winner["name"])
    shipped = row["size_mb"] / winner["size_mb"] - 1
    return trained <= 0 and shipped <= 0.02 and (trained < 0 or shipped < -0.02)


def _named(row: Mapping[str, Any]) -> str:
    if row["name"] == AS_IS:
        return f"{row['backbone']} as it is"
    return f"{row['name']} on {row['backbone']}"


def _more_photos(curve: Sequence[tuple[float, float]]) -> str:
    """Whether more photos would help, as far as the learning curve goes."""
    if len(curve) < 2:
        return ""
    (before, lower), (now, upper) = curve[-2:]
    rise = upper - lower
    said = (
        f"from {before:.0%} to {now:.0%} of the training photos it rose by {100 * rise:.1f} points"
    )
    if rise >= MORE:
        return f" More photos would help: {said}."
    return f" More photos would hardly help: {said.replace('rose', 'changed')}."
