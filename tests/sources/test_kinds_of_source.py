"""Every kind of source from `train` to what comes later: the runs of a small net are whole ones."""

import csv
import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_photos
from tfds_set import write_set
from tiny_run import SECOND, small

from kerasft.cli.options import default_run_path
from kerasft.config.fields import Data
from kerasft.config.load import load_config
from kerasft.data.scan import open_source, scan_for_model, scan_source
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.progress import silent
from kerasft.sources.find import SOURCES, find_photos
from kerasft.training.train import continue_run, train_run
from kerasft.unpacked import clear, list_unpacked, photo_folder

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone", "cache")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def write_table(folder, *, persons=6):
    """photos.csv beside drawn photos: a group is a person, who has two photos of each class."""
    draw_photos(folder)
    with (folder / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for path in sorted(folder.rglob("*-*")):
            person = int(path.stem[-3:]) % persons
            rows.writerow([path.relative_to(folder).as_posix(), path.parent.name, f"p{person}"])
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """What the user named -> its folder and what else has to be said, a row per kind of source."""
    folder = tmp_path_factory.mktemp("named")
    photos = draw_photos(folder / "photos")
    table = write_table(folder / "table")
    packed = shutil.make_archive(str(folder / "packed"), "zip", folder, "photos")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv as csv_of_arrow
    from pyarrow import parquet

    assert pyarrow
    parquet.write_table(csv_of_arrow.read_csv(table), folder / "table/photos.parquet")
    lines = [f"{path.relative_to(photos)} {path.parent.name}\n" for path in photos.rglob("*-*")]
    (folder / "table/photos.txt").write_text("".join(lines))
    pytest.importorskip("tensorflow_datasets")
    sets = write_set(folder / "sets", "MyShapes", {"train": 8, "validation": 2, "test": 2})
    return {
        "folder": (str(photos), {}),
        "csv": (str(table), {}),
        "parquet": (str(folder / "table/photos.parquet"), {}),
        "list": (str(folder / "table/photos.txt"), {}),
        "archive": (packed, {}),
        "tfds": ("tfds:my_shapes", {"data.data_dir": str(sets)}),
    }


@pytest.fixture(scope="module")
def runs(named, tmp_path_factory):
    """kind -> its run and what `train_run` returned; the Parquet file's is that of the CSV file."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for kind in ("csv", "archive", "tfds"):
        source, more = named[kind]
        config = small(source, "phases.0.epochs=1", **more)
        made[kind] = folder / kind, train_run(config, folder / kind).to_json()
    return made


def split_of(run):
    """path -> (split, group), as splits.csv has it."""
    with (run / "splits.csv").open(newline="") as file:
        return {row["path"]: (row["split"], row["group"]) for row in csv.DictReader(file)}


def test_there_is_a_row_for_each_kind(named):
    assert set(named) == set(SOURCES)


@pytest.mark.parametrize("kind", SOURCES)
def test_each_kind_gives_the_same_images_and_classes(named, kind):
    source, more = named[kind]
    found = scan_source(Data(source=source, data_dir=more.get("data.data_dir")), seed=0)
    assert found.class_names == ("circle", "cross", "stripes")
    each = {"train": 8, "validation": 2, "test": 2}
    assert found.counts() == {"circle": each, "cross": each, "stripes": each}
    assert len(set(found.digests)) == 36


def test_a_table_and_its_folder_have_the_same_images_of_the_same_digests(named):
    by_folder = scan_source(Data(source=named["folder"][0]), seed=0)
    by_archive = scan_source(Data(source=named["archive"][0]), seed=0)
    assert by_archive.paths == by_folder.paths
    assert by_archive.digests == by_folder.digests
    assert by_archive.splits.tolist() == by_folder.splits.tolist()
    by_csv, by_parquet = (scan_source(Data(source=named[k][0]), seed=0) for k in ("csv", "parquet"))
    assert by_csv.splits.tolist() == by_parquet.splits.tolist()
    assert by_csv.groups == by_parquet.groups


def test_groups_of_a_table_stay_on_one_side(runs):
    run, result = runs["csv"]
    splits = split_of(run)
    assert len(splits) == 36
    sides = {}
    for split, group in splits.values():
        sides.setdefault(group, set()).add(split)
    assert sorted(map(tuple, sides.values())) == [("test",), *[("train",)] * 4, ("validation",)]
    assert (result["validation"]["n"], result["test"]["n"]) == (6, 6)


@pytest.mark.parametrize("kind", ["csv", "archive", "tfds"])
def test_a_run_finds_its_photos_again_and_gives_the_same_figures(runs, kind, monkeypatch, tmp_path):
    run, result = runs[kind]
    monkeypatch.chdir(tmp_path)
    report = evaluate_run(run)
    assert (report.accuracy, report.n) == (result["test"]["accuracy"], result["test"]["n"])
    assert report.loss == pytest.approx(result["test"]["loss"], abs=1e-6)


@pytest.mark.parametrize("kind", ["archive", "tfds"])
def test_a_cleared_cache_is_filled_again(runs, kind):
    run, result = runs[kind]
    gc.collect()  # photos that an earlier test has let go may still be held, in a cycle
    clear(photo_folder())
    assert list_unpacked(photo_folder()) == []
    assert evaluate_run(run, split="validation").n == result["validation"]["n"]
    assert len(list_unpacked(photo_folder())) == 1


def test_what_the_run_records_can_be_moved_with_the_photos(runs, named):
    recorded = {kind: (run / "config.toml").read_text() for kind, (run, _) in runs.items()}
    above = os.path.relpath(Path(named["csv"][0]).parent.parent, runs["csv"][0])
    assert f'source = "{above}/table/photos.csv"\n' in recorded["csv"]
    assert f'source = "{above}/packed.zip"\n' in recorded["archive"]
    assert 'source = "tfds:my_shapes"\n' in recorded["tfds"]
    assert f'data_dir = "{above}/sets"\n' in recorded["tfds"]
    assert "data_dir" not in recorded["csv"]
    for kind, (run, _) in runs.items():
        assert load_config(run / "config.toml").data.source == named[kind][0]


def test_data_may_name_another_kind_of_source_that_has_the_same_images(runs, named, tmp_path):
    run = shutil.copytree(runs["archive"][0], tmp_path / "moved" / "run")
    with pytest.raises(UserError, match=r"packed\.zip: no such file.*`data=FILE`"):
        evaluate_run(run)  # the path in its config leads nowhere from here
    files = run / "splits.csv", run / "classes.txt"
    for kind in ("folder", "csv", "archive"):
        found = open_source(*files, Data(source=named[kind][0]))
        assert found.counts()["cross"] == {"train": 8, "validation": 2, "test": 2}
    result = continue_run(
        run, flags={**SECOND, "phases.-1.epochs": 1}, data=named["csv"][0]
    ).to_json()
    assert len(result["phases"]) == 2
    assert load_config(run / "config.toml").data.source == named["csv"][0]


def test_a_run_on_tfds_that_was_moved_asks_the_environment_where_the_sets_are(
    runs, named, tmp_path, monkeypatch
):
    run = shutil.copytree(runs["tfds"][0], tmp_path / "moved" / "run")
    with pytest.raises(UserError, match="TFDS does not know this dataset"):
        evaluate_run(run)
    monkeypatch.setenv("TFDS_DATA_DIR", named["tfds"][1]["data.data_dir"])
    assert evaluate_run(run, data="tfds:my_shapes").n == 6


@pytest.mark.parametrize("kind", SOURCES)
def test_a_model_is_measured_on_any_kind(named, kind):
    source, more = named[kind]
    data = Data(source=source, data_dir=more.get("data.data_dir"))
    found = scan_for_model(data, ("stripes", "other", "cross", "circle"))
    split = "train" if kind == "tfds" else "all"
    number = 8 if kind == "tfds" else 12
    labels = found.labels[found.indices(split)]
    assert np.bincount(labels).tolist() == [number, 0, number, number]


def test_a_model_file_is_measured_on_an_archive(runs, named):
    report = evaluate_run(runs["csv"][0] / "model.keras", data=named["archive"][0])
    assert (report.split, report.n) == ("all", 36)


def test_runs_have_names_of_their_own(named, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert {kind: str(default_run_path(source)) for kind, (source, _) in named.items()} == {
        "folder": "runs/photos",
        "csv": "runs/photos",
        "parquet": "runs/photos",
        "list": "runs/photos",
        "archive": "runs/packed",
        "tfds": "runs/my_shapes",
    }


def test_find_photos_unpacks_and_names_what_the_user_named(named):
    source, _ = named["archive"]
    place = find_photos(Data(source=source), silent)
    assert place.name == source
    assert place.root.is_relative_to(photo_folder())


@pytest.mark.parametrize(
    ("kind", "settings", "field"),
    [
        ("tfds", {"layout": "classes"}, "data.layout"),
        ("csv", {"layout": "splits"}, "data.layout"),
        ("folder", {"columns": ["label=breed"]}, "data.columns"),
        ("tfds", {"label_from": "(.)"}, "data.label_from"),
    ],
)
def test_a_field_that_says_how_another_kind_is_read_is_refused(named, kind, settings, field):
    source, more = named[kind]
    data = Data(source=source, data_dir=more.get("data.data_dir"), **settings)
    for scan in (lambda: scan_source(data, seed=0), lambda: scan_for_model(data, ("cross",))):
        with pytest.raises(UserError, match="has no effect with") as error:
            scan()
        assert (error.value.field, error.value.exit_code) == (field, 2)


def test_labels_in_a_column_and_in_the_paths_contradict_each_other(named):
    data = Data(source=named["csv"][0], columns=["group=g", "label=x"], label_from="(.)")
    with pytest.raises(UserError) as error:
        scan_source(data, seed=0)
    assert str(error.value) == (
        "data.columns: says that the labels are in a column, and `data.label_from` that they are "
        "in the paths of the photos. Leave out one of them."
    )
    assert error.value.exit_code == 2


def test_a_model_file_is_measured_on_a_table_whose_columns_are_named(runs, named, tmp_path):
    folder = shutil.copytree(Path(named["csv"][0]).parent, tmp_path / "table")
    text = (folder / "photos.csv").read_text().replace("path,label,group", "a,b,c")
    (folder / "photos.csv").write_text(text)
    model, flags = runs["csv"][0] / "model.keras", {"data.columns": ["label=b", "path=a"]}
    assert evaluate_run(model, data=folder / "photos.csv", flags=flags).n == 36
    with pytest.raises(UserError, match=r"is a run, whose photos.*Leave out `data\.columns`"):
        evaluate_run(runs["csv"][0], flags=flags)
