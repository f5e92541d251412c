"""On a GPU, a store pays only if the disk is faster than computing again."""

import numpy as np
import pytest
from tiny_run import small

from kerasft.activations import pace
from kerasft.activations.pace import Pace, disk_rate, measured_pace
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
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
