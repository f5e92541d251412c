"""How long the parts of a phase take: predicted from their first steps, then measured."""

import time

from kerasft.progress import Event, Progress

ENOUGH_SECONDS = 0.3  # of steps, before their pace says anything


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

    def to_json(self) -> dict:
        """What run.json records: `{"name", "predicted_seconds", "seconds"}`."""
        predicted = None if self.predicted is None else round(self.predicted, 2)
        return {
            "name": self.name,
            "predicted_seconds": predicted,
            "seconds": round(self.seconds, 2),
        }
