"""Checkpoints: everything that a resumed phase needs.

`checkpoints/state.json` is the commit point: it lists the files of one state with their digests
and is written last. The state of the epoch before stays as well: `begin` takes it if a byte of the
last one has changed.

    state.json          phase, epoch, best epoch, seconds, metrics; names and digests of:
    state-<epoch>.npz   the suffix's weights, optimizer slots, seed generators, mean statistics,
                        the validation answers of all that was tried, and what state.json says
    best-<epoch>.npz    the suffix's weights at the best epoch

Keras' own BackupAndRestore keeps neither the best epoch nor the remaining patience, and the state
of a dropout's SeedGenerator is in neither `.keras` nor `.weights.h5`.
"""

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft.errors import UserError
from kerasft.files import replacing, write_atomic
from kerasft.metrics import Answers
from kerasft.seeds import derive_seed
from kerasft.untrusted import parse_json, read_arrays, read_json

log = logging.getLogger("kerasft")

STATE = "state.json"
KINDS = ("weight", "slot", "seed", "mean", "answer", "progress")  # of the arrays of a state
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


def begin(folder: Path, phase: str) -> PhaseState | None:
    """Makes the folder of checkpoints, and settles on the state from which a phase goes on.

    What a killed process left of another phase is removed. If a file of the last state is missing
    or has changed, the state before it is committed again; without that one the phase begins
    anew, with the model that it began with. A warning says so.

    Args:
        folder: the run's folder of checkpoints.
        phase: name of the phase that begins or is resumed; its own state stays.

    Returns:
        How far the phase has come; None if it begins.
    """
    folder.mkdir(exist_ok=True)
    facts: dict | None = None
    with suppress(UserError):  # damaged: the state itself knows as much
        facts = _read_json(folder)
    if facts and facts["progress"]["phase"] != phase:
        clear(folder)
        return None
    if facts and _is_whole(folder, facts):
        return PhaseState(**facts["progress"])
    states = {int(name): path for path in folder.glob("state-*.npz") if (name := _number(path))}
    for epoch in sorted(states, reverse=True) if facts != {} else []:
        progress = _progress_in(states[epoch])
        if progress is None or progress.phase != phase:
            continue
        best = folder / f"best-{progress.best_epoch}.npz"
        if not _unzips(best):
            continue
        _commit(folder, progress, {path.name: _digest(path) for path in (states[epoch], best)})
        log.warning(
            "%s: the checkpoint is damaged; phase '%s' goes on after epoch %d.",
            folder,
            phase,
            epoch,
        )
        return progress
    if facts == {}:  # not one epoch was finished
        clear(folder)
        return None
    log.warning("%s: the checkpoint is damaged; phase '%s' begins anew.", folder, phase)
    (folder / STATE).unlink(missing_ok=True)
    _remove_others(folder, keep={START, KNOWN_START})
    return None


def _number(path: Path) -> str:
    number = path.stem.removeprefix("state-")
    return number if number.isdecimal() else ""


def _is_whole(folder: Path, facts: dict) -> bool:
    """Returns whether the files of a state are there, unchanged, and say what state.json says."""
    for name, digest in facts["files"].items():
        if not (folder / name).is_file() or _digest(folder / name) != digest:
            return False
    state = folder / f"state-{facts['progress']['epoch']}.npz"
    if state.name not in facts["files"]:
        return False
    progress = _progress_in(state)  # None: an older version has not written it there
    return progress is None or json.dumps(asdict(progress)) == json.dumps(facts["progress"])


def _progress_in(path: Path) -> PhaseState | None:
    """Reads how far a phase had come out of a state; None if it is damaged or does not say."""
    if not _unzips(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return PhaseState(**parse_json(file["progress-0"].tobytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unzips(path: Path) -> bool:
    """Returns whether all arrays of a file have the checksums that were written."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


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
    """Commits the state after an epoch; the previous one stays beside it.

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
        "progress": [np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)],
    }
    files = {f"state-{progress.epoch}.npz": arrays}
    best_name = f"best-{progress.best_epoch}.npz"
    before = _read_json(folder).get("files", {})
    if best_name not in before:
        files[best_name] = {"weight": best}
    digests = {name: digest for name, digest in before.items() if name == best_name}
    for name, content in files.items():
        digests[name] = _write_arrays(folder / name, content)
    _commit(folder, progress, digests)
    _remove_others(folder, keep={*digests, *before, STATE, START, KNOWN_START})


def _commit(folder: Path, progress: PhaseState, digests: dict[str, str]) -> None:
    facts = {"progress": asdict(progress), "files": digests}
    write_atomic(folder / STATE, json.dumps(facts))


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
    (folder / STATE).unlink(missing_ok=True)
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
    read = read_arrays(path, path.stat().st_size)
    for name, array in read.items():  # in the order in which they were written
        arrays[name.split("-")[0]].append(array)
    return arrays


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _read_json(folder: Path) -> dict:
    path = folder / STATE
    if not path.is_file():
        return {}
    try:
        facts = read_json(path)
        progress = PhaseState(**facts["progress"])
        named = type(progress.phase) is str and type(progress.epoch) is int
        if not named or not isinstance(facts["files"], dict):
            raise ValueError("other facts")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a checkpoint of kerasft ({error}). Train again into another directory."
        ) from None
    return facts


def _remove_others(folder: Path, *, keep: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else []:
        if path.name not in keep:
            path.unlink()
