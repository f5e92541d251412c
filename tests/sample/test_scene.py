"""Scenes: what a pen draws where, and that a scene depends on its generator alone."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kerasft.sample.scene import Pen, draw_scene, ellipse, rotated, shade


def square(pen, random):
    pen.polygon(np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]), (255, 0, 255))


def test_a_pen_scales_turns_and_moves_what_it_draws():
    image = Image.new("RGB", (40, 40))
    quarter_turn = 5 * np.array([[0.0, -1], [1, 0]])
    pen = Pen(ImageDraw.Draw(image), quarter_turn, np.array([20.0, 10]))
    pen.polygon(np.array([[0.0, -1], [3, -1], [3, 1], [0, 1]]), (200, 0, 0))  # to the right
    assert image.getbbox() == (15, 10, 26, 26)  # 15 pixels downwards now


def test_colours_out_of_range_are_cut_off():
    image = Image.new("RGB", (9, 9))
    pen = Pen(ImageDraw.Draw(image), np.eye(2), np.array([4.0, 4]))
    pen.disc(0, 0, 4, (300.2, -5, 127.6))
    assert image.getpixel((4, 4)) == (255, 0, 128)


def test_points_turn_clockwise_as_y_points_downwards():
    np.testing.assert_allclose(rotated(np.array([[1.0, 0]]), 90), [[0, 1]], atol=1e-12)
    lower = ellipse(0, 0, 2, 1, begin=0, end=180)
    assert (lower[:, 1] > -1e-12).all()


def test_a_scene_is_the_same_for_the_same_generator_only():
    one, same, other = (
        draw_scene(np.random.default_rng(seed), 32, square) for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert (one.shape, one.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5


def test_the_subject_is_seen_in_nearly_every_scene():
    def is_magenta(number):
        seen = draw_scene(np.random.default_rng(number), 32, square).astype(int)
        return (np.minimum(seen[..., 0], seen[..., 2]) - seen[..., 1] > 60).mean()

    shares = np.array([is_magenta(number) for number in range(20)])
    assert np.median(shares) > 0.1  # a square of 2 x 0.27 sides, squeezed and partly covered
    assert (shares > 0.03).all()


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_a_shade_stays_near_its_colour(spread):
    shades = [shade(np.random.default_rng(i), (100, 150, 200), spread) for i in range(50)]
    assert np.abs(np.mean(shades, 0) - (100, 150, 200)).max() <= 80 * spread
    assert bool(np.std(shades, 0).max()) == bool(spread)
