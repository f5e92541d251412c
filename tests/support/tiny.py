"""Small real models for the tests: two blocks, 16 pixels, BatchNormalization and dropout."""

from dataclasses import replace

import keras
import numpy as np

from kerasft.backbones.table import BACKBONES, Backbone
from kerasft.heads import trained
from kerasft.models.build import seed_layers

TINY: Backbone = replace(
    BACKBONES["MobileNetV2"], name="Tiny", block_key=r"^block_\d", blocks=3, default_blocks=1
)


def tiny_model(*, dropout: float = 0.0, base_dropout: float = 0.0) -> keras.Model:
    """Builds a net, pixels [B,16,16,3] to scores [B,2]: stem, block_1, block_2, head."""
    seed_layers(0)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(pixels)
    base = keras.Model(pixels, _blocks(x, base_dropout))
    return trained.attach(base, 2, hidden=(), dropout=dropout, seed=0)


def tiny_constructor(*, input_tensor, weights, include_top, pooling, **_) -> keras.Model:
    """Builds the net as `keras.applications.Tiny` would, if it existed, for runs of seconds."""
    assert (weights, include_top) == (None, False)
    pooled = _blocks(input_tensor, 0.0)
    end = pooled if pooling == "avg" else keras.Model(input_tensor, pooled).layers[-1].input
    return keras.Model(keras.utils.get_source_inputs(input_tensor), end)


def _blocks(x: keras.KerasTensor, dropout: float) -> keras.KerasTensor:
    for place in ("stem", "block_1_a", "block_2_a"):
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name=f"{place}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{place}_norm")(x)
        x = keras.layers.ReLU(name=f"{place}_relu")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"{place}_drop")(x)
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


def batch(n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Draws pixels, float32 [n,16,16,3], of a dark and a bright class, and one-hot labels [n,2]."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    pixels = rng.uniform(0, 128, (n, 16, 16, 3)) + 127 * labels[:, None, None, None]
    return pixels.astype("float32"), np.eye(2, dtype="float32")[labels]


def weights_by_name(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies all weights: "layer/variable" -> array."""
    return {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in model.weights}


def moved(before: dict[str, np.ndarray], model: keras.Model) -> list[str]:
    """Returns the paths of the weights that differ from `before`."""
    after = weights_by_name(model)
    return [path for path in before if not np.array_equal(before[path], after[path])]
