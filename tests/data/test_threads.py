import threading
import time

import pytest

from kerasft.data.threads import in_order


def test_a_slow_one_does_not_change_the_order():
    next_is_read = threading.Event()

    def read(number):
        if number == 1:
            assert next_is_read.wait(timeout=30)
        if number == 2:
            next_is_read.set()
        return 10 * number

    assert list(in_order(read, range(5), workers=2, ahead=3)) == [0, 10, 20, 30, 40]


def test_no_more_is_read_than_may_wait():
    read = []
    results = in_order(lambda number: read.append(number) or number, range(100), workers=1, ahead=4)
    assert next(results) == 0
    results.close()
    assert read == list(range(len(read)))
    assert len(read) <= 4


def test_an_error_comes_when_it_is_the_turn_of_its_item():
    results = in_order(lambda number: 6 / number, [3, 2, 0, 1], workers=2, ahead=4)
    assert [next(results), next(results)] == [2.0, 3.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_first_is_read_alone():
    events = []

    def read(number):
        events.append(f"begin {number}")
        time.sleep(0.05)
        events.append(f"end {number}")

    list(in_order(read, range(3), workers=3, ahead=3))
    assert events[:2] == ["begin 0", "end 0"]
    assert sorted(events[2:4]) == ["begin 1", "begin 2"]
