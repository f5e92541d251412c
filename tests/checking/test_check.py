"""`check` says what is wrong with photos, and changes nothing."""

import json
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from drawing import draw_photos
from PIL import Image

from kerasft.checking.features import out_of_fold_scores, outliers_of, suspects_of
from kerasft.cli.main import main


@pytest.fixture
def photos(tmp_path):
    return draw_photos(tmp_path / "photos", per_class=12)


def check(photos, *options):
    done = CliRunner().invoke(main, ["check", str(photos), "--weights", "sample", *options])
    return done.exit_code, done.stdout


def test_photos_that_train_takes_give_0_and_a_label_that_is_wrong_is_suspected(photos):
    (photos / "circle/circle-003.jpg").rename(photos / "stripes/wrong.jpg")
    status, text = check(photos, "--json")
    found = json.loads(text)
    assert (status, found["refused"], found["left_out"]) == (0, "", "")
    assert (found["files"], found["unreadable"], found["converted"]) == (36, [], [])
    assert found["classes"] == {"circle": 11, "cross": 12, "stripes": 13}
    worst = found["label_suspects"][0]
    assert (worst["path"], worst["label"]) == ("stripes/wrong.jpg", "stripes")
    assert worst["suggested"] == "circle"


def test_what_train_refuses_gives_1_and_is_said(photos):
    (photos / "cross/broken.jpg").write_bytes(b"\xff\xd8\xff")
    status, text = check(photos)
    assert status == 1
    assert "Cannot be used (1):\n  cross/broken.jpg: is truncated" in text
    assert "`kerasft train` refuses these photos:" in text


def test_plain_dark_and_odd_photos_and_copies_are_listed(photos):
    shutil.copy(photos / "cross/cross-000.png", photos / "circle/copy.png")
    picture = Image.open(photos / "cross/cross-001.jpg")
    picture.transpose(Image.Transpose.ROTATE_90).save(photos / "cross/turned.png")
    Image.new("RGB", (40, 40), (90, 20, 20)).save(photos / "cross/plain.png")
    Image.open(photos / "circle/circle-000.png").point(lambda v: v // 20).save(
        photos / "circle/night.png"
    )
    Image.open(photos / "circle/circle-002.png").resize((200, 40)).save(photos / "circle/long.png")
    _, text = check(photos, "--json")
    found = json.loads(text)
    assert found["plain"] == ["cross/plain.png"]
    assert found["dark"] == ["circle/night.png"]
    assert {"path": "circle/long.png", "width": 200, "height": 40} in found["odd_sizes"]
    assert {
        "paths": ["circle/copy.png", "cross/cross-000.png"],
        "kind": "exact",
        "across_splits": False,
        "across_labels": True,
    } in found["copies"]
    assert ["cross/cross-001.jpg", "cross/turned.png"] in [one["paths"] for one in found["copies"]]


def test_no_such_folder_gives_2(tmp_path):
    assert check(tmp_path / "none")[0] == 2


def clusters():
    """Two clouds of 30 points; the first one of each has the other's label."""
    points = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    points[30:, 0] += 12
    labels = np.repeat([0, 1], 30)
    labels[[0, 30]] = [1, 0]
    return points, labels, [f"{i}" for i in range(60)]


def test_the_worst_labels_are_those_that_were_swapped():
    points, labels, paths = clusters()
    found, reason = suspects_of(points, labels, paths, ("a", "b"))
    assert ({one.path for one in found}, reason) == ({"0", "30"}, "")
    assert {(one.label, one.suggested) for one in found} == {("b", "a"), ("a", "b")}


def test_scores_come_from_a_model_that_has_not_seen_the_photo():
    points, labels, _ = clusters()
    assert out_of_fold_scores(points, labels)[0].argmax() == 0  # not its own label, 1


def test_without_cleanlab_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    points, labels, paths = clusters()
    assert suspects_of(points, labels, paths, ("a", "b")) == (
        (),
        "Labels were not checked: that takes cleanlab, `pip install kerasft[check]`.",
    )


def test_a_photo_far_from_all_others_is_an_outlier():
    points, _, paths = clusters()
    points[7] = 50
    assert outliers_of(points, paths)[0].path == "7"
