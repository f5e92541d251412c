"""The prefix pass: activations at the cut of a phase, found in the cache or computed once.

    images x views -- decode once -- prefix, up to several cuts --> segments of each tensor

`keys.py` lists what a phase needs. One pass computes what no earlier one has, at the phase's cut
and, where the next phase's cut can be predicted, at that cut too. It commits a segment of each
tensor every `PIECE` images, so an interrupted pass goes on after the last one.

Shapes: N images, V views of each training image.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines, eviction, segments, store
from kerasft.activations.context import RunContext
from kerasft.activations.keys import (
    TRAIN_AND_VALIDATION,
    Need,
    needs_at,
    rows_of,
    views_of,
    views_taken,
)
from kerasft.activations.segments import Segments
from kerasft.activations.store import RowId, Stored, Writer
from kerasft.backbones.spec import default_blocks
from kerasft.config.fields import AnyPhase, Config, Solved
from kerasft.config.load import unfreeze_defaults
from kerasft.data.batches import explaining, view_batches
from kerasft.data.source import Source
from kerasft.errors import PhaseFailed, UserError, within_memory
from kerasft.models.cut import Cut
from kerasft.models.net import Net
from kerasft.progress import Event, Part
from kerasft.record import Device

log = logging.getLogger("kerasft")

PIECE = 4096  # least number of images in a segment that a pass appends; each view counts
MOST = 32  # number of segments that a pass appends at most
TRIES = 3  # passes in a row, where segments turn out to be damaged
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
    blocks = len(cut.blocks)
    found = find_again(context, index, net, blocks)
    if found is None:
        return _filled(context, index, net, blocks)
    _tell(context, index, found.bytes, 0)
    with suppress(UserError):  # a cache that can only be read
        eviction.remove_rests(cache.cache_folder())
    return found


def find_again(context: RunContext, index: int, net: Net, blocks: int) -> Stored | None:
    """Opens the activations that a phase trains on; None if any are missing.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: the whole net, whose prefix is that of the phase.
        blocks: number of blocks above the cut.
    """
    phase = context.config.phases[index]
    found = (find(context, phase, net, blocks, dtype) for dtype in _dtypes(context.config))
    return next((one for one in found if one), None)


def _needs(context: RunContext, phase: AnyPhase, net: Net, blocks: int, dtype: str) -> list[Need]:
    return needs_at(context.config, context.source, context.machine, phase, net, blocks, dtype)


def stored_already(
    config: Config, source: Source, machine: Device, phase: AnyPhase, net: Net, blocks: int
) -> int:
    """Counts what an earlier phase or run has computed of what a phase needs.

    Args:
        config, source, machine, phase, net, blocks: see `keys.needs_at`.

    Returns:
        The number of images, each view counted, whose activations are stored.
    """
    folder = cache.cache_folder()
    most = 0
    for dtype in _dtypes(config):
        needs = needs_at(config, source, machine, phase, net, blocks, dtype)
        missing = set().union(*_missing(folder, needs))
        of_one_net = [row for need in needs if need.net == 0 for row in need.rows]
        most = max(most, sum(row not in missing for row in of_one_net))
    return most


def _dtypes(config: Config) -> tuple[str, ...]:
    """Returns the dtypes to try in turn; the second is for values that the first can't hold."""
    wanted = config.cache.dtype
    return ("float16", "float32") if wanted == "auto" else (wanted,)


def _tell(
    context: RunContext, index: int, size: int, lacking: int, needed: int = 0, *, later: int = 0
) -> None:
    """Sends the event "store": the activations were found, or are going to be stored.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        size: size of all that the phase needs, in bytes.
        lacking: number of images, each view counted, that have to be computed.
        needed: number of images, each view counted, that the phase needs; copies count once.
        later: size of what the next phase will need, in bytes.
    """
    source = context.source
    figures = {
        "images": len(source.indices("train")),
        "views": views_taken(context.config.phases[index], context.plan.views),
        "validation": len(source.indices("validation")),
        "bytes": size,
        "later_bytes": later,
        "lacking": lacking,
        "needed": needed,
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
    folder, source = cache.cache_folder(), context.source
    there: dict[tuple[int, bool], Segments] = {}  # by backbone, of the plain view or the others
    for need in _needs(context, phase, net, blocks, dtype):
        there[need.net, need.plain] = Segments.of(folder, need.tensor)
        if there[need.net, need.plain].missing(need.rows):
            return None
    nets = 1 + max(number for number, _ in there)
    kinds = [("train", view) for view in range(views_taken(phase, context.plan.views))]
    whole = []
    for split, view in [*kinds, ("validation", 0)]:
        wanted = rows_of(source, split, view)
        rows = [there[number, view == 0].open(folder, wanted) for number in range(nets)]
        opened = [one for one in rows if one is not None]
        if len(opened) < nets:
            return None
        whole.append(store.concatenated(opened))
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
        needs = _needs(context, phase, net, blocks, dtype)
        more = [] if also is None else _needs(context, phase, net, also, dtype)
        more = _that_fit(needs, more)
        size, extra = _bytes(needs), _bytes(more)
        lack = eviction.lack_of_room(cache.cache_folder(), size)
        if lack:
            raise PhaseFailed(f"Phase '{phase.name}': {eviction.no_room(lack)} {without}")
        _tell(context, index, size, *_counts(needs), later=extra)
        earlier = time.perf_counter() - began  # of a pass that was given up
        try:
            # A segment may turn out to be damaged when it is opened: then its rows are missing.
            for _ in range(TRIES):
                part, difference = _fill(context, net, needs + more, dtype, phase.name)
                stored = find(context, phase, net, blocks, dtype)
                if stored is not None:
                    break
        except OverflowError as error:
            if error.args != (also,):  # at the phase's own cut
                overflown.add(dtype)
                log.info("%s: %s cannot hold the activations.", phase.name, dtype)
            continue
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


def _counts(needs: Sequence[Need]) -> tuple[int, int]:
    """Returns the numbers of images, each view counted, that are missing and that are needed."""
    missing = _missing(cache.cache_folder(), needs)
    return len(set().union(*missing)), len(set().union(*(need.rows for need in needs)))


def _bytes(needs: Sequence[Need]) -> int:
    return sum(need.bytes_of(len(need.rows)) for need in needs)


def _that_fit(own: Sequence[Need], later: list[Need]) -> list[Need]:
    """Returns what a later cut needs if it fits without evicting any store, else nothing."""
    folder = cache.cache_folder()
    size = _bytes(later)
    there = eviction.digests_in(folder)
    few = size <= SHARE_FOR_LATER * eviction.limit_of(folder)
    fit = eviction.lack_of_room(folder, size + _bytes(own), keep=there) is None
    return later if few and fit else []


def _fill(
    context: RunContext, net: Net, needs: list[Need], dtype: str, phase: str
) -> tuple[Part | None, float | None]:
    """Computes the rows that are missing.

    Returns:
        The timed pass, or None if nothing was missing; and the relative error of bfloat16, or
        None if it was not used.

    Raises:
        OverflowError: a value does not fit the dtype. Its only argument is the cut, in blocks.
    """
    folder = cache.cache_folder()
    eviction.tidy(folder)

    def waiting() -> None:
        log.info("Waiting for another kerasft process, which is computing the same activations.")

    with store.filling(folder, [need.tensor for need in needs], waiting=waiting):
        there = [Segments.of(folder, need.tensor) for need in needs]
        if not any(one.missing(need.rows) for one, need in zip(there, needs, strict=True)):
            return None, None
        _make_room(folder, needs, there)
        missing = _missing(folder, needs)  # some may have been evicted
        part = Part("prefix pass", 1, context.progress, phase)
        lacking = [(need, set(rows)) for need, rows in zip(needs, missing, strict=True) if rows]
        difference = _compute(context, net, lacking, folder, dtype, part)
        for need, _ in lacking:
            segments.merge(folder, need.tensor)
        part.end()
        return part, difference


def _missing(folder: Path, needs: Sequence[Need]) -> list[list[RowId]]:
    """Returns the rows of each need that are in no segment."""
    return [Segments.of(folder, need.tensor).missing(need.rows) for need in needs]


def _make_room(folder: Path, needs: Sequence[Need], there: Sequence[Segments]) -> None:
    """Evicts stores until the missing rows fit; what is needed and there stays if it can.

    Its segments may hold rows of many other photos, so that there is no room beside them.

    Args:
        folder: the cache folder.
        needs: what is needed.
        there: the segments of each tensor.

    Raises:
        UserError: all that is needed does not fit at all.
    """
    held = {need.tensor.digest[: store.TENSOR] for need in needs}
    keep: set[str] = set()
    size = 0
    for need, one in zip(needs, there, strict=True):
        keep |= one.holding(need.rows)
        size += need.bytes_of(len(one.missing(need.rows)))
    try:
        eviction.make_room(folder, size, keep=keep, held=held)
    except UserError:
        eviction.make_room(folder, _bytes(needs), keep=(), held=held)


def _compute(
    context: RunContext,
    net: Net,
    lacking: list[tuple[Need, set[RowId]]],
    folder: Path,
    dtype: str,
    part: Part,
) -> float | None:
    """Computes rows and appends them to their tensors, a segment of each for every piece.

    Args:
        context: the run.
        net: the whole net.
        lacking: what is needed, with the rows that are missing.
        folder: the cache folder.
        dtype: dtype of the rows.
        part: the timed pass.
    """
    config, source = context.config, context.source
    ends = sorted({(need.blocks, need.net) for need, _ in lacking})
    prefix = _prefix(net, ends)
    rows = _in_order(source, set().union(*(missing for _, missing in lacking)))
    batches = view_batches(
        source,
        *_shown(source, rows),
        rule=context.plan.rule,
        augment=config.augment,
        batch_size=context.plan.batch,
    )
    part.total = len(rows)
    difference, done = None, 0
    batch = context.plan.batch
    piece = max(1, max(PIECE, len(rows) // MOST) // batch) * batch
    with explaining(source.root), _in_memory(batch):
        engine = engines.build(prefix, config.cache.engine, config.cache.precision, batch)
        computed = engine.over(batches, dtype)
        for first in range(0, len(rows), piece):
            here = rows[first : first + piece]
            with ExitStack() as stack:
                writers = _writers(stack, folder, lacking, here, dtype)
                while done < first + len(here):
                    pixels, outputs = next(computed)
                    if not done and config.cache.precision == "bfloat16":
                        few = pixels[: engines.BATCH]
                        difference = _difference(prefix, few, engine(few))
                    stretch = rows[done : done + len(pixels)]
                    for need, missing, writer in writers:
                        fitting = outputs[ends.index((need.blocks, need.net))]
                        if fitting is None:
                            raise OverflowError(need.blocks)
                        writer.append(fitting[[row in missing for row in stretch]])
                    done += len(pixels)
                    part.step(done)
                    figures = part.figures(done)
                    context.progress(Event("pass", done, len(rows), part.phase, figures))
    return difference


def _in_memory(batch: int) -> AbstractContextManager[None]:
    """Explains lack of memory in a pass; see `errors.within_memory`."""
    what = f"the frozen part, which computes {batch} images at once, `cache.batch={batch}`"
    if batch == 1:
        return within_memory(what, "Free some memory.")
    half = f"cache.batch={batch // 2}"
    return within_memory(what, f"Try half of them, `{half}`.", sets=(half,))


def _in_order(source: Source, rows: set[RowId]) -> list[RowId]:
    """Returns rows in the order of a pass: all views of a photo, then of the next."""
    wanted: dict[str, set[int]] = {}
    for photo, view in rows:
        wanted.setdefault(photo, set()).add(view)
    positions = np.concatenate([source.indices(name) for name in TRAIN_AND_VALIDATION])
    photos = dict.fromkeys(source.digests[position] for position in positions)
    return [(photo, view) for photo in photos for view in sorted(wanted.get(photo, ()))]


def _shown(source: Source, rows: list[RowId]) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """Returns the position of each photo of some rows, and numbers and seeds of its views."""
    # Of copies, one that the run uses: an unused one may be gone.
    used = np.concatenate([source.indices(name) for name in TRAIN_AND_VALIDATION])
    position_of = {source.digests[position]: int(position) for position in used}
    seeds = views_of(1 + max(view for _, view in rows))
    views: dict[str, list[tuple[int, int]]] = {}
    for photo, view in rows:
        views.setdefault(photo, []).append(seeds[view])
    return [position_of[photo] for photo in views], list(views.values())


def _writers(
    stack: ExitStack,
    folder: Path,
    lacking: list[tuple[Need, set[RowId]]],
    here: list[RowId],
    dtype: str,
) -> list[tuple[Need, set[RowId], Writer]]:
    """Begins a segment of each tensor that lacks some of the rows of a piece.

    Args:
        stack: the stack that ends the segments.
        folder: the cache folder.
        lacking: what is needed, with the rows that are missing.
        here: the rows of the piece, in order.
        dtype: dtype of the rows.

    Returns:
        What is needed, the rows that are missing, and the writer of each such tensor.
    """
    writers = []
    for need, missing in lacking:
        rows = [row for row in here if row in missing]
        if rows:
            writing = segments.writing(folder, need.tensor, rows, need.shape, dtype)
            writers.append((need, missing, stack.enter_context(writing)))
    return writers


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
