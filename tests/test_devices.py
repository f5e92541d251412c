import ctypes
import json
import logging
import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from drawing import draw_photos
from small_run import small_run

from kerasft import devices
from kerasft.devices import nvidia_gpu, prepare, processors
from kerasft.errors import UserError
from kerasft.models.target import prepare_for


def prepared(code, **environment):
    """What a fresh process prints that prepares a device as its first act."""
    code = "import json\nfrom kerasft.devices import prepare\n" + code
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


KEPT = """
import ctypes
class Mallinfo(ctypes.Structure):  # of glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in "arena o s h mapped u f used free k".split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype = Mallinfo, ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
prepare('cpu', threads=1)
libc.free(libc.malloc(50 << 20))
print(libc.mallinfo2().free > 50 << 20)
"""
THREADS = """
import tensorflow as tf
print(prepare('cpu', threads=1).to_json())
print(tf.config.threading.get_intra_op_parallelism_threads())
from tensorflow.python.framework.config import is_op_determinism_enabled
print(is_op_determinism_enabled())
tf.constant([1.0]) + 1
try:
    prepare('cpu', threads=2)
except Exception as error:
    print(error)
"""
KNOWS_MEMORY = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")


@pytest.fixture(scope="module")
def said():
    """The lines of a fresh process: THREADS, then KEPT where it works."""
    return prepared(THREADS + (KEPT if KNOWS_MEMORY else "")).splitlines()


def test_the_number_of_threads_of_an_earlier_process_is_set_again(said):
    facts = "{'backend': 'tensorflow', 'device': 'cpu', 'name': '', 'threads': 1}"
    assert said[:3] == [facts, "1", "True"]


def test_another_number_of_threads_than_the_process_computes_with_is_refused(said):
    assert said[3] == (
        "This process uses 1 threads, but the run began with 2, and the number changes the "
        "weights. Continue in a new process."
    )


@pytest.mark.skipif(not KNOWS_MEMORY, reason="glibc 2.33 or later says what it keeps")
def test_memory_that_is_freed_is_kept_for_the_next_batch(said):
    assert said[4:] == ["True"]


@pytest.mark.slow
@pytest.mark.skipif(not KNOWS_MEMORY, reason="glibc 2.33 or later says what it keeps")
def test_memory_is_given_back_if_the_environment_says_so():
    assert prepared(KEPT, MALLOC_TRIM_THRESHOLD_="131072") == "False"


def test_a_gpu_that_is_not_there_is_refused():
    wrong = r"expected an existing device, got 'gpu:7'; TensorFlow sees \d+ GPUs"
    with pytest.raises(UserError, match=wrong):
        prepare("gpu:7")


@pytest.mark.slow
def test_jax_takes_all_processors_and_its_memory_as_it_needs_it():
    code = (
        "print(prepare('auto', threads=1).to_json())\nimport jax, os\n"
        "print(jax.numpy.zeros(1).device.platform, os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])\n"
        "print(os.environ['XLA_FLAGS'])"
    )
    facts = {"backend": "jax", "device": "cpu", "name": "", "threads": processors()}
    said = prepared(
        code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_gpu_autotune_level=4"
    )
    flags = "--xla_gpu_autotune_level=4 --xla_gpu_exclude_nondeterministic_ops=true"
    assert said == f"{facts}\ncpu false\n{flags}"


@pytest.mark.slow
def test_pytorch_computes_with_the_threads_of_an_earlier_process():
    pytest.importorskip("torch")
    code = (
        "print(prepare('cpu', threads=1).to_json())\nimport torch\nprint(torch.get_num_threads())"
    )
    facts = {"backend": "torch", "device": "cpu", "name": "", "threads": 1}
    assert prepared(code, KERAS_BACKEND="torch") == f"{facts}\n1"


def test_a_backend_that_cannot_train_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(UserError) as error:
        prepare("auto")
    assert (str(error.value), error.value.exit_code) == (
        "KERAS_BACKEND: Keras computes with 'numpy', which can't train. "
        "Expected tensorflow, jax or torch.",
        2,
    )


def test_a_run_of_a_gpu_that_is_not_here_is_computed_on_what_is(tmp_path, caplog):
    run = small_run(tmp_path)
    config = (run / "config.toml").read_text("utf-8")
    (run / "config.toml").write_text(config.replace('"auto"', '"gpu:63"', 1), "utf-8")
    with caplog.at_level(logging.INFO, "kerasft"):
        assert prepare_for(run).device == prepare("auto").device
    assert caplog.messages[0] == (
        f"{run}: was trained on gpu:63, which this machine does not have; another device is used."
    )


@pytest.mark.parametrize("target", ["imagenet:MobileNetV2", "model.keras", "absent"])
def test_what_is_no_run_is_computed_on_what_is_here(target):
    assert prepare_for(target) == prepare("auto")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts an nvidia-smi of that text and status where it is looked for, alone."""
    if os.name == "nt":
        pytest.skip("the program that stands in is a shell script")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(text, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n", "utf-8")
        program.chmod(0o755)

    return put


LISTED = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\nGPU 1: Other (UUID: GPU-2)"


def test_the_driver_says_which_gpu_is_there(driver, monkeypatch):
    assert nvidia_gpu() == ""
    driver(LISTED)
    assert nvidia_gpu() == "NVIDIA H100 80GB HBM3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # hidden on purpose
    assert nvidia_gpu() == ""


def test_a_driver_without_a_gpu_is_none(driver):
    driver("No devices were found")
    assert nvidia_gpu() == ""
    driver(LISTED, status=9)  # "couldn't communicate with the NVIDIA driver"
    assert nvidia_gpu() == ""


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="a GPU is used here")
def test_a_gpu_that_is_there_but_not_used_gets_a_sentence(driver, caplog):
    driver(LISTED)
    with caplog.at_level(logging.INFO, "kerasft"):
        prepare("cpu")
        assert caplog.messages == []  # asked for
        prepare("auto")
    assert caplog.messages == [
        "There is a GPU, NVIDIA H100 80GB HBM3, but TensorFlow does not see it, so the CPU "
        'is used. Install its libraries, pip install "kerasft[gpu]"; if that is done, '
        "TF_CPP_MIN_LOG_LEVEL=0 in the environment shows what is missing."
    ]


def test_windows_is_told_of_wsl():
    assert devices._how_to_use_it("jax", "Windows") == (
        "On Windows, JAX uses only the CPU; inside WSL2 it can use GPUs. "
        'Install its plugin for CUDA, pip install "jax[cuda13]".'
    )
    assert "WSL2" not in devices._how_to_use_it("torch", "Windows")  # it computes there itself
    assert "WSL2" not in devices._how_to_use_it("tensorflow", "Linux")


@pytest.mark.slow
def test_unfreezing_sets_the_threads_before_it_loads_the_model(tmp_path):
    # A fresh process on a machine with another number of cores must not have computed yet.
    photos = draw_photos(tmp_path / "photos", per_class=4)
    net = {"model.backbone": "MobileNet:alpha=0.25", "model.weights": "none"}
    net |= {"model.image_size": 32, "phases.0.blocks": 0, "phases.0.epochs": 1}
    flags = {**net, "data.source": str(photos)}
    code = (
        "from pathlib import Path\nfrom kerasft.config.load import load_config\n"
        "from kerasft.training.train import train_run, continue_run\n"
        f"run = Path({str(tmp_path / 'run')!r})\n"
    )
    prepared(code + f"train_run(load_config(None, flags={flags!r}), run)")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["threads"] += 1
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    said = prepared(
        code + "result = continue_run(run, flags={'phases.-1.epochs': 1})\n"
        "import tensorflow as tf\n"
        "print(len(result.phases), tf.config.threading.get_intra_op_parallelism_threads())"
    )
    assert said == f"2 {record['threads']}"
