"""What a folder of photos means: which of its folders are classes, and which are splits.

A folder may hold a folder per class, `photos/daisy/1.jpg`; or folders of splits with a folder per
class in each, `photos/Training/daisy/1.jpg`, under any usual names. One more folder around either
of them is entered. Folders inside a class folder belong to that class.

The walk: `read_tree` lists the folder once, `_begin` enters lone folders, and one of `LAYOUTS`
makes class folders of the rest. `_choose` picks the layout by names and contents; if two are
possible it picks none, and the error names both. What was guessed or left out is logged.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from kerasft.config.fields import Data
from kerasft.config.photo_names import (
    UNLABELLED,
    are_masks,
    are_parts,
    guess_labels,
    label_in,
    same_form,
    says_labels,
    split_of,
    splits_of,
)
from kerasft.config.source_names import KINDS, TFDS, ending_of
from kerasft.errors import UserError
from kerasft.progress import Progress
from kerasft.sources.folders import entries, is_image_name
from kerasft.sources.photos import SPLITS, Listing, Photo, PhotoFolder
from kerasft.sources.tables import NAMES, labels_of_table, opener_of
from kerasft.text import agreeing, count, is_writable, listing, printable

log = logging.getLogger(__name__)

MOST = 5
"""Largest number of folders that a sentence names."""

PLAIN = ("train", "validation", "val", "valid", "test")
"""Names of split folders that leave no doubt."""

TABLES = (*KINDS["csv"].endings, *KINDS["parquet"].endings)
"""Endings of files that are tables."""

LISTS = (*KINDS["list"].endings, ".json", ".xlsx")
"""Endings of files that may hold labels if their names say so."""

Classes = dict[str, dict[str, list[str]]]
"""Split -> name of a class -> posix paths of its files; the only split is "" if there are none."""


@dataclass
class Folder:
    """A folder as it is listed, with all that is below it.

    Attributes:
        path: posix path relative to the source; "" for the source itself.
        folders: folders in it by name, sorted.
        files: names of its files, sorted.
    """

    path: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @cached_property
    def images(self) -> list[str]:
        """Names of the image files directly in it."""
        return [name for name in self.files if is_image_name(name)]

    @property
    def tables(self) -> list[str]:
        """Names of the CSV and Parquet files directly in it."""
        return [name for name in self.files if ending_of(name) in TABLES]

    @property
    def start(self) -> str:
        """Beginning of the paths of what lies in it: "" for the source itself."""
        return f"{self.path}/" if self.path else ""

    @cached_property
    def number(self) -> int:
        """Number of image files in it and below it."""
        return len(self.images) + sum(folder.number for folder in self.folders.values())

    @property
    def filled(self) -> list["Folder"]:
        """Folders directly in it that hold images, themselves or further below."""
        return [folder for folder in self.folders.values() if folder.number]

    def below(self) -> list[str]:
        """Returns the paths of all files in it and below it, sorted by folder."""
        inner: dict[str, list[str]] = {name: one.below() for name, one in self.folders.items()}
        own = {name: [self.start + name] for name in self.files}
        return [path for _, paths in sorted((inner | own).items()) for path in paths]


def find_folder(data: Data, progress: Progress) -> PhotoFolder:
    """Opens a folder of photos; `read` raises as `find_classes` does."""
    return place_of_folder(data.source, Path(data.source), data)


def place_of_folder(
    name: str, root: Path, data: Data | None = None, held: object = None
) -> PhotoFolder:
    """Opens a folder of photos, such as an unpacked archive, under the source's own name.

    Args:
        name: name for messages, as the user wrote it.
        root: folder of photos.
        data: section `data` of the config, which may say the layout; None says nothing.
        held: lock on the folder, see `PhotoFolder`.
    """

    def read() -> Listing:
        layout, regex = (data.layout, data.label_from) if data else ("auto", None)
        folders = find_classes(root, layout, regex)
        photos = [
            Photo(path, class_name, split)
            for split, classes in folders.items()
            for class_name, paths in classes.items()
            for path in paths
        ]
        return Listing(photos, {split: tuple(sorted(names)) for split, names in folders.items()})

    return PhotoFolder(name, root, read, held)


def find_classes(root: Path, layout: str = "auto", label_from: str | None = None) -> Classes:
    """Lists the files of every class.

    Args:
        root: folder of photos.
        layout: value of `data.layout`: "auto", or a key of `LAYOUTS`.
        label_from: value of `data.label_from`: regular expression for the label in a path; None
            takes labels from names only if there are photos and no folders of them.

    Returns:
        Files by split and class. Classes without files are included.

    Raises:
        UserError: no such folder (exit code 2); no folders in it; images outside class folders;
            folders that may be classes or splits; folders of splits without one for training, or
            with two for the same split.
    """
    tree = read_tree(root)
    top = _begin(root, tree)
    if layout == "auto":
        _drop_empty_splits(root, top)
    found = Found(root, top, tree)
    if label_from is not None:
        return _read_names(found, label_from, layout)
    if regex := _guess(found, layout):
        return _read_names(found, regex, layout)
    _class_folders(found.here, found.top)  # refuses photos beside the folders
    if layout in LAYOUTS:
        return LAYOUTS[layout](found)
    classes = LAYOUTS[_choose(found)](found)
    _refuse_table(found, classes)
    return classes


def read_tree(root: Path) -> Folder:
    """Lists a folder with all that is below it, following links but no circle of them.

    Raises:
        UserError: no such folder, or a file (exit code 2); a folder that cannot be listed.
    """
    expected = "Expected a folder that holds a folder of images per class"
    if not os.path.exists(root):
        hint = f" TFDS datasets are named {TFDS}NAME." if re.match(r"\w+:\w", root.name) else ""
        raise UserError(f"{root}: no such folder. {expected}.{hint}", exit_code=2)
    if not os.path.isdir(root):
        raise UserError(
            f"{root}: is a file. {expected}, or a table (.csv, .tsv, .parquet) or an archive "
            "(.zip, .tar, .tar.gz) of photos.",
            exit_code=2,
        )
    return _read(root, "", ())


def _read(folder: Path, path: str, above: tuple[tuple[int, int], ...]) -> Folder:
    here, tree = folder.stat(), Folder(path)
    if (here.st_dev, here.st_ino) in above:  # a link to one of the folders that it lies in
        return tree
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries(folder):
        if entry.is_dir():
            inner = f"{path}/{entry.name}" if path else entry.name
            tree.folders[entry.name] = _read(folder / entry.name, inner, above)
        else:
            tree.files.append(entry.name)
    return tree


def _begin(root: Path, tree: Folder) -> Folder:
    """Enters folders that hold one folder with photos only, up to that of the classes or splits."""
    while not tree.images and len(tree.filled) == 1:
        inner = tree.filled[0]
        if split_of(inner.name) not in ("", UNLABELLED) or inner.images or not inner.filled:
            break
        log.info("%s: its photos lie in %s, which is entered.", root, printable(inner.path))
        tree = inner
    return tree


def _drop_empty_splits(root: Path, top: Folder) -> None:
    """Leaves out folders named like splits that hold no images, beside folders of other names."""
    splits = splits_of(top.folders)
    if all(splits[one.name] for one in top.filled):
        return
    empty = [one for one in top.folders.values() if not one.number and splits[one.name] in SPLITS]
    for one in empty:
        del top.folders[one.name]
    if empty:
        log.warning("%s: left out, without images: %s", root, _named(empty))


class Found:
    """A folder of photos, with the split that the name of each of its folders says.

    Attributes:
        root: the source.
        top: folder of the class folders or split folders.
        around: folders that were entered to come to `top`, from the source on.
        splits: folders by the split that their names say; UNLABELLED is one of the keys.
        others: folders whose names say no split.
    """

    def __init__(self, root: Path, top: Folder, tree: Folder) -> None:
        self.root, self.top = root, top
        self.around: list[Folder] = []
        while tree is not top:
            self.around.append(tree)
            tree = tree.filled[0]
        self.splits: dict[str, list[Folder]] = {}
        self.others: list[Folder] = []
        for name, split in splits_of(top.folders).items():
            (self.splits.setdefault(split, []) if split else self.others).append(top.folders[name])
        if not any(split in SPLITS for split in self.splits):  # "unknown" may be a class
            self.others, self.splits = list(top.folders.values()), {}

    @property
    def here(self) -> Path:
        """Path of the folder of the class folders or split folders."""
        return self.root / self.top.path

    def labelled(self, split: str) -> list[Folder]:
        """Returns the folders of a split that hold folders; photos alone have no labels."""
        folders = self.splits.get(split, [])
        folders = [one for one in folders if one.number] or folders  # train beside train_labels
        return [one for one in folders if one.folders or not one.images]


def _guess(found: Found, layout: str) -> str | None:
    """Guesses where labels are in the names of photos that lie in no class folders.

    Returns:
        Regular expression; None if the photos lie in folders of classes, or nothing is found.

    Raises:
        UserError: there are several guesses, or a table that may hold the labels.
    """
    top, training = found.top, [one for one in found.splits.get("train", []) if one.number]
    flat = top.images and not top.filled
    flat_splits = (
        layout != "classes"
        and len(training) == 1
        and training[0].images
        and not any(folder.filled for folder in [training[0], *found.others])
        and not any(folder.number for folder in found.others)
        and not top.images
    )
    if not flat and not flat_splits:
        return None
    folder = top if flat else training[0]
    paths = [folder.start + name for name in folder.images]
    guesses = guess_labels(paths)
    if tables := _tables_around(found):
        several = "a table" if len(tables) == 1 else f"{len(tables)} tables"
        named = "" if len(tables) == 1 else f": {', '.join(tables[:MOST])}"
        likely = str(found.root / tables[0]) if len(tables) == 1 else _table_in(found)
        what = f"Pass {likely} if it holds" if likely else "Pass the one that holds"
        other = ""
        if guesses:
            other = f" If the labels are in the file names, `data.label_from={guesses[0]}`."
        raise UserError(
            f"{found.here}: holds photos without folders of classes, and {several}{named}. {what} "
            f"the labels.{other}"
        )
    if len(guesses) > 1:
        readings = [
            f"{', '.join(sorted({label_in(path, regex) for path in paths})[:MOST])}"
            f": pass `data.label_from={regex}`."
            for regex in guesses
        ]
        raise UserError(
            f"{found.here}: its photos lie in no class folders, and their names can be read in "
            f"several ways:{listing(readings, MOST)}"
        )
    if not guesses:
        return None
    log.info("%s: labels are taken from the names of files, by %s", found.here, guesses[0])
    return guesses[0]


def _read_names(found: Found, regex: str, layout: str) -> Classes:
    """Takes labels from the paths of photos, and splits from the names of folders.

    Raises:
        UserError: paths without label, outside of a test split of which none has one.
    """
    parts = _parts(found, regex, layout)
    classes: Classes = {}
    without: list[str] = []
    for split, paths in parts.items():
        labels = {path: same_form(label_in(path, regex)) for path in paths}
        if split not in ("", "train") and not any(labels.values()):
            found.splits.setdefault(UNLABELLED, []).extend(found.splits.pop(split))
            continue
        without += [printable(path) for path, label in labels.items() if not label]
        for path, label in labels.items():
            classes.setdefault(split, {}).setdefault(label, []).append(path)
    if without:
        raise UserError(
            f"{found.root}: {len(without):,} of {sum(map(len, parts.values())):,} paths "
            f"{agreeing(len(without), 'do')} not match {regex}, by which labels are taken from "
            f"them:{listing(without, 10)}",
        )
    if not classes:
        raise UserError(f"{found.root}: holds no photos. Expected photos with labels in names.")
    unwritable = {label for names in classes.values() for label in names if not is_writable(label)}
    if unwritable:
        paths = [
            paths[0]
            for names in classes.values()
            for label, paths in names.items()
            if label in unwritable
        ]
        raise UserError(
            f"{found.root}: {count(unwritable, 'label', 'hold')} control characters or "
            f"{agreeing(len(unwritable), 'are')} not UTF-8, out of the paths:"
            f"{listing([printable(path) for path in paths], 10)}"
        )
    if "" not in classes:
        _tell_left_out(found, (UNLABELLED,))
    return classes


def _parts(found: Found, regex: str, layout: str) -> dict[str, list[str]]:
    """Returns the photos by split, as names of folders say it; the only split is "" for none.

    Without a folder for training, the photos outside of the validation and test folders are for
    training.

    Raises:
        UserError: a folder for validation or test, and it is unsure what is for training.
    """
    if layout == "classes":
        return {"": _photos_below(found.top)}
    parts = {
        split: [path for folder in folders for path in _photos_below(folder)]
        for split, folders in found.splits.items()
        if split in SPLITS
    }
    parts = {split: paths for split, paths in parts.items() if paths}
    top = found.top
    if "train" in parts:
        if top.images:
            log.warning(
                "%s: left out %s beside the splits.", found.here, count(top.images, "image")
            )
        return parts
    if not parts:
        return {"": _photos_below(top)}
    held_out = [one for split in parts for one in found.splits[split] if one.number]
    if layout == "auto" and all(
        label_in(path, regex) == one.name for one in held_out for path in _photos_below(one)
    ):
        return {"": _photos_below(top)}  # the expression says that the folders are classes
    inner = {path for one in top.folders.values() for path in _photos_below(one)}
    train = [path for path in _photos_below(top) if path not in inner]
    train += [path for one in found.others for path in _photos_below(one)]
    labels = {label_in(path, regex) for path in train} - {""}
    others = {label_in(path, regex) for paths in parts.values() for path in paths} - {""}
    if not train or (layout == "auto" and others and not labels & others):
        first = "Splits: put the photos for training into a folder train."
        if train:
            first = f"Splits, the photos outside of {_named(held_out)} for training: pass "
            first += "`data.layout=splits`."
        raise UserError(
            f"{found.here}: holds {_named(held_out)} but no folder train. There are two readings:\n"
            f"  {first}\n"
            "  No splits, all photos together: pass `data.layout=classes`."
        )
    log.info(
        "%s: %s outside of %s %s for training, as there is no folder train.",
        found.here,
        count(train, "photo"),
        _named(held_out),
        agreeing(len(train), "are"),
    )
    found.others = []  # not left out
    return {"train": train, **parts}


def _photos_below(folder: Folder) -> list[str]:
    return [path for path in folder.below() if is_image_name(path)]


def _choose(found: Found) -> str:
    """Chooses a layout by the names and contents of the folders; raises if two are possible."""
    named = [folder for split in SPLITS for folder in found.splits.get(split, [])]
    others = [folder for folder in found.others if folder.number]
    if not named:
        _refuse_parts(found)
        _refuse_inner_splits(found)
        _warn_of_inner(found, found.top)
        return "classes"
    if not others:
        if any(folder.filled for folder in found.splits.get("train", [])):
            return "splits"
        if "train" not in found.splits or not any(folder.number for folder in named):
            return "splits"  # which is refused there, with the reason
        _refuse_unsure(found)
    flat = not any(folder.filled for folder in [*named, *others])
    plain = [folder.name.lower() for folder in named]
    if flat and plain in (["train"], ["valid"]) and UNLABELLED not in found.splits:
        log.info(
            "%s: %s is a class, since it holds photos as its neighbours do, and no folders.",
            found.root,
            named[0].name,
        )
        return "classes"
    _refuse_unsure(found)


def _refuse_parts(found: Found) -> None:
    names = [folder.name for folder in found.top.filled]
    masks = [folder for folder in found.top.filled if are_masks(folder.name)]
    photos = [folder for folder in found.top.filled if folder not in masks]
    if masks and photos and are_parts([folder.name for folder in photos]):
        raise UserError(
            f"{found.here}: {_named(masks)} may hold masks or annotations of the photos in "
            f"{_named(photos)}, by their names. There are two readings:\n"
            f"  Photos and their masks: pass {found.root / photos[0].path}.\n"
            f"  {len(names)} classes: pass `data.layout=classes`."
        )
    if len(names) > 1 and are_parts(names):
        raise UserError(
            f"{found.here}: {_named(found.top.filled)} look like parts of one set, by their names. "
            "There are two readings:\n"
            f"  Parts of one set, whose labels a table says: pass "
            f"{_table_in(found) or 'the table'}.\n"
            f"  {len(names)} classes: pass `data.layout=classes`.",
        )


def _refuse_inner_splits(found: Found) -> None:
    """Stops if each folder holds splits and nothing else: cat/train, cat/test, dog/train, ..."""
    outer = found.top.filled
    names = sorted({inner.name for one in outer for inner in one.filled})
    splits = splits_of(names)
    if (
        len(outer) < 2
        or any(one.images or not one.filled for one in outer)
        or not {"train"} < {split for split in splits.values() if split}
        or "" in splits.values()
    ):
        return
    first, split = printable(outer[0].name), printable(outer[0].filled[0].name)
    raise UserError(
        f"{found.here}: {_named(outer)} each hold folders of splits: "
        f"{', '.join(map(printable, names[:MOST]))}. There are two readings:\n"
        f"  Splits inside of classes, which kerasft does not read: move the photos of "
        f"{first}/{split} to {split}/{first}, and so on.\n"
        f"  {len(outer)} classes, with the splits of each put together: pass `data.layout=classes`."
    )


def _warn_of_inner(found: Found, folder: Folder) -> None:
    """Warns if each class folder holds the same folders, which may be the classes instead."""
    outer = folder.filled
    inner = {tuple(one.name for one in part.filled) for part in outer}
    if len(outer) > 1 and len(inner) == 1 and len(inner.pop()) > 1:
        log.warning(
            "%s: the classes are %s; the folders in each of them, %s, are not told apart.",
            found.root,
            _named(outer),
            _named(outer[0].filled),
        )


def _tables_around(found: Found) -> list[str]:
    """Returns the paths of files that may hold labels, relative to the source.

    They lie beside the photos, one folder below, or in a folder around them. Lists and JSON files
    count if their names say labels.
    """
    folders = [found.top, *found.top.folders.values(), *found.around]
    return [
        folder.start + name
        for folder in folders
        for name in folder.files
        if ending_of(name) in TABLES
        or (Path(name).suffix.lower() in LISTS and says_labels(Path(name).stem))
    ]


def _table_in(found: Found) -> str:
    """Returns the path of the table beside the photos; "" if there is none, or which is unsure.

    Of several, it is the one whose name says that it is for training.
    """
    tables = found.top.tables
    if len(tables) > 1:
        tables = [name for name in tables if split_of(name.partition(".")[0]) == "train"]
    return str(found.here / tables[0]) if len(tables) == 1 else ""


def _refuse_table(found: Found, classes: Classes) -> None:
    """Stops if a table beside class folders gives their photos other labels than the folders.

    Args:
        found: the folder of photos.
        classes: classes as the folders say them.
    """
    folders, start = classes.get("", {}), found.top.start
    for name in found.top.tables:
        table = found.here / name
        label_of = labels_of_table(table)
        if len(found.top.filled) > 1 and not _says_labels(table, set(label_of.values())):
            label_of = {}
        pairs = {
            (folder, label_of[path.removeprefix(start)])
            for folder, paths in folders.items()
            for path in paths
            if path.removeprefix(start) in label_of
        }
        equal = all(folder == label for folder, label in pairs)
        alike = len({one for one, _ in pairs}) == len({label for _, label in pairs}) == len(pairs)
        if not equal and not (alike and len(pairs) > 1):
            labels = sorted({label for _, label in pairs})
            shown = ", ".join(labels[:MOST]) + (", ..." if len(labels) > MOST else "")
            raise UserError(
                f"{found.here}: its folders and the table beside them say different classes. "
                "There are two readings:\n"
                f"  {shown}, as the table says: pass {table}.\n"
                f"  {_named(found.top.filled)}, as the folders say: pass `data.layout=classes`."
            )
    for name in found.top.tables:
        log.info("%s: %s is not read, the folders are the classes.", found.root, printable(name))


def _says_labels(table: Path, labels: set[str]) -> bool:
    """Returns whether a table seems to hold labels, by its name or those of its columns.

    A table without a header does too, if its first row names a photo.

    Args:
        table: path of a CSV or Parquet file.
        labels: values that were read as labels, which are the names of columns if each label has
            a column.
    """
    try:
        with opener_of(table)(table) as opened:
            header = {name.strip() for name in opened.header}
    except UserError:
        return False
    names = {name.lower().replace(" ", "_") for name in header}
    usual = names & {"label", "species", *NAMES["label"]}
    per_label = len(labels) > 1 and labels <= header
    return bool(usual) or per_label or any(map(is_image_name, names)) or says_labels(table.stem)


def _refuse_unsure(found: Found) -> NoReturn:
    """Stops, with both readings of the folders."""
    rows = [
        f"{split}: {_named(folders)}{_contents(folders)}"
        for split in (*SPLITS, UNLABELLED)
        if (folders := found.splits.get(split))
    ]
    beside = f", {_named(found.others)} left out" if found.others else ""
    everything = list(found.top.folders.values())
    can_train = any(folder.filled for folder in found.splits.get("train", []))
    first = f"Splits{beside}: pass `data.layout=splits`."
    if not can_train:
        first = "Splits: put the photos for training into a folder train, a folder per class."
    raise UserError(
        f"{found.here}: {_named(everything)} may be splits or classes:{listing(rows, 4)}\n"
        "  There are two readings:\n"
        f"  {first}\n"
        f"  {len(everything)} classes: pass `data.layout=classes`.",
    )


def _named(folders: list[Folder]) -> str:
    """Lists the names of the first folders."""
    names = [printable(folder.name) for folder in folders[:MOST]]
    if len(folders) > MOST:
        return f"{', '.join(names)}, ..."
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def _contents(folders: list[Folder]) -> str:
    """Says what folders hold: " (with the folders cat and dog)", " (with 5 photos)"."""
    inner = [one for folder in folders for one in folder.filled]
    if inner:
        return f" (with the folder{'s' if len(inner) > 1 else ''} {_named(inner)})"
    number = sum(folder.number for folder in folders)
    return f" (with {count(number, 'photo')})"


def _read_classes(found: Found) -> Classes:
    """Takes each folder for a class."""
    return {"": _class_folders(found.here, found.top)}


def _read_splits(found: Found) -> Classes:
    """Takes the folders with names of splits for splits, and leaves out the others."""
    training = found.labelled("train")
    if not training:
        there = [one for split in SPLITS for one in found.splits.get(split, [])]
        raise UserError(
            f"{found.here}: holds {_named(there) or 'no folders of splits'} but no folder train. "
            f"Expected the training images in {found.here.name}/train, a folder per class.\n"
            "  If the folders are classes, pass `data.layout=classes`.",
        )
    classes: Classes = {}
    for split in SPLITS:
        folders = found.labelled(split)
        if len(folders) > 1:
            each = "both" if len(folders) == 2 else "all"
            raise UserError(
                f"{found.here}: holds {_named(folders)}, which {each} mean the {split} split. "
                "Keep one."
            )
        if not folders:
            continue
        folder = _enter(found, folders[0], split, classes.get("train", {}))
        inner = _class_folders(found.root / folder.path, folder)
        if split == "train":
            _warn_of_inner(found, folder)
        if split != "train" and _is_unlabelled(inner, classes["train"]):
            found.splits.setdefault(UNLABELLED, []).append(folder)
        else:
            classes[split] = inner
    _tell_splits(found, classes)
    return classes


def _enter(found: Found, folder: Folder, split: str, known: Mapping[str, object]) -> Folder:
    """Enters a folder of a split that holds one folder only, if that is not a class.

    Args:
        found: the folder of photos.
        folder: folder of the split.
        split: name of the split.
        known: names of the classes of the training split; {} for the training split itself.
    """
    while len(folder.filled) == 1 and not folder.images:
        inner = folder.filled[0]
        again = split_of(inner.name) in (split, UNLABELLED) or inner.name == folder.name
        inner_names = set(map(same_form, inner.folders))
        has_classes = bool(inner_names & set(known)) if known else len(inner.filled) > 1
        if (
            same_form(inner.name) in known
            or inner.images
            or not ((again and inner.filled) or has_classes)
        ):
            break
        log.info("%s: its photos lie in %s, which is entered.", found.root, printable(inner.path))
        folder = inner
    return folder


def _is_unlabelled(classes: Mapping[str, list[str]], known: Mapping[str, object]) -> bool:
    """Returns whether the only folder of a split is no class, but one such as test/unknown."""
    if len(classes) != 1 or set(classes) & set(known):
        return False
    (name,) = classes
    return split_of(name) in (UNLABELLED, "test") or are_parts([name])


def _tell_splits(found: Found, classes: Classes) -> None:
    """Logs which folder is which split, where names leave a doubt, and what is left out."""
    taken = {split: found.labelled(split)[0].name for split in classes}
    if any(name.lower() not in PLAIN for name in taken.values()):
        said = ", ".join(f"{split} = {printable(name)}" for split, name in taken.items())
        log.info("%s: folders of splits: %s", found.root, said)
    _tell_left_out(found, ("validation", "test", UNLABELLED))


def _tell_left_out(found: Found, splits: tuple[str, ...]) -> None:
    """Logs the photos of splits that nobody has labelled, and the folders beside the splits."""
    for split in splits:
        flat = [
            folder
            for folder in found.splits.get(split, [])
            if folder.number and (split == UNLABELLED or folder not in found.labelled(split))
        ]
        for folder in flat:
            log.log(
                logging.WARNING if split == "validation" else logging.INFO,
                "%s: left out %s without classes in %s; `predict` is for them.",
                found.root,
                count(folder.number, "photo"),
                printable(folder.path),
            )
    others = [folder for folder in found.others if folder.number]
    if others:
        log.warning("%s: left out, beside the splits: %s", found.root, _named(others))


def _class_folders(path: Path, folder: Folder) -> dict[str, list[str]]:
    """Returns the files of each folder in a folder; refuses images beside them."""
    if folder.images:
        raise UserError(
            f"{path}: holds {count(folder.images, 'image')} outside of class folders, such as "
            f"{printable(folder.images[0])}. Expected a folder of images per class.\n"
            "  Move them into folders named after their classes, or away; or take the labels from "
            "their paths, with `data.label_from=REGEX`, whose first group is the label."
        )
    if not folder.folders:
        raise UserError(
            f"{path}: is empty. Expected a folder of images per class, such as "
            f"{path.name}/daisy/1.jpg."
        )
    unwritable = [name for name in folder.folders if not is_writable(name)]
    if unwritable:
        raise UserError(
            f"{path}: the names of {count(unwritable, 'folder')} hold control characters or are "
            "not UTF-8. Rename: "
            f"{', '.join(printable(name) for name in unwritable)}."
        )
    classes: dict[str, list[str]] = {}
    for name, inner in folder.folders.items():  # names that look the same are one class
        classes.setdefault(same_form(name), []).extend(inner.below())
    return classes


# The layouts that `data.layout` names, and the function that reads each.
LAYOUTS: dict[str, Callable[[Found], Classes]] = {
    "classes": _read_classes,
    "splits": _read_splits,
}
