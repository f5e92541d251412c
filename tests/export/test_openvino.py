import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_run import small_bundle, small_model

from kerasft.errors import UserError
from kerasft.export import openvino_format
from kerasft.export.facts import ExportFacts, write_facts
from kerasft.export.parity import noise_pixels
from kerasft.input_rule import InputRule
from kerasft.models import tta
from kerasft.models.bundle import Bundle

LIMIT = 1e-4  # of scores; float32 gives about 1e-6


def exported(opened, folder, quantize=None):
    """Writes the model and what lies beside it; returns the folder."""
    facts = ExportFacts("openvino", quantize, opened.class_names, opened.rule)
    folder.mkdir(exist_ok=True)
    openvino_format.write(opened, folder, facts, None)
    write_facts(folder, facts)
    return folder


def largest_difference(opened, folder):
    pixels = noise_pixels(opened.rule.image_size)
    scorer = openvino_format.open_scorer(folder)
    expected = opened.model.predict_on_batch(pixels)
    differences = []
    for size in (1, 7, 3):
        scores, logits = scorer.pixels(pixels[:size])
        assert logits is None and scores.dtype == np.float32
        differences.append(np.abs(scores - expected[:size]).max())
    return max(differences)


@pytest.fixture(scope="module")
def opened():
    return small_bundle()


@pytest.fixture(scope="module")
def folder(opened, tmp_path_factory):
    return exported(opened, tmp_path_factory.mktemp("openvino") / "1")


def test_the_scores_are_those_of_the_model_in_every_batch_size(opened, folder):
    # In bfloat16, which OpenVINO takes where the CPU has it, they are off by more.
    assert largest_difference(opened, folder) < LIMIT


def test_scores_of_one_call_survive_the_next(folder):
    scorer = openvino_format.open_scorer(folder)
    pixels = noise_pixels(32)
    first, _ = scorer.pixels(pixels[:2])
    kept = first.copy()
    scorer.pixels(pixels[2:4])
    np.testing.assert_array_equal(first, kept)


def test_float16_halves_the_weights_and_keeps_the_scores(opened, folder, tmp_path):
    half = exported(opened, tmp_path / "1", "float16")
    sizes = [(place / "model.bin").stat().st_size for place in (folder, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert 0 < largest_difference(opened, half) < 0.01


def test_the_model_holds_what_lies_beside_it(folder):
    openvino = openvino_format.import_openvino()
    model = openvino.Core().read_model(folder / "model.xml")
    text = model.get_rt_info(["kerasft", "kerasft.json"]).astype(str)
    assert text == (folder / "kerasft.json").read_text("utf-8")
    assert json.loads(text)["class_names"] == ["circle", "cross", "stripes"]


def test_class_names_of_any_script_survive_in_the_metadata(tmp_path):
    names = ("Löwenzahn", 'a "<&>" b', "バラ")
    exported(Bundle(small_model(), names, InputRule(32)), tmp_path / "1")
    model = openvino_format.import_openvino().Core().read_model(tmp_path / "1" / "model.xml")
    text = model.get_rt_info(["kerasft", "kerasft.json"]).astype(str)
    assert json.loads(text)["class_names"] == list(names)


def test_opening_it_loads_no_tensorflow_and_reports_nothing_to_intel(folder, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from kerasft.export import openvino_format\n"
        f"scorer = openvino_format.open_scorer(Path({str(folder)!r}))\n"
        "print(scorer.pixels(np.zeros((2, 32, 32, 3), np.float32))[0].shape)\n"
        "print([name for name in sys.modules if name.startswith("
        "('tensorflow', 'keras.', 'openvino_telemetry'))])"
    )
    # A home of its own: telemetry keeps the number of this installation there.
    environment = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "(2, 3)\n[]\n"
    assert not (tmp_path / "intel").exists() and not (tmp_path / "Intel").exists()


def grouped():
    """Has a grouped convolution, GELU, and constants that preprocessing makes eagerly."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.applications.imagenet_utils.preprocess_input(pixels, mode="caffe")
    x = keras.layers.Conv2D(8, 4, strides=4)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", groups=8)(x)
    x = keras.layers.Activation("gelu")(keras.layers.LayerNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, name="logits", kernel_initializer="orthogonal")(x)
    return keras.Model(pixels, keras.layers.Softmax(dtype="float32", name="scores")(x))


@pytest.mark.parametrize("views", ["none", "ten-crop"])
def test_layers_that_the_converter_lacks_are_written_too(views, tmp_path):
    model = tta.with_temperature(tta.with_views(grouped(), views), 0.5)
    opened = Bundle(model, ("a", "b", "c"), InputRule(16))
    assert np.ptp(opened.model.predict_on_batch(noise_pixels(16))) > 0.05  # not all the same
    assert largest_difference(opened, exported(opened, tmp_path / "1")) < LIMIT


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("fault", ["cut off", "missing"])
def test_a_damaged_export_is_refused(opened, tmp_path, name, fault):
    broken = exported(opened, tmp_path / "1")
    if fault == "missing":
        (broken / name).unlink()
    else:
        whole = (broken / name).read_bytes()
        (broken / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.xml: can't be loaded"):
        openvino_format.open_scorer(broken)


def test_the_model_of_another_run_is_refused(folder, tmp_path):
    other = exported(Bundle(small_model(2), ("a", "b"), InputRule(32)), tmp_path / "1")
    (other / "kerasft.json").write_text((folder / "kerasft.json").read_text("utf-8"), "utf-8")
    with pytest.raises(UserError, match=r"Expected .*scores \[\?,3\].*got .*scores \[\?,2\]"):
        openvino_format.open_scorer(other)
