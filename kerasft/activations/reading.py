"""Stored activations, read for training in the order of its epochs; as batches without TensorFlow.

`read_slices` reads the stores for every backend. With TensorFlow its slices go through tf.data
(`training/feed.py`); `numpy_batches` cuts the same batches for JAX and PyTorch.

Shapes: N training images, K classes, V views, B images in a batch.
"""

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from kerasft.activations.store import Rows, release
from kerasft.data.batches import Epoch
from kerasft.data.threads import in_order

SLICE_BYTES = 16 << 20  # size of the part of a store that is read at once
# Rows after which mapped memory is released: Linux maps 64 kB around each row that is touched, so
# that a slice of scattered rows would take the memory of the whole store.
MAPPED_ROWS = 256


def read_in_order(rows: Rows, size: int) -> Iterator[np.ndarray]:
    """Reads a memory-mapped store in batches of a size, and releases its memory afterwards."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
    release(rows)


def read_slices(
    views: Sequence[Rows], epochs: Sequence[Epoch], *, batch_size: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Reads stores in slices of many batches, in ascending order within a slice.

    So the disk is read in long stretches, and little Python runs per batch.

    Args:
        views: stores of the V views, [N, ...] each, memory-mapped, a row per training image.
        epochs: the epochs; their `views` are numbers from 0 to V - 1.
        batch_size: B.

    Yields:
        (rows, x) or (rows, x, shares), all of one epoch and in its order: rows int64 [n], where n
        is a multiple of B except at the epoch's end; x [n, ...] in the dtype of the store; shares
        float32 [n].
    """
    step = _rows_in_slice(views[0], batch_size)
    for one in epochs:
        for start in range(0, len(one.rows), step):
            part = slice(start, start + step)
            shares = () if one.shares is None else (one.shares[part],)
            yield one.rows[part], _gathered(views, one.rows[part], one.views[part]), *shares


def numpy_batches(
    views: Sequence[Rows],
    labels: np.ndarray,
    epochs: Sequence[Epoch],
    *,
    num_classes: int,
    batch_size: int,
    sample_weights: np.ndarray | None = None,
) -> Generator[tuple[Any, ...], None, None]:
    """Yields the batches of `feed.stored_batches`, bit for bit, as NumPy arrays.

    A thread reads the next slice of the stores while the current one is used. It ends with the
    generator.

    Args:
        views, labels, epochs, num_classes, batch_size, sample_weights: as in `stored_batches`.

    Yields:
        (x, y) or (x, y, w), as `batches.training_batches` describes, with x in the dtype of the
        store.

    Raises:
        Exception: what went wrong in the thread, when the turn of that slice comes.
    """
    labels = labels.astype(np.int32)
    weights = None if sample_weights is None else sample_weights.astype(np.float32)
    count = len(epochs) * math.ceil(len(epochs[0].rows) / _rows_in_slice(views[0], batch_size))
    unread = read_slices(views, epochs, batch_size=batch_size)
    # One worker, because a generator is advanced by one thread at a time.
    slices = in_order(lambda _: next(unread), range(count), workers=1, ahead=2)
    with contextlib.closing(slices):
        for rows, x, *shares in slices:
            for start in range(0, len(rows), batch_size):
                part = slice(start, start + batch_size)
                label = labels[rows[part]]
                y = (label[:, None] == np.arange(num_classes)).astype(np.float32)
                weight = None if weights is None else weights[label]
                if shares:
                    share = shares[0][part]
                    yield (x[part], share), *_mixed_targets(y, weight, share)
                else:
                    yield x[part], y, *(() if weight is None else (weight,))


def _rows_in_slice(rows: Rows, batch_size: int) -> int:
    row_bytes = math.prod(rows.shape[1:]) * rows.dtype.itemsize
    return max(1, SLICE_BYTES // (row_bytes * batch_size)) * batch_size


def _gathered(views: Sequence[Rows], rows: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Returns row `rows[i]` of view `which[i]`, for all i."""
    gathered = np.empty((len(rows), *views[0].shape[1:]), views[0].dtype)
    for view in np.unique(which):
        places = np.flatnonzero(which == view)
        places = places[np.argsort(rows[places], kind="stable")]  # ascending on the disk
        for start in range(0, len(places), MAPPED_ROWS):
            some = places[start : start + MAPPED_ROWS]
            gathered[some] = views[view][rows[some]]
            release(views[view])
    return gathered


def _mixed_targets(
    y: np.ndarray, weight: np.ndarray | None, share: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Mixes the targets of a batch, as `batches.with_mixed_targets` does."""
    if weight is None:
        return (_mixed(y, share),)
    both = _mixed(weight[:, None], share)
    return _mixed(weight[:, None] * y, share) / both, both[:, 0]


def _mixed(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mixes the values of each image with those of the one before it in the batch."""
    own = share.reshape(-1, *[1] * (values.ndim - 1))
    return own * values + (1 - own) * np.roll(values, 1, axis=0)
