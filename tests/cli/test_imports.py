"""`kerasft import-caffe` and `import-torch` as they are typed, and what training makes of it."""

import json
import tomllib

import numpy as np
import pytest
from caffe_files import CAFFENET_DEPLOY, write_caffemodel
from caffe_nets import OF_ALEXNET, random_layers
from click.testing import CliRunner
from drawing import draw_photos
from safetensors.numpy import save_file

from kerasft.cli.main import main
from kerasft.models import build


def kerasft(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def caffenet(tmp_path_factory):
    """CaffeNet without its fully connected layers, as Caffe's files and as a file for --weights."""
    folder = tmp_path_factory.mktemp("caffenet")
    layers = random_layers(OF_ALEXNET[:5])
    layers.append(("loss3", "InnerProduct", [np.zeros((2, 2), "f4")]))
    write_caffemodel(folder / "net.caffemodel", layers)
    (folder / "deploy.prototxt").write_text(CAFFENET_DEPLOY)
    return folder


def test_an_import_says_what_was_written_and_what_was_not_used(caffenet):
    given = (caffenet / "deploy.prototxt", caffenet / "net.caffemodel")
    done = kerasft("import-caffe", *given, "--backbone", "CaffeNet", "--to", caffenet / "net.h5")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        f"Wrote {caffenet}/net.h5 (9 MB): 2,334,080 parameters of CaffeNet, 8 layers.\n"
        "Mean of blue, green, red: 104.01, 116.67, 122.68.\n"
        "Left out, because they do not fit:\n"
        "  fc6: expected weights 4096x9216 and biases, got none.\n"
        "  fc7: expected weights 4096x4096 and biases, got none.\n"
        "  fc8: expected weights 1000x4096 and biases, got none.\n"
        "Not used: 'loss3'.\n\n"
        f"Next: kerasft train --data PHOTOS/ --weights {caffenet}/net.h5\n"
    )
    again = kerasft("import-caffe", *given, "--backbone", "caffenet", "--to", caffenet / "net.h5")
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == (
        f"Error: --to: {caffenet}/net.h5 is there already. Choose another, or remove it.\n"
    )


@pytest.mark.slow
def test_the_imported_file_brings_its_backbone_and_is_frozen_trained_and_kept(caffenet, tmp_path):
    weights = caffenet / "own.h5"
    given = (caffenet / "deploy.prototxt", caffenet / "net.caffemodel")
    kerasft("import-caffe", *given, "--backbone", "caffenet", "--to", weights)
    photos = draw_photos(tmp_path / "photos")
    run = tmp_path / "run"
    small = ("--image-size", 67, "--epochs", 1, "--set", "augment.views=1")
    done = kerasft("train", "--data", photos, "--weights", weights, "--run", run, *small)
    assert done.exit_code == 0, done.stderr
    model = tomllib.loads((run / "config.toml").read_text())["model"]
    assert model["backbone"] == "CaffeNet"
    unfrozen = kerasft("unfreeze-and-continue", run, "--epochs", 1, "--json")
    assert unfrozen.exit_code == 0, unfrozen.stderr
    phase = json.loads(unfrozen.stdout)["phases"][-1]
    assert (phase["blocks"], phase["trainable_parameters"] > 442_624) == (1, True)
    other = kerasft("train", "--data", photos, "--weights", weights, "--backbone", "AlexNet",
                    "--run", tmp_path / "other", *small)  # fmt: skip
    assert other.exit_code == 1
    assert other.stderr.splitlines()[-1] == (
        f"Error: {weights}: holds weights of CaffeNet, got backbone AlexNet. Leave the backbone "
        "out, or pass --backbone CaffeNet."
    )


def test_torchs_file_becomes_a_backbone_of_its_own(tmp_path):
    shapes = {"features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5)}
    shapes |= {"features.6": (384, 192, 3, 3), "features.8": (256, 384, 3, 3)}
    shapes |= {"features.10": (256, 256, 3, 3)}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = np.ones(shape, "f4")
        state[f"{name}.bias"] = np.ones(shape[0], "f4")
    save_file(state, tmp_path / "alexnet.safetensors")
    done = kerasft("import-torch", tmp_path / "alexnet.safetensors", "--backbone", "alexnet",
                   "--to", tmp_path / "net.h5", "--json")  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["backbone"], result["parameters"]) == ("AlexNetOWT", 2_469_696)
    net = build.load("AlexNetOWT", weights=str(tmp_path / "net.h5"), image_size=63)
    assert net.get_layer("conv3").kernel.numpy().min() == 1


def refused(*arguments):
    done = kerasft(*arguments)
    assert done.stdout == ""
    return done.exit_code, done.stderr


def test_files_that_are_swapped_or_absent_are_told_in_a_sentence(caffenet, tmp_path):
    text, binary = caffenet / "deploy.prototxt", caffenet / "net.caffemodel"
    how = ("--backbone", "caffenet", "--to", tmp_path / "w.h5")
    assert refused("import-caffe", binary, text, *how) == (
        1,
        f"Error: {binary}: is not text, it looks like a caffemodel; the order is PROTOTXT "
        "CAFFEMODEL.\n",
    )
    assert refused("import-caffe", text, text, *how) == (
        1,
        f"Error: {text}: is text, not a caffemodel: it looks like a prototxt (the order is "
        "PROTOTXT CAFFEMODEL), or like a download that failed.\n",
    )
    absent = tmp_path / "none.caffemodel"
    assert refused("import-caffe", text, absent, *how) == (
        2,
        f"Error: {absent}: no such file. Expected a caffemodel of Caffe.\n",
    )
    assert refused("import-caffe", text, binary, *how, "--mean", text) == (
        1,
        f"Error: {text}: is text, not a mean file: it looks like a prototxt, or like a download "
        "that failed.\n",
    )
    assert list(tmp_path.iterdir()) == []
