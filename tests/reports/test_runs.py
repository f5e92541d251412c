"""Runs are listed from their records: figures, state, and how an interrupted one goes on."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from run_records import RECORD

from kerasft.cli.compare import runs_text
from kerasft.config.load import append_phase, load_config, to_toml
from kerasft.errors import UserError
from kerasft.reports.runs import list_runs
from kerasft.run import create_run, write_record

MADE = 1_767_323_045  # 2026-01-02 03:04:05 UTC


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")


def put(path, record=RECORD, *, phases=1):
    run = create_run(Path(path), resume=False)
    config = load_config(None, flags={"data.source": "photos/insects"})
    for _ in range(phases - 1):
        config = append_phase(config)
    run.config_path.write_text(to_toml(config, run.path))
    write_record(run, record)
    os.utime(run.record_path, (MADE, MADE))
    return run


def test_runs_are_listed_with_figures_and_states_and_what_goes_on():
    put("runs/a")
    bare = replace(RECORD, status="running", phases=(), best_phase=None, validation=None, test=None)
    put("runs/deep/er/b", bare)
    put("runs/c", phases=2)  # killed after the second phase was written into the config
    (put("runs/d").config_path).write_text("model = ")
    (put("runs/e").record_path).write_text("{")
    os.utime("runs/e/run.json", (MADE, MADE))
    put("runs/f", replace(RECORD, status="running"))
    with FileLock("runs/f/.lock"):
        found = list_runs()
    text = runs_text(found, Path("runs")).splitlines()
    assert all(line.endswith("  2026-01-02 03:04") for line in text[1:7])
    assert [line.removesuffix("2026-01-02 03:04").rstrip() for line in text[:7]] == [
        "run             backbone     photos    validation         test  state        date",
        "runs/a          MobileNetV2  insects  0.950 of 60  0.900 of 40  finished",
        "runs/c          MobileNetV2  insects  0.950 of 60  0.900 of 40  interrupted",
        "runs/d          ?            ?        0.950 of 60  0.900 of 40  damaged",
        "runs/deep/er/b  MobileNetV2  insects                            interrupted",
        "runs/e          MobileNetV2  insects                            damaged",
        "runs/f          MobileNetV2  insects  0.950 of 60  0.900 of 40  running",
    ]  # fmt: skip
    assert text[7:9] == [
        "",
        "runs/c is interrupted. Go on: kerasft train --run runs/c --resume",
    ]
    assert text[9].startswith("runs/d is damaged: runs/d/config.toml")
    assert (
        "runs/deep/er/b is interrupted. Go on: kerasft train --run runs/deep/er/b --resume" in text
    )
    assert text[-1].startswith("runs/e is damaged: runs/e/run.json")


def test_a_run_that_is_named_is_listed_alone_and_json_has_numbers():
    put("runs/a")
    put("runs/b")
    [one] = list_runs("runs/a")
    assert json.loads(json.dumps(one.to_json())) == {
        "path": "runs/a",
        "backbone": "MobileNetV2",
        "data": "insects",
        "best_phase": "head",
        "validation": {"accuracy": 0.95, "n": 60},
        "test": {"accuracy": 0.9, "n": 40},
        "date": "2026-01-02 03:04",
        "state": "finished",
        "problem": "",
    }


def test_trials_of_a_comparison_and_hidden_folders_are_no_runs():
    put("out/winner")
    put("out/runs/trial")
    Path("out/entries").mkdir()
    put("out/.old/run")
    assert [str(one.path) for one in list_runs("out")] == ["out/winner"]
    Path("out/entries").rmdir()  # the control
    assert [str(one.path) for one in list_runs("out")] == ["out/runs/trial", "out/winner"]


def test_a_folder_without_runs_is_said_and_one_that_is_absent_is_refused():
    Path("runs").mkdir()
    assert runs_text(list_runs(), Path("runs")) == "No runs in runs."
    with pytest.raises(UserError, match=r"nowhere: no such directory\.") as caught:
        list_runs("nowhere")
    assert caught.value.exit_code == 2
