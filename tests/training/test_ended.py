"""A run that ends at any moment goes on to the same bits: between and inside writes, anywhere."""

import random
import sys
import time

import pytest
from drawing import draw_photos
from ended import WAYS, Trainer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

POINTS = [  # what happens to which file, its how manieth time, and the way to end there
    ("fsync", ".part.splits.csv", 0, "half"),
    ("fsync", ".part.state-1.npz", 0, "half"),
    *(
        pytest.param(*point, marks=pytest.mark.slow)
        for point in (
            ("fsync", ".npy", 0, "half"),
            ("replace", "model.keras", 0, "before"),
            ("fsync", ".part.run.json", 0, "half"),
            ("replace", ".npy", 0, "before"),
            ("replace", "best-0.npz", 0, "before"),
            ("replace", "state.json", 0, "after"),
            ("fsync", ".part.candidate.keras", 0, "half"),
            ("replace", "model.keras", 0, "after"),
            ("fsync", ".part.start.keras", 0, "half"),
            ("replace", "run.json", -1, "before"),
        )
    ),
]


class Ended:
    """A run that nothing has ended, and a process that makes others of it."""

    def __init__(self, folder):
        draw_photos(folder / "photos")
        self.trainer = Trainer(folder)
        self.ask = self.trainer.ask
        self.points = self.ask("boundaries")
        self.whole = self.ask("facts")

    def goes_on(self):
        """Lets the run go on; returns the facts that differ from those of the whole one."""
        if self.ask("work") != 0:
            return {"it failed": True}
        facts = self.ask("facts")
        return {name: value for name, value in facts.items() if value != self.whole[name]}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    ended = Ended(tmp_path_factory.mktemp("ended"))
    yield ended
    ended.trainer.close()


@pytest.mark.parametrize(("kind", "name", "which", "way"), POINTS)
def test_a_run_that_ended_at_a_write_goes_on_to_the_same_bits(ended, kind, name, which, way):
    found = [i for i, one in enumerate(ended.points) if one[0] == kind and one[1].endswith(name)]
    ended.ask("clear")
    assert ended.ask("end", found[which], way)
    assert ended.goes_on() == {}


@pytest.mark.slow
def test_every_boundary_of_a_run_goes_on_to_the_same_bits(ended):
    bad = []
    for number, (kind, name) in enumerate(ended.points):
        for way in WAYS if kind == "fsync" else ("before", "after"):
            ended.ask("clear")
            ended.ask("end", number, way)
            if wrong := ended.goes_on():
                bad.append((number, kind, name, way, sorted(wrong)))
    assert bad == []
    assert len(ended.points) > 80


@pytest.mark.slow
def test_thirty_random_moments_go_on_to_the_same_bits(ended):
    chosen = random.Random(0)
    ended.ask("clear")
    begun = time.monotonic()
    assert ended.ask("work") == 0
    seconds = time.monotonic() - begun
    killed = 0
    for _ in range(30):
        ended.ask("clear")
        killed += ended.ask("kill", chosen.uniform(0, seconds))
        assert ended.goes_on() == {}
    assert killed >= 20  # the control
