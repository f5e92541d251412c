import logging

import numpy as np
import pytest
from drawing import draw_photos

from kerasft.config.fields import Data
from kerasft.data import scan
from kerasft.data.known import Move, find_moves, relabelled, warn_about_moves
from kerasft.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """Six photos in two classes, all of which are for testing in `opened`."""
    return draw_photos(tmp_path / "photos", classes=("cat", "dog"), per_class=3)


@pytest.fixture
def opened(tmp_path, photos):
    """A function that opens the run's photos as they lie now."""
    found = scan.scan_for_model(Data(source=photos), ("cat", "dog"))
    found.splits[:] = "test"
    scan.write_splits(found, tmp_path / "splits.csv")
    scan.write_classes(found, tmp_path / "classes.txt")
    files = tmp_path / "splits.csv", tmp_path / "classes.txt"
    return lambda source=photos: scan.open_source(*files, Data(source=source))


def test_a_photo_that_stays_in_its_class_is_no_move_whatever_its_name(photos, opened):
    (photos / "cat" / "cat-000.png").rename(photos / "cat" / "renamed.png")
    assert find_moves(opened(), "test") == []


def test_a_photo_is_found_by_its_contents_in_its_new_class(photos, opened):
    (photos / "cat" / "cat-001.jpg").rename(photos / "dog" / "other name.jpg")
    assert find_moves(opened(), "test") == [Move(1, "cat", "dog")]
    assert find_moves(opened(), "train") == []


def test_of_two_copies_the_one_in_the_old_class_counts(photos, opened):
    first = (photos / "cat" / "cat-000.png").rename(photos / "cat" / "a.png")
    (photos / "dog" / "z.png").write_bytes(first.read_bytes())
    assert find_moves(opened(), "test") == []


def test_a_label_that_was_edited_in_the_table_is_a_move(photos, opened):
    table = photos / "labels.csv"
    rows = [f"{path.relative_to(photos)},dog\n" for path in sorted(photos.rglob("*-00[0-9].*"))]
    table.write_text("path,label\n" + "".join(rows[1:]))  # a photo without a row has no new class
    assert find_moves(opened(table), "test") == [Move(1, "cat", "dog"), Move(2, "cat", "dog")]


def test_the_warning_names_five_photos_with_old_and_new_class(photos, opened, caplog):
    for path in sorted(photos.glob("*/*")):
        path.rename(photos / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    warn_about_moves("runs/pets", opened(), "test")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        "runs/pets: 6 photos of the test split now lie in another class than when the run was "
        "made:\n"
        "  dog/cat-000.png (cat, now dog)\n"
        "  dog/cat-001.jpg (cat, now dog)\n"
        "  dog/cat-002.png (cat, now dog)\n"
        "  cat/dog-000.png (dog, now cat)\n"
        "  cat/dog-001.jpg (dog, now cat)\n"
        "  and 1 more\n"
        "  Measured by the old class. Pass `relabel=True` to measure by the present one."
    )


def test_a_run_that_trains_on_names_the_photos_of_all_splits_that_it_uses(photos, opened, caplog):
    files = sorted(photos.glob("*/*"))
    for path in files[:1] + files[3:4]:
        path.rename(photos / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    found = opened()
    found.splits[:] = ["validation", "test", "test", "train", "unused", "unused"]
    warn_about_moves("runs/pets", found)
    assert caplog.messages[-1] == (
        "runs/pets: 2 photos now lie in another class than when the run was made:\n"
        "  dog/cat-000.png (cat, now dog)\n"
        "  cat/dog-000.png (dog, now cat)\n"
        "  Trained by the old class, as before. For the present one, start a new run."
    )
    found.splits[0] = "unused"
    warn_about_moves("runs/pets", found)
    assert caplog.messages[-1].startswith("runs/pets: 1 photo now lies in another class")


def test_photos_in_a_class_that_the_run_does_not_know_leave_the_split(photos, opened, caplog):
    (photos / "bird").mkdir()
    (photos / "cat" / "cat-000.png").rename(photos / "bird" / "cat-000.png")
    (photos / "dog" / "dog-002.png").rename(photos / "cat" / "dog-002.png")
    warn_about_moves("runs/pets", opened(), "test")
    assert caplog.messages[-1].endswith("present one. The run does not know bird.")
    before = opened()
    found = relabelled("runs/pets", before, "test")
    assert caplog.messages[-1] == (
        "runs/pets: left out 1 photo of the test split, because the run does not know bird:\n"
        "  bird/cat-000.png (cat, now bird)"
    )
    assert found.indices("test").tolist() == [1, 2, 3, 4, 5]
    assert found.labels[1:].tolist() == [0, 0, 1, 1, 0]
    assert before.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.all(before.splits == "test")


def test_a_source_that_tells_no_classes_is_refused_only_where_they_are_needed(
    photos, opened, caplog
):
    (photos / "labels.csv").write_text("path,label\n")
    found = opened(photos / "labels.csv")
    (photos / "labels.csv").unlink()
    caplog.set_level(logging.INFO)
    warn_about_moves("runs/pets", found, "test")
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    with pytest.raises(UserError, match=r"labels\.csv: no such file"):
        relabelled("runs/pets", found, "test")


def test_a_folder_without_any_class_of_the_run_is_another_layout(photos, opened, caplog):
    around = photos.parent / "around"
    (around / "more").mkdir(parents=True)
    (around / "more/1.jpg").touch()
    photos.rename(around / "photos")
    warn_about_moves("runs/pets", opened(around), "test")
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]
    with pytest.raises(UserError, match=r"none of the run's classes. Expected some of: cat, dog\."):
        relabelled("runs/pets", opened(around), "test")
