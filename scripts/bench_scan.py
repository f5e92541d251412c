"""Peak memory and seconds of reading 1,000 photos beside 100,000: memory must hardly grow.

Each row is one function on tiny PNG files in a process of its own: `base` imports kerasft and
decodes one image; `folder`, `csv` (in groups of ten) and `zip` (unpacked first) are
`scan_source`; `reopen` is `open_source` of a splits.csv, as every later command does it.

    python scripts/bench_scan.py 1000 100000

With a folder of JPEG files: how fast they are scanned, scanned again from what is remembered of
them, and read without being decoded (`digest`), as a share of the speed of a bare loop, which reads
every file and calls `tf.io.decode_jpeg`, in the same threads.

    python scripts/bench_scan.py --photos FOLDER

Unix only (`resource`). Every number of files needs 4 kB each, twice, in the system's folder for
temporary ones.
"""

import argparse
import csv
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

CLASSES = 10
ROWS = ("base", "folder", "reopen", "csv", "zip")


def write_png(path: Path, number: int) -> None:
    """Writes an image of 8 x 8 pixels that no other number has."""
    rows = b"".join(b"\0" + os.urandom(24) for _ in range(8))
    parts = (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (*parts, (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_photos(folder: Path, count: int) -> None:
    """Writes `count` images in a folder per class, a table of them, and a zip file."""
    with (
        (folder / "photos.csv").open("w", newline="") as table,
        zipfile.ZipFile(folder / "photos.zip", "w") as archive,
    ):
        rows = csv.writer(table)
        rows.writerow(["path", "label", "group"])
        for number in range(count):
            name = f"class-{number % CLASSES}"
            path = folder / "photos" / name / f"{number:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, number)
            rows.writerow(
                [
                    path.relative_to(folder),
                    name,
                    number // (10 * CLASSES) * CLASSES + number % CLASSES,
                ]
            )
            archive.write(path, f"photos/{name}/{number:06}.png")


def one(what: str, folder: Path) -> dict:
    """Seconds and peak memory of one function; called in a process of its own."""
    import resource

    from kerasft.config.fields import Data
    from kerasft.data.files import examine
    from kerasft.data.scan import open_source, scan_source, write_classes, write_splits

    examine(next((folder / "photos").rglob("*.png")))  # TensorFlow builds its graphs
    named = {"folder": "photos", "reopen": "photos", "csv": "photos.csv", "zip": "photos.zip"}
    data = Data(source=str(folder / named.get(what, "")))
    began = time.perf_counter()
    if what == "reopen":
        found = open_source(folder / "splits.csv", folder / "classes.txt", data)
    elif what != "base":
        found = scan_source(data, seed=0)
    seconds = time.perf_counter() - began
    if what != "base":
        write_splits(found, folder / "splits.csv")
        write_classes(found, folder / "classes.txt")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"what": what, "seconds": round(seconds, 1), "peak_mb": round(peak / 1024)}


def pace(folder: Path) -> None:
    """Prints time per photo of the bare loop and of kerasft's, the best of five rounds of each."""
    import tensorflow as tf

    from kerasft.data.facts import forget
    from kerasft.data.files import digest, examine_files, for_each_file
    from kerasft.progress import silent

    def bare(path: Path) -> object:
        return tf.io.decode_jpeg(path.read_bytes(), channels=3).shape

    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jp*g"))
    ways = {
        "bare": lambda: for_each_file(bare, folder, files, silent),
        "scan": lambda: examine_files(folder, files, silent),
        "again": lambda: examine_files(folder, files, silent),
        "digest": lambda: for_each_file(digest, folder, files, silent),
    }
    best: dict[str, tuple[float, float]] = {}
    for _ in range(5):
        forget()
        for name, way in ways.items():
            began, cpu = time.perf_counter(), time.process_time()
            way()
            took = (time.perf_counter() - began, time.process_time() - cpu)
            before = best.get(name, took)
            best[name] = (min(took[0], before[0]), min(took[1], before[1]))
    for name, (seconds, cpu) in best.items():
        row = {
            "what": name,
            "files": len(files),
            "ms_per_file": round(1e3 * seconds / len(files), 3),
            "cpu_ms_per_file": round(1e3 * cpu / len(files), 3),
            "speed_of_bare": round(best["bare"][0] / seconds, 2),
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("counts", nargs="*", help="numbers of images")
    parser.add_argument("--only", nargs="+", default=ROWS, choices=ROWS, help="rows to measure")
    parser.add_argument("--photos", type=Path, help="folder of photos, for their pace")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.counts[0], options.one)))
        return
    if options.photos:
        with tempfile.TemporaryDirectory(prefix="bench-scan-") as name:
            os.environ["KERASFT_CACHE"] = name
            pace(options.photos)
    for count in map(int, options.counts):
        with tempfile.TemporaryDirectory(prefix="bench-scan-") as name:
            write_photos(Path(name), count)
            for what in options.only:
                command = [sys.executable, __file__, what, "--one", name]
                environment = {**os.environ, "KERASFT_CACHE": f"{name}/cache"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                print(json.dumps({"images": count, **json.loads(done.stdout)}), flush=True)


if __name__ == "__main__":
    main()
