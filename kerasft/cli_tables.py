"""Commands that need no run: what there is to choose from, and the cache."""

from pathlib import Path

import click

from kerasft.backbones_text import backbones_text, blocks_text
from kerasft.cache_text import cache_text, limit_text, removed_text
from kerasft.cli_shared import json_option, print_result
from kerasft.terminal import loading, sample_text, showing


@click.command()
@json_option
def backbones(as_json: bool) -> None:
    """Lists the backbones that there are, and which ImageNet weights are on this machine.

    \b
    Example:
        kerasft backbones
    """
    from kerasft.imagenet import list_backbones

    print_result(list_backbones(), backbones_text, as_json=as_json)


@click.command()
@click.argument("name")
@json_option
def blocks(name: str, as_json: bool) -> None:
    """Lists the blocks of a backbone from the top.

    What --blocks of unfreeze-and-continue counts, with layers and parameters.

    \b
    Example:
        kerasft blocks MobileNetV2
    """
    with loading():
        from kerasft import nets
        from kerasft.backbones import parse
        from kerasft.blocks import list_blocks

    backbone, _ = parse(name)
    model = nets.load(name, weights="none", image_size=backbone.image_size)
    rows = [
        {"name": block.name, "layers": list(block.layers), "parameters": block.parameters}
        for block in list_blocks(model, backbone)
    ]
    print_result({"backbone": name, "blocks": rows}, lambda _: blocks_text(rows), as_json=as_json)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Default: 0.")
@click.option("--per-class", type=click.IntRange(min=1), metavar="N", help="Default: 100.")
@json_option
def sample_data(folder: Path, seed: int, per_class: int | None, as_json: bool) -> None:
    """Draws photos to try kerasft with: five kinds of flowers, a folder each.

    DIR must be absent or empty. The same options give the same images. `train --weights sample`
    knows a little of drawn things, so all of it works without a download.

    \b
    Example:
        kerasft sample-data flowers
        kerasft train --data flowers --weights sample --run runs/flowers
    """
    from kerasft.sample_data import PER_CLASS, draw_sample

    with showing() as progress:
        result = draw_sample(folder, seed=seed, per_class=per_class or PER_CLASS, progress=progress)
    print_result(result, sample_text, as_json=as_json)


@click.group()
def cache() -> None:
    """Shows, limits and empties the cache of activations and unpacked photos.

    What the frozen blocks make of the photos is computed once and kept for later runs, in the
    folder that KERASFT_CACHE names or else in the user's cache folder. So are the photos of zip
    and tar files and of TFDS, as files.

    \b
    Example:
        kerasft cache list
    """


@cache.command("list")
@json_option
def list_cache(as_json: bool) -> None:
    """Lists what the cache holds, most recently used first.

    \b
    Example:
        kerasft cache list
    """
    from kerasft import cache as stores
    from kerasft import unpacked

    held = stores.report(stores.cache_folder()) | unpacked.report(unpacked.photo_folder())
    print_result(held, cache_text, as_json=as_json)


@cache.command("clear")
@json_option
def clear_cache(as_json: bool) -> None:
    """Removes everything from the cache but what another kerasft is computing or reading.

    \b
    Example:
        kerasft cache clear
    """
    from kerasft import cache as stores
    from kerasft import unpacked

    number, freed = stores.clear(stores.cache_folder())
    photos, freed_photos = unpacked.clear(unpacked.photo_folder())
    result = {"removed": number, "photos": photos, "bytes": freed + freed_photos}
    print_result(result, removed_text, as_json=as_json)


@cache.command("limit")
@click.argument("size", required=False)
@json_option
def limit_cache(size: str | None, as_json: bool) -> None:
    """Says how much the cache may hold, or changes it to SIZE.

    What is over the new limit is removed, the least recently used first. Unpacked photos do not
    count: a run may be reading them.

    \b
    Example:
        kerasft cache limit 50GB
    """
    from kerasft import cache as stores
    from kerasft import sizes

    folder = stores.cache_folder()
    removed = (0, 0) if size is None else stores.set_limit(folder, sizes.parse_size(size))
    result = {"limit": stores.limit_of(folder), "removed": removed[0], "bytes": removed[1]}
    print_result(result, limit_text, as_json=as_json)
