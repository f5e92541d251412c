"""Checkpoints: everything that a resumed phase needs.

`checkpoints/state.json` is the commit point: it lists the files of one state with their digests
and is written last. Until it is replaced, the previous state stays complete.

    state.json          phase, epoch, best epoch, seconds, metrics; names and digests of:
    state-<epoch>.npz   the suffix's weights, optimizer slots, seed generators, mean statistics,
                        and the validation answers of all that was tried
    best-<epoch>.npz    the suffix's weights at the best epoch

Keras' own BackupAndRestore keeps neither the best epoch nor the remaining patience, and the state
of a dropout's SeedGenerator is in neither `.keras` nor `.weights.h5`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft.errors import UserError
from kerasft.files import replacing, write_atomic
from kerasft.metrics import Answers
from kerasft.seeds import derive_seed

KINDS = ("weight", "slot", "seed", "mean", "answer")  # of the arrays of a state
START = "start.keras"  # copy of the model that a later phase begins with
KNOWN_START = "known_start.keras"  # and of the known photos


@dataclass
class PhaseState:
    """The progress of a phase.

    Attributes:
        phase: name of the phase.
        start: digest of the weights that the phase began with.
        epoch: number of finished epochs.
        best_epoch: number of the best epoch, from 1; 0 before any epoch has finished, or if a head
            that was solved at the start is the best.
        best_loss: validation log loss of the best epoch.
        seconds: time spent so far, in all processes.
        lines: the phase's lines of metrics.jsonl.
    """

    phase: str
    start: str = ""
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    lines: list[dict] = field(default_factory=list)


def begin(folder: Path, phase: str) -> None:
    """Makes the folder of checkpoints, and removes what a killed process left of another phase.

    Args:
        folder: the run's folder of checkpoints.
        phase: name of the phase that begins or is resumed; its own state stays.
    """
    folder.mkdir(exist_ok=True)
    if load(folder, phase) is None:
        clear(folder)


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the state variables of the model's random layers (dropout, stochastic depth)."""
    return [v for v in model.variables if v.path.split("/")[-1] == "seed_generator_state"]


def reset_seeds(model: keras.Model, seed: int) -> None:
    """Resets every random layer to a state that depends on the seed alone."""
    for i, state in enumerate(seed_states(model)):
        state.assign(np.array([derive_seed(seed, "layer", i), 0], "uint32"))


def weights_of(model: keras.Model) -> list[np.ndarray]:
    """Returns copies of a model's weights, in their order."""
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def save(
    folder: Path,
    progress: PhaseState,
    suffix: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    best: list[np.ndarray],
    norm_mean: Iterable[keras.Variable] = (),
    answers: Answers | None = None,
) -> None:
    """Commits the state after an epoch; the previous one stays until this one is complete.

    Args:
        folder: the run's folder of checkpoints, which exists.
        progress: progress of the phase, including this epoch.
        suffix: the suffix, with its current weights.
        optimizer: the phase's optimizer, its slots built.
        best: weights of the suffix at `progress.best_epoch`, from `weights_of`.
        norm_mean: variables of `live.NormMean`, if the phase has one.
        answers: validation answers of all that was tried so far.

    Raises:
        UserError: the disk is full or can't be written.
    """
    arrays = {
        "weight": weights_of(suffix),
        "slot": _values(optimizer.variables),
        "seed": _values(seed_states(suffix)),
        "mean": _values(norm_mean),
        "answer": [answers.losses, answers.right] if answers else [],
    }
    files = {f"state-{progress.epoch}.npz": arrays}
    best_name = f"best-{progress.best_epoch}.npz"
    digests = _read_json(folder).get("files", {})
    if best_name not in digests:
        files[best_name] = {"weight": best}
    digests = {name: digest for name, digest in digests.items() if name == best_name}
    for name, content in files.items():
        digests[name] = _write_arrays(folder / name, content)
    facts = {"progress": asdict(progress), "files": digests}
    write_atomic(folder / "state.json", json.dumps(facts))
    _remove_others(folder, keep={*digests, "state.json", START, KNOWN_START})


def load(folder: Path, phase: str) -> PhaseState | None:
    """Returns how far a phase has come; None if there is no state, or that of another phase."""
    facts = _read_json(folder)
    if not facts or facts["progress"]["phase"] != phase:
        return None
    return PhaseState(**facts["progress"])


def restore(
    folder: Path,
    suffix: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    norm_mean: Iterable[keras.Variable] = (),
) -> tuple[list[np.ndarray], Answers | None]:
    """Restores a saved state: weights, optimizer slots, random layers.

    Args:
        folder: the run's folder of checkpoints, with a state of this phase.
        suffix: the suffix at the phase's cut; it gets the saved weights.
        optimizer: the phase's optimizer, its slots built; it gets the saved slots.
        norm_mean: variables of `live.NormMean`, if the phase has one. Those of a state without
            them, which an older version saved, stay as they are: the mean begins anew.

    Returns:
        The suffix's weights at the best epoch, and the validation answers of all epochs; None if
        an older version saved the state.

    Raises:
        UserError: a file of the state is missing or was changed.
    """
    content: dict[str, dict[str, list[np.ndarray]]] = {}
    for name, digest in _read_json(folder)["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise UserError(
                f"{path}: the checkpoint is missing or was changed since it was written, so the "
                "phase cannot continue from it. Train again into another directory."
            )
        content[name.split("-")[0]] = _read_arrays(path)
    state, best = content["state"], content["best"]
    _assign(suffix.weights, state["weight"])
    _assign(optimizer.variables, state["slot"])
    _assign(seed_states(suffix), state["seed"])
    if state["mean"]:
        _assign(norm_mean, state["mean"])
    return best["weight"], Answers(*state["answer"]) if state["answer"] else None


def clear(folder: Path) -> None:
    """Removes all checkpoints."""
    (folder / "state.json").unlink(missing_ok=True)
    _remove_others(folder, keep=set())


def assign_weights(model: keras.Model, weights: list[np.ndarray]) -> None:
    """Assigns weights to a model, in the order of `weights_of`."""
    _assign(model.weights, weights)


def _assign(variables: Iterable, values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(variables: Iterable) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _write_arrays(path: Path, arrays: dict[str, list[np.ndarray]]) -> str:
    flat: dict[str, Any] = {
        f"{kind}-{i}": a for kind, many in arrays.items() for i, a in enumerate(many)
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **flat)
    return _digest(path)


def _read_arrays(path: Path) -> dict[str, list[np.ndarray]]:
    arrays: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:  # in the order in which they were written
            arrays[name.split("-")[0]].append(file[name])
    return arrays


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _read_json(folder: Path) -> dict:
    path = folder / "state.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: not a checkpoint of kerasft ({error}). Train again into another directory."
        ) from None


def _remove_others(folder: Path, *, keep: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else []:
        if path.name not in keep:
            path.unlink()
