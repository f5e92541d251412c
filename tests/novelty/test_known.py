"""Known photos: the pretrained features, before and after blocks were trained."""

import csv
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from drawing import draw_photos
from tiny import TINY
from tiny_run import FLAGS, SECOND

from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.evaluation.calibrate import calibrate_run
from kerasft.evaluation.predict import predict
from kerasft.models import bundle
from kerasft.models.net import Net
from kerasft.novelty import known
from kerasft.novelty.known import distances, threshold, unit
from kerasft.run import Run
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_backbone):
    """A run of the head from a weights file, and one that went on with two more phases."""
    folder = tmp_path_factory.mktemp("known")
    first = train_run(
        _config(folder / "photos", "none", draw_photos(folder / "photos")), folder / "a"
    )
    net = Net.of(bundle.load(first.run / "model.keras").model, "Tiny")
    net.base.save_weights(folder / "pretrained.weights.h5")
    config = _config(folder / "photos", str(folder / "pretrained.weights.h5"))
    train_run(config, folder / "head")
    train_run(config, folder / "tuned")
    for blocks in (1, 2):
        continue_run(folder / "tuned", flags={**SECOND, "phases.-1.blocks": blocks})
    return folder


def _config(photos, weights, _=None):
    flags = {**FLAGS, "data.source": str(photos), "model.weights": weights}
    return load_config(None, flags=flags, sets=["phases.0.head_start=kept"])


def pretrained_features(run, pixels):
    """Computes features with the net as it was before its head was trained."""
    base = Net.of(bundle.load(run / "model.keras").model, "Tiny").base
    return np.asarray(base.predict_on_batch(pixels))


def test_a_head_keeps_the_features_that_enter_it(runs):
    kept = known.load(Run(runs / "head").known_path)
    assert kept.features.shape == (24, 4)
    assert np.linalg.norm(kept.features.astype("float32"), axis=1) == pytest.approx(1, abs=1e-3)
    assert kept.n == 6


def test_after_blocks_were_trained_the_features_are_still_the_pretrained_ones(runs):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    before = pretrained_features(runs / "head", pixels)
    opened = bundle.load(runs / "tuned" / "model.keras")
    assert np.abs(pretrained_features(runs / "tuned", pixels) - before).max() > 1e-4
    kept = known.load(Run(runs / "tuned").known_path)
    _, _, features = kept.beside(opened).predict_on_batch(pixels)
    assert features == pytest.approx(before, abs=1e-5)
    assert (kept.features == known.load(Run(runs / "head").known_path).features).all()


def test_scores_are_those_of_the_model_alone(runs):
    pixels = np.random.default_rng(1).uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    opened = bundle.load(runs / "tuned" / "model.keras")
    kept = known.load(Run(runs / "tuned").known_path)
    scores, logits, _ = kept.beside(opened).predict_on_batch(pixels)
    alone = opened.scores_and_logits.predict_on_batch(pixels)
    assert np.array_equal(scores, alone[0]) and np.array_equal(logits, alone[1])


def test_the_distance_is_1_minus_the_largest_cosine():
    seen = unit(np.array([[3.0, 0.0], [0.0, 2.0]]))
    found = distances(seen, np.array([[1.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]))
    assert found == pytest.approx([0, 1 - 0.5**0.5, 1 + 0.5**0.5, 1])


@pytest.mark.parametrize(("n", "expected"), [(10, 10), (99, 99), (199, 198), (1000, 991)])
def test_the_threshold_is_the_conformal_quantile(n, expected):
    assert threshold(np.random.default_rng(0).permutation(n) + 1.0) == expected


def test_predict_names_photos_that_are_unlike_the_training_ones(runs, tmp_path):
    noise = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype="uint8")
    keras.utils.save_img(tmp_path / "noise.png", noise, scale=False)
    rows = csv.DictReader((runs / "head" / "splits.csv").open())
    some = runs / "photos" / next(row["path"] for row in rows if row["split"] == "train")
    run = Run(shutil.copytree(runs / "head", runs / "strict"))
    known.save(replace(known.load(run.known_path), threshold=1e-4), run.known_path)
    of_training, unlike = predict(run.path, [some, tmp_path / "noise.png"], top=1)
    assert (of_training.novel, unlike.novel) == (False, True)
    assert of_training.distance < 1e-4 < unlike.distance
    assert list(unlike.to_json()) == ["file", "predictions", "novel", "distance"]
    # A model file alone, and a run without the features, say nothing of it.
    (alone,) = predict(runs / "head" / "model.keras", some, top=1)
    assert list(alone.to_json()) == ["file", "predictions"]


def test_a_run_from_random_weights_keeps_no_features(runs):
    assert not Run(runs / "a").known_path.exists()


def test_calibrating_an_older_run_computes_the_same_features(runs):
    path = Run(runs / "head").known_path
    before = known.load(path)
    path.unlink()
    assert calibrate_run(runs / "head").known == 24
    again = known.load(path)
    assert again.layer == before.layer
    assert again.features.astype("float32") == pytest.approx(
        before.features.astype("float32"), abs=2e-3
    )
    assert again.threshold == pytest.approx(before.threshold, abs=2e-3)


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "known.keras"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        known.load(path)
    assert str(error.value) == (
        f"{path} is damaged: File is not a zip file. Remove it: photos unlike the training ones "
        "are not noticed then, and all else works."
    )


def test_a_phase_that_trains_no_more_blocks_than_before_keeps_what_there_is(runs):
    net = Net.of(bundle.load(runs / "tuned" / "model.keras").model, "Tiny")
    earlier = known.load(Run(runs / "tuned").known_path)
    assert known.begin(net, 1, 2, earlier) is earlier


def test_pretrained_blocks_that_are_gone_cannot_be_kept(runs):
    net = Net.of(bundle.load(runs / "tuned" / "model.keras").model, "Tiny")
    assert known.begin(net, 2, 1, None) is None


def test_a_cut_at_a_bare_sum_keeps_nothing_and_stops_nothing():
    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="block_1_conv")(pixels)
    x = keras.layers.Conv2D(4, 3, padding="same", name="block_1_more")(x) + x
    y = keras.layers.Conv2D(4, 3, padding="same", name="block_2_conv")(x)
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    y = keras.layers.Dense(3, name="logits")(y)
    model = keras.Model(pixels, keras.layers.Softmax(name="scores")(y))
    row = replace(TINY, blocks=2)
    assert known.begin(Net(model, (row,)), 1, 0, None) is None


def test_a_phase_that_did_not_improve_counts_for_nothing(runs, tmp_path):
    config = _config(runs / "photos", str(runs / "pretrained.weights.h5"))
    run = train_run(config, tmp_path / "run").run
    still = {**SECOND, "phases.-1.blocks": 1, "phases.-1.learning_rate": 1e-12}
    done = continue_run(run, flags=still, sets=["phases.-1.wise=false"])
    assert not done.phases[-1].improved
    done = continue_run(run, flags={**SECOND, "phases.-1.blocks": 1})
    assert done.phases[-1].improved
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    kept = known.load(Run(run).known_path)
    _, _, features = kept.beside(bundle.load(run / "model.keras")).predict_on_batch(pixels)
    assert features == pytest.approx(pretrained_features(runs / "head", pixels), abs=1e-5)


def test_a_run_that_was_killed_before_the_phase_was_recorded_goes_on(runs, tmp_path, monkeypatch):
    config = _config(runs / "photos", str(runs / "pretrained.weights.h5"))
    run = train_run(config, tmp_path / "run").run
    continue_run(run, flags={**SECOND, "phases.-1.blocks": 1})
    save = known.save

    def save_and_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(known, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        continue_run(run, flags={**SECOND, "phases.-1.blocks": 2})
    monkeypatch.setattr(known, "save", save)
    assert continue_run(run, resume=True).phases[-1].improved
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    kept = known.load(Run(run).known_path)
    _, _, features = kept.beside(bundle.load(run / "model.keras")).predict_on_batch(pixels)
    assert features == pytest.approx(pretrained_features(runs / "head", pixels), abs=1e-5)
