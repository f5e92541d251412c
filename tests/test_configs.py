"""The recipes in configs/: every file trains, and its header says what it gives."""

import re
import tomllib
from pathlib import Path

import keras
import pytest
from drawing import draw_photos

from kerasft.config import load_config
from kerasft.train import train_run

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.toml"))


@pytest.fixture(autouse=True)
def forget_the_models():
    yield
    keras.backend.clear_session()


def test_the_recipes_that_people_look_for_are_there():
    assert [path.stem for path in CONFIGS] == [
        "few-photos",
        "fine-grained",
        "from-scratch",
        "imbalanced",
        "many-photos",
        "two-phases",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_header_has_the_command_and_a_measured_result(path):
    header = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    text = " ".join(line.removeprefix("#").strip() for line in header)
    assert f"kerasft train configs/{path.name} --data " in text
    assert "--seed N" in text
    assert re.search(r"test\s+(accuracy\s+)?0\.\d{3}", text)
    assert re.search(r"seeds? \d", text)
    assert re.search(r"20\d\d-\d\d-\d\d", text)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_trains_an_epoch_of_each_of_its_phases(path, tmp_path):
    photos = draw_photos(tmp_path / "photos")
    phases = tomllib.loads(path.read_text("utf-8"))["phases"]
    flags = {
        "data.source": str(photos),
        "model.backbone": "MobileNet:alpha=0.25",  # small, and no download
        "model.weights": "none",
        "model.image_size": 32,
        **{f"phases.{i}.epochs": 1 for i in range(len(phases))},
    }
    result = train_run(load_config(path, flags=flags), tmp_path / "run")
    assert [phase["name"] for phase in result["phases"]] == [phase["name"] for phase in phases]
    assert [phase["frozen_proof"] for phase in result["phases"]] == ["equal"] * len(phases)
    assert (tmp_path / "run" / "model.keras").is_file()
