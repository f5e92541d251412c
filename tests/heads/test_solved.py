"""A solved head in Keras computes what scikit-learn computes, saved and loaded anywhere."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from solved import examples
from tiny import TINY, batch, tiny_constructor, tiny_model

from kerasft.export import savedmodel
from kerasft.heads import solved as solved_module
from kerasft.heads import trained
from kerasft.heads.methods import METHODS
from kerasft.heads.solved import Examples
from kerasft.heads.solver import solve
from kerasft.input_rule import InputRule
from kerasft.models import blocks as blocks_module
from kerasft.models import bundle, cut
from kerasft.models.bundle import Bundle

LIMIT = 1e-4  # of scores; float32 gives about 1e-6
NUMBERS_OF_CLASSES = (2, 4)


def base(side=2):
    """Pixels [B,2,2,3], which are the 12 features but for two operations."""
    pixels = keras.Input((side, side, 3), name="pixels")
    x = keras.ops.square(keras.ops.sqrt(pixels))  # as preprocessing has them
    return keras.Model(pixels, keras.layers.Flatten(name="flat")(x))


def pixels_of(features):
    return features.reshape(-1, 2, 2, 3)


def through(net, some: Examples):
    """The same images with what the base makes of them."""
    return replace(some, features=compute(net, pixels_of(some.features)))


def compute(model, inputs):
    """Without a graph, whose making takes longer than all else here."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs))


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """(method, K) to (solution, file of the model, images that it has not seen)."""
    folder, found = tmp_path_factory.mktemp("solved"), {}
    for method, k in itertools.product(METHODS, NUMBERS_OF_CLASSES):
        net = base()
        train, validation, test = (
            through(net, examples([count] * k, seed=seed))
            for seed, count in enumerate((40, 20, 100))
        )
        solution = solve(method, train, validation, num_classes=k)
        model = solved_module.attach(net, solution, k)
        path = folder / f"{method}-{k}.keras"
        names = tuple("abcd"[:k])
        bundle.save(Bundle(model, names, InputRule(2)), path)  # rebuilt from its config
        found[method, k] = solution, path, test
    return found


every = pytest.mark.parametrize(
    ("method", "k"), list(itertools.product(METHODS, NUMBERS_OF_CLASSES))
)
each_method = pytest.mark.parametrize(
    ("method", "k"),
    [
        pytest.param(method, k, marks=[] if k > 2 else pytest.mark.slow)
        for method, k in itertools.product(METHODS, NUMBERS_OF_CLASSES)
    ],
)


@every
def test_the_saved_model_gives_the_scores_and_labels_of_scikit_learn(solved, method, k):
    solution, path, test = solved[method, k]
    scores = compute(bundle.load(path).model, pixels_of(test.features))
    expected = solution.estimator.predict_proba(test.features)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=LIMIT)
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))


@each_method
def test_the_comparison_notices_a_head_of_other_numbers(solved, method, k):
    _, path, test = solved[method, k]
    half = Examples(test.features[::2], test.labels[::2])
    other = solve(method, half, half, num_classes=k)
    scores = compute(bundle.load(path).model, pixels_of(test.features))
    assert np.abs(scores - other.estimator.predict_proba(test.features)).max() > 10 * LIMIT


@each_method
def test_layers_are_stock_and_named(solved, method, k):
    _, path, _ = solved[method, k]
    model = bundle.load(path).model
    assert [layer.name for layer in model.layers[-2:]] == ["logits", "scores"]
    operations = model.operations[model.operations.index(model.get_layer("flat")) + 1 :]
    names = [operation.name for operation in operations]
    assert all(name.startswith("head_") for name in names if name not in ("logits", "scores"))
    modules = {type(operation).__module__.partition(".src.")[0] for operation in operations}
    assert modules == {"keras"}
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)


@each_method
def test_scores_are_the_softmax_of_the_logits(solved, method, k):
    _, path, test = solved[method, k]
    both = bundle.load(path).scores_and_logits
    scores, logits = compute(both, pixels_of(test.features))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(keras.ops.softmax(logits), scores, rtol=0, atol=1e-6)


@pytest.mark.slow  # their layers are stock, above; test_bundle.py loads a trained model so
def test_all_of_them_load_where_kerasft_is_not_imported(solved, tmp_path):
    code = (
        "import sys, keras, numpy as np\n"
        "for path in sys.argv[2:]:\n"
        "    inputs = np.load(path + '.inputs.npy')\n"
        "    model = keras.saving.load_model(path, safe_mode=True)\n"
        "    np.save(path + '.scores.npy', model(inputs))\n"
        "assert not [name for name in sys.modules if name.startswith('kerasft')]\n"
    )
    chosen = [solved[method, NUMBERS_OF_CLASSES[-1]] for method in METHODS]
    for _, path, test in chosen:
        np.save(f"{path}.inputs.npy", pixels_of(test.features))
    paths = [str(path) for _, path, _ in chosen]
    subprocess.run([sys.executable, "-c", code, "-", *paths], cwd=tmp_path, check=True)
    for solution, path, test in chosen:
        scores, expected = np.load(f"{path}.scores.npy"), solution.estimator.predict_proba
        np.testing.assert_allclose(scores, expected(test.features), rtol=0, atol=LIMIT)


@pytest.mark.parametrize("method", METHODS)
def test_stored_numbers_are_weights_and_not_in_the_config(method):
    sizes = []
    for features in (12, 240):
        pixels = keras.Input((features,), name="pixels")
        net = keras.Model(pixels, keras.layers.Activation("linear", name="same")(pixels))
        train = examples([30] * 3, seed=0, features=features)
        solution = solve(method, train, train, num_classes=3)
        config = solved_module.attach(net, solution, 3).get_config()
        sizes.append(len(json.dumps(config)))
    assert abs(sizes[1] - sizes[0]) < 100  # a number of 240 would have more digits


@each_method
def test_a_base_that_was_loaded_from_a_file_has_no_names_that_clash(solved, tmp_path, method, k):
    solution, _, test = solved[method, k]
    pixels = keras.Input((2, 2, 3), name="pixels")
    keras.utils.clear_session()  # names begin anew: "square", "sqrt", "sum", ...
    x = keras.layers.Flatten(name="flat")(keras.ops.square(keras.ops.sqrt(pixels)))
    x = x + 0 * keras.ops.log(1 + keras.ops.sum(keras.ops.mean(x, axis=1, keepdims=True)))
    x = x + 0 * keras.ops.expm1(keras.ops.sign(keras.ops.stack([x, x])[0]))
    keras.Model(pixels, x).save(tmp_path / "base.keras")
    keras.utils.clear_session()
    net = keras.models.load_model(tmp_path / "base.keras")
    scores = compute(solved_module.attach(net, solution, k), pixels_of(test.features))
    expected = solution.estimator.predict_proba(test.features)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=LIMIT)


def test_bayes_is_centred_where_the_expanded_form_fails():
    train = examples([60] * 3, seed=0, offset=200)
    test = examples([100] * 3, seed=2, offset=200)
    solution = solve("bayes", train, train, num_classes=3)
    expected = solution.estimator.predict_proba(test.features)

    form = solution.form  # x² / 2v - x m / v + m² / 2v, the way that a Dense of [x, x²] has it
    inverse = (1 / form.variances).astype("float32")
    linear = (form.means / form.variances).astype("float32")
    constant = form.log_priors - 0.5 * (
        np.log(2 * np.pi * form.variances) + form.means**2 / form.variances
    ).sum(axis=1)
    x = test.features
    expanded = x @ linear.T - (x * x) @ inverse.T / 2 + constant.astype("float32")
    expanded = np.exp(expanded - expanded.max(axis=1, keepdims=True))
    expanded /= expanded.sum(axis=1, keepdims=True)
    assert np.abs(expanded - expected).max() > 0.01

    pixels = keras.Input((12,), name="pixels")
    net = keras.Model(pixels, keras.layers.Activation("linear", name="same")(pixels))
    scores = compute(solved_module.attach(net, solution, 3), x)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=LIMIT)


@pytest.mark.parametrize("method", METHODS)
def test_the_end_of_the_backbone_is_found_in_front_of_a_solved_head(method):
    pixels = keras.Input((16, 16, 3), name="pixels")
    net = tiny_constructor(input_tensor=pixels, weights=None, include_top=False, pooling="avg")
    net = keras.Model(pixels, net.outputs[0])
    images, one_hot = batch(40)
    some = Examples(compute(net, images), one_hot.argmax(axis=1))
    model = solved_module.attach(net, solve(method, some, some, num_classes=2), 2)
    assert trained.features_of(model) is net.outputs[0]
    names = [block.name for block in blocks_module.list_blocks(model, TINY)]
    assert names == [block.name for block in blocks_module.list_blocks(tiny_model(), TINY)]
    for blocks in (0, 1, "all"):
        halves = cut.split(model, blocks, TINY)
        inside = images if halves.prefix is None else compute(halves.prefix, images)
        logits = compute(halves.suffix, inside)
        scores = compute(model, images)
        np.testing.assert_allclose(keras.ops.softmax(logits), scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["svm", "lda", "logistic"])
def test_training_can_go_on_from_a_linear_head(solved, method):
    _, path, test = solved[method, 4]
    model = bundle.load(path).model
    model.trainable = True
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    before = model.evaluate(pixels_of(test.features), test.labels, verbose=0)
    model.fit(pixels_of(test.features), test.labels, epochs=3, verbose=0)
    assert model.evaluate(pixels_of(test.features), test.labels, verbose=0) < before


@pytest.mark.parametrize("method", [pytest.param("rbf-svm", marks=pytest.mark.slow), "knn"])
def test_a_savedmodel_gives_the_same_scores(solved, tmp_path, method):
    _, path, test = solved[method, 4]
    opened = bundle.load(path)
    savedmodel.write(opened, tmp_path / "1")
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["serve_pixels"]
    pixels = pixels_of(test.features)
    scores = compute(opened.model, pixels)
    served = serve(pixels=tf.constant(pixels))["scores"].numpy()
    np.testing.assert_allclose(served, scores, rtol=0, atol=1e-5)
