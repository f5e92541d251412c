"""Rows of a CSV or Parquet file, one after the other, in bounded memory.

A CSV file has commas, semicolons or tabs, and is UTF-8, with or without a byte order mark.
"""

import csv
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft.errors import UserError

DELIMITERS = (",", ";", "\t")
BATCH = 10_000  # rows of a Parquet file in memory

Row = tuple[int, Sequence[Any]]
"""The number of a line or row, from 1, and its values: () if it has too many or too few."""


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        unit: what messages call a row: "line" of a CSV file, or "row".
        header: names of the columns.
        kinds: what they hold: "text", "number", "list", or another type's name.
        rows: yields the rows, once, with the values at these positions of the header.
    """

    unit: str
    header: Sequence[str]
    kinds: Sequence[str]
    rows: Callable[[Sequence[int]], Iterator[Row]]


@contextmanager
def open_csv(path: Path) -> Iterator[Table]:
    """Opens a CSV file. Raises UserError, in the block too, where it can't be read."""
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
            if row:  # lines without anything are none
                values = [row[column] for column in columns] if len(row) == width else ()
                yield reader.line_num, values

    return rows


@contextmanager
def open_parquet(path: Path) -> Iterator[Table]:
    """Opens a Parquet file. Raises UserError, in the block too, where it can't be read."""
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
