"""Images that TensorFlow cannot read, converted by Pillow to PNG: once, kept in the cache.

These are TIFF, JPEG 2000, AVIF, the rarer kinds of BMP, and HEIC with the extra `heif`. 16 bits
of a microscope stay 16 bits. All other files are passed on as they are.

    converted/DIGEST.png    the PNG of a file with this digest; the least recently used ones go when
                            they are more than LIMIT
"""

import io
import os
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kerasft.cache import RESERVE, cache_folder, free_bytes
from kerasft.errors import Unreadable
from kerasft.files import digest_of
from kerasft.input_rule import MAX_PIXELS, too_many_pixels
from kerasft.results import Result

if TYPE_CHECKING:
    from PIL import Image

LIMIT = 4 * 10**9  # bytes
_END = b"IEND\xaeB`\x82"  # of a PNG that is whole
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def kind_of(encoded: bytes) -> str:
    """Names the format of a file that has to be converted: "TIFF"; "" for any other file."""
    if encoded[4:8] == b"ftyp":
        brand = encoded[8:12]
        return "AVIF" if brand in (b"avif", b"avis") else "HEIC" if brand in _HEIF else ""
    starts = {
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"\0\0\0\x0cjP  ": "JPEG 2000",
        b"\xff\x4f\xff\x51": "JPEG 2000",
    }
    known = next((kind for start, kind in starts.items() if encoded.startswith(start)), "")
    return known or ("BMP" if encoded.startswith(b"BM") and _is_odd(encoded) else "")


def _is_odd(encoded: bytes) -> bool:
    """Returns whether a BMP file is of a kind that `headers.py` does not know."""
    if len(encoded) < 54:
        return len(encoded) >= 26 and int.from_bytes(encoded[14:18], "little") < 40
    size, bits, packing = (
        int.from_bytes(encoded[at : at + length], "little")
        for at, length in ((14, 4), (28, 2), (30, 4))
    )
    masks = bytes([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0])  # red, green, blue
    plain = packing == 0 and bits in (8, 24, 32)
    plain |= packing == 3 and bits == 32 and encoded[54:66] == masks
    return size < 40 or not plain


MULTI_PAGE = "multi-page TIFF"
_MOST_PAGES = 64  # directories that are looked at


def has_pages(encoded: bytes) -> bool:
    """Returns whether a TIFF file holds more pages than the first, which is all that is read.

    Smaller versions of a page and masks are none: TIFF 6.0, tag 254 (NewSubfileType).
    """
    order: Literal["little", "big"] = "little" if encoded[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(encoded[at : at + size], order)

    at = number(4, 4)
    for page in range(_MOST_PAGES):
        entries = number(at, 2)
        if not 8 <= at < len(encoded) or not entries:
            return False
        tags = {number(entry, 2): entry for entry in range(at + 2, at + 2 + 12 * entries, 12)}
        kind = number(tags[254] + 8, 4) if 254 in tags else 0
        if page and not kind & 0b101:
            return True
        at = number(at + 2 + 12 * entries, 4)
    return False


def as_readable(encoded: bytes, *, keep: bool = True) -> bytes:
    """Returns a file as TensorFlow can read it.

    Args:
        encoded: bytes of any file.
        keep: whether the cache is read and written; False leaves no trace of the photo on the disk.

    Returns:
        The same bytes, or a PNG of the image if Pillow has to read it: its first page, upright,
        with 8 or 16 bits per channel.

    Raises:
        Unreadable: the file is of one of these kinds, but cannot be converted.
    """
    kind = kind_of(encoded)
    if not kind:
        return encoded
    if not keep:
        return _convert(encoded, kind)
    path = _folder() / f"{digest_of(encoded)}.png"
    with suppress(OSError):
        kept = path.read_bytes()
        if kept.endswith(_END):
            os.utime(path)
            return kept
    made = _convert(encoded, kind)
    with suppress(OSError):  # a cache that is full or read-only: then it is made again next time
        _keep(path, made)
    return made


def _convert(encoded: bytes, kind: str) -> bytes:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if kind == "HEIC":
        try:
            import pi_heif
        except ImportError:
            raise Unreadable(
                'is a HEIC file; `pip install "kerasft[heif]"` lets kerasft read it'
            ) from None
        pi_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _check(image, kind)
            upright = ImageOps.exif_transpose(image)
            plain = _in_png_mode(upright, kind)
            buffer = io.BytesIO()
            plain.save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        raise Unreadable(f"has more than the {MAX_PIXELS:,} pixels that kerasft reads") from None
    except UnidentifiedImageError:
        raise Unreadable(f"is a damaged {kind} file") from None
    except Exception as error:  # Pillow's plugins raise whatever their parsing runs into
        text = "".join(str(error).splitlines()[:1]).rstrip(".")
        early = "truncated" in text.lower() or isinstance(error, EOFError)
        reason = "is truncated" if early else f"is a damaged {kind} file"
        raise Unreadable(reason if early or not text else f"{reason}: {text}") from error


def _check(image: "Image.Image", kind: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Unreadable(too_many_pixels(height, width))
    bits = getattr(image, "tag_v2", {}).get(258, (8,)) if kind == "TIFF" else (8,)
    widest = max(bits) if isinstance(bits, tuple) else bits
    if widest > 8 and not image.mode.startswith(("I", "F")):
        # Pillow would keep the upper 8 bits, which are nearly black in a picture of 12 bits.
        raise Unreadable(
            f"is a TIFF file with {widest} bits per colour; save it as a PNG of 16 bits"
        )


def _in_png_mode(image: "Image.Image", kind: str) -> "Image.Image":
    """Returns the image in a mode in which PNG keeps all that there is."""
    mode = image.mode
    if kind == "BMP" and mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # as in `images`: written by a program that knows no opacity
    if mode in ("1", "L", "RGB", "RGBA", "LA"):
        return image
    if mode.startswith("I;16"):
        return image.convert("I;16") if mode != "I;16" else image
    if mode == "I":
        numbers = np.asarray(image)
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high > 65535:
            raise Unreadable(
                f"is a {kind} file with numbers from {low:,} to {high:,}, not 0 to 65,535"
            )
        return image.convert("I;16")
    if mode == "F":
        raise Unreadable(f"is a {kind} file of floating-point numbers, whose range is unknown")
    return image.convert("RGBA" if "transparency" in image.info or mode in ("PA", "La") else "RGB")


def _folder() -> Path:
    return cache_folder() / "converted"


_lock = threading.Lock()


def _keep(path: Path, made: bytes) -> None:
    """Writes a file into the cache, whole or not at all, and removes old ones over LIMIT."""
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    if free_bytes(folder) < len(made) + RESERVE:
        return
    handle, part = tempfile.mkstemp(prefix=".part.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(made)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    with _lock:
        files = sorted(_files(folder), key=lambda file: file[2])
        total = sum(size for _, size, _ in files)
        for old, size, _ in files:
            if total <= LIMIT:
                break
            with suppress(OSError):
                old.unlink()
            total -= size


def _files(folder: Path) -> list[tuple[Path, int, float]]:
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                facts = entry.stat()
                found.append((Path(entry.path), facts.st_size, facts.st_mtime))
    return found


@dataclass(frozen=True)
class Converted(Result):
    """The converted photos in the cache: how many there are, and their size in bytes."""

    converted_files: int
    converted_bytes: int


def report() -> Converted:
    """Counts the converted photos in the cache."""
    sizes = [size for _, size, _ in _files(_folder())]
    return Converted(len(sizes), sum(sizes))


def clear() -> Converted:
    """Removes the converted photos from the cache; they are made again where they are needed."""
    removed = []
    for path, size, _ in _files(_folder()):
        with suppress(OSError):
            path.unlink()
            removed.append(size)
    return Converted(len(removed), sum(removed))
