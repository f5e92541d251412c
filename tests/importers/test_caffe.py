"""Caffe's nets, compared with OpenCV, which reads the same files and shares no code with us.

At their full size, with random weights that keep what goes through them at about one size.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest
from caffe_files import ALEXNET_DEPLOY, CAFFENET_DEPLOY, write_caffemodel, write_mean
from caffe_nets import OF_ALEXNET, of_vgg, random_layers, write_case
from PIL import Image

from kerasft.backbones.compatibility import backbone_of
from kerasft.backbones.imagenet_classes import labels
from kerasft.cli.nets import import_text
from kerasft.errors import UserError
from kerasft.evaluation.predict import predict
from kerasft.importers.caffe import import_caffe
from kerasft.models import build
from kerasft.models.weights import load_file


@pytest.fixture(scope="module")
def caffenet(tmp_path_factory):
    case = write_case("caffenet", tmp_path_factory.mktemp("caffenet"))
    yield case
    case.caffemodel.unlink()


def pictures(side, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (2, side, side, 3)).astype("float32")


def by_opencv(case, images):
    """Computes the output of each layer of `case.names` for RGB images with OpenCV."""
    net = cv2.dnn.readNetFromCaffe(str(case.prototxt), str(case.caffemodel))
    net.enableFusion(False)
    blue_first = images[..., ::-1] - np.array(case.mean, "float32")
    net.setInput(np.ascontiguousarray(blue_first.transpose(0, 3, 1, 2)))
    outputs = net.forward(list(case.names))
    return {
        name: out.transpose(0, 2, 3, 1) if out.ndim == 4 else out
        for name, out in zip(case.names, outputs, strict=True)
    }


def by_keras(case, file, images):
    net = build._build(case.spec, case.side, None, include_top=True)
    load_file(net, file, name=case.spec)
    operations = {operation.name: operation for operation in net.operations}
    every = keras.Model(net.inputs[0], [operations[n].output for n in case.names.values()])
    return dict(zip(case.names, map(np.asarray, every.predict_on_batch(images)), strict=True))


def compare(case, tmp_path):
    file = tmp_path / "weights.h5"
    report = import_caffe(case.prototxt, case.caffemodel, case.backbone, file)
    images = pictures(case.side)
    expected, got = by_opencv(case, images), by_keras(case, file, images)
    for name, theirs in expected.items():
        assert np.abs(theirs[0] - theirs[1]).max() > 1e-3 * np.abs(theirs).max(), name
        np.testing.assert_allclose(
            got[name], theirs, atol=1e-4 * np.abs(theirs).max(), err_msg=name
        )
    file.unlink()
    return report


def test_every_layer_of_caffenet_computes_what_opencv_computes(caffenet, tmp_path):
    report = compare(caffenet, tmp_path)
    assert (report.backbone, report.parameters) == ("CaffeNet", 60_965_224)
    assert (report.top, report.left_out, report.unused) == (True, (), ())
    assert report.to_json()["layers"][:3] == [
        {"layer": "conv1", "from": "conv1"},
        {"layer": "conv2_group1", "from": "conv2"},
        {"layer": "conv2_group2", "from": "conv2"},
    ]


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(net, marks=pytest.mark.slow) for net in ("alexnet", "vgg16", "vgg19")],
)
def test_every_layer_of_the_other_nets_computes_what_opencv_computes(backbone, tmp_path):
    # Also V1 layers with legacy shapes, as the published files have them.
    case = write_case(backbone, tmp_path, version="v1", legacy=True)
    assert compare(case, tmp_path).backbone == case.spec


def test_an_imported_net_names_photos_as_it_is_with_the_labels_of_imagenet(caffenet, tmp_path):
    file = tmp_path / "caffenet.h5"
    import_caffe(caffenet.prototxt, caffenet.caffemodel, "caffenet", file)
    pixels = np.random.default_rng(0).integers(0, 256, (227, 227, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = by_opencv(caffenet, pixels[None].astype("float32"))["prob"][0]
    (result,) = predict(file, [tmp_path / "photo.png"], top=3)
    best = np.argsort(expected)[::-1][:3]
    names = [label.replace(" ", "_") for label in labels()]
    assert [best.label for best in result.labels] == [names[i] for i in best]
    scores = [best.score for best in result.labels]
    np.testing.assert_allclose(scores, expected[best], atol=1e-4 * expected.max())


def test_another_last_layer_is_left_out_and_named_and_the_inner_ones_are_there(caffenet, tmp_path):
    definition = CAFFENET_DEPLOY.replace('"fc8"', '"fc8_flickr"').replace("1000", "20")
    (tmp_path / "flickr.prototxt").write_text(definition)
    layers = random_layers(OF_ALEXNET[:-1])
    layers.append(("fc8_flickr", "InnerProduct", [np.zeros((20, 4096), "f4"), np.zeros(20, "f4")]))
    layers.append(("fc9", "InnerProduct", [np.zeros((2, 20), "f4"), np.zeros(2, "f4")]))
    model = write_caffemodel(tmp_path / "flickr.caffemodel", layers)
    file = tmp_path / "flickr.h5"
    report = import_caffe(tmp_path / "flickr.prototxt", model, "caffenet", file)
    assert report.left_out == ("'fc8_flickr' (fc8): expected weights 1000x4096, got 20x4096.",)
    assert (report.top, report.unused) == (False, ("fc9",))
    assert report.parameters == 60_965_224 - 4_097_000
    base = build.load("CaffeNet", weights=str(file), image_size=227, features="fc7")
    images = pictures(227)
    expected = by_opencv(caffenet, images)["relu7"]  # the same seed, up to there
    got = base.predict_on_batch(images)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


# Only the convolutions, 9 MB.


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convolutions")
    (folder / "deploy.prototxt").write_text(CAFFENET_DEPLOY)
    write_caffemodel(folder / "net.caffemodel", random_layers(OF_ALEXNET[:5]))
    return folder


def run(folder, to, backbone="caffenet", **other):
    files = {"prototxt": folder / "deploy.prototxt", "caffemodel": folder / "net.caffemodel"}
    given = {**files, **other}
    return import_caffe(
        given["prototxt"], given["caffemodel"], backbone, to, mean=given.get("mean")
    )


def test_the_mean_it_was_trained_with_goes_into_the_first_bias(convolutions, tmp_path):
    image = np.full((3, 256, 256), 90, "float32")
    image[1] += 20
    image[2, :128], image[2, 128:] = 150, 130
    mean = write_mean(tmp_path / "mean.binaryproto", image)
    report = run(convolutions, tmp_path / "own.h5", mean=mean)
    assert (report.mean, report.mean_spread) == ((90, 110, 140), 10)
    assert backbone_of(tmp_path / "own.h5") == "CaffeNet"
    images = pictures(227)
    definition = tmp_path / "to_pool5.prototxt"
    definition.write_text(CAFFENET_DEPLOY[: CAFFENET_DEPLOY.index('layer {\n  name: "fc6"')])
    net = cv2.dnn.readNetFromCaffe(str(definition), str(convolutions / "net.caffemodel"))
    blue_first = images[..., ::-1] - np.float32([90, 110, 140])
    net.setInput(np.ascontiguousarray(blue_first.transpose(0, 3, 1, 2)))
    expected = net.forward().transpose(0, 2, 3, 1).reshape(2, -1)
    base = build.load("CaffeNet", weights=str(tmp_path / "own.h5"), image_size=227, features="flat")
    got = base.predict_on_batch(images)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    run(convolutions, tmp_path / "usual.h5")  # the control: without it they differ
    usual = build.load(
        "CaffeNet", weights=str(tmp_path / "usual.h5"), image_size=227, features="flat"
    )
    assert np.abs(usual.predict_on_batch(images) - expected).max() > 1e-2 * np.abs(expected).max()


def test_a_mean_that_the_definition_says_is_taken_and_of_doubles_too(convolutions, tmp_path):
    said = CAFFENET_DEPLOY.replace(
        'type: "Input"',
        'type: "Input" transform_param { mean_value: 90 mean_value: 110 mean_value: 140 }',
    )
    (tmp_path / "said.prototxt").write_text(said)
    doubles = [
        (name, kind, [array.astype("f8") for array in arrays])
        for name, kind, arrays in random_layers(OF_ALEXNET[:5])
    ]
    model = write_caffemodel(tmp_path / "doubles.caffemodel", doubles)
    before = model.read_bytes()
    given = {"prototxt": tmp_path / "said.prototxt", "caffemodel": model}
    assert run(convolutions, tmp_path / "said.h5", **given).mean == (90, 110, 140)
    assert model.read_bytes() == before
    mean = write_mean(
        tmp_path / "mean.binaryproto",
        np.float32([90, 110, 140])[:, None, None] * np.ones((3, 2, 2)),
    )
    run(convolutions, tmp_path / "file.h5", mean=mean)
    with h5py.File(tmp_path / "said.h5") as one, h5py.File(tmp_path / "file.h5") as other:
        for name in ("conv1/conv1/kernel:0", "conv1/conv1/bias:0"):
            np.testing.assert_allclose(one[name][()], other[name][()], rtol=1e-5, atol=1e-5)


def test_weights_of_a_net_with_the_same_shapes_in_another_order_are_refused(convolutions, tmp_path):
    layers = random_layers(OF_ALEXNET[:5])
    layers[1:1] = [("norm1", "LRN", []), ("pool1", "Pooling", [])]  # AlexNet's
    model = write_caffemodel(tmp_path / "alexnet.caffemodel", layers)
    assert refused(convolutions, tmp_path / "w.h5", caffemodel=model) == (
        f"{model}: is of another net than the definition: it has layer 'norm1' where the "
        "definition has 'pool1'."
    )
    layers[1:3] = layers[2:0:-1]
    write_caffemodel(model, layers)
    run(convolutions, tmp_path / "w.h5", caffemodel=model)


def test_names_of_a_file_reach_no_terminal_as_they_are(convolutions, tmp_path):
    name = "fc8\033]0;owned\007\n  all is well"
    escaped = (
        name.encode("unicode_escape").decode().replace("\\x1b", "\\033").replace("\\x07", "\\007")
    )
    (tmp_path / "odd.prototxt").write_text(
        CAFFENET_DEPLOY.replace('name: "fc8"', f'name: "{escaped}"')
    )
    layers = [*random_layers(OF_ALEXNET[:5]), (name, "InnerProduct", [np.zeros((2, 2), "f4")] * 2)]
    layers.append(("other\033", "InnerProduct", [np.zeros((2, 2), "f4")] * 2))
    model = write_caffemodel(tmp_path / "odd.caffemodel", layers)
    report = run(
        convolutions, tmp_path / "w.h5", prototxt=tmp_path / "odd.prototxt", caffemodel=model
    )
    lines = import_text(report).splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if "owned" in line and "(fc8)" in line]


def refused(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        run(*args, **kwargs)
    return str(caught.value)


def test_a_definition_of_another_net_is_refused_with_the_one_that_it_is(convolutions, tmp_path):
    file = tmp_path / "alexnet.prototxt"
    file.write_text(ALEXNET_DEPLOY)
    assert refused(convolutions, tmp_path / "w.h5", prototxt=file) == (
        f"{file}: is not CaffeNet. It is the net of `backbone=alexnet`.\n"
        "  'norm1': expected Pooling (pool1), got LRN."
    )


def test_all_settings_that_differ_are_named(convolutions, tmp_path):
    file = tmp_path / "other.prototxt"
    text = CAFFENET_DEPLOY.replace("stride: 4", "stride: 2").replace("0.0001", "0.0005", 1)
    file.write_text(text.replace("num_output: 384", "num_output: 256", 1))
    assert refused(convolutions, tmp_path / "w.h5", prototxt=file) == (
        f"{file}: is not CaffeNet.\n"
        "  'conv1': expected stride 4x4, got 2x2.\n"
        "  'norm1': expected alpha 0.0001, got 0.0005.\n"
        "  'conv3': expected num_output 384, got 256."
    )


def test_pixels_that_are_scaled_and_a_softmax_in_the_middle_are_another_net(convolutions, tmp_path):
    file = tmp_path / "other.prototxt"
    file.write_text(
        CAFFENET_DEPLOY.replace(
            'type: "Input"', 'type: "Input" transform_param { scale: 0.00390625 }'
        )
    )
    assert refused(convolutions, tmp_path / "w.h5", prototxt=file) == (
        f"{file}: layer 'data': scales pixels by 0.00390625. Expected grey levels from 0 to 255, "
        "as the published nets take them."
    )
    softmax = 'layer { name: "odd" type: "Softmax" bottom: "conv5" top: "conv5" }\n'
    at = CAFFENET_DEPLOY.index('layer {\n  name: "pool5"')
    file.write_text(CAFFENET_DEPLOY[:at] + softmax + CAFFENET_DEPLOY[at:])
    assert refused(convolutions, tmp_path / "w.h5", prototxt=file) == (
        f"{file}: is not CaffeNet.\n  'odd': expected Pooling (pool5), got Softmax."
    )


def test_a_definition_that_ends_before_its_last_convolution_is_refused(convolutions, tmp_path):
    file = tmp_path / "short.prototxt"
    file.write_text(CAFFENET_DEPLOY[: CAFFENET_DEPLOY.index('layer {\n  name: "conv5"')])
    assert refused(convolutions, tmp_path / "w.h5", prototxt=file) == (
        f"{file}: is not CaffeNet.\n  conv5: expected Convolution, the definition ends before it."
    )


def test_convolutions_that_do_not_fit_are_all_named_and_nothing_is_written(convolutions, tmp_path):
    layers = random_layers(OF_ALEXNET[:4])
    layers[1][2][0] = layers[1][2][0][:, :, :3, :3]
    layers[2][2][1] = layers[2][2][1][:5]
    model = write_caffemodel(tmp_path / "odd.caffemodel", layers)
    assert refused(convolutions, tmp_path / "w.h5", caffemodel=model) == (
        f"{model}: does not fit CaffeNet:\n"
        "  conv2: expected weights 256x48x5x5, got 256x48x3x3.\n"
        "  conv3: expected 384 biases, got 5.\n"
        "  conv5: expected weights 256x192x3x3 and biases, got none."
    )
    layers[0][2].append(np.zeros(3, "f4"))
    model = write_caffemodel(tmp_path / "odd.caffemodel", layers)
    assert refused(convolutions, tmp_path / "w.h5", caffemodel=model) == (
        f"{model}: has layers that can't be used:\n"
        "  'conv1': expected 2 blobs, weights and biases, got 3."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["odd.caffemodel"]


def test_weights_that_are_no_numbers_are_refused_and_nothing_is_written(convolutions, tmp_path):
    layers = random_layers(OF_ALEXNET[:5])
    layers[3][2][0][7, 3, 1, 1] = np.nan
    model = write_caffemodel(tmp_path / "nan.caffemodel", layers)
    assert refused(convolutions, tmp_path / "w.h5", caffemodel=model) == (
        f"{model}: 'conv4': weights are infinite or not a number. Expected finite numbers; the "
        "training failed, or the file is damaged."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["nan.caffemodel"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 8, 8), "f4"), "expected a mean image of 3 channels, got 1x4x8x8."),
        (np.full((3, 8, 8), 256, "f4"), "expected grey levels from 0 to 255, got others."),
        (np.full((3, 8, 8), np.nan, "f4"), "expected grey levels from 0 to 255, got others."),
    ],
)
def test_a_mean_that_is_none_is_refused(array, message, convolutions, tmp_path):
    mean = write_mean(tmp_path / "mean.binaryproto", array)
    assert refused(convolutions, tmp_path / "w.h5", mean=mean) == f"{mean}: {message}"


def test_another_mean_of_a_net_that_pads_first_is_refused(tmp_path):
    (tmp_path / "deploy.prototxt").write_text(of_vgg(2, 2, 3, 3, 3)[0])
    mean = write_mean(tmp_path / "mean.binaryproto", np.full((3, 4, 4), 100, "f4"))
    message = refused(tmp_path, tmp_path / "w.h5", "vgg16", mean=mean)
    assert message.startswith(
        f"{mean}: VGG16 is trained with the mean 103.939, 116.779, 123.68 (blue, green, red)."
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.npz", "to: expected a name that ends in .h5"),
        ("w.weights.h5", "to: expected a name that ends in .h5"),
        ("there.h5", "is there already. Choose another, or remove it."),
        ("no/w.h5", "to: there is no folder "),
    ],
)
def test_a_bad_name_for_the_result_is_refused_first(name, message, convolutions, tmp_path):
    (tmp_path / "there.h5").touch()
    with pytest.raises(UserError) as caught:
        run(tmp_path / "nothing is here", tmp_path / name)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_whole_net_is_imported_within_half_of_its_size(caffenet, tmp_path):
    # All that the process has of its own, HDF5's and NumPy's included; not the mapped file.
    command = "from kerasft.cli.main import main; main()"
    files = [str(caffenet.prototxt), str(caffenet.caffemodel), "--to", str(tmp_path / "w.h5")]
    process = subprocess.Popen(
        [sys.executable, "-c", command, "import-caffe", *files, "--backbone", "caffenet"],
        stdout=subprocess.DEVNULL,
    )
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)  # not there any more at the very end
        peak = max(peak, int(found[1]) if found else 0)
        time.sleep(0.002)
    assert process.returncode == 0
    assert caffenet.caffemodel.stat().st_size > 240_000_000
    assert 10_000 < peak < 120_000
