"""The frame of every page: templates, style and script, and numbers as text.

A page is one file. Its content security policy allows its own style and script and pictures
inside it, and nothing from elsewhere, even if a hostile name got past the escaping.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasft.files import write_atomic
from kerasft.text import count, printable, size_text

if TYPE_CHECKING:
    import jinja2


def write_page(path: Path, template: str, values: Mapping[str, Any], script: str = "") -> int:
    """Fills a template and writes the page, whole or not at all.

    Args:
        path: path of the HTML file, in a folder that exists; an older one is replaced.
        template: name of the template, such as "run.html".
        values: what the template shows, by name.
        script: name of a script of this page, such as "review.js"; "" for none.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: the file can't be written.
    """
    # Control characters and the bytes of names that are not UTF-8 have no place in HTML.
    text = _environment().get_template(template).render({**values, **_script(script)})
    encoded = text.encode("utf-8", "replace")
    write_atomic(path, encoded)
    return len(encoded)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kerasft.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    style = environment.loader.get_source(environment, "page.css")[0]
    environment.globals |= {"style": Markup(style), "count": count}
    environment.filters |= {
        "share": share_text,
        "interval": interval_text,
        "duration": duration_text,
        "size": size_text,
        "shown": printable,
    }
    return environment


@cache
def _script(own: str) -> Mapping[str, str]:
    """Returns the script of a page, and the digest by which its policy knows it."""
    from markupsafe import Markup

    loader = _environment().loader
    assert loader is not None
    names = ("page.js", own) if own else ("page.js",)
    script = "".join(loader.get_source(_environment(), name)[0] for name in names)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "script_digest": f"sha256-{digest}"}


def share_text(share: float | None, digits: int = 3) -> str:
    """Writes a share as the command line does: 0.95 is "0.950"; None is a dash."""
    return "-" if share is None or not math.isfinite(share) else f"{share:.{digits}f}"


def interval_text(interval: Sequence[float]) -> str:
    """Writes an interval: "0.863 to 0.983"."""
    low, high = interval
    return f"{low:.3f} to {high:.3f}"


def duration_text(seconds: float) -> str:
    """Writes a duration for people: "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
