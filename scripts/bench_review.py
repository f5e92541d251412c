"""Photos that `kerasft review` chooses to be labelled, beside photos that are chosen at random.

For each draw a third of the photos are the test; of the others 12 of each class, at random, are
labelled at the start. Then, as a person would with `review` and `update`, rounds of 60: a head is
solved (logistic regression, strength by cross-validation) on what is labelled so far, 60 more are
chosen by its scores and labelled, up to four times the start. Beside it:

    random    photos at random, four and five times the start
    margin    the most unsure photos, whether they are alike or not
    all       all photos that are not of the test

All heads are solved by the same method, and judged on the test photos, which nothing has chosen on.
Differences are paired, with the 95% interval of their mean over the draws (Student's t).

    python scripts/bench_review.py --data flowers5/,clothes10/ --draws 8
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_accuracy import interval
from bench_two_phase import machine

from kerasft.checking.features import features_of
from kerasft.config.load import load_config
from kerasft.heads.solved import Examples
from kerasft.heads.solver import solve
from kerasft.novelty.choice import choose, margins
from kerasft.progress import silent
from kerasft.training.train import plan_run

START = 12  # labelled photos of each class
ROUND = 60
Chooser = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="photo sets, joined by commas")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--draws", type=int, default=8)
    arguments = parser.parse_args()
    print(machine(), "\n")
    for data in arguments.data.split(","):
        flags = {"data.source": data, "model.backbone": arguments.backbone}
        plan = plan_run(load_config(None, flags=flags), progress=silent)
        features, source = features_of(plan, silent), plan.source
        drawn = [draw(features, np.asarray(source.labels), seed) for seed in range(arguments.draws)]
        print(table(Path(data).name, drawn), flush=True)


def draw(features: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Returns the accuracy of each way of choosing, by its name and number of photos."""
    numbers = np.random.default_rng(seed)
    order = numbers.permutation(len(labels))
    test, pool = order[: len(order) // 3], order[len(order) // 3 :]
    classes = range(labels.max() + 1)
    start = np.concatenate([pool[labels[pool] == k][:START] for k in classes])
    rest = numbers.permutation(np.setdiff1d(pool, start))

    def accuracy(rows: np.ndarray) -> float:
        return float((head(features, labels, rows)(test).argmax(1) == labels[test]).mean())

    n = len(start)
    ways: dict[str, Chooser] = {
        "margin": lambda scores, _, number: np.argsort(margins(scores), kind="stable")[:number],
        "review": choose,
    }
    found = {f"random, {m * n}": accuracy(np.r_[start, rest[: (m - 1) * n]]) for m in (1, 4, 5)}
    found["all"] = accuracy(pool)
    for name, way in ways.items():
        found[f"{name}, {4 * n}"] = accuracy(
            rounds(way, features, labels, start, np.sort(rest), 4 * n)
        )
    return found


def rounds(
    way: Chooser,
    features: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    rest: np.ndarray,
    total: int,
) -> np.ndarray:
    """Labels photos in rounds, and returns the positions of all that are labelled at the end."""
    labelled = start
    while len(labelled) < total:
        scores = head(features, labels, labelled)(rest)
        picked = way(scores, features[rest], min(ROUND, total - len(labelled)))
        labelled = np.r_[labelled, rest[picked]]
        rest = np.delete(rest, picked)
    return labelled


def head(
    features: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Solves a head on some photos; returns a function of positions to scores [N,K]."""
    train = Examples(features[rows], labels[rows])
    solved = solve("logistic", train, train.take(np.arange(1)), num_classes=labels.max() + 1)
    return lambda positions: np.asarray(solved.estimator.predict_proba(features[positions]))


def table(name: str, drawn: list[dict[str, float]]) -> str:
    """Writes a row for each way, with its difference to five times the start, at random."""
    ways = list(drawn[0])
    beside = ways[2]
    lines = [
        f"| {name}: labelled | test accuracy | beside {beside}, points |",
        "| --- | --- | --- |",
    ]
    for way in ways:
        apart = interval([100 * (one[way] - one[beside]) for one in drawn])
        mean = np.mean([one[way] for one in drawn])
        lines.append(f"| {way} | {mean:.3f} | {'' if way == beside else apart} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
