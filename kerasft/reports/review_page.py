"""The page on which a person labels new photos: one at a time, a key for each class."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kerasft import __version__
from kerasft.answers import REVIEW
from kerasft.reports.check_page import SUSPECTS, suspect_entry
from kerasft.reports.page import write_page
from kerasft.reports.pictures import LARGE, ROOM, pictures_of
from kerasft.text import printable

SIDE = 448
"""Longer side of a picture in pixels, on a page of up to 100 photos."""


def write_review(
    path: Path,
    *,
    inbox: Path,
    table: Path,
    photos: Sequence[Any],
    rows: Sequence[Sequence[str]],
    run: Path,
    class_names: Sequence[str],
    root: Path | None,
    suspects: Sequence[Any],
) -> int:
    """Writes the page of photos to be labelled.

    Args:
        path: path of the HTML file, beside the table.
        inbox: folder that the paths are relative to.
        table: the table that the page fills.
        photos: the photos, with path, guess and why.
        rows: the rows of the table, without the label.
        run: the run directory.
        class_names: names of the classes that have a key.
        root: folder of the run's photos; None shows no pictures of suspects.
        suspects: photos of the run whose label may be wrong, with path, label, suggested, score.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: the file can't be written.
    """
    names = [one.path for one in photos]
    side, room = round(SIDE * min(1.0, (100 / len(names)) ** 0.5)), 4 * ROOM
    pictures = pictures_of(inbox, names, side=side, room=room)
    missing = [name for name in names if name not in pictures]
    if missing:  # of much detail: all of them smaller
        pictures = pictures_of(inbox, names, side=side // 3, room=room)
    shown = suspects[:SUSPECTS]
    small = {}
    if root:
        small = pictures_of(root, [one.path for one in shown], side=LARGE, room=ROOM // 2)
    data = {
        "key": f"kerasft review {table.resolve()}",
        "table": table.name,
        "columns": REVIEW,
        "classes": list(class_names),
        "photos": [
            {
                "path": one.path,
                "cells": row,
                "shown": printable(one.path),
                "guess": one.guess,
                "why": f"{one.why[:1].upper()}{one.why[1:]}.",
                "picture": pictures.get(one.path, ""),
            }
            for one, row in zip(photos, rows, strict=True)
        ],
    }
    values = {
        "version": __version__,
        "inbox": str(inbox),
        "table": table.name,
        "n": len(photos),
        # `<` is escaped, so that no name ends the element. It is data: the policy does not run it.
        "data": Markup(json.dumps(data).replace("<", "\\u003c")),
        "run": shlex.quote(str(run)),
        "path": shlex.quote(str(table)),
        "suspects": [
            suspect_entry(one.path, one.label, one.suggested, one.score, small.get(one.path, ""))
            for one in shown
        ],
        "more": len(suspects) - len(shown),
    }
    return write_page(path, "review.html", values, "review.js")
