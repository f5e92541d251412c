import importlib.util

import pytest

from kerasft.data.tables import open_csv, open_parquet
from kerasft.errors import UserError


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
