"""The pace of a machine with a GPU: how fast photos become activations, and how fast a disk reads.

A GPU may compute activations faster than a disk reads them. Then a phase trains without a store,
unless the card's memory holds it. Both rates are measured once per net, cut, photos and machine.

Shapes: S side of the square input in pixels.
"""

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kerasft import cache
from kerasft.activations import engines
from kerasft.activations.precision import timed
from kerasft.cache import explaining
from kerasft.config.fields import Config
from kerasft.data.batches import split_batches
from kerasft.data.source import Source

SAMPLE = 256  # photos that are read for the measurement, at most
PROBE = 256 << 20  # bytes that are written and read for the measurement


@dataclass(frozen=True)
class Pace:
    """Two rates of a machine.

    Attributes:
        images: images per second from the file to the activations at a cut.
        disk: bytes per second that are read from the cache's disk.
    """

    images: float
    disk: float

    def pays(self, *, live: int, once: int, read: int) -> bool:
        """Returns whether a store saves time.

        Args:
            live: number of images that go through the prefix without a store.
            once: number of those that fill the store.
            read: bytes that the epochs read from the store.
        """
        return once / self.images + read / self.disk < live / self.images


def measured_pace(config: Config, source: Source, prefix: keras.Model, device: str) -> Pace:
    """Returns the pace at a cut, measured now or by an earlier run.

    Args:
        config: the config, with backbone and resize rule.
        source: the photos.
        prefix: the prefix, pixels to the activations at the cut.
        device: the device that computes, "gpu:N".
    """
    folder = cache.cache_folder()
    shapes = [prefix.input_shape[1:], prefix.output_shape[1:]]
    here = [keras.backend.backend(), device, *engines.processor()]
    photos = hashlib.blake2b("".join(source.digests).encode(), digest_size=8).hexdigest()
    key = " ".join(map(str, ["pace", config.model.backbone, *shapes, photos, *here]))
    found = cache.remembered(folder, key, ("images", "disk"))
    if found is None:
        images = _images(source, prefix, config.data.resize)
        found = {"images": images, "disk": disk_rate(folder)}
        cache.remember(folder, key, found)
    return Pace(**found)


def _images(source: Source, prefix: keras.Model, resize: str) -> float:
    """Measures both halves of the way, which overlap in training: the slower one counts."""
    side = prefix.input_shape[1]
    count = min(SAMPLE, len(source.indices("train")))
    batches = split_batches(
        source, "train", image_size=side, resize=resize, batch_size=engines.BATCH
    )
    reader = iter(batches)
    pixels = next(reader)  # the decoder is made with the first batch
    began, read = time.perf_counter(), 0
    for batch in reader:
        read += len(batch)
        if read >= count:
            break
    decoding = read / (time.perf_counter() - began) if read else float("inf")
    engine = engines.build(prefix, "keras", "float32")
    _, seconds = timed(engine, pixels)
    return min(decoding, len(pixels) / seconds)


def disk_rate(folder: Path) -> float:
    """Measures how fast a folder's disk reads, bytes per second, with a file of its own."""
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"probe-{os.getpid()}"
        try:
            with path.open("w+b", buffering=0) as file:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()  # now, so that nothing is left if this process is killed
                block = np.random.default_rng(0).bytes(PROBE // 16)
                for _ in range(16):
                    file.write(block)
                os.fsync(file.fileno())
                file.seek(0)
                if hasattr(os, "posix_fadvise"):  # so that it is read from the disk, not memory
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                began = time.perf_counter()
                while file.read(PROBE // 16):
                    pass
                return PROBE / (time.perf_counter() - began)
        finally:
            path.unlink(missing_ok=True)
