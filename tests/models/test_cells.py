"""Cuts that carry two tensors, between the cells of NASNet: from the list of blocks to a run."""

import json

import keras
import numpy as np
import pytest
from cells import CELLS, cells_constructor, cells_model
from drawing import draw_photos
from net_blocks import BLOCKS
from tiny import batch, moved, weights_by_name

from kerasft.backbones.table import BACKBONES
from kerasft.config.fields import Phase
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.heads import trained as trained_module
from kerasft.input_rule import InputRule
from kerasft.models import build, bundle
from kerasft.models.blocks import list_blocks
from kerasft.models.bundle import Bundle
from kerasft.models.cut import fingerprint, freeze, may_change, prove_frozen, split
from kerasft.models.live import LiveModel, restore_precision, set_precision
from kerasft.training.rates import build_optimizer, rate_groups
from kerasft.training.train import train_run


def computed(model, inputs):
    return np.asarray(model(inputs, training=False))


def logits_of(model):
    return keras.Model(model.inputs[0], model.get_layer("logits").output)


def test_a_cell_ends_with_its_sum_and_begins_with_what_only_it_needs():
    blocks = list_blocks(cells_model(), CELLS)
    assert [(b.name, b.parameters) for b in blocks] == [
        ("cell_3", 280),
        ("cell_reduce_2", 280),
        ("cell_1", 280),
        ("cell_0", 248),
        ("cell_stem_1", 180),
        ("stem", 128),
    ]
    assert [b.layers[-1] for b in blocks[1:]] == [
        "reduction_concat_reduce_2",
        "normal_concat_1",
        "normal_concat_0",
        "reduction_concat_stem_1",
        "stem_bn1",
    ]
    # By depth, these come before the end of the cell below.
    assert [blocks[i].layers[0] for i in (0, 3)] == ["adjust_relu_1_3", "adjust_relu_1_0"]
    assert [[t.shape[1:] for t in b.inputs] for b in blocks] == [
        [(4, 4, 12), (2, 2, 12)],
        [(4, 4, 12), (4, 4, 12)],
        [(4, 4, 12), (4, 4, 12)],
        [(8, 8, 4), (4, 4, 12)],
        [(8, 8, 4)],
        [(16, 16, 3)],
    ]


@pytest.mark.parametrize(("blocks", "numbers"), [(0, 12), (1, 240), (2, 384), (4, 448)])
def test_the_halves_hand_over_one_tensor_and_compute_what_the_whole_computes(blocks, numbers):
    model = cells_model(dropout=0.5)
    pixels, _ = batch()
    cut = split(model, blocks, CELLS)
    assert cut.prefix.output_shape == cut.suffix.input_shape == (None, numbers)
    halves = computed(cut.suffix, computed(cut.prefix, pixels))
    np.testing.assert_allclose(halves, computed(logits_of(model), pixels), atol=1e-6)


def test_the_suffix_is_flat_and_its_variables_are_the_models():
    model = cells_model()
    cut = split(model, 2, CELLS)
    assert not [layer for layer in cut.suffix.layers if isinstance(layer, keras.Model)]
    of_model = {id(variable) for variable in model.weights}
    assert len(cut.suffix.weights) == 56
    assert all(id(variable) in of_model for variable in cut.suffix.weights)
    assert len(cut.prefix.weights) + len(cut.suffix.weights) == len(model.weights)


def test_dropout_of_the_head_is_active_in_the_suffix():
    suffix = split(cells_model(dropout=0.5), 1, CELLS).suffix
    rows = np.random.default_rng(0).normal(size=(8, 240)).astype("float32")
    assert np.abs(np.asarray(suffix(rows, training=True)) - computed(suffix, rows)).max() > 1e-3


def test_a_model_that_was_loaded_is_cut_without_a_clash_of_names(tmp_path):
    keras.backend.clear_session()  # automatic names begin anew
    model = cells_model()
    pixels, _ = batch()
    expected = computed(logits_of(model), pixels)
    bundle.save(Bundle(model, ("a", "b"), InputRule(16)), tmp_path / "model.keras")
    keras.backend.clear_session()  # and once more, as in another process
    loaded = bundle.load(tmp_path / "model.keras").model
    assert loaded.get_layer("concatenate").output.shape == (None, 4, 4, 4)
    for blocks in range(1, 6):
        cut = split(loaded, blocks, CELLS)
        halves = computed(cut.suffix, computed(cut.prefix, pixels))
        np.testing.assert_allclose(halves, expected, atol=1e-6)


def train_from(model, blocks, *, stored=False):
    """Two epochs from a cut; returns it."""
    cut = split(model, blocks, CELLS)
    freeze(cut, "frozen")
    pixels, labels = batch()
    inputs = computed(cut.prefix, pixels).astype("float16") if stored else pixels
    live = LiveModel(None if stored else cut.prefix, cut.suffix)
    live.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(True))
    live.fit(inputs, labels, batch_size=4, epochs=2, verbose=0)
    return cut


@pytest.mark.parametrize("stored", [False, True], ids=["live", "stored"])
def test_training_moves_the_cells_above_the_cut_without_their_norms(stored):
    model = cells_model()
    before = weights_by_name(model)
    train_from(model, 2, stored=stored)
    changed = moved(before, model)
    assert {path.partition("/")[0] for path in changed} == {
        *("adjust_conv_projection_reduce_2", "reduction_conv_1_reduce_2"),
        *(f"separable_conv_1_reduction_{side}1_reduce_2" for side in ("left", "right")),
        *("adjust_conv_1_3", "adjust_conv_2_3", "normal_conv_1_3"),
        *(f"separable_conv_1_normal_{side}1_3" for side in ("left", "right")),
        "logits",
    }


def test_what_is_frozen_is_proven_and_a_planted_fault_is_named():
    model = cells_model()
    start = fingerprint(model)
    cut = train_from(model, 2)
    trained = may_change(model, cut, "frozen")
    prove_frozen(start, model, trained, "unfreeze")  # the control
    for layer in ("adjust_bn_3", "reduction_bn_1_reduce_2", "normal_bn_1_1", "adjust_conv_1_0"):
        weight = model.get_layer(layer).weights[-1]
        before = weight.numpy()
        weight.assign(before + 1e-6)
        named = f"1 frozen variables moved while it trained:\n  {layer}/"
        with pytest.raises(UserError, match=named):
            prove_frozen(start, model, trained, "unfreeze")
        weight.assign(before)


def test_each_cell_above_the_cut_has_its_own_rate():
    cut = split(cells_model(), 2, CELLS)
    freeze(cut, "frozen")
    phase = Phase(name="p", blocks=2, epochs=1, learning_rate=0.1, layer_decay=0.5)
    groups = rate_groups(phase, cut)
    assert [(g.name, g.factor) for g in groups] == [
        ("head", 1.0), ("cell_3", 0.5), ("cell_reduce_2", 0.25)
    ]  # fmt: skip
    # One for every trained variable, or it would raise.
    assert build_optimizer(phase, groups, cut.suffix, 5).built


def test_mixed_precision_reaches_the_cells_and_not_what_is_handed_over():
    model = cells_model()
    pixels, _ = batch()
    exact = computed(logits_of(model), pixels)
    before = set_precision(model, "mixed_bfloat16")
    cut = split(model, 2, CELLS)
    handed = cut.prefix(pixels, training=False)
    assert handed.dtype == "float32"
    rough = computed(cut.suffix, handed)
    restore_precision(before)
    assert 1e-6 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


FLAGS = {
    "model.weights": "none",
    "model.image_size": 32,
    "augment.views": 2,
    "augment.mixup": 0.4,
    "phases.0.name": "top",
    "phases.0.blocks": 2,
    "phases.0.epochs": 2,
    "phases.0.batch_size": 8,
    "phases.0.learning_rate": 1e-4,
}


@pytest.fixture
def cells_backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "Cells", CELLS)
    monkeypatch.setattr(keras.applications, "Cells", cells_constructor, raising=False)


def train(folder, name, mode, *sets):
    """Trains the two top blocks on drawn photos; returns the losses of the epochs."""
    photos = folder / "photos" if (folder / "photos").is_dir() else draw_photos(folder / "photos")
    flags = {**FLAGS, "data.source": str(photos), "model.backbone": name, "cache.mode": mode}
    (done,) = train_run(load_config(None, flags=flags, sets=sets), folder / mode).to_json()[
        "phases"
    ]
    assert bool(done["activations"]) == (mode == "on")
    assert done["frozen_proof"] == "equal"
    assert done["gap"]["loss"] < 1e-3
    lines = (folder / mode / "metrics.jsonl").read_text().splitlines()
    return [[row[key] for key in ("loss", "val_loss")] for row in map(json.loads, lines)]


@pytest.mark.slow
def test_a_run_trains_on_what_was_stored_in_a_row(tmp_path, cells_backbone):
    assert np.isfinite(train(tmp_path, "Cells", "on")).all()


@pytest.mark.slow
def test_stored_and_live_runs_train_alike(tmp_path, cells_backbone):
    stored, live = (train(tmp_path, "Cells", mode) for mode in ("on", "off"))
    # float16 at the cut rounds to 5e-4 of a value; six steps later the losses differ less.
    np.testing.assert_allclose(stored, live, rtol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NASNetMobile", "NASNetLarge"])
def test_the_cells_at_the_default_side_are_those_of_the_table(name):
    # What a cell does to what it takes depends on the sides of both.
    row = BACKBONES[name]
    blocks = list_blocks(build.load(name, weights="none", image_size=row.image_size), row)
    assert [block.name for block in reversed(blocks)] == BLOCKS[name]
    assert sum(block.parameters for block in blocks) == row.parameters


@pytest.mark.slow
def test_nasnetmobile_is_cut_at_every_cell():
    base = build.load("NASNetMobile", weights="none", image_size=32)
    model = trained_module.attach(base, 2, hidden=(), dropout=0.0, seed=0)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = computed(logits_of(model), pixels)
    for blocks in range(17):
        cut = split(model, blocks, BACKBONES["NASNetMobile"])
        assert len(cut.prefix.output_shape) == (4 if blocks == 16 else 2)
        assert len(cut.prefix.weights) + len(cut.suffix.weights) == len(model.weights)
        halves = computed(cut.suffix, computed(cut.prefix, pixels))
        np.testing.assert_allclose(halves, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_nasnetmobile_trains_alike_stored_and_live(tmp_path):
    # In float16 and with the folded engine six steps of Adam make 1.4e-3 of the rounding.
    sets = ["cache.dtype=float32", "cache.engine=keras"]
    stored, live = (train(tmp_path, "NASNetMobile", mode, *sets) for mode in ("on", "off"))
    np.testing.assert_allclose(stored, live, rtol=1e-6)
