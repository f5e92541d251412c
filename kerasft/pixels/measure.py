"""Facts of image files, each from a single decoding; or the reason why a file does not decode.

Brightness, sharpness and look are measured on small gray pictures, of many files at once: NumPy
lets go of Python's lock in every operation, and threads that wait for it take as long as decoding.

Shapes: N files, h, w image height and width.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasft.errors import Unreadable
from kerasft.input_rule import WHITE, Color, depth_of
from kerasft.lazy_tensorflow import tf
from kerasft.pixels import convert, images, likeness
from kerasft.pixels.decode import decode_file

SIDE = 64  # of the gray picture; cleanvision judges blur at this size, too
FINEST = 2 * SIDE  # columns to which a wide image is averaged before the areas are exact
GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Picture(NamedTuple):
    """The facts of an image file.

    Attributes:
        reason: reason why the file cannot be used, which follows its name: "is empty", "is
            truncated", "has 65535x65535 pixels, more than ..."; "" for an image.
        pixels: digest of the decoded image, 32 hexadecimal digits: two files have the same one if
            `images.decode_image` gives the same for both, or, with 16 bits per channel, if they
            hold the same numbers; "" if the file does not decode.
        height: height in pixels, upright.
        width: width in pixels, upright.
        plain: whether all pixels have the same colour.
        brightness: mean of the gray picture, 0 to 255.
        sharpness: variance of the Laplacian (4 neighbours) of the gray picture of 64 x 64 pixels.
        peak: largest number of a colour in a file of 16 bits per channel; 0 for others. The other
            facts are those of the image with as few bits as hold it.
        kind: format that Pillow has to convert, see `convert.py`, such as "TIFF"; "" for others.
        look: perceptual hash, see `likeness.look_of`; "" if the picture has too little in it.
        digest: digest of the file, 32 hexadecimal digits; "" where none is known, because the file
            can't be read or only its bytes were given.
    """

    reason: str
    pixels: str = ""
    height: int = 0
    width: int = 0
    plain: bool = False
    brightness: float = 0.0
    sharpness: float = 0.0
    peak: int = 0
    look: str = ""
    kind: str = ""
    digest: str = ""


class Sketch(NamedTuple):
    """An image file that was decoded: what is known of it, and the gray picture for the rest.

    Attributes:
        picture: facts without brightness, sharpness and look.
        gray: float32 [64, 64], values 0 to 255; None if the file does not decode.
    """

    picture: Picture
    gray: np.ndarray | None


def sketch(encoded: bytes, background: Color | None = WHITE) -> Sketch:
    """Decodes a file to find out what it shows, or why it can't be used.

    Runs eagerly, in any thread.

    Args:
        encoded: bytes of any file.
        background: colour that transparent pixels lie on, see `images.decode_image`.
    """
    kind = convert.kind_of(encoded)
    if kind == "TIFF" and convert.has_pages(encoded):
        kind = convert.MULTI_PAGE
    try:
        encoded = convert.as_readable(encoded)
    except Unreadable as error:
        return Sketch(Picture(str(error), kind=kind), None)
    try:
        peak, digest = _of_deep(encoded)
        decoded: Any = decode_file(encoded, background, depth_of(peak))
        image = np.asarray(memoryview(decoded))  # without a copy
    except tf.errors.InvalidArgumentError:
        return Sketch(Picture(images.reason_of(encoded), kind=kind), None)
    height, width, _ = image.shape
    picture = Picture(
        "",
        pixels=digest or _digest_of(image),
        height=height,
        width=width,
        plain=_is_plain(image),
        peak=peak,
        kind=kind,
    )
    return Sketch(picture, shrink(image))


def finish(sketches: Sequence[Sketch]) -> list[Picture]:
    """Measures the gray pictures of N files, and returns all facts of the files."""
    grays = [one.gray for one in sketches if one.gray is not None]
    if not grays:
        return [one.picture for one in sketches]
    gray = np.stack(grays)
    edges = 4 * gray[:, 1:-1, 1:-1]
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        edges -= gray[:, rows : rows + SIDE - 2, columns : columns + SIDE - 2]
    brightness = gray.mean((1, 2), dtype=np.float64).round(3).tolist()
    sharpness = edges.var((1, 2), dtype=np.float64).round(3).tolist()
    half = gray.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4))
    looks = map(likeness.look_of, np.rint(half).astype(np.uint8))
    measured = zip(brightness, sharpness, looks, strict=True)
    found = []
    for one in sketches:
        if one.gray is None:
            found.append(one.picture)
            continue
        bright, sharp, look = next(measured)
        found.append(one.picture._replace(brightness=bright, sharpness=sharp, look=look))
    return found


def measure_image(encoded: bytes) -> Picture:
    """Returns the facts of one file, whose bytes are given."""
    return finish([sketch(encoded)])[0]


def _of_deep(encoded: bytes) -> tuple[int, str]:
    """Returns the largest colour and the digest of a PNG of 16 bits per channel, or (0, "")."""
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n") or encoded[24:25] != b"\x10":
        return 0, ""
    if images.has_problem(encoded):  # such as too many pixels
        return 0, ""
    values: Any = tf.io.decode_png(encoded, dtype=tf.uint16)
    values = np.asarray(memoryview(values))  # without a copy
    colours = values[:, :, : {2: 1, 4: 3}.get(values.shape[2])]  # the rest is opacity
    return int(colours.max()), _digest_of(values)


def _digest_of(image: np.ndarray) -> str:
    # With the shape, because 2 x 8 pixels can have the bytes of 4 x 4.
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.data)
    return digest.hexdigest()


def shrink(image: np.ndarray) -> np.ndarray:
    """Shrinks an image to a gray picture of 64 x 64 pixels, stretched to a square.

    A pixel of it is the mean of the area under it. Of high areas two rows count, so that a large
    photo takes little time; a wide image loses up to 1% of its columns.

    Args:
        image: uint8 [h, w, 3].

    Returns:
        float32 [64, 64], values 0 to 255.
    """
    height, width, _ = image.shape
    upper, lower = _two_rows(height)
    wide = -(-width // FINEST)
    columns = width // wide
    left = (width - columns * wide) // 2
    inner = image[:, left : left + columns * wide]
    strips = np.add(inner[upper], inner[lower], dtype=np.uint16).astype(np.float32)
    gray = strips.reshape(SIDE, columns, 3 * wide) @ _weights(wide)
    # In halves: for larger products OpenBLAS wakes threads, and every core has work already.
    return (gray.reshape(2, SIDE // 2, columns) @ _areas(columns)).reshape(SIDE, SIDE)


@functools.lru_cache(256)
def _two_rows(height: int) -> np.ndarray:
    """Returns the rows that stand for each of 64 areas, int [2, 64]."""
    quarters = (4 * np.arange(SIDE) + np.array([[1], [3]])) * height
    return quarters // (4 * SIDE)


@functools.lru_cache(256)
def _weights(wide: int) -> np.ndarray:
    """Returns the weights of the colours of neighbouring pixels, for the sum of two rows."""
    return np.tile(np.array(GRAY, np.float32) / (2 * wide), wide)


@functools.lru_cache(FINEST)
def _areas(number: int) -> np.ndarray:
    """Returns the shares of `number` pixels in each of 64, float32 [number, 64]."""
    ends = np.arange(SIDE + 1) * number / SIDE
    pixels = np.arange(number)[:, None]
    common = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    return (np.maximum(common, 0) * SIDE / number).astype(np.float32)


def _is_plain(image: np.ndarray) -> bool:
    height, width, _ = image.shape
    some = image[:: height // 10 + 1, :: width // 10 + 1]
    return bool((some == image[0, 0]).all()) and bool((image == image[0, 0]).all())
