"""What the modules of the command line share: common options, and printing.

stdout carries the result alone (with --json one JSON value), everything else is on stderr.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import click

set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Sets any field of the config, e.g. phases.0.optimizer=sgd. Can be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
SOURCE_HELP = (
    "Photos: a folder with a folder per class (or train/, validation/, test/), a CSV or Parquet "
    "file of path,label, a zip or tar file of a folder, or tfds:NAME"
)
data_option = click.option(
    "--data", metavar="SRC", help="The photos, if they are not where the run found them."
)


def print_result(result: Any, to_text: Callable[[Any], str], *, as_json: bool) -> None:
    """Prints what a command is for: as text, or as one JSON value."""
    click.echo(json.dumps(_plain(result), allow_nan=False) if as_json else to_text(result))


def _plain(value: Any) -> Any:
    """The same value with null for infinite and undefined numbers, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
