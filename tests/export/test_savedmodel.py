import json
import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from filelock import FileLock
from small_run import NAMES, small_run, swapped, without_kerasft

from kerasft.confidence import Abstention
from kerasft.errors import UserError
from kerasft.export import export, parity
from kerasft.export.export import export_run
from kerasft.export.facts import read_facts
from kerasft.export.formats import EXPORTERS
from kerasft.export.measure import refuse_losses
from kerasft.export.savedmodel import write as write_savedmodel
from kerasft.models import bundle
from kerasft.models.tta import with_temperature


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("export"))


RIGHT = 2 / 6  # of the small model, which never learned, on its validation photos


@pytest.fixture(scope="module")
def exported(trained):
    return export_run(trained, least_accuracy=RIGHT)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported.path))


@pytest.fixture(scope="module")
def signatures(loaded):
    return loaded.signatures  # the functions live as long as what was loaded


@pytest.fixture(scope="module")
def photos(trained):
    return sorted((trained.parent / "photos").rglob("*.*"))


def png_that_claims(width, height):
    """A PNG of a few bytes whose header says another size than its pixels have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_the_result_says_where_it_is_and_how_closely_it_agrees(trained, exported):
    assert exported.path == trained / "export" / "1"
    assert exported.proof.n == 6 + 11  # validation, generated
    assert exported.proof.top1_agreement == 1.0
    assert 0 <= exported.proof.max_abs_diff < 1e-5


def test_the_folder_has_the_layout_of_tf_serving_and_its_proof(exported):
    version = exported.path
    assert set(os.listdir(version)) == {
        "MODEL_CARD.md", "assets", "assets.extra", "fingerprint.pb", "kerasft.json", "labels.txt",
        "parity.json", "saved_model.pb", "use", "variables",
    }  # fmt: skip
    assert (version / "labels.txt").read_text("utf-8") == "circle\ncross\nstripes\n"
    facts = read_facts(version)
    assert (facts.format, facts.class_names, facts.rule.image_size) == ("saved-model", NAMES, 32)
    card = (version / "MODEL_CARD.md").read_text("utf-8")
    assert "\n# run\n\nA classifier of images with 3 classes: circle, cross, stripes." in card
    assert "\n| circle | 8 | 2 | 2 |\n" in card
    assert "Unknown: the record of the run has no figures." in card  # it was never trained
    proof = json.loads((version / "parity.json").read_text())
    assert list(proof) == [
        "format", "quantize", "bytes", "latency_ms", "accuracy", "n", "max_abs_diff",
        "max_abs_diff_logits", "top1_agreement", "limit", "versions",
    ]  # fmt: skip
    loaded = ("*.pb", "variables/*", "assets.extra/*")  # the last is what TF Serving warms up with
    files = [path for pattern in loaded for path in version.glob(pattern)]
    assert proof["bytes"] == sum(path.stat().st_size for path in files)
    assert proof["latency_ms"] > 0
    assert {name: proof[name] for name in vars(exported.proof)} == vars(exported.proof)
    assert proof["limit"] == 1e-4


def test_the_version_can_be_read_by_other_users(exported):
    # Temporary folders are private; a server usually is another user.
    assert exported.path.stat().st_mode & 0o055 == 0o055


def test_signatures_are_those_of_the_reference(signatures):
    shapes = {
        name: {
            **{k: (v.dtype, v.shape.as_list()) for k, v in f.structured_input_signature[1].items()},
            **{k: (v.dtype, v.shape.as_list()) for k, v in f.structured_outputs.items()},
        }
        for name, f in signatures.items()
    }
    assert shapes == {
        "serving_default": {
            "image_bytes": (tf.string, [None]),
            "scores": (tf.float32, [None, 3]),
            "logits": (tf.float32, [None, 3]),
            "labels": (tf.string, [None, 3]),
            "top_label": (tf.string, [None]),
            "top_score": (tf.float32, [None]),
            "error": (tf.string, [None]),
        },
        "serve_logits": {
            "image_bytes": (tf.string, [None]),
            "logits": (tf.float32, [None, 3]),
            "error": (tf.string, [None]),
        },
        "serve_pixels": {
            "pixels": (tf.float32, [None, 32, 32, 3]),
            "scores": (tf.float32, [None, 3]),
            "logits": (tf.float32, [None, 3]),
        },
    }


def test_labels_and_best_are_in_the_order_of_the_scores(signatures, photos):
    encoded = tf.constant([path.read_bytes() for path in photos[::6]])
    result = signatures["serving_default"](image_bytes=encoded)
    assert result["labels"].numpy().tolist() == [[b"circle", b"cross", b"stripes"]] * 6
    scores = result["scores"].numpy()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(result["top_score"].numpy(), scores.max(axis=1))
    best = [NAMES[i].encode() for i in scores.argmax(axis=1)]
    assert result["top_label"].numpy().tolist() == best


def test_an_empty_batch_gives_empty_outputs(signatures):
    result = signatures["serving_default"](image_bytes=tf.constant([], tf.string))
    shapes = {name: value.shape.as_list() for name, value in result.items()}
    assert shapes == {
        "scores": [0, 3], "logits": [0, 3], "labels": [0, 3], "top_label": [0], "top_score": [0],
        "error": [0],
    }  # fmt: skip
    assert signatures["serve_logits"](image_bytes=tf.constant([], tf.string))["logits"].shape == (
        0, 3,
    )  # fmt: skip


@pytest.mark.slow
def test_the_signature_that_takes_pixels_converts_to_litert(exported):
    keys = {"signature_keys": ["serve_pixels"]}
    converter = tf.lite.TFLiteConverter.from_saved_model(str(exported.path), **keys)
    assert converter.convert()[4:8] == b"TFL3"


def test_images_of_different_sizes_and_formats_share_a_batch(signatures):
    generated = parity.generated_images()
    both = [generated["palette.gif"], generated["exif_6.jpg"]]  # 60 x 44 and 44 x 60
    together = signatures["serving_default"](image_bytes=tf.constant(both))["scores"].numpy()
    alone = [
        signatures["serving_default"](image_bytes=tf.constant([one]))["scores"].numpy()[0]
        for one in both
    ]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_bad_file_is_named_at_its_place_and_the_others_are_answered(signatures, photos):
    good = [path.read_bytes() for path in photos[:2]]
    bad = {
        b"": "is empty",
        b"<html>": "is not a JPEG, PNG, GIF, BMP or WebP image",
        png_that_claims(60_000, 60_000): "has more than 100,000,000 pixels",  # 10.8 GB once decoded
        b"\xff\xd8\xff": "is truncated",
        good[0][: len(good[0]) // 2]: "is truncated or damaged",
    }
    given = signatures["serving_default"](image_bytes=tf.constant([good[0], *bad, good[1]]))
    assert [error.decode() for error in given["error"].numpy()] == ["", *bad.values(), ""]
    assert given["top_label"].numpy()[1:-1].tolist() == [b""] * 5
    assert given["labels"].numpy().tolist() == [[b"circle", b"cross", b"stripes"]] * 7
    for name in ("scores", "logits"):
        assert not given[name].numpy()[1:-1].any()
        for place, photo in ((0, good[0]), (6, good[1])):
            alone = signatures["serving_default"](image_bytes=tf.constant([photo]))[name]
            np.testing.assert_allclose(given[name][place], alone[0], rtol=1e-5, atol=1e-5)
    logits = signatures["serve_logits"](image_bytes=tf.constant([b"", good[1]]))
    assert logits["error"].numpy().tolist() == [b"is empty", b""]
    assert np.argmax(logits["logits"][1]) == np.argmax(given["logits"][6])


def test_only_bad_files_give_only_errors(signatures):
    given = signatures["serving_default"](image_bytes=tf.constant([b"", b"hello"]))
    assert (given["error"].numpy() != b"").all()
    assert given["scores"].numpy().tolist() == [[0, 0, 0], [0, 0, 0]]


def test_pixels_give_the_scores_of_the_model(trained, signatures):
    pixels = np.random.default_rng(3).uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    result = signatures["serve_pixels"](pixels=tf.constant(pixels))
    model = keras.models.load_model(trained / "model.keras")
    np.testing.assert_allclose(result["scores"], model.predict_on_batch(pixels), atol=1e-5)


@pytest.mark.slow  # by its example it is (test_use.py)
def test_the_export_is_used_where_kerasft_cannot_be_imported(exported, photos, signatures):
    code = (
        "import tensorflow as tf\n"
        f"loaded = tf.saved_model.load({str(exported.path)!r})\n"
        f"encoded = tf.constant([open({str(photos[0])!r}, 'rb').read()])\n"
        "print(loaded.signatures['serving_default'](image_bytes=encoded)['scores'].numpy().tolist())"
    )
    scores = json.loads(without_kerasft(code, exported.path.parent).splitlines()[-1])
    ours = signatures["serving_default"](image_bytes=tf.constant([photos[0].read_bytes()]))
    np.testing.assert_allclose(scores, ours["scores"], atol=1e-6)


INPUTS = ["--inputs", "pixels=pixels.npy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "--all"], "inputs['image_bytes'] tensor_info:"),
        (
            ["run", "--tag_set", "serve", "--signature_def", "serve_pixels", *INPUTS],
            "Result for output key scores:",
        ),
    ],
)
def test_saved_model_cli_shows_and_runs_it(exported, tmp_path, arguments, expected):
    np.save(tmp_path / "pixels.npy", np.zeros((2, 32, 32, 3), "float32"))
    command = ["saved_model_cli", arguments[0], "--dir", str(exported.path), *arguments[1:]]
    code = f"sys.argv = {command}\nfrom tensorflow.python.tools.saved_model_cli import main\nmain()"
    assert expected in without_kerasft(code, tmp_path)


def test_no_class_of_kerasft_is_named_in_the_file(exported, loaded):
    graph = (exported.path / "saved_model.pb").read_bytes()
    assert b"image_bytes" in graph  # the control
    assert type(loaded).__module__.partition(".")[0] == "tensorflow"


@pytest.mark.slow
def test_the_next_export_has_the_next_number_and_takes_its_rule_of_resizing(tmp_path):
    to = tmp_path / "served" / "flowers"
    (to / "9").mkdir(parents=True)
    (to / "notes").mkdir()
    trained = small_run(tmp_path, resize="pad")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    result = export_run(trained, to=to, data=tmp_path / "elsewhere")
    assert result.path == to / "10"
    assert result.proof.max_abs_diff < 1e-5
    assert sorted(os.listdir(to)) == ["10", "9", "notes"]


@pytest.mark.parametrize("format", ["keras", pytest.param("saved-model", marks=pytest.mark.slow)])
def test_an_export_with_red_and_blue_swapped_is_refused_and_leaves_nothing_behind(
    trained, exported, monkeypatch, format
):
    row = EXPORTERS[format]  # a file of Keras decodes no images, so its proof takes a third

    def write_swapped(opened, folder, facts, calibration):
        row.write(swapped(opened), folder, facts, calibration)

    monkeypatch.setitem(EXPORTERS, format, replace(row, write=write_swapped))
    with pytest.raises(UserError, match=r"scores of 17 images differ by up to 0\.\d+") as caught:
        export_run(
            trained, to=trained / "export" if format == "saved-model" else None, format=format
        )
    assert caught.value.exit_code == 1
    assert os.listdir(trained / "export") == ["1"]  # the control: it agreed
    assert not (trained / "export-keras").exists()


def test_an_export_below_the_asked_for_accuracy_is_refused(exported):
    good = exported.accuracy
    assert (good.n, good.export, good.model) == (6, RIGHT, RIGHT)
    with pytest.raises(UserError) as caught:
        refuse_losses(good, read_facts(exported.path), None, 0.9)
    assert str(caught.value) == (
        "The export gets 0.333 of 6 validation photos right, and at least 0.900 was asked for. "
        "Nothing was exported."
    )


@pytest.mark.slow  # one that does not agree is not left behind either, above
def test_an_export_below_the_asked_for_accuracy_is_not_left_behind(trained, exported):
    with pytest.raises(UserError, match=r"gets 0\.333 of 6 validation photos right, and at least"):
        export_run(trained, least_accuracy=0.9)
    assert os.listdir(trained / "export") == ["1"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"least_accuracy": 90}, "least_accuracy.*expected 0 to 1, got 90"),
        ({"max_accuracy_drop": -0.1}, "max_accuracy_drop.*expected 0 to 1, got -0.1"),
        ({"max_accuracy_drop": 0.1}, "max_accuracy_drop.*holds for a quantized export only"),
        ({"quantize": "int8"}, "quantize.*SavedModel is not written in int8"),
        ({"format": "tflite"}, "format.*expected one of saved-model"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_read(tmp_path, asked, said):
    with pytest.raises(UserError, match=said) as caught:
        export_run(tmp_path / "absent", **asked)
    assert caught.value.exit_code == 2


def test_what_killed_exports_left_is_removed_and_what_others_write_stays(tmp_path):
    killed, writing = (tmp_path / f".unproven-{name}" for name in ("a", "b"))
    for folder in (killed, writing):
        folder.mkdir()
        (folder / "model.keras").write_text("")
    (tmp_path / ".unproven-a.lock").write_text("")
    (tmp_path / ".unproven-c.lock").write_text("")  # killed before it had made its folder
    with FileLock(tmp_path / ".unproven-b.lock"):
        with export._writing(tmp_path) as temporary:
            there = sorted(path.name for path in tmp_path.iterdir())
        left = sorted(os.listdir(tmp_path))
    own = [temporary.name, f"{temporary.name}.lock"]
    assert there == sorted([writing.name, ".unproven-b.lock", *own])
    assert left == [writing.name, ".unproven-b.lock"]


def test_versions_of_two_formats_do_not_share_a_folder(trained, tmp_path):
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "other.model").write_text("")
    row = replace(EXPORTERS["saved-model"], label="Other", marker="other.model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPORTERS, "other", row)
        with pytest.raises(UserError, match=r"its version 3 is in the format Other, .* SavedModel"):
            export_run(trained, to=tmp_path)
    assert os.listdir(tmp_path) == ["3"]


def test_photos_that_are_gone_are_named_and_nothing_is_left(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    with pytest.raises(UserError, match=r"photos: no such folder.*pass `data=FOLDER`"):
        export_run(tmp_path / "run", to=tmp_path / "served")
    assert os.listdir(tmp_path) == ["run"]


def test_a_place_that_cannot_be_written_is_named(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/served: the export can't be written"):
        export_run(trained, to=tmp_path / "file" / "served")


def test_a_damaged_model_is_refused_and_nothing_is_left(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    model = tmp_path / "run" / "model.keras"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.keras: not a Keras model file"):
        export_run(tmp_path / "run")
    assert not (tmp_path / "run" / "export").exists()


def test_a_folder_that_is_no_run_and_a_run_without_model_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        export_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="no model yet"):
        export_run(tmp_path)
    assert os.listdir(tmp_path) == ["run.json"]


def test_64_validation_images_are_spread_over_all():
    from kerasft.data.source import Source

    names = tuple(f"{i:03}.jpg" for i in range(200))
    splits = np.array(["validation"] * 190 + ["test"] * 10)
    source = Source(Path("photos"), ("a",), names, np.zeros(200, np.int32), splits, names)
    chosen = [path.name for path in export._spread(source, "validation", 64)]
    assert (len(chosen), len(set(chosen)), chosen[0], chosen[-1]) == (64, 64, "000.jpg", "189.jpg")


@pytest.mark.parametrize("proven", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_with_temperature_and_threshold_is_exported_with_both(
    trained, photos, tmp_path, proven
):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained.parent / "photos", tmp_path / "photos")
    opened = bundle.load(run / "model.keras")
    encoded = tf.constant([file.read_bytes() for file in photos])
    warm = replace(
        opened,
        model=with_temperature(opened.model, 2.0),
        abstention=Abstention(0.9, 0.5, 0.5, 0.95, 0.91, 60),
    )
    bundle.save(warm, run / "model.keras")
    if proven:
        version = export_run(run, data=tmp_path / "photos").path
    else:
        version = tmp_path / "version"
        write_savedmodel(bundle.load(run / "model.keras"), version)
    loaded = tf.saved_model.load(str(version))
    answer = loaded.signatures["serving_default"](encoded)
    top = answer["top_score"].numpy()
    assert answer["abstain"].numpy().tolist() == (top < 0.5).tolist()
    scores = tf.nn.softmax(answer["logits"] / 2.0).numpy()
    assert answer["scores"].numpy() == pytest.approx(scores, abs=1e-6)


def test_requests_to_warm_up_tf_serving_lie_where_it_looks_for_them(exported):
    # That they are its messages is tested in tests/serving/test_tf_serving.py.
    path = exported.path / "assets.extra" / "tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    photos = [record.count(b"\xff\xd8\xff\xe0") for record in records]
    assert photos == [1, 8]
    assert all(b"serving_default" in record and b"image_bytes" in record for record in records)
    assert sum(map(len, records)) < 200_000
