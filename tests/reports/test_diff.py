"""Two runs are compared by their files: settings, photos by their bytes, answers on test photos."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from run_records import RECORD, SPLITS, put

from kerasft.cli.compare import diff_text
from kerasft.errors import UserError
from kerasft.metrics import Figures
from kerasft.record import Device
from kerasft.reports.diff import AnswersDiff, PhotosDiff, diff_runs
from kerasft.run import write_record


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_answers_are_compared_on_the_test_photos_that_both_have():
    put("a", wrong=[6, 7, 8, 9, 10, 11])
    put("b", wrong=[12], flags={"seed": 1})
    found = diff_runs("a", "b")
    # 7 answers of 8 differ, six of them for b: 2 * (1 + 7) / 2^7 by the binomial distribution.
    assert found.test == AnswersDiff(n=8, one=2, other=7, only_one=1, only_other=6, p=0.125)
    assert found.photos == PhotosDiff(14, 14, 14, relabelled=0, moved=0, test_trained_on=(0, 0))
    assert [one.to_json() for one in found.config] == [{"name": "seed", "one": 0, "other": 1}]
    assert found.versions == ()
    assert diff_text(found).splitlines() == [
        "accuracy              a            b",
        "validation  0.950 of 60  0.950 of 60",
        "test         0.250 of 8   0.875 of 8",
        "",
        "settings  a  b",
        "seed      0  1",
        "",
        "Versions and device: the same.",
        "",
        "Photos: the same 14, with the same labels and splits.",
        "",
        "On the 8 photos that both have as test photos, a has 2 right (1 alone), b 7 (6 alone): "
        "the difference may well be chance (p = 0.12, McNemar).",
    ]
    assert json.loads(json.dumps(found.to_json()))["test"]["p"] == 0.125


def test_test_photos_that_the_other_run_has_seen_are_counted_and_not_compared():
    put("a", wrong=[13])
    put("b", splits=["test", "train", "train", "train", *SPLITS[4:12], "train", "train"])
    found = diff_runs("a", "b")
    assert found.photos == PhotosDiff(14, 14, 14, relabelled=0, moved=3, test_trained_on=(2, 1))
    assert found.test == AnswersDiff(n=6, one=6, other=6, only_one=0, only_other=0, p=1.0)
    text = diff_text(found)
    assert "2 test photos of a are in the training or validation split of b, so b can't be" in text
    assert "1 test photo of b is in the training or validation split of a, so a can't be" in text
    assert text.endswith("a has 6 right (0 alone), b 6 (0 alone): they are equally good there.")


def test_photos_that_are_used_by_one_run_alone_or_have_another_label_are_counted():
    put("a")
    put("b", names=("ant", "wasp"), splits=[*SPLITS[:13], "unused"])
    found = diff_runs("a", "b")
    assert found.photos == PhotosDiff(14, 13, 13, relabelled=6, moved=0, test_trained_on=(0, 0))
    assert found.test == AnswersDiff(n=4, one=4, other=4, only_one=0, only_other=0, p=1.0)


def test_a_phase_of_one_run_is_one_setting_and_of_both_is_compared_field_by_field():
    put("a", phases=2)
    put("b", versions={"keras": "3.15.0"}, machine=Device("tensorflow", "cpu", "", 8))
    put("c", phases=2, flags={"phases.0.epochs": 3})
    found = diff_runs("a", "b")
    assert [vars(one) for one in found.config] == [
        {"name": "phases.1", "one": "unfreeze", "other": None}
    ]
    assert [vars(one) for one in found.versions] == [
        {"name": "threads", "one": 2, "other": 8},
        {"name": "keras", "one": None, "other": "3.15.0"},
    ]
    assert "settings  a         b\nphases.1  unfreeze  -" in diff_text(found)
    [one] = diff_runs("a", "c").config
    assert (one.name, one.other) == ("phases.0.epochs", 3)


def test_a_run_without_its_answers_or_with_those_of_another_model_says_how_to_get_them():
    put("a")
    old = put("b")
    old.test_path.unlink()
    write_record(put("c"), replace(RECORD, test=Figures(0.5, 0.2, 8)))
    damaged = put("d")
    damaged.test_path.write_text("path\n")
    for name in "bcd":
        found = diff_runs("a", name)
        assert found.test is None
        assert diff_text(found).endswith(
            f"No comparison on test photos: the answers of {name} on its test photos are not in "
            f"it, as in runs of older versions. kerasft evaluate {name} writes them."
        )
    write_record(put("e"), replace(RECORD, test=None))
    assert diff_runs("e", "a").why == "e has no figures on test."


def test_what_is_no_run_is_refused():
    put("a")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"empty is not a run: no run\.json in it\."):
        diff_runs("a", "empty")
    with pytest.raises(UserError, match=r"nowhere: no such directory\.") as caught:
        diff_runs("nowhere", "a")
    assert caught.value.exit_code == 2
