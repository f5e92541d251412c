import re

from kerasft.reports.charts import Curve, Marks, line_chart, reliability_chart
from kerasft.reports.measured import Bin

CURVE = Curve("validation", [0, 1, 2], [0.5, float("nan"), 0.3], "#1f6fb4")


def test_a_chart_is_one_svg_with_text_and_loads_nothing():
    text = line_chart([CURVE], Marks(chosen=2.0), y="log loss")
    assert text.startswith("<svg ") and text.endswith("</svg>")
    assert ">log loss<" in text and ">epoch<" in text
    assert "http" not in text and "<metadata" not in text and "<style" not in text
    assert len(text) < 20_000


def test_black_is_the_colour_of_the_page():
    text = line_chart([CURVE], Marks(), y="log loss")
    assert "currentColor" in text
    assert not re.search("#000000|#010203", text)


def test_a_hostile_phase_name_is_text():
    text = line_chart([CURVE], Marks([(0, "<b>$x$</b>"), (1, '"&')]), y="loss")
    assert "&lt;b&gt;$x$&lt;/b&gt;" in text and "<b>" not in text


def test_two_charts_on_a_page_share_no_group():
    text = line_chart([CURVE], Marks(), y="loss") + line_chart([CURVE], Marks(), y="accuracy")
    assert "<g id=" not in text


def test_a_reliability_diagram_has_a_dot_for_each_bin():
    bins = [Bin(0.6, 0.667, 3, 0.65, 1.0), Bin(0.933, 1.0, 7, 0.98, 0.9)]
    text = reliability_chart(bins, title="calibration after")
    assert 'aria-label="calibration after"' in text
    assert text.count("fill: #1f6fb4") == 2
