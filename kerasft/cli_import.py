"""Commands that make weights of other tools a file for --weights."""

from pathlib import Path

import click

from kerasft.cli_shared import json_option, print_result
from kerasft.import_text import import_text
from kerasft.terminal import showing

_FILE = click.Path(path_type=Path)
_TO = click.option("--to", type=_FILE, required=True, metavar="FILE", help="Ends in .h5.")


def _backbone_option(*names: str):  # type: ignore[no-untyped-def]
    return click.option(
        "--backbone", type=click.Choice(names, case_sensitive=False), required=True, help="The net."
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
    help="The mean image it was trained with (.binaryproto). Default: that of ImageNet.",
)
@json_option
def import_caffe(
    prototxt: Path, caffemodel: Path, backbone: str, to: Path, mean: Path | None, as_json: bool
) -> None:
    """Makes a model of Caffe a file for --weights.

    PROTOTXT is its definition, which has to be that of the backbone; CAFFEMODEL its weights.
    Names all that was not used or did not fit.

    \b
    Example:
        kerasft import-caffe deploy.prototxt caffenet.caffemodel --backbone caffenet --to net.h5
        kerasft train --data photos/ --weights net.h5
    """
    from kerasft import caffe_import

    with showing() as progress:
        result = caffe_import.import_caffe(
            prototxt, caffemodel, backbone, to, mean=mean, progress=progress
        )
    print_result(result, import_text, as_json=as_json)


@click.command()
@click.argument("file", type=_FILE)
@_backbone_option("alexnet", "vgg16", "vgg19")
@_TO
@json_option
def import_torch(file: Path, backbone: str, to: Path, as_json: bool) -> None:
    """Makes a state dict of torchvision a file for --weights.

    FILE is a .safetensors file. PyTorch's AlexNet is another net than Caffe's (AlexNetOWT), and its
    VGG sees pixels scaled otherwise (VGG16:mode=torch); the file brings the right backbone.

    \b
    Example:
        kerasft import-torch vgg16.safetensors --backbone vgg16 --to net.h5
        kerasft train --data photos/ --weights net.h5
    """
    from kerasft import torch_import

    with showing() as progress:
        result = torch_import.import_torch(file, backbone, to, progress=progress)
    print_result(result, import_text, as_json=as_json)
