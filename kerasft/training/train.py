"""A run from its config to model.keras: `train_run`, `continue_run`, `plan_run`.

Example:
    >>> from kerasft import load_config, train_run
    >>> config = load_config(flags={"data.source": "photos"})
    >>> result = train_run(config, "runs/photos")
    >>> result["validation"]["accuracy"]
"""

import importlib.metadata
import logging
import math
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import keras

from kerasft import __version__, devices
from kerasft.activations.context import RunContext
from kerasft.config.fields import Config, Data, Solved
from kerasft.config.load import load_config, to_toml
from kerasft.config.settled import Plan
from kerasft.data import scan
from kerasft.data.source import UNUSED, Source
from kerasft.errors import PhaseFailed
from kerasft.files import write_atomic
from kerasft.metrics import wilson
from kerasft.models.bundle import Bundle
from kerasft.models.bundle import load as load_bundle
from kerasft.models.net import Net
from kerasft.progress import Progress, silent
from kerasft.run import (
    Run,
    create_run,
    lock,
    open_run,
    read_metrics,
    read_record,
    write_metrics,
    write_record,
)
from kerasft.training import checkpoint, phase
from kerasft.training.phase import run_phase
from kerasft.training.plan import for_device, plan_new
from kerasft.training.reopen import (
    config_of,
    is_finished,
    next_phase,
    open_photos,
    prepare_again,
    refuse_contradiction,
)
from kerasft.training.start import start_net
from kerasft.training.trainable import open_trainable

log = logging.getLogger("kerasft")


def train_run(
    config: Config,
    run_dir: str | Path,
    *,
    resume: bool = False,
    found: Source | None = None,
    score_test: bool = True,
    progress: Progress = silent,
) -> dict:
    """Trains all phases of a config that its run has not finished yet.

    Args:
        config: of `load.load_config`.
        run_dir: the run directory; made, and refused if it is there already.
        resume: go on with an unfinished run, at the first epoch that it had not finished.
            On an absent or empty directory a new run starts.
        found: the photos, where `scan.scan_source` has read them by this config's data and
            seed already.
        score_test: False leaves the test split for later; the result's "test" is None then.
        progress: told what happens (`progress.Event`).

    Returns:
        `{"run", "seconds", "phases", "validation", "test"}`, as `kerasft train --json` prints.

    Raises:
        UserError: anything about config, photos, weights or disk that keeps it from training.
            Nothing is written then, unless training had begun.
    """
    began = time.perf_counter()
    run_dir = Path(run_dir)
    made = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    run = create_run(run_dir, resume=resume)
    with lock(run):
        if run.record_path.is_file():
            refuse_contradiction(run, config)
            return _resume(run, config.data, progress, began, found, score_test)
        with _nothing_left_behind(run, made):
            device = devices.prepare(config.device)
            if found is None:
                found = scan.scan_source(config.data, seed=config.seed, progress=progress)
            plan, net = plan_new(config, found, str(device["device"]))
            _write_new(run, plan.config, found, device)
        context = RunContext(run, plan, found, progress, device)
        return _run_phases(context, began, net, score_test=score_test)


def continue_run(
    run_dir: str | Path,
    *,
    flags: Mapping[str, object] | None = None,
    sets: Sequence[str] = (),
    data: str | Path | None = None,
    resume: bool = False,
    found: Source | None = None,
    score_test: bool = True,
    progress: Progress = silent,
) -> dict:
    """Appends a phase to a finished run: moves the cut left and trains at a low rate.

    Args:
        run_dir: of a finished run.
        flags: values of the new phase by dotted key, such as `{"phases.-1.blocks": 3}`. Without
            "blocks" it takes the backbone's default below the blocks of the phase before.
        sets: texts "key=value" of the same keys, such as `["phases.-1.ema=0.99"]`.
        data: where the photos are now, if they were moved.
        resume: go on with the unfinished last phase instead.
        found: the photos, where they are read already.
        score_test: as for `train_run`.
        progress: told what happens.

    Returns:
        As `train_run`, all phases included.

    Raises:
        UserError: not a run, not finished, no such number of blocks, photos gone.
    """
    began = time.perf_counter()
    run = open_run(Path(run_dir))
    with lock(run):
        if resume:
            refuse_contradiction(run, load_config(run.config_path, flags=flags, sets=sets))
            return _resume(run, data, progress, began, found, score_test)
        context, _ = next_phase(
            run, flags=flags or {}, sets=sets, data=data, found=found, progress=progress
        )
        return _go_on(context, began, score_test=score_test)


def plan_run(config: Config, *, progress: Progress = silent) -> dict:
    """Checks config, data and weights, and says what `train_run` would do. Trains nothing.

    Returns:
        `{"backbone", "image_size", "weights", "images": {class: {split: n}}, "unused", "groups",
        "skipped", "blocks": [{"name", "layers", "parameters"}], "parameters", "phases": [{"name",
        "blocks", "epochs", "steps", "learning_rate", "trainable_parameters", "stored", "why",
        "passes", "bytes"}]}`, blocks from the top; the last four are `plan.Storing`. A phase
        that is solved has "method" in the place of what a trained one has from "epochs" on.
    """
    device = devices.prepare(config.device)
    found = scan.scan_source(config.data, seed=config.seed, progress=progress)
    plan, net = plan_new(config, found, str(device["device"]))
    config, images = plan.config, len(found.indices("train"))
    phases = []
    for index, planned in enumerate(plan.phases):
        facts: dict[str, object] = {"name": planned.name, "blocks": planned.blocks}
        if isinstance(planned.settings, Solved):
            facts["method"] = planned.settings.method
        else:
            trainable = open_trainable(plan, index, net, images)
            facts |= {
                "epochs": trainable.phase.epochs,
                "steps": trainable.phase.epochs * trainable.steps_per_epoch,
                "learning_rate": trainable.phase.learning_rate,
                "trainable_parameters": trainable.parameters,
            }
        phases.append({**facts, **vars(planned.storing)})
    return {
        "backbone": config.model.backbone,
        "image_size": config.model.image_size,
        "weights": config.model.weights,
        "images": found.counts(),
        "unused": len(found.indices(UNUSED)),
        "groups": len(set(found.groups) - {""}),
        "skipped": [list(pair) for pair in found.skipped],
        "blocks": [
            {"name": b.name, "layers": len(b.layers), "parameters": b.parameters}
            for b in net.blocks
        ],
        "parameters": net.model.count_params(),
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
def _nothing_left_behind(run: Run, made: list[Path]) -> Iterator[None]:
    """Removes what was made if what is typed or given cannot be trained.

    Args:
        run: the new run.
        made: its directory and the parents that were absent, innermost first.
    """
    try:
        yield
    except BaseException:  # Ctrl-C while photos are read, too
        if made:
            shutil.rmtree(made[0], ignore_errors=True)
        for path in (run.splits_path, run.classes_path, run.config_path, run.record_path):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: another run is in it
            for parent in made[1:]:
                parent.rmdir()
        raise


def _write_new(run: Run, config: Config, found: Source, device: dict) -> None:
    scan.write_splits(found, run.splits_path)
    scan.write_classes(found, run.classes_path)
    write_atomic(run.config_path, to_toml(config, run.path))
    record = {
        "schema": 1,
        "status": "running",
        "versions": {
            "kerasft": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _computing_packages()},
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


def _computing_packages() -> list[str]:
    names = ["keras", "tensorflow", keras.backend.backend(), "numpy"]
    return list(dict.fromkeys(names))


def _resume(
    run: Run,
    data: Data | str | Path | None,
    progress: Progress,
    began: float,
    found: Source | None,
    score_test: bool,
) -> dict:
    record, config = read_record(run), config_of(run, data)
    if is_finished(record, config):
        log.info("%s is finished: there is nothing to resume.", run.path)
        return result_of(run, record)
    device = prepare_again(config, record)
    config = for_device(config, device)
    found = found or open_photos(run, config.data, progress)
    context = RunContext(run, Plan.of(config), found, progress, device)
    return _go_on(context, began, score_test=score_test)


def _go_on(context: RunContext, began: float, *, score_test: bool) -> dict:
    """Trains the phases of an existing run that are not finished."""
    run = context.run
    write_atomic(run.config_path, to_toml(context.config, run.path))
    write_record(run, {**read_record(run), "status": "running"})
    return _run_phases(context, began, score_test=score_test)


def _run_phases(
    context: RunContext, began: float, net: Net | None = None, *, score_test: bool
) -> dict:
    """Trains the phases that are not finished.

    Args:
        context: the run.
        began: when this process began with it, by `time.perf_counter`.
        net: the net that the first of them begins with; None opens it.
        score_test: whether the test split is scored at the end.
    """
    run, config = context.run, context.config
    record = read_record(run)
    earlier = record["seconds"]  # of the processes before this one
    model = None  # what model.keras holds, if this process has loaded it
    for index in range(len(record["phases"]), len(config.phases)):
        best = record["validation"]["loss"] if record["validation"] else math.inf
        try:
            checkpoint.begin(run.checkpoints, config.phases[index].name)
            done, saved = run_phase(context, index, net or start_net(context, index), best)
        except PhaseFailed:
            _drop_phase(context, index, record, score_test)
            raise
        net = None  # the next phase begins with what this one has saved
        record["phases"].append(done)
        record["seconds"] = round(earlier + time.perf_counter() - began, 2)
        if done["improved"]:
            model = saved
            record["best_phase"], record["validation"] = done["name"], done["validation"]
            record["test"] = None  # it belonged to the model before
        write_record(run, record)
        checkpoint.clear(run.checkpoints)
    _finish(context, record, model, score_test=score_test)
    record["seconds"] = round(earlier + time.perf_counter() - began, 2)
    write_record(run, record)
    return result_of(run, record)


def _finish(
    context: RunContext, record: dict, model: Bundle | None = None, *, score_test: bool
) -> None:
    """Scores the test split, once for each model.keras, and closes the run.

    Args:
        context: the run.
        record: of it.
        model: what model.keras holds; None: it is loaded.
        score_test: whether to.
    """
    run = context.run
    if score_test and len(context.source.indices("test")) and record["test"] is None:
        figures = phase.figures_of(context, model or load_bundle(run.model_path), "test")
        interval = wilson(round(figures.accuracy * figures.n), figures.n)
        record["test"] = {**figures.to_json(), "ci95": list(interval)}
        record["test_scored"] += 1
    record["status"] = "finished"
    write_record(run, record)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _drop_phase(context: RunContext, index: int, record: dict, score_test: bool) -> None:
    """Takes a phase that failed for good out of the run; it would fail again when resumed."""
    run, config = context.run, context.config
    if index == 0:  # there is no model: the directory can be used again
        for path in (run.splits_path, run.classes_path, run.config_path, run.metrics_path):
            path.unlink(missing_ok=True)
        run.record_path.unlink()
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return
    kept = {one.name for one in config.phases[:index]}
    write_metrics(run, [line for line in read_metrics(run) if line["phase"] in kept])
    shorter = config.model_copy(update={"phases": config.phases[:index]})
    write_atomic(run.config_path, to_toml(shorter, run.path))
    _finish(context, record, score_test=score_test)
