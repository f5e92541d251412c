"""Entries and their JSON."""

import json

import numpy as np
import pytest

from kerasft.compare.entry import Entry, SplitResult, TriedSetting
from kerasft.compare.request import Trial
from kerasft.metrics import Figures

# Written by kerasft at 858f120 for a way that tried one setting.
EARLIER = """{"name": "svm", "backbone": "Tiny", "seed": 1, "fraction": 0.5, "stopped": false,
"note": "", "pass_seconds": 0.5, "val_accuracy": 0.5, "val_loss": 0.75, "test_accuracy": 1.0,
"test_loss": 0.25, "macro_f1": 1.0, "seconds": 2.0, "ms_per_image": 4.0, "size_mb": 1.5,
"converged": true, "settings": {"c": 0.01}, "val_right": [1, 0], "test_right": [1, 1, 1],
"classes": 3, "n_test": 3, "run": "runs/Tiny-svm-seed1-0.5", "tried": [{"settings": {"c": 0.01},
"val_accuracy": 0.5, "val_loss": 0.75, "seconds": 2.0, "pass_seconds": 0.5, "converged": true}],
"notes": ["Too sure."], "mapping": []}"""
ENTRY = Entry(
    Trial(1, 0.5, "Tiny", "svm"),
    classes=3,
    validation=SplitResult(Figures(0.5, 0.75, 2), (True, False)),
    test=SplitResult(Figures(1.0, 0.25, 3), (True, True, True)),
    macro_f1=1.0,
    seconds=2.0,
    pass_seconds=0.5,
    ms_per_image=4.0,
    size_mb=1.5,
    converged=True,
    settings={"c": 0.01},
    tried=(TriedSetting({"c": 0.01}, 0.5, 0.75, 2.0, 0.5, True),),
    notes=("Too sure.",),
    run="runs/Tiny-svm-seed1-0.5",
)


def test_an_entry_of_an_earlier_version_is_read_and_written_as_it_was():
    assert Entry.from_json(json.loads(EARLIER)) == ENTRY
    assert ENTRY.to_json() == {**json.loads(EARLIER), "chosen_among": 1}


def test_keys_that_are_missing_or_not_known_do_not_keep_an_entry_from_being_read():
    record = {"name": "as-is", "backbone": "Tiny", "seed": 0, "fraction": 1.0, "colour": "red"}
    assert Entry.from_json(record) == Entry(Trial(0, 1.0, "Tiny", "as-is"))


def test_a_net_that_could_not_be_measured_is_written_without_figures():
    blank = Entry(Trial(0, 1.0, "Tiny", "as-is"), note="1 of 3 classes are in ImageNet")
    record = blank.to_json()
    assert (record["val_accuracy"], record["test_right"], record["n_test"]) == (None, None, None)
    assert Entry.from_json(json.loads(json.dumps(record))) == blank


def test_a_split_is_scored_image_by_image():
    logits = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0]], np.float32)
    result = SplitResult.of(logits, np.array([0, 1, 1]))
    assert result.right == (True, False, True)
    assert (result.figures.accuracy, result.figures.n) == (pytest.approx(2 / 3), 3)
    # twice log(1 + e^-2) and once log 2
    assert result.figures.loss == pytest.approx((2 * 0.126928 + 0.693147) / 3, abs=1e-6)
