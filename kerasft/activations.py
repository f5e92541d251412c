"""Activations at the cut of a phase: found in the cache, or computed once for all epochs.

    images x views -- decode once -- prefix, up to several cuts --> a store per cut and view

A store is one view of one split's images at one cut (`store.py`). Its key holds all that
could change its numbers, so whatever finds it, a later phase or another run, may use it.
One pass fills the stores of all cuts that the run is going to need.

Shapes: N images, V views of each training image, S side of the model's square input.
"""

import hashlib
import importlib.metadata
import logging
import math
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kerasft import __version__, backbones, cache, data, engines, store
from kerasft.config import Config, Phase
from kerasft.cut import Cut, digest_of, fingerprint, list_blocks, split
from kerasft.errors import UserError
from kerasft.progress import Event
from kerasft.randomness import derive_seed
from kerasft.setting import Setting
from kerasft.source import Source
from kerasft.store import Key
from kerasft.timing import Part

log = logging.getLogger("kerasft")

DECODING = 1  # of images.py and augment.py: raise it where the same file gives other pixels
SPLITS = ("train", "validation")


@dataclass(frozen=True, eq=False)
class Stored:
    """What a phase trains on in the place of pixels.

    Attributes:
        train: V arrays [N, ...], a row per training image, memory-mapped.
        validation: [N, ...] of the validation images, plain.
        found: whether nothing had to be computed.
        difference: mean relative error of bfloat16, of the first images; 0 in float32 and
            where nothing was computed.
        part: the pass, timed; None if all was found.
    """

    train: tuple[np.ndarray, ...]
    validation: np.ndarray
    found: bool
    difference: float = 0.0
    part: Part | None = None

    @property
    def dtype(self) -> str:
        """Of the stored numbers: "float16" or "float32"."""
        return str(self.validation.dtype)

    @property
    def bytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for array in (*self.train, self.validation))


@dataclass(frozen=True)
class Need:
    """One store: a view of a split's images at a cut.

    Attributes:
        key: of the store.
        split: "train" or "validation".
        view: number and seed; (0, 0) is the plain one.
        blocks: where the cut is.
        shape: [N, ...].
    """

    key: Key
    split: str
    view: tuple[int, int]
    blocks: int
    shape: tuple[int, ...]


def views_of(config: Config) -> list[tuple[int, int]]:
    """Number and seed of each view of a training image, the plain one (0, 0) first."""
    assert config.augment.views is not None  # settled by resolve.py
    numbers = range(1, config.augment.views)
    return [(0, 0), *((v, derive_seed(config.seed, "view", v)) for v in numbers)]


def passes(config: Config, source: Source) -> int:
    """How often an image goes through the prefix to fill the stores of a cut."""
    train, validation = (len(source.indices(name)) for name in SPLITS)
    return train * len(views_of(config)) + validation


def bytes_at(config: Config, source: Source, cut: Cut) -> int:
    """Size of the stores at a cut, in float16 unless the config says float32."""
    assert cut.prefix is not None
    item = 4 if config.cache.dtype == "float32" else 2
    return passes(config, source) * math.prod(cut.prefix.output_shape[1:]) * item


def activations_at(setting: Setting, index: int, model: keras.Model, cut: Cut) -> Stored:
    """Returns the activations that a phase trains on.

    Args:
        setting: the run, its config settled.
        index: of the phase.
        model: the whole model that the phase begins with, in float32.
        cut: of it, with a prefix.

    Raises:
        UserError: the stores don't fit the cache's limit or the disk, the disk is full, a
            photo went away, or the prefix computes values that are not numbers.
    """
    wanted = setting.config.cache.dtype
    for dtype in ("float16", "float32") if wanted == "auto" else (wanted,):
        found = find(setting, model, len(cut.blocks), dtype)
        if found:
            return found
    return _filled(setting, index, model, len(cut.blocks))


def find(setting: Setting, model: keras.Model, blocks: int, dtype: str) -> Stored | None:
    """Opens the stores at a cut.

    Args:
        setting: the run, its config settled.
        model: the whole model.
        blocks: how many are above the cut.
        dtype: of the stores, "float16" or "float32".

    Returns:
        None unless all of them are there.
    """
    folder = cache.cache_folder()
    needs = _needs(setting, model, blocks, dtype)
    if not all(store.holds(folder, need.key) for need in needs):
        return None
    arrays = [store.open_store(folder, need.key) for need in needs]
    whole = [array for array in arrays if array is not None]
    if len(whole) < len(arrays):
        return None
    return Stored(tuple(whole[:-1]), whole[-1], found=True)


def _filled(setting: Setting, index: int, model: keras.Model, blocks: int) -> Stored:
    """Computes what is missing; in float32 where float16 turns out not to hold it."""
    wanted = setting.config.cache.dtype
    phase = setting.config.phases[index].name
    began = time.perf_counter()
    for dtype in ("float16", "float32") if wanted == "auto" else (wanted,):
        counts = [blocks, *_later_cuts(setting, index, model)]
        needs = [n for count in counts for n in _needs(setting, model, count, dtype)]
        earlier = time.perf_counter() - began  # of a pass that was given up
        try:
            part, difference = _fill(setting, model, _that_fit(needs, blocks), dtype, phase)
        except OverflowError:
            if dtype == "float16" and wanted == "auto":
                log.info("Activations that float16 cannot hold: they are stored in float32.")
            continue
        stored = find(setting, model, blocks, dtype)
        if stored is None:
            raise UserError(
                f"{cache.cache_folder()}: activations that were just written are gone. Another "
                "process cleared the cache, or its limit is too small: `kerasft cache limit`."
            )
        if part is None:
            return stored  # another process has computed them meanwhile
        part.add(earlier)
        return replace(stored, found=False, difference=difference, part=part)
    advice = (
        "Pass --set cache.dtype=float32."
        if wanted == "float16"
        else "Its weights are damaged, or do not belong to this net."
    )
    raise UserError(
        f"Phase '{phase}': the frozen part computes values that {dtype} cannot hold. {advice}"
    )


def _later_cuts(setting: Setting, index: int, model: keras.Model) -> list[int]:
    """The other cuts that the run is going to need of the same weights.

    Those of its later phases, or where there is none of `unfreeze-and-continue`'s default. A
    guess that fails costs disk, never a wrong number: the weights are in the key.
    """
    backbone, _ = backbones.parse(setting.config.model.backbone)
    deepest = len(list_blocks(model, backbone))
    trained = _depth(setting.config.phases[index], deepest)
    later = setting.config.phases[index + 1 :]
    counts = [_depth(phase, deepest) for phase in later if phase.stored]
    if not later:
        counts = [trained + backbone.default_blocks]
    return sorted({count for count in counts if trained < count < deepest})


def _depth(phase: Phase, deepest: int) -> int:
    return deepest if phase.blocks == "all" else int(phase.blocks or 0)


def _needs(setting: Setting, model: keras.Model, blocks: int, dtype: str) -> list[Need]:
    """All stores at a cut: the training views in their order, then validation."""
    config, source = setting.config, setting.source
    cut = split(model, blocks, backbones.parse(config.model.backbone)[0])
    assert cut.prefix is not None
    common = {
        "backbone": config.model.backbone,
        "blocks": blocks,
        "weights": digest_of(fingerprint(cut.prefix)),
        "image_size": setting.image_size,
        "resize": config.data.resize,
        "decoding": DECODING,
        "dtype": dtype,
        "engine": config.cache.engine,
        "precision": config.cache.precision,
        "versions": _versions(),
        "machine": [platform.machine(), *map(str, setting.machine.values())],
    }
    needs = []
    for name in SPLITS:
        positions = source.indices(name)
        listing = "".join(f"{position} {source.digests[position]}\n" for position in positions)
        files = hashlib.blake2b(listing.encode(), digest_size=16).hexdigest()
        for number, seed in views_of(config) if name == "train" else [(0, 0)]:
            facts = {**common, "files": files, "images": len(positions)}
            facts["view"] = number or "plain"
            if number:
                augment = config.augment
                facts["augment"] = [seed, augment.flip, augment.crop, augment.color]
            shape = (len(positions), *cut.prefix.output_shape[1:])
            needs.append(Need(Key(facts), name, (number, seed), blocks, shape))
    return needs


def _versions() -> list[str]:
    names = ("keras", keras.backend.backend(), "numpy")
    return [__version__, *(importlib.metadata.version(name) for name in names)]


def _that_fit(needs: Sequence[Need], blocks: int) -> list[Need]:
    """Those at the phase's own cut, and the others if there is room for all of them.

    Raises:
        UserError: not even the phase's own fit.
    """
    folder = cache.cache_folder()
    if cache.lack_of_room(folder, sum(map(_size, needs))) is None:
        return list(needs)
    own = [need for need in needs if need.blocks == blocks]
    lack = cache.lack_of_room(folder, sum(map(_size, own)))
    if lack:
        raise UserError(
            f"The activations cannot be stored: {lack}. Make room, or train without a store: "
            "--set cache.mode=off."
        )
    return own


def _size(need: Need) -> int:
    return math.prod(need.shape) * np.dtype(str(need.key.facts["dtype"])).itemsize


def _fill(
    setting: Setting, model: keras.Model, needs: list[Need], dtype: str, phase: str
) -> tuple[Part | None, float]:
    """Computes the stores that are missing.

    Returns:
        The pass, timed, None if nothing was missing; and the relative error of bfloat16.

    Raises:
        OverflowError: a value does not fit the dtype.
    """
    folder = cache.cache_folder()
    keys = [need.key for need in needs]

    def waiting() -> None:
        log.info("Another kerasft computes the same activations: waiting for it.")

    with store.filling(folder, keys, waiting=waiting):
        missing = [need for need in needs if not store.holds(folder, need.key)]
        if not missing:
            return None, 0.0
        cache.make_room(folder, sum(map(_size, missing)), keep={key.digest for key in keys})
        part = Part("prefix pass", 1, setting.progress, phase)
        difference = _compute(setting, model, missing, folder, dtype, part)
        part.end()
        return part, difference


def _compute(
    setting: Setting,
    model: keras.Model,
    needs: list[Need],
    folder: Path,
    dtype: str,
    part: Part,
) -> float:
    config, source = setting.config, setting.source
    counts = sorted({need.blocks for need in needs})
    prefix = _prefix(model, counts, config)
    views = {
        name: sorted({need.view for need in needs if need.split == name})
        for name in SPLITS
        if any(need.split == name for need in needs)
    }
    positions = [int(p) for name in SPLITS if name in views for p in source.indices(name)]
    # Which split and view each row of the pass belongs to.
    rows = [(name, view) for p in positions for name in [source.splits[p]] for view in views[name]]
    batches = data.view_batches(
        source,
        positions,
        views,
        image_size=setting.image_size,
        resize=config.data.resize,
        augment=config.augment,
        batch_size=engines.BATCH,
    )
    compute = engines.build(prefix, config.cache.engine, config.cache.precision)
    part.total = len(rows)
    difference, done = 0.0, 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(store.writing(folder, need.key, need.shape, dtype))
            for need in needs
        ]
        for batch in batches:
            pixels = np.asarray(batch)
            outputs = compute(pixels)
            if not done and config.cache.precision == "bfloat16":
                difference = _difference(prefix, pixels, outputs)
            here = rows[done : done + len(pixels)]
            for need, writer in zip(needs, writers, strict=True):
                mine = [row == (need.split, need.view) for row in here]
                fitting = store.as_stored(outputs[counts.index(need.blocks)][mine], dtype)
                if fitting is None:
                    raise OverflowError
                writer.append(fitting)
            done += len(pixels)
            part.step(done)
            setting.progress(Event("pass", done, len(rows), part.phase, part.figures(done)))
    return difference


def _prefix(model: keras.Model, counts: list[int], config: Config) -> keras.Model:
    """Pixels to the activations at several cuts at once."""
    backbone, _ = backbones.parse(config.model.backbone)
    prefixes = [split(model, count, backbone).prefix for count in counts]
    return keras.Model(model.inputs[0], [p.outputs[0] for p in prefixes if p is not None])


def _difference(prefix: keras.Model, pixels: np.ndarray, rough: list[np.ndarray]) -> float:
    """States the error of bfloat16 on the first images.

    Raises:
        UserError: there is none, so this device did not compute in bfloat16.
    """
    exact = keras.tree.flatten(prefix.predict_on_batch(pixels))
    difference = max(
        engines.relative_error(np.asarray(a), b) for a, b in zip(exact, rough, strict=True)
    )
    if difference < 1e-4:  # float32 engines differ by 1e-6, bfloat16 rounds to 4e-3
        raise UserError(
            "cache.precision: this processor computes no bfloat16; the results are those of "
            "float32. Pass --set cache.precision=float32.",
            exit_code=2,
        )
    log.info("bfloat16: the activations differ from those in float32 by %.1f%%.", 100 * difference)
    return difference
