"""`kerasft train`, `unfreeze-and-continue` and `find-lr`, with the texts that they print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kerasft.cli.options import (
    SOURCE_HELP,
    data_option,
    json_option,
    print_result,
    set_option,
)
from kerasft.cli.terminal import duration_text, epochs_text, loading, showing, trained_text
from kerasft.cli.wording import as_typed, field_option, fields_typed
from kerasft.errors import UserError
from kerasft.heads.methods import METHODS
from kerasft.text import size_text


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@field_option("--data", "data.source", metavar="SRC", help=f"{SOURCE_HELP}.")
@field_option(
    "--backbone",
    "model.backbone",
    metavar="NAME",
    help="Default: MobileNetV2. A+B: the features of both together.",
)
@field_option(
    "--weights",
    "model.weights",
    metavar="imagenet|sample|none|RUN|FILE",
    help="What the base starts from. Default: imagenet. sample: in the package, to try it out. "
    "RUN: the base of another run, whatever its classes; brings backbone and image size.",
)
@field_option(
    "--image-size", "model.image_size", type=int, metavar="N", help="Side in pixels, e.g. 224."
)
@field_option(
    "--method",
    "phases.0.method",
    metavar="NAME",
    help=f"Solves the head instead of training it: {', '.join(METHODS)}.",
)
@field_option(
    "--epochs", "phases.0.epochs", type=int, metavar="N", help="Of the first phase, at most."
)
@field_option(
    "--learning-rate", "phases.0.learning_rate", type=float, metavar="X", help="Of the first phase."
)
@field_option(
    "--batch-size", "phases.0.batch_size", type=int, metavar="N", help="Of the first phase."
)
@field_option(
    "--seed", "seed", type=int, metavar="N", help="Of split, weights and order. Default: 0."
)
@field_option("--device", "device", metavar="auto|cpu|gpu:N", help="Default: auto.")
@click.option(
    "--run",
    "run_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the result goes. Default: runs/ and the name of the data.",
)
@set_option
@click.option("--resume", is_flag=True, help="Goes on with the run in --run.")
@click.option("--dry-run", is_flag=True, help="Checks everything, prints the plan, trains nothing.")
@json_option
def train(
    config: Path | None,
    run_dir: Path | None,
    sets: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **flags: object,
) -> None:
    """Trains a new head on photos.

    CONFIG is a TOML file; an option that is typed comes before it. Without CONFIG: MobileNetV2
    with ImageNet weights, and defaults that suit a few hundred to a few thousand photos.

    \b
    Example:
        kerasft train --data photos/ --run runs/photos
    """
    from kerasft.cli.options import default_run_path
    from kerasft.config.load import load_config
    from kerasft.run import Run

    if resume and run_dir is None:
        raise UserError("--resume needs --run DIR: which run is to go on?", exit_code=2)
    if resume and run_dir is not None and config is None and Run(run_dir).config_path.exists():
        config = Run(run_dir).config_path
    loaded = load_config(config, flags=fields_typed(flags), sets=sets)
    run_dir = run_dir or default_run_path(loaded.data.source)
    with loading():
        from kerasft.training.train import plan_run, train_run

    if dry_run:
        with showing() as progress:
            plan = plan_run(loaded, progress=progress)
        print_result(plan.to_json(), plan_text, as_json=as_json)
        return
    _offer_again(run_dir, ["kerasft", "train", "--run", str(run_dir), "--resume"], resume=resume)
    with showing() as progress:
        result = train_run(loaded, run_dir, resume=resume, progress=progress)
    print_result(result.to_json(), summary_text, as_json=as_json)


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@field_option(
    "--blocks",
    "phases.-1.blocks",
    type=int,
    metavar="N",
    help="How many to unfreeze, from the top.",
)
@click.option("--all", "all_blocks", is_flag=True, help="Unfreezes the whole base.")
@field_option(
    "--epochs", "phases.-1.epochs", type=int, metavar="N", help="Of the new phase, at most."
)
@field_option(
    "--learning-rate", "phases.-1.learning_rate", type=float, metavar="X", help="Of the new phase."
)
@field_option(
    "--batch-size", "phases.-1.batch_size", type=int, metavar="N", help="Of the new phase."
)
@data_option
@set_option
@click.option("--resume", is_flag=True, help="Goes on with the phase that was interrupted.")
@json_option
def unfreeze_and_continue(
    run_dir: Path,
    all_blocks: bool,
    data: str | None,
    sets: tuple[str, ...],
    resume: bool,
    as_json: bool,
    **flags: object,
) -> None:
    """Unfreezes the top blocks and continues at a low rate.

    Starts from the best weights of RUN so far. If the phase does not help, model.keras stays
    what it is. Can be repeated to go deeper; `kerasft blocks NAME` lists what --blocks counts.

    \b
    Example:
        kerasft unfreeze-and-continue runs/photos --blocks 3
    """
    flags["blocks"] = _blocks(flags["blocks"], all_blocks)
    with loading():
        from kerasft.training.train import continue_run

    again = ["kerasft", "unfreeze-and-continue", str(run_dir), "--resume"]
    _offer_again(run_dir, again, resume=resume)
    with showing() as progress:
        result = continue_run(
            run_dir,
            flags=fields_typed(flags),
            sets=sets,
            data=data,
            resume=resume,
            progress=progress,
        )
    print_result(result.to_json(), summary_text, as_json=as_json)


@click.command("find-lr")
@click.argument("run", type=click.Path(path_type=Path))
@field_option(
    "--blocks",
    "phases.-1.blocks",
    type=int,
    metavar="N",
    help="How many to unfreeze, from the top.",
)
@click.option("--all", "all_blocks", is_flag=True, help="Unfreezes the whole base.")
@field_option("--batch-size", "phases.-1.batch_size", type=int, metavar="N", help="Of the phase.")
@click.option(
    "--from-start",
    is_flag=True,
    help="Tries the run's first phase, from the weights that it began with.",
)
@click.option("--steps", type=int, default=100, show_default=True, metavar="N", help="20 or more.")
@data_option
@set_option
@json_option
def find_lr(
    run: Path,
    blocks: int | None,
    all_blocks: bool,
    batch_size: int | None,
    from_start: bool,
    steps: int,
    data: str | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Suggests a learning rate for what unfreeze-and-continue would train.

    Takes steps at rates from 1e-7 to 1 and looks where the loss falls fastest. RUN gets
    find-lr.png and find-lr.csv; its model stays what it is.

    \b
    Example:
        kerasft find-lr runs/photos --blocks 3
    """
    with loading():
        from kerasft.training.find_lr import find_rate

    typed = fields_typed({"blocks": _blocks(blocks, all_blocks), "batch_size": batch_size})
    phase = "phases.0" if from_start else "phases.-1"
    with showing() as progress:
        result = find_rate(
            run,
            flags={key.replace("phases.-1", phase): value for key, value in typed.items()},
            sets=sets,
            data=data,
            from_start=from_start,
            steps=steps,
            progress=progress,
        )
    print_result(result.to_json(), rate_text, as_json=as_json)


def _blocks(blocks: object, all_blocks: bool) -> object:
    if all_blocks and blocks is not None:
        raise UserError("--blocks and --all exclude each other: pass one of them.", exit_code=2)
    return "all" if all_blocks else blocks


def _offer_again(run: Path, command: list[str], *, resume: bool) -> None:
    """Makes Ctrl-C print the command that continues the run.

    If the run's config has not changed, there is nothing to continue: training writes it first,
    and a new phase is appended to it before the first epoch.

    Args:
        run: run directory.
        command: words of the command that continues the run.
        resume: whether this command continues a run already.
    """
    from kerasft.run import Run

    def config() -> bytes | None:
        path = Run(run).config_path
        return path.read_bytes() if path.is_file() else None

    before = config()

    def again() -> str:
        if not resume and config() == before:
            return "Nothing had been trained yet: start again with the same command."
        return f"Go on with: {as_typed(*command)}"

    click.get_current_context().meta["kerasft.again"] = again


def plan_text(plan: Mapping[str, Any]) -> str:
    """Writes the text of `train --dry-run`.

    Args:
        plan: JSON value that `train --dry-run --json` prints.
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
    """Writes the summary of a training command.

    Args:
        result: JSON value that `train --json` and `unfreeze-and-continue --json` print.
    """
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
    method = result["phases"][-1].get("method")
    if method is None or METHODS[method].linear:
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
        f"{phase['trainable_parameters']:,} parameters {done}, frozen weights verified unchanged; "
        f"{duration_text(phase['seconds'])}{parts}"
    )


def _parts_text(parts: Sequence[Mapping[str, Any]]) -> str:
    """Writes how long the parts of a phase took: " (prefix pass 0:31, predicted 0:29; ...)"."""
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


def rate_text(result: Mapping[str, Any]) -> str:
    """Writes the learning rate that `find-lr` suggests, and the path of its plot."""
    run, rate = as_typed(str(result["run"])), result["suggested"]
    plot = f"Plot: {result['plot']}"
    if rate is None:
        return (
            f"No rate from 1e-07 to 1 makes the loss of phase {result['phase']} fall much within "
            f"{result['steps']} steps: it is trained as far as that goes. Keep the default.\n{plot}"
        )
    blocks = "--all" if result["blocks"] == "all" else f"--blocks {result['blocks']}"
    command = f"unfreeze-and-continue {run} {blocks}"
    if result["from_start"]:
        command = "train ..."
    return (
        f"Suggested learning rate of phase {result['phase']}: {rate:g}, where the loss falls "
        f"fastest. Lower is safer: for many epochs take a third of it.\n{plot}\n\n"
        f"Next:\n  kerasft {command} --learning-rate {rate:g}"
    )
