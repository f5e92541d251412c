"""Peak memory and seconds of reading 1,000 photos beside 100,000: memory must hardly grow.

Each row is one function on tiny PNG files in a process of its own: `base` imports kerasft and
decodes one image; `folder`, `csv` (in groups of ten) and `zip` (unpacked first) are
`scan_source`; `reopen` is `open_source` of a splits.csv, as every later command does it.

    python scripts/bench_scan.py 1000 100000

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("counts", nargs="+", help="numbers of images")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.counts[0], options.one)))
        return
    for count in map(int, options.counts):
        with tempfile.TemporaryDirectory(prefix="bench-scan-") as name:
            write_photos(Path(name), count)
            for what in ("base", "folder", "reopen", "csv", "zip"):
                command = [sys.executable, __file__, what, "--one", name]
                environment = {**os.environ, "KERASFT_CACHE": f"{name}/cache"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                print(json.dumps({"images": count, **json.loads(done.stdout)}), flush=True)


if __name__ == "__main__":
    main()
