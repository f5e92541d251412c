"""`kerasft check`, `review`, `drift` and `sample-data`, with the texts that they print."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result, reading_options
from kerasft.cli.terminal import loading, showing
from kerasft.cli.train import train
from kerasft.cli.wording import as_typed, field_option, fields_typed, for_terminal
from kerasft.text import columns, count

if TYPE_CHECKING:
    from kerasft.checking.check import Checked
    from kerasft.checking.clean import Clean
    from kerasft.checking.copies import Copies
    from kerasft.checking.features import LabelSuspect
    from kerasft.checking.review import Review
    from kerasft.evaluation.drift import ClassDrift, Drift
    from kerasft.sample.draw import Sample

MOST = 10
"""Largest number of entries of each list; JSON has all of them."""

SHIFTED = 3
"""Exit code of `drift` where the photos have shifted."""

WIDTH = 80
"""Largest number of characters of a line that has room for less."""


@click.command()
@click.argument("source", metavar="SRC")
@reading_options
@field_option(
    "--backbone",
    "model.backbone",
    metavar="NAME",
    help="Pretrained net whose features tell suspicious labels. Default: MobileNetV2.",
)
@field_option(
    "--weights",
    "model.weights",
    metavar="imagenet|sample|FILE",
    help="Its weights. Default: imagenet, if they are on this machine.",
)
@field_option(
    "--image-size", "model.image_size", type=int, metavar="N", help="Side of the images in pixels."
)
@click.option(
    "--fix-to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Makes a copy of the photos that can be used: DIR must be absent or empty. "
    "DIR/photos.csv has their labels and splits, and a group for copies, which stay in one split. "
    "Files that have to be converted become PNG.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Writes a page with pictures of what was found: copies side by side, suspicious labels.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    source: str,
    fix_to: Path | None,
    page: Path | None,
    as_json: bool,
    **options: object,
) -> None:
    """Checks photos before training: bad files, copies, suspicious labels.

    The photos are not changed. The exit code is 1 if `kerasft train` would refuse them.

    \b
    Example:
        kerasft check photos
        kerasft check photos --html photos.html
        kerasft check photos --fix-to clean
    """
    with loading():
        from kerasft.checking.check import check_photos

    with showing(once=True) as progress:
        flags = {"data.source": source, **fields_typed(options)}
        found = check_photos(flags, fix_to=fix_to, page=page, progress=progress)
    print_result(found, check_text, as_json=as_json)
    if found.refused:
        ctx.exit(1)


def check_text(found: "Checked") -> str:
    """Writes the number of photos of each class, and a list for each kind of problem."""
    classes = ", ".join(f"{n:,} {c}" for c, n in found.classes.items())
    lines = [f"{count(found.files, 'file')}: {classes or 'none can be used'}"]
    exact, near = (
        [_copies_line(one) for one in found.copies if one.kind == kind]
        for kind in ("exact", "near")
    )
    lists: tuple[tuple[str, Sequence[str]], ...] = (
        ("Cannot be used", [_line(f"{one.path}:", one.reason) for one in found.unreadable]),
        ("Read by way of Pillow", found.converted),
        ("One colour only", found.plain),
        ("Almost black", found.dark),
        ("Blurred", found.blurred),
        ("Odd size", [f"{one.path}: {one.width}x{one.height}" for one in found.odd_sizes]),
        ("Equal pictures", exact),
        ("Near copies", near),
        ("Suspicious labels", _suspect_lines(found.label_suspects)),
        ("Unlike all others", [one.path for one in found.outliers]),
    )
    for title, entries in lists:
        lines += _list_lines(title, entries)
    if found.left_out:
        lines += ["", for_terminal(found.left_out, train)]
    end = "`kerasft train` takes these photos."
    if found.refused:
        end = "`kerasft train` refuses these photos:\n" + for_terminal(found.refused, train)
    lines += ["", end, *(_clean_lines(found.clean) if found.clean else [])]
    if found.page:
        lines += ["", f"With pictures: {found.page}"]
    return "\n".join(lines)


def _clean_lines(clean: "Clean") -> list[str]:
    facts = [
        text
        for number, text in (
            (clean.converted, f"{clean.converted:,} converted to PNG"),
            (clean.left_out, f"{clean.left_out:,} left out"),
            (clean.groups, f"{count(clean.groups, 'group')} of copies"),
        )
        if number
    ]
    lines = [
        "",
        f"Clean copy in {clean.folder}: " + ", ".join([count(clean.photos, "photo"), *facts]),
    ]
    if clean.refused:
        return [
            *lines,
            "`kerasft train` refuses the copy, too:\n" + for_terminal(clean.refused, train),
        ]
    table = as_typed(str(clean.folder / "photos.csv"))
    return [*lines, "", "Next:", f"  kerasft train --data {table}"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inbox", type=click.Path(path_type=Path))
@click.option(
    "--n", type=int, default=60, metavar="N", help="Number of photos, up to 500. Default: 60."
)
@json_option
def review(run: Path, inbox: Path, n: int, as_json: bool) -> None:
    """Chooses photos of INBOX for a person to label, and makes a page for it.

    INBOX is a folder of new photos without labels. Chosen are those from which the model learns
    most: it is unsure of them, and they are unlike each other, or unlike all training photos.
    review.csv and review.html are written into INBOX. The page shows a photo at a time, with a key
    for each class, and gives the table filled, which `update --add` takes.

    \b
    Example:
        kerasft review runs/photos inbox
        kerasft update runs/photos --add inbox/review.csv
    """
    with loading():
        from kerasft.checking.review import review_run

    with showing() as progress:
        result = review_run(run, inbox, n=n, progress=progress)
    print_result(result, review_text, as_json=as_json)


def review_text(result: "Review") -> str:
    """Writes how many photos were chosen, the first of them, what was left out, and what next."""
    chosen = len(result.photos)
    lines = [f"{chosen:,} of {count(result.n, 'new photo')} chosen for {result.run}"]
    if result.asked_before:
        before = count(result.asked_before, "photo", "have")
        lines.append(f"{before} been labelled or left out in an earlier table.")
    lists: tuple[tuple[str, Sequence[str]], ...] = (
        ("Worth a look", [_line(f"{one.path}:", one.why) for one in result.photos]),
        ("Copies of the run's photos or of other new ones, left out", result.copies),
        ("Cannot be read", [_line(f"{one.file}:", one.error) for one in result.errors]),
        ("Labels of the run's own photos that may be wrong", _suspect_lines(result.suspects)),
    )
    for title, entries in lists:
        lines += _list_lines(title, entries)
    if result.unchecked:
        lines += ["", for_terminal(result.unchecked)]
    update = as_typed("kerasft", "update", str(result.run), "--add", str(result.table))
    lines += [
        "",
        f"Label them in a browser:        {result.page}",
        f"Save what it gives in place of: {result.table}",
        "",
        "Next:",
        f"  {update}",
    ]
    return "\n".join(lines)


def _suspect_lines(suspects: "Sequence[LabelSuspect]") -> list[str]:
    return [
        _line(f"{one.path}:", f"{one.label}, or rather {one.suggested}? (quality {one.score:.2f})")
        for one in suspects
    ]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inbox", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def drift(ctx: click.Context, run: Path, inbox: Path, as_json: bool) -> None:
    """Tells whether new photos still look like those that a run was trained on.

    INBOX is a folder of photos, at least 10, without labels. Their pretrained features are compared
    with those of the training photos (MMD, permutations, level 0.01): all together, and each class.
    Other looks are told from other shares of the classes. Files that cannot be read and copies are
    named and do not count. The exit code is 3 if the photos, or those of a class, have shifted.

    \b
    Example:
        kerasft drift runs/photos inbox
    """
    with loading():
        from kerasft.evaluation.drift import drift_run

    with showing() as progress:
        result = drift_run(run, inbox, progress=progress)
    print_result(result, drift_text, as_json=as_json)
    if result.shifted:
        ctx.exit(SHIFTED)


def drift_text(result: "Drift") -> str:
    """Writes whether photos have shifted and in what, a line per class, and lists of photos."""
    some = "" if result.tested == result.n else f" ({result.tested:,} of them drawn for the tests)"
    against = f"{count(result.known, 'training photo')} of {result.run}"
    lines = [
        textwrap.fill(
            f"{count(result.n, 'new photo')}{some}, compared with {against}",
            WIDTH,
            break_long_words=False,
            break_on_hyphens=False,
        ),
        "",
        *_shift_lines(result),
        *textwrap.wrap(result.lacking, WIDTH),
        "",
        *_class_drift_lines(result.classes),
    ]
    shown = [] if result.shares.shifted and not _looks_shifted(result) else result.photos
    lists: tuple[tuple[str, Sequence[str]], ...] = (
        (
            "Most like the new photos and least like training ones",
            [_line(f"{one.file}:", f"{one.label}, by {one.witness:.3f}") for one in shown]
            if result.shifted
            else [],
        ),
        (
            "Unlike all training photos, by the distance to the nearest",
            [
                _line(f"{one.file}:", f"{one.distance:.2f}")
                for one in sorted(result.photos, key=lambda one: -one.distance)
                if one.novel
            ],
        ),
        ("Copies of training photos or of other new ones, not counted", result.copies),
        (
            "Cannot be read, not counted",
            [_line(f"{one.file}:", one.error) for one in result.errors],
        ),
    )
    for title, entries in lists:
        lines += _list_lines(title, entries)
    return "\n".join(lines)


def _looks_shifted(result: "Drift") -> bool:
    return result.looks is not None and result.looks.shifted


def _shift_lines(result: "Drift") -> list[str]:
    """Writes what the tests of all photos say."""
    p, counts = f"p {result.overall.p:.4f}", f"p up to {result.level / 2:g} counts"
    if not result.shifted:
        return [f"No shift is shown: {p}; only {counts} as one."]
    if not result.overall.shifted:
        return [f"Some classes have shifted (below). All photos: {p}; {counts}."]
    looks = "Too few training photos are of these classes to tell whether looks differ."
    if result.looks:
        sure = "They look different within their classes"
        unsure = "That they look different within their classes is not shown"
        looks = f"{sure if result.looks.shifted else unsure} (p {result.looks.p:.4f})."
    other = "Their classes have other shares"
    same = "That their classes have other shares is not shown"
    return [
        f"The photos have shifted: {p}; {counts}.",
        f"  {looks}",
        f"  {other if result.shares.shifted else same} (p {result.shares.p:.4f}).",
    ]


def _class_drift_lines(rows: "Sequence[ClassDrift]") -> list[str]:
    """Writes a table of the classes; p is adjusted for their number."""
    rows = [row for row in rows if row.new or row.shifted or row.share or len(rows) <= MOST]
    title = ("class", "photos", "share", "in training", "p of looks", "")
    cells = [
        (
            row.label,
            f"{row.new:,}",
            f"{row.share:.2f}",
            f"{row.known:.2f}",
            "too few" if row.adjusted is None else f"{row.adjusted:.4f}",
            "shifted" if row.shifted else "",
        )
        for row in rows
    ]
    return columns([title, *cells], right=range(1, 5))


def _list_lines(title: str, entries: Sequence[str]) -> list[str]:
    """Writes a list under its title, its first entries alone; nothing for an empty one."""
    if not entries:
        return []
    more = len(entries) - MOST
    return [
        "",
        f"{title} ({len(entries):,}):",
        *(f"  {entry}" for entry in entries[:MOST]),
        *([f"  and {more:,} more (all with --json)"] if more > 0 else []),
    ]


def _copies_line(one: "Copies") -> str:
    paths = one.paths
    notes = ["different labels"] * one.across_labels + ["different splits"] * one.across_splits
    rest = f" and {len(paths) - 2:,} more" if len(paths) > 2 else ""
    return _line(f"{paths[0]},", f"{paths[1]}{rest}" + (f" ({', '.join(notes)})" if notes else ""))


def _line(first: str, second: str) -> str:
    """Writes an entry of a list in one line, or in two where that would be too long."""
    fits = 2 + len(first) + 1 + len(second) <= WIDTH
    return f"{first} {second}" if fits else f"{first}\n    {second}"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Seed of the drawings. Default: 0.",
)
@click.option(
    "--per-class",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of images of each kind. Default: 100.",
)
@json_option
def sample_data(folder: Path, seed: int, per_class: int | None, as_json: bool) -> None:
    """Draws photos for trying out kerasft: five kinds of flowers, a folder each.

    DIR must be absent or empty. The same options give the same images. `train --weights sample`
    starts from a small net that was pretrained on drawings, so nothing is downloaded.

    \b
    Example:
        kerasft sample-data flowers
        kerasft train --data flowers --weights sample --run runs/flowers
    """
    from kerasft.sample.draw import PER_CLASS, draw_sample

    with showing() as progress:
        result = draw_sample(folder, seed=seed, per_class=per_class or PER_CLASS, progress=progress)
    print_result(result, sample_text, as_json=as_json)


def sample_text(result: "Sample") -> str:
    """Writes the number of images that `sample-data` has drawn, by class."""
    return f"{count(result.images, 'image')} drawn in {result.folder}: " + ", ".join(
        f"{images:,} {name}" for name, images in result.classes.items()
    )
