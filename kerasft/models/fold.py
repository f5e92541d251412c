"""Models for inference that compute the same function with less work or other operations.

`for_inference` folds: frozen statistics make BatchNormalization a factor and an offset for each
channel, which the kernel and bias of the convolution in front of it take over: half the passes
over memory. TensorFlow's graph optimizer does this by itself; XLA does not. And GELU is written
with erf: Keras writes it with erfc on JAX, 130 operations in two kernels, which took 40% of
ConvNeXtTiny's time on an H100 (`scripts/results/bench_gpu.md`). `frozen_graph` is what other
formats are converted from, without the operations that they lack (`without_antialias`).

Shapes: B images in a batch, S side of the model's square input in pixels, K classes.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks", section 3.2.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import keras
import numpy as np

from kerasft.lazy_tensorflow import tf

PIXELS, SCORES = "pixels", "scores"  # names in a graph of `frozen_graph`
GELU = keras.activations.gelu
CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def for_inference(model: keras.Model) -> keras.Model:
    """Returns a copy of a model for inference, with the normalisations folded.

    Args:
        model: a flat model in float32; it does not change. Only its inference mode is copied.

    Returns:
        A model with weights of its own. A BatchNormalization layer stays where something else
        reads the convolution too, or where an activation lies between.
    """
    pairs = _foldable(model)
    norms = {norm for norm in pairs.values()}

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in norms:
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, keras.layers.Activation) and layer.activation is GELU:
            return keras.layers.Activation(_gelu, name=layer.name)
        config = layer.get_config()
        if layer.name in pairs:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def called(layer: keras.Operation, *arguments: Any, **named: Any) -> Any:
        return arguments[0] if layer.name in norms else layer(*arguments, **named)

    clone = keras.models.clone_model(model, clone_function=copied, call_function=called)
    for layer in model.layers:
        if layer.name in pairs:
            norm = model.get_layer(pairs[layer.name])
            clone.get_layer(layer.name).set_weights(_folded(layer, norm))
        elif layer.weights and layer.name not in norms:
            clone.get_layer(layer.name).set_weights(layer.get_weights())
    return clone


def _gelu(x: Any) -> Any:
    """Computes x times the normal distribution's share below it, in float32."""
    exact = keras.ops.cast(x, "float32")
    share = 0.5 * (1 + keras.ops.erf(exact * math.sqrt(0.5)))
    return keras.ops.cast(exact * share, x.dtype)


def _foldable(model: keras.Model) -> dict[str, str]:
    """Returns convolution -> BatchNormalization, by name, where nothing else reads between."""
    by_depth = model._nodes_by_depth  # see `blocks.backbone_nodes`
    nodes = [node for of_depth in by_depth.values() for node in of_depth if not node.is_input]
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(id(tensor) for tensor in model.outputs)
    uses = Counter(node.operation.name for node in nodes)
    made_by: dict[int, Any] = {
        id(tensor): node.operation for node in nodes for tensor in node.output_tensors
    }
    pairs = {}
    for node in nodes:
        norm = node.operation
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        (tensor,) = node.input_tensors
        before = made_by.get(id(tensor))
        if (
            before is not None
            and type(before) in CONVOLUTIONS
            and readers[id(tensor)] == 1
            and uses[before.name] == uses[norm.name] == 1
            and before.activation is keras.activations.linear
            and before.data_format == "channels_last"
            and norm.axis in (-1, len(tensor.shape) - 1)
        ):
            pairs[before.name] = norm.name
    return pairs


def _folded(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Returns the weights of a convolution that does the work of the normalisation behind it."""
    mean, variance = (np.asarray(v, "float64") for v in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, "float64") if norm.scale else 1.0
    beta = np.asarray(norm.beta, "float64") if norm.center else 0.0
    factor = gamma / np.sqrt(variance + norm.epsilon)
    *kernels, last = layer.get_weights()[:-1] if layer.use_bias else layer.get_weights()
    bias = layer.get_weights()[-1] if layer.use_bias else 0.0
    # A depthwise kernel is [h, w, channels, multiplier]; its channels of output are the last two.
    depthwise = type(layer) is keras.layers.DepthwiseConv2D
    last = last * (factor.reshape(last.shape[2:]) if depthwise else factor)
    return [
        np.asarray(weights, "float32")
        for weights in (*kernels, last, (bias - mean) * factor + beta)
    ]


def without_antialias(model: keras.Model) -> keras.Model:
    """Returns a model that resizes by matrix products where it resized with antialiasing.

    Backbones with different sides are fed so (`build.load`); LiteRT and ONNX have no such
    operation. A resize is linear in height and in width, so results are equal but for rounding.

    Args:
        model: functional model; its layers are shared with the result.
    """
    if not any(_antialiases(operation) for operation in model.operations):
        return model

    def call(operation: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(operation, keras.Model):
            operation = without_antialias(operation)
        if not getattr(operation, "antialias", False):
            return operation(*arguments, **options)
        (image,), (height, width) = arguments, operation.size
        channels = keras.ops.transpose(image, (0, 3, 1, 2))
        rows = keras.ops.matmul(_resize_matrix(image.shape[1], height), channels)
        both = keras.ops.matmul(rows, _resize_matrix(image.shape[2], width).T)
        return keras.ops.transpose(both, (0, 2, 3, 1))

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def _antialiases(operation: Any) -> bool:
    inner = getattr(operation, "operations", [])  # of a model inside the model
    return getattr(operation, "antialias", False) or any(_antialiases(one) for one in inner)


def _resize_matrix(old: int, new: int) -> np.ndarray:
    """Returns the matrix [new, old] that resizes a column of pixels: what becomes of a diagonal."""
    diagonal = np.eye(old, dtype=np.float32)[..., None]
    resized: np.ndarray = tf.image.resize(diagonal, (new, old), antialias=True)[..., 0].numpy()
    return resized


def frozen_graph(model: keras.Model) -> Any:
    """Returns a model as one TensorFlow graph, its weights constants in it.

    Args:
        model: model from pixels to scores.

    Returns:
        A GraphDef without functions and variables: the placeholder PIXELS, float32 [B,S,S,3], 0 to
        255, for any B, and the node SCORES, float32 [B,K].

    Source: Keras computes grouped convolutions, which ConvNeXt has, in a function of its own that
        only XLA may compile (`keras/src/backend/tensorflow/nn.py`), which tf2onnx does not know.
        While functions run eagerly, it is traced like any other operation.
    """
    # Imported here: importing it loads TensorFlow.
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    plain = without_antialias(model)

    def scores(pixels: tf.Tensor) -> tf.Tensor:
        return tf.identity(plain(pixels, training=False), name=SCORES)

    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name=PIXELS)]
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        traced = tf.compat.v1.wrap_function(scores, signature)
    finally:
        tf.config.run_functions_eagerly(eager)
    return convert_variables_to_constants_v2(traced).graph.as_graph_def()
