"""The images of a run: read once and split, written into the run, opened again from it.

`scan_source` makes a Source from `data.source`, `write_splits` stores it in the run, and every
later command opens it with `open_source`, so that an image never changes its split.

Shapes: N images, K classes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasft.config import fields
from kerasft.config.load import data_at, load_config
from kerasft.config.photo_names import same_form
from kerasft.data import checks
from kerasft.data.files import examine_files, find_files
from kerasft.data.known import keep_splits
from kerasft.data.near_splits import (
    keep_near_copies_together,
    mark_near_copies_across,
)
from kerasft.data.source import UNUSED, Source
from kerasft.data.splits import (
    bound_names,
    read_class_names,
    read_rows,
    stratified_split,
    subsample,
    without_copies,
    write_rows,
)
from kerasft.errors import UserError, did_you_mean
from kerasft.files import write_atomic
from kerasft.input_rule import WHITE, Color, color_of
from kerasft.progress import Progress, silent
from kerasft.run import Run
from kerasft.seeds import derive_seed
from kerasft.sources.find import find_photos, list_photos
from kerasft.sources.photos import Listing, PhotoFolder
from kerasft.text import count, listing, printable

SPLIT_TYPE = "<U10"  # "validation" is the longest name of a split

log = logging.getLogger(__name__)


def scan_source(
    data: fields.Data,
    *,
    seed: int,
    weights: str = "none",
    least: int = 2,
    progress: Progress = silent,
) -> Source:
    """Reads and decodes every image of a source once, and splits the images.

    Splits of the source are respected, but a picture that several of them have stays only in test,
    or else in validation. If the source has no validation or test split, that split is drawn from
    the training images, stratified by class. Copies of a picture, near copies, and images of a
    group stay together. The validation and test images do not depend on `data.fraction`. If the
    source has no splits at all, images that a run knows keep those that they have there, see
    `known.py`.

    Args:
        data: section `data` of the config. `source` is any source in `SOURCES`; `validation` and
            `test` are shares of each class, rounded, at least one image each (none if `test` is
            0); `fraction` is the share of the remaining training images that is used;
            `bad_images` decides about files that are not images, `small_classes` about classes
            that are too small to be divided; `splits_from` names a run.
        seed: seed of the run.
        weights: `model.weights` of the run; images that a run behind them was trained on stay in
            training.
        least: least number of classes.
        progress: receiver of events of the stages "unpack" and "images".

    Returns:
        A Source whose class names are those of the training images: those of `data.classes` in
        its order, then the others, sorted.

    Raises:
        UserError: no such source (exit code 2); an empty source; a single class; classes with
            too few images or groups; files that are not images; a class without training images;
            a split of which more than half is in other splits as well; `splits_from` for a source
            that has splits (exit code 2).
    """
    place, listed = list_photos(data, progress)
    names = checks.check_classes(place.name, place.root, listed, least)
    checks.check_own_splits(place.name, listed, data.splits_from)
    shares = {"validation": data.validation, "test": data.test}
    shares = {s: share for s, share in shares.items() if share > 0 and s not in listed.classes}
    listed_as = _read_files(place, listed, names, data, progress, color_of(data.background))
    pictures = listed_as.pictures()
    left = without_copies(listed_as.splits, pictures)
    source = replace(listed_as, splits=left)
    checks.check_copies(place.name, listed_as, left)
    kept = None
    if set(listed.classes) == {""}:
        kept = keep_splits(place.name, source, data.splits_from, weights)
    if kept is not None:
        source = replace(source, splits=kept.splits, splits_from=kept.run)
    checks.check_splits(place.name, source, listed.classes)
    fixed = None if kept is None else kept.fixed
    small = checks.find_small_classes(source, shares, fixed)
    if small and data.small_classes == "refuse":
        checks.refuse_small_classes(place.name, source, shares, small)
    out = [
        label for label in small if data.small_classes == "leave_out" or _is_empty(source, label)
    ]
    checks.warn_of_small_classes(place.name, {k: small[k] for k in out}, left_out=True)
    in_training = {label: text for label, text in small.items() if label not in out}
    checks.warn_of_small_classes(place.name, in_training, left_out=False)
    whole = {source.class_names[label] for label in in_training}
    if in_training:
        alone = np.isin(source.labels, list(in_training))
        fixed = alone if fixed is None else alone | fixed
    if out:
        keep = ~np.isin(source.labels, out)
        fixed, left = None if fixed is None else fixed[keep], left[keep]
        source, listed_as = source.without_classes(out), listed_as.without_classes(out)
        checks.check_number(place.name, source.class_names, least)
    checks.warn_of_similar_names(place.name, source.class_names)
    checks.warn_about_copies(place.name, listed_as, left)
    if data.near_copies == "group":
        if set(listed.classes) != {""}:
            source = mark_near_copies_across(place.name, source)
        source, fixed = keep_near_copies_together(place.name, source, shares, fixed)
    source = _divided(source, shares, derive_seed(seed, "split"), fixed)
    checks.check_division(place.name, source, shares, whole)
    checks.warn_of_gaps(place.name, source, set(source.class_names) - whole)
    return _thinned(source, data.fraction, seed) if data.fraction < 1 else source


def _divided(
    source: Source, shares: Mapping[str, float], seed: int, fixed: np.ndarray | None
) -> Source:
    """Draws the splits that are missing."""
    splits = stratified_split(
        source.labels,
        source.splits,
        source.pictures(),
        shares,
        seed=seed,
        groups=bound_names(source),
        fixed=fixed,
    )
    return replace(source, splits=splits)


def _is_empty(source: Source, label: int) -> bool:
    """Returns whether a class has no images for training, so that it cannot be learned."""
    return not ((source.labels == label) & (source.splits == "train")).any()


def _thinned(source: Source, fraction: float, seed: int) -> Source:
    """Marks all training images but a share as unused.

    The unused images keep their lines in splits.csv. So every image keeps its position, on which
    the stores of the validation images and the views of the training images depend.
    """
    splits = subsample(
        source.labels,
        source.splits,
        source.pictures(),
        fraction,
        seed=derive_seed(seed, "fraction"),
        groups=bound_names(source),
    )
    thinned = replace(source, splits=splits)
    used, before = len(thinned.indices("train")), len(source.indices("train"))
    log.info("data.fraction = %g: %s of %s training images are used.", fraction, used, before)
    return thinned


def scan_for_model(
    data: fields.Data,
    class_names: tuple[str, ...],
    *,
    background: Color | None = WHITE,
    progress: Progress = silent,
) -> Source:
    """Reads photos that an existing model is to score.

    Args:
        data: section `data` of a config, of which `source` and `bad_images` are used. Classes of
            the model may be missing or empty.
        class_names: class names of the model, in the order of its scores.
        background: colour that transparent pixels lie on for the model, instead of
            `data.background`.
        progress: receiver of events of the stages "unpack" and "images".

    Returns:
        A Source with these class names. If the source has no splits, all images are in the split
        "all": it is unknown which of them the model was trained on.

    Raises:
        UserError: as in `scan_source`; classes that the model does not know; no images.
    """
    place, listed = list_photos(data, progress)
    names = sorted({name for names in listed.classes.values() for name in names})
    written = {same_form(name): name for name in class_names}  # an old model may differ in form
    unknown = [name for name in names if same_form(name) not in written]
    if unknown:
        raise UserError(
            f"{place.name}: the model does not know {len(unknown):,} of the classes:"
            + listing([f"{name}.{did_you_mean(name, class_names)}" for name in unknown], 20)
            + f"\n  Expected some of: {', '.join(class_names[:20])}"
            + (", ..." if len(class_names) > 20 else ".")
        )
    source = _read_files(place, listed, class_names, data, progress, background)
    if not source.paths:
        raise UserError(f"{place.name}: holds no images. Expected some of its classes.")
    if "" in listed.classes:
        source = replace(source, splits=np.full(len(source.paths), "all", SPLIT_TYPE))
    return source


def _read_files(
    place: PhotoFolder,
    listed: Listing,
    class_names: Sequence[str],
    data: fields.Data,
    progress: Progress,
    background: Color | None,
) -> Source:
    """Reads the listed photos. Their splits are the listed ones, or "train" if there are none."""
    label_of = {same_form(name): label for label, name in enumerate(class_names)}
    photos = sorted(listed.photos)
    names = [photo.path for photo in photos]
    facts, scan = examine_files(place.root, names, progress, background)
    bad = [
        (printable(photo.path), reason)
        for photo, (reason, *_) in zip(photos, facts, strict=True)
        if reason
    ]
    reasons = listing([f"{path}: {reason}" for path, reason in bad], 20)
    if bad and data.bad_images == "fail":
        raise UserError(
            f"{place.name}: {count(bad, 'file')} can't be used:{reasons}"
            + "\n  Move them away, or pass `data.bad_images=skip` to continue without them."
        )
    if bad:
        log.warning("%s: left out %s:%s", place.name, count(bad, "file"), reasons)
        good = [not fact.reason for fact in facts]
        photos = [photo for photo, fine in zip(photos, good, strict=True) if fine]
        facts = [fact for fact, fine in zip(facts, good, strict=True) if fine]
    plain = [photo.path for photo, fact in zip(photos, facts, strict=True) if fact.plain]
    checks.warn_of_plain_files(place.name, plain)
    checks.tell_converted(place.name, [fact.kind for fact in facts])
    groups = tuple(photo.group for photo in photos)
    return Source(
        root=place.root,
        class_names=tuple(class_names),
        paths=tuple(photo.path for photo in photos),
        labels=np.array([label_of[same_form(photo.class_name)] for photo in photos], np.int32),
        splits=np.array([photo.split or "train" for photo in photos], SPLIT_TYPE),
        digests=tuple(fact.digest for fact in facts),
        pixels=tuple(fact.pixels for fact in facts),
        skipped=tuple(bad),
        groups=groups if any(groups) else (),
        looks=tuple(fact.look for fact in facts),
        held=place.held,
        scan=scan,
        peak=max((fact.peak for fact in facts), default=0),
    )


def write_splits(source: Source, path: Path) -> None:
    """Writes splits.csv: one line per image, in the order of `source.paths`."""
    none = ("",) * len(source.paths)
    labels, splits = source.labels.tolist(), source.splits.tolist()
    digests, near = source.digests, source.near or none
    groups, pixels = source.groups or none, source.pixels or none
    write_rows(path, zip(source.paths, labels, splits, digests, groups, pixels, near, strict=True))


def write_classes(source: Source, path: Path) -> None:
    """Writes classes.txt: one class name per line; the line number from 0 is the label."""
    write_atomic(path, "".join(f"{name}\n" for name in source.class_names))


def open_source(
    splits_csv: Path,
    classes_txt: Path,
    data: fields.Data,
    *,
    some: bool = False,
    progress: Progress = silent,
) -> Source:
    """Opens the images that a run lists in its files, and finds them on disk.

    Files that were moved or renamed are found by their contents. Images that the run does not
    use are not looked for.

    Args:
        splits_csv: file that `write_splits` wrote.
        classes_txt: file that `write_classes` wrote.
        data: section `data` of the config; `source` is where the photos are now.
        some: whether some of the images are enough: those that are missing have the path "" then.
        progress: receiver of events of the stages "unpack" and "images".

    Returns:
        The Source as it was written, with the present paths of the images. The order is that of
        splits.csv, so that training feeds the images in the same order. Labels are those of the
        run, also of images that lie in another class now, see `known.py`.

    Raises:
        UserError: no such source (exit code 2); images that are missing or have changed, all at
            once; files of the run that are unreadable or invalid.
    """
    class_names = tuple(read_class_names(classes_txt))
    rows = read_rows(splits_csv, len(class_names))
    place = find_photos(data, progress)
    if not place.root.is_dir():
        raise UserError(
            f"{place.root}: no such folder. It held the images of {splits_csv.parent}. "
            "If they were moved, pass `data=FOLDER`.",
            exit_code=2,
        )
    paths, digests = [row[0] for row in rows], [row[3] for row in rows]
    groups, pixels, near = (tuple(row[column] for row in rows) for column in (4, 5, 6))
    used = [i for i, row in enumerate(rows) if row[2] != UNUSED]
    wanted = [paths[i] for i in used], [digests[i] for i in used]
    for i, path in zip(used, find_files(place, *wanted, progress, some=some), strict=True):
        paths[i] = path
    return Source(
        root=place.root,
        class_names=class_names,
        paths=tuple(paths),
        labels=np.array([int(row[1]) for row in rows], np.int32),
        splits=np.array([row[2] for row in rows], SPLIT_TYPE),
        digests=tuple(digests),
        pixels=pixels if any(pixels) else (),
        groups=groups if any(groups) else (),
        near=near if any(near) else (),
        held=place.held,
        read=place.read,
    )


def open_images(
    of_run: Run,
    class_names: Sequence[str],
    *,
    data: str | Path | None,
    some: bool = False,
    progress: Progress,
) -> Source:
    """Opens the images of a run for its model.

    Args:
        of_run: run with the splits.
        class_names: class names of its model.
        data: present place of the photos; None means the source in the run's config.
        some: whether some of the images are enough, see `open_source`.
        progress: receiver of events of the stages "unpack" and "images".

    Raises:
        UserError: photos that are missing or have changed; classes that differ from the model's.
    """
    recorded = load_config(of_run.config_path).data
    now = data_at(data, recorded) if data else recorded
    paths = of_run.splits_path, of_run.classes_path
    found = open_source(*paths, now, some=some, progress=progress)
    _refuse_other_names(of_run, found.class_names, class_names)
    return found


def refuse_edited_classes(of_run: Run, class_names: Sequence[str]) -> None:
    """Refuses a run whose classes.txt names other classes than its model.

    Args:
        of_run: run; without classes.txt, nothing is refused.
        class_names: class names of its model.
    """
    if of_run.classes_path.is_file():
        names = tuple(read_class_names(of_run.classes_path))
        _refuse_other_names(of_run, names, class_names)


def _refuse_other_names(of_run: Run, names: Sequence[str], class_names: Sequence[str]) -> None:
    if tuple(names) != tuple(class_names):
        raise UserError(
            f"{of_run.path}: classes.txt names {', '.join(names)}, model.keras names "
            f"{', '.join(class_names)}. Expected the same; one was changed since the run."
        )
