"""Files that may be damaged, or made to do harm: JSON, TOML and arrays, read without trusting them.

Nothing in them is unpickled or evaluated, and no claim about a size is believed. Whatever is wrong
with what they hold is a ValueError, so that a reader has one thing to turn into a sentence.
"""

import functools
import json
import lzma
import math
import tokenize
import tomllib
import types
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from kerasft.errors import UNWRITABLE, first_line

MOST_TIMES = 100  # size of all arrays / size of their file; it is 1 to 2 for those of kerasft
MOST_INT = 1 << 63
MOST_SIDE = 1 << 40  # numbers along a side of an array
SLACK = 1 << 26  # bytes that the arrays of any file may have

T = TypeVar("T")

if TYPE_CHECKING:  # only arrays need it, and `--help` does without
    import numpy as np


def parse_json(text: str | bytes) -> Any:
    """Parses JSON; NaN and infinities are numbers.

    Raises:
        ValueError: it is not JSON (`json.JSONDecodeError`, with the place), not UTF-8, nested too
            deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets within brackets without an end") from None


def parse_toml(text: str) -> Any:
    """Parses TOML. Raises ValueError as `parse_json` does, `tomllib.TOMLDecodeError` among them."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("brackets within brackets without an end") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises OSError, or ValueError as `parse_json` does."""
    return parse_json(path.read_text("utf-8"))


def fill(kind: type[T], facts: object, **read: Any) -> T:
    """Makes a dataclass from a JSON object, whose values must be of the types of its fields.

    Lists become tuples where the class wants them. Texts can be shown and written as UTF-8, and
    numbers fit a float.

    Args:
        kind: the dataclass.
        facts: what should be a JSON object; what it holds beside the fields is ignored.
        read: fields that have been read from it already.

    Raises:
        ValueError: not an object; a field is missing, or its value is of another type. The message
            names the field.
    """
    if not isinstance(facts, Mapping):
        raise ValueError(f"expected an object, got {shown(facts)}")
    hints: Mapping[str, Any] = _types_of(kind)  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for name in hints.keys() & facts.keys() - read.keys():
        try:
            given[name] = checked(facts[name], hints[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for field in fields(kind):  # type: ignore[arg-type]
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in given.keys() | read.keys():
            raise ValueError(f"{field.name} is missing")
    return kind(**given, **read)


@functools.cache
def _types_of(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def checked(value: Any, hint: Any) -> Any:
    """Returns a value of JSON as a type wants it: a list as a tuple, and all else as it is.

    Args:
        value: value of JSON.
        hint: `str`, `int`, `float`, `bool`, `Any`, tuples, sequences and mappings of these, or a
            union. A float may be a whole number; True and False are no numbers.

    Raises:
        ValueError: it is of another type.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        _check_texts(value)
        return value
    if origin in (Union, types.UnionType):
        for one in inner:
            try:
                return checked(value, one)
            except ValueError:
                continue
    elif origin in (tuple, Sequence) and isinstance(value, list | tuple):
        if inner[0] is int and set(map(type, value)) == {int} and max(map(abs, value)) < MOST_INT:
            return tuple(value) if origin is tuple else value  # the views of 100,000 photos
        if origin is tuple and inner[-1] is not Ellipsis:
            if len(value) == len(inner):
                return tuple(checked(one, of) for one, of in zip(value, inner, strict=True))
        else:
            many = [checked(one, inner[0]) for one in value]
            return tuple(many) if origin is tuple else many
    elif origin is Mapping and isinstance(value, Mapping):
        return {checked(key, inner[0]): checked(one, inner[1]) for key, one in value.items()}
    elif hint is float and (type(value) is float or checked(value, int) is not None):
        return value
    elif hint is str and isinstance(value, str):
        _check_texts(value)
        return value
    elif type(value) is hint and (hint is not int or abs(value) < MOST_INT):
        return value
    raise ValueError(f"expected {_name_of(hint)}, got {shown(value)}")


def _check_texts(value: Any) -> None:
    """Refuses texts that no message and no file can hold, such as half of a surrogate pair."""
    if isinstance(value, str):
        if UNWRITABLE.search(value.replace("\n", "")):
            raise ValueError(f"expected a text, got {shown(value)}")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            _check_texts(key)
            _check_texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_texts(one)


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _name_of(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_name_of, inner)))
    if origin is Mapping:
        return "an object"
    if origin in (tuple, Sequence):
        return "a list"
    return "null" if hint is type(None) else _NAMES.get(hint, "another kind of value")


def shown(value: object) -> str:
    """Returns a value of JSON for a message, in a few characters."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, int) and abs(value) >= MOST_INT:
        return "a number of many digits"
    return "null" if value is None else str(value).lower()


_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # raised by zipfile for an encrypted member, and one with unknown compression
)


def check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses a zip file that is made to fill the memory; members never give more than they claim.

    Args:
        archive: the zip file.
        size: its size in bytes.

    Raises:
        ValueError: its members claim to be larger than a file of this size can be.
    """
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > size * MOST_TIMES + SLACK:
        raise ValueError(f"unpacks to {claimed:,} bytes, more than {MOST_TIMES} times its own size")


def read_arrays(path: Path | IO[bytes], size: int) -> "dict[str, np.ndarray]":
    """Reads the arrays of an .npz file into memory, by name, in their order.

    Args:
        path: path, or open file, of what `np.savez` or `np.savez_compressed` wrote.
        size: its size in bytes, which limits what the arrays may claim.

    Raises:
        OSError: it can't be opened.
        ValueError: it is damaged, holds something else than arrays of plain numbers and texts, or
            claims to be larger than a file of this size can be.
    """
    arrays: dict[str, np.ndarray] = {}
    left = size * MOST_TIMES + SLACK
    try:
        with zipfile.ZipFile(path) as archive:
            check_sizes(archive, size)
            for info in archive.infolist():
                with archive.open(info) as member:
                    array = _read_array(member, left)
                arrays[info.filename.removesuffix(".npy")] = array
                left -= array.nbytes
    except _DAMAGE as error:
        raise ValueError(first_line(error)) from error
    return arrays


def _read_array(member: IO[bytes], most: int) -> "np.ndarray":
    import numpy as np

    shape, in_columns, dtype = read_array_header(member)
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size > most:
        raise ValueError(f"claims an array of {size:,} bytes")
    data = member.read(size)
    if len(data) != size or member.read(1):  # at the end the checksum is compared
        raise ValueError(f"an array has not the {size:,} bytes that it claims")
    array = np.frombuffer(data, dtype, count) if size else np.empty(count, dtype)
    return array.reshape(shape, order="F" if in_columns else "C")


def read_array_header(file: IO[bytes]) -> "tuple[tuple[int, ...], bool, np.dtype]":
    """Reads the header of an array as `np.save` writes it; behind it lie the numbers.

    Returns:
        Shape, whether columns come first, and the type, which is no Python object.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    import numpy as np

    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        # NumPy parses it as a literal of Python, which is not evaluated.
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
    except (SyntaxError, TypeError, LookupError, tokenize.TokenError) as error:
        raise ValueError("no header") from error
    except (RecursionError, MemoryError, OverflowError) as error:  # of the parser
        raise ValueError("no header") from error
    if dtype.hasobject or not dtype.itemsize or not all(map(_is_side, shape)):
        raise ValueError(f"shape {shape} of {dtype}")
    return shape, in_columns, dtype


def _is_side(side: object) -> bool:
    return type(side) is int and 0 <= side < MOST_SIDE  # True is no number
