import base64
import io

import numpy as np
import pytest
from PIL import Image

from kerasft.reports.pictures import picture, picture_of, pictures_of


def opened(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def written(path, image, **options):
    image.save(path, **options)
    return path


def test_a_picture_has_the_longer_side_that_was_asked_for(tmp_path):
    path = written(tmp_path / "a.jpg", Image.new("RGB", (640, 320), "red"))
    assert opened(picture_of(path, 96)).size == (96, 48)


def test_a_small_photo_keeps_its_size(tmp_path):
    path = written(tmp_path / "a.png", Image.new("RGB", (20, 10), "red"))
    assert opened(picture_of(path, 96)).size == (20, 10)


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = written(tmp_path / "a.jpg", Image.new("RGB", (640, 320), "red"), exif=exif)
    assert opened(picture_of(path, 96)).size == (48, 96)


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),  # transparent: on white
        (Image.fromarray(np.full((8, 8), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((8, 8), 32896, np.uint16)), (128, 128, 128)),
        (Image.new("L", (8, 8), 40), (40, 40, 40)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
    ],
    ids=["transparent", "16-bit white", "16-bit gray", "gray", "palette"],
)
def test_every_kind_of_pixels_is_shown(image, color, tmp_path):
    shown = opened(picture_of(written(tmp_path / "a.png", image))).getpixel((4, 4))
    assert max(abs(a - b) for a, b in zip(shown, color, strict=True)) <= 2  # it is a JPEG


def test_a_file_that_is_no_image_has_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert picture_of(tmp_path / "a.jpg") == ""
    assert picture_of(tmp_path / "absent.jpg") == ""


def test_a_large_jpeg_of_noise_stays_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), np.uint8)
    path = written(tmp_path / "a.jpg", Image.fromarray(noise))
    assert len(picture_of(path)) < 10_000


def test_no_more_pictures_are_made_when_the_time_is_up(tmp_path):
    for number in range(9):
        written(tmp_path / f"{number}.png", Image.new("RGB", (8, 8)))
    names = [f"{number}.png" for number in range(9)]
    assert list(pictures_of(tmp_path, names, seconds=0)) == ["0.png"]
    assert list(pictures_of(tmp_path, [*names, "0.png"])) == names


def test_a_heat_map_takes_the_size_of_its_photo(tmp_path):
    photo = picture_of(written(tmp_path / "a.jpg", Image.new("RGB", (640, 320), "red")), 96)
    square = np.zeros((32, 32, 3), np.uint8)
    assert opened(picture(square, photo)).size == (96, 48)
    assert opened(picture(square)).size == (32, 32)


def test_no_more_pictures_are_made_when_the_room_is_full(tmp_path):
    for number in range(4):
        written(tmp_path / f"{number}.png", Image.new("RGB", (8, 8)))
    names = [f"{number}.png" for number in range(4)]
    one = len(picture_of(tmp_path / "0.png"))
    assert list(pictures_of(tmp_path, names, room=2 * one + 1)) == ["0.png", "1.png"]


def test_a_picture_of_pixels_is_not_larger_than_a_large_one():
    assert opened(picture(np.zeros((300, 600, 3), np.uint8))).size == (176, 88)
