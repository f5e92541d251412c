"""`kerasft import-caffe` and `import-torch`, with the text that they print."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result
from kerasft.cli.terminal import showing
from kerasft.text import quoted

if TYPE_CHECKING:
    from kerasft.importers.weights_writer import Imported

_FILE = click.Path(path_type=Path)
_TO = click.option(
    "--to", type=_FILE, required=True, metavar="FILE", help="File to write; its name ends in .h5."
)


def _backbone_option(*names: str):  # type: ignore[no-untyped-def]
    return click.option(
        "--backbone",
        type=click.Choice(names, case_sensitive=False),
        required=True,
        help="Backbone whose weights the file holds.",
    )


@click.command()
@click.argument("prototxt", type=_FILE)
@click.argument("caffemodel", type=_FILE)
@_backbone_option("alexnet", "caffenet", "vgg16", "vgg19")
@_TO
@click.option(
    "--mean",
    type=_FILE,
    metavar="FILE",
    help="Mean image with which the model was trained (.binaryproto). Default: ImageNet's mean.",
)
@json_option
def import_caffe(
    prototxt: Path, caffemodel: Path, backbone: str, to: Path, mean: Path | None, as_json: bool
) -> None:
    """Converts a Caffe model to a file for --weights.

    PROTOTXT is the definition of the net, which must match the backbone; CAFFEMODEL holds the
    weights. Lists everything that was not used or did not fit.

    \b
    Example:
        kerasft import-caffe deploy.prototxt caffenet.caffemodel --backbone caffenet --to net.h5
        kerasft train --data photos/ --weights net.h5
    """
    from kerasft.importers import caffe

    with showing() as progress:
        result = caffe.import_caffe(
            prototxt, caffemodel, backbone, to, mean=mean, progress=progress
        )
    print_result(result, import_text, as_json=as_json)


@click.command()
@click.argument("file", type=_FILE)
@_backbone_option("alexnet", "vgg16", "vgg19")
@_TO
@json_option
def import_torch(file: Path, backbone: str, to: Path, as_json: bool) -> None:
    """Converts a state dict of torchvision to a file for --weights.

    FILE is a .safetensors file. PyTorch's AlexNet differs from Caffe's (its backbone is
    AlexNetOWT), and its VGG scales pixels differently (VGG16:mode=torch); the file that is written
    selects the right backbone.

    \b
    Example:
        kerasft import-torch vgg16.safetensors --backbone vgg16 --to net.h5
        kerasft train --data photos/ --weights net.h5
    """
    from kerasft.importers import torchvision

    with showing() as progress:
        result = torchvision.import_torch(file, backbone, to, progress=progress)
    print_result(result, import_text, as_json=as_json)


def import_text(result: "Imported") -> str:
    """Writes what was written to the file, what was not used, and the next command."""
    from kerasft.importers.caffe import CaffeImported

    parts = [
        f"Wrote {result.file} ({result.bytes / 1e6:,.0f} MB): {result.parameters:,} "
        f"parameters of {result.backbone}, {len(result.layers)} layers."
    ]
    if isinstance(result, CaffeImported):
        levels = ", ".join(f"{channel:.2f}" for channel in result.mean)
        spread = ""
        if result.mean_spread:
            spread = f"; the mean image differs from it by {result.mean_spread:.1f} at most"
        parts.append(f"Mean of blue, green, red: {levels}{spread}.")
    if result.left_out:
        parts.append("Left out, because they do not fit:")
        parts += [f"  {sentence}" for sentence in result.left_out]
    if result.unused:
        parts.append(f"Not used: {', '.join(map(quoted, result.unused))}.")
    parts += ["", f"Next: kerasft train --data PHOTOS/ --weights {result.file}"]
    return "\n".join(parts)
