"""`kerasft train`, `unfreeze-and-continue` and `find-lr`, with the texts that they print."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kerasft.cli.options import (
    SOURCE_HELP,
    data_option,
    json_option,
    print_result,
    reading_options,
    set_option,
)
from kerasft.cli.terminal import (
    duration_text,
    epochs_text,
    loading,
    showing,
    trained_text,
)
from kerasft.cli.wording import as_typed, field_option, fields_typed
from kerasft.errors import UserError
from kerasft.heads.methods import METHODS
from kerasft.text import class_table, count, printable, size_text


@click.command()
@click.argument("given", metavar="[SRC|CONFIG]", required=False)
@field_option("--data", "data.source", metavar="SRC", help=f"{SOURCE_HELP}.")
@reading_options
@field_option(
    "--backbone",
    "model.backbone",
    metavar="NAME",
    help="Pretrained net, one of `kerasft backbones`. A+B joins the features of two nets. "
    "Default: MobileNetV2.",
)
@field_option(
    "--weights",
    "model.weights",
    metavar="imagenet|sample|none|RUN|FILE",
    help="Initial weights of the base. sample: included in the package, for trying it out. none: "
    "random. RUN: the base of another run, which also sets backbone and image size; its classes "
    "may differ. FILE: a weights file, such as one from import-caffe. Default: imagenet.",
)
@field_option(
    "--image-size",
    "model.image_size",
    type=int,
    metavar="N",
    help="Side of the images in pixels, e.g. 224. Default: depends on the backbone.",
)
@field_option(
    "--method",
    "phases.0.method",
    metavar="NAME",
    help=f"Solves the head with scikit-learn instead of training it: {', '.join(METHODS)}.",
)
@field_option(
    "--epochs",
    "phases.0.epochs",
    type=int,
    metavar="N",
    help="Maximum number of epochs in the first phase.",
)
@field_option(
    "--learning-rate",
    "phases.0.learning_rate",
    type=float,
    metavar="X",
    help="Learning rate of the first phase.",
)
@field_option(
    "--batch-size",
    "phases.0.batch_size",
    type=int,
    metavar="N",
    help="Batch size of the first phase.",
)
@field_option(
    "--seed",
    "seed",
    type=int,
    metavar="N",
    help="Seed for the split, the new weights and the batch order. Default: 0.",
)
@field_option(
    "--device",
    "device",
    metavar="auto|cpu|gpu:N",
    help="Device to compute on. Default: auto, the first GPU, or the CPU if there is none.",
)
@click.option(
    "--run",
    "run_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory of the run. Default: runs/ and the name of the photos.",
)
@set_option
@click.option("--resume", is_flag=True, help="Continues the interrupted run in --run.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Checks photos and settings and prints the plan, but trains nothing.",
)
@json_option
def train(
    given: str | None,
    run_dir: Path | None,
    sets: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **flags: object,
) -> None:
    """Trains a new head on photos.

    SRC is the same as --data SRC. CONFIG is a TOML file; options override its settings. Without
    CONFIG, the net is MobileNetV2 with ImageNet weights, and the defaults suit a few hundred to a
    few thousand photos.

    \b
    Example:
        kerasft train photos/ --run runs/photos
    """
    from kerasft.cli.options import default_run_path
    from kerasft.config.load import load_config
    from kerasft.run import Run

    config, flags["data"] = _config_or_photos(given, flags["data"])
    if resume and run_dir is None:
        raise UserError("--resume needs --run DIR, the run to continue.", exit_code=2)
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
    offer_again(run_dir, ["kerasft", "train", "--run", str(run_dir), "--resume"], resume=resume)
    with showing() as progress:
        result = train_run(loaded, run_dir, resume=resume, progress=progress)
    print_result(result.to_json(), summary_text, as_json=as_json)


def _config_or_photos(given: str | None, data: object) -> tuple[Path | None, object]:
    """Tells the two meanings of the argument of `train` apart.

    Args:
        given: the argument: photos, a TOML file, or None.
        data: value of --data, or None.

    Returns:
        Path of the config file, or None; value of --data, or None.
    """
    from kerasft.config.source_names import is_path, kind_of
    from kerasft.run import Run

    if given is None:
        return None, data
    if Path(given).is_dir() and Run(Path(given)).record_path.is_file():
        run = as_typed(given)
        raise UserError(
            f"{given}: is a run, and not photos or a config file. `kerasft train --run {run} "
            f"--resume` finishes it if it was interrupted; `kerasft unfreeze-and-continue {run}` "
            f"goes on with it; `kerasft train {as_typed(str(Run(Path(given)).config_path))}` "
            "repeats it.",
            exit_code=2,
        )
    is_folder = Path(given).is_dir()
    if not is_folder and is_path(given) and kind_of(given) == "folder":  # no ending of a source
        if not Path(given).exists():
            raise UserError(
                f"{given}: no such file or folder. Expected photos or a TOML file.", exit_code=2
            )
        return Path(given), data
    if data is not None:
        raise UserError(
            f"--data: the photos are named twice, as {given} and as {data}. Leave out one of them.",
            exit_code=2,
        )
    return None, given


# What unfreeze-and-continue trains, and find-lr tries.
_blocks_option = field_option(
    "--blocks",
    "phases.-1.blocks",
    type=int,
    metavar="N",
    help="Number of blocks to unfreeze, counted from the top.",
)
_all_option = click.option(
    "--all", "all_blocks", is_flag=True, help="Unfreezes all blocks of the base."
)


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@_blocks_option
@_all_option
@field_option(
    "--epochs",
    "phases.-1.epochs",
    type=int,
    metavar="N",
    help="Maximum number of epochs in the new phase.",
)
@field_option(
    "--learning-rate",
    "phases.-1.learning_rate",
    type=float,
    metavar="X",
    help="Learning rate of the new phase.",
)
@field_option(
    "--batch-size",
    "phases.-1.batch_size",
    type=int,
    metavar="N",
    help="Batch size of the new phase.",
)
@data_option
@set_option
@click.option("--resume", is_flag=True, help="Continues the interrupted phase.")
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
    """Unfreezes the top blocks and continues at a low learning rate.

    Starts from the best weights of RUN so far. If the new phase does not improve validation,
    model.keras is left unchanged. Can be repeated to go deeper; `kerasft blocks NAME` lists the
    blocks.

    \b
    Example:
        kerasft unfreeze-and-continue runs/photos --blocks 3
    """
    flags["blocks"] = _blocks(flags["blocks"], all_blocks)
    with loading():
        from kerasft.training.train import continue_run

    again = ["kerasft", "unfreeze-and-continue", str(run_dir), "--resume"]
    offer_again(run_dir, again, resume=resume)
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
@_blocks_option
@_all_option
@field_option(
    "--batch-size",
    "phases.-1.batch_size",
    type=int,
    metavar="N",
    help="Batch size of the phase.",
)
@click.option(
    "--from-start",
    is_flag=True,
    help="Tries the first phase of the run instead, from its initial weights.",
)
@click.option(
    "--steps",
    type=int,
    default=100,
    show_default=True,
    metavar="N",
    help="Number of training steps, at least 20.",
)
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
    """Suggests a learning rate for the next unfreeze-and-continue.

    Trains for some steps at learning rates from 1e-7 to 1, and finds where the loss falls fastest.
    Writes find-lr.png and find-lr.csv into RUN; its model is left unchanged.

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


def offer_again(run: Path, command: list[str], *, resume: bool) -> None:
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
            return "Nothing was trained yet: start again with the same command."
        return f"Continue with: {as_typed(*command)}"

    click.get_current_context().meta["kerasft.again"] = again


def plan_text(plan: Mapping[str, Any]) -> str:
    """Writes the text of `train --dry-run`.

    Args:
        plan: JSON value that `train --dry-run --json` prints.
    """
    lines = [
        f"{plan['backbone']}, weights {plan['weights']}, {plan['image_size']} x "
        f"{plan['image_size']} pixels, {plan['parameters']:,} parameters in "
        f"{len(plan['blocks'])} blocks",
        "",
        *class_table(plan["images"]),
    ]
    if plan["splits_from"]:
        lines.append(f"Photos that {plan['splits_from']} knows keep their splits")
    if plan["unused"]:
        reasons = "data.fraction, copies of images of another split"
        lines.append(f"Images left out ({reasons}): {plan['unused']:,}")
    if plan["groups"]:
        lines.append(f"{count(plan['groups'], 'group')}, each in one split")
    if plan["skipped"]:
        lines.append(f"{count(plan['skipped'], 'file')} can't be used and will be left out")
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
        f"{epochs_text(phase['epochs'])} ({phase['steps']:,} steps{_precision_text(phase)}), "
        f"learning rate {phase['learning_rate']:g}"
    )


def _precision_text(phase: Mapping[str, Any]) -> str:
    """Writes the precision of a phase's steps, where it isn't the usual one."""
    precision = phase.get("precision", "float32")  # earlier runs did not record it
    return "" if precision == "float32" else f" in {precision}"


def _storing_text(phase: Mapping[str, Any]) -> str:
    if phase["stored"]:
        return f"activations are stored, {size_text(phase['bytes'])}: {phase['why']}"
    return f"activations are not stored: {phase['why']}"


def summary_text(result: Mapping[str, Any], *, again: bool = True) -> str:
    """Writes the summary of a training command: what was reached, what was kept, where it lies.

    Remarks on the phases stand above. run.json has everything else, and `kerasft evaluate` the
    figures by class.

    Args:
        result: JSON value that `train --json` and `unfreeze-and-continue --json` print.
        again: whether the run can be trained further.
    """
    phases = result["phases"]
    kept = [phase for phase in phases if phase.get("improved", True)][-1]
    lines = [note for phase in phases for note in phase.get("notes", ())]
    if phases[-1] is not kept:
        lines.append(
            f"Phase {phases[-1]['name']} did not improve validation: loss "
            f"{phases[-1]['val_loss']:.4f}, before {kept['val_loss']:.4f}."
        )
    return "\n".join(
        [*lines, _reached_line(result), _kept_line(kept, result), _where_line(result, again)]
    )


def _reached_line(result: Mapping[str, Any]) -> str:
    """Writes the accuracy on test, or on validation if there are no test images."""
    test, validation = result.get("test"), result.get("validation")
    if test and test["n"]:
        return _accuracy_text("Test", test)
    if validation and validation["n"]:
        return f"{_accuracy_text('Validation', validation)}; no test images"
    return "Nothing was scored: no validation and no test images"


def _accuracy_text(title: str, split: Mapping[str, Any]) -> str:
    from kerasft.metrics import wilson

    low, high = split.get("ci95") or wilson(round(split["accuracy"] * split["n"]), split["n"])
    text = (
        f"{title} accuracy {split['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f}, "
        f"{count(split['n'], 'image')})"
    )
    rate = split.get("base_rate")  # runs of version 0.1.0 did not record it
    return text if rate is None else f"{text}, base rate {rate:.3f}"


def _kept_line(phase: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Writes which phase model.keras is of, and how its weights came about."""
    how = f"epoch {phase.get('best_epoch')} of {phase.get('epochs')}{_precision_text(phase)}"
    if phase.get("best_epoch") == 0:
        how = f"the solved head, better than {epochs_text(phase['epochs'])} of training"
    if phase.get("alpha", 1) < 1:
        how += f", mixed with the start of the phase, alpha {phase['alpha']:g}"
    if "method" in phase:
        chosen = ", ".join(f"{key} {value}" for key, value in phase["parameters"].items())
        how = f"{phase['method']} with {chosen}" if chosen else phase["method"]
    accuracy = (result.get("validation") or {}).get("accuracy", phase["val_accuracy"])
    return (
        f"Kept: phase {printable(phase['name'])}, {how} (validation {accuracy:.3f}); "
        "frozen weights unchanged"
    )


def _where_line(result: Mapping[str, Any], again: bool) -> str:
    """Writes the run directory and the command that most people type next."""
    run, phases = as_typed(str(result["run"])), result["phases"]
    method = phases[0].get("method")
    can_unfreeze = method is None or METHODS[method].linear
    unfreeze = again and len(phases) == 1 and can_unfreeze
    command = "unfreeze-and-continue" if unfreeze else "export"
    return (
        f"Run: {result['run']}, {duration_text(result['seconds'])}. Next: kerasft {command} {run}"
    )


def rate_text(result: Mapping[str, Any]) -> str:
    """Writes the learning rate that `find-lr` suggests, and the path of its plot."""
    run, rate = as_typed(str(result["run"])), result["suggested"]
    plot = f"Plot: {result['plot']}"
    if rate is None:
        return (
            f"No learning rate from 1e-07 to 1 lowers the loss of phase {result['phase']} much "
            f"within {result['steps']} steps: there is little left to learn. Keep the default.\n"
            f"{plot}"
        )
    blocks = "--all" if result["blocks"] == "all" else f"--blocks {result['blocks']}"
    command = f"unfreeze-and-continue {run} {blocks}"
    if result["from_start"]:
        command = "train ..."
    return (
        f"Suggested learning rate for phase {result['phase']}: {rate:g}, where the loss falls "
        f"fastest. A lower one is safer: for many epochs, use a third of it.\n{plot}\n\n"
        f"Next:\n  kerasft {command} --learning-rate {rate:g}"
    )
