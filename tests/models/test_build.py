"""What is built: preprocessing, sides, seeds, ImageNet. `test_every_net.py` looks at all nets."""

import keras
import numpy as np
import pytest

from kerasft.backbones.spec import parse
from kerasft.backbones.table import BACKBONES
from kerasft.errors import UserError
from kerasft.models.build import add_scores, load, pretrained


@pytest.fixture(autouse=True)
def forget_the_models():
    yield
    keras.backend.clear_session()


def some_pixels(side, images=2, seed=0):
    shape = (images, side, side, 3)
    return np.random.default_rng(seed).uniform(0, 255, shape).astype("float32")


def run(model, pixels):
    return np.asarray(model(pixels, training=False))


def entering(model, layer_name, pixel):
    """What reaches a layer at the middle of an image that is all of one colour."""
    inner = keras.Model(model.inputs[0], model.get_layer(layer_name).input)
    side = model.inputs[0].shape[1]
    image = np.full((1, side, side, 3), pixel, "float32")
    out = np.asarray(inner(image))
    return out[0, out.shape[1] // 2, out.shape[2] // 2]


# --- the table and the spec ---


def test_a_width_without_imagenet_weights_is_refused():
    with pytest.raises(UserError, match=r"Keras refuses it\. If imagenet") as caught:
        load("MobileNet:alpha=0.3", weights="imagenet", image_size=224)
    assert caught.value.exit_code == 2


# --- preprocessing ---


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("spec", "layer", "expected"),
    [
        # caffe: BGR, minus the mean (103.939, 116.779, 123.68)
        ("VGG16", "block1_conv1", [-103.939, 11.221, 131.32]),
        slow("ResNet50", "conv1_pad", [-103.939, 11.221, 131.32]),
        # tf: x / 127.5 - 1
        slow("MobileNet:alpha=0.25", "conv1", [1.0, 0.0039216, -1.0]),
        ("MobileNetV2:alpha=0.35", "Conv1", [1.0, 0.0039216, -1.0]),
        slow("ResNet50V2", "conv1_pad", [1.0, 0.0039216, -1.0]),
        slow("Xception", "block1_conv1", [1.0, 0.0039216, -1.0]),
        # torch: (x / 255 - mean) / stddev
        slow("DenseNet121", "conv1_conv", [2.2489083, 0.2051822, -1.8044444]),
        # none: inside of the application
        ("MobileNetV3Small", "conv", [1.0, 0.0039216, -1.0]),
        ("EfficientNetB0", "stem_conv_pad", [2.2489083, 0.2051822, -1.8044444]),
        slow("EfficientNetV2B0", "stem_conv", [2.2489083, 0.2051822, -1.8044444]),
        slow("ConvNeXtTiny", "convnext_tiny_stem", [2.2489083, 0.2051822, -1.8044444]),
    ],
)  # fmt: skip
def test_the_model_preprocesses_pixels_as_imagenet_nets_expect(spec, layer, expected):
    backbone, _ = parse(spec)
    model = load(spec, weights="none", image_size=backbone.min_size)
    # 1e-5: one step of float32 at 131
    np.testing.assert_allclose(entering(model, layer, [255, 128, 0]), expected, atol=1e-5)


def test_efficientnet_has_the_second_rescaling_of_imagenet_weights_without_them_too():
    model = load("EfficientNetB0", weights="none", image_size=32)
    assert [type(layer).__name__ for layer in model.layers[:5]] == [
        "InputLayer", "Rescaling", "Normalization", "Rescaling", "ZeroPadding2D",
    ]  # fmt: skip
    np.testing.assert_allclose(model.layers[3].scale, [2.0896919, 2.1128856, 2.1081851])


# --- what is built ---


def test_a_side_under_the_minimum_is_refused():
    for name, row in BACKBONES.items():
        side = row.min_size - 1
        with pytest.raises(UserError) as caught:
            load(name, weights="none", image_size=side)
        assert str(caught.value) == (
            f"image size: {name} takes images of {side + 1} pixels a side or more, got {side}."
        )
        assert caught.value.exit_code == 2
        if not row.published:
            continue
        with pytest.raises(ValueError, match="at least"):  # Keras' own limit is the same
            getattr(keras.applications, name)(
                include_top=False, weights=None, input_shape=(side, side, 3)
            )


def test_random_weights_depend_on_the_seed_alone():
    first = load("MobileNet:alpha=0.25", weights="none", image_size=32, seed=7).get_weights()
    keras.layers.Dense(3)(np.random.default_rng().normal(size=(2, 5)))  # uses up random numbers
    again = load("MobileNet:alpha=0.25", weights="none", image_size=64, seed=7).get_weights()
    other = load("MobileNet:alpha=0.25", weights="none", image_size=32, seed=8).get_weights()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(first[0] - other[0]).max() > 0.01


@pytest.mark.slow
def test_random_weights_of_a_rebuilt_net_depend_on_the_seed_alone():
    first = load("EfficientNetB0", weights="none", image_size=32, seed=7)
    again = load("EfficientNetB0", weights="none", image_size=32, seed=7)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- ImageNet ---


def test_imagenet_weights_give_known_features(assets):
    # The numbers are those of plain Keras 3.15.1 on NumPy pixels that were preprocessed before.
    model = load("MobileNetV2:alpha=0.35", weights="imagenet", image_size=224)
    ramp = np.linspace(0, 255, 224, dtype="float32")
    across, down = np.tile(ramp, (224, 1)), np.tile(ramp[:, None], 224)
    pixels = np.stack([across, down, np.full((224, 224), 99, "float32")], axis=-1)
    features = run(model, pixels[None])[0]
    assert features.shape == (1280,)
    expected = [0, 0, 0.00594, 0.98675, 0, 0.09066, 0.91674, 0]
    np.testing.assert_allclose(features[:8], expected, atol=1e-3)  # other CPUs sum otherwise
    assert features.mean() == pytest.approx(0.11299, abs=1e-4)
    assert features.argmax() == 567


def test_a_side_without_weights_of_its_own_takes_those_of_224_and_says_so(assets, caplog, recwarn):
    caplog.set_level("INFO", logger="kerasft")
    model = load("MobileNet:alpha=0.25", weights="imagenet", image_size=100)
    assert caplog.messages == [
        "MobileNet:alpha=0.25 has no ImageNet weights for 100 pixels a side; those for 224 pixels "
        "are used."
    ]
    assert not [warning for warning in recwarn if warning.category is UserWarning]
    caplog.clear()
    at_224 = load("MobileNet:alpha=0.25", weights="imagenet", image_size=224)
    assert caplog.messages == []
    for a, b in zip(model.get_weights(), at_224.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_pretrained_net_knows_a_daisy(assets):
    model, labels = pretrained("MobileNetV2")
    assert len(labels) == 1000
    assert [labels[0], labels[985], labels[999]] == ["tench", "daisy", "toilet_tissue"]
    photos = sorted((assets / "datasets" / "flowers5" / "daisy").glob("*.jpg"))[:4]
    pixels = np.stack([
        keras.utils.img_to_array(
            keras.utils.load_img(photo, target_size=(224, 224), interpolation="bilinear")
        )
        for photo in photos
    ])  # fmt: skip
    scores = run(model, pixels)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    best = [labels[row.argmax()] for row in scores]
    assert best.count("daisy") >= 3  # in plain Keras too, the fourth is not recognised

    logits = keras.Model(model.inputs[0], model.get_layer("logits").output)
    raised = run(logits, pixels)
    assert raised.min() < 0  # no softmax before the softmax
    softmax = np.exp(raised) / np.exp(raised).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, scores, atol=1e-5)


@pytest.mark.slow
def test_the_pretrained_mobilenet_without_a_dense_top_has_logits_too(assets, tmp_path):
    model, _ = pretrained("MobileNet:alpha=0.75")
    assert model.get_layer("logits").output.shape == (None, 1000)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    pixels = some_pixels(224, images=1)
    np.testing.assert_array_equal(run(model, pixels), run(again, pixels))


def test_a_layer_that_keras_calls_logits_makes_way_for_the_real_ones(tmp_path):
    shape = (32, 32, 3)  # the published weights of MobileNetV3 are not needed for this
    net = keras.applications.MobileNetV3Small(
        weights=None, input_shape=shape, classifier_activation=None
    )
    assert net.get_layer("logits").output.shape == (None, 1, 1, 1000)
    model = add_scores(net)
    assert model.get_layer("logits").output.shape == (None, 1000)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    pixels = some_pixels(32)
    np.testing.assert_array_equal(run(model, pixels), run(again, pixels))
