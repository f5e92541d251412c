"""The format Keras: a file that plain Keras opens without kerasft, in any backend."""

import json

import numpy as np
import pytest
from small_run import small_bundle, swapped, without_kerasft

from kerasft.errors import UserError
from kerasft.export import keras_format
from kerasft.export.facts import ExportFacts, write_facts
from kerasft.input_rule import InputRule

BATCHES = (1, 7, 3, 33)


def noise(count):
    return np.random.default_rng(0).uniform(0, 255, (count, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def opened():
    return small_bundle()


@pytest.fixture(scope="module")
def folder(opened, tmp_path_factory):
    written = tmp_path_factory.mktemp("keras")
    facts = ExportFacts.of(opened, "keras")
    write_facts(written, facts)
    keras_format.write(opened, written, facts)
    return written


@pytest.mark.parametrize("count", BATCHES)
def test_scores_are_those_of_the_model(opened, folder, count):
    scores, logits = keras_format.open_scorer(folder).pixels(noise(count))
    assert logits is None
    np.testing.assert_allclose(scores, opened.model(noise(count)), atol=1e-6)


def test_a_model_that_takes_red_for_blue_differs(opened, folder):
    scores, _ = keras_format.open_scorer(folder).pixels(noise(7))
    assert np.abs(scores - swapped(opened).model(noise(7))).max() > 0.1  # the control


@pytest.mark.slow  # the example beside it does, in test_use.py
def test_plain_keras_opens_it_in_safe_mode(opened, folder):
    code = (
        "import json, keras, numpy as np\n"
        "model = keras.models.load_model('classifier.keras', safe_mode=True)\n"
        "pixels = np.full((2, 32, 32, 3), 99, np.float32)\n"
        "print(json.dumps(model.predict(pixels, verbose=0).tolist()))"
    )
    scores = json.loads(without_kerasft(code, folder).splitlines()[-1])
    expected = opened.model(np.full((2, 32, 32, 3), 99, np.float32))
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_facts_of_another_model_are_refused(folder, tmp_path):
    file = tmp_path / "classifier.keras"
    file.write_bytes((folder / "classifier.keras").read_bytes())
    write_facts(tmp_path, ExportFacts("keras", None, ("a", "b", "c"), InputRule(32)))
    with pytest.raises(UserError) as caught:
        keras_format.open_scorer(tmp_path)
    assert str(caught.value) == (
        f"{file}: has other classes than kerasft.json beside it. Expected a, b, c, got circle, "
        "cross, stripes. Export again."
    )


def test_a_damaged_file_is_named(folder, tmp_path):
    (tmp_path / "kerasft.json").write_bytes((folder / "kerasft.json").read_bytes())
    content = (folder / "classifier.keras").read_bytes()
    (tmp_path / "classifier.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"classifier\.keras: not a Keras model file"):
        keras_format.open_scorer(tmp_path)
