"""Labels and classes: `data.classes` gives labels other names, joins them, or leaves them out.

What a source calls a class is a label here: the name of a folder, or a value in a table. Everything
that lists photos sees classes only, so a run and whoever compares photos with it later agree.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kerasft.config.photo_names import same_form
from kerasft.errors import UserError, did_you_mean
from kerasft.sources.photos import Listing, PhotoFolder
from kerasft.text import count, in_line, listing, printable

log = logging.getLogger(__name__)


def with_classes(place: PhotoFolder, classes: Mapping[str, str]) -> PhotoFolder:
    """Returns a folder that lists its photos by the classes of their labels.

    Args:
        place: folder of the photos.
        classes: label -> class, see `data.classes`. A label that no photo has is passed over: the
            photos of a run may have been moved.
    """
    if not classes:
        return place
    return replace(place, read=lambda: mapped(place.read(), classes))


def mapped(listed: Listing, classes: Mapping[str, str]) -> Listing:
    """Returns a listing with the classes of its labels, in the order of `classes`.

    Args:
        listed: photos by their labels.
        classes: label -> class; "" leaves out the photos of the label. A label that is not in it
            is its own class.
    """
    given = {same_form(label): same_form(name) for label, name in classes.items()}
    order = {name: number for number, name in enumerate(dict.fromkeys(given.values()))}

    def class_of(label: str) -> str:
        return given.get(same_form(label), label)

    def in_order(labels: Sequence[str]) -> tuple[str, ...]:
        names = {class_of(label) for label in labels} - {""}
        return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))

    photos = [photo._replace(class_name=class_of(photo.class_name)) for photo in listed.photos]
    return Listing(
        [photo for photo in photos if photo.class_name],
        {split: in_order(labels) for split, labels in listed.classes.items()},
    )


def refuse_unknown(name: str, listed: Listing, classes: Mapping[str, str]) -> None:
    """Refuses a table of classes with labels that no photo has.

    Args:
        name: source as the user wrote it.
        listed: photos by their labels.
        classes: label -> class.

    Raises:
        UserError: exit code 2.
    """
    labels = {same_form(label) for of_split in listed.classes.values() for label in of_split}
    unknown = [label for label in classes if same_form(label) not in labels]
    if unknown:
        raise UserError(
            f"{name} has no photos of {count(unknown, 'label')} in the table:"
            + listing([f"{printable(one)}.{did_you_mean(one, labels)}" for one in unknown], 20)
            + f"\n  It has {printable(in_line(sorted(labels), 20))}.",
            field="data.classes",
            exit_code=2,
        )


def tell_classes(name: str, listed: Listing, classes: Mapping[str, str]) -> None:
    """Says in a line which labels are joined or called differently, and how many are left out.

    Args:
        name: source as the user wrote it.
        listed: photos by their labels.
        classes: label -> class.
    """
    given = {same_form(label): same_form(name) for label, name in classes.items()}
    photos = Counter(same_form(photo.class_name) for photo in listed.photos)
    of_class: dict[str, list[str]] = {}
    for label in photos:
        of_class.setdefault(given.get(label, label), []).append(label)
    left_out = sorted(of_class.pop("", []))
    said = [
        f"{labels[0]} is called {one}"
        if len(labels) == 1
        else f"{one} holds {in_line(sorted(labels), 5)}"
        for one, labels in of_class.items()
        if labels != [one]
    ]
    if left_out:
        left = sum(photos[label] for label in left_out)
        said.append(f"{count(left, 'photo')} of {in_line(left_out, 5)} left out")
    if said:
        log.info("%s: classes by `data.classes`: %s.", name, printable("; ".join(said)))
