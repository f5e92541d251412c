"""The net of another run or file, for `--weights`: where its weights are, and what goes with them.

A config names the run's model.keras from then on, a file like any other: the run may be renamed
or trained further, and what was made of it stays a config that says which file it took.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasft.backbones.compatibility import WEIGHTS, backbone_of, weights_of
from kerasft.backbones.spec import SEPARATOR, same_net
from kerasft.config.overrides import read_toml
from kerasft.errors import UserError
from kerasft.run import RECORD, Run, model_file


def nets_brought_by(weights: Sequence[str]) -> dict[str, Any]:
    """Returns the backbone, and if they say it the image_size, that go with weights.

    Args:
        weights: one or several: runs, whose config says it, or files, which say it if an import
            has written them.

    Returns:
        An empty dict where one of them does not say it.

    Raises:
        UserError: a folder that is not a run, or whose config is damaged or gone.
    """
    if len(weights) == 1 and Path(weights[0]).is_dir():
        return net_of(weights[0])
    backbones = [backbone_of(one) for one in weights]
    if None in backbones:
        return {}
    return {"backbone": SEPARATOR.join(map(str, backbones))}


def weights_for(weights: str, backbone: str) -> str:
    """Returns those of several weights that belong to a backbone, or to several.

    As many weights as backbones go by their order, as `train` takes them. Of others each takes the
    file that an import wrote for it, else the one word among them: "alexnet.h5+imagenet" is
    "alexnet.h5" for AlexNet, and "imagenet" for VGG16.

    Args:
        weights: one, which stays as it is, or several joined.
        backbone: one or several joined.

    Raises:
        UserError: a file that does not say its backbone, or two words (exit code 2): which
            backbone would take them?
    """
    parts, nets = weights_of(weights), backbone.split(SEPARATOR)
    if len(parts) in (1, len(nets)):
        return weights
    words = [part for part in parts if part in WEIGHTS]
    files = {part: backbone_of(part) for part in parts if part not in words}
    unknown = [part for part, spec in files.items() if spec is None] + words[1:]
    if unknown:
        raise UserError(
            f"--weights: {unknown[0]} does not say which backbone it is for. Expected files of "
            "import-caffe or import-torch, and one word for all other backbones.",
            exit_code=2,
        )
    chosen = []
    for net in nets:
        own = [part for part, spec in files.items() if same_net(str(spec), net)] + words
        if not own:
            return weights  # the config says what is wrong with it
        chosen.append(own[0])
    return chosen[0] if len(set(chosen)) == 1 and chosen[0] in WEIGHTS else SEPARATOR.join(chosen)


def net_of(folder: str | Path) -> dict[str, Any]:
    """Returns backbone and image_size of a run, as its config has them.

    Raises:
        UserError: not a run, or its config is damaged or gone.
    """
    run = Run(Path(folder))
    if not run.record_path.is_file():
        raise UserError(
            f"{folder} is not a run: no {RECORD} in it. Name a run directory, or a file that ends "
            "in .h5 or .keras."
        )
    model = read_toml(run.config_path).get("model")
    if not isinstance(model, dict) or not isinstance(model.get("backbone"), str):
        raise UserError(f"{run.config_path} is damaged: no model.backbone in it.")
    return {key: model[key] for key in ("backbone", "image_size") if key in model}


def file_for(folder: str | Path, backbone: str | None) -> str:
    """Returns the file of a run whose weights fill a backbone.

    Args:
        folder: of the run.
        backbone: what is to be filled; None: not known, nothing is compared.

    Raises:
        UserError: not a run, no model in it yet, or another net.
    """
    trained = net_of(folder)["backbone"]
    if backbone is not None and not same_net(trained, backbone):
        raise UserError(
            f"the run {folder} has trained {trained}, got backbone '{backbone}'. Leave the "
            f"backbone out, pass --backbone {trained}, or take other weights."
        )
    return str(model_file(Run(Path(folder))))
