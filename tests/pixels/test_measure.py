"""Facts of an image, right by hand."""

import numpy as np
import pytest
import tensorflow as tf
from encoded import FILES, PHOTO, blocks, encode
from PIL import Image, ImageFilter

from kerasft.pixels import measure
from kerasft.pixels.measure import Picture, measure_image, shrink


def png(pixels) -> bytes:
    return encode(Image.fromarray(np.array(pixels)), "PNG")


def gray_png(values: np.ndarray) -> bytes:
    return png(np.repeat(values[:, :, None], 3, axis=2).astype(np.uint8))


def edge(height: int, width: int) -> np.ndarray:
    """A picture that is black on the left and white on the right."""
    return np.tile(np.where(np.arange(width) < width // 2, 0, 255), (height, 1))


def test_the_facts_of_an_edge_are_those_computed_by_hand():
    found = measure_image(gray_png(edge(64, 64)))
    assert (found.reason, found.height, found.width, found.plain) == ("", 64, 64, False)
    assert found.brightness == 127.5
    # Of 62 columns with neighbours, one has the Laplacian -255 and one 255.
    assert found.sharpness == pytest.approx(2 * 255**2 / 62, abs=0.001)
    assert found.peak == 0


def test_a_larger_picture_of_the_same_has_the_same_brightness_and_sharpness():
    small, large = measure_image(gray_png(edge(128, 128))), measure_image(gray_png(edge(640, 640)))
    assert (large.brightness, large.sharpness) == (small.brightness, small.sharpness)
    assert large.look == small.look


def test_height_and_width_are_upright():
    found = measure_image(PHOTO)  # stored with 40 rows, to be turned by a quarter
    assert (found.height, found.width) == (60, 40)


def test_colours_count_for_brightness_as_the_eye_sees_them():
    shades = [measure_image(png(np.full((4, 4, 3), colour, np.uint8))).brightness
              for colour in ([200, 0, 0], [0, 200, 0], [0, 0, 200])]  # fmt: skip
    assert shades == pytest.approx([59.8, 117.4, 22.8], abs=0.001)


def test_one_pixel_of_another_colour_makes_a_picture_not_plain():
    pixels = np.full((300, 200, 3), [20, 30, 40], np.uint8)
    assert measure_image(png(pixels)).plain
    pixels[123, 45, 2] += 1
    assert not measure_image(png(pixels)).plain


def test_a_blurred_picture_is_less_sharp():
    picture = blocks(600, 400)
    blurred = picture.filter(ImageFilter.GaussianBlur(20))
    sharp, soft = (measure_image(encode(one, "PNG")).sharpness for one in (picture, blurred))
    assert soft < sharp / 3


@pytest.mark.parametrize(
    ("size", "brightness"),
    [
        ((1, 1), 255),
        ((2, 9), 255 * 5 / 9),
        ((7, 2), 127.5),
        ((3, 5000), 127.5),
        ((5000, 3), 170),
        ((65, 129), 127.5),
    ],
)
def test_a_picture_of_any_shape_has_facts(size, brightness):
    found = measure_image(gray_png(edge(*size)))
    assert (found.reason, found.height, found.width) == ("", *size)
    assert found.brightness == pytest.approx(brightness, abs=0.01)
    assert (found.sharpness == 0) == found.plain == (size == (1, 1))


def test_a_picture_is_shrunk_to_means_of_areas():
    quarters = np.kron([[0, 60], [120, 200]], np.ones((128, 128)))[:, :, None]
    expected = np.kron([[0, 60], [120, 200]], np.ones((32, 32)))
    stripes = np.arange(256)[None, :, None] % 2 * 50  # one pixel wide: they are gray from afar
    for added, mean in ((0, 0), (stripes, 25)):
        image = np.repeat(quarters + added, 3, axis=2).astype(np.uint8)
        np.testing.assert_allclose(shrink(image), expected + mean, atol=0.001)


def test_files_that_are_measured_together_keep_their_order_and_facts():
    files = [gray_png(edge(9, 9)), b"hello", PHOTO, b"", FILES["png"]]
    alone = [measure_image(one) for one in files]
    assert measure.finish([measure.sketch(one) for one in files]) == alone
    assert [one.reason[:8] for one in alone] == ["", "is not a", "", "is empty", ""]


def test_the_peak_of_16_bits_per_channel_is_found_and_opacity_is_none():
    values = np.full((5, 6), 100, np.uint16)
    values[2, 3] = 4095
    assert measure_image(encode(Image.fromarray(values), "PNG")).peak == 4095
    with_opacity = np.full((5, 6, 4), 65535, np.uint16)
    with_opacity[:, :, :3] = 1000
    assert measure_image(tf.io.encode_png(with_opacity).numpy()).peak == 1000
    gray_and_opacity = np.stack([values, np.full_like(values, 65535)], axis=2)
    assert measure_image(tf.io.encode_png(gray_and_opacity).numpy()).peak == 4095


def test_a_copy_of_another_size_and_quality_looks_alike_and_another_picture_does_not():
    rng = np.random.default_rng(0)
    picture, other = (
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((800, 600))
        for _ in range(2)
    )
    copy = encode(picture.resize((333, 250)), "JPEG", quality=60)
    first, *rest = (
        int(measure_image(one).look, 16)
        for one in (encode(picture, "PNG"), copy, encode(other, "PNG"))
    )
    alike, unlike = ((first ^ look).bit_count() for look in rest)
    assert alike < 20 and unlike > 80  # of 256


def test_a_file_that_is_no_image_has_its_reason_alone():
    assert measure_image(b"hello") == Picture("is not a JPEG, PNG, GIF, BMP or WebP image")
