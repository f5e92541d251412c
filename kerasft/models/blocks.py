"""The blocks of a backbone: neighbouring layers that are frozen or trained together.

The graph says where a cut is possible: where one tensor is alive. The backbone's row says what a
block is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import keras

from kerasft.backbones.compatibility import FULLY_CONNECTED
from kerasft.backbones.table import Backbone, block_key
from kerasft.heads.trained import features_of

MOST_TENSORS = 2  # that a cut through one backbone may carry


@dataclass(frozen=True)
class Block:
    """Some neighbouring layers of a backbone that are frozen or trained together.

    Attributes:
        name: the backbone's own name for it ("block_14"), or "stem".
        layers: names of its layers and operations, in the order of the graph.
        parameters: number of its weights, BatchNormalization statistics included.
        inputs: symbolic tensors of the model that enter it; two between the cells of NASNet.
        nets: for each of the inputs, to which of several backbones it belongs, from 0.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int
    inputs: tuple[keras.KerasTensor, ...] = field(repr=False, compare=False)
    nets: tuple[int, ...] = field(repr=False, compare=False)


def list_blocks(model: keras.Model, *backbones: Backbone) -> list[Block]:
    """Lists the blocks of a backbone from the top.

    Args:
        model: a flat model that ends in the backbone's features, or a whole model with a
            head (whose layers belong to no block).
        backbones: the row that names the blocks; of several backbones, the rows in their order.

    Returns:
        At least one block; the last one begins at the pixels, and is the stem where
        a stem has weights. Of several backbones a block is the first of each, and so on; the
        last one is all that is left of each, where the one with the fewest ends.
    """
    nodes = backbone_nodes(model)
    if len(backbones) == 1:
        return _blocks_of(model, nodes, backbones[0], 0)
    each = []
    for net, backbone in enumerate(backbones):
        own = [node for node in nodes if node.operation.name.startswith(net_prefix(net))]
        each.append(_blocks_of(model, own, backbone, net, net_prefix(net)))
    count = min(map(len, each))
    shared = [[blocks[i] for blocks in each] for i in range(count - 1)]
    last = [_together(blocks[count - 1 :], blocks[-1]) for blocks in each]
    return [_together(blocks) for blocks in [*shared, last]]


def net_prefix(net: int) -> str:
    """What the names of the layers of the n-th of several backbones begin with."""
    return f"net{net}_"


def _together(blocks: Sequence[Block], lowest: Block | None = None) -> Block:
    """Several blocks as one: side by side, or, with the lowest of them, one upon the other."""
    entered = [lowest] if lowest else blocks
    tensors = {
        id(tensor): (tensor, net)
        for block in entered
        for tensor, net in zip(block.inputs, block.nets, strict=True)
    }
    return Block(
        name=blocks[0].name if lowest else " + ".join(block.name for block in blocks),
        layers=tuple(layer for block in blocks for layer in block.layers),
        parameters=sum(block.parameters for block in blocks),
        inputs=tuple(tensor for tensor, _ in tensors.values()),
        nets=tuple(net for _, net in tensors.values()),
    )


def _blocks_of(
    model: keras.Model, nodes: list, backbone: Backbone, net: int, prefix: str = ""
) -> list[Block]:
    """The blocks of one backbone, from the top.

    Args:
        model: that they are in.
        nodes: of this backbone alone.
        backbone: the row that names the blocks.
        net: which of several it is.
        prefix: of the names of its layers.
    """
    nodes = _in_order_of_blocks(nodes, backbone, prefix)
    keys = [block_key(backbone, node.operation.name.removeprefix(prefix)) for node in nodes]
    alive = _alive_behind(nodes, model.inputs)
    keyed = [i for i, key in enumerate(keys) if key is not None]

    starts: list[tuple[int, str]] = [(0, "stem")]  # where a block begins, and its name
    before_first = _narrowest(alive, range(keyed[0])) if keyed else []  # only the stem is left
    stem = nodes[: before_first[-1] + 1] if before_first else []
    if _parameters(stem):
        starts.append((len(stem), str(keys[keyed[0]])))
    elif keyed:  # VGG, Xception: in front of block1 there is only the preprocessing
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
        owners = (net,) * len(entering)
        found.append(Block(name, layers, _parameters(nodes[start:end]), tuple(entering), owners))
    return found[::-1]


def _parameters(nodes: list) -> int:
    operations = [node.operation for node in nodes]
    return sum(o.count_params() for o in operations if isinstance(o, keras.layers.Layer))


def backbone_nodes(model: keras.Model) -> list:
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


def _in_order_of_blocks(nodes: list, backbone: Backbone, prefix: str) -> list:
    """The same nodes, in the topological order in which a block ends before the next begins.

    Where one tensor is alive, it is the one in any order. Where two are, order matters: a cell
    of NASNet begins with layers that take only what the last cell but one made, and by depth
    some of them come before the end of the last cell. So a node comes with the first block
    that needs it.
    """
    keys = [block_key(backbone, node.operation.name.removeprefix(prefix)) for node in nodes]
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


def cut_top(net: keras.Model, backbone: Backbone, features: str) -> keras.Model:
    """Ends a classifier at an inner fully connected layer.

    Args:
        net: with its top.
        backbone: its row.
        features: one of `compatibility.FULLY_CONNECTED`, which the row has.

    Returns:
        Pixels to what the layer makes, its ReLU included, [B,F].
    """
    layer = backbone.fully_connected[FULLY_CONNECTED.index(features)]
    return keras.Model(net.inputs[0], net.get_layer(layer).output, name=net.name)


def choose(net: keras.Model, backbone: Backbone, features: str, *, leave_out: int) -> keras.Model:
    """Ends a net without a top at its features.

    Args:
        net: pixels to [B,F] if they are pooled at its end already, else to [B,H,W,C].
        backbone: its row.
        features: "pooled" (average over places) or "flat" (all places side by side).
        leave_out: blocks from the top that are left away, fewer than there are. Where two tensors
            enter them (NASNet), the features of both follow each other.

    Returns:
        Pixels to [B,F]; the net itself where it ends so already.
    """
    ends = list(net.outputs)
    if leave_out:
        ends = list(list_blocks(net, backbone)[leave_out - 1].inputs)
    elif len(ends[0].shape) == 2:
        return net
    # Names of their own: automatic ones could be in the net already.
    kind = keras.layers.GlobalAveragePooling2D if features == "pooled" else keras.layers.Flatten
    flat = [kind(name=f"features_{features}_{i}")(tensor) for i, tensor in enumerate(ends)]
    joined = keras.layers.Concatenate(name="features_joined")(flat) if len(flat) > 1 else flat[0]
    return keras.Model(net.inputs[0], joined, name=net.name)
