import keras
import numpy as np
import pytest
from tiny import TINY, batch, moved, tiny_model, weights_by_name

from kerasft.models.cut import freeze, split
from kerasft.models.live import Anchor, LiveModel, mixed, restore_precision, set_precision


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


@pytest.fixture
def halves():
    """Prefix and suffix at the top block, pixels, and what the prefix makes of them."""
    cut = split(tiny_model(), 1, TINY)
    pixels, _ = batch(6)
    return cut.prefix, cut.suffix, pixels, cut.prefix.predict(pixels, verbose=0)


SHARES = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], np.float32)


def test_without_a_prefix_a_live_model_is_the_suffix(halves):
    _, suffix, _, activations = halves
    given = LiveModel(None, suffix).predict(activations, verbose=0)
    expected = suffix.predict(activations, verbose=0)
    np.testing.assert_allclose(given, expected, atol=1e-6)  # float32, another graph


def test_activations_in_float16_are_computed_with_in_float32(halves):
    _, suffix, _, activations = halves
    stored = activations.astype("float16")
    given = LiveModel(None, suffix).predict(stored, verbose=0)
    assert given.dtype == np.float32
    expected = suffix.predict(stored.astype("float32"), verbose=0)
    # Arithmetic in float16 would be off by 1e-4.
    np.testing.assert_allclose(given, expected, atol=1e-6)


def test_an_image_is_mixed_with_the_one_before_and_the_first_with_the_last():
    activations = np.float32([[0, 8], [4, 0], [2, 2]])
    shares = np.float32([0.5, 0.75, 1.0])
    np.testing.assert_array_equal(mixed(activations, shares), [[1, 5], [3, 2], [2, 2]])


def test_a_share_belongs_to_all_of_an_images_activations():
    activations = np.arange(16, dtype="float32").reshape(2, 2, 2, 2)
    whole = mixed(activations, np.float32([1.0, 0.5]))
    np.testing.assert_array_equal(whole[0], activations[0])
    # Halfway between 8..15 and 0..7.
    np.testing.assert_array_equal(whole[1], [[[4, 5], [6, 7]], [[8, 9], [10, 11]]])


def test_pixels_are_mixed_at_the_cut_as_stored_activations_are(halves):
    prefix, suffix, pixels, activations = halves
    live = LiveModel(prefix, suffix)((pixels, SHARES))
    stored = LiveModel(None, suffix)((activations, SHARES))
    np.testing.assert_allclose(live, stored, atol=1e-6)  # float32, another graph
    at_the_pixels = LiveModel(prefix, suffix)(mixed(pixels, SHARES))
    assert np.abs(live - at_the_pixels).max() > 1e-3  # the control: the prefix is not linear


def test_what_comes_without_shares_is_not_mixed(halves):
    prefix, suffix, pixels, activations = halves
    for live, x in ((LiveModel(prefix, suffix), pixels), (LiveModel(None, suffix), activations)):
        plain = live(x)
        np.testing.assert_array_equal(live((x, np.ones(6, np.float32))), plain)
        assert np.abs(live((x, SHARES)) - plain).max() > 1e-3  # the control


def test_fit_takes_pairs_and_predict_takes_images_alone(halves):
    _, suffix, _, activations = halves
    before = weights_by_name(suffix)
    live = LiveModel(None, suffix)
    live.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    targets = np.eye(2, dtype="float32")[[0, 1, 0, 1, 0, 1]]
    live.fit((activations, SHARES), targets, batch_size=3, verbose=0)
    assert int(live.optimizer.iterations) == 2
    assert "logits/kernel" in moved(before, suffix)
    np.testing.assert_allclose(
        live.predict_on_batch(activations), suffix.predict_on_batch(activations), atol=1e-6
    )


def test_training_reaches_the_suffix_and_never_the_prefix():
    model = tiny_model(base_dropout=0.5)
    pixels, _ = batch()
    before = weights_by_name(model)
    head = split(model, 0, TINY)
    live = LiveModel(head.prefix, head.suffix)
    np.testing.assert_array_equal(live(pixels, training=True), live(pixels, training=False))
    assert moved(before, model) == []
    block = split(model, 1, TINY)
    live = LiveModel(block.prefix, block.suffix)
    trained = live(pixels, training=True)  # the control: there is dropout in the top block
    assert np.abs(trained - live(pixels, training=False)).max() > 1e-3
    assert moved(before, model) == ["block_2_a_norm/moving_mean", "block_2_a_norm/moving_variance"]


def test_the_distance_of_the_base_from_its_start_is_added_to_the_training_loss():
    model = tiny_model()
    cut = split(model, 1, TINY)
    freeze(cut, "frozen")
    of_block = set(cut.blocks[0].layers)
    anchor = Anchor(cut.suffix, of_block, 0.5)
    assert float(anchor.penalty()) == 0.0
    kernel = next(v for v in cut.suffix.trainable_variables if v.path.endswith("conv/kernel"))
    kernel.assign(kernel + 2.0)
    head = cut.suffix.get_layer("logits")
    head.kernel.assign(head.kernel + 7.0)  # the head has no pretrained start
    expected = 0.5 / 2 * 4.0 * kernel.numpy().size
    assert float(anchor.penalty()) == pytest.approx(expected, rel=1e-5)

    live = LiveModel(None, cut.suffix, None, anchor)
    x = np.ones((2, *cut.suffix.input_shape[1:]), "float32")
    live(x, training=False)
    assert live.losses == []
    live(x, training=True)
    assert float(live.losses[0]) == pytest.approx(expected, rel=1e-5)
