"""Accumulated gradients and a running mean of the weights, in whole runs of seconds."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_run import SECOND, small, weights, without_seconds

from kerasft.activations.reading import read_in_order
from kerasft.config.fields import Phase
from kerasft.config.load import append_phase
from kerasft.errors import UserError
from kerasft.models import bundle
from kerasft.progress import Part
from kerasft.training import fit
from kerasft.training.checkpoint import PhaseState
from kerasft.training.train import train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


class Clock:
    """A clock that stands, or goes on by some seconds whenever it is read."""

    def __init__(self, step=0.0):
        self.now, self.step = 100.0, step

    def perf_counter(self):
        self.now += self.step
        return self.now


@pytest.mark.parametrize("at_once", [1, 2])
def test_batches_are_told_with_their_pace_at_most_five_times_a_second(at_once, monkeypatch):
    clock, told, steps = Clock(), [], []

    class Seen(Part):
        def step(self, done, *, factor=1.0):
            steps.append((done, factor))

    monkeypatch.setattr(fit, "time", clock)
    split = {"train": range(24), "validation": range(6)}
    context = SimpleNamespace(source=SimpleNamespace(indices=split.get), progress=told.append)
    phase = Phase(name="head", epochs=3, batch_size=8, learning_rate=0.1)
    # The first of three epochs was finished by an earlier process: 20 of 30 steps are left.
    watcher = fit._Watcher(context, phase, 10, Seen("epochs", 20, told.append, "head"), at_once)
    watcher.on_epoch_begin(1)
    logs = {"loss": 0.5, "accuracy": 0.75}
    for seconds in (2.0, 0.125, 0.125):
        clock.now += seconds
        watcher.on_train_batch_end(3, logs)
    taken = 4 * at_once
    assert steps == [(taken, 1 + 6 / 72)] * 3
    assert [(e.stage, e.done, e.total, e.phase) for e in told] == [("batch", taken, 10, "head")] * 2
    for event, seconds in zip(told, (2.0, 2.25), strict=True):
        assert event.figures == {
            "epoch": 2,
            "epochs": 3,
            "loss": 0.5,
            "accuracy": 0.75,
            "images_per_second": pytest.approx(8 * taken / seconds),
            "seconds_left": pytest.approx(seconds / taken * (20 - taken)),
        }


@pytest.mark.parametrize(
    ("epoch", "best", "patience", "ended"),
    [
        (0, 0, 2, False),
        (2, 1, 2, False),
        (3, 1, 2, True),  # two epochs without a better one
        (9, 1, 0, False),  # without patience all epochs are trained
        (10, 10, 0, True),
    ],
)
def test_a_phase_ends_with_its_last_epoch_or_its_patience(epoch, best, patience, ended):
    phase = Phase(name="head", epochs=10, batch_size=8, learning_rate=0.1, patience=patience)
    now = PhaseState("head", epoch=epoch, best_epoch=best)
    keeper = SimpleNamespace(now=now, _phase=phase, _diverged=lambda: False)
    assert fit._Keeper.ended(keeper) is ended


@pytest.mark.parametrize(
    ("lines", "diverged"),
    [
        ([], False),
        ([(0.5, 0.5)], False),
        ([(0.5, float("inf"))], True),
        ([(float("nan"), 0.5)], True),
        ([(float("nan"), 0.5), (0.5, 0.5)], False),  # the last epoch counts
    ],
)
def test_a_loss_that_is_no_number_is_noticed(lines, diverged):
    lines = [{"loss": loss, "val_loss": of_validation} for loss, of_validation in lines]
    keeper = SimpleNamespace(now=PhaseState("head", lines=lines))
    assert fit._Keeper._diverged(keeper) is diverged


@pytest.mark.parametrize("images", [0, 1, 32, 33, 70])
def test_a_store_is_read_in_batches_of_32_in_order(images):
    rows = np.arange(2 * images).reshape(images, 2)
    read = list(read_in_order(rows, 32))
    assert [len(batch) for batch in read] == [min(32, images - i) for i in range(0, images, 32)]
    np.testing.assert_array_equal(np.concatenate([rows[:0], *read]), rows)


def test_the_running_mean_is_validated_and_kept_while_training_goes_on_without_it(photos, tmp_path):
    sets = ("phases.0.epochs=3", "phases.0.learning_rate=0.05", "phases.0.head_start=kept")
    train_run(small(photos, *sets), tmp_path / "plain")
    result = train_run(small(photos, *sets, "phases.0.ema=0.8"), tmp_path / "mean").to_json()
    plain, mean = metrics(tmp_path / "plain"), metrics(tmp_path / "mean")
    assert [line["loss"] for line in mean] == [line["loss"] for line in plain]
    assert all(a["val_loss"] != b["val_loss"] for a, b in zip(mean, plain, strict=True))
    best = min(line["val_loss"] for line in mean)
    # float16 activations and a saved file lie between the two
    assert result["validation"]["loss"] == pytest.approx(best, rel=1e-3)


def test_the_lines_of_an_earlier_phase_stay_whatever_the_names(photos, tmp_path):
    again = {**SECOND, "phases.-1.name": "again", "phases.-1.epochs": 1}
    config = append_phase(small(photos, "phases.0.epochs=1", "cache.mode=on"), flags=again)
    train_run(config, tmp_path / "run")
    assert [line["phase"] for line in metrics(tmp_path / "run")] == ["head", "head", "again"]


@pytest.mark.parametrize(
    "groups",
    ["phases.0.layer_decay=0.5", pytest.param("phases.0.layer_decay=1.0", marks=pytest.mark.slow)],
)
def test_a_run_with_accumulation_and_a_mean_resumes_to_the_same_bits(groups, photos, tmp_path):
    # 3 batches an epoch: gradients are left over at the end of the first.
    sets = ["phases.0.accumulate=2", "phases.0.ema=0.9", "phases.0.epochs=3", groups]
    sets += ["phases.0.batch_norm=train"]
    sets += ["phases.0.blocks=1"]
    config = small(photos, *sets, **{"phases.0.blocks": 1})
    whole = train_run(config, tmp_path / "whole").to_json()

    def stop(event):
        if (event.stage, event.done) == ("epoch", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path / "part", progress=stop)
    resumed = train_run(config, tmp_path / "part", resume=True).to_json()
    assert without_seconds(resumed) == without_seconds(whole)
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "part") == metrics(tmp_path / "whole")


def test_gradients_that_are_accumulated_over_the_epoch_move_the_weights_once(photos, tmp_path):
    sets = ["phases.0.epochs=1", "augment.mixup=0", "head.dropout=0", "phases.0.optimizer=sgd"]
    sets += ["phases.0.head_start=kept"]
    config = small(photos, *sets, "phases.0.accumulate=3", "phases.0.batch_size=8")
    train_run(config, tmp_path / "three")
    once = small(photos, *sets, **{"phases.0.batch_size": 24})
    train_run(once, tmp_path / "one")
    a, b = (bundle.load(tmp_path / name / "model.keras").model for name in ("three", "one"))
    assert len(metrics(tmp_path / "one")) == 1
    for mine, its in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6)  # sums in another order


def test_learning_statistics_are_kept_as_the_mean_of_theirs(photos, tmp_path):
    """By hand, with one step an epoch: 0.5 s1 + 0.5 s2."""
    sets = ["augment.mixup=0", "head.dropout=0", "phases.0.blocks=1", "phases.0.batch_norm=train"]
    sets += ["phases.0.learning_rate=0.01", "cache.mode=on"]

    def statistics(name, epochs, *more):
        flags = {"phases.0.batch_size": 24, "phases.0.epochs": epochs, "phases.0.blocks": 1}
        result = train_run(small(photos, *sets, *more, **flags), tmp_path / name).to_json()
        assert result["phases"][0]["best_epoch"] == epochs
        model = bundle.load(tmp_path / name / "model.keras").model
        return {v.path: np.array(v.numpy()) for v in model.weights if "moving" in v.path}

    first, second = statistics("first", 1), statistics("second", 2)
    mean = statistics("mean", 2, "phases.0.ema=0.5")
    moved = [path for path in mean if np.abs(second[path] - first[path]).max() > 1e-4]
    assert len(moved) == 2  # moving mean and variance of the block's norm
    for path in mean:
        by_hand = 0.5 * first[path] + 0.5 * second[path]
        np.testing.assert_allclose(mean[path], by_hand, atol=1e-6, err_msg=path)


def test_gradients_left_at_the_end_of_the_last_epoch_make_a_step_of_their_own(photos, tmp_path):
    sets = ["phases.0.epochs=1", "augment.mixup=0", "head.dropout=0", "phases.0.optimizer=sgd"]
    # 24 photos: steps of 8 + 8 and of 8 images are those of batches of 16.
    train_run(small(photos, *sets, "phases.0.accumulate=2"), tmp_path / "rest")
    train_run(small(photos, *sets, **{"phases.0.batch_size": 16}), tmp_path / "plain")
    a, b = (bundle.load(tmp_path / name / "model.keras").model for name in ("rest", "plain"))
    for mine, its in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6)  # sums in another order
    mine, its = (metrics(tmp_path / name)[0]["val_loss"] for name in ("rest", "plain"))
    assert mine == pytest.approx(its, abs=1e-6)


def test_an_epoch_is_told_with_the_figures_of_its_line(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "time", Clock(step=1.0))
    sets = ["phases.0.head_learning_rate_multiplier=10", "phases.0.learning_rate=0.01"]
    sets += ["phases.0.schedule=constant"]
    events = []
    config = small(photos, *sets, **{"phases.0.blocks": 1})
    train_run(config, tmp_path / "run", progress=events.append)
    told = [event for event in events if event.stage == "epoch"]
    assert [(event.done, event.total, event.phase) for event in told] == [
        (1, 2, "head"),
        (2, 2, "head"),
    ]
    lines = metrics(tmp_path / "run")
    for event, line in zip(told, lines, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert event.figures[name] == line[name]
        assert event.figures["learning_rate"] == pytest.approx(0.1)  # the largest
        # 24 images; between begin and end the clock is read at the begin of the epoch by the
        # watcher, at the end of 3 batches, and at the end.
        assert event.figures["images_per_second"] == 24 / 5
    assert [event.figures["best"] for event in told] == [
        True,
        lines[1]["val_loss"] < lines[0]["val_loss"],
    ]


def test_a_photo_that_changes_between_two_live_epochs_ends_the_run_with_a_sentence(
    photos, tmp_path
):
    first, *others = sorted(photos.rglob("*.png"))

    def swap(event):
        if event.stage == "epoch" and event.done == 1:
            for path in others:
                path.write_bytes(first.read_bytes())

    config = small(photos, "cache.mode=off", "phases.0.epochs=4")
    with pytest.raises(UserError, match="was removed or changed while it was in use: its bytes"):
        train_run(config, tmp_path / "run", progress=swap)
