"""`check --fix-to` copies what can be used, with a table, and leaves the originals alone."""

import csv
import json
import shutil

import pytest
from click.testing import CliRunner
from drawing import draw_photos
from PIL import Image

from kerasft.checking.clean import _group_names
from kerasft.checking.copies import CopyGroup
from kerasft.cli.main import main
from kerasft.config.load import load_config
from kerasft.progress import silent
from kerasft.sources.find import list_photos
from kerasft.sources.photos import Photo

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")
TINY = ("--backbone", "Tiny", "--weights", "none", "--image-size", "32")


@pytest.fixture
def photos(tmp_path):
    return draw_photos(tmp_path / "photos")


def fix(photos, to, *options):
    command = ["check", str(photos), *TINY, "--fix-to", str(to), *options]
    return CliRunner().invoke(main, command)


def rows(folder):
    with (folder / "photos.csv").open(newline="") as table:
        return {row["path"]: row for row in csv.DictReader(table)}


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_copy_has_what_can_be_used_and_train_takes_it(photos, tmp_path):
    (photos / "cross/broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.open(photos / "circle/circle-000.png").save(photos / "circle/scan.tif")
    (photos / "circle/circle-000.png").unlink()
    Image.open(photos / "stripes/stripes-003.jpg").transpose(Image.Transpose.ROTATE_90).save(
        photos / "stripes/turned.png"
    )
    before = contents(photos)
    done = fix(photos, tmp_path / "clean", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1  # for the photos as they are
    assert found["converted"] == ["circle/scan.tif"]
    assert found["clean"] == {
        "folder": str(tmp_path / "clean"),
        "photos": 37,
        "converted": 1,
        "left_out": 1,
        "groups": 1,
        "refused": "",
    }
    assert contents(photos) == before
    copy = contents(tmp_path / "clean")
    assert copy["cross/cross-001.jpg"] == before["cross/cross-001.jpg"]
    assert set(copy) - set(before) == {"photos.csv", "circle/scan.tif.png"}
    assert set(before) - set(copy) == {"cross/broken.jpg", "circle/scan.tif"}
    with Image.open(tmp_path / "clean/circle/scan.tif.png") as image:
        assert (image.format, image.size) == ("PNG", (48, 40))
    table = rows(tmp_path / "clean")
    assert table["circle/scan.tif.png"] == {
        "path": "circle/scan.tif.png",
        "label": "circle",
        "split": "",
        "group": "",
    }
    together = {path for path, row in table.items() if row["group"]}
    assert together == {"stripes/stripes-003.jpg", "stripes/turned.png"}
    listed = list_photos(
        load_config(None, flags={"data.source": str(tmp_path / "clean/photos.csv")}).data, silent
    )[1]
    assert {photo.path: photo.class_name for photo in listed.photos} == {
        path: row["label"] for path, row in table.items()
    }


def test_splits_stay_and_copies_across_them_do_not_stop_train(photos, tmp_path):
    draw_photos(tmp_path / "split/train")
    draw_photos(tmp_path / "split/test", seed=1)
    shutil.copy(
        tmp_path / "split/train/cross/cross-000.png", tmp_path / "split/test/cross/same.png"
    )
    found = json.loads(fix(tmp_path / "split", tmp_path / "clean", "--json").stdout)
    assert (found["clean"]["photos"], found["clean"]["refused"]) == (73, "")
    table = rows(tmp_path / "clean")
    assert table["test/cross/same.png"]["split"] == "test"
    assert table["train/cross/cross-000.png"]["split"] == "train"


def test_the_text_says_what_the_copy_has_and_what_comes_next(photos, tmp_path):
    (photos / "cross/broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = fix(photos, tmp_path / "clean")
    folder = tmp_path / "clean"
    assert f"Clean copy in {folder}: 36 photos, 1 left out\n" in done.stdout
    assert done.stdout.endswith(f"Next:\n  kerasft train --data {folder}/photos.csv\n")


@pytest.mark.parametrize("where", ["photos/clean", "photos", "full"])
def test_a_folder_that_holds_files_or_lies_among_the_photos_is_refused(photos, tmp_path, where):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    before = contents(tmp_path)
    done = fix(photos, tmp_path / where)
    assert (done.exit_code, contents(tmp_path)) == (2, before)


def test_what_train_says_of_the_copy_is_not_said_twice(photos, tmp_path):
    Image.new("RGB", (40, 40), (90, 20, 20)).save(photos / "cross/plain.png")
    done = fix(photos, tmp_path / "clean")
    assert done.stderr.count("plain colour") == 1


def test_a_copy_that_train_refuses_is_told(tmp_path):
    draw_photos(tmp_path / "photos", per_class=2)
    done = fix(tmp_path / "photos", tmp_path / "clean")
    assert done.exit_code == 1
    assert "Clean copy in " in done.stdout
    assert "`kerasft train` refuses the copy, too:" in done.stdout
    assert "Next:" not in done.stdout


def test_a_png_of_the_same_name_is_not_overwritten(photos, tmp_path):
    for name in ("scan.tif", "scan.tif.png"):
        Image.open(photos / "circle/circle-000.png").save(photos / "circle" / name)
    assert fix(photos, tmp_path / "clean").exit_code == 0
    copy = rows(tmp_path / "clean")
    assert {"circle/scan.tif.png", "circle/scan.tif-converted.png"} <= set(copy)
    groups = {row["group"] for path, row in copy.items() if "scan" in path or "circle-000" in path}
    assert len(groups) == 1 and "" not in groups


def test_nothing_is_left_behind_where_a_photo_cannot_be_copied(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("kerasft.checking.clean.TABLE", "none/photos.csv")
    assert fix(photos, tmp_path / "clean").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_groups_of_a_table_are_in_the_copy(photos, tmp_path):
    lines = [
        f"{path.relative_to(photos)},{path.parent.name},bird {path.stem[-1]}"
        for path in sorted(photos.rglob("*.*"))
    ]
    (photos / "labels.csv").write_text("path,label,group\n" + "\n".join(lines) + "\n")
    assert fix(photos / "labels.csv", tmp_path / "clean").exit_code == 0
    copy = rows(tmp_path / "clean")
    assert copy["cross/cross-001.jpg"]["group"] == "bird 1"
    assert copy["circle/circle-010.png"]["group"] == "bird 0"


def of_class(name, number, **more):
    return [Photo(f"{name}/{i:03}.png", name, **more) for i in range(number)]


def test_groups_of_the_source_keep_their_names_and_take_copies_in():
    photos = [*of_class("a", 4), Photo("a/x.png", "a", "", "p7"), Photo("a/y.png", "a", "", "p7")]
    names = _group_names(photos, [CopyGroup("near", [0, 4]), CopyGroup("exact", [1, 2])])
    assert names[0] == names[4] == names[5] == "p7"
    assert names[1] == names[2] != ""
    assert (names[3], names[1] == "p7") == ("", False)


def test_copies_in_two_splits_are_a_group_in_each():
    photos = [*of_class("a", 3, split="train"), *of_class("b", 3, split="test")]
    names = _group_names(photos, [CopyGroup("near", [0, 1, 3, 4])])
    assert names[0] == names[1] != names[3] == names[4]
    assert "" not in names[:2] + names[3:5]


def test_copies_that_are_most_of_a_class_have_no_group(caplog):
    photos = [*of_class("a", 30), *of_class("b", 4)]
    many, whole = CopyGroup("near", list(range(21))), CopyGroup("near", [30, 31, 32, 33])
    with caplog.at_level("WARNING"):
        assert set(_group_names(photos, [many, whole])) == {""}
    assert "1 group of near copies is" in caplog.text
    assert "Copies of b have no group" in caplog.text


def test_photos_outside_of_training_leave_no_groups_to_divide(caplog):
    of_test = [Photo(f"test/{i}.png", "a", "test") for i in range(3)]
    photos = [*of_class("a", 2, split="train"), *of_test]  # a validation split is to be drawn
    with caplog.at_level("WARNING"):
        assert set(_group_names(photos, [CopyGroup("exact", [0, 1])])) == {""}
    assert "Copies of a have no group" in caplog.text
    free = [*of_class("a", 3, split="train"), *of_test]
    assert _group_names(free, [CopyGroup("exact", [0, 1])])[:3] == ["copies-1", "copies-1", ""]
