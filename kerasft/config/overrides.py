"""Settings as they were given: a TOML file and the options over it, as one tree of dicts.

Options are the arguments `flags` and `sets` of `load_config`. Nothing is checked here but that
there is such a place; `fields.py` knows them.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft.backbones.compatibility import with_files
from kerasft.backbones.spec import SEPARATOR
from kerasft.config.problems import FieldPath, Problem, report, shown
from kerasft.config.source_names import is_path
from kerasft.errors import UserError, first_line
from kerasft.untrusted import parse_toml


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a config file, with or without a byte order mark.

    Raises:
        UserError: no such file, or not TOML. Exit code 2.
    """
    try:
        read: dict[str, Any] = parse_toml(path.read_bytes().decode("utf-8-sig"))
        return read
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.", exit_code=2) from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.", exit_code=2) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a TOML file: not UTF-8 text.", exit_code=2) from error
    except ValueError as error:
        raise UserError(
            report([Problem((), f"{first_line(error)}.")], path), exit_code=2
        ) from error


PATHS = (
    ("data", "source"),
    ("data", "added"),
    ("data", "data_dir"),
    ("data", "splits_from"),
    ("model", "weights"),
)
NO_RUN = "none"  # value of `data.splits_from` with which all photos are split anew


def make_absolute(tree: dict[str, Any], folder: Path) -> None:
    """Resolves the relative paths in a tree, in place.

    Args:
        tree: settings as read from TOML, valid or not.
        folder: folder that the paths are relative to. Links in it are resolved, so that ".."
            means the same as for the operating system.
    """
    for section, key in PATHS:
        table = tree.get(section)
        if not isinstance(table, dict):
            continue
        value = table.get(key)
        if key == "added" and isinstance(value, list | tuple):
            table[key] = [
                absolute(one, folder) if isinstance(one, str | Path) and str(one) else one
                for one in value
            ]
        if key == "weights" and isinstance(value, list):
            if not all(isinstance(one, str) for one in value):
                continue  # reported by the validation
            value = SEPARATOR.join(value)
        if key == "weights" and isinstance(value, str) and value:
            table[key] = with_files(value, lambda path: absolute(path, folder))
        elif (
            isinstance(value, str | Path) and str(value) and (key, value) != ("splits_from", NO_RUN)
        ):
            table[key] = absolute(value, folder)


def absolute(path: str | Path, folder: Path) -> str:
    """Makes a path absolute; expands "~", and leaves a name such as "tfds:mnist" unchanged."""
    if not is_path(str(path)):
        return str(path)
    joined = os.path.join(os.path.realpath(folder), os.path.expanduser(path))
    return os.path.normpath(joined)


@dataclass(frozen=True)
class Override:
    """A value for one place of the config, and the argument that brought it.

    Attributes:
        place: the key that is set.
        value: the new value.
        origin: "flags" or "sets".
    """

    place: FieldPath
    value: object
    origin: str


def parse_options(
    flags: Mapping[str, object], sets: Sequence[str]
) -> tuple[list[Override], list[Problem]]:
    """Reads options.

    Args:
        flags: values by dotted key, `{"phases.0.epochs": 5}`.
        sets: texts `KEY=VALUE`. A value that is not TOML is text, so that `optimizer=sgd` needs
            no quotes.

    Returns:
        Overrides in the order in which they apply, and a problem for each invalid text.
    """
    given = [Override(_place(key), value, "flags") for key, value in flags.items()]
    problems = []
    for text in sets:
        key, equals, value = text.partition("=")
        if equals and all(key.strip().split(".")):
            given.append(Override(_place(key.strip()), _value(value), "sets"))
        else:
            wrong = f"expected KEY=VALUE, e.g. phases.0.epochs=5, got {text!r}."
            problems.append(Problem((), wrong, "sets"))
    return given, problems


def _place(key: str) -> FieldPath:
    parts = key.split(".")
    return tuple(int(part) if re.fullmatch(r"-?\d{1,9}", part, re.A) else part for part in parts)


def _value(text: str) -> object:
    try:
        read = parse_toml(f"value = {text}")
    except ValueError:
        return text
    value = read["value"]
    # A folder may be called 2024-05-01, which TOML reads as a date.
    known = isinstance(value, bool | int | float | str | list | dict)
    return value if known and len(read) == 1 else text


def put_over(
    tree: dict[str, Any], overrides: Iterable[Override]
) -> tuple[dict[FieldPath, str], list[Problem]]:
    """Sets values in a tree, in place; missing sections are added.

    Args:
        tree: settings, as dicts and lists.
        overrides: values to set; the last one for a place wins. A negative index counts from the
            end.

    Returns:
        The origin of each value that was set, by its place, and a problem for each place that
        there cannot be.
    """
    origins, problems = {}, []
    for override in overrides:
        placed = _put(tree, override)
        if isinstance(placed, Problem):
            problems.append(placed)
        else:
            origins[placed] = override.origin
    return origins, problems


def _put(tree: dict[str, Any], override: Override) -> FieldPath | Problem:
    here: Any = tree
    place: FieldPath = ()
    for key, following in zip(override.place, (*override.place[1:], None), strict=True):
        wrong = ""
        if isinstance(here, list):
            if not isinstance(key, int) or not -len(here) <= key < len(here):
                count = f"{len(here)} {'entry' if len(here) == 1 else 'entries'}"
                wrong = f"{shown(place)} has {count}, counted from 0."
            else:
                key %= len(here)
        elif not isinstance(here, dict):
            wrong = f"{shown(place)} is not a section."
        elif isinstance(key, int):
            wrong = f"{shown(place)} is not a list." if place else "a key begins with a name."
        if wrong:
            return Problem(override.place, f"no such field: {wrong}", override.origin)
        place += (key,)
        if following is None:
            here[key] = override.value
        else:
            made: Any = [] if isinstance(following, int) else {}
            here = here.setdefault(key, made) if isinstance(here, dict) else here[key]
    return place


def flat(tree: object, prefix: str = "") -> dict[str, object]:
    """Returns the values of a tree by dotted key, such as "phases.0.epochs".

    Args:
        tree: settings, as `Config.model_dump` gives them.
        prefix: key of the tree itself.
    """
    if isinstance(tree, dict):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, tuple | list) and tree and isinstance(tree[0], dict):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return {prefix: tree}
    return {
        key: value
        for name, branch in items
        for key, value in flat(branch, f"{prefix}.{name}" if prefix else name).items()
    }
