"""What is measured: whether a store pays on a GPU, and the precision of the steps on a CPU."""

import json
import logging

import keras
import numpy as np
import pytest
from tiny import TINY, tiny_model
from tiny_run import small

from kerasft.activations import engines, pace
from kerasft.activations.pace import (
    Pace,
    StepsAhead,
    choose_step_precision,
    disk_rate,
    fastest,
    measured_pace,
    multiplications,
)
from kerasft.config.fields import Phase
from kerasft.config.load import load_config
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.models.cut import split
from kerasft.record import Device
from kerasft.training.plan import decide_storing, plan_new

CPU = Device("tensorflow", "cpu", "", 2)
pytestmark = pytest.mark.usefixtures("tiny_backbone")

GB = 10**9
# ResNet50's default cut: 14 x 14 x 1024 float16, 401 kB an image. Its pooled features: 4 kB.
CUT, POOLED = 401_408, 4096


@pytest.mark.parametrize(
    ("row", "epochs", "disk", "images", "pays"),
    [
        (CUT, 20, 2 * GB, 6000, False),  # a fast card: 200 us to read, 167 us to compute
        (CUT, 20, 2 * GB, 600, True),  # a card that is ten times as slow
        (CUT, 20, 20 * GB, 6000, True),  # a disk that is ten times as fast
        (POOLED, 20, 2 * GB, 6000, True),
        (POOLED, 4, 2 * GB, 6000, False),  # as many passes to fill it as without it
    ],
)
def test_reading_is_compared_with_computing_again(row, epochs, disk, images, pays):
    photos, views = 100_000, 4
    machine = Pace(images=images, disk=disk)
    read = epochs * photos * row
    assert machine.pays(live=epochs * photos, once=views * photos, read=read) is pays


def test_the_disk_is_measured_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "PROBE", 1 << 20)
    assert 1e6 < disk_rate(tmp_path / "cache") < 1e12
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file can't be used"):
        disk_rate(tmp_path / "file")


def test_a_slow_disk_is_told_with_both_times(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pace, "PROBE", 1 << 20)
    config = small(photos, "cache.engine=keras")
    source = scan_source(config.data, seed=0)
    plan, net = plan_new(config, source, CPU)
    cut = net.cut(0)
    measured = measured_pace(plan.config, source, cut.prefix, "gpu:0")
    assert measured.images > 1 and measured.disk > 1e6
    assert measured_pace(plan.config, source, cut.prefix, "gpu:0") == measured  # remembered

    def decided(images, disk):
        monkeypatch.setattr(pace.cache, "remembered", lambda *_: {"images": images, "disk": disk})
        return decide_storing(config, 2, source, 0, cut, "gpu:0")

    slow = decided(10.0, 10.0)
    # 24 photos of training and 6 of validation, 4 features of 2 bytes.
    assert (slow.stored, slow.why) == (
        False,
        "in each epoch the disk would read 240 bytes at 10 bytes a second, 24 s; decoded and "
        "computed again, the 30 images take 3 s",
    )
    assert decided(1.0, 1e9).stored
    asked = config.model_copy(update={"cache": config.cache.model_copy(update={"mode": "on"})})
    assert decide_storing(asked, 2, source, 0, cut, "gpu:0").stored
    assert np.isfinite(measured.images)


# ── the steps ──


def test_multiplications_are_counted_by_kernels_and_places():
    whole = split(tiny_model(), "all", TINY).suffix
    # 8 x 8 places of 3 x 3 x 3 x 4, 4 x 4 and 2 x 2 places of 3 x 3 x 4 x 4, and 4 x 2.
    assert multiplications(whole) == 6912 + 2304 + 576 + 8
    pixels = keras.Input((8, 8, 4))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(pixels)  # 64 places of 3 x 3 x 4
    x = keras.layers.SeparableConv2D(5, 3, padding="same")(x)  # of 3 x 3 x 4 and 4 x 5
    x = keras.layers.BatchNormalization()(x)  # no kernel
    inner = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    outer = keras.Input((8, 8, 4))
    nested = keras.Model(outer, keras.layers.Dense(3)(inner(outer)))  # 5 x 3
    assert multiplications(nested) == 64 * 36 + 64 * (36 + 20) + 15


def ahead(number=40, *, blocks=1, stored=True, **fields):
    phase = Phase(**{"name": "p", "epochs": 1, "learning_rate": 0.1, "batch_size": 8, **fields})
    return StepsAhead(phase, split(tiny_model(), blocks, TINY), stored, number, threads=2)


def test_the_rough_time_of_steps_is_that_of_their_multiplications(monkeypatch):
    monkeypatch.setattr(pace, "PER_THREAD", 1000)
    # The top block and the logits take 584 for an image, and twice that on the way back.
    assert ahead(100).rough_seconds == 100 * 8 * 3 * 584 / 2000
    # Without a store the 9,216 of what is below it come to that, forward only.
    assert ahead(100, stored=False).rough_seconds == 100 * 8 * (3 * 584 + 9216) / 2000
    assert ahead(100, blocks="all", stored=False).rough_seconds == 100 * 8 * 3 * 9800 / 2000


class Clock:
    """A clock that only goes on while a step is taken."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that computes bfloat16, on which all steps are worth measuring."""
    clock = Clock()
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(pace, "PER_THREAD", 1)
    monkeypatch.setattr(pace, "time", clock)

    def steps(float32, bfloat16):
        """Steps that take some seconds each, ten times as long when the graph is built."""
        made = []

        def set_up(precision):
            made.append(precision)
            seconds = {"float32": float32, "mixed_bfloat16": bfloat16}[precision]
            left = [10 * seconds]

            def step():
                clock.now += left.pop() if left else seconds

            return step

        return set_up, made

    return steps


CONFIG = load_config(flags={"data.source": "photos"})


@pytest.mark.parametrize(
    ("number", "bfloat16", "chosen", "measured"),
    [
        (31, 1 / 1.31, "mixed_bfloat16", ["float32", "mixed_bfloat16"]),
        (31, 1 / 1.29, "float32", ["float32", "mixed_bfloat16"]),
        (30, 1 / 2, "float32", ["float32"]),  # 30 s of steps, not over it
    ],
)
def test_steps_are_in_bfloat16_where_they_are_long_and_that_is_much_faster(
    machine, number, bfloat16, chosen, measured, caplog
):
    set_up, made = machine(1.0, bfloat16)
    with caplog.at_level(logging.INFO, logger="kerasft"):
        assert choose_step_precision(CONFIG, ahead(number), set_up) == chosen
    assert made == measured
    taken = "taken" if chosen == "mixed_bfloat16" else "not taken"
    assert caplog.messages == [
        f"p: its steps take about 31 s in float32; in bfloat16 they are {1 / bfloat16:.2f} times "
        f"as fast: {taken}."
    ] * (number == 31)


def test_what_was_measured_is_remembered_and_decides(machine, tmp_path):
    set_up, made = machine(1.0, 0.5)
    assert choose_step_precision(CONFIG, ahead(), set_up) == "mixed_bfloat16"
    assert choose_step_precision(CONFIG, ahead(), set_up) == "mixed_bfloat16"
    assert choose_step_precision(CONFIG, ahead(30), set_up) == "float32"  # 30 s
    assert made == ["float32", "mixed_bfloat16"]
    path = tmp_path / "cache" / "measured.json"
    kept = json.loads(path.read_text())
    assert sorted(map(str, kept.values())) == ["{'seconds': 1.0}", "{'speed': 2.0}"]
    start = "steps MobileNetV2 16 1 tensorflow pooled 0 8 frozen stored 2 "
    assert all(key.startswith(start) for key in kept)
    for speed, chosen in ((1.2, "float32"), (1.5, "mixed_bfloat16")):
        changed = {key: {"speed": speed} if "speed" in of else of for key, of in kept.items()}
        path.write_text(json.dumps(changed))
        assert choose_step_precision(CONFIG, ahead(), set_up) == chosen
    assert len(made) == 2


def test_a_longer_phase_of_a_net_whose_float32_steps_are_known_is_measured_in_bfloat16(machine):
    set_up, made = machine(1.0, 0.5)
    assert choose_step_precision(CONFIG, ahead(30), set_up) == "float32"
    assert made == ["float32"]
    assert choose_step_precision(CONFIG, ahead(31), set_up) == "mixed_bfloat16"


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 16},
        {"batch_norm": "train"},
        {"blocks": 2},
        {"stored": False},
    ],
)
def test_what_changes_a_step_is_measured_anew(machine, other):
    set_up, _ = machine(1.0, 0.5)
    choose_step_precision(CONFIG, ahead(), set_up)
    again, made = machine(1.0, 0.9)
    assert choose_step_precision(CONFIG, ahead(**other), again) == "float32"
    assert made == ["float32", "mixed_bfloat16"]


@pytest.mark.parametrize(
    ("lacking", "steps"),
    [
        ("bfloat16", {}),
        ("tensorflow", {}),
        ("blocks", {"blocks": 0, "number": 10**9}),
        ("multiplications", {}),
    ],
)
def test_nothing_is_measured_where_bfloat16_cannot_pay(machine, monkeypatch, lacking, steps):
    if lacking == "bfloat16":
        monkeypatch.setattr(engines, "computes_bfloat16", lambda: False)
    if lacking == "tensorflow":
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    if lacking == "multiplications":  # 40 steps of 8 images in 30 s, on 2 threads
        monkeypatch.setattr(pace, "PER_THREAD", 40 * 8 * 3 * 584 / 30 / 2)
        assert ahead().rough_seconds == pytest.approx(30, abs=1e-9)
    set_up, made = machine(1.0, 0.1)
    assert choose_step_precision(CONFIG, ahead(**steps), set_up) == "float32"
    assert made == []


def test_functions_are_timed_in_turns_and_fewer_times_where_they_are_slow(machine, monkeypatch):
    clock, called = pace.time, []

    def work(name, *seconds):
        left = list(seconds)

        def call():
            called.append(name)
            clock.now += left.pop(0)

        return call

    assert fastest(work("a", 0.5, 0.25, 1.0), work("b", 1.0, 2.0, 0.125)) == [0.25, 0.125]
    assert called == ["a", "b"] * 3
    assert fastest(work("a", 2.0, 1.0), work("b", 3.5, 3.0)) == [2.0, 3.5]  # over 5 s
    assert called == ["a", "b"] * 4
