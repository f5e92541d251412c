"""The same message in a notebook and on the terminal: fields and arguments here, flags there."""

import json
import logging
import os
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from drawing import draw_photos

from kerasft.cli.main import main
from kerasft.cli.terminal import showing
from kerasft.cli.wording import error_text, for_terminal
from kerasft.config.load import load_config, to_toml
from kerasft.data.scan import scan_source
from kerasft.errors import UserError

COMMANDS = main.commands


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def in_a_notebook(call, *arguments, **options):
    """The message of an error, and what the exit status would be."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value), caught.value.exit_code


def on_the_terminal(line):
    done = CliRunner().invoke(main, shlex.split(line), prog_name="kerasft")
    assert done.stdout == ""
    return done.stderr, done.exit_code


def an_unfinished_run(path, photos="photos"):
    path.mkdir()
    config = load_config(None, flags={"data.source": photos})
    (path / "config.toml").write_text(to_toml(config, path), "utf-8")
    (path / "run.json").write_text(json.dumps({"status": "running", "phases": []}), "utf-8")
    return path


# ── both, for each kind of mention ──


def test_an_argument_in_front_is_the_flag_of_the_command():
    from kerasft.training.find_lr import find_rate

    assert in_a_notebook(find_rate, Path("run"), steps=19) == (
        "steps: expected 20 or more, got 19.",
        2,
    )
    assert on_the_terminal("find-lr run --steps 19") == (
        "Error: --steps: expected 20 or more, got 19.\n",
        2,
    )


def test_a_field_in_backticks_is_its_flag_where_the_command_has_one():
    assert in_a_notebook(load_config, None) == (
        "the options have 1 problem:\n  data.source: missing. Pass `data.source=SRC`.",
        2,
    )
    assert on_the_terminal("train") == (
        "Error: the options have 1 problem:\n  data.source: missing. Pass --data SRC.\n",
        2,
    )


def test_a_field_in_backticks_without_a_flag_is_typed_with_set():
    photos = draw_photos(Path("photos").absolute())
    broken = photos / "circle" / "broken.png"
    broken.write_bytes(b"\x89PNG")
    message = (
        f"{photos}: 1 file can't be used:\n"
        "  circle/broken.png: is not a JPEG, PNG, GIF, BMP or WebP image\n"
        "  Move them away, or pass {} to continue without them."
    )
    config = load_config(None, flags={"data.source": "photos"})
    assert in_a_notebook(scan_source, config.data, seed=0) == (
        message.format("`data.bad_images=skip`"),
        1,
    )
    assert on_the_terminal("train --data photos --dry-run") == (
        f"37 images read\nError: {message.format('--set data.bad_images=skip')}\n",
        1,
    )


def test_an_argument_in_backticks_is_its_flag():
    from kerasft.training.train import train_run

    an_unfinished_run(Path("run"))
    config = load_config(None, flags={"data.source": "photos"})
    message = (
        "run already holds a run. Choose another directory, or\n"
        "  pass {} to continue an unfinished one."
    )
    assert in_a_notebook(train_run, config, Path("run")) == (message.format("`resume=True`"), 2)
    assert on_the_terminal("train --data photos --run run") == (
        f"Error: {message.format('--resume')}\n",
        2,
    )


def test_a_call_in_backticks_is_the_command_that_does_it():
    from kerasft.training.train import continue_run

    an_unfinished_run(Path("my run"))
    message = "my run was interrupted before it was finished. Finish it first: {}"
    assert in_a_notebook(continue_run, "my run") == (
        message.format("`continue_run('my run', resume=True)`"),
        1,
    )
    assert on_the_terminal("unfreeze-and-continue 'my run'") == (
        f"Error: {message.format(shlex.join(['kerasft', 'train', '--run', 'my run', '--resume']))}"
        "\n",
        1,
    )


def test_a_wrong_value_names_what_was_typed():
    assert in_a_notebook(
        load_config,
        None,
        flags={"data.source": "photos", "phases.0.epochs": 0},
        sets=["phases.0.epoch=5", "seed"],
    ) == (
        "the options have 3 problems:\n"
        "  phases[0].epochs (`flags`): expected more than 0, got 0.\n"
        "  phases[0].epoch (`sets`): unknown key. Did you mean 'epochs'?\n"
        "  `sets`: expected KEY=VALUE, e.g. phases.0.epochs=5, got 'seed'.",
        2,
    )
    assert on_the_terminal("train --data photos --epochs 0 --set phases.0.epoch=5 --set seed") == (
        "Error: the options have 3 problems:\n"
        "  phases[0].epochs (--epochs): expected more than 0, got 0.\n"
        "  phases[0].epoch (--set): unknown key. Did you mean 'epochs'?\n"
        "  --set: expected KEY=VALUE, e.g. phases.0.epochs=5, got 'seed'.\n",
        2,
    )


# ── the rules, one by one ──


@pytest.mark.parametrize(
    ("command", "text", "shown"),
    [
        ("train", "Pass `model.backbone=VGG16`.", "Pass --backbone VGG16."),
        ("train", "Pass `device=cpu`.", "Pass --device cpu."),
        ("evaluate", "Pass `device=cpu`.", "Pass `device=cpu`."),  # it can't be typed there
        ("evaluate", "Pass `data=SRC`.", "Pass --data SRC."),
        ("train", "Choose another `run_dir`.", "Choose another --run."),
        ("unfreeze-and-continue", "Choose another `run_dir`.", "Choose another RUN."),
        ("find-lr", "Or `from_start=True`.", "Or --from-start."),
        ("train", "`phases.1.epochs=5`", "--set phases.1.epochs=5"),  # --epochs is phases.0's
        ("train", "`phases.0.epochs=5`", "--epochs 5"),
        ("unfreeze-and-continue", "`phases.-1.epochs=5`", "--epochs 5"),
        ("evaluate", "`phases.0.stored=false`", "`phases.0.stored=false`"),  # it has no --set
        ("find-lr", "  phases[3].blocks (`flags`): no.", "  phases[3].blocks (--blocks): no."),
        ("compare", "phases[0].method (`flags`): no.", "phases[0].method: no."),  # set by itself
        ("compare", "model.weights (`flags`): no.", "model.weights (--weights): no."),
        ("compare", "`model.backbone=VGG16`, `out`", "--backbones VGG16, --out"),
        ("import-caffe", "of `backbone=vgg16`.", "of --backbone vgg16."),
        ("train", "`kerasft cache clear`, `resume`", "`kerasft cache clear`, --resume"),
        ("train", "`continue_run()`, `run(1)`", "`continue_run()`, `run(1)`"),
    ],
)  # fmt: skip
def test_what_stands_in_backticks_is_what_the_command_has_for_it(command, text, shown):
    assert for_terminal(text, COMMANDS[command]) == shown


@pytest.mark.skipif(os.name == "nt", reason="quotes are another shell's")
def test_a_value_with_a_sign_of_the_shell_is_quoted():
    shown = for_terminal("`head.hidden=[256]` `data=my photos`", COMMANDS["train"])
    assert shown == "--set 'head.hidden=[256]' --data 'my photos'"


def test_a_field_in_front_stays_since_a_file_may_have_set_it():
    error = UserError("'gpu:3' asked for. Pass `device=cpu`.", field="device")
    assert error_text(error, COMMANDS["train"]) == "device: 'gpu:3' asked for. Pass --device cpu."
    error = UserError("'folded' is for a CPU.", field="cache.engine")
    assert error_text(error, COMMANDS["train"]) == "cache.engine: 'folded' is for a CPU."


def test_without_a_command_backticks_stay():
    assert for_terminal("Pass `data=SRC` or `seed=3`.") == "Pass `data=SRC` or `seed=3`."
    assert error_text(UserError("no.", field="to"), None) == "to: no."


def test_a_name_gives_the_terminal_no_orders():
    assert for_terminal("a\x1b[2J\rb:\n  c\udcff\td") == "a\\x1b[2J\\rb:\n  c\\udcff\\td"


def test_the_log_and_progress_are_worded_too(capsys):
    text = "Train without a store: `phases.0.stored=false`."
    with click.Context(COMMANDS["train"]), showing() as progress:
        logging.getLogger("kerasft").warning(text)
        progress.say(text)
    shown = "Train without a store: --set phases.0.stored=false."
    assert capsys.readouterr().err == f"Warning: {shown}\n{shown}\n"
