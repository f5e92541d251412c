"""Headers of image files: format, size and EXIF orientation, read before anything is decoded.

Everything is TensorFlow operations on the encoded bytes, so that the exported graph refuses a
decompression bomb and turns a phone's photo upright without Python. Malformed bytes raise
nothing here: reads past the end give zeros, and nonsense is reported as a `problem`.

Positions and sizes are int64, so that the 32-bit offsets of a hostile file cannot wrap around. The
bytes are copied once; `tf.strings.substr` would copy all of them at every read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kerasft.input_rule import MAX_PIXELS
from kerasft.lazy_tensorflow import tf

FORMATS = ("jpeg", "png", "gif", "bmp", "webp", "")
JPEG, PNG, GIF, BMP, WEBP, UNKNOWN = range(6)

PROBLEMS = (
    "",
    "is empty",
    "is not a JPEG, PNG, GIF, BMP or WebP image",
    "is truncated",
    "is damaged: no size in its header",
    "is a BMP file that is compressed or has fewer than 8 bits per pixel",
    "is damaged: its header says no pixels",
    f"has more than {MAX_PIXELS:,} pixels",
    "is damaged: its first frame lies off its canvas",
)
FINE, EMPTY, NO_IMAGE, TRUNCATED, NO_SIZE = range(5)
ODD_BMP, NO_PIXELS, TOO_MANY_PIXELS, OFF_CANVAS = range(5, 9)


_PADDING = 80  # longer than any field that is read at once
_MAX_STEPS = 4096  # limit for the walk through a hostile file; photos have 5 to 100 segments


class Content(NamedTuple):
    """The bytes of a file, uint8 [size + 80] with zeros at the end, and their number, int64."""

    padded: tf.Tensor
    size: tf.Tensor


class Header(NamedTuple):
    """The contents of a header, as scalar tensors.

    height, width: int64, as stored, before the EXIF orientation is applied; 0 if unknown. For
        an animated WebP and a GIF, those of the canvas on which the first frame lies.
    frame: int64, position of the first frame of a GIF or of the pixels of a WebP, or of the end
        of the walk to it; position of the transparent colours ("tRNS") of a PNG, 0 if there are
        none; 0 for the other formats.
    exif: int64, position of the EXIF block's byte order mark; 0 if there is no such block.
    exif_end: int64, position at which the block ends.
    problem: int32, index into PROBLEMS; 0 if the image may be decoded.
    """

    height: tf.Tensor
    width: tf.Tensor
    frame: tf.Tensor
    exif: tf.Tensor
    exif_end: tf.Tensor
    problem: tf.Tensor


def bytes_of(encoded: tf.Tensor) -> Content:
    """Converts the bytes of a file, scalar string, for the functions of this module."""
    size = tf.strings.length(encoded)
    padded = tf.io.decode_raw(encoded, tf.uint8, fixed_length=size + _PADDING)
    return Content(tf.reshape(padded, [-1]), tf.cast(size, tf.int64))


def read_header(content: Content) -> tuple[tf.Tensor, Header]:
    """Reads the header of an image without decoding the pixels.

    Args:
        content: bytes of any file.

    Returns:
        The format, int32 scalar, an index into FORMATS; and the header. Never fails.
    """
    kind = _kind_of(content)
    readers = (_read_jpeg, _read_png, _read_gif, _read_bmp, _read_webp, _read_unknown)
    branches = [functools.partial(read, content) for read in readers]
    height, width, frame, exif, exif_end, problem = tf.switch_case(kind, branches)
    known = problem == FINE
    height, width = _choose(known, height, 0), _choose(known, width, 0)
    # A division, because the product of two 32-bit sides could overflow.
    too_many = height > MAX_PIXELS // tf.maximum(width, 1)
    none = tf.minimum(height, width) < 1
    size_problem = tf.where(too_many, TOO_MANY_PIXELS, tf.where(none, NO_PIXELS, FINE))
    problem = tf.where(known, size_problem, problem)
    return kind, Header(height, width, frame, exif, exif_end, problem)


# The first bytes of each format, in the order of FORMATS. -1 matches any byte.
_SIGNATURES = (
    (0xFF, 0xD8, 0xFF, *9 * [-1]),
    (0x89, *b"PNG\r\n\x1a\n", *4 * [-1]),
    (*b"GIF8", *8 * [-1]),
    (*b"BM", *10 * [-1]),
    (*b"RIFF", -1, -1, -1, -1, *b"WEBP"),
    (*12 * [-1],),
)


def _kind_of(content: Content) -> tf.Tensor:
    """Recognizes the format by the first bytes, regardless of the file's name."""
    expected = tf.constant(_SIGNATURES, tf.int64)
    fits = tf.reduce_all((_bytes(content, 0, 12) == expected) | (expected < 0), axis=1)
    return tf.argmax(tf.cast(fits, tf.uint8), output_type=tf.int32)


def format_of(start: bytes) -> str:
    """Recognizes the format as `read_header` does, one of FORMATS, outside of a graph.

    Args:
        start: first 12 bytes of any file, or more, or all of a shorter one.
    """
    first = np.frombuffer(start[:12].ljust(12, b"\0"), np.uint8)
    expected = np.array(_SIGNATURES)
    return FORMATS[((first == expected) | (expected < 0)).all(axis=1).argmax()]


def orientation_of(content: Content, header: Header) -> tf.Tensor:
    """Reads the orientation from an EXIF block.

    Args:
        content: bytes of any file.
        header: header of the file, with the position of the block.

    Returns:
        int32 scalar, 1 to 8; 1 (upright) if the block is missing or malformed. Never fails.

    Source: EXIF 2.32, 4.6.2 and tag 0x0112. If the tag occurs several times the last one
        counts, as in Pillow.
    """
    start = _bytes(content, header.exif, 8)
    big_endian = _big(start[:4]) == 0x4D4D002A  # "MM", 42
    valid = (big_endian | (_big(start[:4]) == 0x49492A00)) & (header.exif > 0)  # "II", 42

    def number(field: tf.Tensor) -> tf.Tensor:
        return tf.where(big_endian, _big(field), _little(field))

    directory = header.exif + number(start[4:8])
    # A count that exceeds the block is reduced: there are no entries past its end.
    room = (tf.minimum(header.exif_end, content.size) - directory - 2) // 12
    count = tf.minimum(number(_bytes(content, directory, 2)), room)
    count = tf.maximum(_choose(valid, count, 0), 0)
    first = tf.minimum(directory + 2, content.size)
    entries = tf.reshape(content.padded[first : first + 12 * count], [-1, 12])
    # 2 bytes tag, 2 bytes type, 4 bytes number of values, then the value. The type should be 3, a
    # 16-bit integer; some programs write 4, one of 32 bits.
    wanted = tf.where(
        big_endian,
        tf.constant([[0x01, 0x12, 0, 3, 0, 0, 0, 1], [0x01, 0x12, 0, 4, 0, 0, 0, 1]], tf.uint8),
        tf.constant([[0x12, 0x01, 3, 0, 1, 0, 0, 0], [0x12, 0x01, 4, 0, 1, 0, 0, 0]], tf.uint8),
    )
    fits = tf.reduce_all(entries[:, None, :8] == wanted, axis=2)
    found = tf.reduce_any(fits, axis=1)
    last = tf.reduce_max(_choose(found, tf.range(count), -1))  # smallest int64 without entries
    entry = _bytes(content, first + 12 * tf.maximum(last, 0), 12)
    value = tf.where(number(entry[2:4]) == 4, number(entry[8:]), number(entry[8:10]))
    right = (last >= 0) & (value >= 1) & (value <= 8)
    return tf.cast(_choose(right, value, 1), tf.int32)


if TYPE_CHECKING:
    _Read = tuple[tf.Tensor, ...]  # the fields of Header, before the size is judged


def _read_unknown(content: Content) -> _Read:
    zero = tf.constant(0, tf.int64)
    return zero, zero, zero, zero, zero, tf.where(content.size == 0, EMPTY, NO_IMAGE)


def _jpeg_markers() -> list[list[int]]:
    """Returns how the walk continues at each marker, which is 0xFF and one more byte.

    Returns:
        A row for each value of that byte, and a last one for bytes that are no marker: how far
        to advance besides the length field, whether there is one, whether to continue.
    """
    rows = [[2, 1, 1] for _ in range(256)]
    for marker in (0x01, *range(0xD0, 0xD9)):
        rows[marker] = [2, 0, 1]  # a marker without a segment
    for marker in range(0xC0, 0xD0):
        if marker not in (0xC4, 0xC8, 0xCC):
            rows[marker] = [0, 0, 0]  # a frame, which holds the size
    for marker in (0x00, 0xD9, 0xDA):
        rows[marker] = [0, 0, 0]  # no marker, end of image, start of the pixels
    rows[0xFF] = [1, 0, 1]  # a byte of padding
    return [*rows, [0, 0, 0]]


def _read_jpeg(content: Content) -> _Read:
    """Walks the segments up to the frame: ITU T.81, annex B."""
    markers = tf.constant(_jpeg_markers(), tf.int64)
    # The weight of each of 10 bytes in the marker, in the length, and in marker and "Exif", 0, 0.
    weights = tf.constant(
        [[256, 0, 0], [1, 0, 256**6], [0, 256, 0], [0, 1, 0]]
        + [[0, 0, 256**power] for power in (5, 4, 3, 2, 1, 0)],
        tf.int64,
    )

    def step(at: tf.Tensor, exif: tf.Tensor, going: tf.Tensor) -> tuple[tf.Tensor, ...]:
        segment = _bytes(content, at, 10)
        marker, length, name = tf.unstack(tf.reduce_sum(segment[:, None] * weights, 0))
        row = tf.where(marker >= 0xFF00, marker - 0xFF00, 256)
        ahead, has_length, going = tf.unstack(tf.gather(markers, row))
        exif = tf.where((name == 0xE1457869660000) & (exif == 0), at, exif)
        return at + ahead + has_length * length, exif, going

    zero = tf.constant(0, tf.int64)
    frame, exif, going = tf.while_loop(
        lambda at, exif, going: going > 0,
        step,
        (zero + 2, zero, zero + 1),
        maximum_iterations=_MAX_STEPS,
    )
    start = _bytes(content, frame, 9)
    ends = tf.reduce_any(start[1] == tf.constant([0, 0xD9, 0xDA], tf.int64))
    fits = (going == 0) & (start[0] == 0xFF) & ~ends
    exif_end = exif + 2 + _big(_bytes(content, exif + 2, 2))
    exif = _choose(exif > 0, exif + 10, 0)
    problem = _sized(content, fits, frame + 9)
    return _big(start[5:7]), _big(start[7:9]), zero, exif, exif_end, problem


_IHDR, _IDAT, _IEND, _TRNS, _EXIF_CHUNK = 0x49484452, 0x49444154, 0x49454E44, 0x74524E53, 0x65584966


def _read_png(content: Content) -> _Read:
    """Reads size, EXIF block and transparent colours: PNG, third edition, 11.2 and 11.3."""
    first = _bytes(content, 8, 16)
    problem = _sized(content, _big(first[4:8]) == _IHDR, 24)
    zero = tf.constant(0, tf.int64)

    def step(at: tf.Tensor, colors: tf.Tensor, exif: tf.Tensor, *_: tf.Tensor) -> tuple:
        # Pixels may be thousands of chunks of equal length, which are passed in one step.
        stride = 12 + tf.minimum(_big(_bytes(content, at, 4)), content.size)
        starts = tf.minimum(at + stride * tf.range(256, dtype=tf.int64), content.size)
        heads = tf.cast(tf.gather(content.padded, starts[:, None] + np.arange(8)), tf.int64)
        same = tf.reduce_all(heads == heads[0], axis=1)
        name = _big(heads[0, 4:])
        count = tf.argmin(tf.cast(same, tf.uint8))
        count = _choose(tf.reduce_all(same), 256, count)
        count = _choose(name == _IDAT, count, 1)
        colors = _choose((name == _TRNS) & (colors == 0), at, colors)
        exif = _choose((name == _EXIF_CHUNK) & (exif == 0), at, exif)
        return at + stride * count, colors, exif, name != _IEND

    _, colors, exif, _ = tf.while_loop(
        lambda at, colors, exif, going: going & (at < content.size),
        step,
        (zero + 8, zero, zero, tf.constant(True)),
        maximum_iterations=_MAX_STEPS,
    )
    exif_end = exif + 8 + _big(_bytes(content, exif, 4))
    exif = _choose(exif > 0, exif + 8, 0)
    return _big(first[12:16]), _big(first[8:12]), colors, exif, exif_end, problem


def png_pixels(content: Content, header: Header) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads how a PNG stores its pixels.

    Args:
        content: bytes of a PNG whose header has no problem.
        header: header of the file.

    Returns:
        Whether it has 16 bits per channel, bool scalar; and the number of channels to decode,
        int32 scalar: 4 if some pixels may be transparent, 1 for other gray of 16 bits, or 3.
    """
    bits, color = tf.unstack(_bytes(content, 24, 2))
    transparent = (color == 4) | (color == 6) | (header.frame > 0)
    deep = bits == 16
    return deep, tf.where(transparent, 4, tf.where(deep & (color == 0), 1, 3))


def _read_gif(content: Content) -> _Read:
    frame, _ = _gif_frame(content)
    start = _bytes(content, frame, 9)
    problem = _sized(content, start[0] == 0x2C, frame + 9)
    zero = tf.constant(0, tf.int64)
    left, top, width, height = _pairs(start[1:9])
    wide, high = _pairs(_bytes(content, 6, 4))
    empty = tf.minimum(height, width) < 1
    high, wide = tf.maximum(high, top + height), tf.maximum(wide, left + width)
    return _choose(empty, 0, high), _choose(empty, 0, wide), frame, zero, zero, problem


class GifFrame(NamedTuple):
    """The first frame of a GIF.

    Attributes:
        encoded: scalar string, a GIF of this frame alone, at the upper left corner. If the frame
            ends early, so does this: decoding it fails.
        left, top: int64 scalars, place of the frame on the canvas, in pixels.
    """

    encoded: tf.Tensor
    left: tf.Tensor
    top: tf.Tensor


def gif_frame(
    encoded: tf.Tensor, content: Content, frame: tf.Tensor, background: tuple[int, ...] | None
) -> GifFrame:
    """Cuts a GIF down to its first frame.

    TensorFlow's decoder unpacks all frames before it keeps one, so a small file with many large
    frames would need an unlimited amount of memory. It also shows the colour that stands for
    transparency, so that entry of the palette is replaced.

    Args:
        encoded: scalar string, the bytes of a GIF whose header has no problem.
        content: bytes of the same file.
        frame: position of the first frame, from the header.
        background: colour that the transparent pixels get, red, green, blue; None leaves them.
    """
    start = _bytes(content, frame, 10)
    palette = _gif_palette(start[9])
    end = _behind_sub_blocks(content, frame + 10 + palette + 1)
    zero = tf.constant(0, tf.int64)
    shared = _gif_palette(_bytes(content, 10, 1)[0])  # of all frames
    head = tf.strings.substr(encoded, zero, 13 + shared)
    tail = tf.strings.substr(encoded, frame + 5, end - frame - 5)
    if background is not None:
        _, control = _gif_frame(content)
        fields = _bytes(content, control, 8)  # 0x21, 0xF9, 4, flags, delay of 2 bytes, colour, 0
        clear = (control > 0) & (fields[3] % 2 == 1)
        color = bytes(background)
        entry = 3 * fields[6]
        head = _with_entry(head, 13 + entry, color, clear & (palette == 0) & (entry < shared))
        tail = _with_entry(tail, 5 + entry, color, clear & (entry < palette))
    left, top, _, _ = _pairs(start[1:9])
    # "," starts a frame; its position on the canvas, left and top, comes next.
    return GifFrame(tf.strings.join([head, b",\0\0\0\0", tail, b";"]), left, top)


def _with_entry(text: tf.Tensor, at: tf.Tensor, entry: bytes, condition: tf.Tensor) -> tf.Tensor:
    """Returns the text with `entry` at a position, if the condition is true."""

    def replaced() -> tf.Tensor:
        behind, zero = at + len(entry), tf.constant(0, tf.int64)
        length = tf.cast(tf.strings.length(text), tf.int64)
        first = tf.strings.substr(text, zero, at)
        return tf.strings.join([first, entry, tf.strings.substr(text, behind, length - behind)])

    return tf.cond(condition, replaced, lambda: text)


def _gif_palette(flags: tf.Tensor) -> tf.Tensor:
    """Returns the length of a palette in bytes, 0 if there is none."""
    colors = tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return _choose(flags >= 0x80, 3 * colors, 0)


def _gif_frame(content: Content) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the position of the first frame, or the position at which the walk to it ended.

    And the position of the last graphic control extension before it; 0 if there is none.
    """

    def step(at: tf.Tensor, control: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_control = _bytes(content, at + 1, 1)[0] == 0xF9
        return _behind_sub_blocks(content, at + 2), _choose(is_control, at, control)

    zero = tf.constant(0, tf.int64)
    frame, control = tf.while_loop(
        lambda at, control: _bytes(content, at, 1)[0] == 0x21,  # an extension
        step,
        (13 + _gif_palette(_bytes(content, 10, 1)[0]), zero),
        maximum_iterations=_MAX_STEPS,
    )
    return frame, control


def _behind_sub_blocks(content: Content, start: tf.Tensor) -> tf.Tensor:
    """Returns the position behind a chain of GIF sub-blocks.

    Each has a length byte in front; a length of 0 ends the chain. Blocks of equal length, which
    nearly all are, are skipped in one step.
    """

    def step(at: tf.Tensor, going: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stride = tf.cast(content.padded[at], tf.int64) + 1
        equal = content.padded[at : at + 1024 * stride : stride] == content.padded[at]
        equal = tf.reshape(equal, [-1])  # TensorFlow has lost track of the rank
        first_other = tf.argmin(tf.cast(equal, tf.uint8))
        count = _choose(tf.reduce_all(equal), tf.size(equal), first_other)
        last = stride == 1
        return at + _choose(last, 1, count * stride), ~last

    return tf.while_loop(
        lambda at, going: going & (at < content.size), step, (start, tf.constant(True))
    )[0]


def _read_bmp(content: Content) -> _Read:
    """Reads the Windows header. Palettes of 8 bits are supported, other ones and RLE are not."""
    zero = tf.constant(0, tf.int64)
    start = _bytes(content, 0, 66)
    height = _little(start[22:26])
    height = _choose(height >= 2**31, 2**32 - height, height)  # negative: from the top down
    packing, bits = _little(start[30:34]), bmp_bits(content)
    masks = tf.constant([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0], tf.int64)  # red, green, blue
    plain = (packing == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    plain |= (packing == 3) & (bits == 32) & tf.reduce_all(start[54:66] == masks)
    plain &= _little(start[14:18]) >= 40
    problem = tf.where(content.size < 54, TRUNCATED, tf.where(plain, FINE, ODD_BMP))
    return height, _little(start[18:22]), zero, zero, zero, problem


def bmp_bits(content: Content) -> tf.Tensor:
    """Returns the bits per pixel of a BMP file, int64 scalar."""
    return _little(_bytes(content, 28, 2))


def bmp_is_transparent(content: Content) -> tf.Tensor:
    """Returns whether a BMP file that can be decoded has an opacity for each pixel: bool scalar."""
    start = _bytes(content, 0, 70)
    mask = tf.constant([0, 0, 0, 255], tf.int64)
    has_mask = (_little(start[14:18]) >= 56) & tf.reduce_all(start[66:70] == mask)
    return has_mask & (_little(start[30:34]) == 3) & (bmp_bits(content) == 32)


def bmp_palette(content: Content) -> tf.Tensor:
    """Returns the palette of a BMP file of 8 bits per pixel, uint8 [256, 3], RGB."""
    start = 14 + _little(_bytes(content, 14, 4))
    at = start + np.arange(1024)
    colors = tf.reshape(tf.gather(content.padded, tf.minimum(at, content.size)), [256, 4])
    return colors[:, 2::-1]


_VP8, _VP8L, _VP8X, _ANMF, _EXIF = 0x56503820, 0x5650384C, 0x56503858, 0x414E4D46, 0x45584946
_ALPH = 0x414C5048


def _read_webp(content: Content) -> _Read:
    """Reads the size of the first frame or its canvas: RFC 9649, 2.5 to 2.7, and RFC 6386, 9.1."""
    at = _webp_pixels(content)
    start = _bytes(content, at, 18)
    lossy = (_big(start[:4]) == _VP8) & (_big(start[11:14]) == 0x9D012A)
    lossless = (_big(start[:4]) == _VP8L) & (start[8] == 0x2F)
    packed = _little(start[9:13])  # 14 bits width - 1, 14 bits height - 1
    width = _choose(lossy, _little(start[14:16]) % 2**14, packed % 2**14 + 1)
    height = _choose(lossy, _little(start[16:18]) % 2**14, packed // 2**14 % 2**14 + 1)
    # The whole file is needed: the metadata, with the orientation, come last.
    needed = tf.maximum(at + 18, 8 + _little(_bytes(content, 4, 4)))
    problem = _sized(content, lossy | lossless, needed)
    first = _bytes(content, 12, 9)
    has_exif = (_big(first[:4]) == _VP8X) & (first[8] // 8 % 2 == 1)
    zero = tf.constant(0, tf.int64)
    exif, end = tf.cond(has_exif, lambda: _webp_exif(content), lambda: (zero, zero))
    wide, high, left, top = tf.unstack(webp_place(content))
    off = (wide > 0) & ((left + width > wide) | (top + height > high))
    problem = tf.where((problem == FINE) & off, OFF_CANVAS, problem)
    height, width = _choose(wide > 0, high, height), _choose(wide > 0, wide, width)
    return height, width, at, exif, end, problem


def webp_place(content: Content) -> tf.Tensor:
    """Reads where the first frame of an animated WebP lies: RFC 9649, 2.7.1.1.

    Returns:
        int64 [4]: width and height of the canvas, left and top of the frame on it, in pixels; all
        are 0 for a still image.
    """
    first = _bytes(content, 12, 18)
    animated = (_big(first[:4]) == _VP8X) & (first[8] // 2 % 2 == 1)

    def place() -> tf.Tensor:
        at, found = _find_chunk(content, [_ANMF], _behind)
        fields = _bytes(content, at + 8, 6)
        sides = [_little(first[12:15]) + 1, _little(first[15:18]) + 1]
        corner = [2 * _little(fields[:3]), 2 * _little(fields[3:])]
        return _choose(found, tf.stack(sides + corner), 0)

    return tf.cond(animated, place, lambda: tf.zeros([4], tf.int64))


def webp_frame(
    encoded: tf.Tensor, content: Content, frame: tf.Tensor, *, transparent: bool
) -> tf.Tensor:
    """Cuts a WebP down to the pixels of its first frame.

    TensorFlow's decoder garbles opaque animations and fails on others. A still image loses
    its metadata.

    Args:
        encoded: scalar string, the bytes of a WebP whose header has no problem.
        content: bytes of the same file.
        frame: position of the first frame, from the header.
        transparent: whether the opacity of a lossy image, a chunk of its own, is kept.

    Returns:
        scalar string, a WebP of 3 or 4 channels. If the frame ends early, so does the result:
        decoding it fails.
    """
    length = 8 + _little(_bytes(content, frame + 4, 4))
    end = frame + length + length % 2
    begin, head = frame, tf.constant(b"")
    if transparent:
        begin, _ = _find_chunk(content, [_ALPH, _VP8, _VP8L], _into_frames)
        sides = _pairs(_bytes(content, frame + 14, 4))  # of VP8, the lossy format
        width, height = (_digits(side % 2**14 - 1, 3) for side in sides)
        extended = tf.strings.join([b"VP8X\x0a\0\0\0\x10\0\0\0", width, height])
        head = tf.where(begin < frame, extended, b"")
    size = 4 + tf.cast(tf.strings.length(head), tf.int64) + end - begin
    chunks = tf.strings.substr(encoded, begin, end - begin)
    return tf.strings.join([b"RIFF", _digits(size, 4), b"WEBP", head, chunks])


def _digits(number: tf.Tensor, count: int) -> tf.Tensor:
    """Encodes a number in bytes, least significant byte first: scalar string."""
    digits = number // tf.constant([256**power for power in range(count)], tf.int64) % 256
    return tf.strings.reduce_join(tf.gather([bytes([digit]) for digit in range(256)], digits))


def _webp_pixels(content: Content) -> tf.Tensor:
    """Returns the position of the first VP8 or VP8L chunk, or the end of the file."""
    return _find_chunk(content, [_VP8, _VP8L], _into_frames)[0]


def _behind(at: tf.Tensor, name: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    return at + 8 + length + length % 2


def _into_frames(at: tf.Tensor, name: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    into = name == _ANMF  # a frame: 16 bytes about its place and time, then chunks
    return at + 8 + _choose(into, 16, length + length % 2)


def _webp_exif(content: Content) -> tuple[tf.Tensor, tf.Tensor]:
    at, found = _find_chunk(content, [_EXIF], _behind)
    head = _bytes(content, at + 4, 10)
    prefix = _choose(_big(head[4:]) == 0x457869660000, 6, 0)  # some write "Exif", 0, 0 here too
    return _choose(found, at + 8 + prefix, 0), at + 8 + _little(head[:4])


def _find_chunk(
    content: Content, names: list[int], behind: Callable[..., tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Walks the chunks of a RIFF file: 4 bytes name, 4 bytes length, content, even padding.

    Returns:
        Position of the first chunk with one of the names, or of the end of the file; and whether
        there is such a chunk.
    """

    def step(at: tf.Tensor, going: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chunk = _bytes(content, at, 8)
        name = _big(chunk[:4])
        found = tf.reduce_any(name == tf.constant(names, tf.int64))
        return _choose(found, at, behind(at, name, _little(chunk[4:]))), ~found

    at, going = tf.while_loop(
        lambda at, going: going & (at < content.size),
        step,
        (tf.constant(12, tf.int64), tf.constant(True)),
        maximum_iterations=_MAX_STEPS,
    )
    return tf.minimum(at, content.size), ~going


def _sized(content: Content, fits: tf.Tensor, needed: tf.Tensor | int) -> tf.Tensor:
    """Returns the problem of a header: the file is too short, or `fits` is false; or FINE."""
    return tf.where(content.size < needed, TRUNCATED, tf.where(fits, FINE, NO_SIZE))


def _choose(condition: tf.Tensor, then: tf.Tensor | int, otherwise: tf.Tensor | int) -> tf.Tensor:
    """Returns `tf.where` of two int64 values; for plain Python numbers it would return int32."""
    return tf.where(condition, tf.cast(then, tf.int64), tf.cast(otherwise, tf.int64))


def _bytes(content: Content, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns up to 80 bytes as int64 [count], with zeros past the end of the file."""
    start = tf.minimum(tf.cast(at, tf.int64), content.size)
    field = tf.gather(content.padded, start + np.arange(count))
    return tf.cast(field, tf.int64)


def _big(field: tf.Tensor) -> tf.Tensor:
    """Returns the number that bytes encode, most significant byte first."""
    return tf.reduce_sum(field * [256**power for power in reversed(range(field.shape[0]))])


def _pairs(fields: tf.Tensor) -> list[tf.Tensor]:
    """Returns the 16-bit numbers that bytes encode, least significant byte first."""
    return [_little(fields[at : at + 2]) for at in range(0, fields.shape[0], 2)]


def _little(field: tf.Tensor) -> tf.Tensor:
    """Returns the number that bytes encode, least significant byte first."""
    return tf.reduce_sum(field * [256**power for power in range(field.shape[0])])
