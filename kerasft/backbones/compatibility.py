"""Checks that weights and features fit a backbone, before anything is built.

Plain rules without Keras; h5py is imported only to read for which backbone a file was written.
"""

from collections.abc import Callable
from pathlib import Path

from kerasft.backbones.spec import DEFAULTS, SEPARATOR, nets_of, parse, parse_all, same_net
from kerasft.backbones.table import BACKBONES, MODE, Backbone
from kerasft.errors import UserError

WEIGHTS = ("imagenet", "sample", "none")  # the words that do not name a file
FILES = (".h5", ".keras")


def weights_of(weights: str, count: int = 1) -> tuple[str, ...]:
    """Splits the weights of several backbones: "alexnet.h5+imagenet" makes two.

    Args:
        weights: value of `model.weights`. Only words of WEIGHTS and names that end as FILES are
            parts; any other "+" belongs to a name: "c++/alexnet.h5+imagenet", "runs/cats+dogs".
        count: number of backbones; a single part is repeated for each of them.
    """
    parts, begun = [], ""
    for piece in weights.split(SEPARATOR):
        begun += piece
        if begun.strip() in WEIGHTS or begun.strip().lower().endswith(FILES):
            parts.append(begun.strip())
            begun = ""
        else:
            begun += SEPARATOR
    if begun or not parts:  # the end is neither a word nor a file: it is one name
        parts = [weights]
    return tuple(parts * count if len(parts) == 1 else parts)


def with_files(weights: str, change: Callable[[str], str]) -> str:
    """Returns the weights with `change` applied to each part that names a file or a run."""
    parts = weights_of(weights)
    return SEPARATOR.join(part if part in WEIGHTS else change(part) for part in parts)


def check_weights(spec: str, weights: str) -> None:
    """Refuses weights for a different number of backbones, and "imagenet" where Keras has none.

    Args:
        spec: one backbone or several, as `spec.parse_all` takes them.
        weights: value of `model.weights`.

    Raises:
        UserError: one sentence (exit code 2).
    """
    nets, each = parse_all(spec), weights_of(weights)
    if len(each) not in (1, len(nets)):
        raise UserError(
            f"expected one for each backbone in {spec}, joined by '{SEPARATOR}', or one word for "
            f"all, got {len(each)}.",
            field="weights",
            exit_code=2,
        )
    for (row, options), own in zip(nets, weights_of(weights, len(nets)), strict=True):
        without = not row.published or options.get(MODE, DEFAULTS[MODE]) != DEFAULTS[MODE]
        if without and own == "imagenet":
            mode = f":{MODE}={options[MODE]}" if MODE in options else ""
            torch = row.name == "AlexNetOWT" or MODE in options
            raise UserError(
                f"Keras has no ImageNet weights for {row.name}{mode}. Import a file with "
                f"`kerasft import-{'torch' if torch else 'caffe'}` and pass the file that it "
                "writes, or use 'none'.",
                field="weights",
                exit_code=2,
            )


# Fully connected layers whose output a head may take instead of the pooled or flattened end of the
# base, by their names in the papers on AlexNet and VGG.
FULLY_CONNECTED = ("fc6", "fc7")

# Features of all depths: the outputs of every block, averaged over all positions, side by side.
# Source: Evci et al. 2022, "Head2Toe: Utilizing Intermediate Representations for Better Transfer
# Learning" (ICML).
DEPTHS = "depths"


def check_features(
    spec: str, features: str, *, leave_out: int, weights: str, image_size: int
) -> None:
    """Refuses features that one of the backbones does not have.

    Args:
        spec: one backbone or several, as `spec.parse_all` takes them.
        features: "pooled", "flat", DEPTHS or one of FULLY_CONNECTED.
        leave_out: number of blocks that are left out, from the top.
        weights: value of `model.weights`; the top of "imagenet" fits a single image size.
        image_size: side of the model's images, pixels.

    Raises:
        UserError: one sentence (exit code 2).
    """
    nets = nets_of(spec, image_size)
    for (one, side), own in zip(nets, weights_of(weights, len(nets)), strict=True):
        wrong = _misfit(parse(one)[0], features, leave_out, own, side)
        if wrong:
            raise UserError(wrong, field="head", exit_code=2)


def _misfit(row: Backbone, features: str, leave_out: int, weights: str, side: int) -> str:
    """Returns why one backbone cannot give the features, as a sentence; "" if it can."""
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
            f"features '{features}' come from an inner fully connected layer, which {row.name} "
            f"does not have. Use 'pooled' or 'flat', or one of the backbones {having}."
        )
    if weights == "imagenet" and side != row.image_size:
        return (
            f"with features '{features}' the ImageNet weights need {row.image_size} pixels a side, "
            f"got {side}. Leave image_size out, or use 'pooled' or 'flat'."
        )
    if leave_out:
        return (
            f"leave_out works only with features 'pooled', 'flat' and 'depths', got {leave_out} "
            f"with '{features}'. Remove it."
        )
    return ""


SPEC = "kerasft_backbone"  # HDF5 attribute that names the backbone of a weights file


def backbone_of(path: str | Path) -> str | None:
    """Returns the backbone for which a weights file was written; None if it does not say."""
    import h5py  # takes a tenth of a second, for which `kerasft backbones` need not wait

    try:
        with h5py.File(path, "r") as file:
            spec = file.attrs.get(SPEC)
    except (OSError, KeyError, RuntimeError, ValueError):  # not there, not HDF5, or damaged
        return None
    return spec if isinstance(spec, str) else None


def check_backbone(path: Path, spec: str) -> None:
    """Refuses a file that was written for another backbone, even one with the same shapes.

    Raises:
        UserError: the file names a backbone other than `spec`.
    """
    written = backbone_of(path)
    if written is not None and not same_net(written, spec):
        raise UserError(
            f"{path}: holds weights of {written}, got backbone {spec}. Leave the backbone out, or "
            f"pass `model.backbone={written}`."
        )
