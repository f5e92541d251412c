"""The net that a phase begins with: pixels to scores.

The first phase begins with a backbone and a new head, a later one with the run's model.keras.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from kerasft.activations.context import RunContext
from kerasft.backbones.compatibility import WEIGHTS, weights_of
from kerasft.backbones.spec import SEPARATOR, side_of
from kerasft.config.fields import Config
from kerasft.config.load import load_config
from kerasft.data.source import Source
from kerasft.data.splits import read_rows
from kerasft.errors import UserError
from kerasft.heads import trained
from kerasft.models import build, bundle
from kerasft.models.net import Net
from kerasft.models.tta import trained_part
from kerasft.run import Run
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
    model = trained.attach(
        base,
        num_classes,
        hidden=config.head.hidden,
        dropout=config.head.dropout,
        seed=derive_seed(config.seed, "head"),
        standardise=SEPARATOR in config.model.backbone,  # else one would drown out the other
    )
    return Net.of(model, config.model.backbone)


def start_net(context: RunContext, index: int) -> Net:
    """Opens the net that a phase begins with, the same one in every process.

    Args:
        context: the run.
        index: position of the phase in the run, from 0.

    Returns:
        The `initial_net` for the first phase, the best model so far for a later one.
    """
    if index == 0:
        return initial_net(context.config, len(context.source.class_names))
    start = context.run.checkpoints / checkpoint.START
    if not start.is_file():
        # A copy, because the end of this phase may replace model.keras before it is recorded.
        bundle.copy(context.run.model_path, start)
    return Net.of(trained_part(bundle.load(start).model), context.config.model.backbone)


def warn_of_photos_that_the_base_knows(config: Config, source: Source) -> None:
    """Warns of photos to be scored that an earlier run has trained the base on.

    A base remembers its training photos, so figures on them flatter. The runs behind the weights
    are followed through their configs; a weights file of any other origin tells nothing.

    Args:
        config: the config of a new run.
        source: the photos with their splits.
    """
    for run in _runs_behind(config.model.weights):
        known = _known_to(run)
        pixels = source.pixels or source.digests
        counts = {
            split: sum(bool(known & {source.digests[i], pixels[i]}) for i in source.indices(split))
            for split in ("validation", "test")
        }
        if not any(counts.values()):
            continue
        log.warning(
            "%s, whose weights are taken, was trained on %s validation and %s test photos of this "
            "run, so their figures flatter. %s",
            run.path,
            f"{counts['validation']:,}",
            f"{counts['test']:,}",
            _how_to_divide(config, run),
        )


def _how_to_divide(config: Config, run: Run) -> str:
    """Says how validation and test get photos that a run was not trained on."""
    try:
        earlier = load_config(run.config_path)
    except UserError:  # moved without its config, or of a later version
        earlier = config
    if earlier.seed == config.seed or (earlier.data.validation, earlier.data.test) != (
        config.data.validation,
        config.data.test,
    ):
        return "Take photos for validation and test that it has not seen."
    return (
        f"If the photos are the same and come without splits of their own, `seed={earlier.seed}` "
        "divides them as that run did."
    )


def _known_to(run: Run) -> set[str]:
    """Returns the digests of a run's training photos, of files and pixels; none if unreadable."""
    try:
        classes = run.classes_path.read_text("utf-8").count("\n")
        rows = read_rows(run.splits_path, classes)
    except (OSError, UserError):
        return set()
    return {digest for row in rows if row[2] == "train" for digest in (row[3], row[5]) if digest}


def _runs_behind(weights: str) -> Iterator[Run]:
    """Yields the runs that weights come from, the nearest first."""
    waiting, seen = [weights], set()
    while waiting:
        for one in weights_of(waiting.pop(0)):
            run = Run(Path(one).parent)
            if one in WEIGHTS or run.path in seen or not run.splits_path.is_file():
                continue
            seen.add(run.path)
            yield run
            try:
                waiting.append(load_config(run.config_path).model.weights)
            except UserError:  # its own base is gone or damaged
                continue
