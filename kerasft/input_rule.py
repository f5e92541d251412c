"""The rule by which an image file becomes the square that a model takes.

A model keeps its rule (`kerasft.json` in model.keras, the graph of an export), so that training,
evaluation, prediction and serving read a file in the same way.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from kerasft.untrusted import checked, shown

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)
COLORS: dict[str, Color] = {"white": WHITE, "gray": (128, 128, 128), "black": (0, 0, 0)}
DROP = "drop"
MAX_PIXELS = 100_000_000  # 300 MB once decoded; the largest phone cameras reach it
Depth = Literal[8, 10, 12, 14, 16]
RESIZES = ("stretch", "crop", "pad")
LONGEST = 1 << 14  # side of a square: MAX_PIXELS have one of 10,000
DEPTHS: tuple[Depth, ...] = (8, 10, 12, 14, 16)


class InputRule(NamedTuple):
    """The rule by which an image file becomes the square that a model takes.

    Attributes:
        image_size: side of the square in pixels, S.
        resize: how an image becomes square: "stretch", "crop" or "pad".
        background: colour that transparent pixels lie on: red, green, blue, 0 to 255. None is the
            rule of kerasft 0.2, see `images.decode_image`; then JPEGs are decoded at full size.
        depth: number of bits in use in files that have 16 for each channel.
    """

    image_size: int
    resize: str = "stretch"
    background: Color | None = None
    depth: int = 16

    def least(self, crop: float = 1.0) -> int:
        """Returns how many pixels the shorter side of a decoded JPEG keeps: twice the side.

        Twice, because the antialiased resize then has at least two pixels for each of its own in
        both directions, and hardly differs from that of the full image: on eight mosaics of real
        photos, 3072 x 2304, at 224 pixels by 0.8 of 255 in the mean, 5 at most, in half the time.

        Args:
            crop: smallest share of the area that a view shows, 0 to 1. The shorter side of such a
                view is at least that of the image times the root of 3/4 of it, see `augment.py`.

        Returns:
            Number of pixels; 0 for the full size.
        """
        if self.background is None:
            return 0
        share = 1.0 if crop >= 1 else math.sqrt(crop * 3 / 4)
        return math.ceil(2 * self.image_size / share)

    def to_json(self) -> Mapping[str, Any]:
        """Returns the rule as it stands in kerasft.json; the rule of kerasft 0.2 has two fields."""
        facts: dict[str, Any] = {"image_size": self.image_size, "resize": self.resize}
        if self.background is not None:
            facts |= {"background": list(self.background), "depth": self.depth}
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "InputRule":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: a field is missing, or is none that `to_json` writes.
        """
        side, resize = checked(facts.get("image_size"), int), facts.get("resize")
        if not 0 < side <= LONGEST:
            raise ValueError(f"image_size: expected 1 to {LONGEST}, got {side}")
        if resize not in RESIZES:
            raise ValueError(f"resize: expected {', '.join(RESIZES)}, got {shown(resize)}")
        if "background" not in facts:
            return cls(side, resize)
        color = checked(facts["background"], Color)
        if not all(0 <= share <= 255 for share in color):
            raise ValueError(f"background: expected numbers from 0 to 255, got {list(color)}")
        if (depth := checked(facts.get("depth"), int)) not in DEPTHS:
            raise ValueError(f"depth: expected one of {', '.join(map(str, DEPTHS))}, got {depth}")
        return cls(side, resize, color, depth)


def too_many_pixels(height: int, width: int) -> str:
    """Says why an image is refused by its size, in words that follow the name of its file."""
    return f"has {width}x{height} pixels, more than the {MAX_PIXELS:,} that kerasft reads"


def depth_of(peak: int) -> Depth:
    """Returns the least depth that holds a number, 0 to 65,535."""
    return next(bits for bits in DEPTHS if peak < 2**bits)


def color_of(text: str) -> Color | None:
    """Reads a colour of `data.background`; None for "drop".

    Args:
        text: "white", "gray", "black", "#rrggbb" with hexadecimal digits, or "drop".

    Raises:
        ValueError: another text.
    """
    if text == DROP:
        return None
    if text in COLORS:
        return COLORS[text]
    if len(text) == 7 and text[0] == "#":
        red, green, blue = bytes.fromhex(text[1:])
        return red, green, blue
    raise ValueError(text)
