"""The guide's page "what you have, what you type": each command, on made files of that kind."""

import shlex
from pathlib import Path

import pytest

from kerasft.cli.main import main
from kerasft.cli.pages import read_guide
from kerasft.config.load import load_config
from kerasft.data.scan import find_photos
from kerasft.errors import UserError
from kerasft.progress import silent

PAGE = read_guide()["what-you-have"]
COMMANDS = [line[12:] for line in PAGE.splitlines() if line.startswith("    kerasft train")]

CLASSES = ("photos/daisy/1.jpg", "photos/rose/1.jpg")
SPLITS = ("photos/train/daisy/1.jpg", "photos/train/rose/2.jpg", "photos/test/daisy/3.jpg")
UNSURE = (*SPLITS, "photos/other/daisy/4.jpg")

# For each command on the page, in order: the files, and how many photos of each split there are.
MADE = [
    ("train photos/", CLASSES, {"": 2}),
    ("train photos/", SPLITS, {"train": 2, "test": 1}),
    ("train photos/ --layout classes", UNSURE, {"": 4}),
    ("train photos/ --layout splits", UNSURE, {"train": 2, "test": 1}),
]


def make(paths):
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(path)


def listed(line):
    """The photos that a command finds, by split."""
    words = shlex.split(line)[1:]
    command = main.commands["train"]
    seen = {}

    def keep(path, *, flags, sets):
        seen["data"] = load_config(path, flags=flags, sets=sets).data
        raise UserError("stop here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerasft.config.load.load_config", keep)
        with pytest.raises(UserError, match="stop here"):
            command.main(words, standalone_mode=False)
    counts = {}
    for photo in find_photos(seen["data"], silent).read().photos:
        counts[photo.split] = counts.get(photo.split, 0) + 1
    return counts


def test_the_page_has_these_commands():
    assert [line for line, _, _ in MADE] == COMMANDS


@pytest.mark.parametrize(("line", "files", "expected"), MADE)
def test_a_command_of_the_page_finds_the_photos_of_its_situation(
    line, files, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make(files)
    assert listed(line) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("train/a/1.jpg", "train/b/1.jpg"), {"train": 2}),
        (("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"), {"train": 2}),
        (("train/a/1.jpg", "test/a/1.jpg", "other/a/1.jpg"), "two readings"),
        (("daisy/1.jpg", "rose/1.jpg", "test/1.jpg"), "two readings"),
        (("images_part_1/1.jpg", "images_part_2/2.jpg", "t.csv"), "pass photos/t.csv"),
        (("test tubes/1.jpg", "training shoes/1.jpg"), {"": 2}),
        (("valid/1.jpg", "expired/1.jpg"), {"": 2}),
    ],
)
def test_each_line_of_its_table_is_true(files, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(f"photos/{path}" for path in files)
    if isinstance(expected, dict):
        assert listed("train photos") == expected
    else:
        with pytest.raises(UserError) as error:
            listed("train photos")
        assert expected in str(error.value).replace(f"{tmp_path}/", "")
