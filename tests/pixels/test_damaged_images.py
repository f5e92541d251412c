"""Damaged and hostile images: decoded to the model's input, or a reason in plain text.

A hundred of each are in the fast `test_headers.py`, `test_measure.py` and `test_convert.py`.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from damaged import MANY, Place, damaged, prove, survives
from encoded import FILES, PHOTO, blocks, encode
from hypothesis import strategies as st
from PIL import Image

from kerasft.input_rule import MAX_PIXELS, InputRule
from kerasft.pixels.images import squares_of
from kerasft.pixels.measure import Picture, measure_image
from kerasft.text import is_writable

RULE = InputRule(32, "pad", (255, 255, 255), 8)
CONVERTED = {
    "tiff": encode(blocks(), "TIFF", compression="tiff_lzw"),
    "palette png": encode(blocks().convert("P"), "PNG", transparency=3),
    "deep png": encode(Image.fromarray(np.full((9, 7), 4_000, "uint16")), "PNG"),
    "jpeg 2000": encode(blocks(), "JPEG2000"),
    "cmyk jpeg": encode(blocks().convert("CMYK"), "JPEG"),
    "gray tiff": encode(Image.fromarray(np.full((9, 7), 4_000, "uint16")), "TIFF"),
}
ALL = [*FILES.values(), *CONVERTED.values()]
SIDES = st.sampled_from([0, 1, 2, 255, 10_001, 65_535, 2**24 - 1, 2**31 - 1, 2**32 - 1])


def png_of(width: int, height: int) -> bytes:
    """Writes a PNG of another size than its pixels, with the right checksum."""
    content = bytearray(FILES["png"])
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def jpeg_of(width: int, height: int) -> bytes:
    content = bytearray(encode(blocks(), "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    return bytes(content)


def bmp_of(width: int, height: int) -> bytes:
    content = bytearray(FILES["bmp"])
    content[18:26] = struct.pack("<II", width, height)
    return bytes(content)


def gif_of(width: int, height: int) -> bytes:
    content = bytearray(FILES["gif"])
    content[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    return bytes(content)


def tiff_of(width: int, height: int) -> bytes:
    content = CONVERTED["tiff"]
    for number, side in ((256, width), (257, height)):
        at = content.index(struct.pack("<HH", number, content_type(content, number)))
        content = content[: at + 8] + struct.pack("<I", side) + content[at + 12 :]
    return content


def content_type(content: bytes, number: int) -> int:
    """Returns the type in which a TIFF file has a number of its directory."""
    return next(kind for kind in (3, 4) if struct.pack("<HH", number, kind) in content)


SIZES = st.builds(
    lambda write, width, height: write(width, height),
    st.sampled_from([png_of, jpeg_of, bmp_of, gif_of, tiff_of]),
    SIDES,
    SIDES,
)


@pytest.mark.slow
def test_a_damaged_image_is_pixels_or_a_reason(tmp_path, own_cache):
    place = Place.of(tmp_path, "photo", own_cache)  # what Pillow has converted is kept there
    # Traced once, as in an export.
    squares = tf.function(lambda encoded: squares_of(encoded, RULE))
    for encoded in (b"", PHOTO[:200]):  # traces what looks for a reason
        assert measure_image(encoded).reason
        squares(tf.constant([encoded]))
    for encoded in ALL:  # imports what converting needs
        assert measure_image(encoded).pixels, measure_image(encoded)
        error = squares(tf.constant([encoded]))[1][0].numpy()
        assert not error or encoded in CONVERTED.values()  # by Pillow, which no export has

    def is_answered(found):
        picture, pixels, errors = found
        assert isinstance(picture, Picture)
        pixels, error = pixels.numpy(), errors[0].numpy().decode()
        assert pixels.shape == (1, 32, 32, 3) and pixels.dtype == np.float32
        assert np.isfinite(pixels).all() and (pixels >= 0).all() and (pixels <= 255).all()
        assert picture.height * picture.width <= MAX_PIXELS or picture.reason
        for text in (picture.reason, error):
            assert is_writable(text) and len(text) < 300
            assert not text or text.startswith(("is ", "has ", "needs "))
        return bool(picture.pixels) != bool(picture.reason)

    def check(content):
        survives(
            place,
            content,
            lambda: (measure_image(content), *squares(tf.constant([content]))),
            is_answered,
            bounded=False,
        )

    prove(MANY, damaged(*ALL) | SIZES | st.binary(max_size=64), check, [b"", PHOTO[:2]])


@pytest.mark.slow
def test_what_is_drawn_is_an_image_but_for_its_size():
    for write in (png_of, jpeg_of, bmp_of, gif_of, tiff_of):
        assert Image.open(io.BytesIO(write(60, 40))).size == (60, 40)
        reason = measure_image(write(60_000, 50_000)).reason
        assert "pixels" in reason and "more than" in reason
