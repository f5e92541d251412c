"""The page on which a person labels new photos: one at a time, a key for each class."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kerasft import __version__
from kerasft.files import digest_of
from kerasft.reports.page import write_page
from kerasft.reports.pictures import LARGE, ROOM, pictures_of
from kerasft.text import printable

SIDE = 448
"""Longer side of a picture in pixels, on a page of up to 100 photos."""

SUSPECTS = 40


def write_review(
    path: Path,
    inbox: Path,
    table: Path,
    rows: Sequence[Sequence[str]],
    run: Path,
    class_names: Sequence[str],
    suspects: tuple[Path, Sequence[Any]],
) -> int:
    """Writes the page of photos to be labelled.

    Args:
        path: path of the HTML file, beside the table.
        inbox: folder that the paths are relative to.
        table: the table that the page fills.
        rows: its rows, without the label: path, guess, score and why.
        run: the run directory.
        class_names: names of the classes that have a key.
        suspects: folder of the run's photos, and those whose label may be wrong.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: the file can't be written.
    """
    side = round(SIDE * min(1.0, (100 / max(1, len(rows))) ** 0.5))
    pictures = pictures_of(inbox, [row[0] for row in rows], side=side, room=4 * ROOM)
    root, doubtful = suspects
    shown = doubtful[:SUSPECTS]
    small = pictures_of(root, [one.path for one in shown], side=LARGE, room=ROOM // 2)
    data = {
        "id": digest_of(json.dumps([str(table), rows]).encode()),
        "table": table.name,
        "classes": [{"name": name, "shown": printable(name)} for name in class_names],
        "photos": [
            {
                "cells": row,
                "shown": printable(row[0].removeprefix("./")),
                "guess": row[1],
                "why": f"The model says {row[1]} ({float(row[2]):.2f}): {row[3]}.",
                "picture": pictures.get(row[0], ""),
            }
            for row in rows
        ],
    }
    values = {
        "version": __version__,
        "inbox": str(inbox),
        "table": table.name,
        "n": len(rows),
        # `<` is escaped, so that no name ends the element. It is data: the policy does not run it.
        "data": Markup(json.dumps(data).replace("<", "\\u003c")),
        "run": shlex.quote(str(run)),
        "path": shlex.quote(str(table)),
        "suspects": [
            {
                "path": one.path,
                "picture": small.get(one.path, ""),
                "text": f"{one.label}, or rather {one.suggested}? Quality {one.score:.2f}",
            }
            for one in shown
        ],
        "more": len(doubtful) - len(shown),
    }
    return write_page(path, "review.html", values, "review.js")
