"""The guide's page "what you have, what you type": each command, on made files of that kind."""

import shlex
from pathlib import Path

import pytest

from kerasft.cli.main import main
from kerasft.cli.pages import read_guide
from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.progress import silent
from kerasft.sources.find import find_photos

PAGE = read_guide()["what-you-have"]
COMMANDS = [line[12:] for line in PAGE.splitlines() if line.startswith("    kerasft train")]

CLASSES = ("photos/daisy/1.jpg", "photos/rose/1.jpg")
SPLITS = ("photos/train/daisy/1.jpg", "photos/train/rose/2.jpg", "photos/test/daisy/3.jpg")
NAMED = tuple(f"photos/{n}_{name}.jpg" for n in "123" for name in ("cat", "dog"))
INSIDE = tuple(f"photos/a_{name}_{n}x.jpg" for n in "123" for name in ("cat", "dog"))
FILES = ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")
UNSURE = (*SPLITS, "photos/other/daisy/4.jpg")

# For each command on the page, in order: the files, and how many photos of each split there are.
MADE = [
    ("train photos/", CLASSES, {"": 2}),
    ("train photos/", SPLITS, {"train": 2, "test": 1}),
    ("train photos/ --layout classes", UNSURE, {"": 4}),
    ("train photos/ --layout splits", UNSURE, {"train": 2, "test": 1}),
    ("train photos/", NAMED, {"": 6}),
    ('train photos/ --label-from "_([a-z]+)_"', INSIDE, {"": 6}),
    (
        "train labels.csv",
        FILES,
        {"train": 2, "test": 2},
        ("labels.csv", "id,dx,set\n1,x,train\n2,y,train\n3,x,test\n4,y,test\n"),
    ),
    (
        "train train_list.txt",
        FILES,
        {"": 4},
        ("train_list.txt", "a/1.jpg 0\na/2.jpg 1\nb/3.jpg 0\nb/4.jpg 1\n"),
    ),
    (
        "train labels.csv --column label=breed --column group=patient",
        FILES,
        {"": 4},
        ("labels.csv", "id,breed,colour,patient\n1,x,a,p\n2,y,a,q\n3,x,b,r\n4,y,b,s\n"),
    ),
    (
        "train labels.csv --column label=MEL,NV,BCC --column ignore=age",
        FILES,
        {"": 4},
        ("labels.csv", "id,age,MEL,NV,BCC\n1,50,1,0,0\n2,50,0,1,0\n3,60,0,0,1\n4,60,1,0,0\n"),
    ),
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
    assert [line for line, *_ in MADE] == COMMANDS


@pytest.mark.parametrize("situation", MADE, ids=lambda situation: situation[0])
def test_a_command_of_the_page_finds_the_photos_of_its_situation(situation, tmp_path, monkeypatch):
    line, files, expected, *tables = situation
    monkeypatch.chdir(tmp_path)
    make(files)
    for name, text in tables:
        Path(name).write_text(text)
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
