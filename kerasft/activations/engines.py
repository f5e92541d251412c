"""Engines: what computes the activations at a cut from pixels, once, and fast.

An engine is a function: pixels float32 [B,S,S,3], 0 to 255 -> a list of float32 arrays [B, ...],
one for each output of the prefix. Inference only. `ENGINES` names them.

A third one was measured and left out: OpenVINO computes MobileNetV2 1.9 times as fast as the folded
graph in bfloat16 and ResNet50 1.1 times, but converts the net for seconds and waits for the same
decoding, which left 1.0 to 1.2 times from files to activations, less than the 1.3 that it was to
bring (`scripts/results/bench_engines.md`).

Shapes: B images in a batch, S side of the square input in pixels.
"""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kerasft.models.bundle import filled
from kerasft.models.live import restore_precision, set_precision

BATCH = 32  # one size, the last batch filled up: the numbers must not depend on neighbours

Engine = Callable[[np.ndarray], list[np.ndarray]]


def build(prefix: keras.Model, engine: str, precision: str) -> Engine:
    """Makes an engine for a prefix.

    Args:
        prefix: pixels [B,S,S,3] to one or more activations; left as it is.
        engine: a name in `ENGINES`.
        precision: "float32" or "bfloat16"; the results are float32 in both cases.

    Returns:
        A function of batches of any size up to BATCH; it raises ValueError for larger ones.
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
    """The inference graph with the weights as constants in it, on TensorFlow.

    Grappler then fuses BatchNormalization and activation into the convolution in front of
    them. In bfloat16 oneDNN's rewriter chooses, operation by operation, what stays float32.
    """

    def infer(pixels: tf.Tensor) -> list[tf.Tensor]:
        return keras.tree.flatten(prefix(pixels, training=False))

    spec = tf.TensorSpec([BATCH, *prefix.input_shape[1:]], tf.float32)
    traced = tf.function(infer, autograph=False).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(traced)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        # Around every call: TensorFlow keeps a rewritten graph for each state of the option.
        with _onednn_bfloat16(precision == "bfloat16"):
            return [output.numpy() for output in graph(tf.constant(pixels))]

    return compute


@contextmanager
def _onednn_bfloat16(on: bool) -> Iterator[None]:
    """Lets TensorFlow rewrite the graphs that are called here to bfloat16."""
    option = "auto_mixed_precision_onednn_bfloat16"
    before = bool(tf.config.optimizer.get_experimental_options().get(option, False))
    tf.config.optimizer.set_experimental_options({option: on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def _keras(prefix: keras.Model, precision: str) -> Engine:
    """The Keras model as it is, on any backend and device."""
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    # A new model: an older one may have been traced in another precision.
    model = keras.Model(prefix.inputs[0], prefix.outputs)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        # Around every call: TensorFlow and JAX trace the first one, PyTorch none.
        before = set_precision(prefix, policy)
        try:
            return keras.tree.flatten(model.predict_on_batch(pixels))
        finally:
            restore_precision(before)

    compute(np.zeros((BATCH, *prefix.input_shape[1:]), "float32"))
    return compute


ENGINES: dict[str, Callable[[keras.Model, str], Engine]] = {"folded": _folded, "keras": _keras}


def folds(device: str) -> bool:
    """Whether the folded engine can be used: on a CPU with TensorFlow, where it was measured."""
    return device == "cpu" and keras.backend.backend() == "tensorflow"


CPUINFO = Path("/proc/cpuinfo")  # Linux' description of the processors


def computes_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 itself; False where it is not known."""
    if not cpuinfo.is_file():
        return False
    words = set(cpuinfo.read_text("utf-8", errors="replace").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def processor(cpuinfo: Path = CPUINFO) -> list[str]:
    """What may change the last bits of a result: the processor, and whether oneDNN is used."""
    name = platform.processor()
    if cpuinfo.is_file():
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return [platform.machine(), name, os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")]


def relative_error(exact: np.ndarray, rough: np.ndarray) -> float:
    """Mean over the images of |rough - exact| / |exact|, L2 norms over all of an image."""
    exact, rough = (values.reshape(len(values), -1) for values in (exact, rough))
    norms = np.maximum(np.linalg.norm(exact, axis=1), np.finfo("float32").tiny)
    return float(np.mean(np.linalg.norm(rough - exact, axis=1) / norms))
