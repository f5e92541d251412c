"""A small complete model and a finished run of it, for the tests of evaluation and export."""

import subprocess
import sys
from pathlib import Path

import keras
from drawing import draw_photos

from kerasft import files, run
from kerasft.config.load import load_config, to_toml
from kerasft.data import scan
from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.models.build import seed_layers
from kerasft.models.bundle import Bundle
from kerasft.record import Device, RunRecord

NAMES = ("circle", "cross", "stripes")


def small_model(num_classes: int = 3, *, seed: int = 0, swap: bool = False) -> keras.Model:
    """Builds a model, pixels [B,32,32,3] to scores [B,K], with one convolution.

    With `swap` the same weights see red and blue exchanged.
    """
    seed_layers(seed)
    pixels = keras.Input((32, 32, 3), name="pixels")
    x = pixels[..., ::-1] if swap else pixels
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    wide = keras.initializers.RandomNormal(stddev=8.0)
    x = keras.layers.Dense(num_classes, kernel_initializer=wide, name="logits")(x)
    return keras.Model(pixels, keras.layers.Softmax(dtype="float32", name="scores")(x))


def small_bundle(names: tuple[str, ...] = NAMES, resize: str = "stretch") -> Bundle:
    return Bundle(small_model(len(names)), names, InputRule(32, resize, (255, 255, 255), 8))


def swapped(opened: Bundle) -> Bundle:
    """Plants a fault: returns the same model, but with red and blue of its input swapped."""
    twin = small_model(len(opened.class_names), swap=True)
    twin.set_weights(opened.model.get_weights())
    return Bundle(twin, opened.class_names, opened.rule)


def small_run(folder: Path, *, resize: str = "stretch") -> Path:
    """Makes a finished run in `folder`/run with 36 drawn photos of 3 classes in `folder`/photos."""
    photos = draw_photos(folder / "photos")
    sets = [f"data.resize={resize}", "model.image_size=32"]
    config = load_config(None, flags={"data.source": str(photos)}, sets=sets)
    opened = run.create_run(folder / "run", resume=False)
    found = scan.scan_source(config.data, seed=0)
    scan.write_splits(found, opened.splits_path)
    files.write_atomic(opened.classes_path, "".join(f"{name}\n" for name in found.class_names))
    files.write_atomic(opened.config_path, to_toml(config, opened.path))
    machine = Device("tensorflow", "cpu", "", 2)
    run.write_record(opened, RunRecord("finished", {}, machine, seed=0, test_scored=1))
    bundle.save(small_bundle(resize=resize), opened.model_path)
    return opened.path


def without_kerasft(code: str, folder: Path) -> str:
    """Runs code in a process where `import kerasft` fails; returns what it printed."""
    blocked = (
        "import sys\nsys.modules['kerasft'] = None\n"
        "try:\n    import kerasft\nexcept ImportError:\n    pass\nelse:\n    raise SystemExit(9)\n"
    )
    command = [sys.executable, "-c", blocked + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
