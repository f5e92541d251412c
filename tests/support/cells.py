"""A small net of cells, each of which takes the outputs of the two cells before it, like NASNet.

As in NASNet, some layers of a cell need only the last cell but one, the path through them may be
longer than the path through the cell, and many layers have automatic names.
"""

from dataclasses import replace

import keras

from kerasft.backbones.table import BACKBONES, Backbone
from kerasft.heads import trained
from kerasft.models.build import seed_layers

CELLS: Backbone = replace(BACKBONES["NASNetMobile"], name="Cells", blocks=6, default_blocks=2)


def cells_model(*, dropout: float = 0.0) -> keras.Model:
    """Builds a net, pixels [B,16,16,3] to scores [B,2]: stem, cells stem_1, 0, 1, reduce_2, 3."""
    seed_layers(0)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(pixels)
    base = keras.Model(pixels, _cells(x))
    return trained.attach(base, 2, hidden=(), dropout=dropout, seed=0)


def cells_constructor(*, input_tensor, weights, include_top, pooling, **_) -> keras.Model:
    """Builds the net as `keras.applications.Cells` would, if it existed."""
    assert (weights, include_top) == (None, False)
    pooled = _cells(input_tensor)
    end = pooled if pooling == "avg" else keras.Model(input_tensor, pooled).layers[-1].input
    return keras.Model(keras.utils.get_source_inputs(input_tensor), end)


def _cells(pixels: keras.KerasTensor) -> keras.KerasTensor:
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="stem_conv1")(pixels)
    x, p = keras.layers.BatchNormalization(name="stem_bn1")(x), None
    for kind, cell in (
        ("reduction", "stem_1"),
        ("normal", "0"),
        ("normal", "1"),
        ("reduction", "reduce_2"),
        ("normal", "3"),
    ):
        x, p = _cell(x, p, kind, cell), x
    x = keras.layers.Activation("relu")(x)
    return keras.layers.GlobalAveragePooling2D()(x)


def _cell(x: keras.KerasTensor, p: keras.KerasTensor | None, kind: str, cell: str):
    p = x if p is None else _adjusted(p, x, cell)
    strides = 2 if kind == "reduction" else 1
    h = keras.layers.Activation("relu")(x)
    h = keras.layers.Conv2D(4, 1, name=f"{kind}_conv_1_{cell}")(h)
    h = keras.layers.BatchNormalization(name=f"{kind}_bn_1_{cell}")(h)
    parts = [
        _separable(t, strides, f"{kind}_{side}1_{cell}") for t, side in ((h, "left"), (p, "right"))
    ]
    parts.append(keras.layers.add(parts, name=f"{kind}_add_1_{cell}"))
    return keras.layers.concatenate(parts, name=f"{kind}_concat_{cell}")


def _adjusted(p: keras.KerasTensor, x: keras.KerasTensor, cell: str) -> keras.KerasTensor:
    if p.shape[1] != x.shape[1]:
        p = keras.layers.Activation("relu", name=f"adjust_relu_1_{cell}")(p)
        shifted = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(p)
        shifted = keras.layers.Cropping2D(((1, 0), (1, 0)))(shifted)
        halves = []
        for i, half in enumerate((p, shifted), 1):
            half = keras.layers.AveragePooling2D(1, 2, name=f"adjust_avg_pool_{i}_{cell}")(half)
            halves.append(keras.layers.Conv2D(2, 1, name=f"adjust_conv_{i}_{cell}")(half))
        p = keras.layers.concatenate(halves)
    else:
        p = keras.layers.Activation("relu")(p)
        p = keras.layers.Conv2D(4, 1, name=f"adjust_conv_projection_{cell}")(p)
    return keras.layers.BatchNormalization(name=f"adjust_bn_{cell}")(p)


def _separable(x: keras.KerasTensor, strides: int, block: str) -> keras.KerasTensor:
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.SeparableConv2D(
        4, 3, strides=strides, padding="same", name=f"separable_conv_1_{block}"
    )(x)
    return keras.layers.BatchNormalization(name=f"separable_conv_1_bn_{block}")(x)
