"""The table of Keras Applications: how each one is built, preprocessed and cut into blocks.

A backbone takes pixels, float32 [B,S,S,3] RGB from 0 to 255; its own preprocessing is part of
the model, so there is no second place where it could be forgotten or done twice.

Shapes: B images in a batch; S side of the square input in pixels; F features.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft.errors import UserError, did_you_mean
from kerasft.weights import imagenet_files, load_file

# What Keras' EfficientNet v1 normalises with (keras/src/applications/efficientnet.py).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STDDEV = (0.229, 0.224, 0.225)


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


def load(spec: str, *, weights: str, image_size: int, seed: int = 0) -> keras.Model:
    """Builds a backbone with its preprocessing inside and fills it with weights.

    Args:
        spec: see `parse`.
        weights: "imagenet", "none" (random; they depend on `seed` alone), or the path of a
            file: .h5 (Keras Applications, with or without top), .weights.h5 or .keras. A file
            is taken to belong to ImageNet's preprocessing, as those of Keras Applications do.
        image_size: S, at least the row's `min_size`.
        seed: sets the global seeds of Python, NumPy and the backend.

    Returns:
        A flat functional model: "pixels" float32 [B,S,S,3], RGB from 0 to 255, to
        features float32 [B,F] (average over places). (ConvNeXt keeps its four
        down-sampling steps as `Sequential` layers.)

    Raises:
        UserError: a bad spec, a side under the minimum, options that Keras refuses,
            ImageNet weights that can't be had, or a file that is missing or does not fit.
    """
    backbone, _ = parse(spec)
    if image_size < backbone.min_size:
        raise UserError(
            f"image size: {backbone.name} takes images of {backbone.min_size} pixels a side or "
            f"more, got {image_size}.",
            exit_code=2,
        )
    path = None if weights in ("imagenet", "none") else Path(weights)
    if path is not None and not path.is_file():
        raise UserError(
            f"weights: there is no file {path}. Expected 'imagenet', 'none' or a file.",
            exit_code=2,
        )
    keras.utils.set_random_seed(seed)
    known = "imagenet" if weights == "imagenet" else None
    net = _build(spec, image_size, known, include_top=False, pooling="avg")
    if path is not None:
        load_file(net, path, name=spec)
    return net


def _build(spec: str, image_size: int, weights: str | None, **arguments: Any) -> keras.Model:
    backbone, options = parse(spec)
    shape = (image_size, image_size, 3)
    pixels = keras.Input(shape, name="pixels")
    # Symbolic: on a NumPy array preprocess_input would overwrite the caller's pixels.
    inputs = getattr(keras.applications, backbone.module).preprocess_input(pixels)
    # No `name=`: EfficientNetV2 fails with one, ConvNeXt makes its weights file's name of it.
    constructor = getattr(keras.applications, backbone.name)
    arguments |= {"input_tensor": inputs, "input_shape": shape, "weights": weights}
    with imagenet_files(spec, image_size):
        net = constructor(**options, **arguments)
    if backbone.second_rescaling and weights is None:
        net = _with_second_rescaling(net)
    # Keras' constructors make a list of the one input and warn whoever passes one tensor.
    return keras.Model(net.inputs[0], net.outputs[0], name=net.name)


def _with_second_rescaling(net: keras.Model) -> keras.Model:
    """Rebuilds EfficientNet v1 as Keras builds it for ImageNet weights.

    Keras adds a Rescaling behind the Normalization only for `weights="imagenet"`; without it
    the same weights, read from a file, silently compute something else. The new net's
    Normalization holds ImageNet's values too, so that all nets see the same: (x - mean) /
    stddev of x from 0 to 1.

    Source: keras/src/applications/efficientnet.py, with a reference to tensorflow issue 49930.
        The "variance" of the published weights is the standard deviation; this scale
        completes the division.
    """
    scale = [1 / math.sqrt(stddev) for stddev in IMAGENET_STDDEV]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        x = layer(*args, **kwargs)
        normalizes = isinstance(layer, keras.layers.Normalization)
        return keras.layers.Rescaling(scale)(x) if normalizes else x

    net = keras.models.clone_model(net, call_function=call)
    for layer in net.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights([np.array(IMAGENET_MEAN), np.array(IMAGENET_STDDEV), np.array(0)])
            layer.finalize_state()  # recomputes what `call` uses; set_weights does not
    return net


def pretrained(spec: str) -> tuple[keras.Model, list[str]]:
    """Loads a whole ImageNet classifier as it was published.

    Args:
        spec: see `parse`.

    Returns:
        A model from "pixels" float32 [B,S,S,3], RGB from 0 to 255, to the layer "scores", float32
        [B,1000] that sum to 1, with the layer "logits" in front of it; S is the row's
        `image_size`. And the 1000 labels in that order; "crane" and "maillot" occur twice.

    Raises:
        UserError: a bad spec, or files that can't be had.
    """
    backbone, _ = parse(spec)
    net = _build(
        spec, backbone.image_size, "imagenet", include_top=True, classifier_activation=None
    )
    return add_scores(net), _labels(spec, backbone.image_size)


def add_scores(net: keras.Model) -> keras.Model:
    """Puts the layers "logits" and "scores" behind a classifier that ends without a softmax.

    Args:
        net: pixels to logits [B,K]; a layer of it that is called "logits" gets another name.
    """
    for layer in net.layers:
        if layer.name == "logits":  # MobileNetV3 calls its last convolution so, [B,1,1,1000]
            layer.name = "last_conv"
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(net.outputs[0])
    scores = keras.layers.Softmax(dtype="float32", name="scores")(logits)
    return keras.Model(net.inputs[0], scores, name=net.name)


def _labels(spec: str, image_size: int) -> list[str]:
    # Address and digest as in keras/src/applications/imagenet_utils.py, whose own reader gives
    # only the best few.
    with imagenet_files(spec, image_size):
        path = keras.utils.get_file(
            "imagenet_class_index.json",
            "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
            cache_subdir="models",
            file_hash="c2c37ea517e94d9795004a39431a14cb",
        )
    index = json.loads(Path(path).read_text(encoding="utf-8"))
    return [index[str(i)][1] for i in range(len(index))]
