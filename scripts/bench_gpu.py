"""How fast kerasft is on a GPU, beside timm on the same card, in one short run.

    python scripts/bench_gpu.py --minutes 8 --json gpu.json
    python scripts/bench_gpu.py --quick       tiny, in a minute on two CPU cores
    python scripts/bench_gpu.py --needs       what to take to a machine without a network
    python scripts/bench_gpu.py --alone       one process at a time, the rows that are compared

It needs JAX, and PyTorch and timm for the other side; no TensorFlow, no photos, no weights. Images
are random uint8, weights are random. Two nets are measured at once, each by two processes, one for
kerasft (`gpu_kerasft.py`) and one for timm (`gpu_timm.py`). What is timed, and what XLA compiles
(it tries algorithms out on the card), happens while a process holds the card's lock. PyTorch
compiles without the lock, on the CPU in the main; its first call may cost the other side some
milliseconds of one window, which the median ignores. Every row is printed when it is known, and
the JSON is written anew, so that a run that is cut off still tells something.

Rows:
    pass pooled    images a second from uint8 in host memory to features float16 in host memory;
                   timm's "forward" does the same work
    pass cut       the same up to the default cut
    suffix step    training on stored activations at the default cut, whole epochs of `fit`
    step           timm's: frozen part under no_grad in bfloat16, the same blocks trained with
                   bfloat16 autocast, images on the card already
    live step      kerasft's equivalent of that
    pass error     relative error of the pass to Keras' own layers in float32 on the CPU
    forward folded, forward graphs, step graphs
                   timm with normalisations folded into weights, or with CUDA graphs
    profile        the kernels that take most of the pass
    losses         of each epoch on a made task, and bits that two processes agree on or not

"spread" is the range of the windows over their median; "compile" seconds until the first result;
"GB" the peak memory, of kerasft in the whole process so far; "share" the part of the card's peak,
which a matrix product in the row's precision has shown.
"""

import argparse
import ast
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from gpu_side import MARK, NETS, Job

ROOT = Path(__file__).resolve().parents[1]
GOAL = 1.2  # times timm's images a second
USUAL = list(NETS)[:4]
KINDS = ("pass", "forward", "suffix", "finetune", "live", "check", "profile", "curve")
LIMIT_MB = 60  # of what has to travel


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8, help="rows that don't fit are skipped")
    parser.add_argument("--json", type=Path, help="file for facts and rows")
    parser.add_argument("--nets", help=f"separated by commas; default {','.join(USUAL)}")
    parser.add_argument("--only", default="", help=f"kinds of rows, of {','.join(KINDS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--alone", action="store_true", help="one process at a time, for quiet")
    parser.add_argument("--needs", action="store_true", help="list what has to travel")
    parser.add_argument("--side", choices=("kerasft", "timm", "needs"), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.job)
        return
    if arguments.needs:
        print_needs()
        return
    nets = arguments.nets or ("MobileNetV2:alpha=0.35" if arguments.quick else ",".join(USUAL))
    if unknown := sorted(set(nets.split(",")) - set(NETS)):
        parser.error(f"--nets: unknown {', '.join(unknown)}. Known are {', '.join(NETS)}.")
    only = tuple(kind for kind in arguments.only.split(",") if kind)
    if unknown := sorted(set(only) - set(KINDS)):
        parser.error(f"--only: unknown {', '.join(unknown)}. Known are {', '.join(KINDS)}.")
    table = Table(arguments.json, quick=arguments.quick)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            table,
            folder=Path(folder),
            until=time.time() + 60 * arguments.minutes,
            quick=arguments.quick,
            only=only,
            alone=arguments.alone,
        )
        bench.run(nets.split(","))
    table.finish()


def run_side(side: str, job: str) -> None:
    """Does the work of a child."""
    if side == "kerasft":
        import gpu_kerasft

        gpu_kerasft.run(Job.from_json(job))
    elif side == "timm":
        import gpu_timm

        gpu_timm.run(Job.from_json(job))
    else:
        print(MARK + json.dumps(imported()))


class Bench:
    """The children, and the time that they have."""

    def __init__(
        self,
        table: "Table",
        *,
        folder: Path,
        until: float,
        quick: bool,
        only: tuple[str, ...],
        alone: bool,
    ) -> None:
        self._table, self._folder, self._until = table, folder, until
        self._quick, self._only, self._alone = quick, only, alone

    def run(self, nets: Sequence[str]) -> None:
        """Measures the nets: the speeds that are compared, the others, then the made task."""
        if self._alone:
            for net, side in itertools.product(nets, ("kerasft", "timm")):
                self._child(
                    side, net, "speed", self._until - 5, first=(net, side) == (nets[0], "kerasft")
                )
            return
        curves = not self._only or "curve" in self._only
        left = self._until - time.time()
        speeds_until = self._until - (min(75.0, left / 4) if curves else 5.0)
        if self._only != ("curve",):

            def chain(side: str, start: int) -> Callable[[], None]:
                def measure() -> None:
                    for task in ("speed", "more"):
                        for net in nets[start::2]:
                            first = task == "speed" and net == nets[0]
                            self._child(side, net, task, speeds_until, first=first)

                return measure

            _at_once([chain(side, start) for side in ("kerasft", "timm") for start in (0, 1)])
        for net in nets if curves else ():
            self._curves(net)

    def _curves(self, net: str) -> None:
        """Trains the made task: kerasft in two processes, whose bits are compared, and timm."""
        if time.time() + (0 if self._quick else 30) > self._until:
            self._table.add_row(_note(net, "both", "made task", "skipped: no time left"))
            return
        found: dict[int, dict] = {}
        sides = ("kerasft", "kerasft", "timm")

        def one(number: int) -> Callable[[], None]:
            def train() -> None:
                found[number] = self._child(sides[number], net, "curve", self._until) or {}

            return train

        _at_once([one(number) for number in range(len(sides))])
        for number in (0, 2):
            if losses := found[number].get("losses"):
                falls = losses[-1] < losses[0]
                note = " ".join(f"{loss:.3f}" for loss in losses) + (
                    "" if falls else "  IT DOES NOT FALL"
                )
                row = _note(net, sides[number], "losses", note)
                self._table.add_row({**row, "losses": losses, "falls": falls})
            elif sides[number] == "timm" and not _timm_is_here():
                self._table.add_row(_note(net, "timm", "losses", "not installed"))
        if found[0] and found[1]:
            pairs = {
                "bits of two passes": (found[0]["activations"], found[0]["activations_again"]),
                "bits, two processes": (found[0]["activations"], found[1]["activations"]),
                "bits of two trainings": (found[0]["weights"], found[1]["weights"]),
            }
            for name, (one_digest, other) in pairs.items():
                same = one_digest == other
                row = _note(net, "kerasft", name, "equal" if same else "DIFFERENT")
                self._table.add_row({**row, "equal": same})

    def _child(
        self, side: str, net: str, task: str, until: float, *, first: bool = False
    ) -> dict[str, Any] | None:
        """Runs a child and collects its rows; returns its curve if that is its task."""
        if task == "more" and time.time() + (0 if self._quick else 25) > until:
            self._table.add_row(_note(net, side, "other rows", "skipped: no time left"))
            return None
        job = Job(
            net=net,
            task=task,
            first=first,
            quick=self._quick,
            until=until,
            lock=str(self._folder / "card.lock"),
            only=self._only,
        )
        command = [sys.executable, __file__, "--side", side, "--job", job.to_json()]
        curve = None
        with tempfile.TemporaryFile("w+") as log:
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self._folder),
            )
            # A row that hangs is ended; a quick run on a busy machine is given its time.
            timer = threading.Timer(max(5.0, until - time.time()) + 10, child.kill)
            timer.start()
            assert child.stdout is not None
            for message in _messages(child.stdout):
                if "row" in message:
                    self._table.add_row(message["row"])
                elif "curve" in message:
                    curve = message["curve"]
                else:
                    self._table.add_facts(message)
            status = child.wait()
            timer.cancel()
            if status:
                name = "made task" if task == "curve" else "all rows"
                end = _end_of(log)
                said = end[-1][:200] if end else "it said nothing"
                row = _note(net, side, name, f"ended with status {status}: {said}")
                if not (side == "timm" and task == "curve" and not _timm_is_here()):
                    self._table.add_row({**row, "log": end})
            elif end := _end_of(log):
                self._table.add_log(f"{side} {net} {task}", end)
        return curve


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a child; `folder` gets the programs that JAX compiles."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "TORCHINDUCTOR_COMPILE_THREADS": "6",  # leaves processors to the side that is timed
        **os.environ,
        "KERAS_BACKEND": "jax",
        "KERASFT_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def _at_once(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _messages(lines: IO[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(MARK):
            yield json.loads(line.removeprefix(MARK))


def _end_of(log: IO[str]) -> list[str]:
    log.seek(0)
    return [line.rstrip() for line in log if line.strip()][-30:]


def _note(net: str, side: str, name: str, note: str) -> dict[str, Any]:
    return {"net": net, "side": side, "name": name, "note": note}


def _timm_is_here() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "timm"))


class Table:
    """The rows, printed and written to a file as they come."""

    def __init__(self, path: Path | None, *, quick: bool) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._began = time.time()
        self._rows: list[dict[str, Any]] = []
        self._work: dict[str, dict[str, float]] = {}
        self._logs: dict[str, list[str]] = {}
        self._facts: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "command": " ".join(["python", "scripts/bench_gpu.py", *sys.argv[1:]]),
            "quick": quick,
            "python": sys.version.split()[0],
            "processors": os.cpu_count(),
            **card(),
        }
        print(HEAD, flush=True)

    def add_row(self, row: dict[str, Any]) -> None:
        """Adds a row, prints it, and writes the file."""
        with self._lock:
            self._rows.append({**row, "at_seconds": round(time.time() - self._began, 1)})
            print(self._line(row), flush=True)
            self._write()

    def add_facts(self, message: dict[str, Any]) -> None:
        """Adds facts on the machine, or counts of a net's operations."""
        with self._lock:
            if "facts" in message:
                self._facts |= message["facts"]
            else:
                work = dict(message["work"])
                self._work[work.pop("net")] = work
            self._write()

    def add_log(self, name: str, lines: list[str]) -> None:
        """Keeps the end of a child's log, for the file alone."""
        with self._lock:
            self._logs[name] = lines
            self._write()

    def finish(self) -> None:
        """Prints the whole table by net, the facts, and what the goal is about."""
        nets = list(dict.fromkeys(row["net"] for row in self._rows))
        print(f"\n{HEAD}")
        for row in sorted(self._rows, key=lambda row: (nets.index(row["net"]), row["side"])):
            print(self._line(row))
        print()
        for name, value in self._facts.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
        print()
        for one in self.ratios():
            reached = f"goal {GOAL} {'reached' if one['ratio'] >= GOAL else 'NOT reached'}"
            if self._facts["quick"]:
                reached = "quick: says nothing"
            of = f"{one['net']}, batch {one['batch']}"
            print(f"{of:<34}{one['what']:<34}{one['ratio']:7.2f}   {reached}")
        print(f"\n{time.time() - self._began:.0f} seconds")
        self._write()

    def ratios(self) -> list[dict[str, Any]]:
        """Returns kerasft's images a second over timm's, where both were measured in bfloat16."""
        pairs = (
            ("pass pooled", "forward"),
            ("pass pooled", "forward folded"),
            ("pass pooled", "forward graphs"),
            ("suffix step", "step"),
            ("suffix step", "step graphs"),
            ("live step", "step"),
        )
        rates = {
            (row["net"], row["side"], row["name"], row["batch"]): row["images_per_second"]
            for row in self._rows
            if row.get("precision") == "bfloat16" and "images_per_second" in row
        }
        return [
            {
                "net": net,
                "batch": batch,
                "what": f"kerasft {ours} / timm {theirs}",
                "ratio": rate / rates[net, "timm", theirs, batch],
            }
            for ours, theirs in pairs
            for (net, side, name, batch), rate in rates.items()
            if (side, name) == ("kerasft", ours) and (net, "timm", theirs, batch) in rates
        ]

    def _share(self, row: dict[str, Any]) -> tuple[float, float] | None:
        """Returns the FLOP/s of a row, and the share of the card's peak, if both are known."""
        flops = self._work.get(row["net"], {}).get(row.get("work", ""))
        peak = self._facts.get(f"peak_{row.get('precision')}")
        if flops is None or peak is None or "images_per_second" not in row:
            return None
        return flops * row["images_per_second"], flops * row["images_per_second"] / peak

    def _line(self, row: dict[str, Any]) -> str:
        share = self._share(row)
        compiled, memory, spread = (
            row.get(key) for key in ("compile_seconds", "peak_gb", "spread")
        )
        cells = (
            f"{row['net'][:15]:<16}{row['side'] + ' ' + row['name']:<28}",
            f"{row.get('precision') or '':<9}{row.get('batch') or '':>5}",
            f"{row['images_per_second']:>11,.0f}" if "images_per_second" in row else " " * 11,
            f"{spread:>7.0%}" if spread is not None else " " * 7,
            f"{compiled:>8.1f}" if compiled is not None else " " * 8,
            f"{share[0] / 1e12:>8.2f}{share[1]:>6.0%}" if share else " " * 14,
            f"{memory:>6.1f}" if memory is not None else "",
        )
        line = "".join(cells).rstrip()
        note = row.get("note", "")
        if not note:
            return line
        if "images_per_second" in row:
            return f"{line}\n{'':<18}{note[:92]}"
        return f"{line}  {note}"[: max(WIDTH, len(line))]

    def _write(self) -> None:
        if self._path is None:
            return
        rows = []
        for row in self._rows:
            share = self._share(row)
            extra = {"flops_per_second": share[0], "share_of_peak": share[1]} if share else {}
            rows.append({**row, **extra})
        told = {
            "facts": self._facts,
            "flops_per_image": self._work,
            "rows": rows,
            "ratios": self.ratios(),
            "logs": self._logs,
        }
        beside = self._path.with_name(self._path.name + ".new")
        beside.write_text(json.dumps(told, indent=1) + "\n")
        beside.replace(self._path)


WIDTH = 110
HEAD = (
    f"{'net':<16}{'row':<28}{'precision':<9}{'batch':>5}{'images/s':>11}{'spread':>7}"
    f"{'compile':>8}{'TFLOP/s':>8}{'share':>6}{'GB':>6}"
)


def card() -> dict[str, str]:
    """Returns the card's name, driver and memory as the driver tells them."""
    asked = ("name", "driver_version", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        values = said.stdout.splitlines()[0].split(", ")
    except (OSError, subprocess.SubprocessError, IndexError):
        return {"card": "none"}
    return dict(zip(("card", "driver", "memory"), values, strict=False))


THERE = ("jax", "numpy", "scikit-learn", "torch", "timm")  # what the machine has


def print_needs() -> None:
    """Prints the packages that have to travel to a machine with JAX, PyTorch and timm alone."""
    command = [sys.executable, __file__, "--side", "needs"]
    with tempfile.TemporaryDirectory() as folder:
        clean = environment(Path(folder))
        done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        sys.exit(f"Error: the imports failed.\n{done.stderr}")
    there = required(THERE)
    needed = sorted(required([*json.loads(lines[0].removeprefix(MARK)), "keras"]) - there)
    total = 0.0
    print("Wheels (MB as installed, an upper bound of the wheel):")
    for name in needed:
        distribution = importlib.metadata.distribution(name)
        files = [Path(str(file.locate())) for file in distribution.files or ()]
        megabytes = sum(f.stat().st_size for f in files if _travels(f)) / 1e6
        total += megabytes
        pinned = f"{name}=={distribution.version}"
        print(f"  {pinned:<30}{megabytes:6.1f}")
    print("From this folder:")
    for part in ("kerasft", "scripts"):
        megabytes = sum(f.stat().st_size for f in (ROOT / part).rglob("*") if _travels(f)) / 1e6
        total += megabytes
        print(f"  {part + '/':<30}{megabytes:6.1f}")
    print(f"{total:.1f} MB in all; at most {LIMIT_MB} may travel")
    print(f"The machine must have {', '.join(THERE)}, and what they require.")


def _travels(file: Path) -> bool:
    return file.is_file() and file.suffix != ".pyc"


def imported() -> list[str]:
    """Imports kerasft's side; returns the distributions that its modules import at their tops.

    Not what happens to be loaded: Keras loads some packages only if they are there.
    """
    import gpu_kerasft  # noqa: F401

    found = importlib.metadata.packages_distributions()
    tops: set[str] = set()
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] in ("kerasft", "gpu_kerasft"):
            for statement in ast.parse(Path(file).read_text("utf-8")).body:
                if isinstance(statement, ast.Import):
                    tops |= {alias.name.partition(".")[0] for alias in statement.names}
                elif isinstance(statement, ast.ImportFrom) and statement.module:
                    tops.add(statement.module.partition(".")[0])
    names = {_plain(name) for top in tops for name in found.get(top, ())}
    return sorted(names - {"kerasft"})


def required(names: Sequence[str]) -> set[str]:
    """Returns the distributions of these names that are installed, and all that they require."""
    found: set[str] = set()
    waiting = [_plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for line in distribution.requires or ():
            if "extra ==" not in line and (word := re.match(r"[\w.-]+", line)):
                waiting.append(_plain(word[0]))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
