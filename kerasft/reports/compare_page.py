"""The page of a comparison: advice, table, time against accuracy, learning curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft import __version__
from kerasft.reports.charts import Curve, Dot, scatter_chart, share_chart
from kerasft.reports.page import write_page

PAGE = "compare.html"
_COLORS = (  # of the curves; the last ones repeat, dashed
    *("#1f6fb4", "#d9601a", "#2a9d62", "#b3261e", "#7d5ba6"),
    *("#8c6d46", "#d35ba1", "#7f868e", "#a3a827", "#1fa5b8"),
)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        number: its number, from 1: the best by corrected validation accuracy.
        facts: the row as it stands in compare.json.
        best: whether it is the winner.
    """

    number: int
    facts: Mapping[str, Any]
    best: bool


def write_comparison(path: Path, record: Mapping[str, Any]) -> int:
    """Writes the page of a comparison.

    Args:
        path: path of the HTML file.
        record: the JSON result of `kerasft compare`.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: the file can't be written.
    """
    rows = _rows(record)
    dots, curves = dots_of(rows), _curves(record["curve"])
    values = {
        "version": __version__,
        "record": record,
        "name": Path(record["out"]).resolve().name,
        "rows": rows,
        "scatter": scatter_chart(dots, x="seconds", y="accuracy") if dots else "",
        "on_test": any(row.facts["test_accuracy"] is not None for row in rows),
        "curves": curves,
        "curve_chart": _curve_chart(curves),
        "notes": [
            (f"{row.facts['name']} on {row.facts['backbone']}", note)
            for row in rows
            for note in row.facts["notes"]
        ],
    }
    return write_page(path, "compare.html", values)


def _rows(record: Mapping[str, Any]) -> list[Row]:
    winner = record["winner"] or {"name": None, "backbone": None}
    best = (winner["name"], winner["backbone"])
    ordered = sorted(record["ways"], key=lambda way: -(way["val_corrected"] or 0))
    return [
        Row(number, way, (way["name"], way["backbone"]) == best)
        for number, way in enumerate(ordered, start=1)
    ]


def dots_of(rows: Sequence[Row]) -> list[Dot]:
    """Places the test accuracy over the time, or the one on validation where there is no test."""
    dots = []
    for row in rows:
        facts = row.facts
        on_test = facts["test_accuracy"] is not None
        accuracy = facts["test_accuracy"] if on_test else facts["val_corrected"]
        if accuracy is None or not facts["seconds"]:
            continue
        interval = (facts["ci95"][0], facts["ci95"][1]) if on_test and facts["ci95"] else None
        dots.append(Dot(row.number, facts["seconds"], accuracy, interval, row.best))
    return dots


def _curves(curves: Mapping[str, Sequence[Sequence[float]]]) -> list[Curve]:
    made = []
    for place, (name, points) in enumerate(curves.items()):
        shares, values = zip(*points, strict=True)
        color, dashed = _COLORS[place % len(_COLORS)], place >= len(_COLORS)
        made.append(Curve(name, shares, values, color, dashed))
    return made


def _curve_chart(curves: Sequence[Curve]) -> str:
    if not any(math.isfinite(y) for curve in curves for y in curve.y):
        return ""
    return share_chart(curves, x="share of the training photos", y="validation accuracy")
