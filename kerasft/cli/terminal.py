"""Progress and the log on stderr, and the formats of numbers that commands share.

Lines such as one per epoch stay on the screen; if stderr is a terminal, there is also a bar.
stdout is left to the result alone, so that `--json` can be piped.
"""

import importlib.util
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from kerasft.cli.wording import for_terminal
from kerasft.errors import UserError, did_you_mean
from kerasft.processes import importing
from kerasft.progress import Event
from kerasft.text import count, size_text

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def loading() -> Iterator[None]:
    """Lets the block import TensorFlow, faster and without what it writes to stderr.

    If the import fails, all of it is shown. If the user has set TF_CPP_MIN_LOG_LEVEL, nothing is
    suppressed.

    Raises:
        UserError: KERAS_BACKEND names a backend that is unknown or not installed.
    """
    _check_backend()
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        with importing():
            yield
        return
    # Level 3 shows fatal errors only; anything important is also a Python exception. The lines
    # "All log messages before absl::InitializeLog()", oneDNN's and CUDA's are written directly to
    # the file descriptor before TensorFlow reads the level; hence the redirection.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            with importing():
                yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


BACKENDS = ("tensorflow", "jax", "torch")


def _check_backend() -> None:
    """Refuses a backend with which the import of Keras would fail."""
    named = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if named not in BACKENDS:
        raise UserError(
            f"KERAS_BACKEND: expected {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, got {named!r}."
            + did_you_mean(named, BACKENDS),
            exit_code=2,
        )
    if importlib.util.find_spec(named) is None:
        raise UserError(
            f"KERAS_BACKEND: {named} is not installed. Install it (pip install {named}), or unset "
            "the variable to use tensorflow.",
            exit_code=2,
        )


@contextmanager
def showing(*, once: bool = False) -> Iterator["Display"]:
    """Shows progress, the log of kerasft and anything that is printed meanwhile, on stderr.

    Args:
        once: whether a line is left out that was shown before, for a command that reads the same
            photos several times.

    Yields:
        Progress callback for the library.
    """
    bar = _bar() if sys.stderr.isatty() else None
    display = Display(bar, once=once)
    handler = _Sentences(display)
    logger = logging.getLogger("kerasft")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # TFDS gives the root logger a handler, which would show all twice
    try:
        # Keras prints the progress of downloads to stdout.
        with redirect_stdout(sys.stderr):
            if bar is None:
                yield display
            else:
                with bar:
                    yield display
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _bar() -> "Progress":
    """Makes the bar, which vanishes when it is done."""
    from rich.console import Console  # a third of the time that --help would take
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    figures = TextColumn("{task.fields[figures]}")
    bar = Progress(*columns, figures, console=Console(stderr=True), refresh_per_second=4)
    bar.live.transient = True
    return bar


class Display:
    """A progress callback that shows each event; see `progress.py` for the stages."""

    def __init__(self, bar: "Progress | None" = None, *, once: bool = False) -> None:
        """Makes a display.

        Args:
            bar: progress bar that follows the events; None if stderr is not a terminal.
            once: whether a line is left out that was shown before.
        """
        self._bar = bar
        self._said: set[str] | None = set() if once else None
        self._ends: list[float] = []

    def __call__(self, event: Event) -> None:
        if event.stage in ("phase", "pass"):  # epochs begin after the prefix pass, if there is one
            self._ends = [time.monotonic()]
        seconds_left = None
        if event.stage == "epoch":
            # Epochs are counted here, not by event.done, because a resumed phase begins in the
            # middle. The first epoch, in which TensorFlow builds its graphs, counts only while it
            # is the only one.
            self._ends.append(time.monotonic())
            ends = self._ends[1:] if len(self._ends) > 2 else self._ends
            per_epoch = (ends[-1] - ends[0]) / max(1, len(ends) - 1)
            seconds_left = per_epoch * (event.total - event.done)
        line = event_line(event, seconds_left=seconds_left)
        if line is not None:
            self.say(line)
        if self._bar is not None and event.stage not in LINES_ONLY:
            _move(self._bar, event)

    def say(self, line: str) -> None:
        """Writes a line to stderr, in the words of the terminal, above the bar if there is one."""
        line = for_terminal(line)
        if self._said is not None:
            if line in self._said:
                return
            self._said.add(line)
        if self._bar is None:
            click.echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _move(bar: "Progress", event: Event) -> None:
    """Updates the bar from an event."""
    figures = event.figures
    what, text = str(figures.get("what", event.stage)), ""
    if event.stage in ("batch", "pass"):
        left = figures.get("seconds_left")
        text = _figures_text(figures, seconds_left=None if left is None else float(left))
    if event.stage == "pass":
        what = f"{event.phase} {part_text('prefix pass')}"
    if event.stage == "batch":
        what = f"{event.phase} epoch {figures.get('epoch')}/{figures.get('epochs')}"
    if not bar.task_ids:
        bar.add_task("", figures="")
    bar.update(
        bar.task_ids[0],
        description=what,
        completed=event.done,
        total=event.total or None,
        figures=text,
    )


class _Sentences(logging.Handler):
    """A log handler that shows records as sentences on a display."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        warning = "Warning: " if record.levelno >= logging.WARNING else ""
        self._display.say(warning + record.getMessage())


LINES_ONLY = ("phase", "store", "epoch", "predicted", "entry")


def event_line(event: Event, *, seconds_left: float | None = None) -> str | None:
    """Writes the line that stays on the screen after an event; None for events without a line.

    Args:
        event: any event of the library.
        seconds_left: estimated time until the end of the phase, seconds.
    """
    if event.stage == "images" and event.done == event.total:
        return f"{count(event.total, 'image')} read"
    if event.stage == "phase" and "method" in event.figures:
        return f"{event.phase}: solving the head with {event.figures['method']}"
    if event.stage == "phase":
        trained = trained_text(event.figures.get("blocks"))
        parameters = int(event.figures.get("trainable_parameters", 0))
        epochs = epochs_text(event.figures.get("epochs"))
        return f"{event.phase}: training {trained}, {parameters:,} parameters, up to {epochs}"
    if event.stage == "store":
        return _store_line(event)
    if event.stage == "predicted" and float(event.figures["seconds"]) >= 1:
        predicted = duration_text(float(event.figures["seconds"]))
        what = part_text(str(event.figures["what"]))
        return f"{event.phase}: {what} will take about {predicted}"
    if event.stage == "epoch":
        figures = _figures_text(event.figures, seconds_left=seconds_left)
        return f"{event.phase} epoch {event.done}/{event.total}: {figures}"
    if event.stage == "entry":
        return _entry_line(event)
    return None


def _entry_line(event: Event) -> str:
    figures = event.figures
    said = f"{event.done}/{event.total} {figures['name']} on {figures['backbone']}"
    if "val_accuracy" not in figures:
        return f"{said}: {figures['note']}"
    return (
        f"{said}: validation accuracy {figures['val_accuracy']:.3f}, "
        f"{duration_text(float(figures['seconds']))}"
    )


def _store_line(event: Event) -> str:
    figures = event.figures
    size = size_text(int(figures["bytes"]))
    lacking = int(figures["lacking"])
    if not lacking:
        return f"{event.phase}: using frozen features from the cache ({size})"
    images, views, validation = (int(figures[key]) for key in ("images", "views", "validation"))
    later = int(figures["later_bytes"])
    more = f", and {size_text(later)} for the next phase" if later else ""
    needed = int(figures["needed"])
    if lacking < needed:
        return (
            f"{event.phase}: computing frozen features of {count(lacking, 'image')}; those of "
            f"{count(needed - lacking, 'image')} are in the cache ({size}{more})"
        )
    by_views = "" if views == 1 else f" x {views} views"
    return (
        f"{event.phase}: computing frozen features once: {images:,} images{by_views} "
        f"+ {validation:,} validation images ({size}{more})"
    )


_FIGURES = {
    "loss": "loss {:.4f}",
    "accuracy": "accuracy {:.3f}",
    "val_loss": "validation loss {:.4f}",
    "val_accuracy": "validation accuracy {:.3f}",
    "learning_rate": "learning rate {:.3g}",
    "images_per_second": "{:.0f} images/s",
}


def epochs_text(epochs: object) -> str:
    """Writes a number of epochs: "1 epoch", "5 epochs"."""
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def part_text(name: str) -> str:
    """Writes the name of a part of a phase; the prefix pass is shown as "frozen features"."""
    return "frozen features" if name == "prefix pass" else name


def trained_text(blocks: Any) -> str:
    """Writes what a phase trains, from its number of blocks: "the head and 3 blocks"."""
    known = {0: "the head", 1: "the head and 1 block", "all": "all blocks"}
    return known.get(blocks, f"the head and {blocks} blocks")


def _figures_text(
    figures: Mapping[str, float | int | str], *, seconds_left: float | None = None
) -> str:
    parts = [text.format(figures[key]) for key, text in _FIGURES.items() if key in figures]
    if seconds_left is not None:
        parts.append(f"{duration_text(seconds_left)} left")
    if figures.get("best"):
        parts.append("best so far")
    return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """Writes a duration: 12.3 seconds as "0:12", 3,700 seconds as "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
