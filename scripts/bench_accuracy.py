"""How right models are: the Keras guide's program, kerasft's defaults, and what may change them.

Every arm trains both phases on the same splits of several photo sets, with several seeds; a seed
draws its own split. Rows are kept in a file (`--json`), a line each, and a row that is there is
not computed again if its arm still means the same, so the bench can be stopped and goes on. Then
come the tables: mean accuracy for each set, and the paired differences to the first arm over all
sets and seeds, with the 95% interval of their mean (Student's t; sets and seeds count as
independent).

    python scripts/bench_accuracy.py --data flowers5/,ants_bees/ --seeds 5 --arms guide,defaults \
        --json accuracy.jsonl --work work/

An arm is a name of `ARMS`, or one of the command line's own: NAME:SETS:SETS, with `--set` of
`train` and of `unfreeze-and-continue`, joined by commas, such as
`plain:augment.mixup=0.0:phases.-1.epochs=20`. Choose by validation: the test split is for the last
table only. `--fraction 0.15` trains on that share of the training photos.

The guide's program (guide_two_phase.py) takes 10 + 10 epochs of batches of 32 and unfreezes the
whole net at 1e-5. Seconds are those of whole processes; all arms share one cache below `--work`,
so the first one on a set pays for the pass and later ones find it ("found").
"""

import argparse
import json
import math
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench_two_phase import GUIDE, PROGRAM, command, machine, phase_seconds

ARMS: dict[str, tuple[list[str], list[str]]] = {
    "defaults": ([], []),
    # The defaults until 2026-11-26.
    "before": (
        ["phases.0.head_start=kept"],
        [
            "phases.-1.wise=false",
            "phases.-1.learning_rate=5e-5",
            "phases.-1.schedule=constant",
            "phases.-1.warmup=0.0",
            "phases.-1.patience=5",
        ],
    ),
}
KEY = ("data", "backbone", "fraction", "seed", "arm", "sets")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="photo sets, joined by commas")
    parser.add_argument("--backbones", default="MobileNetV2", help="joined by commas")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--fraction", type=float, default=1.0, help="data.fraction")
    parser.add_argument("--arms", default="guide,defaults", help="joined by commas or blanks")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows, a line each")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and the cache")
    parser.add_argument("--tables", action="store_true", help="only print what --json holds")
    arguments = parser.parse_args()
    arms = known_arms(arguments.arms)
    rows = read_rows(arguments.json)
    if not arguments.tables:
        rows = bench(arguments, arms, rows)
    wanted = [row for row in rows if row["arm"] in arms and row["fraction"] == arguments.fraction]
    for split in ("validation", "test"):
        print(f"\n## {split}, {100 * arguments.fraction:.0f}% of the training photos\n")
        print(table(wanted, list(arms), split))


def known_arms(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """Reads the arms: names of ARMS, or NAME:SETS:SETS separated by blanks."""
    arms = {}
    for one in text.split() if ":" in text else text.split(","):
        name, *sets = one.split(":")
        if len(sets) == 2:
            arms[name] = (
                [x for x in sets[0].split(",") if x],
                [x for x in sets[1].split(",") if x],
            )
        elif name in ARMS or name == GUIDE:
            arms[name] = ARMS.get(name, ([], []))
        else:
            sys.exit(
                f"--arms: unknown {one}. Known are {GUIDE}, {', '.join(ARMS)}, NAME:SETS:SETS."
            )
    return arms


def read_rows(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def bench(
    arguments: argparse.Namespace, arms: Mapping[str, tuple[list[str], list[str]]], rows: list[dict]
) -> list[dict]:
    """Computes the rows that are missing, and writes each as it ends."""
    done = [[row[key] for key in KEY] for row in rows]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for backbone in arguments.backbones.split(","):
            for data in map(Path, arguments.data.split(",")):
                for arm, sets in arms.items():
                    place = [data.name, backbone, arguments.fraction, seed, arm, list(sets)]
                    if place in done:
                        continue
                    row = dict(zip(KEY, place, strict=True)) | run_arm(
                        arm, sets, data, backbone, seed, arguments
                    )
                    row["machine"] = machine()["processor"]
                    rows.append(row)
                    with open(arguments.json, "a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)
    return rows


def run_arm(
    arm: str,
    sets: tuple[list[str], list[str]],
    data: Path,
    backbone: str,
    seed: int,
    arguments: argparse.Namespace,
) -> dict:
    """Trains both phases of an arm and returns its figures."""
    work = arguments.work.absolute()
    environment = {"KERASFT_CACHE": str(work / "cache")}
    (work / "cache").mkdir(parents=True, exist_ok=True)
    name = "-".join([data.name, backbone.replace(":", "_"), f"{arguments.fraction:g}", str(seed)])
    run = work / f"{name}-{arm}"
    shutil.rmtree(run, ignore_errors=True)
    train = [*PROGRAM, "train", "--data", str(data), "--run", str(run), "--seed", str(seed)]
    train += ["--backbone", backbone, "--set", f"data.fraction={arguments.fraction}", "--json"]
    if arm == GUIDE:
        # One epoch on plain photos: only its split is used.
        few = ["--epochs", "1", "--set", "augment.views=1"]
        command([*train, *few], environment)
        script = str(Path(__file__).with_name("guide_two_phase.py"))
        guide = [sys.executable, script, str(run), str(data), "--backbone", backbone]
        result, process = command([*guide, "--seed", str(seed)], {})
        shutil.rmtree(run)
        return {
            "validation": {"accuracy": result["validation_accuracy"]},
            "head": {"accuracy": result["head_validation_accuracy"]},
            "test": {"accuracy": result["test_accuracy"]},
            "seconds": round(process["whole_seconds"], 1),
            "found": False,
        }
    head, head_process = command([*train, *_sets(sets[0])], environment)
    unfreeze = [*PROGRAM, "unfreeze-and-continue", str(run), "--json", *_sets(sets[1])]
    both, unfreeze_process = command(unfreeze, environment)
    shutil.rmtree(run)
    phases = both["phases"]
    uses = [phase.get("activations") or {} for phase in phases]
    return {
        "head": _figures(head["validation"]),
        "head_test": _figures(head["test"]),
        "validation": _figures(both["validation"]),
        "test": _figures(both["test"]),
        "improved": [phase["improved"] for phase in phases],
        "epochs": [[phase.get("epochs"), phase.get("best_epoch")] for phase in phases],
        "train": [[phase["train_loss"], phase["val_loss"]] for phase in phases],
        "passes": [round(phase_seconds(phase)[0], 1) for phase in phases],
        "steps": [round(phase_seconds(phase)[1], 1) for phase in phases],
        "seconds": round(head_process["whole_seconds"] + unfreeze_process["whole_seconds"], 1),
        "found": all(bool(use.get("found")) for use in uses),
    }


def _sets(sets: Sequence[str]) -> list[str]:
    return [word for one in sets for word in ("--set", one)]


def _figures(figures: Mapping) -> dict:
    return {name: round(figures[name], 4) for name in ("accuracy", "loss")}


def table(rows: Sequence[Mapping], arms: Sequence[str], split: str) -> str:
    """Mean accuracy of each arm on each set, and the paired difference to the first arm."""
    sets = list(dict.fromkeys((row["data"], row["backbone"]) for row in rows))
    lines = [
        "| arm | "
        + " | ".join(f"{data}, {net}" for data, net in sets)
        + f" | mean | log loss | to {arms[0]}, points | pairs | s |",
        "| --- |" + " --- |" * (len(sets) + 5),
    ]
    base = {_pair(row): row for row in rows if row["arm"] == arms[0]}
    for arm in arms:
        mine = {_pair(row): row for row in rows if row["arm"] == arm}
        both = [pair for pair in mine if pair in base]
        cells = []
        for one in sets:
            values = [row[split]["accuracy"] for pair, row in mine.items() if pair[:2] == one]
            apart = [100 * _apart(mine, base, p, split) for p in both if p[:2] == one]
            cells.append(f"{_mean(values)}" + (f" ({interval(apart)})" if arm != arms[0] else ""))
        apart = [100 * _apart(mine, base, pair, split) for pair in both]
        losses = [r[split]["loss"] for r in mine.values() if "loss" in r[split]]
        cells += [
            _mean([row[split]["accuracy"] for row in mine.values()]),
            _mean(losses),
            "" if arm == arms[0] else interval(apart),
            str(len(both)),
            f"{statistics.mean(row['seconds'] for row in mine.values()):.0f}" if mine else "",
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _pair(row: Mapping) -> tuple:
    return (row["data"], row["backbone"], row["seed"])


def _apart(mine: Mapping, base: Mapping, pair: tuple, split: str) -> float:
    return mine[pair][split]["accuracy"] - base[pair][split]["accuracy"]


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}" if values else ""


def interval(values: Sequence[float]) -> str:
    """The mean of numbers and the half width of its 95% interval, such as "+1.2 ± 0.5"."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:+.1f}"
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
