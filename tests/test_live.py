import keras
import numpy as np
import pytest
from tiny import TINY, batch, tiny_model

from kerasft.cut import freeze, split
from kerasft.live import LiveModel, restore_precision, set_precision


def logits_of(model):
    return keras.Model(model.inputs, model.get_layer("logits").output)


@pytest.mark.parametrize("blocks", [0, 1, "all"])
def test_a_live_model_computes_the_logits_of_the_whole_model(blocks):
    model = tiny_model(dropout=0.5)
    pixels, _ = batch()
    expected = logits_of(model).predict(pixels, verbose=0)
    cut = split(model, blocks, TINY)
    given = LiveModel(cut.prefix, cut.suffix).predict(pixels, verbose=0)
    np.testing.assert_allclose(given, expected, atol=1e-6)  # float32, another graph


def test_no_gradient_enters_the_prefix():
    cut = split(tiny_model(), 1, TINY)
    freeze(cut, "frozen")
    live = LiveModel(cut.prefix, cut.suffix)
    live(batch(1)[0])
    assert [v.path for v in live.trainable_variables] == [
        "block_2_a_conv/kernel",
        "block_2_a_conv/bias",
        "logits/kernel",
        "logits/bias",
    ]


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_variables():
    model = tiny_model()
    pixels, _ = batch()
    exact = logits_of(model).predict(pixels, verbose=0)
    before = set_precision(model, "mixed_bfloat16")
    cut = split(model, 1, TINY)
    live = LiveModel(cut.prefix, cut.suffix)
    rough = live.predict(pixels, verbose=0)
    assert rough.dtype == np.float32
    assert 1e-6 < np.abs(rough - exact).max() < 0.05  # 8 bits of mantissa
    assert {v.dtype for v in model.weights} == {"float32"}
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    for name in ("scale", "logits", "scores"):
        assert model.get_layer(name).compute_dtype == "float32"
    restore_precision(before)
    np.testing.assert_array_equal(logits_of(model).predict(pixels, verbose=0), exact)
