import json
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import onnx
import pytest
from pixel_exports import answers_of_threads, exported, largest_difference, smaller, unusual_model
from small_run import small_bundle, small_model
from solved import examples

from kerasft.errors import UserError
from kerasft.export import onnx_format
from kerasft.export.parity import noise_pixels
from kerasft.heads import solved, trained
from kerasft.heads.methods import METHODS
from kerasft.heads.solver import solve
from kerasft.input_rule import InputRule
from kerasft.models import tta
from kerasft.models.bundle import Bundle

written = partial(exported, onnx_format)
difference = partial(largest_difference, onnx_format)

LIMIT = 1e-4  # of scores; float32 gives about 1e-6


@pytest.fixture(scope="module")
def opened():
    return small_bundle()


@pytest.fixture(scope="module")
def folder(opened, tmp_path_factory):
    return written(opened, tmp_path_factory.mktemp("onnx") / "1")


def test_the_scores_are_those_of_the_model_in_every_batch_size(opened, folder):
    assert difference(opened, folder) < LIMIT


def test_threads_may_compute_at_the_same_time(folder):
    together, alone = answers_of_threads(onnx_format, folder)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_the_model_has_one_input_and_one_output_with_names(folder):
    model = onnx.load(folder / "model.onnx")
    described = [
        (value.name, [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert described == [("pixels", ["batch", 32, 32, 3]), ("scores", ["batch", 3])]
    assert [(opset.domain, opset.version) for opset in model.opset_import if not opset.domain] == [
        ("", 17)
    ]


def test_the_metadata_holds_what_lies_beside_the_model(folder):
    (entry,) = onnx.load(folder / "model.onnx").metadata_props
    assert entry.key == "kerasft.json"
    assert entry.value == (folder / "kerasft.json").read_text("utf-8")
    assert json.loads(entry.value)["class_names"] == ["circle", "cross", "stripes"]


def test_opening_it_loads_neither_tensorflow_nor_keras(folder):
    code = (
        "import sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from kerasft.export import onnx_format\n"
        f"scorer = onnx_format.open_scorer(Path({str(folder)!r}))\n"
        "print(scorer.pixels(np.zeros((2, 32, 32, 3), np.float32))[0].shape)\n"
        "print({'tensorflow', 'keras', 'onnx', 'tf2onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 3)\nset()\n"


@pytest.mark.parametrize(
    "change",
    [
        unusual_model,
        lambda: tta.with_temperature(tta.with_views(unusual_model(), "flip"), 0.5),
        lambda: tta.with_views(unusual_model(smaller), "ten-crop"),
    ],
    ids=["plain", "flip and temperature", "ten-crop and smaller"],
)
def test_layers_that_the_converter_lacks_are_written_too(change, tmp_path):
    opened = Bundle(change(), ("a", "b", "c"), InputRule(16))
    assert np.ptp(opened.model.predict_on_batch(noise_pixels(16))) > 0.05  # not all the same
    assert difference(opened, written(opened, tmp_path / "1")) < LIMIT


@pytest.mark.parametrize(("method", "classes"), [*((m, 4) for m in METHODS), ("rbf-svm", 2)])
def test_every_solved_head_is_written(method, classes, tmp_path):
    pixels = keras.Input((2, 2, 3), name="pixels")
    base = keras.Model(pixels, keras.layers.Flatten()(keras.layers.Rescaling(1 / 64)(pixels)))
    train, other = (examples([40] * classes, seed=seed) for seed in (0, 1))
    solution = solve(method, train, other, num_classes=classes)
    model = solved.attach(base, solution, classes)
    opened = Bundle(model, tuple("abcd"[:classes]), InputRule(2))
    assert difference(opened, written(opened, tmp_path / "1")) < LIMIT


@pytest.mark.parametrize(
    ("x", "expected"), [(1e-6, 1.0000005e-6), (-1e-6, -9.999995e-7), (2, 6.389056), (-1000, -1)]
)
def test_exp_minus_1_keeps_its_digits(x, expected, tmp_path):
    pixels = keras.Input((1, 1, 3), name="pixels")
    scores = keras.ops.expm1(keras.layers.Flatten()(pixels))
    opened = Bundle(keras.Model(pixels, scores), ("a", "b", "c"), InputRule(1))
    scorer = onnx_format.open_scorer(written(opened, tmp_path / "1"))
    found = scorer.pixels(np.full((1, 1, 1, 3), x, np.float32))[0]
    np.testing.assert_allclose(found, [[expected] * 3], rtol=1e-6)


def test_an_operation_that_onnx_lacks_is_refused_by_name(tmp_path):
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = keras.ops.erfinv(keras.layers.GlobalAveragePooling2D()(pixels) / 300)
    scores = keras.layers.Softmax(name="scores")(keras.layers.Dense(2, name="logits")(x))
    opened = Bundle(keras.Model(pixels, scores), ("a", "b"), InputRule(8))
    with pytest.raises(UserError, match=r"can't be written as ONNX: .*Erfinv"):
        written(opened, tmp_path / "1")


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_damaged_file_is_refused(folder, tmp_path, content):
    (tmp_path / "kerasft.json").write_text((folder / "kerasft.json").read_text("utf-8"), "utf-8")
    whole = (folder / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"model\.onnx: can't be loaded: .+ It may be damaged"):
        onnx_format.open_scorer(tmp_path)


def test_the_model_of_another_run_is_refused(folder, tmp_path):
    other = written(Bundle(small_model(2), ("a", "b"), InputRule(32)), tmp_path / "1")
    (other / "kerasft.json").write_text((folder / "kerasft.json").read_text("utf-8"), "utf-8")
    with pytest.raises(UserError, match=r"Expected .*'scores', \[3\].*got .*'scores', \[2\]"):
        onnx_format.open_scorer(other)


@pytest.fixture(scope="module")
def in_int8(opened, tmp_path_factory):
    """The model in int8, calibrated on noise, which it is then measured on."""
    work = tmp_path_factory.mktemp("int8")
    np.save(work / "photos.npy", noise_pixels(32))
    return written(opened, work / "1", "int8", work / "photos.npy")


def test_int8_keeps_the_scores_within_a_few_hundredths(opened, in_int8):
    assert 0 < difference(opened, in_int8) < 0.05


def scales_of_kernels(folder):
    """Returns shapes of the scales of convolutions and of matrices; None for some in float32."""
    graph = onnx.load(folder / "model.onnx").graph
    made_by = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    scales = {"Conv": [], "MatMul": [], "Gemm": []}
    for node in graph.node:
        if node.op_type in scales:
            before = made_by.get(node.input[1])
            scales[node.op_type].append(before and list(constants[before.input[1]].dims))
    return scales["Conv"], scales["MatMul"] + scales["Gemm"]


def test_in_int8_convolutions_have_a_scale_for_each_channel_and_the_head_none(in_int8):
    assert scales_of_kernels(in_int8) == ([[8]], [None])  # 8 filters; the head
    metadata = json.loads(onnx.load(in_int8 / "model.onnx").metadata_props[0].value)
    assert metadata["quantize"] == "int8"


def below_the_head(opened):
    """Returns pixels to features [B,8], the part of the model below its head."""
    return keras.Model(opened.model.inputs[0], opened.model.get_layer("logits").input)


def test_the_head_inside_a_model_of_several_views_stays_in_float32(opened, tmp_path):
    np.save(tmp_path / "photos.npy", noise_pixels(32))
    model = trained.attach(below_the_head(opened), 3, hidden=(8,), dropout=0.0, seed=0)
    views = Bundle(tta.with_views(model, "flip"), opened.class_names, opened.rule)
    folder = written(views, tmp_path / "1", "int8", tmp_path / "photos.npy")
    assert scales_of_kernels(folder) == ([[8]], [None, None])


def test_nothing_is_rounded_behind_the_first_layer_of_a_head(opened, tmp_path):
    np.save(tmp_path / "photos.npy", noise_pixels(32))
    train, other = (examples([40] * 3, seed=seed, features=8) for seed in (0, 1))
    solution = solve("rbf-svm", train, other, num_classes=3)
    model = solved.attach(below_the_head(opened), solution, 3)
    folder = written(
        Bundle(model, opened.class_names, opened.rule),
        tmp_path / "1", "int8", tmp_path / "photos.npy",
    )  # fmt: skip
    reached, rounded = set(), []
    for node in onnx.load(folder / "model.onnx").graph.node:
        if "head_standardise" in node.name or reached & set(node.input):
            reached |= set(node.output)
            rounded += [node.name] * (node.op_type == "QuantizeLinear")
    assert len(reached) > 20 and rounded == []
