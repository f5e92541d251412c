"""Writes the command reference into README.md, between its two `cli` markers.

    python scripts/cli_reference.py

The text is what `--help` prints, 100 columns wide. A test compares README.md with it.
"""

from pathlib import Path

import click

from kerasft.cli import main

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- cli -->\n", "<!-- /cli -->\n"


def reference() -> str:
    """The help of kerasft and of all its commands, as Markdown."""
    pages = [_page(main, "kerasft", None)]
    parent = click.Context(main, info_name="kerasft")
    pages += [_page(command, name, parent) for name, command in sorted(main.commands.items())]
    return "\n".join(pages)


def _page(command: click.Command, name: str, parent: click.Context | None) -> str:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, max_content_width=100
    )
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return f"#### {context.command_path}\n\n```text\n" + "\n".join(lines) + "\n```\n"


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
