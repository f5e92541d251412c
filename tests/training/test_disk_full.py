"""A disk that fills up while a run works, or takes no writes: a sentence, and the run goes on."""

import shutil

import pytest
from drawing import draw_photos
from small_disk import small_disk
from tiny_run import both_phases, small, weights

from kerasft.activations import eviction
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.predict import predict
from kerasft.export.export import export_run
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def folder(tiny_backbone, tmp_path_factory):
    """Photos, and a run of two phases that nothing disturbed."""
    folder = tmp_path_factory.mktemp("full")
    train_run(both_phases(draw_photos(folder / "photos")), folder / "whole")
    return folder


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def filling_at(disk, *moment):
    """Returns a callback that fills the disk at a moment: stage, phase, number."""

    def progress(event):
        if (event.stage, event.phase, event.done) == moment:
            disk.fill()

    return progress


MOMENTS = {  # when the disk fills up: what can't be written then
    ("phase", "head", 0): "metrics.jsonl",
    ("epoch", "head", 1): "checkpoints/state-2.npz",
    ("epoch", "head", 2): "checkpoints/candidate.keras",
    ("phase", "unfreeze", 0): "checkpoints/state-1.npz",
    ("epoch", "unfreeze", 1): "checkpoints/state-2.npz",
    ("epoch", "unfreeze", 2): "checkpoints/candidate.keras",
}
FAST = [("epoch", "head", 1)]


@pytest.mark.parametrize(
    "moment",
    [pytest.param(one, marks=[] if one in FAST else pytest.mark.slow) for one in MOMENTS],
    ids=lambda moment: "-".join(map(str, moment)),
)
def test_a_disk_that_fills_up_is_said_and_with_room_the_run_goes_on_to_the_same_bits(
    moment, folder, disk
):
    config, run = both_phases(folder / "photos"), disk.path / "run"
    with pytest.raises(UserError) as caught:
        train_run(config, run, progress=filling_at(disk, *moment))
    assert str(caught.value) == (
        f"{run / MOMENTS[moment]} can't be written: no space left on device."
    )
    assert not [path.name for path in run.rglob("*.part*")]
    disk.make_room()
    train_run(config, run, resume=True)
    for name in ("metrics.jsonl", "answers.npz"):
        assert (run / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert weights(run) == weights(folder / "whole")


def test_a_disk_without_room_for_the_first_files_leaves_nothing(folder, disk):
    disk.fill()
    with pytest.raises(UserError, match=r"splits\.csv can't be written: no space left on device"):
        train_run(both_phases(folder / "photos"), disk.path / "run")
    disk.make_room()
    assert list(disk.path.iterdir()) == []


@pytest.mark.slow
def test_a_cache_that_fills_up_is_said_and_with_room_the_run_goes_on_to_the_same_bits(
    folder, disk, tmp_path, monkeypatch
):
    monkeypatch.setattr(eviction, "RESERVE", 0)  # a gigabyte must stay free, else nothing is stored
    monkeypatch.setenv("KERASFT_CACHE", str(disk.path / "cache"))
    config, run = both_phases(folder / "photos"), tmp_path / "run"
    with pytest.raises(UserError, match=r"cache/.* can't be written: no space left on device\. "):
        train_run(config, run, progress=filling_at(disk, "pass", "head", 32))
    assert not list((disk.path / "cache").glob(".part*"))
    disk.make_room()
    train_run(config, run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == (folder / "whole/metrics.jsonl").read_bytes()
    assert weights(run) == weights(folder / "whole")


@pytest.mark.slow
def test_a_run_on_a_disk_that_takes_no_writes_is_read_and_what_writes_is_refused(
    folder, disk, tmp_path
):
    run = disk.path / "run"
    shutil.copytree(folder / "whole", run)
    disk.remount("ro")
    photos = folder / "photos"
    assert evaluate_run(run, split="validation", data=photos).n == 6
    assert len(predict(run, [photos / "circle"])) == 12
    for work in (
        lambda: evaluate_run(run, data=photos),  # run.json counts how often the test was scored
        lambda: continue_run(run, data=photos),
        lambda: export_run(run),
        lambda: train_run(small(photos), disk.path / "another"),
    ):
        with pytest.raises(UserError, match=r"[Rr]ead-only file system"):
            work()
    assert export_run(run, to=tmp_path / "served").proof.top1_agreement == 1.0


@pytest.mark.slow
def test_a_cache_on_a_disk_that_takes_no_writes_is_read_and_else_named(
    folder, disk, tmp_path, monkeypatch
):
    monkeypatch.setattr(eviction, "RESERVE", 0)
    monkeypatch.setenv("KERASFT_CACHE", str(disk.path / "cache"))
    config = small(folder / "photos", "cache.mode=on")
    first = train_run(config, tmp_path / "first").to_json()
    disk.remount("ro")
    again = train_run(config, tmp_path / "again").to_json()  # all is there
    assert again["test"] == first["test"]
    with pytest.raises(UserError, match=r"cache.* can't be used: read-only file system"):
        train_run(small(folder / "photos", "cache.mode=on", seed=1), tmp_path / "other")
    monkeypatch.setenv("KERASFT_CACHE", str(disk.path / "elsewhere"))
    with pytest.raises(UserError, match=r"elsewhere can't be used: read-only file system"):
        train_run(config, tmp_path / "third")
