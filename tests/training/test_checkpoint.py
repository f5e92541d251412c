import json
import os

import keras
import numpy as np
import pytest
from tiny import TINY, batch, tiny_model

from kerasft.errors import UserError
from kerasft.models.cut import freeze, split
from kerasft.models.live import LiveModel
from kerasft.training import checkpoint
from kerasft.training.checkpoint import PhaseState


def trained(epochs, *, model=None):
    """A live model with dropout after some epochs of Adam, its suffix and optimizer."""
    cut = split(model or tiny_model(dropout=0.5), 1, TINY)
    freeze(cut, "frozen")
    checkpoint.reset_seeds(cut.suffix, 3)
    live = LiveModel(cut.prefix, cut.suffix)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(cut.suffix.trainable_variables)
    live.compile(optimizer, keras.losses.CategoricalCrossentropy(True))
    fit(live, epochs)
    return live, cut.suffix, optimizer


def fit(live, epochs):
    if epochs:
        live.fit(*batch(), batch_size=4, epochs=epochs, shuffle=False, verbose=0)


def test_a_restored_phase_goes_on_bit_for_bit(tmp_path):
    _, whole, _ = trained(3)
    live, suffix, optimizer = trained(1)
    progress = PhaseState("head", epoch=1, best_epoch=1, best_loss=0.5, lines=[{"epoch": 1}])
    checkpoint.save(tmp_path, progress, suffix, optimizer, checkpoint.weights_of(suffix))

    live, resumed, optimizer = trained(0)
    best, _ = checkpoint.restore(tmp_path, resumed, optimizer)
    fit(live, 2)
    for expected, given in zip(
        checkpoint.weights_of(whole), checkpoint.weights_of(resumed), strict=True
    ):
        np.testing.assert_array_equal(given, expected)
    for expected, given in zip(checkpoint.weights_of(suffix), best, strict=True):
        np.testing.assert_array_equal(given, expected)
    assert checkpoint.load(tmp_path, "head") == progress


def test_without_the_seed_state_a_resumed_phase_differs(tmp_path):  # the control
    _, whole, _ = trained(3)
    _, suffix, optimizer = trained(1)
    checkpoint.save(
        tmp_path, PhaseState("head", epoch=1), suffix, optimizer, checkpoint.weights_of(suffix)
    )
    live, resumed, optimizer = trained(0)
    checkpoint.restore(tmp_path, resumed, optimizer)
    checkpoint.reset_seeds(resumed, 4)
    fit(live, 2)
    assert not np.array_equal(checkpoint.weights_of(whole)[0], checkpoint.weights_of(resumed)[0])


def test_best_epoch_and_loss_survive_and_files_before_the_last_two_states_go(tmp_path):
    _, suffix, optimizer = trained(0)
    best = checkpoint.weights_of(suffix)
    for epoch, best_epoch in ((1, 1), (2, 1), (3, 3)):
        now = PhaseState("head", "", epoch, best_epoch, best_loss=0.25, seconds=1.5)
        checkpoint.save(tmp_path, now, suffix, optimizer, best)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best-1.npz",
        "best-3.npz",
        "state-2.npz",
        "state-3.npz",
        "state.json",
    ]
    loaded = checkpoint.load(tmp_path, "head")
    assert (loaded.epoch, loaded.best_epoch, loaded.best_loss, loaded.seconds) == (3, 3, 0.25, 1.5)


def test_the_state_of_another_phase_is_not_taken(tmp_path):
    _, suffix, optimizer = trained(0)
    checkpoint.save(
        tmp_path, PhaseState("head", epoch=1), suffix, optimizer, checkpoint.weights_of(suffix)
    )
    assert checkpoint.load(tmp_path, "unfreeze") is None
    assert checkpoint.load(tmp_path / "absent", "head") is None


def test_an_interrupted_write_leaves_the_older_state_whole(tmp_path):
    _, suffix, optimizer = trained(1)
    checkpoint.save(
        tmp_path,
        PhaseState("head", epoch=1, best_epoch=1),
        suffix,
        optimizer,
        checkpoint.weights_of(suffix),
    )
    (tmp_path / "state-2.npz").write_bytes(b"half")  # killed before state.json was replaced
    assert checkpoint.load(tmp_path, "head").epoch == 1
    checkpoint.restore(tmp_path, suffix, optimizer)


def test_a_changed_checkpoint_is_refused(tmp_path):
    _, suffix, optimizer = trained(1)
    checkpoint.save(
        tmp_path,
        PhaseState("head", epoch=1, best_epoch=1),
        suffix,
        optimizer,
        checkpoint.weights_of(suffix),
    )
    path = tmp_path / "state-1.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"state-1\.npz: the checkpoint is missing or was changed"):
        checkpoint.restore(tmp_path, suffix, optimizer)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match="not a checkpoint of kerasft"):
        checkpoint.load(tmp_path, "head")


def test_a_missing_file_is_refused(tmp_path):
    _, suffix, optimizer = trained(0)
    now = PhaseState("head", epoch=1, best_epoch=1)
    checkpoint.save(tmp_path, now, suffix, optimizer, checkpoint.weights_of(suffix))
    (tmp_path / "best-1.npz").unlink()
    with pytest.raises(UserError, match=r"best-1\.npz: the checkpoint is missing or was changed"):
        checkpoint.restore(tmp_path, suffix, optimizer)


def test_the_best_weights_are_written_once_and_the_model_of_a_later_phase_stays(tmp_path):
    _, suffix, optimizer = trained(0)
    best = checkpoint.weights_of(suffix)
    (tmp_path / checkpoint.START).write_bytes(b"a model")
    checkpoint.save(tmp_path, PhaseState("head", "", 1, 1), suffix, optimizer, best)
    os.utime(tmp_path / "best-1.npz", (0, 0))
    checkpoint.save(tmp_path, PhaseState("head", "", 2, 1), suffix, optimizer, best)
    assert (tmp_path / "best-1.npz").stat().st_mtime == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-1.npz",
        "start.keras",
        "state-1.npz",
        "state-2.npz",
        "state.json",
    ]


def test_a_phase_begins_with_its_own_state_or_none(tmp_path):
    _, suffix, optimizer = trained(0)
    folder = tmp_path / "checkpoints"
    checkpoint.clear(folder)  # there is nothing to remove yet
    checkpoint.begin(folder, "head")
    now = PhaseState("head", epoch=1, best_epoch=1)
    checkpoint.save(folder, now, suffix, optimizer, checkpoint.weights_of(suffix))
    checkpoint.begin(folder, "head")
    assert checkpoint.load(folder, "head") == now
    checkpoint.begin(folder, "unfreeze")
    assert list(folder.iterdir()) == []


def test_clear_removes_everything(tmp_path):
    _, suffix, optimizer = trained(0)
    checkpoint.save(
        tmp_path,
        PhaseState("head", epoch=1, best_epoch=1),
        suffix,
        optimizer,
        checkpoint.weights_of(suffix),
    )
    assert json.loads((tmp_path / "state.json").read_text())["progress"]["epoch"] == 1
    checkpoint.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_random_layers_start_alike_whatever_was_computed_before():
    _, one, _ = trained(0)
    _, other, _ = trained(2)
    checkpoint.reset_seeds(other, 3)
    for a, b in zip(checkpoint.seed_states(one), checkpoint.seed_states(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(checkpoint.seed_states(one)) == 1


def test_each_random_layer_starts_with_a_state_of_its_own():
    model = tiny_model(dropout=0.5, base_dropout=0.5)
    checkpoint.reset_seeds(model, 3)
    states = [tuple(np.asarray(state).tolist()) for state in checkpoint.seed_states(model)]
    assert len(set(states)) == len(states) == 4
    checkpoint.reset_seeds(model, 4)
    assert tuple(np.asarray(checkpoint.seed_states(model)[0]).tolist()) != states[0]


def test_random_layers_inside_other_layers_are_reset_too():
    tokens = keras.Input((4, 8), name="tokens")
    attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name="attention")
    model = keras.Model(tokens, keras.layers.Dropout(0.5)(attention(tokens, tokens)))
    paths = [state.path.split("/") for state in checkpoint.seed_states(model)]
    assert sorted(len(path) for path in paths) == [2, 3]
