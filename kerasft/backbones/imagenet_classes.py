"""Maps a user's class names to classes of ImageNet, to use a pretrained net as it is.

A name is looked up, first as written and then in the singular, among

    group    everyday words for several classes: "dog" (imagenet_groups.txt, which also lists words
             that mean something else here, and words with several meanings)
    name     the labels of the classes: "tench"
    synonym  WordNet's other words for them: "Tinca tinca" (imagenet_synonyms.txt)

or it begins with a synset number, as the folders of ImageNet do: "n02206856". Case, spaces,
punctuation and a leading number ("01_ants") are ignored. Each class has a gloss of a few words that
says what it shows (imagenet_glosses.txt): the class "kite" is a bird of prey.

No two class names share a class of ImageNet. It goes to the name with the most specific claim: a
name or synonym before a group, a small group before a larger one that contains it ("beagle",
"terrier", "dog"). If claims are equal ("cab" and "taxi"), no name gets it, because its score
could not be divided between them.

Shapes: N images, K class names.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.errors import UserError

SYNONYMS = Path(__file__).with_name("imagenet_synonyms.txt")
GROUPS = Path(__file__).with_name("imagenet_groups.txt")
GLOSSES = Path(__file__).with_name("imagenet_glosses.txt")
NUM_CLASSES = 1000
WIDTH = 78  # columns of a match's line, which is indented by two


@dataclass(frozen=True)
class Match:
    """The classes of ImageNet that one class name means.

    Attributes:
        class_name: the name as the user wrote it.
        indices: classes of ImageNet, 0 to 999, ascending; () if the name means none.
        why: "synset", "group", "name" or "synonym", with ", plural" if the singular matched;
            "" if nothing did.
        note: a clause about anything unusual: several meanings, classes that went to other
            names, no such class; "" if there is nothing to say.
    """

    class_name: str
    indices: tuple[int, ...]
    why: str
    note: str

    def to_text(self) -> str:
        """Returns a line of at most WIDTH columns, with as much of this as there is room for.

        `kite: kite (21, bird of prey); in this sense only`, or, for several classes,
        `dog: 118 classes (dog), Chihuahua (151) to Mexican hairless (268)`.
        """
        line = ""
        for said in self._descriptions():
            parts = "; ".join(part for part in (said, self.note) if part)
            line = f"{self.class_name}: {parts}"
            if len(line) <= WIDTH:
                return line
        return f"{line[: WIDTH - 3]}..."

    def _descriptions(self) -> list[str]:
        """Describes the classes, the longest text first."""
        each = [f"{labels()[index]} ({index}, {glosses()[index]})" for index in self.indices]
        if len(each) < 2:
            return each or [""]
        kinds = list(dict.fromkeys(glosses()[index] for index in self.indices))
        short = f"{len(each)} classes ({_some(kinds, 3)})"
        first, last = (f"{labels()[index]} ({index})" for index in self.indices[:: len(each) - 1])
        together = [f"{short}, {first} to {last}", short, f"{len(each)} classes"]
        if len(each) > 4:
            return together
        names = ", ".join(labels()[index] for index in self.indices)
        without_numbers = f"{names} ({kinds[0]})"
        if len(kinds) > 1:
            without_numbers = ", ".join(f"{labels()[i]} ({glosses()[i]})" for i in self.indices)
        return [", ".join(each), without_numbers, *together]

    def to_json(self) -> dict[str, Any]:
        """Returns `{"class_name", "indices", "labels", "glosses", "why", "note"}`."""
        found = {
            "indices": list(self.indices),
            "labels": [labels()[index] for index in self.indices],
            "glosses": [glosses()[index] for index in self.indices],
        }
        return {"class_name": self.class_name, **found, "why": self.why, "note": self.note}


def _some(words: Sequence[str], most: int) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


@dataclass(frozen=True)
class Matches:
    """The matches of all class names, in order. No index occurs twice."""

    each: tuple[Match, ...]

    @property
    def mapped(self) -> list[int]:
        """Positions of the class names that mean at least one class of ImageNet."""
        return [position for position, match in enumerate(self.each) if match.indices]

    @property
    def unmatched(self) -> list[str]:
        """The class names that mean no class of ImageNet."""
        return [match.class_name for match in self.each if not match.indices]


def match_classes(class_names: Sequence[str]) -> Matches:
    """Finds the classes of ImageNet that class names mean.

    Args:
        class_names: K names, such as those of the folders.
    """
    claims = [_claim(name) for name in class_names]
    return Matches(tuple(_settled(claim, claims) for claim in claims))


def scores_of(matches: Matches, scores: np.ndarray) -> np.ndarray:
    """Turns scores of ImageNet's classes into scores of the class names.

    Args:
        matches: matches of K class names, at least two of them mapped.
        scores: float32 [N,1000], probabilities.

    Returns:
        float32 [N,K]: sum of the scores of each name's classes, normalised so that a row sums to
        1. Names without a class have 0; if all sums are 0, the mapped names share equally.

    Raises:
        UserError: fewer than two names are mapped, so there is nothing to choose between.
    """
    mapped = matches.mapped
    if len(mapped) < 2:
        known = "".join(f" ({matches.each[position].class_name})" for position in mapped)
        raise UserError(
            "the pretrained net as it is knows only the classes of ImageNet. Expected at least two "
            f"of the {len(matches.each)} class names to be among them, got {len(mapped)}{known}."
        )
    if scores.ndim != 2 or scores.shape[1] != NUM_CLASSES:
        raise ValueError(f"expected scores [N,{NUM_CLASSES}], got {list(scores.shape)}")
    summed = np.zeros((len(scores), len(matches.each)))
    for position in mapped:
        indices = list(matches.each[position].indices)
        summed[:, position] = scores[:, indices].sum(axis=1, dtype=np.float64)
    total = summed.sum(axis=1, keepdims=True)
    alike = np.isin(np.arange(len(matches.each)), mapped) / len(mapped)
    divided = np.divide(summed, total, out=np.tile(alike, (len(scores), 1)), where=total != 0)
    return divided.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Claim:
    """The classes that a name would mean if it were the only one."""

    class_name: str
    indices: frozenset[int]
    why: str
    note: str

    def beats(self, other: "_Claim") -> bool:
        """Returns whether this claim is more specific than the other one."""
        mine, its = (claim.why.startswith("group") for claim in (self, other))
        return its if mine != its else self.indices < other.indices


def _claim(class_name: str) -> _Claim:
    synset = re.match(r"n\d{8}(?!\d)", class_name)
    if synset and synset[0] in _synsets():
        return _Claim(class_name, frozenset([_synsets()[synset[0]]]), "synset", "")
    for number, word in enumerate(_forms(class_name)):
        plural = ", plural" if number else ""
        if word in _groups():
            group = _groups()[word]
            note = "" if group else _other_sense(word)
            return _Claim(class_name, group, f"group{plural}" if group else "", note)
        if word in _words():
            found = _words()[word]
            kind = "name" if any(word == _key(labels()[i]) for i in found) else "synonym"
            notes = ["in this sense only"] if word in _ambiguous() else []
            if len({glosses()[index] for index in found}) > 1:
                notes.append("scores are added")
            note = "; ".join(notes)
            return _Claim(class_name, found, f"{kind}{plural}", note)
    return _Claim(class_name, frozenset(), "", "not in ImageNet")


def _other_sense(word: str) -> str:
    sense = " or ".join(labels()[index] for index in sorted(_words()[word]))
    return f"in ImageNet only with the meaning {sense}"


def _settled(claim: _Claim, claims: Sequence[_Claim]) -> Match:
    rivals = [one for one in claims if one is not claim and one.indices & claim.indices]
    closer = [one for one in rivals if one.beats(claim)]
    alike = [one for one in rivals if one not in closer and not claim.beats(one)]
    left_to_them = claim.indices & _all_of(closer)
    for_nobody = (claim.indices & _all_of(alike)) - left_to_them
    notes = [claim.note] if claim.note else []
    if left_to_them:
        notes.append(f"{_counted(left_to_them)} counted for {_quoted(closer)} instead")
    if for_nobody:
        notes.append(
            f"{_counted(for_nobody)} left out, because {_quoted(alike)} could mean the same"
        )
    kept = tuple(sorted(claim.indices - left_to_them - for_nobody))
    return Match(claim.class_name, kept, claim.why if kept else "", "; ".join(notes))


def _all_of(claims: Sequence[_Claim]) -> frozenset[int]:
    return frozenset().union(*(claim.indices for claim in claims))


def _counted(indices: frozenset[int]) -> str:
    return "1 class" if len(indices) == 1 else f"{len(indices)} classes"


def _quoted(claims: Sequence[_Claim]) -> str:
    names = [f"'{claim.class_name}'" for claim in claims]
    return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


@functools.cache
def labels() -> tuple[str, ...]:
    """Returns the 1000 labels in the order of the published nets.

    "crane" and "maillot" occur twice.
    """
    return tuple(words[0] for _, words in _read_synonyms())


@functools.cache
def glosses() -> tuple[str, ...]:
    """Returns what the 1000 classes show, in a few words: "bird of prey" for the label "kite"."""
    found = {
        index: gloss
        for line in _lines(GLOSSES)
        for gloss, _, ranges in [line.partition(":")]
        for index in _indices(ranges)
    }
    return tuple(found[index] for index in range(NUM_CLASSES))


@functools.cache
def _read_synonyms() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Reads the synset number and the words of each class."""
    rows = (line.split("\t") for line in _lines(SYNONYMS))
    return tuple((synset, tuple(words.split(", "))) for synset, words in rows)


@functools.cache
def _synsets() -> dict[str, int]:
    return {synset: index for index, (synset, _) in enumerate(_read_synonyms())}


@functools.cache
def _words() -> dict[str, frozenset[int]]:
    """Maps WordNet's words, normalised by `_key`, to their classes."""
    found: dict[str, set[int]] = {}
    for index, (_, words) in enumerate(_read_synonyms()):
        for word in words:
            found.setdefault(_key(word), set()).add(index)
    return {word: frozenset(indices) for word, indices in found.items()}


@functools.cache
def _groups() -> dict[str, frozenset[int]]:
    """Maps everyday words, normalised by `_key`, to their classes; no class for excluded words."""
    found: dict[str, frozenset[int]] = {}
    for line in _lines(GROUPS):
        words, _, ranges = line.partition(":")
        if ranges.strip() == "?":
            continue
        indices = frozenset([] if ranges.strip() == "-" else _indices(ranges))
        found |= {_key(word): indices for word in words.split(",")}
    return found


@functools.cache
def _ambiguous() -> frozenset[str]:
    """Returns words, normalised by `_key`, of whose meanings ImageNet has only some."""
    rows = [line.partition(":") for line in _lines(GROUPS)]
    return frozenset(
        _key(word) for words, _, mark in rows if mark.strip() == "?" for word in words.split(",")
    )


def _indices(ranges: str) -> list[int]:
    """Reads classes and ranges of classes: "1 3-5" is [1, 3, 4, 5]."""
    ends = [(first, last) for first, _, last in (one.partition("-") for one in ranges.split())]
    return [i for first, last in ends for i in range(int(first), int(last or first) + 1)]


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line


def _key(name: str) -> str:
    """Keeps letters and digits only, so that "T-shirt", "t_shirt" and "TShirt" are one word."""
    plain = unicodedata.normalize("NFKD", name)
    return "".join(letter for letter in plain.lower() if letter.isalnum())


# Plurals that the endings below do not cover.
_IRREGULAR = {"mice": "mouse", "geese": "goose", "oxen": "ox"}
_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))


def _forms(name: str) -> list[str]:
    """Returns keys for a name: as written, then each word of which it may be the plural."""
    word = _key(re.sub(r"^[\d\W_]+(?=[^\W\d_])", "", name))
    forms = [word]
    forms += [
        word.removesuffix(many) + one for many, one in _IRREGULAR.items() if word.endswith(many)
    ]
    if not word.endswith("ss"):
        forms += [word.removesuffix(many) + one for many, one in _ENDINGS if word.endswith(many)]
    return list(dict.fromkeys(forms))
