"""Makes an imbalanced set out of a folder per class, as a CSV with splits.

    python scripts/thin_out.py flowers5/ --most 200 > flowers5/imbalanced.csv

The first class keeps 200 training images, each next one half of the one before it; validation
and test get 40 images of every class, so accuracy there is the mean over the classes. The
paths are relative to the folder, so the CSV belongs into it.
"""

import argparse
import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

HELD_OUT = 40  # images of each class in validation, and as many in test


def rows(folder: Path, most: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yields path, label and split.

    Args:
        folder: holds a folder of images per class.
        most: training images of the first class; the last one has at least 2.
        seed: of the choice.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for position, of_class in enumerate(classes):
        files = sorted(path for path in of_class.iterdir() if path.is_file())
        random.Random(f"{seed} {of_class.name}").shuffle(files)
        kept = max(2, most >> position)
        splits = ["validation"] * HELD_OUT + ["test"] * HELD_OUT + ["train"] * kept
        if len(files) < len(splits):
            raise SystemExit(f"{of_class}: holds {len(files)} images, expected {len(splits)}.")
        for file, split in zip(files, splits, strict=False):
            yield file.relative_to(folder).as_posix(), of_class.name, split


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    writer.writerows(rows(options.folder, options.most, options.seed))
