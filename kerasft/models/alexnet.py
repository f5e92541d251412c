"""AlexNet and CaffeNet, which Keras Applications does not have, built from `backbones/chains.py`.

They consist of stock layers and operations, so a saved model loads in Keras without kerasft.

Shapes: B images in a batch; S side of the square input in pixels; H, W height and width of a
feature map; C channels.
"""

import keras
from keras import ops

from kerasft.backbones.chains import (
    ALPHA,
    CHAINS,
    NEIGHBOURS,
    Conv,
    Dense,
    K,
    Norm,
    Pool,
    group_name,
)


def preprocess_input(pixels: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Preprocesses pixels for a net of `backbones/chains.py`.

    Args:
        pixels: pixels [B,S,S,3], RGB from 0 to 255.
        name: name of the net, a key of CHAINS.

    Returns:
        [B,S,S,3]: blue, green, red minus their means; or red, green, blue as PyTorch scales them.
    """
    mean = CHAINS[name].mean
    if mean is None:
        return keras.applications.imagenet_utils.preprocess_input(pixels, mode="torch")
    blue_first = ops.flip(pixels, axis=-1)
    return keras.layers.Rescaling(1.0, offset=[-channel for channel in mean])(blue_first)


def build(
    name: str,
    inputs: keras.KerasTensor,
    *,
    include_top: bool,
    pooling: str | None = None,
    classifier_activation: str | None = "softmax",
) -> keras.Model:
    """Builds a net of `backbones/chains.py` with random weights.

    Weights are initialised as in Caffe's train_val.prototxt: normal with a standard deviation of
    0.01 (0.005 in fc6 and fc7); biases 0, or 0.1 in conv2, conv4, conv5, fc6 and fc7 (1 in the
    paper).

    Args:
        name: name of the net, a key of CHAINS.
        inputs: preprocessed pixels [B,S,S,3].
        include_top: whether the fully connected layers are built; they fix S.
        pooling: pooling of a net without them, "avg" (over height and width) or None.
        classifier_activation: activation of the last layer, "softmax" or None (logits).

    Returns:
        The model, from the input that `inputs` were made of to scores [B,1000]; without the fully
        connected layers to [B,C], or to [B,H,W,C] without pooling.
    """
    chain = CHAINS[name]
    x = inputs
    for layer in chain.layers:
        match layer:
            case Conv():
                x = _convolution(x, layer)
            case Norm():
                x = _local_response_norm(x, _of_block(layer.name, "norm"))
            case Pool():
                name_of_pool = _of_block(layer.name, "pool")
                x = keras.layers.MaxPooling2D(layer.size, layer.stride, name=name_of_pool)(x)
            case Dense() if include_top:
                last = layer is chain.dense[-1]
                x = _dense(x, layer, classifier_activation) if last else _hidden(x, layer)
    if not include_top and pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(keras.utils.get_source_inputs(inputs)[0], x, name=name.lower())


def _of_block(name: str, kind: str) -> str:
    """Makes "conv5_pool" of "pool5", so that names of a block's layers begin with its name."""
    return f"conv{name.removeprefix(kind)}_{kind}"


def _convolution(x: keras.KerasTensor, layer: Conv) -> keras.KerasTensor:
    """Adds a convolution with its ReLU; a grouped one becomes several side by side.

    `Conv2D(groups=2)` computes the same, but its gradient is twelve times slower on a CPU
    (TensorFlow 2.21, conv2 of AlexNet, a batch of 16: 1.07 s against 0.09 s for a step).
    """
    same = layer.stride == 1 and layer.pad == layer.kernel // 2
    if layer.pad and not same:
        x = keras.layers.ZeroPadding2D(layer.pad, name=f"{layer.name}_pad")(x)

    def convolve(part: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            layer.filters // layer.groups,
            layer.kernel,
            layer.stride,
            padding="same" if same else "valid",
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=_bias(layer.name),
            name=name,
        )(part)

    if layer.groups == 1:
        return convolve(x, layer.name)
    parts = ops.split(x, layer.groups, axis=-1)
    _name(parts[0], f"{layer.name}_split")
    made = [convolve(part, group_name(layer, group)) for group, part in enumerate(parts)]
    return keras.layers.Concatenate(name=layer.name)(made)


def _bias(name: str) -> keras.initializers.Initializer:
    """Returns a layer's initial bias: 0.1 where its ReLU could be 0 at the start, else 0.

    Source: Krizhevsky et al. 2012, section 5.
    """
    some = name in ("conv2", "conv4", "conv5", "fc6", "fc7")
    return keras.initializers.Constant(0.1 if some else 0.0)


def _name(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Names the operation that makes a tensor: automatic names depend on earlier models."""
    tensor._keras_history.operation.name = name
    return tensor


def _local_response_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Adds x / (k + alpha/n · sum of squares over n neighbouring channels) ** beta, in float32.

    beta is 0.75: y ** -0.75 is written 1 / sqrt(y · sqrt(y)), a third of the time on a CPU.

    Source: Krizhevsky et al. 2012, section 3.3; Caffe's lrn_layer.cpp, which divides alpha by n
        and counts channels beyond the border as 0.
    """
    channels, reach = x.shape[-1], NEIGHBOURS // 2

    def named(tensor: keras.KerasTensor, what: str) -> keras.KerasTensor:
        return _name(tensor, f"{name}_{what}")

    # In bfloat16, 1.001 would round to 1.
    exact = named(ops.cast(x, "float32"), "float32")
    squares = named(ops.square(exact), "square")
    padded = named(ops.pad(squares, [[0, 0], [0, 0], [0, 0], [reach, reach]]), "pad")
    total = named(padded[..., :channels], "from0")
    for i in range(1, NEIGHBOURS):
        neighbour = named(padded[..., i : i + channels], f"from{i}")
        total = named(ops.add(total, neighbour), f"to{i}")
    scale = named(ops.add(named(ops.multiply(total, ALPHA / NEIGHBOURS), "alpha"), K), "k")
    square = named(ops.multiply(scale, named(ops.sqrt(scale), "sqrt")), "power")
    return named(ops.multiply(exact, named(ops.rsqrt(square), "rsqrt")), "scaled")


def _hidden(x: keras.KerasTensor, layer: Dense) -> keras.KerasTensor:
    """Adds a fully connected layer with ReLU, and dropout behind it."""
    x = _dense(x, layer, "relu")
    return keras.layers.Dropout(0.5, name=f"{layer.name}_dropout")(x)


def _dense(x: keras.KerasTensor, layer: Dense, activation: str | None) -> keras.KerasTensor:
    """Adds a fully connected layer; a feature map is flattened first."""
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name=f"{layer.name}_flatten")(x)
    return keras.layers.Dense(
        layer.units,
        activation=activation,
        kernel_initializer=keras.initializers.RandomNormal(
            stddev=0.005 if activation == "relu" else 0.01
        ),
        bias_initializer=_bias(layer.name),
        name=layer.name,
    )(x)
