"""Training batches of a phase: order, views, mixing and targets, from photos or from stores.

The order, views and mixing shares of an epoch depend on its number and the seed alone, so a
resumed run gets the same ones (`Dataset.shuffle` would start again from the first epoch).

Shapes: N training images, K classes, V views, B images in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kerasft.activations.context import RunContext
from kerasft.activations.keys import views_of
from kerasft.activations.reading import numpy_batches, read_slices
from kerasft.activations.store import Rows, Stored
from kerasft.config.fields import Phase
from kerasft.data.batches import (
    Epoch,
    as_written,
    read_ahead,
    targets_of,
    training_batches,
    with_mixed_targets,
)
from kerasft.lazy_tensorflow import tf
from kerasft.seeds import derive_seed


class Epochs(Sequence[Epoch]):
    """Order, views and mixing shares of some epochs, the same for stored and for live feeding.

    Each epoch is computed when it is read, because all of them together are large.
    """

    def __init__(self, context: RunContext, seed: int, n: int, epochs: range) -> None:
        """Prepares the epochs.

        Args:
            context: the run.
            seed: the phase's seed.
            n: number of training images, N.
            epochs: numbers of the epochs, from 0.
        """
        self._seed, self._n, self._epochs = seed, n, epochs
        self._mixup = context.config.augment.mixup
        views = views_of(context.plan.views)
        self._views = np.array([seed for _, seed in views]) if context.plan.views else None

    def __len__(self) -> int:
        return len(self._epochs)

    def __getitem__(self, position: Any) -> Any:
        seed, epoch, n = self._seed, self._epochs[position], self._n
        rows = epoch_order(seed, epoch, n)
        shares = mixup_shares(seed, epoch, n, self._mixup)[rows] if self._mixup else None
        if self._views is None:
            new = np.full(n, derive_seed(seed, "augment", epoch))
            return Epoch(rows, np.full(n, -1), new, shares)
        which = epoch_views(seed, epoch, n, len(self._views))[rows]
        return Epoch(rows, which, self._views[which], shares)


def training_feed(
    context: RunContext, phase: Phase, epochs: Sequence[Epoch], stored: Stored | None
) -> Iterable:
    """Returns the batches (x, y) or (x, y, w) of some epochs; see `batches.training_batches`.

    Args:
        context: the run.
        phase: the phase's settings, with batch size and class weights.
        epochs: the epochs, from `Epochs`.
        stored: the stored activations at the cut; None feeds pixels.
    """
    source, config = context.source, context.config
    labels, classes = context.labels("train"), len(source.class_names)
    weights = class_weights(phase, labels, classes)
    if stored:
        batches_of = stored_batches if keras.backend.backend() == "tensorflow" else numpy_batches
        return batches_of(
            stored.train,
            labels,
            epochs,
            num_classes=classes,
            batch_size=phase.batch_size,
            sample_weights=weights,
        )
    return training_batches(
        source,
        epochs,
        rule=context.plan.rule,
        batch_size=phase.batch_size,
        augment=config.augment,
        sample_weights=weights,
    )


def class_weights(phase: Phase, labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Returns the weight of each class in the loss, float32 [K], or None for no weights.

    With "balanced", all classes have the same total weight.
    """
    if phase.class_weight == "none":
        return None
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * counts)).astype("float32")


CHUNK = 64  # neighbouring images that stay together in the first, coarse shuffle
BUFFER = 4096  # images that the second shuffle mixes freely


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Returns the order in which one epoch visits the training images.

    Whole chunks of neighbours are shuffled first, then the images within a buffer of
    many chunks: a store on disk can be read in long stretches, and up to `BUFFER`
    images the result is a uniform shuffle.

    Args:
        seed: the phase's seed.
        epoch: number of the epoch, from 0.
        n: number of training images.

    Returns:
        int64 [n], a permutation of 0 .. n - 1.
    """
    rng = np.random.default_rng(derive_seed(seed, "order", epoch))
    starts = np.arange(0, n, CHUNK)
    rng.shuffle(starts)
    chunks = [np.arange(start, min(start + CHUNK, n)) for start in starts.tolist()]
    order = np.concatenate([np.empty(0, np.int64), *chunks])
    for start in range(0, n, BUFFER):
        rng.shuffle(order[start : start + BUFFER])
    return order


def epoch_views(seed: int, epoch: int, n: int, views: int) -> np.ndarray:
    """Returns which view of each training image one epoch shows.

    Args:
        seed: the phase's seed.
        epoch: number of the epoch, from 0.
        n: number of training images.
        views: number of views of each image, 1 or more.

    Returns:
        int64 [n], 0 to views - 1, in the order of the training images, not of the epoch.
    """
    return np.random.default_rng(derive_seed(seed, "view", epoch)).integers(0, views, n)


def mixup_shares(seed: int, epoch: int, n: int, alpha: float) -> np.ndarray:
    """Returns the mixup share of each training image in one epoch: how much of itself it keeps.

    Args:
        seed: the phase's seed.
        epoch: number of the epoch, from 0.
        n: number of training images.
        alpha: both parameters of the Beta distribution, over 0.

    Returns:
        float32 [n], 0.5 to 1: the larger of the two shares, so that an image keeps more of
        itself than it takes from its partner.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", with a share per
        image, as fastai does it.
    """
    drawn = np.random.default_rng(derive_seed(seed, "mixup", epoch)).beta(alpha, alpha, n)
    return np.maximum(drawn, 1 - drawn).astype("float32")


def stored_batches(
    views: Sequence[Rows],
    labels: np.ndarray,
    epochs: Sequence[Epoch],
    *,
    num_classes: int,
    batch_size: int,
    sample_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Returns batches of stored activations with their targets, for epochs that TensorFlow trains.

    No Python runs per batch. Two or three of `reading.read_slices` are in memory.

    Args:
        views: stores of the V views, [N, ...] each, memory-mapped, a row per training image.
        labels: labels of the training images, int [N].
        epochs: the epochs; their `views` are numbers from 0 to V - 1.
        num_classes: number of classes, K.
        batch_size: number of images in a batch, B.
        sample_weights: weight of each class in the loss, float [K]; None: no weights.

    Returns:
        The batches that `batches.training_batches` describes, with x in the dtype of the store.
    """
    shape, dtype = views[0].shape[1:], views[0].dtype
    target = targets_of(labels, num_classes, sample_weights)

    def slices() -> Iterator[tuple]:
        return read_slices(views, epochs, batch_size=batch_size)

    def batched(rows: tf.Tensor, x: tf.Tensor, *shares: tf.Tensor) -> tf.data.Dataset:
        parts = tf.data.Dataset.from_tensor_slices((rows, x, *shares)).batch(batch_size)
        return parts.map(
            as_written(lambda rows, x, *shares: ((x, *shares) if shares else x, *target(rows)))
        )

    first = epochs[0]
    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, *shape], dtype)]
    if first.shares is not None:
        signature.append(tf.TensorSpec([None], tf.float32))
    read = tf.data.Dataset.from_generator(slices, output_signature=tuple(signature))
    batches = read.prefetch(1).flat_map(as_written(batched))
    return read_ahead(
        with_mixed_targets(batches, first), len(epochs) * math.ceil(len(first.rows) / batch_size)
    )
