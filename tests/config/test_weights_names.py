"""The base of another run: what a config takes over of it, and what training makes of that."""

import os
import shlex
import shutil
import tomllib

import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from drawing import draw_photos
from tiny import TINY, tiny_constructor
from tiny_run import small

from kerasft.backbones.spec import same_net
from kerasft.backbones.table import BACKBONES
from kerasft.cli.main import main
from kerasft.config.fields import Config, Data, Model
from kerasft.config.load import default_phases, load_config, to_toml
from kerasft.config.weights_names import file_for, net_of, weights_for
from kerasft.errors import UserError
from kerasft.heads.trained import features_of
from kerasft.models import bundle
from kerasft.models.tta import trained_part
from kerasft.training.train import continue_run, train_run


def a_run(folder, *, backbone="MobileNet:alpha=0.25", side=160, model=True):
    """What `--weights` looks at in a run."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "config.toml").write_text(
        f"[model]\nbackbone = '{backbone}'\nweights = 'imagenet'\nimage_size = {side}\n"
    )
    if model:
        (folder / "model.keras").write_bytes(b"not looked at before training")
    return folder


def loaded(weights, **model):
    fields = {"weights": str(weights), **model}
    flags = {f"model.{key}": value for key, value in fields.items()}
    return load_config(None, flags={"data.source": "photos", **flags})


def refusal(weights, **model):
    with pytest.raises(UserError) as refused:
        loaded(weights, **model)
    assert refused.value.exit_code == 2
    heading, *lines = str(refused.value).splitlines()
    assert heading == "the options have 1 problem:"
    return "\n".join(line.strip() for line in lines)


# ── the config ──


def test_imported_files_bring_their_backbones_and_are_refused_for_others(tmp_path):
    for spec in ("CaffeNet", "VGG16:mode=torch"):
        with h5py.File(tmp_path / f"{spec[:3]}.h5", "w") as file:
            file.attrs["kerasft_backbone"] = spec
    assert loaded(tmp_path / "Caf.h5").model.backbone == "CaffeNet"
    assert loaded(tmp_path / "VGG.h5").model.backbone == "VGG16:mode=torch"
    both = loaded(f"{tmp_path}/VGG.h5+{tmp_path}/Caf.h5").model
    assert both.backbone == "VGG16:mode=torch+CaffeNet"
    assert loaded(tmp_path / "absent.h5").model.backbone == "MobileNetV2"


def test_of_several_weights_each_backbone_takes_its_own(tmp_path):
    for spec in ("CaffeNet", "VGG16:mode=torch"):
        with h5py.File(tmp_path / f"{spec[:3]}.h5", "w") as file:
            file.attrs["kerasft_backbone"] = spec
    caffenet, vgg = f"{tmp_path}/Caf.h5", f"{tmp_path}/VGG.h5"
    joined = f"{caffenet}+imagenet+{vgg}"
    assert weights_for(joined, "VGG16:mode=torch") == vgg
    assert weights_for(joined, "CaffeNet+VGG16") == f"{caffenet}+imagenet"
    assert weights_for(joined, "VGG16+MobileNet") == "imagenet"
    assert weights_for(f"{caffenet}+{vgg}", "VGG16") == f"{caffenet}+{vgg}"  # the config says it
    assert weights_for("runs/one", "VGG16") == "runs/one"
    assert weights_for("none+imagenet", "MobileNetV2+VGG16") == "none+imagenet"  # by their order


@pytest.mark.parametrize("named", ["other.h5", "absent.h5", "none"])
def test_weights_that_no_backbone_would_take_for_sure_are_refused(named, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    path = named if named == "none" else f"{tmp_path}/{named}"
    with pytest.raises(UserError) as caught:
        weights_for(f"imagenet+{path}", "VGG16")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        f"weights: {path} does not say which backbone it is for. Expected files of import-caffe "
        "or import-torch, and one word for all other backbones."
    )


def test_a_run_brings_its_net_and_its_side_and_is_the_file_in_it_from_then_on(
    tmp_path, monkeypatch
):
    run = a_run(tmp_path / "runs" / "other")
    (tmp_path / "mine.toml").write_text("[data]\nsource='p'\n[model]\nweights = 'runs/other'\n")
    monkeypatch.chdir(tmp_path)
    for config in (
        loaded("runs/other"),
        loaded(run, backbone="MobileNet:alpha=0.25"),
        load_config(tmp_path / "mine.toml"),
        Config(
            data=Data(source="p"), model=Model(weights=str(run)), phases=default_phases("imagenet")
        ),
    ):
        assert config.model == Model(
            backbone="MobileNet:alpha=0.25", weights=str(run / "model.keras"), image_size=160
        )
        assert [(phase.name, phase.blocks) for phase in config.phases] == [("head", 0)]


def test_the_side_and_the_spelling_that_are_typed_stay(tmp_path):
    run = a_run(tmp_path / "other", backbone="MobileNet")
    model = loaded(run, backbone="MobileNet:alpha=1", image_size=96).model
    assert (model.backbone, model.image_size) == ("MobileNet:alpha=1", 96)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("MobileNet", "MobileNet:alpha=1.0", True),
        ("MobileNet", "MobileNet:depth_multiplier=1,alpha=1", True),
        ("MobileNetV3Small:minimalistic=false", "MobileNetV3Small", True),
        ("MobileNetV3Small:minimalistic=true", "MobileNetV3Small", False),
        ("MobileNet:alpha=0.75", "MobileNet", False),
        ("MobileNet", "MobileNetV2", False),
    ],
)
def test_a_default_that_is_written_out_is_the_same_net(one, other, same):
    assert same_net(one, other) is same


def test_a_config_names_the_file_relative_to_itself_and_moves_with_the_run(tmp_path):
    a_run(tmp_path / "a" / "other")
    config = loaded(tmp_path / "a" / "other")
    text = to_toml(config, tmp_path / "a" / "new")
    assert tomllib.loads(text)["model"] == {
        "backbone": "MobileNet:alpha=0.25",
        "weights": "../other/model.keras",
        "image_size": 160,
    }
    (tmp_path / "a" / "new").mkdir()
    (tmp_path / "a" / "new" / "config.toml").write_text(text)
    os.rename(tmp_path / "a", tmp_path / "b")
    moved = load_config(tmp_path / "b" / "new" / "config.toml").model
    assert moved.weights == str(tmp_path / "b" / "other" / "model.keras")
    shutil.rmtree(tmp_path / "b" / "other")  # the config of a finished run is read without it
    assert load_config(tmp_path / "b" / "new" / "config.toml").model == moved


@pytest.mark.parametrize("word", ["imagenet", "sample", "none"])
def test_a_folder_with_the_name_of_a_choice_needs_a_path(word, tmp_path, monkeypatch):
    run = a_run(tmp_path / word)
    monkeypatch.chdir(tmp_path)
    assert loaded(word).model.weights == word
    assert loaded(f"./{word}").model.weights == str(run / "model.keras")


def test_another_net_is_refused_with_what_to_type(tmp_path):
    run = a_run(tmp_path / "other")
    assert refusal(run, backbone="ResNet50") == (
        f"model.weights (`flags`): the run {run} has trained MobileNet:alpha=0.25, got backbone "
        "'ResNet50'. Leave the backbone out, pass `model.backbone=MobileNet:alpha=0.25`, or choose "
        "other weights."
    )


def test_an_unknown_backbone_beside_a_run_is_one_problem(tmp_path):
    run = a_run(tmp_path / "other")
    assert refusal(run, backbone="MobileNett").startswith("model.backbone (`flags`): unknown")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert refusal(tmp_path) == (
        f"model.weights (`flags`): {tmp_path} is not a run: no run.json in it. Name a run "
        "directory, or a file that ends in .h5 or .keras."
    )


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "nothing") == (
        "model.weights (`flags`): expected 'imagenet', 'sample', 'none', a run directory or a "
        "file that ends in .h5 or .keras, got 'nothing'."
    )


def test_a_run_that_has_no_model_yet_says_how_to_go_on_with_it(tmp_path):
    run = a_run(tmp_path / "other", model=False)
    assert refusal(run) == (
        f"model.weights (`flags`): {run}: no model yet: its training has not finished a phase. "
        f"Continue it: `continue_run('{run}', resume=True)`"
    )


@pytest.mark.parametrize("text", ["", "model = 3", "[model]\nbackbone = 3", "[model"])
def test_a_run_with_a_damaged_config_is_refused(text, tmp_path):
    run = a_run(tmp_path / "other")
    (run / "config.toml").write_text(text)
    assert f"{run / 'config.toml'}" in refusal(run)
    with pytest.raises(UserError, match=r"config\.toml"):
        net_of(run)


def test_a_run_without_its_config_is_refused(tmp_path):
    run = a_run(tmp_path / "other")
    (run / "config.toml").unlink()
    with pytest.raises(UserError, match=r"config\.toml: no such file"):
        file_for(run, None)


# ── training ──


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run on three classes, its statistics moved, with fc layers and test-time views on top."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Tiny", TINY)
        patch.setattr(keras.applications, "Tiny", tiny_constructor, raising=False)
        folder = tmp_path_factory.mktemp("weights")
        draw_photos(folder / "two", classes=("left", "right"), seed=1)
        config = small(draw_photos(folder / "photos"), "head.hidden=[6]", "augment.test_time=flip")
        train_run(config, folder / "other")
        deep = {"blocks": "all", "batch_norm": "train", "epochs": 2, "learning_rate": 0.01}
        continue_run(
            folder / "other", flags={f"phases.-1.{key}": value for key, value in deep.items()}
        )
        patch.chdir(folder)
        yield folder


def kerasft(line):
    return CliRunner().invoke(main, shlex.split(line), prog_name="kerasft")


TYPED = "train --data two --weights other --run typed --epochs 1 --batch-size 8 --seed 5"


@pytest.fixture(scope="module")
def typed(other):
    return kerasft(TYPED)


def base_features(run, pixels):
    model = trained_part(bundle.load(run / "model.keras").model)
    base = keras.Model(model.inputs[0], features_of(model))
    return np.asarray(base(pixels, training=False))


def test_a_new_run_begins_with_the_base_of_the_other_one_statistics_included(other, typed):
    assert typed.exit_code == 0, typed.stderr
    left_out = "the top is not used: head_dense_0, logits."
    assert f"{other / 'other' / 'model.keras'}: {left_out}" in typed.stderr
    assert (other / "typed" / "classes.txt").read_text() == "left\nright\n"
    moved = bundle.load(other / "other" / "model.keras").model
    means = [w for w in moved.weights if w.path.endswith("moving_mean")]
    assert max(np.abs(mean).max() for mean in means) > 0.01  # zeros in a net at its start
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    expected = base_features(other / "other", pixels)
    np.testing.assert_array_equal(base_features(other / "typed", pixels), expected)


def test_the_written_config_trains_the_same_again(other, typed):
    again = kerasft("train typed/config.toml --run again")
    assert again.exit_code == 0, again.stderr
    for name in ("metrics.jsonl", "config.toml"):
        assert (other / "again" / name).read_bytes() == (other / "typed" / name).read_bytes()


def test_the_same_command_resumes(other, typed):
    resumed = kerasft(f"{TYPED} --resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "typed is finished: there is nothing to resume." in resumed.stderr


def test_bad_weights_are_refused_by_the_command_and_nothing_is_made(other):
    before = sorted(path.name for path in other.iterdir())
    done = kerasft("train --data two --weights two --backbone Tiny --image-size 0 --run bad")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: the options have 2 problems:\n"
        f"  model.weights (--weights): {other / 'two'} is not a run: no run.json in it. Name a "
        "run directory, or a file that ends in .h5 or .keras.\n"
        "  model.image_size (--image-size): expected more than 0, got 0.\n"
    )
    assert sorted(path.name for path in other.iterdir()) == before
