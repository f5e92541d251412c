"""Sizes in bytes as people read and write them: "36.2 MB", in powers of ten."""

import re

from kerasft.errors import UserError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size_text(size: int) -> str:
    """36,200,000 bytes as "36.2 MB", 12 as "12 bytes"."""
    if size < 1000:
        return "1 byte" if size == 1 else f"{size} bytes"
    value = size / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 999.95:  # above, a digit after the point would make it 1000.0
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def parse_size(text: str) -> int:
    """Returns the bytes that a text such as "20GB", "1.5 tb" or "1000000" stands for.

    Raises:
        UserError: it is none. Exit code 2.
    """
    # So many digits and no more: a float holds them.
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?) ?([kmgt]?b|)", text.strip(), re.I | re.A)
    if match is None:
        raise UserError(
            f"SIZE: expected a number with kB, MB, GB or TB, such as 20GB, or plain bytes, "
            f"got '{text}'.",
            exit_code=2,
        )
    return round(float(match[1]) * _UNITS[match[2].upper()])
