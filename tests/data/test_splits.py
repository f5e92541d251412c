import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasft.data.splits import (
    movable,
    read_rows,
    read_text,
    stratified_split,
    subsample,
    units_of,
    without_copies,
    write_rows,
)
from kerasft.errors import UserError

BOTH = {"validation": 0.15, "test": 0.15}


def digests_of(contents):
    return [hashlib.blake2b(str(c).encode(), digest_size=16).hexdigest() for c in contents]


def carve_one_class(contents, shares=BOTH, seed=0):
    splits = np.full(len(contents), "train", "<U10")
    labels = np.zeros(len(contents), np.int32)
    return stratified_split(labels, splits, digests_of(contents), shares, seed=seed)


def sizes(splits):
    return [int(np.sum(splits == name)) for name in ("train", "validation", "test")]


@pytest.mark.parametrize(
    ("images", "expected"),
    [(3, [1, 1, 1]), (4, [2, 1, 1]), (10, [6, 2, 2]), (12, [8, 2, 2]), (300, [210, 45, 45])],
)
def test_shares_are_rounded_with_at_least_one_image_each(images, expected):
    assert sizes(carve_one_class(range(images))) == expected


def test_half_and_half_still_leaves_an_image_for_training():
    halves = {"validation": 0.5, "test": 0.5}
    assert sizes(carve_one_class(range(4), halves)) == [1, 1, 2]
    assert sizes(carve_one_class(range(5), halves)) == [1, 2, 2]  # rounded up, they are 6


def test_a_test_share_of_nothing_makes_no_test_images():
    assert sizes(carve_one_class(range(10), {"validation": 0.2})) == [8, 2, 0]


def test_every_class_gives_its_own_share():
    labels = np.array([0] * 20 + [1] * 4, np.int32)
    splits = stratified_split(
        labels, np.full(24, "train", "<U10"), digests_of(range(24)), BOTH, seed=0
    )
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
    splits = stratified_split(
        labels, np.full(8, "train", "<U10"), digests_of(contents), BOTH, seed=0
    )
    assert splits[[0, 1, 4, 5]].tolist() == ["train"] * 4
    assert sizes(splits) == [4, 2, 2]


def test_copies_with_the_same_label_may_leave_training_whatever_its_number():
    digests, labels = digests_of([0, 0, 1]), np.array([300, 300, 7], np.int32)
    assert movable([[0, 1], [2]], labels, np.full(3, "train"), digests) == [[0, 1], [2]]


def test_an_image_that_is_in_the_test_folder_already_stays_in_training():
    splits = np.array(["train", "train", "train", "test"])
    labels = np.zeros(4, np.int32)
    digests = digests_of([0, 1, 2, 0])
    assert movable(units_of(digests), labels, splits, digests) == [[1], [2]]
    assert (
        stratified_split(labels, splits.astype("<U10"), digests, {"validation": 0.3}, seed=0)[0]
        == "train"
    )


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


def test_of_copies_in_given_splits_the_last_split_keeps_its_own():
    splits = np.array(["train", "test", "validation", "train", "train", "test", "test"])
    left = without_copies(splits, ["a", "a", "a", "b", "b", "c", "c"])
    assert left.tolist() == ["unused", "test", "unused", "train", "train", "test", "test"]


# groups


def carve_groups(rows, shares=BOTH, seed=0):
    """Splits of (label, group) rows, all of them different images."""
    labels = np.array([label for label, _ in rows], np.int32)
    splits = np.full(len(rows), "train", "<U10")
    groups = [group for _, group in rows]
    return stratified_split(
        labels, splits, digests_of(range(len(rows))), shares, seed=seed, groups=groups
    )


def sides_of(rows, splits):
    """Group -> the splits that its images are in."""
    sides = {}
    for (_, group), split in zip(rows, splits.tolist(), strict=True):
        sides.setdefault(group, set()).add(split)
    return sides


def test_units_are_chains_of_equal_images_and_equal_groups():
    digests = ["a", "b", "a", "c", "d", "e", "c"]
    groups = ["x", "", "", "y", "y", "", "x"]
    assert units_of(digests) == [[0, 2], [1], [3, 6], [4], [5]]
    assert units_of(digests, groups) == [[0, 2, 3, 4, 6], [1], [5]]
    assert units_of([], []) == []


def test_a_group_stays_on_one_side():
    rows = [(n % 2, f"person {n % 40}") for n in range(400)]  # 20 people a class, 10 images each
    splits = carve_groups(rows)
    assert all(len(sides) == 1 for sides in sides_of(rows, splits).values())
    assert (sizes(splits[0::2]), sizes(splits[1::2])) == ([140, 30, 30], [140, 30, 30])


def test_groups_of_several_classes_are_stratified_as_well_as_they_permit():
    # 60 people with 8 images of the common class and 2 of the rare one
    rows = [(int(n % 10 >= 8), f"person {n // 10}") for n in range(600)]
    splits = carve_groups(rows)
    common, rare = (
        splits[[n % 10 < 8 for n in range(600)]],
        splits[[n % 10 >= 8 for n in range(600)]],
    )
    assert (sizes(common), sizes(rare)) == ([336, 72, 72], [84, 18, 18])


def test_a_group_larger_than_a_share_goes_where_most_of_it_has_room():
    rows = [(n % 2, f"person {n // 20}") for n in range(100)]  # 5 people; a share is 15 images
    splits = carve_groups(rows)
    assert sizes(splits) == [60, 20, 20]
    assert all(len(sides) == 1 for sides in sides_of(rows, splits).values())


def test_every_class_gets_to_every_side_if_its_groups_permit():
    # Class 0 is in three groups only, each with many images of class 1.
    rows = [(int(n % 30 > 0), f"g{n // 30}") for n in range(90)] + [(1, f"h{n}") for n in range(99)]
    for seed in range(20):
        splits = carve_groups(rows, seed=seed)
        assert sizes(splits[[label == 0 for label, _ in rows]]) == [1, 1, 1]


def test_another_order_is_tried_where_the_first_leaves_a_split_without_a_class():
    labels, groups = (0, 1, 2, 2, 1, 2, 0, 0, 0, 1), (3, 0, 0, 2, 4, 1, 2, 2, 0, 1)
    rows = [(label, f"g{group}") for label, group in zip(labels, groups, strict=True)]
    splits = carve_groups(rows)
    for label in range(3):
        assert set(splits[[one == label for one, _ in rows]]) == {"train", "validation", "test"}


def test_an_image_with_two_labels_keeps_its_group_in_training():
    labels = np.array([0, 1, *[0] * 6, *[1] * 6], np.int32)
    digests = digests_of([0, 0, *range(1, 13)])
    groups = ["x", "", "x", *[""] * 11]
    splits = stratified_split(
        labels, np.full(14, "train", "<U10"), digests, BOTH, seed=0, groups=groups
    )
    assert splits[:3].tolist() == ["train"] * 3


def test_a_group_with_a_part_in_another_split_stays_in_training():
    splits = np.array(["test", "train", "train", "train", "train"], "<U10")
    groups = ["x", "x", "y", "z", "w"]
    moved = stratified_split(
        np.zeros(5, np.int32),
        splits,
        digests_of(range(5)),
        {"validation": 0.5},
        seed=0,
        groups=groups,
    )
    assert moved[:2].tolist() == ["test", "train"]
    assert sizes(moved) == [2, 2, 1]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 40)),
        min_size=30,
        max_size=90,
    ),
    st.floats(0.05, 0.4),
    st.integers(0, 99),
)
def test_whatever_groups_there_are_no_unit_is_torn_and_nothing_else_moves(rows, share, seed):
    labels = np.array([label for label, _, _ in rows], np.int32)
    digests = digests_of(contents for _, _, contents in rows)
    groups = [f"g{group}" if group else "" for _, group, _ in rows]
    before = np.full(len(rows), "train", "<U10")
    before[:2] = ["test", "validation"]
    units = units_of(digests, groups)
    shares = {"validation": share, "test": share}
    after = stratified_split(labels, before, digests, shares, seed=seed, groups=groups)
    free = movable(units, labels, before, digests)
    assert sorted(position for unit in units for position in unit) == list(range(len(rows)))
    for unit in units:
        if unit in free:
            assert len(set(after[unit].tolist())) == 1
        else:
            assert after[unit].tolist() == before[unit].tolist()
    order = np.random.default_rng(seed).permutation(len(rows))
    mixed = stratified_split(
        labels[order],
        before[order],
        [digests[i] for i in order],
        shares,
        seed=seed,
        groups=[groups[i] for i in order],
    )
    assert mixed.tolist() == after[order].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=12, max_size=60),
    st.floats(0.05, 0.4),
    st.integers(0, 99),
)
def test_fixed_images_stay_and_the_others_fill_the_shares(rows, share, seed):
    # Of each class, 3 are new and one is in each split; then come those that are drawn, 3 for new.
    fixed_in = ["train", "validation", "test", ""]
    rows = [(label, place) for label in range(3) for place in (0, 1, 2, 3, 3, 3)] + rows
    labels = np.array([label for label, _ in rows], np.int32)
    before = np.array([fixed_in[place] or "train" for _, place in rows], "<U10")
    fixed = np.array([place < 3 for _, place in rows])
    after = stratified_split(
        labels,
        before,
        digests_of(range(len(rows))),
        {"validation": share, "test": share},
        seed=seed,
        fixed=fixed,
    )
    assert after[fixed].tolist() == before[fixed].tolist()
    for label in range(3):
        of_class = labels == label
        wanted = max(1, int(of_class.sum() * share + 0.5))
        left = int((of_class & ~fixed).sum())
        for split in ("validation", "test"):
            has = int((of_class & (before == split)).sum())
            more = min(max(0, wanted - has), left)
            assert int((of_class & (after == split)).sum()) == has + more
            left -= more


def test_fixed_images_count_for_the_classes_that_a_split_needs():
    # Class 0: one fixed for training and one for test, so that the single new one may leave.
    labels = np.array([0, 0, 0, 1, 1, 1], np.int32)
    before = np.array(["train", "test", "train", "train", "train", "train"], "<U10")
    fixed = np.array([True, True, False, False, False, False])
    after = stratified_split(labels, before, digests_of(range(6)), BOTH, seed=0, fixed=fixed)
    assert after[:3].tolist() == ["train", "test", "validation"]
    assert sorted(after[3:].tolist()) == ["test", "train", "validation"]


# a share of the training images


def left_of(labels, fraction, contents=None, seed=0, groups=()):
    """Positions of the training images that are used."""
    labels = np.array(labels, np.int32)
    splits = np.full(len(labels), "train", "<U10")
    digests = digests_of(range(len(labels)) if contents is None else contents)
    thin = subsample(labels, splits, digests, fraction, seed=seed, groups=groups)
    assert set(thin.tolist()) <= {"train", "unused"}
    return set(np.flatnonzero(thin == "train").tolist())


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.01, [1, 1]),
        (0.1, [2, 1]),
        (0.125, [3, 1]),
        (0.5, [10, 3]),
        (0.9, [18, 5]),
        (1.0, [20, 5]),
    ],
)
def test_of_every_class_its_rounded_share_is_left_and_at_least_one(fraction, expected):
    left = left_of([0] * 20 + [1] * 5, fraction)
    assert [sum(p < 20 for p in left), sum(p >= 20 for p in left)] == expected


def test_a_smaller_share_is_a_part_of_a_larger_one_and_another_seed_is_another_one():
    tenth, half = (left_of([0] * 100, fraction) for fraction in (0.1, 0.5))
    assert tenth < half
    assert left_of([0] * 100, 0.5, seed=1) != half


def test_what_is_validated_and_tested_stays_and_is_no_part_of_the_share():
    labels = np.zeros(20, np.int32)
    splits = np.array(["train"] * 10 + ["validation"] * 6 + ["test"] * 4, "<U10")
    thin = subsample(labels, splits, digests_of(range(20)), 0.3, seed=0)
    assert thin[10:].tolist() == splits[10:].tolist()
    assert sizes(thin) == [3, 6, 4]


def test_copies_and_groups_are_left_whole():
    contents = [number // 2 for number in range(40)]
    left = left_of([0] * 40, 0.5, contents)
    assert len(left) == 20
    assert {contents[p] for p in left}.isdisjoint({contents[p] for p in set(range(40)) - left})
    groups = [f"person {number // 10}" for number in range(40)]
    left = left_of([0] * 40, 0.5, groups=groups)
    assert len(left) == 20
    assert len({groups[p] for p in left}) == 2
    # A class with one group keeps it, whatever else is in it.
    assert {35, 36, 37, 38, 39} <= left_of([0] * 35 + [1] * 5, 0.01, groups=[""] * 35 + ["all"] * 5)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 40)), min_size=1),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.integers(0, 99),
)
def test_whatever_groups_there_are_shares_are_nested_whole_and_of_every_class(rows, a, b, seed):
    labels = [label for label, _, _ in rows]
    digests = digests_of(contents for _, _, contents in rows)
    groups = [f"g{group}" if group else "" for _, group, _ in rows]
    contents = [contents for _, _, contents in rows]
    small, large = (left_of(labels, f, contents, seed, groups) for f in sorted((a, b)))
    assert small <= large
    assert {labels[p] for p in small} == set(labels)
    for unit in units_of(digests, groups):
        assert set(unit) <= small or not set(unit) & small
    assert left_of(labels, 1.0, contents, seed, groups) == set(range(len(rows)))
    back = left_of(labels[::-1], min(a, b), contents[::-1], seed, groups[::-1])
    assert back == {len(rows) - 1 - p for p in small}


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "splits.csv"
    names = ["a b/1.jpg", 'say "hi", twice/ü\u202f.png', "日本/\u2028.gif"]
    rest = "test", "ab" * 16, "person 7", "cd" * 16, "ef"
    write_rows(path, [(name, 1, *rest) for name in names])
    assert read_rows(path, 2) == [[name, "1", *rest] for name in names]
    header = b"path,label,split,digest,group,pixels,near\n"
    assert path.read_bytes().startswith(header + b"a b/1.jpg,1,test,abab")


def test_rows_of_earlier_versions_have_fewer_columns(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("path,label,split,digest,group\na.jpg,1,test,ab,\n")
    assert read_rows(path, 2) == [["a.jpg", "1", "test", "ab", "", "", ""]]
    path.write_text("path,label,split,digest,group,pixels\na.jpg,1,test,ab,,cd\n")
    assert read_rows(path, 2) == [["a.jpg", "1", "test", "ab", "", "cd", ""]]
    path.write_text("path,label,split,digest,group\na.jpg,1,test,ab,,cd\n")
    with pytest.raises(UserError, match="line 2: expected path,label,split,digest,group with"):
        read_rows(path, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,2,test,ab,", "line 3: expected path,label,split,digest,group with a label from 0"),
        ("a.jpg,one,test,ab,", "got a.jpg,one,test,ab,."),
        ("a.jpg,1,Test,ab,", "a split of train, validation, test, unused, got a.jpg,1,Test,ab,."),
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
    with pytest.raises(
        UserError, match="line 1: expected path,label,split,digest,group,pixels,near, got file"
    ):
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
