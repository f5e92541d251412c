"""The learning-rate finder on small runs: what it suggests, writes and leaves alone."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from tiny_run import small, train_head

from kerasft.errors import UserError
from kerasft.training.find_lr import find_rate, suggest
from kerasft.training.train import train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")
SMALL = {"phases.-1.blocks": 1, "phases.-1.batch_size": 8}


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    return train_head(tmp_path_factory.mktemp("find-lr"), "head.dropout=0.5")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_rate_of_the_steepest_fall_per_decade_is_suggested():
    rates = np.geomspace(1e-6, 1, 7)
    smoothed = np.array([0.0, -0.01, -0.1, -0.7, -0.8, -0.5, 9.0])
    # np.gradient: half of the difference of the neighbours; -0.35 at 1e-4 and at 1e-3 -0.35
    smoothed[4] = -0.9
    assert suggest(rates, smoothed, first=1.0) == 1e-3


def test_nothing_is_suggested_where_the_loss_hardly_falls_or_only_rises():
    rates = np.geomspace(1e-6, 1, 5)
    assert suggest(rates, np.array([0, -0.01, -0.015, 0.2, 3]), first=1.0) is None
    assert suggest(rates, np.array([0, 0.1, 0.2, 0.3, 3]), first=1.0) is None


def test_the_run_gets_a_plot_and_a_table_and_stays_what_it_is_otherwise(trained):
    run = trained.copy("looked-at")
    before = contents(run)
    result = find_rate(run, flags=SMALL, steps=24).to_json()
    after = contents(run)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"find-lr.png", "find-lr.csv", ".lock"}
    assert not (run / "checkpoints").exists()
    with Image.open(run / "find-lr.png") as image:
        assert image.format == "PNG"
        assert image.size == (840, 504)
    rows = list(csv.DictReader((run / "find-lr.csv").read_text("utf-8").splitlines()))
    assert len(rows) == result["steps"] == len(result["rates"]) == len(result["smoothed"])
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-7)
    assert float(rows[0]["loss"]) == result["losses"][0]
    assert (result["phase"], result["blocks"], result["from_start"]) == ("unfreeze", 1, False)
    again = find_rate(run, flags=SMALL, steps=24).to_json()
    assert again == result


def test_dropout_of_which_the_untouched_loss_is_free_does_not_end_the_search(trained):
    found = find_rate(trained.copy("dropout"), flags=SMALL, steps=24)
    assert len(found.rates) > 12  # rates up to 1e-3 have been tried, in spite of the higher loss
    assert np.median((found.losses - found.losses[0])[:5]) < 2  # the control: nothing has risen


def test_a_head_that_has_learned_nothing_yet_gets_a_rate_that_trains_it(trained):
    run = trained.copy("new-head")
    result = find_rate(run, flags={"phases.0.batch_size": 8}, from_start=True, steps=60).to_json()
    assert (result["phase"], result["blocks"], result["from_start"]) == ("head", 0, True)
    rate = result["suggested"]
    assert rate is not None
    tried = {}
    for factor in (0.001, 1):
        sets = [f"phases.0.learning_rate={factor * rate}", "phases.0.epochs=4"]
        sets.append("phases.0.head_start=kept")
        done = train_run(small(trained.photos, *sets), trained.folder / f"at-{factor}").to_json()
        tried[factor] = done["phases"][0]["train_loss"]
    assert tried[1] < tried[0.001]


def test_groups_of_layers_keep_their_factors(trained):
    run = trained.copy("groups")
    sets = ["phases.-1.head_learning_rate_multiplier=10"]
    result = find_rate(run, flags=SMALL, sets=sets, steps=24).to_json()
    assert len(result["losses"]) == result["steps"] <= 24
    assert result["losses"] != find_rate(run, flags=SMALL, steps=24).to_json()["losses"]


def test_too_few_steps_and_an_unfinished_run_are_refused(trained):
    with pytest.raises(UserError) as caught:
        find_rate(trained.run, steps=19)
    assert (str(caught.value), caught.value.exit_code) == ("steps: expected 20 or more, got 19.", 2)
    run = trained.copy("unfinished")
    record = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "status": "running"}), "utf-8")
    with pytest.raises(UserError, match="was interrupted before it was finished"):
        find_rate(run, flags=SMALL)
