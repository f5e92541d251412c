"""What every test may use: the folder of real weights and photos, and a set of drawn photos.

Variables are set when this file is imported, before any test imports keras or tensorflow.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The C++ side of TensorFlow writes start-up notes to stderr; tests read stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Activations are cached per user; tests leave that cache alone. Removed when the process ends.
_cache = tempfile.TemporaryDirectory(prefix="kerasft-tests-")
os.environ["KERASFT_CACHE"] = _cache.name

ASSETS = Path(
    os.environ.get("KERASFT_TEST_ASSETS")
    or Path(__file__).resolve().parent.parent.parent / "shared" / "assets"
)
if (ASSETS / "models").is_dir():
    # Keras reads it once, when it is imported. The folder is read-only: a download would
    # fail, and so it should.
    os.environ.setdefault("KERAS_HOME", str(ASSETS))

import pytest  # noqa: E402
from drawing import draw_photos  # noqa: E402


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and photos; the test is skipped where there is none.

    It is named by the environment variable KERASFT_TEST_ASSETS, or lies in
    `../shared/assets` beside the repository: `models/`, `datasets/`, `nasty/`.
    """
    if not (ASSETS / "models").is_dir():
        pytest.skip("needs real weights and photos: KERASFT_TEST_ASSETS names no such folder")
    return ASSETS


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder per class of drawn images: circle, cross and stripes, 12 each, 48 x 40 pixels."""
    return draw_photos(tmp_path / "photos")


@pytest.fixture(scope="module")
def tiny_backbone() -> Iterator[None]:
    """A row of the table like any other, "Tiny": stem, two blocks, 4 features."""
    import keras
    from tiny import TINY, tiny_constructor

    from kerasft.backbones.table import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Tiny", TINY)
        patch.setattr(keras.applications, "Tiny", tiny_constructor, raising=False)
        yield
