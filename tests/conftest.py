"""Fixtures of all tests: the folder of real weights and photos, and a folder of drawn photos.

Environment variables are set when this file is imported, before any test imports Keras or
TensorFlow.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The C++ side of TensorFlow writes start-up notes to stderr; tests read stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Tests must not touch the user's cache of activations. This one is removed at the process's end.
_cache = tempfile.TemporaryDirectory(prefix="kerasft-tests-")
os.environ["KERASFT_CACHE"] = _cache.name
os.environ.pop("MLFLOW_TRACKING_URI", None)  # nor tell the user's MLflow of their runs

ASSETS = Path(
    os.environ.get("KERASFT_TEST_ASSETS")
    or Path(__file__).resolve().parent.parent.parent / "shared" / "assets"
)
if (ASSETS / "models").is_dir():
    # Keras reads it once, when it is imported. The folder is read-only, so that downloads fail.
    os.environ.setdefault("KERAS_HOME", str(ASSETS))

import pytest  # noqa: E402
from drawing import draw_photos  # noqa: E402

from kerasft.processes import importing  # noqa: E402

with importing():  # almost every file needs it, and what it leaves to collect slows them all
    import keras  # noqa: F401

# Files that take 10 seconds or more, the longest first (`pytest --durations=0`).
LONG = [
    "test_savedmodel",
    "test_train",
    "test_temperature",
    "test_other_backends",
    "test_prefix_pass",
    "test_weights",
    "test_compare",
    "test_fit",
    "test_ended",
    "test_solved",
    "test_build",
    "test_use",
    "test_command",
    "test_commands",
    "test_page_in_browser",
    "test_rates",
    "test_phase",
    "test_compiled",
    "test_step_precision",
    "test_check",
    "test_explain",
    "test_features",
    "test_page_routes",
    "test_predict",
    "test_images",
    "test_public_api",
    "test_caffe",
    "test_known",
    "test_find_lr",
    "test_devices",
    "test_old_runs",
    "test_litert",
    "test_without_tensorflow",
    "test_every_net",
    "test_several_nets",
    "test_head_start",
    "test_input_rule",
    "test_cells",
    "test_kinds_of_source",
    "test_solver",
    "test_bench_two_phase",
    "test_batches",
    "test_depths",
]


def pytest_configure(config: pytest.Config) -> None:
    """Lets TensorFlow not warn of what the fixture `eagerly` does."""
    config.addinivalue_line(
        "filterwarnings", "ignore:Even though the `tf.config.experimental_run:UserWarning"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first: one that comes last keeps a single process busy."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.stem) in LONG else len(LONG))


@pytest.fixture(scope="session")
def assets() -> Path:
    """Returns the folder of real weights and photos, or skips the test if there is none.

    The environment variable KERASFT_TEST_ASSETS names it; the default is `../shared/assets`,
    beside the repository. It holds `models/`, `datasets/` and `nasty/`.
    """
    if not (ASSETS / "models").is_dir():
        pytest.skip("needs real weights and photos: KERASFT_TEST_ASSETS names no such folder")
    return ASSETS


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draws photos: circle, cross and stripes, 12 each, 48 x 40 pixels; returns their folder."""
    return draw_photos(tmp_path / "photos")


@pytest.fixture(scope="module")
def tiny_backbone() -> Iterator[None]:
    """Adds a backbone to the table, "Tiny": stem, two blocks, 4 features."""
    import keras
    from tiny import TINY, tiny_constructor

    from kerasft.backbones.table import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Tiny", TINY)
        patch.setattr(keras.applications, "Tiny", tiny_constructor, raising=False)
        yield


@pytest.fixture(scope="module")
def eagerly() -> Iterator[None]:
    """Lets TensorFlow run its functions step by step: to trace them takes a third of a small run.

    It is for tests of what lies around training. test_train.py, test_fit.py, test_phase.py and
    others train by graphs, as users do.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty cache of this test's own: nothing is stored or measured in it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KERASFT_CACHE", str(folder))
    return folder
