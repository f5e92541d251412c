"""The blocks of a backbone: neighbouring layers that are frozen or trained together.

The backbone's row in the table names the blocks. The graph decides where a cut between them is
possible: where the fewest tensors are alive (computed already and still needed), at most two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import keras

from kerasft.backbones.compatibility import DEPTHS, FULLY_CONNECTED
from kerasft.backbones.table import Backbone, block_key
from kerasft.heads.trained import features_of

MOST_TENSORS = 2  # largest number of tensors at a cut through one backbone


@dataclass(frozen=True)
class Block:
    """Some neighbouring layers of a backbone that are frozen or trained together.

    Attributes:
        name: name of the block in the backbone ("block_14"), or "stem".
        layers: names of the block's layers and operations, in the order of the graph.
        parameters: number of the block's parameters, BatchNormalization statistics included.
        inputs: symbolic tensors of the model that enter the block; two between NASNet's cells.
        nets: position of the backbone, from 0, that each of the inputs belongs to.
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
        backbones: the backbone's row of the table; for several backbones, their rows in order.

    Returns:
        At least one block. The last one begins at the pixels; it is the stem if the stem has
        weights. With several backbones, the first block joins the first block of each, and so on;
        the last one takes all remaining blocks, where the backbone with the fewest ends. A model
        with features of all depths is a single block: its head reads every tensor at which it
        could be cut.
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
    """Returns the prefix of the layers' names of one of several backbones; `net` is from 0."""
    return f"net{net}_"


def _together(blocks: Sequence[Block], lowest: Block | None = None) -> Block:
    """Joins several blocks into one.

    Args:
        blocks: blocks of several backbones, side by side; or neighbouring blocks of one backbone.
        lowest: the lowest of the neighbouring blocks; None if they are side by side.
    """
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
    """Lists the blocks of one backbone, from the top.

    Args:
        model: the model that contains the backbone.
        nodes: the graph's nodes of this backbone.
        backbone: the backbone's row of the table.
        net: position of the backbone among several, from 0.
        prefix: prefix of its layers' names (`net_prefix`).
    """
    nodes = _in_order_of_blocks(nodes, backbone, prefix)
    keys = [block_key(backbone, node.operation.name.removeprefix(prefix)) for node in nodes]
    alive = _alive_behind(nodes, model.inputs)
    keyed = [i for i, key in enumerate(keys) if key is not None]

    if any(_averages_a_depth(node.operation, prefix) for node in nodes):
        names = tuple(node.operation.name for node in nodes)
        return [Block(DEPTHS, names, _parameters(nodes), (model.inputs[0],), (net,))]

    starts: list[tuple[int, str]] = [(0, "stem")]  # position of each block's first node, and name
    before_first = _narrowest(alive, range(keyed[0])) if keyed else []  # else only a stem is left
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


def _averages_a_depth(operation: keras.Operation, prefix: str) -> bool:
    return operation.name.removeprefix(prefix).startswith(f"features_{DEPTHS}_")


def _parameters(nodes: list) -> int:
    operations = [node.operation for node in nodes]
    return sum(o.count_params() for o in operations if isinstance(o, keras.layers.Layer))


def backbone_nodes(model: keras.Model) -> list:
    """Returns the graph's nodes in topological order, without the inputs and without the head.

    `_nodes_by_depth` is private to Keras, but only there does a model distinguish its own nodes
    from those of other models that share its layers (every suffix adds some).
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
    """Sorts the nodes into a topological order in which each block ends before the next begins.

    A place where a single tensor is alive is found in any order. Where two are alive, the order
    matters: a cell of NASNet begins with layers that need only the output of the cell before the
    previous one, and by depth some of them come before the end of the previous cell. So each node
    is put into the first block that needs it.
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
    """Returns the tensors that are alive behind each node: computed, and still needed."""
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
    """Returns the positions behind which the fewest tensors are alive, at most MOST_TENSORS."""
    fewest = min((len(alive[i]) for i in positions), default=0)
    return [i for i in positions if len(alive[i]) == fewest <= MOST_TENSORS]


def cut_top(net: keras.Model, backbone: Backbone, features: str) -> keras.Model:
    """Ends a classifier at an inner fully connected layer.

    Args:
        net: the classifier, with its top.
        backbone: the backbone's row of the table.
        features: the layer, one of `compatibility.FULLY_CONNECTED`, which the row must have.

    Returns:
        Pixels to the layer's output, its ReLU included, [B,F].
    """
    layer = backbone.fully_connected[FULLY_CONNECTED.index(features)]
    return keras.Model(net.inputs[0], net.get_layer(layer).output, name=net.name)


def choose(net: keras.Model, backbone: Backbone, features: str, *, leave_out: int) -> keras.Model:
    """Ends a net without a top at its features.

    Args:
        net: pixels to [B,F] if the net pools its features already, else to [B,H,W,C].
        backbone: the backbone's row of the table.
        features: kind of features, "pooled" (average over height and width), "flat" (flattened),
            or DEPTHS (the averages of the outputs of all blocks, the lowest block first).
        leave_out: number of blocks that are left out from the top, fewer than there are. If two
            tensors enter them (NASNet), the features of both are concatenated.

    Returns:
        Pixels to [B,F]; the net itself if it ends there already.
    """
    ends = list(net.outputs)
    if features == DEPTHS:
        ends = _outputs_of_blocks(net, backbone, leave_out=leave_out)
    elif leave_out:
        ends = list(list_blocks(net, backbone)[leave_out - 1].inputs)
    elif len(ends[0].shape) == 2:
        return net
    # Names of their own: automatic ones could be in the net already.
    kind = keras.layers.Flatten if features == "flat" else keras.layers.GlobalAveragePooling2D
    flat = [
        tensor if len(tensor.shape) == 2 else kind(name=f"features_{features}_{i}")(tensor)
        for i, tensor in enumerate(ends)
    ]
    joined = keras.layers.Concatenate(name="features_joined")(flat) if len(flat) > 1 else flat[0]
    return keras.Model(net.inputs[0], joined, name=net.name)


def _outputs_of_blocks(
    net: keras.Model, backbone: Backbone, *, leave_out: int
) -> list[keras.KerasTensor]:
    """Returns what leaves each block of a net without a top, the lowest block first.

    That of the top block is the output of the net, [B,F] or [B,H,W,C]; those of the others are
    [B,H,W,C]. Of two tensors between cells (NASNet), each is there once.
    """
    blocks = list_blocks(net, backbone)
    left = reversed(blocks[max(0, leave_out - 1) : -1])  # what leaves a block enters the next one
    outputs = [tensor for block in left for tensor in block.inputs]
    outputs += [] if leave_out else net.outputs
    return list({id(tensor): tensor for tensor in outputs}.values())
