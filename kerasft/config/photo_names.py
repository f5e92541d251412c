"""What names of folders, files and values in tables say: a split, a part of a set, a label.

Only names are read here. A name says a split if nothing is left of it without the words for the
split, fillers such as "set" or "images", numbers, and words that its neighbours have too:
"Training", "test_set", "seg_train" beside "seg_test". "test tubes" and "training shoes" say none.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

UNLABELLED = "unlabelled"
"""Role of folders with photos that nobody has labelled; they are for `predict`."""

WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "validating", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
    **dict.fromkeys(
        ("unlabelled", "unlabeled", "unlabel", "pred", "predict", "prediction", "predictions"),
        UNLABELLED,
    ),
    **dict.fromkeys(("inference", "submission", "unknown", "unsorted"), UNLABELLED),
}
"""Words for a split, in lower case -> the split, or UNLABELLED."""

FILLERS = {
    *("set", "sets", "data", "dataset", "split", "folder", "dir", "files", "samples", "examples"),
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics"),
    *("jpg", "jpeg", "png", "resized", "cropped", "clean", "only", "the", "of", "for", "my"),
    *("labels", "label", "list", "annotations"),
}
"""Words that say nothing beside a word for a split."""

LABEL_WORDS = {"label", "labels", "annotation", "annotations", "list"}
"""Words in the names of files that hold labels."""

MASK_WORDS = {"mask", "masks", "segmentation", "segmentations", "label", "labels"} | {
    *("annotation", "annotations", "groundtruth")
}
"""Words in the names of folders of masks, beside a folder of photos."""

PART_WORDS = {
    *("part", "parts", "batch", "chunk", "shard", "fold", "split", "subset"),
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pics"),
    *("data", "dataset", "set", "folder", "dcim", "jpg", "jpeg", "png", "raw", "all"),
}
"""Words of which the names of parts of a set consist, besides numbers: "images_part_1"."""


def same_form(name: str) -> str:
    """Returns a name in Unicode form NFC, so that names that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def split_of(name: str, shared: Collection[str] = ()) -> str:
    """Returns the split that a name says: one of `source.SPLITS`, UNLABELLED, or "" for none.

    Args:
        name: name of a folder, or value in a table.
        shared: words that say nothing because neighbours have them too, see `shared_words`.
    """
    roles = set()
    for word in _words(name):
        role = _role(word)
        if role:
            roles.add(role)
        elif not (word.isdigit() or word in FILLERS or word in shared):
            return ""
    return roles.pop() if len(roles) == 1 else ""


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Returns the split that each name of neighbouring folders says, see `split_of`."""
    names = list(names)
    shared = shared_words(names)
    return {name: split_of(name, shared) for name in names}


def shared_words(names: Iterable[str]) -> set[str]:
    """Returns the words that all names with a word for a split have in common.

    If they do not name at least two splits, nothing is shared: "test tubes" alone says no split.
    """
    of_splits = [words for words in map(_words, names) if any(map(_role, words))]
    roles = {_role(word) for words in of_splits for word in words} - {""}
    if len(of_splits) < 2 or len(roles) < 2:
        return set()
    return {word for word in set.intersection(*map(set, of_splits)) if not _role(word)}


def _words(name: str) -> list[str]:
    """Splits a name into words and numbers, in lower case: "TestData1" is test, data, 1."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    return re.findall(r"[^\W\d_]+|\d+", apart.lower())


def _role(word: str) -> str:
    """Returns the split that a word says, alone or joined with a filler, as in "trainset"."""
    if word in WORDS:
        return WORDS[word]
    for known in sorted(WORDS, key=len, reverse=True):
        if word.startswith(known) and word[len(known) :] in FILLERS:
            return WORDS[known]
        if word.endswith(known) and word[: -len(known)] in FILLERS:
            return WORDS[known]
    return ""


def are_masks(name: str) -> bool:
    """Returns whether the name of a folder says that it holds masks or annotations of photos."""
    words = {word for word in _words(name) if not word.isdigit()}
    return bool(words & MASK_WORDS) and words <= MASK_WORDS | PART_WORDS


def says_labels(name: str) -> bool:
    """Returns whether the name of a file says that it holds labels: "train_labels"."""
    return any(word in LABEL_WORDS or word.endswith("labels") for word in _words(name))


def are_parts(names: Collection[str]) -> bool:
    """Returns whether names look like parts of one set: images_part_1 and images_part_2, or images.

    All of them consist of `PART_WORDS` and numbers, and are equal without the numbers.
    """
    plain = {tuple(word for word in _words(name) if not word.isdigit()) for name in names}
    return len(plain) == 1 and (words := plain.pop()) != () and set(words) <= PART_WORDS


GUESSES = (
    r"([^/]*[^\W\d_])[ ._-]*\(?\d+\)?\.\w+$",  # cat.0.jpg, great_dane_12.jpg, cat (3).jpg
    r"(?:^|/)\d+[ ._-]+([^\W\d_][^/]*?)\.\w+$",  # 0001_cat.jpg
    r"(?:^|/)([^\W\d_]+)[ ._-][^/]*$",  # cat_a8f3.jpg
    r"[ ._-]([^\W\d_]+)\.\w+$",  # a8f3_cat.jpg
)
"""Regular expressions whose group is the label in the path of a photo, the likeliest first."""

SURE = 2
"""Number of the first guesses that count without a look at the others."""

OF_CAMERAS = {
    *("img", "image", "dsc", "dscn", "dscf", "dcim", "pic", "picture", "photo", "pxl", "mvimg"),
    *("dji", "gopr", "gopro", "gp", "gx", "gh", "gl", "gs", "mg", "sam", "sany", "cimg", "imgp"),
    *("imag", "pict", "hpim", "kif", "mvi", "mov", "vid", "crw", "pano", "sta", "stb", "sdc"),
    *("eos", "foto", "cam", "webcam", "fb", "received", "unnamed"),
    *("frame", "scan", "screenshot", "file", "wa", "p", "page", "isic", "untitled", "snap"),
    *("whatsapp", "train", "test", "val", "copy", "sample", "fig", "figure", "x"),
}
"""Words in the names of files that are no labels."""

MODES = {"hdr", "burst", "portrait", "night", "mp", "cover", "edit", "edited", "effects", "pano"}
"""Words that cameras and phones write behind a number, "20230101_120000_HDR"; and they write
letters: a drone's DJI_0001_T and DJI_0001_W are the same view by two lenses."""

DCF_NAME = re.compile(r"[A-Z][A-Z\d]{3}\d{4}(?=[ ._-])")
"""Beginning of a name by the rule that all cameras follow (DCF), such as P1010001 or GOPR0001."""

BY_DATE = re.compile(r"(?:19|20)\d{6}[ _-]?\d")
"""Beginning of a name that is the time at which the photo was taken, such as 20230101_120000."""


def label_in(path: str, regex: str) -> str:
    """Returns the label in the path of a photo; "" if the expression does not match.

    Args:
        path: posix path.
        regex: regular expression; its group "label", or else its first group, or else all that it
            matches, is the label.
    """
    match = re.search(regex, path)
    if match is None:
        return ""
    named = match.groupdict()
    return (named.get("label") or match[match.re.groups and 1] or "").strip()


def guess_labels(paths: Sequence[str]) -> list[str]:
    """Returns the expressions of `GUESSES` that find labels in all paths.

    Labels are found if there are at least two, each in three paths or more, and none is what
    cameras write. One of the first `SURE` expressions excludes those after it, and so does an
    earlier one that finds the same labels.
    """
    found: dict[tuple[str, ...], str] = {}
    for number, regex in enumerate(GUESSES):
        labels = tuple(label_in(path, regex) for path in paths)
        counts = Counter(labels)
        enough = len(counts) > 1 and "" not in counts and min(counts.values()) >= 3
        if enough and not any(map(_is_of_camera, paths, labels)):
            found.setdefault(labels, regex)
            if number < SURE:
                break
    return list(found.values())


def _is_of_camera(path: str, label: str) -> bool:
    """Returns whether the label that was found in a path may be the work of a camera."""
    words, name = _words(label), path.rpartition("/")[2]
    if any(word in OF_CAMERAS for word in words):
        return True
    by_rule = DCF_NAME.match(name)
    if by_rule and by_rule[0].startswith(label):
        return True
    by_camera = by_rule or BY_DATE.match(name) or OF_CAMERAS.intersection(_words(name)[:1])
    return bool(by_camera) and all(word in MODES or len(word) == 1 for word in words)
