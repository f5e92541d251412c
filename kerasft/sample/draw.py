"""The sample: a folder of drawn flowers per class, to try kerasft without photos of one's own.

The five kinds differ in number and shape of their petals and in their middles. Their colours
overlap, so that colour helps but does not suffice.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kerasft.files import new_folder
from kerasft.progress import Event, Progress, silent
from kerasft.results import Result
from kerasft.sample.scene import PALETTE, Pen, draw_scene, ellipse, rotated, shade

SIDE = 128  # pixels
PER_CLASS = 100
QUALITY = 90  # JPEG quality
HARDNESS = 0.3  # how hard the scenes are to classify, see `draw_scene`


@dataclass(frozen=True)
class Sample(Result):
    """A sample that was drawn.

    Attributes:
        folder: the new folder.
        seed: seed of the drawing.
        images: number of images.
        classes: number of images of each kind, by its name.
    """

    folder: Path
    seed: int
    images: int
    classes: Mapping[str, int]


def draw_sample(
    folder: Path, *, seed: int = 0, per_class: int = PER_CLASS, progress: Progress = silent
) -> Sample:
    """Draws the sample; the folder appears whole or not at all.

    Args:
        folder: folder to create; it must be absent or empty.
        seed: seed of the drawing. The same arguments give the same pixels.
        per_class: number of images of each kind, at least 1: `daisy/daisy-0000.jpg` and so on.
        progress: function that is told how many images are drawn; stage "draw".

    Raises:
        UserError: the folder is not empty, or can't be written. Exit code 2.
    """
    with new_folder(folder) as part:
        for kind, name in enumerate(KINDS):
            (part / name).mkdir()
            for number in range(per_class):
                pixels = draw_flower(name, number, seed=seed)
                (part / name / f"{name}-{number:04}.jpg").write_bytes(_jpeg(pixels))
                done = kind * per_class + number + 1
                progress(Event("draw", done, len(KINDS) * per_class))
    return Sample(folder, seed, len(KINDS) * per_class, dict.fromkeys(KINDS, per_class))


def draw_flower(name: str, number: int, *, seed: int, side: int = SIDE) -> np.ndarray:
    """Draws one image.

    Args:
        name: kind of flower, a key of KINDS.
        number: number of the image among its kind, from 0.
        seed: seed of the drawing.
        side: side of the image, pixels.

    Returns:
        uint8 [side, side, 3], RGB.
    """
    random = np.random.default_rng([seed, list(KINDS).index(name), number])
    return draw_scene(random, side, KINDS[name], hardness=HARDNESS)


def _jpeg(pixels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()


def _daisy(pen: Pen, random: np.random.Generator) -> None:
    """Draws many narrow petals around a large yellow middle."""
    color = _color(random, ["white", "white", "white", "yellow", "pink", "violet", "red"])
    _stem(pen, random)
    count = int(random.integers(11, 18))
    _petals(pen, random, count, _blunt(random.uniform(0.1, 0.15)), color)
    _middle(pen, random, random.uniform(0.2, 0.32))


def _cosmos(pen: Pen, random: np.random.Generator) -> None:
    """Draws eight broad petals with teeth at the end around a small yellow middle."""
    color = _color(random, ["pink", "pink", "pink", "white", "violet", "yellow", "orange"])
    _stem(pen, random)
    _petals(pen, random, 8, _toothed(random.uniform(0.24, 0.31)), color)
    _middle(pen, random, random.uniform(0.14, 0.22))


def _primrose(pen: Pen, random: np.random.Generator) -> None:
    """Draws five petals with a notch, like hearts, and a yellow eye."""
    color = _color(random, ["violet", "violet", "violet", "white", "pink", "yellow", "red"])
    _stem(pen, random)
    _petals(pen, random, 5, _notched(random.uniform(0.38, 0.48)), color)
    _middle(pen, random, random.uniform(0.13, 0.22))


def _lily(pen: Pen, random: np.random.Generator) -> None:
    """Draws six pointed petals and six long stamens, without a middle."""
    color = _color(random, ["orange", "orange", "orange", "white", "pink", "yellow", "red"])
    _stem(pen, random)
    turn = _petals(pen, random, 6, _pointed(random.uniform(0.2, 0.28)), color)
    for place in range(6):
        end = rotated(np.array([[0, 0], [random.uniform(0.35, 0.5), 0]]), turn + 60 * place + 30)
        pen.line(end, 0.04, shade(random, PALETTE["yellow"], 0.1))
        pen.disc(end[1, 0], end[1, 1], 0.07, shade(random, PALETTE["brown"], 0.2))


def _tulip(pen: Pen, random: np.random.Generator) -> None:
    """Draws a cup from the side: three overlapping pointed petals on a stem."""
    color = _color(random, ["red", "red", "red", "yellow", "pink", "violet", "white"])
    _stem(pen, random)
    for lean, dark in ((-16, 0.85), (16, 0.85), (0, 1.0)):
        petal = rotated(_pointed(random.uniform(0.3, 0.4)) * (1.55, 1), -90 + lean)
        pen.polygon(petal + np.array([0, 0.75]), shade(random, color * dark, 0.05))


KINDS: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "cosmos": _cosmos,
    "daisy": _daisy,
    "lily": _lily,
    "primrose": _primrose,
    "tulip": _tulip,
}


def _color(random: np.random.Generator, names: list[str]) -> np.ndarray:
    return shade(random, PALETTE[str(random.choice(names))], 0.1)


def _stem(pen: Pen, random: np.random.Generator) -> None:
    along = np.linspace(0, 3, 8)
    stem = np.stack([random.normal(0, 0.12) * along**2, along], axis=1)
    pen.line(stem, random.uniform(0.06, 0.12), shade(random, PALETTE["green"], 0.2))


def _petals(
    pen: Pen, random: np.random.Generator, count: int, petal: np.ndarray, color: np.ndarray
) -> float:
    """Draws a ring of petals; returns the angle of the first one, degrees."""
    first = random.uniform(0, 360)
    for place in range(count):
        own = petal * (random.normal(1, 0.06), random.normal(1, 0.08))
        angle = first + 360 / count * (place + random.normal(0, 0.06))
        tone = shade(random, color, 0.07)
        pen.polygon(rotated(own * (1.06, 1.15), angle), tone * 0.72)  # the darker rim
        pen.polygon(rotated(own, angle), tone)
    return first


def _middle(pen: Pen, random: np.random.Generator, radius: float) -> None:
    color = shade(random, PALETTE[str(random.choice(["yellow", "yellow", "orange"]))], 0.12)
    pen.disc(0, 0, radius, color * 0.75)
    pen.polygon(ellipse(0, 0, radius * 0.75, radius * 0.75), color)


# Outlines of petals, float [n,2], from the origin to x = 1. `width` is half of a petal's width.


def _blunt(width: float) -> np.ndarray:
    along = np.linspace(0, 1, 12)
    return _mirrored(along, width * np.sqrt(np.sin(np.pi * along**1.4)))


def _pointed(width: float) -> np.ndarray:
    along = np.linspace(0, 1, 12)
    return _mirrored(along, width * np.sin(np.pi * along**0.8) ** 1.1)


def _notched(width: float) -> np.ndarray:
    along = np.append(np.linspace(0, 1, 12), 0.8)
    half = width * np.sin(0.86 * np.pi * along**1.4)
    half[-1] = 0
    return _mirrored(along, half)


def _toothed(width: float) -> np.ndarray:
    along = np.append(np.linspace(0, 0.96, 10), [1.0, 0.9, 1.02])
    half = width * np.sin(0.8 * np.pi * along**1.1)
    half[-3:] = width * np.array([0.45, 0.22, 0])
    return _mirrored(along, half)


def _mirrored(along: np.ndarray, half: np.ndarray) -> np.ndarray:
    upper = np.stack([along, half], axis=1)
    return np.concatenate([upper, upper[::-1] * (1, -1)])
