"""Problems of a config: pydantic's errors as sentences, all in one message.

A FieldPath is the place of a value, ("phases", 0, "epochs"), shown as phases[0].epochs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from kerasft.errors import did_you_mean

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One problem of a config.

    Attributes:
        place: the key at fault; () if the problem concerns no single key.
        text: sentence that says what is wrong.
        origin: the argument that brought the value, such as "flags" or "sets"; "" for a value of
            the file or a default.
    """

    place: FieldPath
    text: str
    origin: str = ""

    def __str__(self) -> str:
        """Writes one line: "phases[0].epochs (`sets`): expected int, got 'five'."."""
        where = shown(self.place)
        if self.origin:
            where = f"{where} (`{self.origin}`)" if where else f"`{self.origin}`"
        return f"{where}: {self.text}" if where else self.text


def shown(place: FieldPath) -> str:
    """Writes a place for people: phases[0].epochs."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


def from_pydantic(
    error: ValidationError, model: type[BaseModel], *, origins: Mapping[FieldPath, str]
) -> list[Problem]:
    """Translates all errors of pydantic.

    Args:
        error: error that validating `model` raised.
        model: class of the whole config, for suggestions.
        origins: place -> name of the argument that set it.

    Returns:
        One problem for each wrong key, those of the file first. Errors that concern several
        sections at once have no place; they are left out, and the caller finds them.
    """
    problems = []
    for found in error.errors(include_url=False):
        place = found["loc"] = _without_tag(found["loc"])
        if place:
            origin = next((name for at, name in origins.items() if _related(at, place)), "")
            problems.append(Problem(place, _sentence(found, model), origin))
    return sorted(problems, key=lambda problem: bool(problem.origin))


def _without_tag(place: FieldPath) -> FieldPath:
    """Removes the word by which pydantic distinguishes the two kinds of phases from a place."""
    tagged = place[:1] == ("phases",) and place[2:3] in (("trained",), ("solved",))
    return place[:2] + place[3:] if tagged else place


def _related(one: FieldPath, other: FieldPath) -> bool:
    """Returns whether two places are the same, or one lies in the other."""
    return all(a == b for a, b in zip(one, other, strict=False))


_TYPES = {
    "int_type": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "bool",
    "path_type": "a path",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a section",
    "finite_number": "a finite number",
    "string_too_short": "a name",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _sentence(found: Any, model: type[BaseModel]) -> str:
    """Writes the sentence for one entry of pydantic's `ValidationError.errors()`."""
    kind, place, details = found["type"], found["loc"], found.get("ctx", {})
    if kind == "value_error":  # raised by one of our validators, with a sentence
        return str(details["error"])
    if kind == "extra_forbidden" and place[0] == "phases" and place[-1] in _keys(model, ["phases"]):
        return "has no effect in a phase with a method: its head is solved, not trained."
    if kind == "extra_forbidden":
        return f"unknown key.{_suggestion(place, model)}"
    if kind == "missing":
        return "missing." + " Pass `data.source=SRC`." * (place == ("data", "source"))
    if kind == "tuple_type" and isinstance(found["input"], dict):
        return f"expected a list of sections: write [[{shown(place)}]] above each of them."
    got = _plain(found["input"])
    if kind == "literal_error":
        near = did_you_mean(str(found["input"]), re.findall(r"'([^']*)'", details["expected"]))
        return f"expected {details['expected']}, got {got}.{near}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"expected {words} {details[bound]:g}, got {got}."
    return f"expected {_TYPES.get(kind, found['msg'])}, got {got}."


def _plain(value: object) -> str:
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(place: FieldPath, model: type[BaseModel]) -> str:
    """Suggests the nearest key of the same section, or the same key in another section."""
    *section, key = place
    near = did_you_mean(str(key), _keys(model, section))
    if near:
        return near
    elsewhere = (
        f" Did you mean '{name}.{'0.' * (name == 'phases')}{key}'?"
        for name in model.model_fields
        if key in _keys(model, [name])
    )
    return next(elsewhere, "")


def _keys(model: type[BaseModel], section: Sequence[str | int]) -> list[str]:
    """Returns the names of a section's fields, of all its kinds; [] if it is not a section."""
    kinds = [model]
    for key in section:
        if isinstance(key, str) and key in model.model_fields:
            kinds = _models_in(model.model_fields[key].annotation)
            if not kinds:
                return []
            model = kinds[0]
    return list(dict.fromkeys(field for kind in kinds for field in kind.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the section classes in an annotation: A and B for `tuple[A | B, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def repeated_names(phases: Iterable[object]) -> list[Problem]:
    """Finds phases with the name of an earlier phase, in a config that may have other errors.

    Args:
        phases: phases as dicts read from TOML, or as `Phase`.
    """
    first: dict[object, int] = {}
    problems = []
    for index, phase in enumerate(phases):
        name = phase.get("name") if isinstance(phase, dict) else getattr(phase, "name", None)
        if isinstance(name, str) and first.setdefault(name, index) != index:
            text = f"phases[{first[name]}] is already called {name!r}."
            problems.append(Problem(("phases", index, "name"), text))
    return problems


def report(problems: Sequence[Problem], path: Path | None) -> str:
    """Writes all problems as one message, a line each under a heading that says where they are.

    Args:
        problems: one or more problems.
        path: file that was read; None if there are only options.
    """
    sources = [str(path)] * any(not problem.origin for problem in problems) if path else []
    if not path or any(problem.origin for problem in problems):
        sources.append("the options")
    verb = "has" if sources == [str(path)] else "have"
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"\n  {problem}" for problem in problems]
    return f"{' and '.join(sources)} {verb} {count}:{''.join(lines)}"
