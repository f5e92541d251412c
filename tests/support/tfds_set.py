"""A TFDS dataset that the tests write, in TFDS' own format, without a network."""

from pathlib import Path

import numpy as np
from drawing import CLASSES, draw_photo


def drawn(split: str, per_class: int) -> list[dict]:
    """Draws examples of circle, cross and stripes, 48 x 40 pixels, different in every split."""
    start = {"train": 0, "validation": 100, "test": 200}.get(split, 300)
    return [
        {"image": draw_photo(shape, start + number, seed=0, size=(48, 40)), "label": label}
        for label, shape in enumerate(CLASSES)
        for number in range(per_class)
    ]


def builder_class(name: str, splits: dict[str, int], **features) -> type:
    """Defines a dataset class in the way that an author of a TFDS dataset does.

    Args:
        name: name in CamelCase; TFDS writes it in snake_case.
        splits: name of a split -> number of images of each class.
        features: features that replace "image" (PNG) and "label" (circle, cross, stripes), or are
            added to them; None removes one.
    """
    import tensorflow_datasets as tfds

    parts = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=list(CLASSES)),
        **features,
    }
    parts = {key: feature for key, feature in parts.items() if feature is not None}

    called = name

    class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = tfds.core.naming.camelcase_to_snakecase(called)
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(parts))

        def _split_generators(self, _):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for number, example in enumerate(drawn(split, splits[split])):
                extra = {k: _filler(f) for k, f in parts.items() if k not in example}
                yield number, {k: v for k, v in example.items() if k in parts} | extra

    return Shapes


def _filler(feature: object) -> object:
    shape = [size or 8 for size in feature.shape]
    return np.zeros(shape, feature.np_dtype) if shape else feature.np_dtype.type(0)


def write_set(data_dir: Path, name: str, splits: dict[str, int], **features) -> Path:
    """Writes a dataset below `data_dir` with `download_and_prepare`; returns `data_dir`."""
    builder_class(name, splits, **features)(data_dir=str(data_dir)).download_and_prepare()
    return data_dir
