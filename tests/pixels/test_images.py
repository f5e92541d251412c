"""One decode and one resize: right against Pillow, the same in every place they run."""

import hashlib
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from encoded import ANIMATION, FILES, blocks, encode, exif
from PIL import Image, ImageOps

from kerasft.input_rule import WHITE, InputRule, color_of
from kerasft.pixels import images
from kerasft.pixels.convert import as_readable
from kerasft.pixels.measure import Picture, measure_image


def by_pillow(encoded: bytes) -> np.ndarray:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return np.asarray(picture.convert("RGB")).astype(int)


def decode(encoded: bytes) -> np.ndarray:
    image = images.decode_image(encoded)
    assert image.dtype == tf.uint8
    return image.numpy().astype(int)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_jpeg_comes_out_upright(orientation, endian):
    encoded = encode(blocks(), "JPEG", quality=95, subsampling=0, exif=exif(orientation, endian))
    # TensorFlow's fast inverse cosine transform is off by 12 at hard edges; a wrong turn by 200.
    np.testing.assert_allclose(decode(encoded), by_pillow(encoded), atol=15)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_webp_comes_out_upright(orientation, endian):
    encoded = encode(blocks(), "WEBP", lossless=True, exif=exif(orientation, endian))
    np.testing.assert_array_equal(decode(encoded), by_pillow(encoded))


def test_the_eight_orientations_differ():  # the control of the tests above
    seen = {
        decode(encode(blocks(), "WEBP", lossless=True, exif=exif(n))).tobytes() for n in range(1, 9)
    }
    assert len(seen) == 8


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_every_kind_of_pixel_decodes_as_pillow_does(file_format, mode):
    picture = blocks().quantize(8) if mode == "P" else blocks().convert(mode)
    if mode == "RGBA" and file_format != "GIF":
        picture.putalpha(100)
    options = {"lossless": True} if file_format == "WEBP" else {}
    encoded = encode(picture, file_format, **options)
    np.testing.assert_array_equal(decode(encoded), by_pillow(encoded))


def test_a_lossy_webp_with_transparency_decodes():
    picture = blocks().convert("RGBA")
    picture.putalpha(100)
    image = decode(encode(picture, "WEBP", quality=95))
    # Lossy WebP halves the colours' resolution: off at the edges, right in the mean.
    assert np.abs(image - np.asarray(blocks()).astype(int)).mean() < 4


def test_a_cmyk_jpeg_becomes_rgb():
    encoded = encode(blocks().convert("CMYK"), "JPEG", quality=95, subsampling=0)
    np.testing.assert_allclose(decode(encoded), by_pillow(encoded), atol=18)


def test_of_16_bits_the_high_byte_is_kept():
    gray = np.array([[0, 255, 256], [0x1234, 0xFEFF, 0xFFFF]], "uint16")
    encoded = encode(Image.fromarray(gray), "PNG")
    np.testing.assert_array_equal(decode(encoded)[..., 0], [[0, 0, 1], [0x12, 0xFE, 0xFF]])


@pytest.mark.parametrize("name", ["animated gif", "animated webp"])
def test_of_an_animation_the_first_frame_is_taken(name):
    first = np.asarray(ANIMATION[0]).astype(int)
    # Lossy WebP halves the colours' resolution: off at the edges, right in the mean.
    assert np.abs(decode(FILES[name]) - first).mean() < (0.01 if "gif" in name else 4)


def test_a_frame_that_lies_inside_its_canvas_is_taken_alone():
    encoded = encode(blocks().quantize(8), "GIF")
    place = encoded.index(b",\0\0\0\0")
    moved = bytearray(encoded)
    moved[place + 1 : place + 5] = struct.pack("<HH", 7, 9)
    moved[6:10] = struct.pack("<HH", 100, 100)
    np.testing.assert_array_equal(decode(bytes(moved)), decode(encoded))


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_rather_than_half_gray(name):
    encoded, whole = FILES[name], decode(FILES[name])
    cuts = [*range(1, 12), *range(12, len(encoded), max(1, len(encoded) // 25))]
    refused = 0
    for cut in cuts:
        reason = measure_image(encoded[:-cut]).reason
        if not reason:  # behind the first frame
            np.testing.assert_array_equal(decode(encoded[:-cut]), whole)
        else:
            assert reason in ("is truncated", "is not a JPEG, PNG, GIF, BMP or WebP image")
            refused += 1
    assert refused > 5
    assert refused == len(cuts) or name in ("gif", "animated gif", "animated webp", "extended webp")


def png_that_says(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + bytes(50)


BOMBS = {
    "png": (png_that_says(40000, 40000), "40000x40000"),
    "largest png": (png_that_says(2**32 - 1, 2**32 - 1), "4294967295x4294967295"),
    "jpeg": (
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xfe\3" + bytes(50),
        "65534x65535",
    ),
    "gif": (b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\xff\xff\xff\xff" + bytes(50), "65535x65535"),
    "bmp": (
        FILES["bmp"][:18] + struct.pack("<ii", 50000, -50000) + FILES["bmp"][26:],
        "50000x50000",
    ),
    "webp": (
        b"RIFF\x20\0\0\0WEBPVP8L\0\1\0\0\x2f\xff\xff\xff\x0f" + bytes(50),
        "16384x16384",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header(name):
    encoded, size = BOMBS[name]
    expected = f"has {size} pixels, more than the 100,000,000 that kerasft reads"
    assert measure_image(encoded) == Picture(expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="has more than 100,000,000 pixels"):
        images.decode_image(encoded)


def test_a_jpeg_cannot_hide_its_frame_behind_more_segments_than_are_walked():
    harmless = b"\xff\xc4\0\x07\x08\0\1\0\1"  # reads like a frame of 1 x 1
    frame = BOMBS["jpeg"][0][2:]
    for number in (10, 5000):
        reason = measure_image(b"\xff\xd8" + number * harmless + frame).reason
        assert reason.startswith("has 65534x65535" if number == 10 else "is damaged: no size")


def test_an_image_of_the_largest_size_passes_the_check_of_its_header():
    assert measure_image(png_that_says(10000, 10000)) == Picture("is truncated")
    assert "has 10000x10001 pixels" in measure_image(png_that_says(10000, 10001)).reason


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "is not a JPEG, PNG, GIF, BMP or WebP image"),
        (
            b"%PDF-1.7",
            f"is a PDF file; kerasft reads {images.FORMATS}",
        ),
        (FILES["jpeg"][:50], "is truncated"),
        (b"\xff\xd8\xff\xd9" + bytes(50), "is damaged: no size in its header"),
        (png_that_says(0, 5), "is damaged: its header says no pixels"),
    ],
)
def test_the_reason_is_said_for_people(encoded, reason):
    assert measure_image(encoded) == Picture(reason)


def test_a_damaged_file_is_told_from_a_truncated_one():
    encoded = bytearray(FILES["png"])
    encoded[60] ^= 0xFF
    assert measure_image(bytes(encoded)) == Picture("is damaged")


def test_the_digest_of_pixels_counts_them_and_their_shape():
    pixels = np.arange(48, dtype=np.uint8)
    wide, square = (
        encode(Image.fromarray(pixels.reshape(s)), "PNG") for s in ((2, 8, 3), (4, 4, 3))
    )
    expected = hashlib.blake2b(b"(2, 8, 3)" + pixels.tobytes(), digest_size=16).hexdigest()
    assert measure_image(wide)[:2] == ("", expected)
    assert measure_image(square).pixels not in ("", expected)
    pixels[47] ^= 1
    changed = encode(Image.fromarray(pixels.reshape(2, 8, 3)), "PNG")
    assert measure_image(changed).pixels not in ("", expected)


# What each file of the folder is; "": it decodes.
TOO_LARGE = "has 65535x66601 pixels, more than the 100,000,000 that kerasft reads"
NASTY = {
    "animated_photo.gif": "",
    "background_outside_palette.gif": "",
    "broken_data_stream.png": "is truncated",
    "chi_animated.gif": "",
    "decompression_bomb.gif": TOO_LARGE,
    "exif_landscape_3.jpg": "",
    "exif_orientation3.webp": "",
    "exif_orientation8_hopper.jpg": "",
    "exif_portrait_5.jpg": "",
    "gray.jpg": "",
    "gray16_trns.png": "",
    "gray_alpha.png": "",
    "hopper.heif": "",
    "hopper.webp": "",
    "hopper_jpg.tif": "",
    "made_UPPER.JPG": "",
    "made_empty.jpg": "is empty",
    "made_png_named_as.jpg": "",
    "made_text_named.jpg": "is not a JPEG, PNG, GIF, BMP or WebP image",
    "made_truncated_header.jpg": "is truncated",
    "multipicture.mpo": "",
    "noise16.tif": "",
    "palette.gif": "",
    "palette_trns.png": "",
    "photo2.webp": "",
    "png16_apng.png": "",
    "rgb24.bmp": "",
    "rgba.png": "",
    "trns_1x1.png": "",
    "truncated_image.png": "is truncated",
}


def test_every_nasty_file_gets_its_verdict(assets):
    verdicts = {
        path.name: measure_image(path.read_bytes()).reason
        for path in sorted((assets / "nasty").iterdir())
    }
    assert verdicts == NASTY


@pytest.mark.parametrize("name", [name for name, reason in NASTY.items() if not reason])
def test_every_nasty_file_that_decodes_looks_as_in_pillow(assets, name):
    encoded = as_readable((assets / "nasty" / name).read_bytes())
    image = images.decode_image(encoded, WHITE).numpy().astype(int)
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if picture.mode == "I;16":  # Pillow would cut 16 bits off at 255
        numbers = np.asarray(picture).astype(int)
        gray = np.round(numbers / 257).astype(int)
        clear = picture.info.get("transparency", -1)
        gray[numbers == clear] = 255
        np.testing.assert_array_equal(image, np.repeat(gray[..., None], 3, 2))
        return
    white = Image.new("RGBA", picture.size, "white")
    reference = np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB"))
    assert image.shape == reference.shape
    # JPEG decoders round differently, and Pillow reduces 16 bits before it mixes colours.
    limit = 8 if name.endswith(("jpg", "JPG", "mpo")) else 1 if name == "png16_apng.png" else 0
    assert np.abs(image - reference).max() <= limit


def test_white_stays_white_and_halves_stay_in_place():
    picture = np.zeros((30, 40, 3), "uint8")
    picture[:, 20:] = 255
    small = images.resize_image(picture, 4, "stretch").numpy()
    assert small.shape == (4, 4, 3)
    np.testing.assert_allclose(small[0, :, 0], [0, 0, 255, 255], atol=40)  # the filter is 2 wide
    white = images.resize_image(np.full((300, 400, 3), 255, "uint8"), 224, "stretch").numpy()
    assert white.min() > 254.99 and white.max() == 255.0


def test_fine_stripes_become_gray_not_moire():
    stripes = np.zeros((80, 80, 3), "uint8")
    stripes[:, ::2] = 255
    small = images.resize_image(stripes, 16, "stretch").numpy()
    # The filter is 9 wide, and stripes of one colour have 13 of its 25 parts. Without it, a pixel
    # would be the stripe in its middle, 0 or 255 (of 64 pixels the mean of two, gray as well).
    expected = np.resize([122.4, 132.6], 14)
    np.testing.assert_allclose(small[..., 1:-1, 0], np.tile(expected, (16, 1)), atol=1e-3)


def test_crop_keeps_the_central_square():
    picture = np.zeros((20, 60, 3), "uint8")
    picture[:, 20:40] = 200
    assert images.resize_image(picture, 10, "crop").numpy().min() == 200
    assert images.resize_image(picture.transpose(1, 0, 2), 10, "crop").numpy().min() == 200


def test_pad_keeps_the_whole_image_between_black_borders():
    small = images.resize_image(np.full((20, 40, 3), 200, "uint8"), 8, "pad").numpy()
    np.testing.assert_allclose(
        small[..., 0], np.repeat([[0], [0], [200], [200], [200], [200], [0], [0]], 8, 1), atol=1e-3
    )
    narrow = images.resize_image(np.full((1000, 1, 3), 200, "uint8"), 8, "pad").numpy()
    np.testing.assert_allclose(narrow[0, :, 0], [0, 0, 0, 200, 0, 0, 0, 0], atol=1e-3)


def test_an_unknown_resize_mode_is_refused():
    with pytest.raises(ValueError, match="expected one of stretch, crop, pad, got 'zoom'"):
        images.resize_image(np.zeros((4, 4, 3)), 4, "zoom")


class Server(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def pixels(self, encoded):
        return tf.map_fn(
            lambda one: images.resize_image(images.decode_image(one), 32, "crop"),
            encoded,
            fn_output_signature=tf.TensorSpec([32, 32, 3], tf.float32),
        )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tf.saved_model.save(Server(), folder)
    return tf.saved_model.load(folder)


def eager_pixels() -> np.ndarray:
    return np.stack(
        [images.resize_image(images.decode_image(e), 32, "crop") for e in FILES.values()]
    )


def test_a_saved_model_sees_the_same_pixels(saved):
    np.testing.assert_array_equal(saved.pixels(list(FILES.values())), eager_pixels())


def test_a_saved_model_refuses_a_bomb(saved):
    with pytest.raises(tf.errors.InvalidArgumentError, match="has more than 100,000,000 pixels"):
        saved.pixels([BOMBS["png"][0]])


def test_a_pipeline_sees_the_same_pixels(tmp_path):
    paths = []
    for position, encoded in enumerate(FILES.values()):
        paths.append(str(tmp_path / f"{position}.jpg"))
        (tmp_path / f"{position}.jpg").write_bytes(encoded)
    pipeline = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: images.square_of(tf.io.read_file(path), InputRule(32, "crop")),
        num_parallel_calls=2,
    )
    assert pipeline.element_spec.shape == [32, 32, 3]
    np.testing.assert_array_equal(list(pipeline.as_numpy_iterator()), eager_pixels())


def test_a_pipeline_knows_what_a_decoded_image_is():
    pipeline = tf.data.Dataset.from_tensors(FILES["jpeg"]).map(images.decode_image)
    assert pipeline.element_spec.shape.as_list() == [None, None, 3]
    assert pipeline.element_spec.dtype == tf.uint8


def test_reading_stays_on_the_cpu():
    read = tf.function(images.decode_image, input_signature=[tf.TensorSpec([], tf.string)])
    graph = read.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    gathers = [node.device for node in nodes if node.op == "GatherV2"]
    assert len(gathers) > 5
    assert set(gathers) == {"/device:CPU:0"}


def decoded(encoded: bytes, background=WHITE, depth: int = 16, least: int = 0) -> np.ndarray:
    return images.decode_image(encoded, background, depth, least).numpy()


def in_colors(*colors: tuple[int, ...]) -> Image.Image:
    """Makes an image of one row."""
    return Image.fromarray(np.array([colors], np.uint8))


WHOLE = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}}
RED_UNDER_GLASS = in_colors((255, 0, 0, 255), (255, 0, 0, 127), (255, 0, 0, 0))


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        (WHITE, [[255, 0, 0], [255, 128, 128], [255, 255, 255]]),
        ((0, 0, 255), [[255, 0, 0], [127, 0, 128], [0, 0, 255]]),
        (None, [[255, 0, 0], [255, 0, 0], [255, 0, 0]]),  # as kerasft 0.2 did
    ],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparent_pixels_lie_on_the_background(format, background, expected):
    encoded = encode(RED_UNDER_GLASS, format, **WHOLE[format])
    assert decoded(encoded, background).tolist() == [expected]


def test_a_transparent_colour_of_a_palette_or_of_gray_lies_on_the_background():
    palette = in_colors((10, 20, 30), (40, 50, 60)).quantize(2)
    clear = palette.getpixel((1, 0))
    gray = Image.fromarray(np.array([[7, 9]], np.uint8))
    for encoded, first in (
        (encode(palette, "PNG", transparency=clear), [10, 20, 30]),
        (encode(palette, "GIF", transparency=clear), [10, 20, 30]),
        (encode(gray, "PNG", transparency=9), [7, 7, 7]),
    ):
        assert decoded(encoded).tolist() == [[first, [255, 255, 255]]]


def test_a_frame_of_a_gif_lies_at_its_place_on_the_canvas():
    encoded = bytearray(encode(in_colors((10, 20, 30), (40, 50, 60)).quantize(2), "GIF"))
    frame = encoded.index(b",\0\0\0\0\2\0\1\0")
    encoded[6:10] = bytes([4, 0, 3, 0])  # the canvas: 4 x 3
    encoded[frame + 1 : frame + 5] = bytes([1, 0, 2, 0])  # the frame begins at 1, 2
    image = decoded(bytes(encoded))
    assert image.shape == (3, 4, 3)
    assert image[2].tolist() == [[255] * 3, [10, 20, 30], [40, 50, 60], [255] * 3]
    assert (image[:2] == 255).all()
    assert decoded(bytes(encoded), None).shape == (1, 2, 3)  # as kerasft 0.2 did


def on_white(encoded: bytes) -> np.ndarray:
    """Decodes with Pillow, on a white canvas."""
    first = Image.open(io.BytesIO(encoded)).convert("RGBA")
    canvas = Image.new("RGBA", first.size, (255, 255, 255, 255))
    canvas.alpha_composite(first)
    return np.asarray(canvas.convert("RGB"))


def half_clear() -> Image.Image:
    """A picture whose borders are transparent, and its lower right corner half so."""
    pixels = np.array(blocks().convert("RGBA"))
    pixels[20:, 30:, 3] = 100
    pixels[:10] = pixels[:, :8] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_transparent_webp_lies_on_the_background_at_its_place(lossless, frames):
    options = {"lossless": lossless, "quality": 90}
    if frames > 1:  # Pillow writes the part that is not transparent, and its place
        options |= {"save_all": True, "append_images": [blocks().convert("RGBA")]}
    encoded = encode(half_clear(), "WEBP", **options)
    assert (b"ALPH" in encoded, b"ANMF" in encoded) == (not lossless, frames > 1)
    np.testing.assert_array_equal(decoded(encoded), on_white(encoded))
    shape = (30, 52, 3) if frames > 1 else (40, 60, 3)
    assert decoded(encoded, None).shape == shape  # as kerasft 0.2 did


def bmp_of_32_bits(alpha: bytes) -> bytes:
    """A BMP of one row, red, with these opacities, as programs write it since Windows 98."""
    masks = bytes([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255])
    fields = struct.pack("<IiiHHIIiiII", 124, len(alpha), 1, 1, 32, 3, 0, 0, 0, 0, 0)
    pixels = b"".join(bytes([0, 0, 200, one]) for one in alpha)
    size = struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138)
    return b"BM" + size + fields + masks.ljust(84, b"\0") + pixels


def test_a_transparent_bmp_lies_on_the_background_unless_all_of_it_is_clear():
    encoded = bmp_of_32_bits(bytes([255, 127, 0]))
    assert decoded(encoded).tolist() == [[[200, 0, 0], [228, 128, 128], [255, 255, 255]]]
    np.testing.assert_array_equal(decoded(encoded), on_white(encoded))
    assert decoded(encoded, None).tolist() == [[[200, 0, 0]] * 3]  # as kerasft 0.2 did
    assert decoded(bmp_of_32_bits(bytes(3))).tolist() == [[[200, 0, 0]] * 3]


def test_large_images_are_computed_in_strips_and_are_the_same(monkeypatch):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50, 30, 4), np.uint8)
    deep = random.integers(0, 4096, (50, 30), np.uint16)
    files = {
        "RGBA": encode(Image.fromarray(pixels), "PNG"),
        "I;16": encode(Image.fromarray(deep), "PNG"),
        "deep RGBA": tf.io.encode_png(pixels.astype(np.uint16) * 257).numpy(),
    }
    whole = {mode: decoded(encoded, depth=12) for mode, encoded in files.items()}
    monkeypatch.setattr(images, "STRIP", 7 * 30)
    images._decoder.cache_clear()
    for mode, encoded in files.items():
        np.testing.assert_array_equal(decoded(encoded, depth=12), whole[mode], err_msg=mode)
    images._decoder.cache_clear()


def test_the_depth_says_which_number_is_white():
    values = np.array([[0, 100, 255, 2048, 4095, 65535]], np.uint16)
    encoded = encode(Image.fromarray(values), "PNG")
    assert decoded(encoded, depth=8)[0, :, 0].tolist() == [0, 100, 255, 255, 255, 255]
    assert decoded(encoded, depth=12)[0, :, 0].tolist() == [0, 6, 16, 128, 255, 255]
    assert decoded(encoded, depth=16)[0, :, 0].tolist() == [0, 0, 1, 8, 16, 255]
    assert decoded(encoded, None)[0, :, 0].tolist() == [0, 0, 0, 8, 15, 255]  # the upper 8 bits


def test_the_scan_knows_the_largest_number_and_tells_equal_high_bytes_apart():
    dark, other = (np.array([[at, 3000]], np.uint16) for at in (10, 11))
    first, second = (measure_image(encode(Image.fromarray(a), "PNG")) for a in (dark, other))
    assert (first.peak, first.kind) == (3000, "")
    assert first.pixels != second.pixels  # both are 0 in the upper 8 bits


@pytest.mark.parametrize(
    ("least", "size"),
    [(0, (640, 480)), (241, (640, 480)), (240, (320, 240)), (60, (80, 60)), (1, (80, 60))],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(least, size):
    encoded = encode(blocks().resize((640, 480)), "JPEG", quality=95)
    assert decoded(encoded, least=least).shape == (size[1], size[0], 3)
    png = encode(blocks().resize((640, 480)), "PNG")
    assert decoded(png, least=least).shape == (480, 640, 3)


def test_a_part_of_the_size_hardly_changes_what_the_model_sees():
    y, x = np.mgrid[0:960, 0:1280]
    wavy = 127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 13)
    pixels = np.stack([wavy, wavy[::-1], wavy[:, ::-1]], -1).astype(np.uint8)
    encoded = encode(Image.fromarray(pixels), "JPEG", quality=95)
    rule = InputRule(224, "stretch", WHITE, 8)
    assert decoded(encoded, least=rule.least()).shape == (480, 640, 3)
    small = images.square_of(encoded, rule).numpy()
    full = images.resize_image(decoded(encoded), 224, "stretch").numpy()
    assert np.abs(small - full).mean() < 0.7  # of 255; 0.58 here
    assert np.abs(small - full).max() < 8


def test_a_cut_out_part_keeps_twice_the_pixels_too():
    rule = InputRule(100, "stretch", WHITE, 8)
    assert (rule.least(), rule.least(0.5), InputRule(100).least(0.5)) == (200, 327, 0)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_orientation_of_a_png_turns_it(orientation):
    image = in_colors((1, 2, 3), (4, 5, 6), (7, 8, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(image, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(decoded(encoded), np.asarray(upright))
    assert measure_image(encoded).width == upright.width


def test_a_rule_goes_to_a_file_and_back_and_that_of_older_models_has_two_fields():
    rule = InputRule(224, "pad", (1, 2, 3), 12)
    assert InputRule.from_json(rule.to_json()) == rule
    assert InputRule(96).to_json() == {"image_size": 96, "resize": "stretch"}
    assert InputRule.from_json({"image_size": 96, "resize": "crop"}) == (96, "crop", None, 16)
    assert [color_of(name) for name in ("white", "#0a0B0c", "drop")] == [WHITE, (10, 11, 12), None]
