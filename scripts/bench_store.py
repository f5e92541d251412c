"""Measures the store of activations: images that are computed again, and the time of an epoch.

    python scripts/bench_store.py --data flowers5/

It prints two tables. One has the time to read an epoch of stored activations, from one store
as before, and from segments: one or many, their rows in order or scattered. The other has the
images that go through MobileNetV2 (224 pixels, 4 views, two cuts) to train a head: with an empty
cache, with other seeds, with half of the photos, with 5% more of them.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from kerasft import load_config, train_run
from kerasft.activations import store
from kerasft.activations.reading import read_slices
from kerasft.activations.segments import Segments
from kerasft.activations.store import Key, Rows, filling
from kerasft.data.batches import Epoch
from kerasft.progress import Event

MORE = 0.05  # share of the photos of each class that is added later
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "20,000 rows of 1,280": (20_000, (1280,)),
    "2,000 rows of 14 x 14 x 96": (2000, (14, 14, 96)),
}
EPOCHS = 7
NEEDED = ("images", "views", "validation")  # figures of the event "store"


def images_computed(data: Path, run: Path, *sets: str) -> tuple[int, int]:
    """Trains a head for one epoch; returns the images that passes computed, and all it needs."""
    computed, needed = 0, 0

    def watch(event: Event) -> None:
        nonlocal computed, needed
        if event.stage == "pass" and event.done == event.total:
            computed += event.total
        if event.stage == "store":
            images, views, others = (int(event.figures[name]) for name in NEEDED)
            needed = images * views + others

    config = load_config(
        flags={"data.source": str(data), "phases.0.epochs": 1},
        sets=["cache.mode=on", "data.test=0.15", *sets],
    )
    train_run(config, run, score_test=False, progress=watch)
    return computed, needed


def computed_table(data: Path, work: Path) -> None:
    """Prints the images that are computed, step by step in one cache."""
    os.environ["KERASFT_CACHE"] = str(work / "cache")
    fewer, whole = work / "fewer", work / "whole"
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        photos = sorted(folder.iterdir())
        shutil.copytree(folder, whole / folder.name)
        (fewer / folder.name).mkdir(parents=True)
        for photo in photos[: round(len(photos) / (1 + MORE))]:
            shutil.copy(photo, fewer / folder.name)
    steps: list[tuple[str, Path, list[str]]] = [
        ("seed 0, empty cache", fewer, []),
        ("seed 1", fewer, ["seed=1"]),
        ("seed 2", fewer, ["seed=2"]),
        ("seed 0, half of the training photos", fewer, ["data.fraction=0.5"]),
        ("seed 0, 5% more photos", whole, []),
    ]
    print("| run | images needed | computed | share |\n| --- | --- | --- | --- |")
    for number, (name, source, sets) in enumerate(steps):
        computed, needed = images_computed(source, work / f"run{number}", *sets)
        print(f"| {name} | {needed:,} | {computed:,} | {computed / needed:.1%} |", flush=True)


def laid_out(folder: Path, order: np.ndarray, shape: tuple[int, ...], count: int) -> Rows:
    """Writes rows into some segments in an order, and opens them in the order of their numbers.

    With no segment they lie in a single store, as they did before rows were found by photo.
    """
    tensor = Key({"rows": len(order), "segments": count, "first": int(order[0])})
    rows = [(f"{number:032x}", 0) for number in range(len(order))]
    block = np.zeros((256, *shape), "float16")
    with filling(folder, [tensor]):
        for part in np.array_split(order, max(1, count)):
            key = Key(tensor.facts, tuple(rows[number] for number in part) if count else ())
            with store.writing(folder, key, (len(part), *shape), "float16") as writer:
                for start in range(0, len(part), 256):
                    writer.append(block[: min(256, len(part) - start)])
    if not count:
        whole = store.open_store(folder, tensor)
        assert whole is not None
        return whole
    found = Segments.of(folder, tensor).open(folder, rows)
    assert found is not None
    return found


def seconds_of(views: Rows, batch_size: int = 32) -> float:
    """Returns the median time to read an epoch in random order, in seconds."""
    count, taken = len(views), []
    for number in range(EPOCHS):
        order = np.random.default_rng(number).permutation(count)
        epoch = Epoch(order, np.zeros(count, np.int64), np.zeros(count, np.int64))
        began = time.perf_counter()
        for _ in read_slices([views], [epoch], batch_size=batch_size):
            pass
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def reading_table(work: Path) -> None:
    """Prints the time of an epoch for several layouts of the same rows."""
    print("\n| layout | " + " | ".join(SIZES) + " |\n| --- | --- | --- |")
    times: dict[str, list[str]] = {}
    for count, shape in SIZES.values():
        order = np.arange(count)
        scattered = np.random.default_rng(1).permutation(count)
        layouts = {
            "one store without photos, as before": laid_out(work / "s", order, shape, 0),
            "one segment": laid_out(work / "s", order, shape, 1),
            "20 segments": laid_out(work / "s", order, shape, 20),
            "20 segments, scattered": laid_out(work / "s", scattered, shape, 20),
        }
        for views in layouts.values():
            seconds_of(views)  # so that all lie in the disk cache
        first = None
        for name, views in layouts.items():
            seconds = seconds_of(views)
            first = first or seconds
            times.setdefault(name, []).append(f"{1000 * seconds:.0f} ms ({seconds / first:.2f})")
    for name, cells in times.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Reads the options, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder per class")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reading_table(Path(folder))
        computed_table(options.data, Path(folder))


if __name__ == "__main__":
    main()
