"""Comparisons on drawn photos: what is trained, what is read again, which files are left."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from drawing import draw_photos
from html_page import Page
from PIL import Image
from tiny_run import presplit, small

from kerasft.compare.compare import _claim_folder, _predicted_seconds, run_request
from kerasft.compare.entry import Entry
from kerasft.compare.request import Request, Trial
from kerasft.compare.result import LeftOut
from kerasft.compare.trials import Comparison, photos_of
from kerasft.compare.ways import WAYS
from kerasft.config.load import load_config
from kerasft.data import scan
from kerasft.errors import UserError
from kerasft.models import bundle
from kerasft.progress import silent
from kerasft.run import Run, read_answers, read_record
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone", "few_epochs")
EPOCHS = 6
FLAGS = {"model.weights": "none", "model.image_size": 32}
SETS = ("augment.views=2",)


def request(photos, *ways, **more):
    flags = {**FLAGS, "data.source": str(photos)}
    more = {"ways": ways, "sets": SETS, "backbones": ("Tiny",), "flags": flags} | more
    return Request(**more)


class Told(list):
    """The entries that a comparison has told of: "knn", or "knn: note"."""

    def __call__(self, event):
        if event.stage == "entry":
            note = event.figures["note"]
            self.append(event.figures["name"] + (f": {note}" if note else ""))


def names(result):
    return [row.way for row in result.ways]


@pytest.fixture(scope="module")
def few_epochs():
    """Lets the way "linear" train 6 epochs: from random weights it would train all blocks 100."""
    with pytest.MonkeyPatch.context() as patch:
        row = replace(WAYS["linear"], flags={"phases.0.epochs": EPOCHS})
        patch.setitem(WAYS, "linear", row)
        yield


@pytest.fixture(scope="module")
def compared(tiny_backbone, few_epochs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    photos = draw_photos(folder / "photos")
    told = Told()
    result = run_request(request(photos, "knn", "linear"), folder / "out", keep=True, progress=told)
    return folder, told, result


def test_all_ways_are_trained_the_one_that_others_go_on_from_first(compared):
    _, told, result = compared
    assert told == ["linear", "knn"]
    assert names(result) == ["linear", "knn"]
    assert result.images == {"train": 24, "validation": 6, "test": 6}
    for row in result.ways:
        assert (row.backbone, row.seeds, row.stopped) == ("Tiny", 1, False)
        low, high = row.means.ci95
        assert 0 <= row.means.test_accuracy <= 1 and 0 <= low < high <= 1
        assert row.means.seconds > 0 and row.means.ms_per_image > 0 and row.means.size_mb > 0
        assert row.classes == 3
    settings = {row.way: row.settings[0] for row in result.ways}
    assert list(settings["knn"]) == ["k"] and list(settings["linear"]) == ["learning_rate"]


def test_as_many_settings_are_tried_for_each_way_and_validation_chooses(compared):
    folder, _, _ = compared
    entry = json.loads((folder / "out" / "entries" / "Tiny-linear-seed0-1.json").read_text())
    assert len(entry["tried"]) == 3
    best = min(entry["tried"], key=lambda one: one["val_loss"])
    assert entry["settings"] == best["settings"]
    assert entry["val_loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    assert sum(entry["val_right"]) / 6 == entry["val_accuracy"]


def test_the_validation_answers_of_all_that_was_tried_are_kept(compared):
    folder, _, result = compared
    entries = folder / "out" / "entries"
    kept = read_answers(entries / "Tiny-linear-seed0-1.npz")["linear"]
    entry = json.loads((entries / "Tiny-linear-seed0-1.json").read_text())
    # 3 rates, 6 epochs of each, 6 images.
    assert len(kept.losses) == 3 * EPOCHS
    assert kept.losses.shape == kept.right.shape == (entry["chosen_among"], 6)
    # The lowest mean loss is that of the chosen epoch of the chosen rate.
    best = kept.losses.mean(axis=1).argmin()
    assert kept.losses[best].mean() == pytest.approx(entry["val_loss"], rel=1e-4)
    assert kept.right[best].tolist() == [bool(one) for one in entry["val_right"]]
    assert json.loads((entries / "Tiny-knn-seed0-1.json").read_text())["chosen_among"] == 1
    assert not (entries / "Tiny-knn-seed0-1.npz").exists()  # chosen by cross-validation
    rows = {row.way: row.means for row in result.ways}
    assert rows["knn"].val_corrected == rows["knn"].val_accuracy


@pytest.mark.slow
def test_unfreezing_goes_on_from_the_linear_head_that_was_chosen(photos, tmp_path):
    told = Told()
    result = run_request(request(photos, "unfreeze"), tmp_path / "out", progress=told)
    assert told == ["unfreeze"]
    entries = {path.name for path in (tmp_path / "out" / "entries").iterdir()}
    assert entries == {
        f"Tiny-{way}-seed0-1.{kind}" for way in ("linear", "unfreeze") for kind in ("json", "npz")
    }
    (row,) = result.ways
    assert (row.way, row.stopped) == ("unfreeze", False)
    # What it goes on from was chosen on validation too.
    folder = tmp_path / "out" / "entries"
    linear, unfreeze = (
        read_answers(folder / f"Tiny-{way}-seed0-1.npz")[way] for way in ("linear", "unfreeze")
    )
    first = len(linear.right)
    np.testing.assert_array_equal(unfreeze.losses[:first], linear.losses)
    assert len(unfreeze.losses) > first + 3


def test_the_winner_stays_as_a_run_that_goes_on(compared):
    folder, _, result = compared
    kept = folder / "out" / "winner"
    assert result.kept == kept
    assert not (folder / "out" / "runs").exists()
    record = read_record(Run(kept))
    assert record.test.accuracy == result.winner.means.test_accuracy
    assert record.test_scored == 1
    assert bundle.load(kept / "model.keras").class_names == ("circle", "cross", "stripes")
    assert load_config(kept / "config.toml").data.source == str(folder / "photos")
    if result.winner.way != "knn":
        copy = shutil.copytree(kept, folder / "out" / "copy")
        continue_run(copy, flags={"phases.-1.blocks": 1, "phases.-1.epochs": 1})


def test_the_winner_that_is_kept_is_not_made_again(compared):
    folder, _, result = compared
    model = folder / "out" / "winner" / "model.keras"
    before = model.stat().st_mtime_ns
    again = run_request(request(folder / "photos", "knn", "linear"), folder / "out", keep=True)
    assert again.kept == result.kept
    assert model.stat().st_mtime_ns == before
    assert not (folder / "out" / "runs").exists()


def test_the_files_hold_what_was_returned(compared):
    folder, _, result = compared
    out = folder / "out"
    assert json.loads((out / "compare.json").read_text()) == result.to_json()
    with (out / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["linear", "knn"]
    assert float(rows[0]["val_accuracy"]) == result.ways[0].means.val_accuracy
    with Image.open(out / "compare.png") as image:
        assert image.width == 840
    page = Page(out / "compare.html")
    assert page.unclosed == [] and page.from_elsewhere() == []
    shown = {row[1]: row[3:6] for row in page.rows if row[2:3] == ["Tiny"]}
    for row in result.ways:
        means = row.means
        interval = f"{means.ci95[0]:.3f} to {means.ci95[1]:.3f}"
        assert shown[row.way] == [
            f"{means.val_corrected:.3f}",
            f"{means.test_accuracy:.3f}",
            interval,
        ]
    assert result.advice in page.words


def test_what_is_finished_is_not_done_again_and_ways_can_be_added(compared):
    folder, _, before = compared
    entries = folder / "out" / "entries"
    made = {path.name: path.stat().st_mtime_ns for path in entries.iterdir()}
    ways = ("linear", "knn", "bayes")
    result = run_request(request(folder / "photos", *ways), folder / "out")
    after = {path.name: path.stat().st_mtime_ns for path in entries.iterdir()}
    assert {name: after[name] for name in made} == made
    # Validation has chosen the setting of bayes, so its answers are kept.
    assert set(after) - set(made) == {"Tiny-bayes-seed0-1.json", "Tiny-bayes-seed0-1.npz"}
    rows = {row.way: row for row in result.ways}
    for row in before.ways:
        assert replace(rows[row.way], p_vs_best=None) == replace(row, p_vs_best=None)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        pytest.param(lambda path: path.write_bytes(b"PK"), marks=pytest.mark.slow),
        lambda path: path.write_bytes(b""),
    ],
)
def test_an_entry_without_its_answers_is_made_again(compared, caplog, damage):
    folder, _, _ = compared
    what = request(folder / "photos", "bayes")  # validation chooses among three settings
    run_request(what, folder / "out")
    answers = folder / "out" / "entries" / "Tiny-bayes-seed0-1.npz"
    before = read_answers(answers)["bayes"]
    assert before.right.shape == (3, 6)
    damage(answers)
    with caplog.at_level("WARNING", logger="kerasft"):
        run_request(what, folder / "out")
    assert [record.getMessage() for record in caplog.records] == [
        f"{answers.with_suffix('.json')} is damaged, so this entry is made again."
    ]
    np.testing.assert_array_equal(read_answers(answers)["bayes"].right, before.right)


def test_a_damaged_entry_is_made_again_and_a_line_says_so(compared, caplog):
    folder, _, _ = compared
    entry = folder / "out" / "entries" / "Tiny-knn-seed0-1.json"
    whole = json.loads(entry.read_text())
    entry.write_text(entry.read_text()[:100])
    with caplog.at_level("WARNING", logger="kerasft"):
        run_request(request(folder / "photos", "linear", "knn"), folder / "out")
    assert [record.getMessage() for record in caplog.records] == [
        f"{entry} is damaged, so this entry is made again."
    ]
    again = json.loads(entry.read_text())
    times = dict.fromkeys(("seconds", "pass_seconds", "ms_per_image", "tried"))
    assert {**again, **times} == {**whole, **times}


def test_another_comparison_does_not_get_into_the_same_folder(compared, tmp_path):
    folder, _, _ = compared
    others = draw_photos(tmp_path / "others", per_class=7)
    with pytest.raises(UserError) as refused:
        run_request(request(others, "knn"), folder / "out")
    assert str(refused.value) == (
        f"{folder / 'out'} holds a comparison with other photos. Choose another `out`, or remove "
        "it."
    )
    assert refused.value.exit_code == 2


def test_a_backbone_may_be_added_with_weights_of_its_own_and_none_gets_others(photos, tmp_path):
    with h5py.File(tmp_path / "tiny.h5", "w") as file:
        file.attrs["kerasft_backbone"] = "Tiny"
    ours = f"{tmp_path}/tiny.h5"

    def begin(weights, *backbones):
        flags = {**FLAGS, "data.source": str(photos), "model.weights": weights}
        comparison = Comparison(
            tmp_path, request(photos, "knn", flags=flags, backbones=backbones), 0.0, silent
        )
        photos_of(comparison, Trial(0, 1.0, backbones[0], "knn"))
        _claim_folder(comparison)

    begin(ours, "Tiny")
    begin(f"{ours}+none", "Tiny", "MobileNetV2")
    begin(ours, "Tiny")
    with pytest.raises(UserError, match="holds a comparison with other weights"):
        begin("none", "MobileNetV2", "Tiny")


def listed(folder, *, swapped=False, groups=False):
    """Writes a table of drawn photos with their splits, and perhaps with groups."""
    columns = ["path", "label", "split", *(["group"] if groups else [])]
    rows = []
    for place, path in enumerate(sorted((folder / "photos").rglob("*.*"))):
        split = ("train", "train", "validation", "test")[place % 4]
        if swapped:
            split = {"validation": "test", "test": "validation"}.get(split, split)
        row = [path.relative_to(folder).as_posix(), path.parent.name, split]
        rows.append([*row, *([f"g{place}"] if groups else [])])
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / "photos.csv"


def claims(folder, source, **flags):
    """Begins a comparison of one way, which claims the folder `out`."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    flags = {**FLAGS, "data.source": str(source), **flags}
    comparison = Comparison(out, request(source, "knn", flags=flags), 0.0, silent)
    photos_of(comparison, Trial(0, 1.0, "Tiny", "knn"))
    _claim_folder(comparison)


def test_entries_of_another_division_are_not_taken(photos):
    folder = photos.parent
    claims(folder, listed(folder))
    claims(folder, listed(folder))  # the control
    with pytest.raises(UserError) as refused:
        claims(folder, listed(folder, swapped=True))
    assert str(refused.value) == (
        f"{folder / 'out'} holds a comparison with the photos divided in another way. Choose "
        "another `out`, or remove it."
    )
    with pytest.raises(UserError, match="a comparison with other groups of photos"):
        claims(folder, listed(folder, groups=True))


def test_entries_of_other_weights_in_the_same_file_are_not_taken(photos):
    folder = photos.parent
    weights = {"model.weights": str(folder / "tiny.h5")}
    for value in (1, 1, 2):
        with h5py.File(folder / "tiny.h5", "w") as file:
            file.attrs["kerasft_backbone"] = "Tiny"
            file["weights"] = [value]
        if value == 1:
            claims(folder, photos, **weights)
    with pytest.raises(UserError, match="holds a comparison with other weights"):
        claims(folder, photos, **weights)


def test_entries_of_another_numerics_version_or_of_an_older_kerasft_are_not_taken(photos):
    folder = photos.parent
    claims(folder, photos)
    path = folder / "out" / "asked.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "numerics": facts["numerics"] - 1}))
    with pytest.raises(UserError, match="features of another version of kerasft"):
        claims(folder, photos)
    del facts["divisions"]
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"of an earlier kerasft, .* its entries \(divisions\)"):
        claims(folder, photos)


def test_a_way_that_needs_more_photos_is_left_out_with_the_reason(tmp_path):
    photos = draw_photos(tmp_path / "photos", per_class=3)  # one of each class for training
    result = run_request(request(photos, "knn", "svm"), tmp_path / "out")
    rows = {row.way: row for row in result.ways}
    assert rows["svm"].means is None
    assert rows["knn"].means is not None
    assert result.to_json()["winner"]["name"] == "knn"
    entry = json.loads((tmp_path / "out" / "entries" / "Tiny-svm-seed0-1.json").read_text())
    assert entry["note"] == (
        "left out: svm: too few training images for two folds with every class, which Platt "
        "scaling needs"
    )


def test_a_way_that_the_budget_stops_is_marked_and_goes_on_later(photos, tmp_path):
    told = Told()
    result = run_request(request(photos, "knn"), tmp_path / "out", budget=0, progress=told)
    assert told == ["knn: stopped: the budget was used up"]
    (row,) = result.ways
    assert (row.stopped, row.means, row.p_vs_best) == (True, None, None)
    assert result.winner is None
    assert result.advice == "Nothing was finished, so there is nothing to advise."
    again = run_request(request(photos, "knn"), tmp_path / "out")
    assert again.to_json()["winner"]["name"] == "knn"


DEFAULT = ("knn", "bayes", "lda", "logistic", "svm", "rbf-svm", "linear", "fc", "unfreeze")


def made_before(out, *ways, ms=1000.0, seed=0):
    """Writes entries as an earlier comparison of these 24, 6 and 6 photos would have left them."""
    (out / "entries").mkdir(parents=True, exist_ok=True)
    for way in ways:
        trial = Trial(seed, 1.0, "Tiny", way)
        right = [1, 0, 1, 0, 1, 0]
        entry = {
            **{"name": way, "backbone": "Tiny", "seed": seed, "fraction": 1.0, "note": ""},
            **{"stopped": False, "notes": [], "tried": [], "mapping": [], "settings": {}},
            **{"val_accuracy": 0.5, "val_loss": 1.0, "val_right": right, "converged": True},
            **{"test_accuracy": 0.5, "test_loss": 1.0, "test_right": right, "n_test": 6},
            **{"macro_f1": 0.5, "classes": 3, "seconds": 1.0, "pass_seconds": 0.0},
            **{"ms_per_image": ms, "size_mb": 1.0, "run": f"runs/{trial.name}"},
        }
        (out / "entries" / f"{trial.name}.json").write_text(json.dumps(entry))
    return out


# Scoring an image takes 1 s in those entries, training it 3 s, or 5 s where BatchNormalization
# learns too: full 2,160 s for its 3 rates, 10 epochs and 24 images; scratch 36,000 s for its 100.


@pytest.mark.slow
def test_a_generous_budget_has_time_for_all(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kerasft.compare.ways.FACTORS", (1.0,)
    )  # one rate, not three: 720 s for full
    out, told = made_before(tmp_path / "out", *DEFAULT, "scratch"), Told()
    train_run(small(photos), out / "runs" / "Tiny-linear-seed0-1")  # full goes on from it
    result = run_request(request(photos, ways=None), out, budget=1000, progress=told)
    assert sorted(names(result)) == sorted([*DEFAULT, "full", "scratch"])
    assert told[-2:] == ["full", "scratch"]
    full = next(row for row in result.ways if row.way == "full")
    assert not full.stopped and 0 < full.means.ms_per_image < 1000  # trained, not only found
    assert result.left_out == ()
    assert json.loads((out / "compare.json").read_text()) == result.to_json()


@pytest.mark.slow
def test_a_generous_budget_has_time_for_training_from_scratch(photos, tmp_path):
    out, told = made_before(tmp_path / "out", *DEFAULT, "full"), Told()
    result = run_request(request(photos, ways=None), out, budget=1e6, progress=told)
    assert told[-2:] == ["full", "scratch"]
    assert not any(row.stopped for row in result.ways)
    assert result.left_out == ()


def test_a_budget_for_the_default_ways_alone_leaves_the_others_out_and_stops_nothing(
    photos, tmp_path
):
    out = made_before(tmp_path / "out", *DEFAULT)
    result = run_request(request(photos, ways=None), out, budget=1000)
    assert sorted(names(result)) == sorted(DEFAULT)
    assert not any(row.stopped for row in result.ways)
    assert [(one.way, round(one.seconds)) for one in result.left_out] == [
        ("full", 2160),
        ("scratch", 36000),
    ]


def test_without_a_budget_or_with_ways_that_are_named_nothing_is_added(photos, tmp_path):
    out = made_before(tmp_path / "out", *DEFAULT, ms=1e-6)
    for ways, budget in ((None, None), (DEFAULT, 1e6)):
        result = run_request(request(photos, ways=ways), out, budget=budget)
        assert sorted(names(result)) == sorted(DEFAULT)
        assert result.left_out == ()


def test_what_is_finished_takes_nothing_of_a_budget(photos, tmp_path):
    out = made_before(tmp_path / "out", *DEFAULT, "full", "scratch")
    result = run_request(request(photos, ways=None), out, budget=0)
    assert sorted(names(result)) == sorted([*DEFAULT, "full", "scratch"])
    assert result.left_out == ()


def test_a_way_has_time_for_all_seeds_or_is_left_out(photos, tmp_path):
    out = tmp_path / "out"
    for seed in (0, 1):
        made_before(out, *DEFAULT, seed=seed)
    result = run_request(request(photos, ways=None, seeds=2), out, budget=3000)
    assert result.left_out[0].seconds == pytest.approx(2 * 2160)
    made_before(out, "full", seed=0)  # half of it is done
    made_before(out, "scratch", seed=0)
    made_before(out, "scratch", seed=1)
    told = []
    result = run_request(request(photos, ways=None, seeds=2), out, budget=1, progress=told.append)
    assert result.left_out[0].seconds == pytest.approx(2160)
    assert (result.ways[-1].way, result.ways[-1].seeds) == ("scratch", 2)
    counted = [(event.done, event.total) for event in told if event.stage == "entry"]
    assert counted[-3:] == [(18, 18), (19, 20), (20, 20)]


def test_what_a_budget_has_left_is_told_where_nothing_says_what_an_image_takes(photos, tmp_path):
    result = run_request(request(photos, ways=None), tmp_path / "out", budget=0)
    assert result.left_out == (
        LeftOut("full", "Tiny", seconds=None, left=0.0),
        LeftOut("scratch", "Tiny", seconds=None, left=0.0),
    )


def test_seconds_are_predicted_from_rates_epochs_images_and_what_scoring_one_takes(
    photos, tmp_path
):
    def predicted(way, *ms, fraction=1.0, backbone="Tiny", weights="none"):
        flags = {"data.source": str(photos), "model.weights": weights}
        comparison = Comparison(
            tmp_path, request(photos, flags=flags, backbones=(backbone,)), 0.0, silent
        )
        timed = [Trial(0, fraction, net, "svm") for net in (backbone, "VGG16")]
        comparison.entries += [Entry(timed[0], ms_per_image=one) for one in ms]
        comparison.entries.append(Entry(timed[1], ms_per_image=0.5))
        return _predicted_seconds(comparison, Trial(0, fraction, backbone, way))

    # 3 x 2 ms x 24 images x 10 epochs x 3 rates; in the slower entries it is the head that takes
    # longer, and what was stopped has no time at all.
    assert predicted("full", 7.0, None, 2.0) == pytest.approx(4.32)
    # 5 x 2 ms, because BatchNormalization learns too, x 24 images x 100 epochs x 3 rates
    assert predicted("scratch", 2.0) == pytest.approx(72.0)
    assert predicted("scratch", 2.0, fraction=0.5) == pytest.approx(36.0)  # 12 images
    assert predicted("scratch", None) == float("inf")
    # A head alone takes one pass in each view, whatever its epochs and rates: 2 ms x 24 images
    # x 2 views
    small_net = {"backbone": "MobileNetV2:alpha=0.35", "weights": "sample"}
    assert predicted("depths", 2.0, **small_net) == pytest.approx(0.096)
    # On the weights of the sample what goes on from a head is trained for 20 epochs.
    assert predicted("full", 2.0, **small_net) == pytest.approx(8.64)


@pytest.mark.slow
def test_features_of_all_depths_are_compared_with_those_of_the_last_block(photos, tmp_path):
    # "linear" trains a head there, not a net from random weights.
    sets = (*SETS, "phases.0.blocks=0", "phases.0.epochs=2")
    what = request(photos, "depths", "linear", sets=sets)
    result = run_request(what, tmp_path / "out")
    assert names(result) == ["linear", "depths"]
    assert all(row.means is not None for row in result.ways)
    entry = json.loads((tmp_path / "out" / "entries" / "Tiny-depths-seed0-1.json").read_text())
    assert [list(one["settings"]) for one in entry["tried"]] == [["learning_rate"]] * 3
    assert entry["pass_seconds"] > 0  # it has features of its own, which linear does not store


def test_a_costly_way_that_the_options_do_not_fit_is_left_out_with_a_line(photos, tmp_path, caplog):
    out = made_before(tmp_path / "out", *DEFAULT, "full", "scratch")
    with caplog.at_level("INFO", logger="kerasft"):
        result = run_request(request(photos, ways=None), out, budget=1000)
    assert "depths" not in names(result)
    # Random weights are trained from scratch, all of them.
    (line,) = [text for text in caplog.messages if "left out" in text]
    assert line.startswith("depths on Tiny was left out: the options have 1 problem:\n  phases")
    assert "'scratch' would train blocks below the head" in line


def test_neither_winner_nor_advice_know_the_test_labels(photos, tmp_path):
    results = []
    for name, swap in (("plain", False), ("permuted", True)):
        source = presplit(photos, tmp_path / f"photos-{name}", swap_test=swap)
        results.append(run_request(request(source, "knn"), tmp_path / name))
    plain, permuted = results
    (one,), (other,) = plain.ways, permuted.ways
    assert one.means.test_accuracy != other.means.test_accuracy
    assert plain.winner.title == permuted.winner.title
    assert plain.advice == permuted.advice
    assert one.means.val_accuracy == other.means.val_accuracy
    assert one.settings == other.settings


@pytest.mark.slow
def test_two_nets_together_and_fractions_are_compared(photos, tmp_path):
    told = Told()
    what = request(photos, "lda", fractions=(0.5, 1.0), backbones=("Tiny+Tiny:alpha=1",))
    result = run_request(what, tmp_path / "out", progress=told)
    assert told == ["lda"] * 2
    (row,) = result.ways
    assert (row.backbone, row.seeds) == ("Tiny+Tiny:alpha=1", 1)
    curve = result.curves["lda on Tiny+Tiny:alpha=1"]
    assert [share for share, _ in curve] == [0.5, 1.0]
    assert curve[1][1] == row.means.val_corrected
    assert (tmp_path / "out" / "curve.png").is_file()


def test_all_that_is_wrong_with_the_options_is_told_at_once(photos, tmp_path):
    what = request(photos, "svn", "knn", "knn", seeds=0, fractions=(0.0, 1.0))
    with pytest.raises(UserError) as refused:
        run_request(what, tmp_path / "out")
    assert str(refused.value).splitlines() == [
        "the options have 4 problems:",
        "  `ways`: expected some of as-is, knn, bayes, lda, logistic, svm, rbf-svm, linear, fc, "
        "depths, unfreeze, full, scratch, got 'svn'. Did you mean 'svm'?",
        "  `ways`: knn is named twice.",
        "  `seeds`: expected 1 or more, got 0.",
        "  `fractions`: expected numbers over 0 and at most 1, got 0.",
    ]
    assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_several_nets_cannot_be_used_as_they_are(photos, tmp_path):
    what = request(photos, "as-is", backbones=("Tiny+Tiny:alpha=1",))
    with pytest.raises(
        UserError, match="ways: as-is needs a single backbone with ImageNet weights"
    ):
        run_request(what, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_class_is_refused_before_anything_is_trained(tmp_path):
    photos = draw_photos(tmp_path / "photos")
    for name in ("cross", "stripes"):
        shutil.rmtree(photos / name)
    with pytest.raises(UserError, match="class"):
        run_request(request(photos, "knn"), tmp_path / "out")


@pytest.mark.slow
def test_real_nets_on_real_photos_as_they_are_and_with_their_features(assets, tmp_path):
    source = tmp_path / "photos"
    for name in ("ants", "bees"):
        (source / name).mkdir(parents=True)
        for file in sorted((assets / "datasets" / "ants_bees" / name).iterdir())[:40]:
            shutil.copy(file, source / name)
    what = Request({"data.source": str(source)}, (), ("MobileNetV2",), ("as-is", "svm"))
    result = run_request(what, tmp_path / "out")
    assert result.mapping == ("ants: ant (310, insect)", "bees: bee (309, insect)")
    as_is, svm = sorted(result.ways, key=lambda row: row.way)
    assert as_is.classes == svm.classes == 2
    assert as_is.means.val_accuracy >= 0.75 and svm.means.val_accuracy >= 0.75


def test_weights_that_know_the_photos_bring_their_splits_and_a_single_seed(photos, tmp_path):
    train_run(small(photos, "phases.0.epochs=1", seed=4), tmp_path / "base")
    flags = {"data.source": str(photos), "model.weights": str(tmp_path / "base")}
    asked = request(photos, "knn", flags=flags)
    comparison = Comparison(tmp_path / "out", asked, 0.0, silent)
    source = photos_of(comparison, Trial(0, 1.0, "Tiny", "knn"))
    assert source.splits_from == tmp_path / "base"
    with (tmp_path / "base" / "splits.csv").open(newline="") as file:
        before = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert dict(zip(source.paths, source.splits.tolist(), strict=True)) == before
    # Training from scratch is compared on the same splits.
    alone = Comparison(tmp_path / "out", replace(asked, ways=("scratch",)), 0.0, silent)
    scratch = photos_of(alone, Trial(0, 1.0, "Tiny", "scratch"))
    assert scratch.splits.tolist() == source.splits.tolist()
    # So is each share of the training images.
    half = photos_of(comparison, Trial(0, 0.5, "Tiny", "knn"))
    assert half.paths == source.paths
    assert half.indices("test").tolist() == source.indices("test").tolist()
    assert len(half.indices("train")) == 12
    with pytest.raises(UserError) as refused:
        run_request(replace(asked, seeds=2), tmp_path / "out")
    assert str(refused.value) == (
        "seeds: expected 1, got 2: each seed is to split the photos differently, but they keep the "
        f"split that they have in {tmp_path / 'base'}. Leave `seeds` out, or take weights that "
        "were not trained on these photos. `data.splits_from=none` splits them anew, but figures "
        "on photos that the weights were trained on flatter."
    )
    assert refused.value.exit_code == 2
    named = request(photos, "knn", sets=(*SETS, f"data.splits_from={tmp_path / 'base'}"), seeds=2)
    with pytest.raises(UserError, match="seeds: expected 1, got 2"):
        run_request(named, tmp_path / "out")
    anew = request(photos, "knn", flags=flags, sets=(*SETS, "data.splits_from=none"), seeds=2)
    again = Comparison(tmp_path / "out", anew, 0.0, silent)
    first, second = (photos_of(again, Trial(seed, 1.0, "Tiny", "knn")) for seed in (0, 1))
    assert first.splits.tolist() != second.splits.tolist()


def test_entries_on_the_splits_of_another_run_are_not_taken(photos, tmp_path):
    train_run(small(photos, "phases.0.epochs=1", seed=4), tmp_path / "base-4")
    shutil.copytree(tmp_path / "base-4", tmp_path / "base-5")
    other = scan.scan_source(small(photos).data, seed=5)
    scan.write_splits(other, tmp_path / "base-5" / "splits.csv")

    def begin(base):
        flags = {"data.source": str(photos), "model.image_size": 32, "model.weights": "none"}
        flags["data.splits_from"] = str(tmp_path / base)
        comparison = Comparison(tmp_path, request(photos, "knn", flags=flags), 0.0, silent)
        photos_of(comparison, Trial(0, 1.0, "Tiny", "knn"))
        _claim_folder(comparison)

    begin("base-4")
    begin("base-4")
    with pytest.raises(UserError, match="holds a comparison with the photos divided in another"):
        begin("base-5")
    (tmp_path / "base-4").rename(tmp_path / "elsewhere")
    begin("elsewhere")  # the same splits, under another name
