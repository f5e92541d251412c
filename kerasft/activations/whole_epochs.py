"""Whole epochs on the device: activations lie in a GPU's memory, all steps are one program (JAX).

A step on a few stored activations takes a GPU less time than Python takes to start it. So the
stores are copied to the card once, and `fit` is given an epoch where it expects a batch.

Shapes: N training images, K classes, V views, B images in a batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from kerasft.activations.context import FINITE
from kerasft.data.batches import Epoch
from kerasft.heads.co_tuning import CoTuning
from kerasft.models.live import Anchor, LiveModel, NormMean, mixed

SHARE = 0.4  # of the memory that JAX may take that the stores may take; the steps need the rest


def fit_on_device(size: int, memory: int | None) -> bool:
    """Returns whether stores can lie on the device; the same in every process of a run.

    Args:
        size: size of the stores in bytes.
        memory: memory of the device in bytes, from `compiled.memory`; None for a CPU, which has
            none of its own: the rows lie where it can read them.
    """
    return memory is not None and size <= SHARE * memory


class WholeEpochs(LiveModel):
    """A trained suffix whose `fit` takes the order of an epoch and does all its steps.

    It computes what `LiveModel` computes on the batches of `feed.training_feed`.
    """

    def __init__(
        self,
        suffix: keras.Model,
        views: Sequence[Any],
        labels: np.ndarray,
        *,
        num_classes: int,
        batch_size: int,
        sample_weights: np.ndarray | None = None,
        norm_mean: NormMean | None = None,
        anchor: Anchor | None = None,
        co_tuning: CoTuning | None = None,
    ) -> None:
        """Copies the stores to the device.

        Args:
            suffix: the suffix, activations at the cut to logits.
            views: the stores of the V views, [N, ...] each, a row per training image.
            labels: labels of the training images, int [N].
            num_classes: number of classes, K.
            batch_size: number of images in a batch, B.
            sample_weights: weight of each class in the loss, float [K]; None: no weights.
            norm_mean: the running mean of the suffix's statistics, if there is one.
            anchor: the start that weights decay towards, if they do.
            co_tuning: the pretrained classifier that is trained with, if one is.
        """
        super().__init__(None, suffix, norm_mean, anchor, co_tuning)
        self.train_function: Any = None
        weights = None if sample_weights is None else jnp.asarray(sample_weights, "float32")
        # In a tuple, which Keras does not look into for layers and variables.
        self._data = (
            tuple(jax.device_put(np.asarray(view)) for view in views),
            jnp.asarray(labels, "int32"),
            weights,
        )
        self._batch_size, self._num_classes = batch_size, num_classes

    def orders(self, epochs: Sequence[Epoch]) -> Iterator[tuple]:
        """Yields the order of each epoch, as `fit` takes it, with `steps_per_epoch=1`."""
        if not self.built:
            # `fit` would build the model on what it is fed, which is no batch.
            few = _columns(epochs[0], self._batch_size)
            self._symbolic_build(data_batch=self._batch(few, self._data))
        for epoch in epochs:
            yield (_columns(epoch, len(epoch.rows)),)

    def make_train_function(self, force: bool = False) -> None:
        """Makes the function that `fit` calls once for an epoch."""
        if self.train_function is not None and not force:
            return
        run = jax.jit(self._epoch, donate_argnums=0)

        def train(state: tuple, orders: Iterator) -> tuple:
            (columns,) = next(orders)
            return run(state, columns, self._data)

        self.train_function = train

    def _epoch(self, state: tuple, columns: tuple, data: tuple) -> tuple:
        """Does the steps of an epoch: the state of fit -> figures of the epoch, the new state."""
        size, count = self._batch_size, len(columns[0])
        full = count // size * size

        def step(state: tuple, part: tuple) -> tuple:
            logs, new = self.train_step(state, self._batch(part, data))
            return _like(new, state), logs

        logs: Any = {}
        finite: Any = 0
        if full:
            parts = tuple(column[:full].reshape(-1, size) for column in columns)
            state, of_steps = jax.lax.scan(step, state, parts)
            logs = jax.tree.map(lambda figures: figures[-1], of_steps)
            finite = jnp.isfinite(of_steps["loss"]).sum()
        if full < count:
            state, logs = step(state, tuple(column[full:] for column in columns))
            finite += jnp.isfinite(logs["loss"])
        return {**logs, FINITE: finite}, state

    def _batch(self, columns: tuple, data: tuple) -> tuple:
        """Gathers a batch: (x, y) or (x, y, w), as `feed.stored_batches` yields it."""
        views, labels, weights = data
        rows, which, *shares = columns
        x = jnp.take(views[0], rows, axis=0)
        for number, view in enumerate(views[1:], 1):
            is_it = (which == number).reshape(-1, *[1] * (x.ndim - 1))
            x = jnp.where(is_it, jnp.take(view, rows, axis=0), x)
        label = labels[rows]
        y = jax.nn.one_hot(label, self._num_classes)
        weight = None if weights is None else weights[label][:, None]
        if not shares:
            return (x, y) if weight is None else (x, y, weight[:, 0])
        if weight is None:
            return (x, shares[0]), mixed(y, shares[0])
        both = mixed(weight, shares[0])  # as `batches.with_mixed_targets` does
        return (x, shares[0]), mixed(weight * y, shares[0]) / both, both[:, 0]


def _columns(epoch: Epoch, count: int) -> tuple:
    """Returns the first images of an epoch as arrays: rows, views, and shares if there are any."""
    columns = [
        epoch.rows[:count].astype("int32"),
        np.maximum(epoch.views[:count], 0).astype("int32"),
    ]
    if epoch.shares is not None:
        columns.append(np.asarray(epoch.shares[:count]))
    return tuple(columns)


def _like(state: tuple, before: tuple) -> tuple:
    """Returns a state in the containers and dtypes of another; `scan` takes no others."""
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(before), strict=True)
    same = [value.astype(old.dtype) for value, old in pairs]
    return jax.tree.unflatten(jax.tree.structure(before), same)
