"""The device that a run computes on, set up so that two runs on it give equal results.

Keras computes with TensorFlow, JAX or PyTorch (`KERAS_BACKEND`). Photos are always read by
TensorFlow, on the CPU; what reads none works where it is not installed.
"""

import atexit
import ctypes
import functools
import logging
import os
import platform
import re
import shutil
import subprocess
import sys

import keras

from kerasft.cache import PROGRAMS, cache_folder
from kerasft.errors import UserError
from kerasft.lazy_tensorflow import is_installed, tf
from kerasft.record import Device

log = logging.getLogger("kerasft")

EXACT = "xla_gpu_exclude_nondeterministic_ops"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# How to make each backend compute on an NVIDIA GPU, for messages.
GPU_PACKAGES = {
    "tensorflow": 'Install its libraries, pip install "kerasft[gpu]"; if that is done, '
    "TF_CPP_MIN_LOG_LEVEL=0 in the environment shows what is missing.",
    "jax": 'Install its plugin for CUDA, pip install "jax[cuda13]".',
    "torch": "Install a build of it for CUDA: https://pytorch.org/get-started/locally says how.",
}


def prepare(device: str, *, threads: int | None = None) -> Device:
    """Chooses the device and makes its results repeatable. Call it before the first tensor.

    TensorFlow's operations are made deterministic. The number of threads is fixed, because it
    changes the weights even then (a sum is split among threads); JAX takes all processors. On
    Linux the process keeps memory that it has freed, see `_keep_freed_memory`.

    Args:
        device: "auto" (the first GPU if there is one), "cpu" or "gpu:N".
        threads: number of CPU threads that the run began with; None takes one per processor
            that this process may use.

    Raises:
        UserError: Keras uses a backend that can't train, or there is no such GPU (exit code 2);
            or this process has already computed on another device, or with another number of
            threads than the run began with.
    """
    _keep_freed_memory()
    backend = _backend()
    names = _gpu_names(backend)
    wanted = _gpu_number(device, backend, len(names))
    if device == "auto" and not names:
        unused = nvidia_gpu()
        if unused:
            log.info("%s", _unused_text(unused, backend, platform.system()))
    if is_installed():
        _show_tensorflow(wanted if backend == "tensorflow" else None, device)
    if backend != "tensorflow":
        _compute_on("cpu" if wanted is None else f"gpu:{wanted}")
    if backend == "jax":
        threads = None  # can't be set
        if wanted is not None:
            _keep_programs()
    return Device(
        backend=backend,
        device="cpu" if wanted is None else f"gpu:{wanted}",
        name="" if wanted is None else names[wanted],
        threads=_set_threads(threads or processors(), backend),
    )


# The numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


@functools.cache
def _keep_freed_memory() -> None:
    """Lets glibc keep up to 256 MB of freed memory for the next tensors.

    It gives larger blocks back to the system as soon as a batch is done, and the next batch waits
    until the system has filled each of its pages with zeros: a third of a pass's computing
    (`scripts/results/speed.md`). Other C libraries have no such call, and what the environment says
    stays.
    """
    if not sys.platform.startswith("linux") or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # musl
        return
    # glibc before 2.35 takes no more than half of its heaps' size.
    _ = set_option(_MMAP_THRESHOLD, 64 << 20) or set_option(_MMAP_THRESHOLD, 32 << 20)
    set_option(_TRIM_THRESHOLD, 256 << 20)


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
    """Returns the names of the GPUs that Keras can compute on, in the order of their numbers."""
    if backend == "jax":
        # JAX reads both when it first lists devices. It would take 75% of the card's memory; and
        # XLA would add numbers in another order in each run.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if EXACT not in os.environ.get("XLA_FLAGS", ""):
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{EXACT}=true".strip()
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
            f"expected an existing device, got {device!r}; {BACKENDS[backend]} sees {count} GPUs. "
            f"Pass `device=cpu`. Or: {_how_to_use_it(backend, platform.system())}",
            field="device",
            exit_code=2,
        )
    return number


def nvidia_gpu() -> str:
    """Returns the name of an NVIDIA GPU that this process could use, or "".

    It asks the driver's own program, because a backend sees a GPU only with the right libraries.
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
        f"There is a GPU, {name}, but {BACKENDS[backend]} does not see it, so the CPU is used. "
        + _how_to_use_it(backend, system)
    )


def _how_to_use_it(backend: str, system: str) -> str:
    if system == "Windows" and backend != "torch":
        return (
            f"On Windows, {BACKENDS[backend]} uses only the CPU; inside WSL2 it can use GPUs. "
            f"{GPU_PACKAGES[backend]}"
        )
    return GPU_PACKAGES[backend]


def _show_tensorflow(number: int | None, device: str) -> None:
    """Lets TensorFlow see one GPU or none: none where it only reads photos for another backend."""
    gpus = tf.config.list_physical_devices("GPU")
    chosen = [] if number is None else [gpus[number]]
    try:
        if gpus and tf.config.get_visible_devices("GPU") != chosen:
            tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            # Without this, TensorFlow takes all of the card's free memory.
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        raise UserError(
            f"this process has already used another device and can't change to {device!r}. "
            "Continue in a new process.",
            field="device",
        ) from None
    _make_deterministic()


@functools.cache
def _make_deterministic() -> None:
    """Makes TensorFlow's operations repeatable, once in a process.

    Those that draw random numbers then need a seed. None here draws; a program that goes on to use
    the model may, as `Model.fit` does when it shuffles. Set again, the seed would make TensorFlow
    forget every function that it has optimized.
    """
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(0)


def _compute_on(name: str) -> None:
    """Makes Keras compute on a device until this process ends; for JAX and PyTorch."""
    scope = keras.device(name)
    scope.__enter__()
    atexit.register(scope.__exit__, None, None, None)  # keeps the scope from garbage collection


def _keep_programs() -> None:
    """Lets JAX keep the programs that it compiles for a GPU in the cache folder.

    A later run starts without compiling, and computes with the same programs: XLA chooses the
    fastest kernels by measurement, so that another compilation may give other last bits.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / PROGRAMS))
        jax.config.update("jax_compilation_cache_max_size", 2 * 10**9)  # bytes; the oldest go
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # small ones too


def processors() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set_threads(threads: int, backend: str) -> int:
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    if not is_installed():
        return threads
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        # TensorFlow has already computed something (a notebook, a second run in one process).
        now = tf.config.threading.get_intra_op_parallelism_threads() or processors()
        if now != threads:
            raise UserError(
                f"This process uses {now} threads, but the run began with {threads}, and the "
                "number changes the weights. Continue in a new process."
            ) from None
    return threads
