"""The command line: parses, calls one library function, prints its result.

stdout carries the result alone (with --json one JSON value), everything else is on stderr.
Exit status: 0 done; 1 what is in a file or a run is wrong; 2 what was typed is wrong; 130
interrupted.
"""

from pathlib import Path
from typing import Any

import click

from kerasft import __version__
from kerasft.cli_compare import compare
from kerasft.cli_import import import_caffe, import_torch
from kerasft.cli_shared import (
    SOURCE_HELP,
    as_typed,
    data_option,
    json_option,
    print_result,
    set_option,
)
from kerasft.cli_tables import backbones, blocks, cache, sample_data
from kerasft.errors import UserError
from kerasft.terminal import export_text, loading, predictions_text, rate_text, showing
from kerasft.training_text import plan_text, summary_text


class Commands(click.Group):
    """Shows a UserError and Ctrl-C as one message; lets bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            again = ctx.meta.get("kerasft.again", lambda: "")()
            click.echo(f"\nInterrupted. {again}".rstrip(), err=True)
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="kerasft")
def main() -> None:
    """Fine-tunes image classifiers of Keras Applications.

    Trains a new head on a frozen, pretrained base, then unfreezes the top blocks and continues
    at a low rate, then writes a SavedModel that takes image bytes and returns labels.

    \b
    Example:
        kerasft train --data photos/ --run runs/photos
        kerasft unfreeze-and-continue runs/photos
        kerasft export runs/photos
    """


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--data", metavar="SRC", help=f"{SOURCE_HELP}.")
@click.option(
    "--backbone",
    metavar="NAME",
    help="Default: MobileNetV2. A+B: the features of both together.",
)
@click.option(
    "--weights",
    metavar="imagenet|sample|none|RUN|FILE",
    help="What the base starts from. Default: imagenet. sample: in the package, to try it out. "
    "RUN: the base of another run, whatever its classes; brings backbone and image size.",
)
@click.option("--image-size", type=int, metavar="N", help="Side in pixels, e.g. 224.")
@click.option(
    "--method",
    metavar="NAME",
    help="Solves the head instead of training it: svm, rbf-svm, bayes, lda, logistic or knn.",
)
@click.option("--epochs", type=int, metavar="N", help="Of the first phase, at most.")
@click.option("--learning-rate", type=float, metavar="X", help="Of the first phase.")
@click.option("--batch-size", type=int, metavar="N", help="Of the first phase.")
@click.option("--seed", type=int, metavar="N", help="Of split, weights and order. Default: 0.")
@click.option("--device", metavar="auto|cpu|gpu:N", help="Default: auto.")
@click.option(
    "--run",
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
    run: Path | None,
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
    from kerasft.config import load_config
    from kerasft.run import Run, default_run_path

    if resume and run is None:
        raise UserError("--resume needs --run DIR: which run is to go on?", exit_code=2)
    if resume and run is not None and config is None and Run(run).config_path.exists():
        config = Run(run).config_path
    loaded = load_config(config, flags=_typed(flags, _TRAIN_FIELDS), sets=sets)
    run = run or default_run_path(loaded.data.source)
    with loading():
        from kerasft.train import plan_run, train_run

    if dry_run:
        with showing() as progress:
            plan = plan_run(loaded, progress=progress)
        print_result(plan, plan_text, as_json=as_json)
        return
    _offer_again(run, ["kerasft", "train", "--run", str(run), "--resume"], resume=resume)
    with showing() as progress:
        result = train_run(loaded, run, resume=resume, progress=progress)
    print_result(result, summary_text, as_json=as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--blocks", type=int, metavar="N", help="How many to unfreeze, from the top.")
@click.option("--all", "all_blocks", is_flag=True, help="Unfreezes the whole base.")
@click.option("--epochs", type=int, metavar="N", help="Of the new phase, at most.")
@click.option("--learning-rate", type=float, metavar="X", help="Of the new phase.")
@click.option("--batch-size", type=int, metavar="N", help="Of the new phase.")
@data_option
@set_option
@click.option("--resume", is_flag=True, help="Goes on with the phase that was interrupted.")
@json_option
def unfreeze_and_continue(
    run: Path,
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
        from kerasft.train import continue_run

    again = ["kerasft", "unfreeze-and-continue", str(run), "--resume"]
    _offer_again(run, again, resume=resume)
    with showing() as progress:
        result = continue_run(
            run,
            flags=_typed(flags, _UNFREEZE_FIELDS),
            sets=sets,
            data=data,
            resume=resume,
            progress=progress,
        )
    print_result(result, summary_text, as_json=as_json)


@click.command("find-lr")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--blocks", type=int, metavar="N", help="How many to unfreeze, from the top.")
@click.option("--all", "all_blocks", is_flag=True, help="Unfreezes the whole base.")
@click.option("--batch-size", type=int, metavar="N", help="Of the phase.")
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
        from kerasft.find_lr import find_rate

    typed = {"blocks": _blocks(blocks, all_blocks), "batch_size": batch_size}
    phase = "phases.0" if from_start else "phases.-1"
    with showing() as progress:
        result = find_rate(
            run,
            flags={f"{phase}.{name}": value for name, value in typed.items() if value is not None},
            sets=sets,
            data=data,
            from_start=from_start,
            steps=steps,
            progress=progress,
        )
    print_result(result, rate_text, as_json=as_json)


@click.command()
@click.argument("target", metavar="RUN|MODEL.keras")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which images of the run.",
)
@click.option("--data", metavar="SRC", help=f"{SOURCE_HELP}; a MODEL.keras needs it.")
@json_option
def evaluate(target: str, split: str, data: str | None, as_json: bool) -> None:
    """Measures a model on one split of its run, or on a folder of photos.

    A MODEL.keras has no splits of its own: all images of --data are scored.

    \b
    Example:
        kerasft evaluate runs/photos --split validation
    """
    with loading():
        from kerasft.evaluate import evaluate_run

    with showing() as progress:
        report = evaluate_run(target, split=split, data=data, progress=progress)
    print_result(report.to_json(), lambda _: report.to_text(), as_json=as_json)


@click.command()
@click.argument("target", metavar="RUN|MODEL.keras|SAVEDMODEL|imagenet:NAME|IMPORTED.h5")
@click.argument("files", metavar="FILES_OR_FOLDERS...", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    default=5,
    show_default=True,
    help="How many labels for each file.",
)
@json_option
@click.pass_context
def predict(
    ctx: click.Context, target: str, files: tuple[str, ...], top: int, as_json: bool
) -> None:
    """Names what is in photos. Folders are searched for images.

    imagenet:NAME, or a file that import-caffe or import-torch wrote, is a pretrained net as it
    is, with its 1000 labels. A photo that cannot be read is listed with its error, the others are
    predicted, and the exit status is 1.

    \b
    Example:
        kerasft predict runs/photos photos/ --top 3
        kerasft predict imagenet:MobileNetV2 photos/cat.jpg
    """
    with loading():
        from kerasft.predict import predict as predict_files

    with showing() as progress:
        results = predict_files(target, list(files), top=top, progress=progress)
    print_result(results, predictions_text, as_json=as_json)
    if any("error" in result for result in results):
        ctx.exit(1)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Default: RUN/export.")
@data_option
@json_option
def export(run: Path, to: Path | None, data: str | None, as_json: bool) -> None:
    """Writes a SavedModel that takes image bytes, and proves that it agrees.

    Each export is a new version, DIR/1, DIR/2, ..., as TF Serving expects. It is compared
    with model.keras in fresh processes; one that differs is not left behind.

    \b
    Example:
        kerasft export runs/photos --to exported
    """
    with loading():
        from kerasft.export import export_run

    with showing() as progress:
        result = export_run(run, to=to, data=data, progress=progress)
    print_result(result, export_text, as_json=as_json)


_TRAIN_FIELDS = {
    "data": "data.source",
    "backbone": "model.backbone",
    "weights": "model.weights",
    "image_size": "model.image_size",
    "method": "phases.0.method",
    "epochs": "phases.0.epochs",
    "learning_rate": "phases.0.learning_rate",
    "batch_size": "phases.0.batch_size",
    "seed": "seed",
    "device": "device",
}
_UNFREEZE_FIELDS = {
    "blocks": "phases.-1.blocks",
    "epochs": "phases.-1.epochs",
    "learning_rate": "phases.-1.learning_rate",
    "batch_size": "phases.-1.batch_size",
}


def _blocks(blocks: object, all_blocks: bool) -> object:
    if all_blocks and blocks is not None:
        raise UserError("--blocks and --all exclude each other: pass one of them.", exit_code=2)
    return "all" if all_blocks else blocks


def _typed(flags: dict[str, object], fields: dict[str, str]) -> dict[str, object]:
    """The flags that were typed, as fields of the config.

    One that was not typed never overrides the file.
    """
    return {fields[name]: value for name, value in flags.items() if value is not None}


def _offer_again(run: Path, command: list[str], *, resume: bool) -> None:
    """Has Ctrl-C name the command that goes on with what was begun.

    Whether there is anything to go on with shows in the run's config: training writes it
    first, and a new phase is appended to it before its first epoch.
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


for command in (
    train,
    unfreeze_and_continue,
    find_lr,
    evaluate,
    predict,
    export,
    compare,
    backbones,
    blocks,
    cache,
    import_caffe,
    import_torch,
    sample_data,
):
    main.add_command(command)
