"""torchvision's AlexNet and VGG, compared with OpenCV on the same weights."""

import cv2
import keras
import numpy as np
import pytest
from caffe_files import write_caffemodel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from kerasft.backbones.compatibility import backbone_of
from kerasft.errors import UserError
from kerasft.importers.torchvision import import_torch
from kerasft.models import build
from kerasft.models.weights import load_file

# torchvision's names -> shapes, and the names of Caffe's layers that compute the same.
OF_ALEXNET = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}
CAFFE_NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def random_state(shapes, seed=0):
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        spread = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        state[f"{name}.weight"] = random.standard_normal(shape, np.float32) * spread
        state[f"{name}.bias"] = random.standard_normal(shape[0], np.float32) * np.float32(0.1)
    return state


def definition():
    """Writes the published net as a prototxt, by hand: "One weird trick" as torchvision has it."""
    lines = ['input: "data"', *(f"input_dim: {n}" for n in (1, 3, 224, 224))]
    bottom = "data"

    def add(kind, name, parameters="", top=None):
        nonlocal bottom
        lines.append(
            f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}" '
            f"{parameters} }}"
        )
        bottom = top or name

    pool = "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"
    for number, (filters, kernel, stride, pad) in enumerate(
        [(64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)], start=1
    ):
        add(
            "Convolution",
            f"conv{number}",
            f"convolution_param {{ num_output: {filters} kernel_size: {kernel} stride: {stride} "
            f"pad: {pad} }}",
        )
        add("ReLU", f"relu{number}", top=f"conv{number}")
        if number in (1, 2, 5):
            add("Pooling", f"pool{number}", pool)
    for number, units in ((6, 4096), (7, 4096), (8, 1000)):
        add("InnerProduct", f"fc{number}", f"inner_product_param {{ num_output: {units} }}")
        if number < 8:
            add("ReLU", f"relu{number}", top=f"fc{number}")
    add("Softmax", "prob")
    return "\n".join(lines)


AS_KERAS = {"relu1": "conv1", "pool1": "conv1_pool", "relu2": "conv2", "pool2": "conv2_pool"}
AS_KERAS |= {"relu3": "conv3", "relu4": "conv4", "relu5": "conv5", "pool5": "conv5_pool"}
AS_KERAS |= {"relu6": "fc6", "relu7": "fc7", "prob": "fc8"}


@pytest.mark.slow
def test_every_layer_of_alexnet_computes_what_opencv_computes_with_the_same_weights(tmp_path):
    state = random_state(OF_ALEXNET)
    save_file(state, tmp_path / "alexnet.safetensors")
    report = import_torch(tmp_path / "alexnet.safetensors", "alexnet", tmp_path / "alexnet.h5")
    assert (report.backbone, report.parameters) == ("AlexNetOWT", 61_100_840)
    assert (report.top, report.left_out, report.unused) == (True, (), ())
    (tmp_path / "net.prototxt").write_text(definition())
    layers = [
        (caffe, "InnerProduct" if caffe.startswith("fc") else "Convolution",
         [state[f"{name}.weight"], state[f"{name}.bias"]])
        for caffe, name in zip(CAFFE_NAMES, OF_ALEXNET, strict=True)
    ]  # fmt: skip
    model = write_caffemodel(tmp_path / "net.caffemodel", layers)
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    # As torchvision documents it: to 0..1, then normalised with these.
    scaled = (images / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    other = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(model))
    other.enableFusion(False)
    other.setInput(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
    expected = other.forward(list(AS_KERAS))

    net = build._build("AlexNetOWT", 224, None, include_top=True)
    load_file(net, tmp_path / "alexnet.h5", name="AlexNetOWT")
    outputs = [net.get_layer(name).output for name in AS_KERAS.values()]
    got = keras.Model(net.inputs[0], outputs).predict_on_batch(images)
    for name, theirs, ours in zip(AS_KERAS, expected, got, strict=True):
        theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        assert np.abs(theirs[0] - theirs[1]).max() > 1e-3 * np.abs(theirs).max(), name
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


# Only the convolutions.


OF_VGG = {
    f"features.{number}": (filters, channels, 3, 3)
    for number, filters, channels in [
        *((0, 64, 3), (2, 64, 64), (5, 128, 64), (7, 128, 128)),
        *((10, 256, 128), (12, 256, 256), (14, 256, 256)),
        *((17, 512, 256), (19, 512, 512), (21, 512, 512)),
        *((24, 512, 512), (26, 512, 512), (28, 512, 512)),
    ]
}


def test_vgg_sees_pixels_as_pytorch_scales_them_and_is_no_other_vgg(tmp_path):
    state = random_state(OF_VGG)
    save_file({f"module.{k}": v for k, v in state.items()}, tmp_path / "vgg.safetensors")
    report = import_torch(tmp_path / "vgg.safetensors", "vgg16", tmp_path / "vgg.h5")
    assert report.backbone == backbone_of(tmp_path / "vgg.h5") == "VGG16:mode=torch"
    assert [layer.source for layer in report.layers] == list(OF_VGG)
    assert list(report.left_out) == [
        "fc6: expected weights 4096x25088 and biases, got none.",
        "fc7: expected weights 4096x4096 and biases, got none.",
        "fc8: expected weights 1000x4096 and biases, got none.",
    ]
    base = build.load("VGG16:mode=torch", weights=str(tmp_path / "vgg.h5"), image_size=32)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    scaled = (images / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    first = keras.Model(base.inputs[0], base.get_layer("block1_conv1").output)
    kernel, bias = state["features.0.weight"], state["features.0.bias"]
    # At one place in the middle and in the corner, where 0 is padded behind the scaling.
    padded = np.pad(scaled, [(0, 0), (1, 1), (1, 1), (0, 0)])
    for y, x in ((0, 0), (9, 20)):
        window = padded[0, y : y + 3, x : x + 3].transpose(2, 0, 1)
        expected = np.maximum((kernel * window).sum(axis=(1, 2, 3)) + bias, 0)
        np.testing.assert_allclose(
            first.predict_on_batch(images)[0, y, x], expected, atol=1e-5 * expected.max()
        )
    with pytest.raises(UserError) as caught:
        build.load("VGG16", weights=str(tmp_path / "vgg.h5"), image_size=32)
    assert str(caught.value) == (
        f"{tmp_path}/vgg.h5: holds weights of VGG16:mode=torch, got backbone VGG16. Leave the "
        "backbone out, or pass `model.backbone=VGG16:mode=torch`."
    )


def refused(path, backbone="vgg16"):
    with pytest.raises(UserError) as caught:
        import_torch(path, backbone, path.with_name("out.h5"))
    assert not path.with_name("out.h5").exists()
    return str(caught.value)


def test_a_state_dict_of_another_net_is_refused_with_all_that_does_not_fit(tmp_path):
    shapes = dict(list(OF_VGG.items())[:12])
    shapes["features.26"] = (512, 512, 1, 1)
    save_file(random_state(shapes), tmp_path / "odd.safetensors")
    assert refused(tmp_path / "odd.safetensors") == (
        f"{tmp_path}/odd.safetensors: does not fit VGG16:\n"
        "  'features.26' (conv5_2): expected weights 512x512x3x3, got 512x512x1x1.\n"
        "  conv5_3: expected weights 512x512x3x3 and biases, got none."
    )


@pytest.mark.parametrize("shape", [(), (0,), (64, 1)])
def test_biases_of_another_shape_are_named(shape, tmp_path):
    state = random_state(OF_VGG)
    state["features.0.bias"] = np.zeros(shape, "f4")
    save_file(state, tmp_path / "odd.safetensors")
    got = {(): "a single number", (0,): "0", (64, 1): "64x1"}[shape]
    assert refused(tmp_path / "odd.safetensors") == (
        f"{tmp_path}/odd.safetensors: does not fit VGG16:\n"
        f"  'features.0' (conv1_1): expected 64 biases, got {got}."
    )


def test_a_pickle_a_text_and_a_cut_file_are_refused(tmp_path):
    pickled = tmp_path / "vgg.pth"
    pickled.write_bytes(b"PK\x03\x04 and so on")
    assert refused(pickled).startswith(f"{pickled}: is a pickle of PyTorch, which could run any ")
    text = tmp_path / "vgg.safetensors"
    text.write_text("not a safetensors file at all")
    start = f"{text}: expected a safetensors file, got another or a damaged one: "
    assert refused(text).startswith(start)
    save_file({"a": np.zeros(1000, "f4")}, text)
    text.write_bytes(text.read_bytes()[:500])
    assert refused(text).startswith(start)
    text.write_bytes(b"")
    assert refused(text).startswith(start)
    assert refused(tmp_path / "none.safetensors") == (
        f"there is no file {tmp_path}/none.safetensors."
    )


def test_half_precision_is_read_and_integers_are_refused(tmp_path):
    file = tmp_path / "vgg.safetensors"
    state = {name: array.astype("f2") for name, array in random_state(OF_VGG).items()}
    save_file(state, file)
    import_torch(file, "vgg16", tmp_path / "half.h5")
    base = build.load("VGG16:mode=torch", weights=str(tmp_path / "half.h5"), image_size=32)
    np.testing.assert_array_equal(
        base.get_layer("block1_conv1").kernel,
        state["features.0.weight"].astype("f4").transpose(2, 3, 1, 0),
    )
    state["features.2.weight"] = np.zeros((64, 64, 3, 3), "i4")
    save_file(state, file)
    assert refused(file) == (
        f"{file}: features.2.weight is of type I32, expected one of F16, F32, F64. Convert it to "
        "float32 before it is saved."
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_in_a_sentence(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    small = {"features.0.weight": np.ones((2, 3, 1, 1), "f4"), "features.0.bias": np.ones(2, "f4")}
    save_file(small, folder / "net.safetensors")
    content = bytearray((folder / "net.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "net.safetensors").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    message = refused(folder / "net.safetensors")
    assert message.startswith(f"{folder}/net.safetensors: ")
