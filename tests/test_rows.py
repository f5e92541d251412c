import importlib.util
from functools import partial

import pytest

from kerasft.errors import UserError
from kerasft.rows import open_csv, open_parquet
from kerasft.rows import open_list as open_any_list

open_list = partial(open_any_list, is_photo=lambda text: text.endswith(".jpg"))


def read(path, columns, opener=open_csv):
    with opener(path) as table:
        return table, list(table.rows(columns))


def message_of(path, columns=(0, 1), opener=open_csv):
    with pytest.raises(UserError) as error:
        read(path, columns, opener)
    return str(error.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_commas_semicolons_and_tabs_are_told_apart(tmp_path, delimiter, encoding, end):
    lines = [["path", "label"], ["a b.jpg", "gr\u00fcn"], ["c.jpg", '"one, two; three\t"']]
    text = end.join(delimiter.join(line) for line in lines) + end
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    table, rows = read(tmp_path / "a.csv", [1, 0])
    assert (table.unit, table.header, table.kinds) == ("line", ["path", "label"], ["text"] * 2)
    assert rows == [(2, ["gr\u00fcn", "a b.jpg"]), (3, ["one, two; three\t", "c.jpg"])]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    (tmp_path / "a.csv").write_text('path,label\n\na.jpg,"two\nlines"\nb.jpg\nc.jpg, cat\n')
    _, rows = read(tmp_path / "a.csv", [1])
    assert rows == [(4, ["two\nlines"]), (5, ()), (6, ["cat"])]


def test_what_is_no_csv_file_is_told_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_text('path,label\na.jpg,"cat\n')
    assert message_of(tmp_path / "a.csv") == (
        f"{tmp_path / 'a.csv'}: line 2: unexpected end of data."
    )
    (tmp_path / "b.csv").write_bytes("path,label\na.jpg,cat\n".encode("utf-16"))
    assert message_of(tmp_path / "b.csv") == (
        f"{tmp_path / 'b.csv'}: is not UTF-8 text. Save it as CSV in UTF-8."
    )
    assert "can't be read: Is a directory" in message_of(tmp_path)


def test_an_empty_file_has_no_header(tmp_path):
    (tmp_path / "a.csv").touch()
    table, rows = read(tmp_path / "a.csv", [])
    assert (table.header, rows) == ([], [])


def test_a_parquet_file_gives_the_columns_that_are_asked_for(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "path": ["a.jpg", "b.jpg", None],
        "size": [1, 2, 3],
        "label": pyarrow.array(["cat", "dog", "cat"]).dictionary_encode(),
        "tags": [["a"], [], None],
        "image": [b"x", b"y", b"z"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=2)
    table, rows = read(tmp_path / "a.parquet", [2, 0], open_parquet)
    assert (table.unit, list(table.header)) == ("row", ["path", "size", "label", "tags", "image"])
    assert table.kinds == ["text", "number", "text", "list", "binary"]
    assert rows == [(1, ("cat", "a.jpg")), (2, ("dog", "b.jpg")), (3, ("cat", None))]


def test_what_is_no_parquet_file_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_text("path,label\n")
    message = message_of(tmp_path / "a.parquet", opener=open_parquet)
    assert message.startswith(f"{tmp_path / 'a.parquet'}: can't be read as Parquet: ")
    assert "\n" not in message


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.parquet", [], open_parquet)
    assert str(error.value).endswith("needs pyarrow. Install it: pip install 'kerasft[parquet]'")
    assert error.value.exit_code == 2


@pytest.mark.parametrize("gap", [" ", "\t", "   "])
def test_a_list_has_a_path_and_a_label_in_each_line(tmp_path, gap):
    (tmp_path / "a.txt").write_text(f"cat/a b.jpg{gap}0\n\ndog/c.jpg{gap}1\nd.jpg\n")
    table, rows = read(tmp_path / "a.txt", [1, 0], open_list)
    assert (table.unit, table.header) == ("line", ["path", "label"])
    assert rows == [(1, ["0", "cat/a b.jpg"]), (3, ["1", "dog/c.jpg"]), (4, ())]


def test_a_list_with_commas_is_csv_and_one_of_paths_has_one_column(tmp_path):
    (tmp_path / "a.txt").write_text("path,label\na b.jpg,cat\n")
    assert read(tmp_path / "a.txt", [0], open_list)[1] == [(2, ["a b.jpg"])]
    (tmp_path / "b.txt").write_text("cat_1.jpg\ncat_2.jpg\n")
    table, rows = read(tmp_path / "b.txt", [0], open_list)
    assert (table.header, rows) == (["path"], [(1, ["cat_1.jpg"]), (2, ["cat_2.jpg"])])
    (tmp_path / "b.txt").write_text("my photos/cat 1.jpg\ndog 2.jpg\ndog 3.jpg 0\n")
    table, rows = read(tmp_path / "b.txt", [0], open_list)
    assert (table.header, rows) == (
        ["path"],
        [(1, ["my photos/cat 1.jpg"]), (2, ["dog 2.jpg"]), (3, ())],
    )
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    assert message_of(tmp_path / "c.txt", [0], open_list).endswith("c.txt: is not UTF-8 text.")


def test_the_path_of_a_file_may_hold_commas_in_a_list(tmp_path):
    (tmp_path / "cat, black 1.jpg").touch()
    (tmp_path / "a.txt").write_text("cat, black 1.jpg\ncat, white 2.jpg\n")
    table, rows = read(tmp_path / "a.txt", [0], open_list)
    assert (table.header, len(rows)) == (["path"], 2)
    assert rows[1] == (2, ["cat, white 2.jpg"])
    (tmp_path / "b.txt").write_text("long, " * 1000)
    assert len(read(tmp_path / "b.txt", [0], open_list)[0].header) == 1001


def test_a_table_without_header_has_numbers_for_names_and_its_first_line_as_a_row(tmp_path):
    (tmp_path / "a.csv").write_text("a.jpg,cat\nb.jpg,dog\n")
    with open_csv(tmp_path / "a.csv") as table:
        plain = table.without_header()
        assert plain.header == ["1", "2"]
        assert list(plain.rows([1, 0])) == [(1, ["cat", "a.jpg"]), (2, ["dog", "b.jpg"])]
