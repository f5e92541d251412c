"""Damaged and hostile splits.csv, classes.txt and facts: read as they are, or refused."""

import os
import shutil
from pathlib import Path

import pytest
from damaged import NAMES, Place, cases, damaged, outcome, prove, survives
from drawing import draw_photos
from hypothesis import strategies as st

from kerasft import run
from kerasft.config.fields import Data
from kerasft.data import facts, files
from kerasft.data.scan import open_source, scan_source, write_classes, write_splits
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import COLUMNS, read_rows
from kerasft.files import digest_of_file
from kerasft.progress import silent
from kerasft.sources.photos import SPLITS

CELLS = st.sampled_from(
    [*NAMES, "0", "2", "3", "-1", "1e0", "\u0663", "train", "test", "unused", "f" * 32, "\ufeff"]
) | st.text(max_size=3)


def written(rows):
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass") + b"\n"


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photos = draw_photos(folder / "photos")
    source = scan_source(Data(source=photos), seed=0)
    write_splits(source, folder / run.SPLITS)
    write_classes(source, folder / run.CLASSES)
    return folder


def tables(good: bytes):
    """Draws tables with the header of ours, odd cells, and damaged bytes."""
    rows = [line.split(",") for line in good.decode().splitlines()]

    def with_cells(changes):
        new = [list(row) for row in rows]
        for line, column, text in changes:
            new[line % len(new)][column % len(COLUMNS)] = text
        return written(new)

    cells = st.tuples(st.integers(0, 60), st.integers(0, 9), CELLS)
    one_row = st.lists(CELLS, min_size=7, max_size=7).map(lambda row: written([COLUMNS, row]))
    return st.lists(cells, min_size=1, max_size=4).map(with_cells) | one_row | damaged(good)


FOUND = [
    written([COLUMNS, ["a.jpg", "9", "train", "\x1b[2J", "", "", ""]]),  # cleared the screen
    written([COLUMNS, ["x" * 100_000, "9", "train", "", "", "", ""]]),
    written([["path", "\x07"]]),
    written([COLUMNS, ["../../x", "0", "train", "f" * 32, "", "", ""]]),
    written([COLUMNS, ["a.jpg", "0", "train", "no digest", "", "", ""]]),
]


@cases
def test_damaged_splits_are_rows_or_one_refusal(number, tmp_path, scanned):
    place, good = Place.of(tmp_path, run.SPLITS), (scanned / run.SPLITS).read_bytes()

    def are_rows(rows):
        for row in rows:
            assert len(row) == len(COLUMNS)
            assert row[1] in ("0", "1", "2") and row[2] in (*SPLITS, UNUSED)
            assert bytes.fromhex(row[3]) is not None
        return True

    prove(
        number,
        tables(good),
        lambda content: survives(place, content, lambda: read_rows(place.path, 3), are_rows),
        FOUND,
    )


@cases
def test_a_run_with_damaged_splits_opens_photos_of_its_folder_alone_or_is_refused(
    number, tmp_path, scanned, monkeypatch
):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    place, good = Place.of(tmp_path, run.SPLITS), (scanned / run.SPLITS).read_bytes()
    place = Place(place.path, place.top, (tmp_path / "cache",))
    classes = place.path.with_name(run.CLASSES)
    shutil.copy(scanned / run.CLASSES, classes)
    secret = next((scanned / "photos").rglob("*.*"))
    shutil.copy(secret, scanned / "secret.png")
    outside = ["../secret.png", "0", "train", digest_of_file(secret), "", "", ""]
    data = Data(source=scanned / "photos")
    open_source(scanned / run.SPLITS, classes, data)

    def are_inside(source):
        used = [path for path, split in zip(source.paths, source.splits, strict=True)
                if split != UNUSED]  # fmt: skip
        return isinstance(source, Source) and all(
            os.path.realpath(scanned / "photos" / path).startswith(f"{scanned / 'photos'}/")
            for path in used
        )

    few = min(number, 2_000)  # each opens 36 photos
    prove(
        few,
        tables(good),
        lambda content: survives(
            place, content, lambda: open_source(place.path, classes, data), are_inside, named=os.sep
        ),
        [*FOUND, written([COLUMNS, outside])],
    )


@cases
def test_damaged_facts_of_photos_are_the_facts_or_the_photos_are_read_again(
    number, tmp_path, scanned, monkeypatch
):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "outer"))
    photos = scanned / "photos"
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    for name in names:
        os.utime(photos / name, ns=(10**18, 10**18))
    truth, _ = files.examine_files(photos, names, silent)
    (file,) = (tmp_path / "outer" / facts.FOLDER).glob("*.tsv")
    good = file.read_bytes()
    place = Place(file, tmp_path, (tmp_path / "outer",))
    few = min(number, 2_000)  # each looks at 36 photos

    def check(content):
        survives(place, content, lambda: files.examine_files(photos, names, silent)[0], list)
        assert files.examine_files(photos, names, silent)[0] == truth

    prove(few, damaged(good), check)
    assert isinstance(outcome(place, lambda: good, bytes), bytes)
    assert Path(file).exists()
