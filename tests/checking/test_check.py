"""`check` says what is wrong with photos, and changes nothing."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from drawing import draw_photos
from html_page import Page
from PIL import Image, ImageFilter

from kerasft.checking.check import check_photos
from kerasft.checking.features import out_of_fold_scores, outliers_of, suspects_of
from kerasft.cli.main import main


@pytest.fixture
def photos(tmp_path):
    return draw_photos(tmp_path / "photos", per_class=12)


pytestmark = pytest.mark.usefixtures("tiny_backbone")
TINY = ("--backbone", "Tiny", "--weights", "none", "--image-size", "32")
SAMPLE = ("--weights", "sample")  # for tests of suspects; the others need no features


def check(photos, *options, net=TINY):
    done = CliRunner().invoke(main, ["check", str(photos), *net, *options])
    return done.exit_code, done.stdout


def test_photos_that_train_takes_give_0_and_a_label_that_is_wrong_is_suspected(photos):
    (photos / "circle/circle-003.jpg").rename(photos / "stripes/wrong.jpg")
    status, text = check(photos, "--json", net=SAMPLE)
    found = json.loads(text)
    assert (status, found["refused"], found["left_out"]) == (0, "", "")
    assert (found["files"], found["unreadable"], found["converted"]) == (36, [], [])
    assert found["classes"] == {"circle": 11, "cross": 12, "stripes": 13}
    worst = found["label_suspects"][0]
    assert (worst["path"], worst["label"]) == ("stripes/wrong.jpg", "stripes")
    assert worst["suggested"] == "circle"


def test_what_train_refuses_gives_1_and_is_said(photos):
    (photos / "cross/broken.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "circle/circle-003.jpg").rename(photos / "stripes/wrong.jpg")
    status, text = check(photos, net=SAMPLE)
    assert status == 1
    assert "  stripes/wrong.jpg: stripes, or rather circle?" in text  # labels of the good photos
    assert "Cannot be used (1):\n  cross/broken.jpg: is truncated" in text
    assert "`kerasft train` refuses these photos:" in text
    assert "Move them away, or pass --set data.bad_images=skip to continue without them." in text


def test_a_set_without_a_readable_file_says_so(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    status, text = check(tmp_path)
    assert (status, text.split("\n")[0]) == (1, "2 files: none can be used")


def test_what_is_plain_depends_on_the_background(photos):
    icon = np.zeros((40, 40, 4), np.uint8)  # black; the shape is in the transparency alone
    icon[10:30, 10:30, 3] = 255
    Image.fromarray(icon).save(photos / "cross/icon.png")
    for background, plain in (("white", ()), ("black", ("cross/icon.png",))):
        flags = {"data.source": str(photos), "data.background": background}
        net = {"model.backbone": "Tiny", "model.weights": "none", "model.image_size": 32}
        assert check_photos({**flags, **net}).plain == plain


def test_an_entry_that_is_too_long_takes_two_lines(photos):
    folder = photos / "cross" / ("a long name " * 6).strip()
    folder.mkdir()
    shutil.copy(photos / "cross/cross-000.png", folder / "copy.png")
    _, text = check(photos)
    entry = f"  cross/{folder.name}/copy.png,\n    cross/cross-000.png\n"
    assert f"Equal pictures (1):\n{entry}" in text


def test_plain_dark_and_odd_photos_and_copies_are_listed(photos):
    shutil.copy(photos / "cross/cross-000.png", photos / "circle/copy.png")
    picture = Image.open(photos / "cross/cross-001.jpg")
    picture.transpose(Image.Transpose.ROTATE_90).save(photos / "cross/turned.png")
    Image.new("RGB", (40, 40), (90, 20, 20)).save(photos / "cross/plain.png")
    Image.open(photos / "circle/circle-000.png").point(lambda v: v // 20).save(
        photos / "circle/night.png"
    )
    Image.open(photos / "circle/circle-002.png").resize((200, 40)).save(photos / "circle/long.png")
    Image.open(photos / "cross/cross-002.png").filter(ImageFilter.GaussianBlur(8)).save(
        photos / "cross/blurred.png"
    )
    _, text = check(photos, "--json")
    found = json.loads(text)
    assert found["plain"] == ["cross/plain.png"]
    assert found["blurred"] == ["cross/blurred.png"]
    assert found["dark"] == ["circle/night.png"]
    assert {"path": "circle/long.png", "width": 200, "height": 40} in found["odd_sizes"]
    assert {
        "paths": ["circle/copy.png", "cross/cross-000.png"],
        "kind": "exact",
        "across_splits": False,
        "across_labels": True,
    } in found["copies"]
    assert ["cross/cross-001.jpg", "cross/turned.png"] in [one["paths"] for one in found["copies"]]


def test_copies_are_listed_however_many(photos):
    one = Image.open(photos / "cross/cross-001.jpg")
    names = [f"cross/again-{number:02}.png" for number in range(24)]
    names.insert(1, "cross/again-00_flip.png")  # a group of its own by its name
    for number, name in enumerate(names):  # more than 20, and than 5% of all
        one.point(lambda v, more=number: min(v + more, 255)).save(photos / name)
    status, text = check(photos, "--json")
    groups = [one["paths"] for one in json.loads(text)["copies"] if one["kind"] == "near"]
    assert sorted([*names, "cross/cross-001.jpg"]) in groups
    assert sum("cross/again-00.png" in group for group in groups) == 1
    assert status == 0  # `train` takes them, with a warning


def test_copies_too_many_to_be_divided_into_groups_are_one_group(photos, monkeypatch):
    monkeypatch.setattr("kerasft.data.near.MOST_PAIRS", 1)
    for name in ("again", "more"):
        Image.open(photos / "cross/cross-001.jpg").save(photos / f"cross/{name}.jpg", quality=60)
    _, text = check(photos, "--json")
    near = [one["paths"] for one in json.loads(text)["copies"] if one["kind"] == "near"]
    assert near == [["cross/again.jpg", "cross/cross-001.jpg", "cross/more.jpg"]]


def test_copies_across_splits_are_marked(tmp_path):
    draw_photos(tmp_path / "photos/train")
    draw_photos(tmp_path / "photos/test", seed=1)
    shutil.copy(
        tmp_path / "photos/train/cross/cross-000.png", tmp_path / "photos/test/cross/same.png"
    )
    _, text = check(tmp_path / "photos", "--json")
    assert {
        "paths": ["test/cross/same.png", "train/cross/cross-000.png"],
        "kind": "exact",
        "across_splits": True,
        "across_labels": False,
    } in json.loads(text)["copies"]


def test_a_class_that_is_too_small_gives_1(photos):
    for photo in sorted((photos / "cross").iterdir())[2:]:
        photo.unlink()
    status, text = check(photos, "--json")
    found = json.loads(text)
    assert status == 1
    assert "cross: 2 images" in found["refused"]
    assert found["classes"] == {"circle": 12, "cross": 2, "stripes": 12}


def test_suspects_dark_photos_and_copies_alone_give_0(photos):
    Image.open(photos / "circle/circle-000.png").point(lambda v: v // 20).save(
        photos / "circle/night.png"
    )
    (photos / "circle/circle-003.jpg").rename(photos / "stripes/wrong.jpg")
    shutil.copy(photos / "cross/cross-000.png", photos / "cross/copy.png")
    status, text = check(photos)
    assert status == 0
    assert text.endswith("`kerasft train` takes these photos.\n")


def test_without_weights_the_photos_are_checked_and_nothing_is_downloaded(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr("kerasft.checking.features.models_folder", lambda: tmp_path / "none")
    monkeypatch.setattr("keras.utils.get_file", lambda *_, **__: pytest.fail("downloads"))
    done = CliRunner().invoke(main, ["check", str(photos), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["refused"]) == (0, "")
    assert found["left_out"].startswith("Labels were not checked: there is no mobilenet_v2_weights")


@pytest.mark.parametrize("option", [("--backbone", "MobileNetV9"), ("--image-size", "8")])
def test_an_option_that_is_wrong_gives_2(photos, option):
    assert check(photos, *option)[0] == 2


def test_a_line_that_all_looks_at_the_photos_would_show_is_shown_once(photos):
    done = CliRunner().invoke(main, ["check", str(photos), *TINY])
    assert done.stderr.count("36 images read") == 1


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


def test_a_page_shows_what_was_found_with_pictures(photos, tmp_path):
    (photos / "circle/circle-003.jpg").rename(photos / "stripes/wrong.jpg")
    shutil.copy(photos / "cross/cross-000.png", photos / "cross/again.png")
    to = tmp_path / "photos.html"
    status, text = check(photos, "--html", str(to), net=SAMPLE)
    assert (status, text.splitlines()[-1]) == (0, f"With pictures: {to}")
    page = Page(to)
    assert page.unclosed == [] and page.from_elsewhere() == []
    assert "37 files in 3 classes: kerasft train takes these photos." in page.words
    assert "stripes, or rather circle? Quality" in page.words
    assert "Equal pixels, whatever the names of the files. 1 group." in page.words
    beside = page.source.split('class="side-by-side"')[1]
    assert re.findall(r'title="([^"]*)"', beside)[:2] == ["cross/again.png", "cross/cross-000.png"]
    assert len(page.images) >= 3


def test_a_page_in_no_folder_is_refused_before_the_photos_are_read(photos):
    done = CliRunner().invoke(main, ["check", str(photos), "--html", "absent/a.html"])
    assert done.exit_code == 2
    assert "--html: expected a file in a folder that exists, got 'absent/a.html'." in done.stderr
