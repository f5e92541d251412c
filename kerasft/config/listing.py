"""The fields of a config as rows: name, type, range, default, description.

They are read from `fields.py`, so a list of them cannot be out of date. `kerasft fields` prints
them, and `scripts/write_fields.py` writes configs/FIELDS.md.
"""

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kerasft.config.fields import Config, Phase, Section, Solved
from kerasft.errors import UserError, did_you_mean
from kerasft.results import Result


@dataclass(frozen=True)
class FieldRow(Result):
    """One field of the config.

    Attributes:
        name: dotted key, such as "data.source"; N stands for the number of a phase.
        type: "int", "float", "str", "bool", "list of int", or the words that can be chosen.
        range: condition on a number, such as "> 0" or "0 <= x < 1"; "" if there is none.
        default: default value; None if the field is required, or settled by the run.
        required: whether a config must have the field.
        description: sentences on the purpose of the field.
    """

    name: str
    type: str
    range: str
    default: bool | int | float | str | list | dict | None
    required: bool
    description: str


@dataclass(frozen=True)
class SectionRows(Result):
    """One section of the config; phases make two, since they are trained or solved.

    Attributes:
        section: name of the section in a file; "" for the fields above all sections.
        description: one sentence on the section.
        fields: fields in the order of `fields.py`.
    """

    section: str
    description: str
    fields: tuple[FieldRow, ...]


def list_fields(name: str | None = None) -> tuple[SectionRows, ...]:
    """Lists the fields of a config, section by section.

    Args:
        name: name of a section ("data"), of a field ("data.source"), or the field's last word
            ("source"); None lists all fields.

    Returns:
        Sections with a matching field, reduced to the matching fields.

    Raises:
        UserError: no section and no field has that name. Exit code 2.
    """
    sections = tuple(_sections())
    if name is None:
        return sections
    kept = []
    for one in sections:
        rows = one.fields
        if name != one.section:
            rows = tuple(row for row in rows if _is_called(row, name))
        if rows:
            kept.append(SectionRows(one.section, one.description, rows))
    if kept:
        return tuple(kept)
    names = {one.section: None for one in sections if one.section}
    written = [row.name.replace("N.", "") for one in sections for row in one.fields]
    last_words = [one.rpartition(".")[2] for one in written]
    raise UserError(
        f"fields: no section and no field is called '{name}'. The sections are "
        f"{', '.join(names)}.{did_you_mean(name, [*names, *written, *last_words])}",
        exit_code=2,
    )


def _is_called(row: FieldRow, name: str) -> bool:
    """Returns whether a name means this field: "phases.0.ema", "phases.N.ema", "phases.ema"."""
    words = [word for word in name.split(".") if word != "N" and not word.lstrip("-").isdigit()]
    own = [word for word in row.name.split(".") if word != "N"]
    return words == own or words == own[-1:]


def _sections() -> Iterable[SectionRows]:
    top = {name: field for name, field in Config.model_fields.items() if _section_in(field) is None}
    top.pop("phases")
    yield SectionRows("", "Fields outside all sections.", tuple(_rows("", top)))
    for name, field in Config.model_fields.items():
        section = _section_in(field)
        if section is not None:
            rows = tuple(_rows(f"{name}.", section.model_fields))
            yield SectionRows(name, _first_sentence(section), rows)
    for kind in (Phase, Solved):
        rows = tuple(_rows("phases.N.", kind.model_fields))
        yield SectionRows("phases", _first_sentence(kind), rows)


def _section_in(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _first_sentence(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().partition("\n")[0]


def _rows(prefix: str, fields: dict[str, FieldInfo]) -> Iterable[FieldRow]:
    for name, field in fields.items():
        default = None if field.is_required() else field.default
        yield FieldRow(
            name=prefix + name,
            type=_type_text(field.annotation),
            range=_range_text([*field.metadata, *_nested_conditions(field.annotation)]),
            default=list(default) if isinstance(default, tuple) else default,
            required=field.is_required(),
            description=field.description or "",
        )


def _type_text(annotation: Any) -> str:
    """Writes a type in the words of error messages: "int", '"adam" or "sgd"', 'int or "all"'."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inside[0])
    if origin is Literal:
        return _alternatives([f'"{word}"' for word in inside])
    if origin in (Union, types.UnionType):
        return _alternatives([_type_text(one) for one in inside if one is not type(None)])
    if origin is tuple:
        return f"list of {_type_text(inside[0])}"
    if origin is dict:
        return f"table of {_type_text(inside[1])}"
    return str(annotation.__name__)


def _alternatives(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _nested_conditions(annotation: Any) -> Iterable[Any]:
    """Returns the conditions on the members of a union, such as the int in "int or 'all'"."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return
    for member in get_args(annotation):
        for condition in getattr(member, "__metadata__", ()):
            yield from condition.metadata if isinstance(condition, FieldInfo) else [condition]


def _range_text(conditions: Iterable[Any]) -> str:
    """Writes the conditions on a number: "> 0", "0 <= x < 1"."""
    bounds = {
        word: getattr(condition, word)
        for condition in conditions
        for word in ("gt", "ge", "lt", "le")
        if hasattr(condition, word)
    }
    low = [(bounds[word], sign) for word, sign in (("gt", "<"), ("ge", "<=")) if word in bounds]
    high = [(bounds[word], sign) for word, sign in (("lt", "<"), ("le", "<=")) if word in bounds]
    if low and high:
        return f"{low[0][0]:g} {low[0][1]} x {high[0][1]} {high[0][0]:g}"
    if low:
        return f"{low[0][1].replace('<', '>')} {low[0][0]:g}"
    return f"{high[0][1]} {high[0][0]:g}" if high else ""
