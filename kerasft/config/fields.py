"""Every field of a config, once: typed, frozen, with default, unit and range.

`section.field=value` among the `sets` of `load_config` reaches each of them; `load.py` reads and
writes them.
"""

import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    model_validator,
)

from kerasft.backbones.compatibility import (
    DEPTHS,
    FILES,
    WEIGHTS,
    check_features,
    check_weights,
    weights_of,
)
from kerasft.backbones.spec import SEPARATOR, parse_all, side_of
from kerasft.backbones.table import SAMPLE_BACKBONE, SAMPLE_SIDE
from kerasft.config.overrides import NO_RUN
from kerasft.config.problems import repeated_names
from kerasft.config.source_names import TFDS, check_name, photos_help
from kerasft.config.weights_names import Net, file_for, nets_brought_by
from kerasft.errors import UserError, did_you_mean
from kerasft.heads.methods import METHODS, linear_methods
from kerasft.input_rule import Depth, color_of


class Section(BaseModel):
    """The base of all sections: no unknown keys, no changes, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Named(Section):
    """The base of all phases: a name that can be part of a file name."""

    name: StrictStr = Field(
        description="Name of the phase: letters, digits, '-' and '_'. Each phase has its own."
    )

    @field_validator("name")
    @classmethod
    def _is_a_plain_word(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"expected letters, digits, '-' and '_', got {name!r}.")
        return name


class Phase(Named):
    """A phase that is trained: where the model is cut, and how what is above the cut is trained."""

    blocks: Annotated[StrictInt, Field(ge=0)] | Literal["all"] | None = Field(
        default=None,
        description='Number of blocks to train below the head, counted from the top, or "all". '
        'Not set: none in the first phase ("all" with weights = "none"); in a later one the '
        "backbone's default, below those of the phase before.",
    )
    head_start: Literal["auto", "solved", "kept"] = Field(
        default="auto",
        description='Weights that the head begins with: "solved", those of ridge logistic '
        "regression on all stored views, whose strength validation chooses, for a head without "
        'hidden layers whose features are stored; or "kept", those of the phase before, random in '
        'the first phase. "auto": solved in a first phase where that is possible.',
    )
    epochs: StrictInt = Field(
        gt=0, description="Maximum number of epochs; patience may stop the phase earlier."
    )
    learning_rate: StrictFloat = Field(
        gt=0, description="Learning rate, the highest one of the schedule."
    )
    batch_size: StrictInt = Field(default=32, gt=0, description="Images per batch.")
    accumulate: StrictInt = Field(
        default=1,
        gt=0,
        description="Batches whose gradients are accumulated for one optimizer step: as a batch "
        "that many times as large, in the memory of one; at most the batches of an epoch. The "
        "schedule advances with every batch. A rest at the end of the last epoch makes a step of "
        "its own; a phase that patience ends earlier leaves it out.",
    )
    ema: StrictFloat = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights, e.g. 0.99; 0 disables it. The "
        "averaged weights are the ones that are validated and saved; statistics of "
        "BatchNormalization that learn are averaged with them.",
    )
    batch_norm: Literal["frozen", "train"] = Field(
        default="frozen",
        description="Whether BatchNormalization layers in the trained blocks stay as they are "
        '("frozen") or learn, statistics included ("train").',
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description="Optimizer that updates the weights."
    )
    weight_decay: StrictFloat = Field(
        default=0.004,
        ge=0,
        description="Weight decay, only with adamw; biases and normalization layers are exempt.",
    )
    l2_sp: StrictFloat = Field(
        default=0.0,
        ge=0,
        description="Strength of L2-SP: half of it times the squared distance of the base's "
        "trained weights from the start of the phase is added to the loss, e.g. 0.01; 0 disables "
        "it. The head is left out.",
    )
    co_tuning: StrictFloat = Field(
        default=0.0,
        ge=0,
        description="Strength of Co-Tuning: the pretrained ImageNet classifier stays beside the "
        "head while the phase trains, and the features have to go on telling the ImageNet classes "
        "that our classes look like, e.g. 1.0; 0 disables it. Only with pooled features of one "
        "net whose ImageNet weights have a single layer behind the pooling.",
    )
    momentum: StrictFloat = Field(default=0.9, ge=0, lt=1, description="Momentum, only with sgd.")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description='Schedule of the learning rate after the warm-up; "cosine" decays to 0.',
    )
    warmup: StrictFloat = Field(
        default=0.0,
        ge=0,
        description="Epochs in which the learning rate rises from 0, at most as many as epochs.",
    )
    head_learning_rate_multiplier: StrictFloat = Field(
        default=1.0, gt=0, description="Learning rate of the head, as a multiple of learning_rate."
    )
    layer_decay: StrictFloat = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Factor on the learning rate from each block to the next one below; 1 "
        "trains all blocks at the same rate.",
    )
    patience: StrictInt = Field(
        default=5,
        ge=0,
        description="Epochs without a lower validation loss after which the phase stops; 0: it "
        "never stops early.",
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none",
        description='Weight of the classes in the loss: "balanced" gives each class the same '
        "total weight, however few images it has.",
    )
    label_smoothing: StrictFloat = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Label smoothing: share of the target that is spread evenly over all classes.",
    )
    wise: StrictBool = Field(
        default=True,
        description="Whether the weights at the end may lie between those of the phase's start and "
        "of its best epoch, if validation prefers them (WiSE-FT). Only after the first phase, and "
        'with batch_norm = "frozen".',
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="auto",
        description="Precision of the training steps; weights and validation stay in float32. "
        '"auto": mixed_bfloat16 on a CPU that has it, if the steps are predicted to take over 30 s '
        "and are measured to be 1.3 times as fast; else float32.",
    )
    stored: StrictBool | None = Field(
        default=None,
        description="Whether the activations at the cut are stored. Not set: cache.mode decides.",
    )

    @field_validator("blocks", mode="before")
    @classmethod
    def _is_a_number_of_blocks(cls, blocks: object) -> object:
        if blocks in ("all", None) or (type(blocks) is int and blocks >= 0):
            return blocks
        raise ValueError(f"expected int, at least 0, or 'all', got {blocks!r}.")

    # These validators run only for fields that are written out. So a field that has no effect
    # with the others is refused wherever it is written, and `to_toml` leaves it out.
    @field_validator("weight_decay", "momentum")
    @classmethod
    def _belongs_to_the_optimizer(cls, value: float, info: ValidationInfo) -> float:
        owner = OWNERS[str(info.field_name)]
        if info.data.get("optimizer", owner) != owner:
            raise ValueError(
                f"has no effect with optimizer = '{info.data['optimizer']}', only with '{owner}'."
            )
        return value

    @field_validator("stored")
    @classmethod
    def _something_is_frozen(cls, stored: bool | None, info: ValidationInfo) -> bool | None:
        if stored and info.data.get("blocks") == "all":
            raise ValueError("expected false with blocks = 'all', because nothing is frozen then.")
        return stored

    @field_validator("batch_norm", "layer_decay", "l2_sp", "co_tuning")
    @classmethod
    def _needs_blocks(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("blocks") == 0 and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError("has no effect with blocks = 0, where only the head is trained.")
        return value

    @field_validator("warmup")
    @classmethod
    def _fits_in_the_phase(cls, warmup: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs", warmup)
        if warmup > epochs:
            raise ValueError(f"expected at most {epochs}, the epochs of the phase, got {warmup:g}.")
        return warmup


OWNERS = {"weight_decay": "adamw", "momentum": "sgd"}


if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[tuple(METHODS)]


class Solved(Named):
    """A phase whose head scikit-learn solves on the frozen features, instead of training it."""

    method: Method = Field(
        description="Method that solves the head: "
        + ", ".join(f"{name} ({row.label})" for name, row in METHODS.items())
        + "."
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none",
        description='Weight of the classes: "balanced" gives each class the same total weight, '
        "however few images it has. Not with knn.",
    )
    stored: StrictBool | None = Field(
        default=None,
        description="Whether the features are stored. Not set: cache.mode decides.",
    )

    @property
    def blocks(self) -> int:
        """Blocks that are trained below the head: none."""
        return 0

    @field_validator("class_weight")
    @classmethod
    def _has_weights(cls, class_weight: str, info: ValidationInfo) -> str:
        row = METHODS.get(info.data.get("method", ""))
        if class_weight != "none" and row and row.unbalanced:
            raise ValueError(
                f"has no effect with method = '{info.data['method']}': {row.unbalanced}."
            )
        return class_weight


def _kind_of_phase(phase: Any) -> str:
    """Returns the kind of a phase: one with a method is solved, any other is trained."""
    solved = "method" in phase if isinstance(phase, dict) else isinstance(phase, Solved)
    return "solved" if solved else "trained"


AnyPhase = Annotated[
    Annotated[Phase, Tag("trained")] | Annotated[Solved, Tag("solved")],
    Discriminator(_kind_of_phase),
]


ROLES = ("path", "label", "split", "group", "ignore")
"""Roles of the columns of a table."""


class Data(Section):
    """The photos, and how they are split."""

    source: StrictStr = Field(description=f"Photos: {photos_help()}.")
    data_dir: StrictStr | None = Field(
        default=None,
        description='Folder in which TensorFlow Datasets keeps its data, only with "tfds:NAME". '
        "Not set: the environment variable TFDS_DATA_DIR, or else the default of TFDS.",
    )
    layout: Literal["auto", "classes", "splits"] = Field(
        default="auto",
        description='What the folders of the source are: a folder per class ("classes"), or '
        'folders of splits with a folder per class in each ("splits"). "auto": their names and '
        "contents say it, and where both are possible the run does not start.",
    )
    columns: tuple[StrictStr, ...] = Field(
        default=(),
        description='Roles of columns of a table, each as "ROLE=NAME", e.g. ["label=breed"]. '
        'ROLE is path, label, split, group or ignore; "label=A,B,C" are columns of 0 and 1. A role '
        "that is not named is found by what the columns hold.",
    )
    label_from: StrictStr | None = Field(
        default=None,
        description="Regular expression that finds the label in the path of each photo: its "
        'group "label", or its first one. Not set: labels are those of folders or tables; for a '
        "folder of photos alone, the start or end of the names of the files, where that is sure.",
    )
    classes: dict[StrictStr, StrictStr] = Field(
        default={},
        description='Class of each folder or label, e.g. {"wild rose" = "rose", roses = "rose", '
        'weeds = ""}: several may be one class, "" leaves one out, and what is not named is its '
        "own class. Classes stand in the order of this table, others behind them by name.",
    )
    added: tuple[StrictStr, ...] = Field(
        default=(),
        description='More places of photos, e.g. ["new/"]: their photos are added to those of the '
        "source. Each is a folder, table or archive; what is said of the layout, the columns and "
        "the labels is said of the source alone. Photos of a place without splits are training "
        "photos if the source has splits.",
    )
    validation: StrictFloat = Field(
        default=0.15,
        gt=0,
        le=0.5,
        description="Share of the images in the validation split, which chooses the best epoch "
        "and phase.",
    )
    test: StrictFloat = Field(
        default=0.15,
        ge=0,
        le=0.5,
        description="Share of the images in the test split, which is scored at the end and "
        "decides nothing; 0: no test split.",
    )
    fraction: StrictFloat = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the training split to use, e.g. 0.1. Validation and test stay the "
        "same, and a smaller share is a subset of a larger one.",
    )
    splits_from: StrictStr | None = Field(
        default=None,
        description="Run whose splits are kept: photos that it knows stay in training, validation "
        "or test, and new ones fill the shares. Not set: the run that the weights come from, if it "
        'was trained on some of these photos. "none": all photos are split anew. Only for photos '
        "without splits of their own.",
    )
    bad_images: Literal["fail", "skip"] = Field(
        default="fail",
        description="What happens if files are not readable images: the run does not start "
        '("fail"), or leaves them out and records them in run.json ("skip").',
    )
    small_classes: Literal["refuse", "leave_out", "train_only"] = Field(
        default="refuse",
        description="What happens if classes have too few images to be divided into the splits: "
        'the run does not start ("refuse"), leaves them out ("leave_out"), or takes all of their '
        'images for training, so that they are never measured ("train_only").',
    )
    near_copies: Literal["group", "ignore"] = Field(
        default="group",
        description="What happens with photos that show the same picture, altered (smaller, "
        "compressed, turned, mirrored), by their looks or names: each group stays in one split "
        '("group"), or they are split like any others ("ignore"). If the source has splits, a '
        "warning says how many lie across them.",
    )
    resize: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description='How an image becomes square: distorted ("stretch"), cut to its centre '
        '("crop"), or with borders ("pad").',
    )
    background: str = Field(
        default="white",
        description='Colour that transparent pixels lie on: "white", "gray", "black" or "#rrggbb". '
        '"drop" reads images as kerasft 0.2 did: the colours under transparent pixels show.',
    )
    depth: Literal["auto"] | Depth = Field(
        default="auto",
        description="Number of bits in use in files that have 16 bits per channel (PNG, TIFF): "
        "the largest number of that many bits becomes white. Auto takes the smallest that holds "
        "the largest number in all photos.",
    )

    @field_validator("background", mode="after")
    @classmethod
    def _is_a_colour(cls, name: str) -> str:
        try:
            color_of(name)
        except ValueError:
            raise ValueError(
                f"expected white, gray, black, drop or #rrggbb, got {name!r}."
            ) from None
        return name

    @field_validator("source", "data_dir", mode="before")
    @classmethod
    def _is_a_name(cls, name: object) -> object:
        if name == "":
            raise ValueError("expected a folder, got ''.")
        if isinstance(name, str):
            try:
                check_name(name)
            except UserError as error:
                raise ValueError(str(error).removeprefix(f"{name}: ")) from None
        return str(name) if isinstance(name, Path) else name

    @field_validator("added", mode="before")
    @classmethod
    def _are_places(cls, added: object) -> object:
        places = added if isinstance(added, list | tuple) else (added,)
        if "" in places:
            raise ValueError("expected folders, got ''.")
        return tuple(str(one) if isinstance(one, Path) else one for one in places)

    @field_validator("columns", mode="before")
    @classmethod
    def _are_roles(cls, columns: object) -> object:
        if isinstance(columns, str):
            columns = (columns,)
        if isinstance(columns, Mapping):
            columns = tuple(f"{role}={name}" for role, name in columns.items())
        if isinstance(columns, list | tuple):
            for text in columns:
                role, _, name = str(text).partition("=")
                if role not in ROLES or not name:
                    raise ValueError(
                        f"expected ROLE=NAME with a role of {', '.join(ROLES)}, got {text!r}."
                        + did_you_mean(role, ROLES)
                    )
        return columns

    @field_validator("classes")
    @classmethod
    def _are_names(cls, classes: dict[str, str]) -> dict[str, str]:
        for label, name in classes.items():
            if name != name.strip() or len(name.splitlines()) > 1:
                raise ValueError(f"expected a name for '{label}', on one line, got {name!r}.")
        return classes

    @field_validator("label_from")
    @classmethod
    def _is_a_regular_expression(cls, label_from: str | None) -> str | None:
        try:
            re.compile(label_from or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}.") from None
        return label_from

    @field_validator("splits_from", mode="before")
    @classmethod
    def _is_a_run(cls, run: object) -> object:
        if run == "":
            raise ValueError(f"expected a run directory or '{NO_RUN}', got ''.")
        return str(run) if isinstance(run, Path) else run

    @field_validator("data_dir")
    @classmethod
    def _is_of_tfds(cls, data_dir: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source", TFDS)
        if data_dir is not None and not source.startswith(TFDS):
            raise ValueError(f"has no effect with a source that does not begin with {TFDS!r}.")
        return data_dir


class Model(Section):
    """The pretrained net that the training starts from."""

    backbone: StrictStr = Field(
        default="MobileNetV2",
        min_length=1,
        description='Pretrained net, e.g. "ResNet50" or "MobileNet:alpha=0.75"; several as a '
        'list or joined by "+".',
    )
    weights: StrictStr = Field(
        default="imagenet",
        validate_default=True,  # some backbones have none
        description='Initial weights of the backbone: "imagenet"; "none" (random); "sample" (in '
        'the package, for trying kerasft out); another run; or a weights file. A run, "sample" '
        "and an imported file bring their backbone. For several backbones one each, as a list "
        'or joined by "+".',
    )
    image_size: StrictInt | None = Field(
        default=None,
        gt=0,
        description="Side of the square input in pixels. Not set: the backbone's own.",
    )

    @model_validator(mode="before")
    @classmethod
    def _some_weights_bring_their_net(cls, given: Any) -> Any:
        weights = given.get("weights") if isinstance(given, dict) else None
        net = None
        if weights == "sample":
            net = Net(SAMPLE_BACKBONE, SAMPLE_SIDE)
        elif isinstance(weights, str) and weights not in WEIGHTS:
            with suppress(UserError):  # reported by the validator of `weights`
                net = nets_brought_by(weights_of(weights))
        if net is None:
            return given
        both = [*vars(net).items(), *given.items()]
        return {key: value for key, value in both if value is not None}

    @field_validator("backbone", mode="before")
    @classmethod
    def _several_are_joined(cls, backbone: object) -> object:
        if isinstance(backbone, list | tuple) and all(isinstance(one, str) for one in backbone):
            backbone = SEPARATOR.join(backbone)
        if isinstance(backbone, str):
            return SEPARATOR.join(one.strip() for one in backbone.split(SEPARATOR))
        return backbone

    @field_validator("backbone")
    @classmethod
    def _is_in_the_table(cls, backbone: str) -> str:
        try:
            parse_all(backbone)
        except UserError as error:
            raise ValueError(error.message) from None  # the place is named already
        return backbone

    @field_validator("weights")
    @classmethod
    def _are_choices_or_files(cls, weights: str, info: ValidationInfo) -> str:
        backbone = info.data.get("backbone", SAMPLE_BACKBONE)
        nets, each = backbone.split(SEPARATOR), weights_of(weights)
        try:
            check_weights(backbone, weights)
        except UserError as error:
            raise ValueError(error.message) from None  # the place is named already
        if len(each) == 1 and each[0] in ("imagenet", "none"):
            return weights
        if len(each) < len(nets):
            raise ValueError(
                "a run or a file fits one backbone, got several. Expected 'imagenet', 'none', or "
                f"the weights of each, joined by '{SEPARATOR}'."
            )
        known = "backbone" in info.data  # a wrong backbone has been reported already
        return SEPARATOR.join(
            _checked_weights(own, net if known else None)
            for own, net in zip(each, nets, strict=True)
        )


def _checked_weights(weights: str, backbone: str | None) -> str:
    """Resolves the weights of one backbone to a word or a file; None stands for any backbone."""
    if weights == "sample" and backbone and parse_all(backbone) != parse_all(SAMPLE_BACKBONE):
        raise ValueError(
            f"'sample' fits only {SAMPLE_BACKBONE}, got backbone '{backbone}'. Leave the backbone "
            "out, or choose other weights."
        )
    if weights in WEIGHTS:
        return weights
    if os.path.isdir(weights):
        try:
            return file_for(weights, backbone)
        except UserError as error:
            raise ValueError(str(error)) from None
    if weights.lower().endswith(FILES):
        return weights
    name = Path(weights).name  # a path by now
    raise ValueError(
        "expected 'imagenet', 'sample', 'none', a run directory or a file that ends in .h5 or "
        f".keras, got {name!r}." + did_you_mean(name, WEIGHTS)
    )


class Head(Section):
    """The features that are taken from the backbone, and the layers that are put on them."""

    features: Literal["pooled", "flat", "depths", "fc6", "fc7"] = Field(
        default="pooled",
        description="Features that the head gets: the last convolution averaged over all "
        'positions ("pooled") or flattened ("flat"); the outputs of all blocks, each averaged '
        '("depths"), with which only a head can be trained; or an inner fully connected layer of '
        'AlexNet, CaffeNet or VGG ("fc6", "fc7").',
    )
    leave_out: StrictInt = Field(
        default=0,
        ge=0,
        description="Number of blocks to remove from the top of the backbone; the features are "
        "then the input of the lowest removed block, or of all depths up to there.",
    )
    hidden: tuple[StrictInt, ...] = Field(
        default=(),
        description="Units of each hidden layer between the features and the output, e.g. "
        "[256]; 1 or more each.",
    )
    dropout: StrictFloat = Field(
        default=0.2, ge=0, lt=1, description="Dropout rate in front of each layer of the head."
    )

    @field_validator("hidden")
    @classmethod
    def _are_positive(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
        if any(units < 1 for units in hidden):
            raise ValueError(f"expected numbers greater than 0, got {list(hidden)}.")
        return hidden


class Augment(Section):
    """Augmentation of the training images; other images only get `test_time`."""

    flip: StrictBool = Field(
        default=True, description="Whether images are mirrored left to right, half of the time."
    )
    crop: StrictFloat = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Smallest share of the image's area that a random crop keeps; 0 disables "
        "cropping.",
    )
    color: StrictFloat = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Strength of random changes of brightness, contrast and saturation; 0 "
        "disables them.",
    )
    views: StrictInt | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Views of each training image that are stored, the first one not augmented; "
        "each epoch draws among them. 0: a new view in every epoch, and nothing is stored. Not "
        "set: 4, or fewer if fewer differ (flip alone: 2; no augmentation: 1); 0 if nothing is "
        "frozen.",
    )
    mixup: StrictFloat = Field(
        default=0.2,
        ge=0,
        description="Parameter of mixup: pairs of activations at the cut, and their labels, are "
        "mixed in shares drawn from Beta(mixup, mixup); 0 disables it.",
    )
    test_time: Literal["none", "flip", "ten-crop"] = Field(
        default="none",
        description='Views whose logits the finished model averages: the image alone ("none"), '
        'also its mirror image ("flip", 2 times the work), or five crops and their mirror '
        'images ("ten-crop", 10 times).',
    )

    @field_validator("views")
    @classmethod
    def _views_differ(cls, views: int | None, info: ValidationInfo) -> int | None:
        most = distinct_views(info.data.get("flip"), info.data.get("crop"), info.data.get("color"))
        if views is not None and views > most:
            why = "of flip alone" if most == 2 else "without flip, crop and color"
            raise ValueError(f"expected at most {most}, the views that differ {why}, got {views}.")
        return views


def distinct_views(flip: object, crop: object, color: object) -> float:
    """Counts the views of an image that differ; infinite if crop or color draw them."""
    return math.inf if crop or color else 2 if flip else 1


class Cache(Section):
    """How the activations at a cut are computed and stored."""

    mode: Literal["auto", "on", "off"] = Field(
        default="auto",
        description='Whether the activations of the frozen part are stored and reused; "auto": '
        "if that saves work and there is room.",
    )
    engine: Literal["auto", "folded", "keras", "compiled"] = Field(
        default="auto",
        description="Engine that computes the activations: a TensorFlow graph with the weights "
        'folded into it ("folded"), the Keras model ("keras"), or one XLA program that keeps a '
        'GPU busy ("compiled", with JAX); "auto": folded with TensorFlow on a CPU, compiled with '
        "JAX on a GPU, else keras.",
    )
    batch: StrictInt | None = Field(
        default=None,
        ge=1,
        description="Images that the engine computes at once; default: 32, on a GPU with JAX as "
        "many as there are, up to 256, if they fit its memory.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description='Precision in which the activations are computed; "auto": on a CPU bfloat16 if '
        "it is measured to be faster and close enough, on a GPU float32.",
    )
    dtype: Literal["auto", "float16", "float32"] = Field(
        default="auto",
        description='Type in which the activations are stored; "auto": float16 if all numbers fit.',
    )


class Config(Section):
    """All settings of a run. `load_config` makes it; from Python it can be made directly."""

    seed: StrictInt = Field(
        default=0,
        ge=0,
        description="Seed for the split, the new weights, the batch order and the augmentation.",
    )
    device: StrictStr = Field(
        default="auto",
        description='Device that computes: "auto" (the first GPU, or else the CPU), "cpu", or '
        '"gpu:0", "gpu:1", ...',
    )
    tensorboard: StrictBool = Field(
        default=False,
        description="Whether each epoch's figures are written for TensorBoard too, into "
        "tensorboard/PHASE in the run.",
    )
    calibrate: StrictBool = Field(
        default=True,
        description="Whether each phase ends with a temperature, fitted on validation, that makes "
        "scores mean what they say, and keeps features of the training photos, by which unlike "
        "photos are noticed (`kerasft guide confidence`).",
    )
    report: StrictBool = Field(
        default=True,
        description="Whether each phase ends with a page, report.html: curves, mistakes, figures. "
        "`kerasft report` writes a fuller one.",
    )
    data: Data
    model: Model = Model()
    head: Head = Head()
    augment: Augment = Augment()
    cache: Cache = Cache()
    phases: tuple[AnyPhase, ...] = Field(
        description="Phases of the run, trained or solved one after the other."
    )

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|gpu:\d+", device):
            raise ValueError(f"expected 'auto', 'cpu' or 'gpu:N', got {device!r}.")
        return device

    @field_validator("head")
    @classmethod
    def _fits_the_backbone(cls, head: Head, info: ValidationInfo) -> Head:
        model = info.data.get("model")
        if model is not None:
            try:
                check_features(
                    model.backbone,
                    head.features,
                    leave_out=head.leave_out,
                    weights=model.weights,
                    image_size=model.image_size or side_of(model.backbone),
                )
            except UserError as error:
                raise ValueError(error.message) from None  # the place is named already
        return head

    @field_validator("phases")
    @classmethod
    def _is_not_empty(cls, phases: tuple[AnyPhase, ...]) -> tuple[AnyPhase, ...]:
        if not phases:
            raise ValueError("expected at least one phase, got none.")
        return phases

    @field_validator("phases")
    @classmethod
    def _begin_with_a_head_that_can_be_trained(
        cls, phases: tuple[AnyPhase, ...]
    ) -> tuple[AnyPhase, ...]:
        for phase, later in pairwise(phases):
            if not isinstance(phase, Solved) or isinstance(later, Solved):
                continue
            if not METHODS[phase.method].linear:
                raise ValueError(
                    f"'{later.name}' cannot continue from the head of '{phase.name}': a head "
                    f"solved by '{phase.method}' has no weights that can be trained. Expected "
                    f"{', '.join(linear_methods())} or a trained head in the phase before."
                )
        return phases

    @field_validator("phases")
    @classmethod
    def _train_no_blocks_that_the_head_reads(
        cls, phases: tuple[AnyPhase, ...], info: ValidationInfo
    ) -> tuple[AnyPhase, ...]:
        head = info.data.get("head")
        if head is None or head.features != DEPTHS:
            return phases
        for phase in phases:
            if phase.blocks != 0:
                raise ValueError(
                    f"'{phase.name}' would train blocks below the head, but with head.features = "
                    f"'{DEPTHS}' the head reads the output of every block, so only the head can be "
                    "trained. Expected blocks = 0, or a run with head.features = 'pooled'."
                )
        return phases

    @model_validator(mode="after")
    def _phases_have_their_own_names(self) -> "Config":
        repeated = repeated_names(self.phases)
        if repeated:
            raise ValueError(" ".join(map(str, repeated)))
        return self
