"""The precision of the prefix: float32, or bfloat16 where a measurement shows that it pays.

The measurement is made once per net and machine and kept in the cache folder, so that the next run
makes the same choice and finds the stores of this one, however busy the machine is then.

Shapes: B images in a batch, S side of the square input in pixels.
"""

import logging
import time
from dataclasses import asdict, dataclass

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines
from kerasft.activations.engines import Engine, build, relative_error
from kerasft.config.fields import Config
from kerasft.data.batches import split_batches
from kerasft.data.source import Source

log = logging.getLogger("kerasft")

WORTH_IT = 1.15  # smallest speed of bfloat16, relative to float32, that "auto" accepts
CLOSE_ENOUGH = 0.02  # largest mean relative error of bfloat16 that "auto" accepts
# Number of images below which measuring bfloat16 takes longer than it saves, for an average net.
WORTH_MEASURING = 2000


@dataclass(frozen=True)
class Gain:
    """Speed and error of bfloat16 on some images.

    Attributes:
        speed: speed of bfloat16, as a multiple of the speed of float32.
        difference: mean relative error of an image (L2 norms), for the output where it is largest;
            0 means that nothing was computed in bfloat16.
    """

    speed: float
    difference: float

    @property
    def is_worth_it(self) -> bool:
        """Whether bfloat16 is enough faster and its error small enough."""
        return self.speed >= WORTH_IT and 0 < self.difference <= CLOSE_ENOUGH


def choose_precision(
    config: Config, source: Source, prefix: keras.Model, *, blocks: int | str, passes: int
) -> str:
    """Chooses the precision in which a CPU computes the stores.

    Args:
        config: the config, its engine settled.
        source: the photos.
        prefix: the prefix, pixels to the activations at the first stored cut.
        blocks: number of blocks above that cut, or "all".
        passes: number of images that will go through the prefix.

    Returns:
        "bfloat16" if the processor has it and the measured gain is worth it, else "float32".
    """
    if not engines.computes_bfloat16() or passes < WORTH_MEASURING:
        return "float32"
    gain = _measured_once(config, source, prefix, blocks)
    log.info(
        "bfloat16 for the frozen part: %.1f times as fast as float32, activations differ by "
        "%.1f%%: %s.",
        gain.speed,
        100 * gain.difference,
        "taken" if gain.is_worth_it else "not taken",
    )
    return "bfloat16" if gain.is_worth_it else "float32"


def _measured_once(config: Config, source: Source, prefix: keras.Model, blocks: int | str) -> Gain:
    side = prefix.input_shape[1]
    of_net = [config.model.backbone, side, config.model.weights, blocks]
    chosen = [config.head.features, config.head.leave_out]
    of_net += chosen if chosen != ["pooled", 0] else []
    of_machine = [keras.backend.backend(), config.cache.engine, *engines.processor()]
    key = " ".join(map(str, [*of_net, *of_machine]))
    numbers = cache.remembered(cache.cache_folder(), key, ("speed", "difference"))
    if numbers:
        return Gain(**numbers)
    batches = split_batches(
        source,
        "train",
        image_size=side,
        resize=config.data.resize,
        batch_size=engines.BATCH,
    )
    pixels = np.asarray(next(iter(batches)))
    gain = compare_precisions(prefix, config.cache.engine, pixels)
    cache.remember(cache.cache_folder(), key, asdict(gain))
    return gain


def compare_precisions(prefix: keras.Model, engine: str, pixels: np.ndarray) -> Gain:
    """Measures speed and error of bfloat16 on some images.

    Args:
        prefix: the prefix, pixels to activations.
        engine: name of the engine, a key of `engines.ENGINES`.
        pixels: pixels of real images, float32 [BATCH,S,S,3].
    """
    exact, seconds = timed(build(prefix, engine, "float32"), pixels)
    rough, rough_seconds = timed(build(prefix, engine, "bfloat16"), pixels)
    difference = max(relative_error(a, b) for a, b in zip(exact, rough, strict=True))
    return Gain(seconds / rough_seconds, difference)


def timed(compute: Engine, pixels: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Returns the activations and the seconds of the fastest call; the first builds the graph."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        activations = compute(pixels)
        seconds.append(time.perf_counter() - began)
    return activations, min(seconds)
