import keras
import numpy as np
import pytest
from tiny import TINY, batch, tiny_model, weights_by_name

from kerasft.config import Phase
from kerasft.cut import freeze, split
from kerasft.live import LiveModel
from kerasft.rates import build_optimizer, rate_groups, rates_at


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
