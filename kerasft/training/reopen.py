"""An existing run, opened again with the config, photos and device that it had."""

import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from kerasft import devices
from kerasft.activations.context import RunContext
from kerasft.activations.numerics import NUMERICS
from kerasft.config.fields import Config, Data
from kerasft.config.load import append_phase, data_at, load_config, to_toml
from kerasft.config.overrides import flat
from kerasft.data import scan
from kerasft.data.known import warn_about_moves
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.files import write_atomic
from kerasft.lazy_tensorflow import is_installed
from kerasft.models.bundle import load as load_bundle
from kerasft.models.net import Net
from kerasft.models.tta import trained_part
from kerasft.progress import Progress
from kerasft.record import Device, RunRecord
from kerasft.run import Run, how_to_resume, read_record
from kerasft.training import checkpoint
from kerasft.training.plan import for_device, of_older_version, settle

log = logging.getLogger("kerasft")


def next_phase(
    run: Run,
    *,
    flags: Mapping[str, object],
    sets: Sequence[str],
    data: str | Path | None,
    progress: Progress,
    found: Source | None = None,
) -> tuple[RunContext, Net]:
    """Opens a finished run and appends a phase to its plan. Writes nothing.

    Args:
        run: the run, locked.
        flags, sets, data, progress, found: see `train.continue_run`.

    Returns:
        The run, with the new phase in its plan, and the net that the phase begins with.

    Raises:
        UserError: see `train.continue_run`.
    """
    record, config = read_record(run), config_of(run, data)
    if not is_finished(record, config):
        raise UserError(
            f"{run.path} was interrupted before it was finished. Finish it first: "
            f"`{how_to_resume(run)}`"
        )
    device = prepare_again(config, record)  # before the model is loaded: threads are set once
    longer = append_phase(for_device(config, device), flags=flags, sets=sets)
    found = found or open_photos(run, config.data, progress)
    net = Net.of(trained_part(load_bundle(run.model_path).model), config.model.backbone)
    done = len(record.phases)
    plan = settle(longer, found, net, device, done=done)
    return RunContext(run, plan, found, progress, device), net


def is_finished(record: RunRecord, config: Config) -> bool:
    """Returns whether all phases of a run are trained."""
    # Both: a new phase is written into the config before the record says "running".
    return record.status == "finished" and len(record.phases) == len(config.phases)


def config_of(run: Run, data: Data | str | Path | None) -> Config:
    """Reads the config of a run.

    Args:
        run: an existing run.
        data: the place of the photos now, if they were moved.
    """
    config = of_older_version(load_config(run.config_path))
    if not data:
        return config
    now = data if isinstance(data, Data) else data_at(data, config.data)
    place = {"source": now.source, "data_dir": now.data_dir}
    return config.model_copy(update={"data": config.data.model_copy(update=place)})


def open_photos(run: Run, data: Data, progress: Progress) -> Source:
    """Opens the photos of a run, with the splits and labels that its splits.csv lists.

    Warns about photos that lie in another class now.
    """
    found = scan.open_source(run.splits_path, run.classes_path, data, progress=progress)
    warn_about_moves(str(run.path), found)
    return found


def prepare_again(config: Config, record: RunRecord) -> Device:
    """Prepares the device for a run to go on, with as many threads as before.

    Warns if the machine, or the version of a package that computes, differs from the record's.
    """
    device = devices.prepare(config.device, threads=record.machine.threads)
    before, now = record.machine.to_text(), device.to_text()
    if before != now:
        log.warning(
            "So far the run was computed by %s; it continues with %s. Expect slightly different "
            "numbers.",
            before,
            now,
        )
    versions = {"numerics": "1", **record.versions}  # the first versions did not record it
    others = [
        f"{name} {versions[name]} (now {version})"
        for name, version in computing_versions().items()
        if versions.get(name, version) != version
    ]
    if others:
        log.warning(
            "So far the run was computed with %s. Expect slightly different numbers.",
            ", ".join(others),
        )
    return device


def computing_versions() -> dict[str, str]:
    """Returns the versions of what computes or reads photos: packages, and our own "numerics"."""
    reader = ["tensorflow"] if is_installed() else []
    names = dict.fromkeys(["keras", *reader, keras.backend.backend(), "numpy"])
    found = {name: importlib.metadata.version(name) for name in names}
    return {**found, "numerics": str(NUMERICS)}


def refuse_contradiction(run: Run, config: Config) -> None:
    """Stops a resume whose options or file differ from the run's config (exit code 2).

    Batch sizes may differ where nothing was trained with them, since memory may not hold them; the
    run's config is changed then.
    """
    typed = flat(config.model_dump(exclude_unset=True))  # a default was not typed
    of_run = load_config(run.config_path)
    stored = flat(of_run.model_dump())
    batches = {
        key: value
        for key, value in typed.items()
        if key.endswith((".batch_size", "cache.batch")) and value not in (None, stored.get(key))
    }
    if batches and not _has_begun(run, of_run):
        done = len(read_record(run).phases)
        earlier = {f"phases.{index}.batch_size" for index in range(done)}
        batches = {key: value for key, value in batches.items() if key not in earlier}
    else:
        batches = {}
    # Photos may have been moved; what the run has settled may still be open in the given config.
    differ = [
        f"  {key}: the run has {stored.get(key)!r}, got {value!r}."
        for key, value in typed.items()
        if key not in ("data.source", "data.data_dir", *batches)
        and value is not None
        and stored.get(key) != value
        and not (
            value == "auto"
            and (key.startswith("cache.") or key.endswith((".precision", ".head_start")))
        )
    ]
    if differ:
        raise UserError(
            f"{run.path} cannot be resumed with another config:\n"
            + "\n".join(differ)
            + "\nLeave these out, or choose another `run_dir`.",
            exit_code=2,
        )
    if batches:
        sets = [f"{key}={value}" for key, value in batches.items()]
        write_atomic(run.config_path, to_toml(load_config(run.config_path, sets=sets), run.path))


def _has_begun(run: Run, config: Config) -> bool:
    """Returns whether the first unfinished phase of a run has finished an epoch."""
    done = len(read_record(run).phases)
    if done == len(config.phases):
        return True  # the run is finished
    return checkpoint.load(run.checkpoints, config.phases[done].name) is not None
