"""Every format of `kerasft export`, made of one run: size, latency, agreement, accuracy.

    python scripts/bench_formats.py runs/flowers --photo flowers5/tulips/10791227_7168491604.jpg

The exports are written to a temporary folder, each with its proof. Each is then opened in a process
of its own with the packages of its format, and these processes are asked in turn, one at a time, so
that a machine which is busy with something else slows all of them: a round is one batch of 32 and
three of 1, from pixels in memory. The ratio is to the SavedModel: the median over the rounds of the
two times of a round. Prints a table in Markdown, and then what the photo shows: by `predict` with
the run, and by each export in a process that opens it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_two_phase import machine

from kerasft.export.formats import DEFAULT, EXPORTERS, open_export
from kerasft.export.parity import noise_pixels

BATCHES = (1, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--data", type=Path, help="where its photos are now")
    parser.add_argument("--photo", type=Path, required=True, help="a photo for all formats")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one", type=Path, help="this export, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        answer(arguments.one, arguments.photo)
        return
    with tempfile.TemporaryDirectory() as name:
        measure(arguments, Path(name))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Exports, asks and prints."""
    from kerasft.evaluation.predict import predict

    print(json.dumps(machine()), file=sys.stderr)
    exported = {
        (format, quantize): export(arguments, format, quantize, folder)
        for format, row in EXPORTERS.items()
        for quantize in (None, *row.quantized)
    }
    workers = {key: start(arguments, facts["path"]) for key, facts in exported.items()}
    said = {key: json.loads(ask(worker, "photo")) for key, worker in workers.items()}
    times: dict[tuple, dict[int, list[float]]] = {
        key: {batch: [] for batch in BATCHES} for key in workers
    }
    for _ in range(arguments.rounds):
        for batch in BATCHES:
            for key, worker in workers.items():
                times[key][batch].append(float(ask(worker, str(batch))))
    for worker in workers.values():
        worker.kill()
    print(table(exported, times))
    (of_run,) = predict(arguments.run, arguments.photo, top=1)
    best = of_run.labels[0]
    print(f"\n{arguments.photo.name}: predict says {best.label} {best.score:.4f}")
    for (format, quantize), (label, score) in said.items():
        print(f"- {format}{f', {quantize}' if quantize else ''}: {label} {score:.4f}")


def export(
    arguments: argparse.Namespace, format: str, quantize: str | None, folder: Path
) -> dict[str, Any]:
    """Exports the run in one format; returns what the command says of it, and the seconds."""
    from kerasft.export.export import export_run

    start = time.perf_counter()
    result = export_run(
        arguments.run,
        to=folder / f"{format}-{quantize}",
        data=arguments.data,
        format=format,
        quantize=quantize,
        max_accuracy_drop=1.0 if quantize else None,  # what it loses is a result here
        least_accuracy=0.0,  # has it measured
    )
    facts = {**result.to_json(), "seconds": time.perf_counter() - start}
    print(json.dumps(facts), file=sys.stderr, flush=True)
    return facts


def start(arguments: argparse.Namespace, path: str) -> subprocess.Popen:
    """Starts a process that opens an export and answers lines."""
    command = [sys.executable, __file__, str(arguments.run), "--photo", str(arguments.photo)]
    return subprocess.Popen(
        [*command, "--one", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ask(worker: subprocess.Popen, question: str) -> str:
    """Sends a line to a process, and returns the line that it answers with."""
    assert worker.stdin and worker.stdout
    worker.stdin.write(question + "\n")
    worker.stdin.flush()
    return worker.stdout.readline()


def answer(path: Path, photo: Path) -> None:
    """Opens an export; answers "photo" with label and score, and a batch size with seconds."""
    scorer = open_export(path)
    assert scorer is not None
    side = json.loads((path / "kerasft.json").read_text("utf-8"))["image_size"]
    pixels = {batch: np.resize(noise_pixels(side), (batch, side, side, 3)) for batch in BATCHES}
    for batch in BATCHES:
        scorer.pixels(pixels[batch])  # the first call prepares
    for question in map(str.strip, sys.stdin):
        if question == "photo":
            told = scorer.files([photo.read_bytes()])
            best = int(told.scores[0].argmax())
            print(json.dumps([told.labels[best], float(told.scores[0, best])]), flush=True)
        else:
            seconds = []
            for _ in range(3 if question == "1" else 1):
                begun = time.perf_counter()
                scorer.pixels(pixels[int(question)])
                seconds.append(time.perf_counter() - begun)
            print(statistics.median(seconds), flush=True)


def table(exported: dict[tuple, dict], times: dict[tuple, dict[int, list[float]]]) -> str:
    """Returns the table in Markdown."""
    lines = [
        "| format | quantized | MB | ms, batch 1 | ratio | ms, batch 32 | ratio "
        "| largest difference | same label | accuracy, validation | exported in s |",
        "| --- | --- " + "| ---: " * 9 + "|",
    ]
    for key, facts in exported.items():
        format, quantize = key
        cells = [format, quantize or "", f"{facts['bytes'] / 1e6:.1f}"]
        for batch in BATCHES:
            ours, first = times[key][batch], times[DEFAULT, None][batch]
            ratio = statistics.median(a / b for a, b in zip(ours, first, strict=True))
            cells += [f"{1000 * statistics.median(ours):.1f}", f"{ratio:.2f}"]
        accuracy = facts["accuracy"]
        cells += [
            f"{facts['max_abs_diff']:.1e}",
            f"{facts['top1_agreement']:.1%}",
            f"{accuracy['export']:.3f}",
            f"{facts['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
