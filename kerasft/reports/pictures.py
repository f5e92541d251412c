"""Photos as small JPEGs inside a page (data URIs), made by Pillow.

The model never sees these pictures; they are for people. So a JPEG is decoded at a fraction of its
size, which takes a millisecond or two instead of a tenth of a second.
"""

import base64
import io
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kerasft.data.threads import in_order
from kerasft.pixels.convert import as_readable

SIDE = 96
"""Longer side of a small picture in pixels."""

LARGE = 176
"""Longer side of a picture that is looked at closely."""

ROOM = 1_600_000
"""Largest size of all pictures of one call in bytes, so that a page keeps below 5 MB."""

_QUALITY = 70
_WHITE = (255, 255, 255)


def pictures_of(
    root: Path,
    paths: Iterable[str],
    *,
    side: int = SIDE,
    room: int = ROOM,
    seconds: float | None = None,
) -> dict[str, str]:
    """Makes pictures of photos, in threads.

    Args:
        root: folder that the paths are relative to.
        paths: paths of the photos, the most important first; a path may come twice.
        side: longer side of the pictures in pixels.
        room: largest size of all pictures together, bytes.
        seconds: time after which no more pictures are made; None makes all.

    Returns:
        Data URIs by path; "" for a photo that Pillow cannot read. Photos for which there was no
        time or no room are missing.
    """
    wanted = list(dict.fromkeys(paths))
    until = None if seconds is None else time.monotonic() + seconds
    made: dict[str, str] = {}
    results = in_order(lambda path: picture_of(root / path, side), wanted, workers=2, ahead=4)
    for path, picture in zip(wanted, results, strict=False):
        room -= len(picture)
        if room < 0:
            break
        made[path] = picture
        if until is not None and time.monotonic() > until:
            break
    results.close()
    return made


def picture_of(path: Path, side: int = SIDE) -> str:
    """Makes a picture of one photo, upright; "" if it cannot be read.

    Args:
        path: path of the photo.
        side: longer side of the picture in pixels.
    """
    try:
        with Image.open(io.BytesIO(as_readable(path.read_bytes()))) as file:
            file.draft("RGB", (side, side))  # at least this size; only JPEG knows it
            image: Image.Image = file
            if file.mode.startswith("I"):  # 16 bits, which `convert` would clip
                image = Image.fromarray((np.asarray(file) // 257).astype(np.uint8))
            small = _on_white(ImageOps.exif_transpose(image))
            small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
            return _uri(small)
    except Exception:  # Pillow's plugins raise whatever their parsing runs into
        return ""


def picture(pixels: np.ndarray, shape_of: str = "") -> str:
    """Turns pixels into a picture of at most `LARGE`.

    Args:
        pixels: uint8 [h,w,3], RGB.
        shape_of: data URI of a picture whose size it takes; "" keeps its shape.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((LARGE, LARGE), Image.Resampling.BILINEAR)
    if shape_of:
        encoded = base64.b64decode(shape_of.partition(",")[2])
        with Image.open(io.BytesIO(encoded)) as other:
            image = image.resize(other.size, Image.Resampling.BILINEAR)
    return _uri(image)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "L", "CMYK", "YCbCr", "1"):
        return image.convert("RGB")
    clear = image.convert("RGBA")
    ground = Image.new("RGBA", clear.size, (*_WHITE, 255))
    return Image.alpha_composite(ground, clear).convert("RGB")


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
