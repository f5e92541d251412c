"""The drawn images that tests train on."""

import io

import numpy as np
import pytest
from drawing import CLASSES, draw_photo, draw_photos, encode_png
from PIL import Image


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


def test_a_png_holds_the_pixels_that_were_encoded():
    pixels = draw_photo("cross", 0, seed=0, size=(48, 40))
    assert pixels.shape == (40, 48, 3)
    decoded = Image.open(io.BytesIO(encode_png(pixels)))
    decoded.verify()  # checksums of all chunks
    np.testing.assert_array_equal(Image.open(io.BytesIO(encode_png(pixels))), pixels)


def test_the_same_arguments_draw_the_same_bytes(tmp_path):
    one = contents(draw_photos(tmp_path / "one"))
    assert one == contents(draw_photos(tmp_path / "two"))
    assert one != contents(draw_photos(tmp_path / "three", seed=1))


def test_no_two_images_are_the_same_even_with_more_classes_than_shapes(tmp_path):
    files = contents(draw_photos(tmp_path, classes=("a", "b", "c", "d"), per_class=4))
    assert len(files) == 16
    assert len(set(files.values())) == 16


@pytest.mark.parametrize(("number", "kind"), [(0, "PNG"), (1, "JPEG")])
def test_png_and_jpeg_take_turns(tmp_path, number, kind):
    draw_photos(tmp_path, per_class=2)
    for name in CLASSES:
        path = next(tmp_path.glob(f"{name}/{name}-{number:03}.*"))
        with Image.open(path) as image:
            assert (image.format, image.size) == (kind, (48, 40))
