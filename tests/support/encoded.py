"""Images of every format, encoded in memory, for the tests of decoding."""

import io

import numpy as np
from PIL import Image


def blocks(width: int = 60, height: int = 40) -> Image.Image:
    """Draws a picture without symmetry: every orientation looks different."""
    pixels = np.zeros((height, width, 3), "uint8")
    pixels[: height // 2, : width // 3] = [250, 20, 30]
    pixels[height // 2 :, : width // 2] = [20, 240, 40]
    pixels[: height // 4, width // 2 :] = [30, 40, 230]
    return Image.fromarray(pixels)


def encode(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int, endian: str = "<") -> bytes:
    block = Image.Exif()
    block.endian = endian
    block[0x010F] = "a camera"
    block[0x0112] = orientation
    block[0x0131] = "a program"
    return block.tobytes()


PHOTO = encode(blocks(), "JPEG", exif=exif(6))
ANIMATION = [blocks(), blocks().rotate(180), blocks().transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
MORE = {"save_all": True, "append_images": ANIMATION[1:]}
FILES = {
    "jpeg": PHOTO,
    "progressive jpeg": encode(blocks(), "JPEG", progressive=True),
    "png": encode(blocks(), "PNG"),
    "gif": encode(blocks(), "GIF"),
    "animated gif": encode(ANIMATION[0], "GIF", **MORE),
    "bmp": encode(blocks(), "BMP"),
    "webp": encode(blocks(), "WEBP"),
    "lossless webp": encode(blocks(), "WEBP", lossless=True),
    "extended webp": encode(blocks(), "WEBP", exif=exif(6)),
    "animated webp": encode(ANIMATION[0], "WEBP", **MORE),
}
