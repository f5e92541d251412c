"""Image files for the tests: `draw_photos` draws a folder of images per class.

Shapes: h, w image height and width, pixels.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("circle", "cross", "stripes")

_SHAPE_COLORS = {"circle": (200, 70, 60), "cross": (70, 180, 80), "stripes": (70, 90, 200)}
"""Colours of the shapes, R, G, B, before the shift that each image has."""


def draw_photos(
    folder: Path,
    classes: Sequence[str] = CLASSES,
    per_class: int = 12,
    seed: int = 0,
    size: tuple[int, int] = (48, 40),
) -> Path:
    """Draws images, a folder per class, alternately PNG and JPEG.

    Args:
        folder: folder of the class folders, made if absent.
        classes: names of the class folders. The shapes follow their order, not their names.
        per_class: number of images in each folder: `<class>-000.png`, `<class>-001.jpg`, ...
        seed: seed of the images. The same arguments give the same bytes.
        size: width and height in pixels.

    Returns:
        Path `folder`.
    """
    for position, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        shape = CLASSES[position % len(CLASSES)]
        first = per_class * (position // len(CLASSES))  # no image in two folders
        for number in range(per_class):
            pixels = draw_photo(shape, first + number, seed=seed, size=size)
            if number % 2:
                encoded = io.BytesIO()
                Image.fromarray(pixels).save(encoded, "JPEG", quality=92)
                (folder / name / f"{name}-{number:03}.jpg").write_bytes(encoded.getvalue())
            else:
                (folder / name / f"{name}-{number:03}.png").write_bytes(encode_png(pixels))
    return folder


def draw_photo(name: str, number: int, *, seed: int, size: tuple[int, int]) -> np.ndarray:
    """Draws one image of a class.

    Position, size, rotation and shade of the shape differ from image to image, and so does the
    noise of the background. The class shows in the shape and, more weakly, in its colour.

    Args:
        name: name of the class, one of CLASSES.
        number: number of the image within the class, from 0.
        seed: seed of the images.
        size: width and height in pixels.

    Returns:
        uint8 [h, w, 3], RGB.
    """
    random = np.random.default_rng([seed, CLASSES.index(name), number])
    width, height = size
    extent = min(width, height)
    center = random.uniform(0.4, 0.6, 2) * (width, height)
    radius = extent * random.uniform(0.22, 0.36)
    x, y = np.meshgrid(np.arange(width) - center[0], np.arange(height) - center[1])
    angle = random.uniform(-0.3, 0.3)
    across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if name == "circle":
        inside = across**2 + along**2 < radius**2
    elif name == "cross":
        thin = np.minimum(abs(across), abs(along)) < radius * 0.3
        inside = thin & (np.maximum(abs(across), abs(along)) < radius * 1.1)
    else:
        inside = np.sin(along / extent * random.uniform(24, 36)) > 0
    background = random.uniform(90, 160) + random.normal(0, 12, (height, width, 3))
    color = np.array(_SHAPE_COLORS[name]) + random.normal(0, 15, 3)
    pixels = np.where(
        inside[..., None], color + random.normal(0, 8, (height, width, 3)), background
    )
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes a PNG file.

    Args:
        pixels: uint8 [h, w, 3], RGB.

    Source: the PNG specification (W3C, third edition), sections 5.3, 9 and 11.2: a header
        chunk, one zlib stream of rows that each start with filter type 0, an end chunk.
    """
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
