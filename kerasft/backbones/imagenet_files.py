"""The files of ImageNet weights: the names that Keras gives them, and which are on this machine.

Plain rules without Keras, so that `kerasft backbones` answers in an instant.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kerasft.backbones.compatibility import check_weights
from kerasft.backbones.spec import parse
from kerasft.backbones.table import BACKBONES, Backbone
from kerasft.results import Result

# Module -> name of the file of a base without its top, as in the constructors of
# keras/src/applications. A test lets each of them request its file.
_KERNELS = "weights_tf_dim_ordering_tf_kernels"
_FILES = {
    "mobilenet": "mobilenet_{tenths}_{side}_tf_no_top.h5",
    "mobilenet_v2": f"mobilenet_v2_{_KERNELS}_{{alpha}}_{{side}}_no_top.h5",
    "mobilenet_v3": "weights_mobilenet_v3_{kind}{minimalistic}_224_{alpha}_float_no_top_v2.h5",
    "efficientnet": "{name}_notop.h5",
    "efficientnet_v2": "efficientnetv2-{kind}_notop.h5",
    "convnext": "convnext_{kind}_notop.h5",
    "inception_v3": f"inception_v3_{_KERNELS}_notop.h5",
    "inception_resnet_v2": f"inception_resnet_v2_{_KERNELS}_notop.h5",
    "nasnet": "nasnet_{kind}_no_top.h5",
}
_OTHER_FILES = f"{{name}}_{_KERNELS}_notop.h5"  # VGG, ResNet, DenseNet, Xception

_SIDES = {"mobilenet": (128, 160, 192, 224), "mobilenet_v2": (96, 128, 160, 192, 224)}
_TENTHS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}

BYTES_PER_PARAMETER = 4  # float32; names and headers add a few per cent


def models_folder() -> Path:
    """Returns the folder in which Keras keeps weights, by the rules of `keras.utils.get_file`."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    there = next(place for place in (home, *home.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        # Keras creates a missing folder, and ignores one to which it can't write, even if there
        # are files in it.
        home = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / ".keras"
    return home / "models"


def weights_file(spec: str, image_size: int) -> str:
    """Returns the name of the file that holds the ImageNet weights of a base.

    Args:
        spec: a backbone of the table, plain or with one of its `variants`.
        image_size: side of the input in pixels. MobileNets have weights for several sides; for
            any other side the weights for 224 are used.

    Raises:
        UserError: Keras has no weights of it (exit code 2).
    """
    check_weights(spec, "imagenet")
    backbone, options = parse(spec)
    name, alpha = backbone.name.lower(), options.get("alpha", 1.0)
    return _FILES.get(backbone.module, _OTHER_FILES).format(
        name=name,
        kind=name.removeprefix(backbone.module.replace("_", "")),
        alpha=alpha,
        tenths=_TENTHS.get(float(alpha)),
        minimalistic="_minimalistic" if options.get("minimalistic") else "",
        side=image_size if image_size in _SIDES.get(backbone.module, ()) else 224,
    )


@dataclass(frozen=True)
class Variant(Result):
    """Options of a backbone for which there are ImageNet weights.

    Attributes:
        spec: backbone with the options, "MobileNet:alpha=0.75".
        on_this_machine: whether the file of the weights is here.
    """

    spec: str
    on_this_machine: bool


@dataclass(frozen=True)
class ListedBackbone(Result):
    """A row of `kerasft backbones`; other attributes are those of `table.Backbone`.

    Attributes:
        download_bytes: approximate size of the file of the ImageNet weights; None where weights
            have to be imported.
        on_this_machine: whether the file of the weights for `image_size` is here.
        variants: options with weights of their own.
    """

    name: str
    image_size: int
    min_size: int
    parameters: int
    features: int
    blocks: int
    download_bytes: int | None
    on_this_machine: bool
    options: tuple[str, ...]
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class BackboneList(Result):
    """The rows of `kerasft backbones`, and the folder in which Keras keeps the weights."""

    folder: Path
    backbones: tuple[ListedBackbone, ...]


def list_backbones() -> BackboneList:
    """Lists the table, and which ImageNet weights are on this machine. Builds nothing."""
    folder = models_folder()
    return BackboneList(folder, tuple(_listed(row, folder) for row in BACKBONES.values()))


def _listed(backbone: Backbone, folder: Path) -> ListedBackbone:
    def is_here(spec: str) -> bool:
        return (folder / weights_file(spec, backbone.image_size)).is_file()

    specs = [f"{backbone.name}:{variant}" for variant in backbone.variants]
    return ListedBackbone(
        name=backbone.name,
        image_size=backbone.image_size,
        min_size=backbone.min_size,
        parameters=backbone.parameters,
        features=backbone.features,
        blocks=backbone.blocks,
        download_bytes=BYTES_PER_PARAMETER * backbone.parameters if backbone.published else None,
        on_this_machine=backbone.published and is_here(backbone.name),
        options=backbone.options,
        variants=tuple(Variant(spec, is_here(spec)) for spec in specs),
    )
