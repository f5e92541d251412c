"""The rule by which a run reads its photos: settled once, kept in the model, used everywhere."""

import json
import zipfile

import numpy as np
import pytest
from drawing import draw_photos
from PIL import Image
from small_run import NAMES, small_model
from tiny_run import small

from kerasft.config.fields import Data
from kerasft.config.load import load_config
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.predict import predict
from kerasft.export.export import export_run
from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.training.train import continue_run, train_run

SETS = ["phases.0.epochs=6", "data.near_copies=ignore"]


def rule_in(run):
    with zipfile.ZipFile(run / "model.keras") as archive:
        facts = json.loads(archive.read("kerasft.json"))
    return {name: facts.get(name) for name in ("background", "depth")}


def train(photos, run, *sets):
    flags = {"data.source": str(photos), "model.weights": "sample"}
    return train_run(load_config(None, flags=flags, sets=[*SETS, *sets]), run)


def icon(kind: str, number: int) -> Image.Image:
    """Makes a black disc or square whose shape is in the transparency alone."""
    y, x = np.mgrid[0:64, 0:64] - (20 + 2 * number)
    inside = x**2 + y**2 < 144 if kind == "circle" else np.maximum(abs(x), abs(y)) < 12
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 3] = 255 * inside
    return Image.fromarray(pixels)


@pytest.fixture
def icons(tmp_path):
    for kind in ("circle", "square"):
        (tmp_path / "icons" / kind).mkdir(parents=True)
        for number in range(12):
            icon(kind, number).save(tmp_path / "icons" / kind / f"{number}.png")
    return tmp_path


@pytest.mark.slow
def test_shapes_in_the_transparency_are_seen_by_training_and_by_the_export(icons):
    train(icons / "icons", icons / "run")
    assert rule_in(icons / "run") == {"background": [255, 255, 255], "depth": 8}
    opened = bundle.opened(icons / "run/model.keras")
    assert opened.rule[1:] == ("stretch", (255, 255, 255), 8)
    files = sorted((icons / "icons").rglob("*.png"))
    ours = [answer.labels[0] for answer in predict(icons / "run", files, top=1)]
    assert {label.label for label in ours} == {"circle", "square"}
    exported = export_run(icons / "run", to=icons / "served")
    served = [answer.labels[0] for answer in predict(exported.path, files, top=1)]
    assert [label.label for label in served] == [label.label for label in ours]
    np.testing.assert_allclose(
        [label.score for label in served], [label.score for label in ours], atol=1e-4
    )


def test_with_drop_all_of_them_are_one_black_square(icons):
    with pytest.raises(UserError, match="too few images in 2 of 2 classes"):
        train(icons / "icons", icons / "dropped", "data.background=drop")


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_on_by_the_rule_it_began_with(tmp_path):
    run = tmp_path / "run"
    train(draw_photos(tmp_path / "photos"), run, "data.background=drop")
    text = (run / "config.toml").read_text()
    older = [line for line in text.splitlines() if not line.startswith(("background", "depth"))]
    assert len(older) == len(text.splitlines()) - 2
    (run / "config.toml").write_text("\n".join(older) + "\n")
    continue_run(run, flags={"phases.-1.epochs": 1})
    assert rule_in(run) == {"background": None, "depth": None}
    assert 'background = "drop"' in (run / "config.toml").read_text()


@pytest.mark.parametrize("format", ["png", pytest.param("tif", marks=pytest.mark.slow)])
def test_12_bits_are_found_told_and_kept(tiny_backbone, tmp_path, caplog, format):
    caplog.set_level("INFO")
    draw = np.random.default_rng(0)
    for kind, level in (("dim", 700), ("bright", 3000)):
        (tmp_path / "cells" / kind).mkdir(parents=True)
        for number in range(8):
            values = draw.normal(level, 300, (40, 40)).clip(0, 4095).astype(np.uint16)
            values[0, 0] = 4095
            Image.fromarray(values).save(tmp_path / f"cells/{kind}/{number}.{format}")
    config = small(tmp_path / "cells", "phases.0.epochs=1", "data.near_copies=ignore")
    train_run(config, tmp_path / "run")
    assert rule_in(tmp_path / "run") == {"background": [255, 255, 255], "depth": 12}
    assert "the largest number is 4,095, so that 12 bits are taken to be in use" in caplog.text
    assert ("16 files are converted to PNG in the cache: 16 TIFF" in caplog.text) == (
        format == "tif"
    )
    assert not [answer for answer in predict(tmp_path / "run", tmp_path / "cells") if answer.error]
    caplog.clear()
    evaluate_run(tmp_path / "run/model.keras", data=tmp_path / "cells")
    assert "depth" not in caplog.text
    Image.fromarray(np.full((40, 40), 5000, np.uint16)).save(tmp_path / f"cells/dim/8.{format}")
    evaluate_run(tmp_path / "run/model.keras", data=tmp_path / "cells")
    assert (
        "The model's depth is 12 bits, the largest number in the photos is 5,000: "
        "all from 4,095 on are white."
    ) in caplog.text


@pytest.mark.parametrize(("background", "plain"), [((255, 255, 255), False), ((0, 0, 0), True)])
def test_a_model_file_says_on_what_transparent_photos_lie(tmp_path, caplog, background, plain):
    icon = np.zeros((40, 40, 4), np.uint8)  # black; the shape is in the transparency alone
    icon[10:30, 10:30, 3] = 255
    photos = draw_photos(tmp_path / "photos", per_class=2)
    Image.fromarray(icon).save(photos / "cross/icon.png")
    rule = InputRule(32, "stretch", background, 8)
    opened = bundle.Bundle(small_model(), NAMES, rule)
    bundle.save(opened, tmp_path / "model.keras")
    evaluate_run(tmp_path / "model.keras", data=photos)
    assert ("1 file is one plain colour: cross/icon.png" in caplog.text) == plain


def test_pages_behind_the_first_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    photos = draw_photos(tmp_path / "photos", per_class=6)
    first, second = (Image.open(photos / f"{kind}/{kind}-000.png") for kind in ("cross", "circle"))
    first.save(photos / "cross/pages.tif", save_all=True, append_images=[second])
    scan_source(Data(source=str(photos)), seed=0)
    line = "1 TIFF file has several pages, of which only the first is used."
    assert f"{photos}: {line}" in caplog.messages
    bundle.save(
        bundle.Bundle(small_model(), NAMES, InputRule(32, "stretch", (255, 255, 255), 8)),
        tmp_path / "model.keras",
    )
    caplog.clear()
    predict(tmp_path / "model.keras", photos)
    assert f"photos: {line}" in caplog.messages
