import hashlib
import logging
import os
import shutil

import numpy as np
import pytest
from drawing import draw_photos
from photo_files import message_of
from PIL import Image

from kerasft.config.fields import Data
from kerasft.data.scan import open_source, scan_for_model, scan_source, write_splits
from kerasft.data.source import Source
from kerasft.errors import UserError


def scan(root, seed=0, **settings):
    return scan_source(Data(source=root, **settings), seed=seed)


@pytest.fixture
def run(tmp_path, photos):
    """A scanned source with its two files, and the folder of photos."""
    source = scan(photos)
    write_splits(source, tmp_path / "splits.csv")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in source.class_names))
    return source, tmp_path / "splits.csv", tmp_path / "classes.txt", photos


def test_a_folder_per_class_is_split_class_by_class(photos):
    source = scan(photos)
    assert source.class_names == ("circle", "cross", "stripes")
    assert source.paths[:2] == ("circle/circle-000.png", "circle/circle-001.jpg")
    assert list(source.paths) == sorted(source.paths)
    assert source.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert source.counts() == {
        "circle": {"train": 8, "validation": 2, "test": 2},
        "cross": {"train": 8, "validation": 2, "test": 2},
        "stripes": {"train": 8, "validation": 2, "test": 2},
    }
    assert len(set(source.digests)) == 36
    assert len(source.indices("test")) == 6


def test_the_seed_alone_decides_the_split(photos):
    assert scan(photos).splits.tolist() == scan(photos).splits.tolist()
    assert scan(photos).splits.tolist() != scan(photos, seed=1).splits.tolist()


def test_the_order_in_which_a_folder_is_listed_does_not_matter(photos, monkeypatch):
    before = scan(photos)
    listed = os.scandir

    class Backwards:
        def __init__(self, folder):
            self.entries = list(listed(folder))[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("kerasft.sources.folders.os.scandir", Backwards)
    after = scan(photos)
    assert after.paths == before.paths
    assert after.splits.tolist() == before.splits.tolist()


def test_existing_splits_are_respected_and_the_missing_one_is_carved(tmp_path):
    draw_photos(tmp_path / "train", per_class=10)
    draw_photos(tmp_path / "val", per_class=3, seed=1)
    source = scan(tmp_path)
    assert source.counts()["circle"] == {"train": 8, "validation": 3, "test": 2}
    validation = [source.paths[p] for p in source.indices("validation")]
    assert all(path.startswith("val/") for path in validation)
    assert all(source.paths[p].startswith("train/") for p in source.indices("test"))
    assert scan(tmp_path, test=0.0).counts()["circle"] == {"train": 10, "validation": 3, "test": 0}


def test_all_three_folders_leave_nothing_to_carve(tmp_path):
    for seed, split in enumerate(["train", "valid", "test"]):
        draw_photos(tmp_path / split, per_class=1, seed=seed)
    assert scan(tmp_path).counts()["cross"] == {"train": 1, "validation": 1, "test": 1}


def test_class_names_come_from_the_training_folder(tmp_path):
    draw_photos(tmp_path / "train", per_class=4)
    draw_photos(tmp_path / "test", classes=["Circle", "square"], per_class=1, seed=1)
    message = message_of(scan, tmp_path)
    assert "2 of the classes have no training images, only images in other" in message
    assert "\n  Circle, in test. Did you mean 'circle'?\n  square, in test." in message


def test_odd_names_survive_the_way_to_disk_and_back(tmp_path):
    classes = ["çat, big", " 'x' & \"y\"", "日本 #1%20"]
    root = draw_photos(tmp_path / "my photos ü", classes=classes, per_class=4)
    (root / classes[0] / "sub folder").mkdir()
    shutil.move(
        root / classes[0] / f"{classes[0]}-000.png", root / classes[0] / "sub folder/\u202f.png"
    )
    source = scan(root)
    write_splits(source, tmp_path / "splits.csv")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in source.class_names))
    opened = open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", Data(source=root))
    assert opened.class_names == (" 'x' & \"y\"", "çat, big", "日本 #1%20")
    assert opened.paths == source.paths
    assert "çat, big/sub folder/\u202f.png" in opened.paths


def test_all_bad_files_are_named_at_once(photos):
    (photos / "circle/notes.txt").write_text("shopping list")
    (photos / "cross/empty.jpg").touch()
    message = message_of(scan, photos)
    assert message.startswith(f"{photos}: 2 files can't be used:\n  circle/notes.txt: is ")
    assert "\n  cross/empty.jpg: is empty\n" in message
    assert message.endswith("pass `data.bad_images=skip` to continue without them.")


def test_of_many_bad_files_twenty_are_named(photos):
    for number in range(23):
        (photos / f"circle/bad{number:02}.jpg").touch()
    message = message_of(scan, photos)
    assert "circle/bad19.jpg: is empty\n  and 3 more\n" in message
    assert "bad20" not in message


def test_bad_files_are_skipped_and_recorded_if_asked(photos, caplog):
    (photos / "circle/bell\a.jpg").touch()
    (photos / "cross/empty.jpg").touch()
    source = scan(photos, bad_images="skip")
    assert source.skipped == (
        (
            "circle/bell\\x07.jpg",
            "has a name with control characters, or one that is not UTF-8; rename it",
        ),
        ("cross/empty.jpg", "is empty"),
    )
    assert len(source.paths) == 36
    assert "left out 2 files:" in caplog.text


def test_files_of_one_plain_colour_are_named(photos, caplog):
    scan(photos)
    assert caplog.messages == []
    for number in range(7):
        white = Image.new("RGB", (50 + number, 40), "white")
        white.save(photos / f"circle/white{number}.png")
    scan(photos)
    assert caplog.messages == [
        f"{photos}: 7 files are one plain colour: circle/white0.png, circle/white1.png, "
        "circle/white2.png, circle/white3.png, circle/white4.png and 2 more"
    ]


def test_one_class_is_refused_and_a_folder_around_the_classes_is_entered(tmp_path):
    draw_photos(tmp_path / "a", classes=["cat"])
    assert message_of(scan, tmp_path / "a") == (
        f"{tmp_path / 'a'}: holds one class, cat. Expected at least two."
    )
    draw_photos(tmp_path / "b" / "flowers")
    source = scan(tmp_path / "b")
    assert source.class_names == ("circle", "cross", "stripes")
    assert source.paths[0] == "flowers/circle/circle-000.png"


def test_the_split_of_a_folder_of_classes_is_that_of_earlier_versions(tmp_path):
    for position, name in enumerate(["ant", "bee", "cow"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):  # BMP files, whose bytes no library chooses
            color = (20 * number, 80 * position, 7)
            Image.new("RGB", (8, 8), color).save(tmp_path / "photos" / name / f"{number}.bmp")
    write_splits(scan(tmp_path / "photos"), tmp_path / "splits.csv")
    lines = (tmp_path / "splits.csv").read_text().splitlines()
    before = "".join(line.rpartition(",")[0] + "\n" for line in lines)  # without the column near
    written = hashlib.blake2b(before.encode(), digest_size=8).hexdigest()
    assert (
        written == "b31f8e4386e61d5d"
    )  # computed by 67d85b0, before layouts and tables were told apart


@pytest.fixture
def uneven(photos):
    """Drawn photos, two classes of two photos and an empty one."""
    draw_photos(photos, classes=["rose", "tulip"], per_class=2, seed=5)
    (photos / "empty").mkdir()
    return photos


def test_small_classes_are_named_at_once_with_the_ways_to_go_on(uneven):
    go_on = (
        "\n  `data.small_classes=leave_out` leaves these classes out, "
        "`data.small_classes=train_only` takes all of their images for training."
    )
    assert message_of(scan, uneven) == (
        f"{uneven}: too few images in 3 of 6 classes. Expected at least 3 in each, to be divided "
        "into training, validation, test:\n"
        "  empty: 0 images\n  rose: 2 images\n  tulip: 2 images" + go_on
    )
    assert message_of(scan, uneven, test=0.0) == (  # two photos suffice for two splits
        f"{uneven}: too few images in 1 of 6 classes. Expected at least 2 in each, to be divided "
        "into training, validation:\n  empty: 0 images" + go_on
    )


def test_small_classes_may_be_left_out(uneven, caplog):
    source = scan(uneven, small_classes="leave_out")
    assert source.class_names == ("circle", "cross", "stripes")
    assert (len(source.paths), sorted(set(source.labels.tolist()))) == (36, [0, 1, 2])
    assert source.splits.tolist() == scan_without(uneven).splits.tolist()
    assert caplog.messages == [
        f"{uneven}: left out 3 classes that are too small to be divided:\n"
        "  empty: 0 images\n  rose: 2 images\n  tulip: 2 images"
    ]


def scan_without(uneven):
    """The same photos without the small classes."""
    for name in ("rose", "tulip", "empty"):
        shutil.rmtree(uneven / name)
    return scan(uneven)


def test_small_classes_may_be_for_training_alone(uneven, caplog):
    source = scan(uneven, small_classes="train_only")
    each = {"train": 8, "validation": 2, "test": 2}
    alone = {"train": 2, "validation": 0, "test": 0}
    assert source.counts() == {
        **{"circle": each, "cross": each},
        **{"rose": alone, "stripes": each, "tulip": alone},
    }
    assert caplog.messages == [
        f"{uneven}: left out 1 class that is too small to be divided:\n  empty: 0 images",
        f"{uneven}: taken for training alone, and never measured, 2 classes that are too small to "
        "be divided:\n  rose: 2 images\n  tulip: 2 images",
    ]


def test_if_less_than_two_classes_are_left_there_is_nothing_to_train(tmp_path):
    draw_photos(tmp_path, classes=["cat"], per_class=4)
    draw_photos(tmp_path, classes=["x", "dog"], per_class=1)
    shutil.rmtree(tmp_path / "x")
    assert message_of(scan, tmp_path, small_classes="leave_out") == (
        f"{tmp_path}: too few classes are large enough: cat. Expected at least two."
    )


def test_a_validation_split_without_a_class_is_told(tmp_path, caplog):
    draw_photos(tmp_path / "train", per_class=6)
    draw_photos(tmp_path / "val", classes=["circle", "cross"], per_class=3, seed=1)
    scan(tmp_path)
    assert caplog.messages == [
        f"{tmp_path}: validation has no images of stripes: it does not show how well this class is "
        "recognized."
    ]


def test_names_of_classes_have_one_form_of_unicode_and_similar_ones_are_told(tmp_path, caplog):
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    draw_photos(tmp_path, classes=["Red Fox", decomposed, "red fox"], per_class=4)
    draw_photos(tmp_path, classes=[composed], per_class=4, seed=1)
    source = scan(tmp_path)
    assert source.class_names == ("Red Fox", composed, "red fox")
    assert source.counts()[composed] == {"train": 6, "validation": 1, "test": 1}
    assert caplog.messages == [
        f"{tmp_path}: names of classes that differ in case or blanks only. If they mean the same, "
        "give them one name:\n  'Red Fox' and 'red fox'"
    ]
    of_old_model = scan_for_model(Data(source=tmp_path), ("red fox", decomposed, "Red Fox"))
    assert np.bincount(of_old_model.labels).tolist() == [4, 8, 4]


def test_copies_do_not_make_a_class_larger(photos):
    (photos / "rose").mkdir()
    for number in range(5):
        shutil.copy(photos / "circle/circle-000.png", photos / f"rose/{number}.png")
    message = message_of(scan, photos)
    assert "\n  rose: 5 images, of which 0 are distinct and in no other split" in message


def test_an_image_in_two_classes_is_told_and_kept_out_of_evaluation(photos, caplog):
    shutil.copy(photos / "circle/circle-003.jpg", photos / "cross/copy.jpg")
    source = scan(photos)
    assert "1 image in two classes at once. Keep each in one:" in caplog.text
    assert "circle/circle-003.jpg and cross/copy.jpg" in caplog.text
    both = [source.paths.index(path) for path in ("circle/circle-003.jpg", "cross/copy.jpg")]
    assert source.splits[both].tolist() == ["train", "train"]


def test_an_image_in_two_folders_of_splits_is_told(tmp_path, caplog):
    draw_photos(tmp_path / "train", per_class=4)
    draw_photos(tmp_path / "test", per_class=1)  # the same seed: the first image of each class
    scan(tmp_path)
    assert "3 images in two splits at once" in caplog.text


def test_a_folder_of_a_split_without_images_is_refused(tmp_path):
    draw_photos(tmp_path / "train", per_class=4)
    (tmp_path / "val/circle").mkdir(parents=True)
    assert message_of(scan, tmp_path) == (f"{tmp_path}: no images for validation. Expected some.")


def test_a_source_is_the_same_after_reopening(run):
    source, splits_csv, classes_txt, photos = run
    opened = open_source(splits_csv, classes_txt, Data(source=photos))
    assert opened.class_names == source.class_names
    assert opened.paths == source.paths
    assert opened.digests == source.digests
    np.testing.assert_array_equal(opened.labels, source.labels)
    np.testing.assert_array_equal(opened.splits, source.splits)
    assert opened.labels.dtype == np.int32


def test_writing_what_was_opened_gives_the_same_file_groups_included(run):
    _, splits_csv, classes_txt, photos = run
    splits_csv.write_text(splits_csv.read_text().replace(",,", ",person 7,"))
    before = splits_csv.read_bytes()
    opened = open_source(splits_csv, classes_txt, Data(source=photos))
    assert set(opened.groups) == {"person 7"}
    write_splits(opened, splits_csv)
    assert splits_csv.read_bytes() == before


def test_photos_that_were_moved_keep_position_and_split(run, caplog):
    source, splits_csv, classes_txt, photos = run
    caplog.set_level(logging.INFO)
    (photos / "circle").rename(photos / "zzz")
    moved = photos.rename(photos.with_name("moved"))
    opened = open_source(splits_csv, classes_txt, Data(source=moved))
    assert opened.paths[0] == "zzz/circle-000.png"
    assert opened.splits.tolist() == source.splits.tolist()
    assert opened.class_names == ("circle", "cross", "stripes")
    assert "found 12 images under other names" in caplog.text


def test_missing_photos_are_named(run):
    _, splits_csv, classes_txt, photos = run
    shutil.rmtree(photos / "circle")
    message = message_of(open_source, splits_csv, classes_txt, Data(source=photos))
    assert message.startswith(f"{photos}: 12 of the 36 images of the run are missing or")
    assert "  circle/circle-009.jpg: is missing\n  and 2 more\n" in message
    assert "pass `data=FOLDER`" in message


def test_a_folder_that_went_away_is_a_wrong_path(run):
    _, splits_csv, classes_txt, photos = run
    with pytest.raises(UserError, match="no such folder") as error:
        open_source(splits_csv, classes_txt, Data(source=photos / "gone"))
    assert error.value.exit_code == 2


def test_a_folder_can_be_opened_with_the_classes_of_a_model(photos):
    source = scan_for_model(Data(source=photos), ("stripes", "circle", "other", "cross"))
    assert isinstance(source, Source)
    assert source.class_names == ("stripes", "circle", "other", "cross")
    assert np.bincount(source.labels[source.indices("all")]).tolist() == [12, 12, 0, 12]
    assert source.labels[0] == 1


def test_classes_that_the_model_does_not_know_are_named(photos):
    assert message_of(scan_for_model, Data(source=photos), ("circles", "cross")) == (
        f"{photos}: the model does not know 2 of the classes:\n"
        "  circle. Did you mean 'circles'?\n"
        "  stripes.\n"
        "  Expected some of: circles, cross."
    )


def write_table(folder, text):
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_groups_of_a_table_stay_together_and_are_kept(tmp_path, photos):
    rows = "".join(
        f"{path.relative_to(photos)},{path.parent.name},person {int(path.stem[-3:]) % 6}\n"
        for path in photos.rglob("*-*")
    )
    table = write_table(photos, "path,label,group\n" + rows)
    source = scan(table)
    each = {"train": 8, "validation": 2, "test": 2}
    assert source.counts() == {"circle": each, "cross": each, "stripes": each}
    sides = {(group, split) for group, split in zip(source.groups, source.splits, strict=True)}
    assert len(sides) == 6
    write_splits(source, tmp_path / "splits.csv")
    (tmp_path / "classes.txt").write_text("circle\ncross\nstripes\n")
    opened = open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", Data(source=table))
    assert (opened.paths, opened.groups) == (source.paths, source.groups)
    table.unlink()  # the run has what it needs of it
    open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", Data(source=table))


def test_splits_of_a_table_are_respected_and_bad_files_of_it_told(photos):
    (photos / "cross/empty.jpg").touch()
    rows = "".join(
        f"{path.relative_to(photos)},{path.parent.name},{'test' if '-00' in path.stem else 'train'}"
        "\n"
        for path in sorted(photos.rglob("*.*"))
    )
    table = write_table(photos, "path,label,split\n" + rows)
    assert message_of(scan, table).startswith(
        f"{table}: 1 file can't be used:\n  cross/empty.jpg: is empty\n"
    )
    assert scan(table, bad_images="skip", validation=0.5).counts()["cross"] == {
        "train": 1,
        "validation": 1,
        "test": 10,
    }


def test_files_of_a_table_that_are_missing_can_be_left_out(photos):
    rows = "".join(f"{p.relative_to(photos)},{p.parent.name}\n" for p in photos.rglob("*-*"))
    table = write_table(photos, f"path,label\n{rows}gone.jpg,cross\n")
    assert "line 38: gone.jpg is missing" in message_of(scan, table)
    source = scan(table, bad_images="skip")
    assert source.skipped == (("gone.jpg", "cannot be read: No such file or directory"),)
    assert len(source.paths) == 36


def paths_of(source, split):
    return {source.paths[position] for position in source.indices(split)}


def test_a_share_of_the_training_images_leaves_validation_and_test_as_they_are(photos, caplog):
    caplog.set_level(logging.INFO)
    whole, half, quarter = (scan(photos, fraction=f) for f in (1.0, 0.5, 0.25))
    assert half.counts()["cross"] == {"train": 4, "validation": 2, "test": 2}
    assert quarter.counts()["cross"] == {"train": 2, "validation": 2, "test": 2}
    for split in ("validation", "test"):
        assert paths_of(whole, split) == paths_of(half, split) == paths_of(quarter, split)
    assert paths_of(quarter, "train") < paths_of(half, "train") < paths_of(whole, "train")
    assert paths_of(half, "unused") == paths_of(whole, "train") - paths_of(half, "train")
    assert half.paths == whole.paths  # what is stored of an image depends on its position
    assert "data.fraction = 0.5: 12 of 24 training images are used." in caplog.text


def test_a_share_of_given_splits_is_taken_from_train_alone(tmp_path):
    for seed, split in enumerate(["train", "val", "test"]):
        draw_photos(tmp_path / split, per_class=4, seed=seed)
    source = scan(tmp_path, fraction=0.5)
    assert source.counts()["circle"] == {"train": 2, "validation": 4, "test": 4}
    assert all(path.startswith("train/") for path in paths_of(source, "unused"))


def test_a_share_is_kept_in_the_run_and_the_rest_of_the_photos_may_go(tmp_path, photos):
    source = scan(photos, fraction=0.5)
    write_splits(source, tmp_path / "splits.csv")
    (tmp_path / "classes.txt").write_text("circle\ncross\nstripes\n")
    files = tmp_path / "splits.csv", tmp_path / "classes.txt"
    for path in paths_of(source, "unused"):
        (photos / path).unlink()
    (photos / "circle").rename(photos / "zzz")
    moved = photos.rename(photos.with_name("moved"))
    opened = open_source(*files, Data(source=moved))  # what data says of shares counts no more
    assert opened.splits.tolist() == source.splits.tolist()
    assert opened.digests == source.digests
    renamed = {path.replace("circle/", "zzz/") for path in paths_of(source, "train")}
    assert paths_of(opened, "train") == renamed
    (moved / sorted(renamed)[0]).unlink()
    assert "1 of the 24 images of the run is missing or" in message_of(
        open_source, *files, Data(source=moved)
    )


def test_groups_of_a_table_are_left_whole(photos):
    rows = "".join(
        f"{path.relative_to(photos)},{path.parent.name},person {int(path.stem[-3:]) % 6}\n"
        for path in photos.rglob("*-*")
    )
    source = scan(write_table(photos, "path,label,group\n" + rows), fraction=0.5)
    sides = {(group, split) for group, split in zip(source.groups, source.splits, strict=True)}
    assert sorted(split for _, split in sides) == [
        "test", "train", "train", "unused", "unused", "validation"
    ]  # fmt: skip


def test_real_photos_are_split_by_share(assets):
    counts = scan(assets / "datasets" / "ants_bees").counts()
    assert counts == {
        "ants": {"train": 135, "validation": 29, "test": 29},
        "bees": {"train": 142, "validation": 31, "test": 31},
    }
