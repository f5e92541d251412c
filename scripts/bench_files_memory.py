"""Peak memory of files as they turn up in the wild: scanned, predicted and checked.

    python scripts/bench_files_memory.py nasty/
    python scripts/bench_files_memory.py --largest

Each command reads the files one by one in one process, whose peak Linux forgets in between, and all
of them in a process of their own (`getrusage`). `--largest` takes photos of 100 million pixels
instead, the most that kerasft reads, each in a process. Linux only.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_two_phase import PROGRAM

COMMANDS = ("scan", "predict", "check")
SIDE = 10_000
MB = 1e6


def peak() -> float:
    """Returns the peak memory since it was forgotten, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / MB
    raise SystemExit("needs /proc/self/status of Linux")


def forget() -> None:
    """Makes the present memory the peak."""
    Path("/proc/self/clear_refs").write_text("5")


def in_process(command: str, files: list[Path], runs: Path) -> dict:
    """Runs a command on files one by one; returns the peaks above the imports, and the largest."""
    from kerasft.checking.check import check_photos
    from kerasft.data.files import examine_files
    from kerasft.evaluation.predict import predict
    from kerasft.progress import silent

    target = runs / "run"
    some = next(first_class(runs / "photos").iterdir())
    predict(target, [some])  # what the first photo alone takes, whatever it is
    base = peak()
    peaks = {}
    for number, file in enumerate(files):
        forget()
        if command == "scan":
            examine_files(file.parent, [file.name], silent)
        elif command == "predict":
            predict(target, [file])
        else:
            folder = runs / f"check-{number}"
            shutil.copytree(runs / "photos", folder)
            shutil.copy(file, first_class(folder) / file.name)
            check_photos({"data.source": str(folder), "model.weights": "sample"})
            shutil.rmtree(folder)
        peaks[file.name] = round(peak() - base)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    return {"base": round(base), "peaks": peaks, "whole": round(max(usage, peak()))}


def together(command: str, folder: Path, runs: Path) -> float:
    """Returns the peak of a command on a folder, as `wait4` tells it for the process, in MB."""
    kerasft = [sys.executable, "-c", "from kerasft.cli.main import main; main()"]
    both = runs / "all"
    if not both.exists():
        shutil.copytree(runs / "photos", both)
        for path in folder.iterdir():
            shutil.copy(path, first_class(both) / path.name)
    words = {
        "imports": ["train", "--help"],
        "scan": ["train", "--data", str(both), "--weights", "sample", "--dry-run"],
        "predict": ["predict", str(runs / "run"), str(folder)],
        "check": ["check", str(both), "--weights", "sample"],
    }[command]
    if command == "scan":
        words += ["--set", "data.bad_images=skip"]
    process = [*kerasft, *words]
    if command == "imports":
        process = [sys.executable, "-c", "import kerasft.training.train, kerasft.checking.check"]
    null = subprocess.DEVNULL
    child = subprocess.Popen(process, stdout=null, stderr=null)
    _, _, usage = os.wait4(child.pid, 0)
    return usage.ru_maxrss * 1024 / MB


def write_largest(folder: Path) -> list[Path]:
    """Writes photos of 100 million pixels in each kind that takes memory."""
    from PIL import Image

    folder.mkdir()
    row = np.linspace(0, 255, SIDE).astype(np.uint8)
    gray = np.broadcast_to(row, (SIDE, SIDE))
    Image.fromarray(np.ascontiguousarray(gray)).save(folder / "gray.png", compress_level=1)
    picture = Image.merge("RGB", [Image.fromarray(gray.copy())] * 3)
    picture.save(folder / "rgb.jpg")
    picture.save(folder / "rgb.png", compress_level=1)
    picture.save(folder / "rgb.tif", compression="tiff_lzw")
    picture.putalpha(Image.fromarray(gray.copy()))
    picture.save(folder / "rgba.png", compress_level=1)
    del picture
    deep = gray.astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "gray16.png", compress_level=1)
    return sorted(folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder with the files")
    parser.add_argument("--largest", action="store_true", help="photos of 100 million pixels")
    parser.add_argument("--runs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--command", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    typed = parser.parse_args()
    if typed.command:  # in the process that is measured
        files = [typed.file] if typed.file else sorted(typed.folder.iterdir())
        print(json.dumps(in_process(typed.command, files, typed.runs)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-files-") as name:
        runs = Path(name)
        os.environ["KERASFT_CACHE"] = str(runs / "cache")
        train_run(runs)
        if typed.largest:
            for file in write_largest(runs / "largest"):
                for command in COMMANDS:
                    measured = measure(command, runs, "--file", str(file))
                    print(file.name, command, measured["base"], measured["whole"], flush=True)
            return
        for command in COMMANDS:
            print(command, json.dumps(measure(command, runs, str(typed.folder))), flush=True)
        for command in ("imports", *COMMANDS):
            print(command, "all", round(together(command, typed.folder, runs)), flush=True)


def first_class(photos: Path) -> Path:
    """Returns the first folder of photos."""
    return sorted(photos.iterdir())[0]


def measure(command: str, runs: Path, *more: str) -> dict:
    """Runs this file in a process that is measured."""
    words = [sys.executable, __file__, "--command", command, "--runs", str(runs), *more]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def train_run(runs: Path) -> None:
    """Trains a small run on drawn photos."""
    from kerasft.sample.draw import draw_sample

    photos = runs / "photos"
    draw_sample(photos, seed=0, per_class=12)
    words = ["train", "--data", str(photos), "--run", str(runs / "run"), "--epochs", "1"]
    words += ["--weights", "sample"]
    subprocess.run([*PROGRAM, *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
