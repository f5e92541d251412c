"""The page of a run whose photos and scores are made up: many classes, photos of noise."""

import os
import re

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from kerasft.data.source import Source
from kerasft.record import Device, RunRecord
from kerasft.reports.run_page import (
    Closer,
    Content,
    is_whole,
    scored_photos,
    write_light,
    write_page_of,
)
from kerasft.run import Run


def source_of(root, classes, per_split):
    """A source of noise, of which as many photos as given are in each split of each class."""
    splits = [split for split, n in per_split.items() for _ in range(n)]
    labels = np.repeat(np.arange(classes), len(splits))
    names = [f"{label}-{number}.jpg" for number, label in enumerate(labels)]
    return Source(
        root=root,
        class_names=tuple(f"class {label:03}" for label in range(classes)),
        paths=tuple(names),
        labels=labels.astype(np.int32),
        splits=np.array(splits * classes),
        digests=tuple(f"{number:032x}" for number in range(len(names))),
    )


def logits_for(source, predicted):
    """Logits of the validation photos, of which each names a class with a score of about 0.9."""
    k = len(source.class_names)
    logits = np.log(9 * (k - 1)) * np.eye(k, dtype="float32")[predicted]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {"scores": scores, "logits": logits}


RECORD = RunRecord("finished", {"kerasft": "0.2.0"}, Device("tensorflow", "cpu", "", 2), seed=0)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run")


def test_many_classes_have_a_list_of_confused_pairs_instead_of_a_matrix(run, tmp_path):
    source = source_of(tmp_path, 30, {"train": 1, "validation": 2})
    labels = source.labels[source.indices("validation")]
    predicted = labels.copy()
    predicted[labels == 4] = 7  # both
    predicted[1] = 29  # one of class 0
    page = Page(write_light(run, source, RECORD, **logits_for(source, predicted)))
    assert page.unclosed == []
    assert 'class="matrix"' not in page.source
    first = page.rows.index(["label", "taken for", "photos", "share of the label"])
    assert page.rows[first + 1 : first + 3] == [
        ["class 004", "class 007", "2", "1.000"],
        ["class 000", "class 029", "1", "0.500"],
    ]
    places = set(re.findall(r'href="#([^"]+)"', page.source))
    assert places <= set(re.findall(r'id="([^"]+)"', page.source))
    assert "18 more classes are not shown." in page.words
    # 57 of 60, and one of 30 classes
    assert "names the right class for 57: accuracy 0.950" in page.words
    assert "Always naming “class 000” would reach 0.033." in page.words


def test_a_page_is_whole_unless_training_wrote_it_or_the_model_is_newer(run, tmp_path):
    source = source_of(tmp_path, 3, {"train": 1, "validation": 1})
    run.model_path.write_bytes(b"")
    assert not is_whole(run)
    page = write_light(run, source, RECORD)
    assert not is_whole(run)
    write_page_of(page, Content(run, RECORD, source, None), closer=Closer())
    assert is_whole(run)
    after = page.stat().st_mtime + 10
    os.utime(run.model_path, (after, after))
    assert not is_whole(run)


def test_a_page_of_noise_keeps_below_5_mb_and_counts_what_has_no_picture(run, tmp_path):
    source = source_of(tmp_path, 20, {"train": 8, "validation": 16, "test": 4})
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (176, 176, 3), np.uint8)
    for path in source.paths:
        Image.fromarray(noise).save(tmp_path / path, quality=95)
    positions = source.indices("validation")
    # Every photo is a mistake, so that all cells are full.
    predicted = (source.labels[positions] + 1 + np.arange(len(positions)) % 2) % 20
    answers = logits_for(source, predicted)
    content = Content(run, RECORD, source, scored_photos(source, "validation", *answers.values()))
    worst = range(len(positions))
    train = source.indices("train")
    closer = Closer(
        heat={i: rng.integers(0, 255, (224, 224, 3), np.uint8) for i in worst},
        nearest={i: [(int(train[(i + n) % len(train)]), 0.5) for n in range(3)] for i in worst},
        stretched=False,
    )
    size = write_page_of(tmp_path / "a.html", content, closer=closer)
    page = Page(tmp_path / "a.html")
    assert 2_000_000 < size == page.bytes < 5_000_000
    assert page.unclosed == []
    missing = re.search(r"There was no time or no room for ([\d,]+) pictures", page.words)
    assert missing and page.text.count("no picture") >= int(missing[1])
    assert page.source.count('alt="heat map"') == 24
