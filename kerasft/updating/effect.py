"""The old and the new model on the old test photos: what was gained, and what was forgotten.

The old test photos are test photos of the new run too, so neither model has been trained on them.
An answer of the old model counts by what its class is called now: after a merge of "ant" and "bee",
"ant" is right for a bee. Only files of the runs are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kerasft.data.splits import read_class_names, read_rows
from kerasft.metrics import wilson
from kerasft.reports.diff import AnswersDiff, answers_on_test, how_to_answer
from kerasft.results import Result
from kerasft.run import Run, read_record
from kerasft.text import cell


@dataclass(frozen=True)
class ClassEffect(Result):
    """A class of the new run on test photos that both models have answered.

    Attributes:
        name: name of the class in the new run.
        n: number of its old test photos.
        before, after: number of them that the old and the new model have right.
    """

    name: str
    n: int
    before: int
    after: int


@dataclass(frozen=True)
class NewClass(Result):
    """A class that the old run does not have, on the new run's test photos.

    Attributes:
        name: name of the class.
        n: number of its test photos.
        right: number of them that the new model has right.
        ci95: 95% Wilson interval of the share.
    """

    name: str
    n: int
    right: int
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Effect(Result):
    """Both models on the old test photos that still have their label.

    Attributes:
        n: number of photos.
        before, after: number of them that the old and the new model have right.
        only_before, only_after: number of them that this model alone has right.
        p: probability of a difference as large as this if both were equally good: McNemar's exact
            test.
        relabelled: number of old test photos that have another label now, and are left out here.
        classes: the old classes by their new names.
        new_classes: classes that the old run does not have.
    """

    n: int
    before: int
    after: int
    only_before: int
    only_after: int
    p: float
    relabelled: int
    classes: tuple[ClassEffect, ...]
    new_classes: tuple[NewClass, ...]


def effect_of(old: Run, new: Run, now: Mapping[str, str]) -> tuple[Effect | None, str]:
    """Compares both models.

    Args:
        old, new: the runs.
        now: what each class of the old run is called now, "" for one that is left out.

    Returns:
        The comparison and "", or None and the reason.
    """
    now = {name: now[name] for name in read_class_names(old.classes_path)}  # no new labels
    before, why = _answered(old)
    after, why_new = _answered(new)
    if before is None or after is None:
        return None, why or why_new
    both = [(before[digest], after[digest]) for digest in before if digest in after]
    same = [
        (label, now[said_before] == label, said == label)
        for (was, said_before), (label, said) in both
        if now[was] == label
    ]
    of_old = dict.fromkeys(name for name in now.values() if name)
    classes = [
        ClassEffect(name, len(own), sum(hit for hit, _ in own), sum(hit for _, hit in own))
        for name in of_old
        if (own := [(hit, later) for label, hit, later in same if label == name])
    ]
    new_classes = []
    for name in read_class_names(new.classes_path):
        answered = [said == label for label, said in after.values() if label == name]
        if name not in of_old and answered:
            right, n = sum(answered), len(answered)
            new_classes.append(NewClass(name, n, right, wilson(right, n)))
    if not same:
        return None, "no old test photo has kept its label."
    answers = AnswersDiff.of([hit for _, hit, _ in same], [hit for _, _, hit in same])
    return Effect(
        n=answers.n,
        before=answers.one,
        after=answers.other,
        only_before=answers.only_one,
        only_after=answers.only_other,
        p=answers.p,
        relabelled=sum(now[was] != label for (was, _), (label, _) in both),
        classes=tuple(classes),
        new_classes=tuple(new_classes),
    ), ""


def _answered(run: Run) -> tuple[dict[str, tuple[str, str]] | None, str]:
    """Returns class and answer for each test photo of a run, by the digest of its pixels."""
    record = read_record(run)
    if record.test is None:
        return None, f"{run.path} has no figures on test."
    names = read_class_names(run.classes_path)
    written = {str(cell(name)): name for name in names}
    tested = [
        row[5] or row[3] for row in read_rows(run.splits_path, len(names)) if row[2] == "test"
    ]
    answers = answers_on_test(run, record)
    known = answers is not None and {one for pair in answers for one in pair} <= set(written)
    if answers is None or len(answers) != len(tested) or not known:
        return None, how_to_answer(run)
    pairs = [(written[label], written[said]) for label, said in answers]
    return dict(zip(tested, pairs, strict=True)), ""
