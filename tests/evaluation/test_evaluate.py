import json
import math
import shutil
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from drawing import draw_photos
from small_run import NAMES, small_bundle, small_run

from kerasft import run
from kerasft.cli.use import report_text
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import WithoutCopies, evaluate_run, report, without_copies
from kerasft.input_rule import InputRule
from kerasft.metrics import calibration_error, log_loss, wilson
from kerasft.models import bundle
from kerasft.models.bundle import Bundle, score

# Ten images, three classes. Labels a a a a a b b b c c; predictions a a a b c b b a c c.
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
PREDICTED = [0, 0, 0, 1, 2, 1, 1, 0, 2, 2]


def scores_for(predicted, num_classes, best):
    """Scores whose best is `best`, at the predicted class; the others share the rest."""
    rest = (1 - best) / (num_classes - 1)
    return np.where(np.eye(num_classes)[predicted] == 1, best, rest).astype("float32")


@pytest.fixture(scope="module")
def ten():
    scores = scores_for(PREDICTED, 3, 0.8)
    return report(scores, np.log(scores), LABELS, ("a", "b", "c"), split="test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("evaluate"))


def test_accuracy_is_the_share_of_right_images(ten):
    assert (ten.n, ten.accuracy) == (10, 0.7)


def test_the_interval_of_8_of_10_is_wilsons():
    # Brown, Cai and DasGupta (2001): 0.490 to 0.943.
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)


def test_the_interval_stays_within_0_and_1():
    # k = 0: 0 to z²/(n + z²) = 3.8415/13.8415.
    assert wilson(0, 10)[0] == 0
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=5e-5)
    assert wilson(10, 10)[0] == pytest.approx(0.7225, abs=5e-5)
    assert 1 - 1e-12 < wilson(10, 10)[1] <= 1
    assert wilson(0, 0) == (0, 1)


def test_precision_recall_and_f1_are_those_counted_by_hand(ten):
    a, b, c = ten.per_class
    # a: 4 predicted, 3 right, 5 there. b: 3 predicted, 2 right, 3 there. c: 3, 2, 2.
    assert (a.label, a.precision, a.recall, a.support) == ("a", 0.75, 0.6, 5)
    assert (b.precision, b.recall, b.support) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert (c.precision, c.recall, c.support) == (pytest.approx(2 / 3), 1.0, 2)
    assert [row.f1 for row in ten.per_class] == pytest.approx([2 / 3, 2 / 3, 0.8])
    assert ten.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 0.8) / 3)


def test_rows_of_the_confusion_matrix_are_labels(ten):
    assert ten.confusion.tolist() == [[3, 1, 1], [1, 2, 0], [0, 0, 2]]


def test_log_loss_is_the_mean_of_minus_log_of_the_labels_scores():
    # Seven labels have score 0.8, three have 0.1.
    scores = scores_for(PREDICTED, 3, 0.8)
    expected = -(7 * math.log(0.8) + 3 * math.log(0.1)) / 10
    assert log_loss(np.log(scores), LABELS) == pytest.approx(expected, abs=1e-6)


def test_log_loss_of_a_sure_mistake_is_finite():
    # In float32 the score of the label is 0, and its logarithm infinite.
    assert log_loss(np.array([[200.0, -200.0]], "float32"), np.array([1])) == pytest.approx(400)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy(ten):
    # One bin: confidence 0.8, accuracy 0.7.
    assert ten.ece == pytest.approx(0.1, abs=1e-6)


def test_calibration_error_weighs_bins_by_their_images():
    # Bin (0.867, 0.933]: three images at 0.9, two right: |2/3 - 0.9|. Bin (0.533, 0.6]: one
    # at 0.55, right: |1 - 0.55|. Together (3 · 0.2333 + 0.45) / 4 = 0.2875.
    confidence, hits = np.array([0.9, 0.9, 0.9, 0.55]), np.array([True, True, False, True])
    assert calibration_error(confidence, hits) == pytest.approx(0.2875)


def test_gaps_of_opposite_sign_in_two_bins_do_not_cancel():
    # 0.95 and wrong: 0.95. 0.55 and right: 0.45. In one bin it would be |0.5 - 0.75| = 0.25.
    confidence, hits = np.array([0.95, 0.55]), np.array([False, True])
    assert calibration_error(confidence, hits) == pytest.approx(0.7)


def test_scores_of_1_are_in_the_last_bin():
    assert calibration_error(np.array([1.0]), np.array([True])) == 0
    assert calibration_error(np.array([1.0]), np.array([False])) == 1


def test_top5_counts_labels_among_the_five_best():
    # Scores fall from class 0 to class 6, so classes 5 and 6 are not among the five best.
    row = np.array([7, 6, 5, 4, 3, 2, 1]) / 28
    names = tuple("abcdefg")
    found = report(
        np.tile(row, (4, 1)), np.log(np.tile(row, (4, 1))), np.array([0, 4, 5, 6]), names, split=""
    )
    assert (found.accuracy, found.top5) == (0.25, 0.5)


def test_labels_are_ranked_by_logits_where_scores_are_equal():
    # Both scores of the best are 0.5 in float32, and all others are 0.
    logits = np.array([[0, 110, 400, 400.00003, 220, 330, 120]], "float32")
    scores = np.array([[0, 0, 0.5, 0.5, 0, 0, 0]], "float32")
    names = tuple("abcdefg")
    places = [report(scores, logits, np.array([label]), names, split="") for label in range(7)]
    assert [found.top5 for found in places] == [0, 0, 1, 1, 1, 1, 1]
    assert [found.accuracy for found in places] == [0, 0, 0, 1, 0, 0, 0]
    assert [found.ece for found in places] == [0.5] * 7
    assert places[2].confusion[2].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_five_classes_have_no_top5():
    scores = scores_for([0, 1], 5, 0.6)
    assert report(scores, np.log(scores), np.array([0, 1]), tuple("abcde"), split="").top5 is None
    scores = scores_for([0, 1], 6, 0.6)
    assert report(scores, np.log(scores), np.array([0, 1]), tuple("abcdef"), split="").top5 == 1


def test_classes_without_images_do_not_lower_the_macro_f1():
    scores = scores_for([0, 1], 3, 0.8)
    found = report(scores, np.log(scores), np.array([0, 1]), ("a", "b", "c"), split="test")
    assert found.macro_f1 == 1
    assert found.per_class[2].support == 0
    assert found.confusion.shape == (3, 3)


def test_names_of_fewer_classes_than_there_are_scores_are_a_bug():
    scores = scores_for([0, 1], 3, 0.8)
    with pytest.raises(ValueError, match="longer than argument 1"):
        report(scores, np.log(scores), np.array([0, 1]), ("a", "b"), split="test")


def test_a_report_cannot_be_changed(ten):
    with pytest.raises(FrozenInstanceError):
        ten.split = "train"
    with pytest.raises(FrozenInstanceError):
        ten.per_class[0].label = "b"


def with_near(*near):
    """Six photos, three for training and three for test, of which the last one is wrong."""
    return Source(
        root=Path(),
        class_names=("a", "b"),
        paths=tuple("abcdef"),
        labels=np.array([0, 1, 0, 0, 0, 1], np.int32),
        splits=np.array(["train"] * 3 + ["test"] * 3),
        digests=tuple("abcdef"),
        near=near,
    )


def test_photos_with_a_near_copy_in_training_are_left_out_of_the_second_figure(ten):
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    # The second copy of the photo "y" is in test as well, so it may stay.
    found = without_copies(with_near("x", "", "", "x", "y", "y"), "test", logits)
    assert found == WithoutCopies(2, 0.5, wilson(1, 2))
    shown = replace(ten, without_near_copies=WithoutCopies(8, 0.75, (0.41, 0.93)))
    assert report_text(shown).splitlines()[2] == (
        "without 2 near copies of training photos: accuracy 0.750 (95% interval 0.410 to 0.930), "
        "8 images"
    )


def test_without_near_copies_in_training_there_is_no_second_figure():
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert without_copies(with_near("", "", "", "", "y", "y"), "test", logits) is None
    assert without_copies(with_near(), "test", logits) is None
    everything = without_copies(with_near("x", "", "", "x", "x", "x"), "test", logits)
    assert everything == WithoutCopies(0, None, (0, 1))


def test_json_has_the_keys_of_the_reference_and_plain_numbers(ten):
    shown = json.loads(json.dumps(ten.to_json()))
    assert list(shown) == [
        "split", "n", "accuracy", "ci95", "top5", "macro_f1", "loss", "ece", "per_class",
        "confusion", "without_near_copies", "answered", "out_of_fold",
    ]  # fmt: skip
    assert shown["per_class"][0] == {
        "label": "a", "precision": 0.75, "recall": 0.6, "f1": pytest.approx(2 / 3), "support": 5,
    }  # fmt: skip
    assert shown["ci95"] == pytest.approx([0.3968, 0.8922], abs=5e-5)  # Wilson, 7 of 10
    assert shown["confusion"] == [[3, 1, 1], [1, 2, 0], [0, 0, 2]]


def test_the_text_is_a_table(ten):
    assert report_text(ten).splitlines() == [
        "test: 10 images",
        "accuracy 0.700 (95% interval 0.397 to 0.892)",
        "macro F1 0.711",
        "log loss 0.8470",
        "calibration error 0.100",
        "",
        "class  precision  recall     F1  images",
        "a          0.750   0.600  0.667       5",
        "b          0.667   0.667  0.667       3",
        "c          0.667   1.000  0.800       2",
        "",
        "rows are labels, columns are predictions",
        "     0  1  2",
        "0 a  3  1  1",
        "1 b  1  2  0",
        "2 c  0  0  2",
    ]


def test_many_classes_show_the_most_confused_pairs():
    names = tuple(f"class{i:02}" for i in range(21))
    labels = np.array([0, 0, 0, 3, 3, 5, 7])
    scores = scores_for([1, 1, 1, 4, 4, 5, 8], 21, 0.9)
    text = report_text(report(scores, np.log(scores), labels, names, split="validation"))
    assert text.splitlines()[-4:] == [
        "most confused, label -> prediction",
        "     3  class00 -> class01",
        "     2  class03 -> class04",
        "     1  class07 -> class08",
    ]
    assert "top-5 accuracy" in text


def test_every_image_is_scored_whatever_the_size_of_the_batches():
    opened = small_bundle()
    pixels = np.random.default_rng(0).uniform(0, 255, (13, 32, 32, 3)).astype("float32")
    parts = [pixels[:4], pixels[4:8], pixels[8:12], pixels[12:]]
    told = []
    scores, logits = score(opened, parts, total=13, progress=told.append)
    assert scores.shape == logits.shape == (13, 3)
    at_once = opened.model.predict_on_batch(pixels)
    np.testing.assert_allclose(scores, at_once, atol=1e-6)  # sums of other batch sizes
    assert [(event.stage, event.done, event.total) for event in told] == [
        ("check", 4, 13), ("check", 8, 13), ("check", 12, 13), ("check", 13, 13),
    ]  # fmt: skip


def test_a_model_with_a_weight_that_is_not_a_number_is_refused():
    opened = small_bundle()
    opened.model.get_layer("logits").bias.assign([0, np.nan, 0])
    with pytest.raises(UserError, match="not numbers"):
        score(opened, [np.zeros((2, 32, 32, 3), "float32")])


def test_a_run_is_scored_on_each_of_its_splits(trained):
    # 36 images, 70/15/15: of each class of 12 two go to validation, two to test.
    sizes = {split: evaluate_run(trained, split=split).n for split in ("train", "validation")}
    assert sizes == {"train": 24, "validation": 6}
    assert evaluate_run(trained).n == 6


def test_the_report_of_a_run_is_that_of_its_images_scored_by_hand(trained):
    opened = bundle.load(trained / "model.keras")
    rows = [line.split(",") for line in (trained / "splits.csv").read_text().splitlines()[1:]]
    wanted = [row for row in rows if row[2] == "validation"]
    hits = []
    for row in wanted:
        # Pixels from Keras' own reader, to be independent of images.py; stretch, PIL's bilinear.
        path = trained.parent / "photos" / row[0]
        image = keras.utils.load_img(path, target_size=(32, 32), interpolation="bilinear")
        scores = opened.model.predict_on_batch(keras.utils.img_to_array(image)[None])
        hits.append(int(scores.argmax()) == int(row[1]))
    assert evaluate_run(trained, split="validation").accuracy == sum(hits) / 6


def test_scoring_the_test_split_is_counted_and_other_splits_are_not(trained):
    before = run.read_record(run.open_run(trained)).test_scored
    evaluate_run(trained, split="validation")
    assert run.read_record(run.open_run(trained)).test_scored == before
    table = run.open_run(trained).test_path
    table.unlink(missing_ok=True)  # as in runs of older versions
    evaluate_run(trained, split="test", csv=trained / "own.csv")
    assert run.read_record(run.open_run(trained)).test_scored == before + 1
    assert table.read_text() == (trained / "own.csv").read_text()
    table.unlink()
    evaluate_run(trained, split="test", relabel=True)
    assert not table.exists()


def test_photos_that_moved_are_found_with_data(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained.parent / "photos", tmp_path / "elsewhere")
    with pytest.raises(UserError, match="photos: no such folder"):
        evaluate_run(tmp_path / "run", split="validation")
    found = evaluate_run(tmp_path / "run", split="validation", data=tmp_path / "elsewhere")
    assert found.to_json() == evaluate_run(trained, split="validation").to_json()


def test_a_model_file_is_scored_on_all_images_of_a_folder(trained, tmp_path):
    photos = draw_photos(tmp_path / "new", per_class=4, seed=5)
    found = evaluate_run(trained / "model.keras", data=photos)
    assert (found.split, found.n) == ("all", 12)
    assert [row.support for row in found.per_class] == [4, 4, 4]


def test_classes_are_matched_by_name_and_may_be_missing(trained, tmp_path):
    photos = draw_photos(tmp_path / "new", classes=("stripes", "cross"), per_class=3)
    found = evaluate_run(trained / "model.keras", data=photos)
    assert [(row.label, row.support) for row in found.per_class] == [
        ("circle", 0), ("cross", 3), ("stripes", 3),
    ]  # fmt: skip


def test_a_folder_of_a_class_that_the_model_does_not_know_lists_both_sides(trained, tmp_path):
    photos = draw_photos(tmp_path / "new", classes=("circle", "stripe"), per_class=3)
    with pytest.raises(UserError) as caught:
        evaluate_run(trained / "model.keras", data=photos)
    assert "stripe. Did you mean 'stripes'?" in str(caught.value)
    assert "circle, cross, stripes" in str(caught.value)


def test_a_model_file_without_data_says_what_to_pass(trained):
    with pytest.raises(UserError, match="Pass `data=SRC`") as caught:
        evaluate_run(trained / "model.keras")
    assert caught.value.exit_code == 2


def test_an_unknown_split_is_refused(trained):
    with pytest.raises(UserError, match="expected train, validation or test, got 'val'") as caught:
        evaluate_run(trained, split="val")
    assert caught.value.exit_code == 2


def test_a_split_without_images_is_refused_and_the_others_named(trained, tmp_path):
    photos = draw_photos(tmp_path / "new", per_class=2)
    with pytest.raises(UserError, match=r"no images in the validation split\. It has: all"):
        evaluate_run(trained / "model.keras", split="validation", data=photos)


def test_a_model_of_other_classes_than_the_runs_is_refused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained.parent / "photos", tmp_path / "photos")
    names = (NAMES[1], NAMES[0], NAMES[2])
    bundle.save(Bundle(small_bundle().model, names, InputRule(32)), tmp_path / "run/model.keras")
    with pytest.raises(UserError, match=r"classes\.txt names circle, cross.* names cross, circle"):
        evaluate_run(tmp_path / "run")


@pytest.fixture
def moved(trained, tmp_path):
    """A copy of the run that answers "stripes" to every photo.

    Its test split has two photos of each class. A circle and a cross of them now lie in "stripes".
    """
    shutil.copytree(trained, tmp_path / "run")
    photos = shutil.copytree(trained.parent / "photos", tmp_path / "photos")
    rows = [line.split(",") for line in (trained / "splits.csv").read_text().splitlines()[1:]]
    test = {label: [row[0] for row in rows if row[1:3] == [label, "test"]] for label in "012"}
    for label in "01":
        path = photos / test[label][0]
        path.rename(photos / "stripes" / f"moved-{path.name}")
    opened = small_bundle()
    opened.model.get_layer("logits").kernel.assign(np.zeros((8, 3)))
    opened.model.get_layer("logits").bias.assign([0, 0, 1])
    bundle.save(opened, tmp_path / "run" / "model.keras")
    config = (tmp_path / "run" / "config.toml").read_text()
    config = config.replace(str(trained.parent / "photos"), str(photos))
    (tmp_path / "run" / "config.toml").write_text(config)
    return tmp_path / "run"


def test_photos_moved_to_another_class_are_measured_by_the_old_one_with_a_warning(moved, caplog):
    splits = (moved / "splits.csv").read_bytes()
    found = evaluate_run(moved)
    assert found.accuracy == 2 / 6  # two of each class, and all are taken for stripes
    assert [row.support for row in found.per_class] == [2, 2, 2]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= 30]
    assert "2 photos of the test split now lie in another class than when the run" in warning
    assert "(circle, now stripes)" in warning
    assert "(cross, now stripes)" in warning
    assert (moved / "splits.csv").read_bytes() == splits


def test_relabel_measures_moved_photos_by_their_new_class_and_writes_nothing(moved):
    before = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
    found = evaluate_run(moved, relabel=True)
    assert found.accuracy == 4 / 6  # one circle and one cross are left, and four are stripes now
    assert [row.support for row in found.per_class] == [1, 1, 4]
    assert {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()} == before


def test_a_split_whose_photos_did_not_move_is_measured_without_a_warning(moved, caplog):
    evaluate_run(moved, split="validation")
    assert not [record for record in caplog.records if record.levelno >= 30]


def test_a_model_file_has_no_old_labels(trained):
    with pytest.raises(UserError, match=r"present classes anyway\. Leave out `relabel`") as caught:
        evaluate_run(trained / "model.keras", data=trained.parent / "photos", relabel=True)
    assert caught.value.exit_code == 2
