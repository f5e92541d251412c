"""The device that a run computes on, and what makes two runs on it equal."""

import os

import tensorflow as tf

from kerasft.errors import UserError


def prepare(device: str, *, threads: int | None = None) -> dict[str, object]:
    """Chooses the device and makes its results repeatable. Call before the first tensor.

    Operations are made deterministic, and the number of threads is set, because it changes
    the weights even then (a sum is split by threads).

    Args:
        device: "auto" (the first GPU if there is one), "cpu" or "gpu:N".
        threads: CPU threads of an earlier part of the same run; None takes one per
            processor that this process may use.

    Returns:
        What run.json records: `{"device", "name", "threads"}`.

    Raises:
        UserError: no such GPU (exit code 2); or this process has already computed with
            another number of threads than the run began with.
    """
    gpus = tf.config.list_physical_devices("GPU")
    wanted = _gpu_number(device, len(gpus))
    chosen = [] if wanted is None else [gpus[wanted]]
    try:
        if gpus and tf.config.get_visible_devices("GPU") != chosen:
            tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            # Without this TensorFlow takes the whole card, other programs' share included.
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        raise UserError(
            f"device: this process has computed already, so it can't change to {device!r}. "
            "Go on in a fresh process."
        ) from None
    tf.config.experimental.enable_op_determinism()
    name = tf.config.experimental.get_device_details(chosen[0]).get("device_name") if chosen else ""
    return {
        "device": f"gpu:{wanted}" if chosen else "cpu",
        "name": name or "",
        "threads": _set_threads(threads or processors()),
    }


def _gpu_number(device: str, count: int) -> int | None:
    if device == "cpu" or (device == "auto" and count == 0):
        return None
    number = 0 if device == "auto" else int(device.removeprefix("gpu:"))
    if number >= count:
        raise UserError(
            f"device: {device!r} asked for, but TensorFlow sees {count} GPUs. "
            "Pass --device cpu, or install TensorFlow's GPU libraries "
            "(`pip install tensorflow[and-cuda]`).",
            exit_code=2,
        )
    return number


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set_threads(threads: int) -> int:
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
