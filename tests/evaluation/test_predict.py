import logging
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawing import draw_photos
from small_run import NAMES, small_bundle, small_run

from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.predict import Prediction, predict
from kerasft.export.savedmodel import write as write_savedmodel
from kerasft.models import bundle
from kerasft.pixels import images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def exported(trained):
    """A folder of versions, the newest of which is 10; the other is damaged."""
    folder = trained.parent / "served"
    write_savedmodel(bundle.load(trained / "model.keras"), folder / "10")
    (folder / "9").mkdir()
    (folder / "9" / "saved_model.pb").write_bytes(b"hello")
    return folder


@pytest.fixture
def some(trained, tmp_path):
    """A folder with three images in two folders, a text, and hidden files."""
    folder = tmp_path / "some"
    (folder / "inner").mkdir(parents=True)
    source = trained.parent / "photos"
    shutil.copy(source / "circle" / "circle-001.jpg", folder / "b.jpg")
    shutil.copy(source / "cross" / "cross-000.png", folder / "inner" / "c.PNG")
    shutil.copy(source / "stripes" / "stripes-000.png", folder / "a.png")
    (folder / "notes.txt").write_text("not an image, and not named as one")
    shutil.copy(folder / "b.jpg", folder / ".hidden.jpg")
    return folder


def labels_of(result):
    return [best.label for best in result.labels]


def test_a_run_predicts_where_its_gpu_is_missing(trained, some, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = (run / "config.toml").read_text("utf-8")
    (run / "config.toml").write_text(config.replace('"auto"', '"gpu:63"', 1), "utf-8")
    with caplog.at_level(logging.INFO, "kerasft"):
        assert predict(run, [some / "b.jpg"]) == predict(trained, [some / "b.jpg"])
    assert caplog.messages[0] == (
        f"{run}: was trained on gpu:63, which this machine does not have; another device is used."
    )


def test_a_run_whose_classes_were_edited_is_refused_as_evaluate_does(trained, some, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "classes.txt").write_text("round\ncross\nstripes\n")
    for use in (
        lambda: predict(run, some),
        lambda: evaluate_run(run, data=trained.parent / "photos"),
    ):
        with pytest.raises(UserError) as error:
            use()
        assert str(error.value) == (
            f"{run}: classes.txt names round, cross, stripes, model.keras names circle, cross, "
            "stripes. Expected the same; one was changed since the run."
        )
    (run / "classes.txt").unlink()  # model.keras has the names
    assert len(predict(run, some)) == 3


def test_predictions_are_the_scores_of_the_model_best_first(trained, some):
    (result,) = predict(trained, [some / "a.png"])
    model = keras.models.load_model(trained / "model.keras")
    # PNG is lossless, so Keras' own reader and PIL's resize give nearly the same pixels.
    image = keras.utils.load_img(some / "a.png", target_size=(32, 32), interpolation="bilinear")
    scores = model.predict_on_batch(keras.utils.img_to_array(image)[None])[0]
    expected = sorted(zip(scores, NAMES, strict=True), reverse=True)
    assert result.file == str(some / "a.png")
    assert labels_of(result) == [name for _, name in expected]
    found = [best.score for best in result.labels]
    # PIL rounds to whole gray levels twice, once per axis.
    np.testing.assert_allclose(found, [score for score, _ in expected], atol=0.02)
    assert sum(found) == pytest.approx(1, abs=1e-6)


def test_top_limits_the_labels_and_may_be_more_than_there_are(trained, some):
    assert len(predict(trained, [some / "a.png"], top=1)[0].labels) == 1
    assert len(predict(trained, [some / "a.png"], top=50)[0].labels) == 3
    with pytest.raises(UserError, match="expected 1 or more, got 0"):
        predict(trained, [some / "a.png"], top=0)


def test_a_folder_is_searched_for_images_and_sorted(trained, some):
    files = [result.file for result in predict(trained, [some])]
    assert files == [str(some / name) for name in ("a.png", "b.jpg", "inner/c.PNG")]


def test_files_come_in_the_order_given(trained, some):
    wanted = [some / "b.jpg", some / "a.png", some / "b.jpg"]
    results = predict(trained, wanted)
    assert [result.file for result in results] == [str(path) for path in wanted]
    assert results[0] == results[2] != results[1]


def test_bad_files_get_an_error_and_the_others_are_predicted(trained, some, tmp_path):
    (some / "empty.jpg").write_bytes(b"")
    (some / "text.jpg").write_text("hello")
    (some / "cut.jpg").write_bytes((some / "b.jpg").read_bytes()[:600])
    (tmp_path / "nothing").mkdir()
    results = predict(trained, [some, tmp_path / "absent.jpg", tmp_path / "nothing"])
    errors = {os.path.basename(r.file): r.error for r in results if r.error}
    assert errors == {
        "empty.jpg": "is empty",
        "text.jpg": "is not a JPEG, PNG, GIF, BMP or WebP image",
        "cut.jpg": "is truncated",
        "absent.jpg": "no such file",
        "nothing": "holds no images",
    }
    good = [os.path.basename(r.file) for r in results if r.labels]
    assert good == ["a.png", "b.jpg", "c.PNG"]
    alone = predict(trained, [some / "b.jpg"])[0].labels
    among = results[[os.path.basename(r.file) for r in results].index("b.jpg")].labels
    assert [best.label for best in among] == [best.label for best in alone]
    assert among[0].score == pytest.approx(alone[0].score, abs=1e-6)  # other batch size


def test_only_bad_files_are_only_errors(trained, tmp_path):
    assert predict(trained, [tmp_path / "absent.jpg"]) == [
        Prediction(str(tmp_path / "absent.jpg"), error="no such file")
    ]


def test_more_files_than_a_batch_keep_their_names(trained):
    photos = trained.parent / "photos"
    results = predict(trained, [photos])
    assert len(results) == 36
    last = predict(trained, [results[35].file])[0]
    assert last.file == results[35].file
    assert last.labels[0].score == pytest.approx(results[35].labels[0].score, abs=1e-6)


def test_a_model_file_predicts_as_its_run(trained, some):
    assert predict(trained / "model.keras", [some]) == predict(str(trained), [str(some)])


@pytest.mark.parametrize("version", ["", pytest.param("10", marks=pytest.mark.slow)])
def test_a_savedmodel_predicts_as_its_run_bad_files_too_and_the_newest_version_is_taken(
    trained, exported, some, version
):
    (some / "text.jpg").write_text("hello")
    ours, theirs = predict(trained, [some]), predict(exported / version, [some])
    assert [bool(result.error) for result in theirs] == [False, False, False, True]
    assert [labels_of(result) for result in theirs] == [labels_of(result) for result in ours]
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        assert a.labels[0].score == pytest.approx(b.labels[0].score, abs=1e-5)


def test_a_savedmodel_of_another_program_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None], name="x")])
    tf.saved_model.save(module, str(tmp_path / "other"), module.f)
    with pytest.raises(UserError, match=r"not a SavedModel of `kerasft export`.*takes \['x'\]"):
        predict(tmp_path / "other", [tmp_path])


def test_a_damaged_savedmodel_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"hello")
    with pytest.raises(UserError, match="the SavedModel can't be loaded"):
        predict(tmp_path, [tmp_path])


def test_in_a_folder_images_count_by_what_they_hold_and_the_rest_is_told(trained, some, caplog):
    shutil.copy(some / "b.jpg", some / "no_ending")
    (some / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (some / "drawing.psd").write_bytes(b"8BPS" + bytes(64))
    (some / "paper.pdf").write_bytes(b"%PDF-1.7")
    (some / "notes.txt").write_text("hello")
    caplog.set_level(logging.INFO)
    results = {os.path.basename(r.file): r.error for r in predict(trained, some)}
    assert results == {
        "IMG_1.HEIC": "is a damaged HEIC file",
        "a.png": "",
        "b.jpg": "",
        "c.PNG": "",
        "drawing.psd": f"is a Photoshop file; kerasft reads {images.FORMATS}",
        "no_ending": "",
    }
    (line,) = [record.getMessage() for record in caplog.records if "passed" in record.msg]
    assert line == f"{some}: passed over 2 files that hold no image: notes.txt, paper.pdf"


def test_a_folder_that_is_no_model_and_an_absent_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        predict(tmp_path, [tmp_path])
    with pytest.raises(UserError, match="no such") as caught:
        predict(tmp_path / "absent", [tmp_path])
    assert caught.value.exit_code == 2


def test_progress_counts_files_read_and_predicted(trained, some):
    told = []
    predict(trained, [some], progress=told.append)
    assert {event.stage for event in told} == {"images", "check"}
    assert [(e.done, e.total) for e in told if e.stage == "check"] == [(3, 3)]


def test_names_with_odd_characters_are_printable(trained, some):
    shutil.copy(some / "a.png", some / "line\nbreak.png")
    (result,) = predict(trained, [some / "line\nbreak.png"])
    assert result.file.endswith("line\\x0abreak.png") or result.file.endswith(r"line\nbreak.png")


def test_a_pretrained_net_knows_its_1000_labels(assets):
    flower = sorted((assets / "datasets" / "flowers5" / "daisy").iterdir())[0]
    (result,) = predict("imagenet:MobileNet:alpha=0.75", [flower], top=3)
    assert len(result.labels) == 3
    assert result.labels[0].label == "daisy"


def test_equal_scores_are_listed_in_the_order_of_the_classes(tmp_path, some):
    opened = small_bundle()
    opened.model.get_layer("logits").kernel.assign(np.zeros((8, 3)))
    bundle.save(opened, tmp_path / "model.keras")
    assert labels_of(predict(tmp_path / "model.keras", [some / "a.png"])[0]) == list(NAMES)


@pytest.fixture
def confident(tmp_path):
    """A model whose logits are 0 for a, 110 for b, ... 660 for g, whatever the photo shows.

    In float32 the scores of a to f are 0: exp(-104) is rounded to it.
    """
    opened = small_bundle(tuple("abcdefg"))
    opened.model.get_layer("logits").kernel.assign(np.zeros((8, 7)))
    opened.model.get_layer("logits").bias.assign(110.0 * np.arange(7))
    bundle.save(opened, tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_classes_whose_scores_are_0_are_ranked_by_their_logits_everywhere(confident, tmp_path):
    photos = draw_photos(tmp_path / "photos", classes=("e", "f"), per_class=2)
    write_savedmodel(bundle.load(confident), tmp_path / "saved")
    ours, theirs = predict(confident, [photos]), predict(tmp_path / "saved", [photos])
    assert [labels_of(result) for result in ours] == [list("gfedc")] * 4
    assert [best.score for best in ours[0].labels] == [1, 0, 0, 0, 0]  # the control
    assert theirs == ours
    found = evaluate_run(confident, data=photos)
    assert (found.top5, found.accuracy) == (1.0, 0.0)  # among g, a, b, c, d are neither e nor f


def test_an_export_without_logits_of_an_older_version_is_ranked_by_its_scores(tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes):  # the answers of `confident`
        count = tf.size(image_bytes)
        return {
            "scores": tf.tile([[0.0, 0, 0, 0, 0, 0, 1]], [count, 1]),
            "labels": tf.tile([list("abcdefg")], [count, 1]),
            "top_label": tf.repeat("g", count),
            "top_score": tf.repeat(1.0, count),
        }

    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "older"), {"serving_default": serve})
    photos = draw_photos(tmp_path / "photos", classes=("e",), per_class=1)
    assert labels_of(predict(tmp_path / "older", [photos])[0]) == list("gabcd")
