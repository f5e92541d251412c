"""A run from its config to model.keras: `train_run`, `continue_run`, `plan_run`.

Example:
    >>> from kerasft import load_config, train_run
    >>> config = load_config(flags={"data.source": "photos"})
    >>> result = train_run(config, "runs/photos")
    >>> result.validation.accuracy
"""

import logging
import math
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kerasft import __version__, devices
from kerasft.activations.context import RunContext
from kerasft.answers import split_csv
from kerasft.confidence import softmax
from kerasft.config.fields import Config, Data, Solved
from kerasft.config.load import load_config, to_toml
from kerasft.config.settled import PhasePlan, Plan
from kerasft.data import scan
from kerasft.data.source import UNUSED, Source
from kerasft.errors import OutOfMemory, PhaseFailed, UserError
from kerasft.files import write_atomic
from kerasft.heads.methods import METHODS
from kerasft.metrics import Figures
from kerasft.models.bundle import Bundle
from kerasft.models.bundle import load as load_bundle
from kerasft.models.net import Net
from kerasft.progress import Progress, silent
from kerasft.record import Device, RunRecord, RunResult
from kerasft.reports.run_page import is_whole, write_light
from kerasft.run import (
    Run,
    create_run,
    how_to_resume,
    lock,
    open_run,
    read_metrics,
    read_record,
    write_metrics,
    write_record,
)
from kerasft.text import class_table, count
from kerasft.trackers import Tracked, tracking
from kerasft.training import checkpoint, phase
from kerasft.training.phase import EndedPhase, run_phase
from kerasft.training.plan import for_device, plan_new
from kerasft.training.reopen import (
    computing_versions,
    config_of,
    is_finished,
    next_phase,
    open_photos,
    prepare_again,
    refuse_contradiction,
)
from kerasft.training.start import start_net
from kerasft.training.trainable import Trainable, open_trainable

log = logging.getLogger("kerasft")

SHORTEST_REPORT, SHARE_OF_REPORT = 2.0, 0.1  # seconds, share of the run, whichever is more


def train_run(
    config: Config,
    run_dir: str | Path,
    *,
    resume: bool = False,
    found: Source | None = None,
    score_test: bool = True,
    progress: Progress = silent,
) -> RunResult:
    """Trains all phases of a config that its run has not finished yet.

    Args:
        config: the config, from `load_config`.
        run_dir: the run directory to make; one that exists is refused.
        resume: whether an unfinished run is continued, at its first unfinished epoch. With an
            absent or empty directory a new run starts.
        found: the photos, if `scan.scan_source` has already read them with this config's data,
            seed and weights; None reads them.
        score_test: whether the test split is scored at the end; if not, the result's `test` is
            None. Without it the run counts as a trial, of which MLflow is not told.
        progress: the callback that receives each `progress.Event`.

    Raises:
        UserError: a problem with config, photos, weights or disk. Nothing is written then,
            unless training had begun.
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
                found = _scan(config, progress)
            log.info("%s", "\n".join(class_table(found.counts())))
            plan, net = plan_new(config, found, device)
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
) -> RunResult:
    """Appends a phase to a finished run: moves the cut left and trains at a low learning rate.

    Args:
        run_dir: the directory of a finished run.
        flags: values of the new phase by dotted key, such as `{"phases.-1.blocks": 3}`. Without
            "blocks", it trains the backbone's default number more than the phase before.
        sets: texts "key=value" of the same keys, such as `["phases.-1.ema=0.99"]`.
        data: the place of the photos now, if they were moved.
        resume: whether the unfinished last phase is continued instead.
        found: the photos, if they have already been read; None reads them.
        score_test: whether the test split is scored at the end.
        progress: the callback that receives each `progress.Event`.

    Returns:
        The result of all phases, earlier ones included.

    Raises:
        UserError: the directory holds no run, or an unfinished one; the phase has more blocks
            than there are; photos are missing.
    """
    began = time.perf_counter()
    run = open_run(Path(run_dir))
    with lock(run):
        if resume:
            refuse_contradiction(run, load_config(run.config_path, flags=flags, sets=sets))
            return _resume(run, data, progress, began, found, score_test)
        context, net = next_phase(
            run, flags=flags or {}, sets=sets, data=data, found=found, progress=progress
        )
        return _go_on(context, began, net, score_test=score_test)


@dataclass(frozen=True, eq=False)
class DryRun:
    """The plan of a run that is not trained: what `train_run` would do.

    Attributes:
        plan: the settled config.
        source: the photos.
        net: the net that the run would begin with.
        phases: the phases, set up for training; None for one whose head is solved.
    """

    plan: Plan
    source: Source
    net: Net
    phases: tuple[Trainable | None, ...]

    def to_json(self) -> dict:
        """Returns the plan that a dry run of `kerasft train` prints as JSON.

        `{"backbone", "image_size", "weights", "splits_from", "images": {class: {split: n}},
        "unused", "groups", "skipped", "scan": {"files", "read", "seconds"},
        "blocks": [{"name", "layers", "parameters"}], "parameters",
        "phases": [{"name", "blocks", "epochs", "steps", "head_start", "learning_rate", "precision",
        "trainable_parameters", "stored", "why", "passes", "bytes"}]}`, blocks from the top; the
        last four are `settled.Storing`. A solved phase has "method" where a trained one has
        "epochs" to "trainable_parameters".
        """
        config, source = self.plan.config, self.source
        return {
            "backbone": config.model.backbone,
            "image_size": self.plan.image_size,
            "weights": config.model.weights,
            "splits_from": source.splits_from and str(source.splits_from),
            "images": source.counts(),
            "unused": len(source.indices(UNUSED)),
            "groups": len(set(source.groups) - {""}),
            "skipped": [list(pair) for pair in source.skipped],
            "scan": source.scan and source.scan.to_json(),
            "blocks": [
                {"name": b.name, "layers": len(b.layers), "parameters": b.parameters}
                for b in self.net.blocks
            ],
            "parameters": self.net.model.count_params(),
            "phases": [
                _phase_json(planned, trainable)
                for planned, trainable in zip(self.plan.phases, self.phases, strict=True)
            ],
        }


def _phase_json(planned: PhasePlan, trainable: Trainable | None) -> Mapping[str, object]:
    facts: dict[str, object] = {"name": planned.name, "blocks": planned.blocks}
    if isinstance(planned.settings, Solved):
        facts["method"] = planned.settings.method
    if trainable is not None:
        facts |= {
            "epochs": trainable.phase.epochs,
            "steps": trainable.phase.epochs * trainable.steps_per_epoch,
            "head_start": trainable.phase.head_start,
            "learning_rate": trainable.phase.learning_rate,
            "precision": trainable.phase.precision,
            "trainable_parameters": trainable.parameters,
        }
    return {**facts, **vars(planned.storing)}


def plan_run(config: Config, *, found: Source | None = None, progress: Progress = silent) -> DryRun:
    """Checks config, data and weights, and returns what `train_run` would do. Trains nothing.

    Args:
        config: the config, from `load_config`.
        found: the photos, if they have already been read; None reads them.
        progress: the callback that receives each `progress.Event`.

    Raises:
        UserError: a problem with config, photos or weights.
    """
    device = devices.prepare(config.device)
    source = found or _scan(config, progress)
    plan, net = plan_new(config, source, device)
    images = len(source.indices("train"))
    phases = tuple(
        None if isinstance(phase.settings, Solved) else open_trainable(plan, index, net, images)
        for index, phase in enumerate(plan.phases)
    )
    return DryRun(plan, source, net, phases)


def _scan(config: Config, progress: Progress) -> Source:
    """Reads and splits the photos of a new run."""
    weights = config.model.weights
    return scan.scan_source(config.data, seed=config.seed, weights=weights, progress=progress)


@contextmanager
def _nothing_left_behind(run: Run, made: list[Path]) -> Iterator[None]:
    """Removes the files of a new run if the block fails, before training begins.

    Args:
        run: the new run.
        made: the run directory and the parents that were absent, innermost first.
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


def _write_new(run: Run, config: Config, found: Source, device: Device) -> None:
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # of a run that was taken back, perhaps of
    for path in (run.metrics_path, run.answers_path):  # another config
        path.unlink(missing_ok=True)
    scan.write_splits(found, run.splits_path)
    scan.write_classes(found, run.classes_path)
    write_atomic(run.config_path, to_toml(config, run.path))
    versions = computing_versions()
    record = RunRecord(
        status="running",
        versions={"kerasft": __version__, "python": platform.python_version(), **versions},
        machine=device,
        seed=config.seed,
        skipped=tuple({"file": path, "reason": reason} for path, reason in found.skipped),
    )
    write_record(run, record)


def _resume(
    run: Run,
    data: Data | str | Path | None,
    progress: Progress,
    began: float,
    found: Source | None,
    score_test: bool,
) -> RunResult:
    record, config = read_record(run), config_of(run, data)
    finished = is_finished(record, config)
    if finished:
        log.info("%s is finished: there is nothing to resume.", run.path)
    if finished and not run.checkpoints.exists():
        return RunResult.of(run.path, record)
    device = prepare_again(config, record)
    config = for_device(config, device)
    found = found or open_photos(run, config.data, progress)
    context = RunContext(run, Plan.of(config), found, progress, device)
    if finished:  # but it was ended before it was closed
        _close(context, record, None, score_test=score_test)
        return RunResult.of(run.path, record)
    return _go_on(context, began, score_test=score_test)


def _go_on(
    context: RunContext, began: float, net: Net | None = None, *, score_test: bool
) -> RunResult:
    """Trains the phases of an existing run that are not finished; see `_run_phases`."""
    run = context.run
    write_atomic(run.config_path, to_toml(context.config, run.path))
    write_record(run, replace(read_record(run), status="running"))
    return _run_phases(context, began, net, score_test=score_test)


def _run_phases(
    context: RunContext, began: float, net: Net | None = None, *, score_test: bool
) -> RunResult:
    """Trains the phases that are not finished.

    Args:
        context: the run.
        began: time at which this process began with the run, from `time.perf_counter`.
        net: the net that the first of these phases begins with; None opens it.
        score_test: whether the test split is scored at the end.
    """
    run, config = context.run, context.config
    tracked = Tracked(run, config.model_dump(mode="json"), whole=score_test)
    with tracking(tracked) as trackers:
        watched = replace(context, progress=trackers.watching(context.progress))
        record = _train_phases(watched, began, net, score_test=score_test)
    if score_test:  # trials of a comparison are not the result of anything
        _warn_of_classes_never_predicted(context, record)
    return RunResult.of(run.path, record)


def _train_phases(
    context: RunContext, began: float, net: Net | None, *, score_test: bool
) -> RunRecord:
    """Trains the phases that are not finished; see `_run_phases`. Returns the run's record."""
    run, config = context.run, context.config
    record = read_record(run)
    earlier = record.seconds  # of the processes before this one

    def so_far() -> float:
        return round(earlier + time.perf_counter() - began, 2)

    ended = None  # the phase that model.keras is of, if this process has trained it
    for index in range(len(record.phases), len(config.phases)):
        best = record.validation.loss if record.validation else math.inf
        try:
            checkpoint.begin(run.checkpoints, config.phases[index].name)
            now = run_phase(context, index, start_net(context, index, net), best)
        except PhaseFailed:
            _drop_phase(context, index, record, score_test)
            raise
        except OutOfMemory as error:
            again = how_to_resume(run, error.sets)
            raise UserError(f"{error}\n  The run is kept; to go on: `{again}`") from error
        net = None  # the next phase begins with what this one has saved
        if now.result.improved and record.abstention:
            log.info(
                "The threshold of %.3f belonged to the earlier model, and is dropped: "
                "`kerasft calibrate` sets a new one.",
                record.abstention.threshold,
            )
        record = replace(record.with_phase(now.result), seconds=so_far())
        ended = now if now.result.improved else ended
        write_record(run, record)
        checkpoint.clear(run.checkpoints)
        if score_test and index + 1 < len(config.phases):
            _write_report(context, record, ended)
    model = ended.saved if ended else None
    record = replace(_finish(context, record, model, score_test=score_test), seconds=so_far())
    write_record(run, record)
    _close(context, record, ended, score_test=score_test)
    return record


def _close(
    context: RunContext, record: RunRecord, ended: EndedPhase | None, *, score_test: bool
) -> None:
    """Writes the page of a finished run and removes its checkpoints; see `_write_report`.

    The checkpoints go last: a finished run that has them still is closed when it is resumed.
    """
    if score_test:  # trials of a comparison are not the result of anything
        _write_report(context, record, ended)
    shutil.rmtree(context.run.checkpoints, ignore_errors=True)


def _write_report(context: RunContext, record: RunRecord, ended: EndedPhase | None) -> None:
    """Writes the page of the run from what is at hand, in at most a tenth of the run's time.

    Args:
        context: the run.
        record: its record, with the phase that has just ended.
        ended: the phase that model.keras is of; None if another process has trained it, so that
            it is scored again.
    """
    run = context.run
    if not context.config.report:
        return
    if ended is None and is_whole(run):
        log.info("report.html stays as it is; `kerasft report` writes it anew.")
        return
    try:
        if ended:
            model, logits = ended.saved, ended.logits
        else:
            model = load_bundle(run.model_path)
            logits = phase.logits_of(context, model, "validation")
        scores = softmax(logits / model.temperature)
        allowed = max(SHORTEST_REPORT, SHARE_OF_REPORT * record.seconds)
        write_light(run, context.source, record, scores=scores, logits=logits, seconds=allowed)
    except Exception as error:  # the model is there, and the command writes the page again
        log.warning("The report was not written: %s", error)


def _warn_of_classes_never_predicted(context: RunContext, record: RunRecord) -> None:
    """Warns of rare classes that model.keras takes no validation image for; tells of others."""
    names = record.validation.never_predicted if record.validation else ()
    if not names:
        return
    counts = context.source.counts()
    each = len(context.source.indices("train")) / len(counts)
    rare = [name for name in names if counts[name]["train"] < each / 2]
    phase = len(context.config.phases) - 1
    settings = context.config.phases[phase]
    can_weigh = not (isinstance(settings, Solved) and METHODS[settings.method].unbalanced)
    weighted = settings.class_weight == "balanced"
    shown = []
    for name in names[:5]:
        images = counts[name]["train"]
        shown.append(f"'{name}' ({count(images, 'training image')})")
    advice = (
        f" `phases.{phase}.class_weight=balanced` lets rare classes weigh as much as the others in "
        "the loss, as the recipe imbalanced.toml does."
    )
    log.log(
        logging.WARNING if rare else logging.INFO,
        "%s never predicted on validation: %s%s.%s",
        "This class is" if len(names) == 1 else count(names, "class", "are"),
        ", ".join(shown),
        ", ..." if len(names) > 5 else "",
        advice if rare and can_weigh and not weighted else "",
    )


def _finish(
    context: RunContext, record: RunRecord, model: Bundle | None = None, *, score_test: bool
) -> RunRecord:
    """Scores the test split, once for each model.keras, and records that the run is finished.

    Args:
        context: the run.
        record: the run's record so far.
        model: content of model.keras; None loads it.
        score_test: whether the test split is scored.
    """
    run = context.run
    if score_test and len(context.source.indices("test")) and record.test is None:
        model = model or load_bundle(run.model_path)
        record = record.with_test(_scored_on_test(context, record, model))
    record = replace(record, status="finished")
    write_record(run, record)
    return record


def _scored_on_test(context: RunContext, record: RunRecord, model: Bundle) -> Figures:
    """Scores model.keras on the test split, and writes its answers and what is kept of photos."""
    labels, source = context.labels("test"), context.source
    plain, features = phase.outputs_of(context, model, "test")
    logits = plain / model.temperature
    if features is not None:
        phase.remember(context, record, model, features)
    photos = [source.paths[i] for i in source.indices("test").tolist()]
    table = split_csv(photos, labels, model.class_names, softmax(logits), logits)
    write_atomic(context.run.test_path, table)
    return Figures.by_class(logits, labels, model.class_names)


def _drop_phase(context: RunContext, index: int, record: RunRecord, score_test: bool) -> None:
    """Removes a failed phase from the run, because it would fail again when resumed."""
    run, config = context.run, context.config
    if index == 0:  # there is no model: the directory can be used again
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.record_path.unlink()  # without it, the rest is that of a run that never began
        for path in (run.splits_path, run.classes_path, run.config_path, run.metrics_path):
            path.unlink(missing_ok=True)
        return
    kept = {one.name for one in config.phases[:index]}
    write_metrics(run, [line for line in read_metrics(run) if line["phase"] in kept])
    shorter = config.model_copy(update={"phases": config.phases[:index]})
    write_atomic(run.config_path, to_toml(shorter, run.path))
    _finish(context, record, score_test=score_test)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
