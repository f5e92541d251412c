"""The epochs of a phase, with a checkpoint after each, so that an interrupted run can resume."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasft.activations.context import FINITE, SCORING_BATCH, RunContext
from kerasft.activations.reading import read_in_order
from kerasft.activations.store import Stored
from kerasft.config.fields import Phase
from kerasft.data.batches import explaining
from kerasft.errors import PhaseFailed, UserError
from kerasft.heads.start import HeadStart
from kerasft.metrics import Answers, Figures
from kerasft.models import bundle
from kerasft.models.live import computing_in
from kerasft.models.wise import Between, between
from kerasft.progress import Event, Part
from kerasft.record import Steps
from kerasft.run import read_metrics, write_metrics
from kerasft.training import checkpoint
from kerasft.training.checkpoint import PhaseState
from kerasft.training.feed import Epochs
from kerasft.training.rates import apply_rest, batches_seen, rates_at
from kerasft.training.trainable import Trainable, steps_in_memory

log = logging.getLogger("kerasft")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A phase whose epochs are over; its suffix has the weights that are kept.

    Attributes:
        line: the line of metrics.jsonl that belongs to the kept weights; the figures on validation
            are theirs, those on training are the best epoch's.
        how: the epochs, and what was tried before and after them.
        answers: validation answers of all that validation chose among; None if an older version
            trained all epochs.
        part: the time of the epochs.
    """

    line: Mapping[str, Any]
    how: Steps
    answers: Answers | None
    part: Part


def fit(
    context: RunContext,
    trainable: Trainable,
    seed: int,
    *,
    start: str,
    stored: Stored | None,
    head_start: HeadStart | None = None,
    wise: bool = False,
) -> Fitted:
    """Trains a phase until its last epoch, or until patience runs out.

    Args:
        context: the run; a checkpoint of this phase in it is continued.
        trainable: the phase, set up.
        seed: the phase's seed.
        start: digest of the whole model at the start of the phase (`cut.digest_of`).
        stored: the stored activations at the cut; None computes them from pixels in every step.
        head_start: the solved head that is in the suffix: it counts as epoch 0. None if the
            head was not solved, or the phase is continued.
        wise: whether weights between the start and the best epoch are tried at the end.

    Raises:
        PhaseFailed: the loss is not a number from the start.
        OutOfMemory: a step or an allocation around it does not fit the memory.
        UserError: the disk is full, or the phase was begun from other weights.
    """
    phase, steps, suffix = trainable.phase, trainable.steps_per_epoch, trainable.cut.suffix
    train = context.source.indices("train")
    checkpoint.reset_seeds(suffix, seed)
    keeper = _Keeper(context, trainable, start, stored, head_start)
    first, earlier = keeper.now.epoch, keeper.now.seconds
    part = Part("epochs", steps * (phase.epochs - first), context.progress, phase.name)
    if not keeper.ended():
        epochs = range(first, phase.epochs)
        model, feed, at_once = trainable.fitting(
            context, Epochs(context, seed, len(train), epochs), stored
        )

        def begun() -> bool:
            return keeper.now.epoch > 0

        with explaining(context.source.root), steps_in_memory(context.config, phase, begun=begun):
            model.fit(
                feed,
                initial_epoch=first,
                epochs=phase.epochs,
                steps_per_epoch=steps // at_once,
                shuffle=False,  # the feed sets the order; with True Keras warns that it's no use
                verbose=0,
                callbacks=[keeper, _Watcher(context, phase, steps, part, at_once)],
            )
    chosen = keeper.choose(wise=wise and not trainable.learning_norms)
    checkpoint.assign_weights(suffix, chosen.weights)
    part.end()
    part.add(earlier)
    return keeper.fitted(chosen, part)


class _Keeper(keras.callbacks.Callback):
    """A callback that scores validation after every epoch, keeps the best and saves the state.

    It stops the training when patience runs out, and replaces Keras' ModelCheckpoint,
    EarlyStopping and BackupAndRestore, which forget each other's state when a run is resumed.

    Attributes:
        now: state of the phase, continued from the checkpoint if the run is resumed.
        best: the suffix's weights at the best epoch so far.
        answers: validation answers of the epochs so far.
    """

    def __init__(
        self,
        context: RunContext,
        trainable: Trainable,
        start: str,
        stored: Stored | None,
        head_start: HeadStart | None,
    ) -> None:
        super().__init__()
        self._context, self._trainable, self._stored = context, trainable, stored
        self._phase = phase = trainable.phase
        self._suffix, self._optimizer = trainable.cut.suffix, trainable.optimizer
        self._norm_mean = trainable.norm_mean
        self._of_mean = self._norm_mean.variables if self._norm_mean else []
        self._train = len(context.source.indices("train"))
        written = read_metrics(context.run)
        self._earlier = [line for line in written if line["phase"] != phase.name]
        self._labels = context.labels("validation")
        self._began = 0.0
        self._bad_step: int | None = None  # of the epoch, from 1: the first without a number

        folder = context.run.checkpoints
        found = checkpoint.load(folder, phase.name)
        self.now = found or PhaseState(phase.name, start)
        self._start = self.best = checkpoint.weights_of(self._suffix)
        self.answers: list[Answers] = []
        if found:
            if found.start not in ("", start):  # the first versions did not write it down
                raise UserError(
                    f"{context.run.path}: the weights that phase '{phase.name}' began with have "
                    "changed since it was interrupted. Restore the weights file, or train into "
                    "another directory."
                )
            self.best, answers = checkpoint.restore(
                folder, self._suffix, self._optimizer, self._of_mean
            )
            self.answers = [answers] if answers else []
            # The state is committed before the line is written; a kill may fall between.
            write_metrics(context.run, self._earlier + found.lines)
        elif head_start:
            self._count(head_start)
        elif len(self._earlier) < len(written):
            # It begins anew, because its checkpoint is damaged.
            write_metrics(context.run, self._earlier)

    def _count(self, head_start: HeadStart) -> None:
        """Counts a solved head as epoch 0."""
        train, tried = head_start.train, [one.to_json() for one in head_start.tried]
        how = {"head_start": {"strength": head_start.strength, "tried": tried}}
        line = {**self._line(0, train.loss, train.accuracy, head_start.validation, {}), **how}
        self.now.best_loss, self.now.lines = line["val_loss"], [line]
        self.answers = [head_start.answers]
        write_metrics(self._context.run, [*self._earlier, line])

    def ended(self) -> bool:
        """Returns whether the epochs are done, patience ran out, or the loss is not a number."""
        waited = self.now.epoch - self.now.best_epoch
        out_of_patience = 0 < self._phase.patience <= waited
        return self.now.epoch >= self._phase.epochs or out_of_patience or self._diverged()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._began = time.perf_counter()
        self._bad_step = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # The loss is the mean over the epoch so far, so it stays no number; Keras has read it.
        assert logs is not None
        if self._bad_step is None and not math.isfinite(logs["loss"]):
            self._bad_step = int(logs.get(FINITE, batch)) + 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert logs is not None  # Keras passes the epoch's loss and metrics
        if epoch + 1 == self._phase.epochs:
            apply_rest(self._optimizer)
        stepped = self._to_mean()
        validation = self._score_validation()
        rates = rates_at(
            self._phase,
            self._trainable.groups,
            self._trainable.steps_per_epoch,
            batches_seen(self._optimizer) - 1,
        )
        loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
        line = dict(self._line(epoch + 1, loss, accuracy, validation, rates))
        now = self.now
        now.epoch, now.lines = epoch + 1, [*now.lines, line]
        improved = line["val_loss"] < now.best_loss
        if improved:
            now.best_epoch, now.best_loss = now.epoch, line["val_loss"]
            self.best = checkpoint.weights_of(self._suffix)
        if stepped is not None:
            checkpoint.assign_weights(self._suffix, stepped)
        if self._diverged():
            self._say_diverged()
        seconds = time.perf_counter() - self._began
        now.seconds += seconds
        checkpoint.save(
            self._context.run.checkpoints,
            now,
            self._suffix,
            self._optimizer,
            self.best,
            self._of_mean,
            Answers.joined(self.answers),
        )
        write_metrics(self._context.run, self._earlier + now.lines)
        self._report(line, self._train / seconds, improved)
        self.model.stop_training = self.ended()

    def _line(
        self,
        epoch: int,
        loss: float,
        accuracy: float,
        validation: Figures,
        rates: Mapping[str, float],
    ) -> Mapping[str, Any]:
        """Writes an epoch's line of metrics.jsonl; epoch 0 is a solved head, which took no steps.

        Args:
            epoch: number of the epoch.
            loss, accuracy: figures on training.
            validation: figures on validation.
            rates: learning rate of each group of layers, by its name.
        """
        line: dict[str, Any] = {
            "phase": self._phase.name,
            "epoch": epoch,
            "loss": loss,
            "accuracy": accuracy,
            "val_loss": validation.loss,
            "val_accuracy": validation.accuracy,
            "learning_rates": rates,
        }
        if epoch and self._phase.precision != "float32":
            line["precision"] = self._phase.precision  # of the steps; validation is in float32
        if self._stored:
            line["activations"] = self._stored.dtype
        return line

    def _to_mean(self) -> list[np.ndarray] | None:
        """Puts the moving average, if there is one, into the suffix; returns the weights before."""
        if not self._phase.ema:
            return None
        stepped = checkpoint.weights_of(self._suffix)
        self._optimizer.finalize_variable_values(self._suffix.trainable_variables)
        if self._norm_mean:
            self._norm_mean.put_in()
        # On JAX the weights are the mean's own arrays now, and `predict` donates its weights: the
        # optimizer would be left with deleted arrays. So the suffix gets copies.
        checkpoint.assign_weights(self._suffix, checkpoint.weights_of(self._suffix))
        return stepped

    def choose(self, *, wise: bool) -> Between:
        """Chooses the weights that are kept: the best epoch's, or weights on the way to them.

        Args:
            wise: whether weights between the start of the phase and the best epoch are tried.
        """
        if not wise or not self.now.best_epoch:
            return Between(self.best, 1.0, (), ())
        suffix = self._trainable.cut.suffix

        def score(weights: list[np.ndarray]) -> tuple[Figures, Answers]:
            checkpoint.assign_weights(suffix, weights)
            logits = self._logits()
            return Figures.of(logits, self._labels), Answers.of(logits, self._labels)

        line = self._best_line()
        of_best = Figures(line["val_accuracy"], line["val_loss"], len(self._labels))
        return between(self._start, self.best, of_best, score)

    def fitted(self, chosen: Between, part: Part) -> Fitted:
        """Returns the outcome of the epochs with the weights that were chosen."""
        now, line = self.now, self._best_line()
        for one in chosen.tried:
            if one.alpha == chosen.alpha:
                line = {**line, "val_loss": one.val_loss, "val_accuracy": one.val_accuracy}
        answers = [*self.answers, *chosen.answers]
        return Fitted(
            line=line,
            how=Steps(
                epochs=now.epoch,
                best_epoch=now.best_epoch,
                precision=self._phase.precision,
                head_start=now.lines[0].get("head_start"),
                alpha=chosen.alpha,
                alphas=[one.to_json() for one in chosen.tried],
            ),
            answers=Answers.joined(answers) if answers else None,
            part=part,
        )

    def _best_line(self) -> Mapping[str, Any]:
        now = self.now
        return next(line for line in now.lines if line["epoch"] == now.best_epoch)

    def _score_validation(self) -> Figures:
        logits = self._logits()
        self.answers.append(Answers.of(logits, self._labels))
        return Figures.of(logits, self._labels)

    def _logits(self) -> np.ndarray:
        """Returns the logits of the validation images [n,K], in float32."""
        exact = self._phase.precision == "float32"
        fitted = self.model or self._trainable.model  # no epoch is left after an interruption
        scorer = fitted if exact else self._trainable.scorer
        with computing_in(scorer, "float32"):
            return np.asarray(bundle.compute(scorer, self._validation_batches()))

    def _validation_batches(self) -> Iterable:
        if self._stored:
            return read_in_order(self._stored.validation, SCORING_BATCH)
        return self._context.batches("validation")

    def _diverged(self) -> bool:
        return any(not math.isfinite(x["loss"] + x["val_loss"]) for x in self.now.lines[-1:])

    def _say_diverged(self) -> None:
        now, name = self.now, self._phase.name
        where = f"on validation after epoch {now.epoch}"
        if self._bad_step:
            steps = self._trainable.steps_per_epoch
            where = f"at step {self._bad_step} of {steps} of epoch {now.epoch}"
        message = f"Phase '{name}': the loss became infinite or NaN {where}"
        advice = f"A learning rate lower than {self._phase.learning_rate:g} may help."
        if (now.epoch, self._bad_step) == (1, 1):  # no step was taken before
            advice = "The weights that it begins with are damaged, or do not belong to this net."
        if not math.isfinite(now.best_loss):
            raise PhaseFailed(f"{message}, so there is nothing to keep. {advice}")
        kept = f"epoch {now.best_epoch}" if now.best_epoch else "the solved head"
        log.warning("%s; the phase ends with %s. %s", message, kept, advice)

    def _report(self, line: dict, images_per_second: float, best: bool) -> None:
        figures = {
            **{name: line[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")},
            "learning_rate": max(line["learning_rates"].values()),
            "images_per_second": images_per_second,
            "best": best,
        }
        event = Event("epoch", self.now.epoch, self._phase.epochs, self._phase.name, figures)
        self._context.progress(event)


class _Watcher(keras.callbacks.Callback):
    """A callback that reports progress within an epoch, at most five times a second."""

    def __init__(
        self, context: RunContext, phase: Phase, steps: int, part: Part, at_once: int
    ) -> None:
        super().__init__()
        self._at_once = at_once  # number of steps in what `fit` takes for a batch
        self._progress, self._phase, self._steps = context.progress, phase, steps
        self._part, self._first = part, steps * phase.epochs - part.total
        # Scoring an image takes a third of a training step: the forward half, no update.
        train, validation = (len(context.source.indices(s)) for s in ("train", "validation"))
        self._with_scoring = 1 + validation / (3 * train)
        self._epoch = 0
        self._began = self._told = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        now = time.perf_counter()
        steps = self._at_once * (batch + 1)
        done = self._steps * self._epoch + steps - self._first
        self._part.step(done, factor=self._with_scoring)
        if now - self._told < 0.2 or not logs:
            return
        self._told = now
        per_step = (now - self._began) / steps
        left = self._steps * (self._phase.epochs - self._epoch) - steps
        figures = {
            "epoch": self._epoch + 1,
            "epochs": self._phase.epochs,
            "loss": float(logs["loss"]),
            "accuracy": float(logs["accuracy"]),
            "images_per_second": self._phase.batch_size / per_step,
            "seconds_left": per_step * left,
        }
        event = Event("batch", steps, self._steps, self._phase.name, figures)
        self._progress(event)
