"""Pictures of a page, by headless Chromium where it is installed."""

import pytest
import screenshots
from PIL import Image

PAGE = """<!doctype html><meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { margin: 0; background: #ffffff; height: 700px }
@media (prefers-color-scheme: dark) { body { background: #000000 } }
@media (max-width: 400px) { body { height: 900px } }</style>"""


@pytest.mark.slow
@pytest.mark.skipif(screenshots.browser() is None, reason="needs Chromium: apt install chromium")
def test_a_page_is_taken_at_two_widths_light_and_dark(tmp_path):
    (tmp_path / "report.html").write_text(PAGE)
    taken = screenshots.take(screenshots.page_of(tmp_path), tmp_path / "pictures")
    assert [path.name for path in taken] == [
        "390-light.png",
        "390-dark.png",
        "1280-light.png",
        "1280-dark.png",
    ]
    images = [Image.open(path).convert("RGB") for path in taken]
    assert [image.size for image in images] == [(390, 900), (390, 900), (1280, 700), (1280, 700)]
    colors = [image.getpixel((100, 500)) for image in images]
    assert colors == [(255, 255, 255), (0, 0, 0)] * 2


def test_a_page_is_found_in_its_run(tmp_path):
    assert screenshots.page_of(tmp_path) == tmp_path / "report.html"
    assert screenshots.page_of(tmp_path / "compare.html") == tmp_path / "compare.html"
