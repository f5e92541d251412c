"""The table of backbones: name, input, features and blocks of each.

It lists the nets of Keras Applications, and AlexNet and CaffeNet, whose weights are imported.
Plain data without Keras, so that a config is checked in an instant; `models/build.py` builds the
nets.

Shapes: S side of the square input in pixels; F features.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Backbone:
    """One row of the table: one constructor of `keras.applications`, or a net of another family.

    Attributes:
        name: name of the constructor, and of the backbone on the command line.
        module: submodule of `keras.applications` whose `preprocess_input` goes with it; "" in
            other families.
        image_size: side of the images on which the ImageNet weights were trained, pixels.
        min_size: smallest side that the constructor accepts, pixels.
        parameters: number of parameters of the base without its top, with default options;
            BatchNormalization statistics included.
        features: number of features that the base computes from an image, F.
        blocks: number of blocks, the stem included.
        default_blocks: number of blocks from the top that `unfreeze-and-continue` trains if
            none is given: about a fifth of them.
        block_key: regular expression that is searched in the explicit names of the layers;
            group 1, or the whole match if there is no group, identifies the block.
        block_name: name of a block; `{}` stands for what `block_key` matched.
        options: arguments of the constructor that a spec may set, and MODE; `spec.OPTIONS`
            parses them.
        variants: options for which there are ImageNet weights, besides the default ones.
        fully_connected: layers of the top that can serve as features, in the order of
            `compatibility.FULLY_CONNECTED`.
        family: key of `BUILDERS` in models/build.py: the function that builds the net.
    """

    name: str
    module: str
    image_size: int
    min_size: int
    parameters: int
    features: int
    blocks: int
    default_blocks: int
    block_key: str
    block_name: str = "{}"
    options: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    fully_connected: tuple[str, ...] = ()
    family: str = "keras"

    @property
    def published(self) -> bool:
        """True if Keras offers ImageNet weights for download."""
        return self.family == "keras"

    @property
    def second_rescaling(self) -> bool:
        """True if the constructor adds a Rescaling layer only with `weights="imagenet"`."""
        return self.module == "efficientnet"


MODE = "mode"  # option for imported weights that need a preprocessing other than Keras' own

_PAIR = r"^conv_(?:pad|dw|pw)_(\d+)"  # a depthwise and a pointwise convolution
_V2 = r"^(block_\d+|expanded_conv)_"
_V3 = r"^expanded_conv(?:_\d+)?"
_MBCONV = r"^block\d[a-z]"
_CONVNEXT = r"stage_\d_block_\d+"
_RESIDUAL = r"^conv[2-5]_block\d+"
_DENSE = r"^(?:conv|pool)([2-5])_"  # the transition pool2 shrinks what the dense block conv2 made
_MIXED = r"^mixed\d+$"  # to the end of the name: "mixed9_1" is a part of mixed10, not of mixed9
_MIXED_OR_BLOCK = r"^(mixed_\d[ab]|block\d+_\d+)"
_STAGE = r"^(?:block|fc)\d"
_LAYER = r"^(?:conv|fc)\d"
# "normal_conv_1_7" and "separable_conv_2_bn_normal_left5_7" are parts of cell 7.
_CELL = r"^(?:normal|reduction|adjust|separable_conv)_.*?_(stem_\d|reduce_\d+|\d+)$"

_ROWS = (
    # The numbers: image_size, min_size, parameters, features, blocks, default_blocks.
    Backbone(
        *("MobileNet", "mobilenet", 224, 32, 3_228_864, 1024, 14, 2, _PAIR, "conv_{}"),
        options=("alpha", "depth_multiplier"),
        variants=("alpha=0.25", "alpha=0.5", "alpha=0.75"),
    ),
    Backbone(
        *("MobileNetV2", "mobilenet_v2", 224, 32, 2_257_984, 1280, 18, 3, _V2),
        options=("alpha",),
        variants=("alpha=0.35", "alpha=0.5", "alpha=0.75", "alpha=1.3", "alpha=1.4"),
    ),
    Backbone(
        *("MobileNetV3Small", "mobilenet_v3", 224, 32, 939_120, 576, 12, 2, _V3),
        options=("alpha", "minimalistic"),
        variants=("alpha=0.75", "minimalistic=true"),
    ),
    Backbone(
        *("MobileNetV3Large", "mobilenet_v3", 224, 32, 2_996_352, 960, 16, 3, _V3),
        options=("alpha", "minimalistic"),
        variants=("alpha=0.75", "minimalistic=true"),
    ),
    Backbone("EfficientNetB0", "efficientnet", 224, 32, 4_049_571, 1280, 17, 3, _MBCONV),
    Backbone("EfficientNetB1", "efficientnet", 240, 32, 6_575_239, 1280, 24, 5, _MBCONV),
    Backbone("EfficientNetB2", "efficientnet", 260, 32, 7_768_569, 1408, 24, 5, _MBCONV),
    Backbone("EfficientNetB3", "efficientnet", 300, 32, 10_783_535, 1536, 27, 5, _MBCONV),
    Backbone("EfficientNetB4", "efficientnet", 380, 32, 17_673_823, 1792, 33, 6, _MBCONV),
    Backbone("EfficientNetB5", "efficientnet", 456, 32, 28_513_527, 2048, 40, 8, _MBCONV),
    Backbone("EfficientNetB6", "efficientnet", 528, 32, 40_960_143, 2304, 46, 9, _MBCONV),
    Backbone("EfficientNetB7", "efficientnet", 600, 32, 64_097_687, 2560, 56, 11, _MBCONV),
    Backbone("EfficientNetV2B0", "efficientnet_v2", 224, 32, 5_919_312, 1280, 22, 4, _MBCONV),
    Backbone("EfficientNetV2B1", "efficientnet_v2", 240, 32, 6_931_124, 1280, 28, 5, _MBCONV),
    Backbone("EfficientNetV2B2", "efficientnet_v2", 260, 32, 8_769_374, 1408, 29, 5, _MBCONV),
    Backbone("EfficientNetV2B3", "efficientnet_v2", 300, 32, 12_930_622, 1536, 33, 6, _MBCONV),
    Backbone("EfficientNetV2S", "efficientnet_v2", 384, 32, 20_331_360, 1280, 41, 8, _MBCONV),
    Backbone("EfficientNetV2M", "efficientnet_v2", 480, 32, 53_150_388, 1280, 58, 11, _MBCONV),
    Backbone("EfficientNetV2L", "efficientnet_v2", 480, 32, 117_746_848, 1280, 80, 15, _MBCONV),
    Backbone("ConvNeXtTiny", "convnext", 224, 32, 27_820_128, 768, 19, 3, _CONVNEXT),
    Backbone("ConvNeXtSmall", "convnext", 224, 32, 49_454_688, 768, 37, 7, _CONVNEXT),
    Backbone("ConvNeXtBase", "convnext", 224, 32, 87_566_464, 1024, 37, 7, _CONVNEXT),
    Backbone("ConvNeXtLarge", "convnext", 224, 32, 196_230_336, 1536, 37, 7, _CONVNEXT),
    Backbone("ConvNeXtXLarge", "convnext", 224, 32, 348_147_968, 2048, 37, 7, _CONVNEXT),
    Backbone("ResNet50", "resnet", 224, 32, 23_587_712, 2048, 17, 3, _RESIDUAL),
    Backbone("ResNet101", "resnet", 224, 32, 42_658_176, 2048, 34, 6, _RESIDUAL),
    Backbone("ResNet152", "resnet", 224, 32, 58_370_944, 2048, 51, 9, _RESIDUAL),
    Backbone("ResNet50V2", "resnet_v2", 224, 32, 23_564_800, 2048, 17, 3, _RESIDUAL),
    Backbone("ResNet101V2", "resnet_v2", 224, 32, 42_626_560, 2048, 34, 6, _RESIDUAL),
    Backbone("ResNet152V2", "resnet_v2", 224, 32, 58_331_648, 2048, 51, 9, _RESIDUAL),
    Backbone("DenseNet121", "densenet", 224, 32, 7_037_504, 1024, 5, 1, _DENSE, "conv{}"),
    Backbone("DenseNet169", "densenet", 224, 32, 12_642_880, 1664, 5, 1, _DENSE, "conv{}"),
    Backbone("DenseNet201", "densenet", 224, 32, 18_321_984, 1920, 5, 1, _DENSE, "conv{}"),
    Backbone("InceptionV3", "inception_v3", 299, 75, 21_802_784, 2048, 12, 2, _MIXED),
    Backbone(
        *("InceptionResNetV2", "inception_resnet_v2", 299, 75, 54_336_736, 1536, 44, 8),
        _MIXED_OR_BLOCK,
    ),
    Backbone("Xception", "xception", 299, 71, 20_861_480, 2048, 14, 3, r"^block\d+"),
    Backbone("NASNetMobile", "nasnet", 224, 32, 4_269_716, 1056, 17, 3, _CELL, "cell_{}"),
    Backbone("NASNetLarge", "nasnet", 331, 32, 84_916_818, 4032, 23, 4, _CELL, "cell_{}"),
    Backbone(
        *("VGG16", "vgg16", 224, 32, 14_714_688, 512, 5, 1, _STAGE),
        options=(MODE,),
        fully_connected=("fc1", "fc2"),
    ),
    Backbone(
        *("VGG19", "vgg19", 224, 32, 20_024_384, 512, 5, 1, _STAGE),
        options=(MODE,),
        fully_connected=("fc1", "fc2"),
    ),
    Backbone(
        *("AlexNet", "", 227, 67, 2_334_080, 256, 5, 1, _LAYER),
        fully_connected=("fc6", "fc7"),
        family="alexnet",
    ),
    Backbone(
        *("CaffeNet", "", 227, 67, 2_334_080, 256, 5, 1, _LAYER),
        fully_connected=("fc6", "fc7"),
        family="alexnet",
    ),
    # torchvision's AlexNet: "One weird trick", without groups and norms.
    Backbone(
        *("AlexNetOWT", "", 224, 63, 2_469_696, 256, 5, 1, _LAYER),
        fully_connected=("fc6", "fc7"),
        family="alexnet",
    ),
)

BACKBONES: dict[str, Backbone] = {row.name: row for row in _ROWS}

# Backbone and image size of the weights in the package (scripts/pretrain_sample.py).
SAMPLE_BACKBONE, SAMPLE_SIDE = "MobileNetV2:alpha=0.35", 96


def block_key(backbone: Backbone, layer_name: str) -> str | None:
    """Returns the block to which a layer belongs by its name.

    Args:
        backbone: row of the table.
        layer_name: name of one of the backbone's layers.

    Returns:
        Name of the block ("block_14"); None for the stem, for layers after the last block, and
        for auto-named layers (`conv2d_94`), which belong to the block that takes their output.
    """
    match = re.search(backbone.block_key, layer_name)
    if match is None:
        return None
    return backbone.block_name.format(match.group(1) if match.re.groups else match.group())
