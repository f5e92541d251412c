"""One image, from encoded bytes to model input.

Training, evaluation, `predict` and the exported graph all call these functions, so an image
is decoded and resized in exactly one way. They work eagerly, in `Dataset.map` and inside a
SavedModel.

Shapes: h, w image height and width; S side of the model's square input, pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kerasft.input_rule import InputRule, too_many_pixels
from kerasft.lazy_tensorflow import tf
from kerasft.pixels import headers
from kerasft.pixels.convert import kind_of

# File names that are searched for in folders. The content may differ from what the name says.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".hif"),  # converted
)
FORMATS = "JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000, AVIF and HEIC"
RESIZE_MODES = ("stretch", "crop", "pad")


def _in_graph(function: Callable[..., Any], *more: tf.TensorSpec) -> Any:
    """Turns a function of a file's bytes, and of `more`, into one graph that runs on the CPU.

    TensorFlow would run the many small steps of reading a header on a GPU if there is one. The
    graph is made at the first call, because TensorFlow may not be installed.
    """

    def on_cpu(*inputs: tf.Tensor) -> Any:
        with tf.device("/device:CPU:0"):
            return function(*inputs)

    @functools.cache
    def graph() -> Any:
        signature = [tf.TensorSpec([], tf.string), *more]
        return tf.function(on_cpu, input_signature=signature, autograph=False)

    @functools.wraps(function)
    def call(*inputs: tf.Tensor) -> Any:
        return graph()(*inputs)

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


def decode_image(
    encoded: tf.Tensor,
    background: tuple[int, ...] | None = None,
    depth: int = 16,
    least: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Decodes one image file to upright RGB.

    Gray is repeated in all channels. An animated GIF, WebP or PNG gives its first frame.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF, BMP or WebP file.
        background: colour that transparent pixels lie on: red, green, blue, 0 to 255. None is the
            rule of kerasft 0.2: transparency is dropped, so that the colours under it show; of a
            GIF its first frame is all there is, without the canvas around it; of 16-bit numbers
            the upper 8 bits count.
        depth: number of bits in use in files that have 16 for each channel, 8 to 16: the largest
            number of that many bits becomes 255. Larger numbers become 255, too.
        least: side in pixels, int32, 0 for the full size. A JPEG is decoded at a half, a quarter
            or an eighth of its size if its shorter side keeps at least that many pixels.

    Returns:
        uint8 [h, w, 3], values 0 to 255, turned upright by the EXIF orientation.

    Raises:
        tf.errors.InvalidArgumentError: not an image, truncated, or more than MAX_PIXELS (which
            the header tells before memory is allocated). `reason_of` gives the reason in
            words.
    """
    return _decoder(background)(encoded, depth, least)


@functools.cache  # tracing takes seconds, so one graph serves all sizes and depths
def _decoder(background: tuple[int, ...] | None) -> Any:
    """Makes `decode_image` for a background."""
    more = tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32)
    return _in_graph(functools.partial(decode_by_steps, background), *more)


def decode_by_steps(
    background: tuple[int, ...] | None, encoded: tf.Tensor, depth: tf.Tensor, least: tf.Tensor
) -> tf.Tensor:
    """Decodes as `decode_image` does, in the graph that is being made, or else step by step."""
    content = headers.bytes_of(encoded)
    kind, found = headers.read_header(content)
    reason = tf.gather(headers.PROBLEMS, found.problem)
    size = ["width:", found.width, "height:", found.height]
    check = tf.debugging.Assert(found.problem == headers.FINE, ["the image", reason, *size])
    # Decoding has to wait for the check; otherwise both would start together.
    with tf.control_dependencies([check]):
        checked = tf.identity(encoded)
    branches = [
        functools.partial(decoder, _File(checked, content, found, background, depth, least))
        for decoder in DECODERS
    ]
    image = tf.switch_case(kind, branches)
    image = tf.cond(
        found.exif > 0,
        lambda: _turn_upright(image, headers.orientation_of(content, found)),
        lambda: image,
    )
    image.set_shape([None, None, 3])
    return image


class _File(NamedTuple):
    """A file whose header has no problem, and the rule by which it is decoded."""

    encoded: tf.Tensor
    content: headers.Content
    header: headers.Header
    background: tuple[int, ...] | None
    depth: tf.Tensor
    least: tf.Tensor


def _decode_any(file: _File) -> tf.Tensor:
    return tf.io.decode_image(file.encoded, channels=3, expand_animations=False)


RATIOS = (1, 2, 4, 8)  # in which libjpeg decodes


def _decode_jpeg(file: _File) -> tf.Tensor:
    shorter = tf.minimum(file.header.height, file.header.width)
    least = tf.cast(file.least, tf.int64)
    fitting = tf.cast(shorter >= least * np.array(RATIOS[1:]), tf.int32)
    parts = [functools.partial(tf.io.decode_jpeg, file.encoded, 3, ratio) for ratio in RATIOS]
    return tf.switch_case(
        tf.where(file.least > 0, 1 + tf.reduce_sum(fitting), 0), [lambda: _decode_any(file), *parts]
    )


def _decode_png(file: _File) -> tf.Tensor:
    background = file.background
    if background is None:
        return _decode_any(file)
    deep, channels = headers.png_pixels(file.content, file.header)
    numbers = [2**bits - 1 for bits in range(17)]  # the largest of each depth
    largest = tf.gather(tf.constant(numbers, tf.uint16), file.depth)
    scale = tf.gather([255 / max(1, number) for number in numbers], file.depth)

    def in_8_bits(pixels: tf.Tensor) -> tf.Tensor:
        color = tf.cast(tf.minimum(pixels[..., :3], largest), tf.float32) * scale
        color = tf.cast(tf.round(color), tf.uint8)
        if pixels.shape[2] == 4:
            opacity = tf.cast(pixels[..., 3:] // 257, tf.uint8)
            return _mixed(tf.concat([color, opacity], -1), background)
        return color

    def deep_pixels(number: int) -> tf.Tensor:
        image = _in_strips(in_8_bits, tf.io.decode_png(file.encoded, number, tf.uint16))
        return tf.repeat(image, 3, -1) if number == 1 else image

    ways: list[Callable[[], tf.Tensor]] = [
        lambda: tf.io.decode_png(file.encoded, 3),
        lambda: _on_background(tf.io.decode_png(file.encoded, 4), background),
        lambda: deep_pixels(1),
        lambda: deep_pixels(3),
        lambda: deep_pixels(4),
    ]
    shallow = tf.cast(channels == 4, tf.int32)
    return tf.switch_case(tf.where(deep, 2 + channels // 2 + channels // 4, shallow), ways)


def _on_background(pixels: tf.Tensor, background: tuple[int, ...]) -> tf.Tensor:
    """Lays transparent pixels, uint8 [h, w, 4], on a colour: uint8 [h, w, 3], rounded."""
    return _in_strips(lambda strip: _mixed(strip, background), pixels)


def _mixed(pixels: tf.Tensor, background: tuple[int, ...]) -> tf.Tensor:
    # In 16 bits, because float32 would take twice the memory: 255 * 255 + 127 fits.
    color, alpha = tf.cast(pixels[..., :3], tf.uint16), tf.cast(pixels[..., 3:], tf.uint16)
    mixed = color * alpha + tf.constant(background, tf.uint16) * (255 - alpha)
    return tf.cast((mixed + 127) // 255, tf.uint8)


STRIP = 1 << 22  # pixels


def _in_strips(function: Callable[[tf.Tensor], tf.Tensor], pixels: tf.Tensor) -> tf.Tensor:
    """Computes each pixel of a large image, [h, w, channels] to uint8 [h, w, ...], row by row.

    What the function makes on the way takes several times the memory of the image.
    """
    height = tf.shape(pixels)[0]
    rows = tf.maximum(STRIP // tf.maximum(tf.shape(pixels)[1], 1), 1)

    def strips() -> tf.Tensor:
        number = (height + rows - 1) // rows
        parts = tf.TensorArray(tf.uint8, number, infer_shape=False, element_shape=[None] * 3)
        _, parts = tf.while_loop(
            lambda at, _: at < number,
            lambda at, parts: (
                at + 1,
                parts.write(at, function(pixels[at * rows : (at + 1) * rows])),
            ),
            (0, parts),
            parallel_iterations=1,
        )
        return parts.concat()

    return tf.cond(height <= rows, lambda: function(pixels), strips)


def _decode_gif(file: _File) -> tf.Tensor:
    frame = headers.gif_frame(file.encoded, file.content, file.header.frame, file.background)
    image = _decode_any(file._replace(encoded=frame.encoded))
    return image if file.background is None else _on_canvas(file, image, frame.left, frame.top)


def _on_canvas(file: _File, image: tf.Tensor, left: tf.Tensor, top: tf.Tensor) -> tf.Tensor:
    """Lays the first frame of an animation at its place on the canvas, which shows the colour."""
    size = tf.cast(tf.shape(image)[:2], tf.int64)
    canvas = tf.stack([file.header.height, file.header.width])
    before = tf.stack([top, left])

    def on_canvas() -> tf.Tensor:
        margins = tf.concat([tf.stack([before, canvas - size - before], 1), [[0, 0]]], 0)
        inside = tf.pad(tf.ones_like(image, tf.bool), margins)
        return tf.where(inside, tf.pad(image, margins), tf.constant(file.background, tf.uint8))

    return tf.cond(tf.reduce_all(size == canvas), lambda: image, on_canvas)


def _decode_bmp(file: _File) -> tf.Tensor:
    def opaque() -> tf.Tensor:
        image = _decode_any(file)
        # TensorFlow mistakes the indices of a palette's colours for shades of gray.
        return tf.cond(
            headers.bmp_bits(file.content) == 8,
            lambda: tf.gather(headers.bmp_palette(file.content), tf.cast(image[:, :, 0], tf.int32)),
            lambda: image,
        )

    background = file.background
    if background is None:
        return opaque()

    def transparent() -> tf.Tensor:
        pixels = tf.io.decode_bmp(file.encoded, 4)
        # Programs that know no opacity write 0 for all of it; browsers show such a file, too.
        unknown = tf.reduce_all(pixels[..., 3] == 0)
        return tf.cond(unknown, lambda: pixels[..., :3], lambda: _on_background(pixels, background))

    return tf.cond(headers.bmp_is_transparent(file.content), transparent, opaque)


def _decode_webp(file: _File) -> tf.Tensor:
    # TensorFlow cannot decode a transparent WebP to three channels.
    background = file.background
    frame = headers.webp_frame(
        file.encoded, file.content, file.header.frame, transparent=background is not None
    )
    image = tf.io.decode_image(frame, expand_animations=False)
    if background is None:
        return image[:, :, :3]
    _, _, left, top = tf.unstack(headers.webp_place(file.content))
    shown = tf.cond(
        tf.shape(image)[2] == 4,
        lambda: _on_background(image, background),
        lambda: image[:, :, :3],
    )
    return _on_canvas(file, shown, left, top)


# In the order of headers.FORMATS. The last one is not called: such a file never passes the check.
DECODERS: list[Callable[[_File], tf.Tensor]] = [
    _decode_jpeg,
    _decode_png,
    _decode_gif,
    _decode_bmp,
    _decode_webp,
    _decode_any,
]


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


def square_of(encoded: tf.Tensor, rule: InputRule) -> tf.Tensor:
    """Converts one image file to model input: float32 [S, S, 3], values 0 to 255.

    Args:
        encoded: scalar string, the bytes of the file.
        rule: rule of the model.

    Raises:
        tf.errors.InvalidArgumentError: as in `decode_image`.
    """
    image = decode_image(encoded, rule.background, rule.depth, rule.least())
    return resize_image(image, rule.image_size, rule.resize)


def squares_of(encoded: tf.Tensor, rule: InputRule) -> tuple[tf.Tensor, tf.Tensor]:
    """Converts image files to model input; one that can't be read does not fail the others.

    It works inside a graph that is saved, too: a dataset leaves out the elements that fail, which
    no other operation of TensorFlow can, and decodes on all cores.

    Args:
        encoded: string [B], the bytes of the files.
        rule: rule of the model.

    Returns:
        Pixels float32 [B,S,S,3], 0 to 255, zeros for a file that can't be read; and errors string
        [B], "" for a file that was read, else words that follow its name ("is truncated").
    """
    with tf.device("/device:CPU:0"):
        count = tf.size(encoded, tf.int64)
        side = rule.image_size

        def load(place: tf.Tensor, one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # The one after the last stands for no file: an empty dataset would have no batch.
            black = functools.partial(tf.zeros, [side, side, 3])
            return place, tf.cond(place == count, black, lambda: square_of(one, rule))

        files = tf.data.Dataset.range(count + 1), tf.concat([encoded, [""]], 0)
        pairs = tf.data.Dataset.zip(files[0], tf.data.Dataset.from_tensor_slices(files[1]))
        squares = pairs.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        places, pixels = squares.ignore_errors().batch(count + 1).get_single_element()
        places, pixels = places[:-1], pixels[:-1]
        shape = tf.stack([count, side, side, 3])
        all_pixels = tf.scatter_nd(places[:, tf.newaxis], pixels, shape)
        read = tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places), [count]) > 0
        unread = tf.where(~read)
        reasons = tf.map_fn(_problem_of, tf.gather_nd(encoded, unread))
        errors = tf.tensor_scatter_nd_update(tf.fill([count], ""), unread, reasons)
        return tf.ensure_shape(all_pixels, [None, side, side, 3]), errors


def _problem_of(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the problem of a file that can't be read, string scalar, as far as its header tells.

    `reason_of` knows more, with Python.
    """
    _, found = headers.read_header(headers.bytes_of(encoded))
    problem = tf.gather(headers.PROBLEMS, found.problem)
    return tf.where(found.problem == headers.FINE, "is truncated or damaged", problem)


def reason_of(encoded: bytes) -> str:
    """Says why a file does not decode, in words that follow its name: "is truncated"."""
    kind, height, width, problem = (int(number) for number in _inspect(encoded))
    if problem == headers.NO_IMAGE and (name := name_of(encoded)):
        return f"is {name} file; kerasft reads {FORMATS}"
    if problem == headers.TOO_MANY_PIXELS:
        return too_many_pixels(height, width)
    if problem:
        return headers.PROBLEMS[problem]
    return "is truncated" if _ends_early(headers.FORMATS[kind], encoded) else "is damaged"


def has_problem(encoded: bytes) -> bool:
    """Returns whether the header of a file tells that it must not be decoded."""
    return bool(_inspect(encoded)[3])


@_in_graph
def _inspect(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    kind, found = headers.read_header(headers.bytes_of(encoded))
    return kind, found.height, found.width, found.problem


def name_of(encoded: bytes) -> str | None:
    """Names common kinds of file that `convert.py` does not read either, with their article."""
    if encoded[4:8] == b"ftyp":
        return "a video"
    starts = {
        b"\xff\x0a": "a JPEG XL",
        b"\0\0\0\x0cJXL ": "a JPEG XL",
        b"8BPS": "a Photoshop",
        b"%PDF": "a PDF",
        b"<svg": "an SVG",
        b"\0\0\1\0": "an icon",
        b"PK\3\4": "a zip",
    }
    return next((name for start, name in starts.items() if encoded.startswith(start)), None)


def is_image_content(start: bytes) -> bool:
    """Returns whether a file holds an image, one that kerasft reads or not.

    Args:
        start: first 64 bytes of the file, or all of a shorter one.
    """
    no_image = ("a PDF", "a zip", "a video", None)
    return headers.format_of(start) != "" or kind_of(start) != "" or name_of(start) not in no_image


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
