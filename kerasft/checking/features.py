"""Suspicious labels and outliers, found by the features of a frozen backbone.

Shapes: N photos, F features, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasft.backbones.imagenet_files import models_folder, weights_file
from kerasft.backbones.spec import nets_of
from kerasft.config.load import load_config
from kerasft.data.batches import image_batches
from kerasft.errors import UserError
from kerasft.models import bundle
from kerasft.progress import Progress
from kerasft.results import Result
from kerasft.text import printable
from kerasft.training.train import DryRun, plan_run

FOLDS = 5
SHARE = 0.1  # of the photos that are listed as suspects, at most
OUTLIERS = 20
BATCH = 32


@dataclass(frozen=True)
class LabelSuspect(Result):
    """A photo whose label may be wrong.

    Attributes:
        path: path of the photo.
        label: its class.
        suggested: class that its features speak for.
        score: quality of the label, 0 (surely wrong) to 1.
    """

    path: str
    label: str
    suggested: str
    score: float


@dataclass(frozen=True)
class Outlier(Result):
    """A photo unlike all others, and its distance to the nearest one, 1 for the median photo."""

    path: str
    distance: float


@dataclass(frozen=True)
class Suspects:
    """What the features show; `left_out` says why they were not computed."""

    label_suspects: tuple[LabelSuspect, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    left_out: str = ""


def find_suspects(
    flags: Mapping[str, Any], plan: DryRun | None, missing: str, *, progress: Progress
) -> Suspects:
    """Computes features of all readable photos and finds doubtful ones.

    Args:
        flags: fields of the config by dotted key.
        plan: what `train` would do; None if it refuses the photos, which are then planned without
            those that it refuses.
        missing: what `missing_weights` returns.
        progress: receiver of events of the stages "images" and "check".

    Returns:
        Suspects; without any where weights are missing or the photos cannot be trained on.
    """
    if missing:
        return Suspects(left_out=f"Labels were not checked: there is no {missing} on this machine.")
    if plan is None:
        lenient = {"data.bad_images": "skip", "data.small_classes": "train_only"}
        try:
            plan = plan_run(load_config(None, flags={**flags, **lenient}), progress=progress)
        except UserError as error:
            reason = str(error).splitlines()[0]
            return Suspects(left_out=f"Labels were not checked: {reason}")
    features = features_of(plan, progress)
    source = plan.source
    names = [printable(path) for path in source.paths]
    found, left_out = suspects_of(features, source.labels, names, source.class_names)
    return Suspects(found, outliers_of(features, names), left_out)


def features_of(plan: DryRun, progress: Progress) -> np.ndarray:
    """Computes the features of all photos of a plan with its frozen backbone, float32 [N,F]."""
    source = plan.source
    paths = [str(source.root / path) for path in source.paths]
    batches = image_batches(paths, rule=plan.plan.rule, batch_size=BATCH)
    features = bundle.compute(
        plan.net.cut(0).prefix, batches, total=len(paths), what="features", progress=progress
    )
    keras.backend.clear_session()
    return np.asarray(features, np.float32)


def missing_weights(model: Any) -> str:
    """Names a file of ImageNet weights that would have to be downloaded; "" if none would."""
    if model.weights != "imagenet":
        return ""
    for net, side in nets_of(model.backbone, model.image_size or 224):
        file = models_folder() / weights_file(net, side)
        if not file.is_file():
            return file.name
    return ""


def suspects_of(
    features: np.ndarray, labels: np.ndarray, paths: list[str], class_names: tuple[str, ...]
) -> tuple[tuple[LabelSuspect, ...], str]:
    """Finds photos whose label disagrees with a classifier that has not seen them.

    Args:
        features: float32 [N,F].
        labels: int [N].
        paths: N paths.
        class_names: K names.

    Returns:
        Suspects whose features speak for another class, the worst first; and why there are none,
        or "".
    """
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return (), "Labels were not checked: that takes cleanlab, `pip install kerasft[check]`."
    if np.bincount(labels, minlength=len(class_names)).min() < FOLDS:
        return (), f"Labels were not checked: some class has fewer than {FOLDS} photos."
    scores = out_of_fold_scores(features, labels)
    quality = get_label_quality_scores(labels, scores)
    best = scores.argmax(axis=1)
    worst = np.argsort(quality, kind="stable")[: max(1, int(SHARE * len(labels)))]
    return tuple(
        LabelSuspect(
            paths[i], class_names[labels[i]], class_names[best[i]], round(float(quality[i]), 4)
        )
        for i in worst
        if best[i] != labels[i]
    ), ""


def out_of_fold_scores(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns scores [N,K] of logistic regressions that were fitted without the photo's fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(head, features, labels, cv=folds, method="predict_proba")


def outliers_of(features: np.ndarray, paths: list[str]) -> tuple[Outlier, ...]:
    """Finds photos whose nearest other photo is more than twice as far away as usual."""
    from sklearn.neighbors import NearestNeighbors

    if len(features) < 3:
        return ()
    distances, _ = NearestNeighbors(n_neighbors=2).fit(features).kneighbors(features)
    nearest = distances[:, 1]
    relative = nearest / max(float(np.median(nearest)), 1e-12)
    order = np.argsort(-relative, kind="stable")[:OUTLIERS]
    return tuple(Outlier(paths[i], round(float(relative[i]), 3)) for i in order if relative[i] > 2)
