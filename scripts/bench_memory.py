"""Peak memory of a run on 2,000 small JPEGs beside one on 20,000: it must not grow with them.

Each run is `kerasft train` and `unfreeze-and-continue` in processes of their own, one epoch each,
MobileNet:alpha=0.25 without weights at 64 pixels, activations stored, in an empty cache. Seconds
and images/s are there too, of whole commands.

    python scripts/bench_memory.py 2000 20000

Unix only (`os.wait4`). The files, up to 100 MB, lie in the system's folder for temporary ones.
"""

import argparse
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from bench_two_phase import PROGRAM, command
from PIL import Image

CLASSES = 5
BACKBONE = "MobileNet:alpha=0.25"


def write_jpegs(folder: Path, count: int) -> None:
    """Writes `count` JPEGs of 80 x 64 pixels, blobs in the colour of their class, no two alike."""
    random = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        coarse = random.integers(0, 256, (4, 5, 3)) // 2
        coarse[..., label % 3] += 20 * label
        image = Image.fromarray(coarse.astype("uint8")).resize((80, 64), Image.Resampling.BICUBIC)
        path = folder / f"class-{label}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with io.BytesIO() as encoded:
            image.save(encoded, "JPEG", quality=85)
            path.write_bytes(encoded.getvalue())


def run(count: int) -> dict:
    """Both phases on `count` images: peak memory and seconds of each command."""
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        folder = Path(name)
        write_jpegs(folder / "photos", count)
        train = [*PROGRAM, "train", "--data", str(folder / "photos"), "--run", str(folder / "run")]
        train += ["--backbone", BACKBONE, "--weights", "none", "--image-size", "64", "--json"]
        train += ["--epochs", "1", "--set", "phases.0.blocks=0", "--set", "augment.views=1"]
        train += ["--set", "cache.mode=on"]
        unfreeze = [*PROGRAM, "unfreeze-and-continue", str(folder / "run"), "--epochs", "1"]
        environment = {"KERASFT_CACHE": str(folder / "cache")}
        head, of_head = command(train, environment)
        both, of_unfreeze = command([*unfreeze, "--json"], environment)
        stored = [phase["activations"]["bytes"] for phase in both["phases"]]
        assert head["validation"]["n"] + head["test"]["n"] < count
    return {
        "images": count,
        "head_peak_mb": round(of_head["peak_mb"]),
        "unfreeze_peak_mb": round(of_unfreeze["peak_mb"]),
        "store_mb": [round(size / 1e6, 1) for size in stored],
        "head_seconds": round(of_head["whole_seconds"], 1),
        "unfreeze_seconds": round(of_unfreeze["whole_seconds"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("counts", type=int, nargs="+", help="numbers of images")
    rows = []
    for count in parser.parse_args().counts:
        rows.append(run(count))
        print(json.dumps(rows[-1]), flush=True)
    for key in ("head_peak_mb", "unfreeze_peak_mb"):
        print(f"{key}: {rows[-1][key] - rows[0][key]:+} MB from the first to the last")


if __name__ == "__main__":
    main()
