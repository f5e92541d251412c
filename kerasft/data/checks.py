"""Checks of a set of photos: what makes training impossible, and what deserves a warning."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from kerasft.config.overrides import NO_RUN
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import bound_names, movable, units_of
from kerasft.errors import UserError, did_you_mean
from kerasft.pixels.convert import MULTI_PAGE
from kerasft.sources.photos import SPLITS, Listing
from kerasft.text import agreeing, count, in_line, listing

log = logging.getLogger(__name__)


def check_classes(name: str, root: Path, listed: Listing, least: int = 2) -> tuple[str, ...]:
    """Refuses problems that show before any photo is read; returns the names of the classes.

    Args:
        name: source as the user wrote it.
        root: folder with the photos.
        listed: listing of the photos.
        least: least number of classes, 1 or 2.

    Raises:
        UserError: no training images; a single class; classes without training images; a group
            in several splits.
    """
    names = listed.classes.get("train") or listed.classes.get("")
    if not names:
        raise UserError(
            f"{name}: no images for training. It has some for {', '.join(listed.classes)}; "
            "expected a split train, or no splits at all."
        )
    if len(names) < least:
        parents = {PurePosixPath(photo.path).parent.parts for photo in listed.photos}
        is_folder = name == str(root) and "" in listed.classes
        inner = sorted({parts[1] for parts in parents if len(parts) > 1 and is_folder})
        hint = f" If {', '.join(inner[:3])} are classes, pass {root / names[0]}." if inner else ""
        raise UserError(f"{name}: holds one class, {names[0]}. Expected at least two.{hint}")
    unknown = [
        f"{one}, in {split}.{did_you_mean(one, names)}"
        for split, classes in listed.classes.items()
        for one in classes
        if one not in names
    ]
    if unknown:
        raise UserError(
            f"{name}: {len(unknown):,} of the classes {agreeing(len(unknown), 'have')} no training "
            "images, only images in other splits:" + listing(unknown, 20)
        )
    _check_groups(name, listed)
    return names


def check_number(name: str, class_names: Collection[str], least: int = 2) -> None:
    """Refuses too few classes, which may be what `data.small_classes` leaves.

    Args:
        name: source as the user wrote it.
        class_names: names of the classes that are left.
        least: least number of classes, 1 or 2.
    """
    if len(class_names) < least:
        left = ", ".join(class_names) or "none"
        number = "one" if least == 1 else "two"
        raise UserError(
            f"{name}: too few classes are large enough: {left}. Expected at least {number}."
        )


def _check_groups(name: str, listed: Listing) -> None:
    splits: dict[str, set[str]] = {}
    for photo in listed.photos:
        if photo.group:
            splits.setdefault(photo.group, set()).add(photo.split)
    torn = [f"{group}: {', '.join(sorted(of))}" for group, of in splits.items() if len(of) > 1]
    if torn:
        raise UserError(
            f"{name}: {count(torn, 'group')} in several splits at once. Expected all photos of a "
            "group in one split, or no splits at all (kerasft then keeps groups "
            "together):" + listing(torn, 20)
        )


def check_own_splits(name: str, listed: Listing, splits_from: str | None) -> None:
    """Refuses a source that has splits of its own if those of a run are asked for.

    Args:
        name: source as the user wrote it.
        listed: listing of the photos.
        splits_from: value of `data.splits_from`.

    Raises:
        UserError: two places say how the photos are split (exit code 2).
    """
    own = [split for split in SPLITS if split in listed.classes]
    if splits_from not in (None, NO_RUN) and own:
        raise UserError(
            f"{name}: has splits of its own ({', '.join(own)}), got those of "
            f"{splits_from} as well. Leave out `data.splits_from`, or pass the photos without "
            "splits.",
            field="data.splits_from",
            exit_code=2,
        )


def warn_of_depth(what: str, peak: int, depth: int) -> None:
    """Warns of numbers that are larger than a depth holds.

    Args:
        what: beginning of the sentence, which says whose depth it is.
        peak: largest number in the photos with 16 bits per channel.
        depth: number of bits.
    """
    if peak >= 2**depth:
        log.warning(
            "%s is %d bits, the largest number in the photos is %s: all from %s on are white.",
            what,
            depth,
            f"{peak:,}",
            f"{2**depth - 1:,}",
        )


def tell_converted(name: str, kinds: Sequence[str]) -> None:
    """Tells how many files Pillow converts, by format.

    Args:
        name: source as the user wrote it.
        kinds: format of each file that is converted, "" for each other file.
    """
    numbers = Counter(kind for kind in kinds if kind)
    tell_pages(name, numbers[MULTI_PAGE])
    if numbers:
        each = ", ".join(f"{number:,} {kind}" for kind, number in sorted(numbers.items()))
        log.info(
            "%s: %s converted to PNG in the cache: %s. Give an exported model PNG or JPEG files.",
            name,
            count(numbers.total(), "file", "are"),
            each,
        )


def tell_pages(name: str, number: int) -> None:
    """Tells how many TIFF files have several pages, of which the first is used.

    Args:
        name: source as the user wrote it.
        number: number of these files.
    """
    if number:
        log.info(
            "%s: %s several pages, of which only the first is used.",
            name,
            count(number, "TIFF file", "have"),
        )


def warn_of_plain_files(name: str, paths: list[str]) -> None:
    """Warns of files that show one plain colour: failed exports, lens caps, placeholders.

    Args:
        name: source as the user wrote it.
        paths: paths of the files.
    """
    if paths:
        files = count(paths, "file", "are")
        log.warning("%s: %s one plain colour: %s", name, files, in_line(paths, 5))


def find_small_classes(
    source: Source, shares: Collection[str], fixed: np.ndarray | None = None
) -> dict[int, str]:
    """Finds classes that are too small to be split, counting distinct images, or groups.

    Args:
        source: images with the splits that the source has, or that are kept from a run, before
            any are drawn.
        shares: splits that are still to be drawn from the training images.
        fixed: bool [N], whether an image stays in its split; None: none has to.

    Returns:
        Label -> what there is of the class, as text.
    """
    pictures = source.pictures()
    units = units_of(pictures, bound_names(source))
    labels, in_training = source.labels.tolist(), (source.splits == "train").tolist()
    images = Counter(labels)
    training: Counter[int] = Counter()
    of_training: Counter[int] = Counter()
    free: Counter[int] = Counter()
    for unit in units:
        found = [labels[position] for position in unit if in_training[position]]
        training.update(found)
        of_training.update(set(found))
    for unit in movable(units, source.labels, source.splits, pictures, fixed):
        free.update({labels[position] for position in unit})
    small = {}
    counts = source.counts()
    least = 1 + len(shares)
    for label, one in enumerate(source.class_names):
        has = f"{one}: {count(training[label], 'image')}"
        lacking = sum(not counts[one][split] for split in shares)
        if images[label] >= least and of_training[label] > lacking and free[label] >= lacking:
            continue
        if source.splits_from is not None:
            small[label] = _kept_and_new(one, source, label, fixed)
        elif images[label] < least:
            small[label] = has
        elif source.groups:
            small[label] = f"{has} in {count(of_training[label], 'group')}"
        else:
            are = agreeing(free[label], "are")
            small[label] = f"{has}, of which {free[label]:,} {are} distinct and in no other split"
    return small


def check_splits(name: str, source: Source, given: Collection[str]) -> None:
    """Refuses splits of the source that hold no images.

    Args:
        name: source as the user wrote it.
        source: images with the splits that the source has.
        given: splits that the source has; "" stands for none.
    """
    for split in given:
        if split and not len(source.indices(split)):
            raise UserError(f"{name}: no images for {split}. Expected some.")


def refuse_small_classes(
    name: str, source: Source, shares: Collection[str], small: Mapping[int, str]
) -> NoReturn:
    """Refuses classes that are too small, and says how to go on.

    Args:
        name: source as the user wrote it.
        source, shares: see `find_small_classes`.
        small: what that returned, not empty.

    Raises:
        UserError: always.
    """
    what, least = "images", f"at least {1 + len(shares)}"
    number = f"{len(small)} of {len(source.class_names)} classes"
    are = agreeing(len(small), "are")
    lines = listing(list(small.values()), 20)
    go_on = (
        "\n  `data.small_classes=leave_out` leaves these classes out, "
        "`data.small_classes=train_only` takes all of their images for training."
    )
    if source.splits_from is not None:
        raise UserError(
            f"{name}: with the splits of {source.splits_from}, {number} {are} too small. Expected "
            f"{least} images of each "
            f"class, and some in each of {', '.join(['training', *shares])}:"
            + lines
            + "\n  Add photos that no run before has seen. `data.splits_from=none` splits all "
            "photos anew, but figures on photos that the weights were trained on flatter." + go_on
        )
    expected = least
    if source.groups:
        what, expected = "groups", f"images of {least} groups"
    raise UserError(
        f"{name}: too few {what} in {number}. Expected {expected} in each"
        + (f", to be divided into {', '.join(['training', *shares])}:" if shares else ":")
        + lines
        + go_on
    )


def warn_of_small_classes(name: str, small: Mapping[int, str], *, left_out: bool) -> None:
    """Warns of classes that are left out, or whose images are all for training.

    Args:
        name: source as the user wrote it.
        small: label -> what there is of the class, see `find_small_classes`.
        left_out: whether the classes are left out.
    """
    if not small:
        return
    what = "left out" if left_out else "taken for training alone, and never measured,"
    number = f"{count(small, 'class')} that {agreeing(len(small), 'are')}"
    log.warning(
        "%s: %s %s too small to be divided:%s",
        name,
        what,
        number,
        listing(list(small.values()), 20),
    )


def warn_of_similar_names(name: str, class_names: Collection[str]) -> None:
    """Warns of classes whose names differ in upper and lower case or in blanks only.

    Args:
        name: source as the user wrote it.
        class_names: names of the classes.
    """
    alike: dict[str, list[str]] = {}
    for one in class_names:
        alike.setdefault("".join(one.split()).casefold(), []).append(f"'{one}'")
    pairs = [" and ".join(names) for names in alike.values() if len(names) > 1]
    if pairs:
        log.warning(
            "%s: names of classes that differ in case or blanks only. If they mean the same, "
            "give them one name:%s",
            name,
            listing(pairs, 10),
        )


def warn_of_gaps(name: str, source: Source, expected: Collection[str]) -> None:
    """Warns of classes without images in validation or test, which are never measured there.

    Args:
        name: source as the user wrote it.
        source: images, already split.
        expected: names of the classes that should be there.
    """
    counts = source.counts()
    for split in SPLITS[1:]:
        lacking = [one for one in counts if one in expected and not counts[one][split]]
        if lacking and len(source.indices(split)):
            log.warning(
                "%s: %s has no images of %s: it does not show how well %s recognized.",
                name,
                split,
                ", ".join(lacking[:10]) + (", ..." if len(lacking) > 10 else ""),
                "this class is" if len(lacking) == 1 else "these classes are",
            )


def _kept_and_new(name: str, source: Source, label: int, fixed: np.ndarray | None) -> str:
    """Counts a class by split: "cat: 5 for training, 0 for validation, 1 for test, 2 new"."""
    of_class = source.labels == label
    known = of_class if fixed is None else of_class & fixed
    numbers = [
        f"{int((known & (source.splits == split)).sum()):,} for {word}"
        for split, word in zip(SPLITS, ("training", *SPLITS[1:]), strict=True)
    ]
    return f"{name}: {', '.join(numbers)}, {int(of_class.sum() - known.sum()):,} new"


def check_division(
    name: str, source: Source, shares: Collection[str], exempt: Collection[str] = ()
) -> None:
    """Refuses splits that lack a class, which happens if groups hold several classes.

    Args:
        name: source as the user wrote it.
        source: images, already split.
        shares: splits that were drawn from the training images.
        exempt: names of classes whose images are all for training.

    Raises:
        UserError: a drawn split has no image of some class.
    """
    lacking = [
        f"{one}: no images for {', '.join(split for split in shares if not numbers[split])}"
        for one, numbers in source.counts().items()
        if one not in exempt and not all(numbers[split] for split in shares)
    ]
    if lacking:
        raise UserError(
            f"{name}: groups hold several classes, and no split was found that keeps groups "
            f"together and has every class in every part:{listing(lacking, 20)}\n"
            "  Assign the groups to splits in a column split, or pass `data.test=0`."
        )


def check_copies(name: str, source: Source, left: np.ndarray) -> None:
    """Refuses splits that are mostly copies of other splits.

    Args:
        name: source as the user wrote it.
        source: images with the splits that the source has.
        left: splits without copies, see `splits.without_copies`.

    Raises:
        UserError: more than half of the images of a split are in a later split as well.
    """
    for split, pairs in _copies(source, left).items():
        total = len(source.indices(split))
        if 2 * len(pairs) > total:
            raise UserError(
                f"{name}: {len(pairs):,} of the {count(source.indices(split), 'image')} of {split} "
                "show the same picture as an image of a later split, which is more than half. "
                "Expected other pictures in each split:"
                + listing(pairs, 10)
                + "\n  Remove the copies from one of the splits, or pass all images without "
                "splits (kerasft then keeps copies together)."
            )


def _copies(source: Source, left: np.ndarray) -> dict[str, list[str]]:
    """Pairs each image that lost its split with an image of the split that has its picture now.

    Returns:
        Split that was lost -> pairs of paths, as text. Splits that lost nothing are not in it.
    """
    pictures = source.pictures()
    stays = {
        pictures[position]: source.paths[position]
        for position in np.flatnonzero(left != UNUSED).tolist()[::-1]
    }
    pairs: dict[str, list[str]] = {}
    for position in np.flatnonzero(left != source.splits).tolist():
        pair = f"{source.paths[position]} and {stays[pictures[position]]}"
        pairs.setdefault(str(source.splits[position]), []).append(pair)
    return pairs


def warn_about_copies(name: str, source: Source, left: np.ndarray) -> None:
    """Warns about copies with different labels, and about those that were in different splits.

    Args:
        name: source as the user wrote it.
        source: images with the splits that the source has.
        left: splits without copies, see `splits.without_copies`.
    """
    first: dict[str, int] = {}
    in_two_classes = []
    for position, key in enumerate(source.pictures()):
        other = first.setdefault(key, position)
        if source.labels[other] != source.labels[position]:
            in_two_classes.append(f"{source.paths[other]} and {source.paths[position]}")
    if in_two_classes:
        log.warning(
            "%s: %s in two classes at once. Keep each in one:%s",
            name,
            count(in_two_classes, "image"),
            listing(in_two_classes, 10),
        )
    copies = _copies(source, left)
    in_two_splits = [pair for pairs in copies.values() for pair in pairs]
    if in_two_splits:
        log.warning(
            "%s: %s in two splits at once, which would make the measured accuracy too high. "
            "Left out: %s.%s",
            name,
            count(in_two_splits, "image"),
            ", ".join(f"{len(pairs):,} of {split}" for split, pairs in copies.items()),
            listing(in_two_splits, 10),
        )
