"""Heat maps of small models, of which the place that decides is known."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from drawing import draw_photos
from PIL import Image
from small_run import NAMES, small_bundle, small_run
from tiny_run import FLAGS

from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.evaluation.explain import explain, heat_maps, overlay
from kerasft.evaluation.maps import class_maps, halves_of
from kerasft.evaluation.photo_files import PhotoFile
from kerasft.evaluation.predict import predict
from kerasft.heads import solved, solver, trained
from kerasft.heads.solved import Examples
from kerasft.input_rule import InputRule
from kerasft.models import build, bundle, tta
from kerasft.models.build import seed_layers
from kerasft.models.bundle import Bundle
from kerasft.training.train import train_run

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
    model.fit(pixels, labels, batch_size=32, epochs=15, verbose=0)
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


def test_the_overlay_is_the_mean_of_the_gray_photo_and_the_colour_of_its_heat():
    pixels = np.full((1, 2, 2, 3), 100.0, "float32")
    pixels[0, 0, 0] = (200, 100, 0)  # as bright as 118.5
    heat = np.array([[[0, 1], [0.5, 0.25]]], "float32")
    assert overlay(pixels, heat).tolist() == [
        [[[59, 59, 61], [176, 178, 132]], [[144, 78, 92], [94, 58, 105]]]
    ]


# ------------------------------------------------------------------ heads


@pytest.fixture(scope="module")
def cue_features(cue_model):
    """The base of `cue_model`, pixels to features [B,32], and the features of 200 photos."""
    base = keras.Model(cue_model.model.inputs[0], trained.features_of(cue_model.model))
    pixels, labels, _ = draw_cues(200, seed=4)
    return base, Examples(base.predict_on_batch(pixels), labels)


@pytest.mark.parametrize("method", ["bayes", "lda", "logistic", "svm", "rbf-svm"])
def test_a_solved_head_points_at_the_square_too(cue_model, cue_features, method):
    base, examples = cue_features
    solution = solver.solve(method, examples, examples, num_classes=2)
    model = solved.attach(base, solution, 2)
    shares = shares_in_square(Bundle(model, cue_model.class_names, cue_model.rule))
    assert shares.mean() >= 3 * AREA


def test_a_head_with_a_hidden_layer_points_at_the_square_too(cue_model, cue_features):
    base, examples = cue_features
    model = trained.attach(base, 2, hidden=(16,), dropout=0.2, seed=0)
    head = keras.Model(trained.features_of(model), model.get_layer("scores").output)
    head.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    head.fit(examples.features, examples.labels, epochs=30, verbose=0)
    shares = shares_in_square(Bundle(model, cue_model.class_names, cue_model.rule))
    assert shares.mean() >= 3 * AREA


def test_of_a_model_that_averages_views_the_plain_view_is_explained(cue_model):
    pixels, labels, _ = draw_cues(3, seed=5)
    views = Bundle(tta.with_views(cue_model.model, "flip"), cue_model.class_names, cue_model.rule)
    np.testing.assert_allclose(
        heat_maps(views, pixels, labels), heat_maps(cue_model, pixels, labels), atol=1e-5
    )


def test_a_head_in_which_photos_vote_has_no_heat_map(cue_model, cue_features):
    base, examples = cue_features
    solution = solver.solve("knn", examples, examples, num_classes=2)
    model = solved.attach(base, solution, 2)
    with pytest.raises(UserError, match="Which ones are nearest has no gradient, so there is no"):
        heat_maps(Bundle(model, ("brown", "blue"), cue_model.rule), draw_cues(1, seed=5)[0], [0])


# ------------------------------------------------------------------ maps

PIXELS = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")


def with_head(base):
    return trained.attach(base, 4, hidden=(), dropout=0.0, seed=0)


def two_nets():
    """Two convolutions side by side, whose maps are [B,8,8,4] and [B,4,4,6], and their average."""
    pixels = keras.Input((32, 32, 3), name="pixels")
    small = keras.layers.Rescaling(1 / 255)(pixels)
    both = [
        keras.layers.Conv2D(width, step, strides=step, activation="relu", name=f"net{width}")(small)
        for width, step in ((4, 4), (6, 8))
    ]
    pooled = [keras.layers.GlobalAveragePooling2D()(one) for one in both]
    return keras.Model(pixels, keras.layers.Concatenate()(pooled))


def depths():
    return build.load("Tiny", weights="none", image_size=32, features="depths")


@pytest.mark.parametrize(
    ("base", "sides"),
    [(two_nets, [8, 4]), (depths, [16, 8, 4])],
    ids=["two nets", "all depths"],
)
def test_several_maps_are_in_units_of_the_logit(tiny_backbone, base, sides):
    model = with_head(base())
    classes = np.array([3, 0, 2])
    maps = class_maps(halves_of(model), PIXELS, classes)
    assert [one.shape for one in maps] == [(3, side, side) for side in sides]
    # Averages that are weighed linearly: what the places add up to is the logit without its bias.
    logits = keras.Model(model.inputs[0], model.get_layer("logits").output).predict_on_batch(PIXELS)
    expected = logits[np.arange(3), classes] - np.asarray(model.get_layer("logits").bias)[classes]
    found = sum(one.mean(axis=(1, 2)) for one in maps)
    # float32 sums of 64 places
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_net_that_the_head_ignores_adds_no_heat():
    model = with_head(two_nets())
    kernel = model.get_layer("logits").get_weights()[0]
    kernel[4:] = 0
    model.get_layer("logits").kernel.assign(kernel)
    alone = keras.Model(model.inputs[0], model.get_layer("net4").output)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(alone.outputs[0])
    single = with_head(keras.Model(model.inputs[0], pooled))
    single.get_layer("logits").kernel.assign(kernel[:4])
    names, rule, classes = tuple("abcd"), InputRule(32), [0, 1, 2]
    np.testing.assert_allclose(
        heat_maps(Bundle(model, names, rule), PIXELS, classes),
        heat_maps(Bundle(single, names, rule), PIXELS, classes),
        atol=1e-5,
    )


def test_the_heat_of_a_single_map_is_what_the_paper_writes():
    """One channel speaks for the class and one against it; the map has four places."""
    pixels = keras.Input((4, 4, 3), name="pixels")
    x = keras.layers.Conv2D(2, 2, strides=2, use_bias=False)(pixels)
    model = with_head(keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)))
    kernel = np.zeros((2, 2, 3, 2), "float32")
    kernel[..., 0, 0] = kernel[..., 1, 1] = 0.25  # means of red and of green over 2 x 2 pixels
    model.layers[1].set_weights([kernel])
    model.get_layer("logits").kernel.assign([[3, 0, 0, 0], [-1, 0, 0, 0]])
    image = np.zeros((1, 4, 4, 3), "float32")
    image[0, :2, :2] = (80, 40, 0)  # 3 * 80 - 40 = 200
    image[0, :2, 2:] = (40, 20, 0)  # 100
    image[0, 2:, :2] = (10, 90, 0)  # -60, which the ReLU removes
    heat = heat_maps(Bundle(model, tuple("abcd"), InputRule(4)), image, [0])[0]
    # Corners are the four places; between them it is linear. 200 is 1.
    assert heat[0].tolist() == pytest.approx([1, 0.875, 0.625, 0.5])
    assert heat[:, 0].tolist() == pytest.approx([1, 0.75, 0.25, 0])
    assert heat[3].tolist() == pytest.approx([0, 0, 0, 0])


def flat(x):
    return keras.layers.Flatten()(x)


def one_place(x):
    x = keras.layers.Conv2D(4, 16, strides=16, padding="same")(x)  # [B,2,2,4]
    x = keras.layers.ZeroPadding2D(1, name="pad")(x)
    x = keras.layers.Conv2D(4, 4, activation="relu")(x)  # a single place
    return keras.layers.GlobalAveragePooling2D()(x)


def flattened(x):
    return keras.layers.Flatten()(keras.layers.Conv2D(2, 8, strides=8, activation="relu")(x))


def test_a_map_of_a_single_place_and_a_padded_one_are_passed_over():
    pixels = keras.Input((32, 32, 3), name="pixels")
    halves = halves_of(with_head(keras.Model(pixels, one_place(pixels))))
    assert halves.lower.output_shape == (None, 2, 2, 4)


def test_of_a_net_that_flattens_the_map_is_what_is_flattened():
    pixels = keras.Input((32, 32, 3), name="pixels")
    model = with_head(keras.Model(pixels, flattened(pixels)))
    assert halves_of(model).lower.output_shape == (None, 4, 4, 2)
    heat = heat_maps(Bundle(model, tuple("abcd"), InputRule(32)), PIXELS, [0, 1, 2])
    assert heat.shape == (3, 32, 32)


@pytest.mark.parametrize("preprocess", [False, True], ids=["pixels", "preprocessed pixels"])
def test_a_model_without_feature_maps_is_refused(preprocess):
    pixels = keras.Input((32, 32, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels) if preprocess else pixels
    model = with_head(keras.Model(pixels, flat(x)))
    with pytest.raises(UserError) as error:
        halves_of(model)
    assert str(error.value) == (
        "This model has no feature map of more than one place below its logits (it takes images "
        "of 32 pixels a side), so there is no heat map."
    )


ELSEWHERE = """
import sys
import numpy as np
from kerasft.evaluation.explain import heat_maps
from kerasft.models import bundle
model, pixels, heat = sys.argv[1:]
np.save(heat, heat_maps(bundle.load(model), np.load(pixels), [0, 1, 2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_computes_the_same_heat(backend, tmp_path):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    opened = Bundle(with_head(two_nets()), tuple("abcd"), InputRule(32))
    files = [tmp_path / name for name in ("model.keras", "pixels.npy", "heat.npy")]
    bundle.save(opened, files[0])
    np.save(files[1], PIXELS)
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, files)],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    ours = heat_maps(opened, PIXELS, [0, 1, 2])
    assert ours.max() == 1  # and not only 0
    np.testing.assert_allclose(np.load(files[2]), ours, atol=1e-5)


# ------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("explain"))


@pytest.fixture(scope="module")
def circle(run):
    return run.parent / "photos" / "circle" / "circle-000.png"


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_file_gets_the_photo_with_its_heat_and_the_heat_alone(run, circle, tmp_path):
    folder = tmp_path / "out" / "pictures"
    (result,) = explain(run, circle, to=folder)
    (best,) = predict(run, circle, top=1)
    assert result.to_json() == {
        "file": str(circle),
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
    assert files_in(folder) == ["circle-000.heat.png", "circle-000.png"]


def test_a_class_that_is_asked_for_is_explained_and_not_the_predicted_one(run, circle, tmp_path):
    (best,) = predict(run, circle)
    for one in best.labels:
        (result,) = explain(run, circle, to=tmp_path / one.label, label=one.label)
        assert (result.label, result.predicted) == (one.label, best.labels[0].label)
        assert result.score == pytest.approx(one.score, abs=1e-6)
    heats = {(tmp_path / name / "circle-000.heat.png").read_bytes() for name in NAMES}
    assert len(heats) == 3


def test_an_unknown_class_is_refused_and_nothing_is_made(run, circle, tmp_path):
    with pytest.raises(UserError) as error:
        explain(run, circle, to=tmp_path / "out", label="Crosss")
    assert str(error.value) == (
        "label: expected one of the model's 3 classes, circle, cross, stripes; got 'Crosss'. "
        "Did you mean 'cross'?"
    )
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_read_are_listed_and_the_others_explained(run, circle, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    results = explain(
        run, [tmp_path / "bad.jpg", circle, tmp_path / "absent.jpg"], to=tmp_path / "out"
    )
    assert [type(result) is PhotoFile for result in results] == [True, False, True]
    assert results[2].to_json() == {"file": str(tmp_path / "absent.jpg"), "error": "no such file"}
    assert results[1].file == str(circle)
    assert files_in(tmp_path / "out") == ["circle-000.heat.png", "circle-000.png"]


def test_files_of_one_name_get_distinct_names_and_a_later_call_replaces_them(run, circle, tmp_path):
    for folder, name in (("a", "x.png"), ("b", "x.png"), ("b", "X.heat.png"), ("c", "x-2.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(circle, tmp_path / folder / name)
    files = [tmp_path / folder for folder in "abc"]
    first = explain(run, files, to=tmp_path / "out")
    # Sorted in b: X.heat.png, x.png. X.heat.png and the heat of x would be one file on Windows.
    assert [result.overlay.removeprefix(str(tmp_path / "out")) for result in first] == [
        "/x.png",
        "/X.heat-2.png",
        "/x-2.png",
        "/x-2-2.png",
    ]
    (tmp_path / "out" / "x.png").write_text("from an earlier call")
    explain(run, files, to=tmp_path / "out")
    assert len(files_in(tmp_path / "out")) == 8
    assert (tmp_path / "out" / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_in_which_a_photo_would_be_replaced_is_refused(run, circle, tmp_path):
    shutil.copy(circle, tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(UserError, match=r"holds x\.png, a photo that.*another") as error:
        explain(run, tmp_path, to=tmp_path / "sub" / "..")
    assert (error.value.field, error.value.exit_code) == ("to", 2)
    assert (tmp_path / "x.png").read_bytes() == before


def test_a_photo_of_the_same_name_in_another_folder_is_not_replaced(run, circle, tmp_path):
    shutil.copy(circle, tmp_path / "x.png")
    (tmp_path / "photos").mkdir()
    shutil.copy(circle, tmp_path / "photos" / "x.png")
    with pytest.raises(UserError, match=r"holds x\.png, a photo that.*another"):
        explain(run, tmp_path / "x.png", to=tmp_path / "photos")
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["x.png"]


def test_a_file_in_place_of_the_folder_is_refused(run, circle, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out can't be made: file exists"):
        explain(run, circle, to=tmp_path / "out")


def test_a_photo_in_which_nothing_speaks_for_the_class_says_so(circle, tmp_path):
    opened = small_bundle()
    kernel = np.tile([1.0, -1.0, 0.0], (8, 1))  # of features that are 0 or more
    opened.model.get_layer("logits").kernel.assign(kernel)
    bundle.save(opened, tmp_path / "model.keras")
    (result,) = explain(tmp_path / "model.keras", circle, to=tmp_path / "out", label="cross")
    assert result.note == "No place speaks for 'cross': the heat map is empty."
    with Image.open(result.heat) as heat:
        assert heat.getextrema() == (0, 0)
    (other,) = explain(tmp_path / "model.keras", circle, to=tmp_path / "out", label="circle")
    assert other.note == ""


def test_more_photos_than_a_batch_are_explained_in_order(run, tmp_path):
    photos = run.parent / "photos"
    told = []
    results = explain(run, photos, to=tmp_path / "out", progress=told.append)
    assert len(results) == 36
    assert [(e.done, e.total) for e in told if e.stage == "check"] == [(32, 36), (36, 36)]
    (alone,) = explain(run, results[35].file, to=tmp_path / "alone")
    assert alone.score == pytest.approx(results[35].score, abs=1e-6)
    with Image.open(results[35].heat) as one, Image.open(alone.heat) as other:
        # Rounding of float32 sums in another order, by one step of 255 at most.
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


def test_a_savedmodel_is_refused(circle, tmp_path):
    (tmp_path / "served" / "1").mkdir(parents=True)
    (tmp_path / "served" / "1" / "saved_model.pb").write_bytes(b"")  # it is not opened
    with pytest.raises(UserError, match=r"is a SavedModel, which has no gradients\. Pass the run"):
        explain(tmp_path / "served", circle, to=tmp_path / "out")


# ------------------------------------------------------------------ nearest photos


@pytest.fixture(scope="module")
def voting(tiny_backbone, tmp_path_factory):
    """A run in which the nearest training photos vote."""
    folder = tmp_path_factory.mktemp("voting")
    flags = {key: value for key, value in FLAGS.items() if not key.startswith("phases")}
    flags |= {"data.source": str(draw_photos(folder / "photos")), "phases.0.method": "knn"}
    train_run(load_config(None, flags=flags), folder / "run")
    return folder / "run"


def training_photos(run):
    rows = [line.split(",") for line in (run / "splits.csv").read_text().splitlines()[1:]]
    return [row[0] for row in rows if row[2] == "train"]


def test_the_photos_that_vote_are_named_the_nearest_first(voting, tmp_path):
    for name in training_photos(voting)[::7]:
        (result,) = explain(voting, voting.parent / "photos" / name, to=tmp_path / "out")
        assert result.note == (
            "The nearest training photos decide, which has no gradient, so there is no heat map; "
            "they are named instead."
        )
        assert (result.overlay, result.heat) == ("", "")
        first = result.nearest[0]
        assert (first.file, first.label) == (name, name.partition("/")[0])
        assert first.similarity == pytest.approx(1, abs=1e-3)  # stored features are float16
        near = [one.similarity for one in result.nearest]
        assert near == sorted(near, reverse=True)
    assert not (tmp_path / "out").exists()


def test_of_a_class_that_is_asked_for_its_nearest_photos_are_named(voting, circle, tmp_path):
    (result,) = explain(voting, circle, to=tmp_path / "out", label="stripes")
    assert {one.label for one in result.nearest} == {"stripes"}


def test_of_a_model_file_alone_the_photos_have_no_names(voting, circle, tmp_path):
    shutil.copy(voting / "model.keras", tmp_path / "model.keras")
    (result,) = explain(tmp_path / "model.keras", circle, to=tmp_path / "out")
    (of_run,) = explain(voting, circle, to=tmp_path / "out")
    assert {one.file for one in result.nearest} == {""}
    assert [one.label for one in result.nearest] == [one.label for one in of_run.nearest]
