"""The page of `kerasft review`, used in headless Chromium as people use it."""

import csv
import io
import json

import pytest
from chromium import Chromium, browser
from drawing import draw_photos

from kerasft.answers import review_csv, review_rows
from kerasft.checking.features import LabelSuspect
from kerasft.checking.review import ReviewPhoto
from kerasft.reports.review_page import write_review

pytestmark = pytest.mark.skipif(browser() is None, reason="needs Chromium: apt install chromium")

BAD = "</script><script>document.title = 'bad'</script>"
NAMES = ("circle", "a, b", BAD, *(f"class {n}" for n in range(40)))


@pytest.fixture(scope="module")
def chromium():
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    """Five photos, one of which is missing, a table and its page."""
    folder = draw_photos(tmp_path_factory.mktemp("page") / "inbox", per_class=4)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))[:4]
    names = [*paths, "no.jpg"]
    photos = [ReviewPhoto(one, NAMES[i % 3], 0.5, "why so", False) for i, one in enumerate(names)]
    write(folder, photos)
    (folder / "review.csv").write_text(review_csv(review_rows([facts(one) for one in photos])))
    return folder


def facts(photo):
    return photo.path, photo.guess, photo.score, photo.why


def write(folder, photos):
    write_review(
        folder / "review.html",
        inbox=folder,
        table=folder / "review.csv",
        photos=photos,
        rows=review_rows([facts(one) for one in photos]),
        run=folder.parent / "a run",
        class_names=NAMES,
        root=folder,
        suspects=[LabelSuspect(photos[0].path, BAD, "circle", 0.12)],
    )
    return photos


@pytest.fixture
def tab(chromium, inbox):
    with chromium.tab() as tab:
        tab.open((inbox / "review.html").as_uri())
        yield tab
        assert tab.evaluate("document.title").endswith("kerasft review")
        problems = [one["entry"]["text"] for one in tab.events("Log.entryAdded")]
        assert [*problems, *tab.events("Runtime.exceptionThrown")] == []


def keys(tab, text):
    for key in text:
        tab.evaluate(
            f"document.body.dispatchEvent(new KeyboardEvent('keydown', "
            f"{{key: {json.dumps(key)}, bubbles: true, cancelable: true}}))"
        )


def filled(tab):
    """Labels of the table that the page would give, whose other cells are as they were."""
    return [row[-1] for row in csv.reader(io.StringIO(tab.evaluate("csv()")))][1:]


def text(tab, selector):
    return tab.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def test_a_key_labels_a_photo_and_shows_the_next_one(tab):
    assert text(tab, "#place") == "Photo 1 of 5"
    assert text(tab, "#why") == "Why so."
    assert text(tab, "#classes .guess") == "1 circle"
    keys(tab, "13")
    assert (text(tab, "#place"), text(tab, "#done")) == ("Photo 3 of 5", "2 of 5 labelled")
    assert filled(tab) == ["circle", BAD, "", "", ""]
    keys(tab, " z")
    assert filled(tab) == ["circle", BAD, "", "class 32", ""]
    keys(tab, "2")
    assert text(tab, "#done") == "All 5 seen: 4 labelled, 1 left out."
    assert filled(tab) == ["circle", BAD, "", "class 32", "a, b"]
    assert tab.evaluate("document.getElementById('desk').hidden")


def test_one_can_go_back_and_say_something_else(tab):
    keys(tab, "1")
    tab.evaluate("document.getElementById('back').click()")
    assert text(tab, "#classes [aria-pressed=true]") == "1 circle"
    keys(tab, " ")
    assert filled(tab) == [""] * 5


def test_a_label_can_be_typed_and_keys_are_then_letters(tab):
    tab.evaluate("document.getElementById('name').focus()")
    tab.type("moss 1")
    tab.press("Enter")
    assert filled(tab) == ["moss 1", "", "", "", ""]
    keys(tab, "2")
    assert filled(tab) == ["moss 1", "a, b", "", "", ""]


def test_the_table_is_downloaded_with_all_that_it_held(tab, inbox, tmp_path):
    keys(tab, "3")
    tab.download_to(tmp_path)
    tab.evaluate("document.getElementById('download').click()")
    tab.wait("true")
    ended = tab.event("Page.downloadWillBegin")
    assert ended["suggestedFilename"] == "review.csv"
    before = list(csv.reader((inbox / "review.csv").open(newline="")))
    now = list(csv.reader(io.StringIO(tab.evaluate("csv()"))))
    assert [row[:-1] for row in now] == [row[:-1] for row in before]
    assert now[1][-1] == BAD


def test_a_page_that_was_closed_goes_on_where_it_was(tab, inbox):
    keys(tab, "12")
    tab.open((inbox / "review.html").as_uri() + "?again")
    tab.wait("document.getElementById('place')?.textContent === 'Photo 3 of 5'")
    assert filled(tab) == ["circle", "a, b", "", "", ""]


def test_labels_are_known_to_a_page_that_is_made_again_with_other_photos(tab, inbox):
    keys(tab, "12")
    before = (inbox / "review.html").read_bytes()
    paths = [photo["path"] for photo in tab.evaluate("photos")]
    try:
        write(inbox, [ReviewPhoto(one, "circle", 0.5, "", False) for one in reversed(paths)])
        tab.open((inbox / "review.html").as_uri() + "?other")
        tab.wait("document.getElementById('done')?.textContent === '2 of 5 labelled'")
        assert filled(tab) == ["", "", "", "a, b", "circle"]
    finally:
        (inbox / "review.html").write_bytes(before)


def test_space_presses_a_button_that_has_the_focus_and_nothing_else(tab):
    keys(tab, "11111")
    tab.evaluate("document.getElementById('again').focus()")
    tab.press(" ")
    assert text(tab, "#place") == "Photo 1 of 5"
    assert filled(tab) == ["circle"] * 5


def test_a_key_that_is_held_labels_one_photo(tab):
    tab.evaluate(
        "for (const repeat of [false, true, true]) document.body.dispatchEvent("
        "new KeyboardEvent('keydown', {key: '1', bubbles: true, repeat}))"
    )
    assert filled(tab) == ["circle", "", "", "", ""]


def test_a_class_that_was_typed_gets_a_button_and_one_in_another_case_is_the_same(tab):
    for name in ("Moss", "moss", "CIRCLE"):
        tab.evaluate("document.getElementById('name').focus()")
        tab.type(name)
        tab.press("Enter")
    assert filled(tab) == ["Moss", "Moss", "circle", "", ""]
    assert text(tab, "#classes button:last-child") == "Moss"


def test_a_photo_without_a_picture_says_so(tab):
    keys(tab, "1111")
    assert not tab.evaluate("document.getElementById('no-picture').hidden")
    assert tab.evaluate("document.getElementById('photo').hidden")


def test_names_are_only_text(tab):
    assert tab.evaluate("[...document.scripts].length") == 2
    assert text(tab, "#classes button:nth-child(3)") == f"3 {BAD}"
    assert BAD in text(tab, "#suspects")
