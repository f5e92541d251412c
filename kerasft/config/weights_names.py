"""The net of another run or file, for `model.weights`: where it is, and what goes with it.

A run is replaced by the path of its model.keras, which the config names from then on like any
other file.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasft.backbones.compatibility import WEIGHTS, backbone_of, weights_of
from kerasft.backbones.spec import SEPARATOR, same_net
from kerasft.config.overrides import read_toml
from kerasft.errors import UserError
from kerasft.run import RECORD, Run, model_file


@dataclass(frozen=True)
class Net:
    """A net that weights belong to.

    Attributes:
        backbone: its backbone, perhaps several joined by "+".
        image_size: side of its input, pixels, as the config of a run has it; None elsewhere.
    """

    backbone: str
    image_size: Any = None


def nets_brought_by(weights: Sequence[str]) -> Net | None:
    """Finds the backbone, and possibly the image size, that belong to weights.

    Args:
        weights: runs or files, one or several. A run has them in its config; a file states its
            backbone if `import-caffe` or `import-torch` wrote it.

    Returns:
        The net, or None if a file states no backbone.

    Raises:
        UserError: a folder that is not a run, or whose config is damaged or missing.
    """
    if len(weights) == 1 and os.path.isdir(weights[0]):
        return net_of(weights[0])
    backbones = [backbone_of(one) for one in weights]
    if None in backbones:
        return None
    return Net(SEPARATOR.join(map(str, backbones)))


def weights_for(weights: str, backbone: str) -> str:
    """Selects those of several weights that belong to a backbone, or to several backbones.

    If there are as many weights as backbones, they belong together in order, as for `train`.
    If not, each backbone takes the file that was imported for it, or the one word among the
    weights: from "alexnet.h5+imagenet", AlexNet takes "alexnet.h5" and VGG16 takes "imagenet".

    Args:
        weights: one name, which is returned unchanged, or several joined by "+".
        backbone: one name, or several joined by "+".

    Raises:
        UserError: ambiguous, because a file does not state its backbone, or there are two words.
            Exit code 2.
    """
    parts, nets = weights_of(weights), backbone.split(SEPARATOR)
    if len(parts) in (1, len(nets)):
        return weights
    words = [part for part in parts if part in WEIGHTS]
    files = {part: backbone_of(part) for part in parts if part not in words}
    unknown = [part for part, spec in files.items() if spec is None] + words[1:]
    if unknown:
        raise UserError(
            f"{unknown[0]} does not say which backbone it is for. Expected files of "
            "import-caffe or import-torch, and one word for all other backbones.",
            field="weights",
            exit_code=2,
        )
    chosen = []
    for net in nets:
        own = [part for part, spec in files.items() if same_net(str(spec), net)] + words
        if not own:
            return weights  # validating the config reports the problem
        chosen.append(own[0])
    return chosen[0] if len(set(chosen)) == 1 and chosen[0] in WEIGHTS else SEPARATOR.join(chosen)


def net_of(folder: str | Path) -> Net:
    """Reads backbone and image size from the config of a run.

    Raises:
        UserError: not a run, or its config is damaged or missing.
    """
    run = Run(Path(folder))
    if not os.path.isfile(run.record_path):
        raise UserError(
            f"{folder} is not a run: no {RECORD} in it. Name a run directory, or a file that ends "
            "in .h5 or .keras."
        )
    model = read_toml(run.config_path).get("model")
    if not isinstance(model, dict) or not isinstance(model.get("backbone"), str):
        raise UserError(f"{run.config_path} is damaged: no model.backbone in it.")
    return Net(model["backbone"], model.get("image_size"))


def file_for(folder: str | Path, backbone: str | None) -> str:
    """Returns the model.keras of a run, whose weights a backbone is to take.

    Args:
        folder: folder of the run.
        backbone: backbone that is to take the weights; None if it is unknown and need not match.

    Raises:
        UserError: not a run, a run without a model, or one with another backbone.
    """
    trained = net_of(folder).backbone
    if backbone is not None and not same_net(trained, backbone):
        raise UserError(
            f"the run {folder} has trained {trained}, got backbone '{backbone}'. Leave the "
            f"backbone out, pass `model.backbone={trained}`, or choose other weights."
        )
    return str(model_file(Run(Path(folder))))
