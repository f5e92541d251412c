"""The feature maps of a net of each family, with random weights, at the side of its own."""

import gc

import keras
import numpy as np
import pytest

from kerasft.backbones.table import BACKBONES
from kerasft.evaluation.explain import explain, heat_maps
from kerasft.evaluation.maps import halves_of
from kerasft.heads import trained
from kerasft.input_rule import InputRule
from kerasft.models import build
from kerasft.models.bundle import Bundle

# What is pooled: height (and width) and channels. The first net of each module of Keras
# Applications, and all others.
MAPS = {
    "MobileNet": (7, 1024),
    "MobileNetV2": (7, 1280),
    "MobileNetV3Small": (7, 576),
    "EfficientNetB0": (7, 1280),
    "EfficientNetV2B0": (7, 1280),
    "ConvNeXtTiny": (7, 768),
    "ResNet50": (7, 2048),
    "ResNet50V2": (7, 2048),
    "DenseNet121": (7, 1024),
    "InceptionV3": (8, 2048),
    "InceptionResNetV2": (8, 1536),
    "Xception": (10, 2048),
    "NASNetMobile": (7, 1056),
    "VGG16": (7, 512),
    "AlexNet": (6, 256),
    "CaffeNet": (6, 256),
    "AlexNetOWT": (6, 256),
}
QUICK = ("MobileNet", "AlexNet")  # a second or two; the others are slow


@pytest.fixture(autouse=True)
def forget():
    yield
    keras.backend.clear_session()
    gc.collect()


def classifier(spec, side, **options):
    base = build.load(spec, weights="none", image_size=side, **options)
    model = trained.attach(base, 3, hidden=(), dropout=0.0, seed=0)
    return Bundle(model, ("a", "b", "c"), InputRule(side))


def check(opened):
    """Explains noise and a gray image; neither may be NaN, whatever the random weights do."""
    side = opened.rule.image_size
    pixels = np.full((2, side, side, 3), 128, "float32")
    pixels[0] = np.random.default_rng(0).uniform(0, 255, (side, side, 3))
    heat = heat_maps(opened, pixels, [0, 2])
    assert (heat.shape, heat.dtype) == ((2, side, side), np.float32)
    assert np.isfinite(heat).all()
    assert heat.min() >= 0
    assert set(heat.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}


def test_each_family_is_here():
    families = {(row.family, row.module or name) for name, row in BACKBONES.items()}
    assert {(BACKBONES[name].family, BACKBONES[name].module or name) for name in MAPS} >= {
        family
        for family in families
        if family[1] != "vgg19"  # VGG16 with other counts
    }


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow, id=n) for n in MAPS],
)
def test_the_map_of_a_net_is_what_it_pools(name):
    opened = classifier(name, BACKBONES[name].image_size)
    side, channels = MAPS[name]
    assert halves_of(opened.model).lower.output_shape == (None, side, side, channels)
    check(opened)


def test_a_net_whose_last_map_is_a_single_place_shows_a_lower_one():
    opened = classifier("MobileNetV2:alpha=0.35", 32)
    assert halves_of(opened.model).lower.output_shape == (None, 2, 2, 192)  # block_13_expand_relu
    check(opened)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "side", "options", "shapes"),
    [
        ("NASNetMobile", 96, {"leave_out": 3}, [(3, 704), (3, 1056)]),
        ("MobileNetV2+MobileNet:alpha=0.25", 96, {}, [(3, 1280), (3, 256)]),
        ("AlexNet", 227, {"features": "fc7"}, [(6, 256)]),
        ("InceptionV3", 75, {}, [(3, 192), (3, 192), (3, 768)]),  # branches of mixed8
        ("ResNet50", 32, {}, [(2, 1024)]),
        ("DenseNet121", 32, {}, [(2, 512)]),
        ("VGG16", 64, {"features": "depths"}, [(32, 64), (16, 128), (8, 256), (4, 512), (2, 512)]),
    ],
    ids=str,
)
def test_features_of_other_kinds(spec, side, options, shapes):
    opened = classifier(spec, side, **options)
    found = [tensor.shape[2:] for tensor in halves_of(opened.model).lower.outputs]
    assert found == shapes
    check(opened)


@pytest.mark.slow
def test_what_the_top_of_a_published_net_makes_of_a_single_place_is_no_map():
    net = keras.applications.MobileNetV3Small(
        (224, 224, 3), weights=None, classifier_activation=None
    )
    model = build.add_scores(keras.Model(net.inputs[0], net.outputs[0]))
    assert halves_of(model).lower.output_shape == (None, 7, 7, 576)


def test_a_published_net_is_explained(assets, tmp_path):
    flower = sorted((assets / "datasets" / "flowers5" / "daisy").iterdir())[0]
    (result,) = explain("imagenet:MobileNet:alpha=0.75", flower, to=tmp_path)
    assert (result.label, result.note) == ("daisy", "")
