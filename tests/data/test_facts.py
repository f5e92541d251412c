"""Facts of photos are remembered: unchanged files are not read, all others are."""

import os
import time

import pytest
from drawing import draw_photos

from kerasft import cache
from kerasft.config.fields import Data
from kerasft.data import facts, files
from kerasft.data.files import examine, examine_files
from kerasft.data.scan import open_source, scan_source, write_classes, write_splits
from kerasft.data.source import Scan
from kerasft.progress import silent

PATHS = ["circle/circle-000.png", "circle/circle-001.jpg", "cross/cross-000.png"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Photos that are an hour old, and an empty cache."""
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    folder = draw_photos(tmp_path / "photos")
    for path in folder.rglob("*.*"):
        age(path)
    return folder


def age(path, seconds=3600):
    os.utime(path, ns=(0, time.time_ns() - seconds * 10**9))


def scan(root):
    return examine_files(root, PATHS, silent)


def test_unchanged_files_are_not_read_again(root):
    first, begun = scan(root)
    again, done = scan(root)
    assert again == first == [examine(root / path) for path in PATHS]
    assert (begun.files, begun.read, done.files, done.read) == (3, 3, 3, 0)


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_file_that_has_changed_in_size_time_or_inode_is_read_again(root, change):
    scan(root)
    path = root / PATHS[1]
    before = path.stat()
    other = bytearray((root / PATHS[0]).read_bytes())
    if change == "size":
        path.write_bytes(other)
        os.utime(path, ns=(0, before.st_mtime_ns))
    elif change == "time":
        age(path, 1800)
    else:
        path.rename(root / "old")
        path.write_bytes((root / "old").read_bytes())
        os.utime(path, ns=(0, before.st_mtime_ns))
    found, done = scan(root)
    assert done.read == 1
    assert found == [examine(root / one) for one in PATHS]


def test_a_change_without_a_trace_is_seen_when_all_facts_are_forgotten(root):
    scan(root)
    path = root / PATHS[0]
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(0, before.st_mtime_ns))
    assert scan(root)[1].read == 0  # the control
    assert facts.report().fact_folders == 1
    assert facts.forget().fact_folders == 1
    found, done = scan(root)
    assert (found[0].reason != "", done.read) == (True, 3)


def test_a_file_that_was_changed_a_moment_ago_is_read_again(root):
    age(root / PATHS[0], 1)
    age(root / PATHS[1], 4)
    scan(root)
    assert scan(root)[1].read == 1


def test_a_file_that_cannot_be_used_is_read_again(root):
    (root / PATHS[0]).write_bytes(b"hello")
    age(root / PATHS[0])
    reasons = [scan(root)[0][0].reason for _ in range(2)]
    assert reasons == ["is not a JPEG, PNG, GIF, BMP or WebP image"] * 2
    assert scan(root)[1].read == 1


@pytest.mark.parametrize("damage", ["rubbish", "cut", "other code", "a folder", "no line"])
def test_damaged_facts_are_replaced_without_a_word(root, damage, caplog):
    first, _ = scan(root)
    (file,) = (cache.cache_folder() / "facts").glob("*.tsv")
    text = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(
            {
                "rubbish": b"\xff\xfe\0" * 50,
                "cut": text[:-40],
                "other code": b"kerasft facts 0\n" + text.partition(b"\n")[2],
                "no line": text.replace(b"\t", b" "),
            }[damage]
        )
    found, done = scan(root)
    assert found == first
    assert done.read == (1 if damage == "cut" else 3)
    assert damage == "a folder" or scan(root)[1].read == 0
    assert caplog.messages == []


def test_a_cache_that_cannot_be_written_is_left_alone(root, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "file"))
    assert [scan(root)[1].read for _ in range(2)] == [3, 3]


def test_facts_of_files_that_are_gone_are_dropped_and_others_stay(root):
    scan(root)
    (root / PATHS[0]).unlink()
    age(root / PATHS[1], 1800)
    examine_files(root, PATHS[1:2], silent)
    (file,) = (cache.cache_folder() / "facts").glob("*.tsv")
    assert [line.partition("\t")[0] for line in file.read_text().splitlines()[1:]] == [
        PATHS[2],
        PATHS[1],
    ]


def test_a_run_is_opened_by_the_facts_of_its_scan(root, tmp_path, monkeypatch):
    source = scan_source(Data(source=str(root)), seed=0)
    assert isinstance(source.scan, Scan) and source.scan.read == 36
    assert scan_source(Data(source=str(root)), seed=0).scan.read == 0
    write_splits(source, tmp_path / "splits.csv")
    write_classes(source, tmp_path / "classes.txt")
    age(root / PATHS[0], 60)
    read = []
    whole = files.digest
    monkeypatch.setattr(files, "digest", lambda path: read.append(path.name) or whole(path))
    opened = open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", Data(source=str(root)))
    assert opened.paths == source.paths
    assert read == ["circle-000.png"]
