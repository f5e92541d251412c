"""The command line: parses, calls one library function, prints its result.

stdout carries the result alone (with --json one JSON value), everything else is on stderr.
Exit status: 0 done; 1 what is in a file or a run is wrong; 2 what was typed is wrong; 130
interrupted.
"""

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kerasft import __version__
from kerasft.cache_text import cache_text, limit_text, removed_text
from kerasft.errors import UserError
from kerasft.terminal import (
    blocks_text,
    export_text,
    loading,
    plan_text,
    predictions_text,
    showing,
    summary_text,
)


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


_set = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Sets any field of the config, e.g. phases.0.optimizer=sgd. Can be repeated.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
_data = click.option(
    "--data", metavar="DIR", help="Folder of the photos, if it is not where the run found it."
)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--data", metavar="SRC", help="Folder of photos, a folder per class.")
@click.option("--backbone", metavar="NAME", help="Default: MobileNetV2.")
@click.option(
    "--weights",
    metavar="imagenet|none|FILE",
    help="What the base starts from. Default: imagenet.",
)
@click.option("--image-size", type=int, metavar="N", help="Side in pixels, e.g. 224.")
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
@_set
@click.option("--resume", is_flag=True, help="Goes on with the run in --run.")
@click.option("--dry-run", is_flag=True, help="Checks everything, prints the plan, trains nothing.")
@_json
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
        _print(plan, plan_text, as_json=as_json)
        return
    _offer_again(run, ["kerasft", "train", "--run", str(run), "--resume"], resume=resume)
    with showing() as progress:
        result = train_run(loaded, run, resume=resume, progress=progress)
    _print(result, summary_text, as_json=as_json)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--blocks", type=int, metavar="N", help="How many to unfreeze, from the top.")
@click.option("--all", "all_blocks", is_flag=True, help="Unfreezes the whole base.")
@click.option("--epochs", type=int, metavar="N", help="Of the new phase, at most.")
@click.option("--learning-rate", type=float, metavar="X", help="Of the new phase.")
@click.option("--batch-size", type=int, metavar="N", help="Of the new phase.")
@_data
@_set
@click.option("--resume", is_flag=True, help="Goes on with the phase that was interrupted.")
@_json
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
    if all_blocks and flags["blocks"] is not None:
        raise UserError("--blocks and --all exclude each other: pass one of them.", exit_code=2)
    flags["blocks"] = "all" if all_blocks else flags["blocks"]
    with loading():
        from kerasft.train import continue_run

    again = ["kerasft", "unfreeze-and-continue", str(run), "--resume"]
    _offer_again(run, again, resume=resume)
    with showing() as progress:
        result = continue_run(
            run,
            flags=_typed(flags, _UNFREEZE_FIELDS),
            sets=sets,
            data=Path(data) if data else None,
            resume=resume,
            progress=progress,
        )
    _print(result, summary_text, as_json=as_json)


@main.command()
@click.argument("target", metavar="RUN|MODEL.keras")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which images of the run.",
)
@click.option("--data", metavar="SRC", help="Folder of photos; a MODEL.keras needs it.")
@_json
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
        folder = Path(data) if data else None
        report = evaluate_run(target, split=split, data=folder, progress=progress)
    _print(report.to_json(), lambda _: report.to_text(), as_json=as_json)


@main.command()
@click.argument("target", metavar="RUN|MODEL.keras|SAVEDMODEL|imagenet:NAME")
@click.argument("files", metavar="FILES_OR_FOLDERS...", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    default=5,
    show_default=True,
    help="How many labels for each file.",
)
@_json
@click.pass_context
def predict(
    ctx: click.Context, target: str, files: tuple[str, ...], top: int, as_json: bool
) -> None:
    """Names what is in photos. Folders are searched for images.

    imagenet:NAME is a pretrained net as it is, with its 1000 labels. A file that cannot be
    read is listed with its error, the others are predicted, and the exit status is 1.

    \b
    Example:
        kerasft predict runs/photos photos/ --top 3
        kerasft predict imagenet:MobileNetV2 photos/cat.jpg
    """
    with loading():
        from kerasft.predict import predict as predict_files

    with showing() as progress:
        results = predict_files(target, list(files), top=top, progress=progress)
    _print(results, predictions_text, as_json=as_json)
    if any("error" in result for result in results):
        ctx.exit(1)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Default: RUN/export.")
@_data
@_json
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
        folder = Path(data) if data else None
        result = export_run(run, to=to, data=folder, progress=progress)
    _print(result, export_text, as_json=as_json)


@main.command()
@click.argument("name")
@_json
def blocks(name: str, as_json: bool) -> None:
    """Lists the blocks of a backbone from the top.

    What --blocks of unfreeze-and-continue counts, with layers and parameters.

    \b
    Example:
        kerasft blocks MobileNetV2
    """
    with loading():
        from kerasft import backbones, cut, nets

    backbone, _ = backbones.parse(name)
    model = nets.load(name, weights="none", image_size=backbone.image_size)
    rows = [
        {"name": block.name, "layers": list(block.layers), "parameters": block.parameters}
        for block in cut.list_blocks(model, backbone)
    ]
    _print({"backbone": name, "blocks": rows}, lambda _: blocks_text(rows), as_json=as_json)


@main.group()
def cache() -> None:
    """Shows, limits and empties the cache of activations.

    What the frozen blocks make of the photos is computed once and kept for later runs, in the
    folder that KERASFT_CACHE names or else in the user's cache folder.

    \b
    Example:
        kerasft cache list
    """


@cache.command("list")
@_json
def list_cache(as_json: bool) -> None:
    """Lists what the cache holds, most recently used first.

    \b
    Example:
        kerasft cache list
    """
    from kerasft import cache as stores

    _print(stores.report(stores.cache_folder()), cache_text, as_json=as_json)


@cache.command("clear")
@_json
def clear_cache(as_json: bool) -> None:
    """Removes everything from the cache but what another kerasft is computing.

    \b
    Example:
        kerasft cache clear
    """
    from kerasft import cache as stores

    number, freed = stores.clear(stores.cache_folder())
    _print({"removed": number, "bytes": freed}, removed_text, as_json=as_json)


@cache.command("limit")
@click.argument("size", required=False)
@_json
def limit_cache(size: str | None, as_json: bool) -> None:
    """Says how much the cache may hold, or changes it to SIZE.

    What is over the new limit is removed, the least recently used first.

    \b
    Example:
        kerasft cache limit 50GB
    """
    from kerasft import cache as stores
    from kerasft import sizes

    folder = stores.cache_folder()
    removed = (0, 0) if size is None else stores.set_limit(folder, sizes.parse_size(size))
    result = {"limit": stores.limit_of(folder), "removed": removed[0], "bytes": removed[1]}
    _print(result, limit_text, as_json=as_json)


_TRAIN_FIELDS = {
    "data": "data.source",
    "backbone": "model.backbone",
    "weights": "model.weights",
    "image_size": "model.image_size",
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
        return f"Go on with: {shlex.join(command)}"

    click.get_current_context().meta["kerasft.again"] = again


def _print(result: Any, to_text: Callable[[Any], str], *, as_json: bool) -> None:
    click.echo(json.dumps(_plain(result), allow_nan=False) if as_json else to_text(result))


def _plain(value: Any) -> Any:
    """The same value with null for infinite and undefined numbers, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(prog_name="kerasft")
