import time
from pathlib import Path

import pytest

from kerasft.activations.eviction import HeldTensors, StoreReport
from kerasft.cli.cache import cache_text, limit_text, removed_text
from kerasft.data.facts import FactReport
from kerasft.pixels.convert import Converted
from kerasft.unpacked import PhotoReport, Unpacked


@pytest.fixture(autouse=True)
def greenwich(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def held(facts, photos=1498, views=4, dtype="float16"):
    return HeldTensors(facts, photos, views, 3, 225_494_144, 0.0, 1767323045.0, dtype)


NOTHING = FactReport(0, 0)


def text_of(*tensors, photos=(), facts=NOTHING, converted=(0, 0)):
    size, limit = 225_494_144 * len(tensors), 20 * 10**9
    return cache_text(
        StoreReport(tensors, size, limit, Path("/home/ada/.cache/kerasft")),
        PhotoReport(tuple(photos), 5_000_000 * len(photos)),
        facts,
        Converted(*converted),
    )


def test_converted_photos_are_counted():
    lines = text_of(converted=(3, 2_000_000)).splitlines()
    assert lines[-1] == "and 2.0 MB of 3 converted photos"


def test_a_net_at_a_cut_is_a_line_and_the_sum_comes_last():
    known = {"backbone": "MobileNetV2", "dtype": "float16"}
    assert text_of(
        held({**known, "blocks": 3}, views=12), held({**known, "blocks": 0}, photos=90)
    ).splitlines() == [
        "backbone     cut             photos  views  dtype        size  last used",
        "MobileNetV2  3 from the top   1,498     12  float16  225.5 MB  2026-01-02 03:04",
        "MobileNetV2  features            90      4  float16  225.5 MB  2026-01-02 03:04",
        "",
        "451.0 MB of at most 20.0 GB in /home/ada/.cache/kerasft",
    ]


def test_features_are_named_where_they_are_not_the_usual_ones():
    cuts = [
        {"blocks": 0, "features": "flat"},
        {"blocks": 0, "features": "flat", "leave_out": 3},
        {"blocks": 0, "leave_out": 3},
        {"blocks": 0, "features": "fc7"},
        {"blocks": 2, "features": "fc7"},
    ]
    lines = text_of(*map(held, cuts)).splitlines()[1:6]
    assert [line[9:39].strip() for line in lines] == [
        "flat features",
        "flat features 3 from the top",
        "features 3 from the top",
        "fc7 features",
        "2 from the top",
    ]


def test_a_store_of_which_nothing_is_known_is_a_line_too():
    assert text_of(held({}, photos=0, views=0, dtype="")).splitlines() == [
        "backbone  cut       photos    views  dtype        size  last used",
        "unknown   unknown  unknown  unknown  damaged  225.5 MB  2026-01-02 03:04",
        "",
        "225.5 MB of at most 20.0 GB in /home/ada/.cache/kerasft",
    ]


def test_unpacked_photos_are_lines_of_their_own():
    photos = [Unpacked("0" * 32, "/home/ada/photos.zip", 1498, 5_000_000, 1767323045.0)]
    assert text_of(photos=photos).splitlines() == [
        "/home/ada/photos.zip: 1,498 files unpacked, 5.0 MB, last used 2026-01-02 03:04",
        "",
        "0 bytes of at most 20.0 GB in /home/ada/.cache/kerasft",
        "and 5.0 MB of unpacked photos, which the limit does not include",
    ]
    both = text_of(held({}), photos=photos).splitlines()
    assert [line[:10] for line in both] == [
        "backbone  ",
        "unknown   ",
        "",
        "/home/ada/",
        "",
        "225.5 MB o",
        "and 5.0 MB",
    ]


def test_remembered_facts_are_counted_by_folder():
    assert text_of(facts=FactReport(2, 40_000)).splitlines()[-1] == (
        "and 40.0 kB of facts of the photos in 2 folders"
    )


def test_an_empty_cache_is_one_line():
    assert text_of() == "0 bytes of at most 20.0 GB in /home/ada/.cache/kerasft"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "Removed 0 stores, 36.2 MB."),
        (1, "Removed 1 store, 36.2 MB."),
        (1200, "Removed 1,200 stores, 36.2 MB."),
    ],
)
def test_what_was_removed_is_counted(number, text):
    assert removed_text({"removed": number, "photos": 0, "bytes": 36_200_000}) == text


def test_photos_that_were_removed_are_counted_too():
    assert removed_text({"removed": 2, "photos": 1, "bytes": 36_200_000}) == (
        "Removed 2 stores and the photos of 1 source, 36.2 MB."
    )
    assert removed_text({"removed": 0, "photos": 3, "bytes": 36_200_000}) == (
        "Removed 0 stores and the photos of 3 sources, 36.2 MB."
    )


def test_a_limit_says_what_had_to_go_for_it():
    result = {"limit": 5 * 10**9, "removed": 0, "bytes": 0}
    assert limit_text(result) == "The cache may hold 5.0 GB."
    assert limit_text({**result, "removed": 2, "bytes": 7 * 10**9}) == (
        "The cache may hold 5.0 GB. Removed 2 stores, 7.0 GB."
    )
