"""TensorFlow Datasets (TFDS), whose encoded images are written as files into the cache, once.

So the images of TFDS are decoded by the same code as all others, have a digest and a lasting
name, and are treated like those of a folder. The splits train, validation and test of TFDS are
respected.
"""

import csv
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from kerasft.config.fields import Data
from kerasft.config.photo_names import WORDS
from kerasft.config.source_names import tfds_name
from kerasft.errors import UserError, did_you_mean
from kerasft.progress import Event, Progress
from kerasft.sources.photos import Listing, Photo, PhotoFolder
from kerasft.text import printable
from kerasft.unpacked import no_room, room, unpacked

log = logging.getLogger(__name__)

INDEX = "photos.csv"
RULES = 1  # version of these rules; raise it when the same dataset gives different files
OURS = {name: WORDS[name] for name in ("train", "validation", "val", "valid", "test")}
_SIGNATURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
)


def find_tfds(data: Data, progress: Progress) -> PhotoFolder:
    """Unpacks a TFDS dataset, `tfds:NAME[:CONFIG][:VERSION]`, into the cache.

    It is read from `data.data_dir`, or from the folder in which TFDS keeps its datasets. If it
    is not there, TFDS downloads and prepares it.

    Raises:
        UserError: TFDS is not installed, or does not know the name (exit code 2); the dataset
            cannot be prepared or read; it does not have exactly one image and one class label.
    """
    name = data.source
    if not all(map(importlib.util.find_spec, ("tensorflow_datasets", "importlib_resources"))):
        raise UserError(
            f"{name}: TFDS datasets need the packages tensorflow-datasets and importlib_resources. "
            "Install them: pip install 'kerasft[tfds]'",
            exit_code=2,
        )
    with _quiet():
        data_dir = data.data_dir or os.environ.get("TFDS_DATA_DIR")
        found = _Set(name, _prepared(name, data_dir))
        facts = {"tfds": found.builder.info.full_name, "rules": RULES, "files": found.files()}
        folder, held = unpacked(name, facts, lambda to: found.write(to, progress))
    return PhotoFolder(name, folder, lambda: _listing(folder), held)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the warnings that TFDS and TensorFlow log about each other."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turns exceptions of TFDS and its datasets, which can be of any type, into a UserError.

    Args:
        what: beginning of the message, which the reason follows.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: {reason}") from error


def _prepared(name: str, data_dir: str | None) -> Any:
    """Returns the builder of a dataset, which is prepared on disk first if necessary."""
    import tensorflow_datasets as tfds

    place = data_dir or tfds.core.constants.DATA_DIR
    with _saying(f"{name}: TFDS can't open it"):
        try:
            builder = tfds.builder(tfds_name(name), data_dir=data_dir)
        except tfds.core.DatasetNotFoundError as error:
            near = did_you_mean(tfds_name(name).partition("/")[0], tfds.list_builders())
            raise UserError(
                f"{name}: TFDS does not know this dataset, and it is not prepared in "
                f"{place}.{near} If it is prepared in another folder, pass `data.data_dir=DIR`.",
                exit_code=2,
            ) from error
    if not builder.is_prepared():
        log.info("%s: not in %s yet; TFDS downloads and prepares it", name, place)
        with _saying(
            f"{name}: TFDS could not prepare it in {place}. If there is no network here, prepare "
            "it elsewhere, copy its folder, and pass `data.data_dir=DIR`. The reason"
        ):
            builder.download_and_prepare()
    return builder


class _Set:
    """A prepared dataset: its image and label features, its splits, and their files."""

    def __init__(self, name: str, builder: Any) -> None:
        self.name, self.builder = name, builder
        self.image, self.label = _features(name, builder.info)
        self.splits = _splits(name, builder.info)

    def files(self) -> list[tuple[str, int, int]]:
        """Returns the dataset's fingerprint: its files with their sizes and modification times."""
        with os.scandir(os.fspath(self.builder.data_path)) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
        return sorted((name, status.st_size, status.st_mtime_ns) for name, status in found)

    def write(self, folder: Path, progress: Progress) -> None:
        """Writes every labelled image into a folder, and an index of the images."""
        names = self.builder.info.features[self.label].names
        total = sum(self.builder.info.splits[split].num_examples for split in self.splits)
        left, done, without = room(), 0, 0
        with (folder / INDEX).open("x", encoding="utf-8", newline="") as file:
            index = csv.writer(file, lineterminator="\n")
            for split, ours in self.splits.items():
                for identity, encoded, label in self._examples(split):
                    done += 1
                    if done % max(1, total // 100) == 0:
                        figures = {"what": f"unpacking {self.name}"}
                        progress(Event("unpack", done, total, figures=figures))
                    if label < 0:  # TFDS marks unlabelled examples with -1
                        without += 1
                        continue
                    left -= len(encoded)
                    if left < 0:
                        raise UserError(no_room(self.name))
                    path = f"{split}/{_as_name(names[label])}/{_as_name(identity)}"
                    path += _ending_of(encoded)
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    with (folder / path).open("xb") as image:
                        image.write(encoded)
                    index.writerow((path, printable(names[label]), ours))
        if without:
            log.warning("%s: left out %s images without a label", self.name, f"{without:,}")

    def _examples(self, split: str) -> Iterator[tuple[str, bytes, int]]:
        """Yields the identity, the encoded image and the label of each example of a split."""
        import tensorflow_datasets as tfds

        with _saying(f"{self.name}: TFDS can't read it"):
            examples = self.builder.as_dataset(
                split=split,
                shuffle_files=False,
                read_config=tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1),
                decoders=tfds.decode.PartialDecoding(
                    {self.image: True, self.label: True},
                    decoders={self.image: tfds.decode.SkipDecoding()},
                ),
            )
            for example in examples.as_numpy_iterator():
                identity = example["tfds_id"].decode()
                yield identity, bytes(example[self.image]), int(example[self.label])


def _features(name: str, info: Any) -> tuple[str, str]:
    """Finds the image and the label feature: the dataset's supervised pair, or the only ones."""
    import tensorflow_datasets as tfds

    features = dict(info.features) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [k for k, feature in features.items() if type(feature) is tfds.features.Image]
    labels = [k for k, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    both = info.supervised_keys
    if isinstance(both, tuple) and len(both) == 2 and both[0] in images and both[1] in labels:
        images, labels = [both[0]], [both[1]]
    kinds = sorted((key, type(feature).__name__) for key, feature in features.items())
    holds = ", ".join(f"{key} ({kind})" for key, kind in kinds)
    if len(images) != 1 or len(labels) != 1:
        several = any(
            isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel)
            for feature in features.values()
        )
        raise UserError(
            f"{name}: expected one Image and one ClassLabel, got {holds or info.features}."
            + (" kerasft does not support several labels per image." if several else "")
        )
    pixels = np.dtype(features[images[0]].np_dtype).name
    if pixels not in ("uint8", "uint16"):
        raise UserError(f"{name}: its images are of type {pixels}. Expected uint8 or uint16.")
    return images[0], labels[0]


def _splits(name: str, info: Any) -> dict[str, str]:
    """Maps TFDS' splits to ours. A single split with another name maps to "", no split."""
    known = {split: OURS[split] for split in info.splits if split in OURS}
    if not known and len(info.splits) == 1:
        return dict.fromkeys(info.splits, "")
    others = [split for split in info.splits if split not in known]
    if not known or len(set(known.values())) < len(known):
        raise UserError(
            f"{name}: has the splits {', '.join(sorted(info.splits))}. Expected train, and maybe "
            "validation and test."
        )
    if others:
        log.info("%s: left out its other splits: %s", name, ", ".join(others))
    return known


def _as_name(text: str) -> str:
    """Turns a text into a part of a path on any system. Different texts may give the same part."""
    return re.sub(r"[^\w.=-]", "_", text)[:80].strip(".") or "_"


def _ending_of(encoded: bytes) -> str:
    known = (ending for start, ending in _SIGNATURES if encoded.startswith(start))
    return next(known, "")


def _listing(folder: Path) -> Listing:
    with (folder / INDEX).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        return Listing.of([Photo(path, intern(name), intern(split)) for path, name, split in rows])
