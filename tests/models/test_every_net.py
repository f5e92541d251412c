"""Every net of the table, built once each and looked at from all sides.

Weights are random, but none of them is neutral: a norm that does nothing, or a block that adds
a millionth (ConvNeXt as it is initialised), would hide a mistake.
"""

import gc
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils
from net_blocks import BLOCKS

from kerasft.backbones.imagenet_files import weights_file
from kerasft.backbones.table import BACKBONES, Backbone
from kerasft.models.blocks import list_blocks
from kerasft.models.build import load

# Built in a second; the other nets have the slow mark, which takes 12 minutes in all.
QUICK = ("MobileNet", "MobileNetV3Small")
ROWS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
    for name in BACKBONES
]


@dataclass
class Net:
    row: Backbone
    model: keras.Model
    file: Path  # the model, as `model.save` wrote it

    @property
    def pixels(self) -> np.ndarray:
        shape = (2, self.row.min_size, self.row.min_size, 3)
        return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


@pytest.fixture(scope="module", params=ROWS)
def net(request, tmp_path_factory):
    """A net at its smallest side. The next one is built when this one is gone."""
    row = BACKBONES[request.param]
    model = load(row.name, weights="none", image_size=row.min_size)
    leave_nothing_neutral(model)
    file = tmp_path_factory.mktemp(row.name) / "model.keras"
    model.save(file)
    yield Net(row, model, file)
    del model
    file.unlink()
    keras.backend.clear_session()
    gc.collect()


def leave_nothing_neutral(model):
    """Draws scales, shifts, means and variances; kernels are random already."""
    random = np.random.default_rng(1)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if not isinstance(layer, keras.layers.Normalization):  # ImageNet's, as they are
            for weight in (w for w in layer.weights if len(w.shape) == 1):
                shifts = not np.asarray(weight).any()
                low, high = (-0.1, 0.1) if shifts else (0.5, 1.0)
                weight.assign(random.uniform(low, high, weight.shape))


def run(model, inputs):
    return [np.asarray(out) for out in keras.tree.flatten(model(inputs, training=False))]


def test_the_table_says_what_the_net_is(net):
    row, side = net.row, net.row.min_size
    assert net.model.input_shape == (None, side, side, 3)
    assert net.model.output_shape == (None, row.features)
    assert net.model.count_params() == row.parameters
    assert len(list_blocks(net.model, row)) == row.blocks
    assert 0 < row.default_blocks <= row.blocks // 4 + 1


def test_the_blocks_are_these_and_nothing_is_left_over(net):
    blocks = list_blocks(net.model, net.row)
    assert [block.name for block in reversed(blocks)] == BLOCKS[net.row.name]
    layers = [layer for block in blocks for layer in block.layers]
    of_model = [operation.name for operation in net.model.operations]
    assert sorted([*layers, "pixels"]) == sorted(of_model)
    assert sum(block.parameters for block in blocks) == net.row.parameters


def test_two_tensors_enter_the_cells_of_nasnet_and_one_all_other_blocks(net):
    inputs = [len(block.inputs) for block in reversed(list_blocks(net.model, net.row))]
    cells = net.row.module == "nasnet"
    # The stem makes one, and the first cell takes it twice.
    assert inputs == ([1, 1] + [2] * (net.row.blocks - 2) if cells else [1] * net.row.blocks)


def test_the_blocks_one_after_the_other_are_the_whole_net(net):
    blocks = list_blocks(net.model, net.row)
    ends = [tuple(net.model.outputs), *(block.inputs for block in blocks[:-1])]
    tensors = {id(t): t for end in ends for t in end}
    every = keras.Model(net.model.inputs[0], list(tensors.values()))
    values = dict(zip(tensors, run(every, net.pixels), strict=True))
    values[id(net.model.inputs[0])] = net.pixels
    for block, end in zip(blocks, ends, strict=True):
        made = [t for t in end if not any(t is entering for entering in block.inputs)]
        alone = keras.Model(list(block.inputs), made)
        got = run(alone, [values[id(t)] for t in block.inputs])
        for tensor, value in zip(made, got, strict=True):
            expected = values[id(tensor)]
            largest = np.abs(expected).max()
            assert np.isfinite(largest) and largest > 0
            np.testing.assert_allclose(value, expected, atol=1e-5 * largest, err_msg=block.name)


def test_the_saved_net_computes_the_same_in_plain_keras(net):
    again = keras.models.load_model(net.file, compile=False)
    np.testing.assert_array_equal(run(again, net.pixels), run(net.model, net.pixels))
    nested = [type(layer).__name__ for layer in net.model.layers if isinstance(layer, keras.Model)]
    assert nested == (["Sequential"] * 4 if net.row.module == "convnext" else [])


def test_keras_asks_for_the_file_and_computes_the_same_on_preprocessed_pixels(net, monkeypatch):
    if not net.row.published:
        pytest.skip("Keras does not have it; test_caffe_import.py compares it with OpenCV")
    asked = []

    def get_file(name, *_, **__):
        asked.append(name)
        return str(net.file)

    monkeypatch.setattr(file_utils, "get_file", get_file)  # of Keras: it would download
    side = net.row.min_size
    constructor = getattr(keras.applications, net.row.name)
    plain = constructor(
        include_top=False, weights="imagenet", pooling="avg", input_shape=(side, side, 3)
    )
    assert asked == [weights_file(net.row.name, side)]
    preprocess = getattr(keras.applications, net.row.module).preprocess_input
    (expected,) = run(plain, preprocess(net.pixels))  # it overwrites its argument
    (got,) = run(net.model, net.pixels)
    # Division and subtraction may be fused otherwise; 1e-4 of the largest feature.
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
