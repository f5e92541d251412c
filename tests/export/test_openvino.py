import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from pixel_exports import answers_of_threads, exported, largest_difference, smaller, unusual_model
from small_run import small_bundle, small_model

from kerasft.errors import UserError
from kerasft.export import openvino_format
from kerasft.export.parity import noise_pixels
from kerasft.input_rule import InputRule
from kerasft.models import tta
from kerasft.models.bundle import Bundle

written = partial(exported, openvino_format)
difference = partial(largest_difference, openvino_format)

LIMIT = 1e-4  # of scores; float32 gives about 1e-6


@pytest.fixture(scope="module")
def opened():
    return small_bundle()


@pytest.fixture(scope="module")
def folder(opened, tmp_path_factory):
    return written(opened, tmp_path_factory.mktemp("openvino") / "1")


def test_the_scores_are_those_of_the_model_in_every_batch_size(opened, folder):
    # In bfloat16, which OpenVINO takes where the CPU has it, they are off by more.
    assert difference(opened, folder) < LIMIT


def test_threads_may_compute_at_the_same_time(folder):
    together, alone = answers_of_threads(openvino_format, folder)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_scores_of_one_call_survive_the_next(folder):
    scorer = openvino_format.open_scorer(folder)
    pixels = noise_pixels(32)
    first, _ = scorer.pixels(pixels[:2])
    kept = first.copy()
    scorer.pixels(pixels[2:4])
    np.testing.assert_array_equal(first, kept)


def test_float16_halves_the_weights_and_keeps_the_scores(opened, folder, tmp_path):
    half = written(opened, tmp_path / "1", "float16")
    sizes = [(place / "model.bin").stat().st_size for place in (folder, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert 0 < difference(opened, half) < 0.01


def test_the_model_holds_what_lies_beside_it(folder):
    openvino = openvino_format.import_openvino()
    model = openvino.Core().read_model(folder / "model.xml")
    text = model.get_rt_info(["kerasft", "kerasft.json"]).astype(str)
    assert text == (folder / "kerasft.json").read_text("utf-8")
    assert json.loads(text)["class_names"] == ["circle", "cross", "stripes"]


def test_class_names_of_any_script_survive_in_the_metadata(tmp_path):
    names = ("Löwenzahn", 'a "<&>" b', "バラ")
    written(Bundle(small_model(), names, InputRule(32)), tmp_path / "1")
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


@pytest.mark.parametrize("views", ["none", "ten-crop"])
def test_layers_that_the_converter_lacks_are_written_too(views, tmp_path):
    model = tta.with_temperature(tta.with_views(unusual_model(smaller), views), 0.5)
    opened = Bundle(model, ("a", "b", "c"), InputRule(16))
    assert np.ptp(opened.model.predict_on_batch(noise_pixels(16))) > 0.05  # not all the same
    assert difference(opened, written(opened, tmp_path / "1")) < LIMIT


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("fault", ["cut off", "missing"])
def test_a_damaged_export_is_refused(opened, tmp_path, name, fault):
    broken = written(opened, tmp_path / "1")
    if fault == "missing":
        (broken / name).unlink()
    else:
        whole = (broken / name).read_bytes()
        (broken / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.xml: can't be loaded"):
        openvino_format.open_scorer(broken)


def test_the_model_of_another_run_is_refused(folder, tmp_path):
    other = written(Bundle(small_model(2), ("a", "b"), InputRule(32)), tmp_path / "1")
    (other / "kerasft.json").write_text((folder / "kerasft.json").read_text("utf-8"), "utf-8")
    with pytest.raises(UserError, match=r"Expected .*scores \[\?,3\].*got .*scores \[\?,2\]"):
        openvino_format.open_scorer(other)
