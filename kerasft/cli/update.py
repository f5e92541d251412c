"""`kerasft update`: a run that follows its data, with the texts that it prints."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result, set_option, verify_option
from kerasft.cli.terminal import loading, showing
from kerasft.cli.train import offer_again, plan_text, summary_text
from kerasft.cli.wording import difference_text, for_terminal
from kerasft.errors import UserError
from kerasft.text import MOST_CLASSES, agreeing, columns, count, in_line, printable

if TYPE_CHECKING:
    from kerasft.updating.changes import ClassChange
    from kerasft.updating.effect import Effect
    from kerasft.updating.update import Update


@click.command()
@click.argument("old", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data", metavar="SRC", help="All photos as they are now. Default: those of RUN.")
@click.option(
    "--add",
    "added",
    multiple=True,
    metavar="SRC",
    help="Further photos: a folder, a table or an archive. Can be repeated.",
)
@click.option(
    "--rename", multiple=True, metavar="A=B", help="Gives class A the name B. Can be repeated."
)
@click.option(
    "--merge",
    multiple=True,
    metavar="A,B=C",
    help="Makes one class C of A and B. A name with a comma stands in quotes. Can be repeated.",
)
@click.option(
    "--divide",
    multiple=True,
    metavar="A=SRC",
    help="Divides class A: SRC holds its photos by their new classes. Can be repeated.",
)
@click.option("--drop", multiple=True, metavar="A", help="Leaves out class A. Can be repeated.")
@click.option(
    "--photos-gone",
    is_flag=True,
    help="The photos of RUN are gone: what it has kept of them counts.",
)
@click.option(
    "--run",
    "new",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory of the new run. Default: that of RUN with -2, -3, ... behind it.",
)
@set_option
@click.option("--resume", is_flag=True, help="Continues the interrupted new run in --run.")
@click.option(
    "--dry-run", is_flag=True, help="Prints what has changed and the plan, but trains nothing."
)
@verify_option
@json_option
def update(
    old: Path,
    data: str | None,
    added: Sequence[str],
    rename: Sequence[str],
    merge: Sequence[str],
    divide: Sequence[str],
    drop: Sequence[str],
    photos_gone: bool,
    new: Path | None,
    sets: Sequence[str],
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Makes a new run from RUN, whose photos or classes have changed.

    Photos keep their splits, so that the test photos of RUN say what was gained and what was
    forgotten. The head is trained anew, as in RUN; only new photos go through the net. RUN stays
    as it is.

    \b
    Example:
        kerasft update runs/photos --add new/ --rename daisy=marguerite
    """
    merged = [_pair("--merge", "A,B=C", text) for text in merge]
    if resume and new is None:
        raise UserError("--resume needs --run DIR, the run to continue.", exit_code=2)
    with loading():
        from kerasft.updating.asked import Asked
        from kerasft.updating.update import plan_update, update_run

    asked = Asked(
        data=data,
        added=added,
        rename=dict(_pair("--rename", "A=B", text) for text in rename),
        merge={name: _names(parts) for parts, name in merged},
        divide=dict(_pair("--divide", "A=SRC", text) for text in divide),
        drop=drop,
        photos_gone=photos_gone,
    )
    if dry_run:
        with showing() as progress:
            found, plan = plan_update(old, asked, sets=sets, progress=progress)
        planned = plan and plan.to_json()
        text = changes_text(found) + (f"\n\n{plan_text(planned)}" if planned else "")
        print_result({**found.to_json(), "plan": planned}, lambda _: text, as_json=as_json)
        return
    new = new or _next_to(old)
    offer_again(new, ["kerasft", "train", "--run", str(new), "--resume"], resume=resume)
    with showing() as progress:
        done = update_run(old, new, asked, sets=sets, resume=resume, progress=progress)
    print_result(done.to_json(), lambda _: update_text(done), as_json=as_json)


def _pair(flag: str, form: str, text: str) -> tuple[str, str]:
    """Reads "A=B"; raises UserError (exit code 2) for anything else."""
    left, equals, right = text.rpartition("=")
    if not (equals and left and right):
        raise UserError(f"{flag}: expected {form}, got {text!r}.", exit_code=2)
    return left, right


def _names(text: str) -> list[str]:
    """Reads names between commas; one with a comma is in quotes."""
    return next(csv.reader([text], skipinitialspace=True))


def _next_to(old: Path) -> Path:
    """Returns the first free of RUN-2, RUN-3, ..."""
    number = 2
    while (path := old.with_name(f"{old.absolute().name}-{number}")).exists():
        number += 1
    return path


def changes_text(update: "Update") -> str:
    """Writes what has changed since the old run was made."""
    changes = update.changes
    of_old = f"{count(changes.kept, 'photo')} of {printable(str(update.old))}"
    said = [f"{of_old}, by what it has kept of them" if update.photos_gone else f"{of_old} kept"]
    said += [
        text
        for number, text in (
            (changes.relabelled, f"{changes.relabelled:,} of them with another label"),
            (changes.new, f"{changes.new:,} new"),
            (changes.gone, f"{changes.gone:,} gone"),
            (changes.dropped, f"{changes.dropped:,} left out with their class"),
        )
        if number
    ]
    lines = [f"{', '.join(said)}."]
    lines += [line for one in changes.classes if (line := _class_text(one))]
    if changes.gone_classes:
        gone = list(changes.gone_classes)
        lines.append(f"{in_line(gone, 10)} {agreeing(len(gone), 'are')} no class any more.")
    return "\n".join(lines)


def _class_text(one: "ClassChange") -> str:
    name = printable(one.name)
    if not one.before:
        return f"{name} is a new class of {count(sum(one.images.values()), 'photo')}."
    if len(one.before) > 1:
        return f"{name} is made of {in_line(list(one.before), 10)}."
    return f"{name} was called {printable(one.before[0])}." if one.before != (one.name,) else ""


def update_text(done: "Update") -> str:
    """Writes what has changed, the new run, and both models on the old test photos."""
    assert done.run is not None
    parts = [changes_text(done), summary_text(done.run.to_json(), again=not done.photos_gone)]
    if done.effect:
        parts.append(_effect_text(done.effect))
    else:
        parts.append(f"No comparison with the old model: {for_terminal(done.why)}")
    return "\n\n".join(parts)


def _effect_text(effect: "Effect") -> str:
    equal = effect.before == effect.after
    verdict = "as many" if equal else difference_text(effect.p)
    lines = [
        f"On {count(effect.n, 'old test photo')} the old model has {effect.before:,} right "
        f"({effect.only_before:,} alone), the new one {effect.after:,} "
        f"({effect.only_after:,} alone): {verdict}."
    ]
    if effect.relabelled:
        lines.append(
            f"{count(effect.relabelled, 'old test photo', 'have')} another label now and "
            f"{agreeing(effect.relabelled, 'are')} not counted."
        )
    worst = sorted(effect.classes, key=lambda one: one.after - one.before)
    rows = [
        (printable(one.name), str(one.n), f"{one.before / one.n:.3f}", f"{one.after / one.n:.3f}")
        for one in worst[:MOST_CLASSES]
    ]
    lines += ["", *columns([("class", "photos", "before", "now"), *rows], right=(1, 2, 3))]
    if len(worst) > MOST_CLASSES:
        lines.append(f"... {len(worst) - MOST_CLASSES:,} more classes, which have lost less")
    new = [
        (printable(one.name), str(one.n), f"{one.right / one.n:.3f}", _interval(one.ci95))
        for one in effect.new_classes
    ]
    if new:
        lines += ["", *columns([("new class", "photos", "right", "95% interval"), *new], (1, 2))]
    return "\n".join(lines)


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
