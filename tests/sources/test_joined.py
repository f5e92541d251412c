"""Several places of photos are one source: `data.added`."""

import logging
import shutil

import pytest
from drawing import draw_photos
from photo_files import message_of
from tiny_run import presplit

from kerasft.config.fields import Data
from kerasft.config.load import load_config, to_toml
from kerasft.data.scan import open_source, scan_source, write_classes, write_splits


def scan(photos, *added, **more):
    return scan_source(Data(source=str(photos), added=tuple(map(str, added)), **more), seed=0)


@pytest.fixture
def new(tmp_path):
    """Photos of a class that is there and of a new one, beside those of the source."""
    return draw_photos(tmp_path / "new", ("circle", "zebra"), per_class=8, seed=1)


def test_photos_of_all_places_are_split_together_and_named_from_the_folder_that_holds_them(
    photos, new
):
    source = scan(photos, new)
    assert source.class_names == ("circle", "cross", "stripes", "zebra")
    assert source.counts()["circle"] == {"train": 14, "validation": 3, "test": 3}
    assert source.counts()["zebra"] == {"train": 6, "validation": 1, "test": 1}
    assert source.root == photos.parent
    assert source.paths[0] == "new/circle/circle-000.png"
    assert source.paths[-1] == "photos/stripes/stripes-011.jpg"


def test_classes_are_mapped_over_all_places(photos, new):
    source = scan(photos, new, classes={"zebra": "stripes", "cross": ""})
    assert source.class_names == ("stripes", "circle")
    assert sum(source.counts()["stripes"].values()) == 20


def test_a_place_without_splits_is_for_training_where_the_source_has_splits(
    photos, new, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    divided = presplit(photos, tmp_path / "divided", swap_test=False)
    source = scan(divided, new, small_classes="train_only")
    assert source.counts()["circle"] == {"train": 14, "validation": 3, "test": 3}
    assert source.counts()["zebra"] == {"train": 8, "validation": 0, "test": 0}
    assert f"{new} has no splits: its photos are for training." in caplog.messages


def test_what_cannot_be_joined_is_refused(photos, new, tmp_path):
    divided = presplit(photos, tmp_path / "divided", swap_test=False)
    assert message_of(scan, new, divided) == (
        f"data.added: {divided} has splits of its own, and {new} has none. Add its photos without "
        "folders or columns of splits, so that they are split like the others."
    )
    shutil.copytree(new, photos / "cross" / "more")
    assert message_of(scan, photos, photos / "cross" / "more") == (
        f"data.added: 16 photos of {photos} + {photos}/cross/more are in two of these places, "
        "with other labels:\n"
        "  cross/more/circle/circle-000.png: cross and circle\n"
        "  cross/more/circle/circle-001.jpg: cross and circle\n"
        "  cross/more/circle/circle-002.png: cross and circle\n"
        "  cross/more/circle/circle-003.jpg: cross and circle\n"
        "  cross/more/circle/circle-004.png: cross and circle\n  and 11 more\n"
        "  Name places that do not hold each other, or give each photo one label."
    )
    assert message_of(scan, photos, tmp_path / "nowhere").startswith(f"{tmp_path}/nowhere: no such")


def test_a_photo_that_two_places_list_alike_is_taken_once(photos, new, tmp_path):
    once = scan(photos, new)
    again = scan(photos, new, new)
    assert (again.paths, again.labels.tolist()) == (once.paths, once.labels.tolist())


def test_the_config_of_a_run_names_the_places_from_its_folder(photos, new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, flags={"data.source": "photos", "data.added": ["new"]})
    assert config.data.added == (str(new),)
    (tmp_path / "run").mkdir()
    text = to_toml(config, tmp_path / "run")
    assert 'added = [\n    "../new",\n]' in text
    (tmp_path / "run" / "config.toml").write_text(text)
    assert load_config(tmp_path / "run" / "config.toml").data == config.data
    plain = to_toml(load_config(None, flags={"data.source": "photos"}), tmp_path)
    assert "added" not in plain
    with_one = load_config(None, sets=["data.added=new"], flags={"data.source": "photos"})
    assert with_one.data.added == (str(new),)


def test_photos_that_were_moved_are_found_in_the_folders_of_all_places(photos, new, tmp_path):
    data = Data(source=str(photos), added=(str(new),))
    write_splits(scan(photos, new), tmp_path / "splits.csv")
    write_classes(scan(photos, new), tmp_path / "classes.txt")
    (new / "zebra" / "zebra-000.png").rename(photos / "stripes" / "was-a-zebra.png")
    (photos / "cross" / "cross-000.png").rename(new / "circle" / "was-a-cross.png")
    shutil.copytree(photos, tmp_path / "elsewhere")  # is not searched
    found = open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", data)
    assert "photos/stripes/was-a-zebra.png" in found.paths
    assert "new/circle/was-a-cross.png" in found.paths
    (photos / "stripes" / "was-a-zebra.png").unlink()
    assert "1 of the 52 images of the run is missing" in message_of(
        open_source, tmp_path / "splits.csv", tmp_path / "classes.txt", data
    )
