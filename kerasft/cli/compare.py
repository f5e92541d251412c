"""`kerasft compare`, with the table it prints."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kerasft.cli.options import as_typed, json_option, print_result, set_option
from kerasft.cli.terminal import duration_text, loading, showing
from kerasft.errors import UserError


@click.command()
@click.argument("source", metavar="SRC")
@click.option(
    "--backbones",
    metavar="A,B,A+B",
    help="Default: MobileNetV2. A+B: the features of both together.",
)
@click.option(
    "--methods",
    metavar="A,B,...",
    help="Of as-is, knn, bayes, lda, logistic, svm, rbf-svm, linear, fc, unfreeze, full, scratch. "
    "Default: all but full and scratch, which need a --budget with time for them.",
)
@click.option(
    "--weights",
    metavar="imagenet|sample|none|RUN|FILE",
    help="As for train; of several, joined by +, each backbone takes its own. Default: imagenet.",
)
@click.option("--image-size", type=int, metavar="N", help="Side in pixels, e.g. 224.")
@click.option("--seeds", type=int, default=1, metavar="N", help="Divides the photos N times.")
@click.option(
    "--fractions",
    metavar="F,F,...",
    default="1",
    help="Shares of the training photos, e.g. 0.1,0.5,1: would more photos help?",
)
@click.option("--budget", type=float, metavar="MINUTES", help="Stops there; may be continued.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the result goes. Default: compare/ and the name of the photos.",
)
@click.option("--keep", is_flag=True, help="Leaves the winner as a run, DIR/winner.")
@set_option
@json_option
def compare(
    source: str,
    backbones: str | None,
    methods: str | None,
    weights: str | None,
    image_size: int | None,
    seeds: int,
    fractions: str,
    budget: float | None,
    out: Path | None,
    keep: bool,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tries all ways to use a pretrained net on SRC, and says which one to use.

    The net as it is; classifiers of scikit-learn on its features; new layers; unfreezing. All
    with the same split, the same stored activations and as many settings tried. Goes on where it
    was interrupted, and adds what is asked for later.

    \b
    Example:
        kerasft compare photos/ --backbones MobileNetV2,MobileNet --keep
    """
    from kerasft.config.source_names import short_name

    shares = _numbers(fractions)
    out = out or Path("compare") / short_name(source)
    with loading():
        from kerasft.compare.compare import compare_ways
        from kerasft.compare.trials import Request

    given = {"data.source": source, "model.weights": weights, "model.image_size": image_size}
    request = Request(
        flags={key: value for key, value in given.items() if value is not None},
        sets=sets,
        # A comma also stands between the options of one backbone, which begin in lower case.
        backbones=() if backbones is None else tuple(re.split(r",\s*(?=[A-Z])", backbones)),
        ways=None if methods is None else tuple(name.strip() for name in methods.split(",")),
        seeds=seeds,
        fractions=shares,
    )
    again = "Go on with the same command."
    click.get_current_context().meta["kerasft.again"] = lambda: again
    with showing() as progress:
        logging.getLogger("kerasft").setLevel(logging.WARNING)  # dozens of runs say the same
        result = compare_ways(
            request,
            out,
            budget=None if budget is None else 60 * budget,
            keep=keep,
            progress=progress,
        )
    print_result(result, compare_text, as_json=as_json)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--fractions: expected numbers such as 0.1,0.5,1, got '{text}'.", exit_code=2
        ) from None


TITLE = ("way", "backbone", "validation", "test", "95% interval", "p", "time", "ms/image", "MB")


def compare_text(result: Mapping[str, Any]) -> str:
    """A line per way, the best on validation first; then the advice and where all of it is.

    Args:
        result: the object that `compare --json` prints.
    """
    rows = sorted(result["methods"], key=lambda row: -(row["val_accuracy"] or 0))
    lines = [TITLE, *(_cells(row) for row in rows)]
    width = [max(len(line[column]) for line in lines) for column in range(len(TITLE))]
    table = []
    for line, row in zip(lines, [None, *rows], strict=True):
        cells = [f"{line[0]:<{width[0]}}", f"{line[1]:<{width[1]}}"]
        cells += [f"{cell:>{w}}" for cell, w in zip(line[2:], width[2:], strict=True)]
        cells.append(row["note"] if row else "")
        table.append("  ".join(cells).rstrip())
    images = ", ".join(f"{n:,} {split}" for split, n in result["images"].items())
    parts = [
        "\n".join(table),
        f"{images}. Validation chooses; p says how likely chance alone makes a way differ on test "
        "from the best one as much as it does.\nThe frozen part was computed once for all, "
        f"{duration_text(result['pass_seconds'])}; time is what came on top, all settings tried.",
        "\n".join(["as-is:", *(f"  {line}" for line in result["mapping"])])
        if result["mapping"]
        else "",
        "\n".join(
            f"{row['name']} on {row['backbone']}: {note}" for row in rows for note in row["notes"]
        ),
        "\n".join(_left_out_text(one) for one in result["left_out"]),
        _curve_text(result["curve"]),
        result["advice"],
        f"All of it: {result['out']}, plot and table too.{_kept_text(result)}",
    ]
    return "\n\n".join(part for part in parts if part)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    def number(key: str, form: str) -> str:
        return "" if row[key] is None else form.format(row[key])

    low, high = row["ci95"] or (None, None)
    return (
        row["name"],
        row["backbone"],
        number("val_accuracy", "{:.3f}"),
        number("test_accuracy", "{:.3f}"),
        "" if low is None else f"{low:.3f} to {high:.3f}",
        number("p_vs_best", "{:.2f}"),
        "" if row["seconds"] is None else duration_text(row["seconds"]),
        number("ms_per_image", "{:.1f}"),
        number("size_mb", "{:.1f}"),
    )


def _left_out_text(one: Mapping[str, Any]) -> str:
    why = f"{duration_text(one['left'])} of the budget was left"
    if one["seconds"] is not None:
        why = f"it would take about {duration_text(one['seconds'])}, {why}"
    return f"{one['name']} on {one['backbone']} left out: {why}."


def _curve_text(curve: Mapping[str, Any]) -> str:
    if not curve:
        return ""
    shares = [share for share, _ in next(iter(curve.values()))]
    width = max(len("validation accuracy with"), *map(len, curve))
    lines = [f"{'validation accuracy with':<{width}}" + "".join(f"{s:>7.0%}" for s in shares)]
    lines += [
        f"{name:<{width}}" + "".join(f"{value:>7.3f}" for _, value in points)
        for name, points in curve.items()
    ]
    return "\n".join(lines)


def _kept_text(result: Mapping[str, Any]) -> str:
    from kerasft.compare.ways import (
        AS_IS,  # not at the top: pydantic would start with every command
    )

    winner = result["winner"]
    if winner and winner["name"] == AS_IS:  # nothing was trained, so there is no run to keep
        return f"\n\nNext:\n  kerasft predict imagenet:{winner['backbone']} PHOTO.jpg"
    if not result["kept"]:
        return ""
    run = as_typed(result["kept"])
    return f"\n\nNext:\n  kerasft evaluate {run}\n  kerasft export {run}"
