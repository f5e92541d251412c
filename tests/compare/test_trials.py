"""Trials without any training; test_compare.py trains them."""

import json
from types import SimpleNamespace

import pytest

from kerasft.compare.entry import Entry
from kerasft.compare.request import Request, Trial
from kerasft.compare.trials import Comparison, _notes_of, is_made
from kerasft.errors import OutOfTime
from kerasft.progress import Event
from kerasft.record import Solving, Steps


def comparison(tmp_path, deadline, told=None):
    return Comparison(
        tmp_path, Request({}), deadline, told.append if told is not None else lambda _: 0
    )


def test_an_entry_is_made_when_it_is_written_down(tmp_path):
    (tmp_path / "entries").mkdir()
    entry = Entry(Trial(0, 1.0, "VGG16", "knn"), stopped=False)
    path = tmp_path / "entries" / "VGG16-knn-seed0-1.json"
    path.write_text(json.dumps(entry.to_json()))
    made = [is_made(comparison(tmp_path, 0.0), Trial(s, 1.0, "VGG16", "knn")) for s in (0, 1)]
    assert made == [True, False]


@pytest.mark.parametrize(
    ("how", "notes"),
    [
        (Steps(4, 3), ()),
        (Steps(4, 3, "mixed_bfloat16"), ("trained in mixed_bfloat16",)),
        (Solving("svm", {"C": 0.1}, notes=("Too sure.",)), ("Too sure.",)),
    ],
)
def test_a_way_that_was_not_trained_in_float32_says_so(how, notes):
    assert _notes_of(SimpleNamespace(how=how)) == notes


def test_the_end_of_the_budget_ends_what_is_being_trained(tmp_path):
    with pytest.raises(OutOfTime):
        comparison(tmp_path, 0.0).watched(Event("batch", 1, 10))


def test_of_many_trainings_a_bar_is_shown_and_no_line_for_each_epoch(tmp_path):
    told = []
    watched = comparison(tmp_path, float("inf"), told).watched
    for stage in ("images", "phase", "store", "predicted", "pass", "batch", "epoch", "check"):
        watched(Event(stage, 1, 10))
    assert [event.stage for event in told] == ["images", "pass", "batch", "check"]
