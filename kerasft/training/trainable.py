"""A phase set up for training: its cut, frozen layers, optimizer, compiled model and batches.

    net --cut, freeze--> prefix | suffix --groups, optimizer--> compiled model

`open_trainable` is the one place where a phase is set up: for `fit`, for the learning-rate finder
and for a dry run. Optimizer and compiled model are made when they are first needed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from kerasft.activations.context import RunContext
from kerasft.activations.store import Stored
from kerasft.config.fields import AnyPhase, Config, Phase, Solved
from kerasft.config.settled import Plan
from kerasft.data.batches import Epoch
from kerasft.errors import OutOfMemory, UserError, is_out_of_memory
from kerasft.heads.co_tuning import CoTuning
from kerasft.models.cut import Cut, freeze
from kerasft.models.live import Anchor, LiveModel, NormMean, set_precision
from kerasft.models.net import Net
from kerasft.training.feed import class_weights, training_feed
from kerasft.training.rates import Group, build_optimizer, ema_momentum, rate_groups


@dataclass(frozen=True, eq=False)
class Trainable:
    """A phase set up for training.

    Attributes:
        phase: the phase's settings.
        stored: whether the phase trains on stored activations.
        cut: prefix and suffix, with everything frozen that the phase does not train.
        learning_norms: names of the BatchNormalization layers that learn, in the graph's order.
        parameters: number of parameters that the phase trains.
        groups: groups of the suffix's layers, each with its learning rate.
        steps_per_epoch: number of batches in an epoch.
        rate_of: the function from a group's factor to its schedule; None takes `rates.schedule`.
        anchor: the start that weights decay towards; None if they do not.
        co_tuning: the pretrained classifier that is trained with; None if none is.
    """

    phase: Phase
    stored: bool
    cut: Cut
    learning_norms: tuple[str, ...]
    parameters: int
    groups: tuple[Group, ...]
    steps_per_epoch: int
    rate_of: Callable[[float], Any] | None = None
    anchor: Anchor | None = None
    co_tuning: CoTuning | None = None

    @cached_property
    def optimizer(self) -> keras.optimizers.Optimizer:
        """The phase's optimizer, built for the suffix's trainable variables."""
        return build_optimizer(
            self.phase, self.groups, self.cut.suffix, self.steps_per_epoch, self.rate_of
        )

    @cached_property
    def model(self) -> LiveModel:
        """The compiled model for `fit`: the suffix for stored activations, else both halves."""
        prefix = None if self.stored else self.cut.prefix
        return self._compile(
            LiveModel(prefix, self.cut.suffix, self.norm_mean, self.anchor, self.co_tuning)
        )

    @cached_property
    def scorer(self) -> LiveModel:
        """A second model of the same weights, which scores in float32 where steps are not in it."""
        return LiveModel(self.model.prefix, self.cut.suffix)

    @cached_property
    def norm_mean(self) -> NormMean | None:
        """The running mean of the statistics that learn; None if the weights get no mean either."""
        if not (self.phase.ema and self.learning_norms):
            return None
        return NormMean(
            self.cut.suffix,
            self.learning_norms,
            momentum=ema_momentum(self.phase),
            first=self.phase.accumulate,
        )

    def _compile(self, model: LiveModel) -> LiveModel:
        model.compile(
            optimizer=self.optimizer,
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=self.phase.label_smoothing
            ),
            metrics=["accuracy"],
        )
        return model

    def fitting(
        self, context: RunContext, epochs: Sequence[Epoch], stored: Stored | None
    ) -> tuple[LiveModel, Iterable, int]:
        """Returns what `fit` needs: the model, what it is fed, and the steps in what it is fed.

        On a GPU with JAX whose memory holds the stores, that is a model that takes whole epochs
        (`activations/whole_epochs.py`); else the model and its batches, of one step each.
        """
        if stored and keras.backend.backend() == "jax":
            from kerasft.activations import compiled, whole_epochs

            size = sum(view.nbytes for view in stored.train)
            if whole_epochs.fit_on_device(size, compiled.memory()):
                labels, classes = context.labels("train"), len(context.source.class_names)
                whole = whole_epochs.WholeEpochs(
                    self.cut.suffix,
                    stored.train,
                    labels,
                    num_classes=classes,
                    batch_size=self.phase.batch_size,
                    sample_weights=class_weights(self.phase, labels, classes),
                    norm_mean=self.norm_mean,
                    anchor=self.anchor,
                    co_tuning=self.co_tuning,
                )
                self._compile(whole)
                return whole, whole.orders(epochs), self.steps_per_epoch
        return self.model, self.feed(context, epochs, stored), 1

    def feed(self, context: RunContext, epochs: Sequence[Epoch], stored: Stored | None) -> Iterable:
        """Returns the batches of some epochs; see `feed.training_feed`."""
        return training_feed(context, self.phase, epochs, stored)


def open_trainable(
    plan: Plan,
    index: int,
    net: Net,
    images: int,
    *,
    rate_of: Callable[[float], Any] | None = None,
) -> Trainable:
    """Sets up a phase: cuts the net, freezes what the phase does not train, groups the rest.

    Args:
        plan: the settled config.
        index: position of the phase in the run, from 0.
        net: the net that the phase begins with; the `trainable` flags of its layers are set.
        images: number of training images.
        rate_of: the function from a group's factor to its schedule; None takes `rates.schedule`.

    Raises:
        UserError: the phase is solved, not trained (exit code 2).
    """
    planned = plan.phases[index]
    phase = trained(planned.settings)
    cut = net.cut(planned.blocks)
    learning_norms = freeze(cut, phase.batch_norm)
    of_base = {layer for block in cut.blocks for layer in block.layers}
    anchor = Anchor(cut.suffix, of_base, phase.l2_sp) if phase.l2_sp else None
    return Trainable(
        phase=phase,
        stored=planned.stored,
        cut=cut,
        learning_norms=tuple(learning_norms),
        # Counted now: setting up another phase changes the flags of the shared layers.
        parameters=int(sum(np.prod(v.shape) for v in cut.suffix.trainable_variables)),
        groups=tuple(rate_groups(phase, cut)),
        steps_per_epoch=math.ceil(images / phase.batch_size),
        rate_of=rate_of,
        anchor=anchor,
    )


def steps_on_a_copy(phase: Phase, cut: Cut, *, stored: bool) -> Callable[[str], Callable[[], Any]]:
    """Returns a function that sets up training steps to be timed; the phase itself is not touched.

    It takes a precision, a value of `phases.N.precision`, and returns a function that takes a step
    with the next weights of a copy: a whole step of the phase on a batch of made numbers.

    Args:
        phase: the phase's settings.
        cut: the phase's cut; each call copies its layers and weights.
        stored: whether the phase trains on stored activations.
    """

    def set_up(precision: str) -> Callable[[], Any]:
        prefix = None if stored or cut.prefix is None else _copy(cut.prefix, precision)
        copy = Cut(prefix, _copy(cut.suffix, precision), cut.blocks, ())
        trainable = Trainable(
            phase=phase.model_copy(update={"precision": precision}),
            stored=stored,
            cut=copy,
            learning_norms=tuple(freeze(copy, phase.batch_norm)),
            parameters=0,
            groups=tuple(rate_groups(phase, copy)),
            steps_per_epoch=1,
        )
        below = copy.suffix if prefix is None else prefix
        classes, size = copy.suffix.output_shape[-1], phase.batch_size
        x = np.random.default_rng(0).random((size, *below.input_shape[1:]), "float32")
        y = np.eye(classes, dtype="float32")[np.arange(size) % classes]
        return lambda: trainable.model.train_on_batch(x, y)

    return set_up


@contextmanager
def steps_in_memory(
    config: Config, phase: Phase, *, begun: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Explains lack of memory in the steps of a phase.

    Args:
        config: the config of the run.
        phase: the phase.
        begun: the function that returns whether an epoch of the phase is finished, so that its
            batch size can no longer change.

    Raises:
        OutOfMemory: a step, or an allocation around it, does not fit the memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        index = [one.name for one in config.phases].index(phase.name)
        key, half = f"phases.{index}.batch_size", phase.batch_size // 2
        advice, sets = "Free some memory.", []
        if half and not begun():
            advice, sets = f"Try half of them, `{key}={half}`.", [f"{key}={half}"]
        raise OutOfMemory(
            f"Phase '{phase.name}': out of memory in a training step of {phase.batch_size} images, "
            f"`{key}={phase.batch_size}`. {advice}",
            sets=tuple(sets),
        ) from error


def _copy(half: keras.Model, precision: str) -> keras.Model:
    copy = keras.models.clone_model(half)
    copy.set_weights(half.get_weights())
    set_precision(copy, precision)
    return copy


def trained(phase: AnyPhase) -> Phase:
    """Returns the phase if it is trained; refuses one whose head is solved (exit code 2)."""
    if isinstance(phase, Solved):
        raise UserError(
            f"Phase '{phase.name}' is solved by '{phase.method}': it takes no steps, so it has no "
            "learning rate.",
            exit_code=2,
        )
    return phase
