"""Damaged and hostile files of the cache of activations: rows, or nothing, and then not there."""

import io
import json

import numpy as np
import pytest
from damaged import Place, as_json, cases, damaged, documents, outcome, prove, survives
from hypothesis import strategies as st

from kerasft.activations import eviction, segments, store
from kerasft.activations.eviction import StoreInfo, list_stores
from kerasft.activations.segments import Segments
from kerasft.activations.store import Gathered, Key, open_store, read_header
from kerasft.cache import SETTINGS
from kerasft.errors import UserError

FACTS = {"cut": "block", "kerasft": 1}
ROWS = tuple((f"{number:032x}", view) for number in range(3) for view in range(2))
TENSOR, KEY = Key(FACTS), Key(FACTS, ROWS)
VALUES = np.arange(len(ROWS) * 4, dtype="float32").reshape(len(ROWS), 4)


@pytest.fixture
def place(tmp_path):
    """Makes a store; its files are in the folder that may be changed, because it is the cache."""
    folder = tmp_path / "outer" / "inside"
    place = Place.of(tmp_path, f"{KEY.digest}.npy", folder)
    with store.filling(folder, [KEY]), store.writing(folder, KEY, VALUES.shape, "float32") as file:
        file.append(VALUES)
    return place


def header(shape, descr="<f4", rows=b""):
    """Writes a header by hand: whatever it says."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + rows


FOUND = [
    header("()", rows=b"\0" * 4),  # was an IndexError
    header(f"(0, {2**70})"),  # an OverflowError
    header("(" * 200 + ")" * 200),  # a MemoryError of Python's parser
    header(f"({2**60},)"),
    header("(True,)", rows=b"\0" * 4),  # a TypeError
    header("(6, 4)", ">f4", VALUES.tobytes()),  # other numbers, with the same checksum
    header("(-1, -4)", rows=b"\0" * 16),
    header("(6, 4)", "|O", rows=b"\x80\x04N." * 24),  # a pickle
    header("__import__('os').system('true')"),
]
SHAPES = st.sampled_from(
    [
        *("()", "(0,)", "(6, 4)", "(6.0, 4)", "(True,)", "(1,)*9", "[6]", "(-1, 4)", "(6, 4, 0)"),
        *(f"({2**60}, 4)", f"(0, {2**63})", "(" * 80 + ")" * 80, "{'a': 1}", "x", "(6, 4"),
    ]
)
TYPES = st.sampled_from(
    ["<f4", "<f2", ">f4", "<f8", "|O", "|V9", "<U0", "", "x", "<f4,<f4", "|S4", "<M8[D]", "|b1"]
)
HEADERS = st.builds(header, SHAPES, TYPES, st.sampled_from([b"", b"\0" * 4, VALUES.tobytes()]))


def are_rows(found):
    return found is None or (isinstance(found, np.ndarray | Gathered) and len(found) == len(ROWS))


@cases
def test_a_damaged_array_is_the_rows_or_nothing(number, place):
    folder, good = place.path.parent, place.path.read_bytes()
    described = place.path.with_suffix(".json").read_bytes()

    def check(content):
        segments._verified.clear()
        segments._damaged.clear()
        place.path.with_suffix(".json").write_bytes(described)
        found = survives(
            place, content, lambda: Segments.of(folder, TENSOR).open(folder, ROWS), are_rows
        )
        if found is not None and not isinstance(found, UserError):
            np.testing.assert_array_equal(found, VALUES)

    prove(number, damaged(good) | HEADERS, check, FOUND)
    place.path.write_bytes(good)
    segments._damaged.clear()
    np.testing.assert_array_equal(Segments.of(folder, TENSOR).open(folder, ROWS), VALUES)


@cases
def test_a_damaged_header_is_a_shape_or_a_value_error_and_the_store_is_gone(number, place):
    good = place.path.read_bytes()

    def read():
        try:
            shape, dtype = read_header(place.path)
            assert dtype in ("float16", "float32")
            assert all(side >= 0 for side in shape)
        except ValueError:
            pass
        rows = open_store(place.path.parent, KEY)
        return rows is None or isinstance(rows, np.ndarray)

    prove(number, damaged(good) | HEADERS, lambda c: survives(place, c, read, bool), FOUND)


@cases
def test_a_damaged_description_is_the_rows_or_nothing_and_can_be_listed(number, place):
    folder, described = place.path.parent, place.path.with_suffix(".json")
    good = json.loads(described.read_text())

    def read():
        listed = list_stores(folder)
        assert all(isinstance(one, StoreInfo) and type(one.made) in (int, float) for one in listed)
        eviction.HeldTensors.of(listed)
        return Segments.of(folder, TENSOR).open(folder, ROWS)

    def check(content):
        segments._damaged.clear()
        described.write_bytes(content)
        found = outcome(place, read, are_rows)
        if found is not None and not isinstance(found, UserError):
            np.testing.assert_array_equal(found, VALUES)

    array = place.path.read_bytes()
    found = [
        as_json({**good, "made": 10**400}),  # was an OverflowError
        as_json({**good, "facts": "@deep@"}),  # a RecursionError
        as_json({**good, "rows": {"photos": "", "views": {"a": 1}}}),
        as_json({**good, "crc32": True}),
    ]

    def check_with_array(content):
        place.path.write_bytes(array)
        check(content)

    prove(number, documents(good), check_with_array, found)


@cases
def test_damaged_settings_are_a_limit_or_one_refusal(number, tmp_path):
    place = Place.of(tmp_path, SETTINGS)

    def check(content):
        survives(place, content, lambda: eviction.limit_of(place.path.parent), int)

    prove(number, documents({"limit": 10**9}), check, [b"[" * 20_000, b'{"limit": true}'])


def test_the_header_of_this_test_is_that_of_numpy():
    content = io.BytesIO()
    np.save(content, VALUES)
    assert header("(6, 4)", rows=VALUES.tobytes())[-96:] == content.getvalue()[-96:]
    assert len(header("(6, 4)")) == 128
