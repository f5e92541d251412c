"""Throughput of the server against a bare loop over the same export, on the same photos.

    python scripts/bench_serve.py runs/flowers/export --data flowers5/

Three processes on one machine: the server; this one, whose clients send JPEG photos in base64 and
wait for each answer before they send the next request; and the bare loop, which calls the
signature serving_default of `tf.saved_model.load` on batches of 32 of these photos. They work in
turns, round after round, so that whatever else the machine does meets all of them. Each cell is the
median of the rounds; "of the bare loop" compares with the loop of the same round.

Cores are seconds of processor time per second of the clock. Where other programs run as well,
compare the processor time per photo instead of the photos per second. The bodies are prepared
beforehand.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_load import Connection, Server, figures, rows_of, serving

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 32
LOADS = ((64, 1), (8, 1), (1, 1), (4, BATCH))
"""Numbers of clients, and of photos in a request."""
WARM_UP = 1.0
BOUND = 240
"""Seconds that all rounds may take together."""


@dataclass(frozen=True)
class Measured:
    """What one load, or the bare loop, did in one round.

    Attributes:
        photos: photos answered per second.
        p50: median time from a request to its answer, in seconds.
        p99: the time that 99% of the requests took at most.
        batch: mean number of photos that were computed together.
        cores: seconds of processor time per second, of the server or the bare loop.
        clients: the same of the clients.
    """

    photos: float
    p50: float
    p99: float
    batch: float
    cores: float
    clients: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("export", type=Path, help="folder of an export in the format SavedModel")
    parser.add_argument("--data", type=Path, required=True, help="photos, JPEG")
    parser.add_argument("--photos", type=int, default=256, help="number of different photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load in a round")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    typed = parser.parse_args()
    files = photos_of(typed.data, typed.photos)
    if typed.bare:  # in the process of the loop
        bare_loop(version_of(typed.export), files)
        return
    whole = typed.rounds * (len(LOADS) + 1) * (typed.seconds + WARM_UP)
    if whole > BOUND:
        parser.error(f"the rounds would take {whole:.0f} seconds, more than {BOUND}")
    words = [sys.executable, __file__, str(typed.export), "--data", str(typed.data), "--bare"]
    words += ["--photos", str(typed.photos)]
    pipe = subprocess.PIPE
    loop = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    try:
        with serving(typed.export) as server:
            rounds = [one_round(server, loop, files, typed.seconds) for _ in range(typed.rounds)]
    finally:
        loop.kill()
    print(table(rounds))


def photos_of(folder: Path, count: int) -> list[bytes]:
    """Reads JPEG photos of a folder, spread evenly over it."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(paths) < count:
        raise SystemExit(f"{folder}: expected at least {count} JPEG photos, got {len(paths)}.")
    return [paths[i * len(paths) // count].read_bytes() for i in range(count)]


def version_of(export: Path) -> Path:
    """Returns the folder of the newest version of an export."""
    from kerasft.export.formats import find_export

    found = find_export(export)
    if found is None:
        raise SystemExit(f"{export}: expected an export, got something else.")
    return found[1]


def bare_loop(folder: Path, files: Sequence[bytes]) -> None:
    """Scores batches for as many seconds as each line of stdin says, and prints how many."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    batches = [list(files[i : i + BATCH]) for i in range(0, len(files) - BATCH + 1, BATCH)]

    def work(seconds: float) -> tuple[int, float, float]:
        done, start, cores = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < start + seconds:
            serve(image_bytes=tf.constant(batches[done % len(batches)]))["scores"].numpy()
            done += 1
        return done, time.perf_counter() - start, time.process_time() - cores

    for line in sys.stdin:
        work(WARM_UP)
        done, seconds, used = work(float(line))
        each = seconds / done
        said = Measured(BATCH / each, each, each, BATCH, used / seconds, 0)
        print(json.dumps(vars(said)), flush=True)


def one_round(
    server: Server, loop: subprocess.Popen, files: Sequence[bytes], seconds: float
) -> list[Measured]:
    """Measures the bare loop, and then each load."""
    assert loop.stdin is not None and loop.stdout is not None
    loop.stdin.write(f"{seconds}\n")
    loop.stdin.flush()
    said = [Measured(**json.loads(loop.stdout.readline()))]
    for clients, size in LOADS:
        requests = [
            server.post(rows_of(files[i : i + size])) for i in range(0, len(files) - size + 1, size)
        ]
        said.append(asyncio.run(measure(server, requests, clients, size, seconds)))
    return said


async def measure(
    server: Server, requests: Sequence[bytes], clients: int, size: int, seconds: float
) -> Measured:
    """Measures one load.

    Args:
        server: server that is asked.
        requests: requests that are sent again and again, whole.
        clients: number of clients, each with a connection of its own.
        size: photos in a request.
        seconds: seconds that are measured, after the warm-up.
    """
    ends: list[tuple[float, float]] = []  # when an answer came, and how long it took
    stop = False

    async def client(number: int) -> None:
        connection = await Connection.open(server)
        at = number * len(requests) // clients
        while not stop:
            start = time.perf_counter()
            status, body = await connection.ask(requests[at % len(requests)])
            end = time.perf_counter()
            if status != 200:
                raise SystemExit(f"The server answered {status}: {body.decode()}")
            ends.append((end, end - start))
            at += 1
        connection.close()

    async def state() -> tuple[float, float, dict[str, float]]:
        said = await figures(server, counter)
        return time.perf_counter(), time.process_time(), dict(said)

    counter = await Connection.open(server)
    work = [asyncio.ensure_future(client(number)) for number in range(clients)]
    await asyncio.sleep(WARM_UP)
    start, used, before = await state()
    await asyncio.sleep(seconds)
    end, used_then, after = await state()
    stop = True
    await asyncio.gather(*work)
    counter.close()

    def grown(name: str) -> float:
        return after[name] - before[name]

    times = sorted(took for at, took in ends if start <= at <= end)
    lasted = end - start
    return Measured(
        photos=len(times) * size / lasted,
        p50=times[len(times) // 2],
        p99=times[len(times) * 99 // 100],
        batch=grown("kerasft_batch_images_sum") / max(1, grown("kerasft_batch_images_count")),
        cores=grown("process_cpu_seconds_total") / lasted,
        clients=(used_then - used) / lasted,
    )


def table(rounds: Sequence[Sequence[Measured]]) -> str:
    """Writes the medians of all rounds as a Markdown table."""
    lines = [
        "| clients | photos a request | photos/s | of the bare loop | p50, ms | p99, ms "
        "| photos a batch | ms of processor a photo | cores of the server | cores of the clients |",
        "| --- " * 10 + "|",
    ]
    for i in range(len(LOADS) + 1):
        each = [one[i] for one in rounds]

        def median(name: str, each: Sequence[Measured] = each) -> float:
            return statistics.median(getattr(one, name) for one in each)

        ratios = sorted(one[i].photos / one[0].photos for one in rounds)
        shared = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        name = ["the bare loop", str(BATCH)] if i == 0 else [str(n) for n in LOADS[i - 1]]
        cells = [
            *name,
            f"{median('photos'):.0f}",
            "1" if i == 0 else shared,
            f"{median('p50') * 1000:.0f}",
            f"{median('p99') * 1000:.0f}" if i else "",
            f"{median('batch'):.1f}",
            f"{statistics.median(one.cores / one.photos for one in each) * 1000:.1f}",
            f"{median('cores'):.2f}",
            f"{median('clients'):.2f}" if i else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
