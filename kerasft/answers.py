"""The answers of several models on the same images: what a choice among them was based on.

Training tries an epoch after the other, a method of solving tries settings, `compare` tries ways;
the validation images choose. With the answers of all that was tried, `compare/correction.py` says
how much of the chosen one's accuracy is luck.

Shapes: T models that were tried, N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerasft.metrics import log_losses


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of several models on the same images.

    Attributes:
        losses: log loss of each image in nats, float32 [T,N]; the model with the lowest mean is
            chosen.
        right: whether the label of the image was predicted, bool [T,N].
    """

    losses: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "Answers":
        """Returns the answers of one model, from logits [N,K] and labels int [N]."""
        losses = log_losses(logits, labels).astype(np.float32)
        return cls(losses[None], (logits.argmax(axis=1) == labels)[None])

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Returns the answers of all models of several parts, in their order."""
        return cls(
            np.concatenate([part.losses for part in parts]),
            np.concatenate([part.right for part in parts]),
        )
