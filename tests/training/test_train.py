"""Runs from config to model.keras on drawn photos: equal bits, resume, what is left behind."""

import json
import shutil

import keras
import numpy as np
import pytest
from drawing import draw_photos
from tiny_run import (
    ONE_MORE,
    SECOND,
    both_phases,
    presplit,
    small,
    train_head,
    weights,
    without_seconds,
)

from kerasft.answers import read_labels
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.models import bundle
from kerasft.run import read_answers
from kerasft.training.train import continue_run, plan_run, train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    """The first phase of a small run, and its photos."""
    return train_head(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def whole(trained):
    """Both phases in one `train`."""
    run = trained.folder / "whole"
    return run, train_run(both_phases(trained.photos), run).to_json()


def same_files(one, other, *names):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_run_leaves_what_the_design_says_and_counts_every_image(trained):
    run, result = trained.run, trained.result
    assert sorted(p.name for p in run.iterdir()) == [
        ".lock",
        "answers.npz",
        "classes.txt",
        "config.toml",
        "metrics.jsonl",
        "model.keras",
        "run.json",
        "splits.csv",
        "sums.npz",
        "test.csv",
    ]
    assert (run / "classes.txt").read_text() == "circle\ncross\nstripes\n"
    assert list(result) == [
        "run",
        "seconds",
        "phases",
        "best_phase",
        "validation",
        "calibration",
        "test",
    ]
    assert (result["validation"]["n"], result["test"]["n"]) == (6, 6)  # 2 of 12, three classes
    right = sum(label == predicted for label, predicted in read_labels(run / "test.csv"))
    assert right == round(6 * result["test"]["accuracy"])
    head = result["phases"][0]
    assert (head["name"], head["epochs"], head["frozen_proof"]) == ("head", 2, "equal")
    assert head["trainable_parameters"] == 4 * 3 + 3
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    named = [(line["phase"], line["epoch"]) for line in lines]
    assert named == [("head", 0), ("head", 1), ("head", 2)]  # 0: the solved head
    assert lines[1]["learning_rates"] == {"all": 0.001}
    best = lines[head["best_epoch"]]
    assert (head["train_loss"], head["val_loss"]) == (best["loss"], best["val_loss"])
    assert best["val_loss"] == min(line["val_loss"] for line in lines)
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["seed"], record["test_scored"]) == ("finished", 0, 1)
    assert record["versions"]["keras"] == keras.__version__


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(trained):
    again, other = trained.folder / "again", trained.folder / "other"
    result = train_run(small(trained.photos), again).to_json()
    assert same_files(trained.run, again, "metrics.jsonl", "splits.csv", "config.toml")
    assert without_seconds(result) == without_seconds(trained.result)
    assert weights(again) == weights(trained.run)
    train_run(small(trained.photos, seed=1), other)
    assert not same_files(trained.run, other, "metrics.jsonl")


def test_two_phases_in_one_config_give_the_bits_of_the_two_commands(trained, whole):
    run, result = whole
    two = trained.copy("two-commands")
    second = continue_run(two, flags=SECOND).to_json()
    assert without_seconds(second) == without_seconds(result)
    assert same_files(run, two, "metrics.jsonl", "splits.csv", "config.toml")
    assert weights(run) == weights(two)


def test_a_runs_config_trains_the_same_bits_again(trained, whole):
    again = trained.folder / "from-config"
    train_run(load_config(whole[0] / "config.toml"), again)
    assert weights(again) == weights(whole[0])


class Interrupted(Exception):
    """Stands for Ctrl-C at a chosen place."""


def interrupt_at(*place):
    def progress(event):
        if (event.stage, event.phase, event.done) == place:
            raise Interrupted

    return progress


@pytest.mark.parametrize(
    "place",
    [("epoch", "head", 1), pytest.param(("epoch", "unfreeze", 2), marks=pytest.mark.slow)],
)
def test_an_interrupted_run_resumes_to_the_same_bits(place, trained, whole):
    config = both_phases(trained.photos)
    run = trained.folder / f"interrupted-{place[1]}"
    with pytest.raises(Interrupted):
        train_run(config, run, progress=interrupt_at(*place))
    with pytest.raises(UserError, match="was interrupted before it was finished"):
        continue_run(run, flags={})
    resumed = train_run(config, run, resume=True).to_json()
    assert without_seconds(resumed) == without_seconds(whole[1])
    assert same_files(run, whole[0], "metrics.jsonl", "answers.npz", "config.toml")
    assert weights(run) == weights(whole[0])
    assert not (run / "checkpoints").exists()


def test_what_is_left_of_a_run_that_was_taken_back_is_not_continued(trained):
    run = trained.folder / "taken-back"
    other = small(trained.photos, "phases.0.learning_rate=0.05")
    with pytest.raises(Interrupted):
        train_run(other, run, progress=interrupt_at("epoch", "head", 1))
    (run / "run.json").unlink()  # as by a kill, while a phase that failed was taken back
    train_run(small(trained.photos), run, resume=True)
    assert same_files(run, trained.run, "metrics.jsonl", "answers.npz", "config.toml")
    assert weights(run) == weights(trained.run)


def test_a_run_keeps_what_all_that_was_tried_answered_on_validation(whole):
    run, result = whole
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = read_answers(run / "answers.npz")
    assert {name: part.right.shape for name, part in kept.items()} == {
        "head": (len(result["phases"][0]["head_start"]["tried"]) + 2, 6),
        "unfreeze": (2 + 3, 6),  # epochs, then the shares 0.75, 0.5 and 0.25 of the best one
    }
    tried = [*lines[0]["head_start"]["tried"], *lines[1:], *result["phases"][1]["alphas"][1:]]
    losses = np.concatenate([part.losses.mean(axis=1) for part in kept.values()])
    np.testing.assert_allclose(losses, [one["val_loss"] for one in tried], rtol=1e-5)
    shares = np.concatenate([part.right.mean(axis=1) for part in kept.values()])
    np.testing.assert_allclose(shares, [one["val_accuracy"] for one in tried])


@pytest.fixture(scope="module")
def stopped(trained):
    """A run that was interrupted after the first epoch of its second phase."""
    run = trained.copy("stopped")
    with pytest.raises(Interrupted):
        continue_run(run, flags=SECOND, progress=interrupt_at("epoch", "unfreeze", 1))
    return run


def test_an_interrupted_unfreezing_resumes_to_the_same_bits(trained, stopped, whole):
    run = shutil.copytree(stopped, trained.folder / "interrupted-unfreezing")
    continue_run(run, flags={}, resume=True)
    assert weights(run) == weights(whole[0])


def test_a_permuted_test_split_changes_nothing_but_the_test_figures(photos, tmp_path):
    results = []
    for name, swap in (("plain", False), ("permuted", True)):
        source = presplit(photos, tmp_path / f"photos-{name}", swap_test=swap)
        results.append(without_seconds(train_run(both_phases(source), tmp_path / name).to_json()))
    plain, permuted = results
    assert plain.pop("test")["loss"] != permuted.pop("test")["loss"]
    assert plain == permuted
    assert weights(tmp_path / "plain") == weights(tmp_path / "permuted")


def test_unfreezing_again_goes_deeper_by_the_default(trained, whole):
    run = shutil.copytree(whole[0], trained.folder / "deeper")
    result = continue_run(run, flags={"phases.-1.epochs": 1}).to_json()
    assert [(p["name"], p["blocks"]) for p in result["phases"]] == [
        ("head", 0),
        ("unfreeze", 1),
        ("unfreeze-2", 2),
    ]


def test_an_epoch_that_does_not_help_uses_up_patience(trained):
    sets = ["phases.0.learning_rate=1e-12", "phases.0.patience=2", "phases.0.epochs=9"]
    result = train_run(small(trained.photos, *sets), trained.folder / "patience").to_json()
    assert result["phases"][0]["epochs"] - result["phases"][0]["best_epoch"] == 2
    assert result["phases"][0]["epochs"] < 9


SETTINGS = {
    "everything": [
        "phases.0.class_weight=balanced",
        "phases.0.label_smoothing=0.1",
        "phases.0.schedule=cosine",
        "phases.0.layer_decay=0.5",
        "phases.0.batch_norm=train",
        "head.hidden=[8]",
        "data.resize=pad",
        "augment.color=0.3",
    ],
    "bfloat16": ["phases.0.precision=mixed_bfloat16", "data.resize=crop"],
}


@pytest.mark.parametrize(
    "name",
    ["everything", pytest.param("bfloat16", marks=pytest.mark.slow)],  # test_step_precision.py
)
def test_every_setting_trains_and_the_saved_model_is_float32(name, trained):
    run = trained.folder / name
    train_run(small(trained.photos, "phases.0.blocks=1", "phases.0.epochs=1", *SETTINGS[name]), run)
    model = bundle.load(run / "model.keras").model
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    record = json.loads((run / "run.json").read_text())
    released = {"everything": ["block_2_a_norm"], "bfloat16": []}[name]
    assert record["phases"][0]["batch_norm_trained"] == released


def test_a_plan_trains_and_writes_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_run(both_phases(trained.photos)).to_json()
    assert list(tmp_path.iterdir()) == []
    assert plan["images"]["circle"] == {"train": 8, "validation": 2, "test": 2}
    assert [(p["name"], p["blocks"], p["steps"]) for p in plan["phases"]] == [
        ("head", 0, 6),
        ("unfreeze", 1, 6),
    ]
    assert [block["name"] for block in plan["blocks"]] == ["block_2", "block_1", "stem"]


def test_an_existing_run_is_refused_and_a_finished_one_has_nothing_to_resume(trained):
    with pytest.raises(UserError, match="`resume=True`"):
        train_run(small(trained.photos), trained.run)
    assert train_run(small(trained.photos), trained.run, resume=True).to_json() == trained.result
    with pytest.raises(UserError) as caught:
        train_run(small(trained.photos, seed=5), trained.run, resume=True)
    assert str(caught.value) == (
        f"{trained.run} cannot be resumed with another config:\n"
        "  seed: the run has 0, got 5.\n"
        "Leave these out, or choose another `run_dir`."
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "change",
    [
        "phases.0.blocks=99",
        "phases.0.accumulate=4",
        "model.backbone=MobilNet",
        "data.source=nowhere",
    ],
)
def test_a_refused_config_leaves_nothing_behind(change, trained, tmp_path):
    with pytest.raises(UserError):
        train_run(small(trained.photos, change), tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []


def test_more_blocks_than_there_are_leaves_the_run_as_it_was(trained):
    run = trained.copy("more-blocks")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match="Tiny has 3 blocks, got 99"):
        continue_run(run, flags={"phases.-1.blocks": 99})
    with pytest.raises(UserError, match=r"phases\.1\.accumulate: expected at most 3"):
        continue_run(run, flags=SECOND, sets=["phases.-1.accumulate=4"])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_photos_that_were_moved_are_found_with_data(trained, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "run")
    elsewhere = shutil.copytree(trained.photos, tmp_path / "elsewhere")
    with pytest.raises(UserError, match="`data=FOLDER`"):
        continue_run(run, flags={"phases.-1.epochs": 1})
    result = continue_run(run, flags={"phases.-1.epochs": 1}, data=elsewhere).to_json()
    assert len(result["phases"]) == 2
    assert load_config(run / "config.toml").data.source == str(elsewhere)


def test_what_a_killed_process_left_of_an_earlier_phase_is_not_taken(trained, whole):
    run = trained.copy("killed")
    checkpoints = run / "checkpoints"
    checkpoints.mkdir()
    shutil.copy(whole[0] / "model.keras", checkpoints / "start.keras")  # of another phase
    facts = {
        "progress": {"phase": "head", "epoch": 2},
        "files": {"best-1.npz": "0", "best-2.npz": "0"},
    }
    (checkpoints / "state.json").write_text(json.dumps(facts))
    continue_run(run, flags=SECOND)
    assert weights(run) == weights(whole[0])
    assert same_files(run, whole[0], "metrics.jsonl")


def test_a_resumed_phase_with_other_flags_is_refused(stopped):
    with pytest.raises(UserError, match=r"phases\.1\.epochs: the run has 2, got 50"):
        continue_run(stopped, flags={"phases.-1.epochs": 50}, resume=True)


def test_a_phase_keeps_the_model_that_it_begins_with(trained, stopped):
    # A kill may fall between the moment in which model.keras is replaced and run.json's record.
    kept = stopped / "checkpoints" / "start.keras"
    assert kept.read_bytes() == (trained.run / "model.keras").read_bytes()


def test_phases_without_blocks_go_deeper_one_after_the_other(trained):
    later = "\n".join(
        f'[[phases]]\nname = "{name}"\nepochs = 1\nlearning_rate = 1e-4' for name in ("a", "b", "c")
    )
    path = trained.folder / "deeper.toml"
    path.write_text(
        f'[data]\nsource = "photos"\n[model]\nbackbone = "Tiny"\nweights = "none"\n'
        f'[[phases]]\nname = "head"\nblocks = 0\nepochs = 1\nlearning_rate = 1e-3\n{later}\n'
    )
    assert [p["blocks"] for p in plan_run(load_config(path)).to_json()["phases"]] == [0, 1, 2, 3]


def test_a_share_of_the_photos_goes_through_the_whole_life_of_a_run(trained, tmp_path):
    half = small(trained.photos, "data.fraction=0.5")
    assert (
        plan_run(half).to_json()["unused"],
        plan_run(half).to_json()["images"]["cross"]["train"],
    ) == (12, 4)
    run = tmp_path / "half"
    result = train_run(half, run).to_json()
    assert (result["validation"]["n"], result["test"]["n"]) == (6, 6)
    rows = [line.split(",") for line in (run / "splits.csv").read_text().splitlines()[1:]]
    whole = [x.split(",") for x in (trained.run / "splits.csv").read_text().splitlines()[1:]]
    assert [r[2] for r in rows].count("unused") == 12
    for row, other in zip(rows, whole, strict=True):
        assert row[2] in (other[2], "unused") and row[:2] + row[3:] == other[:2] + other[3:]
    moved = shutil.copytree(trained.photos, tmp_path / "moved")
    for row in rows:
        if row[2] == "unused":
            (moved / row[0]).unlink()
    continue_run(run, flags={**SECOND, "phases.-1.epochs": 1}, data=moved)
    assert evaluate_run(run, split="train", data=moved).n == 12
    assert evaluate_run(run, data=moved).n == 6
    with pytest.raises(UserError, match=r"data\.fraction: the run has 0\.5, got 0\.25"):
        train_run(small(trained.photos, "data.fraction=0.25"), run, resume=True)


def test_another_version_of_what_computes_is_named_when_a_run_goes_on(trained, caplog):
    run = trained.copy("older-packages")
    record = json.loads((run / "run.json").read_text())
    now = record["versions"]
    record["versions"] = {**now, "keras": "3.15.0", "numpy": "2.0.0", "python": "3.11.0"}
    (run / "run.json").write_text(json.dumps(record))
    with caplog.at_level("WARNING", logger="kerasft"):
        continue_run(run, flags=ONE_MORE)
    assert [one.getMessage() for one in caplog.records] == [
        f"So far the run was computed with keras 3.15.0 (now {now['keras']}), numpy 2.0.0 (now "
        f"{now['numpy']}). Expect slightly different numbers."
    ]


def test_a_class_that_is_never_predicted_is_named_with_what_helps(tmp_path, caplog):
    draw_photos(tmp_path / "photos", classes=["circle"], per_class=40)
    draw_photos(tmp_path / "photos", classes=["plain", "cross"], per_class=4, seed=3)
    shutil.rmtree(tmp_path / "photos" / "plain")
    sets = ("phases.0.epochs=1", "phases.0.learning_rate=0.03")
    result = train_run(small(tmp_path / "photos", *sets), tmp_path / "run").to_json()
    validation = result["validation"]
    assert (validation["n"], validation["base_rate"]) == (7, 6 / 7)
    assert validation["balanced_accuracy"] == 0.5
    assert validation["recall"] == {"circle": 1.0, "cross": 0.0}
    assert validation["never_predicted"] == ["cross"]
    assert result["test"]["recall"] == {"circle": 1.0, "cross": 0.0}
    assert caplog.messages[-1] == (
        "This class is never predicted on validation: 'cross' (2 training images). "
        "`phases.0.class_weight=balanced` lets rare classes weigh as much as the others in the "
        "loss, as the recipe imbalanced.toml does."
    )
    again = train_run(small(tmp_path / "photos", *sets), tmp_path / "run", resume=True).to_json()
    assert again == result  # read from run.json
    caplog.clear()
    settings = small(tmp_path / "photos", *sets, "phases.0.class_weight=balanced")
    train_run(settings, tmp_path / "balanced")
    assert not any("class_weight" in message for message in caplog.messages)


def test_a_run_ends_with_a_page_that_has_its_figures(photos, tmp_path):
    config = small(photos, "report=true", "phases.0.epochs=1")
    result = train_run(config, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"accuracy {result.test.accuracy:.3f}" in " ".join(page.split())
    assert 'id="confusion"' in page


def test_a_page_that_cannot_be_written_is_a_warning_and_the_run_is_finished(
    photos, tmp_path, caplog
):
    blocked = tmp_path / "run" / "report.html"

    def block(event):
        blocked.mkdir(exist_ok=True)

    config = small(photos, "phases.0.epochs=1", "report=true")
    result = train_run(config, tmp_path / "run", progress=block)
    assert result.validation is not None
    assert "The report was not written" in caplog.text
