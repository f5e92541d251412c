"""WiSE-FT: weights between the start of a phase and its best epoch, chosen by validation.

A fine-tuned net has left the pretrained one further than its few photos warrant. On the straight
line between both lie weights that are often better than either, and trying them costs a few passes
over the stored validation activations.

Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models": weight-space ensembles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kerasft.metrics import Answers, Figures
from kerasft.results import Result

SHARES = (0.75, 0.5, 0.25)
"""Shares of the best epoch that are tried besides 1; 0 is the start of the phase, the run's
model.keras so far."""


@dataclass(frozen=True)
class TriedShare(Result):
    """A share of the best epoch that was tried, and its figures on validation."""

    alpha: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, eq=False)
class Between:
    """The weights that were chosen.

    Attributes:
        weights: the chosen weights.
        alpha: their share of the best epoch; on a tie the largest.
        tried: all shares with their figures, that of the best epoch first.
        answers: validation answers of the shares that are tried here, without the best epoch's.
    """

    weights: list[np.ndarray]
    alpha: float
    tried: tuple[TriedShare, ...]
    answers: tuple[Answers, ...]


def between(
    start: Sequence[np.ndarray],
    best: Sequence[np.ndarray],
    of_best: Figures,
    score: Callable[[list[np.ndarray]], tuple[Figures, Answers]],
) -> Between:
    """Tries weights on the line from a phase's start to its best epoch.

    Args:
        start: weights of the suffix at the start of the phase.
        best: weights of the suffix at its best epoch.
        of_best: validation figures of the best epoch.
        score: the function that scores weights on validation.
    """
    chosen = list(best), 1.0, of_best
    tried = [TriedShare(1.0, of_best.loss, of_best.accuracy)]
    answers = []
    for alpha in SHARES:
        weights = [_mixed(old, new, alpha) for old, new in zip(start, best, strict=True)]
        figures, own = score(weights)
        tried.append(TriedShare(alpha, figures.loss, figures.accuracy))
        answers.append(own)
        if figures.loss < chosen[2].loss:
            chosen = weights, alpha, figures
    return Between(chosen[0], chosen[1], tuple(tried), tuple(answers))


def _mixed(start: np.ndarray, best: np.ndarray, alpha: float) -> np.ndarray:
    if start.dtype.kind != "f":
        return best  # states of random generators
    # A weight that has not moved, of a frozen layer, stays as it is to the last bit, -0.0 too.
    return np.where(start == best, best, best + (1 - alpha) * (start - best)).astype(best.dtype)
