"""The model that is fitted: the suffix on stored activations, or prefix and suffix on pixels."""

from typing import Any

import keras
from keras import ops


class LiveModel(keras.Model):
    """A frozen prefix, if there is one, and a trained suffix, for `fit` and `predict`.

    It is a subclassed model, because in a functional one `fit` overrides `training=False`
    (Keras 3.15, `functional.py: operation_fn`; keras issue 20285): statistics of the prefix
    would move and its dropout would be active. Here the prefix always runs in inference mode, and
    no gradient enters it.

    The input is pixels float32 [B,S,S,3], 0 to 255, or without a prefix the activations at the
    cut, in any float type. If it is a pair with shares float32 [B], the activations are mixed at
    the cut (`mixed`). The output is logits float32 [B,K].
    """

    def __init__(self, prefix: keras.Model | None, suffix: keras.Model) -> None:
        super().__init__(name="live")
        self.prefix = prefix
        self.suffix = suffix

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns logits float32 [B,K]; `training` reaches the suffix only."""
        x, shares = inputs if isinstance(inputs, tuple | list) else (inputs, None)
        x = ops.cast(x, "float32")  # a store may be float16
        if self.prefix is not None:
            x = ops.stop_gradient(self.prefix(x, training=False))
        if shares is not None:
            x = mixed(x, shares)
        return ops.cast(self.suffix(x, training=training), "float32")


def mixed(activations: Any, shares: Any) -> Any:
    """Mixes each image's activations [B, ...] with those of the one before it in the batch.

    Args:
        activations: activations, [B, ...].
        shares: share of itself that each image keeps, float32 [B], 0 to 1. The batch is in random
            order, so neighbours are random pairs; the first image is mixed with the last.

    Source: Zhang et al. 2018, "mixup"; at a hidden layer, Verma et al. 2019, "Manifold Mixup".
    """
    own = ops.reshape(shares, (-1, *[1] * (len(activations.shape) - 1)))
    activations = ops.cast(activations, "float32")  # the labels are mixed by the exact shares
    return own * activations + (1 - own) * ops.roll(activations, 1, axis=0)


def set_precision(model: keras.Model, policy: str) -> list[tuple[keras.layers.Layer, object]]:
    """Lets a whole model compute in another precision; its variables stay float32.

    The in-model normalisation of the pixels, the logits and the softmax stay in float32:
    bfloat16 has 8 significant bits, and a grey level needs all of them.

    Args:
        model: the model, pixels to scores.
        policy: the Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".

    Returns:
        The changed layers with their former policies, for `restore_precision`. Call that before
        saving, since a model saved under a mixed policy loads with it.
    """
    before = []
    if policy != "float32":
        for layer in model._flatten_layers(include_self=False, recursive=True):
            if not _stays_float32(layer):
                before.append((layer, layer.dtype_policy))
                layer.dtype_policy = policy
    return before


def restore_precision(before: list[tuple[keras.layers.Layer, object]]) -> None:
    """Undoes `set_precision`."""
    for layer, policy in before:
        layer.dtype_policy = policy


def _stays_float32(layer: keras.layers.Layer) -> bool:
    kinds = (keras.layers.InputLayer, keras.layers.Normalization, keras.layers.Rescaling)
    return isinstance(layer, kinds) or layer.name in ("logits", "scores")
