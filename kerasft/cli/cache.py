"""`kerasft cache`: stored activations and unpacked photos, listed, cleared, limited."""

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kerasft.cli.options import json_option, print_result
from kerasft.errors import UserError
from kerasft.text import count, size_text

if TYPE_CHECKING:
    from kerasft.activations.eviction import HeldTensors, StoreReport
    from kerasft.data.facts import FactReport
    from kerasft.pixels.convert import Converted
    from kerasft.unpacked import PhotoReport


@click.group()
def cache() -> None:
    """Shows, limits and empties the cache of activations and unpacked photos.

    The features that frozen blocks compute from photos are stored for later runs, in the folder
    KERASFT_CACHE, or by default in the user's cache folder. The photos of zip and tar files and of
    TensorFlow Datasets are unpacked there, too, and the facts of photos are remembered, so that
    unchanged ones are not read again.

    \b
    Example:
        kerasft cache list
    """


@cache.command("list")
@json_option
def list_cache(as_json: bool) -> None:
    """Lists the contents of the cache, most recently used first.

    \b
    Example:
        kerasft cache list
    """
    from kerasft import unpacked
    from kerasft.activations import eviction
    from kerasft.cache import cache_folder
    from kerasft.data import facts
    from kerasft.pixels import convert

    stores = eviction.report(cache_folder())
    photos = unpacked.report(unpacked.photo_folder())
    known, converted = facts.report(), convert.report()
    held = {**stores.to_json(), **photos.to_json(), **known.to_json(), **converted.to_json()}
    print_result(held, lambda _: cache_text(stores, photos, known, converted), as_json=as_json)


@cache.command("clear")
@json_option
def clear_cache(as_json: bool) -> None:
    """Removes everything from the cache that no other kerasft process is using.

    \b
    Example:
        kerasft cache clear
    """
    from kerasft import unpacked
    from kerasft.activations import eviction
    from kerasft.cache import cache_folder
    from kerasft.data import facts
    from kerasft.pixels import convert

    number, freed = eviction.clear(cache_folder())
    photos, freed_photos = unpacked.clear(unpacked.photo_folder())
    freed += freed_photos + facts.forget().fact_bytes + convert.clear().converted_bytes
    result = {"removed": number, "photos": photos, "bytes": freed}
    print_result(result, removed_text, as_json=as_json)


@cache.command("limit")
@click.argument("size", required=False)
@json_option
def limit_cache(size: str | None, as_json: bool) -> None:
    """Shows the size limit of the cache, or changes it to SIZE.

    If the cache exceeds the new limit, the least recently used features are removed. The limit
    does not apply to unpacked photos, because a run may be reading them.

    \b
    Example:
        kerasft cache limit 50GB
    """
    from kerasft.activations import eviction
    from kerasft.cache import cache_folder

    folder = cache_folder()
    removed = (0, 0) if size is None else eviction.set_limit(folder, parse_size(size))
    result = {"limit": eviction.limit_of(folder), "removed": removed[0], "bytes": removed[1]}
    print_result(result, limit_text, as_json=as_json)


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Returns the number of bytes in a text such as "20GB", "1.5 tb" or "1000000".

    Raises:
        UserError: the text is not a size. Exit code 2.
    """
    # The number of digits is limited so that a float can hold them.
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?) ?([kmgt]?b|)", text.strip(), re.I | re.A)
    if match is None:
        raise UserError(
            f"SIZE: expected a number with kB, MB, GB or TB, such as 20GB, or plain bytes, "
            f"got '{text}'.",
            exit_code=2,
        )
    return round(float(match[1]) * _UNITS[match[2].upper()])


def cache_text(
    held: "StoreReport", unpacked: "PhotoReport", known: "FactReport", converted: "Converted"
) -> str:
    """Writes a line per net and cut and per source of unpacked photos, then their total sizes."""
    title = ("backbone", "cut", "photos", "views", "dtype", "size", "last used")
    rows = [title, *(_row(tensors) for tensors in held.tensors)]
    width = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = [
        f"{backbone:<{width[0]}}  {cut:<{width[1]}}  {photos:>{width[2]}}  {views:>{width[3]}}  "
        f"{dtype:<{width[4]}}  {size:>{width[5]}}  {used}"
        for backbone, cut, photos, views, dtype, size, used in rows
    ]
    unpacked_photos = [
        f"{one.name}: {count(one.files, 'file')} unpacked, {size_text(one.bytes)}, last used "
        f"{_time_text(one.used)}"
        for one in unpacked.photos
    ]
    total = [f"{size_text(held.bytes)} of at most {size_text(held.limit)} in {held.folder}"]
    if unpacked_photos:
        total.append(
            f"and {size_text(unpacked.photo_bytes)} of unpacked photos, which the limit does not "
            "include"
        )
    if known.fact_folders:
        folders = count(known.fact_folders, "folder")
        total.append(f"and {size_text(known.fact_bytes)} of facts of the photos in {folders}")
    if converted.converted_files:
        files = count(converted.converted_files, "converted photo")
        total.append(f"and {size_text(converted.converted_bytes)} of {files}")
    parts = (lines if held.tensors else [], unpacked_photos, total)
    return "\n\n".join("\n".join(part) for part in parts if part)


def _row(tensors: "HeldTensors") -> tuple[str, ...]:
    """Writes the cells of a net and cut, "unknown" for facts that were lost."""
    return (
        str(tensors.facts.get("backbone", "unknown")),
        _cut_text(tensors.facts),
        f"{tensors.photos:,}" if tensors.photos else "unknown",
        f"{tensors.views:,}" if tensors.views else "unknown",
        tensors.dtype or "damaged",
        size_text(tensors.bytes),
        _time_text(tensors.used),
    )


def _cut_text(facts: Mapping[str, Any]) -> str:
    """Writes a cut: a number of blocks from the top, or the kind of features."""
    blocks, leave_out = facts.get("blocks"), facts.get("leave_out")
    kind = facts.get("features")
    if blocks is None:
        return "unknown"
    if blocks:
        return f"{blocks} from the top"
    place = f" {leave_out} from the top" if leave_out else ""
    return f"{kind} features{place}" if kind else f"features{place}"


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def removed_text(result: Mapping[str, Any]) -> str:
    """Writes what `cache clear` has removed."""
    number, photos = result["removed"], result.get("photos", 0)
    stores = "1 store" if number == 1 else f"{number:,} stores"
    if photos:
        stores += " and the photos of " + ("1 source" if photos == 1 else f"{photos:,} sources")
    return f"Removed {stores}, {size_text(result['bytes'])}."


def limit_text(result: Mapping[str, Any]) -> str:
    """Writes the limit of the cache, and what was removed to keep it."""
    limit = f"The cache may hold {size_text(result['limit'])}."
    return f"{limit} {removed_text(result)}" if result["removed"] else limit
