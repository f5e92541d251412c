"""What of a backbone its features are: which place of the net, and what becomes of the places.

Shapes: B images in a batch, H, W places, C channels, F features.
"""

import keras

from kerasft.backbones import Backbone
from kerasft.blocks import list_blocks
from kerasft.matching import FULLY_CONNECTED


def cut_top(net: keras.Model, backbone: Backbone, features: str) -> keras.Model:
    """Ends a classifier at an inner fully connected layer.

    Args:
        net: with its top.
        backbone: its row.
        features: one of `matching.FULLY_CONNECTED`, which the row has.

    Returns:
        Pixels to what the layer makes, its ReLU included, [B,F].
    """
    layer = backbone.fully_connected[FULLY_CONNECTED.index(features)]
    return keras.Model(net.inputs[0], net.get_layer(layer).output, name=net.name)


def choose(net: keras.Model, backbone: Backbone, features: str, *, leave_out: int) -> keras.Model:
    """Ends a net without a top at its features.

    Args:
        net: pixels to [B,F] if they are pooled at its end already, else to [B,H,W,C].
        backbone: its row.
        features: "pooled" (average over places) or "flat" (all places side by side).
        leave_out: blocks from the top that are left away, fewer than there are. Where two tensors
            enter them (NASNet), the features of both follow each other.

    Returns:
        Pixels to [B,F]; the net itself where it ends so already.
    """
    ends = list(net.outputs)
    if leave_out:
        ends = list(list_blocks(net, backbone)[leave_out - 1].inputs)
    elif len(ends[0].shape) == 2:
        return net
    # Names of their own: automatic ones could be in the net already.
    kind = keras.layers.GlobalAveragePooling2D if features == "pooled" else keras.layers.Flatten
    flat = [kind(name=f"features_{features}_{i}")(tensor) for i, tensor in enumerate(ends)]
    joined = keras.layers.Concatenate(name="features_joined")(flat) if len(flat) > 1 else flat[0]
    return keras.Model(net.inputs[0], joined, name=net.name)
