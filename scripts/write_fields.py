"""Writes configs/FIELDS.md: every field of a config with type, range, default and description.

    python scripts/write_fields.py

A test compares the file with the fields, so that it is never out of date.
"""

import json
from pathlib import Path

from kerasft.config.listing import FieldRow, SectionRows, list_fields

FIELDS = Path(__file__).resolve().parent.parent / "configs" / "FIELDS.md"
INTRODUCTION = """\
# Fields of a config

Written by `python scripts/write_fields.py` from `kerasft/config/fields.py`; do not edit.
`kerasft fields` prints the same.

A field is set in a config file (TOML, `kerasft train mine.toml`), or with `--set`, as in
`kerasft train --data photos/ --set augment.views=8`. N is the number of a phase, from 0. A field
that is not set has the value that its description names.
"""


def to_markdown() -> str:
    """Returns the file as it has to be now."""
    return "\n".join([INTRODUCTION, *map(_section, list_fields())])


def _section(section: SectionRows) -> str:
    heading = {"": "Top level", "phases": "[[phases]]"}.get(section.section, f"[{section.section}]")
    lines = [
        f"## {heading}",
        "",
        section.description,
        "",
        "| field | type | default | description |",
        "| --- | --- | --- | --- |",
        *map(_row, section.fields),
    ]
    return "\n".join(lines) + "\n"


def _row(row: FieldRow) -> str:
    kind = f"{row.type}, {row.range}" if row.range else row.type
    default = f"`{json.dumps(row.default)}`"
    if row.default is None:
        default = "required" if row.required else "not set"
    return f"| `{row.name}` | {kind} | {default} | {row.description} |"


if __name__ == "__main__":
    FIELDS.write_text(to_markdown(), "utf-8", newline="\n")
