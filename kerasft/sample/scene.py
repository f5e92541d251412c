"""Drawn scenes: a subject between leaves, blades and blobs, then light, blur and noise.

The caller of `draw_scene` decides what the subject is: a flower, a fish. A scene depends on its
random generator alone.

Coordinates of a subject: x to the right, y downwards, about -1 to 1; `Pen` rotates, scales,
squeezes and moves them. Colours are red, green, blue, 0 to 255.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = Sequence[float] | np.ndarray
Subject = Callable[["Pen", np.random.Generator], None]

FINER = 2  # scenes are drawn at this many times their side, for smooth edges

PALETTE: dict[str, Color] = {
    "white": (238, 236, 230),
    "yellow": (236, 200, 50),
    "orange": (232, 128, 40),
    "red": (200, 44, 48),
    "pink": (228, 130, 170),
    "violet": (130, 84, 180),
    "blue": (78, 110, 200),
    "brown": (120, 82, 50),
    "black": (40, 38, 42),
    "green": (70, 130, 60),
}


@dataclass(frozen=True)
class Pen:
    """Draws in a subject's own coordinates.

    Attributes:
        draw: `ImageDraw` of the image.
        turn: float [2,2], matrix from the subject's coordinates to pixels.
        shift: float [2], position of the subject's origin in the image, pixels.
    """

    draw: Any
    turn: np.ndarray
    shift: np.ndarray

    def polygon(self, points: np.ndarray, color: Color) -> None:
        """Fills a polygon with corners float [n,2]."""
        placed = points @ self.turn.T + self.shift
        self.draw.polygon([tuple(point) for point in placed.tolist()], fill=_rgb(color))

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """Fills a circle, or an ellipse if the pen squeezes."""
        self.polygon(ellipse(x, y, radius, radius), color)

    def line(self, points: np.ndarray, width: float, color: Color) -> None:
        """Draws a line through points float [n,2]; its width is in the subject's coordinates."""
        placed = [tuple(point) for point in (points @ self.turn.T + self.shift).tolist()]
        pixels = max(1, round(width * math.sqrt(abs(np.linalg.det(self.turn)))))
        self.draw.line(placed, fill=_rgb(color), width=pixels, joint="curve")


def ellipse(
    x: float, y: float, across: float, down: float, *, begin: float = 0.0, end: float = 360.0
) -> np.ndarray:
    """Returns points on an ellipse or an arc of it, float [28,2].

    `begin` and `end` are degrees, clockwise from the right.
    """
    angles = np.radians(np.linspace(begin, end, 28))
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates points float [n,2] about the origin."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ np.array([[c, s], [-s, c]])


def shade(random: np.random.Generator, color: Color, spread: float) -> np.ndarray:
    """Returns a random colour near another: brighter or darker, slightly off in each channel."""
    return np.asarray(color) * random.normal(1, spread) + random.normal(0, 60 * spread, 3)


def draw_scene(
    random: np.random.Generator, side: int, subject: Subject, *, hardness: float = 1.0
) -> np.ndarray:
    """Draws a subject with plants and blobs behind it and, sometimes, in front of it.

    Args:
        random: generator that decides everything about the scene.
        side: side of the square image, pixels.
        subject: function that draws what the image shows.
        hardness: difficulty, 0 to 1. The lower it is, the larger and more central is the subject,
            and the fewer plants and spots there are; with 0 it is alone.

    Returns:
        uint8 [side, side, 3], RGB.
    """
    full = side * FINER
    image = _backdrop(random, full)
    draw = ImageDraw.Draw(image)
    _plants(random, draw, full, round(hardness * random.integers(5, 16)))
    _confetti(random, draw, full, round(hardness * random.integers(0, 9)))
    if random.random() < 0.5:  # the background is out of focus
        image = image.filter(ImageFilter.GaussianBlur(full * random.uniform(0.004, 0.02)))
        draw = ImageDraw.Draw(image)
    subject(_placed(random, draw, full, hardness), random)
    _plants(random, draw, full, round(hardness * random.integers(0, 5)))
    return _photographed(random, image, side)


def _placed(random: np.random.Generator, draw: Any, full: int, hardness: float) -> Pen:
    """Returns a pen for a subject of random size, place and angle, seen from a random side."""
    scale = full * (random.uniform(0.17, 0.37) + 0.1 * (1 - hardness))
    squeeze = np.diag([1.0, random.uniform(0.6, 1.0)])
    seen = rotated(np.eye(2), random.uniform(0, 360)).T
    upright = rotated(np.eye(2), random.normal(0, 35)).T
    turn = scale * seen @ squeeze @ seen.T @ upright
    off_centre = (0.25 + 0.75 * hardness) * random.uniform(-0.17, 0.17, 2)
    return Pen(draw, turn, full * (0.5 + off_centre))


def _backdrop(random: np.random.Generator, full: int) -> Image.Image:
    """Draws a colour gradient with soft blobs, small and then enlarged, which blurs it."""
    corners = np.array([_ground(random) for _ in range(4)]).reshape(2, 2, 3)
    small = Image.fromarray(np.clip(corners, 0, 255).astype(np.uint8))
    small = small.resize((48, 48), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(small)
    for _ in range(int(random.integers(2, 12))):
        (x, y), radius = random.uniform(0, 48, 2), random.uniform(2, 12)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_rgb(_ground(random)))
    small = small.filter(ImageFilter.GaussianBlur(random.uniform(0.8, 3)))
    return small.resize((full, full), Image.Resampling.BICUBIC)


def _ground(random: np.random.Generator) -> np.ndarray:
    """Returns a random colour: mostly green or brown, sometimes any of the palette."""
    names = ["green", "green", "brown", "black", str(random.choice(list(PALETTE)))]
    return shade(random, PALETTE[str(random.choice(names))], 0.3)


def _plants(random: np.random.Generator, draw: Any, full: int, count: int) -> None:
    """Draws leaves and blades of grass."""
    for _ in range(count):
        color = shade(random, PALETTE["green"], 0.3)
        turn = random.uniform(0, 360)
        place = random.uniform(-0.05, 1.05, 2) * full
        if random.random() < 0.55:
            length, width = full * random.uniform(0.08, 0.26), random.uniform(0.16, 0.34)
            along = np.linspace(-1, 1, 12)
            half = width * np.cos(along * math.pi / 2)
            leaf = np.concatenate([np.stack([along, half], 1), np.stack([along, -half], 1)[::-1]])
            pen = Pen(draw, np.eye(2) * length, place)
            pen.polygon(rotated(leaf, turn), color)
            pen.line(rotated(np.array([[-1.0, 0], [1, 0]]), turn), 0.05, color * 0.75)
        else:
            length, bend = full * random.uniform(0.2, 0.6), random.uniform(-0.4, 0.4)
            along = np.linspace(-1, 1, 9)
            blade = np.stack([along, bend * (1 - along**2)], axis=1)
            Pen(draw, np.eye(2) * length, place).line(
                rotated(blade, turn), random.uniform(0.02, 0.07), color
            )


def _confetti(random: np.random.Generator, draw: Any, full: int, count: int) -> None:
    """Draws sharp spots in the colours of subjects, so that colour alone says little."""
    for _ in range(count):
        pen = Pen(draw, np.eye(2) * full, random.uniform(0, 1, 2) * full)
        across, down = random.uniform(0.01, 0.07, 2)
        color = shade(random, PALETTE[str(random.choice(list(PALETTE)))], 0.15)
        pen.polygon(rotated(ellipse(0, 0, across, down), random.uniform(0, 360)), color)


def _photographed(random: np.random.Generator, image: Image.Image, side: int) -> np.ndarray:
    """Reduces the image to its final side; adds blur, light from one side, a cast and noise."""
    if random.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 1.6)))
    pixels = np.asarray(image.reduce(FINER), np.float32)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    x_light, y_light = random.normal(0, 0.17, 2)
    light = 1 + x_light * ramp[None, :, None] + y_light * ramp[:, None, None]
    pixels = pixels * light * (random.uniform(0.6, 1.15) * random.normal(1, 0.05, 3))
    noise = random.standard_normal((side, side, 3), np.float32)
    pixels = pixels + random.uniform(2, 16) * noise
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _rgb(color: Color) -> tuple[int, int, int]:
    red, green, blue = (int(min(255, max(0, round(float(value))))) for value in color)
    return red, green, blue
