"""Code that commands share: common options, printing of results, the default folder of a run."""

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kerasft.cli.wording import field_option
from kerasft.config.source_names import photos_help, short_name
from kerasft.results import plain

set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Sets any field of the config, e.g. phases.0.optimizer=sgd; `kerasft fields` lists them. "
    "Can be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
SOURCE_HELP = f"Photos: {photos_help()}"


def _forget(ctx: click.Context, _: object, verify: bool) -> None:
    """Forgets the facts of photos, so that the command reads all of them."""
    if verify and not ctx.resilient_parsing:
        from kerasft.data.facts import forget

        forget()


verify_option = click.option(
    "--verify",
    is_flag=True,
    expose_value=False,
    callback=_forget,
    help="Reads all photos again. Otherwise those that have kept their size and time since "
    "kerasft last read them are taken as unchanged.",
)


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where the photos of a run are now."""
    option = click.option(
        "--data", metavar="SRC", help="New place of the run's photos, if they were moved."
    )
    return option(verify_option(command))


_READING = (
    field_option(
        "--layout",
        "data.layout",
        metavar="auto|classes|splits",
        help="What the folders of SRC are, if their names leave it open: classes, or splits with a "
        "folder per class in each.",
    ),
    field_option(
        "--column",
        "data.columns",
        multiple=True,
        callback=lambda _, __, values: list(values) or None,
        metavar="ROLE=NAME",
        help="Role of a column of a table: path, label, split, group or ignore. Can be repeated.",
    ),
    field_option(
        "--label-from",
        "data.label_from",
        metavar="REGEX",
        help="Takes labels from the paths of photos: the group of this regular expression.",
    ),
    verify_option,
)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how a source is read."""
    for option in reversed(_READING):
        command = option(command)
    return command


def print_result(result: Any, to_text: Callable[[Any], str], *, as_json: bool) -> None:
    """Prints the result of a command, as text or as one JSON value.

    A character that the encoding of stdout lacks (in a pipe on Windows) is printed as \\u2026.

    Args:
        result: result as JSON value.
        to_text: function that writes the result as text.
        as_json: whether to print JSON instead of text.
    """
    text = json.dumps(_plain(plain(result)), allow_nan=False) if as_json else to_text(result)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    click.echo(text)


def _plain(value: Any) -> Any:
    """Replaces infinite and undefined numbers, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def default_run_path(source: str) -> Path:
    """Returns `runs/NAME`, with the name of the source, or the first free of `runs/NAME-2`, ...

    Args:
        source: value of `data.source`; it need not exist. The ending of a file is left out.
    """
    name = short_name(source)
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path
