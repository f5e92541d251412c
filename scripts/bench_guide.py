"""Both phases of kerasft beside the Keras guide's program: same photos, split, epochs, seeds.

Runs take turns, each in processes of its own, so that whatever else the machine does falls on
both alike. Early stopping is off. Seconds are those of whole commands, imports and the reading
of the photos included.

    python scripts/bench_guide.py photos/ --seeds 3 --epochs 10 --unfreeze-epochs 10
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(arguments: list[str]) -> tuple[dict, float]:
    """Runs one command; returns the JSON of its last line, and its seconds."""
    began = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1]), time.perf_counter() - began


def kerasft(data: Path, run: Path, seed: int, arguments: argparse.Namespace) -> dict:
    program = [sys.executable, "-c", "from kerasft.cli import main; main()"]
    train = ["train", "--data", str(data), "--run", str(run), "--seed", str(seed), "--json"]
    train += ["--epochs", str(arguments.epochs), "--set", "phases.0.patience=0"]
    head, head_seconds = command(program + train)
    more = ["unfreeze-and-continue", str(run), "--epochs", str(arguments.unfreeze_epochs)]
    both, unfreeze_seconds = command([*program, *more, "--set", "phases.-1.patience=0", "--json"])
    return {
        "program": "kerasft",
        "seed": seed,
        "head_seconds": round(head_seconds, 1),
        "unfreeze_seconds": round(unfreeze_seconds, 1),
        "seconds": round(head_seconds + unfreeze_seconds, 1),
        "head_validation_accuracy": head["validation"]["accuracy"],
        "validation_accuracy": both["validation"]["accuracy"],
        "test_accuracy": both["test"]["accuracy"],
    }


def guide(data: Path, run: Path, seed: int, arguments: argparse.Namespace) -> dict:
    script = Path(__file__).with_name("guide_two_phase.py")
    options = ["--seed", str(seed), "--epochs", str(arguments.epochs)]
    options += ["--unfreeze-epochs", str(arguments.unfreeze_epochs)]
    result, seconds = command([sys.executable, str(script), str(run), str(data), *options])
    return {"program": "guide", **result, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="photos, a folder per class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--unfreeze-epochs", type=int, default=10)
    arguments = parser.parse_args()

    results = []
    folder = Path(tempfile.mkdtemp(prefix="bench-guide-"))
    for seed in range(arguments.seeds):
        run = folder / f"seed-{seed}"
        for program in (kerasft, guide):  # kerasft first: the guide reads its split
            results.append(program(arguments.data, run, seed, arguments))
            print(json.dumps(results[-1]), flush=True)
    shutil.rmtree(folder)

    for name in ("kerasft", "guide"):
        rows = [row for row in results if row["program"] == name]
        means = {
            key: statistics.mean(row[key] for row in rows)
            for key in ("seconds", "validation_accuracy", "test_accuracy")
        }
        print(name, " ".join(f"{key} {value:.4g}" for key, value in means.items()))


if __name__ == "__main__":
    main()
