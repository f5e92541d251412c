"""Tables of photos: CSV or Parquet files, and lists, with a row per photo.

Columns are known by what they hold. `_profile` reads the table once and counts the values of each
column; `_choose` gives the columns their roles (`ROLES`); `_Rows` makes photos of the rows. Files
are found by path, or else by name, with or without ending, in any folder below that of the table.
Paths may not lead out of it, because everything else expects photos below one folder. What was
chosen is logged, and where two columns may have a role, none gets it.
"""

import logging
import math
import os
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePath

from kerasft.answers import is_review
from kerasft.config.fields import Data
from kerasft.config.photo_names import UNLABELLED, WORDS, label_in, same_form, split_of
from kerasft.config.source_names import KINDS, ending_of
from kerasft.errors import UserError, did_you_mean
from kerasft.progress import Progress
from kerasft.rows import Opener, open_csv, open_list, open_parquet
from kerasft.sources.folders import is_image_name, walk
from kerasft.sources.photos import SPLITS, Listing, Photo, PhotoFolder
from kerasft.text import count, is_writable, listing, printable, shortened

log = logging.getLogger(__name__)

NAMES = {
    "path": (
        *("file", "filename", "file_name", "filepath", "filepaths", "file_path", "path_to_image"),
        *("image", "image_path", "image_id", "image_name", "img", "id", "id_code", "name"),
    ),
    "label": (
        *("class", "class_name", "classname", "category", "labels", "label_name", "category_name"),
        *("target", "diagnosis", "dx"),
    ),
    "split": ("subset",),
    "group": ("group_id",),
}
"""Role -> names, besides its own, that say it where the contents do not contradict."""

SAMPLE = 1000
"""Number of values of a column that are looked for among the files."""

MANY = 5000
"""Number of different values after which those of a column are not counted any more."""

TRUTHS = {"1": True, "1.0": True, "true": True, "yes": True, "t": True, "y": True} | {
    "0": False, "0.0": False, "false": False, "no": False, "f": False, "n": False
}  # fmt: skip
"""Values of a column that says yes or no, in lower case."""

INDEX = re.compile(r"|index|unnamed:_\d+")
"""Names of the column of row numbers that pandas writes."""

OF_ONE = re.compile("patient|subject|person|lesion|animal|individual|participant|series")
"""Words in the names of columns that may say which photos belong together."""

EXPECTED = "Expected a header with path,label and optionally split and group"
NOT_OURS = "which kerasft does not support: its classifiers give each photo one label"


def find_csv(data: Data, progress: Progress) -> PhotoFolder:
    """Opens the photos that a CSV file lists. `read` raises what `read_table` does."""
    return _place(data, open_csv)


def find_parquet(data: Data, progress: Progress) -> PhotoFolder:
    """Opens the photos that a Parquet file lists. `read` raises what `read_table` does."""
    return _place(data, open_parquet)


def find_list(data: Data, progress: Progress) -> PhotoFolder:
    """Opens the photos of a list of `path label`. `read` raises what `read_table` does."""
    return _place(data, partial(open_list, is_photo=is_image_name))


def _place(data: Data, opener: Opener) -> PhotoFolder:
    table = Path(data.source)
    return PhotoFolder(str(table), table.parent, lambda: read_table(table, opener, data))


def read_table(table: Path, opener: Opener, data: Data, *, quiet: bool = False) -> Listing:
    """Reads a table of photos, without opening the photos.

    Args:
        table: path of the file.
        opener: function that opens it, such as `rows.open_csv`.
        data: section `data` of the config. `columns` says the roles of columns, `label_from` how
            labels are read out of paths; with `bad_images = "skip"`, rows of missing files stay
            in the listing, to be skipped when the photos are read.
        quiet: whether nothing is logged, because the table is only looked into.

    Raises:
        UserError: no such file, or no such column as `data.columns` names (exit code 2); columns
            that are missing, or of which several may have a role; a table for another task
            (multi-label, regression); invalid rows and missing files, all at once.
    """
    if not os.path.isfile(table):
        raise UserError(
            f"{table}: no such file. Expected a table of photos with path,label.", exit_code=2
        )
    files = _Files(table)
    profile = _profile(table, opener, files)
    roles = _choose(profile, data)
    if not quiet:
        _tell(profile, roles)
    read = _Rows(profile, roles, data.label_from)
    with opener(table) as opened:
        opened = opened if profile.headed else opened.without_header()
        for number, values in opened.rows(roles.positions):
            read.add(number, dict(zip(roles.positions, values, strict=False)))
    _refuse_other_tasks(table, Counter(photo.class_name for photo in read.photos))
    read.refuse_unlabelled(quiet=quiet)
    missing = [] if data.bad_images == "skip" else read.missing()
    problems = [f"{read.unit} {number}: {text}" for number, text in sorted(read.problems)]
    problems += [*read.without_split(), *missing]
    if problems:
        raise UserError(
            f"{table}: {len(problems):,} of its rows can't be used:{listing(problems, 20)}"
            + read.hint(len(missing))
        )
    if not read.photos:
        raise UserError(f"{table}: lists no photos. Expected a row for each.")
    return Listing.of(read.photos)


def opener_of(table: Path) -> Opener:
    """Returns the function that opens a CSV or Parquet file, by the ending of its name."""
    return open_parquet if ending_of(table.name) in KINDS["parquet"].endings else open_csv


def labels_of_table(table: Path) -> dict[str, str]:
    """Returns the label of each file that a table lists, by its path relative to the table.

    Args:
        table: path of a CSV or Parquet file. If it is no table of photos, nothing is returned.
    """
    data = Data(source=str(table), bad_images="skip")
    try:
        listed = read_table(table, opener_of(table), data, quiet=True)
    except UserError:
        return {}
    return {photo.path: photo.class_name for photo in listed.photos}


class _Files:
    """The files below the folder of a table, which the values of a column may name."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.root = os.path.abspath(table.parent)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Image files by their name, and by their name without ending; see `_key`."""
        found: dict[str, list[str]] = {}
        for path in walk(Path(self.root)):
            if is_image_name(path):
                name = posixpath.basename(path)
                for key in {_key(name), _key(posixpath.splitext(name)[0])}:
                    found.setdefault(key, []).append(path)
        return found

    def is_path(self, text: str) -> bool:
        """Returns whether a value is the path of a file."""
        path, problem = _below(text, self.root)
        return not problem and os.path.isfile(os.path.join(self.root, path))

    def named(self, text: str) -> list[str]:
        """Returns the paths of the files that a value may mean by their name, the likeliest ones.

        Of files in several folders, those count whose folders agree with the value, or else those
        in a folder for the split that the name of the table says, such as train.csv.
        """
        text = text.replace("\\", "/").split("?")[0] if "://" in text else text.replace("\\", "/")
        name = posixpath.basename(text.rstrip("/"))
        if not name:
            return []
        stem = posixpath.splitext(name)[0] if is_image_name(name) else name
        found = self._by_name.get(_key(name)) or self._by_name.get(_key(stem)) or []
        if len(found) > 1:
            agreeing = {path: _agreeing(path, text) for path in found}
            found = [path for path in found if agreeing[path] == max(agreeing.values())]
        split = split_of(self.table.stem)
        if len(found) > 1 and split:
            of_split = [p for p in found if any(split_of(f) == split for f in p.split("/")[:-1])]
            found = of_split or found
        return found


def _key(name: str) -> str:
    return same_form(name).casefold()


def _agreeing(path: str, text: str) -> int:
    """Counts the folders, from the last one, that two paths have in common."""
    number = 0
    for a, b in zip(path.split("/")[-2::-1], text.split("/")[-2::-1], strict=False):
        if a != b:
            break
        number += 1
    return number


@dataclass
class _Column:
    """What a column holds.

    Attributes:
        position: position in the table.
        name: name in the header.
        kind: type of its values, see `rows.Table`.
        values: different values -> number of rows; empty after `MANY`.
        many: whether there are more than `MANY` different values.
        rows: number of rows with a value.
        sample: first `SAMPLE` values.
        paths: share of the sample that are paths of files, each counted once.
        names: share of the sample that are paths or names of files, each counted once.
    """

    position: int
    name: str
    kind: str
    values: dict[str, int] = field(default_factory=dict)
    many: bool = False
    rows: int = 0
    sample: list[str] = field(default_factory=list)
    paths: float = 0.0
    names: float = 0.0

    @property
    def key(self) -> str:
        """The name as it is compared."""
        return re.sub(r"[ -]", "_", self.name.strip().lower())

    def add(self, value: str) -> None:
        """Counts a value."""
        if not value:
            return
        self.rows += 1
        if len(self.sample) < SAMPLE:
            self.sample.append(value)
        if not self.many:
            self.values[value] = self.values.get(value, 0) + 1
            if len(self.values) > MANY:
                self.many, self.values = True, {}

    @property
    def is_binary(self) -> bool:
        """Whether the values say yes or no."""
        return bool(self.values) and all(value.lower() in TRUTHS for value in self.values)

    @property
    def splits(self) -> set[str]:
        """The splits that the values say; empty if one says none."""
        said = {split_of(value) for value in self.values}
        return set() if "" in said else said

    @property
    def may_be_label(self) -> bool:
        """Whether the values may be classes: several of them, which repeat, and no fractions."""
        different = len(self.values)
        repeat = different < self.rows if self.rows < 10 else 2 * different <= self.rows
        return different >= 2 and repeat and not _are_fractions(self.values)


@dataclass
class _Profile:
    """A table that was read once.

    Attributes:
        table: path of the file.
        files: files that it may name.
        unit: word for a row, see `rows.Table`.
        columns: its columns.
        headed: whether its first line is a header.
        opener: function that opens the file.
    """

    table: Path
    files: _Files
    unit: str
    columns: list[_Column]
    headed: bool
    opener: Opener

    def rows(self, columns: Iterable[_Column]) -> Iterator[list[str]]:
        """Yields the values of columns, row by row, as text."""
        positions = [column.position for column in columns]
        with self.opener(self.table) as opened:
            opened = opened if self.headed else opened.without_header()
            for _, values in opened.rows(positions):
                if values:
                    yield [_text(value) for value in values]

    def refuse(self, text: str) -> UserError:
        """Returns an error that begins with the name of the table."""
        return UserError(f"{self.table}: {text}")


def _profile(table: Path, opener: Opener, files: _Files) -> _Profile:
    """Reads a table once and counts what its columns hold."""
    with opener(table) as opened:
        cells = [str(cell).strip() for cell in opened.header]
        headed = opened.unit != "line" or not any(is_image_name(cell) for cell in cells)
        opened = opened if headed else opened.without_header()
        columns = [
            _Column(position, str(name).strip(), kind)
            for position, (name, kind) in enumerate(zip(opened.header, opened.kinds, strict=True))
        ]
        plain = [column for column in columns if column.kind in ("text", "number")]
        for _, values in opened.rows([column.position for column in plain]):
            for column, value in zip(plain, values, strict=False):
                column.add(_text(value))
    for column in plain:
        total = len(column.sample) or 1
        found = {value for value in column.sample if files.is_path(value)}
        column.paths = len(found) / total
        column.names = column.paths
        if column.paths < 0.5 and (column.many or 2 * len(column.values) > column.rows):
            found |= {value for value in set(column.sample) - found if files.named(value)}
            column.names = len(found) / total
    return _Profile(table, files, opened.unit, columns, headed, opener)


@dataclass
class _Roles:
    """The columns that were chosen.

    Attributes:
        path: column that names the files.
        by_name: whether files are found by their name, and not by their path.
        label: column of labels, or several of which one is 1 in each row; () if labels come from
            the paths.
        split: column of splits, or yes-or-no columns such as is_valid; () for none.
        flags: split that a yes of each yes-or-no column says; () if the values name the splits.
        group: column of groups, or None.
    """

    path: _Column
    by_name: bool = False
    label: tuple[_Column, ...] = ()
    split: tuple[_Column, ...] = ()
    flags: tuple[str, ...] = ()
    group: _Column | None = None

    @property
    def rest(self) -> str:
        """The split of rows without a yes in any of the yes-or-no columns, "" if there is none."""
        if "train" not in self.flags:
            return "train"
        return next((split for split in ("test", "validation") if split not in self.flags), "")

    @property
    def positions(self) -> list[int]:
        """Positions of the columns that are read."""
        used = [self.path, *self.label, *self.split, *([self.group] if self.group else [])]
        return sorted({column.position for column in used})


def _choose(profile: _Profile, data: Data) -> _Roles:
    """Gives columns their roles: those that `data.columns` names, then the others."""
    said = _said(profile, data.columns)
    ignored = said.pop("ignore", [])
    free = [column for column in profile.columns if column not in ignored]
    taken = [column for columns in said.values() for column in columns]
    free = [column for column in free if column not in taken]
    path = said["path"][0] if "path" in said else _path_column(profile, free)
    free = [column for column in free if column is not path]
    by_name = path.paths < 0.5 <= path.names or ("path" in said and path.names > path.paths)
    roles = _Roles(path, by_name=by_name)
    _refuse_kind(profile, path, "path")
    if "group" in said:
        roles.group = said["group"][0]
    else:
        roles.group = _named(profile, free, "group")
    free = [column for column in free if column is not roles.group]
    if "label" in said or data.label_from:
        roles.label = tuple(said.get("label", ()))
        free_of_label = free
    else:
        own = _named(profile, free, "split", "split" in said)
        roles.label = _label_columns(profile, [column for column in free if column is not own])
        free_of_label = [column for column in free if column not in roles.label]
    if "split" in said:
        roles.split = tuple(said["split"])
        roles.flags = _flags_of(profile, roles.split)
    else:
        roles.split, roles.flags = _split_columns(profile, free_of_label)
    for column in (*roles.label, *roles.split, *([roles.group] if roles.group else [])):
        _refuse_kind(profile, column, "label" if column in roles.label else "")
    _refuse_slips(profile, roles, ignored)
    return roles


def _said(profile: _Profile, columns: Sequence[str]) -> dict[str, list[_Column]]:
    """Returns the columns that `data.columns` names, by role; one-hot labels are several."""
    by_name = {column.name.strip(): column for column in reversed(profile.columns)}
    said: dict[str, list[_Column]] = {}
    for text in columns:
        role, _, name = text.partition("=")
        names = [name] if name in by_name else [part.strip() for part in name.split(",")]
        for one in names:
            if one not in by_name:
                raise UserError(
                    f"{profile.table}: there is no column {printable(one)}."
                    f"{did_you_mean(one, by_name)} It has: {_header(profile.columns)}.",
                    field="data.columns",
                    exit_code=2,
                )
        said.setdefault(role, []).extend(by_name[one] for one in names)
    for role in ("path", "group"):
        if len(said.get(role, ())) > 1:
            raise UserError(
                f"{profile.table}: several columns are named as {role}. Expected one.",
                field="data.columns",
                exit_code=2,
            )
    return said


def _header(columns: Sequence[_Column]) -> str:
    return ", ".join(shortened(column.name) for column in columns[:20]) or "an empty file"


def _named(
    profile: _Profile, free: Sequence[_Column], role: str, known: bool = False
) -> _Column | None:
    """Returns the column that has the name of a role, or one of `NAMES`; None if none has."""
    if known:
        return None
    own = [column for column in free if column.key == role]
    others = [column for column in free if column.key in NAMES[role]]
    found = own or others
    if len(found) > 1:
        raise _several(profile, found, role)
    return found[0] if found else None


def _several(profile: _Profile, columns: Sequence[_Column], role: str) -> UserError:
    names = [printable(column.name) for column in columns]
    what = {"path": "name the photos", "label": "hold the labels", "split": "say the splits"}
    return profile.refuse(
        f"{', '.join(names[:-1])} and {names[-1]} may all {what.get(role, f'be the {role}')}. Say "
        "which one does:" + "".join(f"\n  `data.columns={role}={name}`" for name in names[:5])
    )


def _path_column(profile: _Profile, free: Sequence[_Column]) -> _Column:
    """Chooses the column that names the files: most of its values do, each another one."""
    others = {name for role in ("label", "split", "group") for name in (role, *NAMES[role])}
    free = [column for column in free if column.key not in others] or free
    free = [column for column in free if not INDEX.fullmatch(column.key)] or free
    joined = [column for column in free if column.names >= 0.5]
    own = [column for column in joined if column.key == "path"]
    named = [column for column in joined if column.key in NAMES["path"]]
    exact = [column for column in joined if column.paths >= 0.5]
    for chosen in (own, exact if len(exact) == 1 else [], named if len(named) == 1 else [], joined):
        if len(chosen) == 1 or (chosen and _same_files(profile, chosen)):
            return chosen[0]
    if joined:
        raise _several(profile, joined, "path")
    for column in free:
        urls = [value for value in column.sample if re.match(r"\w+://", value)]
        if urls and 2 * len(urls) > len(column.sample):
            raise profile.refuse(
                f"the column {printable(column.name)} holds web addresses, such as "
                f"{printable(urls[0])}. kerasft reads files: download the photos into the folder "
                "of the table, under the last part of their addresses or under the names in "
                "another column."
            )
    listed = [column for column in free if column.key in NAMES["path"]]
    listed.sort(key=lambda one: -one.names)
    for column in [one for one in free if one.key == "path"] + listed:
        return column  # its files are missing, which is told row by row
    near = did_you_mean("path", [column.name for column in free])
    of = [column for column in free if column.sample and column.kind == "text"]
    example = f" There is no file {shortened(of[0].sample[0])}." if of else ""
    got = _header(profile.columns) if profile.headed else "no header"
    raise profile.refuse(
        f"no column names files below {profile.files.root}.{near}{example} {EXPECTED}, got {got}."
    )


def _same_files(profile: _Profile, columns: Sequence[_Column]) -> bool:
    """Returns whether columns name the same file in each of the first rows."""
    for values in islice(profile.rows(columns), 100):
        named = {tuple(profile.files.named(value)) for value in values}
        if len(named) > 1:
            return False
    return True


def _label_columns(profile: _Profile, free: list[_Column]) -> tuple[_Column, ...]:
    """Chooses the column of labels, or the columns of 0 and 1 that stand for one each."""
    own = [column for column in free if column.key == "label"]
    if own:
        return (own[0],)
    plain = [c for c in free if c.kind in ("text", "number") and not _says_splits(c)]
    for candidates in (
        [column for column in plain if column.key in NAMES["label"]],
        plain if len(free) == 1 else [],
    ):
        if candidates:
            return (_one_label(profile, candidates),)
    lists = [column for column in free if column.key in NAMES["label"]]
    if lists:
        return (lists[0],)
    binary = [column for column in plain if column.is_binary and not _flag(column)]
    others = [
        column
        for column in plain
        if column.may_be_label and not column.is_binary and not OF_ONE.search(column.key)
    ]
    if len(binary) > 1:
        return _one_hot(profile, binary, others)
    candidates = others + [column for column in binary if column.may_be_label]
    if len(candidates) == 1:
        candidates += _rivals(plain, candidates[0])
    if candidates:
        return (_one_label(profile, candidates),)
    raise profile.refuse(
        f"no column label.{did_you_mean('label', [column.name for column in free])} {EXPECTED}, "
        f"got {_header(profile.columns)}.\n"
        "  Name the column of the labels with `data.columns=label=NAME`, or read them out of the "
        "paths with `data.label_from=REGEX`."
    )


def _rivals(plain: Sequence[_Column], guess: _Column) -> list[_Column]:
    """Returns the columns of words that may be the label too, though they hardly repeat.

    Names such as patient and animal count only beside a guess of mere numbers, such as a width.
    """
    numbers = not guess.is_binary and _are_numbers(guess.values)
    return [
        column
        for column in plain
        if column is not guess
        and not column.is_binary
        and 2 <= len(column.values) < column.rows
        and not _are_numbers(column.values)
        and (numbers or not OF_ONE.search(column.key))
    ]


def _one_label(profile: _Profile, candidates: Sequence[_Column]) -> _Column:
    """Returns the only candidate, or the first of several that divide the rows alike."""
    if len(candidates) == 1:
        return candidates[0]
    pairs = {tuple(values) for values in profile.rows(candidates)}
    if any(len({pair[i] for pair in pairs}) < len(pairs) for i in range(len(candidates))):
        raise _several(profile, candidates, "label")
    words = [c for c in candidates if not all(v.isdigit() for v in c.values)]
    return (words or list(candidates))[0]


def _one_hot(
    profile: _Profile, binary: list[_Column], others: list[_Column]
) -> tuple[_Column, ...]:
    """Returns columns of 0 and 1 of which each row has one 1; refuses several labels per photo."""
    ones = Counter(
        sum(TRUTHS.get(value.lower(), False) for value in values) for values in profile.rows(binary)
    )
    names = ", ".join(printable(column.name) for column in binary[:10])
    names += ", ..." if len(binary) > 10 else ""
    if max(ones, default=0) > 1 or ones[1] < 0.9 * ones.total():
        raise profile.refuse(
            f"no column label, but columns of 0 and 1 ({names}): multi-label, {NOT_OURS}.\n"
            "  If another column holds the labels, say `data.columns=label=NAME`; if every photo "
            "has a 1 in some of them only, `data.columns=label=A,B,C`."
        )
    if others:
        first = printable(others[0].name)
        raise profile.refuse(
            f"the labels may be in {first}, or in columns of 0 and 1 ({names}). Say which:\n"
            f"  `data.columns=label={first}`\n"
            f"  `data.columns=label={','.join(column.name for column in binary)}`"
        )
    return tuple(binary)


def _says_splits(column: _Column) -> bool:
    """Returns whether the values of a column say splits, training among them."""
    return len(column.splits & set(SPLITS)) > 1 and "train" in column.splits


def _flag(column: _Column) -> str:
    """Returns the split that a yes in a column means, by its name, such as is_valid; or ""."""
    words = [word for word in re.split(r"[_\W]+", column.key) if word not in ("is", "in", "for")]
    split = split_of(" ".join(words))
    return split if column.is_binary and split in SPLITS else ""


def _flags_of(profile: _Profile, columns: tuple[_Column, ...]) -> tuple[str, ...]:
    """Returns the splits that yes-or-no columns mean, which `data.columns` calls splits."""
    if len(columns) == 1 and not columns[0].is_binary:
        return ()
    for column in columns:
        if not _flag(column):
            raise UserError(
                f"{profile.table}: the column {printable(column.name)} does not say which split it "
                "means. Expected train, validation and test in it, or 0 and 1 and a name such as "
                "is_valid.",
                field="data.columns",
                exit_code=2,
            )
    return tuple(_flag(column) for column in columns)


def _split_columns(
    profile: _Profile, free: Sequence[_Column]
) -> tuple[tuple[_Column, ...], tuple[str, ...]]:
    """Chooses the column of splits, or yes-or-no columns such as is_valid; () for none."""
    own = _named(profile, free, "split")
    if own is not None:
        return (own,), (_flag(own),) if _flag(own) else ()
    found = [column for column in free if _says_splits(column)]
    flags = [column for column in free if _flag(column)]
    if found:
        if len(found) > 1 and any(len(set(values)) > 1 for values in profile.rows(found)):
            raise _several(profile, found, "split")
        return (found[0],), ()
    bare = [column for column in flags if column.key in WORDS]  # without is_: perhaps a finding
    if bare:
        name = printable(bare[0].name)
        raise profile.refuse(
            f"the column {name} may say which photos are for {_flag(bare[0])}, or something else. "
            "Say which:\n"
            f"  `data.columns=split={','.join(printable(column.name) for column in flags)}`\n"
            f"  `data.columns=ignore={','.join(printable(column.name) for column in bare)}`"
        )
    return tuple(flags), tuple(_flag(column) for column in flags)


def _refuse_kind(profile: _Profile, column: _Column, role: str) -> None:
    if role == "label" and column.kind == "list":
        raise profile.refuse(f"its labels are lists: multi-label, {NOT_OURS}.")
    if column.kind == "text" or (column.kind == "number" and (role != "path" or column.names)):
        return
    raise profile.refuse(
        f"the column {column.name} holds {column.kind}. Expected text"
        + (", the path of a file." if role == "path" else ".")
    )


def _refuse_slips(profile: _Profile, roles: _Roles, ignored: Sequence[_Column]) -> None:
    """Refuses a column that is called split or group but for a slip, and was not chosen."""
    others = [
        column
        for column in profile.columns
        if column.position not in roles.positions and column not in ignored
    ]
    for role, chosen in (("split", roles.split), ("group", roles.group)):
        for column in others:
            near = SequenceMatcher(None, column.name.strip().lower(), role).ratio() >= 0.8
            if near and not chosen:  # ignoring a misspelled split would be a bad surprise
                name = column.name.strip().lower()
                raise profile.refuse(
                    f"unknown column '{name}'. Did you mean '{role}'? Rename it, or say what it is:"
                    f"\n  `data.columns={role}={name}`\n  `data.columns=ignore={name}`"
                )


def _tell(profile: _Profile, roles: _Roles) -> None:
    """Logs which columns were chosen, unless their names leave no doubt, and the other ones."""
    said = [f"path = {printable(roles.path.name)}" + " (files found by name)" * roles.by_name]
    if roles.label:
        said.append(f"label = {', '.join(printable(column.name) for column in roles.label)}")
    for column, split in zip(roles.split, roles.flags or [""] * len(roles.split), strict=True):
        no = f", 0 = {roles.rest}" if len(roles.flags) == 1 else ""
        meaning = f" (1 = {split}{no})" if split else ""
        said.append(f"split = {printable(column.name)}{meaning}")
    if len(roles.flags) > 1:
        said.append(f"0 in all of them = {roles.rest or 'no split'}")
    if roles.group:
        said.append(f"group = {printable(roles.group.name)}")
    plain = {"path", "label", "split", "group"}
    used = [column for column in profile.columns if column.position in roles.positions]
    if roles.by_name or roles.flags or any(column.key not in plain for column in used):
        log.info("%s: columns: %s", profile.table, "; ".join(said))
    others = [column for column in profile.columns if column not in used]
    if others:
        names = [printable(column.name) or "(without name)" for column in others]
        log.info("%s: ignored columns: %s", profile.table, ", ".join(names[:20]))
    for column in others:
        repeat = column.many or 1 < len(column.values) < column.rows
        if OF_ONE.search(column.key) and repeat and not roles.group and not roles.split:
            log.warning(
                "%s: photos with the same %s may get into two splits, which flatters the figures. "
                "`data.columns=group=%s` keeps them together.",
                profile.table,
                *(printable(column.name),) * 2,
            )
            break


def _text(value: object) -> str:
    """Returns a cell as text. Parquet's null and NaN are the empty text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


class _Rows:
    """The photos that the rows of a table list, and the problems of the rows."""

    def __init__(self, profile: _Profile, roles: _Roles, label_from: str | None) -> None:
        self.table, self.unit, self.files = profile.table, profile.unit, profile.files
        self.roles, self.label_from = roles, label_from
        self.root = profile.files.root
        self.photos: list[Photo] = []
        self.numbers = array("q")
        self.problems: list[tuple[int, str]] = []
        self.several = False
        self._without_label: dict[str, list[tuple[int, str]]] = {}
        self._position: dict[str, int] = {}
        self._same: dict[str, str] = {}
        self._is_review = is_review(column.key for column in profile.columns)

    def add(self, number: int, row: Mapping[int, object]) -> None:
        """Adds the photo of a row, or the row's problem."""
        if not row:
            self._problem(number, "has more or fewer fields than the header")
            return
        path, problem = self._file(_text(row[self.roles.path.position]))
        label, wrong_label = self._label(row, path)
        known, wrong_split = self._split(row)
        group = _text(row[self.roles.group.position]) if self.roles.group else ""
        if not label and not wrong_label and not wrong_split and not problem:
            self._without_label.setdefault(known, []).append((number, path))
            return
        if not is_writable(label + group):
            problem = problem or "has control characters"
        problem = problem or wrong_label or wrong_split
        other = self._position.get(path)
        if other is not None and not problem:
            first, where = self.photos[other], f"{self.unit} {self.numbers[other]}"
            problem = f"{path} is in {where} already"
            if first.class_name != label:
                self.several = True
                problem = f"{path} has the label {label}, and {first.class_name} in {where}"
        if problem:
            self._problem(number, problem)
        elif known != UNLABELLED:
            self._position[path] = len(self.photos)
            # Rows with the same label share one string, which saves memory.
            label, group = (self._same.setdefault(text, text) for text in (label, group))
            self.photos.append(Photo(path, label, known, group))
            self.numbers.append(number)

    def _file(self, text: str) -> tuple[str, str]:
        """Returns the path of a row's file, and its problem or ""."""
        if self.roles.by_name and text and not self.files.is_path(text):
            found = self.files.named(text)
            if len(found) > 1:
                return "", f"{text} may be {found[0]} or {found[1]}"
            if found and not self._is_elsewhere(found[0], text):
                return found[0], ""
        return _below(text, self.root)

    def _is_elsewhere(self, path: str, text: str) -> bool:
        """Returns whether a value is a relative path whose last folder is not that of a file.

        Web addresses and absolute paths were written elsewhere: their folders say nothing.
        """
        text = posixpath.normpath(text.replace("\\", "/"))
        if ":/" in text or text.startswith(("/", "../")) or "/" not in text:
            return False
        there = f"{os.path.basename(self.root)}/{path}"
        return _agreeing(_key(there), _key(text)) == 0

    def _label(self, row: Mapping[int, object], path: str) -> tuple[str, str]:
        """Returns the label of a row, "" for none, and its problem or ""."""
        columns = self.roles.label
        if self.label_from is not None:
            return same_form(label_in(path, self.label_from)), ""
        if len(columns) == 1:
            return same_form(_text(row[columns[0].position])), ""
        ones = [c.name for c in columns if TRUTHS.get(_text(row[c.position]).lower(), False)]
        if len(ones) > 1:
            return "", f"has several labels: {' and '.join(ones[:3])}"
        return (same_form(ones[0].strip()) if ones else ""), ""

    def _split(self, row: Mapping[int, object]) -> tuple[str, str]:
        """Returns the split of a row, "" for none, and its problem or ""."""
        if not self.roles.flags:
            text = _text(row[self.roles.split[0].position]) if self.roles.split else ""
            known = split_of(text)
            if text and not known:
                near = did_you_mean(text, [word for word, of in WORDS.items() if of in SPLITS])
                return "", f"split: expected train, validation or test, got '{text}'.{near}"
            return known, ""
        said = [
            split
            for column, split in zip(self.roles.split, self.roles.flags, strict=True)
            if TRUTHS.get(_text(row[column.position]).lower(), False)
        ]
        if len(said) > 1:
            return "", f"is in several splits: {' and '.join(said)}"
        return (said or [self.roles.rest])[0], ""

    def _problem(self, number: int, text: str) -> None:
        self.problems.append((number, printable(text)))

    def refuse_unlabelled(self, *, quiet: bool) -> None:
        """Adds a problem for each row without label; some may lack it.

        A test split without any labels is left out, and so is what is not labelled yet in a table
        of `kerasft review`.
        """
        if self._is_review and self._without_label:
            self._leave_out_unseen(quiet)
            return
        labelled = {photo.split for photo in self.photos}
        for split, rows in self._without_label.items():
            if split in ("test", UNLABELLED) and split not in labelled and "train" in labelled:
                log.log(
                    logging.DEBUG if quiet else logging.INFO,
                    "%s: left out %s of %s without labels; `predict` is for them.",
                    self.table,
                    count(rows, "photo"),
                    split,
                )
                continue
            for number, _ in rows:
                self._problem(number, "has no label")

    def _leave_out_unseen(self, quiet: bool) -> None:
        left = sum(map(len, self._without_label.values()))
        if not self.photos and not self.problems:
            raise UserError(
                f"{self.table}: none of its {count(left, 'photo')} has a label yet. Label them in "
                "the page beside it, or write names of classes into the column label."
            )
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s: left out %s without a label.",
            self.table,
            count(left, "photo"),
        )

    def without_split(self) -> list[str]:
        """Returns a problem for each row without a split, if other rows have one."""
        without = [i for i, photo in enumerate(self.photos) if not photo.split]
        if len(without) == len(self.photos):
            return []
        return [
            f"{self.unit} {self.numbers[i]}: {self.photos[i].path} has no split, others have one"
            for i in without
        ]

    def missing(self) -> list[str]:
        """Returns a problem for each row whose file is missing."""
        return [
            f"{self.unit} {number}: {photo.path} is missing"
            for photo, number in zip(self.photos, self.numbers, strict=True)
            if not os.path.isfile(os.path.join(self.root, photo.path))
        ]

    def hint(self, missing: int) -> str:
        """Returns a last line that tells the user what to do, or "" if that is unclear."""
        if self.several:
            return f"\n  Photos with several labels are multi-label, {NOT_OURS}."
        if missing and missing == len(self.photos):
            there = self.files.named(self.photos[0].path)
            found = f" There is {printable(there[0])}." if there else ""
            return f"\n  Paths are relative to {self.root}, the folder of the table.{found}"
        return ""


def _below(text: str, root: str) -> tuple[str, str]:
    """Returns a path as posix, relative to the folder of the table, and its problem or ""."""
    if not text:
        return "", "names no file"
    if not is_writable(text):
        return "", "has a path with control characters, or one that is not UTF-8"
    if "\\" in text and not os.path.exists(os.path.join(root, text)):
        text = text.replace("\\", "/")  # written under Windows
    if PurePath(text).is_absolute():
        tops = (root, os.path.realpath(root))
        within = [top for top in tops if PurePath(os.path.normpath(text)).is_relative_to(top)]
        path = Path(os.path.relpath(text, within[0])).as_posix() if within else ".."
    else:
        path = posixpath.normpath(PurePath(text).as_posix())
    if path == "." or path.split("/")[0] == "..":
        return "", f"{text} is not below {root}, the folder of the table. Move the table there"
    return path, ""


def _refuse_other_tasks(table: Path, labels: Mapping[str, int]) -> None:
    """Refuses labels of other tasks: several labels in a cell, or numbers for regression."""
    for mark in "|;,":
        several = _several_in_one(labels, mark)
        if several:
            raise UserError(
                f"{table}: several labels in one cell, such as '{several}': multi-label, "
                f"{NOT_OURS}.\n  If that is the name of one class, write it without '{mark}'."
            )
    if len(labels) > 2 and 2 * len(labels) > sum(labels.values()) and _are_fractions(labels):
        raise UserError(
            f"{table}: the labels are numbers that mostly differ, such as {next(iter(labels))}: "
            f"regression, {NOT_OURS}.\n  Write the names of classes into the column label."
        )


def _several_in_one(labels: Collection[str], mark: str) -> str:
    """Returns an example of a cell with several labels, or "" if cells hold one label each.

    A mark alone proves nothing, because names of classes may contain commas. For a comma, most
    parts must also be labels of their own; for another mark, one such part is enough, or one
    that occurs in several cells.

    Args:
        labels: distinct labels of the table.
        mark: character that may separate labels, such as "|".
    """
    joined = {
        label: [part.strip() for part in label.split(mark)] for label in labels if mark in label
    }
    joined = {label: parts for label, parts in joined.items() if all(parts)}
    parts = Counter(part for label in joined for part in set(joined[label]))
    alone = [part for part in parts if part in labels]
    if mark == ",":
        sure = 2 * len(alone) > len(parts)
    else:
        sure = bool(alone) or any(number > 1 for number in parts.values())
    return next(iter(joined), "") if sure else ""


def _are_numbers(values: Collection[str]) -> bool:
    """Returns whether all values are numbers."""
    try:
        for value in values:
            float(value)
    except ValueError:
        return False
    return True


def _are_fractions(labels: Collection[str]) -> bool:
    """Returns whether all labels are finite numbers, and some of them fractions."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and any(not n.is_integer() for n in numbers)
