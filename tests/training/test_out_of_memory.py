"""Lack of memory is a sentence with what to try, and the run goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import small, weights

from kerasft.cli.wording import for_terminal
from kerasft.errors import OutOfMemory, UserError, is_out_of_memory, within_memory
from kerasft.training.train import train_run
from kerasft.training.trainable import steps_in_memory

pytestmark = pytest.mark.usefixtures("tiny_backbone")

SUPPORT = Path(__file__).parent.parent / "support"


def exhaust_numpy():
    np.empty(2**50)


def exhaust_tensorflow():
    tf.zeros([2**45])


def exhaust_a_thread_of_tensorflow():
    def rows():
        yield np.empty(2**50)

    next(iter(tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec([None]))))


@pytest.mark.parametrize(
    "exhaust", [exhaust_numpy, exhaust_tensorflow, exhaust_a_thread_of_tensorflow]
)
def test_lack_of_memory_is_known_whoever_notices_it(exhaust):
    with pytest.raises(OutOfMemory, match=r"^Out of memory in a test\. Free some\.$"):  # noqa: SIM117
        with within_memory("a test", "Free some."):
            exhaust()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 140737488355328 bytes."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("Failed: CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("a zoom of the room"), False),
        (OSError(28, "No space left on device"), False),
        (tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"), False),
        (tf.errors.ResourceExhaustedError(None, None, "x; Too many open files"), False),
        (UserError("Out of memory."), False),
    ],
)
def test_other_backends_are_known_by_what_they_say(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_step_names_its_batch_size_and_half_of_it(photos):
    config = small(photos)
    (phase,) = config.phases
    with pytest.raises(OutOfMemory) as caught, steps_in_memory(config, phase):
        exhaust_numpy()
    assert str(caught.value) == (
        "Phase 'head': out of memory in a training step of 8 images, `phases.0.batch_size=8`. Try "
        "half of them, `phases.0.batch_size=4`."
    )
    assert caught.value.sets == ("phases.0.batch_size=4",)
    with (
        pytest.raises(OutOfMemory, match=r"batch_size=8`. Free some memory.") as caught,
        steps_in_memory(config, phase, begun=lambda: True),
    ):
        exhaust_numpy()
    assert caught.value.sets == ()
    one = small(photos, **{"phases.0.batch_size": 1})
    with (
        pytest.raises(OutOfMemory, match=r"of 1 images, `phases\.0\.batch_size=1`\. Free some mem"),
        steps_in_memory(one, one.phases[0]),
    ):
        exhaust_numpy()


KERAS = (
    "phases.0.epochs=1",
    "cache.mode=on",
    "cache.engine=keras",
)  # Grappler ends the process at such sizes


def overcommits():
    """Returns whether the system promises any memory, and ends who uses it."""
    path = Path("/proc/sys/vm/overcommit_memory")
    return not path.exists() or path.read_text().strip() == "1"


@pytest.mark.skipif(overcommits(), reason="needs a system that refuses 825 GB")
def test_a_pass_that_does_not_fit_says_so_and_the_run_goes_on_with_fewer_images_at_once(
    photos, tmp_path, own_cache
):
    run, large = tmp_path / "run", "cache.batch=67108864"  # 825 GB of pixels
    with pytest.raises(UserError) as caught:
        train_run(small(photos, *KERAS, large), run)
    assert str(caught.value) == (
        "Out of memory in the frozen part, which computes 67108864 images at once, "
        f"`{large}`. Try half of them, `cache.batch=33554432`.\n"
        f"  The run is kept; to go on: `continue_run('{run}', resume=True, "
        "sets=['cache.batch=33554432'])`"
    )
    assert for_terminal(str(caught.value)).endswith(
        f"to go on: kerasft train --run {run} --resume --set cache.batch=33554432"
    )
    fewer = small(photos, *KERAS, "cache.batch=24")
    train_run(fewer, run, resume=True)
    train_run(fewer, tmp_path / "again")
    for name in ("metrics.jsonl", "config.toml"):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert weights(run) == weights(tmp_path / "again")
    with pytest.raises(UserError, match=r"cache\.batch: the run has 24, got 32"):
        train_run(small(photos, "cache.batch=32"), run, resume=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, reads /proc")
def test_a_step_that_does_not_fit_says_so_and_the_run_goes_on_with_half_the_batch(photos):
    folder = photos.parent
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "out_of_memory.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    key = "phases.0.batch_size"
    assert told["first"] == (
        f"Phase 'head': out of memory in a training step of 24 images, `{key}=24`. Try half of "
        f"them, `{key}=12`.\n  The run is kept; to go on: `continue_run('{folder / 'run'}', "
        f"resume=True, sets=['{key}=12'])`"
    )
    assert "run.json" in told["files"]
    assert told["equal"]
    assert f"{key}: the run has 12, got 8" in told["later"]  # it was trained with 12
