"""Files of rows: CSV, Parquet, and lists with a path and a label in each line, opened alike.

What the columns mean is not known here; `sources/tables.py` finds it out.
"""

import csv
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasft.errors import UserError

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

    def without_header(self) -> "Table":
        """Returns the table with its header as first row, and numbers as names of the columns."""

        def rows(columns: Sequence[int]) -> Iterator[Row]:
            yield 1, [self.header[column] for column in columns]
            yield from self.rows(columns)

        names = [str(number) for number in range(1, len(self.header) + 1)]
        return replace(self, header=names, rows=rows)


Opener = Callable[[Path], AbstractContextManager[Table]]
"""A function that opens a file as a `Table`."""


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
def open_list(path: Path, is_photo: Callable[[str], bool]) -> Iterator[Table]:
    """Opens a list as Caffe and PaddleClas write it: in each line a path, blanks or a tab, a label.

    A path may hold blanks, a label may not, unless a tab stands before it. A file whose first line
    holds commas or semicolons is opened as CSV, unless that line is the path of a file. One of
    paths alone, whose first line ends like the name of a photo, has one column.

    Args:
        path: path of the file.
        is_photo: function that returns whether a text ends like the name of a photo.

    Raises:
        UserError: the file cannot be read; also in the `with` block.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [(number, line.strip()) for number, line in enumerate(file, 1)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text.") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}.") from error
    lines = [(number, line) for number, line in lines if line]
    first = lines[0][1] if lines else ""
    if any(mark in first for mark in ",;") and not _is_file(path.parent / first):
        with open_csv(path) as table:
            yield table
        return

    def of_line(line: str) -> list[str]:
        parts = [part.strip() for part in line.rsplit("\t" if "\t" in line else None, 1)]
        return [line] if "\t" not in line and is_photo(parts[-1]) else parts

    width = len(of_line(first)) if lines else 2

    def rows(columns: Sequence[int]) -> Iterator[Row]:
        for number, line in lines:
            values = of_line(line)
            yield number, [values[one] for one in columns] if len(values) == width else ()

    yield Table("line", ["path", "label"][:width], ["text"] * width, rows)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a line is too long, or holds a zero byte
        return False


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
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
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
