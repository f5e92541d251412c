"""A row for each table of the library, and a program that runs commands with them.

    python new_rows.py '[["train", "--data", "photos.lines"], ...]'

prints a line of JSON per command: {"code", "stdout", "stderr"}. `test_new_rows.py` starts it in a
process of its own, with `add_format` called when Python starts: so the fresh processes of the
parity proof know the format, as if it stood in the table's file.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path


def add_method() -> None:
    """Adds "nearest-mean" to the methods that solve a head."""
    from kerasft.heads.methods import METHODS, Method

    METHODS["nearest-mean"] = Method("the nearest mean of a class", nearest_mean, linear=True)


def nearest_mean():
    """Solves a head by the distances to the mean of each class; tries three scales."""
    import numpy as np

    from kerasft.heads.estimators import Solver
    from kerasft.heads.solved import Linear

    class Means:
        def __init__(self, scale):
            self.scale = scale

        def fit(self, features, labels):
            means = [features[labels == k].mean(axis=0) for k in range(labels.max() + 1)]
            self.kernel = self.scale * np.stack(means, axis=1)
            self.bias = -self.scale * np.square(means).sum(axis=1) / 2

        def predict_proba(self, features):
            logits = features @ self.kernel + self.bias
            scores = np.exp(logits - logits.max(axis=1, keepdims=True))
            return scores / scores.sum(axis=1, keepdims=True)

    return Solver(
        settings=lambda f, n: [{"scale": scale} for scale in (0.1, 1.0, 10.0)],
        estimator=lambda setting, task: Means(setting["scale"]),
        score="log loss",
        finish=lambda fitted, *_: (fitted, Linear(None, fitted.kernel, fitted.bias), []),
    )


def add_kind() -> None:
    """Adds "lines" to the kinds of source: lines of a path and a class."""
    from kerasft.config.source_names import KINDS, Kind

    KINDS["lines"] = Kind("a file with lines of path and class", endings=(".lines",))


def find_list(data, progress):
    """Opens a list file; paths are relative to its folder."""
    from kerasft.sources.photos import Listing, Photo, PhotoFolder

    path = Path(data.source)

    def read():
        lines = path.read_text("utf-8").splitlines()
        return Listing.of([Photo(*line.split(" ")) for line in lines])

    return PhotoFolder(data.source, path.parent, read)


def add_format() -> None:
    """Adds "npz" to the formats of exports."""
    from kerasft.export.formats import EXPORTERS, Exporter

    EXPORTERS["npz"] = Exporter("NPZ", "facts.npz", write_npz, open_npz, takes="files")


def write_npz(opened, folder: Path, facts, calibration) -> None:
    """Writes the facts of a model as NumPy arrays, and its net as Keras does."""
    import numpy as np

    opened.model.save(folder / "net.keras")
    rule = json.dumps(opened.rule.to_json())
    np.savez(folder / "facts.npz", names=opened.class_names, rule=rule)


def open_npz(folder: Path):
    """Opens what `write_npz` wrote; photos are decoded by kerasft."""
    import keras
    import numpy as np

    from kerasft.export.scorer import Answer, Scorer
    from kerasft.input_rule import InputRule
    from kerasft.pixels import images

    with np.load(folder / "facts.npz") as facts:
        names = facts["names"].tolist()
        rule = InputRule.from_json(json.loads(str(facts["rule"])))
    model = keras.models.load_model(folder / "net.keras")
    both = keras.Model(model.inputs[0], [model.outputs[0], model.get_layer("logits").output])

    def decode(encoded: Sequence[bytes]):
        return np.stack([images.square_of(one, rule) for one in encoded])

    def pixels(batch):
        return tuple(both.predict_on_batch(batch))

    return Scorer(
        files=lambda encoded: Answer(pixels(decode(encoded))[0], names),
        file_logits=lambda encoded: pixels(decode(encoded))[1],
        pixels=pixels,
    )


def add_backbone() -> None:
    """Adds the net "Toy" of the family "toy"."""
    from kerasft.backbones.table import BACKBONES, Backbone

    BACKBONES["Toy"] = Backbone(*("Toy", "", 32, 16, 260, 4, 2, 1, r"^block_\d"), family="toy")


def build_toy(spec, pixels, *, weights, include_top, pooling):
    """Builds two blocks of a convolution each, without a top."""
    import keras

    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    for block in (1, 2):
        x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name=f"block_{block}_conv")(x)
    if pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, x)


def run(commands: Sequence[Sequence[str]]) -> None:
    """Adds all rows, as their files would when they are read, and runs the commands."""
    add_method()
    add_kind()
    add_backbone()
    from kerasft.models.build import BUILDERS
    from kerasft.sources.find import SOURCES

    SOURCES["lines"] = find_list
    BUILDERS["toy"] = build_toy
    from click.testing import CliRunner

    from kerasft.cli.main import main

    for command in commands:
        done = CliRunner().invoke(main, command)
        print(json.dumps({"code": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}))


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
