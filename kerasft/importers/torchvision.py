"""`kerasft import-torch`: converts torchvision's AlexNet and VGG to a file for `model.weights`."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasft.backbones.chains import torch_names
from kerasft.errors import UserError
from kerasft.importers.weights_writer import Imported, Weights, check_target, import_weights
from kerasft.progress import Progress, silent

# Value of `backbone` -> key of CHAINS, and the backbone that the weights are for.
FROM_TORCH = {
    "alexnet": ("AlexNetOWT", "AlexNetOWT"),
    "vgg16": ("VGG16", "VGG16:mode=torch"),
    "vgg19": ("VGG19", "VGG19:mode=torch"),
}
TYPES = ("F16", "F32", "F64")  # the types that NumPy has too, so not BF16
PARALLEL = "module."  # prefix that DataParallel adds to all names


def import_torch(file: Path, backbone: str, to: Path, *, progress: Progress = silent) -> Imported:
    """Converts a state dict of torchvision to a file for `model.weights`.

    Args:
        file: path of the state dict, saved as .safetensors.
        backbone: the net, a key of FROM_TORCH. The result is for a separate backbone, which
            scales red, green and blue as PyTorch does.
        to: path of the file that is written; it ends in ".h5".
        progress: function that is told of each layer; stage "import".

    Raises:
        UserError: a file of a different kind or of a different net; safetensors is not
            installed (exit code 2).
    """
    chain, spec = FROM_TORCH[backbone]
    check_target(to)
    names = torch_names(chain)
    with _opened(file) as tensors:
        keys = set(tensors.keys())
        prefix = PARALLEL if all(key.startswith(PARALLEL) for key in keys) else ""
        found = {
            source: Weights(name, kernel, bias)
            for source, name in names.items()
            if (kernel := _part(tensors, f"{prefix}{name}.weight", keys, file))
            and (bias := _part(tensors, f"{prefix}{name}.bias", keys, file))
        }
        result = import_weights(chain, spec, found, to, where=file, progress=progress)
    known = {f"{prefix}{w.name}.{kind}" for w in found.values() for kind in ("weight", "bias")}
    return replace(result, unused=tuple(sorted(keys - known)))


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Opens the tensors of a file, which are read when they are sliced."""
    if not os.path.isfile(file):
        raise UserError(f"there is no file {file}.", exit_code=2)
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            "import-torch needs the package safetensors: pip install 'kerasft[torch-weights]'.",
            exit_code=2,
        )
    from safetensors import SafetensorError, safe_open

    try:
        with file.open("rb") as opened:
            start = opened.read(4)
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror}.") from error
    if start[:2] in (b"PK", b"\x80\x02"):
        raise UserError(
            f"{file}: is a pickle of PyTorch, which could run any code. Convert it where PyTorch "
            'is: python -c "import torch, safetensors.torch as s; '
            "s.save_file(torch.load('IN.pth', weights_only=True), 'OUT.safetensors')\"."
        )
    try:
        tensors = safe_open(file, framework="numpy")
    except SafetensorError as error:
        raise UserError(
            f"{file}: expected a safetensors file, got another or a damaged one: {error}."
        ) from error
    with tensors as opened_tensors:
        yield opened_tensors


class _Slice:
    """A tensor of the file; only the parts that are sliced are read."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.shape = tuple(tensor.get_shape())

    def __getitem__(self, outputs: slice) -> np.ndarray:
        return np.asarray(self._tensor[outputs])


def _part(tensors: Any, key: str, keys: set[str], file: Path) -> _Slice | None:
    if key not in keys:
        return None
    tensor = tensors.get_slice(key)
    if tensor.get_dtype() not in TYPES:
        raise UserError(
            f"{file}: {key} is of type {tensor.get_dtype()}, expected one of {', '.join(TYPES)}. "
            "Convert it to float32 before it is saved."
        )
    return _Slice(tensor)
