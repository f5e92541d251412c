"""A base that an earlier run has trained knows photos that a new run would be judged on."""

import csv
import logging

import pytest
from drawing import draw_photos
from PIL import Image
from tiny_run import small

from kerasft.config.load import load_config
from kerasft.data.scan import scan_source
from kerasft.training.plan import plan_new
from kerasft.training.train import train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def chain(tiny_backbone, tmp_path_factory):
    """Photos, and two runs of seed 0: `second` has the base of `first`."""
    folder = tmp_path_factory.mktemp("chain")
    photos = draw_photos(folder / "photos")
    config = small(photos, "phases.0.epochs=1")
    train_run(config, folder / "first")
    train_run(of_base(folder, "first", photos), folder / "second")
    return folder


def of_base(folder, name, photos, **flags):
    flags = {"model.weights": str(folder / name), **flags}
    return small(photos, "phases.0.epochs=1", **flags)


def warned(caplog, config):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="kerasft"):
        source = scan_source(config.data, seed=config.seed)
        plan_new(config, source, "cpu")
    return [record.getMessage() for record in caplog.records], source


def known_to(run):
    with (run / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["digest"] for row in rows if row["split"] == "train"}


@pytest.mark.parametrize("base", ["first", "second"])
def test_another_seed_tests_on_photos_that_the_base_was_trained_on(chain, caplog, base):
    config = of_base(chain, base, chain / "photos", seed=1)
    lines, source = warned(caplog, config)
    known = known_to(chain / base)
    counts = [
        sum(source.digests[i] in known for i in source.indices(split))
        for split in ("validation", "test")
    ]
    assert min(counts) >= 2  # of six each
    runs = ["second", "first"] if base == "second" else ["first"]
    assert lines == [
        f"{chain / name}, whose weights are taken, was trained on {counts[0]} validation and "
        f"{counts[1]} test photos of this run, so their figures flatter. If the photos are the "
        "same and come without splits of their own, `seed=0` divides them as that run did."
        for name in runs
    ]


def test_the_same_division_and_other_photos_are_fine(chain, caplog, tmp_path):
    assert warned(caplog, of_base(chain, "second", chain / "photos"))[0] == []
    others = draw_photos(tmp_path / "others")
    for path in others.rglob("*.*"):
        with Image.open(path) as image:
            turned = image.rotate(90, expand=True)
        turned.save(path)
    assert warned(caplog, of_base(chain, "second", others))[0] == []
    assert load_config(chain / "second" / "config.toml").seed == 0
