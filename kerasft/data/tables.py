"""Tables of photos: CSV or Parquet files with `path,label[,split][,group]`, one row per photo.

Paths are relative to the folder of the table and may not lead out of it, because everything
else expects photos below one folder. Columns with other names are ignored.
"""

import csv
import importlib.util
import logging
import math
import os
import posixpath
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from kerasft.config.fields import Data
from kerasft.config.photo_names import WORDS, split_of
from kerasft.data.folders import walk
from kerasft.data.source import SPLITS, Listing, Photo, PhotoFolder
from kerasft.errors import UserError, did_you_mean
from kerasft.progress import Progress
from kerasft.text import is_writable, listing, printable

DELIMITERS = (",", ";", "\t")
BATCH = 10_000  # number of rows of a Parquet file that are in memory at a time

Row = tuple[int, Sequence[Any]]
"""Number of a line or row, from 1, and its values; () if there are too many or too few values."""


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        unit: word for a row in messages, "line" for a CSV file or "row".
        header: names of the columns.
        kinds: types of the columns, "text", "number", "list", or the name of another type.
        rows: function that takes positions in the header and yields each row's values at these
            positions. It can be called once.
    """

    unit: str
    header: Sequence[str]
    kinds: Sequence[str]
    rows: Callable[[Sequence[int]], Iterator[Row]]


@contextmanager
def open_csv(path: Path) -> Iterator[Table]:
    """Opens a CSV file. Raises UserError, also in the `with` block, if it cannot be read."""
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            header = next(reader, [])
            yield Table("line", header, ["text"] * len(header), _csv_rows(reader, len(header)))
    except csv.Error as error:
        line = reader.line_num if reader else 1
        raise UserError(f"{path}: line {line}: {error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text. Save it as CSV in UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}.") from error


def _csv_rows(reader: Any, width: int) -> Callable[[Sequence[int]], Iterator[Row]]:
    def rows(columns: Sequence[int]) -> Iterator[Row]:
        for row in reader:
            if row:  # empty lines are ignored
                values = [row[column] for column in columns] if len(row) == width else ()
                yield reader.line_num, values

    return rows


@contextmanager
def open_parquet(path: Path) -> Iterator[Table]:
    """Opens a Parquet file. Raises UserError, also in the `with` block, if it cannot be read."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow. Install it: pip install 'kerasft[parquet]'",
            exit_code=2,
        )
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            kinds = [_kind_of(field.type) for field in schema]
            yield Table("row", schema.names, kinds, _parquet_rows(file, schema.names))
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: can't be read as Parquet: {reason}") from error


def _kind_of(kind: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return "text"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return "number"
    return "list" if types.is_list(kind) or types.is_large_list(kind) else str(kind)


def _parquet_rows(file: Any, names: Sequence[str]) -> Callable[[Sequence[int]], Iterator[Row]]:
    def rows(columns: Sequence[int]) -> Iterator[Row]:
        number = 0
        for batch in file.iter_batches(BATCH, columns=[names[column] for column in columns]):
            by_name = batch.to_pydict()
            for values in zip(*(by_name[names[column]] for column in columns), strict=True):
                number += 1
                yield number, values

    return rows


log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split", "group")
ALIASES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path"),
    "label": ("class", "class_name", "category"),
    "split": ("subset",),
    "group": ("group_id",),
}
EXPECTED = "Expected a header with path,label and optionally split and group"
NOT_OURS = "which kerasft does not support: its classifiers give each photo one label"


def find_csv(data: Data, progress: Progress) -> PhotoFolder:
    """Opens the photos that a CSV file lists. `read` raises what `read_table` does."""
    return _place(data, open_csv)


def find_parquet(data: Data, progress: Progress) -> PhotoFolder:
    """Opens the photos that a Parquet file lists. `read` raises what `read_table` does."""
    return _place(data, open_parquet)


Opener = Callable[[Path], AbstractContextManager[Table]]


def _place(data: Data, opener: Opener) -> PhotoFolder:
    table = Path(data.source)
    skip_missing = data.bad_images == "skip"
    return PhotoFolder(
        str(table), table.parent, lambda: read_table(table, opener, skip_missing=skip_missing)
    )


def read_table(table: Path, opener: Opener, *, skip_missing: bool) -> Listing:
    """Reads a table of photos, without opening the photos.

    Args:
        table: path of the file.
        opener: function that opens it, `open_csv` or `open_parquet`.
        skip_missing: whether rows of missing files stay in the listing, to be skipped when the
            photos are read.

    Raises:
        UserError: no such file (exit code 2); missing or ambiguous columns; a table for another
            task (multi-label, regression); invalid rows and missing files, all at once.
    """
    if not table.is_file():
        raise UserError(
            f"{table}: no such file. Expected a table of photos with path,label.", exit_code=2
        )
    with opener(table) as opened:
        columns = _columns(table, opened)
        read = _Rows(table, opened.unit)
        for number, values in opened.rows(list(columns.values())):
            read.add(number, dict(zip(columns, values, strict=False)))
    _refuse_other_tasks(table, Counter(photo.class_name for photo in read.photos))
    problems = [*read.problems, *read.without_split()]
    missing = [] if skip_missing else read.missing()
    problems += missing
    if problems:
        raise UserError(
            f"{table}: {len(problems):,} of its rows can't be used:{listing(problems, 20)}"
            + read.hint(len(missing))
        )
    if not read.photos:
        raise UserError(f"{table}: lists no photos. Expected a row for each.")
    return Listing.of(read.photos)


def _columns(table: Path, opened: Table) -> dict[str, int]:
    """Finds the positions of our columns in the table's header; path and label are required."""
    names = [name.strip().lower() for name in opened.header]
    found: dict[str, int] = {}
    for column in COLUMNS:
        meant = [name for name in names if name == column]
        meant = meant or [name for name in names if name in ALIASES[column]]
        if len(meant) > 1:
            raise UserError(
                f"{table}: {' and '.join(meant)} all mean the column {column}. Keep one, or call "
                f"the right one {column}."
            )
        if meant:
            found[column] = names.index(meant[0])
    got = ", ".join(printable(name) for name in opened.header[:20]) or "an empty file"
    if "label" not in found and "path" in found:
        _refuse_columns_of_0_and_1(table, opened, found)
    for column in ("path", "label"):
        if column not in found:
            near = did_you_mean(column, opened.header)
            raise UserError(f"{table}: no column {column}.{near} {EXPECTED}, got {got}.")
    for column in ("split", "group"):
        typos = [name for name in names if SequenceMatcher(None, name, column).ratio() >= 0.8]
        if column not in found and typos:  # ignoring a misspelled split would be a bad surprise
            raise UserError(
                f"{table}: unknown column '{typos[0]}'. Did you mean '{column}'? Rename it, or "
                "remove it."
            )
    others = [
        printable(name) for place, name in enumerate(opened.header) if place not in found.values()
    ]
    if others:
        log.info("%s: ignored columns: %s", table, ", ".join(others[:20]))
    for column, position in found.items():
        kind = opened.kinds[position]
        if column == "label" and kind == "list":
            raise UserError(f"{table}: its labels are lists: multi-label, {NOT_OURS}.")
        if kind != "text" and (column == "path" or kind != "number"):
            raise UserError(
                f"{table}: the column {opened.header[position]} holds {kind}. Expected text"
                + (", the path of a file." if column == "path" else ".")
            )
    return found


def _refuse_columns_of_0_and_1(table: Path, opened: Table, found: Mapping[str, int]) -> None:
    others = [place for place in range(len(opened.header)) if place not in found.values()]
    values: list[set[str]] = [set() for _ in others]
    for _, row in islice(opened.rows(others), 1000):
        for seen, value in zip(values, row, strict=False):
            seen.add(_text(value).lower())
    binary = [
        opened.header[place]
        for place, seen in zip(others, values, strict=True)
        if seen and seen <= {"0", "1", "0.0", "1.0", "true", "false"}
    ]
    if len(binary) > 1:
        raise UserError(
            f"{table}: no column label, but columns of 0 and 1 ({', '.join(binary[:10])}"
            f"{', ...' if len(binary) > 10 else ''}): multi-label, {NOT_OURS}.\n"
            "  If every photo has a 1 in one of them only, write that column's name into a "
            "column label."
        )


def _text(value: object) -> str:
    """Returns a cell as text. Parquet's null and NaN are the empty text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


class _Rows:
    """The photos that the rows of a table list, and the problems of the rows."""

    def __init__(self, table: Path, unit: str) -> None:
        self.table, self.unit = table, unit
        self.root = os.path.abspath(table.parent)
        self.photos: list[Photo] = []
        self.numbers = array("q")
        self.problems: list[str] = []
        self.several = False
        self._position: dict[str, int] = {}
        self._same: dict[str, str] = {}

    def add(self, number: int, row: Mapping[str, object]) -> None:
        """Adds the photo of a row, or the row's problem."""
        if not row:
            self._problem(number, "has more or fewer fields than the header")
            return
        # Rows with the same label share one string, which saves memory.
        cells = {column: self._same.setdefault(t, t) for column, t in _texts(row)}
        path, problem = _below(_text(row["path"]), self.root)
        label, split = cells["label"], cells.get("split", "")
        known = split_of(split)
        known = known if known in SPLITS else ""
        if not label:
            problem = problem or "has no label"
        if not is_writable(label + cells.get("group", "")):
            problem = problem or "has control characters"
        if split and not known:
            near = did_you_mean(split, [word for word, of in WORDS.items() if of in SPLITS])
            problem = problem or f"split: expected train, validation or test, got '{split}'.{near}"
        other = self._position.get(path)
        if other is not None and not problem:
            first, where = self.photos[other], f"{self.unit} {self.numbers[other]}"
            problem = f"{path} is in {where} already"
            if first.class_name != label:
                self.several = True
                problem = f"{path} has the label {label}, and {first.class_name} in {where}"
        if problem:
            self._problem(number, problem)
            return
        self._position[path] = len(self.photos)
        self.photos.append(Photo(path, label, known, cells.get("group", "")))
        self.numbers.append(number)

    def _problem(self, number: int, text: str) -> None:
        self.problems.append(f"{self.unit} {number}: {printable(text)}")

    def without_split(self) -> list[str]:
        """Returns a problem for each row without a split, if other rows have one."""
        without = [i for i, photo in enumerate(self.photos) if not photo.split]
        if len(without) == len(self.photos):
            return []
        return [
            f"{self.unit} {self.numbers[i]}: {self.photos[i].path} has no split, others have one"
            for i in without
        ]

    def missing(self) -> list[str]:
        """Returns a problem for each row whose file is missing."""
        return [
            f"{self.unit} {number}: {photo.path} is missing"
            for photo, number in zip(self.photos, self.numbers, strict=True)
            if not os.path.isfile(os.path.join(self.root, photo.path))
        ]

    def hint(self, missing: int) -> str:
        """Returns a last line that tells the user what to do, or "" if that is unclear."""
        if self.several:
            return f"\n  Photos with several labels are multi-label, {NOT_OURS}."
        if missing and missing == len(self.photos):
            name = "/" + posixpath.basename(self.photos[0].path)
            there = next((p for p in islice(walk(Path(self.root)), 10**5) if p.endswith(name)), "")
            found = f" There is {printable(there)}." if there else ""
            return f"\n  Paths are relative to {self.root}, the folder of the table.{found}"
        return ""


def _texts(row: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    return ((column, _text(value)) for column, value in row.items() if column != "path")


def _below(text: str, root: str) -> tuple[str, str]:
    """Returns a path as posix, relative to the folder of the table, and its problem or ""."""
    if not text:
        return "", "names no file"
    if not is_writable(text):
        return "", "has a path with control characters, or one that is not UTF-8"
    if "\\" in text and not os.path.exists(os.path.join(root, text)):
        text = text.replace("\\", "/")  # written under Windows
    if PurePath(text).is_absolute():
        tops = (root, os.path.realpath(root))
        within = [top for top in tops if PurePath(os.path.normpath(text)).is_relative_to(top)]
        path = Path(os.path.relpath(text, within[0])).as_posix() if within else ".."
    else:
        path = posixpath.normpath(PurePath(text).as_posix())
    if path == "." or path.split("/")[0] == "..":
        return "", f"{text} is not below {root}, the folder of the table. Move the table there"
    return path, ""


def _refuse_other_tasks(table: Path, labels: Mapping[str, int]) -> None:
    """Refuses labels of other tasks: several labels in a cell, or numbers for regression."""
    for mark in "|;,":
        several = _several_in_one(labels, mark)
        if several:
            raise UserError(
                f"{table}: several labels in one cell, such as '{several}': multi-label, "
                f"{NOT_OURS}.\n  If that is the name of one class, write it without '{mark}'."
            )
    if len(labels) > 2 and 2 * len(labels) > sum(labels.values()) and _are_fractions(labels):
        raise UserError(
            f"{table}: the labels are numbers that mostly differ, such as {next(iter(labels))}: "
            f"regression, {NOT_OURS}.\n  Write the names of classes into the column label."
        )


def _several_in_one(labels: Collection[str], mark: str) -> str:
    """Returns an example of a cell with several labels, or "" if cells hold one label each.

    A mark alone proves nothing, because names of classes may contain commas. For a comma, most
    parts must also be labels of their own; for another mark, one such part is enough, or one
    that occurs in several cells.

    Args:
        labels: distinct labels of the table.
        mark: character that may separate labels, such as "|".
    """
    joined = {
        label: [part.strip() for part in label.split(mark)] for label in labels if mark in label
    }
    joined = {label: parts for label, parts in joined.items() if all(parts)}
    parts = Counter(part for label in joined for part in set(joined[label]))
    alone = [part for part in parts if part in labels]
    if mark == ",":
        sure = 2 * len(alone) > len(parts)
    else:
        sure = bool(alone) or any(number > 1 for number in parts.values())
    return next(iter(joined), "") if sure else ""


def _are_fractions(labels: Collection[str]) -> bool:
    """Returns whether all labels are finite numbers, and some of them fractions."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and any(not n.is_integer() for n in numbers)
