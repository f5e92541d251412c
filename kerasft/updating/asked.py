"""What the user says about the classes of a run: renamed, merged, divided or dropped.

Shapes: K classes of the old run.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kerasft.config.photo_names import same_form
from kerasft.errors import UserError, did_you_mean
from kerasft.text import in_line, listing, printable


@dataclass(frozen=True)
class Asked:
    """The changes that the user asks for, to the photos and classes of a run.

    Attributes:
        data: place of all photos now; None: where the run has them.
        added: places that hold further photos.
        rename: class -> its new name.
        merge: name of a class -> the classes that it is made of.
        divide: class -> place of its photos by new classes, which take its place.
        drop: classes that are left out.
        photos_gone: whether the photos of the run are gone, so that its classes are known by what
            it has kept of them alone (`heads/sums.py`).
    """

    data: str | None = None
    added: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    divide: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    photos_gone: bool = False


def classes_of(asked: Asked, class_names: Sequence[str], new: Sequence[str] = ()) -> dict[str, str]:
    """Returns what each class of a run is called now, in their order; "" for one that is gone.

    Args:
        asked: what is to become of them.
        class_names: K names.
        new: labels of photos that are no classes of the run; they follow in what is returned, and
            can be merged, renamed and dropped like classes.

    Raises:
        UserError: all that is wrong, at once: unknown classes, one that is named twice, and names
            that are taken. Exit code 2.
    """
    names = [*class_names, *new]
    known = {same_form(name): name for name in names}
    given = [
        *((old, new, "rename") for old, new in asked.rename.items()),
        *((old, new, "merge") for new, parts in asked.merge.items() for old in parts),
        *((old, "", "divide") for old in asked.divide),
        *((old, "", "drop") for old in asked.drop),
    ]
    now = {name: name for name in names}
    now |= {known[same_form(old)]: new for old, new, _ in given if same_form(old) in known}
    times = Counter(known.get(same_form(old)) for old, *_ in given)
    problems = [
        *(
            f"{how}: the run has no class {printable(repr(old))}.{did_you_mean(old, names)}"
            for old, _, how in given
            if same_form(old) not in known
        ),
        *(f"{printable(old)} is named {n} times." for old, n in times.items() if old and n > 1),
        *(
            f"{how}: expected a name for {printable(old)}, on one line, got {printable(repr(new))}."
            for old, new, how in given
            if how in ("rename", "merge") and not _is_name(new)
        ),
        *_taken(asked, now),
    ]
    if problems:
        raise UserError(
            "The classes can't be changed so:"
            + listing(problems, 20)
            + f"\n  Classes of the run: {in_line(list(class_names), 20)}."
            + (f" New: {in_line(list(new), 20)}." if new else ""),
            exit_code=2,
        )
    return now


def _is_name(text: str) -> bool:
    return bool(text) and text == text.strip() and text.isprintable()


def _taken(asked: Asked, now: Mapping[str, str]) -> Iterator[str]:
    """Yields what is wrong with new names that other classes have."""
    for new in dict.fromkeys(filter(None, asked.rename.values())):
        same = [old for old, name in now.items() if same_form(name) == same_form(new)]
        if len(same) > 1:
            merge = f"{','.join(same)}={new}"
            yield (
                f"rename: {in_line(same, 20)} would all be {printable(new)}. To make one class of "
                f"them: `merge={printable(merge)}`."
            )
    for new, parts in asked.merge.items():
        named = {same_form(part) for part in parts}
        more = [
            old
            for old, name in now.items()
            if same_form(name) == same_form(new) and same_form(old) not in named
        ]
        if more:
            merge = f"{','.join([*parts, *more])}={new}"
            yield (
                f"merge: {printable(new)} is the name of another class. If that is to be part of "
                f"the new one: `merge={printable(merge)}`."
            )


def new_labels(
    asked: Asked, class_names: Sequence[str], before: Mapping[str, str], labels: Sequence[str]
) -> list[str]:
    """Returns the labels of photos that belong to no class of a run.

    Args:
        asked: what is to become of the classes. The new name of one whose photos have no other
            label any more is that class.
        class_names: names of the run's classes.
        before: `data.classes` of the run.
        labels: labels that the photos have now.
    """
    given = {same_form(label): same_form(name) for label, name in before.items()}
    classes = {same_form(name) for name in class_names}
    of_label = {label: given.get(same_form(label), same_form(label)) for label in labels}
    there = set(of_label.values())
    moved = {new for old, new in asked.rename.items() if same_form(old) not in there}
    return [
        label
        for label, name in of_label.items()
        if name and name not in classes and label not in moved
    ]


def table_of(
    now: Mapping[str, str], before: Mapping[str, str], labels: Sequence[str]
) -> dict[str, str]:
    """Returns `data.classes` for the new run: the classes stay in the order of the old run.

    Args:
        now: what each class of the old run, and each new label, is called now, see `classes_of`.
        before: `data.classes` of the old run.
        labels: labels that the photos have now.

    Returns:
        Label -> class, only of labels that there are; {} if no class has ever been changed.
    """
    given = {same_form(label): same_form(name) for label, name in before.items()}
    labels = sorted({same_form(label) for label in labels})
    named: dict[str, str] = {}
    for old, new in now.items():
        own = [label for label in labels if given.get(label, label) == same_form(old)]
        if not own and same_form(new) in labels:  # its folder has the new name already
            own = [same_form(new)]
        named |= {label: new for label in own if label not in named}
    named |= {label: "" for label in labels if given.get(label) == ""}
    return named if before or any(old != new for old, new in now.items()) else {}
