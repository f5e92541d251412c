"""Reads an HTML page as a browser would: its text, its tables, and what it would load."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "link", "input", "hr"}
SVG_ALONE = {"path", "use", "rect", "circle", "line"}
LOADING = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")


class Page(HTMLParser):
    """A page.

    Attributes:
        text: its text, without style and script.
        tags: names of all elements.
        loaded: values of all attributes that name something to load or to go to.
        images: `src` of all images.
        scripts: contents of the scripts.
        handlers: attributes that would run a script, such as `onerror`.
        rows: the cells of each row of a table.
        unclosed: elements that were not closed in order.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.bytes = path.stat().st_size
        self.source = path.read_text("utf-8")
        self.text, self.tags, self.loaded, self.images = "", [], [], []
        self.scripts, self.handlers, self.rows, self.unclosed = [], [], [], []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        self.unclosed += self._open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        self._look(tag, attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self._look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts.append(data)
        elif "style" not in self._open:
            self.text += data
            if "td" in self._open or "th" in self._open:
                self.rows[-1][-1] += data.strip()

    def _look(self, tag: str, attrs: list) -> None:
        for name, value in attrs:
            if name in LOADING:
                self.loaded.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "src" and tag == "img":
                self.images.append(value)

    @property
    def words(self) -> str:
        """The text with single blanks."""
        return re.sub(r"\s+", " ", self.text)

    def from_elsewhere(self) -> list[str]:
        """Returns all that is not inside the page: neither a data URI nor a place on it."""
        outside = [value for value in self.loaded if not value.startswith(("data:image/", "#"))]
        return outside + re.findall(r"url\((?!#)[^)]*\)|@import", self.source)
