"""The two-phase program of the Keras guide "Transfer learning & fine-tuning", to compare with.

The guide's recipe, step for step, with another backbone and other photos: `Resizing`, random
flip and rotation in `Dataset.map`, batches prefetched and cached, `Rescaling`, a frozen base
called with `training=False`, global average pooling, dropout 0.2, a Dense layer on logits,
Adam; then `base_model.trainable = True`, compile again with Adam(1e-5), train on.
(keras.io/guides/transfer_learning, "An end-to-end example", last modified 2023/06/25.)

What differs from the guide: the backbone and its own preprocessing (for Xception and the
MobileNets that is the guide's `Rescaling`), several classes for two, batches of 32, and the
split, which is read from a kerasft run so that both see the same images.

The seconds of a phase are those of its `fit`, validation after every epoch included; the first
one reads and decodes the photos.

    python scripts/guide_two_phase.py runs/flowers photos/ --epochs 10 --unfreeze-epochs 10

The guide unfreezes the whole net. `--unfreeze-from LAYER` leaves the layers below that one frozen,
and with them the BatchNormalization layers above it, as kerasft does: equal work.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # only the comparison's own lines

import keras
import numpy as np
import tensorflow as tf

from kerasft.backbones.spec import parse

BATCH = 32


def read_split(run: Path, data: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Files and labels of one split, from the run's splits.csv."""
    with open(run / "splits.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [str(data / row["path"]) for row in rows], np.array([int(r["label"]) for r in rows])


def batches(
    files: list[str], labels: np.ndarray, *, side: int, augment: bool, seed: int
) -> tf.data.Dataset:
    def load(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
        return tf.image.resize(tf.cast(image, tf.float32), (side, side)), label

    dataset = tf.data.Dataset.from_tensor_slices((files, labels))
    if augment:  # the guide shuffles on disk; tfds does it there
        dataset = dataset.shuffle(len(files), seed=seed, reshuffle_each_iteration=False)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    if augment:
        layers = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)]

        def augmented(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            for layer in layers:
                image = layer(image)
            return image, label

        dataset = dataset.map(augmented)
    return dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE).cache()


def build(spec: str, side: int, num_classes: int) -> tuple[keras.Model, keras.Model]:
    backbone, options = parse(spec)
    shape = (side, side, 3)
    base = getattr(keras.applications, backbone.name)(
        weights="imagenet", input_shape=shape, include_top=False, **options
    )
    base.trainable = False
    inputs = keras.Input(shape=shape)
    x = getattr(keras.applications, backbone.module).preprocess_input(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return base, keras.Model(inputs, keras.layers.Dense(num_classes)(x))


def fit(model: keras.Model, optimizer: keras.optimizers.Optimizer, sets: dict, epochs: int) -> dict:
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    began = time.perf_counter()
    model.fit(sets["train"], epochs=epochs, validation_data=sets["validation"], verbose=2)
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 2), "steps": int(optimizer.iterations)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="a kerasft run, whose split is used")
    parser.add_argument("data", type=Path, help="the photos that it was trained on")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--unfreeze-epochs", type=int, default=10)
    parser.add_argument("--unfreeze-from", metavar="LAYER", help="lowest layer that is unfrozen")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    began = time.perf_counter()
    keras.utils.set_random_seed(arguments.seed)
    side = parse(arguments.backbone)[0].image_size
    names = ("train", "validation", "test")
    splits = {name: read_split(arguments.run, arguments.data, name) for name in names}
    sets = {
        name: batches(*files, side=side, augment=name == "train", seed=arguments.seed)
        for name, files in splits.items()
    }
    base, model = build(arguments.backbone, side, len(set(splits["train"][1])))
    head = fit(model, keras.optimizers.Adam(), sets, arguments.epochs)
    head_accuracy = model.evaluate(sets["validation"], verbose=0)[1]
    base.trainable = True
    if arguments.unfreeze_from:
        lowest = base.layers.index(base.get_layer(arguments.unfreeze_from))
        for position, layer in enumerate(base.layers):
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = position >= lowest and not is_norm
    unfreeze = fit(model, keras.optimizers.Adam(1e-5), sets, arguments.unfreeze_epochs)
    result = {
        "seed": arguments.seed,
        "train_images": len(splits["train"][0]),
        "batch_size": BATCH,
        "image_size": side,
        "head_steps": head["steps"],
        "unfreeze_steps": unfreeze["steps"],
        "head_seconds": head["seconds"],
        "unfreeze_seconds": unfreeze["seconds"],
        "head_validation_accuracy": head_accuracy,
        "validation_accuracy": model.evaluate(sets["validation"], verbose=0)[1],
        "test_accuracy": model.evaluate(sets["test"], verbose=0)[1],
        "whole_seconds": round(time.perf_counter() - began, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
