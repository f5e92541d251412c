import keras
import numpy as np
import pytest
from PIL import Image
from small_run import small_run

from kerasft.evaluation.explain import explain, heat_maps, overlay
from kerasft.evaluation.predict import predict
from kerasft.input_rule import InputRule
from kerasft.models.build import seed_layers
from kerasft.models.bundle import Bundle

SIDE, TILE = 64, 16
CUES = ((180, 100, 60), (60, 100, 180))  # brown and blue, R, G, B; paler than the others
OTHERS = ((230, 30, 30), (30, 30, 230), (30, 220, 30), (230, 230, 30), (30, 220, 220), (40, 40, 40))


def draw_cues(n, *, seed):
    """Draws 16 squares per image; a brown or a pale blue one alone decides the class.

    Returns:
        Pixels float32 [n,64,64,3], 0 to 255; labels int [n]; masks bool [n,64,64], the square.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    tiles = random.choice(np.array(OTHERS, "float32"), (n, 4, 4))
    rows, columns = random.integers(0, 4, (2, n))
    masks = np.zeros((n, 4, 4), bool)
    masks[np.arange(n), rows, columns] = True
    tiles[masks] = np.array(CUES, "float32")[labels]
    pixels = tiles.repeat(TILE, axis=1).repeat(TILE, axis=2)
    noisy = pixels + random.normal(0, 10, pixels.shape)
    large = masks.repeat(TILE, axis=1).repeat(TILE, axis=2)
    return noisy.clip(0, 255).astype("float32"), labels, large


@pytest.fixture(scope="module")
def cue_model():
    """A convolutional net that has learned the brown and the blue square, in two seconds."""
    seed_layers(0)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(32, 4, strides=4, activation="relu")(x)
    x = keras.layers.Conv2D(32, 1, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(2, name="logits")(x)
    model = keras.Model(inputs, keras.layers.Softmax(name="scores")(logits))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    pixels, labels, _ = draw_cues(512, seed=1)
    model.fit(pixels, labels, batch_size=32, epochs=30, verbose=0)
    return Bundle(model, ("brown", "blue"), InputRule(SIDE))


def shuffled(bundle, *, seed):
    """Copies a model with the numbers of each weight in random order."""
    random = np.random.default_rng(seed)
    twin = keras.models.clone_model(bundle.model)
    twin.set_weights(
        [
            random.permutation(weight.ravel()).reshape(weight.shape)
            for weight in bundle.model.get_weights()
        ]
    )
    return Bundle(twin, bundle.class_names, bundle.rule)


def shares_in_square(bundle):
    """Returns the share of heat in the square, of each of 20 photos that have any heat."""
    pixels, labels, masks = draw_cues(20, seed=2)
    heat = heat_maps(bundle, pixels, labels)
    total = heat.sum(axis=(1, 2))
    inside = (heat * masks).sum(axis=(1, 2))
    return inside[total > 0] / total[total > 0]


AREA = 1 / 16  # share of the square in a photo


def test_the_heat_lies_on_the_square_that_decides(cue_model):
    pixels, labels, _ = draw_cues(100, seed=3)
    scores = cue_model.model.predict_on_batch(pixels)
    assert (scores.argmax(axis=1) == labels).mean() >= 0.95
    shares = shares_in_square(cue_model)
    assert len(shares) == 20
    assert shares.mean() >= 3 * AREA


def test_with_shuffled_weights_the_heat_lies_anywhere(cue_model):
    shares = [shares_in_square(shuffled(cue_model, seed=seed)) for seed in range(12)]
    assert np.concatenate(shares).mean() < 1.5 * AREA


def test_the_overlay_is_the_mean_of_photo_and_colour():
    pixels = np.full((1, 2, 2, 3), 100.0, "float32")
    heat = np.array([[[0, 1], [0.5, 0.25]]], "float32")
    assert overlay(pixels, heat).tolist() == [
        [[[50, 50, 52], [176, 178, 132]], [[144, 78, 92], [94, 58, 105]]]
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("explain"))


def test_each_file_gets_the_photo_with_its_heat_and_the_heat_alone(trained, tmp_path):
    photo = trained.parent / "photos" / "circle" / "circle-000.png"
    (result,) = explain(trained, photo, to=tmp_path / "out" / "pictures")
    (best,) = predict(trained, photo, top=1)
    folder = tmp_path / "out" / "pictures"
    assert result.to_json() == {
        "file": str(photo),
        "label": best.labels[0].label,
        "score": pytest.approx(best.labels[0].score, abs=1e-6),
        "predicted": best.labels[0].label,
        "overlay": str(folder / "circle-000.png"),
        "heat": str(folder / "circle-000.heat.png"),
        "nearest": [],
        "note": "",
    }
    with Image.open(result.overlay) as laid_over, Image.open(result.heat) as heat:
        assert (laid_over.mode, laid_over.size) == ("RGB", (32, 32))
        assert (heat.mode, heat.size, heat.getextrema()[1]) == ("L", (32, 32), 255)
    assert sorted(path.name for path in folder.iterdir()) == [
        "circle-000.heat.png",
        "circle-000.png",
    ]
