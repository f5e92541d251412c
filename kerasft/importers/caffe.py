"""`kerasft import-caffe`: converts a net published for Caffe to a file for `model.weights`.

prototxt -> steps, compared with `backbones/chains.py` -> the blob of each layer
caffemodel, mapped into memory -> a strip of a layer at a time -> .h5
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.backbones.chains import (
    ALPHA,
    BETA,
    CHAINS,
    NEIGHBOURS,
    Chain,
    Conv,
    Dense,
    K,
    Layer,
    Norm,
    Pool,
)
from kerasft.errors import UserError
from kerasft.importers.caffemodel import Blob, open_caffemodel, read_mean
from kerasft.importers.prototxt import DATA, Step, read_prototxt
from kerasft.importers.weights_writer import Imported, Weights, check_target, import_weights
from kerasft.progress import Progress, silent
from kerasft.text import quoted

# Nets that can be imported from Caffe: value of `backbone` -> key of CHAINS.
FROM_CAFFE = {name.lower(): name for name in ("AlexNet", "CaffeNet", "VGG16", "VGG19")}
CLOSE = 0.01  # grey levels; a mean that was rounded to two digits still counts as the same


@dataclass(frozen=True)
class CaffeImported(Imported):
    """A file of weights that was written from a caffemodel.

    Attributes:
        mean: mean of the blue, green and red channel that is subtracted from pixels.
        mean_spread: largest difference of the mean image from it, grey levels.
    """

    mean: tuple[float, ...] = ()
    mean_spread: float = 0.0


def import_caffe(
    prototxt: Path,
    caffemodel: Path,
    backbone: str,
    to: Path,
    *,
    mean: Path | None = None,
    progress: Progress = silent,
) -> CaffeImported:
    """Converts the weights of a caffemodel to a file for `model.weights`.

    Args:
        prototxt: path of the net's definition, for deployment or training.
        caffemodel: path of its weights.
        backbone: net that the definition has to match, a key of FROM_CAFFE.
        to: path of the file that is written; it ends in ".h5".
        mean: path of the mean image with which the net was trained (.binaryproto). The mean of
            each channel is subtracted from the pixels, as in Caffe's classification example, by
            folding it into the first layer's bias. None takes the definition's `mean_value`, or
            else the published mean of ImageNet.
        progress: function that is told of each layer; stage "import".

    Raises:
        UserError: files of a different kind, or of a different net.
    """
    name = FROM_CAFFE[backbone]
    check_target(to)
    steps = read_prototxt(prototxt)
    matched = _check_definition(prototxt, name, steps)
    names = {source: s.name for source, s in matched if s.kind in ("Convolution", "InnerProduct")}
    subtracted, spread = _mean_of(mean, steps, prototxt, CHAINS[name])
    shift = _shift(subtracted, name, mean or prototxt)
    with open_caffemodel(caffemodel) as blobs:
        _check_order(matched, blobs, caffemodel)
        found = dict(_found(names, blobs, caffemodel))
        result = import_weights(
            name, name, found, to, where=caffemodel, shift=shift, progress=progress
        )
        known = {weights.name for weights in found.values()}
        unused = [layer for layer, has in blobs.items() if has and layer not in known]
    levels = tuple(float(channel) for channel in subtracted)
    return CaffeImported(
        **{**vars(result), "unused": tuple(unused)}, mean=levels, mean_spread=spread
    )


def _check_definition(prototxt: Path, name: str, steps: list[Step]) -> list[tuple[str, Step]]:
    """Pairs the paper's name of each layer with its step in the definition.

    Raises:
        UserError: the definition is of another net.
    """
    matched, problems = _compare(CHAINS[name], steps)
    if problems:
        others = [
            f"`backbone={other}`"
            for other, title in FROM_CAFFE.items()
            if title != name and not _compare(CHAINS[title], steps)[1]
        ]
        hint = f" It is the net of {others[0]}." if others else ""
        raise UserError("\n  ".join([f"{prototxt}: is not {name}.{hint}", *problems]))
    return matched


def _check_order(matched: list[tuple[str, Step]], blobs: Mapping[str, Any], path: Path) -> None:
    """Refuses the weights of a net with the same layers in a different order.

    AlexNet's and CaffeNet's layers have the same names and shapes, and the file lists them all.
    """
    given = [step.name for _, step in matched if step.name in blobs]
    stored = [name for name in blobs if name in set(given)]
    for expected, got in zip(given, stored, strict=True):
        if expected != got:
            raise UserError(
                f"{path}: is of another net than the definition: it has layer {quoted(got)} where "
                f"the definition has {quoted(expected)}."
            )


@dataclass(frozen=True)
class _Expected:
    """One step that the definition of a chain must have: its kind and its settings."""

    name: str
    kind: str
    settings: dict[str, Any]


def _expected(layer: Layer, last: bool) -> Iterator[_Expected]:
    match layer:
        case Conv():
            settings: dict[str, Any] = {"num_output": layer.filters, "group": layer.groups}
            for key, value in (("kernel", layer.kernel), ("stride", layer.stride)):
                settings[key] = (value, value)
            settings |= {"pad": (layer.pad, layer.pad), "dilation": (1, 1), "bias_term": True}
            yield _Expected(layer.name, "Convolution", settings)
        case Norm():
            settings = {"local_size": NEIGHBOURS, "alpha": ALPHA, "beta": BETA, "k": K}
            yield _Expected(layer.name, "LRN", {**settings, "norm_region": "ACROSS_CHANNELS"})
        case Pool():
            settings = {"pool": "MAX", "kernel": (layer.size,) * 2, "stride": (layer.stride,) * 2}
            yield _Expected(
                layer.name, "Pooling", {**settings, "pad": (0, 0), "global_pooling": False}
            )
        case Dense():
            # The last layer may have any number of classes; `fit` decides if its weights are used.
            settings = {} if last else {"num_output": layer.units}
            settings |= {"bias_term": True, "axis": 1, "transpose": False}
            yield _Expected(layer.name, "InnerProduct", settings)
    if isinstance(layer, Conv | Dense) and not last:
        yield _Expected(f"the ReLU behind {layer.name}", "ReLU", {"negative_slope": 0.0})


def _compare(chain: Chain, steps: list[Step]) -> tuple[list[tuple[str, Step]], list[str]]:
    """Pairs the paper's name of each layer with its step; lists where the definition differs."""
    given = [step for step in steps if step.kind not in ("Dropout", DATA)]
    if given and given[-1].kind == "Softmax":
        given.pop()
    expected = [
        one for layer in chain.layers for one in _expected(layer, last=layer is chain.dense[-1])
    ]
    matched: list[tuple[str, Step]] = []
    problems = []
    # A definition may end before the fully connected layers: it is a base, which is enough.
    least = next(i for i, one in enumerate(expected) if one.kind == "InnerProduct")
    for number, one in enumerate(expected):
        if number == len(given):
            if number < least:
                problems.append(f"{one.name}: expected {one.kind}, the definition ends before it.")
            return matched, problems
        step = given[number]
        name = quoted(step.name)
        if step.kind != one.kind:
            problems.append(
                f"{name}: expected {one.kind} ({one.name}), got {quoted(step.kind)[1:-1]}."
            )
            return matched, problems
        matched.append((one.name, step))
        problems += [
            f"{name}: expected {key} {_said(value)}, got {_said(step.settings[key])}."
            for key, value in one.settings.items()
            if not _same(step.settings[key], value)
        ]
    if len(given) > len(expected):
        problems.append(f"{quoted(given[len(expected)].name)}: expected nothing behind {one.name}.")
    return matched, problems


def _same(given: Any, expected: Any) -> bool:
    if isinstance(expected, float):  # float32 in the definition
        return bool(np.isclose(given, expected, rtol=1e-5))
    return bool(given == expected)


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _found(
    names: dict[str, str], blobs: dict[str, list[Blob]], caffemodel: Path
) -> Iterator[tuple[str, Weights]]:
    """Yields the weights of each layer that is in both the definition and the file."""
    problems = []
    for source, layer in names.items():
        if not blobs.get(layer):
            continue
        if len(blobs[layer]) != 2:
            problems.append(
                f"{quoted(layer)}: expected 2 blobs, weights and biases, got {len(blobs[layer])}."
            )
            continue
        kernel, bias = blobs[layer]
        shape = kernel.shape
        if source.startswith("fc"):  # old files have two leading sides of 1
            shape = kernel.squeezed
        yield source, Weights(layer, kernel.data.reshape(shape), bias.data)
    if problems:
        raise UserError("\n  ".join([f"{caffemodel}: has layers that can't be used:", *problems]))


def _mean_of(
    path: Path | None, steps: list[Step], prototxt: Path, chain: Chain
) -> tuple[np.ndarray, float]:
    """Returns the mean of blue, green and red, and the mean image's largest difference from it.

    The mean image has priority, then the definition, then the mean published with the net.
    """
    if path is None:
        written = steps[0].settings["mean_value"] if steps[0].kind == DATA else ()
        if not written:
            return np.array(chain.mean), 0.0
        levels = np.array(written * 3 if len(written) == 1 else written)
        if len(levels) != 3 or not ((levels >= 0) & (levels <= 255)).all():
            raise UserError(
                f"{prototxt}: expected one or three values of mean_value from 0 to 255, got "
                f"{', '.join(f'{level:g}' for level in levels[:5])}."
            )
        return levels, 0.0
    blob = read_mean(path)
    if len(blob.squeezed) not in (1, 3) or blob.squeezed[0] != 3:
        shape = "x".join(map(str, blob.shape))
        raise UserError(f"{path}: expected a mean image of 3 channels, got {shape}.")
    image = np.asarray(blob.data, np.float64).reshape(3, -1)
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255):
        raise UserError(f"{path}: expected grey levels from 0 to 255, got others.")
    channels = image.mean(axis=1)
    return channels, float(np.abs(image - channels[:, None]).max())


def _shift(subtracted: np.ndarray, name: str, where: Path) -> np.ndarray | None:
    """Returns the difference between the net's own mean and a given one; None if there is none.

    If the first convolution pads, its bias cannot make up for the difference at the edges.
    """
    chain = CHAINS[name]
    shift = np.array(chain.mean) - subtracted
    first = chain.layers[0]
    if not shift.any():
        return None
    if not (isinstance(first, Conv) and first.pad):
        return shift
    if np.abs(shift).max() > CLOSE:
        usual = ", ".join(f"{channel:g}" for channel in chain.mean or ())
        raise UserError(
            f"{where}: {name} is trained with the mean {usual} (blue, green, red). Its first "
            "convolution pads with 0, so no other one can be put into its weights. Leave it out "
            "if the difference does not matter."
        )
    return None
