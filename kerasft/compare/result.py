"""What a comparison returns, and the files that hold it: JSON, CSV, plots and a page."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft import plots
from kerasft.compare.verdict import Curve, WayResult
from kerasft.files import write_atomic
from kerasft.reports.compare_page import PAGE, write_comparison
from kerasft.text import cell

RESULT, TABLE, PLOT, CURVE = "compare.json", "compare.csv", "compare.png", "curve.png"


@dataclass(frozen=True)
class LeftOut:
    """A way for which the budget had no time.

    Attributes:
        way: key of WAYS.
        backbone: the backbone, perhaps several nets joined by "+".
        seconds: time that it would take; None if that cannot be predicted.
        left: time that was left of the budget, seconds.
    """

    way: str
    backbone: str
    seconds: float | None
    left: float

    def to_json(self) -> dict[str, str | float | None]:
        """Returns the object that stands in "left_out" of the JSON of `kerasft compare`."""
        return {
            "name": self.way,
            "backbone": self.backbone,
            "seconds": self.seconds,
            "left": self.left,
        }


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison returns.

    Attributes:
        ways: rows of the table, at the largest fraction.
        left_out: ways for which the budget had no time.
        winner: one of the rows: the best by corrected accuracy; None if nothing was finished.
        corrected: the winner's validation accuracy, corrected for its own choices and for its
            choice among the ways; None without a winner.
        advice: one or two sentences that say which way to take.
        classes: class names of the photos.
        images: number of images by split, with the first seed.
        pass_seconds: time of the prefix passes, which all ways share.
        mapping: for as-is, a line for each class: which classes of ImageNet it means.
        curves: learning curves by title; none if a single fraction was compared.
        out: the folder of the comparison.
        kept: run directory of the winner; None if it was not kept.
    """

    ways: tuple[WayResult, ...]
    left_out: tuple[LeftOut, ...]
    winner: WayResult | None
    corrected: float | None
    advice: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    pass_seconds: float
    mapping: tuple[str, ...]
    curves: Mapping[str, Curve]
    out: Path
    kept: Path | None

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON result of `kerasft compare`."""
        winner = self.winner
        curves = {title: [list(pair) for pair in curve] for title, curve in self.curves.items()}
        return {
            "ways": [row.to_json() for row in self.ways],
            "left_out": [one.to_json() for one in self.left_out],
            "winner": winner
            and {
                "name": winner.way,
                "backbone": winner.backbone,
                "val_corrected_for_all": self.corrected,
            },
            "advice": self.advice,
            "classes": list(self.classes),
            "images": dict(self.images),
            "pass_seconds": self.pass_seconds,
            "mapping": list(self.mapping),
            "curve": curves,
            "out": str(self.out),
            "kept": None if self.kept is None else str(self.kept),
        }


def write_result(result: ComparisonResult) -> None:
    """Writes compare.json, compare.csv, the plots and the page into the comparison's folder."""
    record = result.to_json()
    write_atomic(result.out / RESULT, json.dumps(record, indent=2) + "\n")
    write_atomic(result.out / TABLE, _table(record["ways"]))
    plots.save_comparison(result.out / PLOT, record["ways"], record["winner"])
    if result.curves:
        plots.save_curve(result.out / CURVE, record["curve"])
    write_comparison(result.out / PAGE, record)


def _table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as CSV, without the columns that hold lists of texts and settings."""
    text = io.StringIO(newline="")
    columns = [key for key in rows[0] if key not in ("settings", "notes")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()
