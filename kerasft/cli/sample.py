"""`kerasft sample-data`: drawn flowers, with which all commands can be tried."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result
from kerasft.cli.terminal import showing

if TYPE_CHECKING:
    from kerasft.sample.draw import Sample


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Seed of the drawings. Default: 0.",
)
@click.option(
    "--per-class",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of images of each kind. Default: 100.",
)
@json_option
def sample_data(folder: Path, seed: int, per_class: int | None, as_json: bool) -> None:
    """Draws photos for trying out kerasft: five kinds of flowers, a folder each.

    DIR must be absent or empty. The same options give the same images. `train --weights sample`
    starts from a small net that was pretrained on drawings, so nothing is downloaded.

    \b
    Example:
        kerasft sample-data flowers
        kerasft train --data flowers --weights sample --run runs/flowers
    """
    from kerasft.sample.draw import PER_CLASS, draw_sample

    with showing() as progress:
        result = draw_sample(folder, seed=seed, per_class=per_class or PER_CLASS, progress=progress)
    print_result(result, sample_text, as_json=as_json)


def sample_text(result: "Sample") -> str:
    """Writes the number of images that `sample-data` has drawn, by class."""
    return f"{result.images:,} images drawn in {result.folder}: " + ", ".join(
        f"{images:,} {name}" for name, images in result.classes.items()
    )
