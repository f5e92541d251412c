"""Whatever ends a work, at any moment, the same command again gets to the same bits.

`support/ended.py` says how works are ended, and `FAULTS.md` what was tried.
"""

import random
import sys

import pytest
from ended import Forker
from ended_works import WORKS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

POINTS = [  # work, what it is about to do to which file, the how manieth time
    ("train", "half", ".part.splits.csv", 0),
    ("train", "rename", ".npy", 0),
    ("train", "fsync", ".part.run.json", 1),
    ("clear", "remove", ".npy", 0),
]
MORE_POINTS = [  # before they can be ended, a run is trained and each work is done once
    ("train", "half", ".part.state.json", 0),
    ("unfreeze", "fsync", ".part.config.toml", 0),
    ("unfreeze", "half", ".part.state-1.npz", 0),
    ("unfreeze", "fsync", ".part.run.json", 1),
    ("unfreeze", "half", ".part.report.html", 0),
    ("pass", "half", ".npy", -1),  # a merged segment, when all rows are there
    ("clear", "remove", ".json", 0),
]


@pytest.fixture(scope="module")
def forker(tmp_path_factory):
    forker = Forker(tmp_path_factory.mktemp("ended"))
    yield forker
    forker.close()


@pytest.mark.parametrize(
    ("work", "kind", "name", "which"),
    [*POINTS, *(pytest.param(*point, marks=pytest.mark.slow) for point in MORE_POINTS)],
)
def test_a_work_that_ended_at_a_write_goes_on_to_the_same_bits(forker, work, kind, name, which):
    ended = forker.work(work)
    assert ended.goes_on(ended.state(kind, name, which)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_every_boundary_of_a_work_goes_on_to_the_same_bits(forker, work):
    ended = forker.work(work)
    wrong = {one: ended.goes_on(state) for state, one in ended.states.items()}
    assert {one: what for one, what in wrong.items() if what} == {}


@pytest.mark.parametrize("work", ["train"])
def test_every_file_but_locks_is_renamed_into_its_place(forker, work):
    ended = forker.work(work)
    assert [name for name in ended.unplaced if not name.endswith(".lock")] == []


def test_a_process_that_ends_leaves_what_was_copied_at_that_moment(forker):
    ended = forker.work("clear")  # the control: the other tests go on from copies
    places = range(0, len(ended.boundaries) - 1, 5)
    copies = [ended.ask("digest", ended.boundaries[place].state) for place in places]
    assert [ended.ask("end", place) for place in places] == copies


@pytest.mark.slow
@pytest.mark.parametrize(("work", "times"), [("train", 10), ("unfreeze", 10), ("compare", 10)])
def test_random_moments_go_on_to_the_same_bits(forker, work, times):
    ended, chosen = forker.work(work), random.Random(0)
    seconds, killed = ended.ask("seconds"), 0
    for _ in range(times):
        killed += ended.ask("kill", chosen.uniform(0, seconds))
        assert ended.goes_on(None) == {}
    assert killed >= times / 2  # the control
