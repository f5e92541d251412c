"""The pace of a machine: what pays is measured before a plan is settled.

On a CPU, bfloat16 is used for the frozen part where it is faster and close enough. A GPU may
compute activations faster than a disk reads them; then a phase trains without a store, unless the
card's memory holds it. All is measured once per net and machine and kept in the cache folder, so
that the next run makes the same choice, however busy the machine is then.

Shapes: B images in a batch, S side of the square input in pixels.
"""

import hashlib
import logging
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines
from kerasft.activations.engines import Engine, build, relative_error
from kerasft.cache import explaining
from kerasft.config.fields import Config
from kerasft.data.batches import split_batches
from kerasft.data.source import Source

log = logging.getLogger("kerasft")

WORTH_IT = 1.15  # smallest speed of bfloat16, relative to float32, that "auto" accepts
CLOSE_ENOUGH = 0.02  # largest mean relative error of bfloat16 that "auto" accepts
# Number of images below which measuring bfloat16 takes longer than it saves, for an average net.
WORTH_MEASURING = 2000
SAMPLE = 256  # photos that are read for the measurement, at most
PROBE = 256 << 20  # bytes that are written and read for the measurement


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
        passes: number of images that will go through the prefix, because no store has them.

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


def bfloat16_pays(config: Config, prefix: keras.Model, blocks: int | str) -> bool:
    """Returns whether an earlier run has measured that bfloat16 is worth it.

    Args:
        config: the config, its engine settled.
        prefix: the prefix, pixels to the activations at the cut.
        blocks: number of blocks above that cut, or "all".
    """
    if not engines.computes_bfloat16():
        return False
    key = _key_of_gain(config, prefix, blocks)
    numbers = cache.remembered(cache.cache_folder(), key, ("speed", "difference"))
    return numbers is not None and Gain(**numbers).is_worth_it


def _key_of_gain(config: Config, prefix: keras.Model, blocks: int | str) -> str:
    side = prefix.input_shape[1]
    of_net = [config.model.backbone, side, config.model.weights, blocks]
    chosen = [config.head.features, config.head.leave_out]
    of_net += chosen if chosen != ["pooled", 0] else []
    of_machine = [keras.backend.backend(), config.cache.engine, *engines.processor()]
    return " ".join(map(str, [*of_net, *of_machine]))


def _measured_once(config: Config, source: Source, prefix: keras.Model, blocks: int | str) -> Gain:
    key = _key_of_gain(config, prefix, blocks)
    numbers = cache.remembered(cache.cache_folder(), key, ("speed", "difference"))
    if numbers:
        return Gain(**numbers)
    batches = split_batches(
        source,
        "train",
        image_size=prefix.input_shape[1],
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


@dataclass(frozen=True)
class Pace:
    """Two rates of a machine.

    Attributes:
        images: images per second from the file to the activations at a cut.
        disk: bytes per second that are read from the cache's disk.
    """

    images: float
    disk: float

    def pays(self, *, live: int, once: int, read: int) -> bool:
        """Returns whether a store saves time.

        Args:
            live: number of images that go through the prefix without a store.
            once: number of those that fill the store.
            read: bytes that the epochs read from the store.
        """
        return once / self.images + read / self.disk < live / self.images


def measured_pace(config: Config, source: Source, prefix: keras.Model, device: str) -> Pace:
    """Returns the pace at a cut, measured now or by an earlier run.

    Args:
        config: the config, with backbone and resize rule.
        source: the photos.
        prefix: the prefix, pixels to the activations at the cut.
        device: the device that computes, "gpu:N".
    """
    folder = cache.cache_folder()
    shapes = [prefix.input_shape[1:], prefix.output_shape[1:]]
    here = [keras.backend.backend(), device, *engines.processor()]
    photos = hashlib.blake2b("".join(source.digests).encode(), digest_size=8).hexdigest()
    key = " ".join(map(str, ["pace", config.model.backbone, *shapes, photos, *here]))
    found = cache.remembered(folder, key, ("images", "disk"))
    if found is None:
        images = _images(source, prefix, config.data.resize)
        found = {"images": images, "disk": disk_rate(folder)}
        cache.remember(folder, key, found)
    return Pace(**found)


def _images(source: Source, prefix: keras.Model, resize: str) -> float:
    """Measures both halves of the way, which overlap in training: the slower one counts."""
    side = prefix.input_shape[1]
    count = min(SAMPLE, len(source.indices("train")))
    batches = split_batches(
        source, "train", image_size=side, resize=resize, batch_size=engines.BATCH
    )
    reader = iter(batches)
    pixels = next(reader)  # the decoder is made with the first batch
    began, read = time.perf_counter(), 0
    for batch in reader:
        read += len(batch)
        if read >= count:
            break
    decoding = read / (time.perf_counter() - began) if read else float("inf")
    engine = engines.build(prefix, "keras", "float32")
    _, seconds = timed(engine, pixels)
    return min(decoding, len(pixels) / seconds)


def disk_rate(folder: Path) -> float:
    """Measures how fast a folder's disk reads, bytes per second, with a file of its own."""
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"probe-{os.getpid()}"
        try:
            with path.open("w+b", buffering=0) as file:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()  # now, so that nothing is left if this process is killed
                block = np.random.default_rng(0).bytes(PROBE // 16)
                for _ in range(16):
                    file.write(block)
                os.fsync(file.fileno())
                file.seek(0)
                if hasattr(os, "posix_fadvise"):  # so that it is read from the disk, not memory
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                began = time.perf_counter()
                while file.read(PROBE // 16):
                    pass
                return PROBE / (time.perf_counter() - began)
        finally:
            path.unlink(missing_ok=True)
