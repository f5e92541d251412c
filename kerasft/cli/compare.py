"""`kerasft compare`, `kerasft runs` and `kerasft diff`, with the tables that they print."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result, reading_options, set_option
from kerasft.cli.terminal import duration_text, loading, showing
from kerasft.cli.wording import as_typed, difference_text, field_option, fields_typed, for_terminal
from kerasft.errors import UserError
from kerasft.heads.methods import METHODS
from kerasft.text import agreeing, columns, count, printable

if TYPE_CHECKING:  # scikit-learn and pydantic would start with every command
    from kerasft.compare.result import ComparisonResult, LeftOut
    from kerasft.compare.verdict import Curve, WayResult
    from kerasft.reports.diff import AnswersDiff, Difference, PhotosDiff, RunDiff
    from kerasft.reports.runs import ListedRun, Score

EARLIER_NAMES = {"methods": "ways"}
"""Former names of options, which scripts may still use."""


@click.command(
    context_settings={"token_normalize_func": lambda name: EARLIER_NAMES.get(name, name)}
)
@click.argument("source", metavar="SRC")
@reading_options
@field_option(
    "--backbones",
    "model.backbone",
    metavar="A,B,A+B",
    help="Backbones to try. A+B joins the features of A and B. Default: the backbone that "
    "--weights belongs to, or MobileNetV2.",
)
@click.option(
    "--ways",
    metavar="A,B,...",
    help=f"Ways to try, out of as-is, {', '.join(METHODS)}, linear, fc, "
    "depths, unfreeze, full, scratch. Default: all except depths, full and scratch; these three "
    "are added if --budget leaves enough time.",
)
@field_option(
    "--weights",
    "model.weights",
    metavar="imagenet|sample|none|RUN|FILE",
    help="Initial weights, as for train. Weights for several backbones are joined with +; each "
    "backbone takes its own. Default: imagenet.",
)
@field_option(
    "--image-size",
    "model.image_size",
    type=int,
    metavar="N",
    help="Side of the images in pixels, e.g. 224.",
)
@click.option(
    "--seeds",
    type=int,
    default=1,
    metavar="N",
    help="Repeats the comparison with N different splits.",
)
@click.option(
    "--fractions",
    metavar="F,F,...",
    default="1",
    help="Repeats the comparison with these shares of the training photos, e.g. 0.1,0.5,1, to "
    "find out whether more photos would help.",
)
@click.option(
    "--budget",
    type=float,
    metavar="MINUTES",
    help="Stops training after this time. The same command continues later.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the result. Default: compare/ and the name of the photos.",
)
@click.option("--keep", is_flag=True, help="Keeps the winner as a run in DIR/winner.")
@set_option
@json_option
def compare(
    source: str,
    backbones: str | None,
    ways: str | None,
    weights: str | None,
    image_size: int | None,
    seeds: int,
    fractions: str,
    budget: float | None,
    out: Path | None,
    keep: bool,
    sets: tuple[str, ...],
    as_json: bool,
    **reading: object,
) -> None:
    """Tries all ways to use a pretrained net on SRC, and recommends one.

    The ways are: the net as it is, scikit-learn classifiers on its features, new trained layers,
    and unfreezing. All share the same split and stored activations, and each tries the same
    number of settings. The same command continues an interrupted comparison; ways, backbones and
    seeds can be added later.

    \b
    Example:
        kerasft compare photos/ --backbones MobileNetV2,MobileNet --keep
    """
    from kerasft.config.source_names import short_name

    shares = _numbers(fractions)
    out = out or Path("compare") / short_name(source)
    with loading():
        from kerasft.compare.compare import compare_ways

    typed = fields_typed({"weights": weights, "image_size": image_size, **reading})
    again = "Continue with the same command."
    click.get_current_context().meta["kerasft.again"] = lambda: again
    with showing() as progress:
        logging.getLogger("kerasft").setLevel(logging.WARNING)  # dozens of runs log the same
        for name in ("layouts", "tables"):  # what was guessed about the photos is said all the same
            logging.getLogger(f"kerasft.sources.{name}").setLevel(logging.INFO)
        result = compare_ways(
            {"data.source": source, **typed},
            out,
            sets=sets,
            # A comma also stands between the options of one backbone, which begin in lower case.
            backbones=() if backbones is None else re.split(r",\s*(?=[A-Z])", backbones),
            ways=None if ways is None else [name.strip() for name in ways.split(",")],
            seeds=seeds,
            fractions=shares,
            budget=None if budget is None else 60 * budget,
            keep=keep,
            progress=progress,
        )
    print_result(result.to_json(), lambda _: compare_text(result), as_json=as_json)


@click.command()
@click.argument("folder", metavar="[DIR]", default="runs", type=click.Path(path_type=Path))
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """Lists the runs in a folder: how good, on what photos, finished or not.

    An interrupted run is listed with the command that goes on with it. Default of DIR: runs.

    \b
    Example:
        kerasft runs
    """
    from kerasft.reports.runs import list_runs

    found = list_runs(folder)
    print_result(found, lambda listed: runs_text(listed, folder), as_json=as_json)


def runs_text(listed: "Sequence[ListedRun]", folder: Path) -> str:
    """Writes a line per run, in the order of their paths, and what is to be done about some."""
    if not listed:
        return f"No runs in {printable(str(folder))}."
    title = ("run", "backbone", "photos", "validation", "test", "state", "date")
    rows = [
        (
            printable(str(one.path)),
            one.backbone or "?",
            printable(one.data) or "?",
            _accuracy_text(one.validation),
            _accuracy_text(one.test),
            one.state,
            one.date,
        )
        for one in listed
    ]
    lines = columns((title, *rows), right=(3, 4))
    problems = [
        f"{printable(str(one.path))} is {one.state}"
        + (f". Go on: {for_terminal(one.problem)}" if one.state == "interrupted" else "")
        + (f": {for_terminal(one.problem)}" if one.state == "damaged" else "")
        for one in listed
        if one.problem
    ]
    return "\n".join(lines + ([""] if problems else []) + problems)


def _accuracy_text(score: "Score | None") -> str:
    return "" if score is None else f"{score.accuracy:.3f} of {score.n:,}"


@click.command()
@click.argument("one", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("other", metavar="RUN", type=click.Path(path_type=Path))
@json_option
def diff(one: Path, other: Path, as_json: bool) -> None:
    """Shows what differs between two runs: settings, photos, versions and figures.

    On the test photos that both have, McNemar's test says whether the difference may be chance.
    Only files of the runs are read.

    \b
    Example:
        kerasft diff runs/photos runs/again
    """
    from kerasft.reports.diff import diff_runs

    print_result(diff_runs(one, other), diff_text, as_json=as_json)


def diff_text(found: "RunDiff") -> str:
    """Writes what differs between two runs, and how their answers compare."""
    names = [printable(str(one.path)) for one in found.runs]
    figures = [
        (split, *(_accuracy_text(getattr(one, split)) or "-" for one in found.runs))
        for split in ("validation", "test")
    ]
    parts = [
        "\n".join(columns([("accuracy", *names), *figures], right=(1, 2))),
        _differences_text("Settings", found.config, names),
        _differences_text("Versions and device", found.versions, names),
        _photos_text(found.photos, names),
        _test_text(found.test, names)
        if found.test
        else f"No comparison on test photos: {for_terminal(found.why)}",
    ]
    return "\n\n".join(parts)


def _differences_text(what: str, found: "Sequence[Difference]", names: Sequence[str]) -> str:
    if not found:
        return f"{what}: the same."
    rows = [(one.name, _value_text(one.one), _value_text(one.other)) for one in found]
    return "\n".join(columns([(what.lower(), *names), *rows]))


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in (None, "") else printable(str(value))


def _photos_text(photos: "PhotosDiff", names: Sequence[str]) -> str:
    if photos.one == photos.other == photos.both and not (photos.relabelled or photos.moved):
        return f"Photos: the same {photos.both:,}, with the same labels and splits."
    lines = [
        f"Photos: {photos.one:,} in {names[0]}, {photos.other:,} in {names[1]}, {photos.both:,} in "
        f"both; of these {photos.relabelled:,} with another label and {photos.moved:,} in another "
        "split."
    ]
    pairs = zip(photos.test_trained_on, (names, names[::-1]), strict=True)
    lines += [
        f"{count(number, 'test photo')} of {mine} {agreeing(number, 'are')} in the training or "
        f"validation split of {theirs}, so {theirs} can't be judged by the test photos of {mine}."
        for number, (mine, theirs) in pairs
        if number
    ]
    return "\n".join(lines)


def _test_text(test: "AnswersDiff", names: Sequence[str]) -> str:
    verdict = (
        f"{difference_text(test.p)}." if test.one != test.other else "they are equally good there."
    )
    return (
        f"On the {count(test.n, 'photo')} that both have as test photos, {names[0]} has "
        f"{test.one:,} right ({test.only_one:,} alone), {names[1]} {test.other:,} "
        f"({test.only_other:,} alone): {verdict}"
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--fractions: expected numbers such as 0.1,0.5,1, got '{text}'.", exit_code=2
        ) from None


TITLE = ("way", "backbone", "corrected", "test", "95% interval", "p", "time", "ms/image", "MB")


def compare_text(result: "ComparisonResult") -> str:
    """Writes a line per way, the best on validation first; then notes, advice and paths.

    Args:
        result: result of `compare_ways`.
    """
    rows = sorted(result.ways, key=lambda row: -(row.means.val_corrected if row.means else 0))
    images = ", ".join(f"{n:,} {split}" for split, n in result.images.items())
    parts = [
        _table_text(rows),
        f"Images: {images}. The validation split decides: the table has the accuracy there, "
        "corrected for the luck of having been chosen on it. p is the probability of a difference "
        "to the winner as large as the one on test if both were equally good.\n"
        f"The frozen part took {duration_text(result.pass_seconds)}, once for all ways; time is "
        "what each way took in addition, with all the settings that it tried.",
        "\n".join(["as-is:", *(f"  {line}" for line in result.mapping)]) if result.mapping else "",
        "\n".join(f"{row.title}: {note}" for row in rows for note in row.notes),
        "\n".join(_left_out_text(one) for one in result.left_out),
        _curves_text(result.curves),
        result.advice,
        f"Page, table, plots and all figures: {result.out}{_next_text(result)}",
    ]
    return "\n\n".join(part for part in parts if part)


def _table_text(rows: Sequence["WayResult"]) -> str:
    lines = [TITLE, *(_cells(row) for row in rows)]
    width = [max(len(line[column]) for line in lines) for column in range(len(TITLE))]
    table = []
    for line, note in zip(lines, ["", *(row.note for row in rows)], strict=True):
        cells = [f"{line[0]:<{width[0]}}", f"{line[1]:<{width[1]}}"]
        cells += [f"{cell:>{w}}" for cell, w in zip(line[2:], width[2:], strict=True)]
        table.append("  ".join([*cells, note]).rstrip())
    return "\n".join(table)


def _cells(row: "WayResult") -> tuple[str, ...]:
    means = row.means
    if means is None:
        return (row.way, row.backbone, *[""] * (len(TITLE) - 2))
    return (
        row.way,
        row.backbone,
        f"{means.val_corrected:.3f}",
        _number(means.test_accuracy, ".3f"),
        "{:.3f} to {:.3f}".format(*means.ci95) if means.ci95 else "",
        _number(row.p_vs_best, ".2f"),
        "" if means.seconds is None else duration_text(means.seconds),
        _number(means.ms_per_image, ".1f"),
        _number(means.size_mb, ".1f"),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _left_out_text(one: "LeftOut") -> str:
    why = f"{duration_text(one.left)} of the budget was left"
    if one.seconds is not None:
        why = f"it would take about {duration_text(one.seconds)}, but only {why}"
    return f"{one.way} on {one.backbone} was left out: {why}."


def _curves_text(curves: Mapping[str, "Curve"]) -> str:
    if not curves:
        return ""
    shares = [share for share, _ in next(iter(curves.values()))]
    width = max(len("validation accuracy with"), *map(len, curves))
    lines = [f"{'validation accuracy with':<{width}}" + "".join(f"{s:>7.0%}" for s in shares)]
    lines += [
        f"{title:<{width}}" + "".join(f"{accuracy:>7.3f}" for _, accuracy in curve)
        for title, curve in curves.items()
    ]
    return "\n".join(lines)


def _next_text(result: "ComparisonResult") -> str:
    """Writes the commands that use the winner, or "" if it was not kept."""
    # Imported here, because otherwise every command would load pydantic.
    from kerasft.compare.ways import AS_IS

    if result.winner and result.winner.way == AS_IS:  # nothing was trained: there is no run
        return f"\n\nNext:\n  kerasft predict imagenet:{result.winner.backbone} PHOTO.jpg"
    if not result.kept:
        return ""
    run = as_typed(str(result.kept))
    return f"\n\nNext:\n  kerasft evaluate {run}\n  kerasft export {run}"
