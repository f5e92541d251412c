"""The sample: the same bytes for the same seed, a folder that appears whole, and what it is for:
that the weights in the package see more in it than random ones do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from kerasft.activations import eviction
from kerasft.backbones.table import SAMPLE_BACKBONE, SAMPLE_SIDE
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.models import build
from kerasft.models.weights import SAMPLE
from kerasft.sample.draw import KINDS, draw_flower, draw_sample
from kerasft.training.train import train_run


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_the_same_arguments_draw_the_same_bytes(tmp_path):
    one, same, other = (
        draw_sample(tmp_path / name, seed=seed, per_class=2).folder
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert contents(Path(one)) == contents(Path(same))
    assert not set(contents(Path(one)).values()) & set(contents(Path(other)).values())


def test_there_is_a_folder_per_kind_with_as_many_images_as_asked(tmp_path):
    heard = []
    answer = draw_sample(tmp_path / "a" / "flowers", per_class=2, progress=heard.append)
    assert answer.to_json() == {
        "folder": str(tmp_path / "a" / "flowers"),
        "seed": 0,
        "images": 10,
        "classes": {"cosmos": 2, "daisy": 2, "lily": 2, "primrose": 2, "tulip": 2},
    }
    files = contents(tmp_path / "a" / "flowers")
    assert sorted(files)[:3] == [
        "cosmos/cosmos-0000.jpg",
        "cosmos/cosmos-0001.jpg",
        "daisy/daisy-0000.jpg",
    ]
    assert len(files) == len(set(files.values())) == 10
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["flowers"]
    with Image.open(tmp_path / "a" / "flowers" / "lily" / "lily-0001.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (128, 128))
    assert [(event.stage, event.done, event.total) for event in heard[::9]] == [
        ("draw", 1, 10),
        ("draw", 10, 10),
    ]


def test_more_images_keep_the_first_ones(tmp_path):
    draw_sample(tmp_path / "few", per_class=1)
    draw_sample(tmp_path / "many", per_class=2)
    assert contents(tmp_path / "few").items() <= contents(tmp_path / "many").items()


def test_an_empty_folder_is_filled_and_any_other_is_refused_and_left(tmp_path):
    (tmp_path / "empty").mkdir()
    assert draw_sample(tmp_path / "empty", per_class=1).images == 5
    before = contents(tmp_path / "empty")
    with pytest.raises(UserError, match="is there already and not an empty folder") as raised:
        draw_sample(tmp_path / "empty", seed=1, per_class=1)
    assert raised.value.exit_code == 2
    assert contents(tmp_path / "empty") == before
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="not an empty folder"):
        draw_sample(tmp_path / "file", per_class=1)


def test_an_interruption_leaves_nothing_behind(tmp_path):
    def interrupt(event):
        if event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "flowers", per_class=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="flowers can't be written"):
        draw_sample(tmp_path / "file" / "flowers", per_class=1)


def test_kinds_share_colours(tmp_path):
    # What is brightest and most colourful in the middle, averaged: no kind has a hue of its own.
    def colour(name, number):
        pixels = draw_flower(name, number, seed=0, side=64).astype(float)
        vivid = (pixels.max(-1) - pixels.min(-1)) * (pixels[..., 1] < pixels.max(-1))
        return pixels.reshape(-1, 3)[vivid.argmax()]

    colours = np.array([[colour(name, n) for n in range(12)] for name in KINDS])
    between = colours.mean(1).std(0).max()
    within = colours.std(1).mean(0).max()
    assert within > between


# The weights in the package.


def test_the_weights_are_small_finite_and_no_variance_is_lost_in_float16():
    assert SAMPLE.stat().st_size <= 1_200_000
    net = build.load(SAMPLE_BACKBONE, weights="sample", image_size=SAMPLE_SIDE)
    for variable in net.variables:
        values = np.asarray(variable)
        assert values.dtype == np.float32
        assert np.isfinite(values).all(), variable.path
        assert variable.name != "moving_variance" or values.min() > 0, variable.path


def features(weights, pixels):
    net = build.load(SAMPLE_BACKBONE, weights=weights, image_size=SAMPLE_SIDE)
    return np.asarray(net(pixels, training=False))


@pytest.mark.slow
def test_a_head_on_the_weights_beats_one_on_random_weights():
    drawn = [(label, number) for label in range(5) for number in range(50)]
    pixels = np.array(
        [draw_flower(list(KINDS)[a], b, seed=5, side=96) for a, b in drawn], "float32"
    )
    labels = np.array([label for label, _ in drawn])
    training = np.arange(250) % 50 < 25
    accuracy = {}
    for weights in ("sample", "none"):
        x = features(weights, pixels)
        assert np.isfinite(x).all()
        # A random net's features hardly differ (1e-12); scaled up, they get their chance.
        spread = x[training].std(0)
        x = (x - x[training].mean(0)) / np.where(spread > 0, spread, 1)
        head = LogisticRegression(C=0.01, max_iter=500).fit(x[training], labels[training])
        accuracy[weights] = head.score(x[~training], labels[~training])
    assert accuracy["sample"] > accuracy["none"] + 0.25


def test_weights_of_the_sample_train_a_head_and_the_run_says_with_which_net(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    draw_sample(tmp_path / "flowers", per_class=6)
    flags = {"data.source": str(tmp_path / "flowers"), "model.weights": "sample"}
    config = load_config(None, flags={**flags, "phases.0.epochs": 2}, sets=["augment.views=1"])
    result = train_run(config, tmp_path / "run").to_json()
    assert result["phases"][0]["frozen_proof"] == "equal"
    again = load_config(tmp_path / "run" / "config.toml").model
    assert (again.backbone, again.weights, again.image_size) == (
        "MobileNetV2:alpha=0.35",
        "sample",
        96,
    )
    # All of the net is unfrozen next, so no activations are kept for that.
    stores = eviction.list_stores(tmp_path / "cache")
    assert [store.facts["blocks"] for store in stores] == [0]
