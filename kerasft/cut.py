"""The cut: a model split into a frozen prefix and a trained suffix.

    pixels -- prefix --| cut |-- suffix -- logits

The graph says where a cut is possible: where one tensor is alive. The backbone's row says
what a block is. A phase counts blocks from the top; the cut is where they begin.

A cell of NASNet takes what the two cells before it made, so between its cells two tensors
are alive. The halves hand over one all the same, in which the two lie in a row: what is
stored, mixed or fed does not have to know.

The freeze is proven, not assumed: `fingerprint` before a phase, `prove_frozen` on the
model that the phase saved.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import keras
import numpy as np

from kerasft.backbones import Backbone, block_key
from kerasft.errors import PhaseFailed, UserError
from kerasft.heads import features_of

MOST_TENSORS = 2  # that a cut may carry


@dataclass(frozen=True)
class Block:
    """Some neighbouring layers of a backbone that are frozen or trained together.

    Attributes:
        name: the backbone's own name for it ("block_14"), or "stem".
        layers: names of its layers and operations, in the order of the graph.
        parameters: number of its weights, BatchNormalization statistics included.
        inputs: symbolic tensors of the model that enter it; two between the cells of NASNet.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int
    inputs: tuple[keras.KerasTensor, ...] = field(repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Cut:
    """A model split in two; both halves share its layers and variables.

    Attributes:
        prefix: pixels [B,S,S,3] to the activations at the cut, or None for a cut at the
            pixels.
        suffix: activations at the cut to logits float32 [B,K].
        blocks: the suffix's blocks from the top; empty if only the head is trained.
    """

    prefix: keras.Model | None
    suffix: keras.Model
    blocks: tuple[Block, ...]


def list_blocks(model: keras.Model, backbone: Backbone) -> list[Block]:
    """Lists the blocks of a backbone from the top.

    Args:
        model: a flat model that ends in the backbone's features, or a whole model with a
            head (whose layers belong to no block).
        backbone: the row that names the blocks.

    Returns:
        At least one block; the last one begins at the pixels, and is the stem where
        a stem has weights.
    """
    nodes = _in_order_of_blocks(_backbone_nodes(model), backbone)
    keys = [block_key(backbone, node.operation.name) for node in nodes]
    alive = _alive_behind(nodes, model.inputs)
    keyed = [i for i, key in enumerate(keys) if key is not None]

    starts: list[tuple[int, str]] = [(0, "stem")]  # where a block begins, and its name
    before_first = _narrowest(alive, range(keyed[0]))
    stem = nodes[: before_first[-1] + 1] if before_first else []
    if _parameters(stem):
        starts.append((len(stem), str(keys[keyed[0]])))
    else:  # VGG, Xception: in front of block1 there is only the preprocessing
        starts = [(0, str(keys[keyed[0]]))]
    for last, first in pairwise(keyed):
        between = _narrowest(alive, range(last, first))
        if keys[last] != keys[first] and between:
            # The first possible cut: behind the unit's last activation or addition,
            # in front of a padding or downsampling that belongs to the next unit.
            starts.append((between[0] + 1, str(keys[first])))

    ends = [start for start, _ in starts[1:]] + [len(nodes)]
    found = []
    for (start, name), end in zip(starts, ends, strict=True):
        layers = tuple(node.operation.name for node in nodes[start:end])
        entering = alive[start - 1] if start else [model.inputs[0]]
        found.append(Block(name, layers, _parameters(nodes[start:end]), tuple(entering)))
    return found[::-1]


def _parameters(nodes: list) -> int:
    operations = [node.operation for node in nodes]
    return sum(o.count_params() for o in operations if isinstance(o, keras.layers.Layer))


def _backbone_nodes(model: keras.Model) -> list:
    """The graph's nodes in topological order, without the inputs and without the head.

    `_nodes_by_depth` is private to Keras, and the only place where a model tells its own
    nodes from those of other models that share its layers (every suffix adds such).
    """
    by_depth = model._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    nodes = [node for node in nodes if not node.is_input]
    features = features_of(model)
    last = next(
        i for i, node in enumerate(nodes) if any(t is features for t in node.output_tensors)
    )
    return nodes[: last + 1]


def _in_order_of_blocks(nodes: list, backbone: Backbone) -> list:
    """The same nodes, in the topological order in which a block ends before the next begins.

    Where one tensor is alive, it is the one in any order. Where two are, order matters: a cell
    of NASNet begins with layers that take only what the last cell but one made, and by depth
    some of them come before the end of the last cell. So a node comes with the first block
    that needs it.
    """
    keys = [block_key(backbone, node.operation.name) for node in nodes]
    places = {key: place for place, key in enumerate(dict.fromkeys(filter(None, keys)))}
    needed_in: dict[int, int] = {}  # tensor -> place of the first block that needs it
    ranks = []
    for node, key in zip(reversed(nodes), reversed(keys), strict=True):
        own = len(places) if key is None else places[key]
        rank = min([own, *(needed_in[id(t)] for t in node.output_tensors if id(t) in needed_in)])
        for tensor in node.input_tensors:
            needed_in[id(tensor)] = min(rank, needed_in.get(id(tensor), rank))
        ranks.append(rank)
    in_order = sorted(zip(reversed(ranks), range(len(nodes)), strict=True))
    return [nodes[i] for _, i in in_order]


def _alive_behind(nodes: list, inputs: Sequence) -> list[list]:
    """The tensors that are alive behind each node: there, and still to be used."""
    last_use: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_use[id(tensor)] = i
    alive, behind = list(inputs), []
    for i, node in enumerate(nodes):
        alive = [t for t in alive if last_use[id(t)] > i]
        alive += [t for t in node.output_tensors if last_use.get(id(t), -1) > i]
        behind.append(alive)
    return behind


def _narrowest(alive: list[list], positions: range) -> list[int]:
    """The positions behind which the fewest tensors are alive, at most MOST_TENSORS."""
    fewest = min((len(alive[i]) for i in positions), default=0)
    return [i for i in positions if len(alive[i]) == fewest <= MOST_TENSORS]


def split(model: keras.Model, blocks: int | str | None, backbone: Backbone) -> Cut:
    """Cuts a whole model in front of its top blocks.

    Args:
        model: pixels to scores, with the layers of `heads.attach`.
        blocks: how many blocks from the top the suffix has. 0: the head alone. "all", or
            the number of all blocks: a cut at the pixels.
        backbone: the row that names the blocks.

    Raises:
        UserError: there are fewer blocks than that.
    """
    found = list_blocks(model, backbone)
    count = depth(blocks, len(found))
    if not 0 <= count <= len(found):
        raise UserError(
            f"blocks: {backbone.name} has {len(found)} blocks, got {count}. "
            f"Take 0 to {len(found)}; `kerasft blocks {backbone.name}` lists them.",
            exit_code=2,
        )
    logits = model.get_layer("logits").output
    pixels = model.inputs[0]
    taken = tuple(found[:count])
    if count == len(found):
        return Cut(None, keras.Model(pixels, logits), taken)
    tensors = found[count - 1].inputs if count else (features_of(model),)
    if len(tensors) == 1:
        return Cut(keras.Model(pixels, tensors[0]), keras.Model(tensors[0], logits), taken)
    joined, suffix = _in_a_row(tensors, logits, f"cut_{count}")
    return Cut(keras.Model(pixels, joined), suffix, taken)


def depth(blocks: int | str | None, deepest: int) -> int:
    """Reads the `blocks` of a phase as a number.

    Args:
        blocks: a number or "all"; not None any more, `resolve.py` has settled it.
        deepest: how many blocks there are.
    """
    assert blocks is not None
    return deepest if blocks == "all" else int(blocks)


def _in_a_row(
    tensors: Sequence[keras.KerasTensor], logits: keras.KerasTensor, name: str
) -> tuple[keras.KerasTensor, keras.Model]:
    """Makes one tensor of several, and the suffix that takes them apart again.

    Args:
        tensors: alive at the cut, [B, ...] each.
        logits: what the suffix ends with.
        name: for the layers that are added; automatic names could be in the model already.

    Returns:
        [B,F], the tensors' numbers in a row; and the model from such an [B,F] to the logits,
        flat, of the same layers.
    """
    flat = [keras.layers.Flatten(name=f"{name}_flat_{i}")(t) for i, t in enumerate(tensors)]
    joined = keras.layers.Concatenate(name=name)(flat)
    row = keras.Input(joined.shape[1:], name=f"{name}_row")
    ends = list(accumulate(part.shape[1] for part in flat))
    parts = [
        keras.layers.Reshape(tensor.shape[1:], name=f"{name}_part_{i}")(part)
        for i, (tensor, part) in enumerate(
            zip(tensors, keras.ops.split(row, ends[:-1], axis=1), strict=True)
        )
    ]
    # `call`, not `__call__`: that would make the suffix one layer, with all others inside it.
    return joined, keras.Model(row, keras.Model(list(tensors), logits).call(parts))


def freeze(cut: Cut, batch_norm: str) -> list[str]:
    """Marks what a phase trains. Compile after calling this.

    Flags are set on every single layer, outer ones first, because an outer
    `trainable = False` hides an inner True, and an outer True thaws every
    BatchNormalization inside (the `trainable` setter of `keras.Layer`).

    Args:
        cut: of a whole model.
        batch_norm: "frozen" stops every BatchNormalization of the suffix too: its
            statistics come from ImageNet, and small batches would ruin them. "train"
            releases those of the suffix, never of the prefix, and has their statistics
            follow within a phase's steps (MOMENTUM).

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


# Of the moving averages of BatchNormalization. With Keras' 0.99, and 0.999 in MobileNets, they
# still hold what they began with after the few hundred steps of a small set, and validation is at
# chance. 0.9 is what PyTorch's nets are trained with.
MOMENTUM = 0.9


def thaw(model: keras.Model) -> None:
    """Sets every layer's `trainable` to True, the state in which models are saved."""
    for layer in _layers(model):
        layer.trainable = True


def may_change(model: keras.Model, cut: Cut, batch_norm: str) -> set[int]:
    """Returns which of `model.weights` a phase is allowed to change.

    Told by where a layer lies and what it is, not by its `trainable` flag, so that the proof
    also catches a flag that was set wrongly.

    Args:
        model: the whole model.
        cut: of it.
        batch_norm: "frozen" or "train", as for `freeze`.
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
    """One digest of a `fingerprint`, without the paths: auto-names differ by process."""
    return hashlib.blake2b("".join(d for _, d in start).encode(), digest_size=16).hexdigest()


def prove_frozen(
    start: Sequence[tuple[str, str]], saved: keras.Model, trained: set[int], phase: str
) -> None:
    """Compares the model that a phase saved with the phase's start, variable by variable.

    Args:
        start: `fingerprint` of the whole model when the phase began.
        saved: the model as it was saved, loaded again.
        trained: positions in `model.weights` that may differ (`may_change`).
        phase: its name, for the message.

    Raises:
        PhaseFailed: a frozen variable moved. It names all of them (the first ten).
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
    """All layers, those inside nested models included, outer ones first."""
    return list(model._flatten_layers(include_self=False, recursive=True))
