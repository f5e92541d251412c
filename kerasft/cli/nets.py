"""Pretrained nets: `kerasft backbones`, `blocks`, `import-caffe` and `import-torch`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result
from kerasft.cli.terminal import loading, showing
from kerasft.text import columns, quoted

if TYPE_CHECKING:
    from kerasft.backbones.imagenet_files import BackboneList, ListedBackbone
    from kerasft.importers.weights_writer import Imported
    from kerasft.models.blocks import Block

_FILE = click.Path(path_type=Path)
_TO = click.option(
    "--to", type=_FILE, required=True, metavar="FILE", help="File to write; its name ends in .h5."
)


@click.command()
@json_option
def backbones(as_json: bool) -> None:
    """Lists the backbones, and whether their ImageNet weights are on this machine.

    \b
    Example:
        kerasft backbones
    """
    from kerasft.backbones.imagenet_files import list_backbones

    print_result(list_backbones(), backbones_text, as_json=as_json)


@click.command()
@click.argument("name")
@json_option
def blocks(name: str, as_json: bool) -> None:
    """Lists the blocks of a backbone from the top.

    `unfreeze-and-continue --blocks N` unfreezes the first N of them.

    \b
    Example:
        kerasft blocks MobileNetV2
    """
    with loading():
        from kerasft.backbones.spec import parse
        from kerasft.models import build
        from kerasft.models.blocks import list_blocks

    backbone, _ = parse(name)
    model = build.load(name, weights="none", image_size=backbone.image_size)
    found = list_blocks(model, backbone)
    rows = [{"name": b.name, "layers": b.layers, "parameters": b.parameters} for b in found]
    print_result({"backbone": name, "blocks": rows}, lambda _: blocks_text(found), as_json=as_json)


_TITLE = ("name", "side", "smallest", "parameters", "features", "blocks", "download", "here")


def backbones_text(report: "BackboneList") -> str:
    """Writes a line per backbone, then their options and the next commands."""
    backbones = report.backbones
    return "\n".join(
        [
            *columns([_TITLE, *(_row(backbone) for backbone in backbones)], right=range(1, 7)),
            "",
            "Sides are in pixels. Weights are downloaded when a backbone is first used; "
            "'here' is yes",
            f"if they are in {report.folder}.",
            "Weights marked 'import' are files of Caffe or PyTorch that `kerasft import-caffe` or",
            "`import-torch` has converted; for PyTorch's VGG the backbone is VGG16:mode=torch.",
            "",
            *_options(backbones),
            "",
            "Next: `kerasft train --data PHOTOS/ --backbone NAME` trains with one of them, and",
            "`kerasft blocks NAME` lists what can be unfrozen after that.",
        ]
    )


def _row(backbone: "ListedBackbone") -> tuple[str, ...]:
    size = backbone.download_bytes
    return (
        backbone.name,
        str(backbone.image_size),
        str(backbone.min_size),
        f"{backbone.parameters:,}",
        f"{backbone.features:,}",
        str(backbone.blocks),
        "import" if size is None else f"{size / 1e6:,.0f} MB",
        "yes" if backbone.on_this_machine else "no",
    )


def _options(backbones: "Sequence[ListedBackbone]") -> list[str]:
    rows, others = [], []
    for backbone in backbones:
        if not backbone.variants:
            continue
        written = []
        for variant in backbone.variants:
            option = variant.spec.partition(":")[2]
            written.append(f"{option} (here)" if variant.on_this_machine else option)
        rows.append((backbone.name, ", ".join(written)))
        others += [
            f"{option} of {backbone.name}"
            for option in backbone.options
            if not any(one.startswith(option) for one in written)
        ]
    return [
        "Options follow a colon, as in MobileNet:alpha=0.75. There are ImageNet weights for",
        *(f"  {line}" for line in columns(rows)),
        f"Any other value, and {' and '.join(others)}, needs --weights none.",
    ]


def blocks_text(blocks: "Sequence[Block]") -> str:
    """Writes a numbered line per block, from the top."""
    width = max(len(block.name) for block in blocks)
    lines = [f"{'':>3}  {'block':<{width}}  parameters  layers"]
    for number, block in enumerate(blocks, start=1):
        layers = block.layers
        first_to_last = layers[0] if len(layers) == 1 else f"{layers[0]} ... {layers[-1]}"
        lines.append(
            f"{number:>3}  {block.name:<{width}}  {block.parameters:>10,}  "
            f"{len(layers)}: {first_to_last}"
        )
    return "\n".join(lines)


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
