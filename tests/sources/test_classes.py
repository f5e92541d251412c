"""Labels become classes by `data.classes`: renamed, joined, left out, in the order of the table."""

import logging
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_files import message_of

from kerasft.config.fields import Data
from kerasft.config.load import load_config, to_toml
from kerasft.data.known import Move, find_moves
from kerasft.data.scan import open_source, scan_for_model, scan_source, write_classes, write_splits
from kerasft.errors import UserError
from kerasft.sources.classes import mapped
from kerasft.sources.photos import Listing, Photo


def scan(photos, **classes):
    return scan_source(Data(source=str(photos), classes=classes), seed=0)


def test_labels_are_renamed_joined_and_left_out_and_a_line_says_so(photos, caplog):
    caplog.set_level(logging.INFO)
    shutil.copytree(photos / "cross", photos / "weeds")
    for path in (photos / "weeds").iterdir():
        path.write_bytes(path.read_bytes())
    source = scan(photos, circle="ring", weeds="", stripes="zebra", cross="ring")
    assert source.class_names == ("ring", "zebra")
    assert source.counts() == {
        "ring": {"train": 16, "validation": 4, "test": 4},
        "zebra": {"train": 8, "validation": 2, "test": 2},
    }
    assert not any(path.startswith("weeds") for path in source.paths)
    [line] = [one for one in caplog.messages if "data.classes" in one]
    assert line == (
        f"{photos}: classes by `data.classes`: ring holds circle, cross; stripes is called zebra; "
        "12 photos of weeds left out."
    )


def test_renamed_classes_keep_labels_and_splits_in_the_order_of_the_table(photos):
    before = scan(photos)
    named = scan(photos, circle="zero", cross="a", stripes="middle")
    assert named.class_names == ("zero", "a", "middle")
    assert named.labels.tolist() == before.labels.tolist()
    assert named.splits.tolist() == before.splits.tolist()
    assert scan(photos, stripes="a").class_names == ("a", "circle", "cross")  # the rest by name


def test_two_classes_can_change_places(photos):
    source = scan(photos, circle="cross", cross="circle")
    assert source.class_names == ("cross", "circle", "stripes")
    assert source.paths[0].startswith("circle/")
    assert source.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12


def test_names_that_look_the_same_are_the_same_label():
    listed = Listing.of([Photo("a.jpg", "gru\u0308n"), Photo("b.jpg", "blau")])  # as a Mac types it
    assert mapped(listed, {"gr\u00fcn": "farbe"}).classes == {"": ("farbe", "blau")}


@settings(deadline=None)
@given(st.permutations(list("abcdef")), st.lists(st.sampled_from("abcdef"), min_size=1))
def test_a_renaming_and_its_inverse_change_nothing(names, labels):
    listed = Listing.of([Photo(f"{i}.jpg", label) for i, label in enumerate(labels)])
    there = dict(zip("abcdef", names, strict=True))
    back = {name: label for label, name in sorted(there.items())}
    again = mapped(mapped(listed, there), back)
    assert (again.photos, again.classes) == (listed.photos, listed.classes)


def test_a_label_that_no_photo_has_and_a_single_class_are_refused(photos):
    message = message_of(scan, photos, circel="ring", dot="")
    assert message == (
        f"data.classes: {photos} has no photos of 2 labels in the table:\n"
        "  circel. Did you mean 'circle'?\n  dot.\n  It has circle, cross, stripes."
    )
    with pytest.raises(UserError, match="holds one class, ring"):
        scan(photos, circle="ring", cross="ring", stripes="")
    with pytest.raises(UserError, match=r"expected a name for 'a', on one line, got 'b\\nc'"):
        load_config(None, flags={"data.source": "x", "data.classes": {"a": "b\nc"}})


def test_the_config_of_a_run_keeps_the_table_and_names_none_if_there_is_none(tmp_path, photos):
    config = load_config(
        None, flags={"data.source": str(photos), "data.classes": {"circle": "a.b", "0": ""}}
    )
    (tmp_path / "config.toml").write_text(to_toml(config, tmp_path))
    again = load_config(tmp_path / "config.toml")
    assert list(again.data.classes.items()) == [("circle", "a.b"), ("0", "")]
    plain = to_toml(load_config(None, flags={"data.source": str(photos)}), tmp_path)
    assert "classes]" not in plain


def test_later_commands_see_the_classes_of_the_run(tmp_path, photos):
    data = Data(source=str(photos), classes={"circle": "ring", "cross": "ring"})
    write_splits(scan_source(data, seed=0), tmp_path / "splits.csv")
    write_classes(scan_source(data, seed=0), tmp_path / "classes.txt")

    def opened(data=data):
        return open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", data)

    assert find_moves(opened()) == []
    (photos / "cross/cross-000.png").rename(photos / "circle/from-cross.png")  # still a ring
    (photos / "cross/cross-001.jpg").rename(photos / "stripes/from-cross.jpg")
    [move] = find_moves(opened())
    assert move[1:] == Move(0, "ring", "stripes")[1:]
    found = scan_for_model(data, ("ring", "stripes"))
    assert len(found.paths) == 36


def test_photos_of_a_class_that_is_left_out_are_no_files_of_the_run(photos):
    (photos / "stripes/broken.jpg").write_bytes(b"no image")
    assert scan(photos, stripes="").class_names == ("circle", "cross")
