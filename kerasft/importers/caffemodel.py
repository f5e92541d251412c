"""Caffe's weights: a caffemodel, layer by layer, and the mean of a training set.

It walks over the mapped file itself, because Google's library would hold the 250 MB of an
AlexNet several times over, as its own objects. Here values stay in the file until they are used.
The file is not trusted: there is no recursion, every count has a limit, and every length is
compared with the size of the file before it is used.

Source: caffe.proto of BVLC's Caffe 1.0 and blob.cpp; the wire format is that of
    protobuf.dev/programming-guides/encoding.
"""

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasft.errors import UserError
from kerasft.text import quoted

MAX_FIELDS = 100_000  # fields of a file, in messages that are read; ResNet-152 has 10,000
MAX_JOINED = 1 << 30  # bytes that are copied because they lie in pieces; VGG-19 has 575 MB
_BLOCK = 1 << 18  # largest number of tags that are compared at a time
_TEXT_CONTROLS = b"\t\n\v\f\r"

VARINT, BYTES_8, BYTES, _GROUP, _GROUP_END, BYTES_4 = range(6)
_FIXED = {BYTES_4: 4, BYTES_8: 8}


@contextmanager
def mapped(path: Path, kind: str) -> Iterator[mmap.mmap]:
    """Maps a file into memory until the block ends.

    Args:
        path: path of the file.
        kind: kind of the file, "caffemodel" or "mean file", for messages.

    Raises:
        UserError: no such file (exit code 2); empty, or of a different kind by its first bytes.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file. Expected a {kind} of Caffe.", exit_code=2)
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: is empty. Expected a {kind} of Caffe.")
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: it became empty
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: can't be read: {reason}.") from error
    try:
        if other := _other_kind(data):
            raise UserError(f"{path}: is {other}, not a {kind}. Expected a {kind} of Caffe.")
        if is_text(data[:4096]):
            order = " (the order is PROTOTXT CAFFEMODEL)" if kind == "caffemodel" else ""
            raise UserError(
                f"{path}: is text, not a {kind}: it looks like a prototxt{order}, or like a "
                "download that failed."
            )
        yield data
    finally:
        # BufferError: there is still an array that views the file. Unmapping would crash the
        # process when the array is used; the mapping is released with the last such array.
        with suppress(BufferError):
            data.close()


def _other_kind(data: mmap.mmap) -> str:
    """Names the kind of a file whose first bytes show that it is not Caffe's; "" if they don't."""
    start = data[:9]
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file"
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "a zip file"
    if start[:3] == b"\x1f\x8b\x08":
        return "packed with gzip"
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= len(data) - 8:
        return "a safetensors file"
    return ""


def is_text(start: bytes) -> bool:
    """Returns whether a file with these first bytes is text, which no caffemodel is."""
    return not any(byte < 32 and byte not in _TEXT_CONTROLS for byte in start[:4096])


class Field(NamedTuple):
    """One field of a message.

    number: number of the field in its message.
    wire: wire type, such as VARINT or BYTES.
    at: position of its tag. Consecutive numbers of fixed size with the same tag, which is how
        Caffe writes values that are not packed, count as one field.
    start, end: positions between which its contents lie: the bytes, or the number.
    """

    number: int
    wire: int
    at: int
    start: int
    end: int


class Walk:
    """Reads the fields of one file and counts them. `kind` names the file in messages."""

    def __init__(self, path: Path, kind: str, data: mmap.mmap) -> None:
        self.path, self.kind, self.data = path, kind, data
        self.fields_left = MAX_FIELDS
        self.bytes_left = MAX_JOINED

    def damaged(self, at: int, what: str) -> UserError:
        return UserError(
            f"{self.path}: is damaged, or not a {self.kind}: at byte {at:,} {what}. Copy or "
            "download it again."
        )

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Yields the fields of the message between two positions."""
        while start < end:
            field = self._field(start, end)
            yield field
            start = field.end

    def _field(self, at: int, end: int) -> Field:
        self.fields_left -= 1
        if self.fields_left < 0:
            raise UserError(
                f"{self.path}: has more than {MAX_FIELDS:,} fields, as if it were made to be read "
                f"for ever. Expected a {self.kind} of Caffe."
            )
        tag, start = self.varint(at, end)
        number, wire = tag >> 3, tag & 7
        if wire in (_GROUP, _GROUP_END):
            raise self.damaged(at, "a group begins or ends, which Caffe does not write")
        if wire > BYTES_4 or not 1 <= number < 1 << 29:
            raise self.damaged(at, "there is no field")
        if wire == VARINT:
            _, stop = self.varint(start, end)
        elif wire == BYTES:
            length, start = self.varint(start, end)
            stop = start + length
        else:
            stop = start + _FIXED[wire]
            if start == at + 1 and stop <= end:
                stop = at + self._run(at, end, stop - at)
        if stop > end:
            whose = "the file" if end == len(self.data) else "what holds it"
            raise UserError(
                f"{self.path}: is cut off or damaged: the field at byte {at:,} ends at byte "
                f"{stop:,}, but {whose} ends at byte {end:,}. Copy or download it again."
            )
        return Field(number, wire, at, start, stop)

    def _run(self, at: int, end: int, stride: int) -> int:
        """Returns the bytes of consecutive records, from `at`, that begin with the same tag."""
        most, count, block = (end - at) // stride, 1, 1 << 10
        if most > 1 and self.data[at + stride] != self.data[at]:  # nearly all
            return stride
        while count < most:
            size = min(block, most - count)
            records = self._view(f"u1,V{stride - 1}", size, at + count * stride)
            others = np.flatnonzero(records["f0"] != self.data[at])
            if others.size:
                return (count + int(others[0])) * stride
            count += size
            block = min(block * 4, _BLOCK)
        return count * stride

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Reads a number of 1 to 10 bytes. Returns it, unsigned, and the position of its end."""
        if at < end and self.data[at] < 128:  # nearly all
            return self.data[at], at + 1
        value = 0
        for place, byte in enumerate(self.data[at : min(at + 10, end)]):
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value & (1 << 64) - 1, at + place + 1
        raise self.damaged(at, "a number does not end")

    def expect(self, field: Field, *wires: int) -> None:
        """Raises UserError if a field has none of these wire types."""
        if field.wire not in wires:
            raise self.damaged(field.at, f"field {field.number} is not what Caffe writes there")

    def numbers(self, field: Field, most: int) -> list[int]:
        """Reads numbers, packed or not; stops when there are more than `most`."""
        self.expect(field, VARINT, BYTES)
        found: list[int] = []
        at = field.start
        while at < field.end and len(found) <= most:
            value, at = self.varint(at, field.end)
            found.append(value)
        return found

    def values(self, field: Field, dtype: str) -> np.ndarray:
        """Returns a view of a field's values, packed or not; `dtype` is "<f4" or "<f8"."""
        size = int(dtype[-1])
        self.expect(field, BYTES, BYTES_4 if size == 4 else BYTES_8)
        length = field.end - field.start
        if field.wire != BYTES:
            count = (field.end - field.start + 1) // (size + 1)
            return self._view(f"u1,{dtype}", count, field.start - 1)["f1"]
        if length % size:
            raise self.damaged(field.at, f"{length:,} bytes are no values of {size} bytes each")
        return self._view(dtype, length // size, field.start)

    def _view(self, dtype: str, count: int, at: int) -> np.ndarray:
        # Not np.ndarray(..., buffer=self.data), which would not keep the mapping open.
        if count == 0:  # frombuffer refuses it
            return np.empty(0, dtype)
        return np.frombuffer(self.data, dtype, count, at)

    def joined(self, pieces: list[np.ndarray], where: str) -> np.ndarray:
        """Returns a single piece as it is, several as a copy. Messages begin with `where`."""
        if len(pieces) == 1:
            return pieces[0]
        self.bytes_left -= sum(piece.nbytes for piece in pieces)
        if self.bytes_left < 0:
            raise UserError(
                f"{where}: with it more than {MAX_JOINED >> 20:,} MB lie in pieces, which must be "
                "copied into memory. Expected arrays in one piece, as Caffe writes them."
            )
        joined = np.concatenate(pieces)
        joined.flags.writeable = False
        return joined


MAX_LAYERS = 5_000  # ResNet-152 has 500
MAX_BLOBS = 100  # blobs of a layer; Caffe's have up to 5
MAX_PIECES = 1_000  # pieces of a blob's values; Caffe writes one
MAX_AXES = 32  # kMaxBlobAxes in Caffe's blob.hpp
MAX_SIDE = 1 << 31  # Caffe counts values in 32 bits
MAX_NAME = 1_000  # bytes
MAX_MEAN = 1 << 26  # bytes; Caffe's mean of ImageNet has 800 KB


@dataclass(frozen=True, eq=False)
class Blob:
    """One array of a layer.

    shape: shape in the file; files from before 2015 have four sides, with leading ones.
    data: values, 1-d, float32 or float64. For an open caffemodel it is read-only, and a view into
        the file unless the values lie there in pieces.
    """

    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def squeezed(self) -> tuple[int, ...]:
        """The shape without leading ones; at least one side remains."""
        first = next((i for i, side in enumerate(self.shape) if side != 1), len(self.shape) - 1)
        return self.shape[max(first, 0) :]


@contextmanager
def open_caffemodel(path: Path) -> Iterator[dict[str, list[Blob]]]:
    """Opens a caffemodel with V2 or V1 layers.

    Yields:
        Blobs by name of the layer, in the file's order; [] for a layer without weights. The dict
        is emptied at the end; the file stays mapped as long as there is a view of it. As with
        every mapped file, truncating it meanwhile crashes the process.

    Raises:
        UserError: no such file (exit code 2); not a caffemodel, damaged, not in the format of
            BVLC's Caffe, or without weights.
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
        The mean, with its values in memory.

    Raises:
        UserError: no such file (exit code 2); not a mean file, or damaged.
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
    """The field numbers of a layer's name and blobs."""

    name: int
    blobs: int


_VERSIONS = {100: _Version(name=1, blobs=7), 2: _Version(name=4, blobs=6)}  # V2 and V1


def _read_layers(walk: Walk) -> dict[str, list[Blob]]:
    layers: dict[str, list[Blob]] = {}
    count = 0
    for field in walk.fields(0, len(walk.data)):
        if field.number == 1:
            walk.expect(field, BYTES)  # the net's name; in a mean or solverstate it is a number
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
            # Two layers may share a name, one for training and one for testing, if only one holds
            # weights.
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
    """Reads the blob between two positions. Error messages begin with `where`."""
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
    if legacy:  # it overrides a shape in Caffe too: Blob::FromProto
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
