"""One function sets a phase up, for training, for the learning-rate finder and for the plan."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import TINY, tiny_model
from tiny_run import SECOND, small, train_head

from kerasft import activations
from kerasft.activations.store import Stored
from kerasft.config.fields import Phase, Solved
from kerasft.config.settled import PhasePlan
from kerasft.errors import UserError
from kerasft.models.cut import freeze
from kerasft.models.live import LiveModel
from kerasft.models.net import Net
from kerasft.training import trainable
from kerasft.training.find_lr import find_rate
from kerasft.training.train import continue_run, plan_run
from kerasft.training.trainable import Trainable, open_trainable, steps_on_a_copy

pytestmark = pytest.mark.usefixtures("tiny_backbone")
LIVE = {**SECOND, "phases.-1.stored": False, "phases.-1.epochs": 1}


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    return train_head(tmp_path_factory.mktemp("trainable"))


def test_a_change_where_a_phase_is_set_up_reaches_training_and_the_finder(trained, monkeypatch):
    made = []

    class Counted(LiveModel):
        def __init__(self, prefix, suffix, *others):
            made.append(suffix)
            super().__init__(prefix, suffix, *others)

    monkeypatch.setattr(trainable, "LiveModel", Counted)
    continue_run(trained.copy("fit"), flags=LIVE)
    assert len(made) == 1
    find_rate(trained.copy("find"), flags=LIVE, steps=20)
    assert len(made) == 2


def test_a_change_where_a_phase_is_set_up_reaches_the_plan(trained, monkeypatch):
    config = small(trained.photos, "phases.0.blocks=1")
    before = plan_run(config).to_json()["phases"][0]["trainable_parameters"]

    def release(cut, batch_norm):
        return freeze(cut, "train")

    monkeypatch.setattr(trainable, "freeze", release)
    after = plan_run(config).to_json()["phases"][0]["trainable_parameters"]
    assert after > before > 0  # the norms' scales and shifts


def opened(blocks=1, *, stored=False, images=24, rate_of=None, **fields):
    phase = Phase(
        **{"name": "second", "epochs": 1, "learning_rate": 0.1, "batch_size": 8, **fields}
    )
    plan = SimpleNamespace(phases=(None, PhasePlan(phase, blocks, stored)))
    return open_trainable(plan, 1, Net(tiny_model(), (TINY,)), images, rate_of=rate_of)


def test_a_phase_counts_its_steps_parameters_and_groups():
    assert [opened(images=n).steps_per_epoch for n in (24, 25, 32)] == [3, 4, 4]
    # The convolution of the top block, the scale and shift of its norm, and the logits.
    block, norm, logits = 4 * 9 * 4 + 4, 2 * 4, 4 * 2 + 2
    head, one, learning = opened(0), opened(1), opened(1, batch_norm="train")
    assert [each.parameters for each in (head, one, learning)] == [
        logits,
        block + logits,
        block + norm + logits,
    ]
    assert [each.learning_norms for each in (head, one, learning)] == [(), (), ("block_2_a_norm",)]
    assert [group.name for group in one.groups] == ["all"]
    assert [group.name for group in opened(1, layer_decay=0.5).groups] == ["head", "block_2"]


def test_a_stored_phase_fits_the_suffix_and_a_live_one_both_halves():
    stored, live = opened(1, stored=True), opened(1)
    assert (stored.stored, stored.model.prefix) == (True, None)
    assert (live.stored, live.model.prefix) == (False, live.cut.prefix)
    assert stored.model.suffix is stored.cut.suffix
    assert live.model.optimizer is live.optimizer


def test_whole_epochs_and_with_them_jax_are_left_alone_where_keras_runs_on_tensorflow(monkeypatch):
    monkeypatch.delattr(activations, "whole_epochs", raising=False)
    monkeypatch.setitem(sys.modules, "kerasft.activations.whole_epochs", None)  # importing it fails
    monkeypatch.setattr(Trainable, "feed", lambda *_: "batches")
    rows = np.zeros((24, 4, 4, 4), "float16")
    for stored in (None, Stored((rows,), rows, found=True)):
        one = opened(stored=stored is not None)
        assert one.fitting(None, (), stored) == (one.model, "batches", 1)


def test_the_loss_is_that_of_logits_with_smoothed_labels():
    # softmax of (2, 0): -log p is 0.126928 and 2.126928; the labels are 0.95 and 0.05.
    loss = opened(label_smoothing=0.1).model.loss
    assert float(loss([[1.0, 0.0]], [[2.0, 0.0]])) == pytest.approx(0.226928, abs=1e-5)


@pytest.mark.parametrize(
    ("blocks", "stored", "precision"),
    [
        (1, True, "mixed_bfloat16"),
        ("all", False, "float32"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (1, True, "float32"),
                (1, False, "float32"),
                (1, False, "mixed_bfloat16"),
                ("all", False, "mixed_bfloat16"),
            )
        ),
    ],
)
def test_a_step_that_is_only_timed_changes_nothing(blocks, stored, precision):
    model = tiny_model(dropout=0.5, base_dropout=0.5)
    cut = Net(model, (TINY,)).cut(blocks)
    phase = Phase(name="p", epochs=1, learning_rate=0.1, batch_size=8, batch_norm="train")

    def state():
        layers = model._flatten_layers(include_self=False, recursive=True)
        of_layers = [
            (layer.name, layer.trainable, layer.dtype_policy.name, getattr(layer, "momentum", 0))
            for layer in layers
        ]
        return of_layers, [v.numpy().tolist() for v in model.variables]

    before = state()
    step = steps_on_a_copy(phase, cut, stored=stored)(precision)
    assert step()[0] > 0  # the loss
    assert len({step()[0] for _ in range(3)}) == 3  # the copy learns
    assert state() == before


def test_a_rate_may_be_given_for_each_group():
    found = opened(0, rate_of=lambda factor: 0.25 * factor, head_learning_rate_multiplier=2.0)
    assert float(found.optimizer.learning_rate) == 0.5
    assert float(opened(0, schedule="constant").optimizer.learning_rate) == pytest.approx(0.1)


def test_statistics_get_a_mean_where_they_learn_and_the_weights_have_one():
    assert opened(batch_norm="train").norm_mean is None
    assert opened(ema=0.81).norm_mean is None
    both = opened(batch_norm="train", ema=0.81, accumulate=2)
    assert (both.norm_mean._momentum, both.norm_mean._first) == (pytest.approx(0.9), 2)
    assert len(both.norm_mean.variables) == 3  # a counter, mean and variance of one norm
    assert both.model._norm_mean is both.norm_mean


def test_a_solved_phase_takes_no_steps():
    with pytest.raises(UserError, match="is solved by 'svm': it takes no steps") as caught:
        trainable.trained(Solved(name="svm", method="svm"))
    assert caught.value.exit_code == 2
