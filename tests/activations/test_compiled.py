"""On JAX: a prefix as one program, and whole epochs on stores that lie where the steps are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from tiny import TINY, tiny_model

from kerasft.activations import compiled, whole_epochs
from kerasft.models.cut import split

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What compiled_on_jax.py has found."""
    return on_jax(tmp_path_factory.mktemp("compiled"))


def on_jax(*arguments):
    """Runs compiled_on_jax.py in a process of its own; returns what it prints."""
    script = ROOT / "tests" / "support" / "compiled_on_jax.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_program_computes_what_keras_computes(found):
    engine = found["engine"]
    assert engine["error"] < 5e-6  # of numbers up to 1.3
    assert engine["alone"] == 0  # an image's numbers do not depend on its neighbours
    assert engine["uint8"] == 0
    assert 1e-3 < engine["bfloat16"] < 2e-2  # rounding to 8 bits, partly cancelled


def test_batches_come_back_in_order_as_a_store_keeps_them(found):
    engine = found["engine"]
    assert (engine["pixels"], engine["in order"]) == ([8, 8, 8, 5], True)
    assert engine["dtypes"] == ["float16"]
    assert engine["over"] < 2e-3  # one step of float16 for numbers of 1 to 2


def test_the_prefix_stays_as_it_is(found):
    assert (found["engine"]["moved"], found["engine"]["policies"]) == ([], ["float32"])


def test_what_float16_cannot_hold_is_found_on_the_device_as_on_the_cpu(found):
    # Too large; in the range of subnormal numbers, where digits are lost.
    both = {"1": True, "1e+06": False, "5e-06": False}
    assert found["fits"] == {scale: [fit, fit] for scale, fit in both.items()}


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """What compiled_on_jax.py finds in more cases."""
    return on_jax(tmp_path_factory.mktemp("more"), "more")


@pytest.mark.slow
def test_what_float16_cannot_hold_is_found_at_other_scales(more):
    # Zero fits.
    both = {"0.001": True, "3e-05": True, "1e-30": False, "0": True}
    assert more["fits"] == {scale: [fit, fit] for scale, fit in both.items()}


@pytest.mark.parametrize(
    "kind", ["norms", *(pytest.param(one, marks=pytest.mark.slow) for one in ("plain", "all"))]
)
def test_whole_epochs_train_what_batches_train(request, kind):
    trained = request.getfixturevalue("found" if kind == "norms" else "more")["epochs"][kind]
    assert trained["curves"] < 1e-6
    # Five steps in each of three epochs; sums in another order: 6e-8.
    assert trained["weights"] < 1e-6 < 0.01 < trained["learned"]
    assert trained["means"] < 1e-6
    assert trained["batches"] == [15, 15]
    assert trained["finite"] == [5, 5, 5]


def test_whole_epochs_tell_at_which_step_the_loss_is_no_number(found):
    assert found["epochs"]["norms"]["finite of a bad one"] == [2, 0, 0]


@pytest.mark.slow
def test_a_run_with_the_compiled_engine_trains_alike(photos):
    runs = on_jax(photos.parent, "runs")
    ours, theirs = runs["compiled"], runs["keras"]
    assert (ours["engines"], theirs["engines"]) == (["compiled"] * 2, ["keras"] * 2)
    assert len(ours["lines"]) == len(theirs["lines"]) == 4
    for one, other in zip(ours["lines"], theirs["lines"], strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-4)
    # It computes rows of its own; the pass of the first phase serves the second.
    assert ours["found"] == theirs["found"] == [False, True]


@pytest.fixture(scope="module")
def prefix():
    return split(tiny_model(), 0, TINY).prefix


@pytest.mark.parametrize(
    ("images", "memory", "batch"),
    [
        (10**6, 80 * 2**30, 256),
        (300, 80 * 2**30, 256),
        (128, 80 * 2**30, 128),
        (20, 80 * 2**30, 32),
        (10**6, None, 32),  # a CPU
        # The largest tensor of 16 x 16 pixels is the input, 768 numbers: three of them, in
        # float32, for 128 images take 1.1 MiB.
        (10**6, 5 * 2**20, 128),
        (10**6, 1, 32),
    ],
)
def test_as_many_images_as_there_are_and_as_fit(prefix, images, memory, batch):
    assert compiled.batch_for(prefix, images, memory) == batch


def test_stores_may_take_two_fifths_of_the_memory():
    assert whole_epochs.fit_on_device(4, 10)
    assert not whole_epochs.fit_on_device(5, 10)
    assert not whole_epochs.fit_on_device(0, None)  # a CPU's memory is where the stores are
    assert keras.backend.backend() == "tensorflow"
