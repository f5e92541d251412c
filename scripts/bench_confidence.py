"""Whether scores mean what they say: temperature, "I don't know", and foreign photos.

For each seed, a run of both phases with the defaults; a seed draws its own split. Then:

    temperature   fitted on validation; log loss and calibration error (ECE, 15 bins) on test
                  without and with it
    abstention    the threshold that `kerasft calibrate --abstain-at P` sets, and what came of the
                  promise on test: share of photos answered, share of these right
    foreign       share of photos of other sets (`--foreign`) that are called unlike the training
                  ones, and of the run's own test photos (false alarms)

Test decides nothing. Runs and activations stay below `--work`: a seed that is there is not trained
again.

    python scripts/bench_confidence.py --data flowers5/ --foreign ants_bees/,clothes10/ --seeds 5
    python scripts/bench_confidence.py --data flowers5/ --method bayes --seeds 5
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from kerasft import load_config
from kerasft.confidence import Quality
from kerasft.data.scan import open_images
from kerasft.evaluation.calibrate import calibrate_run
from kerasft.evaluation.evaluate import batches_of
from kerasft.evaluation.predict import predict
from kerasft.models.bundle import load, score
from kerasft.progress import silent
from kerasft.run import Run, open_run
from kerasft.training.train import continue_run, train_run

PROMISES = (0.9, 0.95, 0.98)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="photos, a folder per class")
    parser.add_argument("--foreign", default="", help="other folders of photos, joined by commas")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--method", default="", help="solve the head so, and train nothing more")
    parser.add_argument("--work", type=Path, help="folder for the runs; default: a temporary one")
    arguments = parser.parse_args()
    foreign = [Path(name) for name in arguments.foreign.split(",") if name]
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        rows = [
            measure(arguments.data, seed, arguments.method, work, foreign)
            for seed in range(arguments.seeds)
        ]
    for line in tables(rows, [path.name for path in foreign]):
        print(line)


def measure(data: str, seed: int, method: str, work: Path, foreign: list[Path]) -> dict[str, Any]:
    """Trains one seed, if its run is not there, and measures it."""
    path = work / f"confidence-{Path(data).name}{method}-{seed}"
    flags = {"data.source": data, "seed": seed, **({"phases.0.method": method} if method else {})}
    if not Run(path).record_path.exists():
        train_run(load_config(None, flags=flags), path)
        if not method:
            continue_run(path)
    thresholds = {promise: calibrate_run(path, abstain_at=promise) for promise in PROMISES}
    calibration = thresholds[PROMISES[0]].calibration
    opened = load(Run(path).model_path)
    found = open_images(open_run(path), opened.class_names, data=None, progress=silent)
    labels = found.labels[found.indices("test")]
    _, logits = score(opened, batches_of(found, "test", opened.rule), total=len(labels))
    scores = softmax(logits / calibration.temperature, axis=1).max(axis=1)
    hits = logits.argmax(axis=1) == labels
    kept = {}
    for promise, result in thresholds.items():
        if result.abstention:
            answered = scores >= result.abstention.threshold
            kept[promise] = (result.abstention, len(labels), answered.sum(), hits[answered].sum())
    own = [str(found.root / found.paths[i]) for i in found.indices("test").tolist()]
    novel = {"test": _unlike(path, own)}
    novel |= {other.name: _unlike(path, [str(other)]) for other in foreign}
    row = {
        "seed": seed,
        "calibration": calibration,
        "test": (Quality.of(logits, labels), Quality.of(logits / calibration.temperature, labels)),
        "kept": kept,
        "novel": novel,
    }
    print(row, flush=True)
    return row


def _unlike(run: Path, files: list[str]) -> float:
    return float(np.mean([one.novel for one in predict(run, files, top=1) if not one.error]))


def tables(rows: list[dict[str, Any]], foreign: list[str]) -> list[str]:
    """Writes the results as tables in Markdown."""
    lines = [
        "| seed | temperature | validation loss | out of fold | ECE | out of fold | test loss | "
        "with it | test ECE | with it |",
        "| --- " * 10 + "|",
    ]
    for row in rows:
        found, (before, after) = row["calibration"], row["test"]
        cells = (found.before.loss, found.after.loss, found.before.ece, found.after.ece)
        both = (before.loss, after.loss, before.ece, after.ece)
        numbers = " | ".join(f"{x:.3f}" for x in (found.temperature, *cells, *both))
        lines.append(f"| {row['seed']} | {numbers} |")
    lines += ["", "| promised | seeds with a threshold | answered on test | right of these |"]
    lines.append("| --- " * 4 + "|")
    for promise in PROMISES:
        kept = [row["kept"][promise] for row in rows if promise in row["kept"]]
        total, answered, right = (sum(int(one[i]) for one in kept) for i in (1, 2, 3))
        shares = f"{answered / total:.1%} | {right / answered:.1%}" if answered else "none | none"
        lines.append(f"| {promise:.0%} | {len(kept)} of {len(rows)} | {shares} |")
    names = ["test", *foreign]
    lines += ["", f"| called unlike the training photos | {' | '.join(names)} |"]
    lines.append("| --- " * (1 + len(names)) + "|")
    for row in rows:
        shares = " | ".join(f"{row['novel'][name]:.1%}" for name in names)
        lines.append(f"| seed {row['seed']} | {shares} |")
    return lines


if __name__ == "__main__":
    main()
