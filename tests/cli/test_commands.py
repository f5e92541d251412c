"""The command line: what is parsed, what is printed where, and the exit status.

The one library function that a command calls is replaced; at the end all commands run for
real, one after the other, on drawn photos.
"""

import dataclasses
import importlib
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cli_reference
import click
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from drawing import draw_photos
from run_records import RECORD
from tiny import TINY, tiny_constructor

from kerasft.backbones.table import BACKBONES
from kerasft.checking.check import Checked
from kerasft.checking.features import LabelSuspect
from kerasft.checking.review import Review, ReviewPhoto
from kerasft.cli.main import main
from kerasft.compare import compare  # noqa: F401  imported before its functions are replaced
from kerasft.compare.result import ComparisonResult
from kerasft.confidence import Abstention, Calibration, Quality
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.evaluation.calibrate import Calibrated
from kerasft.evaluation.drift import ClassDrift, Drift, DriftPhoto
from kerasft.evaluation.evaluate import Answered, ClassReport, Report
from kerasft.evaluation.explain import Explanation
from kerasft.evaluation.nearest import Neighbour
from kerasft.evaluation.photo_files import PhotoFile
from kerasft.evaluation.predict import Label, Prediction
from kerasft.evaluation.report import RunReport
from kerasft.export.export import ExportResult
from kerasft.export.measure import Accuracy
from kerasft.export.parity import Proof
from kerasft.importers.weights_writer import Imported
from kerasft.novelty.two_sample import Outcome
from kerasft.progress import Event
from kerasft.record import RunResult
from kerasft.reports.diff import PhotosDiff, RunDiff
from kerasft.reports.runs import ListedRun
from kerasft.sample.draw import Sample
from kerasft.serving.serve import Started
from kerasft.updating.asked import Asked
from kerasft.updating.changes import Changes, ClassChange
from kerasft.updating.effect import ClassEffect, Effect, NewClass
from kerasft.updating.update import Update

RESULT = {
    "run": "runs/photos",
    "seconds": 83.4,
    "phases": [
        {
            "name": "head",
            "epochs": 20,
            "best_epoch": 14,
            "seconds": 83.4,
            "train_loss": 0.31,
            "train_accuracy": 0.91,
            "val_loss": 0.4121,
            "val_accuracy": 0.867,
            "frozen_proof": "equal",
            "trainable_parameters": 6405,
            "improved": True,
            "parts": [{"name": "epochs", "predicted_seconds": 80.2, "seconds": 83.4}],
        }
    ],
    "validation": {"accuracy": 0.867, "loss": 0.4121, "n": 225},
    "test": {"accuracy": 0.88, "loss": 0.39, "n": 225, "ci95": [0.831, 0.916]},
}


class Facts(dict):
    """Stands in for a typed result of the library, of which the commands print `to_json`."""

    def to_json(self):
        return dict(self)


class Calls:
    """Stands in for one library function: keeps what it was called with, returns `result`."""

    def __init__(self, result, act):
        self.result, self.act = result, act
        self.arguments, self.options = None, None

    def __call__(self, *arguments, **options):
        self.arguments, self.options = arguments, options
        if self.act is not None:
            self.act(options["progress"])
        return Facts(self.result) if isinstance(self.result, dict) else self.result


@pytest.fixture
def replace(monkeypatch):
    """`replace("training.train.train_run", result, act)`: its result, and what it does before."""

    def replace(name, result=None, act=None):
        module, function = name.rsplit(".", 1)
        calls = Calls(result, act)
        monkeypatch.setattr(importlib.import_module(f"kerasft.{module}"), function, calls)
        return calls

    return replace


def raising(error):
    def act(progress):
        raise error

    return act


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def kerasft(line):
    return CliRunner().invoke(main, shlex.split(line), prog_name="kerasft")


# train


def test_train_needs_only_the_photos(replace):
    calls = replace("training.train.train_run", RESULT)
    done = kerasft("train --data photos")
    assert done.exit_code == 0
    config, run = calls.arguments
    assert config.data.source == str(Path("photos").absolute())
    assert config.model.backbone == "MobileNetV2"
    assert [phase.name for phase in config.phases] == ["head"]
    assert run == Path("runs/photos")
    assert calls.options["resume"] is False


def test_every_flag_of_train_reaches_its_field(replace):
    calls = replace("training.train.train_run", RESULT)
    done = kerasft(
        "train --data photos --backbone ResNet50 --weights none --image-size 96 --epochs 7 "
        "--learning-rate 0.01 --batch-size 4 --seed 3 --device cpu --run here "
        "--set head.dropout=0.5 --set phases.0.optimizer=sgd"
    )
    assert done.exit_code == 0, done.stderr
    config, run = calls.arguments
    phase = config.phases[0]
    assert (config.model.backbone, config.model.weights) == ("ResNet50", "none")
    assert (config.model.image_size, config.seed, config.device) == (96, 3, "cpu")
    assert (phase.epochs, phase.learning_rate, phase.batch_size) == (7, 0.01, 4)
    assert (config.head.dropout, phase.optimizer) == (0.5, "sgd")
    assert run == Path("here")


def test_a_flag_that_was_not_typed_leaves_the_file_alone(replace):
    calls = replace("training.train.train_run", RESULT)
    Path("mine.toml").write_text(
        'seed = 5\n[data]\nsource = "photos"\n[[phases]]\nname = "head"\nblocks = 0\n'
        "epochs = 9\nlearning_rate = 0.002\n"
    )
    assert kerasft("train mine.toml --batch-size 8").exit_code == 0
    config = calls.arguments[0]
    assert config.seed == 5
    assert (config.phases[0].epochs, config.phases[0].batch_size) == (9, 8)


def test_options_that_say_how_photos_are_read_reach_their_fields(replace):
    calls = replace("training.train.train_run", RESULT)
    done = kerasft("train t.csv --column label=dx --column path=id --label-from '(.)_'")
    assert done.exit_code == 0, done.stderr
    data = calls.arguments[0].data
    assert (data.columns, data.label_from) == (("label=dx", "path=id"), "(.)_")
    Path("mine.toml").write_text('[data]\nsource = "t.csv"\ncolumns = ["label=dx"]\n')
    assert kerasft("train mine.toml").exit_code == 0  # not typed, so the file's
    assert calls.arguments[0].data.columns == ("label=dx",)
    calls = replace("compare.compare.compare_ways", COMPARISON)
    assert kerasft("compare t.csv --column label=dx --layout auto").exit_code == 0
    assert calls.arguments[0]["data.columns"] == ["label=dx"]
    calls = replace("evaluation.evaluate.evaluate_run", REPORT)
    assert kerasft("evaluate a.keras --data t.csv --column label=dx").exit_code == 0
    assert calls.options["flags"] == {"data.columns": ["label=dx"]}


@pytest.mark.parametrize("given", ["photos", "labels.csv", "photos.zip", "tfds:mnist"])
def test_the_argument_of_train_may_be_the_photos(replace, given):
    Path("photos").mkdir()
    calls = replace("training.train.train_run", RESULT)
    assert kerasft(f"train {given} --layout classes").exit_code == 0
    data = calls.arguments[0].data
    assert data.source == (given if ":" in given else str(Path(given).absolute()))
    assert data.layout == "classes"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (
            "train photos --data other",
            "--data: the photos are named twice, as photos and as other. Leave out one of them.",
        ),
        (
            "train fotos",
            "fotos: no such file or folder. Expected photos or a TOML file.",
        ),
        (
            "train run",
            "run: is a run, and not photos or a config file. `kerasft train --run run --resume` "
            "finishes it if it was interrupted; `kerasft unfreeze-and-continue run` goes on with "
            "it; `kerasft train run/config.toml` repeats it.",
        ),
    ],
)
def test_an_argument_of_train_that_means_nothing_or_too_much_is_refused(line, wrong):
    Path("photos").mkdir()
    Path("run").mkdir()
    Path("run/run.json").touch()
    done = kerasft(line)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"Error: {wrong}\n"


def test_train_without_config_and_data_says_what_to_pass():
    done = kerasft("train")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "data.source" in done.stderr and "--data" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_an_error_of_the_command_line():
    done = kerasft("train --data photos --epoch 3")
    assert done.exit_code == 2
    assert "No such option" in done.stderr and "--epoch" in done.stderr


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ("--set head.features=fc7", "features 'fc7' come from an inner fully connected layer"),
        ("--set head.features=flatt", "got 'flatt'. Did you mean 'flat'?"),
        (
            "--set head.features=depths --set phases.0.blocks=2",
            "phases (--set): 'head' would train blocks below the head, but with head.features = "
            "'depths' the head reads the output of every block",
        ),
        ("--backbone VGG16 --set head.leave_out=5", "VGG16 has 5 blocks, so leave_out is at most"),
        (
            "--backbone VGG16 --image-size 96 --set head.features=fc6",
            "with features 'fc6' the ImageNet weights need 224 pixels a side, got 96",
        ),
        ("--set data.fraction=0", "data.fraction (--set): expected more than 0, got 0."),
        ("--set data.fraction=1.5", "data.fraction (--set): expected at most 1, got 1.5."),
        ("--set data.fraction=half", "data.fraction (--set): expected float, got 'half'."),
    ],
)
def test_a_choice_of_images_or_features_that_cannot_be_is_refused(options, wrong):
    done = kerasft(f"train --data photos {options}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert wrong in done.stderr and "Traceback" not in done.stderr


def test_the_summary_of_train_fits_a_screen(replace):
    replace("training.train.train_run", RESULT)
    assert kerasft("train --data photos").stdout == (
        "Test accuracy 0.880 (95% interval 0.831 to 0.916, 225 images)\n"
        "Kept: phase head, epoch 14 of 20 (validation 0.867); frozen weights unchanged\n"
        "Run: runs/photos, 1:23. Next: kerasft unfreeze-and-continue runs/photos\n"
    )


def test_resume_takes_the_config_of_the_run(replace):
    calls = replace("training.train.train_run", RESULT)
    Path("run").mkdir()
    Path("run/config.toml").write_text('seed = 8\n[data]\nsource = "../photos"\n')
    assert kerasft("train --run run --resume").exit_code == 0
    assert calls.arguments[0].seed == 8
    assert calls.options["resume"] is True


def test_resume_without_a_run_is_refused():
    done = kerasft("train --data photos --resume")
    assert done.exit_code == 2
    assert done.stderr == "Error: --resume needs --run DIR, the run to continue.\n"


def test_a_dry_run_prints_the_plan_and_trains_nothing(replace):
    plan = {
        "backbone": "MobileNetV2",
        "image_size": 224,
        "weights": "imagenet",
        "splits_from": None,
        "images": {"ants": {"train": 135, "validation": 29, "test": 29}},
        "unused": 0,
        "groups": 0,
        "skipped": [],
        "blocks": [{"name": "block_16", "layers": 10, "parameters": 886720}],
        "parameters": 2257984,
        "phases": [
            {
                "name": "head",
                "blocks": 0,
                "epochs": 20,
                "steps": 100,
                "learning_rate": 0.001,
                "precision": "float32",
                "trainable_parameters": 1281,
                "stored": True,
                "why": "569 images through the frozen part instead of 3,280",
                "passes": 569,
                "bytes": 1_456_640,
            },
            {
                "name": "unfreeze",
                "blocks": 3,
                "epochs": 2,
                "steps": 10,
                "learning_rate": 0.0001,
                "precision": "mixed_bfloat16",
                "trainable_parameters": 1512001,
                "stored": False,
                "why": "switched off",
                "passes": 328,
                "bytes": 0,
            },
        ],
    }
    replace("training.train.plan_run", plan)
    trained = replace("training.train.train_run")
    done = kerasft("train --data photos --dry-run")
    assert done.stdout == (
        "MobileNetV2, weights imagenet, 224 x 224 pixels, 2,257,984 parameters in 1 blocks\n"
        "\n"
        "class   train  validation    test\n"
        "ants      135          29      29\n"
        "\n"
        "Phase head: the head, 1,281 parameters, up to 20 epochs (100 steps), learning rate 0.001\n"
        "  activations are stored, 1.5 MB: 569 images through the frozen part instead of 3,280\n"
        "Phase unfreeze: the head and 3 blocks, 1,512,001 parameters, up to 2 epochs (10 steps "
        "in mixed_bfloat16), learning rate 0.0001\n"
        "  activations are not stored: switched off\n"
        "\n"
        "Nothing was trained or written: this was a dry run.\n"
    )
    assert trained.arguments is None
    assert json.loads(kerasft("train --data photos --dry-run --json").stdout) == plan
    replace("training.train.plan_run", {**plan, "groups": 12})
    assert (
        "    29\n12 groups, each in one split\n" in kerasft("train --data photos --dry-run").stdout
    )
    replace("training.train.plan_run", {**plan, "unused": 1221})
    assert (
        "    29\nImages left out (data.fraction, copies of images of another split): 1,221\n"
        in kerasft("train --data photos --dry-run").stdout
    )
    replace("training.train.plan_run", {**plan, "splits_from": "runs/first"})
    assert (
        "    29\nPhotos that runs/first knows keep their splits\n"
        in kerasft("train --data photos --dry-run").stdout
    )


# unfreeze-and-continue


def test_the_flags_of_unfreeze_reach_the_new_phase(replace):
    calls = replace("training.train.continue_run", RESULT)
    done = kerasft(
        "unfreeze-and-continue runs/photos --blocks 3 --epochs 4 --learning-rate 1e-5 "
        "--batch-size 16 --data moved --set phases.-1.optimizer=sgd"
    )
    assert done.exit_code == 0
    assert calls.arguments == (Path("runs/photos"),)
    assert calls.options["flags"] == {
        "phases.-1.blocks": 3,
        "phases.-1.epochs": 4,
        "phases.-1.learning_rate": 1e-5,
        "phases.-1.batch_size": 16,
    }
    assert calls.options["sets"] == ("phases.-1.optimizer=sgd",)
    assert calls.options["data"] == "moved"
    assert calls.options["resume"] is False


def test_all_unfreezes_every_block(replace):
    calls = replace("training.train.continue_run", RESULT)
    kerasft("unfreeze-and-continue runs/photos --all")
    assert calls.options["flags"] == {"phases.-1.blocks": "all"}


def test_all_and_a_number_of_blocks_exclude_each_other(replace):
    calls = replace("training.train.continue_run", RESULT)
    done = kerasft("unfreeze-and-continue runs/photos --all --blocks 3")
    assert done.exit_code == 2
    assert done.stderr == "Error: --blocks and --all exclude each other: pass one of them.\n"
    assert calls.arguments is None


def test_a_phase_that_did_not_help_is_said_to_have_not_helped(replace):
    last = {**RESULT["phases"][0], "name": "unfreeze", "improved": False}
    replace("training.train.continue_run", {**RESULT, "phases": [*RESULT["phases"], last]})
    done = kerasft("unfreeze-and-continue runs/photos")
    assert done.stdout.startswith(
        "Phase unfreeze did not improve validation: loss 0.4121, before 0.4121.\n"
    )
    assert "\nKept: phase head, epoch 14 of 20 (validation 0.867); " in done.stdout


# evaluate, predict, export, blocks


REPORT = Report(
    split="validation",
    n=2,
    accuracy=0.5,
    ci95=(0.095, 0.905),
    top5=None,
    macro_f1=0.5,
    loss=float("inf"),
    ece=0.25,
    per_class=(ClassReport("ant", 1.0, 0.5, 0.667, 2),),
    confusion=np.array([[2]]),
)


def test_evaluate_prints_the_table_of_the_split_asked_for(replace):
    calls = replace("evaluation.evaluate.evaluate_run", REPORT)
    done = kerasft("evaluate runs/photos --split validation --data moved --relabel")
    assert done.stdout.startswith("validation: 2 images\naccuracy 0.500")
    assert str(calls.arguments[0]) == "runs/photos"
    assert calls.options["split"] == "validation"
    assert calls.options["data"] == "moved"
    assert calls.options["relabel"] is True


def test_a_number_that_json_does_not_have_is_null(replace):
    replace("evaluation.evaluate.evaluate_run", REPORT)
    done = kerasft("evaluate runs/photos --json")
    assert json.loads(done.stdout) == {
        "split": "validation",
        "n": 2,
        "accuracy": 0.5,
        "ci95": [0.095, 0.905],
        "top5": None,
        "macro_f1": 0.5,
        "loss": None,
        "ece": 0.25,
        "per_class": [{"label": "ant", "precision": 1.0, "recall": 0.5, "f1": 0.667, "support": 2}],
        "confusion": [[2]],
        "without_near_copies": None,
        "answered": None,
        "out_of_fold": None,
    }


def test_evaluate_says_how_many_images_a_model_with_a_threshold_answers(replace):
    answered = Answered(0.93, 1, 0.5, 1.0, (0.21, 1.0))
    calls = replace(
        "evaluation.evaluate.evaluate_run", dataclasses.replace(REPORT, answered=answered)
    )
    done = kerasft("evaluate runs/photos --csv answers.csv")
    assert done.stdout.splitlines()[2] == (
        "answers 50.0% of them, with a score of 0.930 or more: accuracy 1.000 (95% interval 0.210 "
        "to 1.000)"
    )
    assert calls.options["csv"] == Path("answers.csv")


PREDICTIONS = [
    Prediction("a.jpg", (Label("ant", 0.91), Label("bee", 0.09))),
    Prediction("b.jpg", error="is truncated"),
]


def test_predict_lists_every_file_and_ends_with_1_if_one_cannot_be_read(replace):
    calls = replace("evaluation.predict.predict", PREDICTIONS)
    done = kerasft("predict runs/photos a.jpg b.jpg --top 2")
    assert done.stdout == "a.jpg\n  0.910  ant\n  0.090  bee\nb.jpg: error: is truncated\n"
    assert done.exit_code == 1
    assert calls.options["top"] == 2
    assert [str(file) for file in calls.arguments[1]] == ["a.jpg", "b.jpg"]


def test_predict_as_json_lists_the_error_too(replace):
    replace("evaluation.predict.predict", PREDICTIONS)
    done = kerasft("predict runs/photos a.jpg b.jpg --json")
    assert json.loads(done.stdout) == [
        {
            "file": "a.jpg",
            "predictions": [{"label": "ant", "score": 0.91}, {"label": "bee", "score": 0.09}],
        },
        {"file": "b.jpg", "error": "is truncated"},
    ]
    assert done.exit_code == 1


def test_predict_says_what_speaks_against_an_answer(replace):
    labels = (Label("ant", 0.91),)
    calls = replace(
        "evaluation.predict.predict",
        [
            Prediction("a.jpg", labels, abstain=False, distance=0.1, novel=False),
            Prediction("b.jpg", labels, abstain=True, distance=0.1, novel=False),
            Prediction("c.jpg", labels, abstain=True, distance=0.58, novel=True),
        ],
    )
    done = kerasft("predict runs/photos a.jpg b.jpg c.jpg --csv answers.csv")
    assert (done.exit_code, done.stdout) == (
        0,
        "a.jpg\n  0.910  ant\n"
        "b.jpg: not sure enough to answer\n  0.910  ant\n"
        "c.jpg: not sure enough to answer, unlike the training photos (distance 0.58)\n"
        "  0.910  ant\n",
    )
    assert calls.options["csv"] == Path("answers.csv")
    (_, _, last) = json.loads(kerasft("predict runs/photos a.jpg b.jpg c.jpg --json").stdout)
    assert {name: last[name] for name in ("abstain", "novel", "distance")} == {
        "abstain": True,
        "novel": True,
        "distance": 0.58,
    }


CALIBRATED = Calibrated(
    Path("runs/photos"),
    Calibration(1.25, 60, Quality(0.5, 0.1), Quality(0.4, 0.05)),
    Abstention(0.9, 0.8125, 0.7, 0.95, 0.91, 60),
    None,
    1049,
)


def test_calibrate_says_what_temperature_and_threshold_do(replace):
    calls = replace("evaluation.calibrate.calibrate_run", CALIBRATED)
    done = kerasft("calibrate runs/photos --abstain-at 0.9 --data moved")
    assert (done.exit_code, done.stdout) == (
        0,
        "Temperature 1.250, from 60 validation images. Out of fold, log loss 0.5000 -> 0.4000, "
        "calibration error 0.100 -> 0.050.\n"
        "Below a score of 0.812 it says that it does not know. On validation it answers 70.0% of "
        "the images and is right in 95.0% of these: with 95% confidence at least 91.0% (promised: "
        "90.0%).\n"
        "New photos are compared with 1,049 training photos, so that unlike ones are noticed.\n"
        "Exports that were made before stay as they are.\n\n"
        "Next:\n  kerasft predict runs/photos PHOTO.jpg\n",
    )
    assert calls.options["abstain_at"] == 0.9
    assert calls.options["data"] == "moved"


def test_calibrate_says_why_there_is_no_temperature_and_no_threshold(replace):
    nothing = dataclasses.replace(
        CALIBRATED,
        calibration=Calibration(1.0, 60, Quality(0.5, 0.1), Quality(0.5, 0.1)),
        abstention=None,
        lacking="It takes more.",
        known=None,
    )
    replace("evaluation.calibrate.calibrate_run", nothing)
    done = kerasft("calibrate runs/photos --abstain-at 0.99")
    assert done.stdout.splitlines()[:3] == [
        "No temperature helps: log loss 0.5000, calibration error 0.100 on 60 validation images.",
        "No threshold was set. It takes more.",
        "Exports that were made before stay as they are.",
    ]


def test_predict_ends_with_0_if_all_can_be_read(replace):
    replace("evaluation.predict.predict", PREDICTIONS[:1])
    assert kerasft("predict imagenet:MobileNetV2 a.jpg").exit_code == 0


EXPLANATIONS = [
    Explanation("a.jpg", "ant", 0.91, "ant", "why/a.png", "why/a.heat.png"),
    Explanation("c.jpg", "ant", 0.02, "bee", "why/c.png", "why/c.heat.png", (), "No place."),
    PhotoFile("b.jpg", "is truncated"),
]


def test_explain_lists_the_pictures_and_ends_with_1_if_a_photo_cannot_be_read(replace):
    calls = replace("evaluation.explain.explain", EXPLANATIONS)
    done = kerasft("explain runs/photos a.jpg c.jpg b.jpg --class ant --to why")
    assert done.stdout == (
        "a.jpg\n"
        "  0.910  ant\n"
        "  why/a.png\n"
        "  why/a.heat.png\n"
        "c.jpg\n"
        "  0.020  ant (predicted: bee)\n"
        "  why/c.png\n"
        "  why/c.heat.png\n"
        "  No place.\n"
        "b.jpg: error: is truncated\n"
    )
    assert done.exit_code == 1
    assert [str(file) for file in calls.arguments[1]] == ["a.jpg", "c.jpg", "b.jpg"]
    assert calls.options["to"] == Path("why")
    assert calls.options["label"] == "ant"


def test_explain_as_json_has_the_fields_and_the_error(replace):
    calls = replace("evaluation.explain.explain", EXPLANATIONS[::2])
    done = kerasft("explain runs/photos a.jpg b.jpg --json")
    assert json.loads(done.stdout) == [
        {
            "file": "a.jpg",
            "label": "ant",
            "score": 0.91,
            "predicted": "ant",
            "overlay": "why/a.png",
            "heat": "why/a.heat.png",
            "nearest": [],
            "note": "",
        },
        {"file": "b.jpg", "error": "is truncated"},
    ]
    assert (calls.options["to"], calls.options["label"]) == (Path("explained"), None)


def test_explain_names_the_nearest_photos_of_a_head_in_which_they_vote(replace):
    near = (Neighbour("ant/7.jpg", "ant", 0.8764), Neighbour("", "bee", 0.5))
    one = Explanation("a.jpg", "ant", 0.91, "ant", nearest=near, note="No heat map.")
    replace("evaluation.explain.explain", [one])
    done = kerasft("explain runs/photos a.jpg")
    assert done.stdout == (
        "a.jpg\n  0.910  ant\n  No heat map.\n  0.876  ant: ant/7.jpg\n  0.500  bee\n"
    )
    assert done.exit_code == 0


EXPORT = ExportResult(
    Path("out/1"), "saved-model", None, 9_400_000, 12.34, Proof(75, 2.4e-7, 1.9e-6, 1.0)
)


def test_export_says_how_closely_it_agrees(replace):
    calls = replace("export.export.export_run", EXPORT)
    done = kerasft("export runs/photos --to out")
    assert done.stdout == (
        "SavedModel: out/1\n"
        "9.4 MB, 12.3 ms from the pixels of an image to its scores, on this machine.\n"
        "Compared with model.keras on 75 images: scores differ by at most 2.4e-07, logits by "
        "1.9e-06, same label on 100.0%.\n"
        "\n"
        "Next:\n"
        "  kerasft predict out/1 PHOTO.jpg\n"
    )
    assert calls.options["to"] == Path("out")
    assert json.loads(kerasft("export runs/photos --json").stdout) == {
        "path": "out/1",
        "format": "saved-model",
        "quantize": None,
        "bytes": 9_400_000,
        "latency_ms": 12.34,
        "accuracy": None,
        "n": 75,
        "max_abs_diff": 2.4e-7,
        "max_abs_diff_logits": 1.9e-6,
        "top1_agreement": 1.0,
    }
    assert calls.options["data"] is None


EXPORT_INT8 = ExportResult(
    Path("out/2"), "litert", "int8", 2_700_000, 8.0, Proof(75, 0.031, 0.4, 0.987),
    Accuracy(120, 0.925, 0.9333333, 0.85, 0.97),
)  # fmt: skip


def test_export_says_what_quantizing_has_lost(replace):
    calls = replace("export.export.export_run", EXPORT_INT8)
    done = kerasft(
        "export runs/photos --format litert --quantize int8 --max-accuracy-drop 0.02 "
        "--assert-accuracy-at-least 0.9"
    )
    assert done.stdout == (
        "LiteRT, int8: out/2\n"
        "2.7 MB, 8.0 ms from the pixels of an image to its scores, on this machine.\n"
        "Compared with model.keras on 75 images: scores differ by at most 3.1e-02, logits by "
        "4.0e-01, same label on 98.7%.\n"
        "Accuracy on 120 validation photos: 0.925, model.keras 0.933.\n"
        "It answers 85.0% of them and is right in 97.0%; its threshold was chosen for the scores "
        "of model.keras.\n"
        "\n"
        "Next:\n"
        "  kerasft predict out/2 PHOTO.jpg\n"
    )
    assert (calls.options["max_accuracy_drop"], calls.options["least_accuracy"]) == (0.02, 0.9)
    assert json.loads(kerasft("export runs/photos --json").stdout)["accuracy"] == {
        "n": 120, "export": 0.925, "model": 0.9333333, "coverage": 0.85, "precision": 0.97
    }  # fmt: skip


def test_export_takes_the_place_that_photos_were_moved_to(replace):
    calls = replace("export.export.export_run", EXPORT)
    assert kerasft("export runs/photos --data moved").exit_code == 0
    assert calls.options["data"] == "moved"


STARTED = Started("http://127.0.0.1:8501", "photos", 3, Path("runs/photos/export"))


def test_serve_says_where_it_listens_and_how_to_stop_it(replace):
    prepared = replace("serving.serve.prepare_for")
    calls = replace("serving.serve.serve_model")
    calls.act = lambda progress: calls.options["started"](STARTED, None)
    done = kerasft("serve runs/photos --port 8501 --host ::1 --token-file t.txt --name pets")
    assert (done.exit_code, done.stderr) == (0, "Stopped.\n")
    assert done.stdout == (
        "Serving version 3 of runs/photos/export as 'photos'.\n"
        "  http://127.0.0.1:8501/ is a page for people,\n"
        "  http://127.0.0.1:8501/v1/models/photos:predict TensorFlow Serving's REST API.\n"
        "Ctrl-C stops it.\n"
    )
    assert calls.arguments == prepared.arguments == (Path("runs/photos"),)
    passed = {name: calls.options[name] for name in ("port", "host", "token_file", "name")}
    assert passed == {"port": 8501, "host": "::1", "token_file": Path("t.txt"), "name": "pets"}
    assert json.loads(kerasft("serve runs/photos --json").stdout) == {
        "url": "http://127.0.0.1:8501",
        "name": "photos",
        "version": 3,
        "folder": "runs/photos/export",
    }


RATE = {
    "run": "runs/my photos",
    "phase": "unfreeze",
    "blocks": 3,
    "from_start": False,
    "steps": 100,
    "suggested": 0.00025,
    "rates": [1e-7],
    "losses": [0.5],
    "changes": [0.0],
    "smoothed": [0.0],
    "plot": "runs/my photos/find-lr.png",
    "csv": "runs/my photos/find-lr.csv",
}


def test_find_lr_says_the_rate_and_the_command_that_takes_it(replace):
    calls = replace("training.find_lr.find_rate", RATE)
    done = kerasft("find-lr 'runs/my photos' --blocks 3 --batch-size 8 --steps 60 --data moved")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        "Suggested learning rate for phase unfreeze: 0.00025, where the loss falls fastest. A "
        "lower one is safer: for many epochs, use a third of it.\n"
        "Plot: runs/my photos/find-lr.png\n"
        "\n"
        "Next:\n"
        "  kerasft unfreeze-and-continue 'runs/my photos' --blocks 3 --learning-rate 0.00025\n"
    )
    assert calls.options["flags"] == {"phases.-1.blocks": 3, "phases.-1.batch_size": 8}
    assert (calls.options["steps"], calls.options["data"]) == (60, "moved")
    assert json.loads(kerasft("find-lr r --json").stdout) == RATE


def test_find_lr_from_the_start_is_about_the_first_phase(replace):
    calls = replace("training.find_lr.find_rate", {**RATE, "from_start": True, "blocks": "all"})
    done = kerasft("find-lr runs/photos --all --from-start")
    assert calls.options["flags"] == {"phases.0.blocks": "all"}
    assert done.stdout.endswith("Next:\n  kerasft train ... --learning-rate 0.00025\n")


def test_find_lr_without_a_fall_suggests_nothing(replace):
    replace("training.find_lr.find_rate", {**RATE, "suggested": None})
    assert kerasft("find-lr runs/photos").stdout == (
        "No learning rate from 1e-07 to 1 lowers the loss of phase unfreeze much within 100 steps: "
        "there is little left to learn. Keep the default.\n"
        "Plot: runs/my photos/find-lr.png\n"
    )


# what goes where


@pytest.mark.parametrize("exit_code", [1, 2])
def test_an_error_for_people_is_one_message_with_its_exit_status(replace, exit_code):
    error = UserError("photos: is empty.", exit_code=exit_code)
    replace("training.train.train_run", act=raising(error))
    done = kerasft("train --data photos --json")
    assert done.exit_code == exit_code
    assert done.stderr == "Error: photos: is empty.\n"
    assert done.stdout == ""


def test_a_bug_keeps_its_traceback(replace):
    replace("training.train.train_run", act=raising(ZeroDivisionError("a bug")))
    assert isinstance(kerasft("train --data photos").exception, ZeroDivisionError)


def test_progress_the_log_and_stray_prints_stay_off_stdout(replace):
    def act(progress):
        progress(Event("images", 36, 36))
        figures = {"blocks": 0, "trainable_parameters": 771, "epochs": 2}
        progress(Event("phase", 0, 1, "head", figures))
        print("Downloading data")
        logging.getLogger("kerasft").info("The GPU is used.")
        logging.getLogger("kerasft.source").warning("a.jpg is in two classes.")

    replace("training.train.train_run", RESULT, act)
    done = kerasft("train --data photos --json")
    assert json.loads(done.stdout) == RESULT
    assert done.stderr == (
        "36 images read\n"
        "head: training the head, 771 parameters, up to 2 epochs\n"
        "Downloading data\n"
        "The GPU is used.\n"
        "Warning: a.jpg is in two classes.\n"
    )


def interrupt_after_writing(path):
    def act(progress):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("seed = 1\n")
        raise KeyboardInterrupt

    return act


def test_ctrl_c_names_the_command_that_resumes_training(replace):
    replace("training.train.train_run", act=interrupt_after_writing("my run/config.toml"))
    done = kerasft("train --data photos --run 'my run'")
    assert done.exit_code == 130
    assert done.stderr == "\nInterrupted. Continue with: kerasft train --run 'my run' --resume\n"


def test_ctrl_c_names_the_command_that_resumes_an_unfreeze(replace):
    replace("training.train.continue_run", act=interrupt_after_writing("runs/a/config.toml"))
    done = kerasft("unfreeze-and-continue runs/a")
    assert done.exit_code == 130
    again = "kerasft unfreeze-and-continue runs/a --resume"
    assert done.stderr == f"\nInterrupted. Continue with: {again}\n"


def test_ctrl_c_before_anything_was_written_offers_no_resume(replace):
    replace("training.train.train_run", act=raising(KeyboardInterrupt))
    done = kerasft("train --data photos")
    assert done.exit_code == 130
    assert done.stderr == (
        "\nInterrupted. Nothing was trained yet: start again with the same command.\n"
    )


def test_ctrl_c_while_predicting_says_only_that(replace):
    replace("evaluation.predict.predict", act=raising(KeyboardInterrupt))
    done = kerasft("predict runs/photos a.jpg")
    assert (done.exit_code, done.stderr) == (130, "\nInterrupted.\n")


# help


COMMANDS = [
    "blocks",
    "calibrate",
    "check",
    "compare",
    "diff",
    "drift",
    "evaluate",
    "explain",
    "export",
    "fields",
    "find-lr",
    "guide",
    "backbones",
    "import-caffe",
    "import-torch",
    "predict",
    "report",
    "review",
    "runs",
    "sample-data",
    "serve",
    "train",
    "unfreeze-and-continue",
    "update",
]
REVIEW = Review(
    run=Path("runs/photos"),
    inbox=Path("inbox"),
    table=Path("inbox/review.csv"),
    page=Path("inbox/review.html"),
    classes=("bee", "wasp"),
    photos=(
        ReviewPhoto("a.jpg", "bee", 0.9, "looks like none of the training photos", True),
        ReviewPhoto("more/b.jpg", "bee", 0.5, "unsure: bee 0.50, wasp 0.47", False),
    ),
    n=9,
    asked_before=1,
    copies=("inbox/c.jpg",),
    errors=(PhotoFile("inbox/d.jpg", "is empty"),),
    suspects=(LabelSuspect("wasp/1.jpg", "wasp", "bee", 0.08),),
    unchecked="",
)
PAGE = RunReport(Path("runs/photos/report.html"), "validation", 0.95, 812_345, 12.3)
CHECKED = Checked(1, (), (), (), (), (), (), {"bee": 1}, (), (), (), "", "")
COMPARISON = ComparisonResult(
    ways=(),
    left_out=(),
    winner=None,
    corrected=None,
    advice="Take svm.",
    classes=("bee",),
    images={"train": 1, "validation": 1, "test": 1},
    pass_seconds=0.0,
    mapping=(),
    curves={},
    out=Path("compare/photos"),
    kept=None,
)
LISTED = ListedRun(Path("a"), "MobileNetV2", "photos", "head", None, None, "", "finished")
DIFFERENT = RunDiff(
    (LISTED, LISTED), (), (), PhotosDiff(1, 1, 1, 0, 0, (0, 0)), None, "a has no figures on test."
)
UPDATED = Update(
    old=Path("runs/a"),
    changes=Changes(
        kept=36,
        new=16,
        gone=1,
        dropped=0,
        relabelled=2,
        classes=(
            ClassChange("pet", ("cat", "dog"), {"train": 20, "validation": 4, "test": 4}, 6),
            ClassChange("owl", (), {"train": 8, "validation": 1, "test": 1}, 10),
            ClassChange("hen", ("chicken",), {"train": 8, "validation": 3, "test": 3}, 0),
        ),
        gone_classes=("fly",),
    ),
    start="imagenet",
    phases=("head",),
    run=RunResult.of(Path("runs/a-2"), RECORD),
    effect=Effect(
        n=7,
        before=5,
        after=6,
        only_before=0,
        only_after=1,
        p=1.0,
        relabelled=1,
        classes=(ClassEffect("pet", 4, 2, 4), ClassEffect("hen", 3, 3, 2)),
        new_classes=(NewClass("owl", 1, 1, (0.2065, 1.0)),),
    ),
)
IMPORTED = Imported("CaffeNet", Path("net.h5"), 1, 1, True, (), ())
DRIFT = Drift(
    run=Path("runs/photos"),
    inbox=Path("inbox"),
    shifted=True,
    level=0.01,
    overall=Outcome(0.02, 0.0005, True),
    looks=Outcome(0.02, 0.001, True),
    shares=Outcome(1.5, 0.25, False),
    classes=(
        ClassDrift("bee", 57, 0.94, 0.5, 0.0002, 0.0004, True),
        ClassDrift("dragonfly", 3, 0.06, 0.5, None, None, False),
    ),
    photos=(
        DriftPhoto("inbox/a.jpg", "bee", 0.068, 0.2, False),
        DriftPhoto("inbox/b.jpg", "bee", 0.01, 0.61, True),
    ),
    n=60,
    tested=60,
    known=277,
    drawn=200,
    novel=1,
    copies=("inbox/c.jpg",),
    errors=(PhotoFile("inbox/d.jpg", "is empty"),),
    lacking="",
    permutations=1999,
    seed=0,
)
GROUPS = ["cache"]  # its commands are tested in test_cli_tables.py


def examples(command):
    text = click.Context(main if command is None else main.commands[command]).command.help
    _, _, after = text.partition("Example:\n")
    return [line.strip() for line in after.splitlines() if line.strip()]


def test_report_says_where_the_page_is_and_shows_it_when_asked(replace, monkeypatch):
    shown = []
    monkeypatch.setattr(click, "launch", shown.append)
    calls = replace("evaluation.report.report_run", PAGE)
    done = kerasft("report runs/photos --split test --to a.html")
    assert (done.exit_code, done.stdout) == (
        0,
        "runs/photos/report.html: 812.3 kB, mistakes on validation, accuracy 0.950\n",
    )
    assert calls.arguments == (Path("runs/photos"),)
    assert (calls.options["split"], calls.options["to"]) == ("test", Path("a.html"))
    assert shown == []
    kerasft("report runs/photos --open")
    assert shown == [Path("runs/photos/report.html").resolve().as_uri()]


def test_diff_prints_what_differs_or_json(replace):
    calls = replace("reports.diff.diff_runs", DIFFERENT)
    done = kerasft("diff runs/a runs/b")
    assert (done.exit_code, done.stdout) == (
        0,
        "accuracy    a  a\n"
        "validation  -  -\n"
        "test        -  -\n\n"
        "Settings: the same.\n\n"
        "Versions and device: the same.\n\n"
        "Photos: the same 1, with the same labels and splits.\n\n"
        "No comparison on test photos: a has no figures on test.\n",
    )
    assert calls.arguments == (Path("runs/a"), Path("runs/b"))
    answer = json.loads(kerasft("diff runs/a runs/b --json").stdout)
    assert list(answer) == ["runs", "config", "versions", "photos", "test", "why"]
    assert answer["photos"]["test_trained_on"] == [0, 0]


def test_update_says_what_has_changed_and_what_was_forgotten_first(replace):
    calls = replace("updating.update.update_run", UPDATED)
    options = "--data photos --add new --rename 'a=b=c' --merge '\"x, y\",dog=pet' --divide d=parts"
    done = kerasft(f"update runs/a {options} --drop fly --set seed=1")
    assert (done.exit_code, done.stdout) == (
        0,
        "36 photos of runs/a kept, 2 of them with another label, 16 new, 1 gone.\n"
        "pet is made of cat, dog.\n"
        "owl is a new class of 10 photos.\n"
        "hen was called chicken.\n"
        "fly is no class any more.\n\n"
        "Test accuracy 0.900 (95% interval 0.769 to 0.960, 40 images)\n"
        "Kept: phase head, epoch 1 of 6 (validation 0.950); frozen weights unchanged\n"
        "Run: runs/a-2, 0:00. Next: kerasft unfreeze-and-continue runs/a-2\n\n"
        "On 7 old test photos the old model has 5 right (0 alone), the new one 6 (1 alone): the "
        "difference may well be chance (p = 1, McNemar).\n"
        "1 old test photo has another label now and is not counted.\n\n"
        "class  photos  before    now\n"
        "hen         3   1.000  0.667\n"
        "pet         4   0.500  1.000\n\n"
        "new class  photos  right  95% interval\n"
        "owl             1  1.000  0.206 to 1.000\n",
    )
    assert calls.arguments == (
        Path("runs/a"),
        Path("runs/a-2"),
        Asked(
            data="photos",
            added=("new",),
            rename={"a=b": "c"},
            merge={"pet": ["x, y", "dog"]},
            divide={"d": "parts"},
            drop=("fly",),
        ),
    )
    assert (calls.options["sets"], calls.options["resume"]) == (("seed=1",), False)
    answer = json.loads(kerasft("update runs/a --json --run b").stdout)
    shown = ["old", "changes", "start", "phases", "run", "effect", "why", "photos_gone"]
    assert list(answer) == shown
    assert calls.arguments[1] == Path("b")


def test_update_says_that_photos_are_gone_and_does_not_send_to_a_phase_that_needs_them(replace):
    calls = replace("updating.update.update_run", dataclasses.replace(UPDATED, photos_gone=True))
    done = kerasft("update runs/a --add new --photos-gone")
    assert done.exit_code == 0
    assert done.stdout.startswith(
        "36 photos of runs/a, by what it has kept of them, 2 of them with another label, 16 new, "
    )
    assert "\nRun: runs/a-2, 0:00. Next: kerasft export runs/a-2\n" in done.stdout
    assert calls.arguments[2] == Asked(added=("new",), photos_gone=True)


def test_update_refuses_what_it_cannot_read():
    for line, message in {
        "--rename a": "--rename: expected A=B, got 'a'.",
        "--merge a,b=": "--merge: expected A,B=C, got 'a,b='.",
        "--divide =x": "--divide: expected A=SRC, got '=x'.",
        "--resume": "--resume needs --run DIR, the run to continue.",
        "": "runs/a: no such directory.",
    }.items():
        done = kerasft(f"update runs/a {line}")
        assert (done.exit_code, done.stderr) == (2, f"Error: {message}\n")


def test_review_names_the_photos_the_page_and_the_next_command(replace):
    calls = replace("checking.review.review_run", REVIEW)
    done = kerasft("review runs/photos inbox --n 2")
    assert (done.exit_code, done.stdout) == (
        0,
        "2 of 9 new photos chosen for runs/photos\n"
        "1 photo has been labelled or left out in an earlier table.\n\n"
        "Worth a look (2):\n"
        "  a.jpg: looks like none of the training photos\n"
        "  more/b.jpg: unsure: bee 0.50, wasp 0.47\n\n"
        "Copies of the run's photos or of other new ones, left out (1):\n"
        "  inbox/c.jpg\n\n"
        "Cannot be read (1):\n"
        "  inbox/d.jpg: is empty\n\n"
        "Labels of the run's own photos that may be wrong (1):\n"
        "  wasp/1.jpg: wasp, or rather bee? (quality 0.08)\n\n"
        "Label them in a browser:        inbox/review.html\n"
        "Save what it gives in place of: inbox/review.csv\n\n"
        "Next:\n"
        "  kerasft update runs/photos --add inbox/review.csv\n",
    )
    assert calls.arguments == (Path("runs/photos"), Path("inbox"))
    assert calls.options["n"] == 2
    done = kerasft("review runs/photos inbox --json")
    assert json.loads(done.stdout)["photos"][1] == {
        "path": "more/b.jpg",
        "guess": "bee",
        "score": 0.5,
        "why": "unsure: bee 0.50, wasp 0.47",
        "novel": False,
    }
    assert calls.options["n"] == 60


def test_drift_says_what_has_shifted_and_exits_with_3(replace):
    calls = replace("evaluation.drift.drift_run", DRIFT)
    done = kerasft("drift runs/photos inbox")
    assert (done.exit_code, done.stdout) == (
        3,
        "60 new photos, compared with 277 training photos of runs/photos\n\n"
        "The photos have shifted: p 0.0005; p up to 0.005 counts.\n"
        "  They look different within their classes (p 0.0010).\n"
        "  That their classes have other shares is not shown (p 0.2500).\n\n"
        "class      photos  share  in training  p of looks\n"
        "bee            57   0.94         0.50      0.0004  shifted\n"
        "dragonfly       3   0.06         0.50     too few\n\n"
        "Most like the new photos and least like training ones (2):\n"
        "  inbox/a.jpg: bee, by 0.068\n"
        "  inbox/b.jpg: bee, by 0.010\n\n"
        "Unlike all training photos, by the distance to the nearest (1):\n"
        "  inbox/b.jpg: 0.61\n\n"
        "Copies of training photos or of other new ones, not counted (1):\n"
        "  inbox/c.jpg\n\n"
        "Cannot be read, not counted (1):\n"
        "  inbox/d.jpg: is empty\n",
    )
    assert calls.arguments == (Path("runs/photos"), Path("inbox"))
    done = kerasft("drift runs/photos inbox --json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["classes"][1]["p"] is None


def test_drift_says_that_one_class_alone_has_shifted(replace):
    few = dataclasses.replace(DRIFT, overall=Outcome(0.0, 0.24, False))
    replace("evaluation.drift.drift_run", few)
    done = kerasft("drift runs/photos inbox")
    assert (done.exit_code, done.stdout.splitlines()[2]) == (
        3,
        "Some classes have shifted (below). All photos: p 0.2400; p up to 0.005 counts.",
    )


def test_drift_without_a_shift_exits_with_0_and_lists_no_photos_that_differ(replace):
    same = dataclasses.replace(
        DRIFT,
        shifted=False,
        overall=Outcome(0.0, 0.4, False),
        classes=DRIFT.classes[1:],
        tested=40,
        copies=(),
        errors=(),
        lacking="With 12 photos, only a large shift is found.",
    )
    replace("evaluation.drift.drift_run", same)
    done = kerasft("drift runs/photos inbox")
    assert (done.exit_code, done.stdout) == (
        0,
        "60 new photos (40 of them drawn for the tests), compared with 277 training\n"
        "photos of runs/photos\n\n"
        "No shift is shown: p 0.4000; only p up to 0.005 counts as one.\n"
        "With 12 photos, only a large shift is found.\n\n"
        "class      photos  share  in training  p of looks\n"
        "dragonfly       3   0.06         0.50     too few\n\n"
        "Unlike all training photos, by the distance to the nearest (1):\n"
        "  inbox/b.jpg: 0.61\n",
    )


def test_there_are_these_commands():
    assert sorted(main.commands) == sorted(COMMANDS + GROUPS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example_and_every_option(command):
    assert examples(command)
    for parameter in main.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_sigterm_ends_a_command_by_what_it_has_to_clean_up():
    code = (
        "import os, signal\n"
        "from kerasft.cli.main import main\n"
        "@main.command()\n"
        "def nap():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "main(['nap'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("cleaned up\n", "", 143)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_the_examples_of_the_help_run(command, replace):
    replace("training.train.train_run", RESULT)
    replace("training.train.continue_run", RESULT)
    replace("evaluation.evaluate.evaluate_run", REPORT)
    replace("evaluation.predict.predict", PREDICTIONS[:1])
    replace("evaluation.drift.drift_run", dataclasses.replace(DRIFT, shifted=False))
    replace("checking.review.review_run", REVIEW)
    replace("evaluation.explain.explain", EXPLANATIONS[:1])
    replace("evaluation.report.report_run", PAGE)
    replace("evaluation.calibrate.calibrate_run", CALIBRATED)
    replace("export.export.export_run", EXPORT)
    replace("serving.serve.prepare_for")
    replace("serving.serve.serve_model")
    replace("training.find_lr.find_rate", RATE)
    replace("checking.check.check_photos", CHECKED)
    replace("compare.compare.compare_ways", COMPARISON)
    replace("reports.diff.diff_runs", DIFFERENT)
    replace("updating.update.update_run", UPDATED)
    replace("importers.caffe.import_caffe", IMPORTED)
    replace("importers.torchvision.import_torch", IMPORTED)
    replace("sample.draw.draw_sample", Sample(Path("flowers"), 0, 5, {"lily": 5}))
    Path("photos").mkdir()
    Path("runs").mkdir()
    for line in examples(command):
        program, _, rest = line.partition(" ")
        assert program == "kerasft"
        done = kerasft(rest)
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_print_json(command):
    assert "as_json" in [parameter.name for parameter in main.commands[command].params]


def test_the_version_is_the_one_of_the_package():
    from kerasft import __version__

    assert kerasft("--version").stdout == f"kerasft, version {__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_help_is_the_one_that_is_kept():
    kept = {path.stem: path.read_text("utf-8") for path in cli_reference.GOLDEN.glob("*.txt")}
    assert cli_reference.help_pages() == kept, "run: python scripts/cli_reference.py"


# the real commands, one after the other, on drawn photos

SMALL = "--weights none --image-size 32 --batch-size 8"


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The folder in which all commands have run, and what each of them ended with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Tiny", TINY)
        patch.setattr(keras.applications, "Tiny", tiny_constructor, raising=False)
        folder = tmp_path_factory.mktemp("walk")
        patch.chdir(folder)
        yield folder, run_all_commands(folder)


def run_all_commands(folder):
    draw_photos(folder / "photos")
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return {
        "train": kerasft(f"train --data photos --run run --backbone Tiny {SMALL} --epochs 2"),
        "again": kerasft("train --data photos --run run"),
        "trained": kerasft("train --run run --resume --json"),
        "unfreeze": kerasft("unfreeze-and-continue run --blocks 2 --epochs 1"),
        "unfrozen": kerasft("train --run run --resume --json"),
        "evaluate": kerasft("evaluate run --split validation --json"),
        "table": kerasft("evaluate run/model.keras --data photos"),
        "predict": kerasft("predict run photos/cross broken.jpg --top 2 --json"),
        # The proof of a SavedModel takes half a minute; export/test_savedmodel.py has it.
        "export": kerasft("export run --format keras --json"),
        "use": kerasft("predict run/export-keras/1 photos/cross/cross-000.png --top 2 --json"),
    }


def answer(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_train_leaves_a_run_that_its_json_describes(walk):
    folder, done = walk
    result = answer(done["trained"])
    assert result["run"] == "run"
    assert [phase["name"] for phase in result["phases"]] == ["scratch"]
    phase = result["phases"][0]
    assert phase["epochs"] == 2
    assert phase["frozen_proof"] == "equal"
    assert result["validation"]["n"] == 6  # 15% of 12, rounded, for each of 3 classes
    assert result["test"]["n"] == 6
    low, high = result["test"]["ci95"]
    assert 0 <= low <= result["test"]["accuracy"] <= high <= 1
    run = folder / "run"
    assert (run / "classes.txt").read_text() == "circle\ncross\nstripes\n"
    assert len((run / "splits.csv").read_text().splitlines()) == 1 + 36
    best = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert best[phase["best_epoch"] - 1]["val_loss"] == phase["val_loss"]
    assert load_config(run / "config.toml").model.backbone == "Tiny"


def test_progress_of_a_real_training_is_a_row_per_epoch(walk):
    lines = walk[1]["train"].stderr.splitlines()
    assert lines[0] == "36 images read"
    assert lines[1] == "class     train  validation    test"
    assert lines[2] == "circle        8           2       2"
    assert re.match(r"scratch: training the head and 3 blocks, [1-9][\d,]+ parameters", lines[5])
    epochs = [line.split() for line in lines if line.startswith("scratch  ")]
    assert [cells[:2] for cells in epochs] == [["scratch", "1/2"], ["scratch", "2/2"]]
    assert [len(cells) - cells.count("best") for cells in epochs] == [9, 9]
    header = "phase epoch loss accuracy val loss val accuracy rate images/s left"
    assert [" ".join(line.split()) for line in lines].count(header) == 1


def test_a_run_that_exists_is_refused_with_the_option_that_goes_on(walk):
    done = walk[1]["again"]
    assert done.exit_code != 0
    assert done.stderr.startswith("Error: run already holds a")
    assert "--resume" in done.stderr
    assert done.stdout == ""


def test_resuming_a_finished_run_says_so_and_ends_with_0(walk):
    done = walk[1]["trained"]
    assert done.exit_code == 0
    assert "run is finished" in done.stderr
    assert answer(done)["validation"]["n"] == 6


SESSION = cli_reference.GOLDEN.parent / "session.txt"


def test_a_session_reads_as_the_one_that_is_kept(walk):
    seen = ""
    for name in ("train", "unfreeze", "table"):
        assert walk[1][name].exit_code == 0, walk[1][name].stderr
        seen += f"$ {name}\n{without_figures(walk[1][name].stderr + walk[1][name].stdout)}\n"
    if os.environ.get("WRITE_GOLDEN"):
        SESSION.write_text(seen, "utf-8", newline="\n")
    assert seen == SESSION.read_text("utf-8"), "run it with WRITE_GOLDEN=1 in the environment"


def without_figures(text):
    """What a machine prints, without its figures and what depends on how fast it is."""
    text = re.sub(r"\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?", "#", text)
    text = re.sub(r"  best$", "", text, flags=re.MULTILINE)
    text = re.sub(" +#", " #", text)  # columns are as wide as their figures
    text = re.sub(r"Kept: phase \w+", "Kept: phase ...", text)
    text = re.sub(", mixed with the start of the phase, alpha #", "", text)
    varies = re.compile(
        ".* will take about #$|Phase unfreeze did not improve validation|.*never predicted on"
    )
    return "".join(f"{line}\n" for line in text.splitlines() if not varies.match(line))


def test_unfreeze_and_continue_appends_its_phase_to_the_run(walk):
    folder, done = walk
    result = answer(done["unfrozen"])
    assert [phase["name"] for phase in result["phases"]] == ["scratch", "unfreeze"]
    assert result["phases"][1]["frozen_proof"] == "equal"
    assert result["phases"][1]["improved"] in (True, False)
    config = load_config(folder / "run" / "config.toml")
    assert [(phase.name, phase.epochs) for phase in config.phases] == [
        ("scratch", 2),
        ("unfreeze", 1),
    ]
    assert config.phases[1].blocks == 2


def test_evaluate_gives_the_figures_that_training_reported(walk):
    report = answer(walk[1]["evaluate"])
    assert set(report) == {
        *("split", "n", "accuracy", "ci95", "top5", "macro_f1", "loss", "ece"),
        *("per_class", "confusion", "without_near_copies", "answered", "out_of_fold"),
    }
    run = answer(walk[1]["unfrozen"])
    trained = run["validation"]
    assert run["calibration"]["temperature"] == 1  # else the loss would not be the one trained for
    assert report["n"] == 6
    assert report["accuracy"] == trained["accuracy"]
    assert report["loss"] == pytest.approx(trained["loss"], rel=1e-5)  # other batches, other sums


def test_evaluate_of_a_model_file_is_a_table_with_all_classes(walk):
    done = walk[1]["table"]
    assert done.exit_code == 0, done.stderr
    for name in ("circle", "cross", "stripes"):
        assert name in done.stdout


def test_predict_goes_on_behind_a_broken_file(walk):
    done = walk[1]["predict"]
    assert done.exit_code == 1
    results = json.loads(done.stdout)
    assert len(results) == 13
    assert [result["file"] for result in results if "error" in result] == ["broken.jpg"]
    for result in results[:12]:
        assert [set(best) for best in result["predictions"]] == [{"label", "score"}] * 2


def test_the_export_agrees_and_predicts_the_same(walk):
    folder, done = walk
    result = answer(done["export"])
    assert (folder / "run" / "export-keras" / "1" / "classifier.keras").is_file()
    assert result["max_abs_diff"] < 1e-4
    assert result["top1_agreement"] == 1.0
    exported = answer(done["use"])[0]["predictions"]
    own = json.loads(done["predict"].stdout)[0]["predictions"]
    assert [best["label"] for best in exported] == [best["label"] for best in own]
    assert [best["score"] for best in exported] == pytest.approx(
        [best["score"] for best in own],
        abs=1e-5,  # float32, other kernels
    )


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_training_and_then_the_command_it_names(photos):
    program = [sys.executable, "-m", "kerasft"]
    command = (
        f"train --data {photos} --run run --backbone MobileNet:alpha=0.25 {SMALL} --epochs 20 "
        "--set phases.0.patience=0"
    )
    environment = {**os.environ, "PYTHONPATH": str(cli_reference.ROOT)}
    process = subprocess.Popen(
        [*program, *shlex.split(command)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A test run in the background (`nohup`) ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.split()[:2] == ["scratch", "2/20"]:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert rest.endswith("\nInterrupted. Continue with: kerasft train --run run --resume\n")
    assert "Traceback" not in rest
    resumed = kerasft("train --run run --resume --json")
    assert answer(resumed)["phases"][0]["epochs"] == 20
    assert " 1/20 " not in resumed.stderr
