"""Batches of images, decoded from files in a fixed order.

All files are read through `pixels/images.py`. No pipeline shuffles: the caller chooses the order,
and the same call gives the same batches for any number of threads. The last batch may be
smaller; it is never dropped.

Building a tf.data pipeline takes a second or more, because TensorFlow optimizes its graph every
time. So one pipeline feeds all epochs of a phase, and Python decodes the common kinds of file for
it. Images to be scored or stored, often a few, are read by threads without a pipeline.

Shapes: N images, B batch, S side of the model's square input, K classes, E epochs, V views.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kerasft import devices
from kerasft.config import fields
from kerasft.data.source import Source
from kerasft.data.threads import in_order
from kerasft.errors import Unreadable, UserError
from kerasft.files import digest_of
from kerasft.input_rule import InputRule
from kerasft.lazy_tensorflow import is_installed, tf
from kerasft.pixels import images
from kerasft.pixels.augment import augment_crop, augment_pixels
from kerasft.pixels.convert import as_readable
from kerasft.pixels.decode import (
    decode_file_by,
    decode_in_pipeline,
    is_common,
    square_of_file,
)

# Where there is a GPU, TensorFlow would put the steps of reading there.
_CPU = "/device:CPU:0"


@dataclass(frozen=True)
class ImageBatches:
    """Images without labels, in batches; every iteration reads the files again.

    Batches are float32 [B,S,S,3], 0 to 255, in the order of `items`; the last one holds the rest.
    Iterating raises UserError for a file that was removed or changed, and `tf.errors.OpError` for
    one that is not an image.

    Attributes:
        items: files to read, with what `read` needs to know of each.
        read: function of an item that returns float32 [V,S,S,3], one or more views of its image;
            called in several threads at once.
        count: number of all views.
        batch_size: B.
    """

    items: Sequence[Any]
    read: Callable[[Any], np.ndarray]
    count: int
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        # The pipelines of training also read two batches ahead of the current one.
        ahead = 3 * math.ceil(self.batch_size * len(self.items) / max(self.count, 1))
        results = in_order(self.read, self.items, workers=devices.processors(), ahead=ahead)
        with contextlib.closing(results):
            images = (image for views in results for image in views)
            while batch := list(islice(images, self.batch_size)):
                yield np.stack(batch)


def image_batches(
    paths: Sequence[Path | str],
    *,
    rule: InputRule,
    batch_size: int = 32,
    digests: Sequence[str] | None = None,
) -> ImageBatches:
    """Returns images for scoring.

    Args:
        paths: N files that are known to be images (see `files.examine`).
        rule: rule by which a file becomes the input of the model.
        batch_size: B.
        digests: digests that the files had when they were examined; None compares none. Iterating
            raises UserError for a file that has another one.
    """

    def read(item: tuple[str, str]) -> np.ndarray:
        return square_of_file(read_unchanged(*item), rule)[None]

    known = [""] * len(paths) if digests is None else digests
    items = list(zip([os.fspath(path) for path in paths], known, strict=True))
    return ImageBatches(items, read, len(paths), batch_size)


def read_unchanged(path: str, digest: str) -> bytes:
    """Reads a file, whose bytes must be those that were examined.

    Args:
        path: path of the file.
        digest: digest that the file had, see `files.examine`; "" takes any bytes.

    Returns:
        The bytes of an image that TensorFlow can decode: a PNG where the file is not one of these,
        see `convert.py`.

    Raises:
        UserError: the file can't be read, or has other bytes.
    """
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {_IN_USE}: {error.strerror or error}.") from error
    if digest and digest_of(encoded) != digest:
        raise UserError(_changed(path))
    try:
        return _readable(path, encoded)
    except Unreadable as error:
        raise UserError(str(error)) from None


_IN_USE = "a photo was removed or changed while it was in use"


def _changed(path: str) -> str:
    return (
        f"{path}: {_IN_USE}: its bytes are not those that were read at first. Leave the photos as "
        "they are while a run works, then run the command again."
    )


def split_batches(
    source: Source, split: str, *, rule: InputRule, batch_size: int = 32
) -> ImageBatches:
    """Returns the images of a split for scoring, in the order of `source.indices`."""
    positions = source.indices(split)
    return image_batches(
        _files(source, positions),
        rule=rule,
        batch_size=batch_size,
        digests=_digests(source, positions),
    )


@dataclass(frozen=True, eq=False)
class Epoch:
    """The images of one epoch of training, in order.

    Attributes:
        rows: int64 [N], positions among the training images; images may be repeated.
        views: int64 [N], numbers of the views. A negative number means a new view.
        seeds: int64 [N], 0 to 2**31 - 1, seeds of the views. A view is a function of its number,
            its seed and the image's file, in any epoch and any run.
        shares: float32 [N], weight of each image in its mixture with the one before it in the
            batch (mixup); None mixes nothing.
    """

    rows: np.ndarray
    views: np.ndarray
    seeds: np.ndarray
    shares: np.ndarray | None = None


def training_batches(
    source: Source,
    epochs: Sequence[Epoch],
    *,
    rule: InputRule,
    batch_size: int,
    augment: fields.Augment,
    sample_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Feeds augmented images with labels, for several epochs of training.

    Args:
        source: images with labels and splits.
        epochs: E epochs of N images each.
        rule: rule by which a file becomes the input of the model.
        batch_size: B.
        augment: augmentation of the views, see `pixels/augment.py`.
        sample_weights: float [K], weight of each class; None for no weights.

    Returns:
        ceil(N / B) batches an epoch, the last one with the rest, of (x, y) or (x, y, w):
        x float32 [B,S,S,3], 0 to 255, or with shares the pair (x, shares [B]); y float32 [B,K],
        one-hot, or mixed in the way that x will be; w float32 [B].

    Raises:
        tf.errors.OpError: while iterating, for a file that was removed or changed, or is not an
            image; see `explaining`.
    """
    train = source.indices("train")
    paths = _files(source, train)
    files, digests = _strings(paths), _strings(_digests(source, train))
    numbers = _numbers(source, train)
    load = _training_loader(rule, augment, _are_common(paths))
    target = targets_of(source.labels[train], len(source.class_names), sample_weights)

    def read(
        row: tf.Tensor, number: tf.Tensor, view: tf.Tensor, seed: tf.Tensor, *shares: Any
    ) -> tuple:
        image = load(files[row], digests[row], tf.stack([seed, number]), view)
        return ((image, *shares) if shares else image, *target(row))

    def epoch(*columns: tf.Tensor) -> tf.data.Dataset:
        return _batched(tf.data.Dataset.from_tensor_slices(columns), read, batch_size)

    made = list(epochs)
    columns = [
        np.stack([np.asarray(values, np.int32) for values in many])
        for many in (
            [e.rows for e in made],
            [numbers[e.rows] for e in made],
            [e.views for e in made],
            [e.seeds for e in made],
        )
    ]
    if made[0].shares is not None:
        columns.append(np.stack([np.asarray(e.shares) for e in made]))
    batches = tf.data.Dataset.from_tensor_slices(tuple(columns)).flat_map(as_written(epoch))
    return read_ahead(
        with_mixed_targets(batches, made[0]), len(made) * math.ceil(len(made[0].rows) / batch_size)
    )


@contextlib.contextmanager
def explaining(root: Path) -> Iterator[None]:
    """Turns TensorFlow's error for a file that is no longer readable into a UserError.

    Args:
        root: folder of the photos.

    Raises:
        UserError: a file was removed or changed after it was checked.
    """
    if not is_installed():  # then no photo is read
        yield
        return
    try:
        yield
    except (
        tf.errors.NotFoundError,
        tf.errors.PermissionDeniedError,
        tf.errors.InvalidArgumentError,
    ) as error:
        reason = _reason(error)
        raise UserError(reason if _IN_USE in reason else f"{root}: {_IN_USE}: {reason}") from error


def _reason(error: tf.errors.OpError) -> str:
    """Finds the sentence of an error: behind it stands a node's name, before it maybe a stack."""
    lines = str(error.message).partition("\n\t [[")[0].splitlines()
    ours = [line for line in lines if _IN_USE in line]  # of `_compared`, within a traceback
    if ours:
        return ours[0].rpartition("ValueError: ")[2]
    return lines[-1] if lines else type(error).__name__


def targets_of(labels: np.ndarray, num_classes: int, sample_weights: np.ndarray | None) -> Callable:
    """Makes a function that maps training rows, int of any shape, to (y,) or (y, w).

    Args:
        labels: int [N], labels of the training images.
        num_classes: K.
        sample_weights: float [K], weight of each class; None for no weights.
    """
    known = tf.constant(labels, tf.int32)
    weights = None if sample_weights is None else tf.constant(sample_weights, tf.float32)

    def target(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        label = tf.gather(known, rows)
        y = tf.one_hot(label, num_classes)
        return (y,) if weights is None else (y, tf.gather(weights, label))

    return target


def with_mixed_targets(batches: tf.data.Dataset, first: Epoch) -> tf.data.Dataset:
    """Mixes the targets of batches, if they have shares, as `live.mixed` mixes their activations.

    Classes are weighed before they are mixed, so that each keeps its weight: the loss is the sum of
    both images' losses, each times its share and its class's weight. A loss takes targets that sum
    to 1 and one weight, so the sum of the weighed targets becomes that weight.

    Args:
        batches: pipeline of ((x, shares), y) or ((x, shares), y, w).
        first: any epoch of the pipeline; without shares the batches are returned unchanged.
    """
    if first.shares is None:
        return batches

    def mix(inputs: tuple[tf.Tensor, tf.Tensor], y: tf.Tensor, *weights: tf.Tensor) -> tuple:
        share = inputs[1]

        def with_the_one_before(value: tf.Tensor) -> tf.Tensor:
            own = tf.reshape(share, [-1, *[1] * (len(value.shape) - 1)])
            return own * value + (1 - own) * tf.roll(value, 1, axis=0)

        if not weights:
            return inputs, with_the_one_before(y)
        weight = weights[0][:, None]
        both = with_the_one_before(weight)
        return inputs, with_the_one_before(weight * y) / both, both[:, 0]

    return batches.map(as_written(mix))


def view_batches(
    source: Source,
    positions: Sequence[int],
    views: Sequence[Sequence[tuple[int, int]]],
    *,
    rule: InputRule,
    augment: fields.Augment,
    batch_size: int = 32,
) -> ImageBatches:
    """Returns several views of each image, which is decoded once.

    Args:
        source: images with labels and splits.
        positions: positions of N images in `source.paths`.
        views: views of each of them, as pairs of a view's number and its seed.
        rule: rule by which a file becomes the input of the model.
        augment: augmentation of the views, see `pixels/augment.py`.
        batch_size: B.

    Returns:
        Batches: all views of the first image, then of the second, ...
    """
    show = _shower(rule, augment)
    crop = augment.crop or 1.0
    same = rule.least(crop) == rule.least()  # else parts are cut out of a larger image

    def read(item: tuple[str, str, np.int32, np.ndarray]) -> np.ndarray:
        file, digest, number, shown = item
        encoded = read_unchanged(file, digest)
        parts = {crop} if same else {1.0 if view == 0 else crop for view in shown[:, 0]}
        decoded = [decode_file_by(rule, encoded, part) for part in sorted(parts, reverse=True)]
        return np.asarray(show(decoded[0], decoded[-1], number, shown))

    items = list(
        zip(
            _files(source, positions),
            _digests(source, positions),
            _numbers(source, positions),
            [np.asarray(pairs, np.int32) for pairs in views],
            strict=True,
        )
    )
    count = sum(len(pairs) for pairs in views)
    return ImageBatches(items, read, count, batch_size)


def _are_common(files: Sequence[str]) -> bool:
    """Returns whether a hundred of the files or so, spread over all, are of the common kinds."""
    for path in files[:: max(1, len(files) // 100)]:
        try:
            if not is_common(Path(path).read_bytes()):
                return False
        except OSError:
            continue  # whoever reads it says so
    return True


@functools.cache  # traced once for all pipelines with the same settings
def _training_loader(rule: InputRule, augment: fields.Augment, common: bool) -> Any:
    """Makes a graph function: path, digest, int32 [2] seed, view -> float32 [S,S,3].

    Args:
        rule: rule by which a file becomes the input of the model.
        augment: augmentation of the views.
        common: whether Python decodes the files, so that no pipeline has to optimize the graph that
            decodes every kind of file, for many seconds.
    """

    def load(path: tf.Tensor, digest: tf.Tensor, seed: tf.Tensor, view: tf.Tensor) -> tf.Tensor:
        least = tf.where(tf.equal(view, 0), rule.least(), rule.least(augment.crop or 1.0))
        file = [path, digest, tf.io.read_file(path)]
        if common:
            decode = functools.partial(_decoded, rule)
            image = tf.numpy_function(decode, [*file, least], tf.uint8, stateful=False)
            image.set_shape([None, None, 3])
        else:
            encoded = tf.numpy_function(_compared, file, tf.string, stateful=False)
            encoded = tf.ensure_shape(encoded, [])
            image = images.decode_image(encoded, rule.background, rule.depth, least)
        return _shown(image, image, view, seed, rule, augment)

    signature = [
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([2], tf.int32),
        tf.TensorSpec([], tf.int32),
    ]
    return tf.function(load, input_signature=signature, autograph=False)


def _decoded(
    rule: InputRule, path: bytes, digest: bytes, encoded: bytes, least: np.int32
) -> np.ndarray:
    """Returns an image, uint8 [h,w,3]; TensorFlow raises InvalidArgumentError for a ValueError."""
    readable = _compared(path, digest, encoded)
    try:
        return decode_in_pipeline(readable, rule.background, rule.depth, int(least))
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"{os.fsdecode(path)}: {_IN_USE}: it is truncated or damaged") from None


def _compared(path: bytes, digest: bytes, encoded: bytes) -> bytes:
    """Returns the bytes of an image; TensorFlow raises InvalidArgumentError for a ValueError."""
    if digest and digest_of(encoded).encode() != digest:
        raise ValueError(_changed(os.fsdecode(path)))
    return _readable(os.fsdecode(path), encoded)


def _readable(path: str, encoded: bytes) -> bytes:
    try:
        return as_readable(encoded)
    except Unreadable as error:
        raise Unreadable(f"{path}: {_IN_USE}: it {error}.") from None


@functools.cache
def _shower(rule: InputRule, augment: fields.Augment) -> Any:
    """Makes a graph function: two images, number, int32 [V,2] numbers and seeds -> [V,S,S,3].

    View 0 shows the first image, the others parts of the second one.
    """

    def show_all(
        whole: tf.Tensor, larger: tf.Tensor, number: tf.Tensor, views: tf.Tensor
    ) -> tf.Tensor:
        def show(number_and_seed: tf.Tensor) -> tf.Tensor:
            seed = tf.stack([number_and_seed[1], number])
            return _shown(whole, larger, number_and_seed[0], seed, rule, augment)

        with tf.device(_CPU):
            spec = tf.TensorSpec([rule.image_size, rule.image_size, 3], tf.float32)
            return tf.map_fn(show, views, fn_output_signature=spec)

    signature = [
        tf.TensorSpec([None, None, 3], tf.uint8),
        tf.TensorSpec([None, None, 3], tf.uint8),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([None, 2], tf.int32),
    ]
    return tf.function(show_all, input_signature=signature, autograph=False)


def _shown(
    whole: tf.Tensor,
    larger: tf.Tensor,
    view: tf.Tensor,
    seed: tf.Tensor,
    rule: InputRule,
    augment: fields.Augment,
) -> tf.Tensor:
    """Makes one view of an image. View 0 is plain, the image that is scored.

    Args:
        whole: the image, uint8 [h,w,3], for view 0 or if views are not cropped.
        larger: the image, uint8 [h,w,3], as large as parts of it need.
        view, seed: number and seed of the view, see `augment.py`.
        rule: rule by which a file becomes the input of the model.
        augment: augmentation of the views.
    """
    plain = tf.equal(view, 0)
    crop = augment.crop
    image = whole
    if crop:
        image = tf.cond(plain, lambda: whole, lambda: augment_crop(larger, crop, seed))
        image.set_shape([None, None, 3])
    pixels = images.resize_image(image, rule.image_size, rule.resize)
    if augment.flip or augment.color:
        pixels = tf.cond(
            plain,
            lambda: pixels,
            lambda: augment_pixels(pixels, augment.flip, augment.color, seed, view),
        )
    return pixels


def _files(source: Source, positions: Iterable[int]) -> list[str]:
    root = str(source.root)
    return [os.path.join(root, source.paths[position]) for position in positions]


def _digests(source: Source, positions: Iterable[int]) -> list[str]:
    return [source.digests[position] for position in positions]


def _numbers(source: Source, positions: Iterable[int]) -> np.ndarray:
    """Returns a number of each file, int32, by which its views differ from those of others.

    It is a part of the digest, so that a view does not depend on where a photo stands in a list.
    """
    parts = [int(source.digests[position][:8], 16) for position in positions]
    return np.array(parts, np.uint32).view(np.int32)


def _strings(paths: Sequence[Path | str]) -> tf.Tensor:
    return tf.constant([os.fspath(path) for path in paths], tf.string)


def _batched(items: tf.data.Dataset, read: Callable[..., Any], batch_size: int) -> tf.data.Dataset:
    return items.map(as_written(read), num_parallel_calls=devices.processors()).batch(batch_size)


def as_written(function: Callable[..., Any]) -> Any:
    """Keeps AutoGraph away from a function of a pipeline that has no `if` or loop on tensors.

    Parsing and rewriting its source would take half a second in each process.
    """
    return tf.autograph.experimental.do_not_convert(function)


def read_ahead(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Prefetches two batches, in a deterministic order.

    Args:
        batches: pipeline.
        count: number of its batches.
    """
    options = tf.data.Options()
    options.deterministic = True
    # Autotune's thread recomputes the best parallelism now and then. With two processors that takes
    # many seconds, and the end of a pipeline waits for it (TensorFlow 2.21: up to 8 to 20 s).
    options.autotune.enabled = False
    counted = batches.apply(tf.data.experimental.assert_cardinality(count))
    return counted.prefetch(2).with_options(options)
