"""Runs with the weights of an earlier run of the same photos: none is judged on what it knows."""

import csv
import logging
import shutil

import pytest
from drawing import draw_photos
from PIL import Image
from tiny_run import presplit, small

from kerasft.config.load import load_config
from kerasft.data.scan import scan_source
from kerasft.record import Device
from kerasft.training.plan import plan_new
from kerasft.training.train import plan_run, train_run

CPU = Device("tensorflow", "cpu", "", 2)
pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def chain(tiny_backbone, tmp_path_factory):
    """Photos, and two runs: `second`, of seed 1, has the base of `first`, of seed 0."""
    folder = tmp_path_factory.mktemp("chain")
    photos = draw_photos(folder / "photos")
    train_run(small(photos, "phases.0.epochs=1"), folder / "first")
    train_run(of_base(folder, "first", photos, seed=1), folder / "second")
    return folder


def of_base(folder, name, photos, *sets, **flags):
    flags = {"model.weights": str(folder / name), **flags}
    return small(photos, "phases.0.epochs=1", *sets, **flags)


def rows_of(run):
    with (run / "splits.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ours(caplog):
    """Returns the messages of kerasft alone: TensorFlow counts its traces aloud."""
    return [one.getMessage() for one in caplog.records if one.name.startswith("kerasft")]


def digests(run, *splits):
    return {row["digest"] for row in rows_of(run) if row["split"] in splits}


def test_a_chain_of_runs_with_other_seeds_is_never_judged_on_photos_that_it_knows(chain, caplog):
    with caplog.at_level(logging.WARNING, logger="kerasft"):
        train_run(of_base(chain, "second", chain / "photos", seed=2), chain / "third")
    assert ours(caplog) == []
    known = digests(chain / "first", "train") | digests(chain / "second", "train")
    assert known and not known & digests(chain / "third", "validation", "test")
    assert digests(chain / "third", "test") == digests(chain / "first", "test")


def test_the_config_says_from_which_run_the_splits_are_and_gives_them_again(chain):
    text = (chain / "second" / "config.toml").read_text()
    assert 'splits_from = "../first"' in text
    assert "splits_from" not in (chain / "first" / "config.toml").read_text()
    config = load_config(chain / "second" / "config.toml")
    train_run(config, chain / "again")
    for name in ("splits.csv", "config.toml", "metrics.jsonl"):
        assert (chain / "again" / name).read_bytes() == (chain / "second" / name).read_bytes()


class Interrupted(Exception):
    """Stands for Ctrl-C after the first epoch."""


def after_an_epoch(event):
    if event.stage == "epoch":
        raise Interrupted


def test_a_run_resumes_without_the_run_that_its_splits_are_from(chain, caplog):
    shutil.copytree(chain / "first", chain / "gone")
    photos = chain / "photos"
    config = small(photos, seed=3, **{"data.splits_from": str(chain / "gone")})
    whole = train_run(config, chain / "whole")
    with pytest.raises(Interrupted):
        train_run(config, chain / "interrupted", progress=after_an_epoch)
    shutil.rmtree(chain / "gone")
    caplog.clear()
    resumed = train_run(
        load_config(chain / "interrupted" / "config.toml"), chain / "interrupted", resume=True
    )
    assert ours(caplog) == []
    assert resumed.validation == whole.validation and resumed.test == whole.test
    for split in ("train", "validation", "test"):
        assert digests(chain / "interrupted", split) == digests(chain / "first", split)


def test_a_dry_run_says_from_which_run_the_splits_are(chain):
    plan = plan_run(of_base(chain, "first", chain / "photos", seed=1)).to_json()
    assert plan["splits_from"] == str(chain / "first")
    assert plan_run(small(chain / "photos", seed=1)).to_json()["splits_from"] is None


def warned(caplog, config):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="kerasft"):
        source = scan_source(config.data, seed=config.seed, weights=config.model.weights)
        plan_new(config, source, CPU)
    return ours(caplog), source


@pytest.mark.parametrize("base", ["first", "second"])
def test_photos_that_are_split_anew_or_by_the_source_are_warned_about(
    chain, caplog, tmp_path, base
):
    anew = of_base(chain, base, chain / "photos", "data.splits_from=none", seed=1)
    lines, source = warned(caplog, anew)
    known = digests(chain / "first", "train")
    counts = [
        sum(source.digests[i] in known for i in source.indices(split))
        for split in ("validation", "test")
    ]
    assert min(counts) >= 2  # of six each
    runs = ["second", "first"] if base == "second" else ["first"]
    assert lines == [
        f"{chain / name}, whose weights are taken, was trained on {counts[0]} validation and "
        f"{counts[1]} test photos of this run, so their figures flatter. Leave out "
        "`data.splits_from`, or take photos for validation and test that it has not seen."
        for name in runs
    ]
    own = presplit(chain / "photos", tmp_path / "own", swap_test=False)
    lines, source = warned(caplog, of_base(chain, base, own))
    assert source.splits_from is None
    assert [line.partition("flatter. ")[2] for line in lines] == [
        "Take photos for validation and test that it has not seen." for _ in runs
    ]


def test_other_photos_are_fine(chain, caplog, tmp_path):
    others = draw_photos(tmp_path / "others")
    for path in others.rglob("*.*"):
        with Image.open(path) as image:
            turned = image.rotate(90, expand=True)
        turned.save(path)
    lines, source = warned(caplog, of_base(chain, "second", others, seed=1))
    assert (lines, source.splits_from) == ([], None)
