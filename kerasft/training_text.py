"""What training commands leave on the screen: the plan of a dry run, and the summary of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from kerasft.cli_shared import as_typed
from kerasft.sizes import size_text
from kerasft.terminal import duration_text, epochs_text, trained_text


def plan_text(plan: Mapping[str, Any]) -> str:
    """What `train --dry-run` leaves on the screen.

    Args:
        plan: the object that `train --dry-run --json` prints.
    """
    width = max(len("class"), *(len(name) for name in plan["images"]))
    lines = [
        f"{plan['backbone']}, weights {plan['weights']}, {plan['image_size']} x "
        f"{plan['image_size']} pixels, {plan['parameters']:,} parameters in "
        f"{len(plan['blocks'])} blocks",
        "",
        f"{'class':<{width}}   train  validation    test",
    ]
    lines += [
        f"{name:<{width}}  {n['train']:>6,}  {n['validation']:>10,}  {n['test']:>6,}"
        for name, n in plan["images"].items()
    ]
    if plan["unused"]:
        lines.append(f"{plan['unused']:,} more images for training are not used (data.fraction)")
    if plan["groups"]:
        lines.append(f"{plan['groups']:,} groups, each in one split")
    if plan["skipped"]:
        lines.append(f"{len(plan['skipped'])} files are no images and will be left out")
    lines.append("")
    lines += [
        f"Phase {phase['name']}: {_planned_text(phase)}\n  {_storing_text(phase)}"
        for phase in plan["phases"]
    ]
    return "\n".join([*lines, "", "Nothing was trained or written: this was a dry run."])


def _planned_text(phase: Mapping[str, Any]) -> str:
    if "method" in phase:
        return f"the head, solved by {phase['method']}"
    return (
        f"{trained_text(phase['blocks'])}, {phase['trainable_parameters']:,} parameters, up to "
        f"{epochs_text(phase['epochs'])} ({phase['steps']:,} steps), learning rate "
        f"{phase['learning_rate']:g}"
    )


def _storing_text(phase: Mapping[str, Any]) -> str:
    if phase["stored"]:
        return f"activations are stored, {size_text(phase['bytes'])}: {phase['why']}"
    return f"activations are not stored: {phase['why']}"


def summary_text(result: Mapping[str, Any]) -> str:
    """What a training command leaves on the screen.

    Args:
        result: the object that `train --json` and `unfreeze-and-continue --json` print.
    """
    from kerasft.phase_fields import LINEAR  # not at the top, see compare_text.py

    run = as_typed(str(result["run"]))
    lines = []
    for phase in result["phases"]:
        lines += [_phase_line(phase), *(f"  {note}" for note in phase.get("notes", ()))]
    if result["phases"][-1].get("improved") is False:
        lines.append("The last phase did not help: model.keras is still the earlier one.")
    lines += [
        "",
        _split_line("Validation", result.get("validation")),
        _split_line("Test", result.get("test")),
        f"Run directory: {result['run']}, {duration_text(result['seconds'])} of training",
        "",
        "Next:",
        f"  kerasft evaluate {run}",
        f"  kerasft predict {run} PHOTO.jpg",
        f"  kerasft export {run}",
    ]
    if result["phases"][-1].get("method", LINEAR[0]) in LINEAR:
        lines.insert(-1, f"  kerasft unfreeze-and-continue {run}")
    return "\n".join(lines)


def _phase_line(phase: Mapping[str, Any]) -> str:
    parts = _parts_text(phase.get("parts", ()))  # none in runs of version 0.1.0
    how, done = f"epoch {phase.get('best_epoch')} of {phase.get('epochs')} was the best", "trained"
    if "method" in phase:
        chosen = ", ".join(f"{key} {value}" for key, value in phase["parameters"].items())
        how, done = f"{phase['method']} with {chosen}", "solved"
    return (
        f"Phase {phase['name']}: {how}, validation accuracy {phase['val_accuracy']:.3f}, loss "
        f"{phase['val_loss']:.4f}; "
        f"{phase['trainable_parameters']:,} parameters {done}, the frozen ones compared: "
        f"{phase['frozen_proof']}; {duration_text(phase['seconds'])}{parts}"
    )


def _parts_text(parts: Sequence[Mapping[str, Any]]) -> str:
    """What the time of a phase went into: " (prefix pass 0:31, predicted 0:29; ...)"."""
    texts = []
    for part in parts:
        predicted = part["predicted_seconds"]
        said = "" if predicted is None else f", predicted {duration_text(predicted)}"
        texts.append(f"{part['name']} {duration_text(part['seconds'])}{said}")
    return f" ({'; '.join(texts)})" if texts else ""


def _split_line(title: str, split: Mapping[str, Any] | None) -> str:
    if not split or not split["n"]:
        return f"{title}: no images"
    line = f"{title}: accuracy {split['accuracy']:.3f}"
    if "ci95" in split:
        low, high = split["ci95"]
        line += f" (95% interval {low:.3f} to {high:.3f})"
    return f"{line}, loss {split['loss']:.4f}, {split['n']:,} images"
