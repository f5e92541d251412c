"""Every command that writes, on a disk that is full: a sentence, and nothing is left behind."""

import shutil

import pytest
from click.testing import CliRunner
from drawing import draw_photos
from small_disk import small_disk
from tiny_run import small

from kerasft.cli.main import main
from kerasft.training.train import train_run

pytestmark = [pytest.mark.usefixtures("tiny_backbone"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    train_run(small(draw_photos(folder / "photos")), folder / "run")
    return folder


@pytest.fixture
def disk(folder, tmp_path):
    """A small disk with a copy of the run."""
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(folder / "run", disk.path / "run")
        yield disk


COMMANDS = {  # words, with photos, a run elsewhere and the disk: the file that is not written
    "predict RUN PHOTOS/circle --csv DISK/p.csv": "p.csv",
    "evaluate RUN --csv DISK/e.csv": "e.csv",
    "evaluate DISK/run --data PHOTOS": "run/test.csv",
    "report DISK/run --data PHOTOS": "run/report.html",
    "explain RUN PHOTOS/circle --to DISK/x": "x/circle-000.png",
    "calibrate DISK/run --data PHOTOS": "run/model.keras",
    "find-lr DISK/run --data PHOTOS --steps 20": "run/find-lr.png",
    "unfreeze-and-continue DISK/run --data PHOTOS": "run/config.toml",
    "sample-data DISK/s": "s",
    "compare PHOTOS --out DISK/c --weights sample --ways knn": "c/asked.json",
}


def typed(line, folder, disk):
    for name, path in (("RUN", folder / "run"), ("PHOTOS", folder / "photos"), ("DISK", disk.path)):
        line = line.replace(name, str(path))
    return CliRunner().invoke(main, line.split())


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_on_a_full_disk_ends_with_a_sentence_and_changes_no_file(line, folder, disk):
    disk.fill()
    before = content(disk.path)
    done = typed(line, folder, disk)
    assert done.exit_code in (1, 2)
    place = disk.path / COMMANDS[line]
    said = f"Error: {place} can't be written: no space left on device."
    assert said in done.output.splitlines()
    after = {path: data for path, data in content(disk.path).items() if path.name != ".lock"}
    assert after == {path: data for path, data in before.items() if path.name != ".lock"}


@pytest.mark.parametrize("room", [0, 100_000, 200_000])
@pytest.mark.parametrize("kind", ["saved-model", "keras", "litert", "onnx", "openvino"])
def test_an_export_on_a_disk_that_fills_up_leaves_nothing(kind, room, folder, disk):
    disk.fill(leave=room)
    done = typed(f"export RUN --to DISK/e --format {kind}", folder, disk)
    assert isinstance(done.exception, SystemExit | None)
    if done.exit_code == 0:  # the file of Keras is as small as model.keras
        assert room and kind == "keras"
        return
    said = done.output.lower()
    assert "no space left on device" in said or "the disk may be full" in said
    assert not [path for path in (disk.path / "e").rglob("*") if path.name != ".lock"]


def test_a_comparison_that_found_no_room_is_made_in_the_same_folder_later(folder, disk):
    disk.fill()
    line = "compare PHOTOS --out DISK/c --weights sample --ways knn"
    assert typed(line, folder, disk).exit_code == 1
    disk.make_room()
    done = typed(line, folder, disk)
    assert done.exit_code == 0, done.output
