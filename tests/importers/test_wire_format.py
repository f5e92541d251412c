"""The wire format: fields of hand-made bytes, and lengths that are not true."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from caffe_files import floats, number, part, tag, varint

from kerasft.errors import UserError
from kerasft.importers.caffemodel import BYTES, BYTES_4, BYTES_8, VARINT, Walk, is_text, mapped


def walk_of(content: bytes) -> Walk:
    data = mmap.mmap(-1, len(content))
    data[:] = content
    return Walk(Path("net.caffemodel"), "caffemodel", data)


def fields_of(content):
    return list(walk_of(content).fields(0, len(content)))


def message_of(content):
    with pytest.raises(UserError) as error:
        fields_of(content)
    return str(error.value).removeprefix("net.caffemodel: ")


def test_fields_of_all_kinds_are_found_where_they_are():
    content = number(1, 300) + part(100, b"abc") + tag(5, 5) + b"1234" + tag(8, 1) + b"12345678"
    assert [tuple(field) for field in fields_of(content)] == [
        (1, VARINT, 0, 1, 3),
        (100, BYTES, 3, 6, 9),
        (5, BYTES_4, 9, 10, 14),
        (8, BYTES_8, 14, 15, 23),
    ]


def test_numbers_take_up_to_ten_bytes():
    for value in (0, 127, 128, 300, 2**63, 2**64 - 1):
        content = varint(value)
        assert walk_of(content).varint(0, len(content)) == (value, len(content))
    assert walk_of(b"\x80" * 9 + b"\x00").varint(0, 10) == (0, 10)


def test_bits_beyond_the_64th_are_dropped_as_by_google():
    assert walk_of(b"\xff" * 9 + b"\x7f").varint(0, 10) == (2**64 - 1, 10)


@pytest.mark.parametrize("count", [1, 2, 1_024, 1_025, 6_000])
def test_numbers_of_fixed_size_in_a_row_are_one_field(count):
    values = [tag(5, 5) + floats(float(value)) for value in range(count)]
    content = b"".join(values) + number(1, 7)
    walk = walk_of(content)
    first, second = walk.fields(0, len(content))
    assert (first.at, first.end) == (0, 5 * count)
    assert second.number == 1
    np.testing.assert_array_equal(walk.values(first, "<f4"), np.arange(count))


def test_a_tag_of_two_bytes_is_no_row():
    content = 2 * (tag(100, 5) + b"1234")
    assert [field.end for field in fields_of(content)] == [6, 12]


def test_values_are_views_and_can_not_be_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(part(5, floats(1.5, -2.5)) + bytes(3 * [16, 0]))
    with mapped(path, "caffemodel") as data:
        walk = Walk(path, "caffemodel", data)
        values = walk.values(next(walk.fields(0, len(data))), "<f4")
        np.testing.assert_array_equal(values, np.float32([1.5, -2.5]))
        assert values.base is not None
        assert not values.flags.writeable


def test_several_pieces_become_one_array():
    walk = walk_of(b"1")
    one, two = np.float32([1, 2]), np.float32([3])
    assert walk.joined([one], "x") is one
    np.testing.assert_array_equal(walk.joined([one, two], "x"), np.float32([1, 2, 3]))


def test_pieces_of_more_than_a_gigabyte_are_not_copied():
    walk = walk_of(b"1")
    piece = np.broadcast_to(np.float32(0), (100_000_000,))
    with pytest.raises(UserError, match=r"^x: with it more than 1,024 MB lie in pieces"):
        walk.joined(3 * [piece], "x")


@pytest.mark.parametrize(
    ("content", "at"),
    [(part(1, b"abc")[:-1], "0 ends at byte 5"), (number(2, 1) + tag(5, 5) + b"123", "2 ends")],
)
def test_a_field_beyond_the_end_is_refused(content, at):
    message = message_of(content)
    assert message.startswith(f"is cut off or damaged: the field at byte {at}")
    assert f"but the file ends at byte {len(content)}." in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x0b", "at byte 0 a group begins or ends, which Caffe does not write."),
        (number(2, 1) + b"\x0c", "at byte 2 a group begins or ends, which Caffe does not write."),
        (b"\x0e", "at byte 0 there is no field."),
        (b"\x00", "at byte 0 there is no field."),
        (varint(2**32), "at byte 0 there is no field."),
        (number(2, 1) + b"\xff" * 11, "at byte 2 a number does not end."),
        (b"\x08\xff", "at byte 1 a number does not end."),
        (b"\x0a", "at byte 1 a number does not end."),
    ],
)
def test_damage_is_named_with_its_place(content, expected):
    assert message_of(content) == (
        f"is damaged, or not a caffemodel: {expected} Copy or download it again."
    )


def test_values_whose_length_is_no_multiple_of_their_size_are_refused():
    walk = walk_of(part(5, b"12345"))
    field = next(walk.fields(0, 7))
    with pytest.raises(UserError, match="at byte 0 5 bytes are no values of 4 bytes each"):
        walk.values(field, "<f4")


def test_a_field_of_another_kind_is_refused():
    walk = walk_of(number(5, 3))
    with pytest.raises(UserError, match="at byte 0 field 5 is not what Caffe writes there"):
        walk.values(next(walk.fields(0, 2)), "<f4")


def test_the_walk_ends_after_so_many_fields():
    message = message_of(number(2, 1) * 150_000)
    assert message.startswith("has more than 100,000 fields, as if it were made to be read")


def test_reading_packed_numbers_stops_behind_the_most_that_are_wanted():
    walk = walk_of(part(1, b"\x01" * 100))
    assert walk.numbers(next(walk.fields(0, 102)), 32) == 33 * [1]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"layer {\r\n\t}", True),
        ("# 卷积".encode("gbk"), True),
        (b"\n\x08CaffeNet", False),
        (b"\x00", False),
        (b"a" * 4096 + b"\x00", True),
    ],
)
def test_text_has_no_control_characters(start, expected):
    assert is_text(start) is expected


def test_the_mapping_is_closed_unless_somebody_views_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(1, 101)))
    with mapped(path, "caffemodel") as data:
        pass
    assert data.closed
    with mapped(path, "caffemodel") as data:
        view = np.frombuffer(data, "uint8")
    assert not data.closed
    np.testing.assert_array_equal(view, np.arange(1, 101))
    del view
    data.close()
