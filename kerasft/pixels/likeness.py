"""The look of a photo: a perceptual hash, by which altered copies of a photo are recognized.

A look is one text per photo, whatever the eight turns (four rotations, mirrored or not) may be. A
turn of a photo swaps the axes of its cosine transform and changes the sign of odd frequencies, so
the looks of all turns follow from one look, and only the comparison has to try them.

Shapes: N photos.
"""

import functools
from collections.abc import Sequence

import numpy as np

SIDE = 16  # frequencies of each axis
BITS = SIDE * SIDE
LOW = 8  # frequencies of each axis that still agree if a photo was cropped, shifted or tilted
LEAST = BITS // 2  # coefficients that a picture needs; photos have 140 to 255, gradients up to 60
NOISE = 60.0  # a coefficient of rounding errors: 3 standard deviations, 4 * sqrt(32 * 32 / 48)

Bits = np.ndarray
"""Looks as numbers, uint64 [N, 2, 4]: as it is and with swapped axes; the 64 bits of even rows and
columns, of even rows and odd columns, of odd rows and even columns, and of odd rows and columns."""


def look_of(gray: np.ndarray) -> str:
    """Computes the look of a picture.

    Args:
        gray: uint8 [32, 32], the whole upright photo, shrunk so that every pixel is an average.

    Returns:
        64 hexadecimal digits: `imagehash.phash` of 16 x 16 frequencies, a bit for each coefficient
        that is above the median. (With 8 x 8 frequencies, unlike photos are often as close as
        copies.) "" for a picture that is plain, a gradient or a simple symmetrical shape: most of
        its coefficients are rounding errors, so its hash would be like that of any other such one.
    """
    # imagehash itself takes ten times as long, a third of the time of decoding a small photo.
    waves = _waves(len(gray))
    coefficients = (waves @ gray @ waves.T).ravel()
    if np.count_nonzero(np.abs(coefficients) > NOISE) < LEAST:
        return ""
    ordered = np.sort(coefficients)
    median = (ordered[BITS // 2 - 1] + ordered[BITS // 2]) / 2
    return np.packbits(coefficients > median).tobytes().hex()


@functools.lru_cache(1)
def _waves(side: int) -> np.ndarray:
    """Returns the first rows of the type II cosine transform, float64 [SIDE, side]."""
    return 2 * np.cos(np.pi * np.arange(SIDE)[:, None] * (2 * np.arange(side) + 1) / (2 * side))


def bits_of(looks: Sequence[str], *, low: bool = False) -> Bits:
    """Turns N looks into numbers that `distances` compares.

    Args:
        looks: looks of photos, none of them "".
        low: whether only the 8 x 8 lowest frequencies count; the other bits become 0.
    """
    encoded = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8).reshape(len(looks), -1)
    grid = np.unpackbits(encoded, axis=1).reshape(-1, SIDE, SIDE)
    if low:
        grid[:, LOW:], grid[:, :, LOW:] = 0, 0
    both = np.stack([grid, grid.swapaxes(1, 2)], axis=1)
    quarters = [both[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    packed = np.packbits(np.stack(quarters, axis=2).reshape(len(looks), 2, 4, 64), axis=-1)
    return packed.view(np.uint64)[..., 0]


def distances(some: Bits, others: Bits, *, low: bool = False) -> np.ndarray:
    """Counts the bits in which photos differ, over the eight turns that make them most alike.

    Args:
        some: looks, see `bits_of`; `some[:, None]` and `others[None]` give all pairs.
        others: looks to compare them with. Leading axes are broadcast.
        low: value of the argument of the same name with which both were made.

    Returns:
        uint8, 0 to 255, in the shape of the leading axes. Two looks never differ in all bits,
        since the brightness is above the median in both. Unlike photos differ in more than a third
        of the bits.
    """
    size = np.uint8(LOW * LOW // 4 if low else BITS // 4)  # number of bits of a quarter
    best: np.ndarray | None = None
    for axes in (0, 1):
        even, column, row, both = (
            np.bitwise_count(some[..., 0, quarter] ^ others[..., axes, quarter])
            for quarter in range(4)
        )
        # Mirrored left to right, the signs of odd columns change; upside down, those of odd rows.
        for left_right, opposite in ((column, both), (size - column, size - both)):
            for distance in (
                even + left_right + row + opposite,
                even + left_right + (size - row) + (size - opposite),
            ):
                best = distance if best is None else np.minimum(best, distance, out=best)
    assert best is not None
    return best
