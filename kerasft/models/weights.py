"""Weights of backbones: those of ImageNet, which Keras downloads, and those in files of users.

If a file does not fit a net, the error lists the names that are on one side only.
"""

import http.client
import logging
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kerasft.backbones.chains import CHAINS
from kerasft.backbones.compatibility import check_backbone
from kerasft.backbones.imagenet_files import models_folder
from kerasft.errors import UserError, first_line
from kerasft.models.bundle import load_keras

logger = logging.getLogger(__name__)

# The weights in the package, float16; scripts/pretrain_sample.py made them.
SAMPLE = Path(__file__).with_name("sample_weights.h5")


@contextmanager
def imagenet_files(spec: str, image_size: int) -> Iterator[None]:
    """Lets Keras find or download its files in the block; a failure becomes a UserError.

    Keras prints its downloads to stdout; they go to stderr here, because stdout is for results.

    Args:
        spec: the backbone as the user wrote it.
        image_size: side of its input in pixels.

    Raises:
        UserError: a file is not available (the message names file, folder and address) or is
            damaged, or the constructor refuses its arguments.
    """
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(sys.stderr):
        warnings.simplefilter("always")
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise UserError(_trouble(spec, error)) from error
        except (ValueError, TypeError, OverflowError) as error:
            if "corrupted file" in str(error):  # the digest of a finished download is wrong
                raise UserError(_trouble(spec, error)) from error
            raise UserError(f"backbone '{spec}': Keras refuses it. {error}", exit_code=2) from error
        except Exception as error:
            # Keras raises a bare Exception for a download that fails (`get_file`).
            if "URL fetch failure" not in str(error):
                raise
            raise UserError(_trouble(spec, error)) from error
    for warning in caught:
        if "will be loaded as the default" in str(warning.message):
            # MobileNets warn for every side without weights of its own. All other backbones have
            # weights for one side only, so this is worth a sentence, not a Python warning.
            logger.info(
                "%s has no ImageNet weights for %d pixels a side; those for 224 pixels are used.",
                spec,
                image_size,
            )
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _trouble(spec: str, error: Exception) -> str:
    """Returns the message for missing or damaged files: what to put where."""
    folder = models_folder()
    failed = re.search(r"URL fetch failure on (\S+): (?:None -- )?(.*)", str(error), re.DOTALL)
    if failed:
        address, reason = failed.groups()
        return (
            f"weights: the ImageNet files of {spec} are not here and can't be downloaded: "
            f"{reason.strip()}.\n"
            f"  Put the file {address.rsplit('/', 1)[-1]}\n"
            f"  into the folder {folder}\n"
            f"  (KERAS_HOME/models, if KERAS_HOME is set and can be written to). It comes from\n"
            f"  {address}\n"
            "  Or choose other weights: 'sample' (in the package, to try it out), 'none' or a file."
        )
    message = f"weights: the ImageNet files of {spec} can't be loaded: {error}.\n"
    damaged = [path.name for path in sorted(folder.glob("*.h5")) if not _opens(path)]
    if damaged:
        names = ", ".join(damaged)
        return f"{message}  Damaged in {folder}: {names}. Delete it, to download it again."
    return f"{message}  Keras keeps them in {folder}."


def _opens(path: Path) -> bool:
    try:
        h5py.File(path).close()
    except OSError:
        return False
    return True


Arrays = list[tuple[str, Any]]  # (name of the layer, one of its arrays), in the net's order


def load_file(net: keras.Model, path: Path, *, name: str) -> None:
    """Fills a freshly built net from a file.

    Weights of a top, behind the net's last layer, are not used, and the log says so.

    Args:
        net: the net, with all layers trainable, as they are built: the order of weights in .h5
            files depends on that.
        path: an existing file. Its kind is told from its contents: HDF5 as Keras 2 and Keras
            Applications write it, `.weights.h5` of Keras 3, or a `.keras` model.
        name: name of the net in messages.

    Raises:
        UserError: the file is of another kind, damaged, or does not fit. Discard the net then: it
            may be partly filled.
    """
    check_backbone(path, name)
    wanted = _arrays(net)
    if zipfile.is_zipfile(path):
        donor = _open_model(path)
        _check_scaling(net, donor, path, name)
        if name.partition(":")[0] in CHAINS:
            _check_chain(net, donor, path, name)
        _fill(wanted, _arrays(donor), path, name)
    elif h5py.is_hdf5(path):
        try:
            with h5py.File(path, "r") as file:
                _refuse_links(file, path)
                group = file.get("model_weights", file)
                if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                    _fill(_legacy_arrays(net), _stored(group), path, name)
                else:
                    _fill_from_keras3(net, file, path, name)
        except UserError:
            raise
        except Exception as error:  # whatever HDF5 and its layers come up with for damage
            raise UserError(f"{path}: is damaged: {first_line(error)}.") from error
    else:
        raise UserError(
            f"{path}: expected weights (.h5, .weights.h5) or a model (.keras), got neither; or "
            "the file is damaged."
        )
    for layer in net.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # recomputes what its `call` uses


def _refuse_links(file: h5py.File, path: Path) -> None:
    """Refuses a file that reads numbers from other files of this machine.

    Source: HDF5's external links, external storage and virtual datasets, which h5py follows without
        a word; Keras refuses them in its own files (CVE-2025-9905 and its kin).
    """
    waiting: list[h5py.Group] = [file]
    seen = set()  # a link may lead back to a group above it
    while waiting:
        group = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:
            continue
        seen.add(place)
        for name in group:
            link = group.get(name, getlink=True)
            elsewhere = isinstance(link, h5py.ExternalLink)
            # What a soft link names is looked at where it lies.
            member = None if isinstance(link, h5py.ExternalLink | h5py.SoftLink) else group[name]
            if isinstance(member, h5py.Dataset):
                elsewhere = member.external is not None or member.is_virtual
            elif isinstance(member, h5py.Group):
                waiting.append(member)
            if elsewhere:
                raise UserError(
                    f"{path}: '{group.name.rstrip('/')}/{name}' lies in another file, to which "
                    "this one links. Weights are read from a single file only: copy them into it."
                )


def _layers(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _arrays(model: keras.Model) -> Arrays:
    return [(layer.name, weight) for layer in _layers(model) for weight in layer.weights]


def _legacy_arrays(model: keras.Model) -> Arrays:
    """Lists the arrays in the order of HDF5 files: within a layer, trainable weights come first.

    Source: `_legacy_weights` in keras/src/legacy/saving/legacy_h5_format.py.
    """
    return [
        (layer.name, weight)
        for layer in model.layers
        for weight in layer.trainable_weights + layer.non_trainable_weights
    ]


def _stored(group: Any) -> Arrays:
    return [
        (layer, group[layer][weight])
        for layer in _strings(group, "layer_names")
        for weight in _strings(group[layer], "weight_names")
    ]


def _strings(group: Any, name: str) -> list[str]:
    """Reads a list of names, which Keras splits over name0, name1, ... when it is long."""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    found = [text for part in parts for text in group.attrs[part]]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in found]


def _open_model(path: Path) -> keras.Model:
    try:
        return load_keras(path)
    except ValueError as error:
        raise UserError(f"{path}: Keras can't open it as a model: {error}") from error


def _check_scaling(net: keras.Model, donor: keras.Model, path: Path, name: str) -> None:
    """Refuses an EfficientNet that was trained without ImageNet's second Rescaling."""
    ours, theirs = _normalizers(net), _normalizers(donor)
    # A head may have such layers too; they come last.
    if keras.layers.Normalization in theirs and ours != theirs[: len(ours)]:
        said = [", ".join(kind.__name__ for kind in kinds) for kinds in (ours, theirs)]
        raise UserError(
            f"{path}: was trained on pixels that are scaled differently: {name} begins with "
            f"{said[0]}, the file's model with {said[1]}."
        )


def _check_chain(net: keras.Model, donor: keras.Model, path: Path, name: str) -> None:
    """Refuses a model that has weights of the same shapes but other operations.

    AlexNet and CaffeNet share their shapes, and so do VGGs with different scaling of the pixels.
    """
    before, chain = _kinds(net)
    before_it, its_chain = _kinds(donor)
    scaled_otherwise = before_it and before_it != before  # Keras' own nets have nothing there
    if scaled_otherwise or its_chain[: len(chain)] != chain:
        what = "has its layers in a different order"
        if scaled_otherwise:
            what = "scales pixels differently"
        raise UserError(f"{path}: is not a model of {name}: it {what}.")


def _kinds(model: keras.Model) -> tuple[list[str], list[str]]:
    """Lists the kinds of operations before the first weights, and from there to the last ones."""
    operations = [o for o in model.operations if not isinstance(o, keras.layers.InputLayer)]
    kinds = [type(operation).__name__ for operation in operations]
    weighty = [i for i, o in enumerate(operations) if getattr(o, "weights", [])]
    if not weighty:
        return kinds, []
    return kinds[: weighty[0]], kinds[weighty[0] : weighty[-1] + 1]


def _normalizers(model: keras.Model) -> list[type]:
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return [type(layer) for layer in _layers(model) if isinstance(layer, kinds)]


def _fill(wanted: Arrays, stored: Arrays, path: Path, name: str) -> None:
    fits = len(stored) >= len(wanted) and all(
        tuple(mine.shape) == tuple(its.shape)
        for (_, mine), (_, its) in zip(wanted, stored, strict=False)
    )
    if not fits:
        raise UserError(_difference(wanted, stored, path, name))
    for (_, mine), (_, its) in zip(wanted, stored, strict=False):
        mine.assign(np.asarray(its))
    if left_out := list(dict.fromkeys(layer for layer, _ in stored[len(wanted) :])):
        logger.info("%s: the top is not used: %s.", path, ", ".join(left_out))


def _fill_from_keras3(net: keras.Model, file: Any, path: Path, name: str) -> None:
    """Fills a net from a file of Keras 3, whose paths are made of layers' classes, not names."""
    if not path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: holds weights of Keras 3; its name must end in .weights.h5.")
    try:
        with warnings.catch_warnings():
            # For some layers that it could not fill, Keras only warns.
            warnings.filterwarnings("error", "Skipping nested container")
            net.load_weights(path)
    except (ValueError, UserWarning) as error:
        stored: Arrays = []

        def visit(place: str, group: Any) -> None:
            if place.endswith("vars"):
                layer = str(group.attrs.get("name", place))
                stored.extend((layer, group[key]) for key in sorted(group, key=int))

        file.visititems(visit)
        raise UserError(_difference(_arrays(net), stored, path, name)) from error


def _difference(wanted: Arrays, stored: Arrays, path: Path, name: str) -> str:
    """Returns the message that lists names on one side only, and different shapes."""
    mine, its = _shapes(wanted), _shapes(stored)
    differ = [
        f"{layer} ({name} {_written(mine[layer])}, file {_written(its[layer])})"
        for layer in mine
        if layer in its and mine[layer] != its[layer]
    ]
    lines = [
        _listed(f"only in {name}", [layer for layer in mine if layer not in its]),
        _listed("only in the file", [layer for layer in its if layer not in mine]),
        _listed("different shapes", differ),
    ]
    if not any(lines):
        lines = ["  the same names in another order"]
    return "\n".join([f"{path}: does not fit {name}:", *filter(None, lines)])


AUTO_NAMES = re.compile(
    r"((?:separable_|depthwise_)?conv2d|(?:(?:batch|layer)_)?normalization|dense)(_\d+)?"
)


def _shapes(arrays: Arrays) -> dict[str, list[tuple[int, ...]]]:
    """Maps each layer to its shapes; auto-named layers are renumbered in their order."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    stable: dict[str, str] = {}
    counts: dict[str, int] = {}
    for layer, array in arrays:
        auto = AUTO_NAMES.fullmatch(layer)
        if auto and layer not in stable:
            counts[auto[1]] = counts.get(auto[1], 0) + 1
            stable[layer] = f"{auto[1]} number {counts[auto[1]]}"
        shapes.setdefault(stable.get(layer, layer), []).append(tuple(array.shape))
    return shapes


def _written(shapes: Iterable[tuple[int, ...]]) -> str:
    return " ".join("x".join(str(side) for side in shape) or "scalar" for shape in shapes)


def _listed(title: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"  {title}: {', '.join(names[:10])}{more}"
