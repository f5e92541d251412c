"""Caffe's net definitions: the layers that an image passes through when a net is tested.

Only chains are read, in which each layer takes the output of the one before it. The file is not
trusted: every number is checked.

Source: BVLC's Caffe 1.0. Phases follow Net::FilterNet; the parameters of a layer and their checks
    follow its SetUp.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from kerasft.errors import UserError
from kerasft.importers.caffemodel import MAX_LAYERS
from kerasft.importers.prototxt_text import ENUMS, V1_KINDS, parse_net
from kerasft.text import quoted

MAX_NUMBER = 1_000_000  # above the outputs, and the window, of any layer for images
DATA = "Data"  # kind of the first step if the definition gives the mean
_LARGEST = 3.4028235e38  # largest float32, the type in which Caffe computes
_ADVICE = " Only a net whose layers form a single chain can be read."
_OTHER_ENDS = {"Accuracy", "HDF5Output", "Silence"}  # like losses, they end a branch of the net

Settings = Mapping[str, bool | int | float | str | tuple[float, ...] | None]


@dataclass(frozen=True)
class Step:
    """One layer of the chain.

    name: name in the file, unique.
    kind: Caffe's type, spelled as in V2: "InnerProduct".
    settings: all parameters, Caffe's defaults included. Pairs are (height, width).
        Convolution: num_output, kernel, stride, pad, dilation, group, bias_term.
        InnerProduct: num_output, bias_term, axis, transpose.
        Pooling: pool ("MAX", "AVE" or "STOCHASTIC"), kernel (None if global_pooling), stride,
            pad, global_pooling, round_mode ("CEIL" or "FLOOR").
        LRN: local_size, alpha, beta, k, norm_region ("ACROSS_CHANNELS" or "WITHIN_CHANNEL").
        ReLU: negative_slope. Dropout: dropout_ratio. Data: mean_value. Any other kind: none.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]


def read_prototxt(path: Path) -> list[Step]:
    """Reads a net definition, deploy.prototxt or train_val.prototxt, with V2 or V1 layers.

    Layers for training only, data, copies, accuracies and losses are left out. SoftmaxWithLoss
    counts as Softmax if the net has no other. A data layer that gives the mean as numbers is the
    first step, of kind "Data", with the tuple `mean_value`.

    Raises:
        UserError: no such file (exit code 2); no net definition, or one that Caffe would
            refuse; layers that do not form a chain, the first of which is named.
    """
    net = parse_net(path)
    layers = [layer for layer in _layers(path, net) if layer.is_tested]
    if not layers:
        raise UserError(
            f"{path}: holds no layers. Expected a net definition: deploy.prototxt or "
            "train_val.prototxt."
        )
    steps = [_step(path, layer) for layer in _chain(path, layers, net.input)]
    if all(step.kind == DATA for step in steps):
        raise UserError(f"{path}: no layer does anything with an image when the net is tested.")
    return steps


class _Layer(NamedTuple):
    """A layer as it is written in the file.

    message: the parsed message, V2 or V1; both name parameters and rules alike.
    """

    name: str
    kind: str
    bottoms: list[str]
    tops: list[str]
    is_tested: bool
    message: Any


def _layers(path: Path, net: Any) -> list[_Layer]:
    if net.layer and net.layers:
        raise UserError(
            f"{path}: holds layers of V2 ('layer') and V1 ('layers'). Expected one of the two."
        )
    messages = net.layer or net.layers
    if len(messages) > MAX_LAYERS:
        raise UserError(f"{path}: has more than {MAX_LAYERS:,} layers.")
    stages = set(net.state.stage)
    layers = []
    for number, message in enumerate(messages, 1):
        name = message.name
        where = f"{path}: layer {quoted(name) if name else f'number {number}, without a name'}"
        if net.layers and message.HasField("layer"):
            raise UserError(
                f"{path}: holds layers of V0, Caffe's format before 2014. Convert it with Caffe's "
                "upgrade_net_proto_text."
            )
        kind = V1_KINDS[ENUMS["LayerType"][message.type]] if net.layers else message.type
        if not kind:
            raise UserError(f"{where}: has no type. Expected one, such as Convolution.")
        if message.include and message.exclude:
            raise UserError(f"{where}: has rules to include and to exclude it. Expected one kind.")
        met = any(_is_met(rule, stages) for rule in message.include or message.exclude)
        tested = met if message.include else not met
        layers.append(_Layer(name, kind, list(message.bottom), list(message.top), tested, message))
    return layers


def _is_met(rule: Any, stages: set[str]) -> bool:
    """Returns whether a rule holds for a net in the test phase at level 0, Caffe's default."""
    if rule.HasField("phase") and ENUMS["Phase"][rule.phase] != "TEST":
        return False
    if rule.HasField("min_level") and rule.min_level > 0:
        return False
    if rule.HasField("max_level") and rule.max_level < 0:
        return False
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)


def _chain(path: Path, layers: list[_Layer], inputs: Iterable[str]) -> list[_Layer]:
    """Returns the layers between data and losses, each taking the output of the one before.

    Args:
        path: path of the definition, for messages.
        layers: layers of the test phase.
        inputs: names that the definition lists as inputs, besides data layers.
    """
    sources = set(inputs)
    has_softmax = any(layer.kind == "Softmax" for layer in layers)
    copies: dict[str, str] = {}  # output of a Split layer -> the input that it copies
    chain: list[_Layer] = []
    names: set[str] = set()
    current = ""
    data: list[_Layer] = []
    for layer in layers:
        where = f"{path}: layer {quoted(layer.name or layer.kind)}"
        if layer.kind == "SoftmaxWithLoss" and not has_softmax:
            # The second input are the labels; the output is the loss.
            layer = layer._replace(kind="Softmax", bottoms=layer.bottoms[:1], tops=[layer.name])
        bottoms = [copies.get(bottom, bottom) for bottom in layer.bottoms]
        taken = quoted("".join(layer.bottoms[:1]))
        if layer.kind.endswith("Loss") or layer.kind in _OTHER_ENDS:
            continue
        if not bottoms and (layer.kind.endswith("Data") or layer.kind in ("Input", "Python")):
            sources.update(layer.tops)
            if layer.message.transform_param.mean_value:
                data = [layer._replace(kind=DATA)]
            if layer.message.transform_param.scale != 1:
                raise UserError(
                    f"{where}: scales pixels by {layer.message.transform_param.scale:g}. Expected "
                    "grey levels from 0 to 255, as the published nets take them."
                )
            continue
        if len(bottoms) != 1:
            raise UserError(f"{where}: takes {_listed(layer.bottoms)}, expected one.{_ADVICE}")
        if layer.kind == "Split":
            copies.update(dict.fromkeys(layer.tops, bottoms[0]))
            continue
        if not chain and bottoms[0] not in sources:
            raise UserError(
                f"{where}: takes {taken}, which is neither an input of the net nor "
                "comes from a data layer."
            )
        if chain and bottoms[0] != current:
            raise UserError(
                f"{where}: takes {taken}, expected {quoted(current)}, which the layer "
                f"before it, {quoted(chain[-1].name or chain[-1].kind)}, gives.{_ADVICE}"
            )
        if len(layer.tops) != 1:
            raise UserError(f"{where}: gives {_listed(layer.tops)}, expected one.{_ADVICE}")
        if layer.name in names:
            raise UserError(f"{where}: two layers have this name. Give each one of its own.")
        current = layer.tops[0]
        names.add(layer.name)
        chain.append(layer)
    return data + chain


def _listed(names: list[str]) -> str:
    return f"{len(names)} things: {', '.join(map(quoted, names[:3]))}" if names else "nothing"


def _step(path: Path, layer: _Layer) -> Step:
    where = f"{path}: layer {quoted(layer.name)}"
    if not layer.name:
        raise UserError(f"{path}: a layer of type {quoted(layer.kind)} has no name. Give it one.")
    read = _SETTINGS.get(layer.kind)
    settings = read(_Settings(where, layer.message)) if read else {}
    for key, value in settings.items():
        if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= _LARGEST):
            raise UserError(f"{where}: {key} is {value}, expected a finite number.")
    return Step(layer.name, layer.kind, settings)


class _Settings:
    """Reads the parameters of one layer. Error messages begin with `where`."""

    def __init__(self, where: str, layer: Any) -> None:
        self.where, self.layer = where, layer

    def fail(self, what: str) -> NoReturn:
        raise UserError(f"{self.where}: {what}")

    def whole(self, key: str, value: int, least: int) -> int:
        """Returns a number unchanged. Raises UserError if it is out of range."""
        if not least <= value <= MAX_NUMBER:
            self.fail(f"{key} is {value:,}, expected {least} to {MAX_NUMBER:,}.")
        return value

    def pair(self, message: Any, name: str, default: int | None) -> tuple[int, int]:
        """Reads a size, given as one number, as one per side, or as two fields (pad_h, pad_w).

        Args:
            message: parameters of the layer.
            name: name of the size: "kernel", "stride", "pad" or "dilation".
            default: default of each side; None if the size must be given.
        """
        both = "kernel_size" if name == "kernel" else name
        value = getattr(message, both)
        if isinstance(value, int):
            value = [value] if message.HasField(both) else []
        fields = message.DESCRIPTOR.fields_by_name
        sides = [f"{name}_h", f"{name}_w"] if f"{name}_h" in fields else []
        least = 0 if name == "pad" else 1
        if any(message.HasField(side) for side in sides):
            if value:
                self.fail(f"has {both} and {sides[0]} or {sides[1]}, expected one of the two ways.")
            value = [getattr(message, side) for side in sides]  # 0 for one that is left out
        elif not value:
            if default is None:
                self.fail(f"has no {both}.")
            value = [default]
        if len(value) > 2:
            self.fail(f"has {len(value)} values of {both}, expected 1 or 2.")
        height, width = (self.whole(name, number, least) for number in (value[0], value[-1]))
        return height, width


def _data(of: _Settings) -> Settings:
    return {"mean_value": tuple(of.layer.transform_param.mean_value)}


def _convolution(of: _Settings) -> Settings:
    message = of.layer.convolution_param
    outputs = of.whole("num_output", message.num_output, 1)
    group = of.whole("group", message.group, 1)
    if outputs % group:
        of.fail(f"num_output is {outputs:,}, expected a multiple of group, which is {group:,}.")
    if message.axis != 1:
        of.fail(f"axis is {message.axis}, expected 1: the channels of images.")
    return {
        "num_output": outputs,
        "kernel": of.pair(message, "kernel", None),
        "stride": of.pair(message, "stride", 1),
        "pad": of.pair(message, "pad", 0),
        "dilation": of.pair(message, "dilation", 1),
        "group": group,
        "bias_term": message.bias_term,
    }


def _inner_product(of: _Settings) -> Settings:
    message = of.layer.inner_product_param
    return {
        "num_output": of.whole("num_output", message.num_output, 1),
        "bias_term": message.bias_term,
        "axis": message.axis,
        "transpose": message.transpose,
    }


def _pooling(of: _Settings) -> Settings:
    message = of.layer.pooling_param
    everywhere = message.global_pooling
    stride, pad = of.pair(message, "stride", 1), of.pair(message, "pad", 0)
    kernel = None
    if not everywhere:
        kernel = of.pair(message, "kernel", None)
        if any(edge and edge >= side for edge, side in zip(pad, kernel, strict=True)):
            of.fail(f"pad is {pad}, expected less than the kernel, which is {kernel}.")
    elif (
        any(message.HasField(key) for key in ("kernel_size", "kernel_h", "kernel_w"))
        or stride != (1, 1)
        or pad != (0, 0)
    ):
        of.fail("has global_pooling and a kernel, stride or pad, expected one of the two.")
    return {
        "pool": ENUMS["PoolMethod"][message.pool],
        "kernel": kernel,
        "stride": stride,
        "pad": pad,
        "global_pooling": everywhere,
        "round_mode": ENUMS["RoundMode"][message.round_mode],
    }


def _lrn(of: _Settings) -> Settings:
    message = of.layer.lrn_param
    size = of.whole("local_size", message.local_size, 1)
    if size % 2 == 0:
        of.fail(f"local_size is {size:,}, expected an odd number.")
    return {
        "local_size": size,
        "alpha": message.alpha,
        "beta": message.beta,
        "k": message.k,
        "norm_region": ENUMS["NormRegion"][message.norm_region],
    }


def _relu(of: _Settings) -> Settings:
    return {"negative_slope": of.layer.relu_param.negative_slope}


def _dropout(of: _Settings) -> Settings:
    ratio = of.layer.dropout_param.dropout_ratio
    if not 0 <= ratio < 1:
        of.fail(f"dropout_ratio is {ratio}, expected at least 0 and less than 1.")
    return {"dropout_ratio": ratio}


_SETTINGS = {
    DATA: _data,
    "Convolution": _convolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "LRN": _lrn,
    "ReLU": _relu,
    "Dropout": _dropout,
}
