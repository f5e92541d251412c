"""How often `kerasft drift` calls a shift: where there is none, and where photos were changed.

A run of `--data` (MobileNetV2, its head solved by LDA), then draws without replacement from its own
test photos, as they are or changed, each compared with the run's known photos as the command does:

    blur R       Gaussian blur of radius R pixels of the photo as it is (Pillow)
    darker D     brightness times D
    other mix    60% of one class, 10% of each other; or one class alone
    one class    the photos of one class blurred (radius 2), the others as they are
    strangers    photos of another set (`--other`) among them, or alone

Features are computed once, and stay with the run below `--work`.

    python scripts/bench_drift.py --data flowers5/ --other steel6/ --draws 40
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.metrics import roc_auc_score

from kerasft import load_config
from kerasft.data.batches import image_batches
from kerasft.data.splits import read_rows
from kerasft.models.bundle import compute, load
from kerasft.novelty import known
from kerasft.novelty.shift import LEVEL, Reference, Shift, find_shift, refer_to
from kerasft.novelty.two_sample import kernel_of, permutation_test, witness
from kerasft.run import Run
from kerasft.training.train import train_run

N = 60
OTHERS = 100  # photos of the other set
CLASS = 2  # whose share or photos change; of flowers5: roses
Change = Callable[[Image.Image], Image.Image]
Draw = Callable[[np.random.Generator], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="photos, a folder per class")
    parser.add_argument("--other", type=Path, required=True, help="photos of other things")
    parser.add_argument(
        "--draws", type=int, default=40, help="draws of the first rows; seed: its number"
    )
    parser.add_argument("--work", type=Path, help="folder of the run; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        measure(arguments.data, arguments.other, arguments.draws, work)


def measure(data: str, other: Path, draws: int, work: Path) -> None:
    """Trains the run if it is not there, and prints the tables."""
    run = Run(work / "run0")
    if not run.record_path.exists():
        flags = {"data.source": data, "phases.0.method": "lda", "report": False}
        train_run(load_config(None, flags=flags), run.path)
    features, labels, reference, threshold = collect(run, Path(data), other, work)
    scenes = scenes_of(features, labels)
    names = run.classes_path.read_text("utf-8").split("\n")
    print(f"| {N} photos | draws | shifted | all photos | looks | class shares |", end="")
    print(f" {names[CLASS]} named | other classes named | median p | unlike all |")
    print("| --- " * 10 + "|")
    for name, draw in scenes.items():
        number = draws if name.startswith(("own", "blur")) else draws // 2
        rows = [draw(np.random.default_rng(seed)) for seed in range(number)]
        found = [find_shift(reference, one, seed) for seed, one in enumerate(rows)]
        unlike = np.mean(
            [(known.distances(reference.features, r) > threshold).mean() for r in rows]
        )
        print(line(name, found, float(unlike)), flush=True)
    print(
        f"\n| p up to 0.005, of {draws} draws | " + " | ".join(f"{n} photos" for n in SIZES) + " |"
    )
    print("| --- " * (1 + len(SIZES)) + "|")
    for name in ("test", "blur1", "blur2", "dark0.5"):
        cells = [called(reference, plain(features[name], n), draws, ["median"]) for n in SIZES]
        print(
            f"| {name} | " + " | ".join(f"{cell['median']:.0%}" for cell in cells) + " |",
            flush=True,
        )
    print(f"\n| p up to 0.005, of {draws} draws of {N} | " + " | ".join(WIDTHS) + " |")
    print("| --- " * (1 + len(WIDTHS)) + "|")
    for name in ("test", "blur1", "dark0.7", "dark0.5"):
        by_width = called(reference, plain(features[name], N), draws)
        print(
            f"| {name} | " + " | ".join(f"{cell:.0%}" for cell in by_width.values()) + " |",
            flush=True,
        )
    print("\n| changed, of 60 | witness | distance |\n| --- | --- | --- |")
    for name in ("blur1", "blur2", "dark0.5", "other"):
        for number in (3, 15, 30):
            print(order_line(reference, features, name, number), flush=True)


SIZES = (10, 20, 30)


def collect(
    run: Run, data: Path, other: Path, work: Path
) -> tuple[dict[str, np.ndarray], np.ndarray, Reference, float]:
    """Computes the features of all photos that are drawn from.

    Returns:
        Features by name, [N,F] each; labels of the test photos; the known photos; the distance
        that counts as unlike them.
    """
    opened = load(run.model_path)
    seen = known.load_beside(run.known_path, opened)
    assert seen is not None and seen.features is not None
    model = seen.beside(opened)
    rows = read_rows(run.splits_path, len(opened.class_names))
    photos = [data / row[0] for row in rows if row[2] == "test"]

    def stored(name: str, paths: list[Path], change: Change | None = None) -> np.ndarray:
        file = work / f"f_{name}.npz"
        if not file.exists():
            with tempfile.TemporaryDirectory() as folder:
                shown = [changed(p, Path(folder), i, change) for i, p in enumerate(paths)]
                batches = image_batches(shown, rule=opened.rule)
                np.savez(file, f=compute(model, batches, total=len(paths))[2])
        return np.asarray(np.load(file)["f"])

    features = {"test": stored("test", photos)}
    for radius in (1, 2, 3, 4):
        features[f"blur{radius}"] = stored(f"blur{radius}", photos, blurring(radius))
    for share in (0.7, 0.5, 0.3):
        features[f"dark{share}"] = stored(f"dark{share}", photos, darkening(share))
    strangers = sorted(path for path in other.rglob("*.*") if path.is_file())
    chosen = np.random.default_rng(0).choice(len(strangers), OTHERS, replace=False)
    features["other"] = stored(other.name, [strangers[i] for i in chosen])
    own = [int(row[1]) for row in rows if row[2] == "train"]
    kept = np.array(own)[known.kept_rows(len(own))]
    labels = np.array([int(row[1]) for row in rows if row[2] == "test"])
    reference = refer_to(seen.features, kept, len(opened.class_names))
    right = (reference.classes.known == kept).mean()
    ours = reference.classes.of(known.unit(features["test"]))
    print(f"known photos {len(kept)}, their class found without them {right:.3f}, ", end="")
    print(f"class of test photos {(ours == labels).mean():.3f}\n")
    return features, labels, reference, seen.threshold


def blurring(radius: int) -> Change:
    """Returns what blurs a photo; the radius is in its pixels."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius))


def darkening(share: float) -> Change:
    """Returns what multiplies the brightness of a photo."""
    return lambda image: ImageEnhance.Brightness(image).enhance(share)


def changed(path: Path, folder: Path, number: int, change: Change | None) -> Path:
    """Writes a changed photo as PNG; one that is not changed is taken as it is."""
    if change is None:
        return path
    with Image.open(path) as image:
        change(image.convert("RGB")).save(folder / f"{number:04}.png")
    return folder / f"{number:04}.png"


def plain(features: np.ndarray, n: int) -> Draw:
    """Draws n rows."""
    return lambda rng: features[rng.choice(len(features), n, replace=False)]


def scenes_of(features: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Draw]:
    """Returns the ways to draw, by name."""
    test, other = features["test"], features["other"]
    of_class = np.flatnonzero(labels == CLASS)

    def mixed(rng: np.random.Generator) -> np.ndarray:
        rest = [np.flatnonzero(labels == c) for c in np.unique(labels) if c != CLASS]
        each = (N - 36) // len(rest)
        rows = [rng.choice(of_class, 36, replace=False)]
        return test[np.concatenate([*rows, *(rng.choice(r, each, replace=False) for r in rest)])]

    def one_blurred(rng: np.random.Generator) -> np.ndarray:
        rows = rng.choice(len(test), N, replace=False)
        return np.where((labels[rows] == CLASS)[:, None], features["blur2"][rows], test[rows])

    def alone(rng: np.random.Generator) -> np.ndarray:
        return test[rng.choice(of_class, min(45, len(of_class)), replace=False)]

    def among(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([plain(test, N - 3)(rng), plain(other, 3)(rng)])

    return {
        "own test photos": plain(test, N),
        **{f"blur, radius {r}": plain(features[f"blur{r}"], N) for r in (1, 2, 3, 4)},
        **{f"darker, times {s}": plain(features[f"dark{s}"], N) for s in (0.7, 0.5, 0.3)},
        "one class blurred, radius 2": one_blurred,
        "60% of one class": mixed,
        "45 photos of one class": alone,
        "3 strangers among them": among,
        "strangers alone": plain(other, N),
    }


def line(name: str, found: list[Shift], unlike: float) -> str:
    """Writes a row of the first table."""

    def share(values: list[bool]) -> str:
        return f"{np.mean(values):.0%}"

    named = [[bool(one.test and one.test.shifted) for one in shift.classes] for shift in found]
    cells = [
        f"{len(found)}",
        share([shift.shifted for shift in found]),
        share([shift.overall.shifted for shift in found]),
        share([bool(shift.looks and shift.looks.shifted) for shift in found]),
        share([shift.shares.shifted for shift in found]),
        share([row[CLASS] for row in named]),
        share([one for row in named for i, one in enumerate(row) if i != CLASS]),
        f"{np.median([shift.overall.p for shift in found]):.4f}",
        f"{unlike:.1%}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def order_line(
    reference: Reference, features: dict[str, np.ndarray], name: str, number: int
) -> str:
    """Writes how well two orders put changed photos first: the mean area under the ROC curve."""
    areas = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(features["test"]))[:N]
        strange = rows[:number] if name != "other" else rng.choice(OTHERS, number, replace=False)
        new = known.unit(np.concatenate([features[name][strange], features["test"][rows[number:]]]))
        _, width = kernel_of(np.concatenate([new, reference.features]))
        shown = witness(new, new, reference.features, width, np.ones(N, bool))
        far = known.distances(reference.features, new)
        areas.append([roc_auc_score(np.arange(N) < number, order) for order in (shown, far)])
    by_witness, by_distance = np.mean(areas, axis=0)
    return f"| {name}, {number} | {by_witness:.2f} | {by_distance:.2f} |"


WIDTHS = {
    "median": (1.0,),
    "median / 4": (0.25,),
    "median / 10": (0.1,),
    "mean of median / 4, / 2, x 1, x 2": (0.25, 0.5, 1.0, 2.0),
}


def called(
    reference: Reference, draw: Draw, draws: int, widths: Sequence[str] = tuple(WIDTHS)
) -> dict[str, float]:
    """Returns how often the overall test calls a shift, by the width of the kernel."""
    shifted = dict.fromkeys(widths, 0)
    for seed in range(draws):
        new = known.unit(draw(np.random.default_rng(seed)))
        alike, _ = kernel_of(np.concatenate([new, reference.features]))
        for name in widths:
            mixed = np.mean([alike ** (1 / factor) for factor in WIDTHS[name]], axis=0)
            shifted[name] += permutation_test(
                mixed, len(new), level=LEVEL / 2, permutations=499, seed=seed
            ).shifted
    return {name: number / draws for name, number in shifted.items()}


if __name__ == "__main__":
    main()
