"""What a phase needs of the activations at a cut: tensors, and photos and views of each.

The key of a tensor contains everything that could change the numbers of a photo: another phase or
run with the same key finds the rows that it needs, and computes those that are missing.

Shapes: N images, V views of each training image.
"""

import importlib.metadata
import math
from dataclasses import dataclass

import keras
import numpy as np

from kerasft.activations import engines
from kerasft.activations.numerics import NUMERICS
from kerasft.activations.store import Key, RowId
from kerasft.backbones import compatibility
from kerasft.backbones.spec import nets_of
from kerasft.config.fields import AnyPhase, Config, Solved
from kerasft.config.settled import USUAL_BATCH, rule_of
from kerasft.data.source import Source
from kerasft.lazy_tensorflow import is_installed
from kerasft.models.cut import Cut, digest_of, fingerprint
from kerasft.models.net import Net
from kerasft.record import Device
from kerasft.seeds import derive_seed

TRAIN_AND_VALIDATION = ("train", "validation")  # the splits whose activations a phase needs


@dataclass(frozen=True)
class Need:
    """What a phase needs of one tensor: some photos in some views, at one cut.

    Attributes:
        tensor: key of the tensor, without rows.
        rows: photos and views, those of training first.
        blocks: number of blocks above the cut.
        net: position of the backbone among several, from 0.
        shape: shape of a row.
    """

    tensor: Key
    rows: tuple[RowId, ...]
    blocks: int
    net: int
    shape: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether the tensor is of the plain view."""
        return "augment" not in self.tensor.facts

    def bytes_of(self, rows: int) -> int:
        """Returns the size of a number of rows in bytes."""
        return rows * math.prod(self.shape) * np.dtype(str(self.tensor.facts["dtype"])).itemsize


def views_of(count: int) -> list[tuple[int, int]]:
    """Returns number and seed of each view of a training image, the plain one (0, 0) first.

    They are the same in every run, so that what one has computed is of use to others. In which
    epoch a view is shown depends on the run's seed.

    Args:
        count: number of views; 0 counts as 1, the plain one.
    """
    return [(0, 0), *((number, derive_seed(0, "view", number)) for number in range(1, count))]


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


def rows_of(source: Source, split: str, view: int) -> list[RowId]:
    """Returns the rows of a split's images in one view, in the order of `source.indices`."""
    return [(source.digests[position], view) for position in source.indices(split)]


def needs_at(
    config: Config,
    source: Source,
    machine: Device,
    phase: AnyPhase,
    net: Net,
    blocks: int,
    dtype: str,
) -> list[Need]:
    """Lists what a phase needs at a cut: for each backbone the plain view, then the others.

    The plain view is a tensor of its own, which does not depend on how the others are made.

    Args:
        config: the config; of what a run settles, the image size, the views, the engine, its batch
            and its precision have to be settled.
        source: the photos.
        machine: the device that computes, from `devices.prepare`.
        phase: the phase, which decides the views.
        net: the whole net.
        blocks: number of blocks above the cut.
        dtype: dtype of the stores, "float16" or "float32".
    """
    side, batch = net.model.input_shape[1], config.cache.batch or USUAL_BATCH
    views = range(1, views_taken(phase, config.augment.views or 0))
    plain = [*rows_of(source, "train", 0), *rows_of(source, "validation", 0)]
    # All views of a photo follow each other, as a pass computes them.
    others = [(photo, view) for photo, _ in rows_of(source, "train", 0) for view in views]
    augment = config.augment
    changed = {"augment": [augment.flip, augment.crop, augment.color]}
    cut = net.cut(blocks)
    common = {
        **_where(config, blocks),
        **rule_of(config.data, side).to_json(),
        "numerics": NUMERICS,
        "dtype": dtype,
        "engine": config.cache.engine,
        "precision": config.cache.precision,
        "versions": _versions(),
        "machine": [*engines.processor(), *map(str, machine.to_json().values())],
    }
    if batch != engines.BATCH:  # another batch may round in another way
        common["batch"] = batch
    if dtype == "float32" and config.cache.dtype == "auto":
        common["overflow"] = True  # not the same store as with cache.dtype = "float32"
    nets = nets_of(config.model.backbone, side)
    needs = []
    for position, ((spec, own_side), part) in enumerate(zip(nets, cut.parts, strict=True)):
        of_net = {**common, "backbone": spec, "weights": digest_of(fingerprint(part))}
        if own_side < side:  # nothing else in a key tells that the pixels were resized for it
            of_net["resized"] = own_side
        shape = part.output_shape[1:]
        needs.append(Need(Key(of_net), tuple(plain), blocks, position, shape))
        if others:
            needs.append(Need(Key({**of_net, **changed}), tuple(others), blocks, position, shape))
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
