"""Near copies: found by looks and names, kept in one split, and told where splits are given."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from kerasft.config.fields import Data
from kerasft.data.names import altered_copies, series_of
from kerasft.data.near import find_near_copies
from kerasft.data.scan import open_source, scan_source, write_classes, write_splits

LOOK = 2**256 // 5


def look(*bits):
    """A look that differs from LOOK in some bits."""
    value = LOOK
    for bit in bits:
        value ^= 1 << bit
    return f"{value:064x}"


def groups_of(looks, paths=None, labels=None):
    paths = paths or [f"photo {chr(97 + i)}.jpg" for i in range(len(looks))]
    return find_near_copies(paths, looks, np.zeros(len(looks), int) if labels is None else labels)


def test_photos_that_differ_in_up_to_56_bits_are_near_copies():
    assert groups_of([look(), look(*range(56))]).groups == [[0, 1]]
    assert groups_of([look(), look(*range(57))]).groups == []


def test_a_chain_does_not_merge_unlike_photos():
    chain = [look(), look(*range(40)), look(*range(80))]
    assert groups_of(chain).groups == [[0, 1]]


def test_photos_of_two_classes_and_photos_without_a_look_are_no_near_copies():
    assert groups_of([look(), look()], labels=np.array([0, 1])).groups == []
    assert groups_of(["", ""]).groups == []


def test_neighbours_in_a_series_may_differ_in_more_bits():
    looks = [look(), look(*range(64))]
    assert groups_of(looks, ["a/frame_0001.jpg", "a/frame_0002.jpg"]).groups == [[0, 1]]
    assert groups_of(looks, ["a/frame_0001.jpg", "b/frame_0002.jpg"]).groups == []


def test_a_large_group_is_not_used_and_takes_no_copies_by_name_with_it():
    paths = [f"{chr(97 + i)}.rf.{0:08x}.jpg" for i in range(20)]
    paths += [f"{chr(97 + i)}.rf.{1:08x}.jpg" for i in range(20)]
    found = groups_of([look()] * 40, paths)
    assert found.groups == [[i, i + 20] for i in range(20)]
    assert found.too_large == [list(range(40))]


def test_a_name_says_that_files_were_made_from_one_photo():
    paths = [
        "train/ok/part0_jpg.rf.0123456789abcdef.jpg",
        "train/ok/part0_jpg.rf.fedcba9876543210.jpg",
        "ok/part0.jpg",
        "ok/part1.jpg",
        "ok/part1_aug.jpg",
        "ok/part1_aug_2_rot90.png",
        "ok/part2 (1).jpg",  # photos are numbered like this, too
        "ok/part2 (2).jpg",
        "ok/cat.jpg",
        "ok/cat (1).jpg",
        "ok/cat - Copy.jpg",
        "ok/rolled-in_scale_241.jpg",
        "ok/rolled-in_scale_242.jpg",
    ]
    assert altered_copies(paths) == [[8, 9, 10], [0, 1, 2], [3, 4, 5]]


def test_a_series_is_in_the_order_of_its_numbers():
    assert series_of(["a/x10.jpg", "a/x9.jpg", "b/x8.jpg", "a/y.jpg"]) == [[1, 0]]


def scene(seed):
    rng = np.random.default_rng(seed)
    cells = [(rng.normal(size=(n, n, 3)), np.ones((64 // n, 64 // n, 1))) for n in (4, 8, 16)]
    grids = [np.kron(*pair) for pair in cells]
    return Image.fromarray(np.clip(128 + 30 * sum(grids), 0, 255).astype(np.uint8))


def copies_of(image):
    strong = io.BytesIO()
    image.save(strong, "JPEG", quality=50)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    return [image, Image.open(strong), image.resize((32, 32)), turned]


def save(folder, pictures):
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{chr(97 + number % 26)}{number // 26}.png")


@pytest.fixture
def photos(tmp_path):
    """Two classes of 10 pictures, each in four versions with names that say nothing."""
    for label in range(2):
        found = [copy for seed in range(10) for copy in copies_of(scene(100 * label + seed))]
        save(tmp_path / "photos" / "ab"[label], found)
    return tmp_path / "photos"


def scan(source, **settings):
    return scan_source(Data(source=str(source), **settings), seed=0)


def splits_per_picture(source):
    numbers = [int(path[3:-4]) * 26 + ord(path[2]) for path in source.paths]
    order = np.argsort(numbers, kind="stable")
    by_class = [order[source.labels[order] == label].reshape(10, 4) for label in (0, 1)]
    return [len(set(source.splits[of].tolist())) for rows in by_class for of in rows]


def test_near_copies_are_in_one_split_and_a_line_says_so(photos, caplog, tmp_path):
    caplog.set_level(logging.INFO, "kerasft")
    source = scan(photos)
    assert splits_per_picture(source) == [1] * 20
    assert len(set(source.near)) == 20 and "" not in source.near
    assert f"{photos}: 80 photos are near copies of each other, by their looks or names, in 20" in (
        caplog.text
    )
    write_splits(source, tmp_path / "splits.csv")
    write_classes(source, tmp_path / "classes.txt")
    data = Data(source=str(photos))
    assert open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", data).near == source.near


def test_near_copies_can_be_ignored(photos):
    source = scan(photos, near_copies="ignore")
    assert max(splits_per_picture(source)) > 1
    assert source.near == ()


def test_a_class_of_near_copies_alone_is_split_like_others(tmp_path, caplog):
    save(tmp_path / "a", [scene(seed) for seed in range(8)])
    save(tmp_path / "b", [copy for seed in (50, 51) for copy in copies_of(scene(seed))])
    source = scan(tmp_path)
    assert source.counts()["b"]["test"] == 1 and source.near == ()
    assert "near copies of b are split like other photos, because too few photos" in caplog.text


def test_near_copies_across_given_splits_are_told(tmp_path, caplog):
    for label in range(2):
        pictures = [scene(100 * label + seed) for seed in range(8)]
        strong, small = copies_of(pictures[0])[1:3]
        save(tmp_path / "train" / "ab"[label], pictures[:5])
        save(tmp_path / "validation" / "ab"[label], [pictures[5], strong])
        save(tmp_path / "test" / "ab"[label], [*pictures[6:], small])
    source = scan(tmp_path)
    assert (
        f"{tmp_path}: 2 of the 4 images of validation and 2 of the 6 images of test are near "
        "copies of training images, so figures on them flatter."
    ) in caplog.text
    near = dict(zip(source.paths, source.near, strict=True))
    assert near["train/a/a0.png"] == near["validation/a/b0.png"] == near["test/a/c0.png"] != ""
    assert sum(name != "" for name in source.near) == 6
