"""Image files for the tests, drawn on the spot: `draw_photos` fills a folder per class."""

import io
from collections.abc import Sequence
from pathlib import Path

from draw_photos import CLASSES, draw_photo, encode_png
from PIL import Image


def draw_photos(
    folder: Path,
    classes: Sequence[str] = CLASSES,
    per_class: int = 12,
    seed: int = 0,
    size: tuple[int, int] = (48, 40),
) -> Path:
    """Draws images, a folder per class, PNG and JPEG in turn.

    Args:
        folder: where to draw; made if absent.
        classes: names of the folders. The shapes are taken in turn, whatever the names.
        per_class: images in each folder: `<class>-000.png`, `<class>-001.jpg`, ...
        seed: other seeds, other images. The same arguments give the same bytes.
        size: width and height in pixels.

    Returns:
        `folder`.
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
