"""Protobuf's wire format: the fields of a mapped file, none of whose lengths is believed.

Source: protobuf.dev/programming-guides/encoding.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasft.errors import UserError

MAX_FIELDS = 100_000  # of a file, in messages that are looked into; ResNet-152 has 10,000
MAX_JOINED = 1 << 30  # bytes that lie in pieces and must be copied; VGG-19 has 575 MB in all
_BLOCK = 1 << 18  # tags that are compared at a time, at most
_TEXT_CONTROLS = b"\t\n\v\f\r"

VARINT, BYTES_8, BYTES, _GROUP, _GROUP_END, BYTES_4 = range(6)
_FIXED = {BYTES_4: 4, BYTES_8: 8}


@contextmanager
def mapped(path: Path, kind: str) -> Iterator[mmap.mmap]:
    """Maps a file of a kind, "caffemodel" or "mean file", until the block ends.

    Raises:
        UserError: no such file (exit status 2); empty, or by its first bytes of another kind.
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
        # BufferError: somebody holds an array that views the file. Unmapping it under them would
        # end the process at their next look; with the last such array the mapping goes by itself.
        with suppress(BufferError):
            data.close()


def _other_kind(data: mmap.mmap) -> str:
    """What a file is whose first bytes say that it has no messages of Caffe's, or ""."""
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
    """Whether a file that starts like this is text; no caffemodel or other binary file is."""
    return not any(byte < 32 and byte not in _TEXT_CONTROLS for byte in start[:4096])


class Field(NamedTuple):
    """One field of a message.

    at: where its tag is. Numbers of fixed size that follow each other under the same tag, as
        Caffe's values do where they are not packed, count as one field.
    start, end: where its contents are: the bytes, or the number.
    """

    number: int
    wire: int
    at: int
    start: int
    end: int


class Walk:
    """Reads the fields of one file and keeps count of them. `kind` is what messages call it."""

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
        """Goes through the fields of the message that is between two positions."""
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
        """The bytes of those records, from `at` on, that begin with the same tag of one byte."""
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
        """Reads a number of 1 to 10 bytes. Returns it, without sign, and where it ends."""
        if at < end and self.data[at] < 128:  # nearly all
            return self.data[at], at + 1
        value = 0
        for place, byte in enumerate(self.data[at : min(at + 10, end)]):
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value & (1 << 64) - 1, at + place + 1
        raise self.damaged(at, "a number does not end")

    def expect(self, field: Field, *wires: int) -> None:
        """Raises UserError if a field is not written in one of these ways."""
        if field.wire not in wires:
            raise self.damaged(field.at, f"field {field.number} is not what Caffe writes there")

    def numbers(self, field: Field, most: int) -> list[int]:
        """Reads numbers, packed or not; of packed ones no more than `most` and one."""
        self.expect(field, VARINT, BYTES)
        found: list[int] = []
        at = field.start
        while at < field.end and len(found) <= most:
            value, at = self.varint(at, field.end)
            found.append(value)
        return found

    def values(self, field: Field, dtype: str) -> np.ndarray:
        """Views the values of a field, packed or not; `dtype` is "<f4" or "<f8"."""
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
        # Not np.ndarray(..., buffer=self.data): that does not keep the mapping from being closed.
        if count == 0:  # which frombuffer refuses
            return np.empty(0, dtype)
        return np.frombuffer(self.data, dtype, count, at)

    def joined(self, pieces: list[np.ndarray], where: str) -> np.ndarray:
        """Returns one piece as it is, several as a copy. `where` begins what is said of them."""
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
