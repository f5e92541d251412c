"""The model that a user names: a run, a model file, or a pretrained net as it is."""

import logging
from pathlib import Path

from kerasft import run
from kerasft.backbones.compatibility import backbone_of
from kerasft.config.load import load_config
from kerasft.devices import is_here, prepare
from kerasft.models import build
from kerasft.models.bundle import IMAGENET, Bundle, load
from kerasft.run import Run

log = logging.getLogger("kerasft")


def open_model(target: str | Path) -> Bundle:
    """Opens whatever the user names as a model.

    Args:
        target: a run directory (its model.keras), a model file; or "imagenet:NAME", or a file of
            `kerasft import-caffe` and `import-torch`, for a pretrained net as it is, with its 1000
            classes.

    Raises:
        UserError: no such path (exit code 2); a directory that is no run; a run without a
            model yet; see also `load` and `build.pretrained`.
    """
    path = Path(target)
    published = str(target).startswith(IMAGENET)
    spec = str(target).removeprefix(IMAGENET) if published else backbone_of(path)
    if spec is not None:
        model, labels = build.pretrained(spec, None if published else path)
        return Bundle(model, tuple(labels), model.input_shape[1], "stretch")
    if path.is_file():
        return load(path)
    return load(run.model_file(run.open_run(path)))


def prepare_for(target: str | Path) -> dict[str, object]:
    """As `prepare`, for a model that is there already.

    Args:
        target: if it is a run, its device is taken, so that its figures come out again; but the
            machine need not have the GPU that it was trained on.
    """
    config = Run(Path(target)).config_path
    device = load_config(config).device if config.is_file() else "auto"
    if not is_here(device):
        log.info("%s: computed on %s, which is not here.", target, device)
        device = "auto"
    return prepare(device)
