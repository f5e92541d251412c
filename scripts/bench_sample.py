"""What the sample weights win on the sample: five ways to train, five seeds, one table.

For each seed a set of its own is drawn (`kerasft sample-data --seed S`) and trained on with that
seed and the defaults that a user gets:

    pixels      multinomial logistic regression (scikit-learn) on 32 x 32 standardised pixels
    random      a head on a frozen base of random weights (its features differ by 1e-12; each
                scaled to a standard deviation of 1, logistic regression gets 0.27 to 0.37)
    scratch     `--weights none`: all of the same net from random weights
    head        `--weights sample`: a head on the frozen base
    unfreeze    `unfreeze-and-continue` on it

The test is one set of 1,000 flowers, drawn with a seed of its own and seen by no decision. The
sample and its defaults were settled with seeds 0 to 2, so the bench takes seeds 5 to 9 and another
test. An interval is mean +- t(0.975, 4) * s / sqrt(5) of the differences, seed by seed.

    python scripts/bench_sample.py
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerasft.backbones.table import SAMPLE_BACKBONE, SAMPLE_SIDE
from kerasft.config.load import load_config
from kerasft.data.splits import read_rows
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.sample.draw import PER_CLASS, draw_sample
from kerasft.training.train import continue_run, train_run

SEEDS = (5, 6, 7, 8, 9)
TEST_SEED, TEST_PER_CLASS = 2000, 200
SAMPLE = {"model.weights": "sample"}
RANDOM = {
    "model.weights": "none",
    "model.backbone": SAMPLE_BACKBONE,
    "model.image_size": SAMPLE_SIDE,
}
ARMS = ("pixels", "random", "scratch", "head", "unfreeze")
PAIRS = (("unfreeze", "head"), ("head", "scratch"), ("unfreeze", "scratch"), ("head", "random"))


def of_seed(seed: int, folder: Path, test: Path, arms: Sequence[str]) -> dict[str, dict]:
    """Trains every arm on the set of one seed: arm -> validation, test, seconds."""
    photos = folder / f"flowers-{seed}"
    draw_sample(photos, seed=seed)
    found = {}

    def trained(arm: str, flags: dict) -> None:
        began = time.perf_counter()
        run = folder / f"{arm}-{seed}"
        if arm == "unfreeze":
            run = folder / f"head-{seed}"
            result = continue_run(run, flags={})
        else:
            flags = {"data.source": str(photos), "seed": seed, **flags}
            result = train_run(load_config(None, flags=flags), run)
        seconds = time.perf_counter() - began
        report = evaluate_run(run / "model.keras", data=test)
        validation = result.validation.accuracy if result.validation else 0.0
        found[arm] = {"validation": validation, "test": report.accuracy, "seconds": seconds}
        keras.backend.clear_session()

    trained("head", SAMPLE)
    if "unfreeze" in arms:
        trained("unfreeze", {})
    if "random" in arms:
        trained("random", {**RANDOM, "phases.0.blocks": 0})
    if "scratch" in arms:
        trained("scratch", RANDOM)
    if "pixels" in arms:
        found["pixels"] = of_pixels(photos, folder / f"head-{seed}", test)
    return found


def of_pixels(photos: Path, run: Path, test: Path) -> dict:
    """Logistic regression on the run's training split; validation chooses its strength."""
    began = time.perf_counter()
    names = sorted(path.name for path in photos.iterdir())
    rows = read_rows(run / "splits.csv", len(names))
    x, y = {}, {}
    for split in ("train", "validation"):
        chosen = [(photos / row[0], int(row[1])) for row in rows if row[2] == split]
        x[split], y[split] = _pixels([path for path, _ in chosen]), [label for _, label in chosen]
    fitted = []
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        fitted.append(model.fit(x["train"], y["train"]))
    best = max(fitted, key=lambda model: model.score(x["validation"], y["validation"]))
    files = [path for name in names for path in sorted((test / name).iterdir())]
    return {
        "validation": best.score(x["validation"], y["validation"]),
        "test": best.score(_pixels(files), [names.index(path.parent.name) for path in files]),
        "seconds": time.perf_counter() - began,
    }


def _pixels(files: Sequence[Path]) -> np.ndarray:
    images = [Image.open(path).resize((32, 32), Image.Resampling.BOX) for path in files]
    return np.stack([np.asarray(image, np.float32).ravel() for image in images])


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences, and half of the width of its 95% interval (NaN for one)."""
    half = stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1)
    return float(np.mean(differences)), float(half)


def table(by_seed: dict[int, dict[str, dict]]) -> str:
    """All seeds as Markdown."""
    rows = list(by_seed.values())
    arms = [arm for arm in ARMS if arm in rows[0]]
    lines = ["| | " + " | ".join(arms) + " |", "| --- |" + " --- |" * len(arms)]
    for seed, row in by_seed.items():
        lines.append(f"| seed {seed} | " + " | ".join(f"{row[a]['test']:.3f}" for a in arms) + " |")
    for title, key, form in (
        ("test, mean", "test", "{:.3f}"),
        ("validation, mean", "validation", "{:.3f}"),
        ("seconds, mean", "seconds", "{:.0f}"),
    ):
        means = [form.format(np.mean([row[arm][key] for row in rows])) for arm in arms]
        lines.append(f"| {title} | " + " | ".join(means) + " |")
    lines.append("")
    for better, worse in PAIRS:
        if better in arms and worse in arms:
            mean, half = interval([row[better]["test"] - row[worse]["test"] for row in rows])
            lines.append(
                f"{better} - {worse}: {100 * mean:+.1f} points, 95% interval "
                f"{100 * (mean - half):+.1f} to {100 * (mean + half):+.1f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--test-seed", type=int, default=TEST_SEED)
    parser.add_argument("--arms", default=",".join(ARMS), help="some of " + ", ".join(ARMS))
    arguments = parser.parse_args()
    by_seed = {}
    with tempfile.TemporaryDirectory(prefix="bench-sample-") as name:
        os.environ["KERASFT_CACHE"] = str(Path(name) / "cache")
        test = Path(name) / "test"
        draw_sample(test, seed=arguments.test_seed, per_class=TEST_PER_CLASS)
        for seed in arguments.seeds:
            by_seed[seed] = of_seed(seed, Path(name), test, arguments.arms.split(","))
            print(json.dumps({"seed": seed, **by_seed[seed]}), flush=True)
    print(f"{PER_CLASS} images of each kind\n\n{table(by_seed)}")


if __name__ == "__main__":
    main()
