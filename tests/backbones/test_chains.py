import math

import keras
import pytest

from kerasft.backbones.chains import CHAINS, Pool, keras_name, places, torch_names


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # of the papers and of torchvision's documentation
        ("AlexNet", 60_965_224),
        ("CaffeNet", 60_965_224),
        ("AlexNetOWT", 61_100_840),
        ("VGG16", 138_357_544),
        ("VGG19", 143_667_240),
    ],
)
def test_the_nets_have_as_many_parameters_as_published(name, parameters):
    sizes = [math.prod(place.kernel) + place.kernel[-1] for place in places(name)]
    assert sum(sizes) == parameters


def test_the_places_of_vgg_are_the_layers_of_keras_in_their_order():
    net = keras.applications.VGG16(weights=None)
    layers = [(layer.name, tuple(layer.kernel.shape)) for layer in net.layers if layer.weights]
    assert [(place.layer, place.kernel) for place in places("VGG16")] == layers


def test_a_convolution_in_groups_has_a_place_for_each():
    found = [place for place in places("AlexNet") if place.source == "conv2"]
    assert [(place.layer, place.first, place.kernel) for place in found] == [
        ("conv2_group1", 0, (5, 5, 48, 128)),
        ("conv2_group2", 128, (5, 5, 48, 128)),
    ]
    assert {place.stored for place in found} == {(256, 48, 5, 5)}


def test_the_first_fully_connected_layer_takes_what_is_flattened():
    first = next(place for place in places("CaffeNet") if place.source == "fc6")
    assert (first.flattened, first.kernel, first.stored) == (
        (6, 6, 256),
        (9216, 4096),
        (4096, 9216),
    )
    of_vgg = next(place for place in places("VGG19") if place.source == "fc6")
    assert (of_vgg.layer, of_vgg.flattened) == ("fc1", (7, 7, 512))


def test_torchvision_counts_relu_and_pooling_too():
    assert torch_names("AlexNetOWT") == {
        "conv1": "features.0",
        "conv2": "features.3",
        "conv3": "features.6",
        "conv4": "features.8",
        "conv5": "features.10",
        "fc6": "classifier.1",
        "fc7": "classifier.4",
        "fc8": "classifier.6",
    }
    of_vgg = torch_names("VGG16")
    assert list(of_vgg.values()) == [
        *(f"features.{n}" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        *(f"classifier.{n}" for n in (0, 3, 6)),
    ]


def test_keras_calls_the_layers_of_vgg_otherwise():
    layers = CHAINS["VGG19"].layers
    names = [keras_name("VGG19", layer) for layer in layers if not isinstance(layer, Pool)]
    assert names[:3] == ["block1_conv1", "block1_conv2", "block2_conv1"]
    assert names[-3:] == ["fc1", "fc2", "predictions"]
