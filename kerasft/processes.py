"""Processes: the start of this one, and fresh ones for work that needs TensorFlow.

A fresh process computes with TensorFlow, whatever backend this one computes with. It runs a module
of kerasft as `python -m` does, without a fork, so it works on every system.
"""

import gc
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kerasft.errors import UserError
from kerasft.progress import Event, Progress, silent


@contextmanager
def importing() -> Iterator[None]:
    """Pauses garbage collection while the block imports large packages, in a program of ours.

    What is imported is never garbage, but there are a million objects of it. Python would look
    through them again and again while it imports, whenever it looks for old garbage later, and
    thrice when it ends. Importing TensorFlow and Keras takes 2.1 s in place of 2.8 s then, and the
    end of the process 0.1 s in place of 1.0 s (`scripts/bench_startup.py`).

    Source: `gc.freeze` in the documentation of Python's module gc.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


_one_at_a_time = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps away what libraries of the block write to stderr by themselves, not through Python.

    If the block fails, all of it is shown, unless a UserError says why. What other threads write
    meanwhile is kept away, too. A second thread waits at the block.
    """
    with _one_at_a_time:  # two would take each other's file for stderr
        yield from _held_back()


def _held_back() -> Iterator[None]:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def run_fresh(
    jobs: Mapping[str, Sequence[str]], work: Path, *, what: str, progress: Progress = silent
) -> None:
    """Runs some jobs at the same time, each in a process of its own, on the CPU.

    Args:
        jobs: module and arguments of each job, by what the job does ("loads the export").
        work: folder for the output of the jobs; the caller removes it.
        what: name of the work, for messages ("parity proof").
        progress: the callback that receives an event after each process, stage "check".

    Raises:
        UserError: one of the jobs failed; the others are ended.
    """
    package = Path(__file__).resolve().parent.parent
    searched = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(searched),
        "CUDA_VISIBLE_DEVICES": "-1",  # a GPU's TF32 would differ from itself by more than 1e-4
        "KERAS_BACKEND": "tensorflow",
    }
    running = {}
    logs = {name: work / f"{number}.log" for number, name in enumerate(jobs)}
    try:
        for name, (module, *arguments) in jobs.items():
            command = [sys.executable, "-m", module, *arguments]
            with open(logs[name], "wb") as log:
                running[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        for done, (name, process) in enumerate(running.items()):
            progress(Event("check", done, len(jobs), figures={"what": what}))
            if process.wait() != 0:
                lines = logs[name].read_text("utf-8", errors="replace").splitlines()
                tail = next((line for line in reversed(lines) if line.strip()), "no message")
                raise UserError(
                    f"The {what} failed: the process that {name} ended with "
                    f"status {process.returncode}: {tail}"
                )
        progress(Event("check", len(jobs), len(jobs), figures={"what": what}))
    finally:
        for process in running.values():
            process.kill()
            process.wait()
