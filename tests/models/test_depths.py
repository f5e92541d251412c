"""Features of all depths, the averaged outputs of all blocks: from the graph to what is shipped."""

import json
import shutil

import keras
import numpy as np
import pytest
from cells import CELLS, cells_constructor
from drawing import draw_photos
from small_run import without_kerasft
from tiny import TINY, weights_by_name
from tiny_run import FLAGS, small

from kerasft.activations.context import RunContext
from kerasft.activations.keys import needs_at
from kerasft.backbones.table import BACKBONES
from kerasft.config.load import load_config
from kerasft.data.batches import split_batches
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.evaluation.predict import predict
from kerasft.export.export import export_run
from kerasft.heads.methods import METHODS
from kerasft.input_rule import InputRule
from kerasft.models import build, bundle
from kerasft.models.blocks import list_blocks
from kerasft.models.net import Net
from kerasft.progress import silent
from kerasft.record import Device
from kerasft.run import Run
from kerasft.training.plan import plan_new
from kerasft.training.train import continue_run, plan_run, train_run

CPU = Device("tensorflow", "cpu", "", 2)
DEPTHS = "head.features=depths"
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def backbones(tiny_backbone):
    """Tiny; and Cells, between whose cells two tensors are alive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Cells", CELLS)
        patch.setattr(keras.applications, "Cells", cells_constructor, raising=False)
        yield


def load(name, features="depths", **choice):
    return build.load(name, weights="none", image_size=32, features=features, **choice)


def run(model, pixels=PIXELS):
    return np.asarray(model(pixels, training=False))


def averages(model, *layers, pixels=PIXELS):
    """The outputs of layers, averaged over all positions by NumPy, side by side."""
    ends = [keras.Model(model.inputs[0], model.get_layer(layer).output) for layer in layers]
    return np.concatenate([run(end, pixels).mean(axis=(1, 2)) for end in ends], axis=1)


# the features


def test_they_are_the_averages_of_what_leaves_each_block_the_lowest_first():
    base, pooled = load("Tiny"), load("Tiny", "pooled")
    assert base.output_shape == (None, 12)
    expected = averages(pooled, "stem_relu", "block_1_a_relu", "block_2_a_relu")
    np.testing.assert_allclose(run(base), expected, atol=1e-6)  # sums of float32 in another order
    np.testing.assert_array_equal(run(base)[:, 8:], run(pooled))
    assert len(np.unique(expected)) == expected.size  # so that no two could be exchanged


@pytest.mark.parametrize(
    ("leave_out", "layers"), [(1, ["stem_relu", "block_1_a_relu"]), (2, ["stem_relu"])]
)
def test_blocks_that_are_left_out_are_not_among_them(leave_out, layers):
    base = load("Tiny", leave_out=leave_out)
    np.testing.assert_allclose(run(base), averages(load("Tiny", "pooled"), *layers), atol=1e-6)
    assert not [layer.name for layer in base.layers if layer.name.startswith("block_2")]


def test_of_two_tensors_between_cells_each_is_there_once():
    # The outputs of the stem (4 channels), of four cells (12 each) and of the last one.
    cells = ["reduction_concat_stem_1", "normal_concat_0", "normal_concat_1"]
    lower = averages(load("Cells", "pooled"), "stem_bn1", *cells, "reduction_concat_reduce_2")
    base = load("Cells")
    assert base.output_shape == (None, 4 + 4 * 12 + 12)
    np.testing.assert_allclose(run(base)[:, :52], lower, atol=1e-6)
    np.testing.assert_array_equal(run(base)[:, 52:], run(load("Cells", "pooled")))
    np.testing.assert_allclose(run(load("Cells", leave_out=1)), lower, atol=1e-6)


def test_those_of_two_nets_stand_side_by_side():
    both = load("Tiny+Cells")
    assert both.output_shape == (None, 12 + 64)
    # The seeds of both nets differ from those of each alone, so weights are copied.
    for number, (name, columns) in enumerate((("Tiny", slice(12)), ("Cells", slice(12, None)))):
        alone = load(name)
        for layer in alone.layers:
            if layer.weights:
                layer.set_weights(both.get_layer(f"net{number}_{layer.name}").get_weights())
        np.testing.assert_allclose(run(both)[:, columns], run(alone), atol=1e-6)


def test_no_cut_below_them_is_offered():
    base = load("Tiny")
    (block,) = list_blocks(base, TINY)
    assert (block.name, block.parameters) == ("depths", base.count_params())
    assert block.inputs[0] is base.inputs[0]
    (both,) = list_blocks(load("Tiny+Cells"), TINY, CELLS)
    assert both.name == "depths + depths"


@pytest.mark.parametrize(
    ("name", "side", "numbers"),
    [
        ("AlexNet", 227, 96 + 256 + 384 + 384 + 256),  # convolutions alone
        pytest.param("VGG16", 224, 64 + 128 + 256 + 512 + 512, marks=pytest.mark.slow),
        # Stem, 13 blocks whose sizes repeat (2, 3, 4, 3, 3 in a row), and the last convolution.
        pytest.param(
            *("MobileNetV2", 224, 32 + 16 + 2 * 24 + 3 * 32 + 4 * 64 + 3 * 96 + 3 * 160 + 1280),
            marks=pytest.mark.slow,
        ),
        pytest.param("NASNetMobile", 224, 8612, marks=pytest.mark.slow),
    ],
)
def test_nets_of_the_table_have_them(name, side, numbers):
    base = build.load(name, weights="none", image_size=side, features="depths")
    assert base.output_shape == (None, numbers)


@pytest.mark.slow
def test_the_last_of_them_are_the_usual_features_where_these_are_normalised():
    # ConvNeXt normalises what it has averaged; at 64 pixels there are 2 x 2 positions.
    depths, pooled = (
        build.load("ConvNeXtTiny", weights="none", image_size=64, features=features)
        for features in ("depths", "pooled")
    )
    pixels = np.tile(PIXELS, (1, 2, 2, 1)) * np.linspace(0.2, 1, 64)[:, None, None]
    np.testing.assert_array_equal(run(depths, pixels)[:, -768:], run(pooled, pixels))
    assert depths.output_shape == (None, 96 + 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768)


# stores


def need_of(folder, *sets, backbone="Tiny"):
    """What a head needs of the plain views."""
    flags = {**FLAGS, "data.source": str(folder), "model.backbone": backbone}
    config = load_config(None, flags=flags, sets=[*sets, "cache.engine=folded"])
    plan, net = plan_new(config, scan_source(config.data, seed=0), CPU)
    context = RunContext(Run(folder), plan, scan_source(config.data, seed=0), silent, CPU)
    return needs_at(context.config, context.source, CPU, config.phases[0], net, 0, "float16")


def test_their_store_is_not_that_of_pooled_features(photos):
    depths, *_ = need_of(photos, DEPTHS)
    pooled, *_ = need_of(photos)
    assert (depths.tensor.facts["blocks"], depths.tensor.facts["features"]) == (0, "depths")
    assert (depths.shape, pooled.shape) == ((12,), (4,))
    lower, *_ = need_of(photos, DEPTHS, "head.leave_out=1")
    pooled_lower, *_ = need_of(photos, "head.leave_out=1")
    digests = {need.tensor.digest for need in (depths, pooled, lower, pooled_lower)}
    assert len(digests) == 4


@pytest.mark.slow  # four runs; above, the keys by which they look differ
def test_a_run_does_not_find_the_store_of_pooled_features(photos, tmp_path, own_cache):
    def found(name, *sets):
        result = train_run(small(photos, *sets), tmp_path / name).to_json()
        return result["phases"][0]["activations"]["found"]

    assert [found("pooled"), found("pooled-again")] == [False, True]
    assert [found("depths", DEPTHS), found("depths-again", DEPTHS)] == [False, True]


# a run


@pytest.fixture(scope="module")
def trained(backbones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("depths")
    photos = draw_photos(folder / "photos")
    config = small(photos, DEPTHS)
    planned, told = plan_run(config).to_json(), []
    result = train_run(config, folder / "run", progress=told.append).to_json()
    (stored,) = [event.figures for event in told if event.stage == "store"]
    return folder, {**planned, "stored": stored}, result


def test_a_head_on_them_begins_solved_and_nothing_is_stored_for_unfreezing(trained):
    folder, planned, result = trained
    (phase,) = result["phases"]
    assert phase["trainable_parameters"] == 12 * 3 + 3
    assert planned["phases"][0]["trainable_parameters"] == 39
    assert (phase["frozen_proof"], phase["activations"]["views"]) == ("equal", 2)
    assert phase["head_start"]["tried"][0]["strength"] == 0.32
    # 24 images in 2 views and 6 of validation, 12 numbers of 2 bytes each
    assert phase["activations"]["bytes"] == (24 * 2 + 6) * 12 * 2
    assert (planned["stored"]["bytes"], planned["stored"]["later_bytes"]) == (1296, 0)
    assert [block["name"] for block in planned["blocks"]] == ["depths"]
    assert load_config(folder / "run" / "config.toml").head.features == "depths"


def test_they_are_standardised_by_the_training_images(trained):
    folder, _, _ = trained
    model = bundle.load(folder / "run" / "model.keras").model
    config = load_config(folder / "run" / "config.toml")
    source = scan_source(config.data, seed=0)
    plan, _ = plan_new(config, source, CPU)
    context = RunContext(Run(folder), plan, source, silent, CPU)
    seen = bundle.compute(Net.of(model, "Tiny").base, context.batches("train"))
    mean, variance, count = model.get_layer("head_standardise").get_weights()
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-3, atol=1e-6)  # stored in float16
    varying = seen.var(0) > 0  # one that does not vary is not scaled
    np.testing.assert_allclose(variance[varying], seen.var(0)[varying], rtol=2e-2, atol=1e-9)
    assert (variance[~varying] == 1).all() and varying.sum() > 6
    assert (seen.shape, count) == ((24, 12), 24)


@pytest.mark.slow
def test_what_is_exported_computes_the_same(trained):
    folder, _, _ = trained
    exported = export_run(folder / "run")
    assert exported.proof.top1_agreement == 1.0
    assert 0 <= exported.proof.max_abs_diff < 1e-5


def test_predictions_are_those_of_the_head_on_averages_by_hand(trained):
    folder, _, _ = trained
    model = bundle.load(folder / "run" / "model.keras").model
    source = scan_source(load_config(folder / "run" / "config.toml").data, seed=0)
    (pixels,) = split_batches(source, "test", rule=InputRule(32), batch_size=6)
    maps = ("stem_relu", "block_1_a_relu", "block_2_a_relu")
    features = averages(model, *maps, pixels=np.asarray(pixels))
    mean, variance, _ = model.get_layer("head_standardise").get_weights()
    kernel, bias = model.get_layer("logits").get_weights()
    logits = (features - mean) / np.sqrt(variance) @ kernel + bias
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    files = [source.root / source.paths[i] for i in source.indices("test")]
    answers = predict(folder / "run", files, top=3)
    names = source.class_names
    told = [{label.label: label.score for label in answer.labels} for answer in answers]
    got = [[labels[name] for name in names] for labels in told]
    np.testing.assert_allclose(got, scores, atol=1e-5)


@pytest.mark.slow  # test_bundle.py: a model with pooled features does
def test_the_model_loads_in_plain_keras(trained):
    folder, _, _ = trained
    code = (
        "import keras, numpy as np\n"
        "model = keras.models.load_model('run/model.keras')\n"
        "print(model.predict(np.zeros((1, 32, 32, 3)), verbose=0).shape)\n"
    )
    assert without_kerasft(code, folder) == "(1, 3)\n"


def test_the_base_of_such_a_run_is_what_another_run_starts_from(trained, photos, tmp_path):
    folder, _, _ = trained
    model = bundle.load(folder / "run" / "model.keras").model
    for features in ("depths", "pooled"):
        base = build.load(
            "Tiny", weights=str(folder / "run" / "model.keras"), image_size=32, features=features
        )
        kept = weights_by_name(model)
        for path, value in weights_by_name(base).items():
            np.testing.assert_array_equal(value, kept[path])


@pytest.mark.parametrize(
    "method",
    ["logistic", *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m != "logistic")],
)
def test_a_head_is_solved_on_them(photos, tmp_path, method):
    flags = {k: v for k, v in FLAGS.items() if not k.startswith("phases.0.")}
    flags |= {"data.source": str(photos), "phases.0.method": method}
    result = train_run(load_config(None, flags=flags, sets=[DEPTHS]), tmp_path / "run").to_json()
    (phase,) = result["phases"]
    assert phase["method"] == method
    assert phase["frozen_proof"] == "equal"
    model = bundle.load(tmp_path / "run" / "model.keras").model
    assert Net.of(model, "Tiny").features.shape == (None, 12)


@pytest.mark.slow
def test_a_run_of_two_nets_trains_and_ships(photos, tmp_path):
    flags = {**FLAGS, "data.source": str(photos), "model.backbone": "Tiny+Cells"}
    result = train_run(load_config(None, flags=flags, sets=[DEPTHS]), tmp_path / "run").to_json()
    assert result["phases"][0]["trainable_parameters"] == (12 + 64) * 3 + 3
    assert export_run(tmp_path / "run").proof.top1_agreement == 1.0


# what is refused


def refusal(*sets, **flags):
    with pytest.raises(UserError) as error:
        load_config(None, flags={"data.source": "photos", **flags}, sets=[DEPTHS, *sets])
    assert error.value.exit_code == 2
    return str(error.value)


WHY = (
    "would train blocks below the head, but with head.features = 'depths' the head reads the "
    "output of every block, so only the head can be trained. Expected blocks = 0, or a run with "
    "head.features = 'pooled'."
)


def test_phases_that_train_blocks_are_refused_with_the_config():
    assert refusal("phases.0.blocks=2") == (
        f"the options have 1 problem:\n  phases (`sets`): 'head' {WHY}"
    )
    assert f"'scratch' {WHY}" in refusal(**{"model.weights": "none"})
    second = "phases=[{name='a',epochs=1,learning_rate=0.1},{name='b',epochs=1,learning_rate=0.1}]"
    assert f"'b' {WHY}" in refusal(second)  # blocks that are not set are the backbone's default
    two = {"phases": [{"name": n, "epochs": 1, "learning_rate": 0.1, "blocks": 0} for n in "ab"]}
    config = load_config(None, flags={"data.source": "photos", "head.features": "depths", **two})
    assert [phase.blocks for phase in config.phases] == [0, 0]
    assert "leave_out is at most 17, got 18" in refusal("head.leave_out=18")


def test_unfreezing_is_refused_before_anything_is_read_or_written(trained):
    folder, _, _ = trained
    shutil.copytree(folder / "run", folder / "again")
    before = {p: p.read_bytes() for p in (folder / "again").rglob("*") if p.is_file()}
    with pytest.raises(UserError) as error:
        continue_run(folder / "again")
    assert error.value.exit_code == 2
    assert str(error.value) == f"the options have 1 problem:\n  phases: 'unfreeze' {WHY}"
    after = {p: p.read_bytes() for p in (folder / "again").rglob("*") if p.is_file()}
    assert after == before


def test_another_phase_of_the_head_alone_is_trained(trained):
    folder, _, _ = trained
    shutil.copytree(folder / "run", folder / "longer")
    flags = {"phases.-1.blocks": 0, "phases.-1.epochs": 1, "phases.-1.batch_size": 8}
    result = continue_run(folder / "longer", flags=flags).to_json()
    assert [phase["blocks"] for phase in result["phases"]] == [0, 0]
    assert result["phases"][1]["activations"]["found"] is True
    assert json.loads((folder / "longer" / "run.json").read_text())["status"] == "finished"
