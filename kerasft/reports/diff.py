"""What differs between two runs: settings, photos, versions, figures, and answers on test photos.

Only files of the runs are read: no photo and no model is opened. Photos are the same if their bytes
are, whatever they are called now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasft import run
from kerasft.answers import read_labels
from kerasft.config.load import load_config
from kerasft.config.overrides import flat
from kerasft.data.source import UNUSED
from kerasft.data.splits import read_class_names, read_rows
from kerasft.errors import UserError
from kerasft.metrics import mcnemar
from kerasft.record import RunRecord
from kerasft.reports.runs import ListedRun, listed
from kerasft.results import Result
from kerasft.run import Run


@dataclass(frozen=True)
class Difference(Result):
    """A setting or version that differs: its name, and its value in each run; None for absent."""

    name: str
    one: object
    other: object


@dataclass(frozen=True)
class PhotosDiff(Result):
    """How the photos of two runs overlap.

    Attributes:
        one, other: number of photos that each run uses.
        both: number of photos that both use.
        relabelled: number of those whose class has another name in the other run.
        moved: number of those that are in another split.
        test_trained_on: number of test photos of the first run that the second was trained on or
            chosen by, and the other way round; on these its answers prove nothing.
    """

    one: int
    other: int
    both: int
    relabelled: int
    moved: int
    test_trained_on: tuple[int, int]


@dataclass(frozen=True)
class AnswersDiff(Result):
    """The answers of two runs on the photos that are test photos of both, with the same label.

    Attributes:
        n: number of photos.
        one, other: number of them that each run has right.
        only_one, only_other: number of them that this run alone has right.
        p: probability of a difference as large as this if both were equally good: McNemar's exact
            test.
    """

    n: int
    one: int
    other: int
    only_one: int
    only_other: int
    p: float

    @classmethod
    def of(cls, one: Sequence[bool], other: Sequence[bool]) -> "AnswersDiff":
        """Compares two models by whether each has a photo right, for the same photos in order."""
        pairs = list(zip(one, other, strict=True))
        return cls(
            n=len(pairs),
            one=sum(one),
            other=sum(other),
            only_one=sum(mine and not theirs for mine, theirs in pairs),
            only_other=sum(theirs and not mine for mine, theirs in pairs),
            p=mcnemar(one, other),
        )


@dataclass(frozen=True)
class RunDiff(Result):
    """What differs between two runs.

    Attributes:
        runs: both, with their figures, as `runs.list_runs` lists them.
        config: settings that differ; a phase that only one run has is one setting, its name.
        versions: packages and device that differ.
        photos: overlap of their photos.
        test: their answers on the same test photos; None if there is no such photo, or the answers
            of a run are not there.
        why: why `test` is None; "" if it is not.
    """

    runs: tuple[ListedRun, ListedRun]
    config: tuple[Difference, ...]
    versions: tuple[Difference, ...]
    photos: PhotosDiff
    test: AnswersDiff | None
    why: str


def diff_runs(one: str | Path, other: str | Path) -> RunDiff:
    """Compares two runs, by their files.

    Raises:
        UserError: a directory is missing (exit code 2), not a run, or has damaged files.
    """
    both = run.open_run(Path(one)), run.open_run(Path(other))
    first, second = (run.read_record(each) for each in both)
    photos = tuple(_photos_of(each) for each in both)
    test, why = _test(both, (first, second), photos)
    return RunDiff(
        runs=(listed(both[0]), listed(both[1])),
        config=tuple(_differences(*(_settings_of(each) for each in both))),
        versions=tuple(_differences(*(_versions_of(record) for record in (first, second)))),
        photos=_overlap(*photos),
        test=test,
        why=why,
    )


def _settings_of(of_run: Run) -> Mapping[str, object]:
    settings = load_config(of_run.config_path).model_dump(mode="json")
    phases = settings.pop("phases")
    return {**flat(settings), **{f"phases.{i}": phase for i, phase in enumerate(phases)}}


def _versions_of(record: RunRecord) -> Mapping[str, object]:
    return {**record.versions, **record.machine.to_json()}


def _differences(one: Mapping[str, object], other: Mapping[str, object]) -> Sequence[Difference]:
    """Lists what differs between values by name; a phase of both is compared field by field."""
    found: list[Difference] = []
    for name in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += _differences(flat(mine, name), flat(theirs, name))
        elif mine != theirs:
            found.append(Difference(name, *(_name_of(value) for value in (mine, theirs))))
    return found


def _name_of(value: object) -> object:
    return value.get("name") if isinstance(value, dict) else value


@dataclass(frozen=True)
class _Photo:
    """A photo of a run: the name of its class, and its split."""

    label: str
    split: str


def _photos_of(of_run: Run) -> list[tuple[str, _Photo]]:
    """Reads the photos that a run uses, with their digests, in the order of splits.csv."""
    names = read_class_names(of_run.classes_path)
    rows = read_rows(of_run.splits_path, len(names))
    return [
        (digest, _Photo(names[int(label)], split))
        for _, label, split, digest, *_ in rows
        if split != UNUSED
    ]


Photos = Sequence[tuple[str, _Photo]]


def _overlap(one: Photos, other: Photos) -> PhotosDiff:
    mine, theirs = dict(one), dict(other)
    both = [(mine[digest], theirs[digest]) for digest in mine if digest in theirs]
    return PhotosDiff(
        one=len(one),
        other=len(other),
        both=len(both),
        relabelled=sum(a.label != b.label for a, b in both),
        moved=sum(a.split != b.split for a, b in both),
        test_trained_on=(
            sum(a.split == "test" != b.split for a, b in both),
            sum(b.split == "test" != a.split for a, b in both),
        ),
    )


def _test(
    runs: tuple[Run, Run], records: tuple[RunRecord, RunRecord], photos: tuple[Photos, ...]
) -> tuple[AnswersDiff | None, str]:
    """Compares the answers on test photos; returns None and the reason where that can't be."""
    right: list[Mapping[str, tuple[str, bool]]] = []
    for of_run, record, own in zip(runs, records, photos, strict=True):
        if record.test is None:
            return None, f"{of_run.path} has no figures on test."
        answered = answers_on_test(of_run, record)
        tested = [(digest, photo.label) for digest, photo in own if photo.split == "test"]
        if answered is None or len(answered) != len(tested):
            return None, how_to_answer(of_run)
        pairs = zip(tested, answered, strict=True)
        right.append({digest: (label, said == was) for (digest, label), (was, said) in pairs})
    mine, theirs = right
    same = [d for d in mine if d in theirs and mine[d][0] == theirs[d][0]]
    if not same:
        return None, "no photo is a test photo of both, with the same label."
    return AnswersDiff.of([mine[d][1] for d in same], [theirs[d][1] for d in same]), ""


def answers_on_test(of_run: Run, record: RunRecord) -> list[tuple[str, str]] | None:
    """Reads label and predicted label of each test photo, in the order of splits.csv.

    Args:
        of_run: the run.
        record: its record, with figures on test.

    Returns:
        The answers; None if test.csv is missing, damaged, or belongs to another model.keras.
    """
    try:
        answers = read_labels(of_run.test_path)
    except UserError:
        return None
    figures = record.test
    right = sum(label == predicted for label, predicted in answers)
    ours = figures and answers and abs(right / len(answers) - figures.accuracy) < 1e-6
    return answers if ours else None


def how_to_answer(of_run: Run) -> str:
    """Says that the answers of a run are not there, and how to get them."""
    return (
        f"the answers of {of_run.path} on its test photos are not in it, as in runs of older "
        f"versions. `evaluate_run({str(of_run.path)!r})` writes them."
    )
