"""`kerasft evaluate`, `predict` and `export`, with the texts that they print."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kerasft.cli.options import SOURCE_HELP, data_option, json_option, print_result
from kerasft.cli.terminal import loading, showing
from kerasft.cli.wording import as_typed
from kerasft.export.formats import DEFAULT, EXPORTERS

if TYPE_CHECKING:  # TensorFlow would start with every command
    from kerasft.export.export import ExportResult


@click.command()
@click.argument("target", metavar="RUN|MODEL.keras")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Split to score.",
)
@click.option(
    "--data",
    metavar="SRC",
    help=f"{SOURCE_HELP}. Required for a MODEL.keras; for a RUN, only if its photos were moved.",
)
@json_option
def evaluate(target: str, split: str, data: str | None, as_json: bool) -> None:
    """Measures a model on one split of its run, or on other photos.

    For a MODEL.keras, all images of --data are scored, unless they have splits of their own.

    \b
    Example:
        kerasft evaluate runs/photos --split validation
    """
    with loading():
        from kerasft.evaluation.evaluate import evaluate_run

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
    help="Number of labels for each file.",
)
@json_option
@click.pass_context
def predict(
    ctx: click.Context, target: str, files: tuple[str, ...], top: int, as_json: bool
) -> None:
    """Predicts the classes of photos. Folders are searched for images.

    imagenet:NAME, or a file that import-caffe or import-torch wrote, is a pretrained net with its
    1000 ImageNet labels. A photo that cannot be read is listed with its error; the others are
    predicted, and the exit code is 1.

    \b
    Example:
        kerasft predict runs/photos photos/ --top 3
        kerasft predict imagenet:MobileNetV2 photos/cat.jpg
    """
    with loading():
        from kerasft.evaluation.predict import predict as predict_files

    with showing() as progress:
        results = predict_files(target, list(files), top=top, progress=progress)
    print_result(results, predictions_text, as_json=as_json)
    if any("error" in result for result in results):
        ctx.exit(1)


def _format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --format where there is a choice of formats."""
    if len(EXPORTERS) == 1:
        return command
    choice = click.Choice(list(EXPORTERS))
    return click.option("--format", type=choice, default=DEFAULT, show_default=True)(command)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the exported versions. Default: RUN/export.",
)
@data_option
@_format_option
@json_option
def export(
    run: Path, to: Path | None, data: str | None, as_json: bool, format: str = DEFAULT
) -> None:
    """Exports a run as a SavedModel that takes image bytes, and verifies it.

    Each export is a new version, DIR/1, DIR/2, ..., as TF Serving expects. It is compared
    with model.keras in fresh processes, and removed if it differs.

    \b
    Example:
        kerasft export runs/photos --to exported
    """
    with loading():
        from kerasft.export.export import export_run

    with showing() as progress:
        result = export_run(run, to=to, data=data, format=format, progress=progress)
    print_result(result, export_text, as_json=as_json)


def predictions_text(results: Sequence[Mapping[str, Any]]) -> str:
    """Writes a paragraph per file: its name, then scores and labels, best first."""
    lines = []
    for result in results:
        if "error" in result:
            lines.append(f"{result['file']}: error: {result['error']}")
            continue
        lines.append(str(result["file"]))
        lines += [f"  {best['score']:.3f}  {best['label']}" for best in result["predictions"]]
    return "\n".join(lines)


def export_text(result: "ExportResult") -> str:
    """Writes the path of the export and how closely it agrees with model.keras."""
    proof = result.proof
    return (
        f"{EXPORTERS[result.format].label}: {result.path}\n"
        f"Compared with model.keras on {proof.n} images: scores differ by at most "
        f"{proof.max_abs_diff:.1e}, logits by {proof.max_abs_diff_logits:.1e}, "
        f"same label on {proof.top1_agreement:.1%}.\n"
        f"\nNext:\n  kerasft predict {as_typed(str(result.path))} PHOTO.jpg"
    )
