"""Text for people: sizes in bytes, counts, lists, and names out of files."""

from collections.abc import Collection, Mapping, Sequence, Sized

from kerasft.errors import UNWRITABLE, escaped


def size_text(size: int) -> str:
    """Writes a size in bytes for people: 36,200,000 is "36.2 MB", 12 is "12 bytes"."""
    if size < 1000:
        return "1 byte" if size == 1 else f"{size} bytes"
    value = size / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 999.95:  # above, a digit after the point would make it 1000.0
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def is_writable(name: str) -> bool:
    """Returns whether a name can stand in a line of splits.csv, classes.txt and a message."""
    return not UNWRITABLE.search(name)


def printable(name: str) -> str:
    """Escapes a name for messages and reports: control characters become `\\x07` and the like."""
    return escaped(name)


def count(things: Sized | int, noun: str, verb: str = "") -> str:
    """Counts things with a noun: `count(["a"], "image")` is "1 image", `count(2, ...)` "2 images".

    Args:
        things: things to be counted, or their number.
        noun: the noun in its singular.
        verb: verb that follows, in the plural: "are" becomes "is" for one thing; "" for none.
    """
    number = things if isinstance(things, int) else len(things)
    text = f"{number:,} {noun if number == 1 else _plural(noun)}"
    return f"{text} {agreeing(number, verb)}" if verb else text


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"  # copies; no noun on "ay" or "ey" is counted
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


_SINGULAR = {"are": "is", "have": "has", "do": "does"}


def agreeing(number: int, verb: str) -> str:
    """Returns a verb in the plural as it follows a number: "are" is "is" for 1, "hold" "holds"."""
    return _SINGULAR.get(verb, f"{verb}s") if number == 1 else verb


def listing(lines: list[str], most: int) -> str:
    """Lists the first lines, each on its own line, and the number of further ones."""
    more = [f"and {len(lines) - most:,} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in [*lines[:most], *more])


def in_line(names: list[str], most: int) -> str:
    """Lists the first names in one line, and the number of further ones: "a, b and 3 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Writes rows as lines of aligned columns.

    Args:
        rows: rows of equal length, the title first.
        right: numbers of the columns that are aligned on the right, from 0.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


MOST_CLASSES = 20
"""Largest number of classes for which a table has a line each."""


def class_table(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Writes the number of images of each class in each split, as lines with a header.

    Args:
        counts: class -> split -> number. Of more than `MOST_CLASSES` classes, those after the
            first ones are added up in the last line.
    """
    names = list(counts)
    most = MOST_CLASSES if len(names) <= MOST_CLASSES else MOST_CLASSES - 1
    rows = [
        (shortened(name, most=48), counts[name]) for name in names[:most]
    ]  # 80 columns are enough
    if names[most:]:
        rest = {
            split: sum(counts[name][split] for name in names[most:])
            for split in ("train", "validation", "test")
        }
        rows.append((f"{len(names) - most:,} more", rest))
    width = max(len("class"), *(len(name) for name, _ in rows))
    return [f"{'class':<{width}}   train  validation    test"] + [
        f"{name:<{width}}  {n['train']:>6,}  {n['validation']:>10,}  {n['test']:>6,}"
        for name, n in rows
    ]


def cell(value: object) -> object:
    """Returns a value for a table that a spreadsheet may open: a text is never a formula.

    Source: OWASP, "CSV injection": a cell that begins with = + - @, a tab or a return is computed.
    """
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def shortened(name: str, most: int = 60) -> str:
    """Prepares a name from a file for messages: escaped, and cut off after `most` characters."""
    return printable(name) if len(name) <= most else f"{printable(name[:most])}..."


def quoted(name: str) -> str:
    """Quotes a name from a file for messages: escaped, and cut off after 60 characters."""
    return repr(name if len(name) <= 60 else f"{name[:60]}...")
