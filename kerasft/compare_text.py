"""A comparison as text: what `kerasft compare` leaves on the screen."""

from collections.abc import Mapping
from typing import Any

from kerasft.cli_shared import as_typed
from kerasft.terminal import duration_text

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
    from kerasft.ways import AS_IS  # not at the top: pydantic would start with every command

    winner = result["winner"]
    if winner and winner["name"] == AS_IS:  # nothing was trained, so there is no run to keep
        return f"\n\nNext:\n  kerasft predict imagenet:{winner['backbone']} PHOTO.jpg"
    if not result["kept"]:
        return ""
    run = as_typed(result["kept"])
    return f"\n\nNext:\n  kerasft evaluate {run}\n  kerasft export {run}"
