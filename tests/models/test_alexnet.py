import keras
import numpy as np
import pytest

from kerasft.backbones.chains import CHAINS
from kerasft.models import alexnet
from kerasft.models.build import seed_layers


def build(name, side=None, **arguments):
    side = side or CHAINS[name].image_size
    pixels = keras.Input((side, side, 3), name="pixels")
    inputs = alexnet.preprocess_input(pixels, name)
    return alexnet.build(name, inputs, **{"include_top": False, **arguments})


def test_the_sides_are_those_of_the_paper():
    net = build("AlexNet")
    shapes = {layer.name: layer.output.shape[1:] for layer in net.layers}
    assert shapes["conv1"] == (55, 55, 96)
    assert shapes["conv1_pool"] == (27, 27, 96)
    assert shapes["conv2"] == (27, 27, 256)
    assert shapes["conv2_pool"] == (13, 13, 256)
    assert shapes["conv3"] == shapes["conv4"] == (13, 13, 384)
    assert shapes["conv5"] == (13, 13, 256)
    assert shapes["conv5_pool"] == (6, 6, 256)


def test_alexnet_normalises_and_pools_and_caffenet_pools_and_normalises():
    orders = {}
    for name in ("AlexNet", "CaffeNet"):
        names = [operation.name for operation in build(name).operations]
        orders[name] = [n for n in names if n in ("conv1_pool", "conv1_norm_scaled")]
    assert orders == {
        "AlexNet": ["conv1_norm_scaled", "conv1_pool"],
        "CaffeNet": ["conv1_pool", "conv1_norm_scaled"],
    }


def test_the_norm_divides_by_neighbouring_channels_as_the_paper_says():
    net = build("CaffeNet", side=67)
    norm = keras.Model(net.get_layer("conv1_pool").output, operation_output(net, "conv1_norm_scal"))
    x = np.random.default_rng(0).normal(0, 60, (1, *norm.input_shape[1:])).astype("float32")
    expected = np.empty_like(x)
    for channel in range(96):
        near = x[..., max(0, channel - 2) : channel + 3].astype("float64")
        total = (near**2).sum(axis=-1)
        expected[..., channel] = x[..., channel] / (1 + 1e-4 / 5 * total) ** 0.75
    assert np.abs(expected / x).min() < 0.9  # it does something
    # float32: a few units in the last place of 7 digits.
    np.testing.assert_allclose(norm.predict_on_batch(x), expected, rtol=2e-6, atol=1e-6)


def operation_output(net, name):
    return next(o.output for o in net.operations if o.name.startswith(name))


def test_a_group_sees_its_own_half_of_the_channels():
    seed_layers(0)
    net = build("AlexNet", side=67)
    conv2 = keras.Model(net.get_layer("conv1_pool").output, net.get_layer("conv2").output)
    x = np.random.default_rng(0).uniform(0, 1, (1, *conv2.input_shape[1:])).astype("float32")
    plain = conv2.predict_on_batch(x)
    x[..., :48] += 1
    moved = np.abs(conv2.predict_on_batch(x) - plain).max(axis=(0, 1, 2))
    assert (moved[:128] > 0).mean() > 0.9  # but for filters that a ReLU has silenced
    np.testing.assert_array_equal(moved[128:], 0)


def test_blue_comes_first_and_the_mean_of_imagenet_is_subtracted():
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, alexnet.preprocess_input(pixels, "CaffeNet"))
    red = np.zeros((1, 8, 8, 3), "float32")
    red[..., 0] = 200
    made = model.predict_on_batch(red)[0, 0, 0]
    np.testing.assert_allclose(made, [-104.00699, -116.66877, 200 - 122.678914], rtol=1e-6)


def test_torchvisions_alexnet_takes_pixels_as_pytorch_scales_them():
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, alexnet.preprocess_input(pixels, "AlexNetOWT"))
    made = model.predict_on_batch(np.full((1, 8, 8, 3), 255, "float32"))[0, 0, 0]
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(made, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["AlexNet", pytest.param("AlexNetOWT", marks=pytest.mark.slow)])
def test_it_learns_two_colours_from_random_weights(name):
    seed_layers(0)
    net = build(name, side=67, pooling="avg")
    scores = keras.layers.Dense(2, "softmax")(net.output)
    model = keras.Model(net.input, scores)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    images = np.random.default_rng(0).uniform(0, 100, (16, 67, 67, 3)).astype("float32")
    labels = np.arange(16) % 2
    images[labels == 1, ..., 0] += 150
    before = [w.numpy() for w in net.get_layer("conv1").weights]
    model.fit(images, labels, batch_size=8, epochs=6, verbose=0)
    assert np.abs(net.get_layer("conv1").kernel.numpy() - before[0]).max() > 1e-4
    assert model.evaluate(images, labels, verbose=0)[1] == 1.0


def test_the_top_has_dropout_between_its_layers_and_none_behind_the_features():
    net = build("CaffeNet", include_top=True)
    names = [layer.name for layer in net.layers]
    at = names.index("fc6_flatten")
    assert names[at:] == [
        *("fc6_flatten", "fc6", "fc6_dropout", "fc7", "fc7_dropout", "fc8"),
    ]
    assert net.output_shape == (None, 1000)
