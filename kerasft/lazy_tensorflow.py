"""TensorFlow, imported when it is first used, so that what does without it runs where it is absent.

    from kerasft.lazy_tensorflow import tf

Keras computes with JAX or PyTorch as well; TensorFlow is then needed only to read photos and to
write and open SavedModels. A module that annotates with `tf.Tensor` begins with
`from __future__ import annotations`, because annotations are a use.
"""

import functools
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kerasft.errors import UserError

__all__ = ["is_installed", "require_tensorflow", "tf"]


def is_installed() -> bool:
    """Returns whether TensorFlow can be imported; it does not import it."""
    return importlib.util.find_spec("tensorflow") is not None


@functools.cache
def require_tensorflow() -> ModuleType:
    """Imports TensorFlow.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":  # it is there, but something that it needs is not
            raise
        raise UserError(
            "TensorFlow is not installed. kerasft reads photos and SavedModels with it and writes "
            "SavedModels, whatever backend Keras computes with. Install it: pip install tensorflow."
        ) from None
    return tensorflow


class _OnFirstUse:
    """TensorFlow's module, as far as its attributes are concerned."""

    def __getattr__(self, name: str) -> Any:
        return getattr(require_tensorflow(), name)


if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = _OnFirstUse()
