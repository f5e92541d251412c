"""Writes what `--help` prints, a file per command: tests/cli/golden/help/train.txt and so on.

    python scripts/cli_reference.py

The text is 100 columns wide. A test compares the files with it, so a diff of them shows what a
change does to the help.
"""

from pathlib import Path

import click

from kerasft.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "cli" / "golden" / "help"


def help_pages() -> dict[str, str]:
    """Returns the help of kerasft and of each command, by name: "kerasft", "cache-list"."""
    return dict(_pages(main, "kerasft", None))


def _pages(
    command: click.Command, name: str, parent: click.Context | None
) -> list[tuple[str, str]]:
    """Returns the page of a command, and those of the commands in it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, max_content_width=100
    )
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    words = context.command_path.split()
    inner = sorted(command.commands.items()) if isinstance(command, click.Group) else []
    return [
        ("-".join(words[1:] or words), "\n".join(lines) + "\n"),
        *(page for name, one in inner for page in _pages(one, name, context)),
    ]


def write_pages(folder: Path) -> None:
    """Writes a file per page, and removes those of commands that are gone."""
    pages = help_pages()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.txt"):
        if path.stem not in pages:
            path.unlink()
    for name, page in pages.items():
        (folder / f"{name}.txt").write_text(page, "utf-8", newline="\n")


if __name__ == "__main__":
    write_pages(GOLDEN)
