"""Backbones as users write them: "MobileNet:alpha=0.75", or several joined by "+"."""

from collections.abc import Callable
from typing import Any

from kerasft.backbones.table import BACKBONES, MODE, Backbone
from kerasft.errors import UserError, did_you_mean

Options = dict[str, float | bool | str]


def _width(text: str) -> float:
    """Parses a width multiplier. The largest one is 1.4; the limit catches `alpha=75`."""
    value = float(text)
    if not 0 < value <= 4:
        raise ValueError
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not 0 < value <= 8:
        raise ValueError
    return value


def _switch(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _mode(text: str) -> str:
    if text not in ("caffe", "torch"):
        raise ValueError
    return text


# Option -> function that parses its text, and what the text has to be.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "alpha": (_width, "a number over 0, at most 4"),
    "depth_multiplier": (_whole, "a whole number from 1 to 8"),
    "minimalistic": (_switch, "true or false"),
    MODE: (_mode, "caffe or torch"),
}


def parse(spec: str) -> tuple[Backbone, Options]:
    """Parses one backbone as users write it.

    Args:
        spec: "MobileNetV2", or with options of the constructor: "MobileNet:alpha=0.75",
            "MobileNetV3Small:alpha=1,minimalistic=true".

    Returns:
        The row of the table, and the options as keyword arguments of the constructor.

    Raises:
        UserError: unknown backbone or option, or a value out of range.
    """
    name, colon, rest = spec.partition(":")
    if name not in BACKBONES:
        raise UserError(
            f"unknown name '{name}'.{did_you_mean(name, BACKBONES)} "
            f"`kerasft backbones` lists all {len(BACKBONES)}.",
            field="backbone",
            exit_code=2,
        )
    backbone = BACKBONES[name]
    options: Options = {}
    for part in rest.split(",") if colon else ():
        option, _, text = (piece.strip() for piece in part.partition("="))
        if option not in backbone.options:
            known = ", ".join(backbone.options) or "none"
            raise UserError(
                f"'{spec}': unknown option '{option}'."
                f"{did_you_mean(option, backbone.options)} Options of {name}: {known}.",
                field="backbone",
                exit_code=2,
            )
        if option in options:
            twice = f"'{spec}': {option} is given twice."
            raise UserError(twice, field="backbone", exit_code=2)
        read, expected = OPTIONS[option]
        try:
            options[option] = read(text)
        except (ValueError, KeyError):
            raise UserError(
                f"'{spec}': expected {option} to be {expected}, got '{text}'.",
                field="backbone",
                exit_code=2,
            ) from None
    return backbone, options


SEPARATOR = "+"  # between the backbones of "MobileNetV2+MobileNet:alpha=0.75"


def parse_all(spec: str) -> tuple[tuple[Backbone, Options], ...]:
    """Parses one backbone or several: "MobileNetV2+MobileNet:alpha=0.75".

    Returns:
        The result of `parse` for each backbone.

    Raises:
        UserError: a backbone that `parse` refuses, or one that is named twice.
    """
    specs = spec.split(SEPARATOR)
    parsed = tuple(parse(one.strip()) for one in specs)
    for i, one in enumerate(parsed):
        if one in parsed[:i]:
            raise UserError(
                f"'{spec}': {specs[i].strip()} is named twice, so its features would be there "
                "twice.",
                field="backbone",
                exit_code=2,
            )
    return parsed


def rows_of(spec: str) -> tuple[Backbone, ...]:
    """Returns the table's row of each backbone in a spec."""
    return tuple(backbone for backbone, _ in parse_all(spec))


def side_of(spec: str) -> int:
    """Returns the default image size of a model, in pixels: the largest of its backbones."""
    return max(backbone.image_size for backbone in rows_of(spec))


def nets_of(spec: str, image_size: int) -> tuple[tuple[str, int], ...]:
    """Returns each backbone of a spec with the side of its own input.

    A single backbone takes the model's images as they are. Each of several takes them at the side
    on which it was trained, if that is smaller.

    Args:
        spec: one backbone or several, as `parse_all` takes them.
        image_size: side of the model's images, pixels.

    Returns:
        Pairs of a spec of one backbone and a side in pixels.
    """
    specs = [one.strip() for one in spec.split(SEPARATOR)]
    if len(specs) == 1:
        return ((specs[0], image_size),)
    return tuple((one, min(image_size, parse(one)[0].image_size)) for one in specs)


def default_blocks(spec: str) -> int:
    """Returns how many blocks of each backbone `unfreeze-and-continue` trains by default."""
    return min(backbone.default_blocks for backbone in rows_of(spec))


DEFAULTS = {"alpha": 1.0, "depth_multiplier": 1, "minimalistic": False, MODE: "caffe"}


def same_net(one: str, other: str) -> bool:
    """Returns whether two specs mean the same nets: "MobileNet" is "MobileNet:alpha=1".

    Raises:
        UserError: a spec that `parse_all` refuses.
    """
    first, second = (
        [(row, {**DEFAULTS, **options}) for row, options in parse_all(spec)]
        for spec in (one, other)
    )
    return first == second
