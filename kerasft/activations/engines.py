"""Engines: the code that computes activations from pixels.

An engine is a function: pixels float32 [B,S,S,3], 0 to 255 -> a list of float32 arrays [B, ...],
one for each output of the prefix. Inference only. `ENGINES` lists them.

A third engine was measured and left out: OpenVINO computes MobileNetV2 1.9 times as fast as the
folded graph in bfloat16, and ResNet50 1.1 times. But converting the net takes seconds, and it
waits for the same decoding, so from files to activations it was only 1.0 to 1.2 times as fast;
1.3 times was required (`scripts/results/bench_engines.md`).

Shapes: B images in a batch, S side of the square input in pixels.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from kerasft.lazy_tensorflow import tf
from kerasft.models.bundle import filled
from kerasft.models.live import restore_precision, set_precision

BATCH = 32  # a single size, the last batch padded: numbers must not depend on the batch

Engine = Callable[[np.ndarray], list[np.ndarray]]


def build(prefix: keras.Model, engine: str, precision: str) -> Engine:
    """Builds an engine for a prefix.

    Args:
        prefix: the prefix, pixels [B,S,S,3] to one or more activations; it does not change.
        engine: name of the engine, a key of `ENGINES`.
        precision: precision of the computation, "float32" or "bfloat16"; the results are float32
            in both cases.

    Returns:
        A function of batches of up to BATCH images; it raises ValueError for larger ones.
    """
    compute = ENGINES[engine](prefix, precision)

    def padded(pixels: np.ndarray) -> list[np.ndarray]:
        count = len(pixels)
        if count > BATCH:
            raise ValueError(f"expected at most {BATCH} images, got {count}")
        pixels = filled(pixels, BATCH)
        return [np.asarray(out, "float32")[:count] for out in compute(pixels)]

    return padded


def _folded(prefix: keras.Model, precision: str) -> Engine:
    """Builds TensorFlow's inference graph with the weights folded in as constants.

    Grappler can then fuse BatchNormalization and activation into the convolution in front of
    them. For bfloat16, oneDNN's rewriter chooses for each operation whether it stays float32.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def infer(pixels: tf.Tensor) -> list[tf.Tensor]:
        return keras.tree.flatten(prefix(pixels, training=False))

    spec = tf.TensorSpec([BATCH, *prefix.input_shape[1:]], tf.float32)
    traced = tf.function(infer, autograph=False).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(traced)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        # Set for every call: TensorFlow keeps a rewritten graph for each state of the option.
        with _onednn_bfloat16(precision == "bfloat16"):
            return [output.numpy() for output in graph(tf.constant(pixels))]

    return compute


@contextmanager
def _onednn_bfloat16(on: bool) -> Iterator[None]:
    """Lets TensorFlow rewrite the graphs that are called in the block to bfloat16."""
    option = "auto_mixed_precision_onednn_bfloat16"
    before = bool(tf.config.optimizer.get_experimental_options().get(option, False))
    tf.config.optimizer.set_experimental_options({option: on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def _keras(prefix: keras.Model, precision: str) -> Engine:
    """Uses the Keras model as it is, on any backend and device."""
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    # A new model: an older one may have been traced in another precision.
    model = keras.Model(prefix.inputs[0], prefix.outputs)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        # Set for every call: TensorFlow and JAX trace the first one, PyTorch traces none.
        before = set_precision(prefix, policy)
        try:
            return keras.tree.flatten(model.predict_on_batch(pixels))
        finally:
            restore_precision(before)

    compute(np.zeros((BATCH, *prefix.input_shape[1:]), "float32"))
    return compute


ENGINES: dict[str, Callable[[keras.Model, str], Engine]] = {"folded": _folded, "keras": _keras}


def folds(device: str) -> bool:
    """Returns whether the folded engine can be used: on a CPU with TensorFlow."""
    return device == "cpu" and keras.backend.backend() == "tensorflow"


CPUINFO = Path("/proc/cpuinfo")  # Linux's description of the processors


def computes_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Returns whether the processor has instructions for bfloat16; False if that is not known."""
    if not cpuinfo.is_file():
        return False
    words = set(cpuinfo.read_text("utf-8", errors="replace").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def processor(cpuinfo: Path = CPUINFO) -> list[str]:
    """Returns facts that may change the last bits of a result: the processor, use of oneDNN."""
    name = platform.processor()
    if cpuinfo.is_file():
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return [platform.machine(), name, os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")]


def relative_error(exact: np.ndarray, rough: np.ndarray) -> float:
    """Returns the mean over the images of |rough - exact| / |exact|, L2 norms over an image."""
    exact, rough = (values.reshape(len(values), -1) for values in (exact, rough))
    norms = np.maximum(np.linalg.norm(exact, axis=1), np.finfo("float32").tiny)
    return float(np.mean(np.linalg.norm(rough - exact, axis=1) / norms))
