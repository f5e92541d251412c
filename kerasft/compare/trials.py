"""One trial of a comparison: a way on a backbone, with one split and one share of the photos.

    learning rates -> a run each -> validation chooses one -> scored on validation and test

An entry is written down as soon as it is made. The chosen run stays beside it for ways that
continue it.

Shapes: N images, K classes.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.metrics import f1_score

from kerasft.activations.context import SCORING_BATCH
from kerasft.backbones.imagenet_classes import Matches, match_classes, scores_of
from kerasft.compare.entry import Entry, SplitResult, TriedSetting
from kerasft.compare.request import (
    Request,
    Trial,
    all_weights,
    config_of,
    refuse_equal_seeds,
)
from kerasft.compare.ways import AS_IS, WAYS, rates_of
from kerasft.config.fields import Config
from kerasft.config.load import load_config
from kerasft.data import scan
from kerasft.data.source import Source
from kerasft.errors import OutOfTime, TooFewPhotos
from kerasft.evaluation.evaluate import batches_of
from kerasft.files import write_atomic
from kerasft.metrics import Answers
from kerasft.models import bundle, target
from kerasft.models.bundle import Bundle, score
from kerasft.progress import Event, Progress
from kerasft.record import PhaseResult, RunResult, Solving
from kerasft.run import Run, read_answers, read_record, write_answers
from kerasft.text import agreeing
from kerasft.training.train import continue_run, train_run
from kerasft.untrusted import checked, read_json

log = logging.getLogger("kerasft")


@dataclass
class Comparison:
    """A comparison at work.

    Attributes:
        out: the folder of the comparison.
        request: the checked request.
        deadline: value of `time.monotonic` at which training stops; infinity without a budget.
        progress: function that is told of what happens.
        entries: entries made or read so far.
        sources: photos by seed and fraction, read so far.
    """

    out: Path
    request: Request
    deadline: float
    progress: Progress
    entries: list[Entry] = field(default_factory=list)
    sources: dict[tuple[int, float], Source] = field(default_factory=dict)

    def watched(self, event: Event) -> None:
        """Passes on events that a progress bar shows; raises OutOfTime after the deadline."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
        if event.stage in ("images", "unpack", "pass", "batch", "check"):
            self.progress(event)

    def left(self) -> float:
        """Returns the seconds until the deadline."""
        return self.deadline - time.monotonic()


def photos_of(comparison: Comparison, trial: Trial) -> Source:
    """Returns the photos with their split, which is the same for every way and backbone."""
    key = (trial.seed, trial.fraction)
    if key not in comparison.sources:
        config = config_of(comparison.request, trial)
        source = scan.scan_source(
            config.data,
            seed=config.seed,
            weights=all_weights(comparison.request),
            progress=comparison.progress,
        )
        refuse_equal_seeds(comparison.request, source)
        comparison.sources[key] = source
    return comparison.sources[key]


def is_made(comparison: Comparison, trial: Trial) -> bool:
    """Returns whether the trial's entry is written down, so that it takes no more time."""
    return _read_entry(file_of(comparison, trial)) is not None


def file_of(comparison: Comparison, trial: Trial) -> Path:
    """Returns the path of a trial's entry, which need not exist."""
    return comparison.out / "entries" / f"{trial.name}.json"


def entry_with_run(comparison: Comparison, trial: Trial) -> Entry:
    """Returns the entry of a trial whose run is there, and makes it anew if the run is not."""
    entry = entry_of(comparison, trial)
    if entry.run and not Run(comparison.out / entry.run).record_path.is_file():
        file_of(comparison, trial).unlink()
        entry = entry_of(comparison, trial)
    return entry


def entry_of(comparison: Comparison, trial: Trial) -> Entry:
    """Returns the entry of a trial: read from its file, or made now and written to it.

    Once the budget is used up the entry is `stopped`, and no file is written.
    """
    path = file_of(comparison, trial)
    found = _read_entry(path)
    if found:
        return found
    try:
        if comparison.left() <= 0:
            raise OutOfTime
        entry = _as_is(comparison, trial) if trial.way == AS_IS else _trained(comparison, trial)
    except TooFewPhotos as error:
        entry = Entry(trial, note=f"left out: {error.message.partition('. ')[0]}")
    except OutOfTime:
        return Entry(trial, stopped=True, note="stopped: the budget was used up")
    if entry.answers:
        write_answers(path.with_suffix(".npz"), {trial.way: entry.answers})
    write_atomic(path, json.dumps(entry.to_json()) + "\n")
    for one in entry.tried:  # now, as without an entry they would be trained again
        run = _run_of(comparison, trial, one.settings.get("learning_rate"))
        if run.path != comparison.out / str(entry.run):
            shutil.rmtree(run.path, ignore_errors=True)
    bundle.forget()
    keras.backend.clear_session()
    return entry


def _read_entry(path: Path) -> Entry | None:
    """Reads an entry; None if there is none, or a damaged one, which is made again."""
    if not path.is_file():
        return None
    try:
        record = checked(read_json(path), Mapping[str, Any])
        entry = Entry.from_json(record)
        if checked(record.get("chosen_among", 1), int) > 1:
            answers = read_answers(path.with_suffix(".npz"))
            entry = replace(entry, answers=answers[entry.trial.way])
        return entry
    except (OSError, ValueError, KeyError):
        log.warning("%s is damaged, so this entry is made again.", path)
        path.unlink()
        return None


def _trained(comparison: Comparison, trial: Trial) -> Entry:
    """Trains a run for each setting of a way, and measures the one that validation prefers."""
    way, config = WAYS[trial.way], config_of(comparison.request, trial)
    start = entry_with_run(comparison, replace(trial, way=way.start)) if way.start else None
    if start and start.stopped:
        raise OutOfTime
    rates: Sequence[float | None] = rates_of(trial.way, config) if way.trained else [None]
    attempts = [_attempt(comparison, trial, rate, start) for rate in rates]
    best = min(attempts, key=lambda attempt: attempt.tried.val_loss)
    seconds = sum(attempt.tried.seconds for attempt in attempts)
    return replace(
        _measured(comparison, trial, bundle.opened(best.run.model_path)),
        seconds=seconds + (start.seconds or 0.0 if start else 0.0),
        pass_seconds=sum(attempt.tried.pass_seconds for attempt in attempts),
        size_mb=best.run.model_path.stat().st_size / 1e6,
        converged=best.tried.converged,
        settings=best.tried.settings,
        notes=best.notes,
        tried=tuple(attempt.tried for attempt in attempts),
        answers=_all_answers(start, attempts),
        run=f"runs/{best.run.path.name}",
    )


@dataclass(frozen=True, eq=False)
class _Attempt:
    """One run of a trial.

    Attributes:
        run: the run.
        tried: its setting and figures.
        notes: remarks of its last phase.
        answers: validation answers of the epochs and settings that its phases tried.
    """

    run: Run
    tried: TriedSetting
    notes: tuple[str, ...]
    answers: tuple[Answers, ...]


def _all_answers(start: Entry | None, attempts: Sequence[_Attempt]) -> Answers | None:
    """Returns the answers of all that validation chose among; None if there was no choice.

    A way that continues another has the other's choice behind it, so that counts too.
    """
    parts = [answers for attempt in attempts for answers in attempt.answers]
    if start and start.answers:
        parts.insert(0, start.answers)
    if sum(len(part.right) for part in parts) < 2:
        return None
    return Answers.joined(parts)


def _attempt(
    comparison: Comparison, trial: Trial, rate: float | None, start: Entry | None
) -> _Attempt:
    """Trains one run, or continues it if it was interrupted.

    Args:
        comparison: the comparison.
        trial: the trial to which the run belongs.
        rate: the learning rate; None where the way solves a head.
        start: the entry whose run is continued by a phase; None starts a new run.
    """
    run = _run_of(comparison, trial, rate)
    if start is None:
        result = train_run(
            _with_rate(config_of(comparison.request, trial), rate),
            run.path,
            resume=True,
            found=photos_of(comparison, trial),
            score_test=False,
            progress=comparison.watched,
        )
        phases, seconds = result.phases, result.seconds
    else:
        first = Run(comparison.out / str(start.run))
        result = _continued(comparison, trial, rate, run=run, first=first)
        phases = result.phases[-1:]
        seconds = result.seconds - read_record(first).seconds
    last = phases[-1]
    if result.validation is None:
        raise ValueError(f"{run.path}: trained, but without figures on validation")
    passes = _pass_seconds(phases)
    tried = TriedSetting(
        settings=last.how.parameters if isinstance(last.how, Solving) else {"learning_rate": rate},
        val_accuracy=result.validation.accuracy,
        val_loss=result.validation.loss,
        seconds=seconds - passes,
        pass_seconds=passes,
        converged=_has_converged(last),
    )
    kept = read_answers(run.answers_path)
    answers = tuple(kept[phase.name] for phase in phases if phase.name in kept)
    return _Attempt(run, tried, _notes_of(last), answers)


def _run_of(comparison: Comparison, trial: Trial, rate: float | None) -> Run:
    """Returns the run of a trial with a learning rate; None where the way solves a head."""
    name = trial.name if rate is None else f"{trial.name}-{rate:g}"
    return Run(comparison.out / "runs" / name)


def _notes_of(phase: PhaseResult) -> tuple[str, ...]:
    """Returns remarks for people; that of a trained phase is its precision, if not the usual."""
    if isinstance(phase.how, Solving):
        return phase.how.notes
    return () if phase.how.precision == "float32" else (f"trained in {phase.how.precision}",)


def _with_rate(config: Config, rate: float | None) -> Config:
    """Returns the config with a learning rate in its first phase; None leaves it as it is."""
    if rate is None:
        return config
    first = config.phases[0].model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"phases": (first, *config.phases[1:])})


def _continued(
    comparison: Comparison, trial: Trial, rate: float | None, *, run: Run, first: Run
) -> RunResult:
    """Trains one more phase on a copy of a run.

    Args:
        comparison: the comparison.
        trial: the trial, whose way says what the phase is.
        rate: the learning rate of the phase.
        run: the copy; made, or resumed if it is there.
        first: the run that is copied.
    """
    if not run.record_path.is_file():
        _copy_run(first, run)
    phases, before = (len(load_config(one.config_path).phases) for one in (run, first))
    begun = phases > before
    flags = {"phases.-1.learning_rate": rate, **WAYS[trial.way].flags}
    return continue_run(
        run.path,
        flags={} if begun else flags,
        resume=begun,
        found=photos_of(comparison, trial),
        score_test=False,
        progress=comparison.watched,
    )


def _copy_run(first: Run, run: Run) -> None:
    """Copies a run, so that the copy is there whole or not at all."""
    copy = run.path.with_name(".copy")
    for cut_off in (run.path, copy):
        shutil.rmtree(cut_off, ignore_errors=True)
    shutil.copytree(first.path, copy)
    copy.replace(run.path)


def _pass_seconds(phases: Sequence[PhaseResult]) -> float:
    parts = [part for phase in phases for part in phase.parts]
    return sum(part.seconds for part in parts if part.name == "prefix pass")


def _has_converged(phase: PhaseResult) -> bool:
    """Returns whether a phase has converged: a solved head says so itself.

    For a trained phase: its best epoch is not the last one, so the loss stopped falling first.
    """
    if isinstance(phase.how, Solving):
        return phase.how.converged is not False
    return phase.how.best_epoch < phase.how.epochs


def _as_is(comparison: Comparison, trial: Trial) -> Entry:
    """Measures the pretrained net on the photos of those classes that ImageNet has."""
    class_names = photos_of(comparison, trial).class_names
    matches = match_classes(class_names)
    mapping = tuple(match.to_text() for match in matches.each)
    known = len(matches.mapped)
    if known < 2:
        note = f"{known} of {len(class_names)} classes {agreeing(known, 'are')} in ImageNet"
        return Entry(trial, note=note, mapping=mapping)
    began = time.perf_counter()
    net = target.open_model(f"{bundle.IMAGENET}{trial.backbone}")
    measured = _measured(comparison, trial, net, matches)
    everything = known == len(class_names)
    return replace(
        measured,
        note="" if everything else f"scored on {known} of {len(class_names)} classes",
        mapping=mapping,
        settings={},
        seconds=time.perf_counter() - began,
        size_mb=4e-6 * net.model.count_params(),
    )


def _measured(
    comparison: Comparison, trial: Trial, model: Bundle, matches: Matches | None = None
) -> Entry:
    """Scores a model on validation and test, image by image, and times it.

    Args:
        comparison: the comparison, whose progress is told of the batches.
        trial: the trial, which says what the photos are.
        model: a model of the photos' classes or, with `matches`, of ImageNet's.
        matches: classes of ImageNet that the photos' classes mean. Photos of classes that mean
            none are left out.

    Returns:
        The entry with its classes, split results, macro F1 and time per image.
    """
    found = photos_of(comparison, trial)
    known = np.arange(len(found.class_names)) if matches is None else np.array(matches.mapped)
    entry = Entry(trial, classes=len(known))
    for split in ("validation", "test"):
        labels = found.labels[found.indices(split)]
        chosen = np.isin(labels, known)
        if not chosen.any():
            continue
        batches = batches_of(found, split, model.rule)
        scores, logits = score(model, batches, total=len(labels), progress=comparison.watched)
        if matches is not None:
            logits = np.log(scores_of(matches, scores) + 1e-12)
        elif split == "test":
            logits = logits / model.temperature  # as shipped; choices on validation are without
        logits, labels = logits[chosen], labels[chosen]
        result = SplitResult.of(logits, labels)
        if split == "validation":
            entry = replace(entry, validation=result)
        else:
            f1 = float(f1_score(labels, logits.argmax(axis=1), average="macro"))
            entry = replace(entry, test=result, macro_f1=f1)
    milliseconds = _milliseconds(model.scores_and_logits, model.rule.image_size)
    return replace(entry, ms_per_image=milliseconds)


def _milliseconds(model: keras.Model, side: int) -> float:
    """Returns the milliseconds that an image takes in a batch of SCORING_BATCH, best of three.

    Args:
        model: a model that has scored images before, so that its graph is traced.
        side: side of its images, pixels.
    """
    pixels = np.zeros((SCORING_BATCH, side, side, 3), np.float32)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        model.predict_on_batch(pixels)
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken) / SCORING_BATCH
