"""Writes the command reference into README.md, between its two `cli` markers.

    python scripts/cli_reference.py

The text is what `--help` prints, 100 columns wide. A test compares README.md with it.
"""

from pathlib import Path

import click

from kerasft.cli.main import main

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- cli -->\n", "<!-- /cli -->\n"


def reference() -> str:
    """The help of kerasft and of all its commands, as Markdown."""
    return "\n".join(_pages(main, "kerasft", None))


def _pages(command: click.Command, name: str, parent: click.Context | None) -> list[str]:
    """The page of a command, and those of the commands in it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, max_content_width=100
    )
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    page = f"#### {context.command_path}\n\n```text\n" + "\n".join(lines) + "\n```\n"
    inner = sorted(command.commands.items()) if isinstance(command, click.Group) else []
    return [page, *(page for name, one in inner for page in _pages(one, name, context))]


def with_reference(readme: str) -> str:
    """The same README with the reference as it is now.

    Raises:
        ValueError: the markers are missing.
    """
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md needs the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{reference()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_reference(README.read_text("utf-8")), "utf-8")
