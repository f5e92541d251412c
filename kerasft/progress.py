"""Progress: events that the library reports while it works, for its caller to show.

The library never prints. It calls `progress(Event(...))`; the command line draws these, a
notebook may ignore them. Sentences go through `logging` (logger "kerasft") instead.

Stages:
    unpack  files of an archive or of TFDS are unpacked: done of total; figure what
    draw    the sample is drawn: done of total images
    images  files are scanned: done of total files
    phase   a phase begins; figures blocks, trainable_parameters, epochs; or method
    store   the phase's activations are found, or are going to be stored; figures found (0 or 1),
            bytes, later_bytes (for the stores of a later cut), images, views, validation
    pass    images go through the prefix: done of total; figures images_per_second, seconds_left
    predicted   the first steps of a part are done; figures what ("prefix pass", "epochs" or
            "scoring") and seconds (predicted for the whole part)
    batch   within an epoch: done of total batches; figures epoch, epochs, loss, accuracy,
            images_per_second, seconds_left (in the phase)
    epoch   an epoch has ended: done of total epochs; figures loss, accuracy, val_loss,
            val_accuracy, learning_rate, images_per_second, best
    entry   one way of a comparison is done: done of total; figures name, backbone, note, and
            val_accuracy and seconds if the way has them
    check   images are scored, or an export is checked: done of total; figure what
    import  layers of another tool's file are written: done of total; figure what
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One step of the work.

    Attributes:
        stage: the stage, one of those listed above.
        done: number of finished steps of the stage, 0 to `total`.
        total: number of steps of the stage.
        phase: name of the phase, or "" outside of one.
        figures: numbers and words to show, by name.
    """

    stage: str
    done: int
    total: int
    phase: str = ""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Shows nothing: the default wherever a function takes `progress`."""


ENOUGH_SECONDS = 0.3  # time of steps after which their pace is used for a prediction


@dataclass(frozen=True)
class PartTime:
    """Predicted and measured time of a part of a phase.

    Attributes:
        name: name of the part: "prefix pass", "epochs", "solving" or "scoring".
        predicted_seconds: time that was predicted after the first steps; None if it was not.
        seconds: time that was measured.
    """

    name: str
    predicted_seconds: float | None
    seconds: float


class Part:
    """The clock of one part of a phase, which begins with the object.

    Attributes:
        name: name of the part: "prefix pass", "epochs", "solving" or "scoring".
        total: number of its steps.
        phase: name of the phase.
        predicted: predicted time of the whole part in seconds; None until its first steps are
            done.
        seconds: measured time; 0 until `end`.
    """

    def __init__(self, name: str, total: int, progress: Progress, phase: str) -> None:
        self.name, self.total = name, total
        self.phase, self._progress = phase, progress
        self.predicted: float | None = None
        self.seconds = 0.0
        self._began = time.perf_counter()
        self._first: tuple[int, float] | None = None

    def step(self, done: int, *, factor: float = 1.0) -> None:
        """Counts finished steps; after the first ones it predicts the time of the whole part.

        Args:
            done: number of finished steps. The time before the first call is not used for the
                pace, because the first step is slow (tracing).
            factor: factor for work between the steps, relative to the time of a step, at least 1.
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
        """Returns the figures of an event: images_per_second and seconds_left.

        Args:
            done: number of finished steps, at least 1; a step is an image.
        """
        pace = done / (time.perf_counter() - self._began)
        return {"images_per_second": pace, "seconds_left": (self.total - done) / pace}

    def end(self) -> None:
        """Stops the clock."""
        self.seconds = time.perf_counter() - self._began

    def add(self, seconds: float) -> None:
        """Adds time that was spent on the same part before this object was made."""
        self.seconds += seconds
        if self.predicted is not None:
            self.predicted += seconds

    @property
    def time(self) -> PartTime:
        """The predicted and the measured time, rounded to hundredths of a second."""
        predicted = None if self.predicted is None else round(self.predicted, 2)
        return PartTime(self.name, predicted, round(self.seconds, 2))
