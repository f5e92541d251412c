"""The report of a run: a tiny one in two phases, of classes with hostile names."""

import base64
import hashlib
import html
import json
import re
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from drawing import draw_photos
from html_page import Page
from tiny_run import both_phases

from kerasft.confidence import Abstention, Calibration, Quality
from kerasft.data import scan
from kerasft.data.batches import image_batches, split_batches
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.report import nearest_of, report_run
from kerasft.models.bundle import score
from kerasft.models.target import open_model
from kerasft.progress import silent
from kerasft.reports.run_page import (
    Closer,
    Content,
    scored_photos,
    write_light,
    write_page_of,
)
from kerasft.run import Run, read_record
from kerasft.training.train import train_run

pytestmark = pytest.mark.usefixtures("eagerly")


HOSTILE = ("<img src=x onerror=alert(1)>", "a & b \"c\" 'd'", "{{ 7 * 7 }}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_backbone):
    folder = tmp_path_factory.mktemp("report")
    photos = draw_photos(folder / "photos", classes=HOSTILE)
    (photos / HOSTILE[0] / "odd<i>.jpg").write_bytes(b"no image")
    config = both_phases(photos)
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"bad_images": "skip"})}
    )
    train_run(config, folder / "run")
    return folder


@pytest.fixture(scope="module")
def made(folder):
    return report_run(folder / "run")


@pytest.fixture(scope="module")
def page(made):
    return Page(made.path)


def facts(folder):
    return json.loads((folder / "run" / "run.json").read_text())


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(page, made):
    assert page.unclosed == []
    assert page.from_elsewhere() == []
    assert page.bytes == made.bytes < 5_000_000
    assert page.tags.count("script") == 1 and "link" not in page.tags and "iframe" not in page.tags


def test_the_policy_lets_the_own_script_run_and_no_other(page):
    digest = hashlib.sha256(page.scripts[0].encode()).digest()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.source)[1]
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy.replace(
        "&#39;", "'"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_hostile_names_are_text(page):
    assert page.handlers == []
    assert all(image.startswith("data:image/jpeg;base64,") for image in page.images)
    for name in HOSTILE:
        assert name in page.text
    assert f"{HOSTILE[0]}/odd<i>.jpg" in page.text
    assert "49" not in page.text.split("Classes")[0].split("Photos")[0]  # 7 * 7


def test_the_figures_are_those_of_run_json(page, folder):
    record = facts(folder)
    for split in ("test", "validation"):
        figures = record[split]
        row = next(row for row in page.rows if row[0] == split)
        assert row[1] == str(figures["n"])
        assert row[2] == f"{figures['accuracy']:.3f}"
        assert row[4] == f"{figures['base_rate']:.3f}"
        assert row[5] == f"{figures['balanced_accuracy']:.3f}"
        assert row[6] == f"{figures['loss']:.4f}"
    low, high = record["test"]["ci95"]
    assert f"95% interval {low:.3f} to {high:.3f}" in page.words


def test_the_classes_are_those_of_evaluate(page, folder):
    report = evaluate_run(folder / "run", split="validation")
    for row in report.per_class:
        shown = next(cells for cells in page.rows if cells[0] == row.label and len(cells) == 7)
        assert shown[1] == str(row.support)
        assert shown[2] == f"{row.recall:.3f}"
        assert shown[5] == (f"{row.precision:.3f}" if int(shown[4]) else "-")
    matrix = [row for row in page.rows if len(row) == 4 and row[0] in HOSTILE]
    # The table of photos by split has four columns as well and comes first.
    shown = [[int(cell or 0) for cell in row[1:]] for row in matrix[3:]]
    assert shown == report.confusion.tolist()


def test_each_phase_has_a_line_and_one_of_them_is_the_model(page, folder):
    record = facts(folder)
    kept = [row[0] for row in page.rows if row[-1] == "the model"]
    assert kept == [record["best_phase"]]
    for phase in record["phases"]:
        row = next(row for row in page.rows if row[0] == phase["name"] and len(row) == 7)
        assert row[3] == f"{phase['validation']['accuracy']:.3f}"
        assert f"of {phase['epochs']} was the best" in row[1]


def test_the_times_are_those_of_the_parts(page, folder):
    for phase in facts(folder)["phases"]:
        for part in phase["parts"]:
            assert [phase["name"], part["name"], f"{part['seconds']:.1f} s"] in [
                row[:3] for row in page.rows
            ]


def test_skipped_files_are_named_with_the_reason(page):
    assert "1 file could not be used and was left out:" in page.words


def test_every_mistake_of_a_cell_can_be_reached(page):
    places = set(re.findall(r'href="#([^"]+)"', page.source))
    assert places <= set(re.findall(r'id="([^"]+)"', page.source))


def test_commands_name_the_run(page, folder):
    assert f"kerasft unfreeze-and-continue {folder / 'run'}" in page.text


def cards(page):
    """The cards of the photos that are looked at closely: titles of all pictures in each."""
    blocks = re.findall(r'<article class="card">(.*?)</article>', page.source, re.S)
    return [[html.unescape(name) for name in re.findall(r'title="([^"]*)"', b)] for b in blocks]


def test_every_photo_that_is_looked_at_closely_has_a_heat_map(page):
    assert len(cards(page)) == 6  # all photos of validation
    assert page.source.count('alt="heat map"') == 6


def test_neighbours_are_the_training_photos_with_the_most_similar_features(page, folder):
    opened = open_model(folder / "run")
    run = Run(folder / "run")
    source = scan.open_images(run, opened.class_names, data=None, progress=silent)
    base = keras.Model(opened.model.inputs[0], opened.model.get_layer("logits").input)
    batches = image_batches([source.root / path for path in source.paths], rule=opened.rule)
    features = base.predict(np.concatenate(list(batches)), verbose=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    train = source.indices("train")
    for photo, *near in cards(page):
        similar = features[train] @ features[source.paths.index(photo)]
        shown = [train.tolist().index(source.paths.index(name)) for name in near]
        assert len(near) == 3
        # Equal within rounding: the two passes have batches of different sizes.
        np.testing.assert_allclose(similar[shown], np.sort(similar)[::-1][:3], atol=1e-4)


def test_the_nearest_have_the_largest_cosine():
    features = np.array([[1.0, 0.0]])
    training = np.array([[0.0, 1.0], [5.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    (row,) = nearest_of(features, training, 2)
    assert [place for place, _ in row] == [1, 2]
    assert [similarity for _, similarity in row] == pytest.approx([1.0, 0.5**0.5])


def test_test_is_scored_only_when_asked_for_and_then_counted(folder, tmp_path):
    run = shutil.copytree(folder / "run", folder / "counted")
    before = read_record(Run(run)).test_scored
    report_run(run, to=tmp_path / "a.html")
    assert read_record(Run(run)).test_scored == before
    made = report_run(run, split="test", to=tmp_path / "b.html")
    assert read_record(Run(run)).test_scored == before + 1
    assert made.accuracy == read_record(Run(run)).test.accuracy
    words = Page(tmp_path / "b.html").words
    assert "what the test photos were taken for" in words
    assert f"The test photos were scored {before + 1} times." in words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "split: expected validation or test, got 'train'."),
        ({"to": "."}, "to: expected a file in a folder that exists, got '.'."),
        (
            {"to": "absent/a.html"},
            "to: expected a file in a folder that exists, got 'absent/a.html'.",
        ),
    ],
)
def test_a_wrong_option_is_refused(options, message, folder):
    with pytest.raises(UserError) as error:
        report_run(folder / "run", **options)
    assert (str(error.value), error.value.exit_code) == (message, 2)


def test_a_head_without_gradient_says_why_there_is_no_heat_map(at_hand, tmp_path):
    run, source, scores, logits = at_hand
    content = Content(
        run, read_record(run), source, scored_photos(source, "validation", scores, logits)
    )
    closer = Closer(nearest={0: [(0, 0.5)]}, note="It has no gradient.", compared=3)
    write_page_of(tmp_path / "a.html", content, closer=closer)
    page = Page(tmp_path / "a.html")
    assert "It has no gradient. The nearest training photos are" in page.words
    assert "heat map" not in page.source


# the light page


@pytest.fixture(scope="module")
def at_hand(folder):
    run = Run(folder / "run")
    opened = open_model(run.path)
    source = scan.open_images(run, opened.class_names, data=None, progress=silent)
    scores, logits = score(opened, split_batches(source, "validation", rule=opened.rule))
    return Run(shutil.copytree(run.path, folder / "light")), source, scores, logits


def test_a_light_page_has_all_but_what_takes_the_model(at_hand):
    run, source, scores, logits = at_hand
    page = Page(write_light(run, source, read_record(run), scores=scores, logits=logits))
    assert page.unclosed == [] and page.from_elsewhere() == [] and page.handlers == []
    assert "This is the short report that training writes." in page.words
    assert "Nearest training photos" not in page.words
    for title in ("Photos", "Training", "Confusion", "Classes", "Calibration", "Use"):
        assert f"\n{title}\n" in page.text


def test_a_light_page_needs_no_scores(at_hand):
    run, source, _, _ = at_hand
    page = Page(write_light(run, source, read_record(run)))
    assert page.unclosed == []
    assert "Confusion" not in page.text and "\nTraining\n" in page.text


def test_a_light_page_without_time_has_places_instead_of_pictures(at_hand):
    run, source, scores, logits = at_hand
    page = Page(
        write_light(run, source, read_record(run), scores=scores, logits=logits, seconds=1e-9)
    )
    assert len(page.images) <= 4
    assert "no picture" in page.text and "There was no time or no room for" in page.words


def test_a_temperature_and_what_it_did_are_shown(at_hand):
    run, source, _, logits = at_hand
    cooler = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    record = replace(
        read_record(run),
        calibration=Calibration(2.0, 6, Quality(0.7123, 0.211), Quality(0.6456, 0.123)),
        abstention=Abstention(0.9, 0.777, 0.5, 0.95, 0.91, 6),
    )
    page = Page(write_light(run, source, record, scores=cooler, logits=logits))
    assert "The model divides its logits by 2.000, a temperature fitted on 6 val" in page.words
    assert ["before", "0.7123", "0.211"] in page.rows
    assert page.rows[-1] != [] and ["0.6456", "0.123"] in [row[1:] for row in page.rows]
    assert page.source.count('class="chart"') == 2
    assert "Below a score of 0.777 the model says “I don't know”." in page.words
    assert "it answers for 0.500 of the photos, and 0.950 of these answers are right" in page.words


def test_without_a_temperature_there_is_one_diagram(at_hand):
    run, source, scores, logits = at_hand
    quality = Quality(0.7, 0.2)
    record = replace(read_record(run), calibration=Calibration(1.0, 6, quality, quality))
    page = Page(write_light(run, source, record, scores=scores, logits=logits))
    assert page.source.count('class="chart"') == 1
    assert "A temperature would not have helped on 6 validation photos" in page.words


def test_photos_unlike_the_training_ones_are_shown_with_their_distance(folder, tmp_path):
    run = Run(folder / "run")
    source = scan.open_images(run, HOSTILE, data=None, progress=silent)
    content = _content(run, source)
    closer = Closer(unlike=[(2, 0.61), (0, 0.5)])
    write_page_of(tmp_path / "page.html", content, closer=closer)
    text = (tmp_path / "page.html").read_text("utf-8")
    section = text.partition('id="unlike"')[2].partition("</section>")[0]
    assert "2 photos of 6 validation photos" in " ".join(section.split())
    assert re.findall(r"<figcaption>([\d.]+)</figcaption>", section) == ["0.61", "0.50"]
    write_page_of(tmp_path / "page.html", content, closer=Closer(unlike=[]))
    assert "None of 6 validation photos." in (tmp_path / "page.html").read_text("utf-8")
    write_page_of(tmp_path / "page.html", content, closer=Closer())
    assert 'id="unlike"' not in (tmp_path / "page.html").read_text("utf-8")


def _content(run, source):
    opened = open_model(run.path)
    batches = split_batches(source, "validation", rule=opened.rule, batch_size=8)
    scores, logits = score(opened, batches)
    scored = scored_photos(source, "validation", scores, logits, opened.temperature)
    return Content(run, read_record(run), source, scored)
