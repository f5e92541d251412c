import pytest
from drawing import draw_photos
from html_page import Page

from kerasft.reports.check_page import GROUPS, write_check

NOTHING = {
    "files": 36,
    "unreadable": [],
    "converted": [],
    "plain": [],
    "dark": [],
    "blurred": [],
    "odd_sizes": [],
    "classes": {"circle": 12, "<b>": 24},
    "copies": [],
    "label_suspects": [],
    "outliers": [],
    "refused": "",
    "left_out": "",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("check") / "photos", per_class=4)


def written(photos, tmp_path, **found):
    write_check(tmp_path / "check.html", photos, {**NOTHING, **found}, str(photos))
    page = Page(tmp_path / "check.html")
    assert page.unclosed == [] and page.from_elsewhere() == [] and page.handlers == []
    return page


def test_a_set_without_problems_says_so(photos, tmp_path):
    page = written(photos, tmp_path)
    assert "Nothing was found that is worth a look." in page.words
    assert ["<b>", "24"] in page.rows
    assert page.images == []


def test_hostile_names_are_text(photos, tmp_path):
    bad = "<script>alert(1)</script>.jpg"
    page = written(photos, tmp_path, unreadable=[{"path": bad, "reason": "is empty"}])
    assert [bad, "is empty"] in page.rows
    assert page.tags.count("script") == 1


def test_what_train_refuses_is_said_in_its_words(photos, tmp_path):
    page = written(photos, tmp_path, refused="photos: 1 file can't be used:\n  a.jpg: is empty")
    assert "kerasft train refuses these photos." in page.words
    assert "photos: 1 file can't be used:\n  a.jpg: is empty" in page.text


def test_groups_with_different_labels_come_first_and_the_rest_is_counted(photos, tmp_path):
    paths = [f"circle/circle-{n:03}.{'jpg' if n % 2 else 'png'}" for n in range(4)]
    one = {"kind": "exact", "across_splits": False, "across_labels": False}
    copies = [{**one, "paths": ["cross/cross-000.png", "cross/cross-001.jpg"]}] * (GROUPS + 1)
    copies.append({**one, "paths": [*paths, "circle/more.png"], "across_labels": True})
    page = written(photos, tmp_path, copies=copies)
    assert f"{GROUPS + 2} groups, {GROUPS} shown." in page.words
    first = page.source.split('class="side-by-side"')[1]
    assert all(f'title="{path}"' in first for path in paths)
    assert "different labels" in first and "and 1 more" in first


def test_a_photo_that_cannot_be_shown_has_a_place(photos, tmp_path):
    suspect = {"path": "absent.jpg", "label": "circle", "suggested": "cross", "score": 0.123}
    page = written(photos, tmp_path, label_suspects=[suspect])
    assert "circle, or rather cross? Quality 0.12" in page.words
    assert "no picture" in page.text


def test_every_kind_has_its_photos(photos, tmp_path):
    first, second = "circle/circle-000.png", "cross/cross-001.jpg"
    page = written(
        photos,
        tmp_path,
        dark=[first],
        blurred=[second],
        odd_sizes=[{"path": first, "width": 20, "height": 300}],
        outliers=[{"path": second, "distance": 2.5}],
    )
    for title in ("Almost black", "Blurred", "Odd size", "Unlike all others"):
        assert f"\n{title}\n" in page.text
    assert f"{first}: 20x300" in page.text
    assert len(page.images) == 4
