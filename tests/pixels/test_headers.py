"""Header and EXIF bytes, read in the graph: right on real files, harmless on broken ones."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from encoded import FILES, PHOTO, blocks, encode, exif
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasft.pixels import headers, images
from kerasft.pixels.convert import kind_of
from kerasft.pixels.measure import measure_image

NO_DEADLINE = settings(
    deadline=None, max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True
)


def read(encoded: bytes) -> tuple[str, int, int]:
    file_format, height, width = images.header(encoded)
    assert headers.format_of(encoded[:64]) == file_format
    return file_format.numpy().decode(), int(height), int(width)


@pytest.mark.parametrize("name", FILES)
def test_format_and_size_are_read_from_the_header(name):
    expected = name.split()[-1]
    assert read(FILES[name]) == (expected, 40, 60)


@pytest.mark.parametrize("side", [(1, 1), (3, 255), (257, 2), (300, 16000)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_all_bytes_of_a_size_are_read(side, file_format):
    width, height = side
    encoded = encode(Image.new("RGB", (width, height)), file_format)
    assert read(encoded) == (file_format.lower(), height, width)


def test_a_bmp_from_the_top_down_has_a_positive_height():
    encoded = bytearray(FILES["bmp"])
    encoded[22:26] = struct.pack("<i", -40)
    assert read(bytes(encoded)) == ("bmp", 40, 60)


def test_a_jpeg_is_read_past_padding_and_a_large_profile():
    segment = b"\xff\xe2" + struct.pack(">H", 65535) + bytes(65533)
    encoded = PHOTO[:2] + 5 * segment + b"\xff\xff\xff" + PHOTO[2:]
    assert read(encoded) == ("jpeg", 40, 60)
    assert images.exif_orientation(encoded) == 6


@pytest.mark.parametrize("encoded", [b"", b"\xff", b"BM", b"GIF89a", b"hello", bytes(100)])
def test_what_is_no_image_has_no_size(encoded):
    assert read(encoded)[1:] == (0, 0)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read(orientation, file_format, endian):
    encoded = encode(blocks(), file_format, exif=exif(orientation, endian))
    assert (b"II*\0" if endian == "<" else b"MM\0*") in encoded
    assert images.exif_orientation(encoded) == orientation


def test_orientation_is_read_from_a_webp_whose_block_has_the_prefix_of_a_jpeg():
    plain = exif(6).removeprefix(b"Exif\0\0")
    with_prefix = encode(blocks(), "WEBP", exif=exif(6))
    assert images.exif_orientation(with_prefix) == 6
    other = b"Exif\0\0" + plain if b"Exif\0\0" not in with_prefix else plain
    chunk = with_prefix.index(b"EXIF")
    encoded = with_prefix[:chunk] + b"EXIF" + struct.pack("<I", len(other)) + other
    assert images.exif_orientation(encoded) == 6


@pytest.mark.parametrize("name", ["png", "gif", "bmp", "webp", "progressive jpeg"])
def test_a_file_without_exif_is_upright(name):
    assert images.exif_orientation(FILES[name]) == 1


def with_exif_block(block: bytes) -> bytes:
    """Makes a JPEG whose EXIF block is exactly `block`."""
    content = b"Exif\0\0" + block
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(content) + 2) + content + PHOTO[2:]


def entry(value: int, *, tag: int = 0x0112, kind: int = 3, number: int = 1) -> bytes:
    return struct.pack("<HHIHH", tag, kind, number, value, 0)


def directory(*entries: bytes, count: int | None = None, offset: int = 8) -> bytes:
    count = len(entries) if count is None else count
    return b"II*\0" + struct.pack("<IH", offset, count) + b"".join(entries) + bytes(4)


def test_a_handmade_block_is_read():  # the control of the next test
    assert images.exif_orientation(with_exif_block(directory(entry(6)))) == 6
    assert images.exif_orientation(with_exif_block(directory(entry(6), count=500))) == 6


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"MM*\0" + directory(entry(6))[4:],
        directory(entry(0)),
        directory(entry(9)),
        directory(entry(0xFFFF)),
        directory(entry(6, tag=0x0113)),
        directory(entry(6, kind=2)),
        directory(entry(6, number=2)),
        directory(entry(6), offset=0xFFFFFFFF),
        directory(entry(6), offset=0x7FFFFFFF),
        directory(entry(6), offset=0),
        directory(entry(6), count=0),
        directory(entry(6))[:16],
    ],
)
def test_a_malformed_block_means_upright(block):
    encoded = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
    assert images.exif_orientation(encoded) == 1


def test_a_block_ends_where_its_segment_ends():
    block = directory(entry(6))
    content = b"Exif\0\0" + block
    encoded = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(content) + 2 - 10) + content
    assert images.exif_orientation(encoded) == 1


@NO_DEADLINE
@given(
    st.sampled_from(["jpeg", "extended webp"]),
    st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), max_size=12),
    st.integers(0, 400),
)
def test_no_mutation_breaks_the_orientation(name, changes, cut):
    encoded = bytearray(FILES[name])
    if name == "extended webp":  # where the block is: at the end
        changes = [(len(encoded) - 1 - position, value) for position, value in changes]
    for position, value in changes:
        encoded[position] = value
    assert 1 <= int(images.exif_orientation(bytes(encoded[: len(encoded) - cut]))) <= 8


@NO_DEADLINE
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6),
    st.integers(0, 300),
)
def test_no_mutation_breaks_the_check(name, changes, cut):
    encoded = bytearray(FILES[name])
    for position, value in changes:
        encoded[position % len(encoded)] = value
    encoded = encoded[: max(0, len(encoded) - cut)]
    reason, pixels, *_ = measure_image(bytes(encoded))
    assert bool(pixels) != bool(reason)
    assert not reason or reason.startswith(("is ", "has more", "has "))


@NO_DEADLINE
@given(st.binary(max_size=200))
def test_no_bytes_break_the_header(encoded):
    for start in (b"", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"BM"):
        assert read(start + encoded)[1] >= 0


def test_walks_through_hostile_files_end():
    fill = b"\xff\xd8" + b"\xff" * 100_000
    extensions = FILES["gif"][:13] + b"!\xfe\1\0" * 50_000
    tiny_blocks = FILES["gif"][:13] + b"!\xfe" + b"\1\0" * 50_000
    chunks = b"RIFF\0\0\0\0WEBP" + b"none\0\0\0\0" * 50_000
    for encoded in (fill, extensions, tiny_blocks, chunks):
        assert read(encoded)[1:] == (0, 0)
        assert measure_image(encoded).reason


def test_a_gif_is_cut_down_to_its_first_frame():
    encoded = FILES["animated gif"]
    assert Image.open(io.BytesIO(encoded)).n_frames == 3
    content = headers.bytes_of(tf.constant(encoded))
    frame = headers.read_header(content)[1].frame
    cut = headers.gif_frame(encoded, content, frame, None).encoded.numpy()
    assert Image.open(io.BytesIO(cut)).n_frames == 1
    np.testing.assert_array_equal(images.decode_image(cut), images.decode_image(encoded))


def test_a_webp_animation_is_cut_down_to_its_first_frame():
    encoded = FILES["animated webp"]
    assert Image.open(io.BytesIO(encoded)).n_frames == 3
    content = headers.bytes_of(tf.constant(encoded))
    frame = headers.read_header(content)[1].frame
    cut = headers.webp_frame(encoded, content, frame, transparent=False).numpy()
    first = Image.open(io.BytesIO(cut))
    assert (first.n_frames, first.size) == (1, (60, 40))


def bmp_head(size, bits, packing, masks, length):
    """A BMP file with fields of its header as given, cut or filled to a length."""
    head = b"BM" + bytes(12) + struct.pack("<IiiHHI", size, 4, 3, 1, bits, packing)
    return (head.ljust(54, b"\0") + masks).ljust(length, b"\0")[:length]


@NO_DEADLINE
@given(
    size=st.sampled_from([0, 12, 16, 39, 40, 52, 56, 64, 108, 124, 2**31]),
    bits=st.sampled_from([0, 1, 4, 8, 16, 24, 32, 64]),
    packing=st.sampled_from([0, 1, 2, 3, 4, 6]),
    masks=st.sampled_from(
        [
            bytes([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255]),
            bytes([255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255]),
            bytes(16),
        ]
    ),
    length=st.sampled_from([54, 66, 70, 200]),
)
def test_pillow_converts_the_bmp_files_that_the_header_does_not_know(
    size, bits, packing, masks, length
):
    encoded = bmp_head(size, bits, packing, masks, length)
    problem = headers.read_header(headers.bytes_of(tf.constant(encoded)))[1].problem
    assert (kind_of(encoded) == "BMP") == (problem.numpy() == headers.ODD_BMP)


def of_place(encoded, left, top):
    """Moves the first frame of an animated WebP on its canvas."""
    at = encoded.index(b"ANMF") + 8
    place = (left // 2).to_bytes(3, "little") + (top // 2).to_bytes(3, "little")
    return encoded[:at] + place + encoded[at + 6 :]


def test_a_frame_off_the_canvas_of_a_webp_is_refused():
    for left, top, off in ((0, 0, False), (2, 0, True), (0, 2, True)):
        encoded = of_place(FILES["animated webp"], left, top)
        reason = measure_image(encoded).reason
        assert reason == ("is damaged: its first frame lies off its canvas" if off else "")
