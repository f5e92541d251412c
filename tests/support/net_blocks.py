"""The names of the blocks of every net, from the pixels to the features."""


def stages(pattern: str, *counts: int, first: int, start: int = 1) -> list[str]:
    """Names numbered units in numbered stages; stages count from `first`, units from `start`."""
    return [
        pattern.format(stage, unit)
        for stage, count in enumerate(counts, first)
        for unit in range(start, start + count)
    ]


def mbconv(*counts: int) -> list[str]:
    """Names the blocks of an EfficientNet: block1a, block1b, ..., block2a, ..."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["stem"] + [
        f"block{stage}{letters[i]}" for stage, count in enumerate(counts, 1) for i in range(count)
    ]


def residual(*counts: int) -> list[str]:
    """Names the blocks of a ResNet: conv2_block1, conv2_block2, ..., conv3_block1, ..."""
    return ["stem", *stages("conv{}_block{}", *counts, first=2)]


def convnext(*counts: int) -> list[str]:
    """Names the blocks of a ConvNeXt: stage_0_block_0, stage_0_block_1, ..., stage_1_block_0."""
    return ["stem", *stages("stage_{}_block_{}", *counts, first=0, start=0)]


def cells(normal: int) -> list[str]:
    """Names the cells of a NASNet: three times `normal` of them, with a reduction in between."""
    names = ["stem", "cell_stem_1", "cell_stem_2"]
    names += [f"cell_{i}" for i in range(normal)]
    names += [f"cell_reduce_{normal}"]
    names += [f"cell_{normal + 1 + i}" for i in range(normal)]
    names += [f"cell_reduce_{2 * normal}"]
    return names + [f"cell_{2 * normal + 1 + i}" for i in range(normal)]


DENSE = ["stem", "conv2", "conv3", "conv4", "conv5"]
ALEXNET = [f"conv{i}" for i in range(1, 6)]
VGG = ["block1", "block2", "block3", "block4", "block5"]  # no stem, preprocessing comes before

BLOCKS = {
    "MobileNet": ["stem", *(f"conv_{i}" for i in range(1, 14))],
    "MobileNetV2": ["stem", "expanded_conv", *(f"block_{i}" for i in range(1, 17))],
    "MobileNetV3Small": ["stem", "expanded_conv", *(f"expanded_conv_{i}" for i in range(1, 11))],
    "MobileNetV3Large": ["stem", "expanded_conv", *(f"expanded_conv_{i}" for i in range(1, 15))],
    "EfficientNetB0": mbconv(1, 2, 2, 3, 3, 4, 1),
    "EfficientNetB1": mbconv(2, 3, 3, 4, 4, 5, 2),
    "EfficientNetB2": mbconv(2, 3, 3, 4, 4, 5, 2),
    "EfficientNetB3": mbconv(2, 3, 3, 5, 5, 6, 2),
    "EfficientNetB4": mbconv(2, 4, 4, 6, 6, 8, 2),
    "EfficientNetB5": mbconv(3, 5, 5, 7, 7, 9, 3),
    "EfficientNetB6": mbconv(3, 6, 6, 8, 8, 11, 3),
    "EfficientNetB7": mbconv(4, 7, 7, 10, 10, 13, 4),
    "EfficientNetV2B0": mbconv(1, 2, 2, 3, 5, 8),
    "EfficientNetV2B1": mbconv(2, 3, 3, 4, 6, 9),
    "EfficientNetV2B2": mbconv(2, 3, 3, 4, 6, 10),
    "EfficientNetV2B3": mbconv(2, 3, 3, 5, 7, 12),
    "EfficientNetV2S": mbconv(2, 4, 4, 6, 9, 15),
    "EfficientNetV2M": mbconv(3, 5, 5, 7, 14, 18, 5),
    "EfficientNetV2L": mbconv(4, 7, 7, 10, 19, 25, 7),
    "ConvNeXtTiny": convnext(3, 3, 9, 3),
    "ConvNeXtSmall": convnext(3, 3, 27, 3),
    "ConvNeXtBase": convnext(3, 3, 27, 3),
    "ConvNeXtLarge": convnext(3, 3, 27, 3),
    "ConvNeXtXLarge": convnext(3, 3, 27, 3),
    "ResNet50": residual(3, 4, 6, 3),
    "ResNet101": residual(3, 4, 23, 3),
    "ResNet152": residual(3, 8, 36, 3),
    "ResNet50V2": residual(3, 4, 6, 3),
    "ResNet101V2": residual(3, 4, 23, 3),
    "ResNet152V2": residual(3, 8, 36, 3),
    "DenseNet121": DENSE,
    "DenseNet169": DENSE,
    "DenseNet201": DENSE,
    "InceptionV3": ["stem", *(f"mixed{i}" for i in range(11))],
    "InceptionResNetV2": [
        *("stem", "mixed_5b", *(f"block35_{i}" for i in range(1, 11))),
        *("mixed_6a", *(f"block17_{i}" for i in range(1, 21))),
        *("mixed_7a", *(f"block8_{i}" for i in range(1, 11))),
    ],
    "Xception": [f"block{i}" for i in range(1, 15)],
    "NASNetMobile": cells(4),
    "NASNetLarge": cells(6),
    "VGG16": VGG,
    "VGG19": VGG,
    "AlexNet": ALEXNET,
    "CaffeNet": ALEXNET,
    "AlexNetOWT": ALEXNET,
}
