import keras
import numpy as np
import pytest
from tiny import TINY, batch, tiny_model, weights_by_name

from kerasft.config.fields import Phase
from kerasft.models.cut import freeze, split
from kerasft.models.live import LiveModel, NormMean
from kerasft.training.rates import (
    apply_rest,
    batches_seen,
    build_optimizer,
    rate_groups,
    rates_at,
    schedule,
)


def a_phase(**fields):
    return Phase(**{"name": "p", "blocks": 2, "epochs": 4, "learning_rate": 0.1} | fields)


def a_cut(blocks=2):
    cut = split(tiny_model(), blocks, TINY)
    freeze(cut, "frozen")
    return cut


def test_one_rate_for_all_is_one_group_and_a_stock_optimizer():
    cut = a_cut()
    groups = rate_groups(a_phase(), cut)
    assert [(g.name, g.factor) for g in groups] == [("all", 1.0)]
    assert type(build_optimizer(a_phase(), groups, cut.suffix, 5)) is keras.optimizers.Adam


def test_the_head_can_learn_at_a_larger_rate_than_the_blocks():
    phase = a_phase(head_learning_rate_multiplier=10)
    groups = rate_groups(phase, a_cut())
    assert rates_at(phase, groups, 5, 0) == {"head": 1.0, "backbone": 0.1}


def test_the_rate_decays_by_block_from_the_top():
    phase = a_phase(layer_decay=0.5)
    groups = rate_groups(phase, a_cut())
    assert rates_at(phase, groups, 5, 0) == {"head": 0.1, "block_2": 0.05, "block_1": 0.025}


def step(phase, cut):
    """One step; returns by how much each kernel moved, in units of its gradient."""
    live = LiveModel(cut.prefix, cut.suffix)
    groups = rate_groups(phase, cut)
    live.compile(
        build_optimizer(phase, groups, cut.suffix, 5), keras.losses.CategoricalCrossentropy(True)
    )
    before = weights_by_name(cut.suffix)
    pixels, labels = batch()
    live.fit(pixels, labels, batch_size=16, verbose=0)
    after = weights_by_name(cut.suffix)
    return {path: after[path] - before[path] for path in before if path.endswith("kernel")}


def test_a_step_of_each_group_is_its_rate_times_the_same_gradient():
    plain = step(a_phase(optimizer="sgd", momentum=0.0), a_cut())
    both = {"head_learning_rate_multiplier": 10, "layer_decay": 0.5}
    grouped = step(a_phase(optimizer="sgd", momentum=0.0, **both), a_cut())
    for path, factor in {"logits": 10, "block_2_a_conv": 0.5, "block_1_a_conv": 0.25}.items():
        expected = factor * plain[f"{path}/kernel"]
        np.testing.assert_allclose(grouped[f"{path}/kernel"], expected, rtol=1e-3, atol=1e-7)


def test_warm_up_rises_to_the_rate_and_cosine_falls_to_zero():
    phase = a_phase(schedule="cosine", warmup=1.0)
    groups = rate_groups(phase, a_cut())
    rates = [rates_at(phase, groups, 10, step)["all"] for step in (0, 5, 10, 25, 40)]
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.05, 0.0], atol=1e-8)


def test_a_constant_rate_can_warm_up():
    phase = a_phase(warmup=1.0)
    groups = rate_groups(phase, a_cut())
    rates = [rates_at(phase, groups, 10, step)["all"] for step in (0, 5, 10, 39)]
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.1], atol=1e-8)


def test_weight_decay_leaves_biases_alone():
    phase = a_phase(optimizer="adamw", weight_decay=0.5)
    cut = a_cut(0)
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 5)
    kernel, bias = cut.suffix.trainable_variables
    kernel.assign(np.ones(kernel.shape))
    bias.assign(np.ones(bias.shape))
    optimizer.apply([np.zeros(kernel.shape, "float32"), np.zeros(bias.shape, "float32")])
    np.testing.assert_allclose(kernel, np.full(kernel.shape, 0.95), rtol=1e-6)  # 1 - 0.1 * 0.5
    np.testing.assert_array_equal(bias, np.ones(bias.shape))


@pytest.mark.parametrize("fields", [{}, {"head_learning_rate_multiplier": 10}])
def test_float16_trains_with_a_scaled_loss(fields):
    phase = a_phase(optimizer="sgd", precision="mixed_float16", **fields)
    cut = a_cut()
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 5)
    assert type(optimizer) is keras.optimizers.LossScaleOptimizer
    moved = step(phase, a_cut())
    assert all(np.isfinite(m).all() and np.abs(m).max() > 0 for m in moved.values())


def test_a_new_phase_begins_schedule_and_slots_anew():  # fact 6: decided, not an accident
    phase = a_phase(schedule="cosine")
    cut = a_cut(0)
    groups = rate_groups(phase, cut)
    first = build_optimizer(phase, groups, cut.suffix, 5)
    first.apply([np.ones(v.shape, "float32") for v in cut.suffix.trainable_variables])
    assert int(first.iterations) == 1
    second = build_optimizer(phase, groups, cut.suffix, 5)
    assert int(second.iterations) == 0
    slots = [v for v in second.variables if "momentum" in v.path or "velocity" in v.path]
    assert len(slots) == 4
    assert all(np.abs(v.numpy()).max() == 0 for v in slots)


def weights_after(phase, batch_size, *, epochs=1):
    cut = a_cut()
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 4)
    live = LiveModel(cut.prefix, cut.suffix)
    live.compile(optimizer, keras.losses.CategoricalCrossentropy(True))
    pixels, labels = batch(16)
    live.fit(pixels, labels, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return weights_by_name(cut.suffix), optimizer, cut


@pytest.mark.parametrize(
    ("optimizer", "layer_decay"),
    [
        ("sgd", 1.0),
        ("adamw", 0.5),
        *(
            pytest.param(optimizer, decay, marks=pytest.mark.slow)
            for optimizer, decay in (("sgd", 0.5), ("adam", 1.0), ("adam", 0.5), ("adamw", 1.0))
        ),
    ],
)
def test_two_accumulated_batches_are_one_of_twice_the_size(optimizer, layer_decay):
    fields = {"optimizer": optimizer, "layer_decay": layer_decay, "learning_rate": 0.01}
    halves, _, _ = weights_after(a_phase(accumulate=2, **fields), 4)
    whole, _, _ = weights_after(a_phase(**fields), 8)
    for path in whole:
        # Adam divides by the gradient's size: where it is 1e-7, the order of a sum shows.
        np.testing.assert_allclose(halves[path], whole[path], atol=2e-5, err_msg=path)


@pytest.mark.parametrize("fields", [{}, {"layer_decay": 0.5}, {"precision": "mixed_float16"}])
def test_schedules_count_batches_whatever_a_step_is_made_of(fields):
    phase = a_phase(accumulate=4, **fields)
    _, optimizer, _ = weights_after(phase, 4, epochs=3)
    assert batches_seen(optimizer) == 12  # four in an epoch


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_running_mean_keeps_its_share_at_each_step(accumulate, layer_decay):
    """By hand: m = w1, then m = 0.75 m + 0.25 w for each step after the first."""
    phase = a_phase(ema=0.75, accumulate=accumulate, layer_decay=layer_decay, optimizer="sgd")
    cut = a_cut()
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 4)
    live = LiveModel(cut.prefix, cut.suffix)
    live.compile(optimizer, keras.losses.CategoricalCrossentropy(True))
    pixels, labels = batch(16)
    seen = []
    for start in range(0, 16, 4):
        live.train_on_batch(pixels[start : start + 4], labels[start : start + 4])
        seen.append(weights_by_name(cut.suffix))
    share = 0.75 ** (1 / accumulate)  # Keras updates with every batch
    first = accumulate - 1  # until the first step there is nothing to average
    mean = seen[first - 1 if first else 0]
    for i, now in enumerate(seen):
        keep = 0.0 if i < accumulate else share
        mean = {path: keep * mean[path] + (1 - keep) * now[path] for path in now}
    optimizer.finalize_variable_values(cut.suffix.trainable_variables)
    kept = weights_by_name(cut.suffix)
    trained = [v.path for v in cut.suffix.trainable_variables]
    assert any(np.abs(kept[path] - seen[-1][path]).max() > 1e-4 for path in trained)
    for path in trained:
        np.testing.assert_allclose(kept[path], mean[path], atol=1e-6, err_msg=path)


def values_of(variable):
    return np.array(keras.ops.convert_to_numpy(variable))


def apply(optimizer, gradients, variables):
    """Applies gradients as `fit` does: without state on JAX."""
    if keras.backend.backend() != "jax":
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
        return
    slots = optimizer.variables
    state = [[v.value for v in many] for many in (slots, variables)]
    after, slots_after = optimizer.stateless_apply(state[0], gradients, state[1])
    for variable, value in zip([*variables, *slots], [*after, *slots_after], strict=True):
        variable.assign(value)


class AtBatches(keras.optimizers.schedules.LearningRateSchedule):
    """The rates of a phase at some of its batches: one for each step."""

    def __init__(self, phase, factor, batches):
        whole = schedule(phase, factor, 4)
        self.rates = [float(whole(batch)) for batch in batches]

    def __call__(self, step):
        return keras.ops.take(np.array(self.rates, "float32"), keras.ops.cast(step, "int32"))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_rest_is_a_step_with_the_mean_of_its_batches(optimizer, layer_decay, precision):
    """By hand: 5 batches in steps of 3 are steps of 3 and of 2, at the rates of batches 2 and 4."""
    phase = a_phase(
        optimizer=optimizer,
        layer_decay=layer_decay,
        precision=precision,
        schedule="cosine",
        epochs=2,
        ema=0.5,
        accumulate=3,
    )
    cut, by_hand = a_cut(), a_cut()
    by_hand.suffix.set_weights(cut.suffix.get_weights())
    groups = rate_groups(phase, cut)
    waiting = build_optimizer(phase, groups, cut.suffix, 4)
    steps = build_optimizer(
        phase.model_copy(update={"accumulate": 1, "ema": 0.0}),
        groups,
        by_hand.suffix,
        4,
        lambda factor: AtBatches(phase, factor, (2, 4)),
    )
    trained, expected = (c.suffix.trainable_variables for c in (cut, by_hand))
    draw = np.random.default_rng(0).normal
    batches = [[draw(size=v.shape).astype("float32") for v in trained] for _ in range(5)]
    scale = 2.0**15 if precision == "mixed_float16" else 1.0  # Keras' first loss scale
    for gradients in batches:
        apply(waiting, [scale * g for g in gradients], trained)
    seen = [values_of(v) for v in trained]
    assert apply_rest(waiting) == 2
    apply(steps, [scale * sum(g) / 3 for g in zip(*batches[:3], strict=True)], expected)
    for mine, its in zip(seen, expected, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6)  # without the rest, Keras stops here
    apply(steps, [scale * sum(g) / 2 for g in zip(*batches[3:], strict=True)], expected)
    for mine, its, old in zip(trained, expected, seen, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6, err_msg=mine.path)
        assert np.abs(values_of(mine) - old).max() > 1e-4
    assert batches_seen(waiting) == 5

    share = 0.5 ** (1 / 3)  # after batch 3 the mean is the weights; batch 4 has the same weights
    means = [
        share * old + (1 - share) * values_of(new) for old, new in zip(seen, trained, strict=True)
    ]
    waiting.finalize_variable_values(trained)
    for mine, mean in zip(trained, means, strict=True):
        np.testing.assert_allclose(mine, mean, atol=1e-6, err_msg=mine.path)


def test_the_mean_begins_with_the_weights_of_a_rest_before_the_first_step():
    phase = a_phase(optimizer="sgd", ema=0.5, accumulate=3)
    cut = a_cut()
    trained = cut.suffix.trainable_variables
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 4)
    before = [values_of(v) for v in trained]
    for _ in range(2):
        apply(optimizer, [np.ones(v.shape, "float32") for v in trained], trained)
    assert apply_rest(optimizer) == 2
    after = [values_of(v) for v in trained]
    optimizer.finalize_variable_values(trained)
    for mine, new, old in zip(trained, after, before, strict=True):
        np.testing.assert_allclose(values_of(mine), new, atol=1e-6)
        assert np.abs(new - old).min() > 1e-4


@pytest.mark.parametrize("fields", [{}, {"accumulate": 5}])
def test_without_a_rest_nothing_is_applied(fields):
    phase = a_phase(optimizer="sgd", **fields)
    cut = a_cut()
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 4)
    for _ in range(5):
        ones = [np.ones(v.shape, "float32") for v in cut.suffix.trainable_variables]
        apply(optimizer, ones, cut.suffix.trainable_variables)
    before = weights_by_name(cut.suffix)
    assert apply_rest(optimizer) == 0
    after = weights_by_name(cut.suffix)
    assert all((after[path] == before[path]).all() for path in before)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_learning_statistics_get_the_mean_that_the_weights_get(accumulate):
    """By hand: m = s1, then m = 0.75 m + 0.25 s for each step after the first."""
    phase = a_phase(ema=0.75, accumulate=accumulate, batch_norm="train", learning_rate=0.01)
    cut = split(tiny_model(), 1, TINY)
    norms = freeze(cut, "train")
    assert norms == ["block_2_a_norm"]
    share = 0.75 ** (1 / accumulate)
    mean = NormMean(cut.suffix, norms, momentum=share, first=accumulate)
    live = LiveModel(cut.prefix, cut.suffix, mean)
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 4)
    live.compile(optimizer, keras.losses.CategoricalCrossentropy(True))
    norm = cut.suffix.get_layer("block_2_a_norm")
    pixels, labels = batch(16)
    seen = []
    for start in range(0, 16, 4):
        live.train_on_batch(pixels[start : start + 4], labels[start : start + 4])
        seen.append([values_of(norm.moving_mean), values_of(norm.moving_variance)])
    live.predict(pixels, verbose=0)  # leaves the mean alone
    expected = seen[accumulate - 1]
    for now in seen[accumulate:]:
        expected = [share * m + (1 - share) * s for m, s in zip(expected, now, strict=True)]
    mean.put_in()
    for kept, by_hand, last in zip(
        (norm.moving_mean, norm.moving_variance), expected, seen[-1], strict=True
    ):
        np.testing.assert_allclose(values_of(kept), by_hand, atol=1e-6)
        assert np.abs(by_hand - last).max() > 1e-3
