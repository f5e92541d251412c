"""Folding: a model for inference that computes the same function with less work.

Frozen statistics make BatchNormalization a factor and an offset for each channel, which the
kernel and bias of the convolution in front of it take over: half the passes over memory.
TensorFlow's graph optimizer does this by itself; XLA does not. And GELU is written with erf: Keras
writes it with erfc on JAX, 130 operations in two kernels, which took 40% of ConvNeXtTiny's time on
an H100 (`scripts/results/bench_gpu.md`).

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks", section 3.2.
"""

import math
from collections import Counter
from typing import Any

import keras
import numpy as np

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
