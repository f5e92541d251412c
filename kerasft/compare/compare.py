"""All ways to use a pretrained net on one set of photos: `compare_ways`.

    Request -> trials -> an entry each -> rows, winner, advice -> ComparisonResult

A trial trains a run or several (one for each learning rate that is tried), of which validation
chooses one; only that one is scored on the test split. Finished entries are written down, so an
interrupted comparison continues, and ways, backbones or seeds can be added later.
"""

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasft import devices
from kerasft.activations.numerics import NUMERICS
from kerasft.backbones.compatibility import WEIGHTS, weights_of
from kerasft.compare import verdict
from kerasft.compare.correction import Correction
from kerasft.compare.entry import Entry, Split
from kerasft.compare.request import (
    Request,
    Trial,
    check,
    config_of,
    problem_of,
    trials_of,
    with_backbones,
)
from kerasft.compare.result import ComparisonResult, LeftOut, write_result
from kerasft.compare.trials import (
    Comparison,
    entry_of,
    entry_with_run,
    file_of,
    is_made,
    photos_of,
)
from kerasft.compare.verdict import WayResult
from kerasft.compare.ways import AS_IS, WAYS, rates_of
from kerasft.config.load import load_config, to_toml, unfreeze_defaults
from kerasft.config.weights_names import file_for
from kerasft.data.splits import bound_names, units_of_split
from kerasft.errors import UserError, first_line
from kerasft.files import discard, write_atomic
from kerasft.progress import Event, Progress, silent
from kerasft.run import Run, lock, read_record, write_record
from kerasft.training.plan import settled_views
from kerasft.untrusted import checked, read_json

log = logging.getLogger("kerasft")

REQUEST = "asked.json"
ENTRY = "entry.json"  # in the winner's run: the entry that it was kept for
# Version of what an entry holds: 2 has the validation answers of all that was tried; in 3 trained
# heads begin solved, and the blocks of "unfreeze" are trained at another rate.
ENTRIES = 3

# Time of a training step of the whole net, as a multiple of scoring its images, by what
# BatchNormalization does. Measured with 32 images, Adam and random weights on an AMD EPYC: 2.4 to
# 3.8 where it is frozen and 3.8 to 5.5 where it learns (MobileNetV2, MobileNet, EfficientNetB0,
# ResNet50).
TRAINING_COST = {"frozen": 3.0, "train": 5.0}


def compare_ways(
    flags: Mapping[str, object],
    out: str | Path,
    *,
    sets: Sequence[str] = (),
    backbones: Sequence[str] = (),
    ways: Sequence[str] | None = None,
    seeds: int = 1,
    fractions: Sequence[float] = (1.0,),
    budget: float | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> ComparisonResult:
    """Trains and measures every requested way, and says which one to use.

    Args:
        flags: values of data and model by dotted key, such as `{"data.source": "photos"}`.
        out: folder for the result. What an earlier call with the same photos and settings has
            finished there is not done again.
        sets: texts "key=value", such as `["augment.views=2"]`, for every way that has the key.
        backbones, ways, seeds, fractions: what to compare; see `request.Request`.
        budget: time after which training stops, seconds; None sets no limit.
        keep: whether the winner stays as a run, `out`/winner, to be continued or exported.
        progress: function that is told what happens; stage "entry" when a trial is done.

    Returns:
        The rows of the table with their means over the seeds, the winner and the advice.

    Raises:
        UserError: an unknown way or backbone and so on (exit code 2); `out` belongs to a
            comparison of other photos or settings; whatever `train_run` raises.
    """
    request = Request(
        flags=flags,
        sets=tuple(sets),
        backbones=tuple(backbones),
        ways=None if ways is None else tuple(ways),
        seeds=seeds,
        fractions=tuple(fractions),
    )
    return run_request(request, Path(out), budget=budget, keep=keep, progress=progress)


def run_request(
    request: Request,
    out: Path,
    *,
    budget: float | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> ComparisonResult:
    """Does what `compare_ways` says, for a request as one object.

    Args:
        request: photos, backbones, ways, seeds and fractions to compare.
        out, budget, keep, progress: as for `compare_ways`.
    """
    request = with_backbones(request)
    check(request)
    trials = trials_of(request)
    deadline = time.monotonic() + budget if budget is not None else math.inf
    for folder in ("runs", "entries"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    comparison = Comparison(out, request, deadline, progress)
    with lock(Run(out)):
        devices.prepare(str(config_of(request, trials[0]).device))
        for trial in trials:
            photos_of(comparison, trial)
        _claim_folder(comparison)
        for trial in trials:
            _add(comparison, trial, total=len(trials))
        costly = request.ways is None and budget is not None
        left_out = _add_costly_ways(comparison) if costly else ()
        result = _conclude(comparison, left_out, keep=keep)
        if not any(entry.stopped for entry in comparison.entries):
            discard(out / "runs")
        write_result(result)
    return result


@dataclass(frozen=True)
class _Identity:
    """What has to be equal for a comparison to continue in its folder: all that decides an entry.

    Attributes:
        flags: fields of data and model, but for the place of the photos, which may have been
            moved, the run of their splits, which `divisions` tells, and the weights, which are
            compared by backbone.
        sets: `KEY=VALUE` each, from the request, but for the same fields.
        photos: hash of all files and labels.
        groups: hash of the photos' groups.
        numerics: version of the code that computes activations.
        entries: version of what an entry holds.
        divisions: hash of the splits by seed and share of the training images, so that some can
            be added later.
        weights: name and hash of the weights by backbone, for the same reason.
    """

    flags: Mapping[str, object]
    sets: list[str]
    photos: str
    groups: str
    numerics: int
    entries: int
    divisions: Mapping[str, str]
    weights: Mapping[str, list[str | None]]


# What a folder may hold that differs from what is asked for. The last two are compared by key.
WORDS = {
    "flags": "other options",
    "sets": "other `sets`",
    "photos": "other photos",
    "groups": "other groups of photos",
    "numerics": "features of another version of kerasft",
    "entries": "entries of another version of kerasft",
    "divisions": "the photos divided in another way",
    "weights": "other weights",
}
BY_KEY = ("divisions", "weights")


def _identity(comparison: Comparison) -> _Identity:
    request, sources = comparison.request, comparison.sources
    found = next(iter(sources.values()))
    hidden = ("data.source", "data.splits_from", "model.weights")
    return _Identity(
        flags={key: value for key, value in request.flags.items() if key not in hidden},
        sets=[text for text in request.sets if text.partition("=")[0].strip() not in hidden],
        photos=_hash(found.digests, found.labels),
        groups=_hash(found.pictures(), bound_names(found) or [""] * len(found.digests)),
        numerics=NUMERICS,
        entries=ENTRIES,
        divisions={
            f"seed {seed}, {fraction:g}": _hash(one.digests, one.splits)
            for (seed, fraction), one in sources.items()
        },
        weights={backbone: _weights(request, backbone) for backbone in request.backbones},
    )


def _hash(digests: Sequence[str], facts: Iterable[object]) -> str:
    """Hashes a fact of each photo; the order of the photos counts."""
    listing = "".join(f"{one} {fact}\n" for one, fact in zip(digests, facts, strict=True))
    return hashlib.blake2b(listing.encode(), digest_size=16).hexdigest()


def _weights(request: Request, backbone: str) -> list[str | None]:
    """Returns the name of a backbone's weights, and the hash of their files; None for words."""
    name = request.flags_for(backbone).get("model.weights")
    files = [one for one in weights_of(str(name)) if one not in WEIGHTS] if name else []
    if not files:
        return [None if name is None else str(name), None]
    digests = []
    for one in files:
        path = Path(file_for(one, None)) if Path(one).is_dir() else Path(one)
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "blake2b").hexdigest()[:32])
    return [str(name), "+".join(digests)]


def _claim_folder(comparison: Comparison) -> None:
    """Records in the folder what is compared; refuses a folder of a different comparison."""
    path = comparison.out / REQUEST
    now = vars(_identity(comparison))
    try:
        before = checked(read_json(path), Mapping[str, Any]) if path.is_file() else now
        for name in BY_KEY:
            checked(before.get(name, {}), Mapping[str, Any])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged: {first_line(error)}. What was compared is not known any more: "
            "choose another `out`, or remove it.",
            exit_code=2,
        ) from error
    unknown = [name for name in WORDS if name not in before]
    if unknown:
        raise UserError(
            f"{comparison.out} holds a comparison of an earlier kerasft, which did not write down "
            f"all that decides its entries ({', '.join(unknown)}). Choose another `out`, or remove "
            "it.",
            exit_code=2,
        )
    differ = []
    for name, word in WORDS.items():
        if name in BY_KEY:
            same = all(before[name].get(key, own) == own for key, own in now[name].items())
        else:
            same = before[name] == now[name]
        if not same:
            differ.append(word)
    if WORDS["photos"] in differ:  # then these differ in any case
        differ = [one for one in differ if one not in (WORDS["groups"], WORDS["divisions"])]
    if differ:
        raise UserError(
            f"{comparison.out} holds a comparison with {' and '.join(differ)}. "
            "Choose another `out`, or remove it.",
            exit_code=2,
        )
    together = {name: {**before[name], **now[name]} for name in BY_KEY}
    write_atomic(path, json.dumps({**now, **together}, indent=2) + "\n")


def _add(comparison: Comparison, trial: Trial, *, total: int) -> None:
    """Adds the entry of a trial to the comparison, read or made now, and reports it.

    Args:
        comparison: the comparison.
        trial: the trial to add.
        total: number of trials, for the progress.
    """
    entry = entry_of(comparison, trial)
    comparison.entries.append(entry)
    figures = {"name": trial.way, "backbone": trial.backbone, "note": entry.note}
    known: dict[str, float] = {}
    if entry.validation is not None:
        known["val_accuracy"] = entry.validation.figures.accuracy
    if entry.seconds is not None:
        known["seconds"] = entry.seconds
    done = len(comparison.entries)
    comparison.progress(Event("entry", done, total, figures={**figures, **known}))


def _add_costly_ways(comparison: Comparison) -> tuple[LeftOut, ...]:
    """Adds the ways that are not compared by default, if the rest of the budget suffices.

    A way is added with all seeds or with none, because means over fewer are not comparable.

    Returns:
        The ways that were left out.
    """
    left_out = []
    request = comparison.request
    largest = max(request.fractions)
    for way in (name for name in WAYS if not WAYS[name].default):
        for backbone in request.backbones:
            if problem := problem_of(way, backbone, request):
                log.info("%s on %s was left out: %s", way, backbone, problem)
                continue
            trials = [Trial(seed, largest, backbone, way) for seed in range(request.seeds)]
            missing = [trial for trial in trials if not is_made(comparison, trial)]
            seconds = sum(_predicted_seconds(comparison, trial) for trial in missing)
            left = comparison.left()
            if missing and seconds >= left:
                known = seconds if math.isfinite(seconds) else None
                left_out.append(LeftOut(way, backbone, known, max(0.0, left)))
                continue
            total = len(comparison.entries) + len(trials)
            for trial in trials:
                _add(comparison, trial, total=total)
    return tuple(left_out)


def _predicted_seconds(comparison: Comparison, trial: Trial) -> float:
    """Predicts how long a trial takes, from the time in which its net scores an image.

    If the whole net is trained, every epoch counts; if a head is, only the pass that computes its
    features once in each view.

    Returns:
        Seconds; infinity if the net has not been timed yet.
    """
    timed = [e.ms_per_image for e in comparison.entries if e.trial.backbone == trial.backbone]
    known = [milliseconds for milliseconds in timed if milliseconds]
    if not known:
        return math.inf
    config = config_of(comparison.request, trial)
    rates, images = rates_of(trial.way, config), len(photos_of(comparison, trial).indices("train"))
    phase = unfreeze_defaults(config) if WAYS[trial.way].start else config.phases[0]
    if phase.blocks == 0:
        return max(1, settled_views(config, [0])) * images * min(known) / 1000
    epochs = getattr(phase, "epochs", 1)
    cost = TRAINING_COST[getattr(phase, "batch_norm", "frozen")]
    return cost * len(rates) * epochs * images * min(known) / 1000


def _conclude(
    comparison: Comparison, left_out: tuple[LeftOut, ...], *, keep: bool
) -> ComparisonResult:
    """Sums up the entries: rows, winner, advice."""
    largest = max(comparison.request.fractions)
    entries = [entry for entry in comparison.entries if entry.trial.fraction == largest]
    photos = comparison.sources[(0, largest)]
    correction = Correction.of(comparison.entries, _units(comparison, largest))
    rows = verdict.rows_of(entries, correction)
    winner = verdict.winner_of(rows, len(photos.class_names))
    corrected = verdict.corrected_of(winner, rows, entries, correction) if winner else None
    on_validation = _p_values(comparison, rows, winner, entries, "validation", corrected)
    on_test = _p_values(comparison, rows, winner, entries, "test")
    curves = verdict.curves_of(comparison.entries, correction)
    # More photos don't change a net as it is.
    curve = curves.get(winner.title, ()) if winner and winner.way != AS_IS else ()
    return ComparisonResult(
        ways=tuple(replace(row, p_vs_best=p) for row, p in zip(rows, on_test, strict=True)),
        left_out=left_out,
        winner=winner,
        corrected=corrected,
        advice=verdict.advice_of(rows, winner, corrected, on_validation, curve),
        classes=photos.class_names,
        images={split: len(photos.indices(split)) for split in ("train", "validation", "test")},
        pass_seconds=sum(entry.pass_seconds for entry in comparison.entries),
        mapping=next((entry.mapping for entry in comparison.entries if entry.mapping), ()),
        curves=curves,
        out=comparison.out,
        kept=_keep(comparison, winner) if keep and winner else None,
    )


def _p_values(
    comparison: Comparison,
    rows: Sequence[WayResult],
    winner: WayResult | None,
    entries: Sequence[Entry],
    split: Split,
    corrected: float | None = None,
) -> list[float | None]:
    """Returns the p-values of the rows on a split; all None without a winner."""
    if winner is None:
        return [None] * len(rows)
    fraction = entries[0].trial.fraction
    images = {
        seed: [photos.paths[index] for index in photos.indices(split)]
        for (seed, share), photos in comparison.sources.items()
        if share == fraction
    }
    return verdict.p_values(rows, winner, entries, split=split, images=images, corrected=corrected)


def _units(comparison: Comparison, fraction: float) -> dict[int, np.ndarray]:
    """Returns the numbers of the validation images' units by seed, the same in all seeds."""
    # The validation images are the same with every fraction.
    of_seeds = {seed: one for (seed, share), one in comparison.sources.items() if share == fraction}
    return {seed: units_of_split(photos, "validation") for seed, photos in of_seeds.items()}


def _keep(comparison: Comparison, winner: WayResult) -> Path | None:
    """Copies the winner's run of the first seed to `out`/winner and records its test figures.

    The copy is there whole or not at all. It holds the trial's entry, so that it is not made again
    as long as the entry is the same: not even when the run is gone.

    Returns:
        The run directory; None for as-is, which has no run.
    """
    trial = Trial(0, max(comparison.request.fractions), winner.backbone, winner.way)
    kept, entry_file = Run(comparison.out / "winner"), file_of(comparison, trial)
    if _same(kept.path / ENTRY, entry_file):
        return kept.path
    entry = entry_with_run(comparison, trial)
    if not entry.run:
        return None
    run, copy = Run(comparison.out / entry.run), Run(comparison.out / ".copy")
    shutil.rmtree(copy.path, ignore_errors=True)
    shutil.copytree(run.path, copy.path)
    # Paths of the config are relative to the run.
    write_atomic(copy.config_path, to_toml(load_config(run.config_path), kept.path))
    record = read_record(copy)
    if entry.test is not None:
        record = record.with_test(entry.test.figures)
    write_record(copy, record)
    write_atomic(copy.path / ENTRY, entry_file.read_bytes())
    discard(kept.path)
    copy.path.rename(kept.path)
    return kept.path


def _same(copy: Path, file: Path) -> bool:
    return copy.is_file() and file.is_file() and copy.read_bytes() == file.read_bytes()
