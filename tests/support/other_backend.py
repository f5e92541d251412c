"""The program that test_other_backends.py runs in a fresh process, with Keras on JAX or PyTorch.

    KERAS_BACKEND=jax python tests/support/other_backend.py FOLDER
    KERAS_BACKEND=jax python tests/support/other_backend.py FOLDER stop
    KERAS_BACKEND=jax python tests/support/other_backend.py FOLDER export

FOLDER holds `photos` and `begun`, a run that was begun with TensorFlow. Each command prints its
JSON; the last line holds the log and the error of bfloat16, as JSON. The second form trains the new
run of the first again, with an interruption. The third exports the run that the first has finished,
and predicts with the export: it starts TensorFlow twice.
"""

import json
import logging
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import keras
from tiny import TINY, batch, tiny_constructor, tiny_model
from tiny_run import small

from kerasft.activations import engines
from kerasft.backbones.table import BACKBONES
from kerasft.cli.main import main
from kerasft.config.fields import Config
from kerasft.config.load import to_toml
from kerasft.models.cut import split
from kerasft.training.train import train_run


def own(folder: Path) -> Config:
    """Returns a config that trains one block live, in bfloat16, at two rates and with dropout.

    Its weights and statistics are averaged, and gradients are left over at the end.
    """
    return small(
        folder / "photos",
        "phases.0.blocks=1",
        "phases.0.precision=mixed_bfloat16",
        "phases.0.head_learning_rate_multiplier=10",
        "phases.0.batch_norm=train",
        "phases.0.ema=0.9",
        "phases.0.accumulate=2",
        "phases.0.epochs=3",
        "cache.mode=off",
    )


def run_all(lines: Iterable[str]) -> None:
    for line in lines:
        main([*shlex.split(line), "--json"], standalone_mode=False)


def walk(folder: Path) -> list[str]:
    """Runs commands, one after the other; returns the lines of the log.

    They train a new run, then continue the run of TensorFlow with its stored activations.
    """
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("kerasft").addHandler(handler)
    (folder / "own.toml").write_text(to_toml(own(folder), folder), "utf-8")
    begun, photo = folder / "begun", next((folder / "photos" / "cross").iterdir())
    run_all(
        (
            f"train {folder / 'own.toml'} --run {folder / 'own'}",
            f"unfreeze-and-continue {begun} --blocks 1 --epochs 1 --batch-size 8 "
            "--learning-rate 1e-4",
            f"evaluate {begun}",
            f"predict {begun} {photo}",
        )
    )
    return said


def export(folder: Path) -> None:
    begun, photo = folder / "begun", next((folder / "photos" / "cross").iterdir())
    run_all((f"export {begun}", f"predict {begun / 'export'} {photo}"))


class Stopped(Exception):
    """The end of training after an epoch, instead of killing the process."""


def interrupt(event) -> None:
    if event.stage == "epoch" and event.done == 1:
        raise Stopped


def train_with_a_stop(folder: Path) -> None:
    """Trains the run of `walk` again, interrupted after its first epoch and resumed."""
    config = own(folder)
    try:
        train_run(config, folder / "stopped", progress=interrupt)
    except Stopped:
        train_run(config, folder / "stopped", resume=True)


def error_of_bfloat16() -> float:
    prefix = split(tiny_model(), 0, TINY).prefix
    exact, rough = (
        engines.build(prefix, "keras", precision)(batch(32)[0])[0]
        for precision in ("float32", "bfloat16")
    )
    return engines.relative_error(exact, rough)


if __name__ == "__main__":
    BACKBONES["Tiny"], keras.applications.Tiny = TINY, tiny_constructor
    place = Path(sys.argv[1])
    os.environ["KERASFT_CACHE"] = str(place / "cache")
    if sys.argv[2:] == ["export"]:
        export(place)
    elif sys.argv[2:] == ["stop"]:
        train_with_a_stop(place)
    else:
        print(json.dumps({"said": walk(place), "bfloat16": error_of_bfloat16()}))
