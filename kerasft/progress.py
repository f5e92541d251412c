"""Progress: what the library tells while it works, for whoever called it to show.

The library never prints. It calls `progress(Event(...))`; the command line draws these, a
notebook may ignore them. A sentence goes through `logging` (logger "kerasft") instead.

Stages:
    unpack  photos of an archive or of TFDS become files: done of total; figure what
    draw    the sample is drawn: done of total images
    images  scanning files: done of total files
    phase   a phase starts; figures blocks, trainable_parameters, epochs
    store   its activations are found, or are going to be stored; figures found (0 or 1), bytes,
            later_bytes (of the stores of a later cut), images, views, validation
    pass    images go through the frozen part: done of total; figures images_per_second,
            seconds_left
    predicted   the first steps of a part are done; figures what ("prefix pass", "epochs" or
            "scoring") and seconds, of the whole part
    batch   within an epoch: done of total batches; figures epoch, epochs, loss, accuracy,
            images_per_second, seconds_left (of the phase)
    epoch   an epoch has ended: done of total epochs, from 1; figures loss, accuracy, val_loss,
            val_accuracy, learning_rate, images_per_second, best
    entry   one way of a comparison is done: done of total; figures name, backbone, note, and where
            it has them val_accuracy and seconds
    check   scoring or parity: done of total; figure what
    import  layers of another tool's file are written: done of total; figure what
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One step of the work.

    Args:
        stage: one of the stages listed above.
        done: how many steps of the stage are finished, 0 to `total`.
        total: how many steps the stage has.
        phase: name of the training phase, or "" outside of one.
        figures: numbers to show, by name.
    """

    stage: str
    done: int
    total: int
    phase: str = ""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Shows nothing: the default wherever a function takes `progress`."""


ENOUGH_SECONDS = 0.3  # of steps, before their pace says anything


@dataclass(frozen=True)
class PartTime:
    """How long a part of a phase took.

    Attributes:
        name: "prefix pass", "epochs", "solving" or "scoring".
        predicted_seconds: time that its first steps predicted; None where they did not.
        seconds: time that was measured.
    """

    name: str
    predicted_seconds: float | None
    seconds: float


class Part:
    """One part of a phase: the prefix pass, the epochs, the scoring.

    Attributes:
        name: "prefix pass", "epochs" or "scoring".
        total: its steps.
        phase: the phase's name.
        predicted: seconds for all of it, said after its first steps; None until then.
        seconds: measured; 0 until `end`.
    """

    def __init__(self, name: str, total: int, progress: Progress, phase: str) -> None:
        self.name, self.total = name, total
        self.phase, self._progress = phase, progress
        self.predicted: float | None = None
        self.seconds = 0.0
        self._began = time.perf_counter()
        self._first: tuple[int, float] | None = None

    def step(self, done: int, *, factor: float = 1.0) -> None:
        """Tells how far the part has come; the first steps settle the prediction.

        Args:
            done: steps of `total` that are done. The first call is not counted: what it ends
                was slow (tracing).
            factor: what a step takes over its own time, for work between the steps.
        """
        now = time.perf_counter()
        if self._first is None:
            self._first = (done, now)
        if self.predicted is not None or done <= self._first[0]:
            return
        spent = now - self._first[1]
        if spent < ENOUGH_SECONDS and done < self.total / 4:
            return
        pace = factor * spent / (done - self._first[0])
        self.predicted = self._first[1] - self._began + pace * (self.total - self._first[0])
        figures: dict[str, float | str] = {"what": self.name, "seconds": self.predicted}
        self._progress(Event("predicted", done, self.total, self.phase, figures))

    def figures(self, done: int) -> dict[str, float]:
        """Pace and what is left, for a progress event: images_per_second, seconds_left.

        Args:
            done: steps so far, at least 1; a step is an image.
        """
        pace = done / (time.perf_counter() - self._began)
        return {"images_per_second": pace, "seconds_left": (self.total - done) / pace}

    def end(self) -> None:
        """Stops the clock."""
        self.seconds = time.perf_counter() - self._began

    def add(self, seconds: float) -> None:
        """Counts what was spent on the same part before this one began."""
        self.seconds += seconds
        if self.predicted is not None:
            self.predicted += seconds

    @property
    def time(self) -> PartTime:
        """What was predicted and what was measured, in hundredths of a second."""
        predicted = None if self.predicted is None else round(self.predicted, 2)
        return PartTime(self.name, predicted, round(self.seconds, 2))
