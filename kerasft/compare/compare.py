"""All ways to use a pretrained net on one set of photos: `compare_ways`.

    seeds x fractions x backbones x ways -> an entry each -> rows, winner, advice

An entry is a run or several (one for each learning rate that is tried), of which validation
chooses one; only that one sees the test split. What is finished is written down, so that an
interrupted comparison goes on, and later ways, backbones or seeds are added to it.

Shapes: N images, K classes.
"""

import csv
import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasft import devices, plots
from kerasft.backbones import spec
from kerasft.compare import verdict
from kerasft.compare.trials import (
    Comparison,
    Request,
    Trial,
    config_of,
    entry_of,
    flags_for,
    is_made,
    photos_of,
    with_run,
)
from kerasft.compare.ways import AS_IS, WAYS, config_of_way, rates_of
from kerasft.config.load import load_config, to_toml, unfreeze_defaults
from kerasft.errors import UserError, did_you_mean
from kerasft.files import write_atomic
from kerasft.metrics import wilson
from kerasft.progress import Event, Progress, silent
from kerasft.run import Run, lock, read_record, write_record

RESULT, TABLE, PLOT, CURVE = "compare.json", "compare.csv", "compare.png", "curve.png"

# Of a step in which all is trained, as a multiple of scoring its images, by what BatchNormalization
# does. Measured with 32 images, Adam and random weights on an AMD EPYC: 2.4 to 3.8 where it is
# frozen and 3.8 to 5.5 where it learns (MobileNetV2, MobileNet, EfficientNetB0, ResNet50).
TRAINING_COST = {"frozen": 3.0, "train": 5.0}


def compare_ways(
    request: Request,
    out: Path,
    *,
    budget: float | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> dict:
    """Trains and measures every way that is asked for, and says which to use.

    Args:
        request: what.
        out: the folder for the result; what an earlier call with the same photos and settings
            has finished there is not done again.
        budget: seconds after which nothing more is trained; None: as long as it takes.
        keep: whether the winner stays as a run, `out`/winner, to be continued or exported.
        progress: told what happens; "entry" when a way is done.

    Returns:
        `{"methods": [...], "left_out": [...], "winner", "advice", "classes", "images",
        "pass_seconds", "mapping", "curve", "out", "kept"}`, as `kerasft compare --json` prints.
        A way that the budget had no time for is `{"name", "backbone", "seconds", "left"}`: what
        it would take, or None where that is not known, and what there was. A method is
        `{"name", "backbone", "seeds", "val_accuracy", "val_loss", "test_accuracy", "ci95",
        "macro_f1", "seconds", "ms_per_image", "size_mb", "converged", "settings", "classes",
        "p_vs_best", "stopped", "note", "notes"}`: means over the seeds; seconds of all that was
        tried, without the frozen part, which is computed once for all ways.

    Raises:
        UserError: an unknown way or backbone and so on (exit code 2); `out` belongs to a
            comparison of other photos or settings; what `train_run` says of the photos.
    """
    request = _settled(request)
    ways = _checked(request)
    deadline = time.monotonic() + budget if budget is not None else float("inf")
    trials = _trials(request, ways)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("runs", "entries"):
        (out / name).mkdir(exist_ok=True)
    comparison = Comparison(out, request, deadline, progress)
    with lock(Run(out)):
        devices.prepare(str(config_of(comparison, trials[0]).device))
        for trial in trials:
            photos_of(comparison, trial)
        _refuse_another(comparison)
        for trial in trials:
            _add(comparison, trial, len(trials))
        fill_up = request.ways is None and budget is not None
        left_out = _what_the_budget_allows(comparison) if fill_up else []
        result = _result(comparison, left_out, keep)
        _write(comparison, result)
    return result


def _settled(request: Request) -> Request:
    """The same with the net that is meant where none is named: the weights', or the default one.

    And with the side of the images, where the weights bring one, for the ways without weights too.
    """
    flags = flags_for(request, request.backbones[0]) if request.backbones else request.flags
    model = config_of_way("linear", flags, request.sets).model
    side = {} if model.image_size is None else {"model.image_size": model.image_size}
    return replace(
        request, flags={**request.flags, **side}, backbones=request.backbones or (model.backbone,)
    )


def _checked(request: Request) -> list[str]:
    """The ways in the order in which they are trained, after a look at all options."""
    names = list(request.ways if request.ways is not None else [n for n in WAYS if WAYS[n].default])
    problems = [] if names else ["--methods: expected at least one, got none."]
    for name in names:
        if name not in WAYS:
            problems.append(
                f"--methods: expected some of {', '.join(WAYS)}, got '{name}'."
                f"{did_you_mean(name, WAYS)}"
            )
    for what, values in (("--methods", names), ("--backbones", list(request.backbones))):
        problems += [
            f"{what}: {v} is named twice." for v in dict.fromkeys(values) if values.count(v) > 1
        ]
    if request.seeds < 1:
        problems.append(f"--seeds: expected 1 or more, got {request.seeds}.")
    problems += [
        f"--fractions: expected numbers over 0 and at most 1, got {fraction:g}."
        for fraction in request.fractions
        if not 0 < fraction <= 1
    ]
    if problems:
        raise UserError("\n  ".join(["the options are wrong:", *problems]), exit_code=2)
    for backbone in request.backbones:
        for name in names:
            if name != AS_IS:
                config_of_way(name, flags_for(request, backbone), request.sets)
    # First what computes the activations that all others share.
    return sorted(names, key=lambda name: (name != "linear", list(WAYS).index(name)))


def _trials(request: Request, ways: list[str]) -> list[Trial]:
    """All entries to make, in that order."""
    trials = [
        Trial(seed, fraction, backbone, way)
        for seed in range(request.seeds)
        for fraction in sorted(set(request.fractions), reverse=True)
        for backbone in request.backbones
        for way in ways
        if _applies(way, backbone, request)
    ]
    if not trials:
        raise UserError(
            "--methods: as-is is for one backbone with the weights of ImageNet. Name another "
            "method, or other backbones.",
            exit_code=2,
        )
    return trials


def _applies(way: str, backbone: str, request: Request) -> bool:
    """Whether there is such a thing: as it is, a net has to be one, and of ImageNet."""
    if way != AS_IS:
        return True
    imagenet = flags_for(request, backbone).get("model.weights", "imagenet") == "imagenet"
    return imagenet and spec.SEPARATOR not in backbone


def _refuse_another(comparison: Comparison) -> None:
    """Stops where the folder holds a comparison that cannot be continued by this one."""
    found = next(iter(comparison.sources.values()))
    listing = "".join(
        f"{digest} {label}\n" for digest, label in zip(found.digests, found.labels, strict=True)
    )
    hidden = ("data.source", "model.weights")  # photos may have been moved; weights see below
    now: dict[str, Any] = {
        "flags": {k: v for k, v in comparison.request.flags.items() if k not in hidden},
        "sets": list(comparison.request.sets),
        "photos": hashlib.blake2b(listing.encode(), digest_size=16).hexdigest(),
    }
    path = comparison.out / "asked.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else now
    differ = [key for key in now if before.get(key) != now[key]]
    # Those of each backbone, so that one may be added with its own.
    weights = before.get("weights", {})
    added = {
        b: flags_for(comparison.request, b).get("model.weights")
        for b in comparison.request.backbones
    }
    if any(weights.get(backbone, own) != own for backbone, own in added.items()):
        differ.append("weights")
    now["weights"] = {**weights, **added}
    if differ:
        words = {"flags": "other options", "sets": "other --set", "photos": "other photos"}
        words["weights"] = "other weights"
        raise UserError(
            f"{comparison.out} holds a comparison with {' and '.join(words[d] for d in differ)}. "
            "Choose another --out, or remove it.",
            exit_code=2,
        )
    write_atomic(path, json.dumps(now, indent=2) + "\n")


def _add(comparison: Comparison, trial: Trial, total: int) -> None:
    """Makes or finds an entry, and says so."""
    entry = entry_of(comparison, trial)
    comparison.entries.append(entry)
    figures = {key: entry[key] for key in ("name", "backbone", "note")}
    figures |= {key: entry[key] for key in ("val_accuracy", "seconds") if entry[key] is not None}
    comparison.progress(Event("entry", len(comparison.entries), total, figures=figures))


def _what_the_budget_allows(comparison: Comparison) -> list[dict]:
    """Adds ways that are not compared by default, as far as they fit into what is left.

    With all seeds or with none: a mean over fewer is not to be compared with the others.

    Returns:
        Those that do not fit, as `compare_ways` returns them.
    """
    left_out = []
    request = comparison.request
    for way in (name for name in WAYS if not WAYS[name].default):
        for backbone in request.backbones:
            trials = [Trial(s, max(request.fractions), backbone, way) for s in range(request.seeds)]
            missing = [trial for trial in trials if not is_made(comparison, trial)]
            seconds, left = (
                sum(_predicted(comparison, trial) for trial in missing),
                comparison.left(),
            )
            if missing and seconds >= left:
                known = seconds if math.isfinite(seconds) else None
                one = {"name": way, "backbone": backbone, "seconds": known, "left": max(0.0, left)}
                left_out.append(one)
                continue
            total = len(comparison.entries) + len(trials)
            for trial in trials:
                _add(comparison, trial, total)
    return left_out


def _predicted(comparison: Comparison, trial: Trial) -> float:
    """Seconds that training all of a net takes, from what scoring an image takes with it."""
    known = [e["ms_per_image"] for e in comparison.entries if e["backbone"] == trial.backbone]
    known = [ms for ms in known if ms]
    if not known:
        return float("inf")
    config = config_of(comparison, trial)
    rates, images = rates_of(trial.way, config), len(photos_of(comparison, trial).indices("train"))
    phase = unfreeze_defaults(config) if WAYS[trial.way].start else config.phases[0]
    epochs = getattr(phase, "epochs", 1)
    cost = TRAINING_COST[getattr(phase, "batch_norm", "frozen")]
    return cost * len(rates) * epochs * images * min(known) / 1000


def _result(comparison: Comparison, left_out: list[dict], keep: bool) -> dict:
    request = comparison.request
    largest = max(request.fractions)
    entries = [e for e in comparison.entries if e["fraction"] == largest]
    rows = verdict.rows_of(entries)
    first = comparison.sources[(0, largest)]
    winner = verdict.winner_of(rows, len(first.class_names))
    images = {
        split: {
            seed: [found.paths[i] for i in found.indices(split)]
            for (seed, fraction), found in comparison.sources.items()
            if fraction == largest
        }
        for split in ("validation", "test")
    }
    none: list[float | None] = [None] * len(rows)
    on_test, on_validation = none, none
    if winner is not None:
        on_validation = verdict.p_values(rows, winner, entries, "val", images["validation"])
        if winner["test_accuracy"] is not None:
            on_test = verdict.p_values(rows, winner, entries, "test", images["test"])
    curve = _curve(comparison)
    of_winner: list[tuple[float, float]] = []
    if winner is not None and winner["name"] != AS_IS:  # photos don't change a net as it is
        of_winner = curve.get(_title(winner), [])
    advice = verdict.advice_of(rows, winner, on_validation, of_winner)
    kept = _keep(comparison, winner) if keep and winner else None
    if not any(entry["stopped"] for entry in comparison.entries):
        shutil.rmtree(comparison.out / "runs", ignore_errors=True)
    return {
        "methods": [{**row, "p_vs_best": p} for row, p in zip(rows, on_test, strict=True)],
        "left_out": left_out,
        "winner": {"name": winner["name"], "backbone": winner["backbone"]} if winner else None,
        "advice": advice,
        "classes": list(first.class_names),
        "images": {split: len(first.indices(split)) for split in ("train", "validation", "test")},
        "pass_seconds": sum(entry["pass_seconds"] for entry in comparison.entries),
        "mapping": next((e["mapping"] for e in comparison.entries if e["mapping"]), []),
        "curve": {name: [list(point) for point in points] for name, points in curve.items()},
        "out": str(comparison.out),
        "kept": kept,
    }


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['name']} on {row['backbone']}"


def _curve(comparison: Comparison) -> dict[str, list[tuple[float, float]]]:
    """Validation accuracy by fraction, of each way whose fractions are all done."""
    fractions = sorted(set(comparison.request.fractions))
    curve: dict[str, list[tuple[float, float]]] = {}
    if len(fractions) < 2:
        return curve
    by_fraction = [
        {
            _title(row): row["val_accuracy"]
            for row in verdict.rows_of([e for e in comparison.entries if e["fraction"] == fraction])
            if row["val_accuracy"] is not None
        }
        for fraction in fractions
    ]
    for title in by_fraction[-1]:
        if all(title in one for one in by_fraction):
            curve[title] = [(f, one[title]) for f, one in zip(fractions, by_fraction, strict=True)]
    return curve


def _keep(comparison: Comparison, winner: Mapping[str, Any]) -> str | None:
    """Makes the winner's run of the first seed `out`/winner, its test figures written down."""
    fraction = max(comparison.request.fractions)
    entry = with_run(comparison, Trial(0, fraction, winner["backbone"], winner["name"]))
    if not entry["run"]:  # a net as it is: there is nothing that was trained
        return None
    to = comparison.out / "winner"
    run = Run(comparison.out / entry["run"])
    config = load_config(run.config_path)  # its paths are relative to where it is
    shutil.rmtree(to, ignore_errors=True)
    run.path.replace(to)
    kept = Run(to)
    write_atomic(kept.config_path, to_toml(config, kept.path))
    record = read_record(kept)
    if entry["n_test"]:
        right, n = sum(entry["test_right"]), entry["n_test"]
        figures = {"accuracy": right / n, "loss": entry["test_loss"], "n": n}
        record["test"] = {**figures, "ci95": list(wilson(right, n))}
        record["test_scored"] += 1
    write_record(kept, record)
    return str(to)


def _write(comparison: Comparison, result: dict) -> None:
    """compare.json, compare.csv and the plots."""
    write_atomic(comparison.out / RESULT, json.dumps(result, indent=2) + "\n")
    text = io.StringIO(newline="")
    columns = [key for key in result["methods"][0] if key not in ("settings", "notes")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["methods"])
    write_atomic(comparison.out / TABLE, text.getvalue())
    plots.save_comparison(comparison.out / PLOT, result["methods"], result["winner"])
    if result["curve"]:
        plots.save_curve(comparison.out / CURVE, result["curve"])
