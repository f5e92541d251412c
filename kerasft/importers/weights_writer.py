"""Weights of other tools as a file that Keras and `--weights` read.

Of a net of `chains.py`, and without Keras: layer by layer, a strip at a time, so that a file of
200 MB is never in memory as a whole.

Shapes: O outputs, I inputs of a layer; h, w of its window.
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
from kerasft.text import quoted

STRIP = 1 << 20  # numbers that are rearranged at a time


@dataclass(frozen=True)
class Weights:
    """What a file has for one layer with weights.

    Attributes:
        name: of the layer in the file.
        kernel: [O,I,h,w] or [O,I]; a view of the file, or something else that has a shape and is
            sliced by outputs.
        bias: [O], likewise.
    """

    name: str
    kernel: Any
    bias: Any


def check_target(to: Path) -> None:
    """Refuses a name for the result that could not be used, before the work.

    Raises:
        UserError: exit code 2.
    """
    if to.suffix != ".h5" or to.name.endswith(".weights.h5"):
        raise UserError(
            f"--to: expected a name that ends in .h5 (not .weights.h5, which Keras 3 has), got "
            f"'{to.name}'.",
            exit_code=2,
        )
    parent = to.absolute().parent
    if os.path.lexists(to):
        raise UserError(f"--to: {to} is there already. Choose another, or remove it.", exit_code=2)
    if not os.path.isdir(parent):
        raise UserError(f"--to: there is no folder {parent}.", exit_code=2)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--to: the folder {parent} can't be written to.", exit_code=2)


def import_weights(
    chain: str,
    spec: str,
    found: Mapping[str, Weights],
    to: Path,
    *,
    where: Path,
    shift: np.ndarray | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fits what a file has to a net, and writes what fits.

    Args:
        chain: see `fit`.
        spec, found, to, where, shift, progress: see `write_weights`.

    Returns:
        `{"backbone", "file", "bytes", "parameters", "top", "layers": [{"layer", "from"}],
        "left_out": [sentence]}`; `top`: whether all fully connected layers are in the file.

    Raises:
        UserError: as `fit` and `write_weights`.
    """
    filled, left_out = fit(chain, found, where)
    parameters = write_weights(spec, filled, found, to, where=where, shift=shift, progress=progress)
    return {
        "backbone": spec,
        "file": str(to),
        "bytes": to.stat().st_size,
        "parameters": parameters,
        "top": filled[-1].source == CHAINS[chain].dense[-1].name,
        "layers": [{"layer": place.layer, "from": found[place.source].name} for place in filled],
        "left_out": left_out,
    }


def fit(chain: str, found: Mapping[str, Weights], where: Path) -> tuple[list[LayerSlot], list[str]]:
    """Which layers of a net a file fills, and what of the file does not fit.

    All convolutions have to be filled; fully connected layers are left out from the first
    one on that is not there or has another shape, such as a last layer of other classes.

    Args:
        chain: a key of `chains.CHAINS`.
        found: the paper's name of a layer -> its weights.
        where: the file, for messages.

    Returns:
        The places that are filled, in order; and sentences on fully connected layers that are not.

    Raises:
        UserError: a convolution is missing or has another shape; all of them are named.
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
    """What keeps weights from their place, as a sentence; "" if nothing does."""
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
        spec: the backbone to write into it.
        filled: of `fit`.
        found: as for `fit`.
        to: what is written.
        where: the file that it comes from, for messages.
        shift: [3] what is added to each channel of the preprocessed pixels in front of the first
            convolution, which must not pad; it goes into that one's bias.
        progress: told of the layers; stage "import".

    Returns:
        How many numbers were written.

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
    """An HDF5 file to write; what h5py says of a full disk becomes a sentence."""
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
    # A chunk is a strip: one stretch of the file, where a contiguous layout would scatter it.
    chunks = (*place.kernel[:-1], _step(place))
    kernel = group.create_dataset(names[0], place.kernel, np.float32, chunks=chunks)
    last = place.first + place.kernel[-1]
    bias = np.array(weights.bias[place.first : last], np.float64)  # a copy, to be added to
    for at, strip in _strips(place, weights):
        if not np.isfinite(strip).all():
            raise UserError(_not_finite(where, weights, "weights"))
        kernel[..., at : at + strip.shape[-1]] = strip
        if shift is not None:
            bias[at : at + strip.shape[-1]] += np.einsum("hwio,i->o", strip, shift)
    with np.errstate(over="ignore"):  # it is infinite then
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
    """The kernel as Keras has it, float32 [...,n] for n outputs, behind the first one's number."""
    outputs, step = place.kernel[-1], _step(place)
    for at in range(0, outputs, step):
        first = place.first + at
        stored = weights.kernel[first : min(first + step, place.first + outputs)]
        with np.errstate(over="ignore"):  # of doubles; it is infinite then
            strip = np.asarray(stored, np.float32)
        if len(place.kernel) == 4:
            yield at, strip.transpose(2, 3, 1, 0)
            continue
        if place.flattened:
            height, width, channels = place.flattened
            strip = strip.reshape(len(strip), channels, height, width).transpose(0, 2, 3, 1)
        yield at, strip.reshape(len(strip), -1).T


def _step(place: LayerSlot) -> int:
    """How many outputs are a strip: all strips of a layer are about as large."""
    outputs = place.kernel[-1]
    strips = math.ceil(outputs / max(1, STRIP // math.prod(place.kernel[:-1])))
    return math.ceil(outputs / strips)
