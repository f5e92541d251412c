"""Which stores a phase needs, and the keys under which they lie in the cache.

A store is one view of one split's images at one cut. Its key holds all that could change its
numbers, so whatever finds it, a later phase or another run, may use it.

Shapes: N images, V views of each training image.
"""

import hashlib
import importlib.metadata
import math
from dataclasses import dataclass

import keras
import numpy as np

from kerasft.activations import engines
from kerasft.activations.context import RunContext
from kerasft.activations.numerics import NUMERICS
from kerasft.activations.store import Key
from kerasft.backbones import compatibility
from kerasft.backbones.spec import nets_of, rows_of
from kerasft.config.fields import AnyPhase, Config, Solved
from kerasft.data.source import Source
from kerasft.models.cut import Cut, digest_of, fingerprint, split
from kerasft.seeds import derive_seed

TRAIN_AND_VALIDATION = ("train", "validation")  # the splits whose activations a phase needs


@dataclass(frozen=True)
class StoreSpec:
    """One store: a view of a split's images at a cut.

    Attributes:
        key: of the store.
        split: "train" or "validation".
        view: number and seed; (0, 0) is the plain one.
        blocks: where the cut is.
        net: which of several backbones.
        shape: [N, ...].
    """

    key: Key
    split: str
    view: tuple[int, int]
    blocks: int
    net: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the store."""
        return math.prod(self.shape) * np.dtype(str(self.key.facts["dtype"])).itemsize


def views_for(config: Config, phase: AnyPhase) -> list[tuple[int, int]]:
    """Those of `views_of` that a phase takes: a solved one takes the plain one."""
    return [(0, 0)] if isinstance(phase, Solved) else views_of(config)


def views_of(config: Config) -> list[tuple[int, int]]:
    """Number and seed of each view of a training image, the plain one (0, 0) first."""
    assert config.augment.views is not None  # settled by resolve.py
    numbers = range(1, config.augment.views)
    return [(0, 0), *((v, derive_seed(config.seed, "view", v)) for v in numbers)]


def passes(config: Config, phase: AnyPhase, source: Source) -> int:
    """How often an image goes through the prefix to fill the stores of a phase."""
    train, validation = (len(source.indices(name)) for name in TRAIN_AND_VALIDATION)
    return train * len(views_for(config, phase)) + validation


def bytes_at(config: Config, phase: AnyPhase, source: Source, cut: Cut) -> int:
    """Size of a phase's stores at its cut, in float16 unless the config says float32."""
    assert cut.prefix is not None
    item = 4 if config.cache.dtype == "float32" else 2
    return passes(config, phase, source) * math.prod(cut.prefix.output_shape[1:]) * item


def store_specs_at(
    context: RunContext, phase: AnyPhase, model: keras.Model, blocks: int, dtype: str
) -> list[StoreSpec]:
    """All stores that a phase needs at a cut: its training views in order, then validation.

    Of several backbones one store each, in their order, for every view.

    Args:
        context: the run, its config settled.
        phase: says which views.
        model: the whole model.
        blocks: how many are above the cut.
        dtype: of the stores, "float16" or "float32".
    """
    config, source = context.config, context.source
    cut = split(model, blocks, *rows_of(config.model.backbone))
    common = {
        **_where(config, blocks),
        "image_size": context.image_size,
        "resize": config.data.resize,
        "numerics": NUMERICS,
        "dtype": dtype,
        "engine": config.cache.engine,
        "precision": config.cache.precision,
        "versions": _versions(),
        "machine": [*engines.processor(), *map(str, context.machine.values())],
    }
    if dtype == "float32" and config.cache.dtype == "auto":
        common["overflow"] = True  # not the one that somebody else has asked for
    nets = nets_of(config.model.backbone, context.image_size)
    of_nets = []
    for (spec, side), part in zip(nets, cut.parts, strict=True):
        of_net = {**common, "backbone": spec, "weights": digest_of(fingerprint(part))}
        if side < context.image_size:  # of nothing else a key says whether others are beside it
            of_net["resized"] = side
        of_nets.append(of_net)
    needs = []
    for name in TRAIN_AND_VALIDATION:
        positions = source.indices(name)
        listing = "".join(f"{position} {source.digests[position]}\n" for position in positions)
        files = hashlib.blake2b(listing.encode(), digest_size=16).hexdigest()
        for number, seed in views_for(config, phase) if name == "train" else [(0, 0)]:
            of_view: dict[str, object] = {"files": files, "images": len(positions)}
            of_view["view"] = number or "plain"
            if number:
                augment = config.augment
                of_view["augment"] = [seed, augment.flip, augment.crop, augment.color]
            for net, (of_net, part) in enumerate(zip(of_nets, cut.parts, strict=True)):
                shape = (len(positions), *part.output_shape[1:])
                key = Key({**of_net, **of_view})
                needs.append(StoreSpec(key, name, (number, seed), blocks, net, shape))
    return needs


def _where(config: Config, blocks: int) -> dict[str, object]:
    """What a key says of the cut: the same of the same tensor, whatever is above it.

    Weights alone don't tell features apart: pooling has none. Of defaults nothing is said, so
    that stores of versions without the choice are found.
    """
    features, leave_out = config.head.features, config.head.leave_out
    if features in compatibility.FULLY_CONNECTED:
        return {"blocks": blocks, "features": features}
    if blocks:
        return {"blocks": blocks + leave_out}
    facts: dict[str, object] = {"blocks": 0}
    if features != "pooled":
        facts["features"] = features
    if leave_out:
        facts["leave_out"] = leave_out
    return facts


def _versions() -> list[str]:
    backend = keras.backend.backend()
    names = ("keras", "tensorflow", backend, "numpy")
    return [backend, *(importlib.metadata.version(name) for name in names)]
