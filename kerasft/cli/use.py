"""The commands that use a run: `kerasft evaluate`, `predict`, `explain`, `report` and others."""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import (
    SOURCE_HELP,
    data_option,
    json_option,
    print_result,
    reading_options,
)
from kerasft.cli.terminal import loading, showing
from kerasft.cli.wording import as_typed, fields_typed
from kerasft.export.formats import DEFAULT, EXPORTERS, QUANTIZATIONS
from kerasft.text import count, size_text

if TYPE_CHECKING:  # TensorFlow would start with every command
    from kerasft.evaluation.calibrate import Calibrated
    from kerasft.evaluation.evaluate import ClassReport, Report
    from kerasft.evaluation.explain import Explanation
    from kerasft.evaluation.photo_files import PhotoFile
    from kerasft.evaluation.predict import Prediction
    from kerasft.evaluation.report import RunReport
    from kerasft.export.export import ExportResult
    from kerasft.serving.serve import Started

_csv_option = click.option(
    "--csv",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Writes a table too: path, label, predicted, score, abstain.",
)

LARGEST_TABLE = 20
"""Largest number of classes for which the text shows the whole confusion matrix."""


@click.command()
@click.argument("target", metavar="RUN|MODEL.keras|EXPORT")
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
@reading_options
@click.option(
    "--relabel",
    is_flag=True,
    help="Measure photos that were moved to another class folder since the RUN by their new class. "
    "The RUN stays as it is.",
)
@_csv_option
@json_option
def evaluate(
    target: str,
    split: str,
    data: str | None,
    relabel: bool,
    csv: Path | None,
    as_json: bool,
    **reading: object,
) -> None:
    """Measures a model on one split of its run, or on other photos.

    For a MODEL.keras, all images of --data are scored, unless they have splits of their own. An
    EXPORT in the folder of its run is measured on the photos of that run.

    \b
    Example:
        kerasft evaluate runs/photos --split validation
    """
    with loading():
        from kerasft.evaluation.evaluate import evaluate_run

    with showing() as progress:
        report = evaluate_run(
            target,
            split=split,
            data=data,
            flags=fields_typed(reading),
            relabel=relabel,
            csv=csv,
            progress=progress,
        )
    print_result(report, report_text, as_json=as_json)


@click.command()
@click.argument("target", metavar="RUN|MODEL.keras|EXPORT|imagenet:NAME|IMPORTED.h5")
@click.argument("files", metavar="FILES_OR_FOLDERS...", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    default=5,
    show_default=True,
    help="Number of labels for each file.",
)
@_csv_option
@json_option
@click.pass_context
def predict(
    ctx: click.Context,
    target: str,
    files: tuple[str, ...],
    top: int,
    csv: Path | None,
    as_json: bool,
) -> None:
    """Predicts the classes of photos. Folders are searched for images.

    imagenet:NAME, or a file that import-caffe or import-torch wrote, is a pretrained net with its
    1000 ImageNet labels. A photo that cannot be read is listed with its error; the others are
    predicted, and the exit code is 1. A model of `kerasft calibrate --abstain-at` says where it
    does not know, and a run also which photos are unlike those that it was trained on.

    \b
    Example:
        kerasft predict runs/photos photos/ --top 3
        kerasft predict imagenet:MobileNetV2 photos/cat.jpg
    """
    with loading():
        from kerasft.evaluation.predict import predict as predict_files

    with showing() as progress:
        results = predict_files(target, list(files), top=top, csv=csv, progress=progress)
    print_result(results, predictions_text, as_json=as_json)
    if any(result.error for result in results):
        ctx.exit(1)


@click.command()
@click.argument("target", metavar="RUN|MODEL.keras|imagenet:NAME|IMPORTED.h5")
@click.argument("files", metavar="FILES_OR_FOLDERS...", nargs=-1, required=True)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default="explained",
    show_default=True,
    help="Folder of the pictures; those of an earlier call are replaced.",
)
@click.option(
    "--class",
    "label",
    metavar="LABEL",
    help="Class of the model to explain. Default: the predicted one of each photo.",
)
@json_option
@click.pass_context
def explain(
    ctx: click.Context,
    target: str,
    files: tuple[str, ...],
    to: Path,
    label: str | None,
    as_json: bool,
) -> None:
    """Shows which places of a photo speak for its class, as a heat map (Grad-CAM).

    Writes NAME.png, the photo as the model sees it, in gray under the colours of its heat, and
    NAME.heat.png, the heat alone. For a run of --method knn, the nearest training photos are named
    instead. A photo that cannot be read is listed with its error, and the exit code is 1.

    \b
    Example:
        kerasft explain runs/photos photos/cat.jpg
        kerasft explain runs/photos photos/ --class cat --to why-cat
    """
    with loading():
        from kerasft.evaluation.explain import explain as explain_files
        from kerasft.evaluation.photo_files import PhotoFile

    with showing() as progress:
        results = explain_files(target, list(files), to=to, label=label, progress=progress)
    print_result(results, explanations_text, as_json=as_json)
    if any(isinstance(result, PhotoFile) for result in results):
        ctx.exit(1)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="Split whose mistakes are shown. run.json counts how often test was scored.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="HTML file to write. Default: RUN/report.html.",
)
@click.option("--open", "open_it", is_flag=True, help="Shows the page in the browser.")
@data_option
@json_option
def report(
    run: Path, split: str, to: Path | None, open_it: bool, data: str | None, as_json: bool
) -> None:
    """Writes a page about a run: result, photos, curves, mistakes, calibration, time.

    It is one HTML file that loads nothing from elsewhere.

    \b
    Example:
        kerasft report runs/photos
    """
    with loading():
        from kerasft.evaluation.report import report_run

    with showing() as progress:
        result = report_run(run, split=split, to=to, data=data, progress=progress)
    print_result(result, run_report_text, as_json=as_json)
    if open_it:
        click.launch(result.path.resolve().as_uri())


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--abstain-at",
    type=float,
    metavar="P",
    help="Precision that answers are to have, such as 0.95: below the score at which validation "
    "shows it with 95% confidence, the model says that it does not know.",
)
@data_option
@json_option
def calibrate(run: Path, abstain_at: float | None, data: str | None, as_json: bool) -> None:
    """Makes the scores of a run mean what they say, and lets it say "I don't know".

    Fits a temperature on validation and keeps it only if it helps photos that it was not fitted on.
    Training does so by itself at the end of each phase. Without --abstain-at the model always
    answers. model.keras is replaced; its weights stay.

    \b
    Example:
        kerasft calibrate runs/photos --abstain-at 0.95
    """
    with loading():
        from kerasft.evaluation.calibrate import calibrate_run

    with showing() as progress:
        result = calibrate_run(run, abstain_at=abstain_at, data=data, progress=progress)
    print_result(result, calibrated_text, as_json=as_json)


def calibrated_text(result: "Calibrated") -> str:
    """Writes what the temperature does, the threshold or what it would take, and the next step."""
    found, said = result.calibration, []
    if found.temperature == 1:
        said.append(
            f"No temperature helps: log loss {found.before.loss:.4f}, calibration error "
            f"{found.before.ece:.3f} on {count(found.n, 'validation image')}."
        )
    else:
        said.append(
            f"Temperature {found.temperature:.3f}, from {count(found.n, 'validation image')}. Out "
            f"of fold, log loss {found.before.loss:.4f} -> {found.after.loss:.4f}, calibration "
            f"error {found.before.ece:.3f} -> {found.after.ece:.3f}."
        )
    if result.abstention:
        at = result.abstention
        said.append(
            f"Below a score of {at.threshold:.3f} it says that it does not know. On validation it "
            f"answers {at.coverage:.1%} of the images and is right in {at.precision:.1%} of these: "
            f"with 95% confidence at least {at.bound:.1%} (promised: {at.promised:.1%})."
        )
    if result.lacking:
        said.append(f"No threshold was set. {result.lacking}")
    if result.known:
        said.append(
            f"New photos are compared with {count(result.known, 'training photo')}, so that unlike "
            "ones are noticed."
        )
    said.append(
        "Exports that were made before stay as they are.\n\n"
        f"Next:\n  kerasft predict {as_typed(str(result.run))} PHOTO.jpg"
    )
    return "\n".join(said)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(list(EXPORTERS)),
    default=DEFAULT,
    show_default=True,
    help="What the model is for: TensorFlow Serving, phones and small computers (litert), "
    "any runtime (onnx), Intel's (openvino), Keras.",
)
@click.option(
    "--quantize",
    type=click.Choice(list(QUANTIZATIONS)),
    help="Makes it smaller: weights of 16 bits, or weights and activations of 8, for which "
    "training photos are shown to it. Default: float32.",
)
@click.option(
    "--max-accuracy-drop",
    type=float,
    metavar="SHARE",
    help="Validation accuracy that --quantize may cost. Default: 0.01, or one photo.",
)
@click.option(
    "--assert-accuracy-at-least",
    "least_accuracy",
    type=float,
    metavar="SHARE",
    help="Exports nothing if the validation accuracy of the export is below it.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the exported versions. Default: RUN/export, for other formats "
    "RUN/export-FORMAT.",
)
@data_option
@json_option
def export(
    run: Path,
    format: str,
    quantize: str | None,
    max_accuracy_drop: float | None,
    least_accuracy: float | None,
    to: Path | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Exports a run for use elsewhere, and verifies the export.

    A SavedModel takes the bytes of image files; the other formats take pixels, RGB, 0 to 255, and
    have a program beside them that reads photos. Each export is a new version, DIR/1, DIR/2, ...,
    as TF Serving expects. It is compared with model.keras in fresh processes, in the runtime that
    will compute it, and removed if it differs.

    \b
    Example:
        kerasft export runs/photos
        kerasft export runs/photos --assert-accuracy-at-least 0.9
        kerasft export runs/photos --format litert --quantize int8
    """
    with loading():
        from kerasft.export.export import export_run

    with showing() as progress:
        result = export_run(
            run,
            to=to,
            data=data,
            format=format,
            quantize=quantize,
            max_accuracy_drop=max_accuracy_drop,
            least_accuracy=least_accuracy,
            progress=progress,
        )
    print_result(result, export_text, as_json=as_json)


@click.command()
@click.argument("target", metavar="RUN|EXPORT", type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8501,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0 lets other machines in.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with a token that every request must bring: Authorization: Bearer TOKEN.",
)
@click.option("--name", help="Name of the model in addresses. Default: that of the RUN.")
@data_option
@json_option
def serve(
    target: Path,
    port: int,
    host: str,
    token_file: Path | None,
    name: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Serves a run or an export: a page at /, and two REST APIs that other servers have.

    The APIs are TensorFlow Serving's and the Open Inference Protocol of KServe and Triton.

    Of a RUN the newest SavedModel is served; one is made if there is none. A version that appears
    in the folder later takes over without a pause. Ctrl-C stops the server.

    \b
    Example:
        kerasft serve runs/photos
        kerasft serve runs/photos/export --host 0.0.0.0 --token-file token.txt
    """
    with loading():
        from kerasft.serving.serve import prepare_for, serve_model

        prepare_for(target)
    stdout = sys.stdout  # while progress is shown, all that is printed goes to stderr

    def show(server: "Started", _: Callable[[], None]) -> None:
        with redirect_stdout(stdout):
            print_result(server, started_text, as_json=as_json)

    with showing() as progress:
        serve_model(
            target,
            port=port,
            host=host,
            token_file=token_file,
            name=name,
            data=data,
            progress=progress,
            started=show,
        )
    click.echo("Stopped.", err=True)


def started_text(server: "Started") -> str:
    """Writes where a server listens, what it serves and how it is stopped."""
    return (
        f"Serving version {server.version} of {server.folder} as '{server.name}'.\n"
        f"  {server.url}/ is a page for people,\n"
        f"  {server.url}/v1/models/{server.name}:predict TensorFlow Serving's REST API.\n"
        "Ctrl-C stops it."
    )


def report_text(report: "Report") -> str:
    """Writes the figures, a line per class, and the confusion matrix or its largest pairs."""
    low, high = report.ci95
    top5 = [] if report.top5 is None else [f"top-5 accuracy {report.top5:.3f}"]
    lines = [
        f"{report.split}: {count(report.n, 'image')}",
        f"accuracy {report.accuracy:.3f} (95% interval {low:.3f} to {high:.3f})",
        *_without_copies_lines(report),
        *_answered_lines(report),
        *top5,
        f"macro F1 {report.macro_f1:.3f}",
        f"log loss {report.loss:.4f}",
        f"calibration error {report.ece:.3f}",
        *_out_of_fold_lines(report),
        "",
        *_class_lines(report.per_class),
        "",
        *(_matrix_lines(report) if len(report.per_class) <= LARGEST_TABLE else _pair_lines(report)),
    ]
    return "\n".join(lines)


def _without_copies_lines(report: "Report") -> list[str]:
    """Writes the figures without near copies of training photos, where there are any."""
    left = report.without_near_copies
    if left is None:
        return []
    copies = f"{count(report.n - left.n, 'near copy')} of training photos"
    if left.accuracy is None:
        return [f"all images are {copies}"]
    low, high = left.ci95
    return [
        f"without {copies}: accuracy {left.accuracy:.3f} "
        f"(95% interval {low:.3f} to {high:.3f}), {count(left.n, 'image')}"
    ]


def _out_of_fold_lines(report: "Report") -> list[str]:
    """Writes the figures of a temperature on images that it was not fitted on."""
    fair = report.out_of_fold
    if fair is None:
        return []
    said = f"log loss {fair.loss:.4f}, calibration error {fair.ece:.3f}"
    return [f"the temperature was fitted on these images; out of fold: {said}"]


def _answered_lines(report: "Report") -> list[str]:
    """Writes the figures of the images that are answered, for a model that may abstain."""
    at = report.answered
    if at is None:
        return []
    answers = f"answers {at.coverage:.1%} of them, with a score of {at.threshold:.3f} or more"
    if at.accuracy is None:
        return [answers]
    low, high = at.ci95
    return [f"{answers}: accuracy {at.accuracy:.3f} (95% interval {low:.3f} to {high:.3f})"]


def _class_lines(rows: "Sequence[ClassReport]") -> list[str]:
    width = max(len("class"), *(len(row.label) for row in rows))
    head = f"{'class':<{width}}  precision  recall     F1  images"
    return [head] + [
        f"{row.label:<{width}}  {row.precision:9.3f}  {row.recall:6.3f}  {row.f1:5.3f}"
        f"  {row.support:6}"
        for row in rows
    ]


def _matrix_lines(report: "Report") -> list[str]:
    """Writes the confusion matrix; its columns are headed by the numbers of the rows."""
    names = [f"{i} {row.label}" for i, row in enumerate(report.per_class)]
    width = max(len(name) for name in names)
    cell = max(len(str(report.confusion.max(initial=0))), len(str(len(names) - 1))) + 2
    header = "".join(f"{i:>{cell}}" for i in range(len(names)))
    return [
        "rows are labels, columns are predictions",
        " " * width + header,
        *(
            f"{name:<{width}}" + "".join(f"{number:>{cell}}" for number in row)
            for name, row in zip(names, report.confusion, strict=True)
        ),
    ]


def _pair_lines(report: "Report") -> list[str]:
    """Writes the ten most confused pairs of classes, the most frequent first."""
    import numpy as np  # not at the top: commands that need none start at once

    wrong = report.confusion - np.diag(np.diag(report.confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    places = [divmod(int(place), len(wrong)) for place in order]
    return ["most confused, label -> prediction"] + [
        f"{wrong[i, j]:6}  {report.per_class[i].label} -> {report.per_class[j].label}"
        for i, j in places
        if wrong[i, j]
    ]


def predictions_text(results: "Sequence[Prediction]") -> str:
    """Writes a paragraph per file: its name, then scores and labels, best first."""
    lines = []
    for result in results:
        if result.error:
            lines.append(f"{result.file}: error: {result.error}")
            continue
        lines.append(result.file + _doubts(result))
        lines += [f"  {best.score:.3f}  {best.label}" for best in result.labels]
    return "\n".join(lines)


def explanations_text(results: "Sequence[Explanation | PhotoFile]") -> str:
    """Writes a paragraph per file: its name, score and label, and the files of its pictures."""
    from kerasft.evaluation.photo_files import PhotoFile  # TensorFlow is loaded by now

    lines = []
    for result in results:
        if isinstance(result, PhotoFile):
            lines.append(f"{result.file}: error: {result.error}")
            continue
        lines.append(result.file)
        other = "" if result.label == result.predicted else f" (predicted: {result.predicted})"
        lines.append(f"  {result.score:.3f}  {result.label}{other}")
        lines += [f"  {path}" for path in (result.overlay, result.heat) if path]
        lines += [f"  {result.note}"] if result.note else []
        lines += [
            f"  {one.similarity:.3f}  {one.label}{one.file and f': {one.file}'}"
            for one in result.nearest
        ]
    return "\n".join(lines)


def run_report_text(result: "RunReport") -> str:
    """Writes where the page is, and how large."""
    return (
        f"{result.path}: {size_text(result.bytes)}, mistakes on {result.split}, "
        f"accuracy {result.accuracy:.3f}"
    )


def _doubts(result: "Prediction") -> str:
    """Writes what speaks against believing a prediction, behind the name of its file."""
    doubts = []
    if result.abstain:
        doubts.append("not sure enough to answer")
    if result.novel:
        doubts.append(f"unlike the training photos (distance {result.distance:.2f})")
    return f": {', '.join(doubts)}" if doubts else ""


def export_text(result: "ExportResult") -> str:
    """Writes where the export is, what it costs, and how closely it agrees with model.keras."""
    proof, found = result.proof, result.accuracy
    kind = f", {result.quantize}" if result.quantize else ""
    lines = [
        f"{EXPORTERS[result.format].label}{kind}: {result.path}",
        f"{size_text(result.bytes)}, {result.latency_ms:.1f} ms from the "
        "pixels of an image to its scores, on this machine.",
        f"Compared with model.keras on {count(proof.n, 'image')}: scores differ by at most "
        f"{proof.max_abs_diff:.1e}, logits by {proof.max_abs_diff_logits:.1e}, "
        f"same label on {proof.top1_agreement:.1%}.",
    ]
    if found:
        lines.append(
            f"Accuracy on {count(found.n, 'validation photo')}: {found.export:.3f}, model.keras "
            f"{found.model:.3f}."
        )
        if found.coverage is not None:
            right = "" if found.precision is None else f" and is right in {found.precision:.1%}"
            lines.append(
                f"It answers {found.coverage:.1%} of them{right}; its threshold was chosen for the "
                "scores of model.keras."
            )
    lines.append(f"\nNext:\n  kerasft predict {as_typed(str(result.path))} PHOTO.jpg")
    return "\n".join(lines)
