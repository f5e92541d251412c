"""The table of Keras Applications: what each one is called, takes, and is cut into.

Plain data without Keras, so that a config is checked in an instant; `nets.py` builds the nets.

Shapes: S side of the square input in pixels.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerasft.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Backbone:
    """One row of the table: one constructor of `keras.applications`.

    Attributes:
        name: of the constructor.
        module: submodule of `keras.applications` whose `preprocess_input` goes with it.
        block_key: regular expression, searched in the explicit names of its layers; group 1,
            or the whole match if there is no group, tells the blocks apart.
        default_blocks: how many blocks from the top `unfreeze-and-continue` trains unless
            told otherwise: about a fifth of the layers.
        block_name: how a block is called; `{}` stands for what `block_key` found.
        image_size: side that the ImageNet weights were trained with, pixels.
        min_size: smallest side that the constructor accepts, pixels.
        options: arguments of the constructor that a spec may set; `OPTIONS` reads them.
        second_rescaling: the constructor adds a Rescaling only for `weights="imagenet"`.
    """

    name: str
    module: str
    block_key: str
    default_blocks: int
    block_name: str = "{}"
    image_size: int = 224
    min_size: int = 32
    options: tuple[str, ...] = ()
    second_rescaling: bool = False


_RESIDUAL = r"^conv[2-5]_block\d+"
_MBCONV = r"^block\d[a-z]"
_V3 = r"^expanded_conv(?:_\d+)?"

_ROWS = (
    Backbone(
        "MobileNet",
        "mobilenet",
        r"^conv_(?:pad|dw|pw)_(\d+)",  # a depthwise and a pointwise convolution
        2,
        block_name="conv_{}",
        options=("alpha", "depth_multiplier"),
    ),
    Backbone("MobileNetV2", "mobilenet_v2", r"^(block_\d+|expanded_conv)_", 3, options=("alpha",)),
    Backbone("MobileNetV3Small", "mobilenet_v3", _V3, 2, options=("alpha", "minimalistic")),
    Backbone("MobileNetV3Large", "mobilenet_v3", _V3, 3, options=("alpha", "minimalistic")),
    Backbone("VGG16", "vgg16", r"^block\d", 1),
    Backbone("VGG19", "vgg19", r"^block\d", 1),
    Backbone("ResNet50", "resnet", _RESIDUAL, 3),
    Backbone("ResNet101", "resnet", _RESIDUAL, 6),
    Backbone("ResNet152", "resnet", _RESIDUAL, 9),
    Backbone("ResNet50V2", "resnet_v2", _RESIDUAL, 3),
    # The transition pool2 shrinks what the dense block conv2 made.
    Backbone("DenseNet121", "densenet", r"^(?:conv|pool)([2-5])_", 1, block_name="conv{}"),
    Backbone("EfficientNetB0", "efficientnet", _MBCONV, 3, second_rescaling=True),
    Backbone("EfficientNetV2B0", "efficientnet_v2", _MBCONV, 4),
    # To the end of the name: "mixed9_1" is a part of mixed10, not of mixed9.
    Backbone("InceptionV3", "inception_v3", r"^mixed\d+$", 2, image_size=299, min_size=75),
    Backbone("Xception", "xception", r"^block\d+", 3, image_size=299, min_size=71),
    Backbone("ConvNeXtTiny", "convnext", r"stage_\d_block_\d+", 3),
)

BACKBONES: dict[str, Backbone] = {row.name: row for row in _ROWS}

# What the weights in the package were trained for (scripts/pretrain_sample.py).
SAMPLE_BACKBONE, SAMPLE_SIDE = "MobileNetV2:alpha=0.35", 96


def _width(text: str) -> float:
    """Reads a width multiplier. The limit is far over what exists (1.4) and stops `alpha=75`."""
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


# Option -> how its text is read, and what is expected of it.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "alpha": (_width, "a number over 0, at most 4"),
    "depth_multiplier": (_whole, "a whole number from 1 to 8"),
    "minimalistic": (_switch, "true or false"),
}


def parse(spec: str) -> tuple[Backbone, dict[str, Any]]:
    """Reads a backbone as users write it.

    Args:
        spec: "MobileNetV2", or with options of the constructor: "MobileNet:alpha=0.75",
            "MobileNetV3Small:alpha=1,minimalistic=true".

    Returns:
        The row, and the options as the constructor takes them.

    Raises:
        UserError: unknown backbone or option, or a value out of range.
    """
    name, colon, rest = spec.partition(":")
    if name not in BACKBONES:
        raise UserError(
            f"backbone: unknown name '{name}'.{did_you_mean(name, BACKBONES)} "
            f"Known are {', '.join(BACKBONES)}.",
            exit_code=2,
        )
    backbone = BACKBONES[name]
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        option, _, text = (piece.strip() for piece in part.partition("="))
        if option not in backbone.options:
            known = ", ".join(backbone.options) or "none"
            raise UserError(
                f"backbone '{spec}': unknown option '{option}'."
                f"{did_you_mean(option, backbone.options)} Options of {name}: {known}.",
                exit_code=2,
            )
        if option in options:
            raise UserError(f"backbone '{spec}': {option} is given twice.", exit_code=2)
        read, expected = OPTIONS[option]
        try:
            options[option] = read(text)
        except (ValueError, KeyError):
            raise UserError(
                f"backbone '{spec}': expected {option} to be {expected}, got '{text}'.",
                exit_code=2,
            ) from None
    return backbone, options


def block_key(backbone: Backbone, layer_name: str) -> str | None:
    """Tells which block a layer names itself a part of.

    Args:
        backbone: the row.
        layer_name: name of one of its layers.

    Returns:
        The block's name ("block_14"); None for the stem, for what follows the last block, and
        for auto-named layers (`conv2d_94`), which belong to the place that they flow into.
    """
    match = re.search(backbone.block_key, layer_name)
    if match is None:
        return None
    return backbone.block_name.format(match.group(1) if match.re.groups else match.group())
