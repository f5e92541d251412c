"""What kind of source a name stands for: a folder, a table, an archive, or a set of TFDS.

Only the name is read here, and whether it is that of a folder; `data/scan.py` opens what it names.
"""

import os
import re
from pathlib import Path

from kerasft.errors import UserError

TFDS = "tfds:"
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".zip": "archive",
    ".tar": "archive",
    ".tar.gz": "archive",
    ".tgz": "archive",
    ".tar.bz2": "archive",
    ".tbz2": "archive",
    ".tar.xz": "archive",
    ".txz": "archive",
    ".tar.zst": "archive",
    ".tzst": "archive",
}
_VERSION = r"\d+\.(?:\d+|\*)\.(?:\d+|\*)"
_TFDS_NAME = re.compile(
    rf"(?P<name>[A-Za-z]\w*)(?:[:/](?P<config>(?!{_VERSION}$)[\w.+=-]+))?(?::(?P<version>{_VERSION}))?",
    re.ASCII,
)


def kind_of(source: str) -> str:
    """Returns a key of `scan.SOURCES`; a name that says nothing else is that of a folder."""
    if source.startswith(TFDS):
        return "tfds"
    return "folder" if os.path.isdir(source) else ENDINGS.get(ending_of(source), "folder")


def ending_of(source: str) -> str:
    """The ending of a file's name that says its kind, in lower case: ".tar.gz"; "" if none does."""
    name = source.lower()
    return max((ending for ending in ENDINGS if name.endswith(ending)), key=len, default="")


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


def short_name(source: str) -> str:
    """Returns a name for what is made of a source: photos of photos.zip, flowers-small of TFDS.

    Args:
        source: need not exist.
    """
    if source.startswith(TFDS):
        return tfds_name(source).partition(":")[0].replace("/", "-")
    name = Path(source).absolute().name
    return name[: len(name) - len(ending_of(name))] or name or "run"
