import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasft.errors import UserError
from kerasft.splits import carve, movable_groups, read_rows, read_text, write_rows

BOTH = {"validation": 0.15, "test": 0.15}


def digests_of(contents):
    return [hashlib.blake2b(str(c).encode(), digest_size=16).hexdigest() for c in contents]


def carve_one_class(contents, shares=BOTH, seed=0):
    splits = np.full(len(contents), "train", "<U10")
    labels = np.zeros(len(contents), np.int32)
    return carve(labels, splits, digests_of(contents), shares, seed=seed)


def sizes(splits):
    return [int(np.sum(splits == name)) for name in ("train", "validation", "test")]


@pytest.mark.parametrize(
    ("images", "expected"),
    [(3, [1, 1, 1]), (4, [2, 1, 1]), (10, [6, 2, 2]), (12, [8, 2, 2]), (300, [210, 45, 45])],
)
def test_shares_are_rounded_with_at_least_one_image_each(images, expected):
    assert sizes(carve_one_class(range(images))) == expected


def test_half_and_half_still_leaves_an_image_for_training():
    assert sizes(carve_one_class(range(4), {"validation": 0.5, "test": 0.5})) == [1, 1, 2]


def test_a_test_share_of_nothing_makes_no_test_images():
    assert sizes(carve_one_class(range(10), {"validation": 0.2})) == [8, 2, 0]


def test_every_class_gives_its_own_share():
    labels = np.array([0] * 20 + [1] * 4, np.int32)
    splits = carve(labels, np.full(24, "train", "<U10"), digests_of(range(24)), BOTH, seed=0)
    assert sizes(splits[:20]) == [14, 3, 3]
    assert sizes(splits[20:]) == [2, 1, 1]


def test_an_image_keeps_its_split_when_the_order_changes():
    forward = carve_one_class(range(20))
    backward = carve_one_class(range(19, -1, -1))
    assert forward.tolist() == backward[::-1].tolist()


def test_the_split_is_the_same_everywhere_and_depends_on_the_seed():
    assert np.flatnonzero(carve_one_class(range(10), seed=0) != "train").tolist() == [0, 2, 4, 7]
    assert np.flatnonzero(carve_one_class(range(10), seed=1) != "train").tolist() == [1, 3, 5, 7]


def test_copies_of_an_image_go_to_the_same_side():
    contents = [number // 2 for number in range(40)]  # everything is there twice
    splits = carve_one_class(contents)
    assert splits[0::2].tolist() == splits[1::2].tolist()
    assert sizes(splits) == [28, 6, 6]


def test_an_image_with_two_labels_stays_in_training():
    contents = [0, 1, 2, 3, 0, 1, 4, 5]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
    splits = carve(labels, np.full(8, "train", "<U10"), digests_of(contents), BOTH, seed=0)
    assert splits[[0, 1, 4, 5]].tolist() == ["train"] * 4
    assert sizes(splits) == [4, 2, 2]


def test_an_image_that_is_in_the_test_folder_already_stays_in_training():
    splits = np.array(["train", "train", "train", "test"])
    labels = np.zeros(4, np.int32)
    digests = digests_of([0, 1, 2, 0])
    assert movable_groups(labels, splits, digests, 1) == [[[1], [2]]]
    assert carve(labels, splits.astype("<U10"), digests, {"validation": 0.3}, seed=0)[0] == "train"


@given(
    st.lists(st.integers(0, 8), min_size=3, max_size=30), st.floats(0.01, 0.5), st.integers(0, 99)
)
def test_whatever_copies_there_are_no_split_is_empty_and_none_shares_an_image(
    contents, share, seed
):
    if len(set(contents)) < 3:
        return
    splits = carve_one_class(contents, {"validation": share, "test": share}, seed)
    assert min(sizes(splits)) >= 1
    assert len({(c, s) for c, s in zip(contents, splits, strict=True)}) == len(set(contents))


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "splits.csv"
    names = ["a b/1.jpg", 'say "hi", twice/ü\u202f.png', "日本/\u2028.gif"]
    write_rows(path, [(name, 1, "test", "ab" * 16, "person 7") for name in names])
    assert read_rows(path, 2) == [[name, "1", "test", "ab" * 16, "person 7"] for name in names]
    assert path.read_bytes().startswith(b"path,label,split,digest,group\na b/1.jpg,1,test,abab")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,2,test,ab,", "line 3: expected path,label,split,digest,group with a label from 0"),
        ("a.jpg,one,test,ab,", "got a.jpg,one,test,ab,."),
        ("a.jpg,1,Test,ab,", "a split of train, validation, test, got a.jpg,1,Test,ab,."),
        ("a.jpg,1", "got a.jpg,1."),
        ('"a.jpg,1,test,ab,', "line 3: unexpected end of data"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(tmp_path, line, message):
    path = tmp_path / "splits.csv"
    path.write_text(f"path,label,split,digest,group\nb.jpg,0,train,cd,\n{line}\n")
    with pytest.raises(UserError) as error:
        read_rows(path, 2)
    assert str(error.value).startswith(f"{path}: line 3: ")
    assert message in str(error.value)


def test_a_file_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("file,label\na.jpg,0\n")
    with pytest.raises(UserError, match="line 1: expected path,label,split,digest,group, got file"):
        read_rows(path, 2)
    path.write_text("")
    with pytest.raises(UserError, match="got an empty file"):
        read_rows(path, 2)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"classes\.txt: cannot be read: No such file"):
        read_text(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_bytes(os.fsencode("caf\udce9\n"))
    with pytest.raises(UserError, match=r"classes\.txt: is not UTF-8 text"):
        read_text(tmp_path / "classes.txt")
