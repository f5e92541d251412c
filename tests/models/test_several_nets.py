"""Several backbones at once: from the list of blocks to a run that is unfrozen."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from drawing import draw_photos
from small_run import without_kerasft
from tiny import TINY, moved, tiny_constructor, weights_by_name
from tiny_run import FLAGS, SECOND

from kerasft.activations.context import RunContext
from kerasft.activations.keys import needs_at
from kerasft.backbones.spec import rows_of
from kerasft.backbones.table import BACKBONES
from kerasft.config.load import load_config
from kerasft.config.settled import Plan
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.heads import trained as trained_module
from kerasft.models import build, bundle
from kerasft.models.blocks import list_blocks
from kerasft.models.cut import split
from kerasft.progress import silent
from kerasft.record import Device
from kerasft.run import Run
from kerasft.seeds import derive_seed
from kerasft.training.plan import plan_new
from kerasft.training.train import continue_run, train_run

CPU = Device("tensorflow", "cpu", "", 2)
BOTH = "Tiny+Little"
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def backbones(tiny_backbone):
    """Besides Tiny the backbone Little: the same, but its images had 24 pixels a side."""
    with pytest.MonkeyPatch.context() as patch:
        row = replace(TINY, name="Little", image_size=24, min_size=16)
        patch.setitem(BACKBONES, "Little", row)
        patch.setattr(keras.applications, "Little", tiny_constructor, raising=False)
        yield


@pytest.fixture(scope="module")
def model(backbones):
    base = build.load(BOTH, weights="none", image_size=32)
    return trained_module.attach(base, 3, hidden=(), dropout=0.0, seed=0, standardise=True)


def test_a_block_is_one_of_each_and_the_last_one_is_all_that_is_left():
    spec = "Tiny+MobileNet:alpha=0.25"
    blocks = list_blocks(build.load(spec, weights="none", image_size=32), *rows_of(spec))
    assert [block.name for block in blocks] == [
        "block_2 + conv_13",
        "block_1 + conv_12",
        "stem + conv_11",
    ]
    assert [len(block.inputs) for block in blocks] == [2, 2, 1]
    assert "net1_conv1" in blocks[2].layers  # the first convolution of MobileNet
    alone = [build.load(one, weights="none", image_size=32) for one in spec.split("+")]
    assert sum(block.parameters for block in blocks) == sum(a.count_params() for a in alone)


def test_more_blocks_than_the_net_with_the_fewest_has_are_refused_by_its_name():
    spec = "MobileNet:alpha=0.25+Tiny"
    base = build.load(spec, weights="none", image_size=32)
    whole = trained_module.attach(base, 2, hidden=(), dropout=0.0, seed=0)
    with pytest.raises(UserError, match=r"^blocks: Tiny has 3 blocks, got 4\. Take 0 to 3"):
        split(whole, 4, *rows_of(spec))


def test_features_are_those_of_each_alone_behind_one_another():
    spec = "Little+Little:alpha=1"
    both = build.load(spec, weights="none", image_size=24, seed=3)
    alone = [
        build.load(one, weights="none", image_size=24, seed=derive_seed(3, "net", net))
        for net, one in enumerate(spec.split("+"))
    ]
    pixels = PIXELS[:, :24, :24]
    expected = np.concatenate([net.predict(pixels, verbose=0) for net in alone], axis=1)
    np.testing.assert_array_equal(both.predict(pixels, verbose=0), expected)
    assert expected.shape == (2, 4 + 4)


def test_a_net_of_smaller_images_has_them_made_smaller_inside_the_model():
    both = build.load(BOTH, weights="none", image_size=32, seed=3)
    little = build.load("Little", weights="none", image_size=24, seed=derive_seed(3, "net", 1))
    smaller = keras.ops.image.resize(PIXELS, (24, 24), antialias=True)
    got = both.predict(PIXELS, verbose=0)[:, 4:]
    np.testing.assert_allclose(got, little.predict(smaller, verbose=0), atol=1e-6)
    # Smaller ones than any of them were trained with go in as they are.
    small = build.load("Little+Little:alpha=1", weights="none", image_size=16)
    assert not [op for op in small.operations if "resize" in op.name]


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_the_two_halves_compute_what_the_whole_computes(model, blocks):
    cut = split(model, blocks, *rows_of(BOTH))
    at_cut = cut.prefix.predict(PIXELS, verbose=0)
    whole = keras.Model(model.inputs, model.get_layer("logits").output)
    halves = cut.suffix.predict(at_cut, verbose=0)
    np.testing.assert_allclose(halves, whole.predict(PIXELS, verbose=0), atol=1e-6)
    parts = [part.predict(PIXELS, verbose=0).reshape(2, -1) for part in cut.parts]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), at_cut)


def needs_of(folder, backbone, side=32):
    """What the head needs: of a run with that backbone, nothing trained."""
    flags = {**FLAGS, "data.source": str(folder), "model.backbone": backbone}
    config = load_config(None, flags={**flags, "model.image_size": side})
    found = scan_source(config.data, seed=0)
    plan, net = plan_new(config, found, CPU)
    machine = Device("tensorflow", "cpu", "", 2)
    context = RunContext(Run(folder), plan, found, silent, machine)
    # The weights are random and differ; all else that a key holds is compared.
    needs = needs_at(
        context.config, context.source, context.machine, config.phases[0], net, 0, "float16"
    )
    return [{**need.tensor.facts, "weights": None, "net": need.net} for need in needs]


def test_a_store_is_the_same_for_a_net_alone_and_beside_another(photos):
    alone, beside = needs_of(photos, "Tiny"), needs_of(photos, "Tiny+Little")
    assert beside[:2] == alone
    assert [facts["net"] for facts in beside] == [0, 0, 1, 1]
    little = [{**facts, "net": 1} for facts in needs_of(photos, "Little", 24)]
    assert [facts.pop("resized") for facts in beside[2:]] == [24] * 2
    assert [facts.pop("image_size") for facts in beside[2:]] == [32] * 2
    assert [facts.pop("image_size") for facts in little] == [24] * 2
    assert beside[2:] == little


@pytest.fixture(scope="module")
def trained(backbones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    photos = draw_photos(folder / "photos")
    flags = {
        **FLAGS,
        "data.source": str(photos),
        "model.backbone": BOTH.split("+"),
        "phases.0.head_start": "kept",
    }
    return folder, train_run(load_config(None, flags=flags), folder / "run").to_json()


def test_the_head_scales_the_features_of_all_nets_alike(trained):
    folder, result = trained
    assert result["phases"][0]["frozen_proof"] == "equal"
    assert result["phases"][0]["activations"]["views"] == 2
    config = load_config(folder / "run" / "config.toml")
    assert config.model.backbone == BOTH
    source = scan_source(config.data, seed=0)
    model = bundle.load(folder / "run" / "model.keras").model
    context = RunContext(Run(folder / "run"), Plan.of(config), source, silent, {})
    features = keras.Model(model.inputs, trained_module.features_of(model))
    seen = bundle.compute(features, context.batches("train"))
    mean, variance, count = model.get_layer("head_standardise").get_weights()
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-3, atol=1e-6)  # stored in float16
    np.testing.assert_allclose(variance, seen.var(0), rtol=2e-2, atol=1e-9)
    assert (len(mean), count) == (8, 24)
    standardised = keras.Model(model.inputs, model.get_layer("head_standardise").output)
    scaled = bundle.compute(standardised, context.batches("train"))
    assert np.abs(scaled.mean(0)).max() < 0.1


def test_unfreezing_trains_the_top_block_of_each_and_nothing_else(trained):
    folder, _ = trained
    before = bundle.load(folder / "run" / "model.keras").model
    kept = weights_by_name(before)
    flags = {**SECOND, "phases.-1.learning_rate": 1e-2}
    phase = continue_run(folder / "run", flags=flags).to_json()["phases"][-1]
    assert (phase["improved"], phase["activations"]["found"]) == (True, True)
    after = bundle.load(folder / "run" / "model.keras").model
    changed = {path.split("/")[0] for path in moved(kept, after)}
    assert changed == {"net0_block_2_a_conv", "net1_block_2_a_conv", "logits"}


@pytest.mark.slow  # of one net: test_bundle.py
def test_the_model_loads_in_plain_keras(trained):
    folder, _ = trained
    code = (
        "import keras, numpy as np\n"
        "model = keras.models.load_model('run/model.keras')\n"
        "print(model.predict(np.zeros((1, 32, 32, 3)), verbose=0).shape)\n"
    )
    assert without_kerasft(code, folder) == "(1, 3)\n"


def test_several_nets_with_one_file_of_weights_are_refused():
    from kerasft.errors import UserError

    flags = {"data.source": "photos", "model.backbone": BOTH, "model.weights": "some.h5"}
    with pytest.raises(UserError) as error:
        load_config(None, flags=flags)
    assert str(error.value) == (
        "the options have 1 problem:\n  model.weights (`flags`): a run or a file fits one "
        "backbone, got several. Expected 'imagenet', 'none', or the weights of each, joined by "
        "'+'."
    )
