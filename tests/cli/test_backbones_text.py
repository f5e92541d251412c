from dataclasses import replace
from pathlib import Path

from kerasft.backbones.imagenet_files import (
    BackboneList,
    ListedBackbone,
    Variant,
    list_backbones,
)
from kerasft.cli.nets import backbones_text, blocks_text
from kerasft.models.blocks import Block

PLAIN = ListedBackbone(
    name="MobileNet",
    image_size=224,
    min_size=32,
    parameters=3_228_864,
    features=1024,
    blocks=14,
    download_bytes=12_915_456,
    on_this_machine=False,
    options=("alpha", "depth_multiplier"),
    variants=(Variant("MobileNet:alpha=0.25", True), Variant("MobileNet:alpha=0.5", False)),
)
REPORT = BackboneList(
    Path("/home/ada/.keras/models"),
    (
        PLAIN,
        replace(
            PLAIN,
            name="ConvNeXtXLarge",
            parameters=348_147_968,
            features=2048,
            download_bytes=1_392_591_872,
            on_this_machine=True,
            options=(),
            variants=(),
        ),
        replace(
            PLAIN,
            name="CaffeNet",
            image_size=227,
            min_size=67,
            parameters=2_334_080,
            features=256,
            download_bytes=None,
            options=(),
            variants=(),
        ),
    ),
)


def test_a_backbone_is_a_line_then_come_the_options_and_what_to_do_next():
    assert backbones_text(REPORT).splitlines() == [
        "name            side  smallest   parameters  features  blocks  download  here",
        "MobileNet        224        32    3,228,864     1,024      14     13 MB  no",
        "ConvNeXtXLarge   224        32  348,147,968     2,048      14  1,393 MB  yes",
        "CaffeNet         227        67    2,334,080       256      14    import  no",
        "",
        "Sides are in pixels. Weights are downloaded when a backbone is first used; 'here' is yes",
        "if they are in /home/ada/.keras/models.",
        "Weights marked 'import' are files of Caffe or PyTorch that `kerasft import-caffe` or",
        "`import-torch` has converted; for PyTorch's VGG the backbone is VGG16:mode=torch.",
        "",
        "Options follow a colon, as in MobileNet:alpha=0.75. There are ImageNet weights for",
        "  MobileNet  alpha=0.25 (here), alpha=0.5",
        "Any other value, and depth_multiplier of MobileNet, needs --weights none.",
        "",
        "Next: `kerasft train --data PHOTOS/ --backbone NAME` trains with one of them, and",
        "`kerasft blocks NAME` lists what can be unfrozen after that.",
    ]


def test_the_real_table_is_narrow_enough_for_a_terminal(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "/home/ada/.keras")
    lines = backbones_text(list_backbones()).splitlines()
    assert max(map(len, lines)) < 90
    assert len(lines) == 44 + 15


def test_a_block_of_one_layer_and_one_of_many():
    rows = [
        Block("block_16", ("expand", "relu", "project"), 1234, (), ()),
        Block("stem", ("Conv1",), 56, (), ()),
    ]
    assert blocks_text(rows) == (
        "     block     parameters  layers\n"
        "  1  block_16       1,234  3: expand ... project\n"
        "  2  stem              56  1: Conv1"
    )
