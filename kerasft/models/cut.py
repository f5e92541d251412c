"""The cut: a model split into a frozen prefix and a trained suffix.

    pixels -- prefix --| cut |-- suffix -- logits

A phase counts blocks from the top (`blocks.py`); the cut lies below them.

A cell of NASNet takes the outputs of the two cells before it, so two tensors are alive between
its cells. The prefix flattens and concatenates them, and the suffix takes them apart, so all other
code sees a single tensor at the cut. The same is done for several backbones, which are all cut at
the same number of blocks from the top.

The freeze is proven, not assumed: `fingerprint` before a phase, `prove_frozen` on the
model that the phase saved.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import keras
import numpy as np

from kerasft.backbones.table import Backbone
from kerasft.errors import PhaseFailed, UserError
from kerasft.heads.trained import features_of
from kerasft.models.blocks import Block, backbone_nodes, list_blocks


@dataclass(frozen=True, eq=False)
class Cut:
    """A model split in two; both halves share its layers and variables.

    Attributes:
        prefix: the frozen half, pixels [B,S,S,3] to the activations at the cut; None for a cut
            at the pixels.
        suffix: the other half, activations at the cut to logits float32 [B,K].
        blocks: the suffix's blocks from the top; empty if only the head is trained.
        parts: the prefix of each backbone, pixels to its activations in their own shape.
            Flattened and concatenated, they are the activations of `prefix`.
        tensors: the tensors of the model that cross the cut, in their order in the activations.
    """

    prefix: keras.Model | None
    suffix: keras.Model
    blocks: tuple[Block, ...]
    parts: tuple[keras.Model, ...]
    tensors: tuple[keras.KerasTensor, ...] = ()


def split(model: keras.Model, blocks: int | str, *backbones: Backbone) -> Cut:
    """Cuts a whole model below its top blocks.

    Args:
        model: the model, pixels to scores, with the layers of `trained.attach`.
        blocks: number of blocks from the top in the suffix. 0 is the head alone; "all", or the
            number of all blocks, is a cut at the pixels.
        backbones: the backbone's row of the table, or the rows of several.

    Raises:
        UserError: there are fewer blocks than that.
    """
    found = list_blocks(model, *backbones)
    count = len(found) if blocks == "all" else int(blocks)
    if not 0 <= count <= len(found):
        name = min(backbones, key=lambda backbone: backbone.blocks).name
        raise UserError(
            f"blocks: {name} has {len(found)} blocks, got {count}. "
            f"Take 0 to {len(found)}; `kerasft blocks {name}` lists them.",
            exit_code=2,
        )
    logits = model.get_layer("logits").output
    pixels = model.inputs[0]
    taken = tuple(found[:count])
    if count == len(found):
        return Cut(None, keras.Model(pixels, logits), taken, ())
    if count:
        tensors, nets = found[count - 1].inputs, found[count - 1].nets
        pairs = list(zip(tensors, nets, strict=True))
        of_net = [[t for t, n in pairs if n == net] for net in range(len(backbones))]
    else:
        tensors = (features_of(model),)
        of_net = [[tensor] for tensor in _features_of_each(model, len(backbones))]
    parts = tuple(
        keras.Model(pixels, _row(own, f"cut_{count}_net{net}")) for net, own in enumerate(of_net)
    )
    if len(tensors) == 1:
        prefix, suffix = keras.Model(pixels, tensors[0]), keras.Model(tensors[0], logits)
    else:
        joined = _row(tensors, f"cut_{count}")
        prefix, suffix = keras.Model(pixels, joined), _from_row(tensors, logits, f"cut_{count}")
    return Cut(prefix, suffix, taken, parts, tuple(tensors))


def with_features(model: keras.Model, cut: Cut) -> keras.Model:
    """Returns a cut's suffix with a second output, the features that enter its head.

    Args:
        model: the model that was cut.
        cut: the cut; at most one tensor crosses it.
    """
    begin = model.inputs[0] if cut.prefix is None else cut.prefix.outputs[0]
    return keras.Model(begin, [model.get_layer("logits").output, features_of(model)])


def _features_of_each(model: keras.Model, count: int) -> list[keras.KerasTensor]:
    """Returns the features of each backbone, [B,F] each."""
    features = features_of(model)
    if count == 1:
        return [features]
    nodes = backbone_nodes(model)
    joined = next(node for node in nodes if any(t is features for t in node.output_tensors))
    return list(joined.input_tensors)


def _row(tensors: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """Flattens and concatenates several tensors to [B,F]; a single one stays as it is.

    Args:
        tensors: the tensors at the cut, [B, ...] each.
        name: name for the added layers; an automatic one could be in the model already.
    """
    if len(tensors) == 1:
        return tensors[0]
    flat = [keras.layers.Flatten(name=f"{name}_flat_{i}")(t) for i, t in enumerate(tensors)]
    return keras.layers.Concatenate(name=name)(flat)


def _from_row(
    tensors: Sequence[keras.KerasTensor], logits: keras.KerasTensor, name: str
) -> keras.Model:
    """Builds the suffix that takes the tensor of `_row` apart again.

    Args:
        tensors: the tensors at the cut, [B, ...] each.
        logits: the output of the suffix.
        name: name for the added layers.

    Returns:
        A flat model of the same layers, [B,F] to the logits.
    """
    widths = [math.prod(tensor.shape[1:]) for tensor in tensors]
    row = keras.Input((sum(widths),), name=f"{name}_row")
    parts = [
        keras.layers.Reshape(tensor.shape[1:], name=f"{name}_part_{i}")(part)
        for i, (tensor, part) in enumerate(
            zip(
                tensors,
                keras.ops.split(row, list(accumulate(widths))[:-1], axis=1),
                strict=True,
            )
        )
    ]
    # `call`, not `__call__`, which would make the suffix a single layer that contains all others.
    return keras.Model(row, keras.Model(list(tensors), logits).call(parts))


def freeze(cut: Cut, batch_norm: str) -> list[str]:
    """Freezes everything that a phase does not train. Compile after calling this.

    Flags are set on every single layer, outer ones first, because an outer
    `trainable = False` hides an inner True, and an outer True thaws every
    BatchNormalization inside (the `trainable` setter of `keras.Layer`).

    Args:
        cut: the phase's cut of a whole model.
        batch_norm: treatment of the suffix's BatchNormalization layers. "frozen" freezes them
            too: their statistics come from ImageNet, and small batches would ruin them. "train"
            lets them learn (those of the prefix stay frozen), with a momentum of at most
            MOMENTUM, so that their statistics adapt within a phase's steps.

    Returns:
        Names of the BatchNormalization layers that learn, in the order of the graph.
    """
    for layer in _layers(cut.prefix) if cut.prefix is not None else []:
        layer.trainable = False
    released = []
    for layer in _layers(cut.suffix):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = batch_norm == "train" or not is_norm
        if is_norm and layer.trainable:
            layer.momentum = min(layer.momentum, MOMENTUM)
            released.append(layer.name)
    return released


# Momentum of BatchNormalization's moving averages. With Keras' 0.99, and 0.999 in MobileNets, they
# have hardly moved after the few hundred steps of a small set, and validation accuracy is at
# chance. 0.9 is the value in PyTorch's nets.
MOMENTUM = 0.9


def thaw(model: keras.Model) -> None:
    """Sets every layer's `trainable` to True, the state in which models are saved."""
    for layer in _layers(model):
        layer.trainable = True


def may_change(model: keras.Model, cut: Cut, batch_norm: str) -> set[int]:
    """Returns the positions in `model.weights` that a phase is allowed to change.

    They follow from each layer's place and kind, not from its `trainable` flag, so that the proof
    also catches a flag that was set wrongly.

    Args:
        model: the whole model.
        cut: the phase's cut of the model.
        batch_norm: treatment of the suffix's BatchNormalization layers, "frozen" or "train".
    """
    still = [keras.layers.Normalization]
    still += [keras.layers.BatchNormalization] if batch_norm == "frozen" else []
    learning = {
        id(variable)
        for layer in _layers(cut.suffix)
        if not layer._layers and not isinstance(layer, tuple(still))
        for variable in layer.weights
    }
    return {i for i, variable in enumerate(model.weights) if id(variable) in learning}


def fingerprint(model: keras.Model) -> list[tuple[str, str]]:
    """Returns path and digest of each of `model.weights`, in their order."""
    return [
        (weight.path, hashlib.blake2b(_bytes(weight), digest_size=16).hexdigest())
        for weight in model.weights
    ]


def digest_of(start: Sequence[tuple[str, str]]) -> str:
    """Returns a single digest of a `fingerprint`, without its paths: auto-names may differ."""
    return hashlib.blake2b("".join(d for _, d in start).encode(), digest_size=16).hexdigest()


def prove_frozen(
    start: Sequence[tuple[str, str]], saved: keras.Model, trained: set[int], phase: str
) -> None:
    """Compares the model that a phase saved with the phase's start, variable by variable.

    Args:
        start: fingerprint of the whole model at the start of the phase.
        saved: the model as it was saved, loaded again.
        trained: positions in `model.weights` that may differ (`may_change`).
        phase: name of the phase, for the message.

    Raises:
        PhaseFailed: a frozen variable moved. The message names up to ten of them.
    """
    end = fingerprint(saved)
    if len(end) != len(start):
        raise PhaseFailed(
            f"Phase '{phase}': the saved model has {len(end)} variables, "
            f"the phase began with {len(start)}. Nothing of this phase was kept."
        )
    moved = [
        path
        for i, ((path, before), (_, after)) in enumerate(zip(start, end, strict=True))
        if i not in trained and before != after
    ]
    if moved:
        more = f"\n  and {len(moved) - 10} more" if len(moved) > 10 else ""
        raise PhaseFailed(
            f"Phase '{phase}': {len(moved)} frozen variables moved while it trained:\n  "
            + "\n  ".join(moved[:10])
            + more
            + "\nNothing of this phase was kept. This is a defect of kerasft or of Keras, not "
            "of the photos: please report it with the run's run.json."
        )


def _bytes(variable: keras.Variable) -> bytes:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes()


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns all layers, including those inside nested models, outer ones first."""
    return list(model._flatten_layers(include_self=False, recursive=True))
