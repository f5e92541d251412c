"""bench_gpu.py: its quick run on a CPU, what it finds, and what has to travel for it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl")  # the card's lock; Windows lacks it

from bench_gpu import Table
from gpu_side import QUICK, Size, Windows, time_stream

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_gpu.py"


def run_script(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_quick_run_measures_every_row_and_proves_what_it_computes(tmp_path):
    printed = run_script("--quick", "--json", tmp_path / "gpu.json")
    told = json.loads((tmp_path / "gpu.json").read_text())
    rows = {(row["side"], row["name"], row.get("precision", "")): row for row in told["rows"]}

    for name in ("pass pooled", "pass cut", "suffix step", "live step"):
        row = rows["kerasft", name, "bfloat16"]
        assert row["images_per_second"] > 0, row
        assert row["flops_per_second"] > 0, row
    for name in ("pass pooled", "pass cut", "suffix step"):
        assert rows["kerasft", name, "float32"]["images_per_second"] > 0
    assert rows["kerasft", "pass error", "float32"]["error"] < 1e-4  # sums in another order
    assert rows["kerasft", "pass error", "bfloat16"]["error"] < 5e-2  # 8 significant bits
    assert rows["kerasft", "losses", ""]["falls"]
    assert rows["kerasft", "bits of two passes", ""]["equal"]
    assert rows["kerasft", "bits, two processes", ""]["equal"]
    assert rows["kerasft", "bits of two trainings", ""]["equal"]
    assert ("timm", "forward", "bfloat16") in rows  # its speed, or that timm is not installed
    assert ("timm", "step", "bfloat16") in rows
    assert told["facts"]["peak_bfloat16"] > 0
    table = printed[: printed.index("\ndate: ")]
    assert max(map(len, table.splitlines())) <= 110


@pytest.mark.slow
def test_what_has_to_travel_is_listed_and_small():
    printed = run_script("--needs")
    assert re.search(r"^  keras==3\.15", printed, re.MULTILINE)
    assert re.search(r"^  kerasft/", printed, re.MULTILINE)
    assert not re.search(r"^  (jax|jaxlib|numpy|tensorflow|torch)==", printed, re.MULTILINE)
    (total,) = re.findall(r"^([\d.]+) MB in all", printed, re.MULTILINE)
    assert float(total) < 60


def test_windows_count_a_stream_without_its_start():
    size = Size(repeats=3, seconds=0.01)
    windows = Windows(10, size)
    assert not windows.mark()  # begins
    while not windows.mark():
        pass
    assert len(windows.rates) == 3
    taken = []
    time_stream((taken.append(number) for number in range(10**9)), 1, QUICK)
    assert len(taken) >= 3 + QUICK.repeats


def test_the_ratio_is_of_equal_nets_batches_and_bfloat16(tmp_path, capsys):
    table = Table(tmp_path / "gpu.json", quick=False)
    both = {"net": "ResNet50", "precision": "bfloat16", "batch": 256}
    table.add_row({**both, "side": "timm", "name": "forward", "images_per_second": 1000.0})
    table.add_row({**both, "side": "kerasft", "name": "pass pooled", "images_per_second": 1500.0})
    for other in ({"precision": "float32"}, {"batch": 512}, {"net": "MobileNetV2"}):
        row = {**both, **other, "side": "kerasft", "name": "pass pooled"}
        table.add_row({**row, "images_per_second": 9000.0})
    table.finish()
    (ratio,) = json.loads((tmp_path / "gpu.json").read_text())["ratios"]
    assert ratio["ratio"] == 1.5
    assert "1.50   goal 1.2 reached" in capsys.readouterr().out
