"""Plots, as PNG files, by matplotlib without pyplot: no window, no global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasft.files import replacing

BLUE, ORANGE, GREY = "#1f6fb4", "#d9601a", "#9aa0a6"


def save_rates(
    path: Path,
    rates: np.ndarray,
    changes: np.ndarray,
    smoothed: np.ndarray,
    suggested: float | None,
    *,
    title: str,
) -> None:
    """Draws how the loss changes with the learning rate.

    Args:
        path: path of the PNG; an older one is replaced.
        rates: learning rates, [T].
        changes: changes of the loss in nats, [T].
        smoothed: smoothed changes, [T].
        suggested: the suggested rate, which is marked; None marks none.
        title: title above the plot.
    """
    figure, axes = _figure(title, "learning rate", "change of the loss on the same batch")
    axes.set_xscale("log")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(rates, changes, ".", color=GREY, markersize=4, label="a batch")
    axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
    if suggested is not None:
        axes.axvline(suggested, color=ORANGE, linestyle="--", label=f"suggested: {suggested:g}")
    # The loss that explodes at the end would flatten everything else to a line.
    lowest = int(np.argmin(smoothed))
    low, high = float(smoothed[lowest]), float(smoothed[: lowest + 1].max())
    span = max(high - low, 1e-6)
    axes.set_ylim(low - 0.7 * span, high + span)
    axes.legend(frameon=False)
    _save(figure, path)


def save_comparison(
    path: Path, rows: Sequence[Mapping[str, Any]], winner: Mapping[str, Any] | None
) -> None:
    """Draws the accuracy of each way: validation as a ring, test as a dot with its interval.

    Args:
        path: path of the PNG; an older one is replaced.
        rows: the list "ways" in the JSON result of `kerasft compare`.
        winner: name and backbone of the row that is marked; None marks none.
    """
    shown = [row for row in rows if row["val_corrected"] is not None]
    shown.sort(key=lambda row: row["val_corrected"])
    several = len({row["backbone"] for row in shown}) > 1
    names = [f"{row['name']}, {row['backbone']}" if several else row["name"] for row in shown]
    figure, axes = _figure("", "accuracy", "", height=1.4 + 0.3 * len(shown))
    for y, row in enumerate(shown):
        best = winner and (row["name"], row["backbone"]) == (winner["name"], winner["backbone"])
        color = ORANGE if best else BLUE
        if row["test_accuracy"] is not None:
            axes.plot(row["ci95"], [y, y], color=color, linewidth=1.5)
            axes.plot(row["test_accuracy"], y, "o", color=color)
        axes.plot(row["val_corrected"], y, "o", color=GREY, fillstyle="none", markersize=9)
    axes.set_yticks(range(len(shown)), names)
    axes.plot([], [], "o", color=BLUE, label="test, 95% interval")
    axes.plot([], [], "o", color=ORANGE, label="test, best on validation")
    axes.plot([], [], "o", color=GREY, fillstyle="none", markersize=9, label="validation")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    axes.grid(axis="x", color=GREY, alpha=0.3)
    _save(figure, path)


def save_curve(path: Path, curve: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draws validation accuracy against the share of the training images, a line for each way.

    Args:
        path: path of the PNG; an older one is replaced.
        curve: pairs of share and accuracy, ascending, by name of the way.
    """
    figure, axes = _figure("", "share of the training images", "validation accuracy")
    for name, points in curve.items():
        shares, values = zip(*points, strict=True)
        axes.plot(shares, values, "o-", label=name)
    axes.set_xlim(0, 1.02)
    figure.legend(loc="outside right upper", frameon=False)
    axes.grid(axis="y", color=GREY, alpha=0.3)
    _save(figure, path)


def _figure(title: str, x: str, y: str, *, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
