"""Builds the wheel, installs it into an empty environment, and measures `kerasft --help` there.

    python scripts/check_wheel.py

The environment sees the dependencies of the Python that runs this, and not kerasft itself; nothing
but the build's own tools is downloaded. Fails where a data file of the package is missing in the
wheel, where a command cannot be shown, or where the help takes longer than LIMIT, the best of five.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.15  # seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        missing = data_files() - set(zipfile.ZipFile(wheel).namelist())
        if missing:
            sys.exit(f"missing in {wheel.name}: {', '.join(sorted(missing))}")
        command = install(wheel, folder / "environment")
        version = shown(command, "--version").strip()
        commands = [
            line.split()[0]
            for line in shown(command, "--help").split("Commands:\n")[1].splitlines()
            if line.startswith("  ") and line[2] != " "
        ]
        for one in commands:
            shown(command, one, "--help")
        seconds = min(timed(command, "--help") for _ in range(5))
        size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {size:.1f} MB, all {len(data_files())} data files in it; {version}")
    print(f"help of {len(commands)} commands shown; kerasft --help: {seconds:.3f} s, best of 5")
    if seconds > LIMIT:
        sys.exit(f"more than {LIMIT} s")


def build(folder: Path) -> Path:
    """Builds the wheel of this checkout in a folder."""
    arguments = ["pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "."]
    subprocess.run([sys.executable, "-m", *arguments, "-w", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("kerasft-*.whl")
    return wheel


def data_files() -> set[str]:
    """Lists the files of the package that are not Python, as they are named in a wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "kerasft"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.splitlines() if not name.endswith(".py")}


def install(wheel: Path, environment: Path) -> Path:
    """Installs the wheel without its dependencies; returns the command `kerasft`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python")]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True)
    (packages,) = environment.rglob("site-packages/kerasft")
    # Dependencies lie behind the environment's own packages, so kerasft is the one of the wheel.
    (packages.parent / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = [str(scripts / "python"), "-c", "import kerasft; print(kerasft.__file__)"]
    loaded = subprocess.run(where, cwd=scripts, env=clean(), capture_output=True, text=True).stdout
    if Path(loaded.strip()).parent.resolve() != packages.resolve():
        sys.exit(f"expected kerasft of {packages}, got {loaded}")
    return scripts / "kerasft"


def shown(command: Path, *arguments: str) -> str:
    """Runs the installed command away from the checkout; returns what it prints."""
    done = subprocess.run(
        [command, *arguments], cwd=command.parent, env=clean(), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"kerasft {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def timed(command: Path, *arguments: str) -> float:
    """Returns the seconds that a command takes."""
    began = time.perf_counter()
    shown(command, *arguments)
    return time.perf_counter() - began


def clean() -> dict[str, str]:
    """Returns the environment variables without a path to another kerasft."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


if __name__ == "__main__":
    main()
