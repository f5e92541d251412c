"""The look of a photo: copies are alike in all turns, unlike and plain photos are not."""

import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from kerasft.pixels.likeness import bits_of, distances, look_of


def scene(seed):
    """A picture with structure at every scale, as photos have it: uint8 [32, 32]."""
    rng = np.random.default_rng(seed)
    layers = [np.kron(rng.normal(size=(n, n)), np.ones((32 // n, 32 // n))) for n in (4, 8, 16, 32)]
    return np.clip(128 + 20 * sum(layers), 0, 255).astype(np.uint8)


def between(one, other, *, low=False):
    found = distances(bits_of([look_of(one)], low=low), bits_of([look_of(other)], low=low), low=low)
    return int(found[0])


def turns(gray):
    mirrored = (gray, np.fliplr(gray))
    return [np.ascontiguousarray(np.rot90(one, k)) for one in mirrored for k in range(4)]


def test_a_look_has_64_digits_half_of_whose_bits_are_set():
    look = look_of(scene(0))
    assert len(look) == 64
    assert int(look, 16).bit_count() == 128  # above the median


def test_a_look_is_the_perceptual_hash_of_imagehash():
    for seed in range(20):
        expected = str(imagehash.phash(Image.fromarray(scene(seed)), 16, highfreq_factor=2))
        assert look_of(scene(seed)) == expected


def test_the_eight_turns_of_a_picture_look_alike():
    found = [between(scene(0), turned) for turned in turns(scene(0))]
    assert found[0] == 0
    assert max(found) <= 12  # the median is not 0, so that a few signs are on its other side


def test_unlike_pictures_differ_in_a_third_of_the_bits_in_every_turn():
    found = [between(scene(0), scene(seed)) for seed in range(1, 100)]
    assert min(found) > 86


def test_a_strong_jpeg_of_a_picture_looks_like_it():
    file = io.BytesIO()
    Image.fromarray(scene(0)).save(file, "JPEG", quality=50)
    assert between(scene(0), np.asarray(Image.open(file))) <= 30


def test_the_lowest_frequencies_are_alike_in_a_cropped_picture():
    whole = Image.fromarray(scene(0)).resize((320, 320), Image.Resampling.BICUBIC)
    cropped = whole.crop((16, 16, 304, 304)).resize((32, 32), Image.Resampling.BOX)
    found = [between(scene(seed), np.asarray(cropped), low=True) for seed in range(50)]
    assert found[0] <= 16
    assert min(found[1:]) > 16


y, x = np.mgrid[:32, :32]


@pytest.mark.parametrize(
    "plain",
    [
        np.full((32, 32), 90),
        4 * x + 60,
        3 * x + 2 * y,
        100 + 60 * (x < 16),
        200 - ((x - 16) ** 2 + (y - 16) ** 2) // 5,
        100 + np.random.default_rng(0).integers(-1, 2, (32, 32)),
    ],
    ids=["one colour", "gradient", "slanted gradient", "halves", "vignette", "noise of a camera"],
)
def test_a_picture_without_structure_has_no_look(plain):
    assert look_of(plain.astype(np.uint8)) == ""
