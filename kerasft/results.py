"""Results of commands: frozen dataclasses that turn into the JSON that a command prints."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any


class Result:
    """The base of a dataclass that is printed as JSON: its fields, in their order."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON that a command prints."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {name: plain(getattr(self, name)) for name in names}


def plain(value: Any) -> Any:
    """Turns results, paths, arrays and tuples inside a value into types that JSON has."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
