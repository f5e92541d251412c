"""The kinds of source, as a table: what the name of a source says about it.

Only the name is read here, and whether it is that of a folder; `data/scan.py` has the function
that opens each kind. A new kind is a row here and a function there.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerasft.errors import UserError

TFDS = "tfds:"
_VERSION = r"\d+\.(?:\d+|\*)\.(?:\d+|\*)"
_TFDS_NAME = re.compile(
    rf"(?P<name>[A-Za-z]\w*)(?:[:/](?P<config>(?!{_VERSION}$)[\w.+=-]+))?(?::(?P<version>{_VERSION}))?",
    re.ASCII,
)


def tfds_name(source: str) -> str:
    """Translates `tfds:NAME[:CONFIG][:VERSION]` to what TFDS calls it: `NAME/CONFIG:VERSION`.

    TFDS' own way of writing it is understood too.

    Raises:
        UserError: it is none of these. Exit code 2.
    """
    match = _TFDS_NAME.fullmatch(source.removeprefix(TFDS))
    if match is None:
        raise UserError(
            f"{source}: expected {TFDS}NAME, {TFDS}NAME:CONFIG or {TFDS}NAME:CONFIG:VERSION, "
            "such as tfds:tf_flowers or tfds:imagenette:160px.",
            exit_code=2,
        )
    config, version = match["config"], match["version"]
    return match["name"] + (f"/{config}" if config else "") + (f":{version}" if version else "")


@dataclass(frozen=True)
class Kind:
    """One row of the table: a kind of source, and the names that stand for it.

    Attributes:
        what: description of the source, for help texts.
        endings: endings of the names of its files, in lower case.
        prefix: beginning of its names, such as "tfds:"; "" for files and folders. A name with
            a prefix is not a path.
        read_name: function that checks a name with the prefix and returns what the name means
            without it; it raises UserError.
    """

    what: str
    endings: tuple[str, ...] = ()
    prefix: str = ""
    read_name: Callable[[str], str] = str


KINDS: dict[str, Kind] = {
    "folder": Kind("a folder with a folder per class (or train/, validation/, test/)"),
    "csv": Kind("a CSV file of path,label", endings=(".csv", ".tsv")),
    "parquet": Kind("a Parquet file of path,label", endings=(".parquet", ".pq")),
    "list": Kind("a list of path and label", endings=(".txt", ".lst", ".list")),
    "archive": Kind(
        "a zip or tar file of a folder",
        endings=(
            *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
            *(".tar.zst", ".tzst"),
        ),
    ),
    "tfds": Kind(f"{TFDS}NAME", prefix=TFDS, read_name=tfds_name),
}


TABLES = ("csv", "parquet", "list")
"""Keys of KINDS that are tables, with columns."""


def kind_of(source: str) -> str:
    """Returns a key of KINDS; a name that says nothing else is that of a folder."""
    for name, row in KINDS.items():
        if row.prefix and source.startswith(row.prefix):
            return name
    if os.path.isdir(source):
        return "folder"
    ending = ending_of(source)
    return next((name for name, row in KINDS.items() if ending in row.endings), "folder")


def is_path(source: str) -> bool:
    """Returns whether a source is a file or folder, and not a name such as "tfds:mnist"."""
    return not KINDS[kind_of(source)].prefix


def ending_of(source: str) -> str:
    """Returns the ending that says the kind of a file, in lower case: ".tar.gz"; or ""."""
    name = source.lower()
    endings = [ending for row in KINDS.values() for ending in row.endings]
    return max((ending for ending in endings if name.endswith(ending)), key=len, default="")


def check_name(source: str) -> None:
    """Refuses a name with the prefix of a kind that does not have the form of its names.

    Raises:
        UserError: one sentence that begins with the name. Exit code 2.
    """
    row = KINDS[kind_of(source)]
    if row.prefix:
        row.read_name(source)


def photos_help() -> str:
    """Returns what a source can be, for help texts: "a folder ..., a CSV file ..., or ..."."""
    *most, last = (row.what for row in KINDS.values())
    return f"{', '.join(most)}, or {last}"


def short_name(source: str) -> str:
    """Returns a name for what is made of a source: photos of photos.zip, flowers-small of TFDS.

    Args:
        source: need not exist.
    """
    if not is_path(source):
        meant = KINDS[kind_of(source)].read_name(source)
        return meant.partition(":")[0].replace("/", "-")
    name = Path(source).absolute().name
    return name[: len(name) - len(ending_of(name))] or name or "run"
