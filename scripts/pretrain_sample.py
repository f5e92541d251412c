"""Trains the weights that `--weights sample` selects, and writes `kerasft/sample_weights.h5`.

MobileNetV2:alpha=0.35 from random weights on a drawn set of its own: 40 kinds of shapes, patterns
and things, no flowers, in the scenes of `kerasft/scene.py`. What it learns there has to carry over
to the flowers of `kerasft sample-data`, which it never sees.

    python scripts/pretrain_sample.py

That command, seed 0, made the file on 2026-11-24 on two cores of an AMD EPYC (AVX512) that other
work shared, TensorFlow 2.21, Keras 3.15.1: 73 s of drawing, 24 minutes of training. Accuracy on
2,000 images of the same kinds that it had not seen, all as hard as they get: 0.616, in float32 as
in the float16 of the file. On hard images alone it had got to 0.05 in 1,000 to 2,000 steps; hence
the easy ones first.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from kerasft.heads import trained
from kerasft.models.build import load
from kerasft.sample.scene import PALETTE, Pen, draw_scene, ellipse, rotated, shade

SIDE = 96
Random = np.random.Generator
Images = tuple[np.ndarray, np.ndarray]  # uint8 [n,96,96,3], labels int32 [n]


class Ink:
    """Two colours of one image that can be told apart, and shades of them."""

    def __init__(self, random: Random) -> None:
        names = list(PALETTE)
        first, second = random.choice(len(names), 2, replace=False)
        self.random = random
        self._colors = [shade(random, PALETTE[names[i]], 0.1) for i in (first, second)]

    def main(self, factor: float = 1.0) -> np.ndarray:
        return shade(self.random, self._colors[0] * factor, 0.05)

    def other(self, factor: float = 1.0) -> np.ndarray:
        return shade(self.random, self._colors[1] * factor, 0.05)


def box(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A rectangle around (x, y); across and down are half of its sides."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return np.array([x, y]) + signs * (across, down)


def corners(count: int, radius: float = 1.0) -> np.ndarray:
    """A regular polygon that stands on a point."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def path(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def framed(pen: Pen, ink: Ink, outline: np.ndarray) -> None:
    """A filled outline with a rim of the same colour, darker, or of the other one."""
    rim = ink.main(0.7) if ink.random.random() < 0.6 else ink.other()
    pen.polygon(outline, rim)
    pen.polygon(outline * ink.random.uniform(0.72, 0.9), ink.main())


def clipped(pen: Pen, ink: Ink, spots: Callable[[float, float], bool], cells: int) -> None:
    """A disc of small squares in two colours; `spots` says which are in the other one."""
    pen.disc(0, 0, 1.0, ink.main(0.8))
    grid = (np.arange(cells) + 0.5) * 2 / cells - 1
    for x in grid:
        for y in grid:
            if x * x + y * y < 0.85:
                one = ink.other() if spots(x, y) else ink.main()
                pen.polygon(box(x, y, 1.02 / cells, 1.02 / cells), one)


def polygon(count: int) -> Callable[[Pen, Random], None]:
    def subject(pen: Pen, random: Random) -> None:
        framed(pen, Ink(random), corners(count))

    return subject


def rectangle(pen: Pen, random: Random) -> None:
    framed(pen, Ink(random), box(0, 0, 1.0, random.uniform(0.35, 0.6)))


def star(pen: Pen, random: Random) -> None:
    outline = corners(10)
    outline[1::2] *= random.uniform(0.38, 0.5)
    framed(pen, Ink(random), outline)


def cross(pen: Pen, random: Random) -> None:
    w = random.uniform(0.22, 0.38)
    quarter = path((w, -1), (w, -w), (1, -w))
    framed(pen, Ink(random), np.concatenate([rotated(quarter, 90 * turn) for turn in range(4)]))


def ring(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    outer, inner = ellipse(0, 0, 1, 1), ellipse(0, 0, 1, 1) * random.uniform(0.5, 0.75)
    pen.polygon(np.concatenate([outer, inner[::-1]]), ink.main())


def disc(pen: Pen, random: Random) -> None:
    framed(pen, Ink(random), ellipse(0, 0, 1, 1))


def crescent(pen: Pen, random: Random) -> None:
    outer = ellipse(0, 0, 1, 1, begin=50, end=310)
    inner = ellipse(0.45, 0, 0.8, 0.78, begin=75, end=285)
    pen.polygon(np.concatenate([outer, inner[::-1]]), Ink(random).main())


def heart(pen: Pen, random: Random) -> None:
    t = np.linspace(0, 2 * np.pi, 40)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    framed(pen, Ink(random), np.stack([x, y], axis=1))


def arrow(pen: Pen, random: Random) -> None:
    w, head = random.uniform(0.12, 0.25), random.uniform(0.5, 0.75)
    outline = path((-1, -w), (0.2, -w), (0.2, -head), (1, 0), (0.2, head), (0.2, w), (-1, w))
    pen.polygon(outline, Ink(random).main())


def lightning(pen: Pen, random: Random) -> None:
    outline = path((0.2, -1), (-0.55, 0.1), (-0.05, 0.1), (-0.3, 1), (0.55, -0.2), (0.05, -0.2))
    framed(pen, Ink(random), outline)


def spiral(pen: Pen, random: Random) -> None:
    angle = np.linspace(0, random.uniform(4.5, 6.5) * np.pi, 70)
    points = (angle / angle[-1] * np.stack([np.cos(angle), np.sin(angle)])).T
    pen.line(points, random.uniform(0.1, 0.16), Ink(random).main())


def zigzag(pen: Pen, random: Random) -> None:
    count = int(random.integers(5, 9))
    points = np.stack([np.linspace(-1, 1, count), 0.4 * (-1.0) ** np.arange(count)], axis=1)
    pen.line(points, random.uniform(0.12, 0.22), Ink(random).main())


def wave(pen: Pen, random: Random) -> None:
    x = np.linspace(-1, 1, 50)
    for shift in (-0.3, 0.3):
        points = np.stack([x, shift + 0.2 * np.sin(x * random.uniform(7, 10))], axis=1)
        pen.line(points, random.uniform(0.1, 0.16), Ink(random).main())


def checker(pen: Pen, random: Random) -> None:
    def spots(x: float, y: float) -> bool:
        return (int((x + 1) * 3) + int((y + 1) * 3)) % 2 == 0

    clipped(pen, Ink(random), spots, 6)


def stripes(pen: Pen, random: Random) -> None:
    clipped(pen, Ink(random), lambda x, y: int((x + 1) * 3.5) % 2 == 0, 7)


def dots(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.disc(0, 0, 1.0, ink.main())
    for row in range(-2, 3):
        for column in range(-2, 3):
            x, y = 0.4 * column + 0.2 * (row % 2), 0.36 * row
            if x * x + y * y < 0.75:
                pen.disc(x, y, 0.12, ink.other())


def target(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    for number, radius in enumerate((1.0, 0.77, 0.54, 0.31)):
        pen.disc(0, 0, radius, ink.other() if number % 2 else ink.main())


def pie(pen: Pen, random: Random) -> None:
    ink, first = Ink(random), random.uniform(0, 360)
    for number in range(6):
        begin = first + 60 * number
        slice_ = np.concatenate(
            [np.zeros((1, 2)), ellipse(0, 0, 1, 1, begin=begin, end=begin + 60)]
        )
        pen.polygon(slice_, ink.other() if number % 2 else ink.main())


def ladder(pen: Pen, random: Random) -> None:
    color = Ink(random).main()
    for x in (-0.35, 0.35):
        pen.line(path((x, -1), (x, 1)), 0.12, color)
    for y in np.linspace(-0.8, 0.8, int(random.integers(4, 7))):
        pen.line(path((-0.35, y), (0.35, y)), 0.1, color)


def fish(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.polygon(path((0.45, 0), (1, -0.45), (0.9, 0), (1, 0.45)), ink.main(0.8))
    pen.polygon(path((-0.2, -0.3), (0.1, -0.65), (0.3, -0.25)), ink.main(0.8))
    pen.polygon(ellipse(-0.2, 0, 0.8, 0.42), ink.main())
    for x in (-0.3, 0.0, 0.3)[: int(random.integers(0, 4))]:
        pen.line(path((x, -0.3), (x - 0.08, 0), (x, 0.3)), 0.07, ink.other())
    pen.disc(-0.65, -0.1, 0.11, PALETTE["white"])
    pen.disc(-0.67, -0.1, 0.06, PALETTE["black"])


def house(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.polygon(box(0, 0.4, 0.7, 0.55), ink.main())
    pen.polygon(path((-0.95, -0.1), (0, -1), (0.95, -0.1)), ink.other())
    pen.polygon(box(-0.3, 0.65, 0.17, 0.3), ink.main(0.5))
    pen.polygon(box(0.3, 0.3, 0.18, 0.18), shade(random, PALETTE["yellow"], 0.2))


def butterfly(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    for side in (-1, 1):
        pen.polygon(rotated(ellipse(0.5, 0, 0.5, 0.34), -35) * (side, 1), ink.main())
        pen.polygon(rotated(ellipse(0.4, 0, 0.4, 0.26), 40) * (side, 1), ink.main(0.85))
        pen.disc(side * 0.5, -0.35, 0.13, ink.other())
        pen.line(path((0, -0.4), (side * 0.25, -0.85)), 0.05, PALETTE["black"])
    pen.polygon(ellipse(0, 0.05, 0.09, 0.55), PALETTE["black"])


def car(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.polygon(path((-0.6, 0), (-0.35, -0.45), (0.35, -0.45), (0.65, 0)), ink.main(0.85))
    pen.polygon(path((-0.42, -0.05), (-0.27, -0.35), (-0.03, -0.35), (-0.03, -0.05)), ink.other())
    pen.polygon(path((0.05, -0.05), (0.05, -0.35), (0.3, -0.35), (0.45, -0.05)), ink.other())
    pen.polygon(box(0, 0.18, 1.0, 0.22), ink.main())
    for x in (-0.55, 0.55):
        pen.disc(x, 0.4, 0.24, PALETTE["black"])
        pen.disc(x, 0.4, 0.1, PALETTE["white"])


def cup(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.line(ellipse(0.6, 0, 0.35, 0.35), 0.14, ink.main(0.9))
    pen.polygon(path((-0.7, -0.6), (0.6, -0.6), (0.5, 0.7), (-0.6, 0.7)), ink.main())
    pen.polygon(ellipse(-0.05, -0.6, 0.65, 0.16), ink.other())


def key(pen: Pen, random: Random) -> None:
    color = Ink(random).main()
    pen.line(ellipse(-0.6, 0, 0.32, 0.32), 0.18, color)
    pen.line(path((-0.3, 0), (1, 0)), 0.16, color)
    for x in (0.6, 0.85):
        pen.line(path((x, 0), (x, random.uniform(0.25, 0.4))), 0.14, color)


def face(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.disc(0, 0, 1.0, ink.main(0.75))
    pen.disc(0, 0, 0.9, ink.main())
    for x in (-0.35, 0.35):
        pen.disc(x, -0.25, 0.14, PALETTE["black"])
    height = random.choice([-0.35, 0.35])
    pen.line(ellipse(0, 0.4, 0.5, height, begin=0, end=180), 0.1, PALETTE["black"])


def umbrella(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.line(path((0, -0.2), (0, 0.8), (0.12, 0.95), (0.28, 0.8)), 0.09, PALETTE["brown"])
    for number in range(4):
        begin, end = 180 + 45 * number, 225 + 45 * number
        part = np.concatenate([path((0, 0.1)), ellipse(0, 0.1, 1, 0.95, begin=begin, end=end)])
        pen.polygon(part, ink.other() if number % 2 else ink.main())


def boat(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.line(path((0, 0.4), (0, -1)), 0.08, PALETTE["brown"])
    pen.polygon(path((0.06, -0.95), (0.75, 0.25), (0.06, 0.25)), ink.other())
    pen.polygon(path((-0.06, -0.7), (-0.55, 0.25), (-0.06, 0.25)), ink.other(0.85))
    pen.polygon(path((-0.95, 0.4), (0.95, 0.4), (0.6, 0.85), (-0.6, 0.85)), ink.main())


def mushroom(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.polygon(path((-0.2, 0), (0.2, 0), (0.3, 0.9), (-0.3, 0.9)), ink.other())
    pen.polygon(ellipse(0, 0.1, 0.95, 0.95, begin=180, end=360), ink.main())
    for x, y in ((-0.5, -0.2), (0, -0.5), (0.45, -0.15)):
        pen.disc(x, y, 0.15, ink.other())


def snail(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.polygon(path((-1, 0.8), (-0.75, 0.1), (-0.5, 0.5), (0.9, 0.55), (1.1, 0.8)), ink.other())
    pen.disc(0.2, 0.05, 0.62, ink.main())
    angle = np.linspace(0, 4 * np.pi, 50)
    turn = 0.55 * angle / angle[-1] * np.stack([np.cos(angle), np.sin(angle)])
    pen.line(turn.T + np.array([0.2, 0.05]), 0.08, ink.main(0.5))


def clock(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.disc(0, 0, 1, ink.main())
    pen.disc(0, 0, 0.82, ink.other())
    for length in (0.7, 0.45):
        hand = rotated(path((0, 0), (length, 0)), random.uniform(0, 360))
        pen.line(hand, 0.1, PALETTE["black"])


def hourglass(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    pen.polygon(path((-0.65, -0.9), (0.65, -0.9), (-0.65, 0.9), (0.65, 0.9)), ink.main())
    for y in (-0.92, 0.92):
        pen.line(path((-0.75, y), (0.75, y)), 0.16, ink.other())


def bottle(pen: Pen, random: Random) -> None:
    ink = Ink(random)
    half = path((-0.16, -1), (-0.16, -0.5), (-0.4, -0.15), (-0.4, 1))
    pen.polygon(np.concatenate([half, half[::-1] * (-1, 1)]), ink.main())
    pen.polygon(box(0, 0.4, 0.4, 0.25), ink.other())


def letter(*strokes: np.ndarray) -> Callable[[Pen, Random], None]:
    def subject(pen: Pen, random: Random) -> None:
        color, width = Ink(random).main(), random.uniform(0.16, 0.3)
        for stroke in strokes:
            pen.line(stroke, width, color)

    return subject


KINDS: dict[str, Callable[[Pen, Random], None]] = {
    "triangle": polygon(3),
    "square": polygon(4),
    "pentagon": polygon(5),
    "hexagon": polygon(6),
    "octagon": polygon(8),
    "rectangle": rectangle,
    "star": star,
    "cross": cross,
    "ring": ring,
    "disc": disc,
    "crescent": crescent,
    "heart": heart,
    "arrow": arrow,
    "lightning": lightning,
    "spiral": spiral,
    "zigzag": zigzag,
    "wave": wave,
    "checker": checker,
    "stripes": stripes,
    "dots": dots,
    "target": target,
    "pie": pie,
    "ladder": ladder,
    "fish": fish,
    "house": house,
    "butterfly": butterfly,
    "car": car,
    "cup": cup,
    "key": key,
    "face": face,
    "umbrella": umbrella,
    "boat": boat,
    "mushroom": mushroom,
    "snail": snail,
    "clock": clock,
    "hourglass": hourglass,
    "bottle": bottle,
    "letter_t": letter(path((-0.7, -0.8), (0.7, -0.8)), path((0, -0.8), (0, 0.9))),
    "letter_e": letter(
        path((0.6, -0.9), (-0.5, -0.9), (-0.5, 0.9), (0.6, 0.9)), path((-0.5, 0), (0.4, 0))
    ),
    "letter_h": letter(
        path((-0.6, -0.9), (-0.6, 0.9)), path((0.6, -0.9), (0.6, 0.9)), path((-0.6, 0), (0.6, 0))
    ),
}


def draw(job: tuple[int, int, float]) -> np.ndarray:
    """Draws image `number` of the set with `seed`; kinds take turns."""
    seed, number, hardness = job
    subject = list(KINDS.values())[number % len(KINDS)]
    random = np.random.default_rng([7, seed, number])
    return draw_scene(random, SIDE, subject, hardness=hardness)


def drawn(seed: int, hardness: np.ndarray) -> Images:
    """Draws a set in all processors: uint8 [n,96,96,3] and int32 labels [n]."""
    count = len(hardness)
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    with multiprocessing.get_context("spawn").Pool() as pool:
        jobs = zip([seed] * count, range(count), hardness.tolist(), strict=True)
        for number, image in enumerate(pool.imap(draw, jobs, chunksize=64)):
            pixels[number] = image
    return pixels, np.arange(count, dtype=np.int32) % len(KINDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=24000, help="to train on (default 24000)")
    parser.add_argument("--small-epochs", type=int, default=11, help="at 64 pixels (default 11)")
    parser.add_argument("--epochs", type=int, default=5, help="at 96 pixels (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    package = Path(__file__).resolve().parent.parent / "kerasft"
    parser.add_argument("--to", type=Path, default=package / "models" / "sample_weights.h5")
    arguments = parser.parse_args()

    began = time.perf_counter()
    # They get harder with their number; the first epochs see only the first ones.
    train = drawn(arguments.seed + 1, np.linspace(0, 1, arguments.images))
    held_out = drawn(arguments.seed + 2, np.ones(2000))
    print(f"drawn in {time.perf_counter() - began:.0f} s", flush=True)
    train_and_write(arguments, train, held_out)
    print(f"{time.perf_counter() - began:.0f} s in all", flush=True)


BACKBONE = "MobileNetV2:alpha=0.35"
BATCH, WARMUP = 128, 100
RATE, DECAY, SMOOTHING = 4e-3, 0.02, 0.1
FIRST, MORE = 0.1, 0.08  # share of the images that the first epoch sees; more in each


def train_and_write(arguments: argparse.Namespace, train: Images, held_out: Images) -> None:
    """Trains at 64 pixels, where a step takes half as long, then at 96; writes the base."""
    steps_per_epoch = len(train[0]) // BATCH
    stages = ((64, arguments.small_epochs), (SIDE, arguments.epochs))
    steps = steps_per_epoch * sum(epochs for _, epochs in stages)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - WARMUP, warmup_target=RATE, warmup_steps=WARMUP
    )
    epoch = 0
    weights: list[np.ndarray] = []
    for side, epochs in stages:
        base, model = build(side, arguments.seed)
        if weights:
            model.set_weights(weights)
        for _ in range(epochs):
            began = time.perf_counter()
            batches = training_batches(train, side, seed=arguments.seed, epoch=epoch)
            rated = RatePerStep(rate, epoch * steps_per_epoch)
            fitted = model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[rated])
            figures = {key: round(values[0], 4) for key, values in fitted.history.items()}
            epoch += 1
            line = {"epoch": epoch, "side": side, **figures}
            if epoch % 5 == 0 or side == SIDE:
                line["held_out_accuracy"] = round(accuracy(model, held_out, side), 4)
            print(json.dumps({**line, "s": round(time.perf_counter() - began)}), flush=True)
            write(base, arguments.to)
        weights = model.get_weights()
    model.set_weights([weight.astype(np.float16).astype(np.float32) for weight in weights])
    print("held-out accuracy in float16:", round(accuracy(model, held_out, SIDE), 4))


def build(side: int, seed: int) -> tuple[Any, Any]:
    """The base as kerasft builds it, and with a head for the kinds of this set, compiled."""
    base = load(BACKBONE, weights="none", image_size=side, seed=seed)
    model = trained.attach(base, len(KINDS), hidden=(), dropout=0.1, seed=seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # Keras' 0.999 would lag behind in so few steps
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=DECAY)
    spared = [variable for variable in model.trainable_variables if len(variable.shape) < 2]
    optimizer.exclude_from_weight_decay(var_list=spared)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=SMOOTHING)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return base, model


def training_batches(images: Images, side: int, *, seed: int, epoch: int) -> Any:
    """One epoch in a new order: crops of 60 to 100% of the area, half of them mirrored.

    Every epoch has as many steps as the whole set has batches, however much of it is seen.
    """
    pixels, labels = images

    def numbered() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        random = np.random.default_rng([seed, 11, epoch])
        seen = max(BATCH, round(len(pixels) * min(1.0, FIRST + MORE * epoch)))
        rounds = [random.permutation(seen) for _ in range(len(pixels) // seen + 1)]
        order = np.concatenate(rounds)[: len(pixels)]
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            chosen = np.sort(order[begin : begin + BATCH])
            yield pixels[chosen], crops(random), np.eye(len(KINDS), dtype="float32")[labels[chosen]]

    @tf.autograph.experimental.do_not_convert
    def cropped(batch: Any, boxes: Any, targets: Any) -> tuple[Any, Any]:
        return tf.image.crop_and_resize(batch, boxes, tf.range(BATCH), (side, side)), targets

    signature = (
        tf.TensorSpec((BATCH, SIDE, SIDE, 3), tf.uint8),
        tf.TensorSpec((BATCH, 4), tf.float32),
        tf.TensorSpec((BATCH, len(KINDS)), tf.float32),
    )
    batches = tf.data.Dataset.from_generator(numbered, output_signature=signature)
    batches = batches.apply(tf.data.experimental.assert_cardinality(len(pixels) // BATCH))
    return batches.map(cropped).prefetch(2)


def crops(random: Random) -> np.ndarray:
    """Boxes float32 [BATCH,4]: top, left, bottom, right; a mirrored one has left > right."""
    sides = np.sqrt(random.uniform(0.6, 1, (BATCH, 1))) * random.uniform(0.93, 1.07, (BATCH, 2))
    sides = np.minimum(sides, 1)
    begin = random.uniform(0, 1, (BATCH, 2)) * (1 - sides)
    end = begin + sides
    mirrored = random.random(BATCH) < 0.5
    begin[mirrored, 1], end[mirrored, 1] = end[mirrored, 1], begin[mirrored, 1]
    return np.concatenate([begin, end], axis=1).astype("float32")


def accuracy(model: Any, images: Images, side: int) -> float:
    """Share of images whose best score is their kind's."""
    batches = tf.data.Dataset.from_tensor_slices(images[0]).batch(250)
    batches = batches.map(lambda batch: tf.image.resize(batch, (side, side)))
    scores = model.predict(batches, verbose=0)
    return float(np.mean(scores.argmax(axis=1) == images[1]))


class RatePerStep(keras.callbacks.Callback):
    """Sets the learning rate of each step."""

    def __init__(self, rate: Any, first: int) -> None:
        super().__init__()
        self.rate, self.first = rate, first

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = float(self.rate(self.first + batch))


def write(base: Any, path: Path) -> None:
    """Writes a base in float16, as Keras Applications write theirs; whole or not at all."""
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in base.layers]
        for layer in base.layers:
            group = file.create_group(layer.name)
            arrays = layer.trainable_weights + layer.non_trainable_weights
            group.attrs["weight_names"] = [array.name.encode() for array in arrays]
            for array in arrays:
                half = np.asarray(array).astype(np.float16)
                assert np.isfinite(half).all(), array.path
                assert array.name != "moving_variance" or half.min() > 0, array.path
                group.create_dataset(array.name, data=half)
    part.replace(path)


if __name__ == "__main__":
    main()
