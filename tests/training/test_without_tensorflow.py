"""Where TensorFlow is missing, JAX and PyTorch train all the same; photos and exports need it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from without_photos import NAMES, begin, compute_more, solve, two_phases

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
def start(tmp_path_factory, tiny_backbone):
    """A folder with the net that both sides begin with, and a cache for TensorFlow."""
    folder = tmp_path_factory.mktemp("with")
    net = initial_net(two_phases(folder), len(NAMES))
    bundle.save(Bundle(net.model, NAMES, InputRule(32)), folder / "start.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASFT_CACHE", str(folder / "cache"))
        yield folder


BACKENDS = ["jax", pytest.param("torch", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=BACKENDS)
def without(request, start, tmp_path_factory):
    """What a fresh process without TensorFlow computes from the same net."""
    return in_fresh_process(request.param, start, tmp_path_factory.mktemp("without"))


@pytest.fixture(scope="module", params=BACKENDS)
def more(request, start, tmp_path_factory):
    """What takes longer, of such a process and of this one."""
    folder = tmp_path_factory.mktemp("without")
    return in_fresh_process(request.param, start, folder, "more"), compute_more(start)


def in_fresh_process(backend, start, folder, *arguments):
    """Runs without_photos.py; returns what it prints."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (folder / "start.keras").write_bytes((start / "start.keras").read_bytes())
    root = Path(__file__).resolve().parent.parent.parent
    script = root / "tests" / "support" / "without_photos.py"
    searched = [str(root), str(root / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(searched),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow  # with TensorFlow beside it JAX trains to its figures in test_other_backends.py
def test_two_phases_train_from_stores_to_the_figures_of_tensorflow(more):
    ours, theirs = (side["trained"] for side in more)
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


@pytest.mark.slow
def test_the_live_model_steps_as_on_tensorflow(more):
    ours, theirs = (side["live"] for side in more)
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
    assert ours["losses"][0] > ours["losses"][2]
    assert ours["rates"] == pytest.approx(theirs["rates"])
    assert len(set(ours["rates"].values())) == 2  # the block's and the head's


def test_a_head_is_solved_as_on_tensorflow(without, start):
    ours, theirs = without["solved"]["line"], solve(start)["line"]
    assert ours["method"] == theirs["method"] == "lda"
    for figure in ("loss", "val_loss"):
        assert ours[figure] == pytest.approx(theirs[figure], abs=1e-5)


def test_a_backbone_is_built_with_a_new_head(without, start):
    _, net = begin(start, "counted", two_phases(start))
    assert without["built"] == net.model.count_params()


def test_photos_and_savedmodels_end_in_a_sentence_that_says_what_to_install(without):
    asked = ("training", "pass", "scoring", "export", "serving")
    assert without["said"] == dict.fromkeys(asked, SENTENCE)
