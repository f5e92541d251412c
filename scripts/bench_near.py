"""Measures how many altered copies of photos are found as near copies, and mistakes.

    python scripts/bench_near.py DATASETS

DATASETS holds folders of photos by class, such as flowers5. Copies of 200 photos each are planted.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from kerasft.data.files import examine_files
from kerasft.data.near import find_near_copies
from kerasft.progress import silent

TURNS = Image.Transpose
COPIES = {
    "JPEG quality 50": (lambda image: image, 50),
    "half size": (lambda image: image.resize((image.width // 2, image.height // 2)), 90),
    "turned by 90": (lambda image: image.transpose(TURNS.ROTATE_90), 90),
    "turned by 180": (lambda image: image.transpose(TURNS.ROTATE_180), 90),
    "turned by 270": (lambda image: image.transpose(TURNS.ROTATE_270), 90),
    "mirrored": (lambda image: image.transpose(TURNS.FLIP_LEFT_RIGHT), 90),
}


def measure(folder: Path) -> None:
    """Prints a line for the originals of a folder, and one for each kind of copy."""
    paths = sorted(path for path in folder.rglob("*.*") if path.is_file())
    labels = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    names = [str(path.relative_to(folder)) for path in paths]
    looks = [found.look for found in examine_files(folder, names, silent)[0]]
    groups = find_near_copies(names, looks, labels).groups
    print(f"{folder.name}: {len(paths)} photos, near copies among them: {len(groups)} groups")
    for group in groups:
        print("    " + ", ".join(names[one] for one in group))
    chosen = np.sort(np.random.default_rng(0).choice(len(paths), 200, replace=False))
    for kind, (alter, quality) in COPIES.items():
        with tempfile.TemporaryDirectory() as place:
            planted = [Path(place) / f"{number}x.jpg" for number in range(200)]
            for copy, photo in zip(planted, chosen, strict=True):
                with Image.open(paths[photo]) as image:
                    alter(image.convert("RGB")).save(copy, quality=quality)
            more = [
                found.look
                for found in examine_files(Path(place), [copy.name for copy in planted], silent)[0]
            ]
        everything = [*names, *map(str, planted)], [*looks, *more]
        found = find_near_copies(*everything, np.concatenate([labels, labels[chosen]])).groups
        of = {one: number for number, group in enumerate(found) for one in group}
        pairs = [(len(paths) + number, int(photo)) for number, photo in enumerate(chosen)]
        hits = sum(of.get(copy, -1) == of.get(photo, -2) for copy, photo in pairs)
        print(f"    {kind}: {hits} of 200 found")


if __name__ == "__main__":
    for name in ("flowers5", "ants_bees"):
        measure(Path(sys.argv[1]) / name)
