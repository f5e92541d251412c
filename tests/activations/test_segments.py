"""Rows found by photo: in segments of any order, whole or absent, verified and merged."""

import json
import os
import shutil

import numpy as np
import pytest
from mapped_memory import SMAPS, mapped_bytes

from kerasft.activations import segments
from kerasft.activations.segments import Segments, merge
from kerasft.activations.store import Gathered, Key, filling, gathered, release, writing
from kerasft.errors import UserError

TENSOR = Key({"backbone": "Tiny", "blocks": 0})
OTHER = Key({"backbone": "Tiny", "blocks": 1})


def photo(number):
    return f"{number:032x}"


def rows(*numbers, view=0):
    return [(photo(number), view) for number in numbers]


def values(wanted):
    """Returns what is stored of rows: three numbers that tell photo and view."""
    return np.array([[int(name, 16), view, 7] for name, view in wanted], "float32")


def append(folder, wanted, tensor=TENSOR):
    with (
        filling(folder, [tensor]),
        segments.writing(folder, tensor, wanted, (3,), "float32") as writer,
    ):
        writer.append(values(wanted))


def opened(folder, wanted, tensor=TENSOR):
    return Segments.of(folder, tensor).open(folder, wanted)


def test_rows_come_in_the_order_that_is_asked_for_whatever_segments_they_lie_in(tmp_path):
    append(tmp_path, rows(5, 3, 8))
    append(tmp_path, rows(1, 9))
    append(tmp_path, rows(3, 5, view=2))
    wanted = [*rows(9, 3), *rows(3, view=2), *rows(8, 3, 1)]
    found = opened(tmp_path, wanted)
    assert (found.shape, found.dtype, found.nbytes) == ((6, 3), "float32", 72)
    np.testing.assert_array_equal(found[:], values(wanted))
    np.testing.assert_array_equal(found[[4, 0, 4]], values([wanted[4], wanted[0], wanted[4]]))
    np.testing.assert_array_equal(found[2:4], values(wanted[2:4]))
    np.testing.assert_array_equal(np.asarray(found, "float16"), values(wanted).astype("float16"))
    release(found)
    np.testing.assert_array_equal(found[:], values(wanted))


def test_a_stretch_of_one_segment_is_read_as_it_lies(tmp_path):
    append(tmp_path, rows(5, 3, 8, 4))
    found = opened(tmp_path, rows(3, 8))
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, values(rows(3, 8)))
    assert isinstance(opened(tmp_path, rows(8, 3)), Gathered)
    assert isinstance(opened(tmp_path, rows(5, 8)), Gathered)


def test_what_is_missing_is_named_once_and_in_order(tmp_path):
    append(tmp_path, rows(1, 2))
    there = Segments.of(tmp_path, TENSOR)
    assert there.missing(rows(9, 1, 7, 9)) == rows(9, 7)
    assert there.missing(rows(1, view=1)) == rows(1, view=1)
    assert there.open(tmp_path, rows(1, 9)) is None


def test_another_tensor_has_segments_of_its_own(tmp_path):
    append(tmp_path, rows(1, 2))
    assert Segments.of(tmp_path, OTHER).missing(rows(1)) == rows(1)
    append(tmp_path, rows(1), tensor=OTHER)
    assert len(Segments.of(tmp_path, TENSOR).keys) == len(Segments.of(tmp_path, OTHER).keys) == 1


def test_a_folder_that_is_not_there_has_no_rows(tmp_path):
    assert Segments.of(tmp_path / "none", TENSOR).missing(rows(1)) == rows(1)
    assert not (tmp_path / "none").exists()


def test_a_segment_appears_only_when_it_is_whole(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        filling(tmp_path, [TENSOR]),
        segments.writing(tmp_path, TENSOR, rows(1, 2), (3,), "float32") as writer,
    ):
        writer.append(values(rows(1)))
        assert Segments.of(tmp_path, TENSOR).keys == ()
        raise KeyboardInterrupt
    assert Segments.of(tmp_path, TENSOR).keys == ()
    assert list(tmp_path.glob("*.npy")) == list(tmp_path.glob("*.json")) == []


def path_of(folder):
    (path,) = folder.glob("*.npy")
    return path


@pytest.mark.parametrize("byte", [128, -1])  # the first number, the last one
def test_a_changed_byte_is_noticed_when_a_segment_is_first_read(tmp_path, caplog, byte):
    append(tmp_path, rows(1, 2))
    path = path_of(tmp_path)
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    assert opened(tmp_path, rows(1)) is None
    assert caplog.messages == [f"{path} is damaged, so what it holds is computed again."]
    assert Segments.of(tmp_path, TENSOR).missing(rows(1, 2)) == rows(1, 2)


def test_a_segment_is_verified_once_in_a_process(tmp_path, monkeypatch):
    append(tmp_path, rows(1, 2))
    read = []
    whole = segments._checksum
    monkeypatch.setattr(segments, "_checksum", lambda array: read.append(1) or whole(array))
    assert opened(tmp_path, rows(1)) is not None
    assert opened(tmp_path, rows(2)) is not None
    assert read == [1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text(json.dumps({"facts": {}, "made": 0})),
        lambda path: os.truncate(path, 130),
        lambda path: shutil.copy(path, path.with_name(f"{TENSOR.digest[:16]}{'0' * 16}.npy")),
    ],
)
def test_a_segment_without_a_description_that_fits_is_none(tmp_path, damage):
    append(tmp_path, rows(1, 2))
    damage(path_of(tmp_path))
    there = Segments.of(tmp_path, TENSOR)
    assert len(there.keys) == len(list(tmp_path.glob("*.npy"))) - 1


def test_small_segments_are_merged_and_hold_every_row_once(tmp_path):
    for number in range(3):
        append(tmp_path, rows(number, 10 + number, 99))
    with filling(tmp_path, [TENSOR]):
        merge(tmp_path, TENSOR)
    assert len(Segments.of(tmp_path, TENSOR).keys) == 3  # few
    append(tmp_path, rows(50))
    before = opened(tmp_path, rows(50, 0, 99))
    with filling(tmp_path, [TENSOR]):
        merge(tmp_path, TENSOR)
    there = Segments.of(tmp_path, TENSOR)
    (key,) = there.keys
    assert sorted(key.rows) == sorted(rows(0, 1, 2, 10, 11, 12, 50, 99))
    assert len(list(tmp_path.glob("*.json"))) == 1
    for wanted in (rows(50, 0, 99), rows(12, 1)):
        np.testing.assert_array_equal(there.open(tmp_path, wanted)[:], values(wanted))
    np.testing.assert_array_equal(before[:], values(rows(50, 0, 99)))  # who has it open reads on


def test_a_large_segment_stays_when_small_ones_are_merged(tmp_path, monkeypatch):
    append(tmp_path, rows(*range(100, 200)))
    large = path_of(tmp_path)
    monkeypatch.setattr(segments, "SMALL", large.stat().st_size)
    for number in range(4):
        append(tmp_path, rows(number))
    with filling(tmp_path, [TENSOR]):
        merge(tmp_path, TENSOR)
    assert large.exists()
    assert len(Segments.of(tmp_path, TENSOR).keys) == 2
    wanted = rows(3, 150, 0)
    np.testing.assert_array_equal(opened(tmp_path, wanted)[:], values(wanted))


def merged_now(folder):
    with filling(folder, [TENSOR]):
        merge(folder, TENSOR)
    return Segments.of(folder, TENSOR)


@pytest.mark.parametrize("seed", range(8))  # the files sort in another order each time
def test_a_merge_that_was_interrupted_before_the_small_ones_went_loses_nothing(
    tmp_path, seed, monkeypatch
):
    numbers = np.random.default_rng(seed).permutation(1000)[:12].tolist()
    parts = [rows(*numbers[i : i + 3]) for i in range(0, 12, 3)]
    for part in parts:
        append(tmp_path, part)
    copies = shutil.copytree(tmp_path, tmp_path / "before")
    merged_now(tmp_path)
    for path in copies.glob("*.*"):
        shutil.copy(path, tmp_path)  # as if it had been killed
    there = merged_now(tmp_path)
    assert len(there.keys) == 1
    np.testing.assert_array_equal(there.open(tmp_path, rows(*numbers))[:], values(rows(*numbers)))


def test_small_segments_that_a_large_one_covers_are_removed(tmp_path, monkeypatch):
    append(tmp_path, rows(*range(50)))
    large = path_of(tmp_path)
    monkeypatch.setattr(segments, "SMALL", large.stat().st_size)
    for number in range(4):
        append(tmp_path, rows(number))
    # Let the large one be the last, whose rows count.
    monkeypatch.setattr(Segments, "of", classmethod(large_last(Segments.of.__func__)))
    there = merged_now(tmp_path)
    assert len(there.keys) == 1 and large.exists()


def large_last(of):
    def sorted_by_size(cls, folder, tensor):
        found = of(cls, folder, tensor)
        order = sorted(range(len(found.keys)), key=lambda n: len(found.keys[n].rows))
        keys = tuple(found.keys[n] for n in order)
        places = {row: (n, i) for n, key in enumerate(keys) for i, row in enumerate(key.rows)}
        return cls(tensor, keys, tuple(found.checksums[n] for n in order), places)

    return sorted_by_size


def test_a_segment_is_opened_once_for_all_views(tmp_path):
    wanted = [(photo(1), view) for view in range(3)]
    append(tmp_path, wanted)
    there = Segments.of(tmp_path, TENSOR)
    for row in wanted:
        there.open(tmp_path, [row])
    assert list(there.opened) == [0]


def test_the_segments_that_hold_some_rows_are_named(tmp_path):
    append(tmp_path, rows(1, 2))
    append(tmp_path, rows(3))
    there = Segments.of(tmp_path, TENSOR)
    assert there.holding(rows(2, 9)) == {key.digest for key in there.keys if rows(1)[0] in key.rows}


def test_without_room_small_segments_stay_as_they_are(tmp_path, monkeypatch):
    for number in range(4):
        append(tmp_path, rows(number))

    def full(*args, **more):
        raise UserError("the disk is full")

    monkeypatch.setattr(segments, "writing", full)
    with filling(tmp_path, [TENSOR]):
        merge(tmp_path, TENSOR)
    assert len(Segments.of(tmp_path, TENSOR).keys) == 4


def test_rows_of_several_stores_are_read_in_ascending_order_of_each(tmp_path):
    stores = [np.arange(10.0)[:, None], 100 + np.arange(10.0)[:, None]]
    found = gathered(stores, np.array([1, 0, 1, 0]), np.array([7, 3, 2, 3]))
    np.testing.assert_array_equal(found[:][:, 0], [107, 3, 102, 3])
    assert len(found) == 4
    # A store of which nothing is asked for is not kept open.
    assert len(gathered(stores, np.array([1, 1]), np.array([7, 3])).stores) == 1


def test_a_store_without_rows_is_no_segment(tmp_path):
    with writing(tmp_path, TENSOR, (2, 3), "float32") as writer:
        writer.append(np.zeros((2, 3), "float32"))
    assert Segments.of(tmp_path, TENSOR).keys == ()


@pytest.mark.skipif(not SMAPS.is_file(), reason="the memory of a map is told by Linux alone")
def test_what_was_read_of_a_segment_is_released(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "READ", 1 << 20)
    path = tmp_path / "store.npy"
    np.save(path, np.zeros((8192, 1024), "float16"))  # 16 MB
    array = np.load(path, mmap_mode="r")
    most = 0
    for part in segments._parts(array):
        assert part.sum() == 0
        most = max(most, mapped_bytes(path))
    assert 1 << 20 <= most <= 4 << 20  # Linux may map more than is read
    assert segments._checksum(array) == segments.zlib.crc32(bytes(16 << 20))
    assert mapped_bytes(path) <= 1 << 20
