"""`kerasft update` beside training on everything at once: accuracy, rows, time, forgetting.

For each seed, on a folder of five classes:

    first     a run on the first three classes
    update    two classes are added, one is renamed, two are merged: `kerasft update`
    gone      the same update where the photos of the first run are gone (`--photos-gone`)
    at once   a new run on all photos and the new classes, with the splits of "update" and, as
              whoever trains anew elsewhere, without a cache

Both end with the same classes, splits and test photos. Rows are photos in a view that go through
the pretrained net for the head. Seconds are those of whole processes. All of it is printed as a
Markdown table, with the means and 95% intervals (Student's t) over the seeds.

    python scripts/bench_update.py --data flowers5/ --seeds 5 --work work/
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench_accuracy import interval
from bench_two_phase import PROGRAM, machine

STORED = re.compile(
    r"computing frozen features once: ([\d,]+) images x (\d+) views \+ ([\d,]+) validation"
    r"|computing frozen features of ([\d,]+) images"
)


class Done(NamedTuple):
    """A command that has run: its JSON, its seconds, and the rows that it computed."""

    answer: Any
    seconds: float
    rows: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with five class folders")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and the cache")
    parser.add_argument(
        "--accuracy-alone", action="store_true", help="one cache for all seeds, without 'at once'"
    )
    arguments = parser.parse_args()
    names = sorted(path.name for path in arguments.data.iterdir() if path.is_dir())
    if len(names) != 5:
        parser.error(f"{arguments.data} holds {len(names)} classes; expected five.")
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    for part, some in {"first": names[:3], "second": names[3:]}.items():
        (work / part).mkdir(exist_ok=True)
        for name in some:
            if not (work / part / name).exists():
                (work / part / name).symlink_to((arguments.data / name).absolute())
    rows = [bench(arguments, names, work, seed) for seed in range(arguments.seeds)]
    print(f"{arguments.data.name}, {arguments.backbone}: {', '.join(names[:3])} first, then")
    print(f"{names[3]} and {names[4]}; {names[0]} renamed, {names[1]} and {names[3]} merged.")
    print(f"{json.dumps(machine())}\n")
    print(table(rows))


def bench(arguments: argparse.Namespace, names: list[str], work: Path, seed: int) -> dict[str, Any]:
    """Runs the programs with one seed; returns their figures."""
    caches = () if arguments.accuracy_alone else ("cache", "empty")
    for name in ("a", "b", "c", "g", *caches):  # a seed finds nothing of another one
        shutil.rmtree(work / name, ignore_errors=True)
    merged = f"{names[1]},{names[3]}=both"
    common = ["--backbone", arguments.backbone, "--seed", str(seed), "--set", "report=false"]
    done = {
        "first": run(
            "train", str(work / "first"), *common, "--run", str(work / "a"), cache=work / "cache"
        )
    }
    asked = ("--add", str(work / "second"), "--rename", f"{names[0]}=renamed", "--merge", merged)
    for name, how in (("update", ("b",)), ("gone", ("g", "--photos-gone"))):
        folder, *flags = how
        done[name] = run(
            *("update", str(work / "a"), *asked, "--run", str(work / folder), *flags),
            cache=work / "cache",
        )
    if not arguments.accuracy_alone:
        classes = {names[0]: "renamed", names[1]: "both", names[3]: "both"}
        mapped = ", ".join(f'"{label}" = "{name}"' for label, name in classes.items())
        done["at once"] = run(
            *("train", str(work / "first"), *common, "--run", str(work / "c")),
            *("--set", f'data.added=["{work}/second"]', "--set", f"data.classes={{{mapped}}}"),
            *("--set", f"data.splits_from={work}/b"),
            cache=work / "empty",
        )
    updated = {name: done[name].answer for name in ("update", "gone")}
    accuracy = {name: answer["run"]["test"]["accuracy"] for name, answer in updated.items()}
    if "at once" in done:
        accuracy["at once"] = done["at once"].answer["test"]["accuracy"]
    effects = {name: answer["effect"] for name, answer in updated.items()}
    return {
        **accuracy,
        "old before": effects["update"]["before"] / effects["update"]["n"],
        **{f"old, {name}": one["after"] / one["n"] for name, one in effects.items()},
        **{f"rows, {name}": one.rows for name, one in done.items()},
        **{f"s, {name}": one.seconds for name, one in done.items()},
    }


def run(*arguments: str, cache: Path) -> Done:
    """Runs a command of kerasft in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run(
        [*PROGRAM, *arguments, "--json"],
        env={**os.environ, "KERASFT_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    rows = 0
    for images, views, validation, some in STORED.findall(done.stderr):
        whole = _number(images) * _number(views) + _number(validation)
        rows += _number(some) if some else whole
    return Done(json.loads(done.stdout), seconds, rows)


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes a line for each seed, and the means with their intervals."""
    names = list(rows[0])
    lines = [f"| seed | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for seed, row in enumerate(rows):
        cells = [f"{row[n]:.3f}" if row[n] <= 1 else f"{row[n]:,.0f}" for n in names]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    if len(rows) > 1:
        for mine, other in (
            ("update", "at once"),
            ("gone", "update"),
            ("old, update", "old before"),
            ("old, gone", "old, update"),
        ):
            if not {mine, other} <= set(names):
                continue
            points = interval([100 * (row[mine] - row[other]) for row in rows])
            lines.append(f"\n{mine} - {other}: {points} points.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
