"""Accuracies without the luck of having been chosen on the images that they are measured on.

    answers of all that was tried -> a choice on each resample -> scored on what that left out

Of forty epochs or settings of equal worth, the one that validation chooses looks better there than
it is. So the choice is repeated on resamples of the validation images, each drawn with
replacement, and every time the chosen one is scored on the images that were not drawn. There the
model that all images have chosen is scored as well: it is better by its luck, on average, which is
subtracted from its accuracy. Where every resample makes the same choice there is none.

The winner was chosen among the ways as well. So this choice too is repeated on each resample, by
accuracies that are corrected with resamples of the resample.

Source: Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample predictions for
    efficient and accurate cross-validation, Machine Learning 107 (2018): "BBC-CV". What is
    resampled here are units, copies of a photo and photos of a group together. The difference is
    taken on the same images, because units of several sizes change the mean of a ratio.

Shapes: B resamples, T models that were tried, N images, U units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kerasft.compare.entry import Entry
from kerasft.compare.request import Trial
from kerasft.metrics import Answers

RESAMPLES = 1000  # for the choice within a way
OUTER, INNER = 200, 40  # for the choice among ways: resamples, and resamples of each


@dataclass(frozen=True, eq=False)
class Correction:
    """What is needed to correct the accuracies of ways on validation.

    Attributes:
        answers: answers of all that was tried, of trials that were scored on all images.
        rows: for each seed, the position of each validation image's unit, int [N].
        units: number of units in the validation splits of all seeds, U.
    """

    answers: Mapping[Trial, Answers]
    rows: Mapping[int, np.ndarray]
    units: int

    @classmethod
    def of(cls, entries: Sequence[Entry], units: Mapping[int, np.ndarray]) -> "Correction":
        """Collects the answers of entries.

        Args:
            entries: entries of any seeds and fractions.
            units: for each seed, the number of each validation image's unit, int [N]; the same
                number is the same unit in all seeds.
        """
        names, positions = np.unique(np.concatenate(list(units.values())), return_inverse=True)
        ends = np.cumsum([len(of_seed) for of_seed in units.values()])[:-1]
        rows = dict(zip(units, np.split(positions, ends), strict=True))
        answers = {}
        for entry in entries:
            result = entry.validation
            if result is not None and len(result.right) == len(rows[entry.trial.seed]):
                alone = np.array([result.right])
                answers[entry.trial] = entry.answers or Answers(np.zeros(alone.shape), alone)
        return cls(answers, rows, len(names))

    def luck(self, trial: Trial) -> float:
        """Returns how much of a trial's accuracy comes from its own choices, -1 to 1."""
        answers = self.answers.get(trial)
        if answers is None:
            return 0.0
        return _luck(answers, self._drawn[:, self.rows[trial.seed]])

    def luck_of_winner(self, ways: Sequence[Sequence[Trial]], winner: int) -> float:
        """Returns how much of the winner's accuracy comes from choices, that among ways included.

        Args:
            ways: for each way that could have won its trials, one for each seed.
            winner: position of the winning way.
        """
        random = np.random.default_rng(1)
        lucky = []
        for drawn in self._drawn[:OUTER]:
            again = random.multinomial(self.units, drawn / drawn.sum(), INNER)
            best = max(ways, key=lambda way: self._corrected_inside(way, drawn, again))
            final = self._outside(ways[winner], drawn, repeated=False)
            lucky.append(final - self._outside(best, drawn, repeated=True))
        return _mean_of_known(np.array(lucky))

    def _corrected_inside(
        self, way: Sequence[Trial], drawn: np.ndarray, again: np.ndarray
    ) -> float:
        """Returns the corrected accuracy of a way on a resample, the mean over its seeds.

        Args:
            way: trials of the way, one for each seed.
            drawn: number of times that each unit was drawn, [U].
            again: the same for resamples of the resample, [B,U].
        """
        accuracies = []
        for trial in way:
            answers, rows = self.answers[trial], self.rows[trial.seed]
            once = drawn[rows][None]
            accuracy = accuracies_on(answers, chosen_on(answers, once), once)
            luck = _luck(answers, again[:, rows], drawn[rows])
            accuracies.append(_mean_of_known(accuracy) - luck)
        return float(np.mean(accuracies))

    def _outside(self, way: Sequence[Trial], drawn: np.ndarray, *, repeated: bool) -> float:
        """Returns the accuracy of a way on what a resample left out, the mean over its seeds.

        Args:
            way: trials of the way, one for each seed.
            drawn: number of times that each unit was drawn, [U].
            repeated: whether its own choices are repeated on the resample.
        """
        accuracies = []
        for trial in way:
            answers, once = self.answers[trial], drawn[self.rows[trial.seed]][None]
            chosen = chosen_on(answers, once if repeated else np.ones_like(once))
            accuracies.append(accuracies_on(answers, chosen, once == 0))
        return float(np.mean(accuracies))

    @cached_property
    def _drawn(self) -> np.ndarray:
        """How many times each unit is in each resample, [B,U], always the same numbers."""
        shares = np.full(self.units, 1 / self.units)
        return np.random.default_rng(0).multinomial(self.units, shares, RESAMPLES)


def chosen_on(answers: Answers, drawn: np.ndarray) -> np.ndarray:
    """Returns the model with the lowest mean loss on each resample, int [B].

    Args:
        answers: answers of all models that were tried.
        drawn: number of times that each image was drawn, [B,N].
    """
    # A model that diverged is never chosen.
    finite = np.isfinite(answers.losses).all(axis=1, keepdims=True)
    losses = np.where(finite, answers.losses, 1e9).astype(np.float64)
    return (drawn @ losses.T).argmin(axis=1)


def accuracies_on(answers: Answers, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the accuracy of one model on each set of images.

    Args:
        answers: answers of all models that were tried.
        chosen: position of the model for each set, int [B].
        weights: number of times that each image counts in each set, [B,N].

    Returns:
        Accuracies [B], NaN for a set without images.
    """
    hits = np.einsum("bn,bn->b", weights, answers.right[chosen].astype(np.float64))
    with np.errstate(invalid="ignore"):
        return hits / weights.sum(axis=1)


def _luck(answers: Answers, drawn: np.ndarray, among: np.ndarray | None = None) -> float:
    """Returns how much better the finally chosen model is where a resample's choice has no luck.

    Args:
        answers: answers of all models that were tried.
        drawn: number of times that each image was drawn, [B,N].
        among: number of times that each image counts, [N]; None means once.
    """
    if len(answers.right) == 1:
        return 0.0
    counted = np.ones(drawn.shape[1]) if among is None else among
    left_out = (drawn == 0) * counted
    final = np.repeat(chosen_on(answers, counted[None]), len(drawn))
    lucky = accuracies_on(answers, final, left_out)
    return _mean_of_known(lucky - accuracies_on(answers, chosen_on(answers, drawn), left_out))


def _mean_of_known(values: np.ndarray) -> float:
    """Averages what is known; 0 if nothing is: a single unit is in every resample."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0
