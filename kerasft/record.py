"""The content of run.json as typed objects: the record of a run, and the result of each phase.

Every earlier schema can be read: facts that an older kerasft did not write have defaults here. A
later schema is refused, because its facts could be misread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from kerasft import __version__
from kerasft.confidence import Abstention, Calibration, Quality
from kerasft.errors import UserError
from kerasft.metrics import Figures
from kerasft.progress import PartTime
from kerasft.results import Result
from kerasft.text import shortened
from kerasft.untrusted import checked, fill, shown

SCHEMA = 1  # schema of all files of a run: raise it when an older kerasft would misread them
_OLDEST_MACHINE = {"backend": "tensorflow", "device": "cpu", "name": "", "threads": None}
"""What runs of version 0.1.0 do not record."""


@dataclass(frozen=True)
class Device(Result):
    """What computes.

    Attributes:
        backend: backend of Keras, "tensorflow", "jax" or "torch".
        device: "cpu" or "gpu:N".
        name: name of the GPU; "" for a CPU.
        threads: number of CPU threads; None in runs that did not record it.
    """

    backend: str
    device: str
    name: str
    threads: int | None

    def to_text(self) -> str:
        """Returns what may change the numbers: "tensorflow on cpu with 8 threads"."""
        return f"{self.backend} on {self.device} with {self.threads} threads"


@dataclass(frozen=True)
class StoreUse:
    """The stored activations that a phase trained on.

    Attributes:
        found: whether nothing had to be computed.
        views: number of views of each training image.
        bytes: size of all arrays in bytes.
        dtype: dtype of the stored numbers, "float16" or "float32".
        engine: engine that computed them.
        precision: precision in which they were computed.
        difference: mean relative error of bfloat16 on the first images; None if not measured.
    """

    found: bool
    views: int
    bytes: int
    dtype: str
    engine: str
    precision: str
    difference: float | None = None


@dataclass(frozen=True)
class Steps:
    """The epochs of a trained phase.

    Attributes:
        epochs: number of epochs that were trained.
        best_epoch: number of the epoch whose weights are kept, from 1; 0: the head that was solved
            at the start.
        precision: precision of the steps, as `phases.N.precision` names it. Figures on validation
            are in float32.
        head_start: how the head was solved at the start: the chosen strength of the ridge, and
            the figures on validation of all that were tried; None if it was not.
        alpha: share of the best epoch in the weights that are kept, 0 to 1; the rest is of the
            start of the phase (`models/wise.py`).
        alphas: shares that were tried, with the figures on validation; [] if none were.
    """

    epochs: int
    best_epoch: int
    precision: str = "float32"
    head_start: Mapping[str, Any] | None = None
    alpha: float = 1.0
    alphas: Sequence[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Solving:
    """The solving of a phase's head.

    Attributes:
        method: name of the method.
        parameters: chosen parameters of the method, by name.
        tried: settings that were tried, with their scores.
        score: name of the score that compared the settings.
        converged: whether the solver converged; None where it does not iterate.
        notes: sentences for people.
    """

    method: str
    parameters: Mapping[str, Any]
    tried: tuple[Any, ...] = ()
    score: str = ""
    converged: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gap:
    """The difference between the kept epoch's figures and those of the saved model on pixels.

    Attributes:
        accuracy: difference of the validation accuracies, 0 to 1.
        loss: difference of the validation log losses, nats.
    """

    accuracy: float
    loss: float


@dataclass(frozen=True)
class PhaseResult:
    """The result of a phase.

    Attributes:
        name: name of the phase.
        blocks: number of blocks that were trained below the head, or "all".
        how: steps of a trained phase, or the solving of a solved one.
        trainable_parameters: number of parameters that the phase could change.
        batch_norm_trained: names of the BatchNormalization layers that learned.
        seconds: time of all parts in seconds.
        parts: time of each part of the phase.
        activations: stored activations that the phase trained on; None if it read pixels.
        gap: difference between the kept epoch's figures and those of the saved model.
        train_loss, train_accuracy: figures of the best epoch on training images, as they were fed
            (with the penalty of `l2_sp`); of epoch 0, on their plain views.
        val_loss, val_accuracy: figures of the kept weights on validation images.
        improved: whether the phase's model became model.keras.
        validation: figures of the saved model on validation, from pixels in float32.
        frozen_proof: result of the freeze proof, "equal": no frozen weight has changed.
        calibration: temperature that the phase's model got; None if it was not kept, or has none.
    """

    name: str
    blocks: int | str
    how: Steps | Solving
    trainable_parameters: int
    seconds: float
    improved: bool
    validation: Figures
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    batch_norm_trained: tuple[str, ...] = ()
    parts: tuple[PartTime, ...] = ()
    activations: StoreUse | None = None
    gap: Gap | None = None
    frozen_proof: str = "equal"
    calibration: Calibration | None = None

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "PhaseResult":
        """Reads an object of `to_json`, of this or an earlier version; ValueError if it is none."""
        facts = checked(facts, Mapping[str, Any])
        activations, gap = facts.get("activations"), facts.get("gap")
        return fill(
            cls,
            facts,
            how=fill(Solving if "method" in facts else Steps, facts),
            parts=tuple(fill(PartTime, part) for part in _list(facts, "parts")),
            activations=fill(StoreUse, activations) if activations else None,
            gap=fill(Gap, gap) if gap else None,
            validation=fill(Figures, facts.get("validation")),
            calibration=_calibration(facts.get("calibration")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns what run.json records of the phase."""
        return {
            "name": self.name,
            "blocks": self.blocks,
            **vars(self.how),
            "trainable_parameters": self.trainable_parameters,
            "batch_norm_trained": list(self.batch_norm_trained),
            "seconds": self.seconds,
            "parts": [dict(vars(part)) for part in self.parts],
            "activations": dict(vars(self.activations)) if self.activations else None,
            "gap": dict(vars(self.gap)) if self.gap else None,
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
            "frozen_proof": self.frozen_proof,
            "improved": self.improved,
            "validation": self.validation.to_json(),
            "calibration": self.calibration and self.calibration.to_json(),
        }


@dataclass(frozen=True)
class RunRecord:
    """The record of a run: what it used, and its results.

    Attributes:
        status: state of the run, "running" or "finished".
        versions: version of kerasft, Python and each computing package, by name.
        machine: device that computed.
        seed: the run's seed.
        seconds: time of all phases in seconds, in all processes.
        skipped: files that are not images, each with the reason.
        phases: results of the finished phases.
        best_phase: name of the phase whose model is model.keras; None before the first.
        validation: figures of model.keras on validation, without its temperature, as the phases
            were compared; None before the first phase.
        test: figures of model.keras on test, with its temperature; None if it was not scored.
        test_scored: number of times that the test split was scored.
        calibration: temperature of model.keras and its figures on validation; None if it was not
            calibrated.
        abstention: threshold of model.keras for "I don't know"; None if it always answers.
    """

    status: str
    versions: Mapping[str, str]
    machine: Device
    seed: int
    seconds: float = 0.0
    skipped: tuple[Mapping[str, str], ...] = ()
    phases: tuple[PhaseResult, ...] = ()
    best_phase: str | None = None
    validation: Figures | None = None
    test: Figures | None = None
    test_scored: int = 0
    calibration: Calibration | None = None
    abstention: Abstention | None = None

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], path: Path) -> "RunRecord":
        """Reads an object of `to_json`, of this or an earlier version.

        Args:
            facts: the object in the file.
            path: path of the file, for messages.

        Raises:
            UserError: a later version wrote the file; something is missing, or of another type.
        """
        refuse_later(path, facts.get("schema", SCHEMA), SCHEMA, facts.get("versions"))
        try:
            return fill(
                cls,
                facts,
                versions=checked(facts.get("versions", {}), Mapping[str, str]),
                # Runs of version 0.1.0 do not record the backend, which was always TensorFlow.
                machine=fill(Device, {**_OLDEST_MACHINE, **facts}),
                seed=checked(facts.get("seed", 0), int),
                phases=tuple(PhaseResult.from_json(phase) for phase in _list(facts, "phases")),
                validation=_figures(facts.get("validation")),
                test=_figures(facts.get("test")),
                calibration=_calibration(facts.get("calibration")),
                abstention=fill(Abstention, facts["abstention"])
                if facts.get("abstention")
                else None,
            )
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        """Returns the object that run.json holds."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "versions": dict(self.versions),
            **self.machine.to_json(),
            "seed": self.seed,
            "seconds": self.seconds,
            "skipped": [dict(file) for file in self.skipped],
            "phases": [phase.to_json() for phase in self.phases],
            "best_phase": self.best_phase,
            "validation": self.validation and self.validation.to_json(),
            "test": self.test and with_interval(self.test),
            "test_scored": self.test_scored,
            "calibration": self.calibration and self.calibration.to_json(),
            "abstention": self.abstention and self.abstention.to_json(),
        }

    def with_phase(self, result: PhaseResult) -> "RunRecord":
        """Returns the record with one more finished phase, the best one if it improved."""
        longer = replace(self, phases=(*self.phases, result))
        if not result.improved:
            return longer
        # The figures on test, and the threshold, belonged to the previous model.
        return replace(
            longer,
            best_phase=result.name,
            validation=result.validation,
            test=None,
            calibration=result.calibration,
            abstention=None,
        )

    def with_test(self, figures: Figures) -> "RunRecord":
        """Returns the record with the figures of model.keras on test, and counts the scoring."""
        return replace(self, test=figures, test_scored=self.test_scored + 1)


def refuse_later(path: Path, schema: object, known: int, versions: object) -> None:
    """Refuses a file that a later kerasft wrote in a form that this one does not know.

    Args:
        path: path of the file, for the message.
        schema: schema number in the file.
        known: latest schema number that this kerasft reads.
        versions: versions of the packages that wrote the file, by name, if the file has them.

    Raises:
        UserError: the schema is later than the known one, or is not a number. The message names
            the version that wrote the file.
    """
    if isinstance(schema, int) and schema <= known:
        return
    said = versions.get("kerasft") if isinstance(versions, Mapping) else None
    raise UserError(
        f"{path}: written by kerasft {shortened(str(said or 'of a later version'))}, in a form "
        f"that this version, {__version__}, does not know (schema {shown(schema)}, known up to "
        f"{known}). Update kerasft."
    )


def _calibration(facts: Mapping[str, Any] | None) -> Calibration | None:
    if not facts:
        return None
    facts = checked(facts, Mapping[str, Any])
    qualities = {name: fill(Quality, facts.get(name)) for name in ("before", "after")}
    return fill(Calibration, facts, **qualities)


def _figures(facts: Mapping[str, Any] | None) -> Figures | None:
    return fill(Figures, facts) if facts else None


def _list(facts: Mapping[str, Any], name: str) -> Sequence[Any]:
    """Returns a list of objects in a file, () if there is none."""
    return cast(Sequence[Any], checked(facts.get(name, ()), Sequence[Any]))


def with_interval(figures: Figures) -> Mapping[str, Any]:
    """Returns figures with the 95% interval of the accuracy: `{…, "ci95": [low, high]}`."""
    return {**figures.to_json(), "ci95": list(figures.interval)}


@dataclass(frozen=True)
class RunResult:
    """The result of `train.train_run` and `train.continue_run`.

    Attributes:
        run: the run directory.
        seconds: time of all phases in seconds, in all processes.
        phases: results of the phases.
        best_phase: name of the phase whose model is model.keras.
        validation: figures of model.keras on validation.
        test: figures of model.keras on test; None if it was not scored.
        calibration: temperature of model.keras; None if it was not calibrated.
    """

    run: Path
    seconds: float
    phases: tuple[PhaseResult, ...]
    best_phase: str | None
    validation: Figures | None
    test: Figures | None
    calibration: Calibration | None

    @classmethod
    def of(cls, run: Path, record: RunRecord) -> "RunResult":
        """Picks the result from a run's record."""
        names = {field.name for field in fields(cls)}
        return cls(run=run, **{name: vars(record)[name] for name in names - {"run"}})

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON result of `kerasft train`."""
        hidden = ("batch_norm_trained", "validation", "calibration")
        phases = [phase.to_json() for phase in self.phases]
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "phases": [{k: v for k, v in p.items() if k not in hidden} for p in phases],
            "best_phase": self.best_phase,
            "validation": self.validation and self.validation.to_json(),
            "calibration": self.calibration and self.calibration.to_json(),
            "test": self.test and with_interval(self.test),
        }
