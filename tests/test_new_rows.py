"""A head method, a kind of source, an export format and a family of backbones take one row each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drawing import draw_photos

from kerasft.export.formats import EXPORTERS

SUPPORT = Path(__file__).parent / "support"
TOY = ("--backbone", "Toy", "--weights", "none", "--image-size", "32")
COMMANDS = {
    "train": ("train", "--data", "photos.lines", *TOY, "--method", "nearest-mean", "--json"),
    "export": ("export", "runs/photos", "--format", "npz"),
    "predict": ("predict", "runs/photos/export-npz", "photos/cross", "--top", "1", "--json"),
    "blocks": ("blocks", "Toy", "--json"),
    "unknown way": ("compare", "photos.lines", "--ways", "nearest"),
    "help of train": ("train", "--help"),
    "help of export": ("export", "--help"),
    "unknown method": ("train", "--data", "photos.lines", *TOY, "--method", "nearest"),
    "unknown format": ("export", "runs/photos", "--format", "npy"),
}


EXPORTED = ("export", "predict")  # takes two more processes for the proof


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What each command but EXPORTED has printed, in one process with a new row in each table."""
    return printed(tmp_path_factory, *(name for name in COMMANDS if name not in EXPORTED))


def printed(tmp_path_factory, *names):
    folder = tmp_path_factory.mktemp("rows")
    photos = sorted(draw_photos(folder / "photos").rglob("*.*"))
    lines = [f"{path.relative_to(folder).as_posix()} {path.parent.name}\n" for path in photos]
    (folder / "photos.lines").write_text("".join(lines))
    (folder / "sitecustomize.py").write_text("import new_rows; new_rows.add_format()\n")
    searched = [str(folder), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.run(
        [
            sys.executable,
            str(SUPPORT / "new_rows.py"),
            json.dumps([COMMANDS[name] for name in names]),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(searched)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    return dict(zip(names, lines, strict=True))


def result_of(one):
    assert one["code"] == 0, one["stderr"]
    return json.loads(one["stdout"])


def test_a_run_reads_a_new_kind_of_source_and_solves_a_new_net_by_a_new_method(done):
    (phase,) = result_of(done["train"])["phases"]
    assert (phase["name"], phase["method"]) == ("nearest-mean", "nearest-mean")
    assert [tried["parameters"]["scale"] for tried in phase["tried"]] == [0.1, 1.0, 10.0]
    blocks = result_of(done["blocks"])["blocks"]
    assert [block["name"] for block in blocks] == ["block_2", "block_1"]


@pytest.mark.slow
def test_a_new_format_is_proven_in_fresh_processes_and_predicts(tmp_path_factory):
    done = printed(tmp_path_factory, "train", *EXPORTED)
    assert done["export"]["code"] == 0, done["export"]["stderr"]
    assert done["export"]["stdout"].startswith("NPZ: runs/photos/export-npz/1\n")
    predicted = result_of(done["predict"])
    assert [Path(photo["file"]).parent.name for photo in predicted] == ["cross"] * 12
    assert all("label" in photo["predictions"][0] for photo in predicted)


def test_help_texts_name_the_new_rows(done):
    words = " ".join(done["help of train"]["stdout"].split()).replace("- ", "-")
    assert "svm, rbf-svm, nearest-mean." in words
    assert "tfds:NAME, or a file with lines of path and class." in words
    offered = " ".join(done["help of export"]["stdout"].split()).replace("| ", "|")
    assert f"--format [{'|'.join(EXPORTERS)}|npz]" in offered


def test_errors_name_the_new_rows(done):
    assert done["unknown method"]["code"] == done["unknown format"]["code"] == 2
    words = " ".join(done["unknown method"]["stderr"].split())
    assert "or 'nearest-mean', got 'nearest'. Did you mean 'nearest-mean'?" in words
    ways = " ".join(done["unknown way"]["stderr"].split())
    assert "svm, rbf-svm, nearest-mean, linear, fc" in ways
    offered = ", ".join(f"'{format}'" for format in (*EXPORTERS, "npz"))
    assert f"'npy' is not one of {offered}." in done["unknown format"]["stderr"]
