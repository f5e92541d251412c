"""Backbones, built with their preprocessing inside and filled with weights.

A backbone takes pixels, float32 [B,S,S,3], RGB from 0 to 255. Its preprocessing is part of the
model, so it can be neither forgotten nor done twice elsewhere.

Shapes: B images in a batch; S side of the square input in pixels; F features.
"""

import functools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft.backbones.compatibility import (
    DEPTHS,
    FULLY_CONNECTED,
    check_features,
    check_weights,
    weights_of,
)
from kerasft.backbones.imagenet_classes import labels
from kerasft.backbones.spec import nets_of, parse
from kerasft.backbones.table import MODE
from kerasft.errors import UserError
from kerasft.heads.co_tuning import classifier_of
from kerasft.models import alexnet
from kerasft.models.blocks import choose, cut_top, net_prefix
from kerasft.models.weights import SAMPLE, imagenet_files, load_file
from kerasft.seeds import derive_seed

# Constants of the normalisation in Keras' EfficientNet v1 (keras/src/applications/efficientnet.py).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STDDEV = (0.229, 0.224, 0.225)


def load(
    spec: str,
    *,
    weights: str,
    image_size: int,
    seed: int = 0,
    features: str = "pooled",
    leave_out: int = 0,
) -> keras.Model:
    """Builds one backbone, or several side by side in one model; see `load_one`.

    Each of several backbones takes the same pixels, resized inside the model to the side that it
    was trained with where that is smaller. Their layers get the prefix of `blocks.net_prefix`.

    Args:
        spec: the backbone, or several joined by "+" (`spec.parse_all`).
        weights: the weights for all backbones, or one for each, joined by "+"; see `load_one`.
        image_size: side of the input in pixels, S.
        seed: seed for random weights.
        features: kind of features; see `load_one`.
        leave_out: number of blocks that are left out from the top of each backbone.

    Returns:
        "pixels" float32 [B,S,S,3], RGB from 0 to 255, to features float32 [B,F], those of several
        backbones concatenated in order.

    Raises:
        UserError: see `load_one`.
    """
    check_weights(spec, weights)
    nets = nets_of(spec, image_size)
    if len(nets) == 1:
        return load_one(
            spec,
            weights=weights,
            image_size=image_size,
            seed=seed,
            features=features,
            leave_out=leave_out,
        )
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    of_each = []
    of_nets = zip(nets, weights_of(weights, len(nets)), strict=True)
    for net, ((one, side), own) in enumerate(of_nets):
        base = load_one(
            one,
            weights=own,
            image_size=side,
            seed=derive_seed(seed, "net", net),
            features=features,
            leave_out=leave_out,
        )
        for operation in base.operations:
            operation.name = net_prefix(net) + operation.name
        own = pixels
        if side < image_size:
            own = keras.ops.image.resize(pixels, (side, side), antialias=True)
            own._keras_history.operation.name = f"{net_prefix(net)}resize"
        of_each.append(_put_on(own, base))
    joined = keras.layers.Concatenate(name="features")(of_each)
    return keras.Model(pixels, joined)


def seed_layers(seed: int) -> None:
    """Seeds the generators from which layers without a seed draw one.

    Does what `keras.utils.set_random_seed` does, except for TensorFlow's seed, which no layer uses:
    whenever it is set, TensorFlow forgets every function that it has optimized, and the next photo
    waits a second for the decoder.
    """
    random.seed(seed)
    np.random.seed(seed)


def _put_on(tensor: keras.KerasTensor, net: keras.Model) -> keras.KerasTensor:
    """Applies all layers of a flat net to a tensor, and returns the output.

    Calling the net itself would make it a single layer that contains all others.
    """
    return keras.Function(net.inputs[0], net.outputs[0]).call(tensor)


def load_one(
    spec: str,
    *,
    weights: str,
    image_size: int,
    seed: int = 0,
    features: str = "pooled",
    leave_out: int = 0,
) -> keras.Model:
    """Builds a backbone with its preprocessing inside and fills it with weights.

    Args:
        spec: the backbone with its options (`spec.parse`).
        weights: "imagenet", "sample" (those in the package, for `table.SAMPLE_BACKBONE`),
            "none" (random; they depend on `seed` alone), or the path of a file: .h5 (Keras
            Applications, with or without top), .weights.h5 or .keras. A file is assumed to
            belong to ImageNet's preprocessing, as those of Keras Applications do.
        image_size: side of the input in pixels, S, at least the row's `min_size`.
        seed: seed for random weights; it sets the global seeds of Python, NumPy and the backend.
        features: kind of features: "pooled" (average over height and width), "flat" (flattened),
            "depths" (the averages of the outputs of all blocks, the pooled features last), or an
            inner fully connected layer of `compatibility.FULLY_CONNECTED`, for which a file needs a
            top.
        leave_out: number of blocks that are left out from the top; the features are taken below.

    Returns:
        A flat functional model: "pixels" float32 [B,S,S,3], RGB from 0 to 255, to features
        float32 [B,F]. (ConvNeXt keeps its four down-sampling steps as `Sequential` layers.)

    Raises:
        UserError: a bad spec, a side under the minimum, options that Keras refuses,
            features that the net does not have, ImageNet weights that are not available, or a
            file that is missing or does not fit.
    """
    backbone, _ = parse(spec)
    if image_size < backbone.min_size:
        raise UserError(
            f"image size: {backbone.name} takes images of {backbone.min_size} pixels a side or "
            f"more, got {image_size}.",
            exit_code=2,
        )
    check_features(spec, features, leave_out=leave_out, weights=weights, image_size=image_size)
    path = None if weights in ("imagenet", "none") else Path(weights)
    if weights == "sample":
        path = SAMPLE
    if path is not None and not path.is_file():
        raise UserError(
            f"weights: there is no file {path}. Expected 'imagenet', 'sample', 'none' or a file.",
            exit_code=2,
        )
    seed_layers(seed)
    known = "imagenet" if weights == "imagenet" else None
    if features in FULLY_CONNECTED:
        top = _build(spec, image_size, known, include_top=True)
        net = base = cut_top(top, backbone, features)
    else:
        pooling = "avg" if features in ("pooled", DEPTHS) else None
        net = _build(spec, image_size, known, include_top=False, pooling=pooling)
        base = choose(net, backbone, features, leave_out=leave_out)
    if path is not None:
        _fill_from(path, net, base, spec, features)
    return base


def _fill_from(path: Path, net: keras.Model, base: keras.Model, spec: str, features: str) -> None:
    """Fills a net from a file; if the file holds only the layers of `base`, fills those."""
    try:
        load_file(net, path, name=spec)
    except UserError as error:
        # A run with head.leave_out has saved only the remaining blocks; an import of a net with a
        # different last layer has left that layer out.
        if len(base.weights) < len(net.weights):
            try:
                load_file(base, path, name=spec)
            except UserError:
                pass
            else:
                return
        if features in FULLY_CONNECTED:
            raise UserError(
                f"{error}\n  Features '{features}' need a file of the whole net, with its top, for "
                "the same side; or take head.features 'pooled' or 'flat'.",
                exit_code=2,
            ) from error
        raise


def _build(spec: str, image_size: int, weights: str | None, **arguments: Any) -> keras.Model:
    """Builds a net with the function of its family, with random weights or Keras' ImageNet ones."""
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    backbone, _ = parse(spec)
    return BUILDERS[backbone.family](spec, pixels, weights=weights, **arguments)


def build_keras(
    spec: str, pixels: keras.KerasTensor, *, weights: str | None, **arguments: Any
) -> keras.Model:
    """Builds a net of Keras Applications behind its preprocessing.

    Args:
        spec: the backbone with its options (`spec.parse`).
        pixels: the model's input [B,S,S,3], RGB from 0 to 255.
        weights: weights of the net, "imagenet", or None for random ones.
        arguments: arguments of Keras' constructor: `include_top`, `pooling` and
            `classifier_activation`.
    """
    backbone, options = parse(spec)
    # Symbolic: on a NumPy array preprocess_input would overwrite the caller's pixels.
    if mode := options.pop(MODE, None):
        inputs = keras.applications.imagenet_utils.preprocess_input(pixels, mode=mode)
    else:
        inputs = getattr(keras.applications, backbone.module).preprocess_input(pixels)
    # No `name=`: EfficientNetV2 fails with one, ConvNeXt derives its weights file's name from it.
    constructor = getattr(keras.applications, backbone.name)
    shape = tuple(pixels.shape[1:])
    arguments |= {"input_tensor": inputs, "input_shape": shape, "weights": weights}
    with imagenet_files(spec, shape[0]):
        net = constructor(**options, **arguments)
    if backbone.second_rescaling and weights is None:
        net = _with_second_rescaling(net)
    # Keras' constructors turn the one input into a list, and then warn when one tensor is passed.
    return keras.Model(net.inputs[0], net.outputs[0], name=net.name)


def build_alexnet(
    spec: str, pixels: keras.KerasTensor, *, weights: str | None, **arguments: Any
) -> keras.Model:
    """Builds a net of `backbones/chains.py` behind its preprocessing; see `build_keras`.

    Its weights are always random: `check_weights` has refused "imagenet" for these nets.
    """
    name = parse(spec)[0].name
    return alexnet.build(name, alexnet.preprocess_input(pixels, name), **arguments)


# The functions that build nets, by the family in a row of BACKBONES; called like `build_keras`.
BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "keras": build_keras,
    "alexnet": build_alexnet,
}


def _with_second_rescaling(net: keras.Model) -> keras.Model:
    """Rebuilds EfficientNet v1 as Keras builds it for ImageNet weights.

    Keras adds a Rescaling behind the Normalization only for `weights="imagenet"`; without it
    the same weights, read from a file, silently compute something else. The new net's
    Normalization gets ImageNet's values too, so all nets get the same input: (x - mean) / stddev
    for x from 0 to 1.

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


def pretrained(spec: str, file: Path | None = None) -> tuple[keras.Model, list[str]]:
    """Loads a whole ImageNet classifier as it was published.

    Args:
        spec: the backbone with its options (`spec.parse`).
        file: file of its weights, with a top for the 1000 classes in the usual order; None takes
            Keras' own.

    Returns:
        A model from "pixels" float32 [B,S,S,3], RGB from 0 to 255, to the layer "scores", float32
        [B,1000] that sum to 1, with the layer "logits" in front of it; S is the row's
        `image_size`. And the 1000 labels in that order; "crane" and "maillot" occur twice.

    Raises:
        UserError: a bad spec, files that are not available, or a file that lacks some weights.
    """
    backbone, _ = parse(spec)
    known = None if file else "imagenet"
    check_weights(spec, known or "none")
    net = _build(spec, backbone.image_size, known, include_top=True, classifier_activation=None)
    if file:
        load_file(net, file, name=spec)
    # The names in Keras' predictions, which has to download its own list of them.
    return add_scores(net), [label.replace(" ", "_") for label in labels()]


@functools.lru_cache(maxsize=1)  # it is asked for when a run is planned, and when it is trained
def classifier(spec: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the ImageNet classifier on a net's pooled features; see `co_tuning.classifier_of`.

    Args:
        spec: the backbone with its options.

    Raises:
        UserError: a bad spec, or weights that are not available.
    """
    return classifier_of(pretrained(spec)[0])


def add_scores(net: keras.Model) -> keras.Model:
    """Puts the layers "logits" and "scores" behind a classifier that ends without a softmax.

    Args:
        net: the classifier, pixels to logits [B,K]; a layer named "logits" in it is renamed.
    """
    for layer in net.layers:
        if layer.name == "logits":  # MobileNetV3's last convolution, [B,1,1,1000]
            layer.name = "last_conv"
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(net.outputs[0])
    scores = keras.layers.Softmax(dtype="float32", name="scores")(logits)
    return keras.Model(net.inputs[0], scores, name=net.name)
