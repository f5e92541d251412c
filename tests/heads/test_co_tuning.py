"""Co-Tuning: the classifier that is found, the relation between classes, and the second loss."""

import keras
import numpy as np
import pytest

from kerasft.heads.co_tuning import CoTuning, classifier_of, relation

X = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]], "float32")
KERNEL, BIAS = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], "float32"), np.zeros(3, "float32")


def net(*behind):
    x = pixels = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3)(x)
    for layer in behind:
        x = layer(x)
    return keras.Model(pixels, keras.layers.Softmax()(x))


POOL = keras.layers.GlobalAveragePooling2D


def test_a_dense_layer_behind_the_pooling_is_the_classifier():
    dense = keras.layers.Dense(5)
    kernel, bias = classifier_of(net(POOL(), keras.layers.Dropout(0.1), dense))
    np.testing.assert_array_equal(kernel, dense.kernel)
    np.testing.assert_array_equal(bias, dense.bias)


def test_a_convolution_of_one_pixel_is_a_classifier_too():  # MobileNet
    conv = keras.layers.Conv2D(5, 1)
    last = keras.layers.Reshape((5,))
    kernel, _ = classifier_of(net(POOL(keepdims=True), conv, last))
    np.testing.assert_array_equal(kernel, conv.kernel[0, 0])


@pytest.mark.parametrize(
    "behind",
    [
        (POOL(), keras.layers.Dense(4), keras.layers.Dense(5)),  # VGG has two more
        (POOL(), keras.layers.LayerNormalization(), keras.layers.Dense(5)),  # ConvNeXt
        (keras.layers.Flatten(), keras.layers.Dense(5)),
    ],
)
def test_other_nets_have_no_classifier_on_pooled_features(behind):
    assert classifier_of(net(*behind)) is None


def test_the_relation_is_the_mean_of_the_scores_by_class():
    related = relation(X, np.array([0, 1, 1]), KERNEL, BIAS, 3)
    a, b, c = (np.exp([2, 0, 0]), np.exp([0, 2, 0]), np.exp([0, 6, 0]))
    expected = [a / a.sum(), (b / b.sum() + c / c.sum()) / 2, [0, 0, 0]]  # no photo of class 2
    np.testing.assert_allclose(related, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("weights", "factors"), [(None, [1, 1]), (np.array([3.0, 0.5]), [3, 0.5])])
def test_the_second_loss_is_the_cross_entropy_towards_the_related_classes(weights, factors):
    related = np.array([[1, 0, 0], [0, 0.5, 0.5]], "float32")
    second = CoTuning(None, (KERNEL, BIAS), related, 2.0)
    targets = np.array([[1, 0], [0.25, 0.75]], "float32")  # the second image is mixed
    logs = [np.log(np.exp(z) / np.exp(z).sum()) for z in ([2.0, 0, 0], [0.0, 2, 0])]
    each = [-logs[0][0], -(0.25 * logs[1][0] + 0.375 * logs[1][1] + 0.375 * logs[1][2])]
    expected = 2.0 * np.mean(np.array(each) * factors)
    assert float(second.loss(X[:2], targets, weights)) == pytest.approx(expected, rel=1e-5)
