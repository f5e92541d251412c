"""The pace of a machine: what pays is measured before a plan is settled.

On a CPU, bfloat16 is used for the frozen part where it is faster and close enough, and for the
steps of a long phase where it is much faster. A GPU may compute activations faster than a disk
reads them; then a phase trains without a store, unless the card's memory holds it. All is measured
once per net and machine and kept in the cache folder, so that the next run makes the same choice,
however busy the machine is then.

Shapes: B images in a batch, S side of the square input in pixels.
"""

import functools
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines
from kerasft.activations.engines import Engine, build, relative_error
from kerasft.cache import explaining
from kerasft.config.fields import Config, Phase
from kerasft.config.settled import rule_of
from kerasft.data.batches import split_batches
from kerasft.data.source import Source
from kerasft.input_rule import InputRule
from kerasft.models.cut import Cut

log = logging.getLogger("kerasft")

WORTH_IT = 1.15  # smallest speed of bfloat16, relative to float32, that "auto" accepts
CLOSE_ENOUGH = 0.02  # largest mean relative error of bfloat16 that "auto" accepts
# Number of images below which measuring bfloat16 takes longer than it saves, for an average net.
WORTH_MEASURING = 2000
SAMPLE = 256  # photos that are read for the measurement, at most
PROBE = 256 << 20  # bytes that are written and read for the measurement
ROUNDS, ENOUGH = 3, 5.0  # number of calls that are timed; seconds after which fewer will do

LONG = 30.0  # seconds of steps, predicted in float32, up to which "auto" takes float32 for them
FASTER = 1.3  # smallest speed of steps in bfloat16, relative to float32, that "auto" accepts
# Multiply-adds that a thread does in a second of float32 steps: 108e9 in ResNet50, 136e9 in VGG16,
# 79e9 in MobileNetV2, 52e9 in EfficientNetB0 (AMD EPYC with AVX-512, 2 threads, nothing beside it).
PER_THREAD = 100e9


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
    def measure() -> dict[str, float]:
        batches = split_batches(
            source,
            "train",
            rule=rule_of(config.data, prefix.input_shape[1]),
            batch_size=engines.BATCH,
        )
        pixels = np.asarray(next(iter(batches)))
        return asdict(compare_precisions(prefix, config.cache.engine, pixels))

    return Gain(**_once(_key_of_gain(config, prefix, blocks), ("speed", "difference"), measure))


def _once(
    key: str, names: tuple[str, ...], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Returns the numbers that an earlier run has measured under a key, or measures them now."""
    numbers = cache.remembered(cache.cache_folder(), key, names)
    if numbers is None or any(not numbers[name] for name in names if name != "difference"):
        numbers = measure()  # it would be divided by
        cache.remember(cache.cache_folder(), key, numbers)
    return numbers


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
    activations = compute(pixels)
    (seconds,) = fastest(lambda: compute(pixels))
    return activations, seconds


def fastest(*works: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Returns the seconds of the fastest call of each function.

    The functions take turns, so that whatever else the machine does slows all of them.

    Args:
        works: functions that have been called before, so that their graphs are built.
        rounds: number of times that each is called, less if that takes long.
    """
    seconds: list[list[float]] = [[] for _ in works]
    began = time.perf_counter()
    for _ in range(rounds):
        for work, of_work in zip(works, seconds, strict=True):
            now = time.perf_counter()
            work()
            of_work.append(time.perf_counter() - now)
        if time.perf_counter() - began > ENOUGH:
            break
    return [min(of_work) for of_work in seconds]


@dataclass(frozen=True, eq=False)
class StepsAhead:
    """The steps that a phase will take.

    Attributes:
        phase: the phase's settings.
        cut: the phase's cut.
        stored: whether the phase trains on stored activations.
        number: number of steps in all epochs.
        threads: number of threads that compute.
    """

    phase: Phase
    cut: Cut
    stored: bool
    number: int
    threads: int

    @property
    def rough_seconds(self) -> float:
        """Seconds that the steps take in float32, by their number of multiplications alone."""
        image = 3 * multiplications(self.cut.suffix)  # forward; to the activations; to the weights
        if not self.stored and self.cut.prefix is not None:
            image += multiplications(self.cut.prefix)
        return self.number * self.phase.batch_size * image / (PER_THREAD * self.threads)


def choose_step_precision(
    config: Config, ahead: StepsAhead, set_up: Callable[[str], Callable[[], object]]
) -> str:
    """Chooses the precision of a phase's steps on a CPU.

    bfloat16 is left to TensorFlow: with JAX on a CPU it was as fast as float32 (ResNet50 1.0 times,
    MobileNetV2 1.05 times). A head alone has too little to compute. Setting up a step takes
    seconds, so nothing is measured unless the number of multiplications comes to over LONG seconds.

    Args:
        config: the config, which names the net.
        ahead: the steps of the phase.
        set_up: function from a precision to a function that takes a step in it, on a copy of the
            phase (`trainable.steps_on_a_copy`).

    Returns:
        "mixed_bfloat16" if the processor computes it, the steps would take over LONG seconds in
        float32 and bfloat16 is measured to be FASTER times as fast; else "float32".
    """
    able = keras.backend.backend() == "tensorflow" and engines.computes_bfloat16()
    if not able or not ahead.cut.blocks or ahead.rough_seconds <= LONG:
        return "float32"
    key = _key_of_steps(config, ahead)

    @functools.cache
    def step(precision: str) -> Callable[[], object]:
        function = set_up(precision)
        function()  # builds the graph
        return function

    def measure_exact() -> dict[str, float]:
        (seconds,) = fastest(step("float32"), rounds=1)
        return {"seconds": seconds}

    def measure_both() -> dict[str, float]:
        exact, rough = fastest(step("float32"), step("mixed_bfloat16"))
        return {"speed": exact / rough}

    seconds = ahead.number * _once(f"{key} float32", ("seconds",), measure_exact)["seconds"]
    if seconds <= LONG:
        return "float32"
    speed = _once(f"{key} bfloat16", ("speed",), measure_both)["speed"]
    taken = speed >= FASTER
    log.info(
        "%s: its steps take about %.0f s in float32; in bfloat16 they are %.2f times as fast: %s.",
        ahead.phase.name,
        seconds,
        speed,
        "taken" if taken else "not taken",
    )
    return "mixed_bfloat16" if taken else "float32"


def _key_of_steps(config: Config, ahead: StepsAhead) -> str:
    phase, cut, head = ahead.phase, ahead.cut, config.head
    side = (cut.suffix if cut.prefix is None else cut.prefix).input_shape[1]
    of_net = ["steps", config.model.backbone, side, len(cut.blocks), keras.backend.backend()]
    of_head = [head.features, head.leave_out, *head.hidden]
    of_phase = [phase.batch_size, phase.batch_norm, "stored" if ahead.stored else "live"]
    of_machine = [ahead.threads, *engines.processor()]
    return " ".join(map(str, [*of_net, *of_head, *of_phase, *of_machine]))


def multiplications(model: keras.Model) -> int:
    """Counts the multiply-adds of an image in the kernels of a model, which are most of them."""
    total = 0
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer._inbound_nodes and not layer._layers:
            places = layer._inbound_nodes[-1].output_tensors[0].shape[1:-1]
            kernels = [v.shape for v in layer.weights if len(v.shape) > 1]
            total += math.prod(places) * sum(map(math.prod, kernels))
    return total


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
    shapes = [prefix.input_shape[1:], prefix.output_shape[1:]]
    here = [keras.backend.backend(), device, *engines.processor()]
    photos = hashlib.blake2b("".join(source.digests).encode(), digest_size=8).hexdigest()

    def measure() -> dict[str, float]:
        images = _images(source, prefix, rule_of(config.data, prefix.input_shape[1]))
        return {"images": images, "disk": disk_rate(cache.cache_folder())}

    key = " ".join(map(str, ["pace", config.model.backbone, *shapes, photos, *here]))
    return Pace(**_once(key, ("images", "disk"), measure))


def _images(source: Source, prefix: keras.Model, rule: InputRule) -> float:
    """Measures both halves of the way, which overlap in training: the slower one counts."""
    count = min(SAMPLE, len(source.indices("train")))
    batches = split_batches(source, "train", rule=rule, batch_size=engines.BATCH)
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
