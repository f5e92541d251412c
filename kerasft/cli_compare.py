"""The command that compares: all ways to use a pretrained net on one set of photos."""

import logging
import re
from pathlib import Path

import click

from kerasft.cli_shared import json_option, print_result, set_option
from kerasft.compare_text import compare_text
from kerasft.errors import UserError
from kerasft.terminal import loading, showing


@click.command()
@click.argument("source", metavar="SRC")
@click.option(
    "--backbones",
    metavar="A,B,A+B",
    help="Default: MobileNetV2. A+B: the features of both together.",
)
@click.option(
    "--methods",
    metavar="A,B,...",
    help="Of as-is, knn, bayes, lda, logistic, svm, rbf-svm, linear, fc, unfreeze, full, scratch. "
    "Default: all but full and scratch, which need a --budget with time for them.",
)
@click.option(
    "--weights",
    metavar="imagenet|sample|none|RUN|FILE",
    help="As for train; of several, joined by +, each backbone takes its own. Default: imagenet.",
)
@click.option("--image-size", type=int, metavar="N", help="Side in pixels, e.g. 224.")
@click.option("--seeds", type=int, default=1, metavar="N", help="Divides the photos N times.")
@click.option(
    "--fractions",
    metavar="F,F,...",
    default="1",
    help="Shares of the training photos, e.g. 0.1,0.5,1: would more photos help?",
)
@click.option("--budget", type=float, metavar="MINUTES", help="Stops there; may be continued.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the result goes. Default: compare/ and the name of the photos.",
)
@click.option("--keep", is_flag=True, help="Leaves the winner as a run, DIR/winner.")
@set_option
@json_option
def compare(
    source: str,
    backbones: str | None,
    methods: str | None,
    weights: str | None,
    image_size: int | None,
    seeds: int,
    fractions: str,
    budget: float | None,
    out: Path | None,
    keep: bool,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tries all ways to use a pretrained net on SRC, and says which one to use.

    The net as it is; classifiers of scikit-learn on its features; new layers; unfreezing. All
    with the same split, the same stored activations and as many settings tried. Goes on where it
    was interrupted, and adds what is asked for later.

    \b
    Example:
        kerasft compare photos/ --backbones MobileNetV2,MobileNet --keep
    """
    from kerasft.kinds import short_name

    shares = _numbers(fractions)
    out = out or Path("compare") / short_name(source)
    with loading():
        from kerasft.compare import compare_ways
        from kerasft.entries import Asked

    given = {"data.source": source, "model.weights": weights, "model.image_size": image_size}
    asked = Asked(
        flags={key: value for key, value in given.items() if value is not None},
        sets=sets,
        # A comma also stands between the options of one backbone, which begin in lower case.
        backbones=() if backbones is None else tuple(re.split(r",\s*(?=[A-Z])", backbones)),
        ways=None if methods is None else tuple(name.strip() for name in methods.split(",")),
        seeds=seeds,
        fractions=shares,
    )
    again = "Go on with the same command."
    click.get_current_context().meta["kerasft.again"] = lambda: again
    with showing() as progress:
        logging.getLogger("kerasft").setLevel(logging.WARNING)  # dozens of runs say the same
        result = compare_ways(
            asked,
            out,
            budget=None if budget is None else 60 * budget,
            keep=keep,
            progress=progress,
        )
    print_result(result, compare_text, as_json=as_json)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--fractions: expected numbers such as 0.1,0.5,1, got '{text}'.", exit_code=2
        ) from None
