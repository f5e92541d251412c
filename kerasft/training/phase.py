"""One phase: its suffix is filled, the freeze proven, the model scored from pixels and judged.

The judgement is of plain scores. A model that is kept then gets a temperature (`confidence.py`),
and the run the features of the photos that it knows (`novelty/`). At the end of the run `remember`
keeps of its photos what is needed when they are gone (`heads/sums.py`), all of which the run has
computed anyway.

Shapes: N images, F features, K classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft import confidence
from kerasft.activations.context import SCORING_BATCH, RunContext
from kerasft.activations.prefix_pass import find_again
from kerasft.activations.store import Stored
from kerasft.config.fields import Solved
from kerasft.data.splits import units_of_split
from kerasft.errors import PhaseFailed, UserError
from kerasft.heads import sums
from kerasft.heads.sums import Memory, Sums
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.bundle import Bundle, score_with
from kerasft.models.cut import prove_frozen
from kerasft.models.net import Net
from kerasft.models.tta import looks_at_views, trained_part, with_temperature, with_views
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.progress import Event, Part
from kerasft.record import Gap, PhaseResult, RunRecord, StoreUse
from kerasft.run import read_answers, read_record, write_answers
from kerasft.seeds import derive_seed
from kerasft.training import checkpoint
from kerasft.training.fill import PhaseOutcome, solve_head, train_suffix

MOST_FEATURES = 4096  # the sums of more take over 32 MB
MOST_BYTES = 64 << 20  # of the features of validation and test images
CANDIDATE = "candidate.keras"  # the phase's model as saved, until it is proven and judged


@dataclass(frozen=True, eq=False)
class EndedPhase:
    """A phase that has ended.

    Attributes:
        result: its record for run.json. `improved` says whether model.keras is now its model.
        saved: its model as it was saved.
        logits: plain logits of the validation images, float32 [N,K].
    """

    result: PhaseResult
    saved: Bundle
    logits: np.ndarray


def run_phase(context: RunContext, index: int, net: Net, best_so_far: float) -> EndedPhase:
    """Runs one phase, or the rest of an interrupted one.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: the net that the phase begins with (`start.start_net`).
        best_so_far: validation log loss of the run's model.keras; infinity if there is none.

    Returns:
        The phase's record, its model and its answers; on a tie the earlier model.keras stays.

    Raises:
        PhaseFailed: a frozen variable moved; the loss is not a number from the start; the
            activations can't be stored, or their figures differ from those of the saved model.
            model.keras has not changed then.
        UserError: the disk is full, or the weights that the phase began with have changed.
    """
    phase = context.plan.phases[index]
    seed = derive_seed(context.config.seed, "phase", index)
    seen = _begin_known(context, index, net)
    if isinstance(phase.settings, Solved):
        filled = solve_head(context, index, phase.settings, net, seed)
    else:
        filled = train_suffix(context, index, net, seed)

    scoring = Part("scoring", len(context.labels("validation")), context.progress, phase.name)
    candidate = context.run.checkpoints / CANDIDATE
    plain = Bundle(
        model=with_views(filled.model, context.config.augment.test_time),
        class_names=context.source.class_names,
        rule=context.plan.rule,
    )
    saved = _save_and_prove(candidate, phase.name, filled, plain)
    logits = logits_of(context, saved, "validation", scoring)
    scored = Figures.by_class(logits, context.labels("validation"), saved.class_names)
    scoring.end()
    line, stored = filled.line, filled.stored
    gap = _gap(context, saved, scored, line)
    if stored:
        refuse_gap(index, phase.name, gap, scored.n)
    if filled.answers:
        kept = read_answers(context.run.answers_path)
        write_answers(context.run.answers_path, {**kept, phase.name: filled.answers})
    improved, calibration = scored.loss < best_so_far, None
    if improved and context.config.calibrate:
        calibration = confidence.calibrate(
            logits, context.labels("validation"), units_of_split(context.source, "validation")
        )
        if calibration.temperature != 1:
            model = with_temperature(saved.model, calibration.temperature)
            saved = _save_and_prove(candidate, phase.name, filled, replace(saved, model=model))
    if improved:
        # First: beside model.keras as it was, the new one works as well.
        if seen is not None and (stored or seen.features is not None):
            done = known.complete(seen, stored.train[0], stored.validation) if stored else seen
            known.save(done, context.run.known_path)
        else:
            context.run.known_path.unlink(missing_ok=True)
        context.run.sums_path.unlink(missing_ok=True)  # of the model before
        candidate.replace(context.run.model_path)
    parts = [*filled.parts, scoring]
    result = PhaseResult(
        name=phase.name,
        blocks=phase.blocks,
        how=filled.how,
        trainable_parameters=filled.parameters,
        batch_norm_trained=filled.learning_norms,
        seconds=round(sum(part.seconds for part in parts), 2),
        parts=tuple(part.time for part in parts),
        activations=_use_of(stored, context) if stored else None,
        gap=gap,
        train_loss=line["loss"],
        train_accuracy=line["accuracy"],
        val_loss=line["val_loss"],
        val_accuracy=line["val_accuracy"],
        improved=improved,
        validation=scored,
        calibration=calibration,
    )
    return EndedPhase(result, saved, logits)


def _begin_known(context: RunContext, index: int, net: Net) -> Known | None:
    """Keeps what the phase is going to change of the pretrained base; None if there is nothing."""
    config = context.config
    if not config.calibrate or config.model.weights == "none" or config.augment.test_time != "none":
        return None
    kept = [phase for phase in read_record(context.run).phases if phase.improved]
    trained = max((net.depth(phase.blocks) for phase in kept), default=0)
    # A copy, as of model.keras: the end of the phase replaces it before the phase is recorded.
    start = context.run.checkpoints / checkpoint.KNOWN_START
    if index and not start.is_file() and context.run.known_path.is_file():
        bundle.copy(context.run.known_path, start)
    return known.begin(net, context.plan.phases[index].blocks, trained, known.load(start))


def _gap(context: RunContext, saved: Bundle, scored: Figures, best: Mapping[str, float]) -> Gap:
    """Compares the kept epoch's figures with those of the saved model.

    Views of test-time augmentation are left out, because training does not use them.

    Args:
        context: the run.
        saved: the saved model.
        scored: figures of the saved model on validation.
        best: the kept epoch's line of metrics.jsonl.
    """
    plain = scored
    if context.config.augment.test_time != "none":
        plain = figures_of(context, replace(saved, model=trained_part(saved.model)), "validation")
    return Gap(abs(plain.accuracy - best["val_accuracy"]), abs(plain.loss - best["val_loss"]))


def _use_of(stored: Stored, context: RunContext) -> StoreUse:
    return StoreUse(
        found=stored.found,
        views=len(stored.train),
        bytes=stored.bytes,
        dtype=stored.dtype,
        engine=context.plan.engine,
        precision=context.plan.precision,
        difference=stored.difference,
    )


def refuse_gap(index: int, name: str, gap: Gap, n: int) -> None:
    """Refuses a store whose figures differ too much from those of the saved model.

    The difference may be one point of accuracy, or one image where that is more.

    Args:
        index: position of the phase in the run, from 0.
        name: name of the phase.
        gap: difference between the store's figures and those of the saved model.
        n: number of validation images.

    Raises:
        PhaseFailed: the difference is larger.
    """
    allowed = max(0.01, 1 / n) + 1e-9
    if gap.accuracy > allowed:
        raise PhaseFailed(
            f"Phase '{name}': validation accuracy is {100 * gap.accuracy:.1f} points apart "
            f"between the stored activations and the saved model on pixels; at most "
            f"{100 * allowed:.1f} are allowed. Nothing of this phase was kept.\n"
            f"  Train it without a store: `phases.{index}.stored=false`. If the activations were "
            "computed in bfloat16, `cache.precision=float32` may do."
        )


def _save_and_prove(path: Path, phase: str, filled: PhaseOutcome, whole: Bundle) -> Bundle:
    """Saves the phase's model, loads it again and proves the freeze."""
    bundle.save(whole, path)
    saved = bundle.opened(path)
    try:
        prove_frozen(filled.start, saved.model, filled.trained, phase)
    except UserError:
        path.unlink()
        raise
    return saved


def figures_of(context: RunContext, saved: Bundle, split_name: str) -> Figures:
    """Measures a model as it was saved, its temperature included, on one split.

    Args:
        context: the run.
        saved: the saved model.
        split_name: name of the split, "validation" or "test".
    """
    logits = logits_of(context, saved, split_name) / saved.temperature
    return Figures.by_class(logits, context.labels(split_name), saved.class_names)


def logits_of(
    context: RunContext, saved: Bundle, split_name: str, part: Part | None = None
) -> np.ndarray:
    """Scores a model as `outputs_of` does: plain logits [N,K]."""
    return outputs_of(context, saved, split_name, part)[0]


def outputs_of(
    context: RunContext, saved: Bundle, split_name: str, part: Part | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores a model as it was saved, in float32 and from pixels.

    Args:
        context: the run.
        saved: the saved model.
        split_name: name of the split, "validation" or "test".
        part: the clock of the scoring, which counts the scored images.

    Returns:
        Plain logits [N,K], and the features that enter the head [N,F]; None for a model that looks
        at several views.
    """
    batches, total = context.batches(split_name), len(context.labels(split_name))

    def progress(event: Event) -> None:
        context.progress(event)
        if part:
            part.step(event.done)

    _, logits, *features = score_with(
        saved.scores_and_logits if looks_at_views(saved.model) else saved.with_features,
        batches,
        total=total,
        progress=progress,
    )
    return logits, (features[0] if features else None)


def remember(context: RunContext, record: RunRecord, saved: Bundle, test: np.ndarray) -> None:
    """Writes what is kept of the photos of a run, if its phase has stored its activations.

    Args:
        context: the run.
        record: its record so far; model.keras is of its last phase that has improved.
        saved: content of model.keras.
        test: features of the test images, [N,F].
    """
    index = max(i for i, phase in enumerate(record.phases) if phase.improved)
    validation = len(context.labels("validation"))
    width = test.shape[1]
    if width > MOST_FEATURES or 2 * width * (validation + len(test)) > MOST_BYTES:
        return
    net = Net.of(saved.model, context.config.model.backbone)
    cut = net.cut(context.plan.phases[index].blocks)
    if cut.prefix is None or len(cut.tensors) > 1 or not context.plan.phases[index].stored:
        return
    stored = find_again(context, index, net, len(cut.blocks))
    if stored is None:
        return
    part = keras.Model(cut.prefix.outputs[0], net.features) if cut.blocks else None
    labels = context.labels("train")
    train = _features(part, stored.train[0])
    of_batches = ((rows, labels[start : start + len(rows)]) for start, rows in train)
    whole = Sums.of(of_batches, len(context.source.class_names))
    own = np.concatenate([rows for _, rows in _features(part, stored.validation)])
    sums.save(Memory(whole, own, test), context.run.sums_path)


def _features(part: keras.Model | None, rows: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the position of each batch of stored activations, and its features float32 [n,F].

    Args:
        part: the model from the activations to the features; None if they are the features.
        rows: the activations.
    """
    for start in range(0, len(rows), SCORING_BATCH):
        batch = np.asarray(rows[start : start + SCORING_BATCH], np.float32)
        yield start, batch if part is None else np.asarray(bundle.compute(part, [batch]))
