"""The prefix pass: activations at the cut of a phase, found in the cache or computed once.

    images x views -- decode once -- prefix, up to several cuts --> a store per cut and view

`keys.py` lists the stores. One pass fills those of the phase's cut and, where the next phase's cut
can be predicted, those of that cut too.

Shapes: N images, V views of each training image.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines, eviction, store
from kerasft.activations.context import RunContext
from kerasft.activations.keys import TRAIN_AND_VALIDATION, StoreSpec, store_specs_at, views_taken
from kerasft.activations.store import Stored
from kerasft.backbones.spec import default_blocks
from kerasft.config.fields import AnyPhase, Config, Solved
from kerasft.config.load import unfreeze_defaults
from kerasft.data.batches import explaining, view_batches
from kerasft.errors import PhaseFailed, UserError
from kerasft.models.cut import Cut
from kerasft.models.net import Net
from kerasft.progress import Event, Part

log = logging.getLogger("kerasft")

SHARE_FOR_LATER = 0.1  # share of the cache's limit that the stores of a later cut may take


def activations_at(context: RunContext, index: int, net: Net, cut: Cut) -> Stored:
    """Returns the activations that a phase trains on.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: the whole net that the phase begins with, in float32.
        cut: the net's cut, with a prefix.

    Raises:
        PhaseFailed: the stores don't fit the cache's limit or the disk, or the prefix computes
            values that are not numbers.
        UserError: the disk is full, or a photo has disappeared.
    """
    blocks, phase = len(cut.blocks), context.config.phases[index]
    for dtype in _dtypes(context.config):
        found = find(context, phase, net, blocks, dtype)
        if found:
            _tell(context, index, found.bytes, found=True)
            return found
    return _filled(context, index, net, blocks)


def _dtypes(config: Config) -> tuple[str, ...]:
    """Returns the dtypes to try in turn; the second is for values that the first can't hold."""
    wanted = config.cache.dtype
    return ("float16", "float32") if wanted == "auto" else (wanted,)


def _tell(context: RunContext, index: int, size: int, *, found: bool, later: int = 0) -> None:
    """Sends the event "store": the activations were found, or are going to be stored."""
    source = context.source
    figures = {
        "images": len(source.indices("train")),
        "views": views_taken(context.config.phases[index], context.plan.views),
        "validation": len(source.indices("validation")),
        "bytes": size,
        "later_bytes": later,
        "found": int(found),
    }
    context.progress(Event("store", 0, 1, context.config.phases[index].name, figures))


def find(context: RunContext, phase: AnyPhase, net: Net, blocks: int, dtype: str) -> Stored | None:
    """Opens a phase's stores at a cut.

    Args:
        context: the run.
        phase: the phase, which decides the views.
        net: the whole net.
        blocks: number of blocks above the cut.
        dtype: dtype of the stores, "float16" or "float32".

    Returns:
        The stores, or None if any of them is missing.
    """
    folder = cache.cache_folder()
    needs = store_specs_at(context, phase, net, blocks, dtype)
    if not all(store.holds(folder, need.key) for need in needs):
        return None
    arrays = [store.open_store(folder, need.key) for need in needs]
    there = [array for array in arrays if array is not None]
    if len(there) < len(arrays):
        return None
    nets = 1 + max(need.net for need in needs)
    whole = [store.concatenated(there[i : i + nets]) for i in range(0, len(there), nets)]
    return Stored(tuple(whole[:-1]), whole[-1], found=True)


def _filled(context: RunContext, index: int, net: Net, blocks: int) -> Stored:
    """Computes the missing stores, in float32 where float16 can't hold the values."""
    phase = context.config.phases[index]
    without = f"Train this phase without a store: `phases.{index}.stored=false`."
    later = _later_cut(context, index, net)
    began = time.perf_counter()
    tries = [(dtype, cut) for dtype in _dtypes(context.config) for cut in (later, None)]
    overflown: set[str] = set()
    for dtype, also in dict.fromkeys(tries):
        if dtype in overflown:
            continue
        needs = store_specs_at(context, phase, net, blocks, dtype)
        more = [] if also is None else store_specs_at(context, phase, net, also, dtype)
        more = _that_fit(needs, more)
        lack = eviction.lack_of_room(cache.cache_folder(), _bytes(needs))
        if lack:
            raise PhaseFailed(f"Phase '{phase.name}': {eviction.no_room(lack)} {without}")
        size, extra = _bytes(needs), _bytes(more)
        _tell(context, index, size, found=False, later=extra)
        earlier = time.perf_counter() - began  # of a pass that was given up
        try:
            part, difference = _fill(context, net, needs + more, dtype, phase.name)
        except OverflowError as error:
            if error.args != (also,):  # at the phase's own cut
                overflown.add(dtype)
                log.info("%s: %s cannot hold the activations.", phase.name, dtype)
            continue
        stored = find(context, phase, net, blocks, dtype)
        if stored is None:
            raise UserError(
                f"{cache.cache_folder()}: activations that were just written are gone. Another "
                "process cleared the cache, or its limit is too small: `kerasft cache limit`."
            )
        if part is None:
            return stored  # another process has computed them meanwhile
        part.add(earlier)
        return replace(stored, found=False, difference=difference, part=part)
    raise PhaseFailed(
        f"Phase '{phase.name}': the frozen part computes values that {dtype} cannot hold. "
        + (
            without
            if dtype == "float16"
            else "Its weights are damaged, or do not belong to this net."
        )
    )


def _later_cut(context: RunContext, index: int, net: Net) -> int | None:
    """Predicts the cut of the next phase, in blocks, so that one pass can fill both cuts' stores.

    That is the cut of the run's next phase, or, after a phase that trains the head alone, the
    default of `unfreeze-and-continue`. A wrong prediction costs disk space but never gives wrong
    numbers, since the weights are part of the key. A solved phase reads fewer views than a trained
    one needs, so nothing is prepared there.
    """
    phases = context.plan.phases
    if isinstance(phases[index].settings, Solved):
        return None
    trained = net.depth(phases[index].blocks)
    if phases[index + 1 :]:
        later = phases[index + 1]
        needed = later.stored and not isinstance(later.settings, Solved)
        count = net.depth(later.blocks) if needed else 0
    else:
        usual = default_blocks(context.config.model.backbone)
        blocks = unfreeze_defaults(context.config).blocks
        count = net.depth("all" if blocks == "all" else usual) if trained == 0 else 0
    return count if trained < count < len(net.blocks) else None


def _bytes(needs: Sequence[StoreSpec]) -> int:
    return sum(need.bytes for need in needs)


def _that_fit(own: Sequence[StoreSpec], later: list[StoreSpec]) -> list[StoreSpec]:
    """Returns the stores of a later cut if they fit without evicting any store, else none."""
    folder = cache.cache_folder()
    size = _bytes(later)
    there = {one.digest for one in eviction.list_stores(folder)}
    few = size <= SHARE_FOR_LATER * eviction.limit_of(folder)
    fit = eviction.lack_of_room(folder, size + _bytes(own), keep=there) is None
    return later if few and fit else []


def _fill(
    context: RunContext, net: Net, needs: list[StoreSpec], dtype: str, phase: str
) -> tuple[Part | None, float | None]:
    """Computes the stores that are missing.

    Returns:
        The timed pass, or None if nothing was missing; and the relative error of bfloat16, or
        None if it was not used.

    Raises:
        OverflowError: a value does not fit the dtype. Its only argument is the cut, in blocks.
    """
    folder = cache.cache_folder()
    keys = [need.key for need in needs]

    def waiting() -> None:
        log.info("Waiting for another kerasft process, which is computing the same activations.")

    with store.filling(folder, keys, waiting=waiting):
        missing = [need for need in needs if not store.holds(folder, need.key)]
        if not missing:
            return None, None
        eviction.make_room(folder, _bytes(missing), keep={key.digest for key in keys})
        part = Part("prefix pass", 1, context.progress, phase)
        difference = _compute(context, net, missing, folder, dtype, part)
        part.end()
        return part, difference


def _compute(
    context: RunContext,
    net: Net,
    needs: list[StoreSpec],
    folder: Path,
    dtype: str,
    part: Part,
) -> float | None:
    config, source = context.config, context.source
    ends = sorted({(need.blocks, need.net) for need in needs})
    prefix = _prefix(net, ends)
    kinds = sorted({(need.split, need.view) for need in needs})
    views = {name: [view for split_, view in kinds if split_ == name] for name, _ in kinds}
    positions = np.concatenate(
        [source.indices(name) for name in TRAIN_AND_VALIDATION if name in views]
    )
    # The kind (split and view) of each row of the pass, as a position in `kinds`: all views of the
    # first image, then all views of the second, ...
    rows = np.concatenate(
        [
            np.tile(
                np.array([kinds.index((name, view)) for view in views[name]], np.int16),
                len(source.indices(name)),
            )
            for name in TRAIN_AND_VALIDATION
            if name in views
        ]
    )
    batches = view_batches(
        source,
        positions,
        views,
        image_size=context.plan.image_size,
        resize=config.data.resize,
        augment=config.augment,
        batch_size=context.plan.batch,
    )
    engine = engines.build(prefix, config.cache.engine, config.cache.precision, context.plan.batch)
    part.total = len(rows)
    difference, done = None, 0
    with explaining(source.root), ExitStack() as stack:
        writers = [
            stack.enter_context(store.writing(folder, need.key, need.shape, dtype))
            for need in needs
        ]
        for pixels, outputs in engine.over(batches, dtype):
            if not done and config.cache.precision == "bfloat16":
                few = pixels[: engines.BATCH]
                difference = _difference(prefix, few, engine(few))
            here = rows[done : done + len(pixels)]
            for need, writer in zip(needs, writers, strict=True):
                fitting = outputs[ends.index((need.blocks, need.net))]
                if fitting is None:
                    raise OverflowError(need.blocks)
                writer.append(fitting[here == kinds.index((need.split, need.view))])
            done += len(pixels)
            part.step(done)
            context.progress(Event("pass", done, len(rows), part.phase, part.figures(done)))
    return difference


def _prefix(net: Net, ends: list[tuple[int, int]]) -> keras.Model:
    """Builds a model from pixels to the activations at several cuts of several backbones.

    Args:
        net: the whole net.
        ends: the outputs: pairs of the number of blocks above the cut and the backbone's position.
    """
    parts = {blocks: net.cut(blocks).parts for blocks in {blocks for blocks, _ in ends}}
    outputs = [parts[blocks][backbone].outputs[0] for blocks, backbone in ends]
    return keras.Model(net.model.inputs[0], outputs)


def _difference(prefix: keras.Model, pixels: np.ndarray, rough: list[np.ndarray]) -> float:
    """Returns the relative error of bfloat16 on the first images, and logs it.

    Raises:
        PhaseFailed: there is no error, so this device did not compute in bfloat16.
    """
    exact = keras.tree.flatten(prefix.predict_on_batch(pixels))
    difference = max(
        engines.relative_error(np.asarray(a), b) for a, b in zip(exact, rough, strict=True)
    )
    if difference < 1e-4:  # float32 engines differ by 1e-6, bfloat16 rounds to 4e-3
        raise PhaseFailed(
            "'bfloat16' needs a processor that computes it; on this one the results are those of "
            "float32. Pass `cache.precision=float32`.",
            field="cache.precision",
        )
    log.info("bfloat16: the activations differ from those in float32 by %.1f%%.", 100 * difference)
    return difference
