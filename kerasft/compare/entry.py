"""What is recorded of a trial: an `Entry`, which is kept as a JSON file.

Entries of earlier versions are read too: a key that is missing takes its default, and one that is
not known is ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kerasft.compare.request import Trial
from kerasft.metrics import Answers, Figures
from kerasft.results import Result
from kerasft.untrusted import checked, fill

Split = Literal["validation", "test"]
"""A split on which a trial is scored."""


@dataclass(frozen=True)
class SplitResult:
    """How well a model does on one split, image by image.

    Attributes:
        figures: accuracy and loss.
        right: for each image, in the order of the split, whether it was classified correctly.
    """

    figures: Figures
    right: tuple[bool, ...]

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> "SplitResult":
        """Compares logits [N,K] with labels int [N]."""
        right = logits.argmax(axis=1) == labels
        return cls(Figures.of(logits, labels), tuple(right.tolist()))


@dataclass(frozen=True)
class TriedSetting(Result):
    """One setting that a way has tried, and what came of it.

    Attributes:
        settings: the setting: a learning rate, or the parameters of a solved head.
        val_accuracy: validation accuracy, 0 to 1.
        val_loss: validation loss, nats; the setting with the lowest one is chosen.
        seconds: time of its run without prefix passes.
        pass_seconds: time of its prefix passes.
        converged: whether training has ended before its steps or epochs did.
    """

    settings: Mapping[str, Any]
    val_accuracy: float
    val_loss: float
    seconds: float
    pass_seconds: float
    converged: bool

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TriedSetting":
        """Reads what `to_json` has returned."""
        return fill(cls, record)


@dataclass(frozen=True)
class Entry:
    """What is recorded of a trial. Everything but the trial is empty until it is known.

    Attributes:
        trial: the trial.
        stopped: whether the budget ended it; such an entry is not written down.
        note: a remark for the table, such as "scored on 3 of 5 classes"; "" if there is none.
        classes: number of classes that the model knows.
        validation: the result on the validation split.
        test: the result on the test split.
        macro_f1: mean F1 of the classes on the test split, 0 to 1.
        seconds: time of all settings that were tried, without prefix passes.
        pass_seconds: time of the prefix passes, which all ways share.
        ms_per_image: time to score an image within a batch, milliseconds.
        size_mb: size of the model, 10^6 bytes.
        converged: whether training has ended before its steps or epochs did.
        settings: the setting that validation has chosen.
        tried: all settings that were tried.
        notes: remarks of the phase, such as that its scores are too sure.
        mapping: for as-is, a line for each class: which classes of ImageNet it means.
        run: the chosen run, relative to the folder of the comparison; None for as-is.
        answers: validation answers of all epochs and settings that were tried, in a file of their
            own; None if nothing was chosen on validation.
    """

    trial: Trial
    stopped: bool = False
    note: str = ""
    classes: int | None = None
    validation: SplitResult | None = None
    test: SplitResult | None = None
    macro_f1: float | None = None
    seconds: float | None = None
    pass_seconds: float = 0.0
    ms_per_image: float | None = None
    size_mb: float | None = None
    converged: bool | None = None
    settings: Mapping[str, Any] | None = None
    tried: tuple[TriedSetting, ...] = ()
    notes: tuple[str, ...] = ()
    mapping: tuple[str, ...] = ()
    run: str | None = None
    answers: Answers | None = field(default=None, compare=False)

    @property
    def chosen_among(self) -> int:
        """Number of epochs or settings among which validation has chosen; 1 means no choice."""
        return 1 if self.answers is None else len(self.answers.right)

    def on(self, split: Split) -> SplitResult | None:
        """Returns the result on one split."""
        return self.validation if split == "validation" else self.test

    def to_json(self) -> dict[str, Any]:
        """Returns the object that is written to the trial's file."""
        return {
            "name": self.trial.way,
            "backbone": self.trial.backbone,
            "seed": self.trial.seed,
            "fraction": self.trial.fraction,
            **{key: getattr(self, key) for key in _AS_THEY_ARE},
            **_split_to_json("val", self.validation),
            **_split_to_json("test", self.test),
            "n_test": None if self.test is None else self.test.figures.n,
            "tried": [one.to_json() for one in self.tried],
            "notes": list(self.notes),
            "mapping": list(self.mapping),
            "chosen_among": self.chosen_among,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Entry":
        """Reads what `to_json` of this or an earlier version has returned; else ValueError."""
        tried = checked(record.get("tried", ()), tuple[Any, ...])
        return fill(
            cls,
            record,
            trial=fill(Trial, record, way=checked(record.get("name"), str)),
            validation=_split_from_json("val", record),
            test=_split_from_json("test", record),
            tried=tuple(TriedSetting.from_json(one) for one in tried),
            answers=None,
        )


_AS_THEY_ARE = (
    *("stopped", "note", "classes", "macro_f1", "seconds", "pass_seconds", "ms_per_image"),
    *("size_mb", "converged", "settings", "run"),
)
"""Attributes of an Entry that stand in its JSON as they are."""


def _split_to_json(prefix: str, result: SplitResult | None) -> Mapping[str, Any]:
    return {
        f"{prefix}_accuracy": None if result is None else result.figures.accuracy,
        f"{prefix}_loss": None if result is None else result.figures.loss,
        f"{prefix}_right": None if result is None else [int(one) for one in result.right],
    }


def _split_from_json(prefix: str, record: Mapping[str, Any]) -> SplitResult | None:
    if record.get(f"{prefix}_right") is None:
        return None
    right = tuple(map(bool, checked(record[f"{prefix}_right"], tuple[int | bool, ...])))
    facts = {name: record.get(f"{prefix}_{name}") for name in ("accuracy", "loss")}
    return SplitResult(fill(Figures, facts, n=len(right)), right)
