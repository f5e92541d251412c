"""The model card: what is known of a model, and a sentence where something is not known."""

from dataclasses import replace

import pytest

from kerasft.config.load import append_phase, load_config
from kerasft.export.card import Origin, card_text
from kerasft.export.facts import ExportFacts
from kerasft.export.measure import Accuracy
from kerasft.export.parity import Proof
from kerasft.input_rule import InputRule
from kerasft.metrics import Figures
from kerasft.record import Device, PhaseResult, RunRecord, Solving, Steps

PROOF = Proof(71, 2.4e-7, 1.9e-6, 1.0)
FACTS = ExportFacts(
    "saved-model", None, ("ants", "bees"), InputRule(224, "pad", (255, 255, 255), 8)
)
VALIDATION = Figures(0.95, 0.0916, 60, 0.517, 0.949, {"ants": 0.931, "bees": 0.968})
TEST = Figures(0.967, 0.1572, 60, 0.517, 0.966, {"bees": 1.0, "ants": 0.931})
COUNTS = {
    "ants": {"train": 1350, "validation": 29, "test": 19},
    "bees": {"train": 142, "validation": 31, "test": 31},
}


def phase(name, how, **facts):
    figures = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.5)
    known = {"blocks": 0, "trainable_parameters": 2562, "seconds": 1.0, "improved": True}
    return PhaseResult(name=name, how=how, validation=VALIDATION, **{**figures, **known, **facts})


def origin(**model):
    flags = {"data.source": "/home/me/secret/photos", "model.image_size": 224}
    config = load_config(flags=flags | {f"model.{key}": value for key, value in model.items()})
    record = RunRecord(
        status="finished",
        versions={"kerasft": "0.2.0"},
        machine=Device("tensorflow", "cpu", "", 2),
        seed=0,
        phases=(
            phase("head", Steps(6, 1)),
            phase("unfreeze", Steps(10, 8, alpha=0.25), blocks=3, improved=False),
        ),
        best_phase="head",
        validation=VALIDATION,
        test=TEST,
        test_scored=2,
    )
    return Origin(append_phase(config), record, COUNTS)


def card(known):
    return card_text("in|sects", FACTS, proof=PROOF, origin=known)


def section(text, title):
    return text.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0].rstrip("\n")


def test_the_metadata_are_those_of_hugging_face():
    assert card(origin()).partition("\n\n# ")[0] == (
        "---\n"
        "license: unknown # choose one, see Licence below\n"
        "library_name: keras\n"
        "pipeline_tag: image-classification\n"
        "tags:\n"
        '- "image-classification"\n'
        '- "keras"\n'
        '- "tensorflow"\n'
        '- "kerasft"\n'
        '- "mobilenetv2"\n'
        "metrics:\n"
        "- accuracy\n"
        "---"
    )


def test_the_card_says_what_the_run_says_and_no_private_path():
    text = card(origin())
    assert "\n# in\\|sects\n\nA classifier of images with 2 classes: ants, bees. Trained " in text
    assert "secret" not in text
    assert section(text, "Intended use").startswith("**To be written by whoever publishes")
    assert section(text, "Data") == (
        'The images come from "photos". Where their folders or table name no splits, they were '
        "split with the seed 0, each class in the same shares.\n\n"
        "| class | train | validation | test |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| ants | 1,350 | 29 | 19 |\n"
        "| bees | 142 | 31 | 31 |\n"
        "| all | 1,492 | 60 | 50 |"
    )
    assert section(text, "Training").splitlines()[2:] == [
        "| phase | trained | how | parameters | validation accuracy | this model |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| head | head | epoch 1 of 6, adam, learning rate 0.001 | 2,562 | 0.950 | yes |",
        "| unfreeze | head and 3 blocks | epoch 8 of 10, adam, learning rate 0.0004, mixed with "
        "the start of the phase (alpha 0.25) | 2,562 | 0.950 |  |",
    ]
    assert "it is padded to a square. Transparent pixels lie on the colour (255, 255, 255)." in text
    assert "on 71 images: scores differ by at most 2.4e-07, the label is the same on 100.0%" in text


def test_figures_have_intervals_and_say_which_split_chose():
    assert section(card(origin()), "Figures").splitlines()[2:] == [
        "| split | images | accuracy | 95% interval | balanced accuracy | base rate | log loss |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| validation, which chose this model | 60 | 0.950 | 0.863 to 0.983 | 0.949 | 0.517 "
        "| 0.0916 |",
        "| test, which decided nothing | 60 | 0.967 | 0.886 to 0.991 | 0.966 | 0.517 | 0.1572 |",
        "",
        "The test split was scored 2 times so far; `evaluate` counts, too.",
        "",
        "Recall by class on test, the lowest first: ants 0.931, bees 1.000.",
    ]


def test_limits_name_classes_with_few_test_images_and_those_never_predicted():
    known = origin()
    never = replace(VALIDATION, never_predicted=["bees"])
    known = replace(known, record=replace(known.record, validation=never))
    limits = section(card(known), "Limits")
    assert (
        "- 1 class has fewer than 20 test images, so figures by class say little there: ants."
    ) in limits
    assert limits.endswith("- Never predicted on the validation images: bees.")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({}, "by the documentation of Keras: MobileNetV2: Apache 2.0. ImageNet's photos have"),
        ({"backbone": "ResNet50V2+ConvNeXtTiny"}, "ResNet50V2: BSD; ConvNeXtTiny: unknown."),
        ({"weights": "none"}, "It began with random weights."),
        ({"weights": "sample"}, "The weights it began with are those of kerasft, Apache 2.0."),
        ({"weights": "mine.h5"}, "That of the weights it began with (mine.h5) is unknown."),
    ],
)
def test_the_licence_of_the_weights_is_named_where_it_is_known(model, said):
    assert said in section(card(origin(**model)), "Licence")


def test_without_test_images_the_card_says_so():
    known = origin()
    figures = section(card(replace(known, record=replace(known.record, test=None))), "Figures")
    assert "There is no figure on test, so the accuracy on new images is likely lower." in figures
    assert "Recall by class on validation, the lowest first: ants 0.931, bees 0.968." in figures


def test_a_solved_head_is_described_by_its_method():
    known = origin()
    solved = phase("svm", Solving("svm", {"C": 0.1}))
    record = replace(known.record, phases=(solved,), best_phase="svm")
    training = section(card(replace(known, record=record)), "Training")
    assert training.endswith("| svm | head | solved by svm (C 0.1) | 2,562 | 0.950 | yes |")


def test_many_classes_are_added_up_and_names_cannot_break_a_table():
    counts = {f"a|b{number}": dict(COUNTS["bees"]) for number in range(52)}
    rows = section(card(replace(origin(), counts=counts)), "Data").splitlines()
    assert rows[4] == "| a\\|b0 | 142 | 31 | 31 |"
    assert rows[-2:] == ["| 2 more | 284 | 62 | 62 |", "| all | 7,384 | 1,612 | 1,612 |"]


def test_of_a_model_without_a_run_what_is_not_known_is_said_to_be_unknown():
    text = card(None)
    without = "Unknown: the model was exported without the run that"
    assert section(text, "Data") == section(text, "Training") == f"{without} trained it."
    assert section(text, "Figures") == f"{without} scored it."
    assert section(text, "Licence").endswith("That of the weights it began with is unknown.")
    assert "A classifier of images with 2 classes: ants, bees.\n" in text


def test_the_card_of_a_quantized_export_says_so_and_what_it_costs():
    facts = replace(FACTS, format="litert", quantize="int8")
    found = Accuracy(120, 0.925, 0.9333333)
    text = card_text("insects", facts, proof=PROOF, origin=origin(), accuracy=found)
    assert section(text, "Figures").splitlines()[0] == (
        "**This export computes in int8.** The figures below are of `model.keras`. On 120 "
        "validation photos this export gets 0.925 right, `model.keras` 0.933."
    )
    assert text.splitlines()[2] == "library_name: litert"
    assert text.partition("tags:\n")[2].splitlines()[:4] == [
        '- "image-classification"',
        '- "litert"',
        '- "int8"',
        '- "kerasft"',
    ]
    assert "float32 [B,224,224,3], RGB, 0 to 255" in section(text, "Input and output")
