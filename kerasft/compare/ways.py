"""The ways to use a pretrained net, as a table: how each is configured and what it tries.

Each way tries TRIES settings, so that none wins by having been tuned more. A solved head tries its
own (`heads/solver.py`, by cross-validation), a trained one as many learning rates (on validation).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasft.backbones.compatibility import DEPTHS
from kerasft.config.fields import Config
from kerasft.config.load import FULL_RATE, default_phases, load_config, unfreeze_defaults
from kerasft.heads.methods import METHODS

AS_IS = "as-is"
FACTORS = (0.3, 1.0, 3.0)  # multiples of the usual learning rate


@dataclass(frozen=True)
class Way:
    """One way to use a pretrained net.

    Attributes:
        what: description of the way, for people.
        flags: fields of the config that make it this way, by dotted key. Where `start` names
            another way, they are fields of the phase that is appended to its run.
        start: name of the way whose chosen run is continued; None starts a new run.
        trained: whether learning rates are tried; a solved head tries settings of its own.
        default: whether it is compared when no ways are named.
    """

    what: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    trained: bool = False
    default: bool = True


# From the cheapest to the most expensive: among equally good ways the first one is advised.
WAYS: dict[str, Way] = {
    AS_IS: Way("the pretrained net as it is, for classes that ImageNet has"),
    **{
        name: Way(f"{row.label} on the features", {"phases.0.method": name})
        for name, row in METHODS.items()
    },
    "linear": Way("a new softmax, trained on the frozen base", trained=True),
    "fc": Way(
        "a new fully connected layer and softmax, trained on the frozen base",
        {"head.hidden": (256,)},
        trained=True,
    ),
    "depths": Way(
        "a new softmax, trained on the outputs of all blocks of the frozen base",
        {"head.features": DEPTHS},
        trained=True,
        default=False,
    ),
    "unfreeze": Way("linear, then its top blocks unfrozen", start="linear", trained=True),
    "full": Way(
        "linear, then the whole base unfrozen",
        {"phases.-1.blocks": "all"},
        start="linear",
        trained=True,
        default=False,
    ),
    "scratch": Way(
        "the same net trained from random weights",
        {"model.weights": "none"},
        trained=True,
        default=False,
    ),
}


def rates_of(name: str, config: Config) -> tuple[float, ...]:
    """Returns the learning rates that a trained way tries.

    Args:
        name: key of WAYS.
        config: config of the way's run, or of the run that it continues.
    """
    if WAYS[name].start:
        phase = unfreeze_defaults(config)
        # On the weights of the sample unfreezing trains all blocks already, at a rate for that.
        deeper = name == "full" and phase.blocks != "all"
        usual = FULL_RATE if deeper else phase.learning_rate
    else:
        usual = default_phases(config.model.weights)[0].learning_rate
    return tuple(float(f"{usual * factor:.3g}") for factor in FACTORS)


def config_of_way(name: str, flags: Mapping[str, object], sets: tuple[str, ...] = ()) -> Config:
    """Returns the config of a way's run, or of the run that it continues.

    Args:
        name: key of WAYS.
        flags: fields of data, model and so on, by dotted key.
        sets: `KEY=VALUE` each, such as "augment.views=2"; they come after the flags.

    Raises:
        UserError: every problem of the options at once, exit code 2.
    """
    way = WAYS[WAYS[name].start or name]
    return load_config(None, flags={**flags, **way.flags}, sets=sets)
