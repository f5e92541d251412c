"""What model.keras alone knows of a photo: its heat map, and whether it is unlike training photos.

An export has no gradients and no features. A run has its model.keras beside it, which is opened
after the start, in a thread of its own, so that predictions do not wait for it.
"""

from __future__ import annotations

import asyncio
import functools
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.exceptions import HTTPException

from kerasft import run
from kerasft.errors import UserError, did_you_mean
from kerasft.files import digest_of_file
from kerasft.run import Run
from kerasft.serving.signatures import warm_up_image

if TYPE_CHECKING:
    from kerasft.models.bundle import Bundle
    from kerasft.novelty.known import Known

_T = TypeVar("_T")
Mark = tuple[tuple[int, int] | None, ...]

MOST = 8
"""Largest number of photos that wait for their heat map."""
MOST_COMPARED = 64
"""Largest number of photos that wait to be compared with the training photos, which is fast."""


class Insight:
    """A run's model.keras, opened when it is needed."""

    def __init__(self, of_run: Run) -> None:
        self._run = of_run
        self._thread = ThreadPoolExecutor(1, "kerasft-insight")
        self._explained = threading.BoundedSemaphore(MOST)
        self._compared = threading.BoundedSemaphore(MOST_COMPARED)
        self._opened: _Opened | None = None

    def start(self) -> None:
        """Opens it and tries it out, so that the first photo does not wait for that."""
        self._thread.submit(self._warm_up)

    def _warm_up(self) -> None:
        with suppress(Exception):  # whoever asks is told
            self._open().explain(warm_up_image(), None)

    @property
    def explains(self) -> bool:
        """Whether there may be heat maps."""
        return self._run.model_path.is_file()

    def stop(self) -> None:
        """Ends the thread after what it does now."""
        self._thread.shutdown(cancel_futures=True)

    async def novel(self, encoded: bytes) -> bool | None:
        """Returns whether an image is unlike the training photos; None if that is not known.

        All versions share the answer: the photos are the run's, and are compared by the features of
        its pretrained base.

        Raises:
            HTTPException: 503 too many images wait.
            UserError: a damaged file.
        """
        if not (self._run.known_path.is_file() and self.explains):
            return None
        if not self._compared.acquire(blocking=False):
            raise _busy(f"{MOST_COMPARED} photos are being compared with the training photos.")
        try:
            return await self._call(lambda: self._open().novel(encoded))
        finally:
            self._compared.release()

    async def explain(self, encoded: bytes, label: str | None, model_digest: str = "") -> bytes:
        """Draws where an image speaks for a class.

        Args:
            encoded: bytes of the file.
            label: name of the class; None is the predicted one.
            model_digest: digest of the model.keras that the served version was made of; "" if
                that is not known.

        Returns:
            A PNG.

        Raises:
            HTTPException: 503 too many images wait.
            UserError: an unknown class, a model without heat maps, or a model.keras that is
                another one by now.
        """
        if not self._explained.acquire(blocking=False):
            raise _busy(f"{MOST} photos are being explained.")
        try:
            return await self._call(lambda: self._open().explain_as(encoded, label, model_digest))
        finally:
            self._explained.release()

    async def _call(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _open(self) -> _Opened:
        """Opens model.keras, again where it was replaced."""
        run.model_file(self._run)
        mark = tuple(_mark(path) for path in (self._run.model_path, self._run.known_path))
        if self._opened is None or self._opened.mark != mark:
            self._opened = _Opened(self._run, mark)
        return self._opened


def _busy(text: str) -> HTTPException:
    return HTTPException(503, f"{text} Try again.", {"Retry-After": "2"})


def _mark(path: Path) -> tuple[int, int] | None:
    stat = path.stat() if path.is_file() else None
    return stat and (stat.st_mtime_ns, stat.st_size)


class _Opened:
    """An opened model.keras.

    Attributes:
        mark: time and size of the files of the model and of the known photos.
    """

    def __init__(self, of_run: Run, mark: Mark) -> None:
        from kerasft.models import bundle
        from kerasft.novelty import known

        self.mark = mark
        self._digest = digest_of_file(of_run.model_path)
        self._bundle: Bundle = bundle.load(of_run.model_path)
        self._known: Known | None = known.load_beside(of_run.known_path, self._bundle)

    @functools.cached_property
    def _beside(self) -> Any:
        assert self._known is not None
        return self._known.beside(self._bundle)

    @functools.cached_property
    def _halves(self) -> Any:
        from kerasft.evaluation.maps import halves_of

        return halves_of(self._bundle.model)

    def _pixels(self, encoded: bytes) -> Any:
        from kerasft.lazy_tensorflow import tf
        from kerasft.pixels import images
        from kerasft.pixels.decode import square_of_file

        try:
            return square_of_file(encoded, self._bundle.rule)[None]
        except tf.errors.InvalidArgumentError:
            raise HTTPException(400, f"The file {images.reason_of(encoded)}.") from None

    def novel(self, encoded: bytes) -> bool | None:
        if self._known is None:
            return None
        features = self._beside.predict_on_batch(self._pixels(encoded))[-1]
        return bool(self._known.distances(features)[0] > self._known.threshold)

    def explain_as(self, encoded: bytes, label: str | None, model_digest: str) -> bytes:
        if model_digest not in ("", self._digest):
            raise UserError(
                "The run was trained on or calibrated since this version was exported, so the heat "
                "map would be of another model. `kerasft export` makes a version of it."
            )
        return self.explain(encoded, label)

    def explain(self, encoded: bytes, label: str | None) -> bytes:
        import numpy as np
        from PIL import Image

        from kerasft.evaluation import explain
        from kerasft.evaluation.nearest import has_neighbours
        from kerasft.models.bundle import score

        names = self._bundle.class_names
        if label is not None and label not in names:
            raise UserError(f"There is no class '{label[:60]}'.{did_you_mean(label, names)}")
        if has_neighbours(self._bundle.model):
            raise UserError(explain.NO_GRADIENT)
        pixels = self._pixels(encoded)
        number = (
            score(self._bundle, [pixels])[1][0].argmax() if label is None else names.index(label)
        )
        heat = explain.heat_of(self._halves, pixels, np.array([number]))
        if not heat.any():
            raise UserError(f"No place speaks for '{names[number]}': the heat map is empty.")
        picture = io.BytesIO()
        Image.fromarray(explain.overlay(pixels, heat)[0]).save(picture, "PNG")
        return picture.getvalue()
