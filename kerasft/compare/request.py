"""What is to be compared: a `Request`, checked and turned into the list of its trials.

Request -> with_backbones -> check -> trials_of: seeds x fractions x backbones x ways
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kerasft.backbones import spec
from kerasft.compare.ways import AS_IS, WAYS, config_of_way
from kerasft.config.fields import Config
from kerasft.config.load import append_phase
from kerasft.config.problems import Problem, report
from kerasft.config.weights_names import weights_for
from kerasft.data.source import Source
from kerasft.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Request:
    """What is to be compared.

    Attributes:
        flags: fields of data and model, by dotted key of the config.
        sets: `KEY=VALUE` each, such as "augment.views=2"; they come after the flags.
        backbones: backbones to try, each perhaps several nets joined by "+". None at all means
            the backbone that the weights belong to, or the default one.
        ways: keys of WAYS. None means the default ways, and those of the others for which the
            budget has time.
        seeds: number of splits: the seeds are 0, 1, ...
        fractions: shares of the training images, over 0 and at most 1.
    """

    flags: Mapping[str, object]
    sets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    ways: tuple[str, ...] | None = None
    seeds: int = 1
    fractions: tuple[float, ...] = (1.0,)

    def flags_for(self, backbone: str) -> Mapping[str, object]:
        """Returns the flags for one backbone, with the part of the weights that belongs to it."""
        flags = {**self.flags, "model.backbone": backbone}
        if weights := self.flags.get("model.weights"):
            flags["model.weights"] = weights_for(str(weights), backbone)
        return flags


@dataclass(frozen=True)
class Trial:
    """One way on one backbone, with one split and one share of the training images.

    Attributes:
        seed: seed of the split, of new weights and of the batch order.
        fraction: share of the training images.
        backbone: the backbone, perhaps several nets joined by "+".
        way: key of WAYS.
    """

    seed: int
    fraction: float
    backbone: str
    way: str

    @property
    def name(self) -> str:
        """The name for files and runs: "MobileNetV2-svm-seed0-1"."""
        backbone = re.sub(r"[^A-Za-z0-9.=+]", "-", self.backbone)
        return f"{backbone}-{self.way}-seed{self.seed}-{self.fraction:g}"


def with_backbones(request: Request) -> Request:
    """Fills in the backbone: the one that the weights belong to, or the default.

    Where the weights bring an image size, it is filled in for all ways, `scratch` included.
    """
    first = request.backbones[:1]
    flags = request.flags_for(first[0]) if first else request.flags
    model = config_of_way("linear", flags, request.sets).model
    size = {} if model.image_size is None else {"model.image_size": model.image_size}
    return replace(
        request, flags={**request.flags, **size}, backbones=request.backbones or (model.backbone,)
    )


def check(request: Request) -> None:
    """Refuses a request that cannot be compared, before anything is read or made.

    Args:
        request: the request, its backbones filled in.

    Raises:
        UserError: every problem at once, exit code 2.
    """
    names = _asked_ways(request)
    wrong = [] if names else [("ways", "expected at least one way, got none.")]
    wrong += [
        ("ways", f"expected some of {', '.join(WAYS)}, got '{name}'.{did_you_mean(name, WAYS)}")
        for name in names
        if name not in WAYS
    ]
    wrong += _repeated("ways", names) + _repeated("backbones", request.backbones)
    if request.seeds < 1:
        wrong.append(("seeds", f"expected 1 or more, got {request.seeds}."))
    wrong += [
        ("fractions", f"expected numbers over 0 and at most 1, got {fraction:g}.")
        for fraction in request.fractions
        if not 0 < fraction <= 1
    ]
    if wrong:
        problems = [Problem((), text, argument) for argument, text in wrong]
        raise UserError(report(problems, None), exit_code=2)
    for backbone in request.backbones:
        for name in names:
            config_of_way("linear", request.flags_for(backbone), request.sets)
            if problem := problem_of(name, backbone, request):
                raise UserError(
                    f"{problem}\nSo the way '{name}' can't be compared. Leave it out of `ways`, or "
                    "leave the option out.",
                    exit_code=2,
                )


def problem_of(way: str, backbone: str, request: Request) -> str:
    """Returns why the options of a request don't fit a way, "" if they do.

    Args:
        way: key of WAYS.
        backbone: name of a backbone, or several joined by "+".
        request: the request, whose options fit "linear".
    """
    if way == AS_IS:
        return ""
    row = WAYS[way]
    try:
        config = config_of_way(way, request.flags_for(backbone), request.sets)
        if row.start:
            append_phase(config, flags=row.flags)
    except UserError as error:
        return str(error)
    wanted = row.flags.get("head.features", config.head.features)
    if config.head.features != wanted:
        return f"head.features: expected '{wanted}', got '{config.head.features}'."
    return ""


def _asked_ways(request: Request) -> tuple[str, ...]:
    if request.ways is not None:
        return request.ways
    return tuple(name for name, way in WAYS.items() if way.default)


def _repeated(argument: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Returns the argument and a sentence for each name that occurs more than once."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    return [(argument, f"{name} is named twice.") for name in twice]


def trials_of(request: Request) -> list[Trial]:
    """Lists the trials of a checked request, in the order in which they are run.

    Raises:
        UserError: none of the ways can run on any of the backbones, exit code 2.
    """
    # "linear" first: it computes the activations that all others share.
    order = ["linear", *WAYS]
    ways = sorted(_asked_ways(request), key=order.index)
    trials = [
        Trial(seed, fraction, backbone, way)
        for seed in range(request.seeds)
        for fraction in sorted(set(request.fractions), reverse=True)
        for backbone in request.backbones
        for way in ways
        if _can_run(way, backbone, request)
    ]
    if not trials:
        raise UserError(
            "as-is needs a single backbone with ImageNet weights. Name another way, or other "
            "backbones.",
            field="ways",
            exit_code=2,
        )
    return trials


def _can_run(way: str, backbone: str, request: Request) -> bool:
    """Returns whether a way can run on a backbone: as-is needs a single net, of ImageNet."""
    if way != AS_IS:
        return True
    weights = request.flags_for(backbone).get("model.weights", "imagenet")
    return weights == "imagenet" and spec.SEPARATOR not in backbone


def all_weights(request: Request) -> str:
    """Returns the weights of all backbones, joined by "+", for one split that suits them all."""
    models = [
        config_of_way("linear", request.flags_for(backbone), request.sets).model
        for backbone in request.backbones
    ]
    return spec.SEPARATOR.join(dict.fromkeys(model.weights for model in models))


def refuse_equal_seeds(request: Request, source: Source) -> None:
    """Refuses several seeds for photos that keep the split that they have in a run.

    Raises:
        UserError: all seeds would give about the same split, exit code 2.
    """
    if request.seeds > 1 and source.splits_from is not None:
        raise UserError(
            f"expected 1, got {request.seeds}: each seed is to split the photos differently, but "
            f"they keep the split that they have in {source.splits_from}. Leave `seeds` out, or "
            "take weights that were not trained on these photos. `data.splits_from=none` splits "
            "them anew, but figures on photos that the weights were trained on flatter.",
            field="seeds",
            exit_code=2,
        )


def config_of(request: Request, trial: Trial) -> Config:
    """Returns the config of a trial's run, but for the learning rate that is tried.

    For a way that continues another it is the other's config; for as-is that of "linear".
    """
    flags = {**request.flags_for(trial.backbone), "seed": trial.seed}
    if trial.fraction < 1:
        flags["data.fraction"] = trial.fraction
    way = "linear" if trial.way == AS_IS else trial.way
    return config_of_way(way, flags, request.sets)
