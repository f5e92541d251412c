"""The page of photos before training: what `kerasft check` found, with the photos beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft import __version__
from kerasft.reports.page import write_page
from kerasft.reports.pictures import LARGE, ROOM, pictures_of

GROUPS = 40  # of copies that are shown, of each kind
IN_GROUP = 4
SUSPECTS = 40
OTHERS = 24  # photos of each other kind
ROWS = 100  # lines of a table


@dataclass(frozen=True)
class Entry:
    """A photo on the page, with what is said of it."""

    path: str
    picture: str
    text: str = ""


@dataclass(frozen=True)
class Group:
    """Photos that show the same picture, and how many of them are not shown."""

    photos: tuple[Entry, ...]
    more: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A kind of photos: its title, what is said of all, and some of them.

    Attributes:
        key: place on the page.
        title: title.
        about: what they are, and what may be done.
        n: number of all.
        photos: some of them; () in a section of groups.
        groups: groups of copies.
    """

    key: str
    title: str
    about: str
    n: int
    photos: tuple[Entry, ...] = ()
    groups: tuple[Group, ...] = ()


def write_check(path: Path, root: Path, found: Mapping[str, Any], source: str) -> int:
    """Writes the page of checked photos.

    Args:
        path: path of the HTML file.
        root: folder that the photos' paths are relative to.
        found: the JSON result of `kerasft check`.
        source: name of the photos, as it was given.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: the file can't be written.
    """
    suspects = [one["path"] for one in found["label_suspects"][:SUSPECTS]]
    large = pictures_of(root, suspects, side=LARGE, room=ROOM // 2)
    copies = [path for one in _shown(found["copies"]) for path in one["paths"][:IN_GROUP]]
    others = [path for _, _, _, entries in _kinds(found) for path, _ in entries[:OTHERS]]
    small = pictures_of(root, [*copies, *others], room=2 * ROOM)
    sections = [
        *_copies(found["copies"], small),
        *_suspects(found["label_suspects"], large),
        *_others(found, small),
    ]
    values = {
        "version": __version__,
        "source": source,
        "found": found,
        "sections": sections,
        "rows": ROWS,
        "missing": len({*suspects} - set(large)) + len({*copies, *others} - set(small)),
    }
    return write_page(path, "check.html", values)


def _shown(copies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Chooses groups of each kind, those across splits and labels first."""
    ordered = sorted(copies, key=lambda one: -(2 * one["across_labels"] + one["across_splits"]))
    return [
        one
        for kind in ("exact", "near")
        for one in [group for group in ordered if group["kind"] == kind][:GROUPS]
    ]


def _copies(copies: Sequence[Mapping[str, Any]], small: Mapping[str, str]) -> Iterator[Section]:
    kinds = {
        "exact": ("Equal pictures", "Equal pixels, whatever the names of the files."),
        "near": (
            "Near copies",
            "The same picture, altered: smaller, cut, compressed or with other colours.",
        ),
    }
    for kind, (title, about) in kinds.items():
        every = [one for one in copies if one["kind"] == kind]
        if not every:
            continue
        groups = []
        for one in _shown(every):
            notes = ["different labels"] * one["across_labels"]
            notes += ["different splits"] * one["across_splits"]
            photos = tuple(Entry(p, small.get(p, ""), p) for p in one["paths"][:IN_GROUP])
            groups.append(Group(photos, len(one["paths"]) - len(photos), tuple(notes)))
        yield Section(kind, title, about, len(every), groups=tuple(groups))


def _suspects(suspects: Sequence[Mapping[str, Any]], large: Mapping[str, str]) -> Iterator[Section]:
    if not suspects:
        return
    about = (
        "A classifier that has not seen the photo speaks for another class. The quality is between "
        "0 (surely wrong) and 1. Many are right and only look unusual, so look before you move one."
    )
    photos = tuple(
        suspect_entry(**one, picture=large.get(one["path"], "")) for one in suspects[:SUSPECTS]
    )
    yield Section("labels", "Suspicious labels", about, len(suspects), photos)


def suspect_entry(path: str, label: str, suggested: str, score: float, picture: str) -> Entry:
    """Says of a photo which label it has, and which one it may have instead."""
    return Entry(path, picture, f"{label}, or rather {suggested}? Quality {score:.2f}")


Kind = tuple[str, str, str, list[tuple[str, str]]]


def _kinds(found: Mapping[str, Any]) -> list[Kind]:
    """Lists the other kinds: place, title, what is said, and pairs of path and text."""

    def plain(paths: Sequence[str]) -> list[tuple[str, str]]:
        return [(path, path) for path in paths]

    sizes = [(o["path"], f"{o['path']}: {o['width']}x{o['height']}") for o in found["odd_sizes"]]
    return [
        (
            "outliers",
            "Unlike all others",
            "Their nearest other photo is more than twice as far away as usual, in features. Do "
            "they belong to the set?",
            plain([one["path"] for one in found["outliers"]]),
        ),
        ("plain", "One colour only", "There is nothing to see on them.", plain(found["plain"])),
        ("dark", "Almost black", "", plain(found["dark"])),
        ("blurred", "Blurred", "No sharp edge.", plain(found["blurred"])),
        ("sizes", "Odd size", "Very small, or very long.", sizes),
        (
            "converted",
            "Read by way of Pillow",
            "TensorFlow cannot read these formats.",
            plain(found["converted"]),
        ),
    ]


def _others(found: Mapping[str, Any], small: Mapping[str, str]) -> Iterator[Section]:
    for key, title, about, entries in _kinds(found):
        if entries:
            photos = tuple(
                Entry(path, small.get(path, ""), text) for path, text in entries[:OTHERS]
            )
            yield Section(key, title, about, len(entries), photos)
