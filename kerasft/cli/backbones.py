"""`kerasft backbones` and `kerasft blocks`: the available nets, and their blocks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kerasft.cli.options import json_option, print_result
from kerasft.cli.terminal import loading

if TYPE_CHECKING:
    from kerasft.backbones.imagenet_files import BackboneList, ListedBackbone
    from kerasft.models.blocks import Block


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
            *_table([_TITLE, *(_row(backbone) for backbone in backbones)]),
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


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Writes a table; its first and last columns are left-aligned, the others right-aligned."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers, last in rows:
        cells = [f"{n:>{w}}" for n, w in zip(numbers, width[1:-1], strict=True)]
        lines.append("  ".join([f"{name:<{width[0]}}", *cells, last]))
    return lines


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
        *(f"  {line}" for line in _table(rows)),
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
