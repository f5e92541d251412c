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
    Asked,
    Contest,
    Place,
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
    asked: Asked,
    out: Path,
    *,
    budget: float | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> dict:
    """Trains and measures every way that is asked for, and says which to use.

    Args:
        asked: what.
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
    asked = _settled(asked)
    ways = _checked(asked)
    deadline = time.monotonic() + budget if budget is not None else float("inf")
    places = _places(asked, ways)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("runs", "entries"):
        (out / name).mkdir(exist_ok=True)
    contest = Contest(out, asked, deadline, progress)
    with lock(Run(out)):
        devices.prepare(str(config_of(contest, places[0]).device))
        for place in places:
            photos_of(contest, place)
        _refuse_another(contest)
        for place in places:
            _add(contest, place, len(places))
        fill_up = asked.ways is None and budget is not None
        left_out = _what_the_budget_allows(contest) if fill_up else []
        result = _result(contest, left_out, keep)
        _write(contest, result)
    return result


def _settled(asked: Asked) -> Asked:
    """The same with the net that is meant where none is named: the weights', or the default one.

    And with the side of the images, where the weights bring one, for the ways without weights too.
    """
    flags = flags_for(asked, asked.backbones[0]) if asked.backbones else asked.flags
    model = config_of_way("linear", flags, asked.sets).model
    side = {} if model.image_size is None else {"model.image_size": model.image_size}
    return replace(
        asked, flags={**asked.flags, **side}, backbones=asked.backbones or (model.backbone,)
    )


def _checked(asked: Asked) -> list[str]:
    """The ways in the order in which they are trained, after a look at all options."""
    names = list(asked.ways if asked.ways is not None else [n for n in WAYS if WAYS[n].default])
    problems = [] if names else ["--methods: expected at least one, got none."]
    for name in names:
        if name not in WAYS:
            problems.append(
                f"--methods: expected some of {', '.join(WAYS)}, got '{name}'."
                f"{did_you_mean(name, WAYS)}"
            )
    for what, values in (("--methods", names), ("--backbones", list(asked.backbones))):
        problems += [
            f"{what}: {v} is named twice." for v in dict.fromkeys(values) if values.count(v) > 1
        ]
    if asked.seeds < 1:
        problems.append(f"--seeds: expected 1 or more, got {asked.seeds}.")
    problems += [
        f"--fractions: expected numbers over 0 and at most 1, got {fraction:g}."
        for fraction in asked.fractions
        if not 0 < fraction <= 1
    ]
    if problems:
        raise UserError("\n  ".join(["the options are wrong:", *problems]), exit_code=2)
    for backbone in asked.backbones:
        for name in names:
            if name != AS_IS:
                config_of_way(name, flags_for(asked, backbone), asked.sets)
    # First what computes the activations that all others share.
    return sorted(names, key=lambda name: (name != "linear", list(WAYS).index(name)))


def _places(asked: Asked, ways: list[str]) -> list[Place]:
    """All entries to make, in that order."""
    places = [
        Place(seed, fraction, backbone, way)
        for seed in range(asked.seeds)
        for fraction in sorted(set(asked.fractions), reverse=True)
        for backbone in asked.backbones
        for way in ways
        if _applies(way, backbone, asked)
    ]
    if not places:
        raise UserError(
            "--methods: as-is is for one backbone with the weights of ImageNet. Name another "
            "method, or other backbones.",
            exit_code=2,
        )
    return places


def _applies(way: str, backbone: str, asked: Asked) -> bool:
    """Whether there is such a thing: as it is, a net has to be one, and of ImageNet."""
    if way != AS_IS:
        return True
    imagenet = flags_for(asked, backbone).get("model.weights", "imagenet") == "imagenet"
    return imagenet and spec.SEPARATOR not in backbone


def _refuse_another(contest: Contest) -> None:
    """Stops where the folder holds a comparison that cannot be continued by this one."""
    found = next(iter(contest.sources.values()))
    listing = "".join(
        f"{digest} {label}\n" for digest, label in zip(found.digests, found.labels, strict=True)
    )
    hidden = ("data.source", "model.weights")  # photos may have been moved; weights see below
    now: dict[str, Any] = {
        "flags": {k: v for k, v in contest.asked.flags.items() if k not in hidden},
        "sets": list(contest.asked.sets),
        "photos": hashlib.blake2b(listing.encode(), digest_size=16).hexdigest(),
    }
    path = contest.out / "asked.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else now
    differ = [key for key in now if before.get(key) != now[key]]
    # Those of each backbone, so that one may be added with its own.
    weights = before.get("weights", {})
    added = {b: flags_for(contest.asked, b).get("model.weights") for b in contest.asked.backbones}
    if any(weights.get(backbone, own) != own for backbone, own in added.items()):
        differ.append("weights")
    now["weights"] = {**weights, **added}
    if differ:
        words = {"flags": "other options", "sets": "other --set", "photos": "other photos"}
        words["weights"] = "other weights"
        raise UserError(
            f"{contest.out} holds a comparison with {' and '.join(words[d] for d in differ)}. "
            "Choose another --out, or remove it.",
            exit_code=2,
        )
    write_atomic(path, json.dumps(now, indent=2) + "\n")


def _add(contest: Contest, place: Place, total: int) -> None:
    """Makes or finds an entry, and says so."""
    entry = entry_of(contest, place)
    contest.entries.append(entry)
    figures = {key: entry[key] for key in ("name", "backbone", "note")}
    figures |= {key: entry[key] for key in ("val_accuracy", "seconds") if entry[key] is not None}
    contest.progress(Event("entry", len(contest.entries), total, figures=figures))


def _what_the_budget_allows(contest: Contest) -> list[dict]:
    """Adds ways that are not compared by default, as far as they fit into what is left.

    With all seeds or with none: a mean over fewer is not to be compared with the others.

    Returns:
        Those that do not fit, as `compare_ways` returns them.
    """
    left_out = []
    asked = contest.asked
    for way in (name for name in WAYS if not WAYS[name].default):
        for backbone in asked.backbones:
            places = [Place(s, max(asked.fractions), backbone, way) for s in range(asked.seeds)]
            missing = [place for place in places if not is_made(contest, place)]
            seconds, left = sum(_predicted(contest, place) for place in missing), contest.left()
            if missing and seconds >= left:
                known = seconds if math.isfinite(seconds) else None
                one = {"name": way, "backbone": backbone, "seconds": known, "left": max(0.0, left)}
                left_out.append(one)
                continue
            total = len(contest.entries) + len(places)
            for place in places:
                _add(contest, place, total)
    return left_out


def _predicted(contest: Contest, place: Place) -> float:
    """Seconds that training all of a net takes, from what scoring an image takes with it."""
    known = [e["ms_per_image"] for e in contest.entries if e["backbone"] == place.backbone]
    known = [ms for ms in known if ms]
    if not known:
        return float("inf")
    config = config_of(contest, place)
    rates, images = rates_of(place.way, config), len(photos_of(contest, place).indices("train"))
    phase = unfreeze_defaults(config) if WAYS[place.way].start else config.phases[0]
    epochs = getattr(phase, "epochs", 1)
    cost = TRAINING_COST[getattr(phase, "batch_norm", "frozen")]
    return cost * len(rates) * epochs * images * min(known) / 1000


def _result(contest: Contest, left_out: list[dict], keep: bool) -> dict:
    asked = contest.asked
    largest = max(asked.fractions)
    entries = [e for e in contest.entries if e["fraction"] == largest]
    rows = verdict.rows_of(entries)
    first = contest.sources[(0, largest)]
    winner = verdict.winner_of(rows, len(first.class_names))
    images = {
        split: {
            seed: [found.paths[i] for i in found.indices(split)]
            for (seed, fraction), found in contest.sources.items()
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
    curve = _curve(contest)
    of_winner: list[tuple[float, float]] = []
    if winner is not None and winner["name"] != AS_IS:  # photos don't change a net as it is
        of_winner = curve.get(_title(winner), [])
    advice = verdict.advice_of(rows, winner, on_validation, of_winner)
    kept = _keep(contest, winner) if keep and winner else None
    if not any(entry["stopped"] for entry in contest.entries):
        shutil.rmtree(contest.out / "runs", ignore_errors=True)
    return {
        "methods": [{**row, "p_vs_best": p} for row, p in zip(rows, on_test, strict=True)],
        "left_out": left_out,
        "winner": {"name": winner["name"], "backbone": winner["backbone"]} if winner else None,
        "advice": advice,
        "classes": list(first.class_names),
        "images": {split: len(first.indices(split)) for split in ("train", "validation", "test")},
        "pass_seconds": sum(entry["pass_seconds"] for entry in contest.entries),
        "mapping": next((e["mapping"] for e in contest.entries if e["mapping"]), []),
        "curve": {name: [list(point) for point in points] for name, points in curve.items()},
        "out": str(contest.out),
        "kept": kept,
    }


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['name']} on {row['backbone']}"


def _curve(contest: Contest) -> dict[str, list[tuple[float, float]]]:
    """Validation accuracy by fraction, of each way whose fractions are all done."""
    fractions = sorted(set(contest.asked.fractions))
    curve: dict[str, list[tuple[float, float]]] = {}
    if len(fractions) < 2:
        return curve
    by_fraction = [
        {
            _title(row): row["val_accuracy"]
            for row in verdict.rows_of([e for e in contest.entries if e["fraction"] == fraction])
            if row["val_accuracy"] is not None
        }
        for fraction in fractions
    ]
    for title in by_fraction[-1]:
        if all(title in one for one in by_fraction):
            curve[title] = [(f, one[title]) for f, one in zip(fractions, by_fraction, strict=True)]
    return curve


def _keep(contest: Contest, winner: Mapping[str, Any]) -> str | None:
    """Makes the winner's run of the first seed `out`/winner, its test figures written down."""
    fraction = max(contest.asked.fractions)
    entry = with_run(contest, Place(0, fraction, winner["backbone"], winner["name"]))
    if not entry["run"]:  # a net as it is: there is nothing that was trained
        return None
    to = contest.out / "winner"
    run = Run(contest.out / entry["run"])
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


def _write(contest: Contest, result: dict) -> None:
    """compare.json, compare.csv and the plots."""
    write_atomic(contest.out / RESULT, json.dumps(result, indent=2) + "\n")
    text = io.StringIO(newline="")
    columns = [key for key in result["methods"][0] if key not in ("settings", "notes")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["methods"])
    write_atomic(contest.out / TABLE, text.getvalue())
    plots.save_comparison(contest.out / PLOT, result["methods"], result["winner"])
    if result["curve"]:
        plots.save_curve(contest.out / CURVE, result["curve"])
