"""Accuracies without the luck of having been chosen on the images that they are measured on.

    answers of all that was tried -> a choice on each resample -> scored on what that left out

Of forty epochs or settings of equal worth, the one that validation chooses looks better there than
it is. So the choice is repeated on resamples of the validation images, each drawn with
replacement, and every time the chosen one is scored on the images that were not drawn. The
difference between its accuracy on all images and the mean of these scores is the luck, which is
subtracted. Where nothing was chosen there is none.

The winner was chosen among the ways as well. So this choice too is repeated on each resample, by
accuracies that are corrected with resamples of the resample.

Source: Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample predictions for
    efficient and accurate cross-validation, Machine Learning 107 (2018): "BBC-CV". What is
    resampled here are units, copies of a photo and photos of a group together.

Shapes: B resamples, T models that were tried, N images, U units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerasft.answers import Answers
from kerasft.compare.entry import Entry
from kerasft.compare.request import Trial

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
        if answers is None or len(answers.right) == 1:
            return 0.0
        outside = scores_outside(answers, self._drawn(RESAMPLES)[:, self.rows[trial.seed]])
        return _difference(_accuracy(answers), outside)

    def luck_of_winner(self, ways: Sequence[Sequence[Trial]], winner: int) -> float:
        """Returns how much of the winner's accuracy comes from choices, that among ways included.

        Args:
            ways: for each way that could have won its trials, one for each seed.
            winner: position of the winning way.
        """
        scores = []
        random = np.random.default_rng(1)
        for drawn in self._drawn(OUTER):
            again = random.multinomial(self.units, drawn / drawn.sum(), INNER)
            of_ways = [self._repeat(way, drawn, again) for way in ways]
            scores.append(max(of_ways, key=lambda one: one[0])[1])
        accuracies = [_accuracy(self.answers[trial]) for trial in ways[winner]]
        return _difference(float(np.mean(accuracies)), np.array(scores))

    def _repeat(
        self, way: Sequence[Trial], drawn: np.ndarray, again: np.ndarray
    ) -> tuple[float, float]:
        """Repeats the choices of a way on a resample.

        Args:
            way: trials of the way, one for each seed.
            drawn: number of times that each unit was drawn, [U].
            again: the same for resamples of the resample, [B,U].

        Returns:
            The corrected accuracy on the resample, and the accuracy on what it left out, which is
            NaN if that is nothing. Both are means over the seeds.
        """
        inside, outside = [], []
        for trial in way:
            answers, rows = self.answers[trial], self.rows[trial.seed]
            once = drawn[rows]
            outside.append(scores_outside(answers, once[None])[0])
            if len(answers.right) > 1:
                known = _known(scores_outside(answers, again[:, rows], once))
            else:
                known = np.repeat(answers.right[0], once)
            inside.append(known.mean() if len(known) else 0.0)
        return float(np.mean(inside)), float(np.mean(outside))

    def _drawn(self, number: int) -> np.ndarray:
        """Returns how many times each unit is in each resample, [B,U], always the same numbers."""
        shares = np.full(self.units, 1 / self.units)
        return np.random.default_rng(0).multinomial(self.units, shares, number)


def scores_outside(
    answers: Answers, drawn: np.ndarray, among: np.ndarray | None = None
) -> np.ndarray:
    """Chooses the lowest mean loss on each resample, and scores it on the images left out.

    Args:
        answers: answers of all models that were tried.
        drawn: number of times that each image was drawn, [B,N].
        among: number of times that each image counts when it is left out, [N]; None means once.

    Returns:
        Accuracies [B]; NaN where all or none of the images were drawn.
    """
    left_out = (drawn == 0) * (1.0 if among is None else among)
    chosen = (drawn @ _losses(answers).T).argmin(axis=1)
    hits = np.einsum("bn,bn->b", left_out, answers.right[chosen])
    with np.errstate(invalid="ignore"):
        scores = hits / left_out.sum(axis=1)
    return np.where(drawn.any(axis=1), scores, np.nan)


def _losses(answers: Answers) -> np.ndarray:
    """Returns the losses, infinite in effect for a model that diverged: it is never chosen."""
    finite = np.isfinite(answers.losses).all(axis=1, keepdims=True)
    return np.where(finite, answers.losses, 1e9).astype(np.float64)


def _accuracy(answers: Answers) -> float:
    return float(answers.right[_losses(answers).mean(axis=1).argmin()].mean())


def _difference(accuracy: float, outside: np.ndarray) -> float:
    """Returns how much higher an accuracy is than on images that were left out of the choice."""
    known = _known(outside)
    # A single unit is in every resample. Then nothing is known, and nothing can be subtracted.
    return accuracy - float(known.mean()) if len(known) else 0.0


def _known(scores: np.ndarray) -> np.ndarray:
    return scores[np.isfinite(scores)]
