"""Whether the frozen part may compute in bfloat16: measured once per net and machine.

The measurement is remembered in the cache folder, so that the next run chooses the same and finds
the stores of this one.

Shapes: B images in a batch, S side of the square input in pixels.
"""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines
from kerasft.activations.engines import Engine, build, relative_error
from kerasft.activations.keys import passes
from kerasft.backbones import spec
from kerasft.cache import explaining
from kerasft.config.fields import AnyPhase, Config
from kerasft.data.batches import split_batches
from kerasft.data.source import Source
from kerasft.files import write_atomic
from kerasft.models.cut import split

log = logging.getLogger("kerasft")

WORTH_IT = 1.15  # bfloat16 has to be this much faster
CLOSE_ENOUGH = 0.02  # largest mean relative error of bfloat16 that "auto" accepts


def compare_precisions(prefix: keras.Model, engine: str, pixels: np.ndarray) -> dict[str, float]:
    """Measures what bfloat16 gains and costs on some images.

    Args:
        prefix: pixels to activations.
        engine: a name in `ENGINES`.
        pixels: float32 [BATCH,S,S,3] of real images.

    Returns:
        `{"speed", "difference"}`: how many times as fast as float32; and the mean over the
        images of the L2 norm of the error over that of the activations, the largest over
        the outputs. 0 says that nothing was computed in bfloat16.
    """
    exact, seconds = _timed(build(prefix, engine, "float32"), pixels)
    rough, rough_seconds = _timed(build(prefix, engine, "bfloat16"), pixels)
    difference = max(relative_error(a, b) for a, b in zip(exact, rough, strict=True))
    return {"speed": seconds / rough_seconds, "difference": difference}


def _timed(compute: Engine, pixels: np.ndarray) -> tuple[list[np.ndarray], float]:
    """The activations, and the seconds of the fastest call; the first one builds the graph."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        activations = compute(pixels)
        seconds.append(time.perf_counter() - began)
    return activations, min(seconds)


# Passes of a net of average size below which measuring bfloat16 takes longer than it saves.
WORTH_MEASURING = 2000


def settle_precision(
    config: Config, found: Source, model: keras.Model, phase: AnyPhase, device: str
) -> Config:
    """bfloat16 where the processor has it, it is measured to be faster, and comes close."""
    if config.cache.precision != "auto":
        return config
    if (
        device != "cpu"
        or not engines.computes_bfloat16()
        or passes(config, phase, found) < WORTH_MEASURING
    ):
        return with_cache(config, precision="float32")
    facts = _compared(config, found, model, phase)
    speed, difference = facts["speed"], facts["difference"]
    taken = speed >= WORTH_IT and 0 < difference <= CLOSE_ENOUGH
    log.info(
        "bfloat16 for the frozen part: %.1f times as fast as float32, activations differ by "
        "%.1f%%: %s.",
        speed,
        100 * difference,
        "taken" if taken else "not taken",
    )
    return with_cache(config, precision="bfloat16" if taken else "float32")


def _compared(config: Config, found: Source, model: keras.Model, phase: AnyPhase) -> dict:
    """What bfloat16 gains and costs for this net on this machine, measured once.

    Remembered, because the next run has to choose the same to find the stores of this one, however
    busy the machine is then.
    """
    assert config.model.image_size is not None
    cut = split(model, phase.blocks, *spec.rows_of(config.model.backbone))
    assert cut.prefix is not None
    of_net = [config.model.backbone, config.model.image_size, config.model.weights, phase.blocks]
    chosen = [config.head.features, config.head.leave_out]
    of_net += chosen if chosen != ["pooled", 0] else []
    of_machine = [keras.backend.backend(), config.cache.engine, *engines.processor()]
    key = " ".join(map(str, [*of_net, *of_machine]))
    facts = remembered(cache.cache_folder(), key)
    if facts is None:
        batches = split_batches(
            found,
            "train",
            image_size=config.model.image_size,
            resize=config.data.resize,
            batch_size=engines.BATCH,
        )
        pixels = np.asarray(next(iter(batches)))
        facts = compare_precisions(cut.prefix, config.cache.engine, pixels)
        remember(cache.cache_folder(), key, facts)
    return facts


def with_cache(config: Config, **fields: object) -> Config:
    """Returns the config with some fields of its section "cache" replaced."""
    return config.model_copy(update={"cache": config.cache.model_copy(update=fields)})


REMEMBERED = "measured.json"


def remember(folder: Path, key: str, value: Mapping[str, Any]) -> None:
    """Keeps a measurement of this machine beside the stores, so that it is made once."""
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / REMEMBERED, json.dumps({**_measured(folder), key: dict(value)}))


def remembered(folder: Path, key: str) -> dict[str, Any] | None:
    """Returns what `remember` kept; None where there is nothing."""
    return _measured(folder).get(key)


def _measured(folder: Path) -> dict[str, Any]:
    try:
        measured = json.loads((folder / REMEMBERED).read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # it is measured again
    return measured if isinstance(measured, dict) else {}
