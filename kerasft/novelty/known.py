"""Known photos: `known.keras`, the pretrained features of a run's training photos.

The file is a Keras model, from a tensor of model.keras that no phase has trained to the features of
the pretrained base, with an extra member `known.npz`: features, threshold, names of layers.

    begin     before a phase: the model from the phase's cut to the pretrained features, as a copy
    complete  after it: with the features of the training photos, from the stored activations

Shapes: N images, M known images, F features, S side of a square image in pixels.
"""

import io
import logging
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasft import files
from kerasft.errors import UserError
from kerasft.models.bundle import Bundle, load_keras
from kerasft.models.net import Net
from kerasft.models.tta import looks_at_views
from kerasft.untrusted import read_arrays

log = logging.getLogger("kerasft")

MEMBER = "known.npz"
MOST = 2048  # training photos whose features are kept
ALARMS = 0.01  # share of photos like those of validation that are called unlike the training ones
BATCH = 256


@dataclass(frozen=True, eq=False)
class Known:
    """The training photos, by their features in the pretrained base.

    Attributes:
        layer: name of the layer of model.keras whose output enters `model`; "" for the pixels.
        model: the part of the pretrained base above that layer, to features [B,F].
        features: features of the training photos, scaled to length 1, float16 [M,F]; None until
            `complete`.
        threshold: distance above which a photo counts as unlike all of them. A distance is 1 minus
            the cosine to the nearest one, 0 to 2.
        n: number of validation images that the threshold is from.
    """

    layer: str
    model: keras.Model
    features: np.ndarray | None = None
    threshold: float = math.inf
    n: int = 0

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Returns the distance of each photo to the nearest known one: [N,F] -> float32 [N]."""
        assert self.features is not None
        return distances(self.features, features)

    def beside(self, opened: Bundle) -> keras.Model:
        """Returns a model that scores and compares in one go: [scores, logits, features]."""
        whole = opened.scores_and_logits
        below = opened.model.get_layer(self.layer).output if self.layer else opened.model.inputs[0]
        return keras.Model(whole.inputs[0], [*whole.outputs, self.model(below)])


def begin(net: Net, blocks: int | str, trained: int, earlier: Known | None) -> Known | None:
    """Prepares what a phase must keep of the pretrained base, before it trains.

    Args:
        net: the net that the phase begins with.
        blocks: blocks that the phase trains, as in its settings.
        trained: largest number of blocks that an earlier phase has trained.
        earlier: the known photos of the run so far.

    Returns:
        The known photos, without features if there are none yet. None if they can't be kept: the
        pretrained weights of some block are gone, several tensors cross the cut, or one that no
        layer gives, or the model looks at several views of an image.
    """
    depth = net.depth(blocks)
    if (trained and earlier is None) or looks_at_views(net.model):
        return None
    if earlier is not None and depth <= trained:
        return earlier  # below its layer nothing changes
    tensors = net.cut(blocks).tensors if depth else (net.features,)
    if len(tensors) > 1:
        return None
    below = tensors[0] if tensors else net.model.inputs[0]
    enters_at = below._keras_history.operation
    if tensors and not isinstance(enters_at, keras.Layer):
        return None  # a bare sum, as in ConvNeXt: it has no name that can be found again
    layer = enters_at.name if tensors else ""
    if not depth:
        same = keras.Input(below.shape[1:], name="features")
        return Known(
            layer, keras.Model(same, keras.layers.Identity(name="same")(same), name="known")
        )
    upto, after = net.features, None
    if trained:
        assert earlier is not None
        upto, after = net.model.get_layer(earlier.layer).output, earlier
    part = keras.Model(below, upto)
    copy = keras.models.clone_model(part)
    copy.set_weights(part.get_weights())
    copy.trainable = False
    enters = keras.Input(below.shape[1:], name="activations")
    features = copy(enters, training=False)
    if after is not None:
        features = after.model(features, training=False)
    known = Known(layer, keras.Model(enters, features, name="known"))
    if earlier is None:
        return known
    return replace(known, features=earlier.features, threshold=earlier.threshold, n=earlier.n)


def complete(known: Known, training: Any, validation: Any) -> Known:
    """Adds the features of the training photos, and the threshold from validation.

    Args:
        known: the known photos, from `begin`; features that they have are kept.
        training: activations of the training photos where `known.model` begins, [N, ...], an array
            or rows of a store (`store.Rows`); at most `MOST` are used, evenly spaced.
        validation: those of the validation photos.
    """
    if known.features is not None:
        return known
    kept = unit(_features(known, training, kept_rows(len(training)))).astype(np.float16)
    own = _features(known, validation, np.arange(len(validation)))
    return replace(known, features=kept, threshold=threshold(distances(kept, own)), n=len(own))


def kept_rows(total: int) -> np.ndarray:
    """Returns which of a run's training photos, in the order of its splits.csv, are kept: int [M].

    Args:
        total: number of the training photos.
    """
    return np.linspace(0, total - 1, min(MOST, total)).round().astype(int)


def _features(known: Known, activations: Any, rows: np.ndarray) -> np.ndarray:
    # Called, not `predict`: it is traced for nothing else.
    parts = []
    for start in range(0, len(rows), BATCH):
        part = np.asarray(activations[rows[start : start + BATCH]], np.float32)
        parts.append(keras.ops.convert_to_numpy(known.model(part, training=False)))
    return np.asarray(np.concatenate(parts), np.float32)


def threshold(own: np.ndarray) -> float:
    """Returns the distance above which a photo is unlike, from those of validation photos, [N].

    The conformal quantile: a photo like those of validation is above it with a probability of at
    most `ALARMS`, or of 1 / (N + 1) if N is too small for that.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 2.2.
    """
    rank = min(len(own), math.ceil((len(own) + 1) * (1 - ALARMS)))
    return float(np.sort(own)[rank - 1])


def unit(features: np.ndarray) -> np.ndarray:
    """Returns features [N,F] scaled to length 1, float32; rows of zeros stay."""
    wide = np.asarray(features, np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1)


def distances(known: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Returns 1 minus the cosine to the nearest row: [M,F] of length 1, [N,F] -> float32 [N]."""
    cosines = unit(features) @ np.asarray(known, np.float32).T
    return np.asarray(1 - cosines.max(axis=1), np.float32)


def save(known: Known, path: Path) -> None:
    """Writes `known.keras`, whole or not at all. Raises UserError if it can't be written."""
    assert known.features is not None
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        layer=np.array(known.layer),
        features=known.features,
        threshold=np.float64(known.threshold),
        n=np.int64(known.n),
    )
    with files.replacing(path) as beside:
        known.model.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr(zipfile.ZipInfo(MEMBER), content.getvalue())


def load_beside(path: Path, opened: Bundle) -> Known | None:
    """Reads `known.keras` for a model; None, with a warning, if it is of another model."""
    known = load(path)
    if known is None or not known.layer:
        return known
    if known.layer in {layer.name for layer in opened.model.layers}:
        return known
    log.warning(
        "%s belongs to another model, so photos unlike the training ones are not noticed.", path
    )
    return None


def load(path: Path) -> Known | None:
    """Reads `known.keras`; None if there is none. Raises UserError if it is damaged."""
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
            arrays = read_arrays(member, archive.getinfo(MEMBER).compress_size)
        layer, features = str(arrays["layer"]), arrays["features"]
        limit, n = float(arrays["threshold"]), int(arrays["n"])
        if features.ndim != 2 or features.dtype != np.float16:
            raise ValueError(f"features {features.dtype} {features.shape}")
        model = load_keras(path)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged: {error}. Remove it: photos unlike the training ones are not "
            "noticed then, and all else works."
        ) from error
    return Known(layer, model, features, limit, n)
