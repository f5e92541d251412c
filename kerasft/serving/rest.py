"""JSON of TensorFlow Serving: requests of `:predict` read, answers, states and metadata written.

    {"instances": [{"b64": "..."}]}     rows     -> {"predictions": [{"scores": ...}]}
    {"inputs": [{"b64": "..."}]}        columns  -> {"outputs": {"scores": [...]}}

An input is the only one of its signature, so it may be named or not: {"image_bytes": {"b64": ...}}
in a row, {"image_bytes": [{"b64": ...}]} in columns. A signature with one output answers with that
alone instead of an object.

Here an item that is wrong is answered at its position, {"error": "..."}, and only a request in
which all are wrong is refused. TensorFlow Serving refuses all for one.

Source: "RESTful API" in the documentation of TensorFlow Serving.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from kerasft.errors import did_you_mean
from kerasft.serving.batching import Row
from kerasft.serving.limits import Limits
from kerasft.serving.signatures import DEFAULT, ERROR, FILES, Signature, pixels_of
from kerasft.serving.versions import State, Version
from kerasft.text import shortened

MOST_SAID = 3
"""Number of wrong items that an error lists."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A request, read.

    Attributes:
        signature: the signature that is called.
        columns: whether the columnar form was used, and is to be answered.
        items: what is computed, with its number of pixels; a row with the error for a wrong one.
    """

    signature: Signature
    columns: bool
    items: Sequence[tuple[Any, int] | Row]

    @property
    def name(self) -> str:
        """The name of the list of items in the request."""
        return "inputs" if self.columns else "instances"


def read(body: bytes, signatures: Mapping[str, Signature], limits: Limits) -> Asked:
    """Reads the body of a request.

    Args:
        body: the body.
        signatures: signatures of the version that is asked, by name.
        limits: limits of the server.

    Raises:
        HTTPException: 400, the request as a whole is wrong.
    """
    asked = parse(body)
    name = asked.get("signature_name") or DEFAULT
    if not isinstance(name, str) or name not in signatures:
        raise wrong(
            f"signature_name: expected one of {', '.join(signatures)}, got {shown(name)}."
            f"{did_you_mean(name, signatures) if isinstance(name, str) else ''}"
        )
    signature = signatures[name]
    if ("instances" in asked) == ("inputs" in asked):
        raise wrong(
            'Expected either "instances", a list with an item per image, or "inputs", a list of '
            f"all; got {'both' if 'inputs' in asked else listed(asked)}."
        )
    columns = "inputs" in asked
    given = asked["inputs" if columns else "instances"]
    if columns and isinstance(given, dict) and list(given) == [signature.takes]:
        given = given[signature.takes]
    where = "inputs" if columns else "instances"
    if not isinstance(given, list) or not given:
        form = _form(signature)
        raise wrong(f"{where}: expected a list such as [{form}], got {shown(given)}.")
    require_few(where, len(given), limits)
    read_one = _read_file if signature.takes == FILES else pixel_reader(signature.side)
    return Asked(signature, columns, [_item(one, signature, read_one) for one in given])


def require_few(where: str, items: int, limits: Limits) -> None:
    """Raises an HTTPException, 400, if a request has too many items."""
    if items > limits.instances:
        raise wrong(
            f"{where}: expected at most {limits.instances:,} items, got {items:,}. "
            "Send them in several requests."
        )


def parse(body: bytes) -> Mapping[str, Any]:
    """Reads the JSON object of a body.

    Raises:
        HTTPException: 400, it is none, or one that needs a lot of memory.
    """
    # Each bracket becomes an object of 56 bytes or more. In pixels there is one for three numbers.
    if body.count(b"[") + body.count(b"{") > 2_000 + len(body) // 6:
        raise wrong("The body has too many brackets to be a list of images.")
    try:
        asked = json.loads(body)
    except RecursionError:
        raise wrong("The body has too many brackets within brackets.") from None
    except ValueError as error:  # not UTF-8, or a number of 5,000 digits, too
        text = error.msg if isinstance(error, json.JSONDecodeError) else "its text is not readable"
        raise wrong(f"The body is not JSON: {text[:1].lower()}{text[1:]}.") from None
    if not isinstance(asked, dict):
        raise wrong(f"Expected a JSON object, got {shown(asked)}.")
    return asked


def wrong(text: str) -> HTTPException:
    """Returns the error for a request that is wrong as a whole."""
    return HTTPException(400, text)


def listed(asked: Mapping[str, Any]) -> str:
    """Names the fields of a request in a few words."""
    names = [shortened(name, 40) for name in list(asked)[:5]]
    return f"only {', '.join(names)}" if names else "an empty object"


def shown(value: Any) -> str:
    """Names a value of a request in a few words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"'{shortened(value, 40)}'"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        names = ", ".join(shortened(name, 20) for name in list(value)[:3])
        return f"an object with {names}" if names else "an empty object"
    return f"the number {str(value)[:40]}" if isinstance(value, float) else "a number"


def _form(signature: Signature) -> str:
    return '{"b64": "..."}' if signature.takes == FILES else "[[[0, 0, 0], ...], ...]"


def _item(
    given: Any, signature: Signature, read_one: Callable[[Any], tuple[Any, int]]
) -> tuple[Any, int] | Row:
    """Reads an item; returns the row of its error if it is wrong."""
    if isinstance(given, dict) and list(given) == [signature.takes]:
        given = given[signature.takes]
    elif isinstance(given, dict) and list(given) != ["b64"]:
        near = did_you_mean(next(iter(given), ""), ["b64", signature.takes])
        return {ERROR: f"Expected {_form(signature)}, got {shown(given)}.{near}"}
    try:
        return read_one(given)
    except ValueError as error:
        return {ERROR: str(error)}


def _read_file(given: Any) -> tuple[bytes, int]:
    text = given.get("b64") if isinstance(given, dict) and list(given) == ["b64"] else None
    if not isinstance(text, str):
        raise ValueError(
            'Expected {"b64": "..."}, with the file in base64; got '
            f"{shown(given)}. A file that is not in base64 can't stand in JSON."
        )
    return read_base64(text)


def read_base64(text: str) -> tuple[bytes, int]:
    """Reads a file in base64; returns it and its number of pixels.

    Raises:
        ValueError: it is not base64.
    """
    try:
        encoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        encoded = _lenient(text)
    return encoded, pixels_of(encoded)


def _lenient(text: str) -> bytes:
    """Decodes base64 in lines, or without the signs at its end."""
    if text.startswith("data:"):
        raise ValueError("It is a data: URL. Leave out all up to its comma.")
    joined = "".join(text.split())
    try:
        return base64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("It is not base64.") from None


def numbers_of(given: Any) -> np.ndarray | None:
    """Returns nested lists of numbers as an array, float32; None if they are something else."""
    first = given
    while isinstance(first, list) and first:
        first = first[0]
    if type(first) not in (int, float):
        return None
    try:
        # Without the type, a long text among the numbers would make each of them as long.
        with np.errstate(over="ignore"):
            return np.asarray(given, "float32")
    except (ValueError, TypeError, OverflowError):  # such as lists of different lengths
        return None


def pixel_reader(side: int) -> Callable[[Any], tuple[np.ndarray, int]]:
    """Returns a function that reads the pixels of an image: an array, and their number.

    It raises a ValueError for what is not [S,S,3] or not from 0 to 255.
    """

    def read_pixels(given: Any) -> tuple[np.ndarray, int]:
        pixels = given if isinstance(given, np.ndarray) else numbers_of(given)
        if pixels is None or pixels.shape != (side, side, 3):
            shape = "" if pixels is None else "x".join(map(str, pixels.shape))
            raise ValueError(
                f"Expected {side} rows of {side} pixels of 3 numbers, got "
                f"{f'numbers of shape {shape}' if shape else 'something else'}."
            )
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 255:
            raise ValueError("Expected numbers from 0 to 255, got others.")
        return pixels, side * side

    return read_pixels


def answer(asked: Asked, rows: Sequence[Row]) -> bytes:
    """Writes the answer.

    Args:
        asked: the request.
        rows: a row for each of its items; one that has only an error is a wrong item.

    Raises:
        HTTPException: 400, all items are wrong.
    """
    require_a_right_one(asked.name, rows)
    gives, any_wrong = asked.signature.gives, any(map(is_wrong, rows))
    if not asked.columns:
        written = [{ERROR: row[ERROR]} if is_wrong(row) else _row(row, gives) for row in rows]
        return to_json({"predictions": written})
    if len(gives) == 1:  # exports of kerasft 0.2 and before, whose serve_logits gives no errors
        [name] = gives
        column = [None if is_wrong(row) else plain(row[name]) for row in rows]
        errors = {"errors": [row.get(ERROR, "") for row in rows]} if any_wrong else {}
        return to_json({"outputs": column, **errors})
    names = [*gives, *([ERROR] if any_wrong and ERROR not in gives else [])]
    return to_json({"outputs": columns_of(rows, names)})


def require_a_right_one(where: str, rows: Sequence[Row]) -> None:
    """Raises an HTTPException, 400, if all items of a request are wrong."""
    if not all(map(is_wrong, rows)):
        return
    said = [f"{where}[{i}]: {row[ERROR]}" for i, row in enumerate(rows[:MOST_SAID])]
    more = [f"And {len(rows) - MOST_SAID:,} more."] if len(rows) > MOST_SAID else []
    raise wrong(" ".join(said + more))


def is_wrong(row: Row) -> bool:
    """Returns whether a row is that of a wrong item."""
    return bool(row.get(ERROR))


def columns_of(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Any]]:
    """Returns outputs by name, a value for each row, of rows that are not all wrong."""
    right = next(row for row in rows if not is_wrong(row))
    return {
        name: [
            row.get(ERROR, "")
            if name == ERROR
            else _nothing(name, right[name])
            if is_wrong(row)
            else plain(row[name])
            for row in rows
        ]
        for name in names
    }


def _row(row: Row, gives: Sequence[str]) -> Any:
    return plain(row[gives[0]]) if len(gives) == 1 else {name: plain(row[name]) for name in gives}


def _nothing(name: str, like: Any) -> Any:
    """Returns what stands in a column for a wrong item: zeros, no label, nothing known."""
    if name == "labels":
        return plain(like)
    if name == "top_label":
        return ""
    if name == "abstain":
        return True
    return np.zeros_like(like).tolist()


def plain(value: Any) -> Any:
    """Returns an output as JSON has it; a float32 with as many digits as tell it from others."""
    if isinstance(value, np.ndarray):
        return [float(f"{number:.9g}") for number in value.tolist()]
    if isinstance(value, np.floating):
        return float(f"{value:.9g}")
    return value.item() if isinstance(value, np.generic) else value


def to_json(value: Any) -> bytes:
    """Writes a body."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def states(found: Mapping[int, State]) -> Mapping[str, Any]:
    """Writes the states of versions."""
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": state.name,
                "status": {
                    "error_code": "FAILED_PRECONDITION" if state.problem else "OK",
                    "error_message": state.problem,
                },
            }
            for number, state in found.items()
        ]
    }


def metadata(name: str, version: Version) -> Mapping[str, Any]:
    """Writes the signatures of a version."""
    spec = {"name": name, "signature_name": "", "version": str(version.number)}
    return {"model_spec": spec, "metadata": version.model.metadata}
