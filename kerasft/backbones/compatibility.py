"""What goes with a backbone, checked before anything is built: its weights, its features.

Plain rules without Keras; h5py is imported only to read which backbone a file was written for.
"""

from collections.abc import Callable
from pathlib import Path

from kerasft.backbones.spec import DEFAULTS, SEPARATOR, nets_of, parse, parse_all, same_net
from kerasft.backbones.table import BACKBONES, MODE, Backbone
from kerasft.errors import UserError

WEIGHTS = ("imagenet", "sample", "none")  # that are no file
FILES = (".h5", ".keras")


def weights_of(weights: str, count: int = 1) -> tuple[str, ...]:
    """The weights of each of several backbones: "alexnet.h5+imagenet" is two.

    Args:
        weights: as in the config; joined are only words of WEIGHTS and names that end as `FILES`.
            Any other "+" is a part of a name: "c++/alexnet.h5+imagenet", "runs/cats+dogs".
        count: of the backbones; one for all of them is repeated.
    """
    parts, begun = [], ""
    for piece in weights.split(SEPARATOR):
        begun += piece
        if begun.strip() in WEIGHTS or begun.strip().lower().endswith(FILES):
            parts.append(begun.strip())
            begun = ""
        else:
            begun += SEPARATOR
    if begun or not parts:  # the last one is neither
        parts = [weights]
    return tuple(parts * count if len(parts) == 1 else parts)


def with_files(weights: str, change: Callable[[str], str]) -> str:
    """The same weights with every one that is no word of WEIGHTS changed: a path, for instance."""
    parts = weights_of(weights)
    return SEPARATOR.join(part if part in WEIGHTS else change(part) for part in parts)


def check_weights(spec: str, weights: str) -> None:
    """Refuses weights for another number of backbones, and ImageNet's where Keras has none.

    Args:
        spec: see `spec.parse_all`.
        weights: as in the config, for as many backbones.

    Raises:
        UserError: one sentence (exit code 2).
    """
    nets, each = parse_all(spec), weights_of(weights)
    if len(each) not in (1, len(nets)):
        raise UserError(
            f"weights: expected those of each backbone in {spec}, joined by '{SEPARATOR}', or one "
            f"word for all, got {len(each)}.",
            exit_code=2,
        )
    for (row, options), own in zip(nets, weights_of(weights, len(nets)), strict=True):
        without = not row.published or options.get(MODE, DEFAULTS[MODE]) != DEFAULTS[MODE]
        if without and own == "imagenet":
            mode = f":{MODE}={options[MODE]}" if MODE in options else ""
            torch = row.name == "AlexNetOWT" or MODE in options
            raise UserError(
                f"weights: Keras has no ImageNet weights of {row.name}{mode}. Import a file with "
                f"`kerasft import-{'torch' if torch else 'caffe'}` and name what it wrote, or take "
                "'none'.",
                exit_code=2,
            )


# What a head may take of a backbone besides its pooled or flattened end: fully connected layers,
# by the names that they have in the papers on AlexNet and VGG.
FULLY_CONNECTED = ("fc6", "fc7")


def check_features(
    spec: str, features: str, *, leave_out: int, weights: str, image_size: int
) -> None:
    """Refuses what can't be taken of one of these backbones.

    Args:
        spec: see `spec.parse_all`.
        features: "pooled", "flat" or one of `FULLY_CONNECTED`.
        leave_out: blocks from the top that are left away.
        weights: as in the config; ImageNet's have a top for one side only.
        image_size: of the model, pixels.

    Raises:
        UserError: one sentence (exit code 2).
    """
    nets = nets_of(spec, image_size)
    for (one, side), own in zip(nets, weights_of(weights, len(nets)), strict=True):
        wrong = _misfit(parse(one)[0], features, leave_out, own, side)
        if wrong:
            raise UserError(f"head: {wrong}", exit_code=2)


def _misfit(row: Backbone, features: str, leave_out: int, weights: str, side: int) -> str:
    """What can't be taken of one backbone, as a sentence; "" if all can."""
    if features not in FULLY_CONNECTED:
        if leave_out < row.blocks:
            return ""
        return (
            f"{row.name} has {row.blocks} blocks, so leave_out is at most {row.blocks - 1}, got "
            f"{leave_out}. `kerasft blocks {row.name}` lists them."
        )
    if not row.fully_connected:
        having = ", ".join(one.name for one in BACKBONES.values() if one.fully_connected)
        return (
            f"features '{features}' are those of an inner fully connected layer, and {row.name} "
            f"has none. Take 'pooled' or 'flat', or one of the backbones {having}."
        )
    if weights == "imagenet" and side != row.image_size:
        return (
            f"the ImageNet weights of features '{features}' are for {row.image_size} pixels a "
            f"side, got {side}. Leave image_size out, or take 'pooled' or 'flat'."
        )
    if leave_out:
        return (
            f"leave_out goes with features 'pooled' and 'flat', got {leave_out} with "
            f"'{features}'. Leave it out."
        )
    return ""


SPEC = "kerasft_backbone"  # attribute of the file


def backbone_of(path: str | Path) -> str | None:
    """The backbone that a weights file was written for; None where the file does not say."""
    import h5py  # takes a tenth of a second, which `kerasft backbones` need not wait for

    try:
        with h5py.File(path, "r") as file:
            spec = file.attrs.get(SPEC)
    except (OSError, KeyError, RuntimeError, ValueError):  # not there, not HDF5, or damaged
        return None
    return spec if isinstance(spec, str) else None


def check_backbone(path: Path, spec: str) -> None:
    """Refuses a file that was written for another backbone, whose shapes may be the same.

    Raises:
        UserError: it was.
    """
    written = backbone_of(path)
    if written is not None and not same_net(written, spec):
        raise UserError(
            f"{path}: holds weights of {written}, got backbone {spec}. Leave the backbone out, or "
            f"pass --backbone {written}."
        )
