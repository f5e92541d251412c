"""What a phase is fed in training: order, views, mixing, targets, from photos or from a store.

Shapes: N training images, K classes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kerasft import data
from kerasft.activations import Stored
from kerasft.config import Phase
from kerasft.data import Epoch
from kerasft.needs import views_of
from kerasft.randomness import derive_seed, epoch_order, epoch_views, mixup_shares
from kerasft.setting import Setting


class Epochs(Sequence[Epoch]):
    """Order, views and shares of some epochs, the same for stored and for live feeding.

    Each is made when it is looked at: all of them at once are large.
    """

    def __init__(self, setting: Setting, seed: int, n: int, epochs: range) -> None:
        """Args: seed: the phase's. n: N. epochs: which, counted from 0."""
        self._seed, self._n, self._epochs = seed, n, epochs
        self._mixup = setting.config.augment.mixup
        new = setting.config.augment.views == 0
        self._views = None if new else np.array([seed for _, seed in views_of(setting.config)])

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
    setting: Setting, phase: Phase, epochs: Sequence[Epoch], stored: Stored | None
) -> Iterable:
    """Batches (x, y) or (x, y, w) of some epochs; see `data.training_batches`.

    Args:
        setting: the run.
        phase: says batch size and class weights.
        epochs: as `Epochs` makes them.
        stored: the activations at the cut; None reads pixels.
    """
    source, config = setting.source, setting.config
    labels, classes = setting.labels("train"), len(source.class_names)
    weights = class_weights(phase, labels, classes)
    if stored:
        return data.stored_batches(
            stored.train,
            labels,
            epochs,
            num_classes=classes,
            batch_size=phase.batch_size,
            sample_weights=weights,
        )
    return data.training_batches(
        source,
        epochs,
        image_size=setting.image_size,
        resize=config.data.resize,
        batch_size=phase.batch_size,
        augment=config.augment,
        sample_weights=weights,
    )


def class_weights(phase: Phase, labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """float32 [K]: with "balanced", each class weighs as much as any other in the loss."""
    if phase.class_weight == "none":
        return None
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * counts)).astype("float32")
