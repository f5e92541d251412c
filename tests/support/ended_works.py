"""Works that are ended at any moment: a row for each, of a function that does it and its facts."""

import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from drawing import draw_photos
from ended import Work
from small_run import small_run

FLAGS = {
    "report": False,
    "model.backbone": "Tiny",
    "model.weights": "none",
    "model.image_size": 32,
    "augment.flip": True,
    "augment.views": 2,
    "cache.mode": "on",  # a store would not pay off
    "cache.batch": 8,
}
HEAD = {
    "phases.0.name": "head",
    "phases.0.blocks": 0,
    "phases.0.epochs": 2,
    "phases.0.batch_size": 8,
}
SECOND = {"phases.-1.blocks": 1, "phases.-1.epochs": 1, "phases.-1.batch_size": 8}


def _photos(here: Path) -> None:
    """Draws photos beside the folder, as no work changes them."""
    folder = draw_photos(here.parent / "photos", per_class=5, size=(24, 20))
    for photo in folder.rglob("*.*"):
        os.utime(photo, (0, 10**9))  # facts of one that is seconds old are not remembered


def _config(here: Path, flags: Mapping[str, object]) -> Any:
    from kerasft.config.load import load_config

    return load_config(None, flags={**FLAGS, "data.source": str(here.parent / "photos"), **flags})


def _both(here: Path, flags: Mapping[str, object]) -> None:
    from kerasft.config.load import append_phase
    from kerasft.training.train import train_run

    config = append_phase(_config(here, flags), flags=SECOND)
    train_run(config, here / "run", resume=(here / "run").exists())


def _train(here: Path) -> None:
    _both(here, HEAD)


def _solve(here: Path) -> None:
    """Solves a head first; the page is written after each phase."""
    _both(here, {"phases.0.method": "lda", "report": True})


def _finished(here: Path) -> None:
    """Trains a head on weights of a file, so that the run knows its photos."""
    from kerasft.models import build
    from kerasft.training.train import train_run

    _photos(here)
    weights = here.parent / "pretrained.weights.h5"
    build.load("Tiny", weights="none", image_size=32, seed=0).save_weights(weights)
    once = {"model.weights": str(weights), "phases.0.epochs": 1, "report": True}
    config = _config(here, {**HEAD, **once})
    train_run(config, here / "run")


def _unfreeze(here: Path) -> None:
    """Unfreezes; with `resume` once the phase is in the config, as the message says then."""
    from kerasft.config.load import load_config
    from kerasft.training.train import continue_run

    run = here / "run"
    begun = len(load_config(run / "config.toml").phases) > 1
    continue_run(run, flags=None if begun else {**SECOND, "phases.-1.epochs": 2}, resume=begun)


def _calibrate(here: Path) -> None:
    """Sets a threshold, then writes the whole page."""
    from kerasft.evaluation.calibrate import calibrate_run
    from kerasft.evaluation.report import report_run

    calibrate_run(here / "run", abstain_at=0.51)
    report_run(here / "run", split="validation")


def _with_more(here: Path) -> None:
    _finished(here)
    draw_photos(here.parent / "more", per_class=2, size=(24, 20), seed=9)


def _update(here: Path) -> None:
    from kerasft.updating.asked import Asked

    _updated(here, Asked(added=[str(here.parent / "more")]))


def _rename(here: Path) -> None:
    from kerasft.updating.asked import Asked

    _updated(here, Asked(rename={"circle": "ring"}))


def _updated(here: Path, asked: Any) -> None:
    from kerasft.updating.update import update_run

    new = here / "run-2"
    update_run(here / "run", new, asked, resume=new.exists())


def _of_update(here: Path) -> Mapping[str, Any]:
    return {**run_facts(here / "run-2"), **left(here), "old": run_facts(here / "run")}


def _of_run(here: Path) -> Mapping[str, Any]:
    return {**run_facts(here / "run"), **left(here)}


def _of_run_alone(here: Path) -> Mapping[str, Any]:
    return run_facts(here / "run")


def _compare(here: Path) -> None:
    """Compares two ways, one of which continues a third; each tries two rates, for an epoch."""
    from kerasft.compare import request, trials, ways
    from kerasft.compare.compare import compare_ways

    def with_one_epoch(asked: Any, trial: Any) -> Any:
        config = request.config_of(asked, trial)
        once = {"epochs": 1} if hasattr(config.phases[0], "epochs") else {}
        return config.model_copy(update={"phases": (config.phases[0].model_copy(update=once),)})

    trials.config_of = with_one_epoch
    trials.rates_of = lambda name, config: ways.rates_of(name, config)[1:]
    once = {"phases.-1.blocks": 1, "phases.-1.epochs": 1}
    ways.WAYS["unfreeze"] = replace(ways.WAYS["unfreeze"], flags=once)
    flags = {
        "model.backbone": "Tiny",
        "data.source": str(here.parent / "photos"),
        "model.weights": str(here.parent / "pretrained.weights.h5"),
        "model.image_size": 32,
    }
    sets = ["augment.views=1", "cache.mode=on", "cache.batch=8"]
    compare_ways(flags, here / "out", sets=sets, ways=["lda", "unfreeze"], keep=True)


def _of_comparison(here: Path) -> Mapping[str, Any]:
    out = here / "out"
    kept = run_facts(out / "winner")
    return {
        "result": _without_measured(json.loads((out / "compare.json").read_text())),
        "files": sorted(str(path.relative_to(out)) for path in out.rglob("*")),
        "entries": {
            path.name: _without_measured(json.loads(path.read_text()))
            for path in sorted((out / "entries").glob("*.json"))
        },
        **{f"winner's {name}": fact for name, fact in kept.items()},
        **left(here),
    }


def _without_measured(record: Any) -> Any:
    """Returns JSON of a comparison without its times, and without the size of model.keras.

    That depends on the names that Keras gives the layers, and so on how many models a process has
    built before.
    """
    hidden = ("ms_per_image", "pass_seconds", "train_seconds", "size_mb")
    if isinstance(record, dict):
        kept = {key: value for key, value in record.items() if key not in hidden}
        return without_times({key: _without_measured(value) for key, value in kept.items()})
    return [_without_measured(one) for one in record] if isinstance(record, list) else record


def _small(here: Path) -> None:
    small_run(here)


def _export(here: Path, format: str = "keras") -> None:
    """Exports; the proof runs in this process, as importing TensorFlow takes the most time."""
    from kerasft.export import parity
    from kerasft.export.export import export_run

    def here_and_now(jobs: Mapping[str, Any], *_: Any, **__: Any) -> None:
        for module, *arguments in jobs.values():
            importlib.import_module(module).main(*arguments)

    parity.run_fresh = here_and_now
    export_run(here / "run", format=format)


def _export_saved_model(here: Path) -> None:
    _export(here, "saved-model")


def _tidy(here: Path) -> None:
    """Does what an export does before and after it writes anything."""
    from kerasft.export import export

    with export._writing(here / "run" / "export") as temporary:
        assert temporary.is_dir()


EXPORTED = {"kerasft.json", "labels.txt", "parity.json", "MODEL_CARD.md", "use"}


def _of_exports(here: Path) -> Mapping[str, Any]:
    """Returns what the versions have in common, and whether there are too many."""
    versions = _versions(here)
    records = [without_times(json.loads((one / "parity.json").read_text())) for one in versions]
    files = [sorted(str(path.relative_to(one)) for path in one.rglob("*")) for one in versions]
    known = [(record["n"], record["top1_agreement"]) for record in records]
    return {
        "of each version": sorted({json.dumps(one) for one in zip(known, files, strict=True)}),
        "too many": len(versions) > 2,
        "beside": sorted({path.parent.name for path in versions}),
        **left(here),
    }


def _versions(here: Path) -> list[Path]:
    return sorted(path for path in (here / "run").glob("export*/*") if path.name.isdecimal())


def _served_whole(here: Path) -> str:
    """Returns the names that a version lacks which a server would take."""
    lacking = [
        f"{version.name}: {sorted(EXPORTED - {path.name for path in version.iterdir()})}"
        for version in _versions(here)
        if EXPORTED - {path.name for path in version.iterdir()}
    ]
    return ", ".join(lacking)


def _fail(here: Path) -> None:
    """Trains a phase that diverges, and is taken back."""
    from kerasft.errors import PhaseFailed
    from kerasft.training.train import train_run

    wild = {"phases.0.learning_rate": 1e30, "phases.0.optimizer": "sgd", "head.hidden": [4, 4]}
    wild |= {"phases.0.batch_size": 4, "phases.0.epochs": 1}
    with contextlib.suppress(PhaseFailed):
        train_run(_config(here, {**HEAD, **wild}), here / "run", resume=(here / "run").exists())


def _of_nothing(here: Path) -> Mapping[str, Any]:
    return {"files": sorted(path.name for path in (here / "run").rglob("*")), **left(here)}


def _pass(here: Path) -> None:
    """Trains a head after a pass of many pieces, whose segments are merged."""
    from kerasft.activations import prefix_pass
    from kerasft.training.train import train_run

    prefix_pass.PIECE = 3
    small = {"augment.views": 1, "cache.batch": 3, "phases.0.epochs": 1}
    config = _config(here, {**HEAD, **small})
    train_run(config, here / "run", resume=(here / "run").exists())


def _filled(here: Path) -> None:
    """Fills a cache: activations, facts of photos, and an unpacked archive."""
    _photos(here)
    _pass(here)
    shutil.rmtree(here / "run")
    _unpack(here)


def _unpack(here: Path) -> None:
    from kerasft.config.load import load_config
    from kerasft.data import scan

    archive = here.parent / "photos.zip"
    if not archive.exists():
        shutil.make_archive(str(archive.with_suffix("")), "zip", here.parent / "photos")
    config = load_config(None, flags={"data.source": str(archive)})
    scan.scan_source(config.data, seed=0)


def _zipped(here: Path) -> None:
    _photos(here)
    shutil.make_archive(str(here.parent / "photos"), "zip", here.parent / "photos")


def _of_unpacked(here: Path) -> Mapping[str, Any]:
    folder = here / "cache" / "photos"
    photos = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*g"))
    return {"photos": photos, **left(here)}


def _clear(here: Path) -> None:
    """Limits the cache, which evicts some stores, then clears it."""
    from kerasft.activations import eviction
    from kerasft.cli.cache import clear_cache

    eviction.set_limit(here / "cache", 1000)
    clear_cache.callback(as_json=True)


def _of_cache(here: Path) -> Mapping[str, Any]:
    cache = here / "cache"
    files = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {"files": sorted(str(path.relative_to(cache)) for path in files)}


def _train_with_what_is_left(here: Path) -> None:
    from kerasft.activations import eviction

    eviction.set_limit(here / "cache", 10**9)
    _pass(here)


def run_facts(run: Path) -> Mapping[str, Any]:
    """Returns all that a run holds but times: weights, figures, answers, splits, names of files."""
    with np.load(run / "answers.npz", allow_pickle=False) as answers:
        of_answers = {name: answers[name].tolist() for name in answers.files}
    return {
        "weights": weights_in(run / "model.keras"),
        "metrics": (run / "metrics.jsonl").read_text(),
        "record": without_times(json.loads((run / "run.json").read_text())),
        "answers": of_answers,
        "splits": (run / "splits.csv").read_text(),
        "config": (run / "config.toml").read_text(),
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
        "page": _page(run / "report.html"),
    }


def _page(path: Path) -> Any:
    """Returns what stands on a page: figures of the splits, numbers of photos and of drawings."""
    if not path.exists():
        return None
    text = path.read_text("utf-8")
    rows = re.findall(r"<tr><td>(?:train|validation|test)</td>.*?</tr>", text)
    return {"rows": rows, "photos": text.count('class="card"'), "drawings": text.count("<svg")}


def left(here: Path) -> Mapping[str, Any]:
    """Returns what may be left of files that were being written, and descriptions of nothing."""
    paths = sorted(here.rglob("*"))
    names = {path.name for path in paths}
    hints = (".part", ".copy", ".unproven", ".removed", ".run-2")
    alone = [
        path.name
        for path in here.glob("cache/*.json")
        if len(path.stem) == 32 and f"{path.stem}.npy" not in names
    ]
    return {"left": [path.name for path in paths if path.name.startswith(hints)] + alone}


def weights_in(model: Path) -> dict[str, str]:
    """Returns a digest of each variable in a .keras file, by its path."""
    import h5py

    found: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            value = np.asarray(item)
            found[name] = hashlib.blake2b(value.tobytes(), digest_size=8).hexdigest()

    with zipfile.ZipFile(model) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(visit)
    return found


def without_times(record: Any) -> Any:
    """Returns JSON without times, and without what only the process that computes it knows."""
    if isinstance(record, dict):
        hidden = ("seconds", "parts", "found", "difference")
        return {key: without_times(value) for key, value in record.items() if key not in hidden}
    return [without_times(one) for one in record] if isinstance(record, list) else record


WORKS: dict[str, Work] = {
    "train": Work(_train, _of_run, _photos),
    "solve": Work(_solve, _of_run, _photos),
    "unfreeze": Work(_unfreeze, _of_run, _finished),
    "calibrate": Work(_calibrate, _of_run, _finished),
    "update": Work(_update, _of_update, _with_more),
    "rename": Work(_rename, _of_update, _finished),
    "compare": Work(_compare, _of_comparison, _finished),
    "export": Work(_export, _of_exports, _small, is_whole=_served_whole),
    "SavedModel": Work(_export_saved_model, left, _small, _tidy, _served_whole),
    "fail": Work(_fail, _of_nothing, _photos),
    "pass": Work(_pass, _of_run, _photos),
    "unpack": Work(_unpack, _of_unpacked, _zipped),
    "clear": Work(_clear, _of_cache, _filled),
    "clear, then train": Work(_clear, _of_run_alone, _filled, after=_train_with_what_is_left),
}
