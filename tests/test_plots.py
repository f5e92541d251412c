import numpy as np
import pytest
from PIL import Image

from kerasft.plots import save_rates

RATES = np.geomspace(1e-7, 1, 30)
CHANGES = np.concatenate([np.linspace(0, -1, 20), np.linspace(0, 500, 10)])


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def mark(path):
    """The column with the most pixels in the mark's colour; None without any."""
    found = (np.abs(pixels(path) - [217, 96, 26]).sum(axis=2) < 30).sum(axis=0)
    return int(found.argmax()) if found.any() else None


def test_the_suggested_rate_is_marked_where_it_lies_on_the_logarithmic_axis(tmp_path):
    for name, rate in {"a": 1e-6, "b": 1e-4, "c": 1e-2, "none": None}.items():
        save_rates(tmp_path / f"{name}.png", RATES, CHANGES, CHANGES, rate, title="t")
    a, b, c = (mark(tmp_path / f"{name}.png") for name in "abc")
    assert b - a == pytest.approx(c - b, abs=2) and b - a > 150
    assert mark(tmp_path / "none.png") is None


def test_what_blows_up_in_the_end_does_not_flatten_the_rest(tmp_path):
    save_rates(tmp_path / "plot.png", RATES, CHANGES, CHANGES, None, title="t")
    image = pixels(tmp_path / "plot.png")
    blue = np.flatnonzero((np.abs(image - [31, 111, 180]).sum(axis=2) < 30).any(axis=1))
    assert blue.max() - blue.min() > 150  # rows of 504
