"""Commands that need no run: exit status and all that is printed; a real cache of two stores."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from kerasft.activations.store import Key, holds, writing
from kerasft.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTOS = [f"{number:032x}" for number in range(6)]
PLAIN = Key({"backbone": "MobileNetV2", "blocks": 3}, tuple((photo, 0) for photo in PHOTOS))
VIEW = Key(
    {"backbone": "ResNet50", "blocks": 0, "augment": [True, 0.5, 0.0]},
    tuple((photo, view) for photo in PHOTOS[:3] for view in (1, 2)),
)
COMMANDS = ["clear", "limit", "list"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache that the command line uses; absent."""
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield tmp_path / "cache"
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def filled(folder):
    """The cache with two stores."""
    for key, used, dtype in ((PLAIN, 1767323045, "float16"), (VIEW, 1767409445, "float32")):
        with writing(folder, key, (6, 1000), dtype) as writer:
            writer.append(np.ones((6, 1000), dtype))
        os.utime(folder / f"{key.digest}.npy", (used, used))
    return folder


def kerasft(line):
    done = CliRunner().invoke(main, shlex.split(line), prog_name="kerasft")
    return done.exit_code, done.stdout, done.stderr


def test_backbones_lists_them_without_tensorflow_and_keras(tmp_path):
    code = (
        "import sys\n"
        "from kerasft.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["backbones"], ["backbones", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env=os.environ | {"KERAS_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "[]\n"
        if arguments == ["backbones"]:
            lines = done.stdout.splitlines()
            assert lines[2] == (
                "MobileNetV2         224        32    2,257,984     1,280      18      9 MB  no"
            )
            assert f"if they are in {tmp_path}/models." in lines
    listed = json.loads(done.stdout)
    assert len(listed["backbones"]) == 43
    assert [row["name"] for row in listed["backbones"] if row["on_this_machine"]] == []


def test_blocks_lists_what_unfreezing_counts_from_the_top():
    _, out, _ = kerasft("blocks MobileNet:alpha=0.25 --json")
    answer = json.loads(out)
    assert answer["backbone"] == "MobileNet:alpha=0.25"
    assert answer["blocks"][0]["layers"][0] == "conv_dw_13"
    assert answer["blocks"][0]["layers"][-1] != answer["blocks"][1]["layers"][-1]
    table = kerasft("blocks MobileNet:alpha=0.25")[1].splitlines()
    assert table[0].split() == ["block", "parameters", "layers"]
    assert len(table) == 1 + len(answer["blocks"])


def test_an_unknown_backbone_is_named_with_the_nearest_known_one():
    exit_code, _, err = kerasft("blocks MobilNetV2")
    assert exit_code == 2
    assert "Did you mean 'MobileNetV2'?" in err


def test_sample_data_says_what_was_drawn(tmp_path):
    folder = tmp_path / "flowers"
    kinds = "1 cosmos, 1 daisy, 1 lily, 1 primrose, 1 tulip"
    assert kerasft(f"sample-data {folder} --per-class 1") == (
        0,
        f"5 images drawn in {folder}: {kinds}\n",
        "",
    )
    exit_code, out, err = kerasft(f"sample-data {folder} --per-class 1")
    assert (exit_code, out) == (2, "")
    assert err == (
        f"Error: {folder} is there already and not an empty folder. Choose another one.\n"
    )
    _, out, _ = kerasft(f"sample-data {tmp_path / 'more'} --per-class 2 --seed 7 --json")
    assert json.loads(out)["classes"]["tulip"] == 2
    assert json.loads(out)["seed"] == 7


def test_list_is_a_line_per_net_and_cut_and_the_sum(filled):
    assert kerasft("cache list") == (
        0,
        "backbone     cut             photos  views  dtype       size  last used\n"
        "ResNet50     features             3      2  float32  24.1 kB  2026-01-03 03:04\n"
        "MobileNetV2  3 from the top       6      1  float16  12.1 kB  2026-01-02 03:04\n"
        "\n"
        f"36.3 kB of at most 20.0 GB in {filled}\n",
        "",
    )


def test_list_as_json_has_all_facts(filled):
    exit_code, out, err = kerasft("cache list --json")
    assert (exit_code, err) == (0, "")
    result = json.loads(out)
    assert {name: value for name, value in result.items() if name != "tensors"} == {
        "bytes": 36256,
        "limit": 20000000000,
        "folder": str(filled),
        "photos": [],
        "photo_bytes": 0,
        "fact_folders": 0,
        "fact_bytes": 0,
        "converted_files": 0,
        "converted_bytes": 0,
    }
    first = result["tensors"][0]
    assert first.pop("made") == pytest.approx(time.time(), abs=600)
    assert first == {
        "bytes": 24128,
        "used": 1767409445.0,
        "facts": {"backbone": "ResNet50", "blocks": 0},
        "photos": 3,
        "views": 2,
        "stores": 1,
        "dtype": "float32",
    }


def test_list_of_no_cache_is_empty_and_makes_none(folder):
    assert kerasft("cache list") == (0, f"0 bytes of at most 20.0 GB in {folder}\n", "")
    assert not folder.exists()


def test_clear_says_how_much_it_removed(filled):
    assert kerasft("cache clear") == (0, "Removed 2 stores, 36.3 kB.\n", "")
    assert kerasft("cache clear") == (0, "Removed 0 stores, 0 bytes.\n", "")
    assert kerasft("cache list") == (0, f"0 bytes of at most 20.0 GB in {filled}\n", "")


def test_clear_as_json(filled):
    assert kerasft("cache clear --json") == (
        0,
        '{"removed": 2, "photos": 0, "bytes": 36256}\n',
        "",
    )


def test_limit_is_shown_and_changed(folder):
    assert kerasft("cache limit") == (0, "The cache may hold 20.0 GB.\n", "")
    assert kerasft("cache limit 1.5TB") == (0, "The cache may hold 1.5 TB.\n", "")
    assert kerasft("cache limit") == (0, "The cache may hold 1.5 TB.\n", "")


def test_a_lower_limit_removes_what_was_used_least_recently(filled):
    assert kerasft("cache limit 30kB") == (
        0,
        "The cache may hold 30.0 kB. Removed 1 store, 12.1 kB.\n",
        "",
    )
    assert (holds(filled, PLAIN), holds(filled, VIEW)) == (False, True)


def test_limit_as_json(filled):
    assert kerasft("cache limit --json") == (
        0,
        '{"limit": 20000000000, "removed": 0, "bytes": 0}\n',
        "",
    )
    assert kerasft("cache limit 20000 --json") == (
        0,
        '{"limit": 20000, "removed": 2, "bytes": 36256}\n',
        "",
    )


def test_a_size_that_is_none_is_refused_and_changes_nothing(filled):
    assert kerasft("cache limit twenty") == (
        2,
        "",
        "Error: SIZE: expected a number with kB, MB, GB or TB, such as 20GB, or plain bytes, "
        "got 'twenty'.\n",
    )
    assert kerasft("cache limit") == (0, "The cache may hold 20.0 GB.\n", "")


def test_a_folder_that_cannot_be_used_is_one_message(folder):
    folder.touch()
    assert kerasft("cache limit 5GB") == (
        1,
        "",
        f"Error: {folder} can't be used: file exists. Set KERASFT_CACHE to another folder, or "
        "train without a store.\n",
    )


def test_there_are_these_commands():
    assert sorted(main.commands["cache"].commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example_that_runs(folder, command):
    command = main.commands["cache"].commands[command]
    example = command.help.partition("Example:\n")[2].strip()
    assert example.startswith(f"kerasft cache {command.name}")
    assert kerasft(example.removeprefix("kerasft "))[0] == 0
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert [each.name for each in options if each.help] == ["as_json"]


def test_the_cache_needs_neither_tensorflow_nor_keras(folder):
    code = (
        "import sys\n"
        "from kerasft.cli.main import main\n"
        "main(['cache', 'list'], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"0 bytes of at most 20.0 GB in {folder}\n[]\n"


@pytest.mark.parametrize("line", [["--help"], ["cache", "--help"], ["cache", "limit", "--help"]])
def test_help_does_not_wait_for_numpy(line):
    code = (
        "import sys\n"
        "from kerasft.cli.main import main\n"
        f"main({line}, standalone_mode=False)\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
