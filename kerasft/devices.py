"""The device that a run computes on, and what makes two runs on it equal.

Keras computes with TensorFlow, JAX or PyTorch (`KERAS_BACKEND`). Photos are read by TensorFlow in
any case, on the CPU.
"""

import atexit
import logging
import os
import platform
import re
import shutil
import subprocess

import keras
import tensorflow as tf

from kerasft.errors import UserError

log = logging.getLogger("kerasft")

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# What each needs to compute on a GPU of NVIDIA.
GPU_PACKAGES = {
    "tensorflow": 'Install its libraries, pip install "kerasft[gpu]"; if that is done, '
    "TF_CPP_MIN_LOG_LEVEL=0 in the environment shows what is missing.",
    "jax": 'Install its plugin for CUDA, pip install "jax[cuda13]".',
    "torch": "Install a build of it for CUDA: https://pytorch.org/get-started/locally says how.",
}


def prepare(device: str, *, threads: int | None = None) -> dict[str, object]:
    """Chooses the device and makes its results repeatable. Call before the first tensor.

    TensorFlow's operations are made deterministic. The number of threads is set, because it
    changes the weights even then (a sum is split by threads); JAX takes all processors.

    Args:
        device: "auto" (the first GPU if there is one), "cpu" or "gpu:N".
        threads: CPU threads of an earlier part of the same run; None takes one per
            processor that this process may use.

    Returns:
        What run.json records: `{"backend", "device", "name", "threads"}`.

    Raises:
        UserError: Keras computes with something that can't train, or there is no such GPU (exit
            code 2); or this process has already computed on another device, or with
            another number of threads than the run began with.
    """
    backend = _backend()
    names = _gpu_names(backend)
    wanted = _gpu_number(device, backend, len(names))
    if device == "auto" and not names:
        unused = nvidia_gpu()
        if unused:
            log.info("%s", _unused_text(unused, backend, platform.system()))
    _show_tensorflow(wanted if backend == "tensorflow" else None, device)
    if backend != "tensorflow":
        _compute_on("cpu" if wanted is None else f"gpu:{wanted}")
    if backend == "jax":
        threads = None  # it cannot be told
    return {
        "backend": backend,
        "device": "cpu" if wanted is None else f"gpu:{wanted}",
        "name": "" if wanted is None else names[wanted],
        "threads": _set_threads(threads or processors(), backend),
    }


def is_here(device: str) -> bool:
    """Returns whether this machine has the device: "auto", "cpu" or "gpu:N"."""
    return not device.startswith("gpu:") or _number(device) < len(_gpu_names(_backend()))


def _backend() -> str:
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise UserError(
            f"KERAS_BACKEND: Keras computes with '{backend}', which can't train. "
            "Expected tensorflow, jax or torch.",
            exit_code=2,
        )
    return backend


def _gpu_names(backend: str) -> list[str]:
    """What the GPUs that Keras can compute on are called, in the order of their numbers."""
    if backend == "jax":
        # It takes three quarters of the card otherwise. Read when the first device is listed.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        return [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [one.get("device_name", "") for one in details]


def _number(device: str) -> int:
    return int(device.removeprefix("gpu:"))


def _gpu_number(device: str, backend: str, count: int) -> int | None:
    if device == "cpu" or (device == "auto" and count == 0):
        return None
    number = 0 if device == "auto" else _number(device)
    if number >= count:
        raise UserError(
            f"{device!r} asked for, but {BACKENDS[backend]} sees {count} GPUs. "
            f"Pass `device=cpu`. Or: {_how_to_use_it(backend, platform.system())}",
            field="device",
            exit_code=2,
        )
    return number


def nvidia_gpu() -> str:
    """The name of a GPU of NVIDIA that this process could use; "" where there is none.

    Asks the driver's own program, because the backends see a GPU only with the right libraries.
    """
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # hidden on purpose
        return ""
    command = [program, "-L"]
    try:
        listed = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"^GPU \d+: (.+?) \(UUID", listed.decode(errors="replace"), re.MULTILINE)
    return found[1] if found else ""


def _unused_text(name: str, backend: str, system: str) -> str:
    return (
        f"There is a GPU, {name}, but {BACKENDS[backend]} does not see it, so the CPU computes. "
        + _how_to_use_it(backend, system)
    )


def _how_to_use_it(backend: str, system: str) -> str:
    if system == "Windows" and backend != "torch":
        return (
            f"Under Windows itself {BACKENDS[backend]} computes on the CPU alone; inside WSL2 it "
            f"has GPUs. {GPU_PACKAGES[backend]}"
        )
    return GPU_PACKAGES[backend]


def _show_tensorflow(number: int | None, device: str) -> None:
    """Lets TensorFlow see one GPU or none: where it only reads photos, no other needs to share."""
    gpus = tf.config.list_physical_devices("GPU")
    chosen = [] if number is None else [gpus[number]]
    try:
        if gpus and tf.config.get_visible_devices("GPU") != chosen:
            tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            # Without this TensorFlow takes the whole card, other programs' share included.
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        raise UserError(
            f"this process has computed already, so it can't change to {device!r}. "
            "Go on in a fresh process.",
            field="device",
        ) from None
    tf.config.experimental.enable_op_determinism()


def _compute_on(name: str) -> None:
    """Has Keras compute on a device until this process ends; on JAX and PyTorch."""
    scope = keras.device(name)
    scope.__enter__()
    atexit.register(scope.__exit__, None, None, None)  # holds on to it: as garbage it would end


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set_threads(threads: int, backend: str) -> int:
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        # TensorFlow has computed already (a notebook, a second run in one process).
        now = tf.config.threading.get_intra_op_parallelism_threads() or processors()
        if now != threads:
            raise UserError(
                f"This process computes with {now} threads, the run began with {threads}, and "
                "the number changes the weights. Go on in a fresh process."
            ) from None
    return threads
