"""What replaces the top: fully connected layers, dropout, and a new softmax."""

from collections.abc import Sequence

import keras

from kerasft.randomness import derive_seed

# The layers that a head can begin with: those of `solved_heads.py`, then those of `attach`.
FIRST = (
    "head_standardise",
    "head_repeat",
    "head_unit",
    "head_dropout_0",
    "head_dense_0",
    "logits",
)


def attach(
    base: keras.Model, num_classes: int, *, hidden: Sequence[int], dropout: float, seed: int
) -> keras.Model:
    """Puts a new head on a backbone.

    Args:
        base: pixels [B,S,S,3] to pooled features [B,F].
        num_classes: K, at least 2.
        hidden: widths of fully connected ReLU layers in front of the softmax, as in the
            `fc6` and `fc7` of AlexNet and VGG; usually none.
        dropout: rate in front of every Dense layer, 0 to 1.
        seed: of the initial weights and of the dropout.

    Returns:
        One flat model, pixels to scores float32 [B,K] that sum to 1. Its layer "logits"
        gives the scores' logits; its layer "scores" stays in float32 whatever precision
        the rest is trained in.
    """
    x = base.outputs[0]
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
    """Returns what enters the head: features [B,F]; without a head, the model's output."""
    names = {layer.name for layer in model.layers}
    for name in FIRST:
        if name in names:
            return model.get_layer(name).input
    return model.outputs[0]
