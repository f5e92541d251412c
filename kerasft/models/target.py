"""The model that a user names: a run, a model file, or a pretrained net with its classifier."""

import logging
import os
from pathlib import Path

from kerasft import run
from kerasft.backbones.compatibility import backbone_of
from kerasft.config.load import load_config
from kerasft.devices import is_here, prepare
from kerasft.input_rule import InputRule
from kerasft.models import build
from kerasft.models.bundle import IMAGENET, Bundle, load
from kerasft.record import Device
from kerasft.run import Run

log = logging.getLogger("kerasft")


def open_model(target: str | Path) -> Bundle:
    """Opens the model that a user names.

    Args:
        target: run directory (its model.keras is opened), or model file; for a pretrained net
            with its 1000 ImageNet classes, "imagenet:NAME" or a file that `import-caffe` or
            `import-torch` wrote.

    Raises:
        UserError: no such path (exit code 2); a directory that is not a run; a run without a
            model; see also `bundle.load` and `build.pretrained`.
    """
    path = Path(target)
    published = str(target).startswith(IMAGENET)
    spec = str(target).removeprefix(IMAGENET) if published else backbone_of(path)
    if spec is not None:
        model, labels = build.pretrained(spec, None if published else path)
        return Bundle(model, tuple(labels), InputRule(model.input_shape[1]))
    if os.path.isfile(path):
        return load(path)
    return load(run.model_file(run.open_run(path)))


def prepare_for(target: str | Path) -> Device:
    """Prepares the device for an existing model, see `devices.prepare`.

    Args:
        target: model as in `open_model`. The device of a run is used again, so that its figures
            are reproduced; if this machine does not have it, the best available device is used.
    """
    config = Run(Path(target)).config_path
    device = load_config(config).device if os.path.isfile(config) else "auto"
    if not is_here(device):
        log.info(
            "%s: was trained on %s, which this machine does not have; another device is used.",
            target,
            device,
        )
        device = "auto"
    return prepare(device)
