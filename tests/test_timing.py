"""Predictions, on a clock that the tests turn: all times are sums of powers of two, so exact."""

import pytest

from kerasft import progress
from kerasft.progress import Event, Part, PartTime


class Clock:
    """Seconds as `time.perf_counter` tells them."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    return clock


def run(part, clock, steps, **changes):
    """Steps as (seconds since the step before, steps done)."""
    for seconds, done in steps:
        clock.now += seconds
        part.step(done, **changes)


# A slow first step, which traces; then eight in a second.
STEPS = [(10.0, 1), (0.125, 2), (0.125, 3), (0.125, 4)]


def test_the_time_of_a_part_is_predicted_from_its_first_steps(clock):
    told = []
    part = Part("epochs", 100, told.append, "head")
    run(part, clock, STEPS[:3])
    assert part.predicted is None and told == []  # a quarter of a second says nothing
    run(part, clock, STEPS[3:])
    # The first step took 10 s, 99 more take 0.125 s each.
    assert part.predicted == 22.375
    expected = Event("predicted", 4, 100, "head", {"what": "epochs", "seconds": 22.375})
    assert told == [expected]


def test_the_first_step_counts_as_itself_and_not_as_pace(clock):
    parts = [Part("epochs", 100, lambda event: None, "head") for _ in range(2)]
    run(parts[0], clock, STEPS)
    slower = Part("epochs", 100, lambda event: None, "head")
    run(slower, clock, [(50.0, 1), *STEPS[1:]])
    assert slower.predicted - parts[0].predicted == 40.0


def test_what_happens_before_the_first_step_belongs_to_the_part(clock):
    part = Part("prefix pass", 320, lambda event: None, "head")
    # Images in batches of 32: 2 s until the first batch is done, then 9 batches of 0.5 s.
    run(part, clock, [(2.0, 32), (0.5, 64)])
    assert part.predicted == 6.5


def test_work_between_the_steps_is_a_factor_on_their_pace(clock):
    part = Part("epochs", 100, lambda event: None, "head")
    run(part, clock, STEPS, factor=1.5)
    assert part.predicted == 10.0 + 99 * 0.1875


def test_a_quarter_of_a_short_part_is_enough(clock):
    part = Part("scoring", 8, lambda event: None, "head")
    run(part, clock, [(1.0, 1), (0.0625, 2)])
    assert part.predicted == 1.4375  # 1 s and seven sixteenths


def test_a_prediction_is_told_once_and_stays(clock):
    told = []
    part = Part("epochs", 100, told.append, "head")
    run(part, clock, [*STEPS, (5.0, 5), (5.0, 6), (5.0, 100)])
    assert part.predicted == 22.375
    assert len(told) == 1


def test_a_part_of_one_step_has_no_prediction(clock):
    told = []
    part = Part("scoring", 1, told.append, "head")
    run(part, clock, [(10.0, 1), (10.0, 1)])
    part.end()
    assert told == []
    assert part.time == PartTime("scoring", None, 20.0)


def test_the_record_holds_what_was_predicted_and_what_was_measured_in_hundredths(clock):
    part = Part("epochs", 100, lambda event: None, "head")
    run(part, clock, STEPS)
    assert part.seconds == 0.0
    clock.now += 0.9921875  # 11.3671875 s in all
    part.end()
    assert part.seconds == 11.3671875
    assert part.time == PartTime("epochs", 22.38, 11.37)


def test_the_clock_stands_still_after_the_end(clock):
    part = Part("epochs", 100, lambda event: None, "head")
    clock.now += 2.0
    part.end()
    clock.now += 100.0
    assert part.time.seconds == 2.0


def test_pace_and_time_left_are_of_all_steps_so_far(clock):
    part = Part("prefix pass", 24, lambda event: None, "head")
    clock.now += 4.0
    assert part.figures(8) == {"images_per_second": 2.0, "seconds_left": 8.0}
    clock.now += 8.0
    assert part.figures(24) == {"images_per_second": 2.0, "seconds_left": 0.0}
