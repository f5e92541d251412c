"""The feature maps at the top of a model, and the gradient of a class's logit in them.

    pixels -- lower --| maps |-- upper -- logits

The maps are the last tensors that still have a height and a width: what is pooled, or flattened,
above them. One backbone has one; several have one each; features of all depths, and the cells of
NASNet below its top, have several. A map of a single place shows no place, so the maps below it
are taken instead.

Shapes: N images, M maps, S side of the model's square input in pixels, K classes; H, W height and
width of a map; C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasft.errors import UserError
from kerasft.evaluation.nearest import has_neighbours
from kerasft.lazy_tensorflow import tf
from kerasft.models.bundle import filled
from kerasft.models.tta import trained_part

BATCH = 32


@dataclass(frozen=True, eq=False)
class Halves:
    """A model, cut at its feature maps; both halves share its layers and variables.

    Attributes:
        lower: the lower half, pixels [N,S,S,3] to a list of M maps [N,H,W,C], or to a single one.
        upper: the upper half, the list of maps, or the single one, to logits [N,K].
    """

    lower: keras.Model
    upper: keras.Model


def halves_of(model: keras.Model) -> Halves:
    """Cuts a model at its feature maps.

    Args:
        model: the model, pixels to scores, with the layer "logits". Of one that averages several
            views of an image, the classifier inside is cut.

    Raises:
        UserError: the model has no feature maps, or no gradient leads to them.
    """
    model = trained_part(model)
    if has_neighbours(model):
        raise UserError(
            "The head of this model lets the nearest training photos vote. Which ones are nearest "
            "has no gradient, so there is no heat map."
        )
    logits = model.get_layer("logits").output
    pixels = model.inputs[0]
    maps = _last_maps(model, logits)
    if not keras.Model(pixels, maps).weights:  # the pixels, or what they are scaled to
        raise UserError(
            f"This model has no feature map of more than one place below its logits (it takes "
            f"images of {pixels.shape[1]} pixels a side), so there is no heat map."
        )
    ends = maps if len(maps) > 1 else maps[0]  # Keras warns when a tensor is passed for [tensor]
    return Halves(keras.Model(pixels, ends), keras.Model(ends, logits))


def _last_maps(model: keras.Model, logits: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Walks from the logits towards the pixels, on each path up to the first feature map.

    Every path from the pixels to the logits leads through one of them. Paddings are passed over:
    a padded map is shifted against the photo.
    """
    made_by = {
        id(tensor): node
        for nodes in model._nodes_by_depth.values()
        for node in nodes
        for tensor in node.output_tensors
    }
    found: dict[int, keras.KerasTensor] = {}
    seen, ahead = set(), [logits]
    while ahead:
        tensor = ahead.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        node = made_by[id(tensor)]
        pads = isinstance(node.operation, keras.layers.ZeroPadding2D)
        if node.is_input or (_is_map(tensor) and not pads):
            found[id(tensor)] = tensor
        else:
            ahead += node.input_tensors
    return list(found.values())[::-1]


def _is_map(tensor: keras.KerasTensor) -> bool:
    """Returns whether a tensor is [N,H,W,C] with more than one place."""
    shape = tensor.shape
    return len(shape) == 4 and (shape[1] or 0) * (shape[2] or 0) > 1


def class_maps(halves: Halves, pixels: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
    """Adds up the channels of each map as the gradient of a class weighs them.

    Args:
        halves: the model.
        pixels: float32 [N,S,S,3], 0 to 255.
        classes: int [N], the class of each image whose logit is derived.

    Returns:
        M arrays, float32 [N,H,W]. Each is in units of the logit: where the map is averaged and
        then weighed linearly, its mean is what it adds to the logit. Negative places speak
        against the class.
    """
    parts: list[list[np.ndarray]] = []
    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        size = min(BATCH, len(pixels))  # batches of one size are traced once
        numbers = np.concatenate([classes[start : start + size], np.zeros(size - len(batch), int)])
        maps = keras.tree.flatten(halves.lower.predict_on_batch(filled(batch, size)))
        slopes = _gradients(halves.upper, maps, numbers)
        parts.append(
            [
                np.einsum("nhwc,nc->nhw", one, slope.sum(axis=(1, 2)))[: len(batch)]
                for one, slope in zip(maps, slopes, strict=True)
            ]
        )
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _gradients(
    upper: keras.Model, maps: Sequence[np.ndarray], classes: np.ndarray
) -> list[np.ndarray]:
    """Derives the logit of each image's class.

    Args:
        upper: the upper half of a model, maps to logits.
        maps: M arrays [N,H,W,C].
        classes: int [N].

    Returns:
        M arrays [N,H,W,C]: the derivative in each map with the others held fixed.
    """
    chosen = np.eye(upper.outputs[0].shape[-1], dtype="float32")[classes]
    return [np.asarray(slope) for slope in _BACKENDS[keras.backend.backend()](upper, maps, chosen)]


def _by_tensorflow(upper: keras.Model, maps: Sequence[np.ndarray], chosen: np.ndarray) -> list:
    tensors = [tf.convert_to_tensor(one) for one in maps]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(_called(upper, tensors) * chosen)
    return tape.gradient(total, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _by_jax(upper: keras.Model, maps: Sequence[np.ndarray], chosen: np.ndarray) -> list:
    import jax

    def total(tensors: list) -> Any:
        return (_called(upper, tensors) * chosen).sum()

    return jax.grad(total)([jax.numpy.asarray(one) for one in maps])


def _by_torch(upper: keras.Model, maps: Sequence[np.ndarray], chosen: np.ndarray) -> list:
    import torch

    tensors = [keras.ops.convert_to_tensor(one).detach().requires_grad_() for one in maps]
    total = (_called(upper, tensors) * keras.ops.convert_to_tensor(chosen)).sum()
    slopes = torch.autograd.grad(total, tensors, allow_unused=True, materialize_grads=True)
    return [keras.ops.convert_to_numpy(slope) for slope in slopes]


def _called(upper: keras.Model, tensors: list) -> Any:
    return upper(tensors if len(tensors) > 1 else tensors[0], training=False)


# The functions that derive, by the backend of Keras; called like `_gradients`, with the classes
# one-hot [N,K].
_BACKENDS = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
