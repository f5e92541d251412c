"""The net that a phase begins with: pixels to scores.

The first phase begins with a backbone and a new head, a later one with the run's model.keras.
"""

import logging

from kerasft.activations.context import RunContext
from kerasft.backbones.compatibility import DEPTHS
from kerasft.backbones.spec import SEPARATOR, side_of
from kerasft.config.fields import Config
from kerasft.errors import UserError
from kerasft.heads import trained
from kerasft.models import build, bundle
from kerasft.models.bundle import Bundle
from kerasft.models.cut import digest_of, fingerprint
from kerasft.models.net import Net
from kerasft.models.tta import trained_part
from kerasft.seeds import derive_seed
from kerasft.training import checkpoint

log = logging.getLogger("kerasft")


def initial_net(config: Config, num_classes: int) -> Net:
    """Builds the net that a run's first phase begins with: a backbone with a new head.

    Args:
        config: the run's config; without an image size the backbone's own side is taken.
        num_classes: number of classes, K.

    Returns:
        Pixels [B,S,S,3] to scores [B,K].

    Raises:
        UserError: the weights are not available or do not fit.
    """
    base = build.load(
        config.model.backbone,
        weights=config.model.weights,
        image_size=config.model.image_size or side_of(config.model.backbone),
        seed=derive_seed(config.seed, "backbone"),
        features=config.head.features,
        leave_out=config.head.leave_out,
    )
    # Else one net, or one depth, would drown out the others.
    several = SEPARATOR in config.model.backbone or config.head.features == DEPTHS
    model = trained.attach(
        base,
        num_classes,
        hidden=config.head.hidden,
        dropout=config.head.dropout,
        seed=derive_seed(config.seed, "head"),
        standardise=several,
    )
    return Net.of(model, config.model.backbone)


def start_net(context: RunContext, index: int, net: Net | None = None) -> Net:
    """Opens the net that a phase begins with, the same one in every process.

    The weights that a later phase begins with are kept until it is recorded. They are a copy,
    because the end of the phase may replace model.keras before it is recorded.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.
        net: that net, if this process has opened it already.

    Returns:
        The `initial_net` for the first phase, the best model so far for a later one.

    Raises:
        UserError: the copy is damaged, and model.keras is no longer what it is a copy of.
    """
    if index == 0:
        return net or initial_net(context.config, len(context.source.class_names))
    start = context.run.checkpoints / checkpoint.START
    if not start.is_file():
        bundle.copy(context.run.model_path, start)
    if net is None:
        opened = _opened_start(context, index)
        net = Net.of(trained_part(opened.model), context.config.model.backbone)
    return net


def _opened_start(context: RunContext, index: int) -> Bundle:
    """Opens the copy; a damaged one is copied again if model.keras is still the same model."""
    run = context.run
    start = run.checkpoints / checkpoint.START
    try:
        return bundle.load(start)
    except UserError:
        state = checkpoint.load(run.checkpoints, context.config.phases[index].name)
        opened = bundle.load(run.model_path)
        if state and state.start != digest_of(fingerprint(trained_part(opened.model))):
            raise
    log.warning("%s is damaged, so model.keras is copied there again.", start)
    bundle.copy(run.model_path, start)
    return opened
