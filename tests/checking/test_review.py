"""`review_run` on a small run: what it chooses and writes, and that `update` takes the table."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from drawing import draw_photos
from html_page import Page
from small_run import small_run

from kerasft.checking.review import review_run
from kerasft.config.fields import Data
from kerasft.data.splits import read_rows
from kerasft.errors import UserError
from kerasft.evaluation.predict import predict
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.progress import silent
from kerasft.results import plain
from kerasft.sources.tables import find_csv


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = small_run(tmp_path_factory.mktemp("review"))
    draw_photos(run.parent / "fresh", seed=1)
    return run


@pytest.fixture
def inbox(run, tmp_path):
    """A folder of 36 new photos, half of them in a folder of its own."""
    folder = tmp_path / "inbox"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(sorted((run.parent / "fresh").rglob("*.*"))):
        shutil.copy(path, folder / ("more" if number % 2 else "") / path.name)
    return folder


def rows_of(table):
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def label(table, names):
    """Writes labels into the first rows of a table."""
    first, *rows = rows_of(table)
    for row, name in zip(rows, names, strict=False):
        row[-1] = name
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([first, *rows])


def test_the_table_holds_the_photos_of_which_the_model_is_least_sure(run, inbox):
    found = review_run(run, inbox, n=10)
    assert (found.table, found.page) == (inbox / "review.csv", inbox / "review.html")
    assert (found.n, len(found.photos), found.copies, found.errors) == (36, 10, (), ())
    first, *rows = rows_of(found.table)
    assert first == ["path", "guess", "score", "why", "label"]
    said = {one.file: one.labels for one in predict(run, inbox)}
    for path, guess, score, why, given in rows:
        best, second, _ = said[str(inbox / path)]
        assert (guess, given) == (best.label, "")
        assert float(score) == pytest.approx(best.score, abs=1e-5)
        assert (
            why[:-2]
            == f"unsure: {best.label} {best.score:.2f}, {second.label} {second.score:.2f}"[:-2]
        )
    margins = {file: one[0].score - one[1].score for file, one in said.items()}
    least = min(margins, key=margins.get)
    assert str(inbox / rows[0][0]) == least
    assert json.loads(json.dumps(plain(found)))["photos"][0]["path"] == rows[0][0]


def test_the_page_has_the_photos_of_the_table_and_a_way_without_script(run, inbox):
    review_run(run, inbox, n=5)
    page = Page(inbox / "review.html")
    assert page.unclosed == [] and page.from_elsewhere() == [] and page.handlers == []
    data = json.loads(page.scripts[0])
    assert [one["cells"] for one in data["photos"]] == [
        row[:-1] for row in rows_of(inbox / "review.csv")[1:]
    ]
    assert all(one["picture"].startswith("data:image/jpeg") for one in data["photos"])
    assert data["classes"] == ["circle", "cross", "stripes"]
    assert "write the classes into the column label of review.csv" in page.words
    assert f"kerasft update {run} --add {inbox}/review.csv" in page.text


def test_labels_of_the_run_that_may_be_wrong_are_found_in_its_features(run, inbox):
    same = keras.Input((32, 32, 3), name="pixels")
    pooled = keras.layers.Dense(120)(keras.layers.GlobalAveragePooling2D()(same))
    model = keras.Model(same, pooled, name="known")
    splits = run / "splits.csv"
    before = splits.read_text()
    rows = [row for row in read_rows(splits, 3) if row[2] == "train"]
    features = np.repeat(np.eye(3), 40, axis=1)[[int(row[1]) for row in rows]]
    features += np.random.default_rng(0).normal(scale=0.1, size=features.shape)
    seen = Known("", model, features.astype(np.float16), 2.0, 6)
    try:
        wrong = rows[0][0]
        splits.write_text(before.replace(f"{wrong},0,", f"{wrong},1,"))
        known.save(seen, run / "known.keras")
        found = review_run(run, inbox, n=3)
    finally:
        splits.write_text(before)
        (run / "known.keras").unlink()
    assert [(one.path, one.label, one.suggested) for one in found.suspects] == [
        (wrong, "cross", "circle")
    ]
    assert found.unchecked == ""
    page = Page(found.page)
    assert "cross, or rather circle? Quality" in page.words
    assert [picture[:15] for picture in page.images] == ["data:image/jpeg"]


def test_photos_of_the_run_and_copies_are_left_out_and_named(run, inbox):
    known = next((run.parent / "photos" / "circle").iterdir())
    shutil.copy(known, inbox / f"known{known.suffix}")
    new = sorted(path for path in inbox.iterdir() if path.is_file())[0]
    shutil.copy(new, inbox / f"zz{new.suffix}")
    (inbox / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    found = review_run(run, inbox)
    assert (found.n, len(found.photos)) == (36, 36)
    assert found.copies == (f"{inbox}/known{known.suffix}", f"{inbox}/zz{new.suffix}")
    assert [(one.file, one.error) for one in found.errors] == [
        (f"{inbox}/broken.jpg", "is truncated")
    ]


def test_a_table_with_labels_is_never_replaced(run, inbox):
    assert review_run(run, inbox, n=4).table.name == "review.csv"
    assert review_run(run, inbox, n=3).table.name == "review.csv"
    assert len(rows_of(inbox / "review.csv")) == 4
    label(inbox / "review.csv", ["circle"])
    before = (inbox / "review.csv").read_bytes()
    again = review_run(run, inbox, n=5)
    assert (again.table.name, again.page.name) == ("review-2.csv", "review-2.html")
    assert (inbox / "review.csv").read_bytes() == before
    assert (again.asked_before, again.n) == (1, 35)  # nobody is asked twice
    assert rows_of(inbox / "review.csv")[1][0] not in [one.path for one in again.photos]
    (inbox / "review-2.csv").write_text("my own table")
    assert review_run(run, inbox, n=5).table.name == "review-3.csv"


def test_rows_without_a_label_are_left_out_with_a_line(run, inbox, caplog):
    table = review_run(run, inbox, n=6).table
    label(table, ["circle", "", "wave"])
    caplog.clear()
    with caplog.at_level("INFO"):
        listed = find_csv(Data(source=str(table)), silent).read()
    rows = rows_of(table)
    assert [(one.path, one.class_name) for one in listed.photos] == [
        (rows[1][0], "circle"),
        (rows[3][0], "wave"),
    ]
    assert f"{table}: left out 4 photos without a label." in caplog.messages


def test_a_table_that_nobody_has_labelled_is_refused(run, inbox):
    table = review_run(run, inbox, n=6).table
    with pytest.raises(UserError) as error:
        find_csv(Data(source=str(table)), silent).read()
    assert str(error.value) == (
        f"{table}: none of its 6 photos has a label yet. Label them in the page beside it, or "
        "write names of classes into the column label."
    )


def test_a_name_that_a_spreadsheet_would_compute_is_still_found(run, inbox):
    photos = sorted(path for path in inbox.rglob("*.*"))
    for path in photos[1:]:
        path.unlink()
    photos[0].rename(inbox / "=1+1.png")
    table = review_run(run, inbox).table
    assert rows_of(table)[1][0] == "./=1+1.png"
    label(table, ["cross"])
    listed = find_csv(Data(source=str(table)), silent).read()
    assert [(one.path, one.class_name) for one in listed.photos] == [("=1+1.png", "cross")]


EMPTY = "no photo in it can be read. Expected images."
NEW = "Expected new ones."


def test_what_was_left_out_above_a_label_is_not_asked_again(run, inbox):
    table = review_run(run, inbox, n=6).table
    label(table, ["", "circle", "", "cross"])
    again = review_run(run, inbox, n=40)
    assert again.asked_before == 4
    asked = {one.path for one in again.photos}
    rows = rows_of(table)[1:]
    assert [row[0] in asked for row in rows] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("header", "comma"),
    [
        ("path,guess,score,why,label", ";"),
        ("Path,Guess,Score,Why,Label", ","),
        ("label,why,path,guess,note", ","),
    ],
)
def test_a_table_that_a_spreadsheet_has_written_is_known(run, inbox, header, comma):
    table = review_run(run, inbox, n=3).table
    names = header.lower().split(",")
    first, *rows = rows_of(table)
    cells = [dict(zip(first, row, strict=True)) | {"note": ""} for row in rows]
    cells[0]["label"] = " circle "
    lines = [[one[name] for name in names] for one in cells]
    with table.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=comma).writerows([header.split(","), *lines, []])
    again = review_run(run, inbox, n=3)
    assert (again.table.name, again.asked_before) == ("review-2.csv", 1)
    listed = find_csv(Data(source=str(table)), silent).read()
    assert [(one.path, one.class_name) for one in listed.photos] == [(rows[0][0], "circle")]


def test_a_page_that_cannot_be_written_leaves_the_table_as_it_was(run, inbox):
    review_run(run, inbox, n=3)
    before = (inbox / "review.csv").read_bytes()
    (inbox / "review.html").unlink()
    (inbox / "review.html").mkdir()
    assert review_run(run, inbox, n=4).table.name == "review-2.csv"
    (inbox / "review-3.html").write_text("my page")
    label(inbox / "review-2.csv", ["circle"])
    assert review_run(run, inbox, n=4).table.name == "review-4.csv"
    assert (inbox / "review.csv").read_bytes() == before
    assert (inbox / "review-3.html").read_text() == "my page"


def test_one_photo_can_be_asked_for(run, inbox):
    assert len(review_run(run, inbox, n=1).photos) == 1


def test_a_photo_whose_name_no_table_can_hold_is_told(run, inbox):
    first = min(path for path in inbox.iterdir() if path.is_file())
    first.rename(inbox / "two\nlines.png")
    found = review_run(run, inbox, n=3)
    assert (found.n, [(one.file, one.error) for one in found.errors]) == (
        35,
        [
            (
                f"{inbox}/two\\nlines.png",
                "has a name with control characters, or one that is not UTF-8; rename it",
            )
        ],
    )


def test_an_inbox_among_the_photos_of_the_run_is_refused(run, inbox):
    inside = run.parent / "photos" / "inbox"
    shutil.copytree(inbox, inside)
    try:
        with pytest.raises(UserError, match=r"inbox lies in .*photos, whose photos the run has"):
            review_run(run, inside)
        assert not list(inside.glob("review*"))
    finally:
        shutil.rmtree(inside)


def test_an_inbox_whose_photos_all_have_labels_is_refused(run, inbox):
    for path in sorted(inbox.rglob("*.*"))[3:]:
        path.unlink()
    label(review_run(run, inbox).table, ["circle"] * 3)
    with pytest.raises(UserError) as error:
        review_run(run, inbox)
    assert str(error.value) == (
        f"{inbox}: nothing to label: 0 photos are of {run} or copies, 3 photos have been labelled "
        "or left out in tables here. Expected new ones."
    )


@pytest.mark.parametrize(
    ("where", "n", "message", "status"),
    [
        ("inbox", 0, "n: expected 1 to 500, got 0.", 2),
        ("inbox", 501, "n: expected 1 to 500, got 501.", 2),
        ("nowhere", 9, "{}: no such folder. Expected a folder of photos.", 2),
        (
            "empty",
            9,
            "{0}: no photo in it can be read. Expected images.\n  {0}: holds no images",
            1,
        ),
        (
            "known",
            9,
            "{}: nothing to label: 12 photos are of {run} or copies. Expected new ones.",
            1,
        ),
    ],
)
def test_what_is_refused_leaves_nothing_behind(run, tmp_path, where, n, message, status):
    (tmp_path / "inbox").mkdir()
    (tmp_path / "empty").mkdir()
    shutil.copytree(run.parent / "photos" / "cross", tmp_path / "known")
    folder = tmp_path / where
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        review_run(run, folder, n=n)
    said = message.format(folder, run=run)
    assert (str(error.value), error.value.exit_code) == (said, status)
    assert sorted(tmp_path.rglob("*")) == before
