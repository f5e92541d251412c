"""The nearest training photos, for a head in which they vote (`solved.Neighbours`).

Shapes: N images, S side of the model's square input in pixels, T training images, K classes.
"""

from dataclasses import dataclass

import keras
import numpy as np

from kerasft.data.splits import read_rows
from kerasft.models.bundle import Bundle
from kerasft.models.tta import trained_part
from kerasft.results import Result
from kerasft.run import Run


@dataclass(frozen=True)
class Neighbour(Result):
    """A training photo that is near.

    Attributes:
        file: its path, relative to the source of the run; "" if only a model file is known.
        label: its class.
        similarity: cosine of the angle between the features of both photos, -1 to 1.
    """

    file: str
    label: str
    similarity: float


def has_neighbours(model: keras.Model) -> bool:
    """Returns whether the head of a model lets the nearest training photos vote."""
    return any(layer.name == "head_votes" for layer in trained_part(model).layers)


def find_nearest(
    opened: Bundle, pixels: np.ndarray, classes: np.ndarray | None, run: Run
) -> list[tuple[Neighbour, ...]]:
    """Finds the training photos that are nearest to images.

    Args:
        opened: a classifier of which `has_neighbours` is true.
        pixels: float32 [N,S,S,3], 0 to 255.
        classes: int [N], the class of each image from which the photos are taken; None takes
            them from all classes.
        run: the run of the model. If it is none, or has other photos, they have no names.

    Returns:
        As many photos for each image as vote, the nearest first; fewer if its class has fewer.
    """
    model = trained_part(opened.model)
    votes = keras.ops.convert_to_numpy(model.get_layer("head_votes").embeddings)
    cosines = keras.Model(model.inputs[0], model.get_layer("head_neighbours").output)
    similar = np.array(cosines.predict_on_batch(pixels))
    labels = votes.argmax(axis=1)
    if classes is not None:
        similar[labels[None] != classes[:, None]] = -np.inf
    names = _training_photos(run, labels)
    voters = model.get_layer("head_votes").input.shape[1]
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :voters]
    return [
        tuple(
            Neighbour(names[i], opened.class_names[labels[i]], float(row[i]))
            for i in own
            if np.isfinite(row[i])
        )
        for row, own in zip(similar, nearest, strict=True)
    ]


def _training_photos(run: Run, labels: np.ndarray) -> list[str]:
    """Returns the names of a run's training photos in the order of the head; "" if unknown."""
    unknown = [""] * len(labels)
    if not run.splits_path.is_file():
        return unknown
    rows = [row for row in read_rows(run.splits_path, labels.max() + 1) if row[2] == "train"]
    same = [row[1] for row in rows] == [str(label) for label in labels]
    return [row[0] for row in rows] if same else unknown
