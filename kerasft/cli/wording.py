"""Says on the terminal what the library says: flags instead of fields and arguments.

The library puts what can be set into backticks, since its callers also sit in notebooks:

    `data=FOLDER`, `resume=True`             arguments of its functions
    `phases.0.stored=false`                  fields of the config
    model.weights (`flags`): ...             the argument that brought a wrong value
    `continue_run('runs/a', resume=True)`    a call that does what is to be done

Each becomes what the running command has for it: `--data FOLDER`, `--resume`,
`--set phases.0.stored=false`. An option says itself what it stands for: by its name, which is that
of the library's argument, or as a `FieldOption` by its field.
"""

import ast
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from kerasft.errors import UserError
from kerasft.text import printable

_Command = TypeVar("_Command", bound=Callable[..., Any])


class FieldOption(click.Option):
    """An option that sets a field of the config.

    Attributes:
        field: the field by its dotted key, "phases.0.epochs".
    """

    def __init__(self, *declarations: Any, field: str, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.field = field


def field_option(flag: str, field: str, **attributes: Any) -> Callable[[_Command], _Command]:
    """Decorates a command with a `FieldOption`; `attributes` are those of `click.option`."""
    return click.option(flag, cls=FieldOption, field=field, **attributes)


def fields_typed(values: Mapping[str, object]) -> dict[str, object]:
    """Returns the fields that options of the running command have set.

    One that was not typed never overrides the file.

    Args:
        values: what the command got, by the options' names; None for what was not typed.
    """
    return {
        option.field: values[option.name]
        for option in click.get_current_context().command.params
        if isinstance(option, FieldOption) and values.get(str(option.name)) is not None
    }


def as_typed(*words: str) -> str:
    """Returns the words of a command as they are typed here, those with spaces in quotes."""
    if os.name == "nt":  # neither cmd nor a path that ends in a backslash knows shell quotes
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def difference_text(p: float) -> str:
    """Says whether a difference between two models may be chance, by McNemar's test."""
    may = "may well be chance" if p >= 0.05 else "is hardly chance"
    return f"the difference {may} (p = {p:.2g}, McNemar)"


def error_text(error: UserError, command: click.Command | None) -> str:
    """Returns the message of an error as the command's user can follow it.

    An argument in front of the message becomes its flag. A config field stays a field: the file
    may have set it.
    """
    at_fault = _parameter(command, error.field)
    if at_fault is None or getattr(at_fault, "field", "") == error.field:
        return for_terminal(str(error), command)
    return f"{_name_of(at_fault)}: {for_terminal(error.message, command)}"


_FROM_A_FLAG = re.compile(r"^(?P<indent> *)(?P<place>\S+) \(`flags`\):", re.MULTILINE)
_CALL = re.compile(r"`(?P<call>\w+\([^`]*\))`")
_SETTING = re.compile(r"`(?P<name>[a-z_]+(?:\.(?:[a-z_]+|-?\d+))*)(?:=(?P<value>[^`]*))?`")
_COMMANDS = {
    "continue_run": "train --run {} --resume",
    "evaluate_run": "evaluate {}",
    "calibrate_run": "calibrate {}",
}


def for_terminal(text: str, command: click.Command | None = None) -> str:
    """Returns a text of the library with flags of the command for what stands in backticks.

    Control characters out of names and tables are escaped: a terminal would obey them.

    Args:
        text: an error, a log record or a line of progress.
        command: the running command; None takes the one that Click knows, if there is one.
    """
    if command is None:
        context = click.get_current_context(silent=True)
        command = context.command if context else None
    text = _FROM_A_FLAG.sub(
        lambda found: f"{found['indent']}{found['place']}{_origin(found['place'], command)}:", text
    )
    text = _CALL.sub(lambda found: _typed_call(found["call"]) or found[0], text)
    text = _SETTING.sub(
        lambda found: _setting(found["name"], found["value"], command) or found[0], text
    )
    return "\n".join(map(printable, text.split("\n")))


def _origin(place: str, command: click.Command | None) -> str:
    """Returns " (--epochs)" for phases[1].epochs, "" if the command set it by itself."""
    wanted = _any_phase(place)
    for option in command.params if command else ():
        if isinstance(option, FieldOption) and _any_phase(option.field) == wanted:
            return f" ({_name_of(option)})"
    return ""


def _any_phase(key: str) -> str:
    """Returns a key without the number of a phase: a command has flags for one of them."""
    return re.sub(r"^phases(\.-?\d+|\[\d+\])", "phases", key)


def _typed_call(call: str) -> str | None:
    """Returns the command for a call of the library, its first argument in the command's {}."""
    try:
        node = ast.parse(call, mode="eval").body
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _COMMANDS:
            first = as_typed(str(ast.literal_eval(node.args[0])))
            command = "kerasft " + _COMMANDS[ast.unparse(node.func)].format(first)
            changed = [ast.literal_eval(k.value) for k in node.keywords if k.arg == "sets"]
            return " ".join([command, *(as_typed("--set", x) for one in changed for x in one)])
    except (SyntaxError, ValueError, IndexError):
        pass
    return None


def _setting(name: str, value: str | None, command: click.Command | None) -> str | None:
    """Returns what is typed to set a field or argument; None where the command can't."""
    parameter = _parameter(command, name)
    if parameter is None:
        if value is None or "." not in name or _parameter(command, "sets") is None:
            return None
        return as_typed("--set", f"{name}={value}")
    if value is None or (isinstance(parameter, click.Option) and parameter.is_flag):
        return _name_of(parameter)
    return as_typed(_name_of(parameter), value)


def _parameter(command: click.Command | None, name: str) -> click.Parameter | None:
    """Returns what the command has for an argument or field of the library."""
    if not name or command is None:
        return None
    of_field = [p for p in command.params if isinstance(p, FieldOption) and p.field == name]
    return next(iter(of_field + [p for p in command.params if p.name == name]), None)


def _name_of(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name
