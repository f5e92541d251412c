from pathlib import Path

import numpy as np

from kerasft.data.source import Source
from kerasft.sources.photos import Listing, Photo


def test_a_listing_of_photos_knows_their_classes_by_split():
    photos = [
        Photo("1.jpg", "dog", "train"),
        Photo("2.jpg", "cat", "train"),
        Photo("3.jpg", "cat", "test"),
    ]
    assert Listing.of(photos).classes == {"train": ("cat", "dog"), "test": ("cat",)}
    assert Listing.of([Photo("1.jpg", "dog")]).classes == {"": ("dog",)}


def test_a_picture_is_named_after_the_smallest_of_its_files():
    def pictures(pixels):
        labels, splits = np.zeros(4, np.int32), np.full(4, "train")
        names = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
        return Source(
            Path(), ("cat",), names, labels, splits, ("d", "c", "b", "c"), pixels
        ).pictures()

    assert pictures(("x", "x", "y", "x")) == ("c", "c", "b", "c")
    assert pictures(()) == ("d", "c", "b", "c")  # a run of an earlier version


def test_a_source_counts_its_images_by_class_and_split():
    source = Source(
        root=Path("photos"),
        class_names=("cat", "dog"),
        paths=("1.jpg", "2.jpg", "3.jpg"),
        labels=np.array([0, 1, 1], np.int32),
        splits=np.array(["train", "train", "test"]),
        digests=("a", "b", "c"),
    )
    assert source.indices("train").tolist() == [0, 1]
    assert source.counts() == {
        "cat": {"train": 1, "validation": 0, "test": 0},
        "dog": {"train": 1, "validation": 0, "test": 1},
    }
