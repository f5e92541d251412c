"""What a head may take of a backbone: from the choice to a run that is unfrozen."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from cells import CELLS, cells_constructor
from drawing import draw_photos
from keras.src.utils import file_utils
from tiny import TINY, moved, tiny_constructor, weights_by_name
from tiny_run import FLAGS, SECOND

from kerasft.activations.context import RunContext
from kerasft.activations.keys import needs_at
from kerasft.backbones.table import BACKBONES
from kerasft.config.fields import Data
from kerasft.config.load import load_config
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.heads import trained as trained_module
from kerasft.input_rule import InputRule
from kerasft.models import build, bundle
from kerasft.models.blocks import list_blocks
from kerasft.models.bundle import Bundle
from kerasft.models.cut import split
from kerasft.progress import silent
from kerasft.record import Device
from kerasft.run import Run
from kerasft.training.plan import plan_new
from kerasft.training.train import continue_run, plan_run, train_run

CPU = Device("tensorflow", "cpu", "", 2)
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
TOPPED = replace(TINY, name="Topped", block_key=r"^(?:block_|fc)\d", fully_connected=("fc1", "fc2"))


def topped_constructor(*, input_tensor, include_top, classifier_activation="softmax", **others):
    """Tiny with the top that VGG has: flattened, two fully connected layers, 1000 scores."""
    others |= {"pooling": None if include_top else others["pooling"]}
    base = tiny_constructor(input_tensor=input_tensor, include_top=False, **others)
    if not include_top:
        return base
    x = keras.layers.Flatten(name="flatten")(base.outputs[0])
    for name in ("fc1", "fc2"):
        x = keras.layers.Dense(6, "relu", name=name)(x)
    x = keras.layers.Dense(10, classifier_activation, name="predictions")(x)
    return keras.Model(base.inputs, x)


@pytest.fixture(scope="module", autouse=True)
def backbones(tiny_backbone):
    """Tiny; Topped, which has fully connected layers; Cells, at whose cuts two tensors are."""
    with pytest.MonkeyPatch.context() as patch:
        for row, constructor in ((TOPPED, topped_constructor), (CELLS, cells_constructor)):
            patch.setitem(BACKBONES, row.name, row)
            patch.setattr(keras.applications, row.name, constructor, raising=False)
        yield


def load(name, **choice):
    return build.load(name, weights="none", image_size=32, **choice)


def run(model, pixels=PIXELS):
    return np.asarray(model(pixels, training=False))


def at(model, layer):
    return run(keras.Model(model.inputs[0], model.get_layer(layer).output))


def names_of(model, row):
    return [block.name for block in list_blocks(model, row)]


def test_flat_features_are_the_places_side_by_side_whose_average_is_pooled():
    flat, pooled = run(load("Tiny", features="flat")), run(load("Tiny"))
    assert (flat.shape, pooled.shape) == ((2, 4 * 4 * 4), (2, 4))
    np.testing.assert_allclose(flat.reshape(2, 16, 4).mean(axis=1), pooled, atol=1e-6)
    assert flat.reshape(2, 16, 4).std(axis=1).max() > 0.01


@pytest.mark.parametrize(("leave_out", "layer"), [(1, "block_1_a_relu"), (2, "stem_relu")])
def test_features_are_what_enters_the_blocks_that_are_left_out(leave_out, layer):
    whole = load("Tiny")
    expected = at(whole, layer)
    pooled = load("Tiny", leave_out=leave_out)
    np.testing.assert_allclose(run(pooled), expected.mean(axis=(1, 2)), atol=1e-6)
    flat = load("Tiny", features="flat", leave_out=leave_out)
    np.testing.assert_array_equal(run(flat), expected.reshape(2, -1))
    assert names_of(pooled, TINY) == names_of(whole, TINY)[leave_out:]
    assert not [layer.name for layer in pooled.layers if layer.name.startswith("block_2")]


@pytest.mark.parametrize(
    "leave_out", [1, 5, *(pytest.param(one, marks=pytest.mark.slow) for one in (2, 4))]
)
def test_of_two_tensors_that_enter_a_cell_both_are_taken(leave_out):
    whole = load("Cells")
    entering = list_blocks(whole, CELLS)[leave_out - 1].inputs
    expected = [run(keras.Model(whole.inputs[0], tensor)) for tensor in entering]
    assert len(expected) == (1 if leave_out == 5 else 2)
    pooled = load("Cells", leave_out=leave_out)
    averages = np.concatenate([x.mean(axis=(1, 2)) for x in expected], axis=1)
    np.testing.assert_allclose(run(pooled), averages, atol=1e-6)
    flat = load("Cells", features="flat", leave_out=leave_out)
    rows = np.concatenate([x.reshape(2, -1) for x in expected], axis=1)
    np.testing.assert_array_equal(run(flat), rows)
    for base in (pooled, flat):
        assert names_of(base, CELLS) == names_of(whole, CELLS)[leave_out:]
    # What is at the cuts below is what is there in the whole net, and so is the order of both.
    head = trained_module.attach(pooled, 2, hidden=(), dropout=0.0, seed=0)
    for blocks in range(1, 6 - leave_out):
        mine = split(head, blocks, CELLS).prefix
        top = trained_module.attach(whole, 2, hidden=(), dropout=0.0, seed=0)
        np.testing.assert_array_equal(run(mine), run(split(top, blocks + leave_out, CELLS).prefix))


@pytest.mark.parametrize(("features", "layer"), [("fc6", "fc1"), ("fc7", "fc2")])
def test_inner_fully_connected_layers_are_features_and_blocks(features, layer):
    base = load("Topped", features=features)
    assert base.output_shape == (None, 6)
    assert base.layers[-1].name == layer
    assert (
        names_of(base, TOPPED) == ["fc2", "fc1", "block_2", "block_1", "stem"][features == "fc6" :]
    )
    assert list_blocks(base, TOPPED)[-4].layers[0] == "flatten"
    model = trained_module.attach(base, 2, hidden=(), dropout=0.0, seed=0)
    whole = run(keras.Model(model.inputs[0], model.get_layer("logits").output))
    for blocks in range(4):
        cut = split(model, blocks, TOPPED)
        np.testing.assert_allclose(run(cut.suffix, run(cut.prefix)), whole, atol=1e-6)


# files


def test_a_file_of_the_whole_net_fills_its_fully_connected_layers(tmp_path):
    whole = topped_constructor(
        input_tensor=keras.Input((32, 32, 3)), include_top=True, weights=None
    )
    for name in ("whole.h5", "whole.keras"):
        whole.save(tmp_path / name)
        for features, layer in (("fc6", "fc1"), ("fc7", "fc2")):
            base = build.load(
                "Topped", weights=str(tmp_path / name), image_size=32, features=features
            )
            np.testing.assert_array_equal(
                base.get_layer(layer).get_weights()[0], whole.get_layer(layer).get_weights()[0]
            )


def test_a_file_without_a_top_has_no_fully_connected_layers(tmp_path):
    path = tmp_path / "base.keras"
    load("Topped").save(path)
    with pytest.raises(UserError) as error:
        build.load("Topped", weights=str(path), image_size=32, features="fc7")
    assert str(error.value) == (
        f"{path}: does not fit Topped:\n  only in Topped: fc1, fc2\n"
        "  Features 'fc7' need a file of the whole net, with its top, for the same side; or take "
        "head.features 'pooled' or 'flat'."
    )
    assert error.value.exit_code == 2


def test_weights_of_what_a_run_has_left_fill_the_same_again_and_nothing_larger(tmp_path):
    path = tmp_path / "model.keras"
    base = load("Tiny", seed=5, leave_out=1)
    model = trained_module.attach(base, 2, hidden=(), dropout=0.0, seed=0)
    bundle.save(Bundle(model, ("a", "b"), InputRule(32)), path)
    again = build.load("Tiny", weights=str(path), image_size=32, features="flat", leave_out=1)
    np.testing.assert_array_equal(at(again, "block_1_a_relu"), at(base, "block_1_a_relu"))
    with pytest.raises(UserError, match="only in Tiny: block_2_a_conv, block_2_a_norm"):
        build.load("Tiny", weights=str(path), image_size=32)


def test_a_file_of_all_blocks_fills_those_that_are_left(tmp_path):
    whole = load("Tiny", seed=5)
    whole.save(tmp_path / "base.h5")
    base = build.load("Tiny", weights=str(tmp_path / "base.h5"), image_size=32, leave_out=1)
    np.testing.assert_array_equal(at(base, "block_1_a_relu"), at(whole, "block_1_a_relu"))


# the keys of stores


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = draw_photos(tmp_path_factory.mktemp("drawn") / "photos")
    return folder, scan_source(Data(source=str(folder)), seed=0)


def plain_at(blocks, drawn, *sets, backbone="Tiny"):
    """What a run needs of the plain views at a cut."""
    folder, found = drawn
    flags = {**FLAGS, "data.source": str(folder), "model.backbone": backbone}
    config = load_config(None, flags=flags, sets=[*sets, "cache.engine=folded"])
    machine = Device("tensorflow", "cpu", "", 2)
    plan, net = plan_new(config, found, CPU)
    context = RunContext(Run(folder), plan, found, silent, machine)
    (need, *_) = needs_at(
        context.config, context.source, context.machine, config.phases[0], net, blocks, "float16"
    )
    return need


def test_keys_tell_features_apart_where_weights_do_not(drawn):
    pooled = plain_at(0, drawn)
    assert pooled.tensor.facts["blocks"] == 0
    assert not {"features", "leave_out"} & set(pooled.tensor.facts)  # as before there was a choice
    flat = plain_at(0, drawn, "head.features=flat")
    assert {**flat.tensor.facts, "features": None} == {**pooled.tensor.facts, "features": None}
    assert (flat.tensor.facts["features"], flat.shape) == ("flat", (64,))
    # Norms have no part in the stem's end: the same weights, another place.
    lower = plain_at(0, drawn, "head.leave_out=1")
    assert lower.tensor.facts["leave_out"] == 1
    both = plain_at(0, drawn, "head.leave_out=1", "head.features=flat")
    digests = {need.tensor.digest for need in (pooled, flat, lower, both)}
    assert len(digests) == 4


def test_a_cut_below_the_features_is_the_same_store_whatever_the_head_takes(drawn):
    two = plain_at(2, drawn)
    assert plain_at(2, drawn, "head.features=flat").tensor.digest == two.tensor.digest
    assert plain_at(1, drawn, "head.leave_out=1").tensor.digest == two.tensor.digest


def test_of_fully_connected_layers_every_cut_has_its_own_key(drawn):
    needs = [
        plain_at(blocks, drawn, f"head.features={features}", backbone="Topped")
        for features, count in (("pooled", 3), ("flat", 1), ("fc6", 4), ("fc7", 5))
        for blocks in range(count)
    ]
    assert len({need.tensor.digest for need in needs}) == 13


# runs


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("backbone", "features", "leave_out", "trained"),
    [
        ("Tiny", "flat", 1, {"block_1_a_conv"}),
        slow("Topped", "fc7", 0, {"fc2"}),
        slow("Tiny+Topped", "flat", 0, {"net0_block_2_a_conv", "net1_block_2_a_conv"}),
    ],
)
def test_a_run_with_other_features_trains_unfreezes_and_ships(
    tmp_path, backbone, features, leave_out, trained
):
    photos = draw_photos(tmp_path / "photos")
    head = {"head.features": features, "head.leave_out": leave_out}
    flags = {**FLAGS, **head, "data.source": str(photos), "model.backbone": backbone}
    config = load_config(None, flags=flags)
    planned = plan_run(config).to_json()
    result = train_run(config, tmp_path / "run").to_json()
    (first,) = result["phases"]
    assert first["trainable_parameters"] == planned["phases"][0]["trainable_parameters"]
    assert (first["frozen_proof"], first["activations"]["views"]) == ("equal", 2)
    before = bundle.load(tmp_path / "run" / "model.keras").model
    kept = weights_by_name(before)
    more = {**SECOND, "phases.-1.learning_rate": 1e-2, "phases.-1.patience": 0}
    second = continue_run(tmp_path / "run", flags=more).to_json()["phases"][-1]
    assert (second["frozen_proof"], second["gap"]["accuracy"]) == ("equal", 0)
    after = bundle.load(tmp_path / "run" / "model.keras").model
    assert {path.split("/")[0] for path in moved(kept, after)} <= {*trained, "logits"}
    assert load_config(tmp_path / "run" / "config.toml").head.features == features


# the nets of the table


def test_the_last_convolution_of_mobilenetv2_with_imagenet_weights_averages_to_its_features(assets):
    spec, pixels = "MobileNetV2:alpha=0.35", np.tile(PIXELS, (1, 7, 7, 1))
    pooled, flat = (
        build.load(spec, weights="imagenet", image_size=224, features=features)
        for features in ("pooled", "flat")
    )
    assert flat.output_shape == (None, 7 * 7 * 1280)
    places = run(flat, pixels).reshape(2, 49, 1280)
    np.testing.assert_allclose(places.mean(axis=1), run(pooled, pixels), atol=1e-5)
    lower = build.load(spec, weights="imagenet", image_size=224, leave_out=3)
    inner = keras.Model(pooled.inputs[0], pooled.get_layer("block_13_project_BN").output)
    np.testing.assert_allclose(run(lower, pixels), run(inner, pixels).mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.slow
def test_convnext_flattens_places_that_are_normalised_each():
    flat = load("ConvNeXtTiny", features="flat")
    assert isinstance(flat.layers[-2], keras.layers.LayerNormalization)
    places = run(flat).reshape(2, 1, 768)
    np.testing.assert_allclose(places.mean(axis=-1), 0, atol=1e-4)
    np.testing.assert_allclose(places.std(axis=-1), 1, atol=1e-2)
    assert load("ConvNeXtTiny", leave_out=3).output_shape == (None, 384)


@pytest.mark.slow
def test_the_fully_connected_layers_of_vgg16(monkeypatch):
    row = BACKBONES["VGG16"]
    for features, blocks in (("fc6", 6), ("fc7", 7)):
        base = load("VGG16", features=features)
        assert base.output_shape == (None, 4096)
        assert names_of(base, row)[-5:] == ["block5", "block4", "block3", "block2", "block1"]
        assert len(list_blocks(base, row)) == blocks
        assert list_blocks(base, row)[-6].layers == ("flatten", "fc1")
    asked = []

    def get_file(name, *_, **__):
        asked.append(name)
        raise OSError(f"no {name}")

    monkeypatch.setattr(file_utils, "get_file", get_file)  # of Keras: it would download
    with pytest.raises(UserError, match="the ImageNet files of VGG16 can't be loaded"):
        build.load("VGG16", weights="imagenet", image_size=224, features="fc7")
    assert asked == ["vgg16_weights_tf_dim_ordering_tf_kernels.h5"]


# what there is not


def refusal(*sets, **flags):
    with pytest.raises(UserError) as error:
        load_config(None, flags={"data.source": "photos", **flags}, sets=sets)
    assert error.value.exit_code == 2
    return str(error.value).partition(":\n  ")[2]


def test_features_that_a_backbone_does_not_have_are_refused_with_the_config():
    assert refusal("head.features=fc7") == (
        "head (`sets`): features 'fc7' come from an inner fully connected layer, which MobileNetV2 "
        "does not have. Use 'pooled' or 'flat', or one of the backbones VGG16, VGG19, AlexNet, "
        "CaffeNet, AlexNetOWT, Topped."
    )
    assert refusal("head.features=fc6", **{"model.backbone": "VGG16+MobileNet"}).startswith(
        "head (`sets`): features 'fc6' come from an inner fully connected layer, which MobileNet "
    )
    assert refusal("head.features=fc6", **{"model.backbone": "VGG16", "model.image_size": 96}) == (
        "head (`sets`): with features 'fc6' the ImageNet weights need 224 pixels a side, got 96. "
        "Leave image_size out, or use 'pooled' or 'flat'."
    )
    assert refusal("head.features=fc6", "head.leave_out=1", **{"model.backbone": "VGG16"}) == (
        "head (`sets`): leave_out works only with features 'pooled', 'flat' and 'depths', got 1 "
        "with 'fc6'. Remove it."
    )
    assert refusal("head.leave_out=5", **{"model.backbone": "MobileNet+VGG16"}) == (
        "head (`sets`): VGG16 has 5 blocks, so leave_out is at most 4, got 5. `kerasft blocks "
        "VGG16` lists them."
    )
    assert "'pooled', 'flat', 'depths', 'fc6' or 'fc7', got 'fc8'" in refusal("head.features=fc8")
    assert "head.leave_out (`sets`): expected at least 0, got -1." in refusal("head.leave_out=-1")


def test_several_nets_see_their_own_side_and_may_all_have_fully_connected_layers():
    flags = {"data.source": "photos", "model.backbone": "VGG16+VGG19", "model.image_size": 300}
    config = load_config(None, flags={**flags, "head.features": "fc7"})
    assert config.head.features == "fc7"
    with pytest.raises(UserError, match=r"^head: Tiny has 3 blocks, so leave_out is at most 2"):
        load("Tiny", leave_out=3)
