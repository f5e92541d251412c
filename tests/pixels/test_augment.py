"""Augmentation: stateless, within range, off when it is off."""

import numpy as np
import pytest
import tensorflow as tf

from kerasft.pixels.augment import augment_crop, augment_pixels


@pytest.fixture
def photo() -> np.ndarray:
    rows, columns = np.mgrid[0:60, 0:80]
    return np.stack([rows, columns, rows + columns], -1).astype("uint8")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (8, 8, 3)).astype("float32")


NEW = tf.constant(-1)  # a view that is drawn anew


def seeds(number: int = 200) -> list[list[int]]:
    return [[7, index] for index in range(number)]


def test_the_same_seed_gives_the_same_image(photo, pixels):
    in_graph = tf.function(lambda seed: augment_pixels(tf.constant(pixels), True, 1.0, seed, NEW))
    for seed in seeds(5):
        np.testing.assert_array_equal(
            augment_crop(photo, 0.3, seed), augment_crop(photo, 0.3, seed)
        )
        # The graph may fuse what eager operations round one by one.
        np.testing.assert_allclose(
            augment_pixels(pixels, True, 1.0, seed, NEW), in_graph(tf.constant(seed)), atol=1e-3
        )


def test_other_seeds_give_other_images(photo, pixels):
    crops = {augment_crop(photo, 0.3, seed).numpy().tobytes() for seed in seeds(20)}
    colors = {augment_pixels(pixels, False, 0.5, seed, NEW).numpy().tobytes() for seed in seeds(20)}
    assert len(crops) == 20
    assert len(colors) == 20


def test_crops_are_parts_in_range(photo):
    shares, proportions = [], []
    for seed in seeds():
        crop = augment_crop(photo, 0.25, seed).numpy()
        height, width = crop.shape[:2]
        top, left = crop[0, 0, :2]
        np.testing.assert_array_equal(crop, photo[top : top + height, left : left + width])
        shares.append(height * width / 4800)
        proportions.append(width / height)
    # Whole pixels: a side is off by 1 of 30 at most.
    assert 0.24 < min(shares) < 0.35 and 0.9 < max(shares) <= 1
    assert 0.72 < min(proportions) < 0.85 and 1.2 < max(proportions) < 1.38


def test_a_panorama_without_room_for_a_crop_stays_whole():
    panorama = np.zeros((4, 400, 3), "uint8")
    assert augment_crop(panorama, 0.9, [1, 2]).shape == (4, 400, 3)


def test_half_of_the_images_in_a_new_view_are_mirrored(pixels):
    mirrored = 0
    for seed in seeds():
        image = augment_pixels(pixels, True, 0.0, seed, NEW).numpy()
        if np.array_equal(image, pixels[:, ::-1]):
            mirrored += 1
        else:
            np.testing.assert_array_equal(image, pixels)
    assert 70 < mirrored < 130  # 100 expected, 7 is one standard deviation


@pytest.mark.parametrize("view", [0, 1, 2, 3, 4, 5])
def test_odd_views_are_mirrored_and_even_ones_are_not_whatever_the_seed(pixels, view):
    expected = pixels[:, ::-1] if view in (1, 3, 5) else pixels
    for seed in seeds(20):
        image = augment_pixels(pixels, True, 0.0, seed, tf.constant(view))
        np.testing.assert_array_equal(image, expected)


def test_without_flips_no_view_is_mirrored(pixels):
    for view in (-1, 0, 1):
        image = augment_pixels(pixels, False, 0.0, [1, 2], tf.constant(view))
        np.testing.assert_array_equal(image, pixels)


def test_the_view_says_nothing_about_the_colours(pixels):
    first, second, mirrored = (
        augment_pixels(pixels, True, 0.5, [1, 2], tf.constant(view)).numpy() for view in (0, 2, 1)
    )
    np.testing.assert_array_equal(first, second)
    # The mean of the pixels is summed in another order.
    np.testing.assert_allclose(mirrored[:, ::-1], first, atol=1e-3)
    assert np.abs(first - pixels).max() > 1


def test_off_means_untouched(pixels):
    for seed in seeds(20):
        np.testing.assert_array_equal(augment_pixels(pixels, False, 0.0, seed, NEW), pixels)


def test_colors_stay_in_range_and_near_at_low_strength(pixels):
    for seed in seeds(50):
        strong = augment_pixels(pixels, False, 1.0, seed, NEW).numpy()
        assert strong.min() >= 0 and strong.max() <= 255
        weak = augment_pixels(pixels, False, 0.01, seed, NEW).numpy()
        # Three factors within 0.4 %: 255 * 0.004 each.
        assert np.abs(weak - pixels).max() < 3.1


def test_a_gray_image_stays_gray():
    gray = np.repeat(np.linspace(50, 150, 16, dtype="float32").reshape(4, 4, 1), 3, 2)
    image = augment_pixels(gray, False, 1.0, [3, 4], NEW).numpy()
    np.testing.assert_allclose(image[..., 0], image[..., 2], atol=1e-3)
    assert np.abs(image - gray).max() > 1


def test_it_runs_in_a_pipeline_of_unknown_sizes(photo):
    pipeline = tf.data.Dataset.from_generator(
        lambda: iter([photo, photo[:30]]), output_signature=tf.TensorSpec([None, None, 3], tf.uint8)
    ).map(lambda image: augment_crop(image, 0.3, tf.constant([1, 2])))
    assert pipeline.element_spec.shape.as_list() == [None, None, 3]
    assert len(list(pipeline)) == 2
