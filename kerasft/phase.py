"""One phase: cut, freeze, fit, keep the best epoch, prove the freeze, score from pixels."""

from pathlib import Path

import keras
import numpy as np

from kerasft import backbones, bundle, heads, nets, state
from kerasft.bundle import Bundle
from kerasft.config import Config, Phase
from kerasft.cut import digest_of, fingerprint, freeze, may_change, prove_frozen, split, thaw
from kerasft.errors import UserError
from kerasft.evaluate import log_loss, score
from kerasft.fitting import fit
from kerasft.live import restore_precision, set_precision
from kerasft.progress import Event
from kerasft.randomness import derive_seed
from kerasft.setting import Setting

CANDIDATE = "candidate.keras"  # the phase's model as saved, until it is proven and judged


def initial_model(config: Config, num_classes: int) -> keras.Model:
    """Builds the model that a run's first phase begins with: pixels to scores [B,K]."""
    assert config.model.image_size is not None  # resolved by train.resolve
    base = nets.load(
        config.model.backbone,
        weights=config.model.weights,
        image_size=config.model.image_size,
        seed=derive_seed(config.seed, "backbone"),
    )
    return heads.attach(
        base,
        num_classes,
        hidden=config.head.hidden,
        dropout=config.head.dropout,
        seed=derive_seed(config.seed, "head"),
    )


def run_phase(setting: Setting, index: int, best_so_far: float) -> dict:
    """Runs one phase, or what an interruption left of it.

    Args:
        setting: the run.
        index: of the phase in the run's config.
        best_so_far: validation log loss of the run's model.keras; infinity if there is none.

    Returns:
        What run.json records of the phase. `improved` says whether model.keras is now this
        phase's model; on a tie the earlier one stays.

    Raises:
        PhaseFailed: a frozen variable moved, or the loss is not a number from the start.
            model.keras is then what it was.
        UserError: the disk is full, or what the phase began with was changed meanwhile.
    """
    phase = setting.config.phases[index]
    seed = derive_seed(setting.config.seed, "phase", index)
    setting.run.checkpoints.mkdir(exist_ok=True)
    if state.load(setting.run.checkpoints, phase.name) is None:
        state.clear(setting.run.checkpoints)  # what an earlier phase left when it was killed
    model = _start_model(setting, index)
    start = fingerprint(model)
    cut = split(model, _count(phase), backbones.parse(setting.config.model.backbone)[0])
    released = freeze(cut, phase.batch_norm)
    trained = may_change(model, cut, phase.batch_norm)
    trainable = int(sum(np.prod(v.shape) for v in cut.suffix.trainable_variables))
    figures = {"blocks": len(cut.blocks), "epochs": phase.epochs}
    figures["trainable_parameters"] = trainable
    setting.progress(Event("phase", 0, 1, phase.name, figures))

    before = set_precision(model, phase.precision)
    now = fit(setting, phase, cut, seed, start=digest_of(start))
    restore_precision(before)
    thaw(model)

    candidate, figures = _save_and_prove(setting, phase, model, start, trained)
    improved = figures["loss"] < best_so_far
    if improved:
        candidate.replace(setting.run.model_path)
    best_line = now.lines[now.best_epoch - 1]
    return {
        "name": phase.name,
        "blocks": phase.blocks,
        "epochs": now.epoch,
        "best_epoch": now.best_epoch,
        "seconds": round(now.seconds, 2),
        "train_loss": best_line["loss"],
        "train_accuracy": best_line["accuracy"],
        "val_loss": best_line["val_loss"],
        "val_accuracy": best_line["val_accuracy"],
        "frozen_proof": "equal",
        "trainable_parameters": trainable,
        "batch_norm_trained": released,
        "improved": improved,
        "validation": figures,
    }


def _count(phase: Phase) -> int | str:
    assert phase.blocks is not None  # resolved by train.resolve
    return phase.blocks


def _start_model(setting: Setting, index: int) -> keras.Model:
    """The best model so far, from its file, so that a phase begins alike in every process."""
    if index == 0:
        return initial_model(setting.config, len(setting.source.class_names))
    start = setting.run.checkpoints / state.START
    if not start.is_file():
        # A copy, because the end of this phase may replace model.keras before it is recorded.
        bundle.copy(setting.run.model_path, start)
    return bundle.load(start).model


def _save_and_prove(
    setting: Setting,
    phase: Phase,
    model: keras.Model,
    start: list[tuple[str, str]],
    trained: set[int],
) -> tuple[Path, dict]:
    """Saves the phase's model, loads it again, proves the freeze, scores it on validation."""
    config = setting.config
    path = setting.run.checkpoints / CANDIDATE
    whole = Bundle(
        model=model,
        class_names=setting.source.class_names,
        image_size=setting.image_size,
        resize=config.data.resize,
    )
    bundle.save(whole, path)
    saved = bundle.load(path)
    try:
        prove_frozen(start, saved.model, trained, phase.name)
    except UserError:
        path.unlink()
        raise
    return path, figures_of(setting, saved, "validation")


def figures_of(setting: Setting, saved: Bundle, split_name: str) -> dict:
    """Scores a model as it was saved, in float32 and from pixels, on one split.

    Returns:
        `{"accuracy", "loss", "n"}`; the loss is the unsmoothed, unweighted log loss, nats.
    """
    labels = setting.labels(split_name)
    batches = setting.batches(split_name)
    _, logits = score(saved, batches, total=len(labels), progress=setting.progress)
    return {
        "accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
        "loss": log_loss(logits, labels),
        "n": len(labels),
    }
