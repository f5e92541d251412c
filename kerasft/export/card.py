"""The model card of an export: MODEL_CARD.md, in Hugging Face's layout.

It says what kerasft knows: the data, the training, the figures, the input rule and the limits. What
the model is meant for only its publisher knows, so that section is left open and marked.

Source: "Model Cards" in the documentation of the Hugging Face Hub, for the metadata on top.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasft import __version__
from kerasft.backbones.spec import rows_of
from kerasft.config.fields import Config, Phase
from kerasft.config.source_names import is_path
from kerasft.export.facts import ExportFacts
from kerasft.export.formats import EXPORTERS
from kerasft.export.measure import Accuracy
from kerasft.export.parity import Proof
from kerasft.metrics import Figures
from kerasft.record import PhaseResult, RunRecord, Solving
from kerasft.text import count, printable

FILE = "MODEL_CARD.md"

LICENCES: Mapping[str, str] = {
    "densenet": "BSD 3-Clause",
    "inception_resnet_v2": "Apache 2.0",
    "inception_v3": "Apache 2.0",
    "mobilenet": "Apache 2.0",
    "mobilenet_v2": "Apache 2.0",
    "nasnet": "Apache 2.0",
    "resnet": "MIT",
    "resnet_v2": "BSD",
    "vgg16": "Creative Commons Attribution 4.0",
    "vgg19": "Creative Commons Attribution 4.0",
    "xception": "MIT",
}
"""Licence of the ImageNet weights, by module of Keras Applications.

Source: "License" of each net in the documentation of Keras 2.3, Applications. That of later nets
names none.
"""

MOST = 50
"""Largest number of classes that have a row of their own."""

FEW = 20
"""Number of test images of a class below which the card warns of its figures."""


@dataclass(frozen=True)
class Origin:
    """What is known of the training of a model.

    Attributes:
        config: the settled config of the run.
        record: the record of the run.
        counts: number of images by class and split.
    """

    config: Config
    record: RunRecord
    counts: Mapping[str, Mapping[str, int]]


def card_text(
    name: str,
    facts: ExportFacts,
    *,
    proof: Proof,
    origin: Origin | None = None,
    accuracy: Accuracy | None = None,
) -> str:
    """Writes the model card.

    Args:
        name: name of the model.
        facts: what the export says about itself.
        proof: agreement of the export with model.keras.
        origin: what is known of the training; None for a model without a run.
        accuracy: accuracy of the export on validation; None if it was not measured.
    """
    class_names = facts.class_names
    sections = [
        _metadata(facts, origin),
        f"# {_plain(name)}\n\n{_summary(class_names, origin)}",
        "## Intended use\n\n**To be written by whoever publishes the model:** what it is for, who "
        "may rely on it, and what it must not be used for. kerasft can't know.",
        f"## Input and output\n\n{_input(facts)}\n\n{_output(facts)}\n\n{_USE}",
        f"## Data\n\n{_data(origin)}",
        f"## Training\n\n{_training(origin)}",
        f"## Figures\n\n{_quantized(facts, accuracy)}{_figures(origin)}",
        f"## Limits\n\n{_limits(class_names, origin)}",
        f"## Licence\n\n{_licence(origin)}",
        f"## Verification\n\n{_verification(proof)}",
    ]
    return "\n\n".join(sections) + "\n"


def _plain(name: str) -> str:
    """Escapes a name so that Markdown shows it as it is, also in a table."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~" else c for c in printable(name))


def _metadata(facts: ExportFacts, origin: Origin | None) -> str:
    library = "keras" if facts.format in ("saved-model", "keras") else facts.format
    kinds = ["keras", "tensorflow"] if library == "keras" else [library]
    tags = ["image-classification", *kinds, *filter(None, [facts.quantize]), "kerasft"]
    if origin:
        tags += [row.name.lower() for row in rows_of(origin.config.model.backbone)]
    return "\n".join(
        [
            "---",
            "license: unknown # choose one, see Licence below",
            f"library_name: {library}",
            "pipeline_tag: image-classification",
            "tags:",
            *(f"- {json.dumps(tag)}" for tag in tags),
            "metrics:",
            "- accuracy",
            "---",
        ]
    )


def _summary(class_names: Sequence[str], origin: Origin | None) -> str:
    shown = ", ".join(_plain(name) for name in class_names[:10])
    more = f" and {len(class_names) - 10:,} more" if len(class_names) > 10 else ""
    text = f"A classifier of images with {count(class_names, 'class')}: {shown}{more}."
    if origin:
        text += (
            f" Trained with kerasft {origin.record.versions.get('kerasft', __version__)} from "
            f"{_plain(origin.config.model.backbone)}{_weights_text(origin.config)}."
        )
    return text


def _weights_text(config: Config) -> str:
    weights = str(config.model.weights)
    known = {
        "imagenet": " with weights trained on ImageNet",
        "sample": " with the small weights in the package of kerasft, meant for trying it out",
        "none": " with random weights",
    }
    return known.get(weights, f" with weights from {_plain(Path(weights).name)}")


def _input(facts: ExportFacts) -> str:
    rule, side = facts.rule, facts.rule.image_size
    how = {
        "stretch": "it is stretched to the square, so its proportions may change",
        "crop": "the largest square in its middle is cut out",
        "pad": "it is padded to a square",
    }
    steps = (
        "decoded, turned upright by its EXIF orientation and resized to "
        f"{side} x {side} pixels, bilinear and antialiased; {how.get(rule.resize, rule.resize)}."
    )
    if rule.background is not None:
        red, green, blue = rule.background
        steps += f" Transparent pixels lie on the colour ({red}, {green}, {blue})."
    if EXPORTERS[facts.format].takes == "files":
        return (
            f"The contents of an image file (JPEG, PNG, GIF, BMP or WebP). It is {steps} All of "
            "this is part of the model."
        )
    return (
        f"`pixels`, float32 [B,{side},{side},3], RGB, 0 to 255, of any number B of images. An "
        f"image is {steps} That is left to the program that uses the model; the numbers are not "
        "scaled or shifted, because the model does that. `kerasft.json` has the rule."
    )


def _output(facts: ExportFacts) -> str:
    text = (
        f"A score for each of the {count(facts.class_names, 'class')}, in the order of "
        f"`labels.txt`; scores add up to 1."
    )
    if EXPORTERS[facts.format].takes == "files":
        return (
            f"{text} `top_label` is the most likely class and `top_score` its score. `error` says "
            "why a file could not be read; its scores are 0 then."
        )
    if facts.threshold is not None:
        text += f" Where the best is below {facts.threshold:.3f}, the model does not know."
    return text


_USE = "`use/predict.py` is a program that uses the model without kerasft."

_UNKNOWN = "Unknown: the model was exported without the run that trained it."


def _data(origin: Origin | None) -> str:
    if origin is None:
        return _UNKNOWN
    data, counts = origin.config.data, origin.counts
    names = list(counts)
    rows = [(_plain(name), counts[name]) for name in names[:MOST]]
    if names[MOST:]:
        rest = {split: sum(counts[n][split] for n in names[MOST:]) for split in counts[names[0]]}
        rows.append((f"{len(names) - MOST:,} more", rest))
    every = {split: sum(n[split] for n in counts.values()) for split in counts[names[0]]}
    rows.append(("all", every))
    source = str(data.source)
    where = Path(source).name if is_path(source) else source
    table = _table(
        ("class", "train", "validation", "test"),
        [(name, *(f"{n[s]:,}" for s in ("train", "validation", "test"))) for name, n in rows],
    )
    text = (
        f'The images come from "{_plain(where)}". Where their folders or table name no splits, '
        f"they were split with the seed {origin.config.seed}, each class in the same shares."
    )
    if origin.record.skipped:
        text += f" {count(len(origin.record.skipped), 'file')} could not be read and was left out."
    return f"{text}\n\n{table}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes a table of Markdown; the columns after the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _training(origin: Origin | None) -> str:
    if origin is None:
        return _UNKNOWN
    config, record = origin.config, origin.record
    if not record.phases:
        return "Unknown: the record of the run names no phase."
    planned = {phase.name: phase for phase in config.phases}
    rows = [
        (
            _plain(phase.name),
            _trained(phase),
            _how(phase, planned.get(phase.name)),
            f"{phase.trainable_parameters:,}",
            f"{phase.validation.accuracy:.3f}",
            "yes" if phase.name == record.best_phase else "",
        )
        for phase in record.phases
    ]
    header = ("phase", "trained", "how", "parameters", "validation accuracy", "this model")
    return (
        f"{_plain(config.model.backbone)}{_weights_text(config)}, images of "
        f"{config.model.image_size} pixels, seed {config.seed}, on {record.machine.to_text()}. "
        "What was not trained in a phase was frozen, and proven unchanged in the saved model.\n\n"
        f"{_table(header, rows)}"
    )


def _trained(phase: PhaseResult) -> str:
    if phase.blocks == "all":
        return "all blocks"
    return f"head and {count(int(phase.blocks), 'block')}" if phase.blocks else "head"


def _how(phase: PhaseResult, planned: object) -> str:
    if isinstance(phase.how, Solving):
        chosen = ", ".join(f"{name} {value}" for name, value in phase.how.parameters.items())
        return f"solved by {phase.how.method}" + (f" ({_plain(chosen)})" if chosen else "")
    text = f"epoch {phase.how.best_epoch} of {phase.how.epochs}"
    if phase.how.best_epoch == 0:
        text = "the solved start of the head"
    if isinstance(planned, Phase):
        text += f", {planned.optimizer}, learning rate {planned.learning_rate:g}"
    if phase.how.alpha < 1:
        text += f", mixed with the start of the phase (alpha {phase.how.alpha:g})"
    return text


def _quantized(facts: ExportFacts, accuracy: Accuracy | None) -> str:
    """Says what the figures below are not of, and what quantizing has cost."""
    if facts.quantize is None:
        return ""
    text = f"**This export computes in {facts.quantize}.** The figures below are of `model.keras`."
    if accuracy:
        text += (
            f" On {count(accuracy.n, 'validation photo')} this export gets {accuracy.export:.3f} "
            f"right, `model.keras` {accuracy.model:.3f}."
        )
        if accuracy.coverage is not None:
            right = "" if accuracy.precision is None else f", right in {accuracy.precision:.1%}"
            text += (
                f" It answers {accuracy.coverage:.1%} of them{right}: the threshold was chosen for "
                "the scores of `model.keras`."
            )
    return text + "\n\n"


def _figures(origin: Origin | None) -> str:
    if origin is None:
        return "Unknown: the model was exported without the run that scored it."
    record = origin.record
    scored = [
        ("validation, which chose this model", record.validation),
        ("test, which decided nothing", record.test),
    ]
    rows = [_row(name, figures) for name, figures in scored if figures and figures.n]
    if not rows:
        return "Unknown: the record of the run has no figures."
    by_class = ("balanced accuracy", "base rate")
    header = ("split", "images", "accuracy", "95% interval", *by_class, "log loss")
    parts = [
        "Of `model.keras`, in float32, on the images of the data above. The interval is Wilson's; "
        "the base rate is the accuracy of always naming the most frequent class.",
        _table(header, rows),
    ]
    if record.calibration and record.calibration.temperature != 1:
        fitted = record.calibration
        parts.append(
            f"Logits are divided by a temperature, {fitted.temperature:.3g}, fitted on validation. "
            "The log loss on validation is without it, as phases were compared; with it, out of "
            f"fold, it is {fitted.after.loss:.4f}."
        )
    if record.abstention:
        at = record.abstention
        parts.append(
            f"Below a score of {at.threshold:.3f} the model does not know (`abstain`). On "
            f"validation it answers {at.coverage:.1%} of the images and is right in "
            f"{at.precision:.1%} of these, with 95% confidence in at least {at.bound:.1%}."
        )
    if record.test is None:
        parts.append("There is no figure on test, so the accuracy on new images is likely lower.")
    elif record.test_scored > 1:
        parts.append(
            f"The test split was scored {record.test_scored} times so far; `evaluate` counts, too."
        )
    recall = (record.test or record.validation or Figures(0, 0, 0)).recall
    if recall:
        lowest = sorted(recall.items(), key=lambda pair: pair[1])[:10]
        said = ", ".join(f"{_plain(name)} {share:.3f}" for name, share in lowest)
        which = "test" if record.test else "validation"
        parts.append(f"Recall by class on {which}, the lowest first: {said}.")
    return "\n\n".join(parts)


def _row(name: str, figures: Figures) -> Sequence[str]:
    low, high = figures.interval
    by_class = [figures.balanced_accuracy, figures.base_rate]
    return (
        name,
        f"{figures.n:,}",
        f"{figures.accuracy:.3f}",
        f"{low:.3f} to {high:.3f}",
        *("" if share is None else f"{share:.3f}" for share in by_class),
        f"{figures.loss:.4f}",
    )


def _limits(class_names: Sequence[str], origin: Origin | None) -> str:
    abstains = bool(origin and origin.record.abstention)
    unless = ", unless the model does not know" if abstains else ""
    limits = [
        f"Every image gets one of the {count(class_names, 'class')}, also one that shows none"
        f"{unless}.",
        "The figures hold for images like those of the data. Other cameras, places, seasons or "
        "people may lower them; measure with images of your own.",
        "Scores were compared with the truth on images like those of the data only.",
    ]
    if origin:
        few = [name for name, n in origin.counts.items() if n["test"] < FEW]
        if few:
            shown = ", ".join(map(_plain, few[:10])) + (", ..." if few[10:] else "")
            limits.append(
                f"{count(few, 'class', 'have')} fewer than {FEW} test images, so figures by class "
                f"say little there: {shown}."
            )
        never = origin.record.validation.never_predicted if origin.record.validation else ()
        if never:
            shown = ", ".join(map(_plain, never[:10])) + (", ..." if never[10:] else "")
            limits.append(f"Never predicted on the validation images: {shown}.")
    return "\n".join(f"- {limit}" for limit in limits)


_OWN = "The licence of this model is for its publisher to choose, and the photos may bind it."


def licence_of(config: Config) -> str:
    """Says what is known of the licences that bind a model that was trained by a config."""
    weights = str(config.model.weights)
    if weights == "none":
        return f"{_OWN} It began with random weights."
    if weights == "sample":
        return f"{_OWN} The weights it began with are those of kerasft, Apache 2.0."
    if weights != "imagenet":
        return f"{_OWN} That of the weights it began with ({Path(weights).name}) is unknown."
    said = [
        f"{row.name}: {LICENCES[row.module]}" if row.module in LICENCES else f"{row.name}: unknown"
        for row in rows_of(config.model.backbone)
    ]
    return (
        f"{_OWN} The licence of the ImageNet weights it began with, by the documentation of Keras: "
        f"{'; '.join(said)}. ImageNet's photos have terms of their own."
    )


def _licence(origin: Origin | None) -> str:
    if origin is None:
        return f"{_OWN} That of the weights it began with is unknown."
    return _plain(licence_of(origin.config))


def _verification(proof: Proof) -> str:
    return (
        "This export and the `model.keras` that it was made from were compared, each in a process "
        f"of its own, on {count(proof.n, 'image')}: scores differ by at most "
        f"{proof.max_abs_diff:.1e}, the label is the same on {proof.top1_agreement:.1%}. "
        "`parity.json` has the figures."
    )
