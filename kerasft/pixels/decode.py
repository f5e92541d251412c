"""One image file outside of a graph: the most common kinds by a single operation.

The graph of `images.py` reads every kind of file, and TensorFlow takes seconds in each process to
trace and to optimize it. Upright JPEGs and opaque PNGs are recognized here, by a few steps of
Python, and decoded by the operation that the graph would come to; all others go through the graph.
Both give the same pixels and refuse the same files.

Shapes: N files, h, w image height and width, S side of the model's square input, pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kerasft.input_rule import Color, InputRule
from kerasft.lazy_tensorflow import tf
from kerasft.pixels import headers, images


def decode_file(
    encoded: bytes, background: Color | None, depth: int = 16, least: int = 0
) -> tf.Tensor:
    """Decodes an image as `images.decode_image` does, sooner for the most common files.

    Runs eagerly, in any thread.

    Args:
        encoded: bytes of any file.
        background: colour that transparent pixels lie on, see `images.decode_image`.
        depth: number of bits in use in files that have 16 for each channel.
        least: side in pixels that a JPEG keeps, see `images.decode_image`; 0 for the full size.

    Returns:
        uint8 [h,w,3].

    Raises:
        tf.errors.InvalidArgumentError: as in `images.decode_image`.
    """
    image = _decode_at_once(encoded, least)
    return images.decode_image(encoded, background, depth, least) if image is None else image


def decode_in_pipeline(
    encoded: bytes, background: Color | None, depth: int, least: int
) -> np.ndarray:
    """Decodes an image as `decode_file` does, in a function that TensorFlow calls.

    Such a call holds a thread of TensorFlow, and a graph would wait for a free one, perhaps
    forever. So what is uncommon is decoded step by step, which takes some milliseconds longer.
    """
    with tf.device("/device:CPU:0"):
        image: Any = _decode_at_once(encoded, least)
        if image is None:
            given = tf.constant(encoded), tf.constant(depth), tf.constant(least)
            image = images.decode_by_steps(background, *given)
    return np.asarray(memoryview(image))  # without a copy


def _decode_at_once(encoded: bytes, least: int) -> tf.Tensor | None:
    """Decodes a common file; returns None for another one."""
    size = _size_of_upright_jpeg(encoded)
    if size and least:
        ratio = 2 ** sum(min(size) >= least * part for part in images.RATIOS[1:])
        return tf.raw_ops.DecodeJpeg(contents=encoded, channels=3, ratio=ratio)
    if size or _is_opaque_png(encoded):
        return tf.raw_ops.DecodeImage(contents=encoded, channels=3, expand_animations=False)
    return None


def is_common(encoded: bytes) -> bool:
    """Returns whether a file is one of the kinds that are decoded by a single operation."""
    return _size_of_upright_jpeg(encoded) is not None or _is_opaque_png(encoded)


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = frozenset([*range(0xE0, 0xF0), 0xC4, 0xDB, 0xDD, 0xFE])
_ORIENTATIONS = (b"\x01\x12\0\3\0\0\0\1", b"\x12\x01\3\0\1\0\0\0")  # both orders of the bytes
_UPRIGHT = (b"\0\1", b"\1\0")


def _size_of_upright_jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Returns height and width of a common JPEG, which is decoded and no more; None for others.

    It walks the segments as `headers` does; whatever is unusual is left to `headers`, which takes
    longer than the decoding of a small photo.
    """
    if not encoded.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    for _ in range(100):
        start = encoded[at : at + 10]
        if len(start) < 10 or start[0] != 0xFF:
            return None
        if start[1] in _FRAMES:
            height, width = int.from_bytes(start[5:7]), int.from_bytes(start[7:9])
            fits = 0 < height * width <= headers.MAX_PIXELS
            return (height, width) if fits and start[9] in (1, 3) else None  # 4 channels: CMYK
        if start[1] not in _SEGMENTS:
            return None
        end = at + 2 + int.from_bytes(start[2:4])
        if start[4:] == b"Exif\0\0" and start[1] == 0xE1 and not _is_upright(encoded[at:end]):
            return None
        at = end
    return None


def _is_upright(exif: bytes) -> bool:
    """Returns whether an EXIF block holds no orientation but the upright one."""
    for tag, upright in zip(_ORIENTATIONS, _UPRIGHT, strict=True):
        at = exif.find(tag)
        while at >= 0:
            if exif[at + 8 : at + 10] != upright:
                return False
            at = exif.find(tag, at + 1)
    return True


def _is_opaque_png(encoded: bytes) -> bool:
    """Returns whether a file is a PNG in gray or RGB of 8 bits, without a transparent colour."""
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n") or encoded[12:16] != b"IHDR":
        return False
    pixels = int.from_bytes(encoded[16:20]) * int.from_bytes(encoded[20:24])
    fits = 0 < pixels <= headers.MAX_PIXELS
    return (
        fits
        and encoded[24:26] in (b"\x08\0", b"\x08\2")
        and b"tRNS" not in encoded
        and b"eXIf" not in encoded
    )


def decode_file_by(rule: InputRule, encoded: bytes, crop: float = 1.0) -> tf.Tensor:
    """Decodes one image file by a model's rule, see `images.decode_image`: uint8 [h,w,3].

    Args:
        rule: rule of the model.
        encoded: bytes of the file.
        crop: smallest share of the area that will be shown.
    """
    return decode_file(encoded, rule.background, rule.depth, rule.least(crop))


def square_of_file(encoded: bytes, rule: InputRule) -> np.ndarray:
    """Converts one image file to model input, see `images.square_of`: float32 [S,S,3].

    Raises:
        tf.errors.InvalidArgumentError: as in `images.decode_image`.
    """
    return np.asarray(_resizer(rule.image_size, rule.resize)(decode_file_by(rule, encoded)))


@functools.cache
def _resizer(image_size: int, mode: str) -> Any:
    """Makes a graph function: uint8 [h,w,3] -> float32 [S,S,3]."""

    def resize(image: tf.Tensor) -> tf.Tensor:
        with tf.device("/device:CPU:0"):
            return images.resize_image(image, image_size, mode)

    return tf.function(
        resize, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False
    )


def read_squares(encoded: Sequence[bytes], rule: InputRule) -> tuple[np.ndarray, list[str]]:
    """Converts image files to model input, in threads; see `images.squares_of`.

    Args:
        encoded: contents of the files, N.
        rule: rule of the model.

    Returns:
        Pixels float32 [N,S,S,3], 0 to 255, zeros for a file that can't be read; and N errors: "",
        or words that follow the file's name, of `images.reason_of`.
    """
    squares = np.zeros((len(encoded), rule.image_size, rule.image_size, 3), np.float32)

    def read(place: int) -> str:
        try:
            squares[place] = square_of_file(encoded[place], rule)
        except tf.errors.InvalidArgumentError:
            return images.reason_of(encoded[place])
        return ""

    # The first one is read alone, so that what it traces is not traced in every thread.
    errors = [read(place) for place in range(min(1, len(encoded)))]
    if len(encoded) > 1:
        with ThreadPoolExecutor(thread_name_prefix="kerasft-images") as pool:
            errors += pool.map(read, range(1, len(encoded)))
    return squares, errors
