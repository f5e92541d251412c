"""The recipes in configs/: every file trains, and its header says what it gives."""

import math
import re
import shutil
import tomllib
from pathlib import Path

import keras
import pytest
from caffe_nets import write_case
from drawing import draw_photos

from kerasft.config.load import load_config
from kerasft.export.export import export_run
from kerasft.heads.trained import features_of
from kerasft.importers.caffe import import_caffe
from kerasft.training.train import train_run

CONFIGS = sorted((Path(__file__).resolve().parent.parent.parent / "configs").glob("*.toml"))


# With nets whose published weights are nowhere near: the classic texts' own recipes, and whose
# weights each takes.
CLASSIC = {
    "alexnet-svm": "alexnet.h5",
    "flickr-style": "caffenet.h5",
    "two-nets": "alexnet.h5+none",
    "vgg-bayes": "none",
}


@pytest.fixture(autouse=True)
def forget_the_models(request):
    """Frees large nets behind slow tests; behind others it would forget the decoder's graph too."""
    yield
    if request.node.get_closest_marker("slow"):
        keras.backend.clear_session()


def test_the_recipes_that_people_look_for_are_there():
    assert [path.stem for path in CONFIGS] == [
        "alexnet-svm",
        "few-photos",
        "fine-grained",
        "flickr-style",
        "from-scratch",
        "imbalanced",
        "many-photos",
        "two-nets",
        "two-phases",
        "vgg-bayes",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_header_has_the_command_and_a_measured_result_or_why_there_is_none(path):
    header = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    text = " ".join(line.removeprefix("#").strip() for line in header)
    assert f"kerasft train configs/{path.name} --data " in text
    assert "--seed N" in text
    if path.stem in CLASSIC:
        assert "Not measured: the published weights were not to be had" in text
        return
    assert re.search(r"test\s+(accuracy\s+)?0\.\d{3}", text)
    assert re.search(r"seeds? \d", text)
    assert re.search(r"20\d\d-\d\d-\d\d", text)


FAST = {"few-photos"}  # the others run the same code


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem in FAST else pytest.mark.slow, id=path.stem)
        for path in CONFIGS
        if path.stem not in CLASSIC
    ],
)
def test_every_recipe_trains_an_epoch_of_each_of_its_phases(path, tiny_backbone, tmp_path):
    photos = draw_photos(tmp_path / "photos")
    phases = tomllib.loads(path.read_text("utf-8"))["phases"]
    flags = {
        "data.source": str(photos),
        "model.backbone": "Tiny",
        "model.weights": "none",
        "model.image_size": 32,
        **{f"phases.{i}.epochs": 1 for i in range(len(phases))},
    }
    result = train_run(load_config(path, flags=flags), tmp_path / "run").to_json()
    assert [phase["name"] for phase in result["phases"]] == [phase["name"] for phase in phases]
    assert [phase["frozen_proof"] for phase in result["phases"]] == ["equal"] * len(phases)
    assert (tmp_path / "run" / "model.keras").is_file()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """AlexNet and CaffeNet of Caffe's files with random weights, as `import-caffe` writes them."""
    folder = tmp_path_factory.mktemp("imported")
    for backbone in ("alexnet", "caffenet"):
        case = write_case(backbone, folder, small="fc6")  # fc7 makes numbers about 1 then
        import_caffe(case.prototxt, case.caffemodel, backbone, folder / f"{backbone}.h5")
        case.caffemodel.unlink()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLASSIC))
def test_every_classic_recipe_runs_from_the_import_to_the_export(name, imported, tmp_path):
    photos = draw_photos(tmp_path / "photos")
    path = next(path for path in CONFIGS if path.stem == name)
    parts = CLASSIC[name].split("+")
    weights = "+".join(str(imported / part) if part.endswith(".h5") else part for part in parts)
    flags = {"data.source": str(photos), "model.weights": weights}
    (phase,) = tomllib.loads(path.read_text("utf-8"))["phases"]
    if "epochs" in phase:
        flags["phases.0.epochs"] = 2
    result = train_run(load_config(path, flags=flags), tmp_path / "run").to_json()
    assert [one["name"] for one in result["phases"]] == [phase["name"]]
    assert result["phases"][0]["frozen_proof"] == "equal"
    assert math.isfinite(result["validation"]["loss"])
    model = keras.models.load_model(tmp_path / "run" / "model.keras", compile=False)
    widths = {"alexnet-svm": 9216, "flickr-style": 4096, "two-nets": 8192, "vgg-bayes": 4096}
    assert features_of(model).shape[1] == widths[name]
    export_run(tmp_path / "run")  # which proves that it computes the same
    assert (tmp_path / "run" / "export" / "1" / "saved_model.pb").is_file()
