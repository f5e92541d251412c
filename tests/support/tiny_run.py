"""Whole runs that take seconds: the net Tiny on 36 drawn photos, 32 pixels."""

import atexit
import copy
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from drawing import draw_photos

from kerasft.config.fields import Config
from kerasft.config.load import append_phase, load_config
from kerasft.models import bundle
from kerasft.models.cut import fingerprint
from kerasft.training.train import train_run

FLAGS = {
    "report": False,  # half a second, a page in each of hundreds of runs
    "model.backbone": "Tiny",
    "model.weights": "none",
    "model.image_size": 32,
    "augment.flip": True,
    "augment.crop": 0.5,
    "augment.views": 2,  # with 4 views and two epochs, a store would not pay off
    "phases.0.name": "head",
    "phases.0.blocks": 0,
    "phases.0.epochs": 2,
    "phases.0.batch_size": 8,
}
SECOND = {
    "phases.-1.blocks": 1,
    "phases.-1.epochs": 2,
    "phases.-1.batch_size": 8,
    "phases.-1.learning_rate": 1e-4,
}
ONE_MORE = {**SECOND, "phases.-1.epochs": 1}


def small(photos: Path, *sets: str, **flags: object) -> Config:
    """Returns a config with one phase: the head, two epochs of 3 steps, augmented and stored."""
    return load_config(None, flags={**FLAGS, "data.source": str(photos), **flags}, sets=sets)


def both_phases(photos: Path) -> Config:
    """Returns the config of `small` with a second phase, which trains the top block."""
    return append_phase(small(photos), flags=SECOND)


@dataclass
class Trained:
    """A run that several tests share; a test that changes it takes a copy.

    A copy is made beside the original, because a run's config names the photos relative to it.
    """

    folder: Path
    result: dict

    @property
    def run(self) -> Path:
        return self.folder / "head"

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.run, self.folder / name))


def train_head(folder: Path, *sets: str) -> Trained:
    """Draws photos and trains the first phase on them, or copies what an earlier call has made."""
    import tensorflow as tf  # here, because some processes that use this module have none

    made = _train_head(*sets, eagerly=tf.config.functions_run_eagerly())
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return Trained(folder, {**copy.deepcopy(made.result), "run": str(folder / "head")})


@functools.cache  # the last bits depend on whether functions are traced
def _train_head(*sets: str, eagerly: bool) -> Trained:
    folder = Path(tempfile.mkdtemp(prefix="kerasft-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    photos = draw_photos(folder / "photos")
    return Trained(folder, train_run(small(photos, *sets), folder / "head").to_json())


def weights(run: Path) -> list[tuple[str, str]]:
    """Returns path and digest of every variable of a run's model.keras."""
    return fingerprint(bundle.load(run / "model.keras").model)


def without_seconds(result: dict) -> dict:
    """Returns a result without the times, which differ between two runs that compute the same."""
    hidden = ("seconds", "run", "parts")
    result = {k: v for k, v in result.items() if k not in hidden}
    phases = [{k: v for k, v in p.items() if k not in hidden} for p in result["phases"]]
    for phase in phases:  # only the run that came first had to compute activations
        phase["activations"] = {**(phase["activations"] or {}), "found": None}
    return {**result, "phases": phases}


def presplit(photos, folder, *, swap_test):
    """Copies class folders into train/, validation/ and test/; `swap_test` permutes test labels."""
    names = ["circle", "cross", "stripes"]
    for position, name in enumerate(names):
        for number, file in enumerate(sorted((photos / name).iterdir())):
            split = "test" if number < 3 else "validation" if number < 6 else "train"
            shown = names[(position + 1) % 3] if swap_test and split == "test" else name
            (folder / split / shown).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / split / shown / file.name)
    return folder
