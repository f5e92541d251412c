"""Files decoded outside of a graph: the quick way gives what the long one does."""

import numpy as np
import pytest
import tensorflow as tf
from encoded import FILES, PHOTO, blocks, encode, exif
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasft.input_rule import WHITE, InputRule
from kerasft.pixels import images
from kerasft.pixels.decode import (
    _is_opaque_png,
    _size_of_upright_jpeg,
    decode_file,
    decode_in_pipeline,
    is_common,
    read_squares,
    square_of_file,
)


def test_common_files_are_decoded_the_quick_way():
    jpeg, upright = encode(blocks(), "JPEG"), encode(blocks(), "JPEG", exif=exif(1))
    assert [_size_of_upright_jpeg(one) for one in (jpeg, upright, PHOTO)] == [
        (40, 60),
        (40, 60),
        None,
    ]
    grays = blocks().convert("L")
    pngs = (FILES["png"], encode(grays, "PNG"), encode(blocks().convert("RGBA"), "PNG"),
            encode(blocks(), "PNG", transparency=(250, 20, 30)))  # fmt: skip
    assert [_is_opaque_png(one) for one in pngs] == [True, True, False, False]
    cmyk = encode(blocks().convert("CMYK"), "JPEG")
    assert _size_of_upright_jpeg(cmyk) is None


MORE = FILES | {
    "upright": encode(blocks(), "JPEG", exif=exif(1)),
    "big-endian": encode(blocks(), "JPEG", exif=exif(1, ">")),
    "gray": encode(blocks().convert("L"), "JPEG"),
    "gray png": encode(blocks().convert("L"), "PNG"),
}


def outcome(decode, encoded: bytes, least: int) -> list:
    """The pixels, or nothing if the file does not decode."""
    try:
        return np.asarray(decode(encoded, WHITE, 8, least)).tolist()
    except tf.errors.InvalidArgumentError:
        return []


@settings(
    deadline=None, max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(
    st.sampled_from(sorted(name for name in MORE if "p" in name or "gr" in name)),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 1) | st.integers(0, 300),
    st.sampled_from([0, 5, 10, 20, 40, 41]),  # of 40 pixels: all, an eighth, ... all
)
def test_the_quick_way_of_decoding_gives_what_the_long_one_does(name, changes, cut, least):
    encoded = bytearray(MORE[name])
    for position, value in changes:
        encoded[position % len(encoded)] = value
    encoded = bytes(encoded[: max(0, len(encoded) - cut)])
    assert outcome(decode_file, encoded, least) == outcome(images.decode_image, encoded, least)


@pytest.mark.parametrize(
    ("least", "height"), [(0, 40), (5, 5), (10, 10), (11, 20), (20, 20), (21, 40)]
)
def test_a_jpeg_is_decoded_at_the_part_of_its_size_that_is_asked_for(least, height):
    assert decode_file(encode(blocks(), "JPEG"), WHITE, 8, least).shape[0] == height


def test_what_is_uncommon_is_the_same_step_by_step_and_in_the_graph():
    files = [*FILES.values(), encode(blocks().convert("RGBA"), "PNG"), b"hello"]
    assert [is_common(one) for one in files] == [False, True, True, *9 * [False]]
    for encoded in files:
        assert outcome(decode_in_pipeline, encoded, 10) == outcome(images.decode_image, encoded, 10)


def test_squares_are_those_of_the_graph_and_a_file_that_is_none_says_why():
    rule = InputRule(8, "crop", WHITE, 8)
    files = [FILES["jpeg"], b"hello", PHOTO, FILES["png"][:-30], FILES["gif"]]
    squares, errors = read_squares(files, rule)
    expected, problems = images.squares_of(tf.constant(files), rule)
    np.testing.assert_array_equal(squares, expected)
    assert errors == ["", "is not a JPEG, PNG, GIF, BMP or WebP image", "", "is truncated", ""]
    assert [error == "" for error in errors] == [one == b"" for one in problems.numpy()]
    np.testing.assert_array_equal(square_of_file(PHOTO, rule), squares[2])
    assert read_squares([], rule)[0].shape == (0, 8, 8, 3)
