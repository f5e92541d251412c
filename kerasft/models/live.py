"""The model that is fitted: the suffix on stored activations, or prefix and suffix on pixels."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasft.heads.co_tuning import CoTuning


class LiveModel(keras.Model):
    """A frozen prefix, if there is one, and a trained suffix, for `fit` and `predict`.

    It is a subclassed model, because in a functional one `fit` overrides `training=False`
    (Keras 3.15, `functional.py: operation_fn`; keras issue 20285): statistics of the prefix
    would move and its dropout would be active. Here the prefix always runs in inference mode, and
    no gradient enters it.

    The input is pixels float32 [B,S,S,3], 0 to 255, or without a prefix the activations at the
    cut, in any float type. If it is a pair with shares float32 [B], the activations are mixed at
    the cut (`mixed`). The output is logits float32 [B,K].
    """

    def __init__(
        self,
        prefix: keras.Model | None,
        suffix: keras.Model,
        norm_mean: "NormMean | None" = None,
        anchor: "Anchor | None" = None,
        co_tuning: CoTuning | None = None,
    ) -> None:
        super().__init__(name="live")
        self.prefix = prefix
        self.suffix = suffix
        self._anchor = anchor  # adds to the loss of each batch that is trained on, as the next one
        self._co_tuning = co_tuning
        self._features: Any = None  # of the batch that is trained on, for `compute_loss`
        self._norm_mean = norm_mean  # updated after each batch that is trained on
        self._of_norm_mean = norm_mean.variables if norm_mean else []  # Keras finds them here

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns logits float32 [B,K]; `training` reaches the suffix only."""
        x, shares = inputs if isinstance(inputs, tuple | list) else (inputs, None)
        x = ops.cast(x, "float32")  # a store may be float16
        if self.prefix is not None:
            x = ops.stop_gradient(self.prefix(x, training=False))
        if shares is not None:
            x = mixed(x, shares)
        if training and self._co_tuning is not None:
            logits, self._features = self._co_tuning.both(x, training=True)
        else:
            logits = self.suffix(x, training=training)
        logits = ops.cast(logits, "float32")
        if training and self._norm_mean is not None:
            self._norm_mean.update()
        if training and self._anchor is not None:
            self.add_loss(self._anchor.penalty())
        return logits

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch; Keras calls it."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training and self._co_tuning is not None:
            loss = loss + self._co_tuning.loss(self._features, y, sample_weight)
        return loss


class Anchor:
    """Decay of the base's trained weights towards the start of the phase, not towards 0 (L2-SP).

    Source: Li, Grandvalet, Davoine 2018, "Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks", equation 2; the head, which has no pretrained start, is left out.
    """

    def __init__(self, suffix: keras.Model, layers: Collection[str], strength: float) -> None:
        """Takes the present weights as the start.

        Args:
            suffix: the trained side of a cut, with the weights that the phase begins with.
            layers: names of the base's layers in it.
            strength: factor of half the sum of the squared distances, 0 or more.
        """
        trained = [
            variable
            for layer in suffix.layers
            if layer.name in layers
            for variable in layer.trainable_variables
        ]
        # In a tuple, which Keras does not look into for variables.
        self._pairs = tuple((v, np.array(ops.convert_to_numpy(v))) for v in trained)
        self._strength = strength

    def penalty(self) -> Any:
        """Returns what is added to the loss, a float32 scalar."""
        total: Any = 0.0
        for variable, start in self._pairs:
            apart = ops.cast(variable, "float32") - ops.convert_to_tensor(start)
            total += ops.sum(ops.square(apart))
        return self._strength / 2 * total


class NormMean:
    """The running mean of BatchNormalization's moving statistics, for averaged weights.

    An optimizer averages only what it trains. Statistics of the last weights would not fit the
    mean of all of them, so these get the same mean: of the statistics after each batch.

    Attributes:
        variables: the number of batches so far, and the mean of each statistic.
    """

    def __init__(
        self, suffix: keras.Model, norms: Collection[str], *, momentum: float, first: int
    ) -> None:
        """Begins a mean.

        Args:
            suffix: the trained side of a cut.
            norms: names of its BatchNormalization layers that learn.
            momentum: share that the mean keeps at each batch, the optimizer's `ema_momentum`.
            first: number of batches until the mean keeps anything: those of the first step.
        """
        layers = suffix._flatten_layers(include_self=False, recursive=True)
        found = [layer for layer in layers if layer.name in norms]
        self._statistics = [v for layer in found for v in layer.non_trainable_variables]
        self._momentum, self._first = momentum, first
        self._batches = keras.Variable(0, dtype="int", trainable=False, name="batches")
        self._means = [
            keras.Variable(ops.zeros(v.shape), dtype=v.dtype, trainable=False, name="norm_mean")
            for v in self._statistics
        ]
        self.variables = [self._batches, *self._means]

    def update(self) -> None:
        """Takes the present statistics into the mean."""
        begun = ops.cast(ops.greater_equal(self._batches, self._first), "float32")
        kept = begun * self._momentum
        for mean, now in zip(self._means, self._statistics, strict=True):
            mean.assign(kept * mean + (1 - kept) * now)
        self._batches.assign(self._batches + 1)

    def put_in(self) -> None:
        """Puts the mean in place of the statistics."""
        for mean, now in zip(self._means, self._statistics, strict=True):
            now.assign(mean)


def mixed(activations: Any, shares: Any) -> Any:
    """Mixes each image's activations [B, ...] with those of the one before it in the batch.

    Args:
        activations: activations, [B, ...].
        shares: share of itself that each image keeps, float32 [B], 0 to 1. The batch is in random
            order, so neighbours are random pairs; the first image is mixed with the last.

    Source: Zhang et al. 2018, "mixup"; at a hidden layer, Verma et al. 2019, "Manifold Mixup".
    """
    own = ops.reshape(shares, (-1, *[1] * (len(activations.shape) - 1)))
    activations = ops.cast(activations, "float32")  # the labels are mixed by the exact shares
    return own * activations + (1 - own) * ops.roll(activations, 1, axis=0)


def set_precision(model: keras.Model, policy: str) -> list[tuple[keras.layers.Layer, object]]:
    """Lets a whole model compute in another precision; its variables stay float32.

    The in-model normalisation of the pixels, the logits and the softmax stay in float32:
    bfloat16 has 8 significant bits, and a grey level needs all of them.

    Args:
        model: the model, pixels to scores.
        policy: the Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".

    Returns:
        The changed layers with their former policies, for `restore_precision`. Call that before
        saving, since a model saved under a mixed policy loads with it.
    """
    before = []
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer.dtype_policy.name != policy and not _stays_float32(layer):
            before.append((layer, layer.dtype_policy))
            layer.dtype_policy = policy
    return before


def restore_precision(before: list[tuple[keras.layers.Layer, object]]) -> None:
    """Undoes `set_precision`."""
    for layer, policy in before:
        layer.dtype_policy = policy


@contextmanager
def computing_in(model: keras.Model, policy: str) -> Iterator[None]:
    """Lets a whole model compute in another precision within the block; see `set_precision`.

    A graph keeps the precision in which it was traced. So a model whose first call is in the block
    computes in this precision ever after, whatever another model of the same layers computes in.
    """
    before = set_precision(model, policy)
    try:
        yield
    finally:
        restore_precision(before)


def _stays_float32(layer: keras.layers.Layer) -> bool:
    kinds = (keras.layers.InputLayer, keras.layers.Normalization, keras.layers.Rescaling)
    return isinstance(layer, kinds) or layer.name in ("logits", "scores")
