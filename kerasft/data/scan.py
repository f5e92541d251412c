"""Source: the images of a data set with their labels and splits.

`scan_source` makes one from what the user named, `write_splits` keeps it in a run, and every
later command takes it from there with `open_source`, so that an image never changes sides.

Shapes: N images, K classes.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasft.config import fields
from kerasft.config.fields import Data
from kerasft.config.source_names import kind_of
from kerasft.data import checks
from kerasft.data.archives import find_archive
from kerasft.data.folders import examine, find_files, find_folder, for_each_file
from kerasft.data.source import UNUSED, Listing, PhotoFolder, Source
from kerasft.data.splits import read_rows, read_text, stratified_split, subsample, write_rows
from kerasft.data.tables import find_csv, find_parquet
from kerasft.data.tfds import find_tfds
from kerasft.errors import UserError, did_you_mean
from kerasft.files import write_atomic
from kerasft.progress import Progress, silent
from kerasft.seeds import derive_seed
from kerasft.text import count, listing, printable

SOURCES: dict[str, Callable[[Data, Progress], PhotoFolder]] = {
    "folder": find_folder,
    "csv": find_csv,
    "parquet": find_parquet,
    "archive": find_archive,
    "tfds": find_tfds,
}


def find_photos(data: Data, progress: Progress) -> PhotoFolder:
    """Finds the photos of a source; archives and sets of TFDS are unpacked if they are not yet.

    Args:
        data: `source` is what the user named.
        progress: told of what is unpacked.

    Raises:
        UserError: it can't be found, read or unpacked.
    """
    return SOURCES[kind_of(data.source)](data, progress)


SPLIT_TYPE = "<U10"  # the longest name of a split

log = logging.getLogger(__name__)


def scan_source(data: fields.Data, *, seed: int, progress: Progress = silent) -> Source:
    """Reads and decodes every image of a source once, and splits the images.

    Splits that the source has are respected; what is missing of validation and test is taken
    from the training images, class by class. Images of a group stay together. Which images are
    validated and tested does not depend on the share of the others that is used.

    Args:
        data: `source` is what `data/scan.py` knows; `validation` and `test` are the shares of
            each class to take, rounded, at least one image each (none where `test` is 0);
            `fraction` is the share of what is left for training that is used; `bad_images` says
            what to do about files that are no images.
        seed: the run's seed.
        progress: told of what is unpacked, and of files as they are read, stage "images".

    Returns:
        A Source whose class names are those of the training images, sorted.

    Raises:
        UserError: no such source (exit status 2), empty, one class, classes with too few images
            or groups, files that are no images, a class without training images.
    """
    place = find_photos(data, progress)
    listed = place.read()
    names = checks.check_classes(place.name, place.root, listed)
    shares = {"validation": data.validation, "test": data.test}
    shares = {s: share for s, share in shares.items() if share > 0 and s not in listed.classes}
    source = _read_files(place, listed, names, data.bad_images, progress)
    checks.check_sizes(place.name, source, listed.classes, shares)
    checks.warn_about_copies(place.name, source)
    splits = stratified_split(
        source.labels,
        source.splits,
        source.digests,
        shares,
        seed=derive_seed(seed, "split"),
        groups=source.groups,
    )
    source = replace(source, splits=splits)
    checks.check_division(place.name, source, shares)
    return _thinned(source, data.fraction, seed) if data.fraction < 1 else source


def _thinned(source: Source, fraction: float, seed: int) -> Source:
    """A Source of which only a share of the training images is used.

    The others keep their lines in splits.csv: so an image's position is what it is with all of
    them, and with it what is stored of the validation images, and the views of the training ones.
    """
    splits = subsample(
        source.labels,
        source.splits,
        source.digests,
        fraction,
        seed=derive_seed(seed, "fraction"),
        groups=source.groups,
    )
    thinned = replace(source, splits=splits)
    used, before = len(thinned.indices("train")), len(source.indices("train"))
    log.info("data.fraction = %g: %s of %s training images are used.", fraction, used, before)
    return thinned


def scan_for_model(
    data: fields.Data, class_names: tuple[str, ...], *, progress: Progress = silent
) -> Source:
    """Reads photos that are to be scored by a model that exists already.

    Args:
        data: `source` and `bad_images`, as in `scan_source`. Classes may be missing or empty.
        class_names: those of the model, in the order of its scores.
        progress: as in `scan_source`.

    Returns:
        A Source with these class names. Where the source has no splits, all images are in
        "all": nobody knows here which of them the model was trained on.

    Raises:
        UserError: as `scan_source`; classes that the model does not know; no images.
    """
    place = find_photos(data, progress)
    listed = place.read()
    names = sorted({name for names in listed.classes.values() for name in names})
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise UserError(
            f"{place.name}: the model does not know {len(unknown):,} of the classes:"
            + listing([f"{name}.{did_you_mean(name, class_names)}" for name in unknown], 20)
            + f"\n  Expected some of: {', '.join(class_names[:20])}"
            + (", ..." if len(class_names) > 20 else ".")
        )
    source = _read_files(place, listed, class_names, data.bad_images, progress)
    if not source.paths:
        raise UserError(f"{place.name}: holds no images. Expected some of its classes.")
    if "" in listed.classes:
        source = replace(source, splits=np.full(len(source.paths), "all", SPLIT_TYPE))
    return source


def _read_files(
    place: PhotoFolder,
    listed: Listing,
    class_names: Sequence[str],
    bad_images: str,
    progress: Progress,
) -> Source:
    """A Source with the splits that are listed; all is "train" where none are."""
    label_of = {name: label for label, name in enumerate(class_names)}
    photos = sorted(listed.photos)
    facts = for_each_file(examine, place.root, [photo.path for photo in photos], progress)
    bad = [
        (printable(photo.path), reason)
        for photo, (_, reason) in zip(photos, facts, strict=True)
        if reason
    ]
    reasons = listing([f"{path}: {reason}" for path, reason in bad], 20)
    if bad and bad_images == "fail":
        raise UserError(
            f"{place.name}: {count(bad, 'file')} can't be used:{reasons}"
            + "\n  Move them away, or pass --set data.bad_images=skip to go on without them."
        )
    if bad:
        log.warning("%s: left out %s:%s", place.name, count(bad, "file"), reasons)
        good = [not reason for _, reason in facts]
        photos = [photo for photo, fine in zip(photos, good, strict=True) if fine]
        facts = [fact for fact, fine in zip(facts, good, strict=True) if fine]
    groups = tuple(photo.group for photo in photos)
    return Source(
        root=place.root,
        class_names=tuple(class_names),
        paths=tuple(photo.path for photo in photos),
        labels=np.array([label_of[photo.class_name] for photo in photos], np.int32),
        splits=np.array([photo.split or "train" for photo in photos], SPLIT_TYPE),
        digests=tuple(key for key, _ in facts),
        skipped=tuple(bad),
        groups=groups if any(groups) else (),
        held=place.held,
    )


def write_splits(source: Source, path: Path) -> None:
    """Writes splits.csv: a line per image, in the order of `source.paths`."""
    groups = source.groups or ("",) * len(source.paths)
    labels, splits = source.labels.tolist(), source.splits.tolist()
    write_rows(path, zip(source.paths, labels, splits, source.digests, groups, strict=True))


def write_classes(source: Source, path: Path) -> None:
    """Writes classes.txt: a class name per line; the line number from 0 is the label."""
    write_atomic(path, "".join(f"{name}\n" for name in source.class_names))


def open_source(
    splits_csv: Path, classes_txt: Path, data: fields.Data, *, progress: Progress = silent
) -> Source:
    """Takes the images of a run from the files that it keeps, and looks for them on disk.

    Files that are not where they were are looked up by their contents. Those that the run does
    not use are not looked for.

    Args:
        splits_csv: as `write_splits` wrote it.
        classes_txt: a name per line; the line number from 0 is the label.
        data: `source` says where the photos are now.
        progress: told of what is unpacked, and of files as they are read, stage "images".

    Returns:
        The Source as it was written, with the paths where the images are now. Positions
        are those of splits.csv, so that training finds the same order.

    Raises:
        UserError: no such source (exit status 2); images that are missing or have changed, all
            at once; files of the run that can't be read or make no sense.
    """
    class_names = tuple(read_text(classes_txt).split("\n")[:-1])
    rows = read_rows(splits_csv, len(class_names))
    place = find_photos(data, progress)
    if not place.root.is_dir():
        raise UserError(
            f"{place.root}: no such folder. It held the images of {splits_csv.parent}. "
            "If they were moved, pass --data FOLDER.",
            exit_code=2,
        )
    paths, digests = [row[0] for row in rows], [row[3] for row in rows]
    groups = tuple(row[4] for row in rows)
    used = [i for i, row in enumerate(rows) if row[2] != UNUSED]
    wanted = [paths[i] for i in used], [digests[i] for i in used]
    for i, path in zip(used, find_files(place, *wanted, progress), strict=True):
        paths[i] = path
    return Source(
        root=place.root,
        class_names=class_names,
        paths=tuple(paths),
        labels=np.array([int(row[1]) for row in rows], np.int32),
        splits=np.array([row[2] for row in rows], SPLIT_TYPE),
        digests=tuple(digests),
        groups=groups if any(groups) else (),
        held=place.held,
    )
