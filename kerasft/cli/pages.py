"""`kerasft guide` and `kerasft fields`: how-to pages by topic, and the fields of a config."""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import click

from kerasft.cli.options import json_option, print_result
from kerasft.errors import UserError, did_you_mean


@click.command()
@click.argument("topic", required=False)
@json_option
def guide(topic: str | None, as_json: bool) -> None:
    """Shows the how-to page on TOPIC, or lists the topics.

    \b
    Example:
        kerasft guide
        kerasft guide photos
    """
    pages = read_guide()
    if topic is None:
        titles = [{"topic": name, "title": _title(page)} for name, page in pages.items()]
        print_result(titles, topics_text, as_json=as_json)
        return
    if topic not in pages:
        raise UserError(
            f"guide: there is no topic '{topic}'. Expected one of {', '.join(pages)}."
            f"{did_you_mean(topic, pages)}",
            exit_code=2,
        )
    page = {"topic": topic, "title": _title(pages[topic]), "text": pages[topic]}
    if as_json or not sys.stdout.isatty():
        print_result(page, lambda page: page["text"].rstrip("\n"), as_json=as_json)
    else:
        show_markdown(pages[topic])


@click.command()
@click.argument("section", required=False)
@json_option
def fields(section: str | None, as_json: bool) -> None:
    """Lists the fields of a config with type, range, default and description.

    SECTION is one of data, model, head, augment, cache and phases, or the name of a field. Fields
    are set in a config file, or with --set.

    \b
    Example:
        kerasft fields
        kerasft fields phases
        kerasft fields augment.views
    """
    from kerasft.config.listing import list_fields

    sections = [one.to_json() for one in list_fields(section)]
    print_result(sections, fields_text, as_json=as_json)


def read_guide() -> dict[str, str]:
    """Reads the pages of `kerasft/guide`: topic -> Markdown, sorted by topic."""
    folder = resources.files("kerasft") / "guide"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".md")), key=_name)
    return {file.name.removesuffix(".md"): file.read_text("utf-8") for file in files}


def _name(file: Any) -> str:
    return str(file.name)


def _title(page: str) -> str:
    """Returns the first line of a page, without Markdown."""
    return page.partition("\n")[0].removeprefix("# ").replace("`", "")


def show_markdown(page: str, width: int | None = None) -> None:
    """Shows a page on the terminal.

    Args:
        page: text in Markdown.
        width: number of columns; None means the width of the terminal.
    """
    from rich.console import Console  # importing all of this takes a tenth of a second
    from rich.markdown import Markdown
    from rich.theme import Theme

    # In the terminal's own colours, because others may be unreadable on its background.
    colours = Theme({"markdown.code": "bold cyan"})
    markdown = Markdown(page, code_theme="ansi_dark", hyperlinks=False)
    Console(width=width, highlight=False, theme=colours).print(markdown)


def topics_text(titles: Sequence[Mapping[str, Any]]) -> str:
    """Writes a line per topic: its name and the title of its page.

    Args:
        titles: JSON value that `guide --json` prints.
    """
    width = max(len(one["topic"]) for one in titles)
    lines = [f"{one['topic']:<{width}}  {one['title']}" for one in titles]
    return "\n".join([*lines, "", "Next: `kerasft guide TOPIC` shows a page."])


def fields_text(sections: Sequence[Mapping[str, Any]]) -> str:
    """Writes a paragraph per field: name, default, type and range; then the description.

    Args:
        sections: JSON value that `fields --json` prints.
    """
    width = min(100, shutil.get_terminal_size().columns)
    lines = []
    for section in sections:
        lines += [*textwrap.wrap(_heading(section) + section["description"], width), ""]
        for field in section["fields"]:
            lines += [*_field_lines(field, width), ""]
    end = (
        "N is the number of a phase, from 0. Set a field with --set, as in `kerasft train "
        "--data PHOTOS/ --set augment.views=8`, or in a config file: `kerasft guide training`."
    )
    return "\n".join([*lines, *textwrap.wrap(end, width)])


def _heading(section: Mapping[str, Any]) -> str:
    """Writes the heading of a section as in a TOML file: "[data] ", "[[phases]] "."""
    name = section["section"]
    if not name:
        return ""
    return f"[[{name}]] " if name == "phases" else f"[{name}] "


def _field_lines(field: Mapping[str, Any], width: int) -> list[str]:
    indent = " " * 6
    first, *rest = textwrap.wrap(
        field["name"] + _facts(field), width, initial_indent="  ", subsequent_indent=indent
    )
    text = field["description"]
    rest += textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
    return [first.replace(field["name"], click.style(field["name"], bold=True), 1), *rest]


def _facts(field: Mapping[str, Any]) -> str:
    """Writes the text after a field's name: ' = 0.2 (float, 0 <= x < 1)', ' (str, required)'."""
    facts = [field["type"], field["range"]]
    default = ""
    if field["required"]:
        facts.append("required")
    elif field["default"] is None:
        facts.append("not set")
    else:
        default = f" = {json.dumps(field['default'])}"  # as TOML writes it
    return f"{default} ({', '.join(fact for fact in facts if fact)})"
