"""Plans: configs in which every field has a value.

A config may leave fields open (image size, blocks, views, what is stored, engine, precisions).
`training/plan.py` settles them once, before the first number depends on them. From then on the
code reads these objects, whose fields are never None.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kerasft.config.fields import AnyPhase, Config, Data, Phase
from kerasft.errors import UserError
from kerasft.input_rule import InputRule, color_of

# Images that an engine computes at once where nothing else is settled. Runs of earlier versions
# did not write it down.
USUAL_BATCH = 32


@dataclass(frozen=True)
class Storing:
    """The decision whether a phase trains on stored activations, with reason and cost.

    Attributes:
        stored: whether the phase trains on stored activations.
        why: reason, a clause for people.
        passes: number of images that go through the prefix, summed over all epochs.
        bytes: size of the stores; 0 if nothing is stored.
    """

    stored: bool
    why: str
    passes: int
    bytes: int


@dataclass(frozen=True)
class PhasePlan:
    """A phase in which every field has a value.

    Attributes:
        settings: phase of the settled config.
        blocks: number of blocks that are trained below the head, or "all".
        stored: whether the phase trains on stored activations.
        storing: decision about `stored`; None for a phase that an earlier process has planned.
    """

    settings: AnyPhase
    blocks: int | str
    stored: bool
    storing: Storing | None = None

    @property
    def name(self) -> str:
        """Returns the phase's name, unique in its run."""
        return self.settings.name


def rule_of(data: Data, image_size: int) -> InputRule:
    """Returns the rule by which a model with a settled config reads images.

    Args:
        data: section `data` of the config.
        image_size: side of the model's square input, pixels.
    """
    depth = 16 if data.depth == "auto" else data.depth
    return InputRule(image_size, data.resize, color_of(data.background), depth)


@dataclass(frozen=True)
class Plan:
    """A settled config.

    Attributes:
        config: config that the run writes to config.toml.
        image_size: side of the model's square input, pixels.
        views: number of views of each training image; 0 makes a new one in every epoch.
        engine: engine that computes stored activations; "auto" if nothing is stored.
        precision: precision of that computation; "auto" if nothing is stored.
        batch: number of images that the engine computes at once.
        phases: phases in order, including finished ones.
    """

    config: Config
    image_size: int
    views: int
    engine: str
    precision: str
    batch: int
    phases: tuple[PhasePlan, ...]

    @property
    def rule(self) -> InputRule:
        """Returns the rule by which the run's model reads images."""
        return rule_of(self.config.data, self.image_size)

    @classmethod
    def of(cls, config: Config, storing: Sequence[Storing] = ()) -> "Plan":
        """Reads a settled config.

        Args:
            config: config of a run, or one that `training/plan.py` has settled.
            storing: decisions about storing for the last phases, in order.

        Raises:
            UserError: a field is open, because the run's config was edited.
        """
        side, views = config.model.image_size, config.augment.views
        values: dict[str, object] = {"model.image_size": side, "augment.views": views}
        for index, phase in enumerate(config.phases):
            values[f"phases.{index}.blocks"] = phase.blocks
            values[f"phases.{index}.stored"] = phase.stored
            if isinstance(phase, Phase) and phase.precision == "auto":
                values[f"phases.{index}.precision"] = None
        if any(phase.stored for phase in config.phases):
            values["cache.engine"] = None if config.cache.engine == "auto" else config.cache.engine
            precision = config.cache.precision
            values["cache.precision"] = None if precision == "auto" else precision
        missing = [name for name, value in values.items() if value is None]
        if missing or side is None or views is None:
            raise UserError(
                f"The config of this run lacks {', '.join(missing)}, which every run records when "
                "it begins. Restore the config, or train a new run."
            )
        reasons = [None] * (len(config.phases) - len(storing)) + list(storing)
        return cls(
            config=config,
            image_size=side,
            views=views,
            engine=config.cache.engine,
            precision=config.cache.precision,
            batch=config.cache.batch or USUAL_BATCH,
            phases=tuple(
                PhasePlan(phase, phase.blocks, phase.stored, why)
                for phase, why in zip(config.phases, reasons, strict=True)
                if phase.blocks is not None and phase.stored is not None
            ),
        )
