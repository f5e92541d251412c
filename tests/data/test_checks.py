from pathlib import Path

import numpy as np
import pytest

from kerasft.data.checks import (
    check_classes,
    check_copies,
    check_division,
    check_splits,
    find_small_classes,
    refuse_small_classes,
    warn_about_copies,
)
from kerasft.data.source import Source
from kerasft.data.splits import without_copies
from kerasft.errors import UserError
from kerasft.sources.photos import Listing, Photo

ROOT = Path("/photos")
BOTH = ("validation", "test")


def source_of(rows):
    """A source of (class, split, contents, group) rows; `contents` stands for the digest."""
    names = tuple(sorted({row[0] for row in rows}))
    return Source(
        root=ROOT,
        class_names=names,
        paths=tuple(f"{number}.jpg" for number in range(len(rows))),
        labels=np.array([names.index(row[0]) for row in rows], np.int32),
        splits=np.array([row[1] for row in rows], "<U10"),
        digests=tuple(row[2] for row in rows),
        groups=tuple(row[3] for row in rows) if any(row[3] for row in rows) else (),
    )


def check_sizes(name, source, shares):
    small = find_small_classes(source, shares)
    if small:
        refuse_small_classes(name, source, shares, small)


GO_ON = (
    "  `data.small_classes=leave_out` leaves these classes out, `data.small_classes=train_only` "
    "takes all of their images for training."
)


def message_of(call, *arguments):
    with pytest.raises(UserError) as error:
        call("table", *arguments)
    return str(error.value)


def test_class_names_are_those_of_training():
    listed = Listing([], {"train": ("cat", "dog"), "test": ("cat",)})
    assert check_classes("table", ROOT, listed) == ("cat", "dog")
    assert check_classes("table", ROOT, Listing([], {"": ("cat", "dog")})) == ("cat", "dog")


def test_without_training_images_there_is_nothing_to_train():
    assert message_of(check_classes, ROOT, Listing([], {"test": ("a", "b")})) == (
        "table: no images for training. It has some for test; expected a split train, or no "
        "splits at all."
    )


def test_classes_without_training_images_are_named():
    listed = Listing([], {"train": ("cat", "dog"), "test": ("cats", "dog"), "validation": ("x",)})
    assert message_of(check_classes, ROOT, listed).splitlines() == [
        "table: 2 of the classes have no training images, only images in other splits:",
        "  cats, in test. Did you mean 'cat'?",
        "  x, in validation.",
    ]


def test_one_class_is_refused_with_a_hint_for_folders_only():
    listed = Listing([Photo("cat/a/1.jpg", "cat"), Photo("cat/b/1.jpg", "cat")], {"": ("cat",)})
    plain = "table: holds one class, cat. Expected at least two."
    assert message_of(check_classes, ROOT, listed) == plain
    with pytest.raises(UserError, match=r"If a, b are classes, pass /photos/cat\."):
        check_classes(str(ROOT), ROOT, listed)


def test_groups_in_several_splits_are_named():
    photos = [
        Photo("1", "cat", "train", "ada"),
        Photo("2", "cat", "test", "ada"),
        Photo("3", "dog", "train", "bob"),
        Photo("4", "dog", "validation", ""),
        Photo("5", "dog", "test", ""),
    ]
    assert message_of(check_classes, ROOT, Listing.of(photos)) == (
        "table: 1 group in several splits at once. Expected all photos of a group in one split, or "
        "no splits at all (kerasft then keeps groups together):\n  ada: test, train"
    )


def test_a_split_that_came_to_nothing_is_named():
    source = source_of([("a", "train", str(n), "") for n in range(4)])
    assert message_of(check_splits, source, ("train", "test")) == (
        "table: no images for test. Expected some."
    )


def test_a_class_needs_an_image_for_each_side():
    rows = [("a", "train", str(n), "") for n in range(3)]
    rows += [("b", "train", "same", "") for _ in range(5)]
    rows += [("c", "train", "x", ""), ("c", "train", "y", "")]
    assert message_of(check_sizes, source_of(rows), BOTH).splitlines() == [
        "table: too few images in 2 of 3 classes. Expected at least 3 in each, to be divided into "
        "training, validation, test:",
        "  b: 5 images, of which 1 is distinct and in no other split",
        "  c: 2 images",
        GO_ON,
    ]


def test_a_class_needs_a_group_for_each_side():
    rows = [("a", "train", f"a{n}", f"g{n}") for n in range(3)]
    rows += [("b", "train", f"b{n}", f"g{n % 2}") for n in range(50)]
    assert message_of(check_sizes, source_of(rows), BOTH).splitlines() == [
        "table: too few groups in 1 of 2 classes. Expected images of at least 3 groups in each, to "
        "be divided into training, validation, test:",
        "  b: 50 images in 2 groups",
        GO_ON,
    ]
    check_sizes("table", source_of(rows), ("validation",))


def test_images_without_a_group_are_groups_of_their_own():
    rows = [("a", "train", f"a{n}", "") for n in range(3)]
    rows += [("b", "train", f"b{n}", "g" if n < 5 else "") for n in range(7)]
    check_sizes("table", source_of(rows), BOTH)


def test_a_division_that_leaves_a_class_out_is_refused():
    rows = [("a", "train", "1", "g"), ("b", "test", "2", "h"), ("a", "test", "3", "h")]
    check_division("table", source_of(rows), ("test",))
    assert message_of(check_division, source_of(rows), BOTH).splitlines() == [
        "table: groups hold several classes, and no split was found that keeps groups together and "
        "has every class in every part:",
        "  a: no images for validation",
        "  b: no images for validation",
        "  Assign the groups to splits in a column split, or pass `data.test=0`.",
    ]


def test_copies_in_two_classes_or_two_splits_are_told(caplog):
    rows = [("a", "train", "1", ""), ("b", "train", "1", ""), ("b", "test", "2", "")]
    rows += [("b", "train", "2", ""), ("b", "train", "3", ""), ("b", "train", "3", "")]
    rows += [("b", "validation", "2", "")]
    source = source_of(rows)
    warn_about_copies("table", source, without_copies(source.splits, source.pictures()))
    assert caplog.messages == [
        "table: 1 image in two classes at once. Keep each in one:\n  0.jpg and 1.jpg",
        "table: 2 images in two splits at once, which would make the measured accuracy too high. "
        "Left out: 1 of train, 1 of validation.\n  3.jpg and 2.jpg\n  6.jpg and 2.jpg",
    ]


def test_no_copies_no_warning(caplog):
    source = source_of([("a", "train", "1", ""), ("a", "train", "1", ""), ("a", "test", "2", "")])
    warn_about_copies("table", source, without_copies(source.splits, source.pictures()))
    assert caplog.messages == []


@pytest.mark.parametrize(("split", "later"), [("train", "test"), ("validation", "test")])
def test_a_split_that_is_mostly_copies_is_refused(split, later):
    rows = [("a", later, str(n), "") for n in range(4)] + [("a", split, "4", "")]
    half = source_of([*rows, ("a", split, "0", "")])
    check_copies("table", half, without_copies(half.splits, half.pictures()))
    most = source_of([*rows, ("a", split, "0", ""), ("a", split, "1", "")])
    left = without_copies(most.splits, most.pictures())
    assert message_of(check_copies, most, left).splitlines() == [
        f"table: 2 of the 3 images of {split} show the same picture as an image of a later split, "
        "which is more than half. Expected other pictures in each split:",
        "  5.jpg and 0.jpg",
        "  6.jpg and 1.jpg",
        "  Remove the copies from one of the splits, or pass all images without splits (kerasft "
        "then keeps copies together).",
    ]
