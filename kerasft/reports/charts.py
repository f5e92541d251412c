"""Charts as inline SVG, drawn by matplotlib in the style of `plots.py`.

Text stays text, in the page's font; black becomes the page's colour, so that a chart is readable on
a dark page as well. Sizes are in inches; the page shrinks a chart to the width that there is.
"""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasft.reports.measured import Bin

_INK = "#010203"  # stands for the page's text colour


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: name in the legend.
        x, y: coordinates of its points.
        color: its colour.
        dashed: whether it is dashed.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    dashed: bool = False


@dataclass(frozen=True)
class Marks:
    """What is marked in a chart of epochs.

    Attributes:
        starts: places at which a phase begins, with its name.
        chosen: place of the epoch whose weights are the model; None if there is none.
        best: places of the best epochs of other phases.
    """

    starts: Sequence[tuple[float, str]] = ()
    chosen: float | None = None
    best: Sequence[float] = field(default_factory=tuple)


def line_chart(curves: Sequence[Curve], marks: Marks, *, y: str, top: float | None = None) -> str:
    """Draws curves over the epochs of a run.

    Args:
        curves: the curves.
        marks: phases and chosen epochs.
        y: title of the vertical axis.
        top: largest value that is shown; None shows all.
    """
    from kerasft.plots import GREY, ORANGE

    figure, axes = _figure(4.6, 3.0)
    for curve in curves:
        style = "--" if curve.dashed else "-"
        marker = "o" if len(curve.x) < 40 else ""
        axes.plot(
            curve.x, curve.y, style, marker=marker, markersize=3, color=curve.color, linewidth=1.5
        )
    if top is not None:
        axes.set_ylim(top=top)
    for place, name in marks.starts:
        axes.axvline(place, color=GREY, linewidth=1, linestyle=":")
        axes.text(
            place, 1.02, f" {name}", transform=axes.get_xaxis_transform(), fontsize=9,
            color=_INK, parse_math=False,
        )  # fmt: skip
    for place in marks.best:
        axes.axvline(place, color=ORANGE, linewidth=1, alpha=0.5)
    if marks.chosen is not None:
        axes.axvline(marks.chosen, color=ORANGE, linewidth=2)
    axes.set(xlabel="epoch", ylabel=y)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=GREY, alpha=0.3)
    return _svg(figure, y)


def reliability_chart(bins: Sequence[Bin], *, title: str) -> str:
    """Draws the accuracy of each bin over its mean confidence; the diagonal is perfect.

    The area of a dot stands for the number of photos.
    """
    from kerasft.plots import BLUE, GREY, ORANGE

    figure, axes = _figure(3.0, 3.0)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    total = sum(one.n for one in bins)
    for one in bins:
        axes.plot([one.confidence] * 2, [one.confidence, one.accuracy], color=ORANGE, linewidth=1.5)
        area = 12 + 260 * one.n / total
        axes.scatter([one.confidence], [one.accuracy], s=area, color=BLUE, alpha=0.8)
    axes.set(xlim=(0, 1.05), ylim=(-0.03, 1.05), xlabel="highest score", ylabel="share right")
    axes.set_aspect("equal")
    axes.grid(color=GREY, alpha=0.3)
    return _svg(figure, title)


@dataclass(frozen=True)
class Dot:
    """A dot of a scatter chart.

    Attributes:
        number: number that stands beside it.
        x, y: its place.
        interval: ends of the vertical line through it; None draws none.
        marked: whether it is the one to look at.
    """

    number: int
    x: float
    y: float
    interval: tuple[float, float] | None
    marked: bool


def scatter_chart(dots: Sequence[Dot], *, x: str, y: str) -> str:
    """Draws dots with their intervals over a logarithmic axis.

    Args:
        dots: the dots; `x` is above 0.
        x, y: titles of the axes.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    from kerasft.plots import BLUE, GREY, ORANGE

    figure, axes = _figure(5.6, 3.6)
    axes.set_xscale("log")
    for dot in dots:
        color = ORANGE if dot.marked else BLUE
        if dot.interval:
            axes.plot([dot.x] * 2, dot.interval, color=color, linewidth=1.2, alpha=0.6)
        axes.plot(dot.x, dot.y, "o", color=color, markersize=7)
        axes.annotate(
            str(dot.number), (dot.x, dot.y), (6, 3), textcoords="offset points", color=_INK
        )
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color=GREY, alpha=0.3)
    return _svg(figure, f"{y} over {x}")


def share_chart(curves: Sequence[Curve], *, x: str, y: str) -> str:
    """Draws curves over shares of the training photos, 0 to 1."""
    from kerasft.plots import GREY

    figure, axes = _figure(5.6, 3.6)
    for curve in curves:
        axes.plot(curve.x, curve.y, "o--" if curve.dashed else "o-", color=curve.color)
    axes.set(xlim=(0, 1.02), xlabel=x, ylabel=y)
    axes.grid(axis="y", color=GREY, alpha=0.3)
    return _svg(figure, f"{y} over {x}")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # takes half a second, and not every page has a chart

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=_INK, labelcolor=_INK, labelsize=9)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _svg(figure: Any, label: str) -> str:
    """Returns a figure as an SVG element without an XML head.

    Args:
        figure: the figure.
        label: what it shows, for those who cannot see it.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kerasft"}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # several charts share a page
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<title>.*?</title>", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>|font-family: [^;\"]*;? ?", "", text, flags=re.S)
    text = text.replace(_INK, "currentColor")
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg role="img" aria-label="{html.escape(label)}" {box[0] if box else ""}>'
    return re.sub(r"\n\s*", "\n", head + text[text.index(">") + 1 :]).strip()
