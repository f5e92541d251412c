"""The compiled engine: a prefix as one XLA program on JAX, for a GPU.

Normalisations are folded into the convolutions in front of them (`models/fold.py`). Pixels may be
uint8 and are cast in the program. What a store keeps is made there too: the rounding to float16,
and the check that each image's activations fit it; so half as much travels back.

Shapes: B images in a batch, S side of the square input in pixels.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from kerasft.activations.store import TOLERANCE
from kerasft.models.fold import for_inference
from kerasft.models.live import set_precision

MOST = 256  # images in a batch that keep a GPU busy; 512 gained 5% (scripts/results/bench_gpu.md)
FEWEST = 32
SHARE = 0.25  # of the card's memory that a batch may take; the convolutions need room to work in


def batch_for(prefix: keras.Model, images: int, memory: int | None) -> int:
    """Chooses how many images are computed at once: a power of two, 32 to 256.

    Args:
        prefix: the prefix.
        images: number of images to be computed.
        memory: the memory of the device in bytes; None for a CPU, which gains nothing.

    Returns:
        The largest number that fits the memory and is not more than the images need. It is
        computed, not tried out: each try would compile the prefix again, for seconds, while 600
        photos are computed in less than one.
    """
    if memory is None:
        return FEWEST
    shapes = [layer.output.shape for layer in prefix.layers if hasattr(layer.output, "shape")]
    largest = max(math.prod(size or 1 for size in shape) for shape in shapes)
    batch = MOST
    # Three of the largest tensors, in float32: what enters, what leaves, what a sum waits for.
    while batch > FEWEST and (batch // 2 >= images or 3 * 4 * largest * batch > SHARE * memory):
        batch //= 2
    return batch


def memory() -> int | None:
    """Returns the memory that JAX may use on the device, in bytes; None for a CPU."""
    stats = jnp.zeros(()).device.memory_stats()
    return None if stats is None else int(stats["bytes_limit"])


def compile_prefix(
    prefix: keras.Model, precision: str
) -> Callable[[np.ndarray, str], list[tuple[Any, Any]]]:
    """Compiles a prefix; the program itself is made with the first batch.

    Args:
        prefix: the prefix, pixels [B,S,S,3] to one or more activations; it does not change.
        precision: precision of the computation, "float32" or "bfloat16".

    Returns:
        The function that begins a batch (`engines.Start`); it returns before the results are there.
    """
    model = for_inference(prefix)
    set_precision(model, "mixed_bfloat16" if precision == "bfloat16" else "float32")
    variables = (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )

    @partial(jax.jit, static_argnums=2)
    def run(variables: tuple[list, list], pixels: Any, dtype: str) -> list[tuple[Any, Any]]:
        outputs, _ = model.stateless_call(*variables, pixels.astype("float32"), training=False)
        return [_as_stored(output, dtype) for output in keras.tree.flatten(outputs)]

    def start(pixels: np.ndarray, dtype: str) -> list[tuple[Any, Any]]:
        return _on_their_way(run(variables, pixels, dtype))

    return start


def _on_their_way(results: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Lets results travel to the host as soon as they are computed.

    They go to pinned memory, which the card writes by itself; into other memory the driver copies
    them in small pieces.
    """
    device = results[0][0].device
    if device.platform == "cpu":
        return results
    host = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    return jax.device_put(results, host)


def _as_stored(output: Any, dtype: str) -> tuple[Any, Any]:
    """Does `store.as_stored` on the device: [B, ...] -> the values, and bool [B], which fit."""
    exact = output.astype("float32")
    flat = exact.reshape(len(exact), -1)
    kept = flat
    if dtype == "float16":
        # Not a conversion and back, which XLA may leave out. `reduce_precision` makes 0 of the
        # subnormal numbers, below 2**-14, which float16 has in steps of 2**-24.
        usual = jax.lax.reduce_precision(flat, exponent_bits=5, mantissa_bits=10)
        kept = jnp.where(jnp.abs(flat) < 2.0**-14, jnp.round(flat * 2.0**24) * 2.0**-24, usual)
    largest = jnp.max(jnp.abs(flat), axis=1, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)  # squares of small numbers would vanish
    lost = jnp.linalg.norm((flat - kept) / scale, axis=1)
    fit = jnp.isfinite(kept).all(axis=1) & (
        lost <= TOLERANCE * jnp.linalg.norm(flat / scale, axis=1)
    )
    return exact.astype(dtype), fit
