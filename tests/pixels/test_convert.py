"""Images that Pillow converts, because TensorFlow cannot read them."""

import io
import struct

import numpy as np
import pytest
from encoded import blocks, encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasft.errors import Unreadable
from kerasft.input_rule import WHITE
from kerasft.pixels import convert, images
from kerasft.pixels.convert import Converted, as_readable, has_pages, kind_of
from kerasft.pixels.measure import measure_image

PICTURE = np.asarray(blocks().convert("RGB"))
DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        ("TIFF", encode(blocks(), "TIFF")),
        ("TIFF", encode(blocks(), "TIFF", compression="tiff_lzw")),
        ("JPEG 2000", encode(blocks(), "JPEG2000", irreversible=False)),
    ],
)
def test_what_tensorflow_cannot_read_is_converted_without_loss(kind, encoded):
    assert kind_of(encoded) == kind
    np.testing.assert_array_equal(images.decode_image(as_readable(encoded)), PICTURE)
    found = measure_image(encoded)
    assert (found.reason, found.kind, found.width) == ("", kind, PICTURE.shape[1])


@pytest.mark.parametrize("mode", ["1", "P"])
def test_the_rarer_kinds_of_bmp_are_converted(mode):
    image = blocks().convert("RGB")
    image = image.convert("1") if mode == "1" else image.quantize(8)
    encoded = encode(image, "BMP")
    assert kind_of(encoded) == ("BMP" if mode == "1" or encoded[28] != 8 else "")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(images.decode_image(as_readable(encoded)), expected)


def test_an_avif_looks_like_the_picture():
    converted = images.decode_image(as_readable(encode(blocks(), "AVIF", quality=95))).numpy()
    assert np.abs(converted.astype(int) - PICTURE).mean() < 8


def test_a_tiff_of_16_bits_keeps_them():
    found = measure_image(encode(Image.fromarray(DEEP), "TIFF"))
    assert (found.reason, found.peak) == ("", 4095)
    made = Image.open(io.BytesIO(as_readable(encode(Image.fromarray(DEEP), "TIFF"))))
    np.testing.assert_array_equal(np.asarray(made), DEEP)


def test_a_file_is_converted_once_and_a_damaged_copy_of_it_is_made_again(monkeypatch):
    encoded = encode(blocks(), "TIFF")
    made = as_readable(encoded)
    assert convert.report() == Converted(1, len(made))
    with monkeypatch.context() as without:
        without.setattr(convert, "_convert", None)  # fails if it is called
        assert as_readable(encoded) == made
    (kept,) = convert._folder().iterdir()
    kept.write_bytes(made[:100])  # a crash of the machine
    assert as_readable(encoded) == made
    assert convert.clear() == Converted(1, len(made))
    assert convert.report() == Converted(0, 0)


def test_a_file_that_must_not_be_kept_leaves_no_trace(tmp_path):
    encoded = encode(blocks(), "TIFF")
    made = as_readable(encoded, keep=False)
    np.testing.assert_array_equal(images.decode_image(made), PICTURE)
    assert not (tmp_path / "cache").exists()


def test_old_conversions_go_when_they_are_too_many(monkeypatch):
    monkeypatch.setattr(convert, "LIMIT", 2000)
    for shade in range(5):
        noise = np.random.default_rng(shade).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        as_readable(encode(Image.fromarray(noise), "TIFF"))
    assert convert.report().converted_files == 2
    assert convert.report().converted_bytes <= 2000


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"II*\0" + bytes(50), "is a damaged TIFF file"),
        (b"\0\0\0\x20ftypheic" + bytes(60), "is a damaged HEIC file"),
        (encode(blocks(), "TIFF")[:3000], "is truncated"),
        (
            encode(Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
            "is a TIFF file of floating-point numbers, whose range is unknown",
        ),
        (
            encode(Image.fromarray(DEEP.astype(np.int32) - 1), "TIFF"),
            "is a TIFF file with numbers from -1 to 4,094, not 0 to 65,535",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(encoded, reason):
    with pytest.raises(Unreadable) as refused:
        as_readable(encoded)
    assert str(refused.value).startswith(reason)
    assert measure_image(encoded).reason.startswith(reason)


def test_without_the_extra_a_heic_file_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pi_heif", None)
    with pytest.raises(Unreadable) as refused:
        as_readable(b"\0\0\0\x20ftypheic" + bytes(60))
    assert (
        str(refused.value) == 'is a HEIC file; `pip install "kerasft[heif]"` lets kerasft read it'
    )


def test_real_files_of_a_phone_and_a_scanner_are_read(assets):
    for name, size in (("hopper.heif", 128), ("hopper_jpg.tif", 128), ("noise16.tif", 32)):
        found = measure_image((assets / "nasty" / name).read_bytes())
        assert (found.reason, found.width, found.height) == ("", size, size)


CONVERTED = {
    "tiff": encode(blocks(), "TIFF"),
    "lzw": encode(blocks(), "TIFF", compression="tiff_lzw"),
    "deep": encode(Image.fromarray(DEEP), "TIFF"),
    "jpeg2000": encode(blocks(), "JPEG2000"),
    "avif": encode(blocks(), "AVIF"),
    "bmp": encode(blocks().convert("1"), "BMP"),
}


@settings(
    deadline=None, max_examples=200, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(
    st.sampled_from(sorted(CONVERTED)),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=6),
    st.integers(0, 3000),
)
def test_damaged_files_give_a_picture_or_a_reason(name, changes, cut):
    encoded = bytearray(CONVERTED[name])
    for place, value in changes:
        encoded[place % len(encoded)] = value
    found = measure_image(bytes(encoded[: len(encoded) - cut]))
    assert bool(found.reason) != bool(found.pixels)


def tiff_of(order, *kinds):
    """A TIFF of directories that say nothing but what they are (None: not even that)."""
    encoded = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    for number, kind in enumerate(kinds, 1):
        tag = 256 if kind is None else 254
        entry = struct.pack(order + "HHHII", 1, tag, 4, 1, kind or 0)
        at = len(encoded) + len(entry) + 4
        encoded += entry + struct.pack(order + "I", at if number < len(kinds) else 0)
    return encoded


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kinds", "pages"),
    [
        ([None], False),
        ([None, None], True),
        ([0, 2], True),  # a page of a document
        ([None, 1], False),  # a smaller version
        ([None, 4], False),  # a mask
        ([None, 1, 0], True),
    ],
)
def test_pages_of_a_tiff_are_told_from_smaller_versions_and_masks(order, kinds, pages):
    assert has_pages(tiff_of(order, *kinds)) == pages


def test_a_tiff_in_a_circle_has_been_counted_enough():
    encoded = bytearray(tiff_of("<", None, 1))
    encoded[-4:] = struct.pack("<I", len(tiff_of("<", None)))
    assert not has_pages(bytes(encoded))


def test_of_a_tiff_with_pages_the_first_is_read():
    turned = blocks().rotate(180)
    encoded = encode(blocks(), "TIFF", save_all=True, append_images=[turned])
    assert measure_image(encoded).kind == "multi-page TIFF"
    np.testing.assert_array_equal(images.decode_image(as_readable(encoded)), PICTURE)
    assert measure_image(encode(blocks(), "TIFF")).kind == "TIFF"


def test_a_bmp_that_is_converted_is_shown_where_all_of_it_is_clear():
    masks = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)  # as in no common BMP
    fields = struct.pack("<IiiHHIIiiII", 124, 2, 1, 1, 32, 3, 0, 0, 0, 0, 0)
    head = b"BM" + struct.pack("<IHHI", 146, 0, 0, 138) + fields + masks.ljust(84, b"\0")
    for alpha, expected in (((0, 0), [[200, 0, 0]] * 2), ((255, 0), [[200, 0, 0], [255] * 3])):
        encoded = head + b"".join(bytes([200, 0, 0, one]) for one in alpha)
        assert kind_of(encoded) == "BMP"
        image = images.decode_image(as_readable(encoded), WHITE)
        assert image.numpy().tolist() == [expected]
