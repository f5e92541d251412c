"""Damaged and hostile files of the cache beside stores: what is damaged counts as not there."""

import json

import pytest
from damaged import Place, as_json, cases, documents, outcome, prove, survives

from kerasft import unpacked
from kerasft.cache import MEASURED, remember, remembered
from kerasft.unpacked import Unpacked, list_unpacked

NUMBERS = {"net a": {"speed": 1.5, "difference": 0.01}, "pace b": {"images": 800.0, "disk": 1e9}}
FOUND = [
    as_json({"pace b": {"images": 10**400, "disk": 1}}),  # was an OverflowError
    as_json({"pace b": "@deep@"}),  # a RecursionError
    as_json({"pace b": {"images": float("inf"), "disk": float("nan")}}),
    as_json({"pace b": {"images": -1, "disk": "1e9"}}),
    as_json({"pace b": {"images": True, "disk": 1}}),
]


def are_numbers(found):
    return found is None or all(0 <= number < float("inf") for number in found.values())


@cases
def test_damaged_measurements_are_numbers_or_measured_again(number, tmp_path):
    place = Place.of(tmp_path, MEASURED)
    folder = place.path.parent
    writes = Place(place.path, tmp_path, (folder,))

    def check(content):
        found = survives(
            place, content, lambda: remembered(folder, "pace b", ("images", "disk")), are_numbers
        )
        outcome(writes, lambda: remember(folder, "new", {"speed": 2.0}))
        assert remembered(folder, "new", ("speed",)) == {"speed": 2.0}
        assert found is None or remembered(folder, "pace b", ("images", "disk")) == found

    prove(number, documents(NUMBERS), check, FOUND)


@pytest.fixture
def photo_set(tmp_path):
    key = "0123456789abcdef" * 2
    place = Place.of(tmp_path, f"{key}.json")
    (place.path.parent / key).mkdir()
    (place.path.parent / key / "a.jpg").write_bytes(bytes(100))
    return place


@cases
def test_a_damaged_record_of_unpacked_photos_is_told_or_they_are_of_unknown_name(number, photo_set):
    folder = photo_set.path.parent
    good = {"name": "a.zip", "files": 1, "bytes": 100, "made": 1.5}

    def read():
        unpacked._is_whole(folder, photo_set.path.stem)
        (one,) = list_unpacked(folder)
        json.dumps(unpacked.report(folder).to_json()).encode()
        return one

    def check(content):
        survives(photo_set, content, read, lambda one: isinstance(one, Unpacked) and one.files >= 0)

    found = [as_json({**good, "files": float("inf")}), as_json({**good, "files": -1})]
    prove(number, documents(good), check, found)
