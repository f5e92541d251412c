"""The learning-rate finder: a phase is tried at rates that rise from step to step.

It suggests a rate and draws a plot; the run itself does not change. Source: Smith, Cyclical
Learning Rates for Training Neural Networks, 2017, section 3.3 ("LR range test").

A batch of 32 photos is easy or hard by chance, which hides the small changes of a net that is
already trained. The finder therefore looks at the change of the loss: the loss of a batch minus
the loss that the untouched weights give for the same batch.

Shapes: T steps.
"""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft import plots
from kerasft.activations.context import RunContext
from kerasft.activations.prefix_pass import activations_at
from kerasft.config.fields import Phase
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.models.live import set_precision
from kerasft.models.net import Net
from kerasft.progress import Event, Progress, silent
from kerasft.run import Run, lock, open_run, read_record
from kerasft.seeds import derive_seed
from kerasft.training.feed import Epochs
from kerasft.training.plan import for_device, of_older_version, settle
from kerasft.training.reopen import config_of, next_phase, open_photos, prepare_again
from kerasft.training.start import initial_net
from kerasft.training.trainable import open_trainable, trained

LOWEST, HIGHEST = 1e-7, 1.0
FELL = 0.02  # share of the first loss: a smaller decrease counts as noise
TOO_FAR = 1.0  # share of the first loss: a smoothed increase over it ends the search


@dataclass(frozen=True, eq=False)
class RateSearch:
    """Result of the learning-rate finder: the suggested rate, and the curve behind it.

    Attributes:
        run: the run directory.
        phase: name of the phase that was tried.
        blocks: number of blocks that the phase trains below the head, or "all".
        from_start: whether the run's first phase was tried, from its initial weights.
        suggested: the suggested learning rate; None where the loss did not fall.
        rates: learning rates, float64 [T].
        losses: losses of the batches, float64 [T].
        changes: losses minus those of the untouched weights, shifted to 0 at the lowest rates,
            float64 [T].
        smoothed: smoothed changes, float64 [T].
        plot: path of the plot.
        csv: path of the table.
    """

    run: Path
    phase: str
    blocks: int | str
    from_start: bool
    suggested: float | None
    rates: np.ndarray
    losses: np.ndarray
    changes: np.ndarray
    smoothed: np.ndarray
    plot: Path
    csv: Path

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON result of `kerasft find-lr`."""
        curves = ("rates", "losses", "changes", "smoothed")
        return {
            "run": str(self.run),
            "phase": self.phase,
            "blocks": self.blocks,
            "from_start": self.from_start,
            "steps": len(self.rates),
            "suggested": self.suggested,
            **{name: getattr(self, name).tolist() for name in curves},
            "plot": str(self.plot),
            "csv": str(self.csv),
        }


def find_rate(
    run_dir: Path,
    *,
    flags: Mapping[str, object] | None = None,
    sets: Sequence[str] = (),
    data: str | Path | None = None,
    from_start: bool = False,
    steps: int = 100,
    progress: Progress = silent,
) -> RateSearch:
    """Suggests the learning rate of a phase, from steps at rates from 1e-7 to 1.

    Args:
        run_dir: directory of a finished run. It gets `find-lr.png` and `find-lr.csv`; nothing
            else in it changes.
        flags, sets: fields of the phase that `train.continue_run` would append, `phases.-1`; with
            `from_start` those of the run's first phase, `phases.0`.
        data: the place of the photos now, if they were moved.
        from_start: whether the run's first phase is tried, from its initial weights.
        steps: number of steps, at least 20; a loss that rises too far ends the search earlier.
        progress: the callback that receives an event per step, stage "check".

    Raises:
        UserError: the run or the phase is refused as by `train.continue_run`; there are too few
            steps (exit code 2).
    """
    if steps < 20:
        raise UserError(f"expected 20 or more, got {steps}.", field="steps", exit_code=2)
    run = open_run(run_dir)
    with lock(run):
        if from_start:
            context, net = _first_phase(run, flags or {}, sets, data, progress)
        else:
            context, net = next_phase(
                run, flags=flags or {}, sets=sets, data=data, progress=progress
            )
        index = 0 if from_start else len(context.config.phases) - 1
        rates, losses, before = _range_test(context, index, net, steps)
        changes = losses - before
        changes -= _shift(changes, max(1, len(changes) // 5))
        smoothed = _smoothed(changes)
        suggested = suggest(rates, smoothed, first=float(before.mean()))
        phase = trained(context.config.phases[index])
        plot, table = run.path / "find-lr.png", run.path / "find-lr.csv"
        plots.save_rates(plot, rates, changes, smoothed, suggested, title=_title(phase))
        _write_table(table, rates, losses, changes, smoothed)
    return RateSearch(
        run=run.path,
        phase=phase.name,
        blocks=context.plan.phases[index].blocks,
        from_start=from_start,
        suggested=suggested,
        rates=rates,
        losses=losses,
        changes=changes,
        smoothed=smoothed,
        plot=plot,
        csv=table,
    )


def _first_phase(
    run: Run,
    flags: Mapping[str, object],
    sets: Sequence[str],
    data: str | Path | None,
    progress: Progress,
) -> tuple[RunContext, Net]:
    asked = of_older_version(load_config(run.config_path, flags=flags, sets=sets))
    first, where = _open(trained(asked.phases[0])), config_of(run, data).data
    config = asked.model_copy(update={"phases": (first,), "data": where})
    device = prepare_again(config, read_record(run))
    config = for_device(config, device)
    found = open_photos(run, config.data, progress)
    net = initial_net(config, len(found.class_names))
    plan = settle(config, found, net, device)
    return RunContext(run, plan, found, progress, device), net


def _open(phase: Phase) -> Phase:
    """Leaves open what depends on the cut, which options may have moved: stores, a solved head."""
    start = "auto" if phase.head_start == "solved" else phase.head_start
    return phase.model_copy(update={"stored": None, "head_start": start})


def _range_test(
    context: RunContext, index: int, net: Net, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rates, the losses, and the losses of the untouched weights, float64 [T] each.

    T is smaller than `steps` if the loss rose too far earlier.
    """
    n = len(context.source.indices("train"))
    trainable = open_trainable(context.plan, index, net, n, rate_of=_Rising(steps))
    stored = activations_at(context, index, net, trainable.cut) if trainable.stored else None
    set_precision(net.model, trainable.phase.precision)  # this model is thrown away
    live = trainable.model
    epochs = range(math.ceil(steps / trainable.steps_per_epoch))
    seed = derive_seed(context.config.seed, "find-lr")

    def feed() -> Iterable:
        every = Epochs(context, seed, n, epochs)
        return itertools.islice(trainable.feed(context, every, stored), steps)

    before = []
    for done, batch in enumerate(feed(), start=1):
        before.append(_loss(live.test_on_batch(*batch)))
        live.reset_metrics()
        context.progress(Event("check", done, 2 * steps, figures={"what": "rates"}))
    first, mean, losses = float(np.mean(before)), 0.0, []
    changes: list[float] = []
    for done, batch in enumerate(feed(), start=1):
        losses.append(_loss(live.train_on_batch(*batch)))
        live.reset_metrics()
        context.progress(Event("check", steps + done, 2 * steps, figures={"what": "rates"}))
        changes.append(losses[-1] - before[done - 1])
        shift = _shift(changes, steps // 5)
        mean = 0.8 * mean + 0.2 * (changes[-1] - shift)
        if not mean < TOO_FAR * (first + max(0.0, shift)):  # true for NaN too
            break
    finite = [loss for loss in losses if math.isfinite(loss)]
    t = len(finite)
    return _rates(steps)[:t], np.array(finite), np.array(before[:t])


def _shift(changes: Sequence[float] | np.ndarray, first: int) -> float:
    """Returns what all changes of the loss have in common, from the first, at the lowest rates.

    Dropout is off where the untouched weights are measured, which shifts all changes alike.
    """
    return float(np.median(changes[:first]))


class _Rising:
    """The schedule of a group of layers: its factor times `_rates`."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __call__(self, factor: float) -> keras.optimizers.schedules.LearningRateSchedule:
        return keras.optimizers.schedules.ExponentialDecay(
            LOWEST * factor, self._steps - 1, HIGHEST / LOWEST
        )


def _rates(steps: int) -> np.ndarray:
    return np.geomspace(LOWEST, HIGHEST, steps)


def _loss(result: Any) -> float:
    return float(np.ravel(result)[0])


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Returns means over neighbours, weighted by a Hann window a fifth of all steps wide."""
    width = min(len(values), max(3, len(values) // 5) | 1)
    window = np.hanning(width + 2)[1:-1]
    known = np.convolve(np.ones(len(values)), window, "same")
    return np.convolve(values, window, "same") / known


def suggest(rates: np.ndarray, smoothed: np.ndarray, *, first: float) -> float | None:
    """Returns the rate at which the loss falls fastest, before its lowest point.

    The slope is taken over the logarithm of the rate.

    Args:
        rates: learning rates with a constant ratio, [T].
        smoothed: smoothed changes of the loss, [T].
        first: loss of the untouched weights.

    Returns:
        A rate with two digits; None if the loss falls by less than a fiftieth of `first`.
    """
    lowest = int(np.argmin(smoothed))
    if lowest == 0 or smoothed[0] - smoothed[lowest] < FELL * first:
        return None
    steepest = int(np.argmin(np.gradient(smoothed)[: lowest + 1]))
    return float(f"{rates[steepest]:.1e}")


def _title(phase: Phase) -> str:
    return f"Phase {phase.name}, {phase.blocks} blocks, batches of {phase.batch_size}"


def _write_table(path: Path, *columns: np.ndarray) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["learning_rate", "loss", "change", "smoothed_change"])
    writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    write_atomic(path, text.getvalue())
