"""One phase: its suffix is filled, the freeze proven, the model scored from pixels and judged."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kerasft.activations.context import RunContext
from kerasft.activations.store import Stored
from kerasft.config.fields import Solved
from kerasft.errors import PhaseFailed, UserError
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.bundle import Bundle, score
from kerasft.models.cut import prove_frozen
from kerasft.models.net import Net
from kerasft.models.tta import trained_part, with_views
from kerasft.progress import Event, Part
from kerasft.record import Gap, PhaseResult, StoreUse
from kerasft.run import read_answers, write_answers
from kerasft.seeds import derive_seed
from kerasft.training.fill import PhaseOutcome, solve_head, train_suffix

CANDIDATE = "candidate.keras"  # the phase's model as saved, until it is proven and judged


def run_phase(
    context: RunContext, index: int, net: Net, best_so_far: float
) -> tuple[PhaseResult, Bundle]:
    """Runs one phase, or the rest of an interrupted one.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: the net that the phase begins with (`start.start_net`).
        best_so_far: validation log loss of the run's model.keras; infinity if there is none.

    Returns:
        The phase's record for run.json, and its model as it was saved. `improved` says
        whether model.keras is now this phase's model; on a tie the earlier one stays.

    Raises:
        PhaseFailed: a frozen variable moved; the loss is not a number from the start; the
            activations can't be stored, or their figures differ from those of the saved model.
            model.keras has not changed then.
        UserError: the disk is full, or the weights that the phase began with have changed.
    """
    phase = context.plan.phases[index]
    seed = derive_seed(context.config.seed, "phase", index)
    if isinstance(phase.settings, Solved):
        filled = solve_head(context, index, phase.settings, net, seed)
    else:
        filled = train_suffix(context, index, net, seed)

    scoring = Part("scoring", len(context.labels("validation")), context.progress, phase.name)
    candidate, saved = _save_and_prove(context, phase.name, filled)
    scored = figures_of(context, saved, "validation", scoring)
    scoring.end()
    line, stored = filled.line, filled.stored
    gap = _gap(context, saved, scored, line)
    if stored:
        refuse_gap(index, phase.name, gap, scored.n)
    if filled.answers:
        kept = read_answers(context.run.answers_path)
        write_answers(context.run.answers_path, {**kept, phase.name: filled.answers})
    improved = scored.loss < best_so_far
    if improved:
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
    )
    return result, saved


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


def _save_and_prove(context: RunContext, phase: str, filled: PhaseOutcome) -> tuple[Path, Bundle]:
    """Saves the phase's model, loads it again and proves the freeze."""
    config = context.config
    path = context.run.checkpoints / CANDIDATE
    whole = Bundle(
        model=with_views(filled.model, config.augment.test_time),
        class_names=context.source.class_names,
        rule=context.plan.rule,
    )
    bundle.save(whole, path)
    saved = bundle.opened(path)
    try:
        prove_frozen(filled.start, saved.model, filled.trained, phase)
    except UserError:
        path.unlink()
        raise
    return path, saved


def figures_of(
    context: RunContext, saved: Bundle, split_name: str, part: Part | None = None
) -> Figures:
    """Scores a model as it was saved, in float32 and from pixels, on one split.

    Args:
        context: the run.
        saved: the saved model.
        split_name: name of the split, "validation" or "test".
        part: the clock of the scoring, which counts the scored images.
    """
    labels = context.labels(split_name)
    batches = context.batches(split_name)

    def progress(event: Event) -> None:
        context.progress(event)
        if part:
            part.step(event.done)

    _, logits = score(saved, batches, total=len(labels), progress=progress)
    return Figures.by_class(logits, labels, saved.class_names)
