"""Source: the images of a data set with their labels and splits.

`scan_source` makes one from a folder of photos, `write_splits` keeps it in a run, and every
later command takes it from there with `open_source`, so that an image never changes sides.

Shapes: N images, K classes.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from kerasft import config
from kerasft.errors import UserError, did_you_mean
from kerasft.folders import (
    count,
    examine,
    find_classes,
    find_files,
    for_each_file,
    listing,
    printable,
)
from kerasft.progress import Progress, silent
from kerasft.randomness import derive_seed
from kerasft.run import write_atomic
from kerasft.splits import SPLITS, carve, movable_groups, read_rows, read_text, write_rows

SPLIT_TYPE = "<U10"  # the longest name of a split

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels and splits.

    Attributes:
        root: the folder that `paths` are relative to.
        class_names: K names; a label is a position in them.
        paths: N posix paths, sorted when the folder was scanned; later moves keep the order.
        labels: int32 [N], 0 to K-1.
        splits: str [N], each one of `SPLITS`.
        digests: of the N files, 32 hexadecimal digits each; see `folders.examine`.
        skipped: files that are no images and were left out, each with its reason.
        groups: N names of groups whose images stay together; "" is no group.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    digests: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()

    def indices(self, split: str) -> np.ndarray:
        """int64 positions in `paths` of the images of a split, ascending; maybe none."""
        return np.flatnonzero(self.splits == split)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by class and split: `{"daisy": {"train": 210, "validation": 45, "test": 45}}`."""
        return {
            name: {
                split: int(np.sum((self.labels == label) & (self.splits == split)))
                for split in SPLITS
            }
            for label, name in enumerate(self.class_names)
        }


def scan_source(data: config.Data, *, seed: int, progress: Progress = silent) -> Source:
    """Reads and decodes every image of a folder once, and splits the images.

    Folders `train`, `validation` and `test` are respected; what is missing of the last two is
    taken from the training images, class by class.

    Args:
        data: `source` is a folder in one of the layouts of `folders.py`; `validation` and `test`
            are the shares of each class to take, rounded, at least one image each (none where
            `test` is 0); `bad_images` says what to do about files that are no images.
        seed: the run's seed.
        progress: told of files as they are read, stage "images".

    Returns:
        A Source whose class names are those of the training images, sorted.

    Raises:
        UserError: no such folder (exit status 2), empty, one class, classes with too few images,
            files that are no images, a class without a training folder.
    """
    folders = find_classes(data.source)
    training = folders.get("train") or folders[""]
    _check_classes(data.source, folders, training)
    shares = {"validation": data.validation, "test": data.test}
    shares = {s: share for s, share in shares.items() if share > 0 and s not in folders}
    source = _read_files(data.source, folders, sorted(training), data.bad_images, progress)
    _check_sizes(source, folders, shares)
    splits = carve(
        source.labels, source.splits, source.digests, shares, seed=derive_seed(seed, "split")
    )
    return replace(source, splits=splits)


def open_folder(
    root: Path,
    class_names: tuple[str, ...],
    *,
    bad_images: str = "fail",
    progress: Progress = silent,
) -> Source:
    """Reads a folder of photos to be scored by a model that exists already.

    Args:
        root: a folder in one of the layouts of `folders.py`. Classes may be missing or empty.
        class_names: those of the model, in the order of its scores.
        bad_images: "fail" or "skip", as in the config.
        progress: told of files as they are read, stage "images".

    Returns:
        A Source with these class names. The split of a folder per class is "all": nobody
        knows here which of them the model was trained on.

    Raises:
        UserError: as `scan_source`; folders of classes that the model does not know; no images.
    """
    folders = find_classes(root)
    names = sorted({name for classes in folders.values() for name in classes})
    unknown = [n for n in names if n not in class_names]
    if unknown:
        raise UserError(
            f"{root}: {count(unknown, 'folder')} of classes that the model does not know:"
            + listing([f"{name}.{did_you_mean(name, class_names)}" for name in unknown], 20)
            + f"\n  Expected some of: {', '.join(class_names[:20])}"
            + (", ..." if len(class_names) > 20 else ".")
        )
    if "" in folders:
        folders = {"all": folders[""]}
    source = _read_files(root, folders, class_names, bad_images, progress)
    if not source.paths:
        raise UserError(f"{root}: holds no images. Expected some in the folders of its classes.")
    return source


def _check_classes(
    root: Path, folders: Mapping[str, Mapping[str, list[str]]], training: Mapping[str, list[str]]
) -> None:
    """Refuses what can be seen from the names of the folders alone."""
    names = sorted(training)
    if len(names) == 1:
        nested = {PurePosixPath(path).parent for path in training[names[0]]}
        inner = sorted({p.parts[1] for p in nested if len(p.parts) > 1})
        hint = f" If {', '.join(inner[:3])} are classes, pass {root / names[0]}." if inner else ""
        raise UserError(f"{root}: holds one class, {names[0]}. Expected at least two.{hint}")
    unknown = [
        f"{name}, in {split}.{did_you_mean(name, names)}"
        for split, classes in folders.items()
        for name in classes
        if name not in training
    ]
    if unknown:
        raise UserError(
            f"{root}: {len(unknown)} of the class folders have no counterpart in the training "
            "folder, which says what the classes are:" + listing(unknown, 20)
        )


def _read_files(
    root: Path,
    folders: Mapping[str, Mapping[str, list[str]]],
    class_names: Sequence[str],
    bad_images: str,
    progress: Progress,
) -> Source:
    """A Source with the splits of the folders; all is "train" where these are the classes."""
    label_of = {name: label for label, name in enumerate(class_names)}
    files = sorted(
        (path, label_of[name], split or "train")
        for split, classes in folders.items()
        for name, paths in classes.items()
        for path in paths
    )
    facts = for_each_file(examine, root, [path for path, _, _ in files], progress)
    bad = [
        (printable(path), reason)
        for (path, _, _), (_, reason) in zip(files, facts, strict=True)
        if reason
    ]
    reasons = listing([f"{path}: {reason}" for path, reason in bad], 20)
    if bad and bad_images == "fail":
        raise UserError(
            f"{root}: {count(bad, 'file')} can't be used:{reasons}"
            + "\n  Move them away, or pass --set data.bad_images=skip to go on without them."
        )
    if bad:
        log.warning("%s: left out %s:%s", root, count(bad, "file"), reasons)
    kept = [(*file, key) for file, (key, reason) in zip(files, facts, strict=True) if not reason]
    return Source(
        root=root,
        class_names=tuple(class_names),
        paths=tuple(path for path, _, _, _ in kept),
        labels=np.array([label for _, label, _, _ in kept], np.int32),
        splits=np.array([split for _, _, split, _ in kept], SPLIT_TYPE),
        digests=tuple(key for _, _, _, key in kept),
        skipped=tuple(bad),
    )


def _check_sizes(source: Source, folders: Collection[str], shares: Collection[str]) -> None:
    """Refuses classes that are too small to be split, counting images that differ."""
    for split in folders:
        if split and not len(source.indices(split)):
            raise UserError(f"{source.root}: no images in the folder for {split}. Expected some.")
    movable = movable_groups(source.labels, source.splits, source.digests, len(source.class_names))
    small = []
    for label, name in enumerate(source.class_names):
        training = np.flatnonzero((source.labels == label) & (source.splits == "train"))
        differ = len({source.digests[position] for position in training})
        enough = differ > len(shares) and len(movable[label]) >= len(shares)
        if np.sum(source.labels == label) < 3:
            small.append(f"{name}: {count(training, 'image')}")
        elif not enough:
            small.append(
                f"{name}: {count(training, 'image')}, of which {len(movable[label]):,} differ "
                "and are in no other folder"
            )
    if small:
        raise UserError(
            f"{source.root}: too few images in {len(small)} of {len(source.class_names)} classes. "
            "Expected at least 3 in each"
            + (f", to be divided into {', '.join(['training', *shares])}:" if shares else ":")
            + listing(small, 20)
        )
    _warn_about_copies(source)


def _warn_about_copies(source: Source) -> None:
    """Says which images have two labels, or are in two splits by the folders that they lie in."""
    first: dict[str, int] = {}
    labels, splits = [], []
    for position, key in enumerate(source.digests):
        other = first.setdefault(key, position)
        pair = f"{source.paths[other]} and {source.paths[position]}"
        if source.labels[other] != source.labels[position]:
            labels.append(pair)
        elif source.splits[other] != source.splits[position]:
            splits.append(pair)
    if labels:
        log.warning(
            "%s: %s in two classes at once. Keep each in one:%s",
            source.root,
            count(labels, "image"),
            listing(labels, 10),
        )
    if splits:
        log.warning(
            "%s: %s in the folders of two splits at once, which makes the figures too good:%s",
            source.root,
            count(splits, "image"),
            listing(splits, 10),
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
    splits_csv: Path, classes_txt: Path, root: Path, *, progress: Progress = silent
) -> Source:
    """Takes the images of a run from the files that it keeps, and looks for them on disk.

    Files that are not where they were are looked up below `root` by their contents.

    Args:
        splits_csv: as `write_splits` wrote it.
        classes_txt: a name per line; the line number from 0 is the label.
        root: the folder of photos.
        progress: told of files as they are read, stage "images".

    Returns:
        The Source as it was written, with the paths where the images are now. Positions
        are those of splits.csv, so that training finds the same order.

    Raises:
        UserError: no such folder (exit status 2); images that are missing or have changed, all
            at once; files of the run that can't be read or make no sense.
    """
    class_names = tuple(read_text(classes_txt).split("\n")[:-1])
    rows = read_rows(splits_csv, len(class_names))
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder. It held the images of {splits_csv.parent}. "
            "If they were moved, pass --data FOLDER.",
            exit_code=2,
        )
    paths = [row[0] for row in rows]
    digests = [row[3] for row in rows]
    return Source(
        root=root,
        class_names=class_names,
        paths=tuple(find_files(root, paths, digests, progress)),
        labels=np.array([int(row[1]) for row in rows], np.int32),
        splits=np.array([row[2] for row in rows], SPLIT_TYPE),
        digests=tuple(digests),
        groups=tuple(row[4] for row in rows),
    )
