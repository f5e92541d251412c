"""Where TensorFlow is missing, JAX and PyTorch train all the same; photos and exports need it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from without_photos import NAMES, begin, compute_all, two_phases

from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.training.start import initial_net

pytestmark = pytest.mark.usefixtures("tiny_backbone")

SENTENCE = (
    "TensorFlow is not installed. kerasft reads photos and SavedModels with it and writes "
    "SavedModels, whatever backend Keras computes with. Install it: pip install tensorflow."
)


@pytest.fixture(scope="module")
def with_tensorflow(tmp_path_factory, tiny_backbone):
    """A folder with the net that both sides begin with, and what TensorFlow computes from it."""
    folder = tmp_path_factory.mktemp("with")
    net = initial_net(two_phases(folder), len(NAMES))
    bundle.save(Bundle(net.model, NAMES, InputRule(32)), folder / "start.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASFT_CACHE", str(folder / "cache"))
        return folder, compute_all(folder)


@pytest.fixture(scope="module", params=["jax", pytest.param("torch", marks=pytest.mark.slow)])
def without(request, with_tensorflow, tmp_path_factory):
    """What a fresh process without TensorFlow computes from the same net."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp("without")
    (folder / "start.keras").write_bytes((with_tensorflow[0] / "start.keras").read_bytes())
    root = Path(__file__).resolve().parent.parent.parent
    script = root / "tests" / "support" / "without_photos.py"
    searched = [str(root), str(root / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "KERAS_BACKEND": request.param,
        "PYTHONPATH": os.pathsep.join(searched),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_phases_train_from_stores_to_the_figures_of_tensorflow(without, with_tensorflow):
    ours, theirs = without["trained"], with_tensorflow[1]["trained"]
    assert ours["found"] == theirs["found"] == [True, True]  # filled by the engine, not the pass
    assert ours["reading"] == []  # the threads that read ahead ended with `fit`
    for line, other in zip(ours["lines"], theirs["lines"], strict=True):
        assert line["learning_rates"] == pytest.approx(other["learning_rates"])
        # The same order, views and shares: only rounding is left, which the solved head takes up to
        # where its solver stops, and a few steps of Adam at 4e-4.
        for figure in ("loss", "val_loss"):
            assert line[figure] == pytest.approx(other[figure], abs=5e-4)
    for scores, others in zip(ours["scores"], theirs["scores"], strict=True):
        assert scores == pytest.approx(others, abs=5e-4)


def test_the_live_model_steps_as_on_tensorflow(without, with_tensorflow):
    ours, theirs = without["live"], with_tensorflow[1]["live"]
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
    assert ours["losses"][0] > ours["losses"][2]
    assert ours["rates"] == pytest.approx(theirs["rates"])
    assert len(set(ours["rates"].values())) == 2  # the block's and the head's


def test_a_head_is_solved_as_on_tensorflow(without, with_tensorflow):
    ours, theirs = without["solved"]["line"], with_tensorflow[1]["solved"]["line"]
    assert ours["method"] == theirs["method"] == "lda"
    for figure in ("loss", "val_loss"):
        assert ours[figure] == pytest.approx(theirs[figure], abs=1e-5)


def test_a_backbone_is_built_with_a_new_head(without, with_tensorflow):
    _, net = begin(with_tensorflow[0], "counted", two_phases(with_tensorflow[0]))
    assert without["built"] == net.model.count_params()


def test_photos_and_savedmodels_end_in_a_sentence_that_says_what_to_install(without):
    asked = ("training", "pass", "scoring", "export", "serving")
    assert without["said"] == dict.fromkeys(asked, SENTENCE)
