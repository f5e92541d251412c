"""The fields of a phase, once: of one that trains, and of one whose head is solved."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationInfo,
    field_validator,
)


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Named(Section):
    """What all phases share: a name that can be a part of a file's."""

    name: StrictStr = Field(description="Of letters, digits, '-' and '_'; each phase its own.")

    @field_validator("name")
    @classmethod
    def _is_a_plain_word(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"expected letters, digits, '-' and '_', got {name!r}.")
        return name


class Phase(Named):
    """One stretch of training: where to cut, and how to train what is above the cut."""

    blocks: StrictInt | Literal["all"] | None = Field(
        default=None,
        description='Blocks trained below the head, from the top; "all". Not given: none in '
        'the first phase ("all" without weights), then the backbone\'s default.',
    )
    epochs: StrictInt = Field(gt=0, description="Epochs at most, see patience.")
    learning_rate: StrictFloat = Field(gt=0, description="Step size, the largest of the schedule.")
    batch_size: StrictInt = Field(default=32, gt=0, description="Images at a time.")
    accumulate: StrictInt = Field(
        default=1,
        gt=0,
        description="Batches whose gradients make one step; like batches that many times as "
        "large, in the memory of one. Schedules go on with every batch.",
    )
    ema: StrictFloat = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="What a running mean of the weights keeps of itself at each step, such as "
        "0.99; that mean is then validated and kept. 0 is off.",
    )
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
    stored: StrictBool | None = Field(
        default=None,
        description="Whether the activations at the cut are stored. Not given: as cache.mode says.",
    )

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
        owner = OWNERS[str(info.field_name)]
        if info.data.get("optimizer", owner) != owner:
            raise ValueError(
                f"means nothing with optimizer = '{info.data['optimizer']}', only with '{owner}'."
            )
        return value

    @field_validator("stored")
    @classmethod
    def _something_is_frozen(cls, stored: bool | None, info: ValidationInfo) -> bool | None:
        if stored and info.data.get("blocks") == "all":
            raise ValueError("expected false with blocks = 'all', where nothing is frozen.")
        return stored

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


OWNERS = {"weight_decay": "adamw", "momentum": "sgd"}


Method = Literal["svm", "rbf-svm", "bayes", "lda", "logistic", "knn"]
METHODS: tuple[str, ...] = get_args(Method)
LINEAR: tuple[str, ...] = ("svm", "lda", "logistic")  # a Dense layer, which can be trained further


class Solved(Named):
    """A phase whose head is solved by scikit-learn on the frozen features, not trained."""

    method: Method = Field(
        description="Linear or RBF support vector machine, Gaussian naive Bayes, linear "
        "discriminant analysis, logistic regression, nearest neighbours."
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none", description="Whether rare classes count more."
    )
    stored: StrictBool | None = Field(
        default=None,
        description="Whether the features are stored. Not given: as cache.mode says.",
    )

    @property
    def blocks(self) -> int:
        """Blocks that are trained below the head: none."""
        return 0

    @field_validator("class_weight")
    @classmethod
    def _has_weights(cls, class_weight: str, info: ValidationInfo) -> str:
        if class_weight != "none" and info.data.get("method") == "knn":
            raise ValueError("means nothing with method = 'knn': its neighbours count alike.")
        return class_weight


def _kind_of_phase(phase: Any) -> str:
    """Which of the two a phase is: what has a method is solved."""
    solved = "method" in phase if isinstance(phase, dict) else isinstance(phase, Solved)
    return "solved" if solved else "trained"


AnyPhase = Annotated[
    Annotated[Phase, Tag("trained")] | Annotated[Solved, Tag("solved")],
    Discriminator(_kind_of_phase),
]
