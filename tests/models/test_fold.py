"""A model for inference is folded: the same function, fewer layers."""

import keras
import numpy as np
import pytest
from tiny import TINY, tiny_model, weights_by_name

from kerasft.models.cut import split
from kerasft.models.fold import for_inference, without_antialias

RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(0, 255, (4, 16, 16, 3)).astype("float32")


def set_apart(model):
    """Moves the statistics and factors of all normalisations far from where they begin."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            weights = [rng.uniform(0.5, 2, w.shape) for w in layer.get_weights()]
            layer.set_weights(weights)
    return model


def norms(model):
    return [one.name for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]


def assert_same_function(model, folded, pixels=PIXELS):
    ours, theirs = (keras.tree.flatten(net(pixels, training=False)) for net in (model, folded))
    for one, other in zip(ours, theirs, strict=True):
        # Folding rounds in another place: 4e-7 of the largest number.
        assert np.abs(one - other).max() < 4e-6 * np.abs(one).max()


def test_a_prefix_with_two_outputs_computes_the_same_without_its_norms():
    model = set_apart(tiny_model(base_dropout=0.5))
    cuts = [split(model, blocks, TINY).prefix.outputs[0] for blocks in (0, 1)]
    prefix = keras.Model(model.inputs[0], cuts)
    before = weights_by_name(prefix)
    folded = for_inference(prefix)
    assert (len(norms(prefix)), norms(folded)) == (3, [])
    assert_same_function(prefix, folded)
    after = weights_by_name(prefix)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    # A control: the normalisations do something.
    plain = split(tiny_model(), 0, TINY).prefix
    assert np.abs(plain(PIXELS) - folded(PIXELS)[0]).max() > 0.1


KINDS = {
    "bias": lambda x: keras.layers.Conv2D(5, 3, use_bias=True)(x),
    "no bias": lambda x: keras.layers.Conv2D(5, 3, use_bias=False)(x),
    "depthwise": lambda x: keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x),
    "separable": lambda x: keras.layers.SeparableConv2D(5, 3, use_bias=False)(x),
    "grouped": lambda x: keras.layers.Conv2D(6, 3, groups=3)(x),
}


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
@pytest.mark.parametrize("kind", KINDS)
def test_every_convolution_takes_its_norm(kind, options):
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization(**options)(KINDS[kind](pixels))
    model = set_apart(keras.Model(pixels, keras.layers.ReLU()(x)))
    folded = for_inference(model)
    assert norms(folded) == []
    assert_same_function(model, folded)


def both_read(x):
    x = keras.layers.Conv2D(4, 3)(x)
    return keras.layers.Add()([x, keras.layers.BatchNormalization()(x)])


def activated(x):
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    return keras.layers.BatchNormalization()(x)


def pooled(x):
    x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(4, 3)(x))
    return keras.layers.BatchNormalization()(x)


def shared(x):
    conv, norm = keras.layers.Conv2D(3, 3, padding="same"), keras.layers.BatchNormalization()
    return norm(conv(norm(conv(x))))


@pytest.mark.parametrize("build", [both_read, activated, pooled, shared], ids=lambda f: f.__name__)
def test_a_norm_stays_where_folding_would_change_something_else(build):
    pixels = keras.Input((16, 16, 3))
    model = set_apart(keras.Model(pixels, build(pixels)))
    folded = for_inference(model)
    assert len(norms(folded)) == 1
    assert_same_function(model, folded)


def test_a_convolution_that_is_an_output_keeps_its_norm():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3)(pixels)
    model = set_apart(keras.Model(pixels, [x, keras.layers.BatchNormalization()(x)]))
    folded = for_inference(model)
    assert len(norms(folded)) == 1
    assert_same_function(model, folded)


def test_gelu_is_the_same_function():
    values = keras.Input((16, 16, 3))
    model = keras.Model(values, keras.layers.Activation("gelu", name="gelu")(values))
    folded = for_inference(model)
    # To -5: below, 1 + erf has no digits left, where the value is 1e-6 of the largest.
    spread = np.linspace(-5, 5, 16 * 16 * 3, dtype="float32").reshape(1, 16, 16, 3)
    ours, theirs = np.asarray(folded(spread)), np.asarray(model(spread))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert ours.min() == pytest.approx(-0.16997, abs=1e-4)  # the control: at -0.7518
    assert folded.get_layer("gelu").activation is not model.get_layer("gelu").activation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("MobileNetV2", 0),
        ("ResNet50", 0),
        ("EfficientNetV2B0", 0),
        ("ConvNeXtTiny", 0),
        ("NASNetMobile", 4),
    ],
)
def test_real_nets_are_folded(name, left):
    net = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg")
    folded = for_inference(net)
    assert len(norms(folded)) == left
    pixels = RNG.uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    assert_same_function(net, folded, pixels)


def test_a_resize_with_antialiasing_is_two_matrix_products():
    pixels = keras.Input((40, 40, 3))
    small = keras.ops.image.resize(pixels, (16, 24), antialias=True)
    inner = keras.Model(pixels, small)
    outer = keras.Model(pixels, inner(pixels))  # as behind test-time views
    images = np.random.default_rng(0).uniform(0, 255, (2, 40, 40, 3)).astype("float32")
    for model in (inner, outer):
        plain = without_antialias(model)
        assert plain is not model
        np.testing.assert_allclose(plain(images), model(images), atol=1e-3)  # of 255
