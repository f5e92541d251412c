"""JAX and PyTorch, each in a process of its own: all commands, the same bits, the same figures.

PyTorch is left out where it is not installed; it is not among what the tests need.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from drawing import draw_photos
from tiny_run import ONE_MORE, small, weights

from kerasft.data import batches
from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.run import open_run, read_metrics, read_record
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")

BACKENDS = ("jax", pytest.param("torch", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tiny_backbone):
    """A run whose head TensorFlow has trained; `on` has gone on with it, in TensorFlow too."""
    folder = tmp_path_factory.mktemp("tensorflow")
    photos = draw_photos(folder / "photos")
    # Without dropout, whose random numbers are each backend's own.
    train_run(small(photos, "head.dropout=0"), folder / "begun")
    shutil.copytree(folder / "begun", folder / "on")
    continue_run(folder / "on", flags=ONE_MORE)
    return folder


@pytest.fixture(scope="module", params=BACKENDS)
def elsewhere(request, begun, tmp_path_factory):
    """(backend, folder, what each command printed, what else other_backend.py found)."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    for name in ("photos", "begun"):
        shutil.copytree(begun / name, folder / name)
    *printed, facts = in_fresh_process(request.param, folder)
    return request.param, folder, printed, facts


def in_fresh_process(backend, *arguments):
    """Runs other_backend.py; returns the lines of JSON that it has printed."""
    root = Path(__file__).resolve().parent.parent.parent
    script = root / "tests" / "support" / "other_backend.py"
    searched = [str(root), str(root / "scripts")]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([*searched, os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_commands_work_on_another_backend(elsewhere):
    backend, folder, (own, carried, evaluated, _), _ = elsewhere
    proofs = [phase["frozen_proof"] for phase in (*own["phases"], *carried["phases"])]
    assert proofs == ["equal", "equal", "equal"]
    record = read_record(open_run(folder / "own"))
    assert (record.machine.backend, record.machine.device) == (backend, "cpu")
    assert record.versions[backend] == version(backend)
    # Its steps are in bfloat16; an epoch is validated in float32.
    assert record.phases[0].how.precision == "mixed_bfloat16"
    assert record.phases[0].gap.loss < 1e-6
    # Computed again, from files: the last digits of float32.
    assert evaluated["loss"] == pytest.approx(carried["test"]["loss"], abs=1e-6)


@pytest.mark.slow
def test_another_backend_exports_through_tensorflow(elsewhere):
    backend, folder, (*_, by_model), _ = elsewhere
    exported, by_export = in_fresh_process(backend, folder, "export")
    assert exported["max_abs_diff"] < 1e-5  # both sides of it are TensorFlow
    by_model, by_export = (
        {best["label"]: best["score"] for best in answer[0]["predictions"]}
        for answer in (by_model, by_export)
    )
    assert by_model == pytest.approx(by_export, abs=1e-5)


@pytest.mark.slow  # on TensorFlow: test_train.py
def test_an_interrupted_run_goes_on_to_the_same_bits(elsewhere):
    backend, folder, _, _ = elsewhere
    in_fresh_process(backend, folder, "stop")
    own, stopped = (open_run(folder / name) for name in ("own", "stopped"))
    assert stopped.metrics_path.read_bytes() == own.metrics_path.read_bytes()
    digests = [[digest for _, digest in weights(run.path)] for run in (own, stopped)]
    assert digests[0] == digests[1]


def test_its_model_gives_the_same_scores_on_tensorflow(elsewhere):
    _, folder, (*_, by_model), _ = elsewhere
    opened = bundle.load(folder / "begun" / "model.keras")
    pixels = batches.image_batches([by_model[0]["file"]], rule=InputRule(32))
    scores = dict(zip(opened.class_names, bundle.compute(opened.model, pixels)[0], strict=True))
    theirs = {best["label"]: best["score"] for best in by_model[0]["predictions"]}
    # The same sums in float32 in another order: 1e-7 for scores of 0 to 1.
    assert scores == pytest.approx(theirs, abs=1e-5)


def test_the_frozen_part_computes_in_bfloat16_when_it_is_asked_to(elsewhere):
    # bfloat16 rounds to 4e-3; two computations in float32 differ by 1e-6.
    assert 5e-4 < elsewhere[3]["bfloat16"] < 2e-2


def test_what_tensorflow_began_goes_on_with_the_same_figures(elsewhere, begun):
    backend, folder, _, found = elsewhere
    threads = read_record(open_run(begun / "begun")).machine.threads
    assert (
        f"So far the run was computed by tensorflow on cpu with {threads} threads; it continues "
        f"with {backend} on cpu with {threads} threads. Expect slightly different numbers."
    ) in found["said"]
    ours, theirs = (read_metrics(open_run(run))[-1] for run in (begun / "on", folder / "begun"))
    assert [(line["phase"], line["epoch"]) for line in (ours, theirs)] == [("unfreeze", 1)] * 2
    # The same weights, images, order, views and shares, so that only rounding is left: 1e-7 of
    # a loss of 1.1, and three steps of Adam, 4e-4 each, in directions that rounding may turn.
    # (Another order, of seed 1, gives a loss that is 3e-3 away.)
    for figure in ("loss", "val_loss"):
        assert theirs[figure] == pytest.approx(ours[figure], abs=1e-4)
