"""Makes the runs of an old version that lie beside this file, with that version.

    git worktree add ../old COMMIT
    cd ../old
    PYTHONPATH=.:tests:scripts python .../tests/old_runs/make.py .../tests/old_runs/COMMIT

It needs the libraries of that time. The photos are drawn; the net is the tests' own Tiny, because
the smallest real one has a model.keras of 1.6 MB.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import keras
from drawing import draw_photos
from PIL import Image
from tiny import TINY, tiny_constructor

from kerasft.backbones import BACKBONES
from kerasft.config import Augment, load_config
from kerasft.train import continue_run, train_run

FLAGS = {
    "data.validation": 0.2,
    "data.test": 0.2,
    "model.backbone": "Tiny",
    "model.weights": "none",
    "model.image_size": 32,
    "head.dropout": 0.2,  # its seeds are a part of the checkpoint
    "augment.flip": True,
    "augment.crop": 0.5,
    "phases.0.name": "head",
    "phases.0.blocks": 0,
    "phases.0.epochs": 3,
    "phases.0.batch_size": 8,
    "phases.0.learning_rate": 0.1,
}
SECOND = {
    "phases.-1.blocks": 1,
    "phases.-1.epochs": 3,
    "phases.-1.batch_size": 8,
    "phases.-1.learning_rate": 1e-2,
}


def main(out: Path) -> None:
    BACKBONES["Tiny"] = TINY
    keras.applications.Tiny = tiny_constructor
    photos = out.parent / "photos"
    if not photos.exists():
        for path in sorted(draw_photos(photos, per_class=10, size=(32, 24)).glob("*/*")):
            image = Image.open(path).convert("RGB")
            path.unlink()
            image.save(path.with_suffix(".jpg"), quality=60)
    flags = {**FLAGS, "data.source": str(photos)}
    stores = "views" in Augment.model_fields
    if stores:
        flags["augment.views"] = 2
        solved = {k: v for k, v in flags.items() if not k.startswith(("phases", "head"))}
        train_run(load_config(None, flags={**solved, "phases.0.method": "svm"}), out / "solved")
    train_run(load_config(None, flags=flags), out / "head")
    for name in ("interrupted", "uninterrupted"):
        shutil.copytree(out / "head", out / name)
    with contextlib.suppress(KeyboardInterrupt):
        continue_run(out / "interrupted", flags=SECOND, progress=in_the_second_epoch)
    continue_run(out / "uninterrupted", flags=SECOND)
    record = json.loads((out / "uninterrupted" / "run.json").read_text())
    lines = (out / "uninterrupted" / "metrics.jsonl").read_text().splitlines()
    expected = {
        "metrics": [json.loads(line) for line in lines],
        **{key: record[key] for key in ("best_phase", "validation", "test")},
    }
    (out / "uninterrupted.json").write_text(json.dumps(expected, indent=1) + "\n")
    shutil.rmtree(out / "uninterrupted")
    for lock in out.glob("*/.lock"):
        lock.unlink()


def in_the_second_epoch(event) -> None:
    """Interrupts the training as Ctrl-C does."""
    if event.stage == "epoch" and event.done == 2:
        raise KeyboardInterrupt


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
