"""The plan of a run: what a config leaves open, settled before the first number depends on it.

    image size -> blocks of each phase -> views -> what is stored, precision of the steps
    -> engine -> batch -> precision of the stored activations

All decisions are written into the run's config, so that the same config gives the same run again.
"""

import logging
import math
from collections.abc import Sequence

import keras

from kerasft import cache
from kerasft.activations import engines, eviction
from kerasft.activations.keys import TRAIN_AND_VALIDATION, bytes_at, passes
from kerasft.activations.pace import (
    Pace,
    StepsAhead,
    bfloat16_pays,
    choose_precision,
    choose_step_precision,
    measured_pace,
)
from kerasft.activations.prefix_pass import stored_already
from kerasft.backbones.spec import SEPARATOR, default_blocks
from kerasft.config.fields import AnyPhase, Config, Phase, Solved, distinct_views
from kerasft.config.settled import Plan, Storing
from kerasft.data.checks import warn_of_depth
from kerasft.data.known import warn_of_known_photos
from kerasft.data.source import Source
from kerasft.errors import TooFewPhotos, UserError
from kerasft.heads.start import LARGEST, costs_too_much
from kerasft.input_rule import DROP, depth_of
from kerasft.models import build
from kerasft.models.cut import Cut
from kerasft.models.net import Net
from kerasft.record import Device
from kerasft.text import agreeing, size_text
from kerasft.training.start import initial_net
from kerasft.training.trainable import steps_in_memory, steps_on_a_copy

log = logging.getLogger("kerasft")

DEFAULT_VIEWS = 4


def plan_new(config: Config, source: Source, machine: Device) -> tuple[Plan, Net]:
    """Settles the config of a new run.

    Args:
        config: the config as it was typed.
        source: the photos.
        machine: the device that computes, from `devices.prepare`.

    Returns:
        The plan, and the net that the run begins with.

    Raises:
        UserError: a phase has more blocks than there are, the weights are not available, and so
            on.
    """
    net = initial_net(config, len(source.class_names))
    warn_of_known_photos(config, source)
    config = _settle_depth(config, source)
    if source.splits_from is not None:
        data = config.data.model_copy(update={"splits_from": str(source.splits_from)})
        config = config.model_copy(update={"data": data})
    return settle(config, source, net, machine), net


def _settle_depth(config: Config, source: Source) -> Config:
    """Settles how many bits are in use in files that have 16 for each channel."""
    depth = config.data.depth
    if depth == "auto":
        depth = depth_of(source.peak)
        if source.peak:
            log.info(
                "Photos with 16 bits per channel: the largest number is %s, so that %d bits are "
                "taken to be in use (`data.depth`).",
                f"{source.peak:,}",
                depth,
            )
    else:
        warn_of_depth("data.depth", source.peak, depth)
    data = config.data.model_copy(update={"depth": depth})
    return config.model_copy(update={"data": data})


def settle(config: Config, source: Source, net: Net, machine: Device, *, done: int = 0) -> Plan:
    """Settles what a config leaves open; what is settled already stays.

    Args:
        config: a config, new or with phases appended.
        source: the photos.
        net: the net that the first unfinished phase begins with.
        machine: the device that computes, from `devices.prepare`.
        done: number of finished phases; they stay as they are.

    Raises:
        UserError: a phase has more blocks than there are, or accumulates over more batches than
            an epoch has; stores that are asked for can't be made; the engine does not run here.
    """
    images = len(source.indices("train"))
    for index in range(done, len(config.phases)):
        _refuse_idle_epochs(config.phases[index], index, images)
        _refuse_co_tuning(config, index)
    blocks = _settle_blocks(config.phases, net, default_blocks(config.model.backbone))
    views = settled_views(config, blocks)
    asked, device = config, machine.device
    phases, storing = list(config.phases[:done]), []
    first: tuple[Cut, AnyPhase, Storing, str] | None = None  # of the phases with a store
    trained = 0  # number of blocks whose weights an earlier phase of this process will change
    for index in range(done, len(config.phases)):
        phase, cut = config.phases[index], net.cut(blocks[index])
        precision, there = "float32", 0
        if len(cut.blocks) >= trained:
            precision, there = _there(config, views, source, index, net, cut, machine)
        trained = max(trained, 0 if isinstance(phase, Solved) else len(cut.blocks))
        decided = decide_storing(config, views, source, index, cut, device, there)
        storing.append(decided)
        if decided.stored and first is None:
            first = cut, phase, decided, precision
        settled: dict[str, object] = {"stored": decided.stored}
        if not isinstance(phase, Solved):
            settled["blocks"] = blocks[index]
            steps = phase.epochs * math.ceil(images / phase.batch_size)
            ahead = StepsAhead(phase, cut, decided.stored, steps, machine.threads or 1)
            settled["precision"] = _settle_steps(config, ahead, device)
            why = _why_not_solved(blocks[index], decided.stored, config, net, images * views)
            settled["head_start"] = _settle_head_start(phase, index, why)
        phases.append(phase.model_copy(update=settled))
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update={"image_size": net.model.input_shape[1]}),
            "augment": config.augment.model_copy(update={"views": views}),
            "phases": tuple(phases),
        }
    )
    if first is not None:
        cut, phase, decided, counted = first
        assert cut.prefix is not None  # or nothing would be stored
        needed, lacking = passes(phase, views, source), decided.passes
        config = _with_cache(config, engine=_settle_engine(config, device))
        config = _settle_batch(config, cut.prefix, needed)
        if config.cache.precision == "auto":
            precision = counted
            if device == "cpu" and counted == "float32":
                above = len(cut.blocks)
                precision = choose_precision(
                    config, source, cut.prefix, blocks=above, passes=lacking
                )
            if precision != counted and lacking < needed:
                # What is stored in float32 is of no use then, so it must not be counted.
                return settle(
                    _with_cache(asked, precision=precision), source, net, machine, done=done
                )
            config = _with_cache(config, precision=precision)
    for phase, decided in zip(asked.phases[done:], storing, strict=True):
        if phase.stored is None and decided.passes and not decided.stored:
            log.info("%s: the activations are not stored: %s.", phase.name, decided.why)
    return Plan.of(config, storing)


def _why_not_solved(blocks: int | str, stored: bool, config: Config, net: Net, images: int) -> str:
    """Returns why the head of a phase can't begin solved, a clause for people; "" if it can.

    Args:
        blocks: number of blocks that the phase trains below the head.
        stored: whether its activations are stored.
        config: the config.
        net: the net that the first unfinished phase begins with.
        images: number of training images, each view counted.
    """
    width, classes = net.features.shape[-1], net.model.output_shape[-1]
    shapes = [weight.shape for weight in net.model.get_layer("logits").weights]
    if blocks:
        return "the phase trains blocks below the head too"
    if config.head.hidden:
        return "the head has hidden layers (`head.hidden`)"
    if not stored:
        return "its features are not stored"
    if shapes != [(width, classes), (classes,)]:
        return "it is not a single Dense layer"
    if width * classes > LARGEST:
        return f"it has {width * classes:,} weights, more than {LARGEST:,}"
    if costs_too_much(images * width, classes):
        return f"{images:,} images and views of {classes:,} classes would take longer than epochs"
    return ""


def _settle_head_start(phase: Phase, index: int, why_not: str) -> str:
    """Settles whether the head of a phase begins solved; see `_why_not_solved`."""
    if phase.head_start == "solved" and why_not:
        raise UserError(
            f"the head can't begin solved: {why_not}. Expected 'kept' or 'auto'.",
            field=f"phases.{index}.head_start",
            exit_code=2,
        )
    if phase.head_start == "auto":
        return "kept" if index or why_not else "solved"
    return phase.head_start


def _refuse_idle_epochs(phase: AnyPhase, index: int, images: int) -> None:
    """Refuses a phase some of whose epochs would be over before the first optimizer step."""
    if isinstance(phase, Solved):
        return
    batches = math.ceil(images / phase.batch_size)
    if phase.accumulate > batches:
        raise TooFewPhotos(
            f"expected at most {batches:,}, the batches of an epoch: {images:,} training images in "
            f"batches of {phase.batch_size:,}; got {phase.accumulate:,}. Lower it, or lower "
            f"`phases.{index}.batch_size`.",
            field=f"phases.{index}.accumulate",
            exit_code=2,
        )


def _refuse_co_tuning(config: Config, index: int) -> None:
    """Refuses Co-Tuning of a net that has no classifier on its pooled features."""
    phase = config.phases[index]
    if isinstance(phase, Solved) or not phase.co_tuning:
        return
    model, head = config.model, config.head
    if model.weights != "imagenet" or SEPARATOR in model.backbone:
        why = "needs one net with its ImageNet weights"
    elif head.features != "pooled" or head.leave_out:
        why = "needs pooled features of the whole net"
    elif build.classifier(model.backbone) is None:
        why = f"needs a single layer behind the pooling, which {model.backbone} does not have"
    else:
        return
    raise UserError(f"Co-Tuning {why}.", field=f"phases.{index}.co_tuning", exit_code=2)


def of_older_version(config: Config) -> Config:
    """Completes the config of a run that an older version trained; others stay as they are.

    Version 0.1.0 made a new view in every epoch, mixed nothing and stored nothing, and its config
    had no fields for that. A run of a later version has `augment.views` settled. What a phase does
    not write down was as `BEFORE` says. Where no depth is, images were read by the rule of 0.2,
    which `data.background` calls "drop".
    """
    config = _as_before_where_nothing_is_said(config)
    if config.data.depth == "auto":
        reading = {"background": DROP, "depth": 16}
        config = config.model_copy(update={"data": config.data.model_copy(update=reading)})
    if config.augment.views is not None:
        return config
    augment = config.augment.model_copy(update={"views": 0, "mixup": 0.0})
    phases = tuple(phase.model_copy(update={"stored": False}) for phase in config.phases)
    return config.model_copy(update={"augment": augment, "phases": phases})


BEFORE = {"precision": "float32", "head_start": "kept", "wise": False}
"""What fields of a phase meant before there was anything else; older configs lack them."""


def _as_before_where_nothing_is_said(config: Config) -> Config:
    silent = [
        {name: value for name, value in BEFORE.items() if name not in phase.model_fields_set}
        if isinstance(phase, Phase)
        else {}
        for phase in config.phases
    ]
    if not any(silent):
        return config
    phases = [
        phase.model_copy(update=before) for phase, before in zip(config.phases, silent, strict=True)
    ]
    return config.model_copy(update={"phases": tuple(phases)})


def for_device(config: Config, device: Device) -> Config:
    """Adapts the config of a run that may have begun on another device or backend.

    Args:
        config: the config, settled for the earlier device.
        device: the present device, from `devices.prepare`.
    """
    wanted = config.cache.engine
    if (wanted == "folded" and not engines.folds(device.device)) or (
        wanted == "compiled" and not engines.compiles()
    ):
        return _with_cache(config, engine="keras", batch=None)
    if wanted == "compiled" and device.device == "cpu":
        return _with_cache(config, batch=None)  # it was chosen for the memory of a GPU
    return config


def _settle_blocks(phases: Sequence[AnyPhase], net: Net, usual: int) -> list[int | str]:
    """Settles the blocks of each phase; the default is `usual` more than in the phase before."""
    settled: list[int | str] = []
    before = 0
    for phase in phases:
        blocks = phase.blocks
        if blocks is None:
            blocks = min(len(net.blocks), before + usual)
        if not isinstance(phase, Solved):
            net.cut(blocks)  # refuses more than there are
            before = net.depth(blocks)
        settled.append(blocks)
    return settled


def settled_views(config: Config, blocks: Sequence[int | str]) -> int:
    """Returns how many views of each training image a run stores; 0: a new one in every epoch.

    Args:
        config: the config.
        blocks: blocks that each phase trains, a number or "all".
    """
    augment = config.augment
    if augment.views is not None:
        return augment.views
    if all(count == "all" for count in blocks):
        return 0  # nothing is frozen, so a new view in every epoch costs nothing
    return int(min(DEFAULT_VIEWS, distinct_views(augment.flip, augment.crop, augment.color)))


def _there(
    config: Config,
    views: int,
    source: Source,
    index: int,
    net: Net,
    cut: Cut,
    machine: Device,
) -> tuple[str, int]:
    """Counts the images, each view counted, whose activations at a phase's cut are stored already.

    Returns:
        The precision in which most of them were computed, float32 if the numbers are equal; and
        their number. Stores in bfloat16 count if it was measured to be worth it, or is asked for.
    """
    phase, above = config.phases[index], len(cut.blocks)
    if cut.prefix is None or config.cache.mode == "off" or phase.stored is False:
        return "float32", 0
    augment = config.augment.model_copy(update={"views": views})
    config = config.model_copy(update={"augment": augment})
    if config.cache.engine == "auto":
        config = _with_cache(config, engine=_usual_engine(machine.device))
    config = _settle_batch(config, cut.prefix, passes(phase, views, source))
    precisions = [config.cache.precision]
    if precisions == ["auto"]:
        precisions = ["float32"]
        if machine.device == "cpu" and bfloat16_pays(config, cut.prefix, above):
            precisions.append("bfloat16")
    most = "float32", 0
    for precision in precisions:
        asked = _with_cache(config, precision=precision)
        there = stored_already(asked, source, machine, phase, net, above)
        if there > most[1]:
            most = precision, there
    return most


def decide_storing(
    config: Config,
    views: int,
    source: Source,
    index: int,
    cut: Cut,
    device: str = "cpu",
    there: int = 0,
) -> Storing:
    """Decides whether a phase trains on stored activations.

    The cost that is compared is the number of images that go through the prefix: with a store,
    each view that is not there yet once; without one, every image in every epoch. The suffix costs
    the same either way.
    On a GPU, the time to read a store that its memory does not hold counts too.

    Args:
        config: the run's config.
        views: number of views of each training image; 0 makes a new one in every epoch.
        source: the photos.
        index: position of the phase in the run, from 0.
        cut: the cut at which the phase trains.
        device: the device that computes, "cpu" or "gpu:N".
        there: number of images, each view counted, whose activations are stored already.

    Raises:
        UserError: a store was asked for, but there is no room for it, or nothing to store.
    """
    phase = config.phases[index]
    solved = isinstance(phase, Solved)
    epochs = 1 if isinstance(phase, Solved) else phase.epochs
    live = epochs * sum(len(source.indices(name)) for name in TRAIN_AND_VALIDATION)
    nothing = Storing(False, "nothing is frozen", 0, 0) if cut.prefix is None else None
    if views == 0 and not solved:
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
        return Storing(False, "switched off", live, 0)
    needed = passes(phase, views, source)
    once, size = needed - there, bytes_at(cut, needed, config.cache.dtype)
    lack = eviction.lack_of_room(cache.cache_folder(), size)
    if lack and asked:
        raise UserError(
            f"Phase '{phase.name}': {eviction.no_room(lack)} Or train without a store: "
            f"`phases.{index}.stored=false`."
        )
    if lack:
        return Storing(False, lack, live, 0)
    if not asked and once >= live and not solved:  # other methods may read a solved phase's store
        why = (
            f"{once:,} images would go through the frozen part to fill the store, only {live:,} "
            "without one"
        )
        return Storing(False, why, live, 0)
    if device != "cpu" and not asked and not solved and not _on_the_card(size):
        assert cut.prefix is not None  # or nothing would be frozen
        pace = measured_pace(config, source, cut.prefix, device)
        read = epochs * bytes_at(cut, live // epochs, config.cache.dtype)
        if not pace.pays(live=live, once=once, read=read):
            return Storing(False, _too_slow(pace, live // epochs, read // epochs), live, 0)
    why = f"{once:,} images through the frozen part instead of {live:,}"
    if solved:
        why = f"{once:,} images through the frozen part, for other methods too"
    if there:
        why += f"; {there:,} {agreeing(there, 'are')} stored already"
    return Storing(True, why, once, size)


def _on_the_card(size: int) -> bool:
    """Returns whether stores of some bytes lie in the GPU's memory while a phase trains."""
    if not engines.compiles():
        return False
    from kerasft.activations import compiled, whole_epochs

    return whole_epochs.fit_on_device(size, compiled.memory())


def _too_slow(pace: Pace, images: int, read: int) -> str:
    return (
        f"in each epoch the disk would read {size_text(read)} at {size_text(int(pace.disk))} a "
        f"second, {read / pace.disk:.0f} s; decoded and computed again, the {images:,} images take "
        f"{images / pace.images:.0f} s"
    )


def _settle_steps(config: Config, ahead: StepsAhead, device: str) -> str:
    if ahead.phase.precision != "auto":
        return ahead.phase.precision
    if device != "cpu":
        return "float32"
    set_up = steps_on_a_copy(ahead.phase, ahead.cut, stored=ahead.stored)
    with steps_in_memory(config, ahead.phase):
        return choose_step_precision(config, ahead, set_up)


def _settle_engine(config: Config, device: str) -> str:
    engine = config.cache.engine
    if engine == "folded" and not engines.folds(device):
        raise UserError(
            f"'folded' needs Keras on TensorFlow and a CPU, got {keras.backend.backend()} on "
            f"{device}. Leave it out, or use 'keras'.",
            field="cache.engine",
            exit_code=2,
        )
    if engine == "compiled" and not engines.compiles():
        raise UserError(
            f"'compiled' needs Keras on JAX, got {keras.backend.backend()}. Leave it out, or use "
            "'keras'.",
            field="cache.engine",
            exit_code=2,
        )
    if engine != "auto":
        return engine
    return _usual_engine(device)


def _usual_engine(device: str) -> str:
    if device != "cpu" and engines.compiles():
        return "compiled"
    return "folded" if engines.folds(device) else "keras"


def _settle_batch(config: Config, prefix: keras.Model, images: int) -> Config:
    """Settles how many images are computed at once, where that is not the usual number."""
    if config.cache.batch is not None or config.cache.engine != "compiled":
        return config
    from kerasft.activations import compiled

    batch = compiled.batch_for(prefix, images, compiled.memory())
    return config if batch == engines.BATCH else _with_cache(config, batch=batch)


def _with_cache(config: Config, **fields: object) -> Config:
    return config.model_copy(update={"cache": config.cache.model_copy(update=fields)})
