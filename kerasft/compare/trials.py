"""One entry of a comparison: a way on a backbone, for one seed and one share of the photos.

    learning rates -> a run each -> validation chooses one -> validation and test, image by image

An entry is written down when it is made. The run that was chosen stays beside it for ways that go
on from there.

Shapes: N images, K classes.
"""

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.metrics import f1_score

from kerasft.activations.context import SCORING_BATCH
from kerasft.backbones.imagenet_classes import Matches, match_classes, scores_of
from kerasft.compare.ways import AS_IS, WAYS, config_of_way, rates_of
from kerasft.config.fields import Config
from kerasft.config.load import load_config
from kerasft.config.weights_names import weights_for
from kerasft.data import scan
from kerasft.data.source import Source
from kerasft.errors import OutOfTime
from kerasft.evaluation import target
from kerasft.evaluation.evaluate import batches_of
from kerasft.files import write_atomic
from kerasft.metrics import log_loss
from kerasft.models import bundle
from kerasft.models.bundle import Bundle, score
from kerasft.progress import Event, Progress
from kerasft.run import Run, read_record
from kerasft.training.train import continue_run, train_run


@dataclass(frozen=True)
class Request:
    """What is to be compared.

    Attributes:
        flags: data and model, by dotted key of the config.
        sets: `--set` of the command line.
        backbones: specs, several joined by "+" in one of them; none: that of the weights, or the
            default one.
        ways: names of WAYS; None takes the default ones, and those of the others that a
            budget has time for.
        seeds: how many: 0, 1, ...
        fractions: of the training images.
    """

    flags: Mapping[str, object]
    sets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    ways: tuple[str, ...] | None = None
    seeds: int = 1
    fractions: tuple[float, ...] = (1.0,)


@dataclass
class Comparison:
    """A comparison at work: where it is, what was asked, when it has to stop, whom to tell."""

    out: Path
    request: Request
    deadline: float
    progress: Progress
    entries: list[dict] = field(default_factory=list)
    sources: dict[tuple[int, float], Source] = field(default_factory=dict)

    def watched(self, event: Event) -> None:
        """Hands on what a bar shows, and ends the training when the time is over."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
        if event.stage in ("images", "unpack", "pass", "batch", "check"):
            self.progress(event)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True)
class Trial:
    """One entry's place in the comparison."""

    seed: int
    fraction: float
    backbone: str
    way: str

    @property
    def name(self) -> str:
        """A file's name: "MobileNetV2-svm-seed0-1"."""
        backbone = re.sub(r"[^A-Za-z0-9.=+]", "-", self.backbone)
        return f"{backbone}-{self.way}-seed{self.seed}-{self.fraction:g}"


def flags_for(request: Request, backbone: str) -> dict[str, object]:
    """What was asked for, with one backbone and those of the weights that belong to it."""
    flags = {**request.flags, "model.backbone": backbone}
    if weights := request.flags.get("model.weights"):
        flags["model.weights"] = weights_for(str(weights), backbone)
    return flags


def config_of(comparison: Comparison, trial: Trial) -> Config:
    """The config of a place's run, but for the learning rate; as-is has that of "linear"."""
    flags = {**flags_for(comparison.request, trial.backbone), "seed": trial.seed}
    if trial.fraction < 1:
        flags["data.fraction"] = trial.fraction
    way = "linear" if trial.way == AS_IS else trial.way
    return config_of_way(way, flags, comparison.request.sets)


def photos_of(comparison: Comparison, trial: Trial) -> Source:
    """The photos, divided by the seed; the same for every way and backbone."""
    key = (trial.seed, trial.fraction)
    if key not in comparison.sources:
        config = config_of(comparison, trial)
        comparison.sources[key] = scan.scan_source(
            config.data, seed=config.seed, progress=comparison.progress
        )
    return comparison.sources[key]


def with_run(comparison: Comparison, trial: Trial) -> dict:
    """The entry of one place, made anew if its run is not there any more."""
    entry = entry_of(comparison, trial)
    if entry["run"] and not Run(comparison.out / entry["run"]).record_path.is_file():
        _file_of(comparison, trial).unlink()
        entry = entry_of(comparison, trial)
    return entry


def is_made(comparison: Comparison, trial: Trial) -> bool:
    """Whether the entry of one place is written down, so that it takes no time any more."""
    return _file_of(comparison, trial).is_file()


def _file_of(comparison: Comparison, trial: Trial) -> Path:
    return comparison.out / "entries" / f"{trial.name}.json"


def entry_of(comparison: Comparison, trial: Trial) -> dict:
    """The entry of one place: read, or made now, or one that the budget has stopped.

    Returns:
        `{"name", "backbone", "seed", "fraction", "stopped", "note", "val_accuracy", "val_loss",
        "test_accuracy", "test_loss", "macro_f1", "seconds", "pass_seconds", "ms_per_image",
        "size_mb", "converged", "settings", "tried", "notes", "val_right", "test_right", "classes",
        "n_test", "mapping", "run"}`; figures are None where there are none.
    """
    path = _file_of(comparison, trial)
    if path.is_file():
        return json.loads(path.read_text("utf-8"))
    try:
        if comparison.left() <= 0:
            raise OutOfTime
        made = _as_is(comparison, trial) if trial.way == AS_IS else _of_runs(comparison, trial)
    except OutOfTime:
        return {**_blank(trial), "stopped": True, "note": "stopped: the budget was used up"}
    entry = {**_blank(trial), **made}
    write_atomic(path, json.dumps(entry) + "\n")
    keras.backend.clear_session()
    return entry


_NONE = (
    *("val_accuracy", "val_loss", "test_accuracy", "test_loss", "macro_f1", "seconds"),
    "ms_per_image",
    *("size_mb", "converged", "settings", "val_right", "test_right", "classes", "n_test", "run"),
)


def _blank(trial: Trial) -> dict:
    known = {"name": trial.way, "backbone": trial.backbone, "seed": trial.seed}
    known |= {"fraction": trial.fraction, "stopped": False, "note": "", "pass_seconds": 0.0}
    return {**known, **dict.fromkeys(_NONE), "tried": [], "notes": [], "mapping": []}


def _of_runs(comparison: Comparison, trial: Trial) -> dict:
    """Tries the settings of a way, and measures the one that validation prefers."""
    config, way = config_of(comparison, trial), WAYS[trial.way]
    found = photos_of(comparison, trial)
    rates: Sequence[float | None] = rates_of(trial.way, config) if way.trained else [None]
    begun = with_run(comparison, _start_of(trial)) if way.start else None
    if begun and begun["stopped"]:
        raise OutOfTime
    tried = []
    for rate in rates:
        name = trial.name if rate is None else f"{trial.name}-{rate:g}"
        path = comparison.out / "runs" / name
        if begun:
            result = _continued(
                comparison, path, comparison.out / begun["run"], trial.way, rate, found
            )
        else:
            result = train_run(
                _with(config, rate),
                path,
                resume=True,
                found=found,
                score_test=False,
                progress=comparison.watched,
            )
        settings = {"learning_rate": rate} if rate else result["phases"][-1]["parameters"]
        tried.append({"settings": settings, "run": f"runs/{name}", **_tried(result)})
    best = min(tried, key=lambda one: one["val_loss"])
    for one in tried:
        if one is not best:
            shutil.rmtree(comparison.out / one["run"], ignore_errors=True)
    path = Run(comparison.out / best["run"]).model_path
    measured = _measured(comparison, bundle.load(path), found)
    spent = sum(one["seconds"] for one in tried)
    return {
        **measured,
        "seconds": spent + (begun["seconds"] if begun else 0.0),
        "pass_seconds": sum(one["pass_seconds"] for one in tried),
        "size_mb": path.stat().st_size / 1e6,
        "converged": best["converged"],
        "settings": best["settings"],
        "notes": best["notes"],
        "tried": [{k: v for k, v in one.items() if k not in ("run", "notes")} for one in tried],
        "run": best["run"],
    }


def _start_of(trial: Trial) -> Trial:
    start = WAYS[trial.way].start
    assert start is not None
    return Trial(trial.seed, trial.fraction, trial.backbone, start)


def _with(config: Config, rate: float | None) -> Config:
    """The config with that learning rate in its first phase; None: as it is."""
    if rate is None:
        return config
    first = config.phases[0].model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"phases": (first, *config.phases[1:])})


def _continued(
    comparison: Comparison,
    path: Path,
    start: Path,
    way: str,
    rate: float | None,
    found: Source,
) -> dict:
    """A phase more on a copy of a run."""
    run, first = Run(path), Run(start)
    if not run.record_path.is_file():
        copy = path.with_name(".copy")
        for cut_off in (path, copy):
            shutil.rmtree(cut_off, ignore_errors=True)
        shutil.copytree(start, copy)
        copy.replace(path)
    flags = {"phases.-1.learning_rate": rate, **WAYS[way].flags}
    phases, before = (len(load_config(one.config_path).phases) for one in (run, first))
    begun = phases > before
    result = continue_run(
        path,
        flags={} if begun else flags,
        resume=begun,
        found=found,
        score_test=False,
        progress=comparison.watched,
    )
    seconds = result["seconds"] - read_record(first)["seconds"]
    return {**result, "seconds": seconds, "phases": result["phases"][-1:]}


def _tried(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run that was tried."""
    last = result["phases"][-1]
    passes = sum(
        part["seconds"]
        for phase in result["phases"]
        for part in phase["parts"]
        if part["name"] == "prefix pass"
    )
    converged = last.get("converged")
    if converged is None:  # the loss stopped falling before the steps did
        converged = last["best_epoch"] < last["epochs"]
    return {
        "val_accuracy": result["validation"]["accuracy"],
        "val_loss": result["validation"]["loss"],
        "seconds": result["seconds"] - passes,
        "pass_seconds": passes,
        "converged": converged,
        "notes": last.get("notes", []),
    }


def _measured(
    comparison: Comparison, model: Bundle, found: Source, matches: Matches | None = None
) -> dict[str, Any]:
    """Scores a model on validation and test, image by image, and times it.

    Args:
        comparison: told of the batches.
        model: with the classes of the photos, or with `matches` those of ImageNet.
        found: the photos.
        matches: which classes of ImageNet those of the photos are; the others are left out.
    """
    known = np.arange(len(found.class_names)) if matches is None else np.array(matches.mapped)
    made: dict[str, Any] = {"classes": len(known)}
    for short, split in (("val", "validation"), ("test", "test")):
        labels = found.labels[found.indices(split)]
        chosen = np.isin(labels, known)
        if not chosen.any():
            continue
        batches = batches_of(found, split, model)
        scores, logits = score(model, batches, total=len(labels), progress=comparison.watched)
        if matches is not None:
            scores = scores_of(matches, scores)
            logits = np.log(scores + 1e-12)
        made |= _figures(short, scores[chosen], labels[chosen])
        made[f"{short}_loss"] = log_loss(logits[chosen], labels[chosen])
    made["ms_per_image"] = _milliseconds(model.scores_and_logits, model.image_size)
    return made


def _figures(short: str, scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    right = scores.argmax(axis=1) == labels
    made: dict[str, Any] = {f"{short}_accuracy": float(right.mean())}
    made[f"{short}_right"] = right.astype(int).tolist()
    if short == "test":
        made["macro_f1"] = float(f1_score(labels, scores.argmax(axis=1), average="macro"))
        made["n_test"] = len(labels)
    return made


def _milliseconds(model: keras.Model, side: int) -> float:
    """Milliseconds that an image takes in a batch of SCORING_BATCH, the best of three.

    Args:
        model: one that has scored images already, so that its graph is there.
        side: of its images, pixels.
    """
    pixels = np.zeros((SCORING_BATCH, side, side, 3), np.float32)
    model.predict_on_batch(pixels)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        model.predict_on_batch(pixels)
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken) / SCORING_BATCH


def _as_is(comparison: Comparison, trial: Trial) -> dict[str, Any]:
    """The pretrained net on the photos of those classes that ImageNet has."""
    found = photos_of(comparison, trial)
    matches = match_classes(found.class_names)
    mapping = [match.to_text() for match in matches.each]
    known = len(matches.mapped)
    if known < 2:
        names = len(found.class_names)
        return {"mapping": mapping, "note": f"{known} of {names} classes are in ImageNet"}
    began = time.perf_counter()
    net = target.open_model(f"{bundle.IMAGENET}{trial.backbone}")
    made = _measured(comparison, net, found, matches)
    made |= {"mapping": mapping, "settings": {}, "seconds": time.perf_counter() - began}
    made["size_mb"] = 4e-6 * net.model.count_params()
    if known < len(found.class_names):
        made["note"] = f"scored on {known} of {len(found.class_names)} classes"
    return made
