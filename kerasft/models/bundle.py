"""Bundles: `model.keras`, the model of a run with its class names and input rule.

The file is an ordinary Keras model: uncompiled, float32, without custom classes. It loads in
plain Keras, with safe mode on and kerasft not installed. Class names, input rule and the threshold
of abstention are kept in `kerasft.json`, an extra member of the zip file that Keras ignores.

Shapes: B images in a batch, S side of the model's square input in pixels, K classes.
"""

import contextlib
import functools
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasft import __version__, files
from kerasft.confidence import Abstention
from kerasft.errors import UserError, first_line, within_memory
from kerasft.heads.trained import features_of
from kerasft.input_rule import InputRule
from kerasft.models.tta import temperature_of
from kerasft.progress import Event, Progress, silent
from kerasft.record import refuse_later
from kerasft.text import shortened
from kerasft.untrusted import check_sizes, checked, fill, parse_json

MEMBER = "kerasft.json"
FORMAT = 1  # of that member: raise it when older versions misread it
IMAGENET = "imagenet:"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A classifier and the meaning of its inputs and outputs.

    Attributes:
        model: the model, pixels float32 [B,S,S,3], 0 to 255, to scores float32 [B,K] that sum
            to 1. Preprocessing is part of it; the layer "logits" gives the scores' logits.
        class_names: names of the K classes, in the order of the scores.
        rule: rule by which an image file becomes the input.
        abstention: the threshold below which the model abstains; None if it always answers.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    rule: InputRule
    abstention: Abstention | None = None

    def logits_model(self) -> keras.Model:
        """Returns the model that ends at the logits: pixels [B,S,S,3] to float32 [B,K]."""
        return keras.Model(self.model.inputs[0], self.model.get_layer("logits").output)

    @property
    def threshold(self) -> float | None:
        """Lowest score that counts as an answer; None for a model that always answers."""
        return self.abstention.threshold if self.abstention else None

    def abstains(self, scores: np.ndarray) -> np.ndarray | None:
        """Returns for which images the model does not know: scores float32 [N,K] -> bool [N].

        None for a model that always answers.
        """
        return None if self.abstention is None else scores.max(axis=1) < self.abstention.threshold

    @functools.cached_property
    def temperature(self) -> float:
        """Number that the model divides its logits by before the softmax; 1 if it does not."""
        return temperature_of(self.model)

    @functools.cached_property
    def scores_and_logits(self) -> keras.Model:
        """The model with two outputs: pixels [B,S,S,3] to [scores [B,K], logits [B,K]].

        It is kept for all splits, so that its graph is built once.
        """
        logits = self.model.get_layer("logits").output
        return keras.Model(self.model.inputs[0], [self.model.outputs[0], logits])

    @functools.cached_property
    def with_features(self) -> keras.Model:
        """The model with a third output, the features [B,F] that enter its head."""
        return keras.Model(
            self.model.inputs[0], [*self.scores_and_logits.outputs, features_of(self.model)]
        )


def save(bundle: Bundle, path: str | Path) -> None:
    """Writes `model.keras`, whole or not at all; an older file is replaced.

    A model that is compiled, or has a layer of mixed precision, is rebuilt from its config in
    float32 first, so neither gets into the file.

    Args:
        bundle: the bundle to save; its model does not change.
        path: path of the file, which ends in ".keras".

    Raises:
        UserError: the file can't be written (no such folder, read-only, disk full).
    """
    path = Path(path)
    facts = {
        "format": FORMAT,
        "versions": {"kerasft": __version__},
        "class_names": list(bundle.class_names),
        **bundle.rule.to_json(),
        "temperature": bundle.temperature,
        "abstention": bundle.abstention and bundle.abstention.to_json(),
    }
    plain = _plain(bundle.model)
    with files.replacing(path) as beside:
        plain.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr(zipfile.ZipInfo(MEMBER), json.dumps(facts, indent=1))


def copy(path: str | Path, to: str | Path) -> None:
    """Copies a model file, whole or not at all.

    Args:
        path: path of the file.
        to: path of the copy; an older file there is replaced.

    Raises:
        UserError: `path` can't be read or `to` can't be written.
    """
    with files.replacing(Path(to)) as beside:
        shutil.copyfile(path, beside)


def _plain(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy where it is compiled or not in float32."""
    layers = list(model._flatten_layers(include_self=False, recursive=True))
    if model.compiled or any(layer.dtype_policy.name != "float32" for layer in layers):
        return _fresh(model)
    for layer in layers:
        # Layers may share one policy, whose address in memory Keras would write into the file.
        layer.dtype_policy = keras.DTypePolicy("float32")
    return model


def _fresh(model: keras.Model) -> keras.Model:
    fresh = type(model).from_config(_in_float32(model.get_config()))
    fresh.set_weights(model.get_weights())
    return fresh


def _in_float32(config: object) -> object:
    """Returns the config with every layer's precision policy replaced by float32.

    Source: a model saved under mixed_float16 loads as mixed_float16 (Keras 3.15).
    """
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(value) for value in config)
    return config


def load(path: str | Path) -> Bundle:
    """Opens a model file that `save` wrote.

    Args:
        path: path of the file, which ends in ".keras".

    Raises:
        UserError: there is no such file (exit code 2); it is not a Keras model file, is truncated
            or was changed since it was written; or it was not written by kerasft, or was written
            by a later version.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file.", exit_code=2)
    with _readable(path):
        facts = _read_facts(path)
        bundle = Bundle(
            model=load_keras(path),
            class_names=facts.class_names,
            rule=facts.rule,
            abstention=facts.abstention,
        )
    model = bundle.model
    side, classes = bundle.rule.image_size, len(bundle.class_names)
    if model.input_shape[1:] != (side, side, 3) or model.output_shape[1:] != (classes,):
        raise UserError(
            f"{path}: its {MEMBER} names {classes} classes and a side of {side} pixels, its model "
            f"takes {model.input_shape[1:]} and gives {model.output_shape[1:]}."
        )
    return bundle


def load_keras(path: Path) -> keras.Model:
    """Opens a Keras model file that anybody may have made, uncompiled: none of its code runs.

    Lambda layers, and all else that Keras would have to unpickle or import, are refused.

    Args:
        path: path of the file, which ends in ".keras".

    Raises:
        ValueError: the file is damaged, or holds something else than a model of Keras' own layers.

    Source: `load_model` of Keras 3.15 does the same, but unpacks a file with more members than its
        own three, such as MEMBER, into a temporary folder, which stays if that fails.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_sizes(archive, path.stat().st_size)
            config = checked(parse_json(archive.read("config.json")), Mapping[str, Any])
        uncompiled = {**config, "compile_config": None}
        model = keras.saving.deserialize_keras_object(uncompiled, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"it holds a {type(model).__name__}, which is no model")
        model.load_weights(path)
    except Exception as error:  # whatever Keras and TensorFlow come up with for a foreign file
        raise ValueError(shortened(first_line(error), most=300)) from error
    return model


_last: list[tuple[tuple[int, ...], Bundle]] = []  # the file that `opened` has opened last


def opened(path: str | Path) -> Bundle:
    """Opens a model file to compute with it, not to train it.

    The last one is kept: a second call for the same file, which may have been renamed meanwhile,
    returns it with the graph that was built for it.

    Args:
        path: path of the file, which ends in ".keras".

    Raises:
        UserError: see `load`.
    """
    path = Path(path)
    before = _identity(path)
    if before and _last and _last[0][0] == before:
        return _last[0][1]
    forget()
    bundle = load(path)
    if before and _identity(path) == before:
        _last.append((before, bundle))
    return bundle


def forget() -> None:
    """Lets go of the model that `opened` keeps."""
    _last.clear()


def _identity(path: Path) -> tuple[int, ...] | None:
    """Returns what tells a file from all others, and from an earlier content of the same one."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the exceptions of a damaged file into a UserError that names the file."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path}: not a Keras model file (.keras), or one that is damaged or cut off."
        ) from error
    except (OSError, ValueError, EOFError, zlib.error, RuntimeError) as error:
        raise UserError(f"{path}: the model can't be loaded: {first_line(error)}") from error


class _Facts(NamedTuple):
    """What MEMBER says about a model; attributes as in Bundle."""

    class_names: tuple[str, ...]
    rule: InputRule
    abstention: Abstention | None


def _read_facts(path: Path) -> _Facts:
    with zipfile.ZipFile(path) as archive:
        check_sizes(archive, path.stat().st_size)
        if archive.testzip() is not None:  # reads everything, compares checksums
            raise zipfile.BadZipFile
        names = archive.namelist()
        if "config.json" not in names:
            raise zipfile.BadZipFile
        if MEMBER not in names:
            raise UserError(
                f"{path}: holds no {MEMBER}, so its class names and input rule are unknown. "
                "Pass a model.keras that kerasft wrote."
            )
        facts = checked(parse_json(archive.read(MEMBER)), Mapping[str, Any])
    refuse_later(path, facts.get("format", FORMAT), FORMAT, facts.get("versions"))
    return _Facts(
        class_names=checked(facts.get("class_names"), tuple[str, ...]),
        rule=InputRule.from_json(facts),
        abstention=fill(Abstention, facts["abstention"]) if facts.get("abstention") else None,
    )


def compute(
    model: keras.Model,
    batches: Iterable,
    *,
    total: int = 0,
    what: str = "scoring",
    progress: Progress = silent,
) -> np.ndarray | list[np.ndarray]:
    """Runs a model over images.

    Args:
        model: the model, pixels to one or several outputs.
        batches: pixels float32 [B,S,S,3], 0 to 255, at least one batch. They may differ
            in B.
        total: number of images, for the progress.
        what: name of the work, for the progress.
        progress: the callback that receives an event after each batch, stage "check".

    Raises:
        OutOfMemory: a batch does not fit the memory.

    Returns:
        The output for all images, float32 [N,...], in their order; a list if there are several.
    """
    parts: list[list[np.ndarray]] = []
    done = size = 0
    for pixels in batches:
        count = len(pixels)
        size = max(size, count)
        # Batches of one size are traced once. `predict` would do that too, but Keras 3.15 starts
        # a second pass over a dataset and throws away what it reads (`EpochIterator`).
        with within_memory(f"{what}: {size} images are computed at once", "Free some memory."):
            outputs = model.predict_on_batch(filled(pixels, size))
        parts.append([output[:count] for output in keras.tree.flatten(outputs)])
        done += count
        progress(Event("check", done, max(done, total), figures={"what": what}))
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return joined if len(joined) > 1 else joined[0]


def compute_rows(model: keras.Model, rows: np.ndarray, size: int) -> np.ndarray:
    """Runs a model over rows of features or activations, [N, ...], in batches of `size`.

    Returns:
        Its only output, float32 [N, ...].
    """
    batches = (rows[start : start + size] for start in range(0, len(rows), size))
    return np.asarray(compute(model, batches))


def filled(pixels: Any, size: int) -> np.ndarray:
    """Returns the batch [B,S,S,3], padded to `size` images with black ones.

    It is a NumPy array, which every backend of Keras accepts.
    """
    plain = np.asarray(pixels)
    missing = size - len(plain)
    if not missing:
        return plain
    return np.concatenate([plain, np.zeros((missing, *plain.shape[1:]), plain.dtype)])


def score(
    opened: Bundle, batches: Iterable, *, total: int = 0, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a classifier over images.

    See `score_with`, which runs a larger model.

    Args:
        opened: the classifier.
        batches: pixels float32 [B,S,S,3], 0 to 255; see `compute`.
        total: number of images, N, for the progress.
        progress: the callback that receives an event after each batch, stage "check".

    Returns:
        (scores, logits), both float32 [N,K], in the order of the batches.

    Raises:
        UserError: a score is not a number, because the training went wrong.
    """
    scores, logits = score_with(opened.scores_and_logits, batches, total=total, progress=progress)
    return scores, logits


def score_with(
    model: keras.Model, batches: Iterable, *, total: int = 0, progress: Progress = silent
) -> list[np.ndarray]:
    """Runs a model that gives scores, logits and perhaps more, such as `Known.beside`, over images.

    Args and errors are those of `score`; the model's outputs are returned, [N, ...] each.
    """
    outputs = list(compute(model, batches, total=total, progress=progress))
    logits = outputs[1]
    if not np.isfinite(logits).all():
        raise UserError(
            "The model's scores are not numbers (NaN or infinite), so nothing can be measured. "
            "Its training went wrong: train again with a lower learning rate."
        )
    return outputs
