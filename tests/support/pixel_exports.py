"""Exports of small models in the formats that take pixels, for the tests of these formats."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import keras
import numpy as np

from kerasft.export.facts import ExportFacts, read_facts, write_facts
from kerasft.export.parity import noise_pixels
from kerasft.models.build import seed_layers
from kerasft.models.bundle import Bundle


def exported(
    format: ModuleType,
    opened: Bundle,
    folder: Path,
    quantize: str | None = None,
    calibration: Path | None = None,
) -> Path:
    """Writes a model with a module of a format, and what lies beside it; returns the folder."""
    name = format.__name__.rpartition(".")[2].removesuffix("_format")
    facts = ExportFacts(name, quantize, opened.class_names, opened.rule)
    folder.mkdir(exist_ok=True)
    format.write(opened, folder, facts, calibration)
    write_facts(folder, facts)
    return folder


def largest_difference(format: ModuleType, opened: Bundle, folder: Path) -> float:
    """Returns by how much the scores of an export differ at most, in batches of 1, 7 and 3."""
    pixels = noise_pixels(opened.rule.image_size)
    scorer = format.open_scorer(folder)
    expected = opened.model.predict_on_batch(pixels)
    differences = []
    for size in (1, 7, 3):
        scores, logits = scorer.pixels(pixels[:size])
        assert logits is None and scores.dtype == np.float32
        differences.append(np.abs(scores - expected[:size]).max())
    return max(differences)


def answers_of_threads(format: ModuleType, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores of 40 noise images, one call for each, by four threads and by one."""
    scorer = format.open_scorer(folder)
    side = read_facts(folder).rule.image_size
    images = [np.roll(noise_pixels(side)[i % 8 : i % 8 + 1], i, axis=1) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: scorer.pixels(image)[0], images))
    return np.concatenate(together), np.concatenate([scorer.pixels(one)[0] for one in images])


def unusual_model(
    through: Callable[[keras.KerasTensor], keras.KerasTensor] = lambda x: x,
) -> keras.Model:
    """Builds a net, pixels [B,16,16,3] to scores [B,3], of what converters do not know.

    A grouped convolution and GELU, as ConvNeXt has them, and constants of VGG's preprocessing.

    Args:
        through: function that the pixels pass first.
    """
    seed_layers(0)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.applications.imagenet_utils.preprocess_input(through(pixels), mode="caffe")
    x = keras.layers.Conv2D(8, 4, strides=4)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", groups=8)(x)
    x = keras.layers.Activation("gelu")(keras.layers.LayerNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, name="logits", kernel_initializer="orthogonal")(x)
    return keras.Model(pixels, keras.layers.Softmax(dtype="float32", name="scores")(x))


def smaller(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Resizes with antialiasing, as models of backbones with different sides do."""
    return keras.ops.image.resize(pixels, (12, 12), antialias=True)
