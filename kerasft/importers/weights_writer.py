"""Weights of other tools, written as a file that Keras and `model.weights` read.

The net is one of `backbones/chains.py`. Keras is not needed: layers are converted one after the
other, a strip at a time, so that a file of 200 MB is never in memory as a whole.

Shapes: O outputs and I inputs of a layer; h, w height and width of its window.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasft.backbones.chains import CHAINS, LayerSlot, places
from kerasft.backbones.compatibility import SPEC
from kerasft.errors import UserError
from kerasft.files import replacing
from kerasft.progress import Event, Progress, silent
from kerasft.results import Result
from kerasft.text import quoted

STRIP = 1 << 20  # numbers that are converted at a time


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in a file.

    Attributes:
        name: name of the layer in the file.
        kernel: weights [O,I,h,w] or [O,I]: a view of the file, or any object that has a shape and
            can be sliced by outputs.
        bias: biases [O], of the same kind of object.
    """

    name: str
    kernel: Any
    bias: Any


def check_target(to: Path) -> None:
    """Refuses a path for the result that could not be written, before any work is done.

    Raises:
        UserError: exit code 2.
    """
    if to.suffix != ".h5" or to.name.endswith(".weights.h5"):
        raise UserError(
            f"expected a name that ends in .h5 (not .weights.h5, which Keras 3 has), got "
            f"'{to.name}'.",
            field="to",
            exit_code=2,
        )
    parent = to.absolute().parent
    if os.path.lexists(to):
        raise UserError(
            f"{to} is there already. Choose another, or remove it.", field="to", exit_code=2
        )
    if not os.path.isdir(parent):
        raise UserError(f"there is no folder {parent}.", field="to", exit_code=2)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"the folder {parent} can't be written to.", field="to", exit_code=2)


@dataclass(frozen=True)
class FilledLayer:
    """A layer that was filled.

    Attributes:
        layer: name of the layer in the net.
        source: name of its weights in the imported file.
    """

    layer: str
    source: str

    def to_json(self) -> dict[str, str]:
        """Returns `{"layer", "from"}`."""
        return {"layer": self.layer, "from": self.source}


@dataclass(frozen=True)
class Imported(Result):
    """A file of weights that was written.

    Attributes:
        backbone: backbone that the weights are for.
        file: path of the file.
        bytes: its size.
        parameters: number of parameters in it.
        top: whether all fully connected layers are in it.
        layers: layers that were filled, in order.
        left_out: a sentence for each layer that does not fit.
        unused: weights of the imported file that were not used, by name.
    """

    backbone: str
    file: Path
    bytes: int
    parameters: int
    top: bool
    layers: tuple[FilledLayer, ...]
    left_out: tuple[str, ...]
    unused: tuple[str, ...] = ()


def import_weights(
    chain: str,
    spec: str,
    found: Mapping[str, Weights],
    to: Path,
    *,
    where: Path,
    shift: np.ndarray | None = None,
    progress: Progress = silent,
) -> Imported:
    """Fits the weights of a file to a net, and writes those that fit.

    Args:
        chain: the net, a key of `chains.CHAINS`.
        spec, found, to, where, shift, progress: arguments of `write_weights`.

    Raises:
        UserError: weights that `fit` or `write_weights` refuses.
    """
    filled, left_out = fit(chain, found, where)
    parameters = write_weights(spec, filled, found, to, where=where, shift=shift, progress=progress)
    return Imported(
        backbone=spec,
        file=to,
        bytes=to.stat().st_size,
        parameters=parameters,
        top=filled[-1].source == CHAINS[chain].dense[-1].name,
        layers=tuple(FilledLayer(place.layer, found[place.source].name) for place in filled),
        left_out=tuple(left_out),
    )


def fit(chain: str, found: Mapping[str, Weights], where: Path) -> tuple[list[LayerSlot], list[str]]:
    """Finds out which layers of a net can be filled from a file.

    All convolutions have to be there. Fully connected layers are left out from the first one that
    is missing or has a different shape, such as a last layer for other classes.

    Args:
        chain: the net, a key of `chains.CHAINS`.
        found: weights by the paper's name of the layer.
        where: path of the file, for messages.

    Returns:
        The layers that are filled, in order, and a sentence for each fully connected layer that
        is not.

    Raises:
        UserError: convolutions that are missing or have a different shape; all are named.
    """
    filled, problems, left_out = [], [], []
    for place in places(chain):
        problem = _misfit(place, found.get(place.source))
        if len(place.kernel) == 4:
            problems += [problem] if problem else []
        elif problem:
            left_out.append(problem)
        if not problem and not left_out:
            filled.append(place)
        elif not problem:
            left_out.append(f"{place.source}: left out with the layer before it.")
    if problems:
        problems = list(dict.fromkeys(problems))
        raise UserError("\n  ".join([f"{where}: does not fit {chain}:", *problems]))
    return filled, left_out


def _misfit(place: LayerSlot, found: Weights | None) -> str:
    """Returns why weights do not fit a layer, as a sentence; "" if they do."""
    if found is None:
        return f"{place.source}: expected weights {_by(place.stored)} and biases, got none."
    shape, biases = tuple(found.kernel.shape), tuple(found.bias.shape)
    name = found.name if found.name == place.source else f"{quoted(found.name)} ({place.source})"
    if shape != place.stored:
        return f"{name}: expected weights {_by(place.stored)}, got {_by(shape)}."
    if biases != (place.outputs,):
        return f"{name}: expected {place.outputs} biases, got {_by(biases)}."
    return ""


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def write_weights(
    spec: str,
    filled: list[LayerSlot],
    found: Mapping[str, Weights],
    to: Path,
    *,
    where: Path,
    shift: np.ndarray | None = None,
    progress: Progress = silent,
) -> int:
    """Writes a file in the format of Keras Applications, whole or not at all.

    Args:
        spec: backbone that the file is for; it is recorded in the file.
        filled: layers to write, from `fit`.
        found: weights by the paper's name of the layer.
        to: path of the file that is written.
        where: path of the file that is converted, for messages.
        shift: [3], added to each channel of the preprocessed pixels before the first convolution,
            which must not pad; it is folded into the bias of that layer.
        progress: function that is told of each layer; stage "import".

    Returns:
        Number of parameters that were written.

    Raises:
        UserError: a weight is not a finite number, or the file can't be written.
    """
    with replacing(to) as part, _written(part, to) as file:
        file.attrs[SPEC] = spec
        file.attrs["backend"] = "tensorflow"
        file.attrs["layer_names"] = np.array([place.layer for place in filled], "S")
        for done, place in enumerate(filled, start=1):
            first = place is filled[0]
            weights, own = found[place.source], shift if first else None
            _write_layer(file, place, weights, own, where)
            progress(Event("import", done, len(filled), figures={"what": place.layer}))
    return sum(math.prod(place.kernel) + place.kernel[-1] for place in filled)


@contextlib.contextmanager
def _written(part: Path, to: Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file for writing; turns h5py's message about a full disk into a sentence."""
    try:
        with h5py.File(part, "w") as file:
            yield file
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        found = re.search(r"errno = (\d+)", str(error))
        number = number or (int(found[1]) if found else 0)
        reason = os.strerror(number) if number else "the disk is full, or there is a limit"
        raise UserError(f"{to} can't be written: {reason}.") from error


def _write_layer(
    file: h5py.File, place: LayerSlot, weights: Weights, shift: np.ndarray | None, where: Path
) -> None:
    group = file.create_group(place.layer)
    names = [f"{place.layer}/kernel:0", f"{place.layer}/bias:0"]
    group.attrs["weight_names"] = np.array(names, "S")
    # A chunk is a strip, so that it is written in one piece; a contiguous layout would scatter it.
    chunks = (*place.kernel[:-1], _step(place))
    kernel = group.create_dataset(names[0], place.kernel, np.float32, chunks=chunks)
    last = place.first + place.kernel[-1]
    bias = np.array(weights.bias[place.first : last], np.float64)  # a copy that can be added to
    for at, strip in _strips(place, weights):
        if not np.isfinite(strip).all():
            raise UserError(_not_finite(where, weights, "weights"))
        kernel[..., at : at + strip.shape[-1]] = strip
        if shift is not None:
            bias[at : at + strip.shape[-1]] += np.einsum("hwio,i->o", strip, shift)
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused below
        bias = bias.astype(np.float32)
    if not np.isfinite(bias).all():
        raise UserError(_not_finite(where, weights, "biases"))
    group.create_dataset(names[1], data=bias)


def _not_finite(where: Path, weights: Weights, what: str) -> str:
    return (
        f"{where}: {quoted(weights.name)}: {what} are infinite or not a number. Expected finite "
        "numbers; the training failed, or the file is damaged."
    )


def _strips(place: LayerSlot, weights: Weights) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the kernel strip by strip: index of its first output, float32 [...,n] as in Keras."""
    outputs, step = place.kernel[-1], _step(place)
    for at in range(0, outputs, step):
        first = place.first + at
        stored = weights.kernel[first : min(first + step, place.first + outputs)]
        with np.errstate(over="ignore"):  # a double that overflows becomes infinite: refused later
            strip = np.asarray(stored, np.float32)
        if len(place.kernel) == 4:
            yield at, strip.transpose(2, 3, 1, 0)
            continue
        if place.flattened:
            height, width, channels = place.flattened
            strip = strip.reshape(len(strip), channels, height, width).transpose(0, 2, 3, 1)
        yield at, strip.reshape(len(strip), -1).T


def _step(place: LayerSlot) -> int:
    """Returns the number of outputs per strip; the strips of a layer are of similar size."""
    outputs = place.kernel[-1]
    strips = math.ceil(outputs / max(1, STRIP // math.prod(place.kernel[:-1])))
    return math.ceil(outputs / strips)
