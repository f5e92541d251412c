from html_page import Page

from kerasft.reports.charts import Dot
from kerasft.reports.compare_page import Row, dots_of, write_comparison

WAY = {
    "name": "knn",
    "backbone": "Tiny",
    "note": "",
    "val_corrected": 0.81,
    "test_accuracy": 0.9,
    "ci95": [0.8, 0.95],
    "p_vs_best": 0.04,
    "seconds": 75.0,
    "ms_per_image": 12.34,
    "size_mb": 9.6,
    "notes": ["k = 1"],
}
STOPPED = {
    **dict.fromkeys(WAY),
    "name": "<b>fc</b>",
    "backbone": "Tiny",
    "note": "stopped by the budget",
    "notes": [],
}
RECORD = {
    "ways": [STOPPED, WAY, {**WAY, "name": "lda", "val_corrected": 0.85, "p_vs_best": None}],
    "left_out": [{"name": "full", "backbone": "Tiny", "seconds": 90.0, "left": 30.0}],
    "winner": {"name": "lda", "backbone": "Tiny"},
    "advice": "Take lda: it is <i>simple</i>.",
    "classes": ["a", "b"],
    "images": {"train": 1200, "validation": 60, "test": 60},
    "pass_seconds": 4.25,
    "mapping": ["a: ant & bee"],
    "curve": {"lda on Tiny": [[0.5, 0.8], [1.0, 0.85]], "knn on Tiny": [[0.5, 0.7], [1.0, 0.81]]},
    "out": "compare/photos",
}


def written(tmp_path, **changes):
    write_comparison(tmp_path / "compare.html", {**RECORD, **changes})
    return Page(tmp_path / "compare.html")


def test_the_best_on_validation_comes_first_and_is_marked(tmp_path):
    page = written(tmp_path)
    assert page.unclosed == [] and page.from_elsewhere() == []
    assert [row[1] for row in page.rows[1:5]] == [
        "lda",
        "knn",
        "<b>fc</b>",
        "stopped by the budget",
    ]
    assert page.rows[2] == [
        *("2", "knn", "Tiny", "0.810", "0.900", "0.800 to 0.950", "0.04"),
        *("1 min 15 s", "12.3", "9.6"),
    ]
    assert page.rows[3][3:] == ["-"] * 7
    assert page.source.count('class="best"') == 1
    assert page.source.index('class="best"') < page.source.index(">lda<")


def test_the_advice_and_the_notes_are_text(tmp_path):
    page = written(tmp_path)
    assert "Take lda: it is <i>simple</i>." in page.text
    assert "i" not in page.tags and "b" not in page.tags
    assert (
        "full on Tiny was left out: it would take about 1 min 30 s, but only 30.0 s of the budget "
        "was left."
    ) in page.words
    assert "knn on Tiny: k = 1" in page.words
    assert "a: ant & bee" in page.text


def test_a_way_without_figures_has_no_dot_and_one_fraction_no_curves(tmp_path):
    page = written(tmp_path, curve={})
    assert page.tags.count("svg") == 1
    assert "Would more photos help?" not in page.text
    page = written(tmp_path, ways=[STOPPED], curve={}, winner=None)
    assert "svg" not in page.tags


def test_without_test_photos_the_accuracy_is_the_one_on_validation(tmp_path):
    ways = [{**WAY, "test_accuracy": None, "ci95": None}]
    page = written(tmp_path, ways=ways)
    assert "Accuracy is the one on validation, corrected" in page.words
    assert "svg" in page.tags


def test_the_curves_have_a_table(tmp_path):
    page = written(tmp_path)
    assert ["lda on Tiny", "0.800", "0.850"] in page.rows
    assert page.rows[-3][1:] == ["50%", "100%"]


def test_a_dot_is_the_test_accuracy_over_the_time_with_its_interval():
    rows = [Row(1, WAY, True), Row(2, STOPPED, False)]
    assert dots_of(rows) == [Dot(1, 75.0, 0.9, (0.8, 0.95), True)]
    without_test = {**WAY, "test_accuracy": None, "ci95": None}
    assert dots_of([Row(3, without_test, False)]) == [Dot(3, 75.0, 0.81, None, False)]
