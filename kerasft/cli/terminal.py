"""Progress and the log on stderr, and the formats of numbers that commands share.

A terminal shows the epochs of a phase in a table that grows, and a bar below it; the table stays on
the screen after the phase, as lines do. A file or a pipe gets lines of at most 100 characters.
stdout is left to the result alone, so that `--json` can be piped.
"""

import importlib.util
import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from kerasft.cli.wording import for_terminal
from kerasft.errors import UserError, did_you_mean
from kerasft.processes import importing, quiet
from kerasft.progress import Event
from kerasft.text import count, printable, size_text

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table


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
    # TensorFlow warns of models that are traced anew, which a command does that opens several.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet(), importing():
        yield


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
    screen = Screen() if sys.stderr.isatty() else None
    display = Display(screen, once=once)
    handler = _Sentences(display)
    logger = logging.getLogger("kerasft")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # TFDS gives the root logger a handler, which would show all twice
    try:
        # Keras prints the progress of downloads to stdout.
        with redirect_stdout(sys.stderr):
            if screen is None:
                yield display
            else:
                with screen:
                    yield display
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


PLAIN_WIDTH = 100
"""Largest number of characters in a line about an event."""

NO_BREAK = "\u00a0"  # a space at which `textwrap` begins no new line


class Display:
    """A progress callback that shows each event; see `progress.py` for the stages."""

    def __init__(self, screen: "Screen | None" = None, *, once: bool = False) -> None:
        """Makes a display.

        Args:
            screen: live part of the terminal; None if stderr is not a terminal.
            once: whether a line is left out that was shown before.
        """
        self._screen = screen
        self._said: set[str] | None = set() if once else None
        self._ends: list[float] = []
        self._rows = 0  # of the plain table, since its header

    def __call__(self, event: Event) -> None:
        if event.stage in ("phase", "pass"):  # epochs begin after the prefix pass, if there is one
            self._ends, self._rows = [time.monotonic()], 0
        if self._screen is not None:
            self._screen.follow(event)
        elif event.stage == "epoch":
            self._write_row(event)
        line = event_line(event)
        if line is not None:
            self.say(line, fold=True)

    def _write_row(self, event: Event) -> None:
        """Writes the row of an epoch, under a header that is repeated after 20 rows."""
        # Epochs are counted here, not by event.done, because a resumed phase begins in the
        # middle. The first epoch, in which TensorFlow builds its graphs, counts only while it
        # is the only one.
        self._ends.append(time.monotonic())
        ends = self._ends[1:] if len(self._ends) > 2 else self._ends
        per_epoch = (ends[-1] - ends[0]) / max(1, len(ends) - 1)
        if self._rows % 20 == 0:
            self.say(plain_header())
        self._rows += 1
        self.say(plain_row(event, seconds_left=per_epoch * (event.total - event.done)))

    def say(self, line: str, *, fold: bool = False) -> None:
        """Writes a line to stderr, in the words of the terminal, above the live part if any.

        Args:
            line: the line.
            fold: whether a line that is too long is continued on indented lines. On a terminal
                all are that name no path or command, which people copy.
        """
        line = for_terminal(line)
        if self._said is not None:
            if line in self._said:
                return
            self._said.add(line)
        if fold or (self._screen and not re.search(r"[/\\`\n]|--", line)):
            width = min(PLAIN_WIDTH, self._screen.width) if self._screen else PLAIN_WIDTH
            line = re.sub(r"(?<=\d) (?=[kMGT]?B\b)", NO_BREAK, line)  # a size stays in one line
            line = textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False)
            line = line.replace(NO_BREAK, " ")
        if self._screen is None:
            click.echo(line, err=True)
        else:
            self._screen.print(line)


class Screen:
    """The live part of a terminal: a table of the phase's epochs, and a bar below it.

    The bar vanishes when it is done. The table stays when the phase is over; while it grows, it
    shows its last rows where the terminal is too low for all of them.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        """Makes the live part; it is shown within a `with` block.

        Args:
            console: the terminal; None takes stderr.
        """
        from rich.console import Console  # a third of the time that --help would take
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = console or Console(stderr=True)
        # A bar as wide as what is left, on a narrow terminal.
        bar = BarColumn(None if self.width < 110 else 40)
        figures = TextColumn("{task.fields[figures]}")
        self._bar = Progress(
            TextColumn("{task.description}"), bar, MofNCompleteColumn(), figures, auto_refresh=False
        )
        self._rows: list[Event] = []
        self._live = Live(
            console=self._console,
            get_renderable=self._shown,
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leave_table()
        self._live.stop()

    @property
    def width(self) -> int:
        """Number of columns of the terminal."""
        return self._console.width

    def print(self, line: str) -> None:
        """Writes a line above the live part."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def follow(self, event: Event) -> None:
        """Moves the bar, or adds the row of an epoch to the table."""
        if event.stage == "epoch":
            self._rows = [*self._rows, event]  # the thread that draws reads the old list meanwhile
        elif event.stage not in ("batch", "predicted"):
            self._leave_table()
        if event.stage not in LINES_ONLY:
            self._move(event)

    def _move(self, event: Event) -> None:
        figures = event.figures
        what, text = str(figures.get("what", event.stage)), ""
        if event.stage in ("batch", "pass"):
            text = _pace_text(figures)
        if event.stage == "pass":
            what = f"{event.phase} {part_text('prefix pass')}"
        if event.stage == "batch":
            what = f"{event.phase} epoch {figures.get('epoch')}/{figures.get('epochs')}"
        if not self._bar.task_ids:
            self._bar.add_task("", figures="")
        self._bar.update(
            self._bar.task_ids[0],
            description=what,
            completed=event.done,
            total=event.total or None,
            figures=text,
        )

    def _leave_table(self) -> None:
        """Moves the table out of the live part, so that it stays on the screen."""
        rows, self._rows = self._rows, []
        if rows:
            self._console.print(_epoch_table(rows))

    def _shown(self) -> "Group":
        from rich.console import Group

        if not self._rows:
            return Group(self._bar)
        room = max(1, self._console.height - 5)  # title, header, bar, and a line to spare
        return Group(_epoch_table(self._rows, last=room), self._bar)


EPOCH_COLUMNS = (
    ("loss", "loss", 8),
    ("accuracy", "accuracy", 8),
    ("val loss", "val_loss", 8),
    ("val accuracy", "val_accuracy", 12),
    ("rate", "learning_rate", 8),
    ("images/s", "images_per_second", 8),
)
"""Figures of an epoch in a table: header, name in the event, number of characters."""


def _epoch_cells(event: Event) -> list[str]:
    return [_figure_text(name, event.figures.get(name)) for _, name, _ in EPOCH_COLUMNS]


def _figure_text(name: str, figure: Any) -> str:
    """Writes a figure of an epoch in at most 8 characters; "" if the event does not have it."""
    if figure is None:
        return ""
    if name == "learning_rate":
        return f"{figure:.3g}"
    if name == "images_per_second":
        return f"{figure:.0f}"
    if name.endswith("accuracy"):
        return f"{figure:.3f}"
    return f"{figure:.4f}" if figure < 1000 else f"{figure:.2g}"


def _epoch_table(rows: list[Event], *, last: int | None = None) -> "Table":
    """Draws the table of a phase, in which the best epoch so far alone has a mark.

    Args:
        rows: events of the epochs.
        last: number of rows that are shown, the last ones; None shows all.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(rows[0].phase),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for header in ("epoch", *(header for header, _, _ in EPOCH_COLUMNS)):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    best = max((number for number, row in enumerate(rows) if row.figures.get("best")), default=-1)
    for number, row in list(enumerate(rows))[-last if last else None :]:
        cells = [f"{row.done}/{row.total}", *_epoch_cells(row)]
        mark, style = ("best", "green") if number == best else ("", None)
        table.add_row(*cells, mark, style=style)
    return table


MOST_NAME = 12  # characters of a phase's name in a plain row


def plain_header() -> str:
    """Writes the header above the rows of `plain_row`."""
    headers = "  ".join(f"{header:>{width}}" for header, _, width in EPOCH_COLUMNS)
    return f"{'phase':<{MOST_NAME}}    epoch  {headers}     left"


def plain_row(event: Event, *, seconds_left: float) -> str:
    """Writes the row of an epoch for a file or a pipe, of at most 100 characters.

    Args:
        event: an event of the stage "epoch".
        seconds_left: estimated time until the end of the phase, seconds.
    """
    cells = zip(_epoch_cells(event), EPOCH_COLUMNS, strict=True)
    figures = "  ".join(f"{text:>{width}}" for text, (_, _, width) in cells)
    epoch = f"{event.done}/{event.total}"
    best = "best" if event.figures.get("best") else ""
    name = printable(event.phase)[:MOST_NAME]
    row = f"{name:<{MOST_NAME}}  {epoch:>7}  {figures}  {duration_text(seconds_left):>7}  {best}"
    return row.rstrip()


class _Sentences(logging.Handler):
    """A log handler that shows records as sentences on a display."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        warning = "Warning: " if record.levelno >= logging.WARNING else ""
        self._display.say(warning + record.getMessage())


LINES_ONLY = ("phase", "store", "epoch", "predicted", "entry")


def event_line(event: Event) -> str | None:
    """Writes the line that stays on the screen after an event; None for events without a line.

    The epochs of a phase are the rows of a table.
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


def _pace_text(figures: Mapping[str, float | int | str]) -> str:
    """Writes what stands behind the bar: "loss 0.5000, 100 images/s, 1:01 left"."""
    parts = [f"loss {_figure_text('loss', figures['loss'])}"] if "loss" in figures else []
    if "images_per_second" in figures:
        parts.append(f"{float(figures['images_per_second']):.0f} images/s")
    if "seconds_left" in figures:
        parts.append(f"{duration_text(float(figures['seconds_left']))} left")
    return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """Writes a duration: 12.3 seconds as "0:12", 3,700 seconds as "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
