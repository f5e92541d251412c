import os

import pytest
from photo_files import make, message_of

from kerasft.data.files import digest, examine, find_files, for_each_file
from kerasft.pixels.measure import Picture
from kerasft.progress import silent
from kerasft.sources.folders import walk
from kerasft.sources.layouts import place_of_folder
from kerasft.text import listing

PIXEL = (  # a GIF of one white pixel
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01"
    b"\x00\x00\x02\x02D\x01\x00;"
)


def test_links_are_followed_and_circles_end(tmp_path):
    make(tmp_path, "photos/cat/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "photos/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/cat/3.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (tmp_path / "photos/cat/again").symlink_to(tmp_path / "photos")
    assert list(walk(tmp_path / "photos")) == ["cat/1.jpg", "cat/3.jpg", "dog/2.jpg"]


def test_an_image_has_a_digest_and_no_fault(tmp_path):
    (tmp_path / "a.gif").write_bytes(PIXEL)
    expected = "3fa0e9d3e6722c36adc6b7d494414294"  # b2sum -l 128
    found = examine(tmp_path / "a.gif")
    assert (found.reason, found.digest, len(found.pixels)) == ("", expected, 32)
    assert digest(tmp_path / "a.gif") == expected


def test_the_reason_says_what_is_wrong_with_a_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert examine(tmp_path / "empty.jpg").reason == "is empty"
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    assert examine(tmp_path / "link.jpg") == Picture("cannot be read: No such file or directory")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert examine(tmp_path / "pipe.jpg") == Picture("is not a regular file")
    with open(tmp_path / "film.jpg", "wb") as film:
        film.truncate(600 << 20)  # a sparse file: takes no space
    assert examine(tmp_path / "film.jpg") == Picture("has 600 MiB, more than 512")
    (tmp_path / "bell\a.gif").write_bytes(PIXEL)
    assert examine(tmp_path / "bell\a.gif").reason.startswith("has a name with control characters")


def test_a_missing_file_and_a_pipe_have_no_digest(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert digest(tmp_path / "pipe") == ""
    assert digest(tmp_path / "nowhere") == ""


def test_progress_counts_the_files_and_ends_with_all(tmp_path):
    make(tmp_path, *(f"{number}.jpg" for number in range(250)))
    events = []
    for_each_file(digest, tmp_path, [f"{number}.jpg" for number in range(250)], events.append)
    assert [events[0].done, events[-1].done, events[-1].total] == [2, 250, 250]
    assert len(events) == 125
    assert {event.stage for event in events} == {"images"}


def test_results_come_in_the_order_of_the_files(tmp_path):
    names = [f"{number}.jpg" for number in range(50)]
    make(tmp_path, *names)
    assert for_each_file(lambda path: path.name, tmp_path, names, silent) == names


def test_a_fault_in_reading_is_not_swallowed(tmp_path):
    def fail(path):
        raise RuntimeError(path.name)

    with pytest.raises(RuntimeError, match=r"0\.jpg"):
        for_each_file(fail, tmp_path, [f"{number}.jpg" for number in range(9)], silent)


def test_moved_files_are_found_by_what_they_hold(tmp_path):
    make(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    paths = ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"]
    digests = [digest(tmp_path / path) for path in paths]
    assert find_files(place_of_folder(str(tmp_path), tmp_path), paths, digests, silent) == paths
    (tmp_path / "cat").rename(tmp_path / "a cat ü")
    (tmp_path / "dog/3.jpg").rename(tmp_path / "new.jpg")
    assert find_files(place_of_folder(str(tmp_path), tmp_path), paths, digests, silent) == [
        "a cat ü/1.jpg",
        "a cat ü/2.jpg",
        "new.jpg",
    ]


def test_files_that_changed_places_are_found(tmp_path):
    make(tmp_path, "1.jpg", "2.jpg")
    digests = [digest(tmp_path / "1.jpg"), digest(tmp_path / "2.jpg")]
    found = find_files(
        place_of_folder(str(tmp_path), tmp_path), ["2.jpg", "1.jpg"], digests, silent
    )
    assert found == ["1.jpg", "2.jpg"]


def test_missing_and_changed_files_are_named_at_once(tmp_path):
    make(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    paths = ["1.jpg", "2.jpg", "3.jpg"]
    digests = [digest(tmp_path / path) for path in paths]
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "3.jpg").write_bytes(b"edited")
    assert message_of(
        find_files, place_of_folder(str(tmp_path), tmp_path), paths, digests, silent
    ) == (
        f"{tmp_path}: 2 of the 3 images of the run are missing or have changed, and are under no "
        "other name:\n"
        "  1.jpg: is missing\n"
        "  3.jpg: has changed\n"
        "  If the photos were moved, pass `data=FOLDER`. Changed photos need a new run."
    )


def test_long_lists_end_with_a_count():
    assert listing(["a", "b", "c"], 2) == "\n  a\n  b\n  and 1 more"
    assert listing(["a", "b"], 2) == "\n  a\n  b"
