"""Both phases of kerasft beside the Keras guide's program: same photos, split, steps and seeds.

Programs take turns, each in processes of its own, so that whatever else the machine does falls
on all alike. They see the same files, batches of 32 at the backbone's side, and take the same
number of optimizer steps, which is checked; early stopping is off. The arms:

    guide          guide_two_phase.py; what the ratios refer to. It unfreezes the whole net, or with
                   --unfreeze-from LAYER what lies above, the same work as kerasft's
    cold           kerasft in float32, whose cache of activations is empty
    warm           kerasft in a new run, with the cache that "cold" left
    cold-bfloat16, warm-bfloat16    the same in bfloat16: the pass, and the steps of the unfreezing
    live           kerasft without a store, a new view of every photo in every epoch
    default        kerasft as it is without any option: other epochs, early stopping, own precision
    bound, bound-bfloat16    the steps of the trained part alone, on numbers in memory: no image,
                   no pass, no validation. The guide's seconds over these are what a store can
                   win at most.

Seconds of a phase: of the guide its `fit`; of kerasft the pass that fills the store and the
epochs (one pass may fill the stores of both phases; it counts where it runs, with the head).
Both validate after every epoch. "after": what kerasft does then and the guide does not, saving,
the proof of the freeze, scoring from pixels. "whole": the processes from start to end, imports
and the reading of the photos included. Peak memory is that of the largest process. "stored":
how many of the two phases trained from a store; cache.mode is auto, which may decide against it.

kerasft's accuracies are those of its model.keras, the best epoch's; the guide's of its last epoch.

    python scripts/bench_two_phase.py --data photos/ --epochs 10 --unfreeze-epochs 10 --seeds 3

A folder with `images.npy` (uint8 [N,S,S,3]) and `labels.npy` (int [N]) in the place of photos
runs where TensorFlow is not, on the backend that KERAS_BACKEND names: images/s of the pass and
of the steps are measured, nothing else.

Shapes: N images, S side of a square image in pixels, K classes. Unix only (`os.wait4`).
"""

# TensorFlow and Keras stay out of the process that starts the others: on Linux, what it holds
# in memory when it starts one is the least that is told of that one's peak.
import argparse
import csv
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from kerasft.backbones.spec import parse

_FLOAT32 = (["cache.precision=float32"], ["phases.-1.precision=float32"])
_BFLOAT16 = (["cache.precision=bfloat16"], ["phases.-1.precision=mixed_bfloat16"])
# `--set` of `train` and of `unfreeze-and-continue`, besides what all but "default" have.
KERASFT: dict[str, tuple[list[str], list[str]]] = {
    "cold": _FLOAT32,
    "warm": _FLOAT32,
    "cold-bfloat16": _BFLOAT16,
    "warm-bfloat16": _BFLOAT16,
    "live": (["cache.mode=off"], ["phases.-1.precision=float32"]),
    "default": ([], []),
}
BOUNDS = {"bound": "float32", "bound-bfloat16": "bfloat16"}
ARMS = ("cold", "guide", "warm", "cold-bfloat16", "warm-bfloat16", "live", "default", *BOUNDS)
USUAL = "cold,guide,warm,cold-bfloat16,warm-bfloat16,default,bound,bound-bfloat16"
GUIDE = "guide"
PROGRAM = [sys.executable, "-c", "from kerasft.cli.main import main; main()"]
"""What runs kerasft on this Python, whether it is installed or on the path."""
BATCH = 32
WORK = ("split", "train_images", "batch_size", "image_size", "head_steps", "unfreeze_steps")
"""What has to be equal in all rows of a seed; the steps of "default" are its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="photos, a folder per class; or images.npy")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--epochs", type=int, default=10, help="of the head")
    parser.add_argument("--unfreeze-epochs", type=int, default=10)
    parser.add_argument(
        "--unfreeze-from", metavar="LAYER", help="of the guide; default: all layers"
    )
    parser.add_argument("--views", type=int, default=1, help="augment.views of cold and warm")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--precision", default="float32", help="of --suffix-steps")
    parser.add_argument("--arms", default=USUAL, help=f"some of {', '.join(ARMS)}")
    parser.add_argument("--json", type=Path, help="where to write everything, rows included")
    parser.add_argument("--suffix-steps", type=int, nargs=2, metavar=("N", "K"), help="bound alone")
    arguments = parser.parse_args()
    if arguments.suffix_steps:
        print(json.dumps(suffix_steps(arguments)))
        return
    if arguments.data is None:
        parser.error("--data is needed")
    begin = {"command": shlex.join(sys.argv), "machine": machine()}
    if (arguments.data / "images.npy").is_file():
        rows = bench_decoded(arguments)
        report: dict = {"rows": rows}
        print(decoded_table(rows))
    else:
        try:
            arms = in_turn(arguments.arms.split(","))
        except ValueError as error:
            parser.error(str(error))
        rows = bench(arguments, arms)
        means = summary(rows, GUIDE)
        reached = [times_to_accuracy(rows, arm, GUIDE) for arm in arms if arm in KERASFT]
        report = {"rows": rows, "means": means, "reached": reached}
        print(table(means))
        print("\n".join(map(reached_text, filter(None, reached))))
    if arguments.json:
        arguments.json.write_text(json.dumps({**begin, **report}, indent=1) + "\n", "utf-8")


def in_turn(names: Sequence[str]) -> list[str]:
    """The arms in the order in which they run: a program of kerasft first, it makes the split.

    Raises:
        ValueError: an arm that is not known, or that lacks the one that it builds on.
    """
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ValueError(f"--arms: unknown {', '.join(unknown)}. Known are {', '.join(ARMS)}.")
    arms = [arm for arm in ARMS if arm in names]
    first = next((arm for arm in arms if arm in KERASFT), None)
    if first is None:
        raise ValueError(f"--arms: one of {', '.join(KERASFT)} has to make the split.")
    for warm in ("warm", "warm-bfloat16"):
        if warm in arms and _filler(warm) not in arms:
            raise ValueError(f"--arms: {warm} needs {_filler(warm)}, which fills the cache.")
    return [first, *(arm for arm in arms if arm != first)]


def _filler(arm: str) -> str:
    """The arm whose cache an arm takes: its own, or that of the cold one."""
    return arm.replace("warm", "cold")


def bench(arguments: argparse.Namespace, arms: Sequence[str]) -> list[dict]:
    """Runs every arm once a seed, and prints its row as it ends."""
    rows: list[dict] = []
    for path in arguments.data.rglob("*.*"):
        if path.is_file():
            path.read_bytes()  # so that the program that comes first is not the one that waits
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        # A folder a seed: stores are large.
        with tempfile.TemporaryDirectory(prefix="bench-two-phase-") as folder:
            of_seed: list[dict] = []
            for arm in arms:
                row = {"program": arm, "seed": seed}
                if arm in KERASFT:
                    row |= run_kerasft(arm, seed, Path(folder), arguments)
                elif arm in BOUNDS:
                    row |= run_bound(Path(folder) / arms[0], BOUNDS[arm], arguments)
                else:
                    row |= run_guide(seed, Path(folder) / arms[0], arguments)
                of_seed.append(with_rates(row))
                print(json.dumps(of_seed[-1]), flush=True)
                refuse_unequal(of_seed)
            rows += of_seed
    return rows


def run_kerasft(arm: str, seed: int, folder: Path, arguments: argparse.Namespace) -> dict:
    """Trains both phases in `folder/ARM`; warm takes the cache of cold, others a new one."""
    run = folder / arm
    cache = folder / f"cache-{_filler(arm)}"
    cache.mkdir(exist_ok=_filler(arm) != arm)
    environment = {"KERASFT_CACHE": str(cache)}
    train, unfreeze = kerasft_commands(arm, run, seed, arguments)
    head, head_process = command(train, environment)
    both, unfreeze_process = command(unfreeze, environment)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    record = json.loads((run / "run.json").read_text("utf-8"))
    phases = both["phases"]
    seconds = [phase_seconds(phase) for phase in phases]
    processes = (head_process, unfreeze_process)
    return {
        **work_of(run, phases),
        "device": f"{record['device']} {record['name']}".strip(),
        "head_seconds": sum(seconds[0][:2]),
        "unfreeze_seconds": sum(seconds[1][:2]),
        "head_after_seconds": seconds[0][2],
        "unfreeze_after_seconds": seconds[1][2],
        "head_whole_seconds": head_process["whole_seconds"],
        "whole_seconds": sum(process["whole_seconds"] for process in processes),
        "peak_mb": max(process["peak_mb"] for process in processes),
        "head_validation_accuracy": head["validation"]["accuracy"],
        "validation_accuracy": both["validation"]["accuracy"],
        "test_accuracy": both["test"]["accuracy"],
        "parts": [phase.get("parts") for phase in phases],
        "activations": [phase.get("activations") for phase in phases],
        "stored": sum(bool(phase.get("activations")) for phase in phases),
        "curve": curve(phases, lines),
    }


def kerasft_commands(
    arm: str, run: Path, seed: int, arguments: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """What trains the head, and what unfreezes and continues."""
    train = [*PROGRAM, "train", "--data", str(arguments.data), "--run", str(run)]
    train += ["--seed", str(seed), "--backbone", arguments.backbone, "--json"]
    unfreeze = [*PROGRAM, "unfreeze-and-continue", str(run), "--json"]
    if arm != "default":
        train += ["--epochs", str(arguments.epochs)]
        unfreeze += ["--epochs", str(arguments.unfreeze_epochs)]
    for typed, sets in zip((train, unfreeze), settings(arm, arguments), strict=True):
        for one in sets:
            typed += ["--set", one]
    return train, unfreeze


def settings(arm: str, arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """`--set` of both commands."""
    if arm == "default":
        return [], []
    train, unfreeze = KERASFT[arm]
    views = 0 if arm == "live" else arguments.views
    return (
        ["phases.0.patience=0", f"augment.views={views}", *train],
        ["phases.-1.patience=0", *unfreeze],
    )


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[dict, dict]:
    """Runs one program to its end.

    Args:
        arguments: the program and its arguments.
        environment: variables that it has besides this process's.

    Returns:
        The JSON of its last line; and `{"whole_seconds", "peak_mb"}` of the process.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            arguments, stdout=output, stderr=errors, env={**os.environ, **environment}
        )
        # In the place of process.wait(), which forgets what the process used.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            sys.exit(f"{shlex.join(arguments)} failed:\n{errors.read()}")
        result = json.loads(output.read().strip().splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB on Linux
    return result, {"whole_seconds": seconds, "peak_mb": usage.ru_maxrss * unit / 1e6}


def phase_seconds(phase: Mapping) -> tuple[float, float, float]:
    """Seconds of a phase in run.json: of the pass, of the epochs, and of what comes after."""
    parts = phase.get("parts", [{"name": "epochs", "seconds": phase["seconds"]}])
    of_name = {
        name: sum(part["seconds"] for part in parts if part["name"] == name)
        for name in ("prefix pass", "epochs")
    }
    compared = sum(of_name.values())
    everything = max(phase["seconds"], sum(part["seconds"] for part in parts))
    return of_name["prefix pass"], of_name["epochs"], everything - compared


def work_of(run: Path, phases: Sequence[Mapping]) -> dict:
    """What a run's files say that it worked on, and its steps by the epochs that it reports."""
    config = tomllib.loads((run / "config.toml").read_text("utf-8"))
    sizes = [phase["batch_size"] for phase in config["phases"]]
    images = len(_labels(run))
    steps = [
        phase["epochs"] * math.ceil(images / size)
        for phase, size in zip(phases, sizes, strict=True)
    ]
    return {
        "split": _digest(run),
        "train_images": images,
        "batch_size": sizes[0],
        "image_size": config["model"]["image_size"],
        "head_steps": steps[0],
        "unfreeze_steps": steps[1],
    }


def _labels(run: Path) -> list[str]:
    """Labels of a run's training images."""
    with open(run / "splits.csv", newline="", encoding="utf-8") as file:
        return [row["label"] for row in csv.DictReader(file) if row["split"] == "train"]


def _digest(run: Path) -> str:
    return hashlib.blake2b((run / "splits.csv").read_bytes(), digest_size=8).hexdigest()


def curve(phases: Sequence[Mapping], lines: Sequence[Mapping]) -> list[list[float]]:
    """Validation accuracy over time: `[seconds, accuracy]` after every epoch of all phases.

    Seconds are those that are compared, passes and epochs; an epoch counts as long as any other
    of its phase, and a head that was solved no time.

    Args:
        phases: of run.json.
        lines: of metrics.jsonl.
    """
    points: list[list[float]] = []
    began = 0.0
    for phase in phases:
        of_pass, of_epochs, _ = phase_seconds(phase)
        mine = [line for line in lines if line["phase"] == phase["name"]]
        last = max((line["epoch"] for line in mine), default=0) or 1
        for line in mine:  # epoch 0 is a head that was solved
            seconds = began + of_pass + of_epochs * line["epoch"] / last
            points.append([seconds, line["val_accuracy"]])
        began += of_pass + of_epochs
    return points


def run_guide(seed: int, run: Path, arguments: argparse.Namespace) -> dict:
    """The guide's program, on the split of a run of kerasft."""
    options = ["--seed", str(seed), "--epochs", str(arguments.epochs)]
    options += ["--unfreeze-epochs", str(arguments.unfreeze_epochs)]
    options += ["--backbone", arguments.backbone]
    if arguments.unfreeze_from:
        options += ["--unfreeze-from", arguments.unfreeze_from]
    script = Path(__file__).with_name("guide_two_phase.py")
    program = [sys.executable, str(script), str(run), str(arguments.data), *options]
    result, process = command(program, {})
    return {**result, **process, "split": _digest(run)}


def run_bound(run: Path, precision: str, arguments: argparse.Namespace) -> dict:
    """The steps of the trained part alone, as many as for a run's training images."""
    labels = _labels(run)
    program = _suffix_program(len(labels), len(set(labels)), precision, arguments)
    result, process = command(program, {})
    return {**result, **process}


def _suffix_program(
    images: int, classes: int, precision: str, arguments: argparse.Namespace
) -> list[str]:
    program = [sys.executable, __file__, "--suffix-steps", str(images), str(classes)]
    program += ["--backbone", arguments.backbone, "--precision", precision]
    program += ["--epochs", str(arguments.epochs)]
    return [*program, "--unfreeze-epochs", str(arguments.unfreeze_epochs)]


def with_rates(row: dict) -> dict:
    """The row with the sums of its phases' seconds, and its training images per second."""
    row["seconds"] = row["head_seconds"] + row["unfreeze_seconds"]
    if "head_after_seconds" in row:
        row["after_seconds"] = row["head_after_seconds"] + row["unfreeze_after_seconds"]
    per_epoch = math.ceil(row["train_images"] / row["batch_size"])
    for phase in ("head", "unfreeze"):
        images = row["train_images"] * row[f"{phase}_steps"] / per_epoch
        row[f"{phase}_images_per_second"] = images / row[f"{phase}_seconds"]
    return {key: _rounded(value) for key, value in row.items()}


def _rounded(value: object) -> object:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def refuse_unequal(rows: Sequence[Mapping]) -> None:
    """Ends the bench where programs of one seed did not do the same work: it compares nothing.

    Args:
        rows: of one seed.
    """
    for key in WORK:
        own = ("default",) if key.endswith("steps") else ()
        values = {
            row["program"]: row[key] for row in rows if key in row and row["program"] not in own
        }
        if len(set(values.values())) > 1:
            told = ", ".join(f"{program} {value}" for program, value in values.items())
            sys.exit(f"seed {rows[0]['seed']}: the programs differ in {key}: {told}.")


def summary(rows: Sequence[Mapping], reference: str) -> list[dict]:
    """Means over the seeds for every program, and how often its seconds fit into the reference's.

    Args:
        rows: of all programs and seeds.
        reference: the program that ratios refer to, or "" for none.

    Returns:
        For each program `{"program", ...}` with the means of all numbers in its rows, and
        `head_ratio`, `unfreeze_ratio`, `ratio`, `whole_ratio`: the reference's mean seconds
        over its own. What a program lacks is absent.
    """
    programs = list(dict.fromkeys(row["program"] for row in rows))
    means = {program: _means([r for r in rows if r["program"] == program]) for program in programs}
    for one in means.values():
        for prefix in ("head_", "unfreeze_", "", "whole_"):
            of_reference = means.get(reference, {}).get(f"{prefix}seconds")
            if of_reference and f"{prefix}seconds" in one:
                one[f"{prefix}ratio"] = of_reference / one[f"{prefix}seconds"]
        if one["program"] in BOUNDS:
            one.pop("whole_ratio", None)  # building the net and its numbers is no part of it
    return list(means.values())


def _means(rows: Sequence[Mapping]) -> dict:
    numbers = [k for k, v in rows[0].items() if isinstance(v, int | float) and k != "seed"]
    return {
        "program": rows[0]["program"],
        "seeds": len(rows),
        **{key: statistics.mean(row[key] for row in rows) for key in numbers},
    }


_RATE, _TIMES, _SHARE = "{:.0f}".format, "{:.2f}".format, "{:.3f}".format
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("head s", "head_seconds", "{:.1f}".format),
    ("unfreeze s", "unfreeze_seconds", "{:.1f}".format),
    ("both s", "seconds", "{:.1f}".format),
    ("after s", "after_seconds", "{:.1f}".format),
    ("whole s", "whole_seconds", "{:.1f}".format),
    ("head img/s", "head_images_per_second", _RATE),
    ("unfreeze img/s", "unfreeze_images_per_second", _RATE),
    ("peak MB", "peak_mb", _RATE),
    ("stored", "stored", _RATE),
    ("val", "validation_accuracy", _SHARE),
    ("test", "test_accuracy", _SHARE),
    ("x head", "head_ratio", _TIMES),
    ("x unfreeze", "unfreeze_ratio", _TIMES),
    ("x both", "ratio", _TIMES),
    ("x whole", "whole_ratio", _TIMES),
)


def table(means: Sequence[Mapping]) -> str:
    """A line per program of `summary`; ratios are the reference's seconds over its own."""
    rows = [["program", *(title for title, _, _ in COLUMNS)]]
    for one in means:
        cells = [as_text(one[key]) if key in one else "-" for _, key, as_text in COLUMNS]
        rows.append([one["program"], *cells])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def times_to_accuracy(rows: Sequence[Mapping], program: str, reference: str) -> dict | None:
    """When a program of kerasft is first as good as the reference is in the end.

    Returns:
        `{"program", "reference", "seeds", "seconds": [of each seed, None for never], "ratio"}`,
        the ratio over the seeds in which it is: the reference's seconds of both phases over
        these. None without a reference.
    """
    goals = {row["seed"]: row for row in rows if row["program"] == reference}
    if not goals:
        return None
    seconds = [
        seconds_to(row["curve"], goals[row["seed"]]["validation_accuracy"])
        for row in rows
        if row["program"] == program
    ]
    reached = [one for one in seconds if one is not None]
    of_reference = [
        goal["seconds"] for goal, one in zip(goals.values(), seconds, strict=True) if one
    ]
    return {
        "program": program,
        "reference": reference,
        "seeds": len(seconds),
        "seconds": seconds,
        "ratio": sum(of_reference) / sum(reached) if reached else None,
    }


def seconds_to(points: Sequence[Sequence[float]], accuracy: float) -> float | None:
    """The first moment of a `curve` with at least that accuracy, None if there is none."""
    # The guide's accuracy is a float32, which may lie above the same share of the images.
    good = (seconds for seconds, reached in points if reached >= accuracy - 1e-4)
    return next(good, None)


def reached_text(one: Mapping) -> str:
    """One sentence on what `times_to_accuracy` found."""
    reached = [seconds for seconds in one["seconds"] if seconds is not None]
    begin = f"{one['program']}: as good on validation as {one['reference']} is in the end"
    if not reached:
        return f"{begin} in none of {one['seeds']} seeds"
    mean = statistics.mean(reached)
    in_seeds = f"in {len(reached)} of {one['seeds']} seeds"
    return f"{begin} {in_seeds}, after {mean:.1f} s, {one['ratio']:.2f} times sooner"


def bench_decoded(arguments: argparse.Namespace) -> list[dict]:
    """Images/s of the pass and of the steps on images.npy, in both precisions."""
    import numpy as np

    labels = np.load(arguments.data / "labels.npy")
    rows = []
    for precision in ("float32", "bfloat16"):
        program = _suffix_program(len(labels), int(labels.max()) + 1, precision, arguments)
        result, process = command([*program, "--data", str(arguments.data)], {})
        rows.append(with_rates({"program": f"decoded-{precision}", **result, **process}))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def decoded_table(rows: Sequence[Mapping]) -> str:
    """Images/s by precision, of the pass to each cut and of the steps behind it."""
    keys = ("head_pass", "head", "unfreeze_pass", "unfreeze")
    titles = ("pass to the head", "head steps", "pass to the cut", "unfreeze steps")
    lines = [["images/s", *titles]]
    for row in rows:
        cells = [f"{row[f'{key}_images_per_second']:.0f}" for key in keys]
        lines.append([row["program"], *cells])
    return _aligned(lines)


def suffix_steps(arguments: argparse.Namespace) -> dict:
    """Trains both phases' suffixes on activations in memory, and times it. Computes here.

    Activations are random float16 numbers of the shape at the cut; with --data those of
    images.npy, and the pass that makes them is timed. Weights are random: they cost the same.

    Returns:
        `{"backend", "precision", "train_images", "batch_size", "image_size", "head_steps",
        "unfreeze_steps", "head_seconds", "unfreeze_seconds"}`; the seconds leave out a first
        epoch, in which the graph is built. With --data also `head_pass_images_per_second` and
        `unfreeze_pass_images_per_second`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    from kerasft.heads import trained
    from kerasft.models import build
    from kerasft.models.cut import freeze, split
    from kerasft.models.live import set_precision

    if keras.backend.backend() == "tensorflow":
        from kerasft import devices

        devices.prepare("auto")  # threads and determinism as in a run
    backbone = parse(arguments.backbone)[0]
    count, classes = arguments.suffix_steps
    side, batch = backbone.image_size, min(BATCH, count)
    images = None
    if arguments.data:
        count -= count % batch  # a smaller batch would be traced while time runs
        images = np.load(arguments.data / "images.npy", mmap_mode="r")[:count]
        side = images.shape[1]
    base = build.load(arguments.backbone, weights="none", image_size=side)
    model = trained.attach(base, classes, hidden=(), dropout=0.2, seed=0)
    set_precision(model, "mixed_bfloat16" if arguments.precision == "bfloat16" else "float32")
    random = np.random.default_rng(0)
    targets = np.eye(classes, dtype="float32")[random.integers(classes, size=count)]
    result = {
        "backend": keras.backend.backend(),
        "precision": arguments.precision,
        "train_images": count,
        "batch_size": batch,
        "image_size": side,
    }
    phases = (
        ("head", 0, arguments.epochs, 1e-3),
        ("unfreeze", backbone.default_blocks, arguments.unfreeze_epochs, 5e-5),
    )
    for name, blocks, epochs, rate in phases:
        cut = split(model, blocks, backbone)
        freeze(cut, "frozen")
        if images is None or cut.prefix is None:
            shape = (count, *cut.suffix.input_shape[1:])
            activations = random.random(shape, dtype="float32").astype("float16")
        else:
            activations, pass_rate = _pass(cut.prefix, images, batch)
            result[f"{name}_pass_images_per_second"] = pass_rate
        cut.suffix.compile(
            optimizer=keras.optimizers.Adam(rate),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        ends: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, ends=ends: ends.append(time.perf_counter())
        )
        cut.suffix.fit(
            activations,
            targets,
            batch_size=batch,
            epochs=1 + epochs,
            shuffle=False,
            verbose=0,
            callbacks=[clock],
        )
        result[f"{name}_steps"] = epochs * math.ceil(count / batch)
        result[f"{name}_seconds"] = ends[-1] - ends[0]
    return result


def _pass(prefix: Any, images: Any, batch: int) -> tuple[Any, float]:
    """Activations float16 of images uint8 [N,S,S,3], and how many images a second that took."""
    prefix.predict(images[:batch], batch_size=batch, verbose=0)  # builds the graph
    began = time.perf_counter()
    activations = prefix.predict(images, batch_size=batch, verbose=0)
    seconds = time.perf_counter() - began
    return activations.astype("float16"), len(images) / seconds


def machine() -> dict:
    """What computes: processor, cores, memory, load before, system, versions; and the date."""
    versions: dict[str, str | None] = {}
    for name in ("kerasft", "keras", "tensorflow", "jax", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    """Its name, and which instructions for bfloat16 it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = facts.get("flags", "").split()
    found = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    return ", ".join([facts.get("model name", platform.machine()), *found])


if __name__ == "__main__":
    main()
