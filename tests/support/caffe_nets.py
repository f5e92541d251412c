"""AlexNet, CaffeNet and VGG as Caffe files, at full size, with random weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from caffe_files import ALEXNET_DEPLOY, CAFFENET_DEPLOY, write_caffemodel

# Name, type and weight shape of each layer of the published nets.
OF_ALEXNET = [
    ("conv1", "Convolution", (96, 3, 11, 11)),
    ("conv2", "Convolution", (256, 48, 5, 5)),
    ("conv3", "Convolution", (384, 256, 3, 3)),
    ("conv4", "Convolution", (384, 192, 3, 3)),
    ("conv5", "Convolution", (256, 192, 3, 3)),
    ("fc6", "InnerProduct", (4096, 9216)),
    ("fc7", "InnerProduct", (4096, 4096)),
    ("fc8", "InnerProduct", (1000, 4096)),
]
# Caffe's layer -> name of the Keras operation with the same output.
AS_ALEXNET = {
    **{"relu1": "conv1", "norm1": "conv1_norm_scaled", "pool1": "conv1_pool"},
    **{"relu2": "conv2", "norm2": "conv2_norm_scaled", "pool2": "conv2_pool"},
    **{"relu3": "conv3", "relu4": "conv4", "relu5": "conv5", "pool5": "conv5_pool"},
    **{"relu6": "fc6", "relu7": "fc7", "prob": "fc8"},
}


def random_layers(shapes, seed=0, small="conv1_1"):
    """Draws layers for `write_caffemodel`, with He's standard deviation, which preserves scale.

    VGG does not normalise its inputs, grey levels up to 255. If their scale were preserved to the
    end, the softmax would return 0 and 1 only. So the weights of the layer `small` are smaller.
    """
    random = np.random.default_rng(seed)
    layers = []
    for name, kind, shape in shapes:
        start = 1 / 64 if name == small else 1
        spread = np.float32(start * np.sqrt(2 / np.prod(shape[1:])))
        kernel = random.standard_normal(shape, np.float32) * spread
        layers.append((name, kind, [kernel, random.standard_normal(shape[0], np.float32) * 0.1]))
    return layers


def of_vgg(*counts):
    """Returns the published definition of VGG (V1 layers), its weight shapes, and Keras' names."""
    lines = ['name: "VGG"', 'input: "data"', *(f"input_dim: {n}" for n in (10, 3, 224, 224))]
    shapes, names, bottom, channels = [], {}, "data", 3

    def add(kind, name, bottom, top, parameters=""):
        lines.append(
            f'layers {{ bottom: "{bottom}" top: "{top}" name: "{name}" type: {kind} {parameters} }}'
        )
        return top

    for stage, count in enumerate(counts, start=1):
        filters = (64, 128, 256, 512, 512)[stage - 1]
        for n in range(1, count + 1):
            name = f"conv{stage}_{n}"
            parameters = f"convolution_param {{ num_output: {filters} pad: 1 kernel_size: 3 }}"
            bottom = add("CONVOLUTION", name, bottom, name, parameters)
            add("RELU", f"relu{stage}_{n}", name, name)
            shapes.append((name, "Convolution", (filters, channels, 3, 3)))
            names[f"relu{stage}_{n}"] = f"block{stage}_conv{n}"
            channels = filters
        pooled = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
        bottom = add("POOLING", f"pool{stage}", bottom, f"pool{stage}", pooled)
        names[bottom] = f"block{stage}_pool"
    for name, units, inputs in (("fc6", 4096, 25088), ("fc7", 4096, 4096), ("fc8", 1000, 4096)):
        parameters = f"inner_product_param {{ num_output: {units} }}"
        bottom = add("INNER_PRODUCT", name, bottom, name, parameters)
        shapes.append((name, "InnerProduct", (units, inputs)))
        if name != "fc8":
            add("RELU", f"relu{name[2]}", name, name)
            add("DROPOUT", f"drop{name[2]}", name, name, "dropout_param { dropout_ratio: 0.5 }")
    add("SOFTMAX", "prob", "fc8", "prob")
    names |= {"relu6": "fc1", "relu7": "fc2", "prob": "predictions"}
    return "\n".join(lines), shapes, names


@dataclass
class Case:
    backbone: str
    spec: str
    prototxt: Path
    caffemodel: Path
    names: dict[str, str]
    mean: tuple[float, ...]
    side: int


def write_case(backbone, folder, *, small="conv1_1", **how):
    if backbone.startswith("vgg"):
        definition, shapes, names = of_vgg(
            *((2, 2, 3, 3, 3) if backbone == "vgg16" else (2, 2, 4, 4, 4))
        )
        mean, side = (103.939, 116.779, 123.68), 224
    else:
        definition = ALEXNET_DEPLOY if backbone == "alexnet" else CAFFENET_DEPLOY
        shapes, names = OF_ALEXNET, AS_ALEXNET
        mean, side = (104.00698793, 116.66876762, 122.67891434), 227
    spec = {"alexnet": "AlexNet", "caffenet": "CaffeNet"}.get(backbone, backbone.upper())
    (folder / "deploy.prototxt").write_text(definition)
    write_caffemodel(folder / "net.caffemodel", random_layers(shapes, small=small), **how)
    return Case(
        backbone, spec, folder / "deploy.prototxt", folder / "net.caffemodel", names, mean, side
    )
