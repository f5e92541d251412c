"""Headless Chromium, driven by its DevTools protocol: tests of pages, and pictures of them.

    with Chromium() as chromium, chromium.tab() as tab:
        tab.open("http://127.0.0.1:8501/")
        print(tab.evaluate("document.title"))

Messages go through a pipe, each a JSON object and a zero byte, so no package is needed. They are
described at https://chromedevtools.github.io/devtools-protocol/.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to be run by root with one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
SECONDS = 30.0
"""Longest time for an answer."""

START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Program that becomes Chromium, which reads from file 3 and writes to file 4."""

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowDown": (40, "")}


def browser() -> str | None:
    """Returns the path of Chromium; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A browser, from `with` to its end, with a profile of its own."""

    def __enter__(self) -> Self:
        path = browser()
        if path is None:
            raise FileNotFoundError(f"no Chromium: none of {', '.join(NAMES)} is installed")
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        its_in, self._out = os.pipe()
        self._in, its_out = os.pipe()
        profile = f"--user-data-dir={self._profile.name}"
        ends = (str(its_in), str(its_out))
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", START, *ends, path, *FLAGS, profile, "about:blank"],
            pass_fds=(its_in, its_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)  # which ends it
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def call(self, method: str, *, session: str = "", **parameters: Any) -> Any:
        """Calls a method of the protocol.

        Args:
            method: name of the method, such as "Page.navigate".
            session: session of a tab; "" is the browser itself.
            parameters: its parameters.

        Returns:
            Its result.

        Raises:
            RuntimeError: it failed.
            TimeoutError: there was no answer.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        of_tab = {"sessionId": session} if session else {}
        _write(self._out, json.dumps({**message, **of_tab}).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            got = self.receive(end - time.monotonic())
            if got is None:
                raise TimeoutError(f"{method}: no answer within {SECONDS:g} seconds")
            if got.get("id") == self._number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return got["result"]

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """Waits for a message, which is kept if it is an event; None if there is none in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            some = os.read(self._in, 1 << 20)
            if not some:
                raise RuntimeError("Chromium has ended")
            self._rest += some
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    @contextmanager
    def tab(self, *, width: int = 1280, height: int = 900, **options: Any) -> "Iterator[Tab]":
        """Opens a tab that shares nothing with others; options as in `Tab.look`."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"], context)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            tab.call(f"{domain}.enable")
        tab.look(width, height, **options)
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


class Tab:
    """A tab of a browser."""

    def __init__(self, chromium: Chromium, session: str, context: str) -> None:
        self._chromium = chromium
        self._session = session
        self._context = context

    def call(self, method: str, **parameters: Any) -> Any:
        """Calls a method of the protocol for this tab."""
        return self._chromium.call(method, session=self._session, **parameters)

    def events(self, method: str) -> list[dict[str, Any]]:
        """Returns what the events of this name said so far."""
        mine = [one for one in self._chromium.events if one.get("sessionId") == self._session]
        return [one["params"] for one in mine if one["method"] == method]

    def event(self, method: str) -> dict[str, Any]:
        """Waits for an event, unless there was one, and returns what the last one said."""
        end = time.monotonic() + SECONDS
        while not (found := self.events(method)):
            if self._chromium.receive(end - time.monotonic()) is None:
                raise TimeoutError(f"{method}: did not happen within {SECONDS:g} seconds")
        return found[-1]

    def look(
        self, width: int, height: int, *, dark: bool = False, touch: bool = False, calm: bool = True
    ) -> None:
        """Sets how the page is looked at.

        Args:
            width: width of the window in pixels.
            height: its height.
            dark: whether dark colours are preferred.
            touch: whether it is a phone.
            calm: whether as little motion as possible is preferred.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "no-preference",
        }
        listed = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def open(self, url: str) -> None:
        """Opens a page, and waits until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script: str) -> Any:
        """Computes an expression in the page; of a promise, what it becomes."""
        got = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in got:
            details = got["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return got["result"].get("value")

    def wait(self, script: str, *, seconds: float = SECONDS) -> Any:
        """Waits until an expression is true in the page, and returns its value.

        Raises:
            TimeoutError: it did not become true.
        """
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"not true within {seconds:g} seconds: {script}")
            time.sleep(0.02)
        return value

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Chooses files for an input of a page, which need not be visible."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        paths = [str(path.resolve()) for path in files]
        self.call("DOM.setFileInputFiles", files=paths, objectId=found["result"]["objectId"])

    def press(self, key: str) -> None:
        """Presses and releases a key: "Tab", "Enter", " " or "ArrowDown"."""
        code, text = KEYS[key]
        common = {"key": key, "code": "Space" if key == " " else key}
        pressed = {**common, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Types a text where the focus is."""
        self.call("Input.insertText", text=text)

    def drop(self, selector: str, *, files: Sequence[Path] = (), address: str = "") -> None:
        """Drops files, or the address of a picture, on an element of the page."""
        box = self.evaluate(
            f"document.querySelector('{selector}').getBoundingClientRect().toJSON()"
        )
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        items = [{"mimeType": "text/uri-list", "data": address}] if address else []
        paths = [str(path.resolve()) for path in files]
        data = {"items": items, "files": paths, "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **at)

    def download_to(self, folder: Path) -> None:
        """Lets the page download files into a folder."""
        self._chromium.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            browserContextId=self._context,
            downloadPath=str(folder.resolve()),
        )

    def picture(self, to: Path) -> Path:
        """Takes a picture of the whole page, a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        got = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        to.write_bytes(base64.b64decode(got["data"]))
        return to
