"""Seconds of each stage of a command on some hundred photos, where training is the least of it.

Commands run one after the other, each in a process of its own, as many times as asked; a stage's
seconds are the medians. They are exclusive: a stage that runs within another counts for itself.

    imports     TensorFlow, Keras and what else the command imports
    scan        reading, checking and splitting the photos, or finding those of a run again
    build       the net with its pretrained weights
    plan        what the config leaves open, e.g. whether bfloat16 pays
    pass        the frozen part over all views, or finding its rows in the store
    fit         the epochs: graphs traced, steps, validation
    save, load  model.keras, written and read
    proof       digests of all variables before and after
    score       pixels to scores, of validation and test images
    export      the SavedModel, written and compared with model.keras
    rest        what is left of the process: start, end, everything else

The bound is a process that only imports TensorFlow and Keras.

    python scripts/bench_startup.py --data photos/ --weights imagenet --repeats 3

"train, full cache" trains another head than the one that filled the cache: another seed of its
weights is not enough for that, so it has another dropout.
"""

import argparse
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

STAGES: dict[str, tuple[str, ...]] = {
    "scan": ("data.scan:scan_source", "data.scan:open_source"),
    "build": ("training.start:initial_net",),
    "plan": ("training.plan:settle",),
    "pass": ("activations.prefix_pass:activations_at",),
    "fit": ("training.fit:fit",),
    "save": ("models.bundle:save",),
    "load": ("models.bundle:load",),
    "proof": ("models.cut:prove_frozen", "models.cut:fingerprint"),
    "score": ("models.bundle:score",),
    "export": ("export.export:export_run",),
}
COLUMNS = ("imports", *STAGES, "rest", "whole")
BOUND = "import tensorflow, keras"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="photos, a folder per class")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the stages of every process")
    arguments = parser.parse_args()
    for path in arguments.data.rglob("*.*"):
        if path.is_file():
            path.read_bytes()
    times: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory(prefix="bench-startup-") as folder:
            for name, typed in commands(arguments, Path(folder)):
                times.setdefault(name, []).append(run(typed, Path(folder)))
    print(table(times))
    if arguments.json:
        arguments.json.write_text(json.dumps(times, indent=1) + "\n", "utf-8")


def commands(arguments: argparse.Namespace, folder: Path) -> list[tuple[str, list[str]]]:
    """Returns the name and the arguments of each command; no arguments for the bound."""
    data = ["--data", str(arguments.data)]
    net = ["--backbone", arguments.backbone, "--weights", arguments.weights]
    one, two = str(folder / "one"), str(folder / "two")
    return [
        (BOUND, []),
        ("train, empty cache", ["train", *data, *net, "--run", one]),
        (
            "train, full cache",
            ["train", *data, *net, "--run", two, "--set", "head.dropout=0.3"],
        ),
        ("unfreeze-and-continue", ["unfreeze-and-continue", one]),
        ("evaluate", ["evaluate", two]),
        ("predict one photo", ["predict", two, str(first_photo(arguments.data))]),
        ("export", ["export", two]),
    ]


def first_photo(folder: Path) -> Path:
    return min(path for path in folder.rglob("*.*") if path.is_file())


def run(typed: list[str], folder: Path) -> dict[str, float]:
    """Runs a command in a process of its own; returns the seconds of its stages."""
    stages = folder / "stages.json"
    child = [sys.executable, __file__, "--child", str(stages), *typed]
    if not typed:
        child = [sys.executable, "-c", "import tensorflow, keras"]
    environment = {**os.environ, "KERASFT_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    done = subprocess.run(child, env=environment, capture_output=True, text=True)
    whole = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(typed)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    if not typed:
        return {"whole": whole}
    seconds: dict[str, float] = json.loads(stages.read_text("utf-8"))
    return {**seconds, "rest": whole - sum(seconds.values()), "whole": whole}


def measured(stages: Path, typed: list[str]) -> None:
    """Runs a command of kerasft in this process and writes the seconds of its stages."""
    spent = dict.fromkeys(("imports", *STAGES), 0.0)
    running: list[list[float]] = []  # of each stage that runs: its beginning, and what ran within

    def timed(stage: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            running.append([time.perf_counter(), 0.0])
            try:
                return function(*arguments, **named)
            finally:
                began, within = running.pop()
                seconds = time.perf_counter() - began
                spent[stage] += seconds - within
                if running:
                    running[-1][1] += seconds

        return wrapped

    # `import` runs within the stages too, so it is timed where Python looks for a new module.
    plain = importlib._bootstrap._find_and_load  # type: ignore[attr-defined]
    importlib._bootstrap._find_and_load = timed("imports", plain)  # type: ignore[attr-defined]

    from kerasft.cli.main import main as cli
    from kerasft.processes import importing

    with importing():  # as the commands import them
        for home in {name.partition(":")[0] for names in STAGES.values() for name in names}:
            importlib.import_module(f"kerasft.{home}")
    for stage, names in STAGES.items():
        for name in names:
            home, function_name = name.split(":")
            module = importlib.import_module(f"kerasft.{home}")
            function: Callable = getattr(module, function_name)
            for other in [m for n, m in sys.modules.items() if n.startswith("kerasft")]:
                if getattr(other, function_name, None) is function:
                    setattr(other, function_name, timed(stage, function))
    sys.argv = ["kerasft", *typed]
    try:
        cli()
    finally:
        stages.write_text(json.dumps(spent), "utf-8")


def table(times: dict[str, list[dict[str, float]]]) -> str:
    """Returns the medians as a Markdown table."""
    bound = statistics.median(one["whole"] for one in times[BOUND])
    lines = [
        "| command | " + " | ".join(COLUMNS) + " | times the bound |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    for name, runs in times.items():
        seconds = {k: statistics.median(one[k] for one in runs) for k in runs[0]}
        cells = [f"{seconds[k]:.1f}" if seconds.get(k, 0) >= 0.05 else "" for k in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {seconds['whole'] / bound:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measured(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
