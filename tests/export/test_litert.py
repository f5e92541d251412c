"""A LiteRT file computes what model.keras computes, and says what it takes."""

import json
import subprocess
import sys
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from small_run import NAMES, small_bundle, swapped
from solved import examples

from kerasft.errors import UserError
from kerasft.export import litert
from kerasft.export.facts import ExportFacts, write_facts
from kerasft.heads import solved, trained
from kerasft.heads.solver import solve
from kerasft.input_rule import InputRule
from kerasft.models import build
from kerasft.models.bundle import Bundle
from kerasft.models.tta import with_temperature, with_views

LIMITS = {None: 1e-4, "float16": 5e-3, "int8": 0.05}  # of scores; the last as it was measured
BATCHES = (1, 7, 3)


def noise(count, side, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, side, side, 3)).astype("float32")


def written(opened, folder, quantize=None):
    """Writes a model with its facts, for int8 with 16 images of noise as calibration."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = ExportFacts.of(opened, "litert", quantize)
    write_facts(folder, facts)
    calibration = None
    if quantize == "int8":
        calibration = folder / "calibration.npy"
        np.save(calibration, noise(16, opened.rule.image_size, seed=1))
    litert.write(opened, folder, facts, calibration)
    return folder


def differences(opened, folder):
    """The largest difference of scores for each batch size, all with one interpreter."""
    compute = litert.open_scorer(folder).pixels
    found = []
    for count in BATCHES:
        pixels = noise(count, opened.rule.image_size)
        scores, logits = compute(pixels)
        assert logits is None
        assert (scores.dtype, scores.shape) == (np.float32, (count, len(opened.class_names)))
        found.append(np.abs(scores - opened.model(pixels)).max())
    return found


def graph_of(folder):
    model = schema.ModelT.InitFromPackedBuf((folder / "model.tflite").read_bytes())
    return model, model.subgraphs[0]


def types_of(folder):
    """The type of each operation's first output, by the operation's name."""
    model, graph = graph_of(folder)
    operations = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    kinds = {number: name for name, number in vars(schema.TensorType).items()}
    return [
        (
            operations[model.operatorCodes[one.opcodeIndex].builtinCode],
            kinds[graph.tensors[one.outputs[0]].type],
        )
        for one in graph.operators
    ]


@pytest.fixture(scope="module")
def opened():
    small = small_bundle()
    return replace(small, model=with_temperature(small.model, 4.0))


@pytest.fixture(scope="module")
def exports(opened, tmp_path_factory):
    """A folder for each kind of weights."""
    folder = tmp_path_factory.mktemp("litert")
    return {kind: written(opened, folder / str(kind), kind) for kind in LIMITS}


@pytest.mark.parametrize("quantize", LIMITS)
def test_scores_are_those_of_the_model_for_any_batch_size(opened, exports, quantize):
    assert max(differences(opened, exports[quantize])) <= LIMITS[quantize]


def test_a_model_that_takes_red_for_blue_differs(opened, exports):
    # The control: the test above fails for a wrong model, also with the widest limit.
    other = swapped(small_bundle())
    other = replace(other, model=with_temperature(other.model, 4.0))
    assert max(differences(other, exports[None])) > 0.1


@pytest.mark.parametrize("quantize", LIMITS)
def test_one_input_and_one_output_keep_float32(exports, quantize):
    model, graph = graph_of(exports[quantize])
    ends = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
    assert [list(end.shapeSignature) for end in ends] == [[-1, 32, 32, 3], [-1, 3]]
    assert [end.type for end in ends] == [schema.TensorType.FLOAT32] * 2
    (signature,) = model.signatureDefs
    assert [(signature.inputs[0].name, signature.outputs[0].name)] == [(b"pixels", b"scores")]


def test_int8_computes_all_but_the_head_in_int8(exports):
    assert types_of(exports["int8"]) == [
        ("QUANTIZE", "INT8"),
        ("CONV_2D", "INT8"),
        ("MEAN", "INT8"),
        ("DEQUANTIZE", "FLOAT32"),
        ("FULLY_CONNECTED", "FLOAT32"),
        ("SOFTMAX", "FLOAT32"),
    ]


def test_int8_needs_photos(opened, tmp_path):
    facts = ExportFacts.of(opened, "litert", "int8")
    with pytest.raises(UserError, match="int8 needs training photos"):
        litert.write(opened, tmp_path, facts, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantize", LIMITS)
def test_the_facts_are_in_the_metadata_and_the_labels_in_a_zip(opened, exports, quantize):
    file = exports[quantize] / "model.tflite"
    model, _ = graph_of(exports[quantize])
    texts = {one.name: bytes(model.buffers[one.buffer].data) for one in model.metadata}
    assert len(texts) == len(model.metadata)
    assert texts[b"kerasft.json"] == (exports[quantize] / "kerasft.json").read_bytes()
    facts = json.loads(texts[b"kerasft.json"])
    assert (facts["class_names"], facts["image_size"], facts["quantize"]) == (
        ["circle", "cross", "stripes"], 32, quantize,
    )  # fmt: skip
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt") == b"circle\ncross\nstripes\n"


@pytest.mark.parametrize("quantize", LIMITS)
def test_buffers_are_aligned(exports, quantize):
    packed = schema.Model.GetRootAsModel((exports[quantize] / "model.tflite").read_bytes())
    tables = [packed.Buffers(i) for i in range(packed.BuffersLength())]
    starts = [one._tab.Vector(one._tab.Offset(4)) for one in tables if one.DataLength()]
    assert len(starts) > 5
    assert Counter(start % 16 for start in starts) == {0: len(starts)}


def test_the_same_model_gives_the_same_bytes(opened, exports, tmp_path):
    again = written(opened, tmp_path, "int8")
    ours, theirs = (one / "model.tflite" for one in (again, exports["int8"]))
    assert ours.read_bytes() == theirs.read_bytes()


def test_it_is_opened_without_tensorflow_and_keras(opened, exports):
    code = (
        "import sys\nsys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from pathlib import Path\nimport numpy as np\n"
        "from kerasft.export.litert import open_scorer\n"
        "pixels = np.full((9, 32, 32, 3), 77, np.float32)\n"
        "print(open_scorer(Path('.')).pixels(pixels)[0].tolist())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=exports[None], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = opened.model(np.full((9, 32, 32, 3), 77, np.float32))
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)


def test_threads_that_share_it_get_the_answers_to_their_own_questions(exports):
    compute = litert.open_scorer(exports[None]).pixels
    asked = [noise(1 + number % 5, 32, seed=number) for number in range(8)]
    alone = [compute(pixels)[0] for pixels in asked]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: compute(asked[number % 8])[0], range(400)))
    for number, scores in enumerate(answers):
        np.testing.assert_array_equal(scores, alone[number % 8])


def test_a_model_with_an_operation_that_litert_lacks_is_refused(tmp_path, capfd):
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.erfinv(pixels / 256))
    model = keras.Model(pixels, keras.layers.Softmax(name="scores")(x))
    with pytest.raises(UserError) as caught:
        written(Bundle(model, NAMES, InputRule(8)), tmp_path)
    assert str(caught.value) == (
        "LiteRT can't take this model: it has no operation Erfinv. Choose another format."
    )
    assert capfd.readouterr().err == ""  # the converter's own account is a page


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"x" * 99])
def test_a_damaged_file_is_named(exports, tmp_path, damage):
    for name in ("kerasft.json", "model.tflite"):
        (tmp_path / name).write_bytes((exports[None] / name).read_bytes())
    file = tmp_path / "model.tflite"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"model\.tflite: is damaged, or no LiteRT model"):
        litert.open_scorer(tmp_path)


def test_facts_of_another_model_are_refused(exports, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes((exports[None] / "model.tflite").read_bytes())
    write_facts(tmp_path, ExportFacts("litert", None, ("a", "b"), InputRule(32)))
    with pytest.raises(UserError) as caught:
        litert.open_scorer(tmp_path)
    assert str(caught.value) == (
        f"{file}: is no LiteRT model of kerasft with the facts beside it. Expected input and "
        "output [{'pixels': [32, 32, 3]}, {'scores': [2]}], got "
        "[{'pixels': [32, 32, 3]}, {'scores': [3]}]."
    )


def flat_base():
    """Pixels [B,2,2,3], which are the 12 features."""
    pixels = keras.Input((2, 2, 3), name="pixels")
    return keras.Model(pixels, keras.layers.Flatten(name="flat")(pixels))


@pytest.mark.parametrize("method", ["knn", "bayes", "svm", "rbf-svm"])
@pytest.mark.parametrize("views", ["none", "flip"])
def test_solved_heads_convert(tmp_path, method, views):
    train, validation = (examples([20] * 3, seed=seed) for seed in (0, 1))
    solution = solve(method, train, validation, num_classes=3)
    model = with_views(solved.attach(flat_base(), solution, 3), views)
    opened = Bundle(model, NAMES, InputRule(2))
    folder = written(opened, tmp_path)
    compute = litert.open_scorer(folder).pixels
    for count in BATCHES:
        pixels = train.features[:count].reshape(-1, 2, 2, 3)
        np.testing.assert_allclose(compute(pixels)[0], model(pixels), atol=1e-5)


def test_nets_of_different_sides_convert(tmp_path):
    # As `build.load` puts nets side by side: the second takes smaller pixels than the first.
    pixels = keras.Input((40, 40, 3), name="pixels")
    ends = []
    for x in (pixels, keras.ops.image.resize(pixels, (24, 24), antialias=True)):
        x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(x))
        ends.append(keras.layers.GlobalAveragePooling2D()(x))
    base = keras.Model(pixels, keras.layers.Concatenate()(ends))
    opened = Bundle(trained.attach(base, 3, hidden=(), dropout=0, seed=0), NAMES, InputRule(40))
    assert max(differences(opened, written(opened, tmp_path))) <= 1e-4


def test_the_sample_net_has_the_scores_of_keras(tmp_path):
    base = build.load("MobileNetV2:alpha=0.35", weights="sample", image_size=96)
    model = trained.attach(base, 3, hidden=(), dropout=0, seed=0)
    opened = Bundle(model, NAMES, InputRule(96))
    assert max(differences(opened, written(opened, tmp_path))) <= 1e-4


def test_head_operations_end_at_the_last_feature_map(exports):
    names = litert.head_operations((exports[None] / "model.tflite").read_bytes())
    assert len(names) == 2  # the softmax, and a Dense which the temperature was folded into
    assert "logits" in names[1]
