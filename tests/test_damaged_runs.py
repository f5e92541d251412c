"""Damaged and hostile files of a run: read as what they are, or refused in plain text."""

import json
from pathlib import Path

import numpy as np
import pytest
from damaged import FEW, Place, cases, damaged, documents, prove, survives

from kerasft import run
from kerasft.metrics import Answers
from kerasft.record import RunRecord
from kerasft.reports.runs import ListedRun, list_runs
from kerasft.run import Run, open_run, read_answers, read_metrics, read_record, write_answers

OLD = Path(__file__).with_name("old_runs")
RECORDS = [json.loads(path.read_text()) for path in sorted(OLD.glob("*/*/run.json"))]
METRICS = [path.read_bytes() for path in sorted(OLD.glob("*/*/metrics.jsonl"))]
ROWS = [json.loads(line) for content in METRICS for line in content.splitlines()]


@pytest.fixture
def place(tmp_path):
    place = Place.of(tmp_path, run.RECORD)
    list_runs(place.path.parent)  # imports what it needs
    return place


@cases
def test_a_damaged_run_json_is_a_record_or_one_refusal(number, place):
    of_run = Run(place.path.parent)

    def check(content):
        found = survives(place, content, lambda: read_record(of_run), RunRecord)
        if isinstance(found, RunRecord):  # then it can be written again, and goes on
            json.dumps(found.to_json()).encode()
            found.machine.to_text()
        survives(place, content, lambda: open_run(place.path.parent), Run)

    prove(number, documents(*RECORDS), check)


@cases
def test_a_folder_with_damaged_runs_can_be_listed(number, place):
    config = place.path.with_name(run.CONFIG)
    config.write_bytes((OLD / "858f120" / "head" / run.CONFIG).read_bytes())

    def is_listed(listed):
        (one,) = listed
        return isinstance(one, ListedRun) and bool(json.dumps([one.to_json()]).encode())

    def check(content):
        survives(place, content, lambda: list_runs(place.path.parent), is_listed)

    prove(number, documents(*RECORDS), check)


@cases
def test_damaged_metrics_are_rows_of_figures_or_one_refusal(number, tmp_path):
    place = Place.of(tmp_path, run.METRICS)

    def are_rows(rows):
        return all(
            type(row["phase"]) is str and f"{row['val_loss']:.2f}{row['accuracy']:.2f}"
            for row in rows
        )

    def check(content):
        survives(place, content, lambda: read_metrics(Run(place.path.parent)), are_rows)

    one_line = documents(*ROWS).map(lambda text: b" ".join(text.splitlines()) + b"\n" + METRICS[0])
    prove(number, one_line | damaged(*METRICS), check)


def answers(folder):
    random = np.random.default_rng(0)
    many = {
        name: Answers(random.random((3, 8), "f4"), random.random((3, 8)) > 0.5)
        for name in ("head", "unfrozen")
    }
    write_answers(folder / "good.npz", many)
    return (folder / "good.npz").read_bytes()


@cases
def test_damaged_answers_are_arrays_or_nothing(number, tmp_path):
    place, good = Place.of(tmp_path, run.ANSWERS), answers(tmp_path)

    def are_answers(found):
        return all(
            isinstance(one.losses, np.ndarray) and isinstance(one.right, np.ndarray)
            for one in found.values()
        )

    def check(content):
        survives(place, content, lambda: read_answers(place.path), are_answers)

    prove(number, damaged(good), check)
    assert read_answers(tmp_path / "good.npz")["head"].losses.shape == (3, 8)
    assert FEW
