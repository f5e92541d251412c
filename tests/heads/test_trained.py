import keras
import numpy as np
from tiny import batch

from kerasft.heads.trained import attach, features_of


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
