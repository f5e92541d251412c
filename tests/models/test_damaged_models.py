"""Damaged and hostile models: opened as what they are, or refused in plain text, and never run."""

import base64
import io
import json
import marshal
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from damaged import FEW, NAMES, Place, as_json, cases, damaged, objects, prove, survives
from hypothesis import strategies as st
from small_run import small_bundle, small_model

from kerasft.models import bundle
from kerasft.models.bundle import MEMBER, Bundle
from kerasft.models.weights import load_file
from kerasft.novelty import known
from kerasft.novelty.known import Known

SLOWER = 1_000
"""Number of models that are built under slow: Keras takes a tenth of a second for each."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.keras"
    bundle.save(small_bundle(), path)
    return path.read_bytes()


@pytest.fixture
def place(tmp_path, good):
    place = Place.of(tmp_path, "model.keras")
    place.path.write_bytes(good)
    bundle.load(place.path)  # imports what it needs
    return place


def members(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def packed(files, packing=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, packing)
    return content.getvalue()


def opens(place, content, read=None, fits=Bundle):
    read = read or (lambda: bundle.load(place.path))
    return survives(place, content, read, fits, bounded=False)


@cases
def test_a_model_file_with_damaged_bytes_is_refused_or_computes_the_same(number, place, good):
    def check(content):
        found = opens(place, content)
        if isinstance(found, Bundle):
            for mine, its in zip(found.model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(mine, its)

    before = bundle.load(place.path).model.get_weights()
    prove(number, damaged(good), check)


@cases
def test_a_model_file_with_other_facts_is_refused_or_means_what_they_say(number, place, good):
    files = members(good)
    facts = json.loads(files[MEMBER])

    def read_facts():
        with bundle._readable(place.path):
            return bundle._read_facts(place.path)

    def check_facts(changed):
        content = packed({**files, MEMBER: as_json(changed)})
        found = opens(place, content, read_facts, tuple)
        assert not isinstance(found, tuple) or all(type(one) is str for one in found.class_names)

    found = [{**facts, "image_size": float("inf")}, {**facts, "class_names": "@deep@"}]
    found += [{**facts, "abstention": [1]}, {**facts, "versions": []}, {**facts, "format": 9}]
    prove(number, objects(facts), check_facts, found)


@cases
def test_a_model_file_with_another_config_is_refused_or_a_model_of_kerass_own_layers(
    number, place, good
):
    files = members(good)
    config = json.loads(files["config.json"])

    def check(changed):
        opens(place, packed({**files, "config.json": as_json(changed)}))

    prove(FEW if number == FEW else SLOWER, objects(config), check)


# code in model files


def with_layer(config, layer):
    """Returns the config with another layer in place of its rescaling."""
    whole = json.loads(json.dumps(config))
    (at,) = [
        number
        for number, one in enumerate(whole["config"]["layers"])
        if one["class_name"] == "Rescaling"
    ]
    before = whole["config"]["layers"][at]
    name = before["config"]["name"]
    whole["config"]["layers"][at] = {
        **before,
        **layer,
        "config": {**layer.get("config", {}), "name": name},
    }
    return whole


def harm(path):
    code = compile(f"open({str(path)!r}, 'w')", "<harm>", "eval")
    return base64.b64encode(marshal.dumps(code)).decode()


def layers_that_run_code(path):
    """Returns layers by what they would do; each writes or reads a file if it is believed."""
    keras_layers = "keras.layers"
    function = {"class_name": "__lambda__", "config": {"value": [harm(path), None, None]}}
    return {
        "a Lambda": {"class_name": "Lambda", "module": keras_layers, "registered_name": None,
                     "config": {"function": function}},
        "a lambda as an activation": {"class_name": "Activation", "module": keras_layers,
                                      "registered_name": None, "config": {"activation": function}},
        "a class of another package": {"class_name": "Popen", "module": "subprocess",
                                       "registered_name": None, "config": {"args": ["true"]}},
        "a module that is imported": {"class_name": "Layer", "module": "antigravity",
                                      "registered_name": None, "config": {}},
        "a function of another package": {
            "class_name": "Activation", "module": keras_layers, "registered_name": None,
            "config": {"activation": {"class_name": "function", "config": "system", "module": "os",
                                      "registered_name": "system"}}},
        "a function of Keras that fetches": {
            "class_name": "Activation", "module": keras_layers, "registered_name": None,
            "config": {"activation": {"class_name": "function", "config": "get_file",
                                      "module": "keras.utils", "registered_name": "get_file"}}},
        "a registered name": {"class_name": "Own", "module": None, "registered_name": "own>Own",
                              "config": {}},
        "a SavedModel": {"class_name": "TFSMLayer", "module": "keras.layers",
                         "registered_name": None,
                         "config": {"filepath": str(path.parent), "call_endpoint": "serve"}},
        "a module of PyTorch": {"class_name": "TorchModuleWrapper", "module": keras_layers,
                                "registered_name": None, "config": {"module": "gASVAAAA"}},
        "a vocabulary of this machine": {"class_name": "StringLookup", "module": keras_layers,
                                         "registered_name": None,
                                         "config": {"vocabulary": str(path.with_name("words"))}},
    }  # fmt: skip


@pytest.mark.parametrize("what", layers_that_run_code(Path("x")))
def test_a_model_file_that_brings_code_is_refused_and_the_code_does_not_run(
    what, place, good, tmp_path
):
    files, harmed = members(good), tmp_path / "outer" / "harmed"
    harmed.with_name("words").write_text("a secret\n")
    layer = layers_that_run_code(harmed)[what]
    changed = with_layer(json.loads(files["config.json"]), layer)
    content = packed({**files, "config.json": json.dumps(changed).encode()})
    refused = opens(place, content)
    assert "the model can't be loaded" in str(refused)
    assert not harmed.exists()


def test_a_layer_of_keras_in_its_place_is_opened(place, good):
    files = members(good)
    layer = {"class_name": "Rescaling", "module": "keras.layers"}
    layer["config"] = {"scale": 0.5, "offset": 0.0}
    changed = with_layer(json.loads(files["config.json"]), layer)
    found = opens(place, packed({**files, "config.json": json.dumps(changed).encode()}))
    assert isinstance(found, Bundle)  # the control: what is refused above is the layer


def test_a_zip_bomb_for_a_model_is_refused_before_it_is_unpacked(place, good):
    files = members(good)
    for name in (MEMBER, "config.json"):
        content = packed({**files, name: bytes(1 << 27)}, zipfile.ZIP_DEFLATED)
        refused = survives(place, content, lambda: bundle.load(place.path))
        assert "more than 100 times its own size" in str(refused)


# weights, and known photos


@pytest.fixture(scope="module")
def weights_files(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("weights"), small_model()
    model.save_weights(folder / "net.weights.h5")
    return (folder / "net.weights.h5").read_bytes()


@cases
def test_a_damaged_weights_file_fills_the_net_or_is_refused(number, tmp_path, weights_files):
    place, net = Place.of(tmp_path, "net.weights.h5"), small_model()
    place.path.write_bytes(weights_files)
    load_file(net, place.path, name="Tiny")

    def read():
        load_file(net, place.path, name="Tiny")
        return all(np.asarray(weight).size for weight in net.get_weights())

    few = FEW if number == FEW else SLOWER
    prove(few, damaged(weights_files), lambda content: opens(place, content, read, bool))


@pytest.fixture(scope="module")
def known_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("known") / "known.keras"
    features = np.random.default_rng(0).random((6, 4)).astype("float16")
    pixels = keras.Input((32, 32, 3))
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    known.save(replace(Known("", model), features=features, threshold=0.5, n=6), path)
    return path.read_bytes()


@cases
def test_damaged_known_photos_are_known_or_refused(number, tmp_path, known_file):
    place = Place.of(tmp_path, "known.keras")
    place.path.write_bytes(known_file)
    found = known.load(place.path)
    assert found is not None and found.features.shape == (6, 4)

    def is_known(one):
        return isinstance(one, Known) and one.features.ndim == 2

    few = FEW if number == FEW else SLOWER
    names = [name for name in NAMES if "\ud800" not in name]
    drawn = damaged(known_file) | st.sampled_from(names).map(
        lambda name: packed({**members(known_file), name: b""})
    )
    prove(few, drawn, lambda c: opens(place, c, lambda: known.load(place.path), is_known))
