import json
import subprocess
import sys

import pytest
from drawing import draw_photos

from kerasft.devices import prepare
from kerasft.errors import UserError


def prepared(code):
    """What a fresh process prints that prepares a device as its first act."""
    code = "import json\nfrom kerasft.devices import prepare\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_number_of_threads_of_an_earlier_process_is_set_again():
    code = (
        "import tensorflow as tf\nprint(prepare('cpu', threads=1))\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads())\n"
        "from tensorflow.python.framework.config import is_op_determinism_enabled\n"
        "print(is_op_determinism_enabled())"
    )
    assert prepared(code) == "{'device': 'cpu', 'name': '', 'threads': 1}\n1\nTrue"


def test_another_number_of_threads_than_the_process_computes_with_is_refused():
    code = (
        "import tensorflow as tf\nprepare('cpu', threads=1)\ntf.constant([1.0]) + 1\n"
        "try:\n    prepare('cpu', threads=2)\nexcept Exception as error:\n    print(error)"
    )
    assert prepared(code) == (
        "This process computes with 1 threads, the run began with 2, and the number changes "
        "the weights. Go on in a fresh process."
    )


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"'gpu:7' asked for, but TensorFlow sees \d+ GPUs"):
        prepare("gpu:7")


def test_unfreezing_sets_the_threads_before_it_loads_the_model(tmp_path):
    # A fresh process on a machine with another number of cores must not have computed yet.
    photos = draw_photos(tmp_path / "photos", per_class=4)
    net = {"model.backbone": "MobileNet:alpha=0.25", "model.weights": "none"}
    net |= {"model.image_size": 32, "phases.0.blocks": 0, "phases.0.epochs": 1}
    flags = {**net, "data.source": str(photos)}
    code = (
        "from pathlib import Path\nfrom kerasft.config import load_config\n"
        "from kerasft.train import train_run, continue_run\n"
        f"run = Path({str(tmp_path / 'run')!r})\n"
    )
    prepared(code + f"train_run(load_config(None, flags={flags!r}), run)")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["threads"] += 1
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    said = prepared(
        code + "result = continue_run(run, flags={'phases.-1.epochs': 1})\n"
        "import tensorflow as tf\n"
        "print(len(result['phases']), tf.config.threading.get_intra_op_parallelism_threads())"
    )
    assert said == f"2 {record['threads']}"
