"""Caffe's weights: a caffemodel, layer by layer, and the mean of a training set.

A small walk over the mapped file, not Google's library: that would hold the 250 MB of an
AlexNet several times over, as objects of its own. Here values stay in the file until somebody
looks at them. The file is not trusted: nothing calls itself, whatever is counted has a limit, and
no length is believed before it is compared with what is there.

Source: caffe.proto of BVLC's Caffe 1.0 and blob.cpp; the wire format is that of
    protobuf.dev/programming-guides/encoding.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasft.errors import UserError, quoted
from kerasft.wire import BYTES, VARINT, Field, Walk, mapped

MAX_LAYERS = 5_000  # ResNet-152 has 500
MAX_BLOBS = 100  # of a layer; those of Caffe have up to 5
MAX_PIECES = 1_000  # in which the values of one blob lie; Caffe writes one
MAX_AXES = 32  # kMaxBlobAxes in Caffe's blob.hpp
MAX_SIDE = 1 << 31  # Caffe counts values in 32 bits
MAX_NAME = 1_000  # bytes
MAX_MEAN = 1 << 26  # bytes; Caffe's mean of ImageNet has 800 KB


@dataclass(frozen=True, eq=False)
class Blob:
    """One array of a layer.

    shape: as the file says; of a file before 2015 four sides, with leading ones.
    data: 1-d, float32 or float64. Of an open caffemodel it can't be written, and is a view into
        the file unless the values lie there in pieces.
    """

    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def squeezed(self) -> tuple[int, ...]:
        """The shape without leading ones; at least one side stays."""
        first = next((i for i, side in enumerate(self.shape) if side != 1), len(self.shape) - 1)
        return self.shape[max(first, 0) :]


@contextmanager
def open_caffemodel(path: Path) -> Iterator[dict[str, list[Blob]]]:
    """Opens a caffemodel, of V2 or V1 layers.

    Yields:
        Blobs of each layer, in the file's order, by the layer's name; none for a layer without
        weights. Emptied in the end; the file stays mapped while anybody holds a view of it. As with
        every mapped file, cutting it short meanwhile ends the process.

    Raises:
        UserError: no such file (exit status 2); not a caffemodel, damaged, of another kind than
            BVLC's, or without weights.
    """
    with mapped(path, "caffemodel") as data:
        layers = _read_layers(Walk(path, "caffemodel", data))
        try:
            yield layers
        finally:
            layers.clear()


def read_mean(path: Path) -> Blob:
    """Reads a mean file, such as imagenet_mean.binaryproto.

    Returns:
        The mean; its values are in memory.

    Raises:
        UserError: no such file (exit status 2); not a mean file, or damaged.
    """
    with mapped(path, "mean file") as data:
        if len(data) > MAX_MEAN:
            raise UserError(
                f"{path}: is larger than {MAX_MEAN >> 20} MB. Expected a mean file, which "
                "Caffe's compute_image_mean writes."
            )
        walk = Walk(path, "mean file", data)
        blob = _read_blob(walk, 0, len(data), f"{path}")
        return Blob(blob.shape, blob.data.copy())


class _Version(NamedTuple):
    """Numbers of the fields of a layer."""

    name: int
    blobs: int


_VERSIONS = {100: _Version(name=1, blobs=7), 2: _Version(name=4, blobs=6)}  # V2 and V1


def _read_layers(walk: Walk) -> dict[str, list[Blob]]:
    layers: dict[str, list[Blob]] = {}
    count = 0
    for field in walk.fields(0, len(walk.data)):
        if field.number == 1:
            walk.expect(field, BYTES)  # the net's name: a mean or a solverstate has a number
        if field.number not in _VERSIONS:
            continue
        walk.expect(field, BYTES)
        count += 1
        if count > MAX_LAYERS:
            raise UserError(
                f"{walk.path}: has more than {MAX_LAYERS:,} layers. Expected a caffemodel."
            )
        name, blobs = _read_layer(walk, field)
        if blobs and layers.get(name):
            # Two of one name, for training and for testing, are fine if one holds no weights.
            raise UserError(
                f"{walk.path}: two layers with the name {quoted(name)} hold weights, the second "
                f"at byte {field.at:,}. Expected one."
            )
        layers.setdefault(name, []).extend(blobs)
    if not any(layers.values()):
        raise UserError(
            f"{walk.path}: holds no weights. Expected a caffemodel, as Caffe writes it in training."
        )
    return layers


def _read_layer(walk: Walk, layer: Field) -> tuple[str, list[Blob]]:
    version = _VERSIONS[layer.number]
    name = ""
    blobs: list[Field] = []
    for field in walk.fields(layer.start, layer.end):
        if layer.number == 2 and field.number == 1:
            raise UserError(
                f"{walk.path}: holds layers of V0, Caffe's format before 2014 (byte "
                f"{field.at:,}). Convert it with Caffe's upgrade_net_proto_binary."
            )
        if field.number == version.name:
            walk.expect(field, BYTES)
            if field.end - field.start > MAX_NAME:
                raise walk.damaged(field.at, f"a layer's name has more than {MAX_NAME:,} bytes")
            name = walk.data[field.start : field.end].decode("utf-8", "replace")
        elif field.number == version.blobs:
            walk.expect(field, BYTES)
            if len(blobs) == MAX_BLOBS:
                raise walk.damaged(field.at, f"a layer's blobs become more than {MAX_BLOBS:,}")
            blobs.append(field)
    where = f"{walk.path}: layer {quoted(name)}, blob "
    return name, [
        _read_blob(walk, blob.start, blob.end, f"{where}{number}")
        for number, blob in enumerate(blobs)
    ]


def _read_blob(walk: Walk, start: int, end: int, where: str) -> Blob:
    """Reads the message between two positions. What is said of its contents begins with `where`."""
    shape: list[int] = []
    legacy: dict[int, int] = {}
    pieces: list[np.ndarray] = []
    for field in walk.fields(start, end):
        if field.number <= 4:  # num, channels, height, width
            walk.expect(field, VARINT)
            legacy[field.number] = walk.varint(field.start, field.end)[0]
        elif field.number == 7:
            walk.expect(field, BYTES)
            for inner in walk.fields(field.start, field.end):
                if inner.number == 1:
                    shape += walk.numbers(inner, MAX_AXES)
                if len(shape) > MAX_AXES:
                    raise walk.damaged(field.at, f"a blob has more than {MAX_AXES} axes")
        elif field.number in (5, 8):
            pieces.append(walk.values(field, "<f4" if field.number == 5 else "<f8"))
            if len(pieces) > MAX_PIECES:
                raise walk.damaged(field.at, f"a blob's pieces become more than {MAX_PIECES:,}")
        elif field.number in (10, 12):
            raise UserError(
                f"{where}: is raw data, which only NVIDIA's Caffe writes (byte {field.at:,}). "
                "Expected the format of BVLC's Caffe."
            )
    if legacy:  # it comes before a shape for Caffe, too: Blob::FromProto
        shape = [legacy.get(number, 0) for number in (1, 2, 3, 4)]
    values = _joined(walk, pieces, where)
    if not all(1 <= side <= MAX_SIDE for side in shape) or math.prod(shape) != values.size:
        raise UserError(
            f"{where}: has {values.size:,} values, expected as many as its shape {tuple(shape)} "
            f"has (byte {start:,}). The file is damaged, or not a {walk.kind}."
        )
    return Blob(tuple(shape), values)


def _joined(walk: Walk, pieces: list[np.ndarray], where: str) -> np.ndarray:
    pieces = [piece for piece in pieces if piece.size] or pieces[:1]
    if not pieces:
        raise UserError(f"{where}: holds no values. The file is damaged, or not a {walk.kind}.")
    if len({piece.dtype for piece in pieces}) > 1:
        raise UserError(f"{where}: holds values of 32 and of 64 bits. Expected one of the two.")
    return walk.joined(pieces, where)
