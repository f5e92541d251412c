"""Phases whose head is solved, as runs; how phases train is in test_train.py."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from drawing import draw_photos
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny_run import FLAGS, presplit, weights, without_seconds

from kerasft.activations.context import RunContext
from kerasft.config.load import load_config
from kerasft.config.settled import Plan
from kerasft.data.scan import scan_source
from kerasft.data.source import Source
from kerasft.heads import solver
from kerasft.heads.methods import METHODS
from kerasft.heads.trained import features_of
from kerasft.models import bundle
from kerasft.models.bundle import score
from kerasft.models.cut import fingerprint
from kerasft.progress import silent
from kerasft.run import Run
from kerasft.training.fill import _examples
from kerasft.training.start import initial_net
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")
BASE = {key: value for key, value in FLAGS.items() if not key.startswith("phases")}


def solved(photos, method, *sets):
    flags = {**BASE, "data.source": str(photos), "phases.0.method": method}
    return load_config(None, flags=flags, sets=sets)


def setting_of(run):
    config = load_config(run / "config.toml")
    found = scan_source(config.data, seed=config.seed)
    return RunContext(Run(run), Plan.of(config), found, silent, {})


@pytest.fixture(scope="module")
def logistic(tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filling")
    photos = draw_photos(folder / "photos")
    return folder / "run", train_run(solved(photos, "logistic"), folder / "run").to_json()


def test_a_solved_head_is_what_scikit_learn_makes_of_the_features(logistic):
    run, result = logistic
    context = setting_of(run)
    model = bundle.load(run / "model.keras")
    base = keras.Model(model.model.inputs, features_of(model.model))
    x, y = {}, {}
    for split in ("train", "test"):
        x[split] = np.asarray(bundle.compute(base, context.batches(split)))
        y[split] = context.labels(split)
    scaler = StandardScaler().fit(x["train"].astype(np.float16))  # as they were stored
    stored = scaler.transform(x["train"].astype(np.float16))
    strength = result["phases"][0]["parameters"]["C"]
    by_hand = LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit(stored, y["train"])
    expected = by_hand.predict_proba(scaler.transform(x["test"]))
    scores, _ = score(model, context.batches("test"))
    np.testing.assert_allclose(scores, expected, atol=2e-3)  # float16 features, two solvers' ends
    assert result["test"]["accuracy"] == by_hand.score(scaler.transform(x["test"]), y["test"])


def test_the_run_says_what_was_tried_and_what_was_chosen(logistic):
    run, result = logistic
    (phase,) = result["phases"]
    assert (phase["name"], phase["method"], phase["blocks"]) == ("logistic", "logistic", 0)
    assert len(phase["tried"]) == 3
    best = min(phase["tried"], key=lambda one: one["score"])
    assert phase["parameters"] == best["parameters"]
    assert phase["score"] == "log loss in 5-fold cross-validation"
    assert (phase["frozen_proof"], phase["converged"], phase["improved"]) == ("equal", True, True)
    assert phase["activations"]["views"] == 1
    assert "epochs" not in phase
    assert [part["name"] for part in phase["parts"]][-2:] == ["solving", "scoring"]
    (line,) = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert (line["phase"], line["method"], line["activations"]) == (
        "logistic",
        "logistic",
        "float16",
    )
    assert line["val_accuracy"] == phase["val_accuracy"]


def test_the_base_stays_what_it_was_and_the_head_alone_is_new(logistic):
    run, _ = logistic
    context = setting_of(run)
    start = dict(fingerprint(initial_net(context.config, 3).model))
    after = dict(weights(run))
    new = sorted(set(after) - set(start))
    assert new == ["head_standardise/count", "head_standardise/mean", "head_standardise/variance"]
    changed = {path for path in start if after[path] != start[path]}
    assert changed == {"logits/kernel", "logits/bias"}


def test_training_goes_on_from_a_linear_head(logistic):
    run, _ = logistic
    flags = {"phases.-1.blocks": 1, "phases.-1.epochs": 2, "phases.-1.batch_size": 8}
    result = continue_run(run, flags={**flags, "phases.-1.learning_rate": 1e-3}).to_json()
    second = result["phases"][1]
    assert (second["name"], second["epochs"], second["frozen_proof"]) == ("unfreeze", 2, "equal")
    # The scale of the features is not trained: only the block and the Dense layer are.
    assert second["trainable_parameters"] == (4 * 9 * 4 + 4) + (4 * 3 + 3)


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=() if m == "svm" else pytest.mark.slow) for m in METHODS],
)
def test_neither_weights_nor_validation_know_the_test_labels(method, photos, tmp_path):
    results = []
    for name, swap in (("plain", False), ("permuted", True)):
        source = presplit(photos, tmp_path / f"photos-{name}", swap_test=swap)
        results.append(
            without_seconds(train_run(solved(source, method), tmp_path / name).to_json())
        )
    plain, permuted = results
    assert plain.pop("test")["loss"] != permuted.pop("test")["loss"]
    assert plain == permuted
    assert weights(tmp_path / "plain") == weights(tmp_path / "permuted")


def test_copies_of_a_photo_reach_the_solver_as_a_unit(logistic, tmp_path, monkeypatch):
    run, _ = logistic
    photos = shutil.copytree(setting_of(run).config.data.source, tmp_path / "photos")
    for one in sorted(photos.rglob("*.png")):
        shutil.copy(one, one.with_name(f"again-{one.name}"))
    seen = []

    def recording(method, train, validation, **other):
        seen.append(train)
        return solve(method, train, validation, **other)

    solve = solver.solve
    monkeypatch.setattr(solver, "solve", recording)
    train_run(solved(photos, "logistic"), tmp_path / "run")
    (train,) = seen
    source = setting_of(tmp_path / "run").source
    digests = [source.digests[i] for i in source.indices("train")]
    assert len(digests) > len(set(digests)) > 10
    alike = [[a == b for b in digests] for a in digests]
    np.testing.assert_array_equal(train.units[:, None] == train.units, alike)


def test_a_unit_is_a_group_and_the_copies_of_its_photos():
    source = Source(
        root=Path(),
        class_names=("a", "b"),
        paths=("1", "2", "3", "4", "5", "6", "7"),
        labels=np.array([0, 1, 0, 1, 0, 1, 0]),
        splits=np.array(["train", "test", "train", "train", "train", "train", "train"]),
        digests=("d1", "d2", "d3", "d1", "d5", "d6", "d7"),
        pixels=("p1", "p2", "p3", "p1", "p5", "p6", "p5"),
        groups=("", "g", "h", "h", "", "", ""),
    )
    units = _examples(source, "train", np.zeros((6, 2), "float32")).units
    # 1 and 4 are copies, 3 and 4 of one group; 5 and 7 are other files of one picture.
    assert units.tolist() == [0, 0, 0, 1, 2, 1]


def test_without_a_store_the_features_come_from_pixels(logistic, tmp_path):
    run, _ = logistic
    photos = setting_of(run).config.data.source
    live = train_run(
        solved(photos, "logistic", "phases.0.stored=false"), tmp_path / "live"
    ).to_json()
    (phase,) = live["phases"]
    assert phase["activations"] is None
    stored = json.loads((run / "run.json").read_text())["phases"][0]
    assert phase["parameters"] == stored["parameters"]
    assert phase["val_loss"] == pytest.approx(stored["val_loss"], abs=2e-3)
