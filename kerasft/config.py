"""Config: every setting of a run, typed and frozen; from TOML and options, and back to TOML.

A field exists once, here, with default, unit and range; `--set section.field=value` reaches
each of them. `problems.py` turns what pydantic finds into sentences.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kerasft.backbones import parse
from kerasft.errors import UserError, did_you_mean
from kerasft.problems import Place, Problem, from_pydantic, repeated_names, report
from kerasft.settings import Override, make_absolute, parse_options, put_over, read_toml


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """Which images, and how they are divided."""

    source: Path = Field(description="Folder with a folder of images per class.")
    validation: StrictFloat = Field(
        default=0.15, gt=0, le=0.5, description="Share of the images that chooses epoch and phase."
    )
    test: StrictFloat = Field(
        default=0.15,
        ge=0,
        le=0.5,
        description="Share of the images that only the last figure sees.",
    )
    bad_images: Literal["fail", "skip"] = Field(
        default="fail", description="What a file that is no image does; skipped ones are recorded."
    )
    resize: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="How an image becomes square: all of it, its centre, with borders.",
    )

    @field_validator("source", mode="before")
    @classmethod
    def _is_not_empty(cls, source: object) -> object:
        if source == "":
            raise ValueError("expected a folder, got ''.")
        return source


class Model(Section):
    """What the training starts from."""

    backbone: StrictStr = Field(
        default="MobileNetV2", min_length=1, description='Name, or "MobileNet:alpha=0.75".'
    )
    weights: StrictStr = Field(
        default="imagenet", description='"imagenet", "none" or a weights file.'
    )
    image_size: StrictInt | None = Field(
        default=None, gt=0, description="Side in pixels; not given: the backbone's."
    )

    @field_validator("backbone")
    @classmethod
    def _is_in_the_table(cls, backbone: str) -> str:
        try:
            parse(backbone)
        except UserError as error:
            raise ValueError(str(error).partition(": ")[2]) from None  # the place is named already
        return backbone

    @field_validator("weights")
    @classmethod
    def _is_a_choice_or_a_file(cls, weights: str) -> str:
        if weights in _NO_FILE or weights.lower().endswith((".h5", ".keras")):
            return weights
        name = Path(weights).name  # a path by now
        raise ValueError(
            f"expected 'imagenet', 'none' or a file that ends in .h5 or .keras, got {name!r}."
            + did_you_mean(name, _NO_FILE)
        )


_NO_FILE = ("imagenet", "none")


class Head(Section):
    """What is put on top of the backbone."""

    hidden: tuple[StrictInt, ...] = Field(
        default=(),
        description="Units of each fully connected layer before the last one, 1 or more.",
    )
    dropout: StrictFloat = Field(default=0.2, ge=0, lt=1, description="Share of features left out.")

    @field_validator("hidden")
    @classmethod
    def _are_positive(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
        if any(units < 1 for units in hidden):
            raise ValueError(f"expected numbers greater than 0, got {list(hidden)}.")
        return hidden


class Augment(Section):
    """What training images go through; validation and test images never do."""

    flip: StrictBool = Field(default=True, description="Mirrors left and right, half of the time.")
    crop: StrictFloat = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Smallest share of the area that a crop keeps; 0 is off.",
    )
    color: StrictFloat = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Strength of changes of brightness and colour; 0 is off.",
    )


class Phase(Section):
    """One stretch of training: where to cut, and how to train what is above the cut."""

    name: StrictStr = Field(description="Of letters, digits, '-' and '_'; each phase its own.")
    blocks: StrictInt | Literal["all"] | None = Field(
        default=None,
        description='Blocks trained below the head, from the top; "all". Not given: none in '
        'the first phase ("all" without weights), then the backbone\'s default.',
    )
    epochs: StrictInt = Field(gt=0, description="Epochs at most, see patience.")
    learning_rate: StrictFloat = Field(gt=0, description="Step size, the largest of the schedule.")
    batch_size: StrictInt = Field(default=32, gt=0, description="Images per step.")
    batch_norm: Literal["frozen", "train"] = Field(
        default="frozen", description="Whether BatchNormalization in the trained blocks learns."
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="Update rule.")
    weight_decay: StrictFloat = Field(default=0.004, ge=0, description="Per step; of adamw.")
    momentum: StrictFloat = Field(default=0.9, ge=0, lt=1, description="Of sgd.")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="Of the learning rate, after the warm-up; cosine ends at 0."
    )
    warmup: StrictFloat = Field(
        default=0.0, ge=0, description="Epochs in which the rate rises from 0."
    )
    head_learning_rate_multiplier: StrictFloat = Field(
        default=1.0, gt=0, description="Learning rate of the head, as a multiple of learning_rate."
    )
    layer_decay: StrictFloat = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Factor on the learning rate for each block from the top.",
    )
    patience: StrictInt = Field(
        default=5,
        ge=0,
        description="Epochs without a lower validation loss until it stops; 0: never.",
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none", description="Whether rare classes count more in the loss."
    )
    label_smoothing: StrictFloat = Field(
        default=0.0, ge=0, lt=1, description="Share of the target that is spread over all classes."
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32", description="Of the arithmetic in training; weights stay float32."
    )

    @field_validator("name")
    @classmethod
    def _is_a_plain_word(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"expected letters, digits, '-' and '_', got {name!r}.")
        return name

    @field_validator("blocks", mode="before")
    @classmethod
    def _is_a_number_of_blocks(cls, blocks: object) -> object:
        if blocks in ("all", None) or (type(blocks) is int and blocks >= 0):
            return blocks
        raise ValueError(f"expected int, at least 0, or 'all', got {blocks!r}.")

    # These run for fields that are written out, so one that means nothing beside another is
    # refused wherever it is written and `to_toml` leaves it out.
    @field_validator("weight_decay", "momentum")
    @classmethod
    def _belongs_to_the_optimizer(cls, value: float, info: ValidationInfo) -> float:
        owner = _OWNERS[str(info.field_name)]
        if info.data.get("optimizer", owner) != owner:
            raise ValueError(
                f"means nothing with optimizer = '{info.data['optimizer']}', only with '{owner}'."
            )
        return value

    @field_validator("batch_norm", "layer_decay")
    @classmethod
    def _needs_blocks(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("blocks") == 0 and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError("means nothing with blocks = 0, where only the head is trained.")
        return value

    @field_validator("warmup")
    @classmethod
    def _fits_in_the_phase(cls, warmup: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs", warmup)
        if warmup > epochs:
            raise ValueError(f"expected at most {epochs}, the epochs of the phase, got {warmup:g}.")
        return warmup


_OWNERS = {"weight_decay": "adamw", "momentum": "sgd"}


class Config(Section):
    """All settings of a run. `load_config` makes it; from Python it can be made directly."""

    seed: StrictInt = Field(
        default=0, ge=0, description="Of split, new weights, order, augmentation."
    )
    device: StrictStr = Field(default="auto", description='"auto", "cpu", or "gpu:0" and so on.')
    data: Data
    model: Model = Model()
    head: Head = Head()
    augment: Augment = Augment()
    phases: tuple[Phase, ...] = Field(description="Trained one after the other.")

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|gpu:\d+", device):
            raise ValueError(f"expected 'auto', 'cpu' or 'gpu:N', got {device!r}.")
        return device

    @field_validator("phases")
    @classmethod
    def _is_not_empty(cls, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        if not phases:
            raise ValueError("expected at least one phase, got none.")
        return phases

    @model_validator(mode="after")
    def _phases_have_their_own_names(self) -> "Config":
        repeated = repeated_names(self.phases)
        if repeated:
            raise ValueError(" ".join(map(str, repeated)))
        return self


def default_phases(weights: str) -> tuple[Phase, ...]:
    """The phases of a config that lists none.

    Args:
        weights: of the config's model. "none" trains all blocks, since there is nothing to
            keep; anything else trains a new head.
    """
    if weights == "none":
        scratch = Phase(
            name="scratch",
            blocks="all",
            batch_norm="train",
            epochs=30,
            learning_rate=1e-3,
            patience=0,  # the norms' moving averages lag: validation is at chance for many epochs
        )
        return (scratch,)
    return (Phase(name="head", blocks=0, epochs=20, learning_rate=1e-3),)


def unfreeze_defaults(config: Config) -> Phase:
    """What `unfreeze-and-continue` appends: the backbone's default blocks at a low rate.

    It is called "unfreeze", or "unfreeze-2", ... where that is taken.
    """
    taken = {phase.name for phase in config.phases}
    name, number = "unfreeze", 1
    while name in taken:
        number += 1
        name = f"unfreeze-{number}"
    return Phase(name=name, epochs=10, learning_rate=5e-5)


def load_config(
    path: Path | None, *, flags: Mapping[str, object] | None = None, sets: Sequence[str] = ()
) -> Config:
    """Reads a config file, puts options over it and checks everything.

    Args:
        path: a TOML file; None: defaults and options only.
        flags: values by dotted key, as `{"data.source": "photos", "phases.0.epochs": 5}`.
            Without phases in the file, `phases.0` is the default phase.
        sets: `KEY=VALUE` each, over file and flags; the value is TOML, or else text.

    Returns:
        The config with absolute paths: those in the file are relative to its folder, those in
        options to the working directory.

    Raises:
        UserError: every problem of file and options at once, exit code 2.
    """
    raw = read_toml(path) if path else {}
    make_absolute(raw, path.parent if path else Path(), words=_NO_FILE)
    given, problems = parse_options(flags or {}, sets)
    # Which phases there are by default depends on the weights, so options for phases come last.
    of_phases = [override for override in given if override.place[0] == "phases"]
    options, wrong = put_over(raw, [one for one in given if one not in of_phases])
    _add_default_phases(raw, of_phases)
    options_of_phases, wrong_of_phases = put_over(raw, of_phases)
    _add_default_phases(raw, of_phases)
    raw.setdefault("data", {})
    make_absolute(raw, Path(), words=_NO_FILE)
    problems += wrong + wrong_of_phases
    return _validated(raw, options | options_of_phases, problems, path)


def _add_default_phases(raw: dict[str, Any], options: Sequence[Override]) -> None:
    """Adds the phases where there are none, and to the first one how deep it goes."""
    model = raw.get("model")
    weights = model.get("weights", "") if isinstance(model, dict) else ""
    if any(one.place == ("phases", 0, "blocks") and one.value == 0 for one in options):
        weights = ""  # a head on a random base was asked for, not training from scratch
    defaults = default_phases(weights)
    phases = raw.setdefault("phases", [phase.model_dump(exclude_unset=True) for phase in defaults])
    if isinstance(phases, list) and phases and isinstance(phases[0], dict):
        phases[0].setdefault("blocks", defaults[0].blocks)


def _validated(
    raw: dict[str, Any], options: Mapping[Place, str], problems: list[Problem], path: Path | None
) -> Config:
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        found = from_pydantic(error, Config, options=options)
        phases = raw["phases"] if isinstance(raw["phases"], list | tuple) else ()
        named = [
            Problem(one.place, one.text, options.get(one.place, ""))
            for one in repeated_names(phases)
        ]
        problems = sorted([*found, *named, *problems], key=lambda problem: bool(problem.option))
    if problems:
        raise UserError(report(problems, path), exit_code=2)
    return config


def append_phase(
    config: Config, *, flags: Mapping[str, object] | None = None, sets: Sequence[str] = ()
) -> Config:
    """Returns the config with one more phase: `unfreeze_defaults`, options put over it.

    Args:
        config: of a run.
        flags, sets: as in `load_config`. They reach the new phase, as `phases.-1` or by its
            number, and nothing else.

    Raises:
        UserError: every problem of the options at once, exit code 2.
    """
    new = len(config.phases)
    added = unfreeze_defaults(config).model_dump(exclude_unset=True)
    raw = {**dict(config), "phases": [*config.phases, added]}
    given, problems = parse_options(flags or {}, sets)
    reaching = [one for one in given if one.place[:2] in (("phases", -1), ("phases", new))]
    fixed = f"the run's config is fixed; only the new phase can be set, phases.{new}."
    problems += [Problem(one.place, fixed, one.option) for one in given if one not in reaching]
    options, wrong = put_over(raw, reaching)
    return _validated(raw, options, problems + wrong, None)


def to_toml(config: Config, folder: Path) -> str:
    """Writes every setting as TOML, which `load_config` reads back as an equal config.

    Args:
        config: to write.
        folder: where the file will be; paths are relative to it where they can be.
    """
    tree = config.model_dump(exclude_none=True)
    tree["data"]["source"] = _relative(config.data.source, folder)
    if config.model.weights not in _NO_FILE:
        tree["model"]["weights"] = _relative(Path(config.model.weights), folder)
    for phase in tree["phases"]:
        for field, owner in _OWNERS.items():
            if phase["optimizer"] != owner:
                del phase[field]
    return tomli_w.dumps(tree)


def _relative(path: Path, folder: Path) -> str:
    absolute = os.path.abspath(path)
    try:
        return Path(os.path.relpath(absolute, os.path.realpath(folder))).as_posix()
    except ValueError:  # on another drive of Windows
        return Path(absolute).as_posix()
