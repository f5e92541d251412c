"""Settles what a config leaves open, before the first number depends on it.

    image size -> blocks of each phase -> views -> what is stored -> engine -> precision

All of it is written into the run's config, so that the same config gives the same run again.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import keras

from kerasft import cache
from kerasft.activations import engines, eviction
from kerasft.activations.keys import TRAIN_AND_VALIDATION, bytes_at, passes
from kerasft.activations.precision import settle_precision, with_cache
from kerasft.backbones import spec
from kerasft.config.fields import AnyPhase, Config, Solved, distinct_views
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.models.blocks import list_blocks
from kerasft.models.cut import Cut, depth, split
from kerasft.training.start import initial_model

log = logging.getLogger("kerasft")

DEFAULT_VIEWS = 4


@dataclass(frozen=True)
class Storing:
    """What storing the activations of a phase means.

    Attributes:
        stored: whether they are.
        why: a clause for people.
        passes: images that go through the frozen part, all epochs taken together.
        bytes: size of the stores; 0 without.
    """

    stored: bool
    why: str
    passes: int
    bytes: int


def resolve_new(
    config: Config, found: Source, device: str
) -> tuple[Config, keras.Model, list[Storing]]:
    """Settles the config of a new run.

    Args:
        config: as it was typed.
        found: the photos.
        device: of `devices.prepare`.

    Returns:
        The settled config; the model that the run begins with, built to see that it can be;
        and for each phase what storing means.

    Raises:
        UserError: no such number of blocks, weights that can't be had, and so on.
    """
    side = config.model.image_size or spec.side_of(config.model.backbone)
    of_model = config.model.model_copy(update={"image_size": side})
    config = config.model_copy(update={"model": of_model})
    model = initial_model(config, len(found.class_names))
    config, storing = settle(config, found, model, device)
    return config, model, storing


def settle(
    config: Config, found: Source, model: keras.Model, device: str, *, done: int = 0
) -> tuple[Config, list[Storing]]:
    """Settles all but the image size; what is settled already stays.

    Args:
        config: with an image size.
        found: the photos.
        model: of this config, pixels to scores.
        device: of `devices.prepare`.
        done: how many phases are finished; nothing is decided about them any more.

    Returns:
        The settled config; and for each phase that is not finished what storing means.
    """
    config = _settle_views(_settle_blocks(config, model))
    rows = spec.rows_of(config.model.backbone)
    storing, phases = [], list(config.phases[:done])
    for index, phase in enumerate(config.phases[done:], start=done):
        one = decide(config, found, index, split(model, phase.blocks, *rows))
        storing.append(one)
        if phase.stored is None and one.passes and not one.stored:
            log.info("%s: the activations are not stored: %s.", phase.name, one.why)
        phases.append(phase.model_copy(update={"stored": one.stored}))
    config = config.model_copy(update={"phases": tuple(phases)})
    stored = [phase for phase in phases[done:] if phase.stored]
    if stored:
        config = _settle_engine(config, device)
        config = settle_precision(config, found, model, stored[0], device)
    return config, storing


def of_older_version(config: Config) -> Config:
    """The config of a run as the version 0.1.0 trained it, if it is one of that version.

    It drew a new view in every epoch, mixed nothing and stored nothing, and had no words for
    that in the config; a run of today has its views settled.
    """
    if config.augment.views is not None:
        return config
    augment = config.augment.model_copy(update={"views": 0, "mixup": 0.0})
    phases = tuple(phase.model_copy(update={"stored": False}) for phase in config.phases)
    return config.model_copy(update={"augment": augment, "phases": phases})


def for_device(config: Config, device: Mapping[str, object]) -> Config:
    """The config of a run that may have begun on another device or backend.

    Args:
        config: settled there.
        device: of `devices.prepare`, here.
    """
    if config.cache.engine == "folded" and not engines.folds(str(device["device"])):
        return with_cache(config, engine="keras")
    return config


def _settle_blocks(config: Config, model: keras.Model) -> Config:
    """Settles blocks that are left open: deeper than the phase before, by the default.

    Raises:
        UserError: a phase has more blocks than there are.
    """
    rows = spec.rows_of(config.model.backbone)
    deepest = len(list_blocks(model, *rows))
    phases: list[AnyPhase] = []
    before = 0
    for one in config.phases:
        if isinstance(one, Solved):
            phases.append(one)
            continue
        blocks = one.blocks
        if blocks is None:
            blocks = min(deepest, before + spec.default_blocks(config.model.backbone))
        split(model, blocks, *rows)  # refuses more than there are
        before = depth(blocks, deepest)
        phases.append(one.model_copy(update={"blocks": blocks}))
    return config.model_copy(update={"phases": tuple(phases)})


def _settle_views(config: Config) -> Config:
    augment = config.augment
    if augment.views is not None:
        return config
    most = distinct_views(augment.flip, augment.crop, augment.color)
    views = int(min(DEFAULT_VIEWS, most))
    if all(phase.blocks == "all" for phase in config.phases):
        views = 0  # nothing is frozen, so a new view in every epoch costs nothing
    return config.model_copy(update={"augment": augment.model_copy(update={"views": views})})


def decide(config: Config, found: Source, index: int, cut: Cut) -> Storing:
    """Decides whether a phase trains on stored activations.

    The cost of a phase is the images that go through its frozen part: with a store each view
    once, without one every image in every epoch. What is trained costs the same either way.

    Args:
        config: with settled views.
        found: the photos.
        index: of the phase.
        cut: where the phase trains.

    Raises:
        UserError: a store was asked for, and there is no room for it, or nothing to store.
    """
    phase = config.phases[index]
    solved = isinstance(phase, Solved)
    epochs = 1 if isinstance(phase, Solved) else phase.epochs
    live = epochs * sum(len(found.indices(name)) for name in TRAIN_AND_VALIDATION)
    nothing = Storing(False, "nothing is frozen", 0, 0) if cut.prefix is None else None
    if config.augment.views == 0 and not solved:
        why = "augment.views = 0 makes a new view in every epoch"
        nothing = nothing or Storing(False, why, live, 0)
    if nothing and phase.stored:
        raise UserError(
            f"phases[{index}].stored: expected false, since {nothing.why}; got true.", exit_code=2
        )
    if nothing:
        return nothing
    asked = {"auto": None, "on": True, "off": False}[config.cache.mode]
    if phase.stored is not None:
        asked = phase.stored
    if asked is False:
        return Storing(False, "asked for", live, 0)
    once, size = passes(config, phase, found), bytes_at(config, phase, found, cut)
    lack = eviction.lack_of_room(cache.cache_folder(), size)
    if lack and asked:
        raise UserError(
            f"Phase '{phase.name}': {eviction.no_room(lack)} Or train without a store: "
            f"--set phases.{index}.stored=false."
        )
    if lack:
        return Storing(False, lack, live, 0)
    if not asked and once >= live and not solved:  # another method may want the same features
        why = f"{once:,} images would go through the frozen part once, without a store {live:,}"
        return Storing(False, why, live, 0)
    why = f"{once:,} images through the frozen part instead of {live:,}"
    if solved:
        why = f"{once:,} images through the frozen part, for other methods too"
    return Storing(True, why, once, size)


def _settle_engine(config: Config, device: str) -> Config:
    engine = config.cache.engine
    if engine == "folded" and not engines.folds(device):
        raise UserError(
            "cache.engine: 'folded' is for a CPU and Keras on TensorFlow; here Keras computes "
            f"with {keras.backend.backend()} on {device}. Leave it out, or take 'keras'.",
            exit_code=2,
        )
    if engine != "auto":
        return config
    return with_cache(config, engine="folded" if engines.folds(device) else "keras")
