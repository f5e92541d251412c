import os
import subprocess
import sys
import time

import pytest

from kerasft import unpacked
from kerasft.errors import UserError
from kerasft.unpacked import clear, list_unpacked, photo_folder, report

FACTS = {"archive": "ab12"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "photos"


def two_files(to):
    (to / "daisy").mkdir()
    (to / "daisy" / "1.jpg").write_bytes(b"12345")
    (to / "2.jpg").write_bytes(b"67")


def must_not_run(to):
    raise AssertionError("unpacked again")


def unpack(name="photos.zip", facts=FACTS, how=two_files):
    return unpacked.unpacked(name, facts, how)


def test_photos_are_unpacked_once(folder):
    assert photo_folder() == folder
    first, held = unpack()
    assert first.parent == folder
    assert (first / "daisy/1.jpg").read_bytes() == b"12345"
    again, held_again = unpack("copy of photos.zip", how=must_not_run)
    assert again == first
    assert held is not held_again


def test_other_facts_are_another_set():
    first, _held = unpack()
    second, _held = unpack(facts={"archive": "cd34"}, how=lambda to: (to / "3.jpg").touch())
    assert sorted(path.name for path in second.iterdir()) == ["3.jpg"]
    assert first != second


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("damaged"), RuntimeError])
def test_nothing_half_unpacked_is_left(error, folder):
    def fail(to):
        two_files(to)
        raise error

    with pytest.raises(error if isinstance(error, type) else UserError):
        unpack(how=fail)
    assert [path.name for path in folder.iterdir() if path.name not in ("locks", "used")] == []
    assert list_unpacked(folder) == []
    unpack()


def test_a_disk_that_fails_is_told_with_what_to_do(folder):
    def fail(to):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError) as error:
        unpack(how=fail)
    assert str(error.value) == (
        f"photos.zip: can't be unpacked into {folder}: No space left on device.\n"
        "  Free some space, empty the cache (`kerasft cache clear`), or set KERASFT_CACHE to a "
        "folder on another disk."
    )


@pytest.mark.parametrize("harm", ["remove", "empty", "add"])
def test_a_set_that_is_not_what_it_was_is_made_again(harm):
    found, _held = unpack()
    if harm == "remove":
        (found / "2.jpg").unlink()
    elif harm == "empty":
        (found / "2.jpg").write_bytes(b"")
    else:
        (found / "3.jpg").write_bytes(b"x")
    again, _held = unpack()
    assert again == found
    assert (found / "2.jpg").read_bytes() == b"67"
    assert not (found / "3.jpg").exists()


def test_what_a_killed_process_left_is_overwritten(folder):
    found, held = unpack()
    del held
    clear(folder)
    part = folder / f".part.{found.name}"
    part.mkdir()
    (part / "half.jpg").touch()
    unpack()
    assert sorted(path.name for path in found.iterdir()) == ["2.jpg", "daisy"]


def test_the_list_says_what_was_made_of_what_and_when_it_was_used(folder):
    first, _held = unpack()
    second, _held = unpack("other.zip", {"archive": "cd34"}, lambda to: (to / "3.jpg").touch())
    os.utime(folder / f"{second.name}.json", (1767323045, 1767323045))
    assert [(one.name, one.files, one.bytes) for one in list_unpacked(folder)] == [
        ("photos.zip", 2, 7),
        ("other.zip", 1, 0),
    ]
    assert list_unpacked(folder)[1].used == 1767323045
    unpack("other.zip", {"archive": "cd34"}, must_not_run)
    assert list_unpacked(folder)[0].name == "other.zip"
    assert list_unpacked(folder)[0].used == pytest.approx(time.time(), abs=600)
    assert report(folder).photo_bytes == 7
    assert report(folder).photos[1].digest == first.name


def test_clear_removes_all_but_what_somebody_uses(folder):
    used, held = unpack()
    other, let_go = unpack("other.zip", {"archive": "cd34"}, lambda to: (to / "3.jpg").touch())
    del let_go
    assert clear(folder) == (1, 0)
    assert used.is_dir() and not other.exists()
    held.release()
    assert clear(folder) == (1, 7)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == []
    assert clear(folder) == (0, 0)


def test_clear_leaves_what_another_process_uses_and_not_what_a_dead_one_used(folder):
    code = (
        "import sys\nfrom pathlib import Path\nfrom kerasft.unpacked import unpacked\n"
        "found = unpacked('photos.zip', {'archive': 'ab12'}, "
        "lambda to: (to / '1.jpg').write_bytes(b'12345'))\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "ready\n"
    assert clear(folder) == (0, 0)
    other.kill()
    other.communicate()
    assert clear(folder) == (1, 5)


def test_clear_leaves_files_that_are_not_ours(folder):
    assert clear(folder) == (0, 0)
    assert not folder.exists()
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    unpack()
    clear(folder)
    assert (folder / "notes.txt").exists()


def test_marks_of_processes_that_have_ended_do_not_pile_up(folder):
    for _ in range(3):
        _, held = unpack()
        held.release()
    assert len(list((folder / "used").iterdir())) <= 1
