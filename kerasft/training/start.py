"""The model that a phase begins with: pixels to scores.

first phase -> backbone with a new head; later phase -> the run's model.keras
"""

import keras

from kerasft.activations.context import RunContext
from kerasft.backbones.spec import SEPARATOR
from kerasft.config.fields import Config
from kerasft.heads import trained
from kerasft.models import build, bundle
from kerasft.models.tta import trained_part
from kerasft.seeds import derive_seed
from kerasft.training import checkpoint


def initial_model(config: Config, num_classes: int) -> keras.Model:
    """Builds the model that a run's first phase begins with: pixels to scores [B,K]."""
    assert config.model.image_size is not None  # settled by resolve.py
    base = build.load(
        config.model.backbone,
        weights=config.model.weights,
        image_size=config.model.image_size,
        seed=derive_seed(config.seed, "backbone"),
        features=config.head.features,
        leave_out=config.head.leave_out,
    )
    return trained.attach(
        base,
        num_classes,
        hidden=config.head.hidden,
        dropout=config.head.dropout,
        seed=derive_seed(config.seed, "head"),
        standardise=SEPARATOR in config.model.backbone,  # or one of them would drown the other
    )


def start_model(context: RunContext, index: int) -> keras.Model:
    """The best model so far, from its file, so that a phase begins alike in every process."""
    if index == 0:
        return initial_model(context.config, len(context.source.class_names))
    start = context.run.checkpoints / checkpoint.START
    if not start.is_file():
        # A copy, because the end of this phase may replace model.keras before it is recorded.
        bundle.copy(context.run.model_path, start)
    return trained_part(bundle.load(start).model)
