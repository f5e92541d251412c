import json
import os
import signal
import zipfile

import keras
import numpy as np
import pytest
from small_run import NAMES, small_bundle, small_model, without_kerasft

from kerasft.errors import UserError
from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.models import target as target_module
from kerasft.models.bundle import Bundle

PIXELS = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.keras"
    bundle.save(small_bundle(), path)
    return path


def run_directory(path, model=None):
    path.mkdir()
    (path / "run.json").write_text("{}")
    if model:
        bundle.copy(model, path / "model.keras")
    return path


def test_what_is_saved_is_what_is_loaded(tmp_path):
    original = small_bundle(resize="crop")
    bundle.save(original, tmp_path / "model.keras")
    loaded = bundle.load(tmp_path / "model.keras")
    assert loaded.class_names == ("circle", "cross", "stripes")
    assert loaded.rule == (32, "crop", (255, 255, 255), 8)
    np.testing.assert_array_equal(
        loaded.model.predict_on_batch(PIXELS), original.model.predict_on_batch(PIXELS)
    )


def test_names_of_any_script_come_back(tmp_path):
    names = ("Gänseblümchen", "ひまわり", 'a "quoted", name')
    bundle.save(small_bundle(names), tmp_path / "model.keras")
    assert bundle.load(tmp_path / "model.keras").class_names == names


def test_the_scores_are_the_softmax_of_the_logits():
    opened = small_bundle()
    scores, logits = opened.scores_and_logits.predict_on_batch(PIXELS)
    exponentials = np.exp(logits.astype("float64"))
    by_hand = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, by_hand, atol=1e-6)  # float32 softmax
    np.testing.assert_array_equal(logits, opened.logits_model().predict_on_batch(PIXELS))
    assert scores.max() - scores.min() > 0.1  # the model tells images apart


def test_a_compiled_and_trained_model_is_saved_uncompiled(tmp_path):
    opened = small_bundle()
    opened.model.compile("adam", "sparse_categorical_crossentropy")
    opened.model.fit(PIXELS, np.array([0, 1, 2, 0]), verbose=0)
    bundle.save(opened, tmp_path / "model.keras")
    assert not keras.models.load_model(tmp_path / "model.keras").compiled
    assert opened.model.compiled  # the caller's model is left alone


def test_a_model_of_mixed_precision_is_saved_in_float32(tmp_path):
    opened = small_bundle()
    for layer in opened.model.layers[2:-1]:
        layer.dtype_policy = "mixed_bfloat16"
    assert opened.model.get_layer("conv").compute_dtype == "bfloat16"
    bundle.save(opened, tmp_path / "model.keras")
    loaded = bundle.load(tmp_path / "model.keras").model
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    np.testing.assert_array_equal(
        loaded.predict_on_batch(PIXELS), small_model().predict_on_batch(PIXELS)
    )


def test_a_model_is_saved_as_one_that_was_rebuilt_from_its_config(tmp_path):
    opened = small_bundle()
    shared = keras.DTypePolicy("float32")
    for layer in opened.model.layers:
        layer.dtype_policy = shared
    bundle.save(opened, tmp_path / "model.keras")
    rebuilt = type(opened.model).from_config(opened.model.get_config())
    rebuilt.save(tmp_path / "rebuilt.keras")
    configs = []
    for name in ("model.keras", "rebuilt.keras"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            configs.append(json.loads(archive.read("config.json")))
    assert configs[0] == configs[1]  # without the address of the shared policy


def test_a_model_that_was_built_in_mixed_precision_is_saved_in_float32(tmp_path):
    pixels = keras.Input((32, 32, 3), name="pixels")
    x = keras.layers.Conv2D(4, 3, dtype="mixed_float16", name="conv")(pixels)
    x = keras.layers.GlobalAveragePooling2D(dtype="mixed_float16")(x)
    x = keras.layers.Dense(3, dtype="mixed_float16", name="logits")(x)
    model = keras.Model(pixels, keras.layers.Softmax(dtype="float32", name="scores")(x))
    bundle.save(Bundle(model, NAMES, InputRule(32)), tmp_path / "model.keras")
    loaded = bundle.load(tmp_path / "model.keras").model
    assert loaded.get_layer("conv").compute_dtype == "float32"
    assert loaded.get_layer("logits").output.dtype == "float32"


def test_the_file_loads_in_plain_keras_where_kerasft_cannot_be_imported(saved, tmp_path):
    code = (
        "import keras, numpy as np\n"
        "pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype('float32')\n"
        "print(keras.models.load_model('model.keras').predict_on_batch(pixels).tolist())"
    )
    scores = json.loads(without_kerasft(code, tmp_path).splitlines()[-1])
    np.testing.assert_array_equal(
        np.array(scores, "float32"), bundle.load(saved).model.predict_on_batch(PIXELS)
    )


def test_saving_leaves_one_file_and_replaces_the_older_one(saved):
    newer = Bundle(small_model(seed=1), NAMES, InputRule(32, "pad"))
    bundle.save(newer, saved)
    assert os.listdir(saved.parent) == ["model.keras"]
    assert bundle.load(saved).rule == (32, "pad", None, 16)


def test_saving_where_no_folder_is_names_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"absent/model\.keras can't be written: no such file"):
        bundle.save(small_bundle(), tmp_path / "absent" / "model.keras")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_older_file_as_it_was(saved):
    before = saved.read_bytes()
    resource = pytest.importorskip("resource")
    other = small_bundle()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError) as caught:
            bundle.save(other, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == f"{saved} can't be written: file too large."
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["model.keras"]


def test_the_last_file_is_opened_once_even_if_it_is_renamed(saved, tmp_path):
    first = bundle.opened(saved)
    assert bundle.opened(saved.replace(tmp_path / "renamed.keras")) is first
    bundle.forget()
    assert bundle.opened(tmp_path / "renamed.keras") is not first


def test_a_file_that_was_written_again_is_opened_again(saved):
    first = bundle.opened(saved)
    bundle.save(Bundle(small_model(seed=1), NAMES, InputRule(32)), saved)
    again = bundle.opened(saved)
    assert not np.array_equal(again.model.predict(PIXELS), first.model.predict(PIXELS))
    with pytest.raises(UserError, match="no such file"):
        bundle.opened(saved.with_name("absent.keras"))


def test_a_copy_is_the_same_file(saved, tmp_path):
    bundle.copy(saved, tmp_path / "copy.keras")
    assert (tmp_path / "copy.keras").read_bytes() == saved.read_bytes()


def test_an_absent_file_is_an_error_of_what_was_typed(tmp_path):
    with pytest.raises(UserError, match=r"absent\.keras: no such file") as caught:
        bundle.load(tmp_path / "absent.keras")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_model_that_was_cut_off_is_refused(saved, share):
    encoded = saved.read_bytes()
    saved.write_bytes(encoded[: int(len(encoded) * share)])
    with pytest.raises(UserError, match=r"model\.keras: not a Keras model .* damaged or cut off"):
        bundle.load(saved)


@pytest.mark.parametrize("place", [0.05, 0.2, 0.4, 0.6, 0.8])
def test_a_model_with_changed_bytes_is_refused_or_is_the_same(saved, place):
    whole = bundle.load(saved).model.predict_on_batch(PIXELS)
    encoded = bytearray(saved.read_bytes())
    for i in range(16):
        encoded[int(len(encoded) * place) + i] ^= 0xFF
    saved.write_bytes(encoded)
    try:
        loaded = bundle.load(saved)
    except UserError as error:
        assert str(saved) in str(error)
    else:  # the bytes lay in padding or in what Keras does not read
        np.testing.assert_array_equal(loaded.model.predict_on_batch(PIXELS), whole)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("hello")
    with pytest.raises(UserError, match="not a Keras model file"):
        bundle.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.txt", "hello")
    with pytest.raises(UserError, match="not a Keras model file"):
        bundle.load(path)


def test_a_model_of_another_program_is_refused(tmp_path):
    small_model().save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"holds no kerasft\.json"):
        bundle.load(tmp_path / "model.keras")


@pytest.mark.parametrize(
    "facts", ["{", "[]", "{}", '{"class_names": 3, "image_size": 32, "resize": "stretch"}']
)
def test_facts_that_make_no_sense_are_refused(tmp_path, facts):
    path = tmp_path / "model.keras"
    small_model().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("kerasft.json", facts)
    with pytest.raises(UserError, match=r"model\.keras: the model can't be loaded"):
        bundle.load(path)


def test_facts_that_do_not_fit_the_model_are_refused(tmp_path):
    bundle.save(Bundle(small_model(3), ("one", "two"), InputRule(32)), tmp_path / "model.keras")
    with pytest.raises(UserError, match="names 2 classes and a side of 32 pixels"):
        bundle.load(tmp_path / "model.keras")


def test_a_run_a_model_file_and_a_string_are_opened(saved, tmp_path):
    run = run_directory(tmp_path / "run", saved)
    for target in (run, str(run), saved, str(saved)):
        assert target_module.open_model(target).class_names == NAMES


def test_a_run_without_a_model_says_how_to_go_on(tmp_path):
    run = run_directory(tmp_path / "run")
    with pytest.raises(UserError, match=r"no model yet.*`continue_run\('.*run', resume=True\)`"):
        target_module.open_model(run)


def test_a_folder_that_is_no_run_and_an_absent_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        target_module.open_model(tmp_path)
    with pytest.raises(UserError, match="no such") as caught:
        target_module.open_model(tmp_path / "absent")
    assert caught.value.exit_code == 2


def test_a_misspelt_net_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'MobileNetV2'") as caught:
        target_module.open_model("imagenet:MobileNetW2")
    assert caught.value.exit_code == 2
