"""What a finished model adds to the trained one: views, a temperature, sums of classes.

Test-time augmentation looks at several views of an image and averages their logits. A temperature
divides the logits, so that scores mean what they say (`confidence.py`). Scores of classes that are
one class now are summed. All are made of stock layers inside the model, so evaluation, prediction
and the export need no code for them, and `model.keras` still loads in plain Keras. A later phase
trains the classifier inside.

Shapes: B images in a batch, S side in pixels, K classes, V views, P parts whose scores are summed.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasft.heads.sums import LEAST

CLASSIFIER = "classifier"  # name of the layer that holds the model as it was trained
TEMPERATURE = "temperature"  # name of the layer that divides the logits by the temperature
PARTS, SUMS = "head_parts", "head_sums"  # layers: logits of the parts, and the sums of their scores
CROP = 7 / 8  # side of a crop, as a share of S: 224 of 256 pixels in Krizhevsky et al. 2012


def with_views(model: keras.Model, mode: str) -> keras.Model:
    """Returns a model that averages the logits of several views of each image.

    Args:
        model: the model, pixels [B,S,S,3] to scores [B,K], with the layer "logits".
        mode: the views: "none" returns `model` itself; "flip" takes the image and its mirror
            image; "ten-crop" takes the four corners and the centre, 7/8 of the side and resized to
            S, and their mirror images.

    Returns:
        Pixels to scores, with layers "logits" and "scores". It shares all variables, in the same
        order, and computes V times as much.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional
        Neural Networks, 2012, section 4.1 (which averages scores; logits are averaged here,
        so that both outputs agree).
    """
    if mode == "none":
        return model
    classifier = keras.Model(model.inputs[0], model.get_layer("logits").output, name=CLASSIFIER)
    pixels = keras.Input(model.inputs[0].shape[1:], name="pixels")
    views = _views(pixels, mode)
    stacked = classifier(ops.concatenate(views, axis=0))
    by_view = ops.reshape(stacked, (len(views), -1, stacked.shape[-1]))
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(
        ops.mean(by_view, axis=0)
    )
    scores = keras.layers.Softmax(dtype="float32", name="scores")(logits)
    return keras.Model(pixels, scores)


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Returns the model with its logits divided by a temperature before the softmax.

    Args:
        model: the model, pixels to scores [B,K], with the layer "logits". A temperature that it
            has is replaced.
        temperature: the temperature, more than 0; 1 leaves the layer out.

    Returns:
        Pixels to scores. It shares all variables; the layer "logits" stays as it is.
    """
    logits = model.get_layer("logits").output
    scaled = logits
    if temperature != 1:
        scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name=TEMPERATURE)(logits)
    scores = keras.layers.Softmax(dtype="float32", name="scores")(scaled)
    return keras.Model(model.inputs[0], scores)


def with_sums(model: keras.Model, classes: Sequence[int], num_classes: int) -> keras.Model:
    """Returns a model whose scores are sums of the scores of another one.

    Args:
        model: the model, pixels to scores [B,P], with the layer "logits". It is used up: its last
            layers get other names. Sums that it has are summed further.
        classes: class that the score of each part is added to; -1 for a part that is left out.
        num_classes: number of classes, K.

    Returns:
        Pixels to scores [B,K] that sum to 1. It shares all variables of the parts.
    """
    own = np.asarray(classes)[:, None] == np.arange(num_classes)
    if SUMS in {layer.name for layer in model.layers}:
        before = model.get_layer(SUMS)
        scores, own = before.input, before.get_weights()[0] @ own
    else:
        scores = model.outputs[0]
        for layer in model.layers:
            if layer.name in ("logits", TEMPERATURE, "scores"):
                layer.name = PARTS if layer.name == "logits" else f"head_{layer.name}"
    layer = keras.layers.Dense(num_classes, use_bias=False, dtype="float32", name=SUMS)
    sums = layer(scores)
    layer.set_weights([own.astype(np.float32)])
    some = keras.layers.Rescaling(1.0, offset=LEAST, dtype="float32", name="head_least")(sums)
    logs = ops.log(some)
    logs._keras_history.operation.name = "head_log_sums"
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(logs)
    scores = keras.layers.Softmax(dtype="float32", name="scores")(logits)
    return keras.Model(model.inputs[0], scores)


def looks_at_views(model: keras.Model) -> bool:
    """Returns whether a model averages several views of each image."""
    return CLASSIFIER in {layer.name for layer in model.layers}


def temperature_of(model: keras.Model) -> float:
    """Returns the temperature of a model, 1 for one without."""
    names = {layer.name for layer in model.layers}
    return 1 / float(model.get_layer(TEMPERATURE).scale) if TEMPERATURE in names else 1.0


def trained_part(model: keras.Model) -> keras.Model:
    """Returns the classifier that was trained, pixels to scores, without views and temperature."""
    if not looks_at_views(model):
        return model if temperature_of(model) == 1 else with_temperature(model, 1)
    classifier = model.get_layer(CLASSIFIER)
    scores = keras.layers.Softmax(dtype="float32", name="scores")(classifier.outputs[0])
    return keras.Model(classifier.inputs[0], scores)


def _views(pixels: Any, mode: str) -> list:
    whole = [pixels] if mode == "flip" else _five_crops(pixels)
    return whole + [ops.flip(view, axis=2) for view in whole]


def _five_crops(pixels: Any) -> list:
    side = pixels.shape[1]
    cut = side - round(CROP * side)
    middle = cut // 2
    corners = ((0, 0), (0, cut), (cut, 0), (cut, cut), (middle, middle))
    # Not the layer Resizing: its call has the default training=True, which Keras 3.15 passes on
    # to all layers behind it when the model is called without `training`.
    return [
        ops.image.resize(
            pixels[:, top : side - cut + top, left : side - cut + left], (side, side), "bilinear"
        )
        for top, left in corners
    ]
