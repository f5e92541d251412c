"""A phase that goes wrong: planted faults, a loss that is no number, nothing gained."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_run import small, train_head, weights

from kerasft.activations import prefix_pass
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.models import bundle
from kerasft.models.cut import freeze
from kerasft.models.live import LiveModel
from kerasft.record import Gap
from kerasft.training import fill, fit, phase, trainable
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    # A solved head is too good for a second phase of one epoch to improve.
    return train_head(tmp_path_factory.mktemp("phase"), "phases.0.head_start=kept")


def freeze_all_but_the_norms(cut, batch_norm):
    """Planted fault: the suffix's BatchNormalization learns."""
    return freeze(cut, "train")


class MovingPrefix(LiveModel):
    """Planted fault: the prefix's statistics move while it computes."""

    def call(self, inputs, training=None):
        mean = self.prefix.get_layer("stem_norm").moving_mean
        mean.assign(0.9 * mean + 0.1)
        return super().call(inputs, training=training)


FAULTS = {
    "block_2_a_norm/moving_mean": (trainable, "freeze", freeze_all_but_the_norms),
    "stem_norm/moving_mean": (trainable, "LiveModel", MovingPrefix),
}


@pytest.mark.parametrize("variable", FAULTS)
def test_a_planted_fault_fails_the_run_and_leaves_the_earlier_model(variable, trained, monkeypatch):
    run = trained.copy(variable.partition("/")[0])
    before = (run / "model.keras").read_bytes()
    monkeypatch.setattr(*FAULTS[variable])
    live = {"phases.-1.blocks": 1, "phases.-1.epochs": 1, "phases.-1.stored": False}
    with pytest.raises(UserError) as caught:
        continue_run(run, flags=live)
    assert "frozen variables moved while it trained" in str(caught.value)
    assert variable in str(caught.value)
    assert (run / "model.keras").read_bytes() == before
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], len(record["phases"])) == ("finished", 1)
    assert not list(run.rglob("candidate*"))


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "live"])
def test_without_a_fault_the_same_phase_is_proven(stored, trained):  # the control
    run = trained.copy(f"control-{stored}")
    flags = {"phases.-1.blocks": 1, "phases.-1.epochs": 1, "phases.-1.stored": stored}
    result = continue_run(run, flags=flags).to_json()
    assert result["phases"][1]["frozen_proof"] == "equal"
    before = dict(weights(trained.run))
    assert [path for path, digest in weights(run) if before[path] != digest] == [
        "block_2_a_conv/kernel",
        "block_2_a_conv/bias",
        "logits/kernel",
        "logits/bias",
    ]


def test_a_norm_that_learns_is_caught_on_stored_activations_too(trained, monkeypatch):
    run = trained.copy("stored-norm")
    monkeypatch.setattr(trainable, "freeze", freeze_all_but_the_norms)
    stored = {"phases.-1.blocks": 1, "phases.-1.epochs": 1, "phases.-1.stored": True}
    with pytest.raises(UserError, match="block_2_a_norm/moving_mean"):
        continue_run(run, flags=stored)


@pytest.mark.parametrize("fault", [True, False])
def test_a_store_of_another_nets_activations_fails_the_phase(fault, tmp_path, monkeypatch):
    for number in range(24):  # bright and dark: what any net can tell apart
        name = ("bright", "dark")[number % 2]
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        gray = number + (200 if name == "bright" else 0)
        Image.new("RGB", (32, 32), (gray,) * 3).save(tmp_path / "photos" / name / f"{number}.png")
    opened = prefix_pass.activations_at

    def of_another_net(*arguments):
        """Planted fault: what another prefix would have computed, mirrored at the mean."""
        stored = opened(*arguments)
        mirror = 2 * np.mean(stored.train[0], axis=0)
        train = tuple(mirror - view for view in stored.train)
        return dataclasses.replace(stored, train=train, validation=mirror - stored.validation)

    if fault:
        monkeypatch.setattr(fill, "activations_at", of_another_net)
    sets = ["phases.0.learning_rate=0.1", "phases.0.epochs=20", "phases.0.patience=0"]
    config = small(tmp_path / "photos", *sets, "augment.crop=0.0")
    if not fault:  # the control
        result = train_run(config, tmp_path / "run").to_json()
        assert (result["validation"]["accuracy"], result["phases"][0]["gap"]["accuracy"]) == (1, 0)
        return
    with pytest.raises(UserError, match="points apart between the stored activations and the"):
        train_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()


def test_a_point_or_an_image_may_lie_between_store_and_model():
    phase.refuse_gap(0, "head", Gap(0.01, 0.0), 1000)
    phase.refuse_gap(0, "head", Gap(1 / 60, 0.0), 60)
    with pytest.raises(UserError) as caught:
        phase.refuse_gap(1, "unfreeze", Gap(0.011, 0.0), 1000)
    assert str(caught.value) == (
        "Phase 'unfreeze': validation accuracy is 1.1 points apart between the stored activations "
        "and the saved model on pixels; at most 1.0 are allowed. Nothing of this phase was kept.\n"
        "  Train it without a store: `phases.1.stored=false`. If the activations were computed in "
        "bfloat16, `cache.precision=float32` may do."
    )
    with pytest.raises(UserError, match=r"3\.3 points apart"):
        phase.refuse_gap(0, "head", Gap(2 / 60, 0.0), 60)


def test_a_phase_that_does_not_help_keeps_the_earlier_model(trained):
    run = trained.copy("no-help")
    before = (run / "model.keras").read_bytes()
    flags = {"phases.-1.blocks": "all", "phases.-1.epochs": 1, "phases.-1.learning_rate": 100.0}
    result = continue_run(run, flags={**flags, "phases.-1.optimizer": "sgd"}).to_json()
    assert [p["improved"] for p in result["phases"]] == [True, False]
    assert result["best_phase"] == "head"
    for split in ("validation", "test"):
        assert result[split] == trained.result[split]
    assert (run / "model.keras").read_bytes() == before
    assert json.loads((run / "run.json").read_text())["test_scored"] == 1


def test_a_phase_that_failed_is_taken_out_so_that_another_can_be_tried(trained):
    run = trained.copy("diverges")
    files = ("config.toml", "metrics.jsonl", "model.keras")
    before = [(run / name).read_bytes() for name in files]
    wild = {"phases.-1.learning_rate": 1e30, "phases.-1.optimizer": "sgd", "phases.-1.epochs": 1}
    with pytest.raises(UserError, match="the loss became infinite or NaN on validation after"):
        continue_run(run, flags={**wild, "phases.-1.blocks": "all"})
    assert [(run / name).read_bytes() for name in files] == before
    result = continue_run(run, flags={"phases.-1.epochs": 1}).to_json()
    assert [p["name"] for p in result["phases"]] == ["head", "unfreeze"]


def test_a_loss_that_is_no_number_from_the_start_is_one_sentence(trained, tmp_path):
    sets = ["phases.0.learning_rate=1e30", "phases.0.optimizer=sgd", "head.hidden=[4,4]"]
    with pytest.raises(UserError) as caught:
        train_run(small(trained.photos, *sets), tmp_path / "run")
    assert str(caught.value) == (
        "Phase 'head': the loss became infinite or NaN at step 3 of 3 of epoch 1, so there is "
        "nothing to keep. A learning rate lower than 1e+30 may help."
    )
    assert not [p for p in (tmp_path / "run").iterdir() if p.name != ".lock"]


def test_a_phase_that_diverges_keeps_its_best_and_names_the_rate_and_the_step(
    trained, tmp_path, monkeypatch, caplog
):
    told = []

    def progress(event):
        if event.stage == "batch":
            told.append((event.figures["epoch"], event.done, np.isfinite(event.figures["loss"])))

    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    sets = ["phases.0.learning_rate=3e37", "phases.0.optimizer=sgd", "phases.0.schedule=constant"]
    result = train_run(small(trained.photos, *sets), tmp_path / "run", progress=progress).to_json()
    assert (
        "Phase 'head': the loss became infinite or NaN at step 2 of 3 of epoch 2; the phase ends "
        "with the solved head. A learning rate lower than 3e+37 may help."
    ) in caplog.messages
    assert told == [*((1, step, True) for step in (1, 2, 3)), (2, 1, True), *BAD]
    assert result["phases"][0]["best_epoch"] == 0
    assert result["test"]["accuracy"] > 0.5


BAD = [(2, 2, False), (2, 3, False)]  # epoch and step


def test_a_loss_that_is_no_number_on_validation_alone_names_no_step(trained, tmp_path):
    sets = ["phases.0.learning_rate=1e12", "phases.0.optimizer=sgd", "head.hidden=[4,4]"]
    with pytest.raises(UserError, match="infinite or NaN on validation after epoch 1, so there is"):
        train_run(small(trained.photos, *sets), tmp_path / "run")


@pytest.mark.parametrize(
    "way", ["solved", "stepped", pytest.param("stored", marks=pytest.mark.slow)]
)
def test_weights_that_are_no_numbers_are_said_instead_of_a_learning_rate(way, trained, tmp_path):
    damaged = trained.copy(f"damaged-{way}")
    opened = bundle.load(damaged / "model.keras")
    kernel = opened.model.get_layer("stem_conv").kernel
    kernel.assign(np.full(kernel.shape, np.nan, "float32"))
    bundle.save(opened, damaged / "model.keras")
    sets = ["cache.mode=on" if way == "stored" else "cache.mode=off"]
    config = small(trained.photos, *sets, **{"model.weights": str(damaged)})
    if way == "solved":
        flags = {"data.source": str(trained.photos), "model.weights": str(damaged)}
        config = load_config(None, flags={**flags, "phases.0.method": "lda"}, sets=sets)
    with pytest.raises(
        UserError, match=r"eights (that it begins with )?are damaged, or do not bel"
    ):
        train_run(config, tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.name != ".lock"]
