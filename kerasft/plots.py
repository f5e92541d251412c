"""Plots, as PNG files. matplotlib without pyplot: no window, no global state."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasft.run import replacing

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
        path: of the PNG; an older one is replaced.
        rates: [T], learning rates.
        changes: [T], of the loss, nats.
        smoothed: [T].
        suggested: marked, if there is one.
        title: above the plot.
    """
    figure, axes = _figure(title, "learning rate", "change of the loss on the same batch")
    axes.set_xscale("log")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(rates, changes, ".", color=GREY, markersize=4, label="a batch")
    axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
    if suggested is not None:
        axes.axvline(suggested, color=ORANGE, linestyle="--", label=f"suggested: {suggested:g}")
    # What blows up in the end would press all else to a line.
    lowest = int(np.argmin(smoothed))
    low, high = float(smoothed[lowest]), float(smoothed[: lowest + 1].max())
    span = max(high - low, 1e-6)
    axes.set_ylim(low - 0.7 * span, high + span)
    axes.legend(frameon=False)
    _save(figure, path)


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
