"""All of training that reads no photo, for test_without_tensorflow.py: the same on any backend.

    KERAS_BACKEND=jax python tests/support/without_photos.py FOLDER
    KERAS_BACKEND=jax python tests/support/without_photos.py FOLDER more

FOLDER holds `start.keras`. TensorFlow is kept out of the process, which prints a line of JSON: the
figures of `solve` and the sentences of `refusals`, or the figures of `compute_more`.
"""

import sys

if __name__ == "__main__":
    # None makes an import fail as that of a package that is not installed does.
    sys.modules.update(dict.fromkeys(("tensorflow", "tensorflow_datasets")))

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from drawing import draw_photos
from tiny import TINY, tiny_constructor
from tiny_run import SECOND, small

from kerasft.activations import engines, eviction, segments, store
from kerasft.activations.context import RunContext
from kerasft.activations.keys import needs_at
from kerasft.activations.prefix_pass import activations_at
from kerasft.backbones.table import BACKBONES
from kerasft.cache import cache_folder
from kerasft.config.fields import Config, Solved
from kerasft.config.load import append_phase, load_config
from kerasft.data import batches
from kerasft.data.source import Source
from kerasft.devices import prepare
from kerasft.errors import UserError
from kerasft.export.export import export_run
from kerasft.export.savedmodel import open_scorer as open_savedmodel
from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.cut import prove_frozen
from kerasft.models.live import LiveModel
from kerasft.models.net import Net
from kerasft.progress import silent
from kerasft.run import create_run
from kerasft.training import checkpoint
from kerasft.training.fill import solve_head, train_suffix
from kerasft.training.plan import settle
from kerasft.training.rates import rates_at
from kerasft.training.start import initial_net
from kerasft.training.train import train_run
from kerasft.training.trainable import open_trainable

NAMES = ("circle", "cross", "stripes")
SPLITS = ["train"] * 21 + ["validation"] * 9
LABELS = (np.arange(len(SPLITS)) % len(NAMES)).astype(np.int32)
KERAS = ("cache.engine=keras", "cache.precision=float32", "cache.dtype=float32", "cache.mode=on")


def two_phases(folder: Path) -> Config:
    """Returns a config that trains a head, then a block too, at several rates; both stored."""
    first = small(
        folder / "photos",
        "head.dropout=0",  # random numbers are each backend's own
        "augment.mixup=0.3",
        "phases.0.class_weight=balanced",
        *KERAS,
    )
    return append_phase(first, flags={**SECOND, "phases.-1.head_learning_rate_multiplier": 10.0})


def begin(folder: Path, name: str, config: Config) -> tuple[RunContext, Net]:
    """Settles a config for photos that are listed but not there, and opens `start.keras`."""
    photos = Source(
        root=folder / "photos",
        class_names=NAMES,
        paths=tuple(f"{number:02}.png" for number in range(len(SPLITS))),
        labels=LABELS,
        splits=np.array(SPLITS),
        digests=tuple(f"{number:032x}" for number in range(len(SPLITS))),
    )
    device = prepare("cpu")
    net = Net.of(bundle.load(folder / "start.keras").model, "Tiny")
    plan = settle(config, photos, net, device)
    return RunContext(create_run(folder / name, resume=False), plan, photos, silent, device), net


def drawn_pixels(position: int, view: int) -> np.ndarray:
    """Draws a view of an image, float32 [32,32,3]: noise in a colour that hints at a class."""
    rng = np.random.default_rng([position, view])
    hint = 25 * np.eye(3)[LABELS[position]]
    noise = rng.uniform(0, 90, (32, 32, 3)) + rng.uniform(0, 90, 3)
    return (noise + hint).astype("float32")


def fill_stores(context: RunContext, index: int, net: Net) -> None:
    """Fills the stores of a phase as the prefix pass does, from `drawn_pixels`."""
    phase = context.plan.phases[index]
    needs = needs_at(
        context.config,
        context.source,
        context.machine,
        phase.settings,
        net,
        net.depth(phase.blocks or 0),
        "float32",
    )
    prefix = net.cut(phase.blocks or 0).prefix
    assert prefix is not None
    compute = engines.build(prefix, context.plan.engine, context.plan.precision)
    with store.filling(cache_folder(), [need.tensor for need in needs]):
        for need in needs:
            pixels = [drawn_pixels(int(photo, 16), view) for photo, view in need.rows]
            with segments.writing(
                cache_folder(), need.tensor, need.rows, need.shape, "float32"
            ) as writer:
                writer.append(compute(np.stack(pixels))[0])


def train(folder: Path) -> dict[str, Any]:
    """Trains both phases from stores, proves the freeze, and scores the saved model."""
    context, net = begin(folder, "run", two_phases(folder))
    lines, found = [], []
    for index, phase in enumerate(context.plan.phases):
        fill_stores(context, index, net)
        checkpoint.begin(context.run.checkpoints, phase.name)
        outcome = train_suffix(context, index, net, seed=index)
        prove_frozen(outcome.start, outcome.model, outcome.trained, phase.name)
        assert outcome.stored is not None
        found.append(outcome.stored.found)
        lines.append(outcome.line)
        net = Net(outcome.model, net.rows)
    bundle.save(Bundle(net.model, NAMES, InputRule(32)), context.run.model_path)
    saved = bundle.load(context.run.model_path)
    scores, _ = bundle.score(
        saved, [np.stack([drawn_pixels(int(i), 0) for i in context.source.indices("validation")])]
    )
    reading = [one.name for one in threading.enumerate() if one.name.startswith("kerasft")]
    return {"lines": lines, "found": found, "scores": scores.tolist(), "reading": reading}


def step_live(folder: Path) -> dict[str, Any]:
    """Takes three steps of the live model on mixed pixels, at several rates."""
    context, net = begin(folder, "live", two_phases(folder))
    trainable = open_trainable(context.plan, 1, net, SPLITS.count("train"))
    positions = context.source.indices("train")[:8]
    live = LiveModel(trainable.cut.prefix, trainable.cut.suffix)
    live.compile(trainable.optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
    shares = np.linspace(0.5, 1, 8, dtype="float32")
    inputs = (np.stack([drawn_pixels(int(i), 0) for i in positions]), shares)
    targets = np.eye(3, dtype="float32")[LABELS[positions]]
    losses = [float(live.train_on_batch(inputs, targets)) for _ in range(3)]
    steps = trainable.steps_per_epoch
    return {
        "losses": losses,
        "rates": rates_at(trainable.phase, trainable.groups, steps, 2),
    }


def solve(folder: Path) -> dict[str, Any]:
    """Solves a head from stores."""
    flags = {
        "data.source": str(folder / "photos"),
        "model.backbone": "Tiny",
        "model.weights": "none",
        "model.image_size": 32,
        "phases.0.method": "lda",
    }
    context, net = begin(folder, "solved", load_config(None, flags=flags, sets=list(KERAS)))
    phase = context.plan.phases[0].settings
    assert isinstance(phase, Solved)
    fill_stores(context, 0, net)
    return {"line": solve_head(context, 0, phase, net, seed=0).line}


def compute_more(folder: Path) -> dict[str, Any]:
    """Computes what takes longest of what the two sides of the test compare."""
    return {"trained": train(folder), "live": step_live(folder)}


def refusals(folder: Path) -> dict[str, str]:
    """Does what needs TensorFlow; returns the messages of the errors."""
    photo = next(draw_photos(folder / "drawn", per_class=4).rglob("*.png"))
    context, net = begin(folder, "unfilled", small(folder / "photos", "seed=7", *KERAS))

    def training() -> None:
        train_run(small(folder / "drawn", *KERAS), folder / "refused")

    eviction.clear(cache_folder())  # or the pass would find all that it needs

    asked: dict[str, Callable[[], object]] = {
        "training": training,
        "pass": lambda: activations_at(context, 0, net, net.cut(0)),
        "scoring": lambda: list(batches.image_batches([photo], rule=InputRule(8))),
        "export": lambda: export_run(folder / "run"),
        "serving": lambda: open_savedmodel(folder),
    }
    said = {}
    for name, do in asked.items():
        try:
            do()
        except UserError as error:
            said[name] = str(error)
    return said


if __name__ == "__main__":
    BACKBONES["Tiny"], keras.applications.Tiny = TINY, tiny_constructor
    place = Path(sys.argv[1])
    os.environ["KERASFT_CACHE"] = str(place / "cache")
    if sys.argv[2:] == ["more"]:
        answer = compute_more(place)
    else:
        built = initial_net(two_phases(place), len(NAMES)).model.count_params()
        answer = {"solved": solve(place), "built": built, "said": refusals(place)}
    print(json.dumps(answer))
