"""Disturbances from outside: other commands meanwhile, flipped bits, a clock that jumps back.

`tests/FAULTS.md` lists all faults with their tests; the last test here reads it.
"""

import ast
import json
import os
import random
import re
import shutil
import time
from pathlib import Path

import pytest
from drawing import draw_photos
from tiny_run import both_phases, weights

from kerasft import cache
from kerasft.activations import eviction
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.predict import predict
from kerasft.export.export import export_run
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tiny_backbone, tmp_path_factory):
    """Photos, and a run of two phases that nothing disturbed."""
    folder = tmp_path_factory.mktemp("faults")
    train_run(both_phases(draw_photos(folder / "photos")), folder / "whole")
    return folder


def same_bits(run, whole):
    return weights(run) == weights(whole) and all(
        (run / name).read_bytes() == (whole / name).read_bytes()
        for name in ("metrics.jsonl", "answers.npz", "test.csv")
    )


@pytest.mark.slow
def test_what_other_commands_do_meanwhile_does_not_disturb_a_run(folder, own_cache):
    config, run = both_phases(folder / "photos"), folder / "disturbed"
    done = []

    def progress(event):
        moment = (event.stage, event.phase, event.done)
        if moment == ("pass", "head", 32):
            eviction.clear(own_cache)
            done.append(moment)
        if moment == ("epoch", "head", 1):
            with pytest.raises(UserError, match="already holds a run"):
                train_run(config, run)
            with pytest.raises(UserError, match="another kerasft process is working in"):
                train_run(config, run, resume=True)
            with pytest.raises(UserError, match="no model yet"):
                export_run(run)
            assert eviction.clear(own_cache)[0] > 0
            done.append(moment)
        if moment == ("epoch", "unfreeze", 1):
            with pytest.raises(UserError, match="another kerasft process is working in"):
                continue_run(run, resume=True)
            assert export_run(run, to=folder / "meanwhile").proof.top1_agreement == 1.0
            assert evaluate_run(run, split="validation").n == 6
            done.append(moment)

    train_run(config, run, progress=progress)
    assert len(done) == 3
    assert same_bits(run, folder / "whole")


@pytest.mark.slow
def test_a_clock_that_jumps_back_a_year_changes_no_bit(folder, own_cache):
    config, run = both_phases(folder / "photos"), folder / "clock"

    def stop(event):
        if (event.stage, event.phase, event.done) == ("epoch", "head", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(config, run, progress=stop)
    later = time.time() + 365 * 24 * 3600
    for path in (*run.rglob("*"), *own_cache.rglob("*"), *(folder / "photos").rglob("*")):
        os.utime(path, (later, later))
    train_run(config, run, resume=True)
    assert same_bits(run, folder / "whole")
    assert json.loads((run / "run.json").read_text())["seconds"] > 0
    stores = eviction.list_stores(cache.cache_folder())
    assert stores
    assert eviction.clear(own_cache)[0] == len(stores)


def answers_of(run, photos):
    """Returns what evaluating and predicting say, or the sentence with which they end."""
    said = []
    for use in (
        lambda: evaluate_run(run, data=photos).to_json(),
        lambda: [one.to_json() for one in predict(run, sorted((photos / "circle").iterdir()))],
    ):
        try:
            said.append(use())
        except UserError as error:
            said.append(str(error))
    return said


TEXTS = ("splits.csv", "classes.txt", "config.toml", "run.json", "metrics.jsonl")
FILES = (*TEXTS, "answers.npz", "model.keras")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_file_of_a_run_is_a_sentence_or_changes_nothing(
    name, folder, tmp_path, caplog
):
    photos, drawn = folder / "photos", random.Random(name)
    whole = answers_of(folder / "whole", photos)
    for _ in range(8):
        caplog.clear()
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "whole", run)
        content = bytearray((run / name).read_bytes())
        content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        (run / name).write_bytes(content)
        for said, expected in zip(answers_of(run, photos), whole, strict=True):
            warned = any(one.levelname == "WARNING" for one in caplog.records)
            assert said == expected or isinstance(said, str) or warned


def test_the_table_of_faults_names_tests_that_exist():
    table = (TESTS / "FAULTS.md").read_text("utf-8")
    named = re.findall(r"`(?:([a-z_0-9/]+\.py)::)?(test_\w+)`", table)
    assert len(named) >= 40
    tests = {
        (str(path.relative_to(TESTS)), node.name)
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    everywhere = {name for _, name in tests}
    assert [
        (path, name)
        for path, name in named
        if (path and (path, name) not in tests) or name not in everywhere
    ] == []


def test_each_row_of_the_table_of_faults_has_a_test():
    rows = [
        line
        for line in (TESTS / "FAULTS.md").read_text("utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| fault", "| ---"))
    ]
    assert [row for row in rows if "`test_" not in row and "::test_" not in row] == []
