"""A run from its config to model.keras: `train_run`, `continue_run`, `plan_run`.

Example:
    >>> from pathlib import Path
    >>> from kerasft.config import load_config
    >>> from kerasft.train import train_run
    >>> config = load_config(None, flags={"data.source": "photos"})
    >>> result = train_run(config, Path("runs/photos"))
    >>> result["validation"]["accuracy"]
"""

import importlib.metadata
import logging
import math
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from kerasft import __version__, backbones, devices, phase, source, state
from kerasft.bundle import load as load_bundle
from kerasft.config import Config, append_phase, load_config, to_toml
from kerasft.cut import freeze, list_blocks, split
from kerasft.errors import UserError
from kerasft.evaluate import wilson
from kerasft.phase import initial_model, run_phase
from kerasft.progress import Progress, silent
from kerasft.run import Run, create_run, lock, open_run, read_record, write_atomic, write_record
from kerasft.setting import Setting
from kerasft.source import Source

log = logging.getLogger("kerasft")


def train_run(
    config: Config, run_dir: Path, *, resume: bool = False, progress: Progress = silent
) -> dict:
    """Trains all phases of a config that its run has not finished yet.

    Args:
        config: of `config.load_config`.
        run_dir: the run directory; made, and refused if it is there already.
        resume: go on with an unfinished run, at the first epoch that it had not finished.
            On an absent or empty directory a new run starts.
        progress: told what happens (`progress.Event`).

    Returns:
        `{"run", "seconds", "phases", "validation", "test"}`, as `kerasft train --json` prints.

    Raises:
        UserError: anything about config, photos, weights or disk that keeps it from training.
            Nothing is written then, unless training had begun.
    """
    absent = next((p for p in [*run_dir.parents[::-1], run_dir] if not p.exists()), None)
    run = create_run(run_dir, resume=resume)
    record = read_record(run) if run.record_path.is_file() else None
    if record is None:
        with lock(run), _nothing_left_behind(absent):
            device = devices.prepare(config.device)
            found = source.scan_source(config.data, seed=config.seed, progress=progress)
            config, _ = _resolve(config, found)
            _write_new(run, config, found, device)
        with lock(run):
            return _run_phases(run, config, found, progress)
    with lock(run):
        _refuse_contradiction(run, config)
        if record["status"] == "finished":
            log.info("%s is finished: there is nothing to resume.", run.path)
            return result_of(run, record)
        return _go_on(run, load_config(run.config_path), config.data.source, progress)


def continue_run(
    run_dir: Path,
    *,
    flags: Mapping[str, object],
    sets: Sequence[str] = (),
    data: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> dict:
    """Appends a phase to a finished run: moves the cut left and trains at a low rate.

    Args:
        run_dir: of a finished run.
        flags: dotted keys of the new phase, as in `config.append_phase`. Without "blocks"
            it takes the backbone's default below the blocks of the phase before.
        sets: `--set` of the command line.
        data: where the photos are now, if they were moved.
        resume: go on with the unfinished last phase instead.
        progress: told what happens.

    Returns:
        As `train_run`, all phases included.

    Raises:
        UserError: not a run, not finished, no such number of blocks, photos gone.
    """
    run = open_run(run_dir)
    with lock(run):
        record, config = read_record(run), load_config(run.config_path)
        root = data or config.data.source
        if resume:
            if record["status"] == "finished":
                log.info("%s is finished: there is nothing to resume.", run.path)
                return result_of(run, record)
            return _go_on(run, config, root, progress)
        if record["status"] != "finished":
            raise UserError(
                f"{run.path} was interrupted before it was finished. Finish it first: "
                f"kerasft train --run {run.path} --resume"
            )
        longer = append_phase(config, flags=flags, sets=sets)
        return _go_on(run, _resolve_new(run, longer), root, progress)


def plan_run(config: Config, *, progress: Progress = silent) -> dict:
    """Checks config, data and weights, and says what `train_run` would do. Trains nothing.

    Returns:
        `{"backbone", "image_size", "weights", "images": {class: {split: n}}, "skipped",
        "blocks": [{"name", "layers", "parameters"}], "parameters", "phases": [{"name",
        "blocks", "epochs", "steps", "learning_rate", "trainable_parameters"}]}`, blocks from
        the top.
    """
    devices.prepare(config.device)
    found = source.scan_source(config.data, seed=config.seed, progress=progress)
    config, model = _resolve(config, found)
    backbone = backbones.parse(config.model.backbone)[0]
    images = len(found.indices("train"))
    phases = []
    for one in config.phases:
        cut = split(model, one.blocks or 0, backbone)
        freeze(cut, one.batch_norm)
        trainable = sum(np.prod(v.shape) for v in cut.suffix.trainable_variables)
        phases.append(
            {
                "name": one.name,
                "blocks": one.blocks,
                "epochs": one.epochs,
                "steps": one.epochs * math.ceil(images / one.batch_size),
                "learning_rate": one.learning_rate,
                "trainable_parameters": int(trainable),
            }
        )
    return {
        "backbone": config.model.backbone,
        "image_size": config.model.image_size,
        "weights": config.model.weights,
        "images": found.counts(),
        "skipped": [list(pair) for pair in found.skipped],
        "blocks": [
            {"name": b.name, "layers": len(b.layers), "parameters": b.parameters}
            for b in list_blocks(model, backbone)
        ],
        "parameters": model.count_params(),
        "phases": phases,
    }


def result_of(run: Run, record: dict) -> dict:
    """Picks from run.json what `kerasft train --json` prints."""
    hidden = ("batch_norm_trained", "validation")
    return {
        "run": str(run.path),
        "seconds": record["seconds"],
        "phases": [{k: v for k, v in p.items() if k not in hidden} for p in record["phases"]],
        "best_phase": record["best_phase"],
        "validation": record["validation"],
        "test": record["test"],
    }


@contextmanager
def _nothing_left_behind(absent: Path | None) -> Iterator[None]:
    """Removes the directory that was made if what is typed or given cannot be trained."""
    try:
        yield
    except BaseException:  # Ctrl-C while photos are read, too
        if absent is not None:
            shutil.rmtree(absent, ignore_errors=True)
        raise


def _resolve(config: Config, found: Source) -> tuple[Config, keras.Model]:
    """Writes what the config left open into it, and builds the model to see that it can be."""
    backbone, _ = backbones.parse(config.model.backbone)
    side = config.model.image_size or backbone.image_size
    phases = tuple(
        p.model_copy(update={"blocks": backbone.default_blocks if p.blocks is None else p.blocks})
        for p in config.phases
    )
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update={"image_size": side}),
            "phases": phases,
        }
    )
    model = initial_model(config, len(found.class_names))
    for one in phases:
        split(model, one.blocks or 0, backbone)  # refuses more blocks than there are
    return config, model


def _resolve_new(run: Run, config: Config) -> Config:
    """Settles the appended phase's blocks: deeper than the phase before, by the default."""
    backbone, _ = backbones.parse(config.model.backbone)
    model = load_bundle(run.model_path).model
    new, before = config.phases[-1], config.phases[-2].blocks
    if new.blocks is None:
        deepest = len(list_blocks(model, backbone))
        at = deepest if before == "all" else int(before or 0)
        blocks = min(deepest, at + backbone.default_blocks)
        new = new.model_copy(update={"blocks": blocks})
    split(model, new.blocks or 0, backbone)
    return config.model_copy(update={"phases": (*config.phases[:-1], new)})


def _write_new(run: Run, config: Config, found: Source, device: dict) -> None:
    source.write_splits(found, run.splits_path)
    source.write_classes(found, run.classes_path)
    write_atomic(run.config_path, to_toml(config, run.path))
    record = {
        "schema": 1,
        "status": "running",
        "versions": {
            "kerasft": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")},
        },
        **device,
        "seed": config.seed,
        "seconds": 0.0,
        "skipped": [{"file": path, "reason": reason} for path, reason in found.skipped],
        "phases": [],
        "best_phase": None,
        "validation": None,
        "test": None,
        "test_scored": 0,
    }
    write_record(run, record)


def _go_on(run: Run, config: Config, root: Path, progress: Progress) -> dict:
    """Opens the photos of an existing run and trains the phases that are not finished."""
    record = read_record(run)
    devices.prepare(config.device, threads=record["threads"])
    found = source.open_source(run.splits_path, run.classes_path, root, progress=progress)
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": root})})
    write_record(run, {**record, "status": "running"})
    write_atomic(run.config_path, to_toml(config, run.path))
    return _run_phases(run, config, found, progress)


def _run_phases(run: Run, config: Config, found: Source, progress: Progress) -> dict:
    setting = Setting(run, config, found, progress)
    record = read_record(run)
    for index in range(len(record["phases"]), len(config.phases)):
        best = record["validation"]["loss"] if record["validation"] else math.inf
        done = run_phase(setting, index, best)
        record["phases"].append(done)
        record["seconds"] = round(sum(p["seconds"] for p in record["phases"]), 2)
        if done["improved"]:
            record["best_phase"], record["validation"] = done["name"], done["validation"]
            record["test"] = None  # it belonged to the model before
        write_record(run, record)
        state.clear(run.checkpoints)
    if len(found.indices("test")) and record["test"] is None:
        figures = phase.figures_of(setting, load_bundle(run.model_path), "test")
        interval = wilson(round(figures["accuracy"] * figures["n"]), figures["n"])
        record["test"] = {**figures, "ci95": list(interval)}
        record["test_scored"] += 1
    write_record(run, {**record, "status": "finished"})
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return result_of(run, record)


def _refuse_contradiction(run: Run, config: Config) -> None:
    """Stops a resume whose flags or file differ from the run's config (exit code 2)."""
    typed, stored = _flat(config.model_dump()), _flat(load_config(run.config_path).model_dump())
    # Photos may have been moved; what the run resolved may still be open in the file.
    differ = [
        f"  {key}: the run has {stored.get(key)!r}, got {value!r}."
        for key, value in typed.items()
        if key != "data.source" and value is not None and stored.get(key) != value
    ]
    if differ:
        raise UserError(
            f"{run.path} cannot be resumed with another config:\n"
            + "\n".join(differ)
            + "\nLeave these out, or choose another --run.",
            exit_code=2,
        )


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
    if isinstance(tree, dict):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, tuple | list) and tree and isinstance(tree[0], dict):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return {prefix: tree}
    return {
        key: value
        for name, branch in items
        for key, value in _flat(branch, f"{prefix}.{name}" if prefix else name).items()
    }
