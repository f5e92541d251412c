"""`kerasft guide` and `fields`; and that what the guide says to type can be typed."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kerasft.cli.main import main
from kerasft.cli.pages import fields_text, read_guide, show_markdown
from kerasft.config.listing import list_fields

ROOT = Path(__file__).resolve().parents[2]
PAGES = read_guide()


def kerasft(line):
    return CliRunner().invoke(main, shlex.split(line), prog_name="kerasft")


# guide


def test_guide_alone_lists_the_topics_with_their_titles():
    done = kerasft("guide")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "augmentation   Views, mixup and test-time augmentation"
    assert lines[-2:] == ["", "Next: `kerasft guide TOPIC` shows a page."]
    assert [line.split()[0] for line in lines[:-2]] == sorted(PAGES)


def test_a_page_is_printed_as_it_is_where_stdout_is_no_terminal():
    assert kerasft("guide photos").stdout == PAGES["photos"]


def test_guide_prints_json():
    assert json.loads(kerasft("guide photos --json").stdout) == {
        "topic": "photos",
        "title": "What --data takes, and how photos are split",
        "text": PAGES["photos"],
    }
    assert json.loads(kerasft("guide --json").stdout)[0] == {
        "topic": "augmentation",
        "title": "Views, mixup and test-time augmentation",
    }


def test_an_unknown_topic_is_refused_with_the_nearest_one():
    done = kerasft("guide foto")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        f"Error: guide: there is no topic 'foto'. Expected one of {', '.join(PAGES)}. "
        "Did you mean 'photos'?\n"
    )


@pytest.mark.parametrize("width", [40, 80])
def test_markdown_fits_the_terminal_and_loses_its_marks(width, capsys):
    show_markdown("# A title\n\nRead `this`, " + "then that, " * 20 + "**now**.\n", width)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].strip() == "A title"
    assert not re.search("[`*]", "".join(lines))


def test_reading_the_guide_leaves_keras_and_pydantic_out_of_the_process():
    code = (
        "import sys\n"
        "from kerasft.cli.main import main\n"
        "main(['guide', 'photos'], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("topic", PAGES)
def test_a_page_has_a_title_and_fits_80_columns(topic):
    assert PAGES[topic].startswith("# ")
    assert [line for line in PAGES[topic].splitlines() if len(line) > 80] == []


# what is said to be typed

README = (ROOT / "README.md").read_text("utf-8")
TEXTS = {**PAGES, "README": README}


def commands(text):
    """The commands on a page, behind four blanks or a prompt; lines that end in \\ are joined."""
    for line in text.replace("\\\n", " ").splitlines():
        typed = re.match(r"(?:    |\$ )(?:KERAS_BACKEND=\w+ )?kerasft (.+?)(?: +#.*)?$", line)
        if typed:
            yield typed[1]


def parse(line):
    """Parses a command as Click does, and does not run it."""
    words, command, context = shlex.split(line), main, click.Context(main, info_name="kerasft")
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_on_a_page_can_be_typed(page):
    for line in commands(TEXTS[page]):
        parse(line)


def test_a_command_that_cannot_be_typed_is_found():
    with pytest.raises(click.UsageError):  # the control
        parse(next(commands("    kerasft train --dta photos/\n")))


@pytest.mark.parametrize("page", TEXTS)
def test_every_field_on_a_page_exists(page):
    known = {row.name.replace("N.", "") for one in list_fields() for row in one.fields}
    sections = "|".join(sorted({name.partition(".")[0] for name in known if "." in name}))
    named = re.findall(rf"(?<![\w/.-])(?:{sections})\.(?:(?:N|-?\d+)\.)?[a-z_]+\b", TEXTS[page])
    wrong = {re.sub(r"\.(N|-?\d+)\.", ".", name) for name in named} - known
    files = {f"model.{ending}" for ending in ("keras", "tflite", "onnx", "xml", "bin")}
    files |= {"cache.py", "compare.json", "compare.csv", "compare.html"}
    others = {"model.signatures"} | files
    assert wrong - others == set()


# fields


def test_fields_are_two_lines_or_more_each(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert kerasft("fields cache.dtype").stdout == (
        "[cache] How the activations at a cut are computed and stored.\n"
        "\n"
        '  cache.dtype = "auto" ("auto", "float16" or "float32")\n'
        '      Type in which the activations are stored; "auto": float16 if all numbers\n'
        "      fit.\n"
        "\n"
        "N is the number of a phase, from 0. Set a field with --set, as in `kerasft train\n"
        "--data PHOTOS/ --set augment.views=8`, or in a config file: `kerasft guide\n"
        "training`.\n"
    )


def test_a_field_is_required_or_not_set_where_it_has_no_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = kerasft("fields phases").stdout.splitlines()
    assert "  phases.N.epochs (int, > 0, required)" in lines
    assert '  phases.N.blocks (int or "all", >= 0, not set)' in lines
    assert lines[0] == (
        "[[phases]] A phase that is trained: where the model is cut, and how what is"
    )


@pytest.mark.parametrize("width", [60, 80, 110])
def test_fields_fit_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = click.unstyle(fields_text([one.to_json() for one in list_fields()]))
    assert max(map(len, text.splitlines())) <= width


def test_fields_prints_json():
    assert json.loads(kerasft("fields data.test --json").stdout) == [
        {
            "section": "data",
            "description": "The photos, and how they are split.",
            "fields": [
                {
                    "name": "data.test",
                    "type": "float",
                    "range": "0 <= x <= 0.5",
                    "default": 0.15,
                    "required": False,
                    "description": "Share of the images in the test split, which is scored at "
                    "the end and decides nothing; 0: no test split.",
                }
            ],
        }
    ]


def test_an_unknown_section_is_refused():
    done = kerasft("fields augmnt")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith("Did you mean 'augment'?\n")
