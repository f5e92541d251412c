"""A model together with its backbone's rows: blocks, cuts, base."""

import keras
import numpy as np
import pytest
from tiny import batch, tiny_model

from kerasft.models.net import Net

pytestmark = pytest.mark.usefixtures("tiny_backbone")


def test_a_net_knows_its_blocks_its_cuts_and_its_base():
    net = Net.of(tiny_model(), "Tiny")
    assert [row.name for row in net.rows] == ["Tiny"]
    assert [block.name for block in net.blocks] == ["block_2", "block_1", "stem"]
    assert [net.depth(blocks) for blocks in (0, 2, "all")] == [0, 2, 3]
    cut = net.cut(1)
    assert [block.name for block in cut.blocks] == ["block_2"]
    pixels = batch()[0]
    features = net.base.predict(pixels, verbose=0)
    assert features.shape == (len(pixels), 4)
    inside = keras.Model(net.model.inputs, net.features).predict(pixels, verbose=0)
    np.testing.assert_array_equal(features, inside)
