"""Takes pictures of a page: at 390 and 1280 pixels width, light and dark.

    kerasft report runs/photos
    python scripts/screenshots.py runs/photos pictures/

writes pictures/390-light.png, 390-dark.png, 1280-light.png and 1280-dark.png. Instead of a run, an
HTML file can be named. Takes headless Chromium (`apt install chromium`).
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
NAMES = ("chromium", "chromium-browser", "google-chrome")
MOST = 16_000
"""Largest height of a picture in pixels; Chromium draws no texture that is taller."""


def browser() -> str | None:
    """Returns the path of Chromium; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def page_of(path: Path) -> Path:
    """Returns the page of a run, or the page itself."""
    return path / "report.html" if path.is_dir() else path


def take(page: Path, folder: Path, *, anchor: str = "") -> list[Path]:
    """Takes the pictures.

    Args:
        page: path of the HTML file.
        folder: folder of the pictures, made if absent.
        anchor: id of an element that is the page's target, which opens the photos of a cell.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_shot(page, folder, width, scheme, anchor) for width in WIDTHS for scheme in SCHEMES]


def _shot(page: Path, folder: Path, width: int, scheme: str, anchor: str) -> Path:
    to = (folder / f"{width}-{scheme}.png").resolve()
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name) / "outer.html"
        # Chromium makes no window narrower than 500 pixels, but a frame may be of any width.
        height = min(MOST, _height(page, width, Path(name)))
        address = page.resolve().as_uri() + (f"#{anchor}" if anchor else "")
        outer.write_text(
            f'<!doctype html><html style="color-scheme: {scheme}"><body style="margin:0">'
            f'<iframe src="{address}" style="border:0;width:{width}px;height:{height}px"></iframe>',
            "utf-8",
        )
        options = [f"--window-size={max(500, width)},{height}", f"--screenshot={to}"]
        _run(outer, Path(name), *options, *_dark(scheme))
    with Image.open(to) as picture:
        picture.crop((0, 0, width, picture.height)).save(to)
    return to


def _dark(scheme: str) -> list[str]:
    return ["--blink-settings=preferredColorScheme=" + ("0" if scheme == "dark" else "1")]


def _height(page: Path, width: int, folder: Path) -> int:
    """Measures the height of a page of this width, in pixels."""
    outer = folder / "measure.html"
    outer.write_text(
        f'<!doctype html><body style="margin:0"><iframe id="f" src="{page.resolve().as_uri()}" '
        f'style="border:0;width:{width}px;height:100px"></iframe><script>f.onload = () => '
        "document.title = f.contentDocument.documentElement.scrollHeight;</script>",
        "utf-8",
    )
    done = _run(outer, folder, "--allow-file-access-from-files", "--dump-dom")
    found = re.search(r"<title>(\d+)</title>", done)
    if found is None:
        sys.exit(f"{page}: its height can't be measured")
    return int(found[1])


def _run(page: Path, profile: Path, *options: str) -> str:
    chromium = browser()
    if chromium is None:
        sys.exit(f"no Chromium: none of {', '.join(NAMES)} is installed")
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    profile_of = [f"--user-data-dir={profile / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [chromium, *fixed, *profile_of, *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        sys.exit(f"{chromium}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for picture in take(page_of(Path(sys.argv[1])), Path(sys.argv[2])):
        print(picture)
