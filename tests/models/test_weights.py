import os
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kerasft.errors import UserError
from kerasft.models.build import load
from kerasft.models.weights import load_file

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SMALL = "MobileNet:alpha=0.25"


@pytest.fixture(autouse=True)
def forget_the_models():
    yield
    keras.backend.clear_session()


def tiny(depth=2, width=4, head=None, pixels=(8, 8, 3)):
    """A net of `depth` convolutions "conv0", ..., each with an auto-named norm; and a head."""
    inputs = keras.Input(pixels)
    x = inputs
    for i in range(depth):
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if head:
        x = keras.layers.Dense(head, name="predictions")(x)
    model = keras.Model(inputs, x)
    random = np.random.default_rng(depth * 100 + width)
    model.set_weights([random.uniform(1, 2, w.shape) for w in model.get_weights()])
    return model


def fresh(depth=2, width=4):
    model = tiny(depth, width)
    model.set_weights([np.zeros(w.shape) for w in model.get_weights()])
    return model


def assert_same_weights(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


FORMATS = ("net.h5", "net.weights.h5", "net.keras")


def save(model, path):
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("kerasft")]


def features(model, side):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype("float32")
    return np.asarray(model(pixels, training=False))


# --- files that fit ---


@pytest.mark.parametrize("name", FORMATS)
def test_a_net_comes_back_from_every_format(name, tmp_path):
    saved, net = tiny(), fresh()
    load_file(net, save(saved, tmp_path / name), name="Tiny")
    assert_same_weights(net, saved)


@pytest.mark.parametrize("name", FORMATS)
def test_a_top_is_left_out(name, tmp_path, caplog):
    caplog.set_level("INFO", logger="kerasft")
    saved, net = tiny(head=5), fresh()
    path = save(saved, tmp_path / name)
    load_file(net, path, name="Tiny")
    for a, b in zip(net.get_weights(), saved.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    if name != "net.weights.h5":  # in which Keras doesn't look at what it doesn't need
        assert said(caplog) == [f"{path}: the top is not used: predictions."]


@pytest.mark.parametrize("name", FORMATS)
def test_a_net_that_was_frozen_when_it_was_saved_fits(name, tmp_path):
    saved, net = tiny(), fresh()
    saved.trainable = False
    load_file(net, save(saved, tmp_path / name), name="Tiny")
    assert_same_weights(net, saved)


def test_a_net_inside_another_model_fits(tmp_path):
    saved, net = tiny(), fresh()
    pixels = keras.Input((8, 8, 3))
    whole = keras.Model(pixels, keras.layers.Dense(2)(saved(pixels, training=False)))
    load_file(net, save(whole, tmp_path / "whole.keras"), name="Tiny")
    assert_same_weights(net, saved)


def test_names_that_keras_split_because_they_were_long_are_read(tmp_path):
    saved, net = tiny(), fresh()
    path = save(saved, tmp_path / "net.h5")
    with h5py.File(path, "a") as file:
        group = file["model_weights"]
        names = list(group.attrs["layer_names"])
        del group.attrs["layer_names"]
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:3], names[3:]
    load_file(net, path, name="Tiny")
    assert_same_weights(net, saved)


def test_a_file_of_keras_applications_gives_the_features_of_imagenet(assets):
    path = assets / "models" / "mobilenet_2_5_224_tf_no_top.h5"
    expected = features(load(SMALL, weights="imagenet", image_size=64), 64)
    assert expected.max() > 0.1
    got = features(load(SMALL, weights=str(path), image_size=64), 64)
    np.testing.assert_array_equal(got, expected)


def test_a_file_of_keras_applications_with_its_top_gives_the_same_base(assets, caplog):
    caplog.set_level("INFO", logger="kerasft")
    path = assets / "models" / "mobilenet_7_5_224_tf.h5"
    net = load("MobileNet:alpha=0.75", weights=str(path), image_size=32)
    assert said(caplog) == [f"{path}: the top is not used: conv_preds."]
    assert_same_weights(net, load("MobileNet:alpha=0.75", weights="imagenet", image_size=32))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_efficientnet_computes_the_same_from_a_file(name, tmp_path):
    saved = load("EfficientNetB0", weights="none", image_size=32, seed=1)
    normalization = saved.layers[2]
    normalization.set_weights([np.full(3, 0.4), np.full(3, 0.2), np.array(0)])
    normalization.finalize_state()
    path = save(saved, tmp_path / name)
    net = load("EfficientNetB0", weights=str(path), image_size=32)
    np.testing.assert_array_equal(features(net, 32), features(saved, 32))


@pytest.mark.slow
def test_an_efficientnet_that_was_trained_on_other_pixels_is_refused(tmp_path):
    plain = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    path = save(plain, tmp_path / "plain.keras")
    with pytest.raises(UserError) as caught:
        load("EfficientNetB0", weights=str(path), image_size=32)
    assert str(caught.value) == (
        f"{path}: was trained on pixels that are scaled differently: EfficientNetB0 begins with "
        "Rescaling, Normalization, Rescaling, the file's model with Rescaling, Normalization."
    )


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["EfficientNetB0", "InceptionV3", "NASNetMobile",
                                  "MobileNetV3Small", "DenseNet121", "ConvNeXtTiny"])  # fmt: skip
def test_a_base_comes_back_from_under_a_head_that_has_statistics_too(spec, tmp_path):
    saved = load(spec, weights="none", image_size=96, seed=1)
    statistics = keras.layers.Normalization(name="statistics")
    statistics.build(saved.output_shape)
    head = keras.layers.Dense(2, name="logits")(statistics(saved.outputs[0]))
    path = save(keras.Model(saved.inputs[0], head), tmp_path / "whole.keras")
    assert_same_weights(load(spec, weights=str(path), image_size=96), saved)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["VGG16", "MobileNetV3Large", "DenseNet121", "Xception",
                                  "InceptionV3", "ConvNeXtTiny", "ResNet50V2"])  # fmt: skip
@pytest.mark.parametrize("name", FORMATS)
def test_the_files_of_every_kind_of_net_come_back(spec, name, tmp_path):
    saved = load(spec, weights="none", image_size=96, seed=1)
    net = load(spec, weights=str(save(saved, tmp_path / name)), image_size=96)
    assert_same_weights(net, saved)


# --- files that don't ---


@pytest.mark.parametrize("name", FORMATS)
def test_different_shapes_are_named(name, tmp_path):
    path = save(tiny(width=6), tmp_path / name)
    with pytest.raises(UserError) as caught:
        load_file(fresh(), path, name="Tiny")
    assert str(caught.value).splitlines() == [
        f"{path}: does not fit Tiny:",
        "  different shapes: conv0 (Tiny 3x3x3x4 4, file 3x3x3x6 6), "
        "batch_normalization number 1 (Tiny 4 4 4 4, file 6 6 6 6), "
        "conv1 (Tiny 3x3x4x4 4, file 3x3x6x6 6), "
        "batch_normalization number 2 (Tiny 4 4 4 4, file 6 6 6 6)",
    ]
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_missing_in_the_file_is_named(name, tmp_path):
    path = save(tiny(depth=1), tmp_path / name)
    with pytest.raises(UserError) as caught:
        load_file(fresh(), path, name="Tiny")
    assert str(caught.value).splitlines() == [
        f"{path}: does not fit Tiny:",
        "  only in Tiny: conv1, batch_normalization number 2",
    ]


def test_a_longer_net_of_the_same_family_is_no_top(tmp_path):
    # As in VGG19 for VGG16: what the file has more lies in the middle.
    longer = tiny(depth=1)
    x = keras.layers.Conv2D(4, 3, name="more")(longer.layers[-2].output)
    x = keras.layers.Conv2D(4, 3, name="conv1")(x)
    x = keras.layers.BatchNormalization()(x)
    path = save(keras.Model(longer.inputs[0], x), tmp_path / "longer.keras")
    with pytest.raises(UserError) as caught:
        load_file(fresh(), path, name="Tiny")
    assert str(caught.value).splitlines() == [
        f"{path}: does not fit Tiny:",
        "  only in the file: more",
    ]


def test_another_net_is_named_by_ten_layers_and_a_count(assets):
    path = assets / "models" / "mobilenet_2_5_224_tf_no_top.h5"
    with pytest.raises(UserError) as caught:
        load("MobileNetV2:alpha=0.35", weights=str(path), image_size=32)
    assert str(caught.value).splitlines() == [
        f"{path}: does not fit MobileNetV2:alpha=0.35:",
        "  only in MobileNetV2:alpha=0.35: Conv1, bn_Conv1, expanded_conv_depthwise, "
        "expanded_conv_depthwise_BN, expanded_conv_project, expanded_conv_project_BN, "
        "block_1_expand, block_1_expand_BN, block_1_depthwise, block_1_depthwise_BN and 94 more",
        "  only in the file: conv1, conv1_bn, conv_dw_1, conv_dw_1_bn, conv_pw_1, conv_pw_1_bn, "
        "conv_dw_2, conv_dw_2_bn, conv_pw_2, conv_pw_2_bn and 44 more",
    ]


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        load(SMALL, weights=str(tmp_path / "no.h5"), image_size=32)
    assert str(caught.value) == (
        f"weights: there is no file {tmp_path / 'no.h5'}. Expected 'imagenet', 'sample', 'none' "
        "or a file."
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_refused(name, tmp_path):
    path = save(tiny(), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged"):
        load_file(fresh(), path, name="Tiny")


def linked(file, other):
    file["stray"] = h5py.ExternalLink(other, "weights")


def stored_outside(file, other):
    file.create_dataset("stray", (4,), "float32", external=[(other, 0, 16)])


def virtual(file, other):
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(other, "weights", (4,))
    file.create_virtual_dataset("stray", layout)


@pytest.mark.parametrize(
    ("name", "lay", "inside"),
    [
        ("net.h5", linked, ""),
        ("net.h5", stored_outside, "deep"),
        ("net.weights.h5", linked, "deep"),
        ("net.weights.h5", virtual, ""),
    ],
)
def test_a_file_that_reads_from_another_file_is_refused(name, lay, inside, tmp_path):
    path = save(tiny(), tmp_path / name)
    load_file(fresh(), path, name="Tiny")  # the control
    other = str(tmp_path / "secret.h5")
    with h5py.File(other, "w") as file:
        file["weights"] = np.arange(4, dtype="float32")
    with h5py.File(path, "a") as file:
        lay(file.create_group(inside) if inside else file, other)
    with pytest.raises(UserError) as caught:
        load_file(fresh(), path, name="Tiny")
    where = f"/{inside}/stray" if inside else "/stray"
    assert str(caught.value) == (
        f"{path}: '{where}' lies in another file, to which this one links. Weights are read from a "
        "single file only: copy them into it."
    )


def test_links_that_lead_back_into_the_file_end(tmp_path):
    path = save(tiny(), tmp_path / "net.h5")
    with h5py.File(path, "a") as file:
        group = file.create_group("round")
        group["hard"] = file["/"]
        group["soft"] = h5py.SoftLink("/round")
        group["nowhere"] = h5py.SoftLink("/absent")
    load_file(fresh(), path, name="Tiny")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "notes.h5"
    path.write_text("weights")
    with pytest.raises(UserError) as caught:
        load_file(fresh(), path, name="Tiny")
    assert str(caught.value) == (
        f"{path}: expected weights (.h5, .weights.h5) or a model (.keras), got neither; or the "
        "file is damaged."
    )


def test_a_zip_that_is_no_model_is_refused(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    path = (tmp_path / "arrays.npz").rename(tmp_path / "arrays.keras")
    with pytest.raises(UserError, match=r"arrays\.keras: Keras can't open it as a model: "):
        load_file(fresh(), path, name="Tiny")


def test_weights_of_keras_3_under_another_name_say_which_name_they_need(tmp_path):
    path = save(tiny(), tmp_path / "net.weights.h5").rename(tmp_path / "net.hdf5")
    with pytest.raises(UserError, match=r"its name must end in \.weights\.h5"):
        load_file(fresh(), path, name="Tiny")


# --- ImageNet files ---


def test_without_a_network_the_message_names_file_and_folder(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "mobilenet_2_5_224_tf_no_top.h5").write_bytes(b"\x89HDF\r\n\x1a\n")  # cut short
    program = """
from kerasft.models.build import load
from kerasft.errors import UserError
import sys
for spec in ("MobileNetV2:alpha=0.5", "MobileNet:alpha=0.25"):
    try:
        load(spec, weights="imagenet", image_size=96)
    except UserError as error:
        print(f"[{error.exit_code}]", error, file=sys.stderr)
"""
    # A port that nobody listens at: the download fails at once, wherever the test runs.
    nowhere = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY, env=os.environ | nowhere, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""  # Keras' "Downloading data from ..." went to stderr
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_96_no_top.h5"
    assert (
        "[1] weights: the ImageNet files of MobileNetV2:alpha=0.5 are not here and can't be "
        "downloaded: "
    ) in done.stderr
    assert (
        f" Connection refused.\n"
        f"  Put the file {name}\n"
        f"  into the folder {models}\n"
        "  (KERAS_HOME/models, if KERAS_HOME is set and can be written to). It comes from\n"
        "  https://storage.googleapis.com"
        f"/tensorflow/keras-applications/mobilenet_v2/{name}\n"
        "  Or choose other weights: 'sample' (in the package, to try it out), 'none' or a file.\n"
    ) in done.stderr
    assert (
        "[1] weights: the ImageNet files of MobileNet:alpha=0.25 can't be loaded: " in done.stderr
    )
    assert (
        f"  Damaged in {models}: mobilenet_2_5_224_tf_no_top.h5. Delete it, to download it again.\n"
    ) in done.stderr


def test_a_model_of_another_net_with_the_same_shapes_is_refused(tmp_path):
    load("AlexNet", weights="none", image_size=67).save(tmp_path / "alexnet.keras")
    load("VGG16:mode=torch", weights="none", image_size=32).save(tmp_path / "vgg.keras")
    load("AlexNet", weights=str(tmp_path / "alexnet.keras"), image_size=67)
    for spec, file, what in (
        ("CaffeNet", "alexnet.keras", "has its layers in a different order"),
        ("VGG16", "vgg.keras", "scales pixels differently"),
    ):
        with pytest.raises(UserError) as caught:
            load(spec, weights=str(tmp_path / file), image_size=67)
        assert str(caught.value) == (f"{tmp_path}/{file}: is not a model of {spec}: it {what}.")


def test_a_model_of_keras_itself_without_preprocessing_fills_vgg(tmp_path):
    donor = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    donor.save(tmp_path / "plain.keras")
    net = load("VGG16", weights=str(tmp_path / "plain.keras"), image_size=32)
    np.testing.assert_array_equal(
        net.get_layer("block3_conv1").kernel, donor.get_layer("block3_conv1").kernel
    )
