"""Shows whether two checkouts train the same bits: digests of a fixed set of small runs.

    python scripts/same_bits.py OLD_CHECKOUT NEW_CHECKOUT

Each run is made by `python -m kerasft` of either checkout on the sample's photos and weights, with
an empty cache, by the Python that runs this script. What is compared: metrics.jsonl, byte for byte,
and every array of model.keras. Exit status 1 if anything differs. About 10 minutes on 2 cores.

A change that should not alter results is shown by this script.
"""

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

HEAD = "--weights sample --epochs 2 --batch-size 16 --set augment.views=2"
NO_WEIGHTS = "--weights none --image-size 48 --set phases.0.blocks=0 --epochs 1"
# Name -> commands (DATA and RUN are put in), and KERAS_BACKEND.
RUNS: dict[str, tuple[tuple[str, ...], str]] = {
    "head, then unfreeze": (
        (
            f"train --data DATA {HEAD} --run RUN",
            "unfreeze-and-continue RUN --blocks 2 --epochs 2 --batch-size 16",
        ),
        "tensorflow",
    ),
    "svm, then unfreeze": (
        (
            "train --data DATA --weights sample --method svm --run RUN",
            "unfreeze-and-continue RUN --blocks 1 --epochs 1",
        ),
        "tensorflow",
    ),
    "bayes": (("train --data DATA --weights sample --method bayes --run RUN",), "tensorflow"),
    "two nets": (
        (f"train --data DATA --backbone MobileNetV2+MobileNet:alpha=0.25 {NO_WEIGHTS} --run RUN",),
        "tensorflow",
    ),
    "live": (
        (
            f"train --data DATA {HEAD} --set augment.views=0 --set augment.mixup=0.2 "
            "--set augment.flip=true --set head.dropout=0.3 --set phases.0.class_weight=balanced "
            "--run RUN",
        ),
        "tensorflow",
    ),
    "every setting": (
        (
            f"train --data DATA {HEAD} --set augment.mixup=0.2 --set augment.crop=0.7 "
            "--set augment.flip=true --set augment.color=0.2 --set head.hidden=[32] "
            "--set head.dropout=0.2 --set phases.0.ema=0.9 --set phases.0.accumulate=2 "
            "--set phases.0.label_smoothing=0.1 --set phases.0.schedule=cosine "
            "--set augment.test_time=flip --run RUN",
        ),
        "tensorflow",
    ),
    "JAX": ((f"train --data DATA {HEAD} --run RUN",), "jax"),
}


def run_kerasft(checkout: Path, line: str, folder: Path, backend: str) -> None:
    """Runs one command of a checkout.

    Args:
        checkout: the folder that holds the package kerasft.
        line: what follows "kerasft ", without spaces in its words.
        folder: where it runs; its cache is in there too.
        backend: what Keras computes with.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "KERASFT_CACHE": str(folder / "cache"),
        "KERAS_BACKEND": backend,
    }
    command = [sys.executable, "-m", "kerasft", *line.split()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: kerasft {line}\n{done.stderr}")


def digests_of(run: Path) -> dict[str, str]:
    """Returns digests of metrics.jsonl and of each array of model.keras, by name."""
    digests = {"metrics.jsonl": hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest()}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            digests[name] = hashlib.sha256(np.ascontiguousarray(item[()]).tobytes()).hexdigest()

    with zipfile.ZipFile(run / "model.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r") as file:
        file.visititems(add)
    return digests


def differences(checkouts: list[Path], photos: Path, name: str, work: Path) -> list[str]:
    """Trains one of RUNS by each checkout and returns what differs, by name."""
    commands, backend = RUNS[name]
    made = []
    for number, checkout in enumerate(checkouts):
        folder = work / f"{list(RUNS).index(name)}-{number}"
        folder.mkdir()
        for line in commands:
            line = line.replace("DATA", str(photos)).replace("RUN", "run")
            run_kerasft(checkout, line, folder, backend)
        made.append(digests_of(folder / "run"))
    first, second = made
    return [key for key in {**first, **second} if first.get(key) != second.get(key)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", choices=RUNS, action="append", help="can be repeated")
    arguments = parser.parse_args()
    checkouts = [arguments.old.resolve(), arguments.new.resolve()]
    different = False
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        run_kerasft(checkouts[0], "sample-data photos --per-class 12", work, "tensorflow")
        for name in arguments.only or RUNS:
            found = differences(checkouts, work / "photos", name, work)
            different |= bool(found)
            print(f"{name}: {'equal' if not found else f'{len(found)} differ: {found[:3]}'}")
            sys.stdout.flush()
    sys.exit(different)


if __name__ == "__main__":
    main()
