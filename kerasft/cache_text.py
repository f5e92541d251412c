"""The cache as text: what `kerasft cache` leaves on the screen."""

import time
from collections.abc import Mapping
from typing import Any

from kerasft.sizes import size_text


def cache_text(report: Mapping[str, Any]) -> str:
    """A line per store and per set of unpacked photos, then what all of them take up.

    Args:
        report: the object that `cache list --json` prints.
    """
    title = ("backbone", "cut", "images", "view", "dtype", "size", "last used")
    rows = [title, *(_store_row(store) for store in report["stores"])]
    width = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = [
        f"{backbone:<{width[0]}}  {cut:<{width[1]}}  {images:>{width[2]}}  {view:>{width[3]}}  "
        f"{dtype:<{width[4]}}  {size:>{width[5]}}  {used}"
        for backbone, cut, images, view, dtype, size, used in rows
    ]
    photos = [
        f"{one['name']}: {one['files']:,} files unpacked, {size_text(one['bytes'])}, last used "
        f"{_time_text(one['used'])}"
        for one in report["photos"]
    ]
    total = [
        f"{size_text(report['bytes'])} of at most {size_text(report['limit'])} in "
        f"{report['folder']}"
    ]
    if photos:
        total.append(f"and {size_text(report['photo_bytes'])} of photos, which have no limit")
    parts = (lines if report["stores"] else [], photos, total)
    return "\n\n".join("\n".join(part) for part in parts if part)


def _store_row(store: Mapping[str, Any]) -> tuple[str, ...]:
    """What is known of a store; its facts may be lost."""
    facts = store["facts"]
    images = store["shape"][0] if store["shape"] else None
    return (
        str(facts.get("backbone", "unknown")),
        _cut_text(facts),
        f"{images:,}" if images is not None else "unknown",
        str(facts.get("view", "unknown")),
        store["dtype"] or "damaged",
        size_text(store["bytes"]),
        _time_text(store["used"]),
    )


def _cut_text(facts: Mapping[str, Any]) -> str:
    """Where the cut is: blocks from the top, or features and what they are made of."""
    blocks, leave_out = facts.get("blocks"), facts.get("leave_out")
    kind = facts.get("features")
    if blocks is None:
        return "unknown"
    if blocks:
        return f"{blocks} from the top"
    place = f" {leave_out} from the top" if leave_out else ""
    return f"{kind} features{place}" if kind else f"features{place}"


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def removed_text(result: Mapping[str, Any]) -> str:
    """What `cache clear` removed."""
    number, photos = result["removed"], result.get("photos", 0)
    stores = "1 store" if number == 1 else f"{number:,} stores"
    if photos:
        stores += " and the photos of " + ("1 source" if photos == 1 else f"{photos:,} sources")
    return f"Removed {stores}, {size_text(result['bytes'])}."


def limit_text(result: Mapping[str, Any]) -> str:
    """How much the cache may hold, and what had to go for it."""
    limit = f"The cache may hold {size_text(result['limit'])}."
    return f"{limit} {removed_text(result)}" if result["removed"] else limit
