"""The net of another run, for `--weights RUN`: where its weights are, and what goes with them.

A config names the run's model.keras from then on, a file like any other: the run may be renamed
or trained further, and what was made of it stays a config that says which file it took.
"""

from pathlib import Path
from typing import Any

from kerasft.backbones import same_net
from kerasft.errors import UserError
from kerasft.run import RECORD, Run, model_file
from kerasft.settings import read_toml


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
