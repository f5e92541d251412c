"""What stays on the screen after an event, and where it goes."""

import io
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from kerasft.cli import terminal
from kerasft.cli.terminal import Display, duration_text, event_line, loading
from kerasft.errors import UserError
from kerasft.progress import Event

EPOCH = {
    "loss": 0.51239,
    "accuracy": 0.8216,
    "val_loss": 0.4121,
    "val_accuracy": 0.8667,
    "learning_rate": 0.001,
    "images_per_second": 312.4,
    "best": True,
}


def test_an_epoch_leaves_one_line_with_all_its_figures():
    line = event_line(Event("epoch", 3, 20, "head", EPOCH), seconds_left=80.2)
    assert line == (
        "head epoch 3/20: loss 0.5124, accuracy 0.822, validation loss 0.4121, "
        "validation accuracy 0.867, learning rate 0.001, 312 images/s, 1:20 left, best so far"
    )


@pytest.mark.parametrize(
    ("blocks", "said"),
    [(0, "the head"), (1, "the head and 1 block"), (3, "the head and 3 blocks")],
)
def test_a_phase_says_what_it_trains(blocks, said):
    figures = {"blocks": blocks, "trainable_parameters": 1234567, "epochs": 10}
    assert event_line(Event("phase", 0, 1, "unfreeze", figures)) == (
        f"unfreeze: training {said}, 1,234,567 parameters, up to 10 epochs"
    )


STORE = {
    "lacking": 4421,
    "needed": 4421,
    "images": 1049,
    "views": 4,
    "validation": 225,
    "bytes": 11_320_000,
    "later_bytes": 0,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "head: computing frozen features once: 1,049 images x 4 views + 225 validation images "
            "(11.3 MB)",
        ),
        (
            {"views": 1, "later_bytes": 20_000_000, "lacking": 1274, "needed": 1274},
            "head: computing frozen features once: 1,049 images + 225 validation images "
            "(11.3 MB, and 20.0 MB for the next phase)",
        ),
        ({"lacking": 0}, "head: using frozen features from the cache (11.3 MB)"),
        (
            {"lacking": 52},
            "head: computing frozen features of 52 images; those of 4,369 images are in the cache "
            "(11.3 MB)",
        ),
    ],
)
def test_a_phase_says_what_goes_through_the_net_and_what_is_stored(changes, line):
    assert event_line(Event("store", 0, 1, "head", STORE | changes)) == line


def test_a_prediction_leaves_a_line_unless_it_is_over_in_a_second():
    def line(seconds):
        figures = {"what": "prefix pass", "seconds": seconds}
        return event_line(Event("predicted", 96, 4421, "head", figures))

    assert line(31.4) == "head: frozen features will take about 0:31"
    assert line(0.9) is None


def test_the_prefix_pass_is_a_bar_with_its_pace(bar):
    figures = {"images_per_second": 120.4, "seconds_left": 30.2}
    Display(bar)(Event("pass", 640, 4421, "head", figures))
    assert bar.tasks[0].description == "head frozen features"
    assert (bar.tasks[0].completed, bar.tasks[0].total) == (640, 4421)
    assert bar.tasks[0].fields["figures"] == "120 images/s, 0:30 left"


def test_only_the_last_image_read_leaves_a_line():
    assert event_line(Event("images", 100, 1498)) is None
    assert event_line(Event("images", 1498, 1498)) == "1,498 images read"
    assert event_line(Event("images", 1, 1)) == "1 image read"


def test_batches_and_checks_leave_no_line():
    assert event_line(Event("batch", 3, 10, "head", {"loss": 0.5})) is None
    assert event_line(Event("check", 10, 10, "", {"what": "scoring validation"})) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (83, "1:23"), (3700, "1:01:40")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert duration_text(seconds) == text


def test_the_time_left_counts_the_epochs_of_this_process_but_the_first(capsys, monkeypatch):
    clock = iter([100.0, 160.0, 170.0, 190.0])  # the phase begins; epochs of 60, 10, 20 seconds
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    display = Display()
    display(Event("phase", 0, 1, "head", {"blocks": 0, "epochs": 20}))
    for epoch in (14, 15, 16):  # resumed: the 14th is the first here
        display(Event("epoch", epoch, 20, "head", {"loss": 0.5}))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "head epoch 14/20: loss 0.5000, 6:00 left",
        "head epoch 15/20: loss 0.5000, 0:50 left",
        "head epoch 16/20: loss 0.5000, 1:00 left",
    ]


@pytest.fixture
def screen():
    return io.StringIO()


@pytest.fixture
def bar(screen):
    console = Console(file=screen, force_terminal=True, width=160)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        yield bar


def test_a_terminal_shows_the_batch_in_a_bar_and_the_epoch_above_it(screen, bar):
    display = Display(bar)
    figures = {"epoch": 3, "epochs": 20, "loss": 0.5, "images_per_second": 99.6, "seconds_left": 61}
    display(Event("batch", 5, 10, "head", figures))
    bar.refresh()
    display(Event("epoch", 3, 20, "head", EPOCH))
    assert bar.tasks[0].description == "head epoch 3/20"
    assert (bar.tasks[0].completed, bar.tasks[0].total) == (5, 10)
    assert bar.tasks[0].fields["figures"] == "loss 0.5000, 100 images/s, 1:01 left"
    assert "head epoch 3/20: loss 0.5124" in screen.getvalue()


def test_square_brackets_in_a_name_are_no_markup(screen, bar):
    Display(bar).say("photos/[red]/a[1].jpg is empty")
    assert "photos/[red]/a[1].jpg is empty" in screen.getvalue()


def test_loading_holds_back_what_is_written_to_the_descriptor(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with loading():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""


def test_loading_shows_what_was_held_back_when_it_fails(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with pytest.raises(ImportError), loading():
        os.write(2, b"why it failed\n")
        raise ImportError("libcudart")
    assert capfd.readouterr().err == "why it failed\n"


def test_loading_holds_back_nothing_from_those_who_set_the_level(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with loading():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == "chatter\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_a_backend_that_keras_does_not_know_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jaxx")
    with pytest.raises(UserError) as error, loading():
        pass
    assert (str(error.value), error.value.exit_code) == (
        "KERAS_BACKEND: expected tensorflow, jax or torch, got 'jaxx'. Did you mean 'jax'?",
        2,
    )


def test_a_backend_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(UserError, match=r"torch is not installed\."):
        terminal._check_backend()


def test_tensorflow_loads_without_a_word():
    code = (
        "from kerasft.cli.terminal import loading\n"
        "with loading():\n"
        "    import tensorflow as tf\n"
        "tf.zeros(3) + 1\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_log_level_is_what_it_was_after_showing():
    import logging

    logger = logging.getLogger("kerasft")
    before = (logger.level, list(logger.handlers), logger.propagate)
    with terminal.showing():
        assert logger.level == logging.INFO
    assert (logger.level, list(logger.handlers), logger.propagate) == before


def test_a_sentence_is_shown_once_whatever_other_libraries_have_set_up(capsys):
    import logging

    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        with terminal.showing():
            logging.getLogger("kerasft.tfds").info("left out 3 images")
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr().err == "left out 3 images\n"
