"""Engines: the code that computes activations from pixels.

    pixels [B,S,S,3], 0 to 255 -> a list of arrays [B, ...], one for each output of the prefix

Inference only. `ENGINES` lists them. Two compute one batch after the other on the CPU; "compiled"
(`compiled.py`) keeps a GPU busy: it computes one batch while others travel.

A third engine was measured and left out: OpenVINO computes MobileNetV2 1.9 times as fast as the
folded graph in bfloat16, and ResNet50 1.1 times. But converting the net takes seconds, and it
waits for the same decoding, so from files to activations it was only 1.0 to 1.2 times as fast;
1.3 times was required (`scripts/results/bench_engines.md`).

Shapes: B images in a batch, S side of the square input in pixels.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft.activations.store import as_stored
from kerasft.config.settled import USUAL_BATCH
from kerasft.lazy_tensorflow import tf
from kerasft.models.bundle import filled
from kerasft.models.live import restore_precision, set_precision

BATCH = USUAL_BATCH  # one size, the last batch padded: numbers must not depend on the batch

# Begins to compute one full batch: (pixels [B,S,S,3], dtype of the results) -> a pair for each
# output: values [B, ...] in that dtype, and whether they fit it: bool [B], or None if that is to
# be found out from the values, which are then float32. A GPU may still be computing both.
Start = Callable[[np.ndarray, str], list[tuple[Any, Any]]]


@dataclass(frozen=True, eq=False)
class Engine:
    """An engine that was built for a prefix.

    Attributes:
        batch: number of images that are computed at once, B; smaller batches are padded.
        start: function that begins to compute a batch, see `Start`.
        ahead: number of batches that are begun before the results of the first are taken.
    """

    batch: int
    start: Start
    ahead: int = 0

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Returns the activations of up to `batch` images, float32, whatever their values."""
        started = self.start(filled(self._checked(pixels), self.batch), "float32")
        return [np.asarray(values, "float32")[: len(pixels)] for values, _ in started]

    def over(
        self, batches: Iterable[np.ndarray], dtype: str
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray | None]]]:
        """Computes many batches, in order.

        Args:
            batches: pixels [B,S,S,3], 0 to 255, up to `batch` images each.
            dtype: dtype of the store, "float16" or "float32".

        Yields:
            The pixels of a batch, and for each output its activations as `store.as_stored` gives
            them: [B, ...] in the dtype, or None if they don't fit it.
        """
        begun: deque[tuple[np.ndarray, list[tuple[Any, Any]]]] = deque()
        for pixels in batches:
            plain = self._checked(np.asarray(pixels))
            begun.append((plain, self.start(filled(plain, self.batch), dtype)))
            if len(begun) > self.ahead:
                yield self._finished(*begun.popleft(), dtype)
        while begun:
            yield self._finished(*begun.popleft(), dtype)

    def _checked(self, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > self.batch:
            raise ValueError(f"expected at most {self.batch} images, got {len(pixels)}")
        return pixels

    def _finished(
        self, pixels: np.ndarray, begun: list[tuple[Any, Any]], dtype: str
    ) -> tuple[np.ndarray, list[np.ndarray | None]]:
        count = len(pixels)
        outputs: list[np.ndarray | None] = []
        for values, fit in begun:
            kept = np.asarray(values)[:count]
            if fit is None:
                outputs.append(as_stored(kept, dtype))
            else:
                outputs.append(kept if np.asarray(fit)[:count].all() else None)
        return pixels, outputs


def build(prefix: keras.Model, engine: str, precision: str, batch: int = BATCH) -> Engine:
    """Builds an engine for a prefix.

    Args:
        prefix: the prefix, pixels [B,S,S,3] to one or more activations; it does not change.
        engine: name of the engine, a key of `ENGINES`.
        precision: precision of the computation, "float32" or "bfloat16".
        batch: number of images that are computed at once.
    """
    return ENGINES[engine](prefix, precision, batch)


def _at_once(compute: Callable[[np.ndarray], list[np.ndarray]], batch: int) -> Engine:
    """Makes an engine of a function that returns when the results are there."""

    def start(pixels: np.ndarray, dtype: str) -> list[tuple[Any, Any]]:
        return [(np.asarray(output, "float32"), None) for output in compute(pixels)]

    return Engine(batch, start)


def _folded(prefix: keras.Model, precision: str, batch: int) -> Engine:
    """Builds TensorFlow's inference graph with the weights folded in as constants.

    Grappler can then fuse BatchNormalization and activation into the convolution in front of
    them. For bfloat16, oneDNN's rewriter chooses for each operation whether it stays float32.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def infer(pixels: tf.Tensor) -> list[tf.Tensor]:
        return keras.tree.flatten(prefix(pixels, training=False))

    spec = tf.TensorSpec([batch, *prefix.input_shape[1:]], tf.float32)
    traced = tf.function(infer, autograph=False).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(traced)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        # Set for every call: TensorFlow keeps a rewritten graph for each state of the option.
        with _onednn_bfloat16(precision == "bfloat16"):
            return [output.numpy() for output in graph(tf.constant(pixels))]

    return _at_once(compute, batch)


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


def _keras(prefix: keras.Model, precision: str, batch: int) -> Engine:
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

    compute(np.zeros((batch, *prefix.input_shape[1:]), "float32"))
    return _at_once(compute, batch)


def _compiled(prefix: keras.Model, precision: str, batch: int) -> Engine:
    """Uses one XLA program that reads a batch as the card computes another; needs JAX."""
    from kerasft.activations.compiled import compile_prefix

    return Engine(batch, compile_prefix(prefix, precision), ahead=2)


ENGINES: dict[str, Callable[[keras.Model, str, int], Engine]] = {
    "folded": _folded,
    "keras": _keras,
    "compiled": _compiled,
}


def compiles() -> bool:
    """Returns whether the compiled engine can be used: with JAX."""
    return keras.backend.backend() == "jax"


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
