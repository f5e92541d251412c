"""Heat maps: the places of a photo that speak for a class, by Grad-CAM.

    heat_maps   heat of images that are in memory
    heat_of     the same, for a model that explains again and again
    overlay     the heat, laid over the images
    explain     pictures of image files, written into a folder

The channels of the last feature map are added up with weights: the mean of the class logit's
gradient over the places of a channel. What is positive is stretched to the size of the photo and
divided by its largest value.

Several maps, such as those of several backbones, are added in units of the logit: the sum of the
gradient over the places is the weight instead of its mean, so a map counts for what it adds to the
logit, not for its number of places or the size of its activations. For a single map that is the
same. A map's negative places do not cancel what is positive in another.

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization, 2017, section 3.

Shapes: N images, S side of the model's square input in pixels, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kerasft.data.batches import image_batches
from kerasft.data.scan import refuse_edited_classes
from kerasft.errors import UserError, did_you_mean
from kerasft.evaluation.maps import BATCH, Halves, class_maps, halves_of
from kerasft.evaluation.nearest import Neighbour, find_nearest, has_neighbours
from kerasft.evaluation.photo_files import PhotoFile, find_photos
from kerasft.export.formats import find_export
from kerasft.files import reason_of, replacing
from kerasft.models.bundle import Bundle, filled, score
from kerasft.models.target import open_model, prepare_for
from kerasft.progress import Event, Progress, silent
from kerasft.results import Result
from kerasft.run import Run
from kerasft.text import count, in_line, printable

NO_GRADIENT = (
    "The nearest training photos decide, which has no gradient, so there is no heat map; they are "
    "named instead."
)

# Colours of heat 0, 1/4, 1/2, 3/4 and 1, R, G, B: those of matplotlib's "inferno", whose
# brightness grows evenly, so that they can be told apart by everybody and in print.
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))

LUMA = (0.299, 0.587, 0.114)  # brightness of red, green and blue, ITU-R BT.601


def heat_maps(bundle: Bundle, pixels: np.ndarray, classes: Sequence[int] | np.ndarray) -> Any:
    """Computes where each image speaks for a class.

    Args:
        bundle: the classifier.
        pixels: images as the model takes them, float32 [N,S,S,3], 0 to 255; N is at least 1.
        classes: numbers of the classes, [N], 0 to K-1.

    Returns:
        float32 [N,S,S], 0 to 1. The largest value of an image is 1; all are 0 if no place
        speaks for the class.

    Raises:
        UserError: the model has no feature maps, or no gradient leads to them.
    """
    return heat_of(halves_of(bundle.model), pixels, np.asarray(classes))


def heat_of(halves: Halves, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Computes `heat_maps` with a model that was cut before, by `maps.halves_of`."""
    side = pixels.shape[1]
    heat = np.zeros(pixels.shape[:3], "float32")
    for one in class_maps(halves, pixels, classes):
        positive = np.maximum(one, 0)[..., None]
        stretched = keras.ops.image.resize(positive, (side, side), interpolation="bilinear")
        heat += keras.ops.convert_to_numpy(stretched)[..., 0]
    largest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, largest, out=np.zeros_like(heat), where=largest > 0)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Mixes gray images with the colours of their heat, half and half.

    They are gray because a yellow flower would look hot, and a blue sky would turn the heat green.

    Args:
        pixels: images, float32 [N,S,S,3], 0 to 255.
        heat: heat, float32 [N,S,S], 0 to 1.

    Returns:
        uint8 [N,S,S,3], RGB. The image is dark where it is cold and yellow where it is hot.
    """
    gray = pixels @ np.array(LUMA, pixels.dtype)
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(heat, stops, [colour[i] for colour in COLOURS]) for i in range(3)]
    return np.rint((gray[..., None] + np.stack(channels, axis=-1)) / 2).astype("uint8")


@dataclass(frozen=True)
class Explanation(Result):
    """What speaks for a class in an image file.

    Attributes:
        file: path of the file.
        label: class that is explained.
        score: its score, 0 to 1.
        predicted: class with the highest logit.
        overlay: path of the picture with the heat on the photo; "" if there is none.
        heat: path of the heat map in gray, 0 to 255; "" if there is none.
        nearest: nearest training photos, for a head in which they vote.
        note: a sentence where there is no heat map, or an empty one; else "".
    """

    file: str
    label: str
    score: float
    predicted: str
    overlay: str = ""
    heat: str = ""
    nearest: tuple[Neighbour, ...] = ()
    note: str = ""


def explain(
    target: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    to: str | Path,
    label: str | None = None,
    progress: Progress = silent,
) -> list[Explanation | PhotoFile]:
    """Shows which places of image files speak for a class.

    For each file, `NAME.png` and `NAME.heat.png` are written; files of these names are replaced.
    Of several files with one name, the second is `NAME-2`, and so on. A head in which the nearest
    training photos vote has no heat maps: these photos are named instead.

    Args:
        target: run directory, model file, "imagenet:NAME", or a file that `import-caffe` or
            `import-torch` wrote.
        files: file or folder, or several of them. Folders are searched for images, including
            nested folders.
        to: folder of the pictures, made if absent. It must not hold one of the files.
        label: class to explain; None is the predicted class of each file.
        progress: receiver of events, as files are read ("images") and explained ("check").

    Returns:
        An Explanation for each file, or a PhotoFile with the error of one that cannot be read, in
        the order of `files`, sorted within a folder.

    Raises:
        UserError: an unknown label, a SavedModel, or a folder that can't be made or holds one of
            the files (exit code 2); a model without feature maps; a run whose classes.txt was
            edited; see also `target.open_model`.
    """
    if find_export(Path(target)):
        raise UserError(
            f"{target}: is a SavedModel, which has no gradients. Pass the run that it was exported "
            "from, or its model.keras.",
            exit_code=2,
        )
    prepare_for(target)
    opened = open_model(target)
    if Path(target).is_dir():
        refuse_edited_classes(Run(Path(target)), opened.class_names)
    asked = None if label is None else _numbers_of(label, opened.class_names)
    halves = None if has_neighbours(opened.model) else halves_of(opened.model)
    found = find_photos(files, progress)
    good = [photo.file for photo in found if not photo.error]
    names = _names(good)
    if good and halves:
        _make_folder(Path(to), good, names)
    done: list[Explanation] = []
    for batch in image_batches(good, rule=opened.rule, batch_size=BATCH):
        own = slice(len(done), len(done) + len(batch))
        pixels = filled(batch, min(BATCH, len(good)))  # batches of one size are traced once
        some, classes = _scored(opened, good[own], pixels, asked)
        if halves:
            heat = heat_of(halves, pixels, classes)[: len(batch)]
            some = _with_pictures(some, batch, heat, [Path(to) / name for name in names[own]])
        else:
            of = None if asked is None else classes
            near = find_nearest(opened, pixels, of, Run(Path(target)))
            some = [
                replace(one, nearest=voters, note=NO_GRADIENT)
                for one, voters in zip(some, near, strict=False)
            ]
        done += some
        progress(Event("check", len(done), len(good), figures={"what": "explaining"}))
    explained = iter(done)
    return [
        PhotoFile(printable(photo.file), photo.error) if photo.error else next(explained)
        for photo in found
    ]


def _numbers_of(label: str, class_names: Sequence[str]) -> np.ndarray:
    """Returns the numbers of the classes with a name: two for "crane" of ImageNet."""
    numbers = [i for i, name in enumerate(class_names) if name == label]
    if not numbers:
        raise UserError(
            f"expected one of the model's {count(class_names, 'class')}, "
            f"{in_line(list(class_names), 5)}; got '{label}'.{did_you_mean(label, class_names)}",
            field="label",
            exit_code=2,
        )
    return np.array(numbers)


def _names(paths: Sequence[str]) -> list[str]:
    """Returns a name for each file without its ending; no two pictures have one name.

    Letters of both cases are the same in the file systems of Windows and macOS.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = name = Path(path).stem
        number = 1
        while {f"{name}.png".casefold(), f"{name}.heat.png".casefold()} & taken:
            number += 1
            name = f"{stem}-{number}"
        taken |= {f"{name}.png".casefold(), f"{name}.heat.png".casefold()}
        names.append(name)
    return names


def _make_folder(folder: Path, paths: Sequence[str], names: Sequence[str]) -> None:
    """Makes the folder of the pictures; refuses one in which a picture could replace a photo.

    Args:
        folder: the folder.
        paths: paths of the photos that are explained.
        names: names of their pictures, without endings. A picture of an earlier call has its heat
            map beside it; any other file of its name is somebody's photo.
    """
    inside = [path for path in paths if Path(path).resolve().parent == folder.resolve()]
    inside += [
        str(folder / f"{name}.png")
        for name in names
        if (folder / f"{name}.png").exists() and not (folder / f"{name}.heat.png").exists()
    ]
    if inside:
        raise UserError(
            f"{folder} holds {printable(Path(inside[0]).name)}, a photo that a picture of the same "
            "name would replace. Choose another folder.",
            field="to",
            exit_code=2,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} can't be made: {reason_of(error)}.", field="to", exit_code=2
        ) from error


def _scored(
    opened: Bundle, paths: Sequence[str], pixels: np.ndarray, asked: np.ndarray | None
) -> tuple[list[Explanation], np.ndarray]:
    """Scores a batch of images.

    Args:
        opened: the classifier.
        paths: paths of the images; `pixels` may have more rows.
        pixels: float32 [N,S,S,3], 0 to 255.
        asked: numbers of the classes that have the name that is explained, of which the one with
            the highest logit is taken; None takes the predicted class.

    Returns:
        An Explanation for each path, without pictures; and the class of each row, int [N].
    """
    scores, logits = score(opened, [pixels])
    best = logits.argmax(axis=1)
    classes = best if asked is None else asked[logits[:, asked].argmax(axis=1)]
    names = opened.class_names
    rows = zip(paths, scores, classes, best, strict=False)
    explained = [
        Explanation(printable(path), names[own], float(row[own]), names[first])
        for path, row, own, first in rows
    ]
    return explained, classes


def _with_pictures(
    explained: Sequence[Explanation],
    pixels: np.ndarray,
    heat: np.ndarray,
    places: Sequence[Path],
) -> list[Explanation]:
    """Writes the pictures of some images.

    Args:
        explained: an Explanation for each image.
        pixels: float32 [N,S,S,3], 0 to 255.
        heat: float32 [N,S,S], 0 to 1.
        places: paths of the pictures without ".png".

    Returns:
        The explanations with the paths of the pictures.
    """
    laid_over = overlay(pixels, heat)
    gray = np.rint(255 * heat).astype("uint8")
    done = []
    for i, (one, place) in enumerate(zip(explained, places, strict=True)):
        # Not `with_suffix`: "photo.2024" has a suffix already.
        both = [place.with_name(place.name + ending) for ending in (".png", ".heat.png")]
        for path, image in zip(both, (laid_over[i], gray[i]), strict=True):
            with replacing(path) as part:
                Image.fromarray(image).save(part)
        note = "" if heat[i].any() else f"No place speaks for '{one.label}': the heat map is empty."
        done.append(replace(one, overlay=str(both[0]), heat=str(both[1]), note=note))
    return done
