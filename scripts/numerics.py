"""Compares the code that computes stored activations with the digests of its last decision.

    python scripts/numerics.py            names the modules that changed since the last decision
    python scripts/numerics.py --write    the numbers are the same: renews the digests
    python scripts/numerics.py --raise    the numbers changed: raises NUMERICS, renews the digests

NUMERICS and DIGESTS stand in kerasft/activations/numerics.py. Raising the number makes every user
compute the frozen features once more; not raising it where it is due lets new runs train on
features that the code no longer computes. A new module is added to DIGESTS by hand, with an empty
digest; one on which nothing that is stored depends is removed by hand.
"""

import argparse
import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "kerasft"
RECORD = PACKAGE / "activations" / "numerics.py"

# Fields that change no number, or that only some versions of Python have.
IGNORED = {"annotation", "returns", "ctx", "kind", "type_comment", "type_params", "type_ignores"}


def digest_of_source(text: str) -> str:
    """Returns 16 hexadecimal digits of a module's syntax tree.

    Comments, layout, docstrings and annotations count for nothing. Python 3.11, 3.12 and 3.13
    give the same digits: `ast.dump` would not, because it also writes fields that are empty.
    """
    return hashlib.blake2b("\n".join(_facts(ast.parse(text))).encode(), digest_size=8).hexdigest()


def _facts(value: object) -> Iterator[str]:
    """Walks a tree from the top: types of nodes, names of fields, values."""
    if isinstance(value, list):
        for one in value:
            yield from _facts(one)
        yield "]"
    elif isinstance(value, ast.Expr) and _is_text(value.value):
        return  # a docstring, or a string that describes the constant above it
    elif isinstance(value, ast.AST):
        yield type(value).__name__
        for name, field in ast.iter_fields(value):
            if name not in IGNORED and field not in (None, []):
                yield name
                yield from _facts(field)
        yield ")"
    else:
        yield repr(value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def recorded(text: str) -> dict[str, str]:
    """Reads DIGESTS from the text of numerics.py."""
    return dict(re.findall(r'^    "([\w.]+)": "(\w*)",$', text, re.MULTILINE))


def changed_modules(text: str, package: Path = PACKAGE) -> dict[str, str]:
    """Compares the modules with the digests.

    Args:
        text: the text of numerics.py.
        package: the folder of kerasft.

    Returns:
        The digests of the modules that changed, by name; "" where there is no such module.
    """
    now = {}
    for module in recorded(text):
        path = package / f"{module.replace('.', '/')}.py"
        now[module] = digest_of_source(path.read_text("utf-8")) if path.is_file() else ""
    return {
        name: digest for name, digest in now.items() if not digest or digest != recorded(text)[name]
    }


def renewed(text: str, changed: dict[str, str], *, numbers_changed: bool) -> str:
    """Returns the text of numerics.py after a decision.

    Args:
        text: its text before.
        changed: the new digests, as of `changed_modules`. A module that is gone loses its line.
        numbers_changed: whether NUMERICS is raised.
    """
    for module, digest in changed.items():
        line = f'    "{module}": "{digest}",\n' if digest else ""
        text = re.sub(rf'^    "{re.escape(module)}": "\w*",\n', line, text, flags=re.MULTILINE)
    if numbers_changed:
        text = re.sub(
            r"^NUMERICS = (\d+)", lambda m: f"NUMERICS = {int(m[1]) + 1}", text, flags=re.MULTILINE
        )
    return text


def report(changed: dict[str, str]) -> str:
    """Says which modules changed and what to do; "" where none did."""
    if not changed:
        return ""
    return (
        f"Code that computes stored activations changed: {', '.join(changed)}.\n"
        "Do the same photo, view and weights still give the same numbers, bit for bit?\n"
        "  yes: python scripts/numerics.py --write\n"
        "  no:  python scripts/numerics.py --raise"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument("--write", action="store_true", help="The numbers are the same.")
    decision.add_argument(
        "--raise", dest="numbers_changed", action="store_true", help="The numbers changed."
    )
    asked = parser.parse_args()
    text = RECORD.read_text("utf-8")
    changed = changed_modules(text)
    if asked.write or asked.numbers_changed:
        text = renewed(text, changed, numbers_changed=asked.numbers_changed)
        RECORD.write_text(text, "utf-8")
        number = re.search(r"^NUMERICS = (\d+)", text, re.MULTILINE)
        print(f"NUMERICS = {number[1] if number else '?'}; renewed: {', '.join(changed) or 'none'}")
    elif changed:
        sys.exit(report(changed))


if __name__ == "__main__":
    main()
