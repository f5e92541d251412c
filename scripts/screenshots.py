"""Takes pictures of a page: at 390 and 1280 pixels width, light and dark.

    kerasft report runs/photos
    python scripts/screenshots.py runs/photos pictures/

writes pictures/390-light.png, 390-dark.png, 1280-light.png and 1280-dark.png. Instead of a run, an
HTML file can be named. Takes headless Chromium (`apt install chromium`).

    kerasft serve runs/photos
    python scripts/screenshots.py http://127.0.0.1:8501 pictures/ PHOTO.jpg MORE.jpg ...

takes the page of `kerasft serve`: empty, with a photo, with its heat map, with all photos in a
table, and with a file that is no image.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from chromium import NAMES, Chromium, Tab, browser
from PIL import Image

WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
MOST = 16_000
"""Largest height of a picture in pixels; Chromium draws no texture that is taller."""


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


def take_served(url: str, folder: Path, photos: Sequence[Path]) -> list[Path]:
    """Takes the pictures of a server's page.

    Args:
        url: address of the server, which wants no token.
        folder: folder of the pictures, made if absent.
        photos: image files that the page is asked about; the first one alone, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with Chromium() as chromium:
        for width in WIDTHS:
            for scheme in SCHEMES:
                phone = width < 500
                with chromium.tab(width=width, dark=scheme == "dark", touch=phone) as tab:
                    tab.open(url)
                    for name in _walk(tab, photos):
                        taken.append(tab.picture(folder / f"{width}-{scheme}-{name}.png"))
    return taken


def _walk(tab: Tab, photos: Sequence[Path]) -> Iterator[str]:
    """Uses the page, and yields the name of each state that is worth a picture."""
    bars = "document.querySelectorAll('#bars li').length"
    tab.wait("document.querySelector('#facts').textContent")
    yield "empty"
    tab.choose("#files", photos[:1])
    tab.wait(bars)
    tab.wait("document.querySelector('#picture').complete")
    yield "photo"
    if tab.evaluate("!document.querySelector('#heat-row').hidden"):
        tab.evaluate("document.querySelector('#heat').click()")
        tab.wait("document.querySelector('#heat').getAttribute('aria-pressed') === 'true'")
        tab.wait("document.querySelector('#picture').complete")
        yield "heat"
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "notes.jpg"
        text.write_text("no image")
        tab.choose("#files", [*photos[1:], text])
        tab.wait("document.querySelector('#working').hidden")
        yield "table"
        tab.evaluate("document.querySelector('#rows tr:last-child button').click()")
        yield "error"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    what, to, *files = sys.argv[1:]
    if what.startswith("http"):
        pictures = take_served(what, Path(to), [Path(name) for name in files])
    else:
        pictures = take(page_of(Path(what)), Path(to))
    for picture in pictures:
        print(picture)
