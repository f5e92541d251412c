"""`kerasft import-caffe`: a net as Caffe published it, for `--weights`.

prototxt -> steps, compared with `chains.py` -> which blob is which layer's
caffemodel, mapped -> a strip of a layer at a time -> .h5
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
from kerasft.importers.weights_writer import Weights, check_target, import_weights
from kerasft.progress import Progress, silent
from kerasft.text import quoted

# The nets that Caffe has, by what `--backbone` calls them.
FROM_CAFFE = {name.lower(): name for name in ("AlexNet", "CaffeNet", "VGG16", "VGG19")}
CLOSE = 0.01  # grey levels; a mean that is printed with two digits is the same mean


def import_caffe(
    prototxt: Path,
    caffemodel: Path,
    backbone: str,
    to: Path,
    *,
    mean: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Writes the weights of a caffemodel as a file for `--weights`.

    Args:
        prototxt: the net's definition, as for deployment or training.
        caffemodel: its weights.
        backbone: a key of FROM_CAFFE, which the definition is compared with.
        to: ends in ".h5".
        mean: the mean image that the net was trained with (.binaryproto). The mean of each of its
            channels is subtracted, as in Caffe's own example of classification. It goes into the
            first layer's bias. None: the definition's `mean_value`, or that of ImageNet, as
            published.
        progress: told of the layers.

    Returns:
        That of `weights_writer.import_weights`, with `{"unused": [name], "mean_spread", "mean":
        [blue, green, red]}`. `unused`: layers with weights that are not used; `mean_spread`: grey
        levels by which the mean image differs from that at most.

    Raises:
        UserError: files that are not what they should be, or not of this net.
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
    levels = [float(channel) for channel in subtracted]
    return {**result, "unused": unused, "mean": levels, "mean_spread": spread}


def _check_definition(prototxt: Path, name: str, steps: list[Step]) -> list[tuple[str, Step]]:
    """The paper's name and the step of each layer.

    Raises:
        UserError: the definition is of another net.
    """
    matched, problems = _compare(CHAINS[name], steps)
    if problems:
        others = [
            f"--backbone {other}"
            for other, title in FROM_CAFFE.items()
            if title != name and not _compare(CHAINS[title], steps)[1]
        ]
        hint = f" It is the net of {others[0]}." if others else ""
        raise UserError("\n  ".join([f"{prototxt}: is not {name}.{hint}", *problems]))
    return matched


def _check_order(matched: list[tuple[str, Step]], blobs: Mapping[str, Any], path: Path) -> None:
    """Refuses the weights of a net with the same layers in another order.

    AlexNet's and CaffeNet's have the same names and shapes; the file lists all layers.
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
    """One step that a chain's definition has: its kind and what is set there."""

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
            # Of the last layer the classes may be others; whether they fit, the weights tell.
            settings = {} if last else {"num_output": layer.units}
            settings |= {"bias_term": True, "axis": 1, "transpose": False}
            yield _Expected(layer.name, "InnerProduct", settings)
    if isinstance(layer, Conv | Dense) and not last:
        yield _Expected(f"the ReLU behind {layer.name}", "ReLU", {"negative_slope": 0.0})


def _compare(chain: Chain, steps: list[Step]) -> tuple[list[tuple[str, Step]], list[str]]:
    """Each layer's name by the paper with its step, and where the definition is another net's."""
    given = [step for step in steps if step.kind not in ("Dropout", DATA)]
    if given and given[-1].kind == "Softmax":
        given.pop()
    expected = [
        one for layer in chain.layers for one in _expected(layer, last=layer is chain.dense[-1])
    ]
    matched: list[tuple[str, Step]] = []
    problems = []
    # Without fully connected layers it is a base, and all that is needed of it.
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
    """The weights of each layer that the definition names and the file has."""
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
        if source.startswith("fc"):  # legacy files have 1x1 in front of it
            shape = kernel.squeezed
        yield source, Weights(layer, kernel.data.reshape(shape), bias.data)
    if problems:
        raise UserError("\n  ".join([f"{caffemodel}: has layers that can't be used:", *problems]))


def _mean_of(
    path: Path | None, steps: list[Step], prototxt: Path, chain: Chain
) -> tuple[np.ndarray, float]:
    """What is subtracted of blue, green and red, and how far the mean image goes from that.

    The file comes first, then what the definition says, then what the net was published with.
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
    """What the net's own preprocessing leaves over of another mean; None: nothing.

    A convolution that pads sees the edge of the image, where no bias can make up for it.
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
