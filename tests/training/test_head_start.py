"""A head begins solved where possible, counts as epoch 0, and is kept if nothing is better."""

import json
import shutil

import keras
import numpy as np
import pytest
from tiny_run import SECOND, draw_photos, small

from kerasft.errors import UserError
from kerasft.heads.start import STRENGTHS
from kerasft.training.find_lr import find_rate
from kerasft.training.train import continue_run, plan_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("head_start") / "photos")


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def spoiled(tiny_backbone, photos, tmp_path_factory):
    """A run whose epochs ruin the solved head."""
    run = tmp_path_factory.mktemp("spoiled") / "run"
    sets = ("phases.0.learning_rate=5.0", "phases.0.optimizer=sgd")
    return run, train_run(small(photos, *sets), run).to_json()


def test_a_solved_head_is_kept_if_no_epoch_is_better(spoiled):
    run, result = spoiled
    head, (solved, *epochs) = result["phases"][0], metrics(run)
    assert (head["epochs"], head["best_epoch"], solved["epoch"]) == (2, 0, 0)
    assert all(line["val_loss"] > solved["val_loss"] for line in epochs)
    assert result["validation"]["loss"] == pytest.approx(solved["val_loss"], abs=1e-3)
    assert head["head_start"] == solved["head_start"]
    assert solved["head_start"]["strength"] in STRENGTHS
    assert [part["name"] for part in head["parts"]][-3:] == ["solving", "epochs", "scoring"]


def test_the_solved_weights_are_in_the_model(spoiled):
    run, _ = spoiled
    kernel, bias = keras.models.load_model(run / "model.keras").get_layer("logits").get_weights()
    # The minimum's weights sum to 0 over the classes; random ones do not.
    assert np.abs(kernel.sum(axis=1)).max() < 1e-4 * np.abs(kernel).max()
    assert abs(bias.sum()) < 1e-3 * np.abs(bias).max()


@pytest.mark.parametrize(
    ("sets", "how"),
    [
        ((), "solved"),
        (("phases.0.head_start=kept",), "kept"),
        (("head.hidden=[8]",), "kept"),
        (("cache.mode=off",), "kept"),
        (("phases.0.blocks=1",), "kept"),
    ],
)
def test_auto_solves_the_head_where_that_is_possible(sets, how, photos):
    plan = plan_run(small(photos, *sets)).plan
    assert plan.config.phases[0].head_start == how


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (("head.hidden=[8]",), "the head has hidden layers (`head.hidden`)"),
        (("cache.mode=off",), "its features are not stored"),
        (("phases.0.blocks=1",), "the phase trains blocks below the head too"),
    ],
)
def test_a_head_that_cannot_begin_solved_is_refused_with_the_reason(sets, why, photos):
    with pytest.raises(UserError) as caught:
        plan_run(small(photos, "phases.0.head_start=solved", *sets))
    assert str(caught.value) == (
        f"phases.0.head_start: the head can't begin solved: {why}. Expected 'kept' or 'auto'."
    )
    assert caught.value.exit_code == 2


def test_a_head_solved_by_a_method_without_a_dense_layer_is_not_solved_again(photos, tmp_path):
    train_run(small(photos, **{"phases": [{"name": "a", "method": "svm"}]}), tmp_path / "run")
    with pytest.raises(UserError, match="the head can't begin solved: it is not a single Dense"):
        continue_run(
            tmp_path / "run",
            flags={"phases.-1.blocks": 0, "phases.-1.epochs": 1},
            sets=["phases.-1.head_start=solved"],
        )


def test_the_finder_and_a_resume_leave_a_solved_head_open(spoiled, photos):
    run, result = spoiled
    found = find_rate(run, flags={"phases.0.blocks": 1}, from_start=True, steps=20)
    assert found is not None
    sets = ("phases.0.learning_rate=5.0", "phases.0.optimizer=sgd", "phases.0.head_start=auto")
    assert train_run(small(photos, *sets), run, resume=True).to_json() == result


def test_one_epoch_of_a_second_phase_trains(tmp_path, photos):
    train_run(small(photos), tmp_path / "run")
    flags = {"phases.-1.blocks": 1, "phases.-1.epochs": 1, "phases.-1.batch_size": 64}
    continue_run(tmp_path / "run", flags=flags)
    line = metrics(tmp_path / "run")[-1]
    assert line["learning_rates"]["all"] == pytest.approx(4e-4)  # one step, at the whole rate


def test_a_later_phase_keeps_its_head_and_tries_weights_in_between(spoiled, tmp_path, photos):
    run = tmp_path / "run"
    train_run(small(photos), run)
    result = continue_run(run, flags={**SECOND, "phases.-1.learning_rate": 0.02}).to_json()
    phase, lines = result["phases"][1], metrics(run)
    assert [(line["phase"], line["epoch"]) for line in lines[-2:]] == [
        ("unfreeze", 1),
        ("unfreeze", 2),
    ]
    assert phase["head_start"] is None
    assert [one["alpha"] for one in phase["alphas"]] == [1.0, 0.75, 0.5, 0.25]
    best = min(phase["alphas"], key=lambda one: one["val_loss"])
    assert (phase["alpha"], phase["val_loss"]) == (best["alpha"], best["val_loss"])
    assert phase["gap"]["loss"] < 1e-3  # the saved model has the weights of that share


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param(["phases.-1.wise=false"], marks=pytest.mark.slow),
        ["phases.-1.batch_norm=train"],
    ],
)
def test_weights_in_between_are_not_tried_where_they_make_no_sense(sets, tmp_path, photos):
    train_run(small(photos), tmp_path / "run")
    result = continue_run(tmp_path / "run", flags=SECOND, sets=sets).to_json()
    assert (result["phases"][1]["alpha"], result["phases"][1]["alphas"]) == (1.0, [])


def moved(run, before):
    """Returns how far the kernel of the unfrozen block has moved."""
    kernels = [
        keras.models.load_model(path / "model.keras").get_layer("block_2_a_conv").get_weights()[0]
        for path in (before, run)
    ]
    return float(np.abs(kernels[1] - kernels[0]).max())


def test_l2_sp_holds_the_base_at_its_start(tmp_path, photos):
    train_run(small(photos, "phases.0.head_start=kept"), tmp_path / "head")
    far = {}
    for strength in ("0.0", "50.0"):
        shutil.copytree(tmp_path / "head", tmp_path / strength)
        sets = [f"phases.-1.l2_sp={strength}", "phases.-1.optimizer=sgd", "phases.-1.momentum=0"]
        flags = {**SECOND, "phases.-1.learning_rate": 0.01}  # half of the way back in each step
        continue_run(tmp_path / strength, flags=flags, sets=sets)
        far[strength] = moved(tmp_path / strength, tmp_path / "head")
    assert 0 < far["50.0"] < 0.7 * far["0.0"]
