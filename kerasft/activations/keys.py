"""The stores that a phase needs, and the keys that identify them in the cache.

A store holds one view of one split's images at one cut. Its key contains everything that could
change its numbers, so a later phase or another run with the same key can use it.

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
from kerasft.backbones.spec import nets_of
from kerasft.config.fields import AnyPhase, Config, Solved
from kerasft.data.source import Source
from kerasft.lazy_tensorflow import is_installed
from kerasft.models.cut import Cut, digest_of, fingerprint
from kerasft.models.net import Net
from kerasft.seeds import derive_seed

TRAIN_AND_VALIDATION = ("train", "validation")  # the splits whose activations a phase needs


@dataclass(frozen=True)
class StoreSpec:
    """One store: a view of a split's images at a cut.

    Attributes:
        key: the store's key.
        split: "train" or "validation".
        view: number and seed of the view; (0, 0) is the plain one.
        blocks: number of blocks above the cut.
        net: position of the backbone among several, from 0.
        shape: shape of the store, [N, ...].
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


def views_of(seed: int, count: int) -> list[tuple[int, int]]:
    """Returns number and seed of each view of a training image, the plain one (0, 0) first.

    Args:
        seed: the run's seed.
        count: number of views; 0 counts as 1, the plain one.
    """
    return [(0, 0), *((v, derive_seed(seed, "view", v)) for v in range(1, count))]


def views_taken(phase: AnyPhase, count: int) -> int:
    """Returns how many stored views a phase reads; a solved one reads the plain view alone.

    Args:
        phase: the phase.
        count: number of views of each training image in the run.
    """
    return 1 if isinstance(phase, Solved) else max(1, count)


def passes(phase: AnyPhase, views: int, source: Source) -> int:
    """Returns how many images go through the prefix to fill the stores of a phase.

    Args:
        phase: the phase.
        views: number of views of each training image.
        source: the photos.
    """
    train, validation = (len(source.indices(name)) for name in TRAIN_AND_VALIDATION)
    return train * views_taken(phase, views) + validation


def bytes_at(cut: Cut, images: int, dtype: str) -> int:
    """Returns the size of stores at a cut in bytes; "auto" counts as float16.

    Args:
        cut: the cut.
        images: number of stored images, each view counted; see `passes`.
        dtype: `cache.dtype` of the config: "auto", "float16" or "float32".
    """
    item = 4 if dtype == "float32" else 2
    return images * math.prod(cut.suffix.input_shape[1:]) * item


def store_specs_at(
    context: RunContext, phase: AnyPhase, net: Net, blocks: int, dtype: str
) -> list[StoreSpec]:
    """Lists the stores that a phase needs at a cut: its training views in order, then validation.

    Each of several backbones has its own store for every view; they follow each other.

    Args:
        context: the run.
        phase: the phase, which decides the views.
        net: the whole net.
        blocks: number of blocks above the cut.
        dtype: dtype of the stores, "float16" or "float32".
    """
    config, source, side = context.config, context.source, context.plan.image_size
    views = views_of(config.seed, views_taken(phase, context.plan.views))
    cut = net.cut(blocks)
    common = {
        **_where(config, blocks),
        "image_size": side,
        "resize": config.data.resize,
        "numerics": NUMERICS,
        "dtype": dtype,
        "engine": config.cache.engine,
        "precision": config.cache.precision,
        "versions": _versions(),
        "machine": [*engines.processor(), *map(str, context.machine.to_json().values())],
    }
    if context.plan.batch != engines.BATCH:  # another batch may round in another way
        common["batch"] = context.plan.batch
    if dtype == "float32" and config.cache.dtype == "auto":
        common["overflow"] = True  # not the same store as with cache.dtype = "float32"
    nets = nets_of(config.model.backbone, side)
    of_nets = []
    for (spec, own_side), part in zip(nets, cut.parts, strict=True):
        of_net = {**common, "backbone": spec, "weights": digest_of(fingerprint(part))}
        if own_side < side:  # nothing else in a key tells that the pixels were resized for it
            of_net["resized"] = own_side
        of_nets.append(of_net)
    needs = []
    for name in TRAIN_AND_VALIDATION:
        positions = source.indices(name)
        listing = "".join(f"{position} {source.digests[position]}\n" for position in positions)
        files = hashlib.blake2b(listing.encode(), digest_size=16).hexdigest()
        for number, seed in views if name == "train" else [(0, 0)]:
            of_view: dict[str, object] = {"files": files, "images": len(positions)}
            of_view["view"] = number or "plain"
            if number:
                augment = config.augment
                of_view["augment"] = [seed, augment.flip, augment.crop, augment.color]
            for position, (of_net, part) in enumerate(zip(of_nets, cut.parts, strict=True)):
                shape = (len(positions), *part.output_shape[1:])
                key = Key({**of_net, **of_view})
                needs.append(StoreSpec(key, name, (number, seed), blocks, position, shape))
    return needs


def _where(config: Config, blocks: int) -> dict[str, int | str]:
    """Returns the key's facts about the cut. They describe only the tensor, not what is above it.

    Weights alone don't tell features apart, because pooling has none. Defaults are left out, so
    that stores from versions without these fields are found.
    """
    features, leave_out = config.head.features, config.head.leave_out
    if features in compatibility.FULLY_CONNECTED:
        return {"blocks": blocks, "features": features}
    if blocks:
        return {"blocks": blocks + leave_out}
    facts: dict[str, int | str] = {"blocks": 0}
    if features != "pooled":
        facts["features"] = features
    if leave_out:
        facts["leave_out"] = leave_out
    return facts


def _versions() -> list[str]:
    backend = keras.backend.backend()
    reader = ["tensorflow"] if is_installed() else []  # without it no photos are read
    names = ("keras", *reader, backend, "numpy")
    return [backend, *(importlib.metadata.version(name) for name in names)]
