"""One image, from encoded bytes to model input.

Training, evaluation, `predict` and the exported graph all call these functions, so an image
is decoded and resized in exactly one way. They work eagerly, in `Dataset.map` and inside a
SavedModel.

Shapes: h, w image height and width; S side of the model's square input, pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from kerasft.lazy_tensorflow import tf
from kerasft.pixels import headers
from kerasft.pixels.headers import MAX_PIXELS

# File names that are searched for in folders. The content may differ from what the name says.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".webp")
FORMATS = "JPEG, PNG, GIF, BMP and WebP"
RESIZE_MODES = ("stretch", "crop", "pad")


def _in_graph(function: Callable[[tf.Tensor], Any]) -> Any:
    """Turns a function of a file's bytes into one graph that runs on the CPU.

    TensorFlow would run the many small steps of reading a header on a GPU if there is one. The
    graph is made at the first call, because TensorFlow may not be installed.
    """

    def on_cpu(encoded: tf.Tensor) -> Any:
        with tf.device("/device:CPU:0"):
            return function(encoded)

    @functools.cache
    def graph() -> Any:
        return tf.function(on_cpu, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

    @functools.wraps(function)
    def call(encoded: tf.Tensor) -> Any:
        return graph()(encoded)

    return call


@_in_graph
def header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads format and size of an image without decoding it.

    Args:
        encoded: scalar string, the bytes of any file.

    Returns:
        Format, string scalar: "jpeg", "png", "gif", "bmp", "webp", or "" for anything else.
        Height and width, int32 scalars, as stored, before the EXIF orientation is applied;
        for an animation, those of its first frame; 0 if unknown, at most 2**31 - 1. Never fails.
    """
    content = headers.bytes_of(encoded)
    kind, found = headers.read_header(content)
    height, width = (
        tf.cast(tf.minimum(side, tf.int32.max), tf.int32) for side in (found.height, found.width)
    )
    return tf.gather(headers.FORMATS, kind), height, width


@_in_graph
def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the orientation in which a photo was taken.

    Args:
        encoded: scalar string, the bytes of any file.

    Returns:
        int32 scalar, 1 to 8: EXIF tag 0x0112 of a JPEG or WebP file. 1 (upright) for files
        of other formats, and if the tag is missing or malformed. Never fails.
    """
    content = headers.bytes_of(encoded)
    return headers.orientation_of(content, headers.read_header(content)[1])


@_in_graph
def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one image file to upright RGB.

    A 16-bit PNG is reduced to 8 bits, gray is repeated in all channels, and transparency is
    dropped, so the colours under it show. An animated GIF, WebP or PNG gives its first frame.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
        uint8 [h, w, 3], values 0 to 255, turned upright by the EXIF orientation.

    Raises:
        tf.errors.InvalidArgumentError: not an image, truncated, or more than MAX_PIXELS (which
            the header tells before memory is allocated). `reason_of` gives the reason in
            words.
    """
    content = headers.bytes_of(encoded)
    kind, found = headers.read_header(content)
    reason = tf.gather(headers.PROBLEMS, found.problem)
    size = ["width:", found.width, "height:", found.height]
    check = tf.debugging.Assert(found.problem == headers.FINE, ["the image", reason, *size])
    # Decoding has to wait for the check; otherwise both would start together.
    with tf.control_dependencies([check]):
        checked = tf.identity(encoded)
    # A branch per format, in the order of headers.FORMATS. The last one never passes the check.
    decoders: list[Callable[..., tf.Tensor]]
    decoders = [_decode_any, _decode_any, _decode_gif, _decode_bmp, _decode_webp, _decode_any]
    branches = [functools.partial(decode, checked, content, found) for decode in decoders]
    image = tf.switch_case(kind, branches)
    image = tf.cond(
        found.exif > 0,
        lambda: _turn_upright(image, headers.orientation_of(content, found)),
        lambda: image,
    )
    image.set_shape([None, None, 3])
    return image


def _decode_any(encoded: tf.Tensor, *_: object) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _decode_gif(encoded: tf.Tensor, content: headers.Content, found: headers.Header) -> tf.Tensor:
    return _decode_any(headers.gif_frame(encoded, content, found.frame))


def _decode_bmp(encoded: tf.Tensor, content: headers.Content, _: headers.Header) -> tf.Tensor:
    image = _decode_any(encoded)
    # TensorFlow mistakes the indices of a palette's colours for shades of gray.
    return tf.cond(
        headers.bmp_bits(content) == 8,
        lambda: tf.gather(headers.bmp_palette(content), tf.cast(image[:, :, 0], tf.int32)),
        lambda: image,
    )


def _decode_webp(encoded: tf.Tensor, content: headers.Content, found: headers.Header) -> tf.Tensor:
    # TensorFlow cannot decode a transparent WebP to three channels.
    frame = headers.webp_frame(encoded, content, found.frame)
    return tf.io.decode_image(frame, expand_animations=False)[:, :, :3]


def _turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    def turned(*axes: int, transposed: bool = False) -> tf.Tensor:
        upright = tf.transpose(image, [1, 0, 2]) if transposed else image
        return tf.reverse(upright, axes) if axes else upright

    # EXIF 2.32, tag 0x0112: the side of the upright image at which stored row 0 and column 0 lie.
    turned_image = tf.switch_case(
        orientation - 1,
        [
            lambda: image,
            lambda: turned(1),
            lambda: turned(0, 1),
            lambda: turned(0),
            lambda: turned(transposed=True),
            lambda: turned(1, transposed=True),
            lambda: turned(0, 1, transposed=True),
            lambda: turned(0, transposed=True),
        ],
    )
    turned_image.set_shape([None, None, 3])
    return turned_image


def resize_image(image: tf.Tensor, image_size: int, mode: str) -> tf.Tensor:
    """Resizes an image to the square input of a model, bilinear with antialiasing.

    Args:
        image: [h, w, 3], any numeric type, values 0 to 255.
        image_size: side of the square, S.
        mode: "stretch" changes the aspect ratio; "crop" keeps the central square; "pad" keeps
            the whole image and its aspect ratio, centred between black borders.

    Returns:
        float32 [S, S, 3], values 0 to 255.

    Raises:
        ValueError: unknown mode.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"mode: expected one of {', '.join(RESIZE_MODES)}, got {mode!r}")
    shape = tf.cast(tf.shape(image)[:2], tf.int64)
    target = tf.constant([image_size, image_size], tf.int64)
    if mode == "crop":
        shortest = tf.reduce_min(shape)
        top, left = tf.unstack((shape - shortest) // 2)
        image = image[top : top + shortest, left : left + shortest]
    if mode == "pad":
        longest = tf.reduce_max(shape)
        target = tf.maximum((2 * shape * image_size + longest) // (2 * longest), 1)  # rounded
    resized = tf.image.resize(image, tf.cast(target, tf.int32), antialias=True)
    if mode == "pad":
        before = (image_size - target) // 2
        after = image_size - target - before
        resized = tf.pad(resized, tf.concat([tf.stack([before, after], 1), [[0, 0]]], 0))
    resized.set_shape([image_size, image_size, 3])
    # The weights of the filter sum to 1 only within rounding: white becomes 255.00006.
    return tf.clip_by_value(resized, 0.0, 255.0)


def load_image(path: tf.Tensor, image_size: int, mode: str) -> tf.Tensor:
    """Reads one image file and converts it to model input.

    Args:
        path: scalar string, path of the file.
        image_size: side of the square, S.
        mode: mode of `resize_image`.

    Returns:
        float32 [S, S, 3], values 0 to 255.

    Raises:
        tf.errors.NotFoundError: no such file.
        tf.errors.InvalidArgumentError: as in `decode_image`.
    """
    return resize_image(decode_image(tf.io.read_file(path)), image_size, mode)


def reason_of(encoded: bytes) -> str:
    """Says why a file does not decode, in words that follow its name: "is truncated"."""
    kind, height, width, problem = (int(number) for number in _inspect(encoded))
    if problem == headers.NO_IMAGE and (name := name_of(encoded)):
        return f"is {name} file; kerasft reads {FORMATS}"
    if problem == headers.TOO_MANY_PIXELS:
        return f"has {width}x{height} pixels, more than the {MAX_PIXELS:,} that kerasft reads"
    if problem:
        return headers.PROBLEMS[problem]
    return "is truncated" if _ends_early(headers.FORMATS[kind], encoded) else "is damaged"


@_in_graph
def _inspect(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    kind, found = headers.read_header(headers.bytes_of(encoded))
    return kind, found.height, found.width, found.problem


def name_of(encoded: bytes) -> str | None:
    """Names common kinds of file that are not supported, with their article."""
    if encoded[4:8] == b"ftyp":
        brands = {b"avif": "an AVIF", b"avis": "an AVIF"}
        heif = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
        return brands.get(encoded[8:12], "a HEIF" if encoded[8:12] in heif else "a video")
    starts = {
        b"II*\0": "a TIFF",
        b"MM\0*": "a TIFF",
        b"\xff\x0a": "a JPEG XL",
        b"\0\0\0\x0cJXL ": "a JPEG XL",
        b"\0\0\0\x0cjP  ": "a JPEG 2000",
        b"8BPS": "a Photoshop",
        b"%PDF": "a PDF",
        b"<svg": "an SVG",
        b"\0\0\1\0": "an icon",
        b"PK\3\4": "a zip",
    }
    return next((name for start, name in starts.items() if encoded.startswith(start)), None)


def _ends_early(kind: str, encoded: bytes) -> bool:
    """Returns whether a file that does not decode lacks its end."""
    if kind == "jpeg":
        return b"\xff\xd9" not in encoded[-1024:]
    if kind == "png":
        return b"IEND\xaeB`\x82" not in encoded[-1024:]  # with its checksum
    if kind == "gif":
        return not encoded.endswith(b";")
    sizes = {"bmp": encoded[2:6], "webp": encoded[4:8]}
    declared = int.from_bytes(sizes[kind], "little") + (8 if kind == "webp" else 0)
    return len(encoded) < declared
