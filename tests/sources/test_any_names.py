"""Whatever folders, files and tables are called and hold: a source, or one clear refusal.

Each property runs with a few examples, and with many of them where slow tests run.
"""

import csv
import io
import tempfile
import unicodedata
from pathlib import Path

import pyarrow
import pytest
from encoded import blocks, encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kerasft.cli.wording import for_terminal
from kerasft.config.fields import Data
from kerasft.data.scan import scan_for_model, scan_source
from kerasft.errors import UserError
from kerasft.progress import silent
from kerasft.sources.find import list_photos
from kerasft.text import is_writable

FEW, SOME, MANY = (
    settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))
    for number in (150, 600, 5000)
)
SPLITS = {"", "all", "train", "validation", "test", "unused"}

# Names of folders and files

WORDS = (
    *(
        "cat",
        "Cat",
        "cat ",
        " cat",
        "c\u00e4t",
        "ca\u0308t",
        "dog",
        "valid",
        "test tubes",
        "unknown",
    ),
    *(
        "train",
        "Training",
        "test",
        "TEST1",
        "val",
        "seg_train",
        "pred",
        "masks",
        "images",
        "part_1",
    ),
    *(
        "part 2",
        "1",
        "02",
        "-",
        "=x",
        "a,b",
        'q"q',
        "a\nb",
        "a\tb",
        "\u202eabc",
        "\U0001f431",
        "\x07",
    ),
    *(
        ".hidden",
        "__MACOSX",
        "Icon\r",
        "con",
        "*",
        "[a]",
        "%s",
        "{}",
        "~",
        "\\",
        "a\\b",
        "'",
        "\udcff",
    ),
    *(
        "x" * 250,
        "\u00df" * 120,
        "train_labels",
        "labels",
        "photos.zip",
        "a.b.c",
        "cat.1",
        "IMG_0001",
    ),
)
ENDINGS = (".jpg", ".PNG", ".jpeg", ".tif", ".heic", ".gif", "", ".txt", ".csv", ".json", ".db")


def is_name(text: str) -> bool:
    fits = text not in ("", ".", "..") and not {"/", "\0"} & set(text)
    return fits and len(text.encode("utf-8", "surrogateescape")) <= 255


characters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
names = (st.sampled_from(WORDS) | st.text(characters, min_size=1, max_size=12)).filter(is_name)
files = st.tuples(names, st.sampled_from(ENDINGS)).map("".join).filter(is_name)
paths = st.tuples(st.lists(names, max_size=4), files).map(lambda parts: (*parts[0], parts[1]))
PICTURES = [encode(blocks().rotate(angle), "PNG") for angle in (0, 20, 40, 60, 80)]
contents = st.sampled_from(
    [*PICTURES, *PICTURES, PICTURES[0][:60], b"", b"path,label\na.jpg,cat\n"]
)

# Few different folders, so that some hold several files.
trees = st.lists(names, min_size=1, max_size=4).flatmap(
    lambda few: st.lists(
        st.tuples(
            st.tuples(st.lists(st.sampled_from(few), max_size=3), files).map(
                lambda parts: (*parts[0], parts[1])
            )
            | paths,
            contents,
        ),
        max_size=16,
    )
)
layouts = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["auto", "auto", "classes", "splits"]),
        "label_from": st.sampled_from([None, None, None, "([a-z]+)", "^(.)", "/", "(a)|(b)", "x*"]),
    }
)


def plant(root: Path, tree) -> None:
    """Writes the files of a tree; those whose path is taken, or too long, are left out."""
    for parts, content in tree:
        path = root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError:  # a file where a folder should be, or the other way round
            continue


def is_a_source_or_refused(source: Path, **fields) -> None:
    """Checks that listing and reading a source give photos below it, or one refusal."""
    lenient = {"bad_images": "skip", "small_classes": "train_only"}
    for more in ({}, lenient):
        data = Data(source=str(source), **fields, **more)
        try:
            place, listed = list_photos(data, silent)
        except UserError as error:
            can_be_shown(error)
            continue
        assert all(photo.split in SPLITS and photo.class_name for photo in listed.photos)
        assert all(is_writable(photo.class_name + photo.group) for photo in listed.photos)
        assert all(".." not in Path(photo.path).parts for photo in listed.photos)
        assert len({photo.path for photo in listed.photos}) == len(listed.photos)
        for read in (
            lambda data=data: scan_source(data, seed=0),
            lambda data=data: scan_for_model(data, ("cat", "dog")),
        ):
            try:
                found = read()
            except UserError as error:
                can_be_shown(error)
                continue
            assert len(found.paths) == len(found.labels) == len(found.splits) > 0
            assert set(found.splits.tolist()) <= SPLITS
            assert all((place.root / path).is_file() for path in found.paths)
            for name in found.class_names:
                assert name == unicodedata.normalize("NFC", name) and is_writable(name)


def can_be_shown(error: UserError) -> None:
    text = for_terminal(str(error))
    assert all(is_writable(line) for line in text.split("\n")) and "Traceback" not in text


def check_tree(tree, fields) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), tree)
        is_a_source_or_refused(Path(folder), **fields)


@FEW
@given(trees, layouts)
def test_any_folder_is_a_source_or_refused(tree, fields):
    check_tree(tree, fields)


@pytest.mark.slow
@MANY
@given(trees, layouts)
def test_very_many_folders_are_sources_or_refused(tree, fields):
    check_tree(tree, fields)


# Tables

ROOT_FILES = ("a.jpg", "sub/b.jpg", "sub/b c.jpg", "c\u00e4t.jpg", "train/d.jpg")
VALUES = (
    *(
        *ROOT_FILES,
        "a",
        "b",
        "sub\\b.jpg",
        "./a.jpg",
        "../a.jpg",
        "/etc/passwd",
        "A.JPG",
        "sub",
        "d",
    ),
    *("http://x.org/a.jpg", "s3://b/a.jpg?x=1", "cat", "dog", "Cat", "cat ", "cat|dog", "cat, dog"),
    *(
        "train",
        "valid",
        "test",
        "unlabelled",
        "0",
        "1",
        "0.5",
        "1.0",
        "nan",
        "-inf",
        "1e999",
        "true",
    ),
    *(
        "False",
        "",
        " ",
        '"',
        'a"b',
        "'",
        "\u00e9",
        "\ufeffa.jpg",
        "\udcff",
        "\0",
        "\x1b[2J",
        "x" * 300,
    ),
)
HEADERS = (
    *(
        "path",
        "label",
        "split",
        "group",
        "Path",
        " label ",
        "file_name",
        "image_id",
        "id",
        "target",
    ),
    *("is_valid", "test", "val", "spilt", "patient_id", "", "Unnamed: 0", "cat", "dog", "a.jpg"),
    *("dx", "class", "x" * 300, "a=b", "a,b", "\x07", "name"),
)
cells = st.sampled_from(VALUES) | st.text(max_size=6)
headers = st.lists(st.sampled_from(HEADERS) | st.text(max_size=6), max_size=5)
written = st.fixed_dictionaries(
    {
        "mark": st.sampled_from(",,;\t|"),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, None]),
        "start": st.sampled_from(["", "\ufeff", "\n", "sep=,\n", "# "]),
        "end": st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
        "encoding": st.sampled_from(["utf-8", "utf-8", "utf-8", "latin-1", "utf-16"]),
        "ending": st.sampled_from([".csv", ".tsv", ".txt"]),
    }
)
roles = st.fixed_dictionaries(
    {
        "columns": st.lists(
            st.tuples(
                st.sampled_from(["path", "label", "split", "group", "ignore"]),
                st.sampled_from(HEADERS).filter(bool) | st.just("cat,dog"),
            ).map("=".join),
            max_size=2,
        )
        | st.just([]),
        "label_from": st.sampled_from([None, None, "(.)", "/(.)"]),
    }
)


some = st.lists(st.sampled_from(VALUES), min_size=1, max_size=4).flatmap(st.sampled_from)
usual = {"path": st.sampled_from(ROOT_FILES), "label": st.sampled_from(["cat", "dog"]) | some}


@st.composite
def tables(draw):
    """Draws a header, and rows whose columns mostly hold values of a kind."""
    header = draw(headers)
    if draw(st.booleans()):  # a table that is nearly right gets further
        header = draw(st.permutations(["path", "label", *header[:2]]))
    values = [usual.get(name, some) for name in header]
    wild = st.lists(cells, max_size=6) if draw(st.integers(0, 5)) == 0 else st.nothing()
    rows = draw(st.lists(st.tuples(*values).map(list) | wild, max_size=12))
    for row in rows:
        if row and draw(st.integers(0, 7)) == 0:
            row[draw(st.integers(0, len(row) - 1))] = draw(cells)
    return [header, *rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for path, picture in zip(ROOT_FILES, PICTURES, strict=True):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(picture)
    return folder


def text_of(rows, mark, quoting, end) -> str:
    if quoting is None:
        return end.join(mark.join(row) for row in rows)
    text = io.StringIO()
    csv.writer(text, delimiter=mark, quoting=quoting, lineterminator=end).writerows(rows)
    return text.getvalue()


def check_table(folder, rows, how, fields) -> None:
    text = how["start"] + text_of(rows, how["mark"], how["quoting"], how["end"])
    errors = "surrogatepass" if how["encoding"] != "latin-1" else "replace"
    table = folder / f"table{how['ending']}"
    table.write_bytes(text.encode(how["encoding"], errors))
    try:
        is_a_source_or_refused(table, **fields)
    finally:
        table.unlink()


@SOME
@given(tables(), written, roles)
def test_any_table_is_a_source_or_refused(folder, rows, how, fields):
    check_table(folder, rows, how, fields)


@pytest.mark.slow
@MANY
@given(tables(), written, roles)
def test_very_many_tables_are_sources_or_refused(folder, rows, how, fields):
    check_table(folder, rows, how, fields)


# Parquet

columns = st.one_of(
    *(
        st.lists(st.none() | values, min_size=6, max_size=6)
        for values in (
            st.sampled_from(VALUES).filter(is_writable),
            st.sampled_from(ROOT_FILES),
            st.sampled_from(["cat", "dog"]),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 1),
            st.floats(),
            st.booleans(),
            st.binary(max_size=4),
            st.dates(),
            st.lists(st.sampled_from(["cat", "dog"]), max_size=2),
            st.fixed_dictionaries({"bytes": st.binary(max_size=4), "path": st.just("a.jpg")}),
        )
    )
)
frames = st.dictionaries(st.sampled_from(HEADERS), columns, max_size=4)


def check_frame(folder, frame, fields) -> None:
    table = folder / "table.parquet"
    parquet.write_table(pyarrow.table(frame), table)
    try:
        is_a_source_or_refused(table, **fields)
    finally:
        table.unlink()


@FEW
@given(frames, roles)
def test_any_parquet_file_is_a_source_or_refused(folder, frame, fields):
    check_frame(folder, frame, fields)


@pytest.mark.slow
@MANY
@given(frames, roles)
def test_very_many_parquet_files_are_sources_or_refused(folder, frame, fields):
    check_frame(folder, frame, fields)
