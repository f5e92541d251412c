"""What stays on the screen after an event, and where it goes: a terminal, a file or a pipe."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from kerasft.cli import terminal
from kerasft.cli.terminal import (
    Display,
    Screen,
    duration_text,
    event_line,
    loading,
    plain_header,
    plain_row,
)
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


def test_in_a_file_an_epoch_is_a_row_under_a_header():
    assert plain_header() == (
        "phase           epoch      loss  accuracy  val loss  val accuracy      rate  images/s"
        "     left"
    )
    assert plain_row(Event("epoch", 3, 20, "head", EPOCH), seconds_left=80.2) == (
        "head             3/20    0.5124     0.822    0.4121         0.867     0.001       312"
        "     1:20  best"
    )


def test_the_widest_row_has_100_characters():
    widest = {**EPOCH, "loss": 123456.7, "learning_rate": 9.5812e-05, "images_per_second": 1e7}
    row = plain_row(Event("epoch", 100, 200, "a" * 40, widest), seconds_left=35_999)
    assert len(row) == 100
    assert row.startswith("aaaaaaaaaaaa  100/200   1.2e+05     0.822")


def test_a_header_is_repeated_after_20_rows(capsys):
    display = Display()
    for epoch in range(1, 22):
        display(Event("epoch", epoch, 30, "head", EPOCH))
    lines = capsys.readouterr().err.splitlines()
    assert [number for number, line in enumerate(lines) if line == plain_header()] == [0, 21]


def test_a_line_about_an_event_is_continued_before_100_characters(capsys):
    later = {"later_bytes": 20_000_000}
    Display()(Event("store", 0, 1, "head", STORE | later))
    Display()(Event("phase", 0, 1, "n" * 120, {"method": "svm"}))
    assert capsys.readouterr().err.splitlines() == [
        "head: computing frozen features once: 1,049 images x 4 views + 225 validation images "
        "(11.3 MB, and",
        "  20.0 MB for the next phase)",
        "n" * 100,
        "  " + "n" * 20 + ": solving the head with svm",
    ]


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
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["head", "14/20", "0.5000", "6:00"],
        ["head", "15/20", "0.5000", "0:50"],
        ["head", "16/20", "0.5000", "1:00"],
    ]


@pytest.fixture
def written():
    return io.StringIO()


@pytest.fixture
def screen(written):
    """A terminal of 80 columns and 12 lines."""
    console = Console(file=written, force_terminal=True, width=80, height=12, color_system=None)
    with Screen(console) as screen:
        yield screen


def seen_in(written):
    """The text that a terminal was sent, without the codes that move its cursor."""
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", written.getvalue()).replace("\r", "")


def drawn(screen):
    """What the live part shows now, as lines."""
    console = Console(file=io.StringIO(), width=80, height=12)
    console.print(screen._shown())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def of_epochs(bests):
    return [
        Event("epoch", number, len(bests), "head", {**EPOCH, "best": best})
        for number, best in enumerate(bests, start=1)
    ]


def test_the_prefix_pass_is_a_bar_with_its_pace(screen):
    figures = {"images_per_second": 120.4, "seconds_left": 30.2}
    Display(screen)(Event("pass", 640, 4421, "head", figures))
    (line,) = drawn(screen)
    assert line.startswith("head frozen features ━")
    assert line.endswith(" 640/4421 120 images/s, 0:30 left")


def test_the_bar_of_an_epoch_fits_80_columns(screen):
    figures = {"epoch": 30, "epochs": 200, "loss": 0.5, "images_per_second": 9999.6}
    Display(screen)(Event("batch", 50, 100, "unfreeze", figures | {"seconds_left": 3700}))
    (line,) = drawn(screen)
    assert line.startswith("unfreeze epoch 30/200 ━")
    assert line.endswith(" 50/100 loss 0.5000, 10000 images/s, 1:01:40 left")


def test_a_terminal_shows_a_table_in_which_the_best_epoch_alone_has_a_mark(screen):
    display = Display(screen)
    for event in of_epochs([True, True, False]):
        display(event)
    assert drawn(screen)[:5] == [
        "head",
        "epoch    loss  accuracy  val loss  val accuracy   rate  images/s",
        "  1/3  0.5124     0.822    0.4121         0.867  0.001       312",
        "  2/3  0.5124     0.822    0.4121         0.867  0.001       312  best",
        "  3/3  0.5124     0.822    0.4121         0.867  0.001       312",
    ]


def test_a_table_that_is_higher_than_the_terminal_shows_its_last_rows_and_leaves_all(
    screen, written
):
    display = Display(screen)
    for event in of_epochs([True] * 30):
        display(event)
    shown = drawn(screen)
    assert len(shown) <= 12
    assert [line.split()[0] for line in shown if "0.822" in line] == [
        f"{number}/30" for number in range(24, 31)
    ]
    before = seen_in(written).count(" 1/30")
    display(Event("check", 1, 6, "", {"what": "scoring validation"}))
    assert not any("0.822" in line for line in drawn(screen))
    assert seen_in(written).count(" 1/30") == before + 1


def test_a_new_phase_has_a_table_of_its_own(screen):
    display = Display(screen)
    display(Event("epoch", 1, 1, "head", EPOCH))
    display(Event("phase", 0, 1, "unfreeze", {"blocks": 3, "epochs": 1}))
    display(Event("epoch", 1, 1, "unfreeze", EPOCH))
    assert [line for line in drawn(screen) if line in ("head", "unfreeze")] == ["unfreeze"]


def test_the_table_stays_on_the_screen_when_training_is_interrupted(written):
    console = Console(file=written, force_terminal=True, width=80, color_system=None)
    with pytest.raises(KeyboardInterrupt), Screen(console) as screen:
        Display(screen)(Event("epoch", 1, 9, "head", EPOCH))
        raise KeyboardInterrupt
    after = written.getvalue().rpartition("  1/9  0.5124")[2]
    assert after.count("\x1b[2K") <= 1  # the line of the bar is erased, and none of the table


def test_a_terminal_gets_sentences_between_words_but_paths_and_commands_as_they_are(
    screen, written
):
    display = Display(screen)
    solved = (
        "head: the head begins solved, chosen on validation: validation accuracy 0.933, loss 0.109."
    )
    display.say(solved)
    assert "validation accuracy 0.933,\n  loss 0.109.\n" in seen_in(written)
    command = f"Go on with kerasft train --run {'r' * 60} --resume"
    display.say(command)
    assert f"{command}\n" in seen_in(written)


def test_square_brackets_in_a_name_are_no_markup(screen, written):
    Display(screen).say("photos/[red]/a[1].jpg is empty")
    Display(screen)(Event("epoch", 1, 1, "[red]", EPOCH))
    assert "photos/[red]/a[1].jpg is empty" in seen_in(written)
    assert drawn(screen)[0] == "[red]"


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
