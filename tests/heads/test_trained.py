import keras
import numpy as np
from tiny import batch

from kerasft.heads.trained import attach, features_of, set_standard


def base():
    pixels = keras.Input((16, 16, 3), name="pixels")
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="pool")(pixels))


def test_scores_are_a_softmax_over_the_logits():
    model = attach(base(), 3, hidden=(), dropout=0.2, seed=0)
    pixels, _ = batch(4)
    both = keras.Model(model.inputs, [model.output, model.get_layer("logits").output])
    scores, logits = both.predict(pixels / 255, verbose=0)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(scores, shifted / shifted.sum(axis=1, keepdims=True), rtol=1e-5)
    assert scores.shape == (4, 3)


def test_hidden_layers_come_before_the_softmax_each_behind_dropout():
    model = attach(base(), 3, hidden=(8, 4), dropout=0.5, seed=0)
    assert [layer.name for layer in model.layers[2:]] == [
        "head_dropout_0",
        "head_dense_0",
        "head_dropout_1",
        "head_dense_1",
        "head_dropout_2",
        "logits",
        "scores",
    ]
    assert model.count_params() == (3 * 8 + 8) + (8 * 4 + 4) + (4 * 3 + 3)


def test_hidden_layers_are_cut_off_at_zero_and_logits_are_not():
    model = attach(base(), 3, hidden=(8, 8), dropout=0.5, seed=0)
    x = np.random.default_rng(0).normal(0, 1, (16, 3)).astype("float32")
    pixels = np.tile(x[:, None, None], (1, 16, 16, 1))
    for name in ("head_dense_0", "head_dense_1", "logits"):
        kernel, bias = model.get_layer(name).get_weights()
        x = x @ kernel + bias if name == "logits" else np.maximum(x @ kernel + bias, 0)
    logits = keras.Model(model.inputs, model.get_layer("logits").output)
    np.testing.assert_allclose(logits.predict(pixels, verbose=0), x, atol=1e-5)
    assert (x < -0.01).any() and (x > 0.01).any()


def test_each_layer_of_a_head_has_a_seed_of_its_own():
    model = attach(base(), 8, hidden=(8, 8), dropout=0.5, seed=0)
    kernels = [model.get_layer(name).kernel for name in ("head_dense_1", "logits")]
    assert not np.array_equal(*kernels)
    assert len({model.get_layer(f"head_dropout_{i}").seed for i in range(3)}) == 3


def test_features_that_are_standardised_have_mean_0_and_variance_1_but_constant_ones():
    model = attach(base(), 2, hidden=(), dropout=0.0, seed=0, standardise=True)
    features = np.array([[1, 10, 5], [3, 30, 5]], "float32")
    standard = model.get_layer("head_standardise")
    np.testing.assert_array_equal(standard(features), features)  # until it is set
    set_standard(model, features)
    np.testing.assert_allclose(standard(features), [[-1, -1, 0], [1, 1, 0]], atol=1e-6)
    # An image on which the constant feature differs: by 2, which is not scaled.
    np.testing.assert_allclose(standard(np.array([[2, 20, 7]], "float32")), [[0, 0, 2]], atol=1e-6)
    assert int(standard.count) == 2


def test_features_are_what_enters_the_head_with_or_without_dropout():
    for hidden in ((), (8,)):
        for dropout in (0.0, 0.5):
            whole = base()
            model = attach(whole, 3, hidden=hidden, dropout=dropout, seed=0)
            assert features_of(model) is whole.outputs[0]
            assert features_of(whole) is whole.outputs[0]


def test_initial_weights_depend_on_the_seed_only():
    one, same, other = (attach(base(), 3, hidden=(8,), dropout=0.2, seed=s) for s in (1, 1, 2))
    for a, b, c in zip(one.weights, same.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert "bias" in a.path or not np.array_equal(a, c)
