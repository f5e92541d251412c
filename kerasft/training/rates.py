"""Learning rates: the optimizer of a phase, with a rate for each group of layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerasft.config.fields import Phase
from kerasft.models.cut import Cut


@dataclass(frozen=True)
class Group:
    """Layers of a suffix that learn at the same rate.

    Attributes:
        name: name of the group: "head", "backbone", a block's name, or "all".
        factor: factor by which the phase's learning rate is multiplied.
        layers: names of the group's layers.
    """

    name: str
    factor: float
    layers: frozenset[str]


def rate_groups(phase: Phase, cut: Cut) -> list[Group]:
    """Divides a suffix's layers by their learning rate.

    The head learns at `head_learning_rate_multiplier` times the phase's rate (Caffe's recipe
    "fine-tuning for style recognition": a larger rate for the new layer), the n-th block from
    the top at `layer_decay ** n` times (ELECTRA, Clark et al. 2020, appendix A).

    Args:
        phase: the phase's settings.
        cut: the phase's cut.

    Returns:
        The head's group, then the others from the top; one group if all factors are equal.
    """
    blocks = [(b.name, phase.layer_decay**n, b.layers) for n, b in enumerate(cut.blocks, start=1)]
    inside = {layer for _, _, layers in blocks for layer in layers}
    head = frozenset(layer.name for layer in cut.suffix.layers) - inside
    groups = [Group("head", phase.head_learning_rate_multiplier, head)]
    if phase.layer_decay != 1:
        groups += [Group(name, factor, frozenset(layers)) for name, factor, layers in blocks]
    elif blocks:
        groups.append(Group("backbone", 1.0, frozenset(inside)))
    if len({group.factor for group in groups}) == 1:
        return [Group("all", groups[0].factor, head | inside)]
    return groups


def schedule(phase: Phase, factor: float, steps_per_epoch: int) -> float | Callable:
    """Returns a group's learning rate: a number, or a Keras schedule of the step.

    During warm-up the rate rises from 0 over `phase.warmup` epochs; with "cosine" it then falls
    to 0 at the end of the phase's last epoch (Loshchilov and Hutter 2017, without restarts).

    Args:
        phase: the phase's settings.
        factor: the group's factor.
        steps_per_epoch: number of batches in an epoch.
    """
    rate = phase.learning_rate * factor
    if phase.schedule == "constant" and not phase.warmup:
        return rate
    warmup = round(phase.warmup * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, phase.epochs * steps_per_epoch - warmup),
        alpha=1.0 if phase.schedule == "constant" else 0.0,  # 1: no decay, warm-up only
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


def build_optimizer(
    phase: Phase,
    groups: Sequence[Group],
    suffix: keras.Model,
    steps_per_epoch: int,
    rate_of: Callable[[float], Any] | None = None,
) -> keras.optimizers.Optimizer:
    """Builds a phase's optimizer, and its slots for the suffix's trainable variables.

    With one group it is a stock optimizer, with several a `keras.optimizers.MultiOptimizer`
    over stock optimizers. For "mixed_float16" a `LossScaleOptimizer` is put around it, without
    which small gradients would be 0.

    Args:
        phase: the phase's settings: optimizer, rate, schedule.
        groups: the groups of layers, from `rate_groups`.
        suffix: the suffix, after `cut.freeze`.
        steps_per_epoch: number of batches in an epoch.
        rate_of: the function from a group's factor to its schedule; None takes `schedule`.
    """
    rate_of = rate_of or (lambda factor: schedule(phase, factor, steps_per_epoch))
    # Weight decay pulls weights to 0, which makes no sense for a bias or the scale of a norm. They
    # are told by shape, since names do not help: ConvNeXt's LayerScale calls its scale "variable".
    spared = [variable for variable in suffix.trainable_variables if len(variable.shape) < 2]
    one_each = [_stock(phase, rate_of(group.factor), spared) for group in groups]
    optimizer = one_each[0]
    if len(groups) > 1:
        of_path = {
            variable.path: one
            for group, one in zip(groups, one_each, strict=True)
            for layer in suffix.layers
            if layer.name in group.layers
            for variable in layer.trainable_variables
        }
        optimizer = keras.optimizers.MultiOptimizer(lambda variable: of_path[variable.path])
    if phase.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(suffix.trainable_variables)
    return optimizer


def ema_momentum(phase: Phase) -> float:
    """Returns the share that the moving average keeps at each batch.

    Keras updates the average after every batch (3.15, `_backend_apply_gradients`), so the shares
    of a step's batches are chosen to multiply to the phase's decay per step.
    """
    return float(phase.ema ** (1 / phase.accumulate))


def batches_seen(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns how many batches an optimizer of `build_optimizer` has seen, as schedules count.

    Not `iterations`, which is divided by the batches of a step when gradients are accumulated,
    except for a MultiOptimizer (Keras 3.15). Batches that a LossScaleOptimizer skipped because
    their gradients overflowed are not counted.
    """
    return int(getattr(optimizer, "inner_optimizer", optimizer)._iterations)


def apply_rest(optimizer: keras.optimizers.Optimizer) -> int:
    """Takes a step with the mean of the gradients that wait for one, if there are any.

    It is the step that would have been taken at the last batch, had `accumulate` been smaller: at
    that batch's learning rate, and that batch's share of the running mean is of the new weights.

    Args:
        optimizer: an optimizer of `build_optimizer`; its counters stay as they are.

    Returns:
        The number of batches whose gradients were waiting.

    Source: `_backend_apply_gradients` of Keras 3.15, whose parts are called here; it takes steps
        itself only where the number of the batch is a multiple of `accumulate`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rest = 0
    for one in getattr(inner, "optimizers", [inner]):
        if one.built and one.gradient_accumulation_steps:
            rest = int(one._iterations) % one.gradient_accumulation_steps
            if rest:
                _step_with_mean(one, rest)
    return rest


def _step_with_mean(optimizer: keras.optimizers.Optimizer, batches: int) -> None:
    variables = optimizer._trainable_variables
    before = [keras.ops.copy(variable) for variable in variables]
    seen = int(optimizer._iterations)
    optimizer._iterations.assign(seen - 1)  # the rate and Adam's correction are the last batch's
    means = [total / batches for total in optimizer._accumulated_gradients]
    optimizer._apply_weight_decay(variables)
    optimizer._backend_update_step(means, variables, optimizer.learning_rate)
    optimizer._backend_reset_gradient_accumulators()
    if optimizer.use_ema:
        # The mean has counted the weights before the step at the last batch; 0 before any step.
        momentum = optimizer.ema_momentum if int(optimizer.iterations) else 0.0
        averages = optimizer._model_variables_moving_average
        for average, old, new in zip(averages, before, variables, strict=True):
            average.assign(average + (1 - momentum) * (new - old))
    optimizer._iterations.assign(seen)


def rates_at(
    phase: Phase, groups: Sequence[Group], steps_per_epoch: int, step: int
) -> dict[str, float]:
    """Returns each group's learning rate at one batch, for metrics.jsonl.

    It is computed from the schedule, since a MultiOptimizer's rate cannot be read.

    Args:
        phase: the phase's settings.
        groups: the groups of layers, from `rate_groups`.
        steps_per_epoch: number of batches in an epoch.
        step: number of the batch in the phase, from 0.
    """
    rates = {}
    for group in groups:
        rate = schedule(phase, group.factor, steps_per_epoch)
        rates[group.name] = float(rate(step) if callable(rate) else rate)
    return rates


def _stock(phase: Phase, rate: float | Callable, spared: list) -> keras.optimizers.Optimizer:
    common: dict[str, Any] = {"learning_rate": rate}
    if phase.accumulate > 1:
        common["gradient_accumulation_steps"] = phase.accumulate
    if phase.ema:
        common |= {"use_ema": True, "ema_momentum": ema_momentum(phase)}
    if phase.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=phase.momentum, **common)
    if phase.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(weight_decay=phase.weight_decay, **common)
        optimizer.exclude_from_weight_decay(var_list=spared)
        return optimizer
    return keras.optimizers.Adam(**common)
