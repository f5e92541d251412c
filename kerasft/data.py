"""Feeding: images from disk to the model, in batches, in a fixed order.

Everything reads files through `images.py`. No pipeline shuffles: the caller says the
order, and the same call gives the same batches whatever the number of threads. A last batch
may be smaller; none is dropped.

Building a pipeline takes about a second: TensorFlow optimizes the graph that decodes. So one
pipeline feeds all epochs of a phase, and one all scorings of its validation images.

Shapes: N images, B batch, S side of the model's square input, K classes, E epochs.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasft import config, images
from kerasft.augment import augment_crop, augment_pixels
from kerasft.source import Source


def image_batches(
    paths: Sequence[Path | str],
    *,
    image_size: int,
    resize: str,
    batch_size: int = 32,
    times: int = 1,
) -> tf.data.Dataset:
    """Images as the model takes them, for scoring.

    Args:
        paths: N files. That they are images is checked before (`folders.examine`).
        image_size: S.
        resize: "stretch", "crop" or "pad", see `images.resize_image`.
        batch_size: B.
        times: how often all of them come; no batch reaches from one time into the next.

    Returns:
        float32 [B,S,S,3], 0 to 255, in the order of `paths`; the last batch holds the rest.

    Raises:
        tf.errors.OpError: while iterating, for a file that went away or is no image.
    """
    files = tf.data.Dataset.from_tensor_slices(_strings(paths))
    once = _batched(files, _loader(image_size, resize), batch_size)
    return _ahead(once.repeat(times), times * math.ceil(len(paths) / batch_size))


def split_batches(
    source: Source,
    split: str,
    *,
    image_size: int,
    resize: str,
    batch_size: int = 32,
    times: int = 1,
) -> tf.data.Dataset:
    """`image_batches` of one split, in the order of `source.indices(split)`."""
    return image_batches(
        _files(source, source.indices(split)),
        image_size=image_size,
        resize=resize,
        batch_size=batch_size,
        times=times,
    )


def training_batches(
    source: Source,
    epochs: Sequence[tuple[np.ndarray, int]],
    *,
    image_size: int,
    resize: str,
    batch_size: int,
    augment: config.Augment,
    sample_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Images with labels, augmented, for some epochs of training.

    Args:
        source: where the images are.
        epochs: E times (indices, seed). indices: int [N], positions in `source.paths` in the
            order to feed, repeats are fine, N the same in all epochs. seed: 0 to 2**31 - 1; an
            image's changes depend on this and on its position, not on when it comes.
        image_size: S.
        resize: "stretch", "crop" or "pad", see `images.resize_image`.
        batch_size: B.
        augment: what to change at random; see `augment.py`.
        sample_weights: float [K], the weight of each class; None is no weights.

    Returns:
        ceil(N / B) batches an epoch, the last one with the rest, of (x, y) or (x, y, w):
        x float32 [B,S,S,3], 0 to 255; y float32 [B,K], one-hot; w float32 [B].

    Raises:
        tf.errors.OpError: while iterating, for a file that went away or is no image.
    """
    read = _reader(source, image_size, resize, augment, sample_weights)

    def epoch(order: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        positions = tf.data.Dataset.from_tensor_slices(order)
        return _batched(positions, lambda position: read(position, seed), batch_size)

    orders = tf.constant(np.stack([indices for indices, _ in epochs]), tf.int32)
    seeds = tf.constant([seed for _, seed in epochs], tf.int32)
    batches = tf.data.Dataset.from_tensor_slices((orders, seeds)).flat_map(epoch)
    return _ahead(batches, len(epochs) * math.ceil(len(epochs[0][0]) / batch_size))


def _reader(
    source: Source,
    image_size: int,
    resize: str,
    augment: config.Augment,
    sample_weights: np.ndarray | None,
) -> Callable[..., Any]:
    """A function: position in `source.paths` and seed, int32 -> one (x, y) or (x, y, w)."""
    load = _augmenting_loader(image_size, resize, augment)
    files = _strings(_files(source, range(len(source.paths))))
    labels = tf.constant(source.labels, tf.int32)
    weights = None if sample_weights is None else tf.constant(sample_weights, tf.float32)

    def read(position: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = load(files[position], tf.stack([seed, position]))
        label = labels[position]
        target = tf.one_hot(label, len(source.class_names))
        return (image, target) if weights is None else (image, target, weights[label])

    return read


@functools.cache  # traced once for every pipeline with these settings
def _augmenting_loader(image_size: int, resize: str, augment: config.Augment) -> Any:
    """A graph function: path, int32 [2] seed -> float32 [S,S,3]."""

    def load(path: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = images.decode_image(tf.io.read_file(path))
        if augment.crop:
            image = augment_crop(image, augment.crop, seed)
        image = images.resize_image(image, image_size, resize)
        if augment.flip or augment.color:
            image = augment_pixels(image, augment.flip, augment.color, seed)
        return image

    return tf.function(
        load, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32)]
    )


@functools.cache
def _loader(image_size: int, resize: str) -> Any:
    """A graph function: path -> float32 [S,S,3]."""

    def load(path: tf.Tensor) -> tf.Tensor:
        return images.load_image(path, image_size, resize)

    return tf.function(load, input_signature=[tf.TensorSpec([], tf.string)])


def _files(source: Source, positions: Iterable[int]) -> list[str]:
    root = str(source.root)
    return [os.path.join(root, source.paths[position]) for position in positions]


def _strings(paths: Sequence[Path | str]) -> tf.Tensor:
    return tf.constant([os.fspath(path) for path in paths], tf.string)


def _batched(items: tf.data.Dataset, read: Callable[..., Any], batch_size: int) -> tf.data.Dataset:
    return items.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)


def _ahead(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Reads in parallel and two batches ahead, and hands on in order."""
    options = tf.data.Options()
    options.deterministic = True
    counted = batches.apply(tf.data.experimental.assert_cardinality(count))
    return counted.prefetch(2).with_options(options)
