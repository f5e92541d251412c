"""Heads to be trained: fully connected layers, dropout and a softmax."""

from collections.abc import Sequence

import keras
import numpy as np

from kerasft.seeds import derive_seed

STANDARD = "head_standardise"  # name of the layer that standardises features
# Names of the layers that a head can begin with, in `heads/solved.py` or in `attach`.
FIRST = (
    STANDARD,
    "head_repeat",
    "head_unit",
    "head_dropout_0",
    "head_dense_0",
    "head_parts",  # of a model whose scores are summed, see `models/tta.py`
    "logits",
)


def attach(
    base: keras.Model,
    num_classes: int,
    *,
    hidden: Sequence[int],
    dropout: float,
    seed: int,
    standardise: bool = False,
) -> keras.Model:
    """Puts a new head on a backbone.

    Args:
        base: the base, pixels [B,S,S,3] to features [B,F].
        num_classes: number of classes, K, at least 2.
        hidden: widths of fully connected ReLU layers in front of the softmax, such as `fc6` and
            `fc7` of AlexNet and VGG; usually none.
        dropout: dropout rate in front of every Dense layer, 0 to 1.
        seed: seed for the initial weights and the dropout.
        standardise: whether the head begins with a layer that standardises the features, so that
            those of several backbones, or of several depths, have the same scale. It changes
            nothing until `set_standard` sets their mean and variance.

    Returns:
        One flat model, pixels to scores float32 [B,K] that sum to 1. Its layer "logits" gives
        the scores' logits; its layer "scores" is float32 in any training precision.
    """
    x = base.outputs[0]
    if standardise:
        x = keras.layers.Normalization(axis=-1, name=STANDARD)(x)
    for i, width in enumerate([*hidden, num_classes]):
        last = i == len(hidden)
        if dropout:
            x = keras.layers.Dropout(
                dropout, seed=derive_seed(seed, "dropout", i), name=f"head_dropout_{i}"
            )(x)
        x = keras.layers.Dense(
            width,
            activation=None if last else "relu",
            kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, "kernel", i)),
            name="logits" if last else f"head_dense_{i}",
        )(x)
    scores = keras.layers.Softmax(dtype="float32", name="scores")(x)
    return keras.Model(base.inputs[0], scores)


def features_of(model: keras.Model) -> keras.KerasTensor:
    """Returns the features that enter the head, [B,F], or the output of a model without a head."""
    names = {layer.name for layer in model.layers}
    for name in FIRST:
        if name in names:
            return model.get_layer(name).input
    return model.outputs[0]


def set_standard(model: keras.Model, features: np.ndarray) -> None:
    """Sets mean and variance of the layer STANDARD.

    Args:
        model: a model with this layer.
        features: features of the training images, float [N,F]. A constant one is not scaled.
    """
    mean, variance = features.mean(0, np.float64), features.var(0, np.float64)
    layer = model.get_layer(STANDARD)
    layer.set_weights([mean, np.where(variance > 0, variance, 1), np.array(len(features))])
    layer.finalize_state()  # recomputes what `call` uses; set_weights does not
