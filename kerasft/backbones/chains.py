"""AlexNet, CaffeNet and VGG as chains: one layer after the other.

Plain data, from which `models/alexnet.py` builds its nets, and with which the importers compare
files of Caffe and PyTorch. Layers are named as in the papers and in Caffe's files: conv1 to fc8
and, in VGG, conv1_1 to fc8.

Source: the published bvlc_alexnet, bvlc_reference_caffenet and VGG_ILSVRC definitions of Caffe;
    Krizhevsky, Sutskever and Hinton 2012; torchvision's alexnet after Krizhevsky 2014, "One weird
    trick for parallelizing convolutional neural networks".
"""

from collections.abc import Iterator
from dataclasses import dataclass

CLASSES = 1000  # ImageNet's, ordered by WordNet number in Caffe and in Keras

# Mean of Caffe's imagenet_mean.binaryproto (ILSVRC 2012) over all pixels: blue, green, red.
CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)
VGG_MEAN = (103.939, 116.779, 123.68)  # published with VGG; Keras uses it too


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU.

    Attributes:
        name: name in the paper.
        filters: number of output channels.
        kernel: side of the window, pixels.
        stride: distance between windows, pixels.
        pad: zeros that are padded on each side.
        groups: number of groups of channels; each sees one part of the input channels.
    """

    name: str
    filters: int
    kernel: int
    stride: int = 1
    pad: int = 0
    groups: int = 1


# Constants of local response normalisation. ALPHA is divided by the number of summed channels.
NEIGHBOURS, ALPHA, BETA, K = 5, 1e-4, 0.75, 1.0


@dataclass(frozen=True)
class Norm:
    """Local response normalisation over NEIGHBOURS channels."""

    name: str


@dataclass(frozen=True)
class Pool:
    """Max pooling, with windows that overlap or touch.

    Attributes:
        name: name in the paper.
        size: side of the window, pixels.
        stride: distance between windows, pixels.
    """

    name: str
    size: int = 3
    stride: int = 2


@dataclass(frozen=True)
class Dense:
    """A fully connected layer. All but the last one are followed by a ReLU and dropout of 0.5.

    Attributes:
        name: name in the paper.
        units: number of outputs.
    """

    name: str
    units: int


Layer = Conv | Norm | Pool | Dense


@dataclass(frozen=True)
class Chain:
    """One net.

    Attributes:
        image_size: side of its input, pixels.
        mean: mean that is subtracted from blue, green, red (0 to 255); None if red, green, blue
            are scaled as in PyTorch (mode "torch" of Keras' `preprocess_input`).
        layers: layers in order.
        torch: positions of the fully connected layers in torchvision's `classifier`.
    """

    image_size: int
    mean: tuple[float, ...] | None
    layers: tuple[Layer, ...]
    torch: tuple[int, ...] = ()

    @property
    def dense(self) -> tuple[Dense, ...]:
        """The fully connected layers."""
        return tuple(layer for layer in self.layers if isinstance(layer, Dense))


_TOP = (Dense("fc6", 4096), Dense("fc7", 4096), Dense("fc8", CLASSES))
_MIDDLE = (
    Conv("conv3", 384, 3, pad=1),
    Conv("conv4", 384, 3, pad=1, groups=2),
    Conv("conv5", 256, 3, pad=1, groups=2),
    Pool("pool5"),
)
_CONV1, _CONV2 = Conv("conv1", 96, 11, stride=4), Conv("conv2", 256, 5, pad=2, groups=2)


def _vgg(*counts: int) -> tuple[Layer, ...]:
    """Returns the layers of a VGG, given the number of convolutions in each stage."""
    layers: list[Layer] = []
    for stage, count in enumerate(counts, start=1):
        filters = min(512, 32 * 2**stage)
        layers += [Conv(f"conv{stage}_{n}", filters, 3, pad=1) for n in range(1, count + 1)]
        layers.append(Pool(f"pool{stage}", size=2))
    return (*layers, *_TOP)


CHAINS: dict[str, Chain] = {
    "AlexNet": Chain(
        227,
        CAFFE_MEAN,
        (
            *(_CONV1, Norm("norm1"), Pool("pool1")),
            *(_CONV2, Norm("norm2"), Pool("pool2")),
            *_MIDDLE,
            *_TOP,
        ),
    ),
    # Pools before it normalises, which takes less memory.
    "CaffeNet": Chain(
        227,
        CAFFE_MEAN,
        (
            *(_CONV1, Pool("pool1"), Norm("norm1")),
            *(_CONV2, Pool("pool2"), Norm("norm2")),
            *_MIDDLE,
            *_TOP,
        ),
    ),
    "AlexNetOWT": Chain(
        224,
        None,
        (
            *(Conv("conv1", 64, 11, stride=4, pad=2), Pool("pool1")),
            *(Conv("conv2", 192, 5, pad=2), Pool("pool2")),
            Conv("conv3", 384, 3, pad=1),
            Conv("conv4", 256, 3, pad=1),
            *(Conv("conv5", 256, 3, pad=1), Pool("pool5")),
            *_TOP,
        ),
        torch=(1, 4, 6),
    ),
    "VGG16": Chain(224, VGG_MEAN, _vgg(2, 2, 3, 3, 3), torch=(0, 3, 6)),
    "VGG19": Chain(224, VGG_MEAN, _vgg(2, 2, 4, 4, 4), torch=(0, 3, 6)),
}


@dataclass(frozen=True)
class LayerSlot:
    """One Keras layer with weights, and the part of a file's layer that belongs into it.

    Attributes:
        layer: name of the layer in Keras.
        source: name of the file's layer, as in the paper.
        first: index of the first output that is taken from the file's layer.
        kernel: shape of the kernel in Keras: [h, w, inputs, outputs] or [inputs, outputs].
        outputs: number of outputs of the whole layer in the file.
        flattened: height, width and channels of the input that a fully connected layer flattens;
            None if there is nothing to reorder. Keras flattens [h, w, channels], Caffe and PyTorch
            [channels, h, w].
    """

    layer: str
    source: str
    first: int
    kernel: tuple[int, ...]
    outputs: int
    flattened: tuple[int, int, int] | None = None

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of the whole layer's weights in Caffe and PyTorch, outputs first."""
        if len(self.kernel) == 2:
            return (self.outputs, self.kernel[0])
        height, width, channels, _ = self.kernel
        return (self.outputs, channels, height, width)


def places(name: str) -> Iterator[LayerSlot]:
    """Yields the layers of a chain that have weights, in the order of the Keras net.

    Args:
        name: a key of CHAINS.
    """
    chain = CHAINS[name]
    side, channels, inputs = chain.image_size, 3, 0
    for layer in chain.layers:
        if isinstance(layer, Conv):
            side = (side + 2 * layer.pad - layer.kernel) // layer.stride + 1
            for group in range(layer.groups):
                filters = layer.filters // layer.groups
                yield LayerSlot(
                    layer=group_name(layer, group) if layer.groups > 1 else keras_name(name, layer),
                    source=layer.name,
                    first=group * filters,
                    kernel=(layer.kernel, layer.kernel, channels // layer.groups, filters),
                    outputs=layer.filters,
                )
            channels = layer.filters
        elif isinstance(layer, Pool):
            side = (side - layer.size) // layer.stride + 1
        elif isinstance(layer, Dense):
            flattened = None if inputs else (side, side, channels)
            inputs = inputs or side * side * channels
            yield LayerSlot(
                layer=keras_name(name, layer),
                source=layer.name,
                first=0,
                kernel=(inputs, layer.units),
                outputs=layer.units,
                flattened=flattened,
            )
            inputs = layer.units


def keras_name(name: str, layer: Layer) -> str:
    """Returns the name of a chain's layer in its Keras net; for VGG it differs from the paper's."""
    if not name.startswith("VGG"):
        return layer.name
    if isinstance(layer, Dense):
        return {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}[layer.name]
    stage, _, number = layer.name.removeprefix("conv").partition("_")
    return f"block{stage}_conv{number}"


def group_name(layer: Conv, group: int) -> str:
    """Returns the name, in the Keras net, of one group of a grouped convolution."""
    return f"{layer.name}_group{group + 1}"


def torch_names(name: str) -> dict[str, str]:
    """Maps the paper's name of each layer with weights to its name in torchvision's state dict.

    torchvision counts ReLU and pooling layers too: "features.3" is conv2 of AlexNet.

    Args:
        name: a key of CHAINS whose chain has `torch`.
    """
    chain, number = CHAINS[name], 0
    names = {}
    for layer in chain.layers:
        if isinstance(layer, Conv):
            names[layer.name] = f"features.{number}"
        number += 2 if isinstance(layer, Conv) else 1
    for dense, place in zip(chain.dense, chain.torch, strict=True):
        names[dense.name] = f"classifier.{place}"
    return names
