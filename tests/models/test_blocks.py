"""The blocks of a backbone, and of several at once."""

import keras
from tiny import TINY, tiny_model

from kerasft.backbones.table import BACKBONES
from kerasft.models import build
from kerasft.models.blocks import list_blocks


def test_blocks_are_counted_from_the_top_and_begin_behind_an_activation():
    blocks = list_blocks(tiny_model(), TINY)
    assert [(b.name, b.layers[0], b.layers[-1], b.parameters) for b in blocks] == [
        ("block_2", "block_2_a_conv", "pool", 164),
        ("block_1", "block_1_a_conv", "block_1_a_relu", 164),
        ("stem", "scale", "stem_relu", 128),
    ]


def test_three_blocks_of_mobilenetv2_begin_at_block_14_expand():
    backbone = BACKBONES["MobileNetV2"]
    model = build.load("MobileNetV2:alpha=0.35", weights="none", image_size=32)
    blocks = list_blocks(model, backbone)
    assert [block.name for block in blocks] == [
        *(f"block_{i}" for i in range(16, 0, -1)),
        "expanded_conv",
        "stem",
    ]
    assert blocks[2].layers[0] == "block_14_expand"
    assert "Conv_1" in blocks[0].layers
    assert sum(block.parameters for block in blocks) == model.count_params()


def test_preprocessing_alone_is_no_stem():
    model = build.load("VGG16", weights="none", image_size=32)
    blocks = list_blocks(model, BACKBONES["VGG16"])
    assert [block.name for block in blocks] == ["block5", "block4", "block3", "block2", "block1"]


def test_where_three_tensors_are_alive_no_block_begins():
    pixels = keras.Input((8, 8, 3), name="pixels")
    made = [keras.layers.Conv2D(2, 3, name="block_0_conv")(pixels)]
    for i in range(1, 5):  # each takes all that were made before
        added = keras.layers.add(made) if i > 1 else made[0]
        made.append(keras.layers.Conv2D(2, 3, padding="same", name=f"block_{i}_conv")(added))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.add(made))
    blocks = list_blocks(keras.Model(pixels, features), TINY)
    assert [(b.name, len(b.inputs)) for b in blocks] == [
        ("block_2", 2),
        ("block_1", 1),
        ("block_0", 1),
    ]
