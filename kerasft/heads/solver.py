"""The solver of heads: fits a method with the best of its settings, found by cross-validation.

`estimators.py` fits scikit-learn's estimators to features; `solved.py` turns them into Keras
layers. Every method tries the same number of settings (`methods.TRIES`), for a fair comparison.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from kerasft.errors import UserError, did_you_mean
from kerasft.heads.estimators import Setting, Solver, Task
from kerasft.heads.methods import METHODS
from kerasft.heads.solved import Examples, Solution, Tried

FOLDS = 5
SMALLEST = 1e-15  # smallest score in a log loss, since Bayes gives scores of 0


# With one thread of BLAS the sums, and so the scores, are the same for any number of cores. It is
# faster too, since threads wait for one another (logistic regression of 1,049 x 1,280 features on
# a busy machine with two cores: 1.5 s with two threads, 0.1 s with one).
@threadpool_limits.wrap(limits=1, user_api="blas")
def solve(
    method: str,
    train: Examples,
    validation: Examples,
    *,
    num_classes: int,
    class_weight: str = "none",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Solution:
    """Solves one head.

    The setting is chosen by stratified cross-validation within `train`, by log loss, or by
    accuracy for SVMs, which give no probabilities before Platt scaling. "bayes" chooses by log
    loss on `validation`; so do all methods if a class has too few training images (or groups) for
    two folds, and then a note says so.

    Args:
        method: name of the method, a key of METHODS.
        train: the training images.
        validation: the validation images; Platt scaling (SVMs) is fitted on them.
        num_classes: number of classes, K, at least 2; `train` has images of each.
        class_weight: weights of the classes, "none", or "balanced" for equal total weights. The
            scores that compare settings are not weighted.
        seed: seed for the folds, and for the order of images in LinearSVC with a few classes.
        progress: the callback that receives the number of finished fits and of all fits.

    Raises:
        UserError: the method is unknown (exit code 2); a class has no training images, or for an
            SVM no validation images; "lda" has too many features and images, or no spread.
    """
    if method not in METHODS:
        raise UserError(
            f"method: expected one of {', '.join(METHODS)}, got '{method}'."
            f"{did_you_mean(method, METHODS)}",
            exit_code=2,
        )
    row = METHODS[method].solver()
    _check_classes(method, train, validation, num_classes, platt=row.platt)
    task = Task(num_classes, class_weight, seed)
    folds = _folds(train, num_classes, seed) if row.folds else []
    notes = []
    if row.folds and not folds:
        notes.append(
            "A class has too few training images, or groups of them, for cross-validation: the "
            "setting was chosen on the validation images."
        )
    pairs = [(train.take(fit), train.take(held)) for fit, held in folds] or [(train, validation)]
    settings = row.settings(train.features.shape[1], min(len(fit.labels) for fit, _ in pairs))
    total = len(settings) * len(pairs) + 1
    tried = _tried(row, settings, pairs, task, lambda done: progress(done, total))
    best = (max if row.score == "accuracy" else min)(tried, key=lambda one: one.score)

    with _convergence() as failures:
        fitted = row.fit(best.parameters, train, task)
    if failures:
        notes.append(f"The solver stopped before it had converged: {failures[0]}")
    estimator, form, more = row.finish(fitted, train, validation, task)
    progress(total, total)
    where = f"in {len(folds)}-fold cross-validation" if folds else "on the validation images"
    return Solution(
        method=method,
        parameters=best.parameters,
        tried=tried,
        score=f"{row.score} {where}",
        converged=not failures,
        notes=(*notes, *more),
        estimator=estimator,
        form=form,
    )


def _tried(
    row: Solver,
    settings: list[Setting],
    pairs: list[tuple[Examples, Examples]],
    task: Task,
    progress: Callable[[int], None],
) -> list[Tried]:
    """Tries settings.

    Args:
        row: the method's solver.
        settings: the settings to try.
        pairs: pairs of images to fit and images to score.
        task: the inputs of the solver other than the images.
        progress: the callback that receives the number of finished fits.
    """
    tried: list[Tried] = []
    for setting in settings:
        scores = []
        for fit, held in pairs:
            with _convergence():  # only the convergence of the final fit is reported
                fitted = row.fit(setting, fit, task)
            scores.append(_SCORES[row.score](fitted, held))
            progress(len(tried) * len(pairs) + len(scores))
        # Every image counts once. Rounded, so that equal numbers of hits give equal scores,
        # however they are spread over the folds.
        score = np.average(scores, weights=[len(held.labels) for _, held in pairs])
        tried.append(Tried(setting, round(float(score), 10)))
    return tried


def _check_classes(
    method: str, train: Examples, validation: Examples, num_classes: int, *, platt: bool
) -> None:
    """Raises UserError if a class lacks the images that the method needs."""
    needed = {"training": train, "validation": validation}
    if not platt:
        del needed["validation"]
    for name, examples in needed.items():
        absent = sorted(set(range(num_classes)) - set(examples.labels.tolist()))
        if absent:
            raise UserError(
                f"{method}: no {name} images of {len(absent)} of the {num_classes} classes, "
                f"numbers {', '.join(map(str, absent[:20]))} (from 0). Expected one of each"
                + ("." if name == "training" else ", for Platt scaling; logistic needs none.")
            )


def _folds(train: Examples, num_classes: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns pairs of rows to fit and rows to hold out, at most FOLDS; [] if two are impossible.

    The rows to fit contain every class, and no group is on both sides.
    """
    names = train.groups or [""] * len(train.labels)
    groups = np.array([f"/{name}" if name else str(i) for i, name in enumerate(names)])
    smallest = min(len(set(groups[train.labels == k])) for k in range(num_classes))
    for count in range(min(FOLDS, smallest), 1, -1):
        if any(names):
            by_group = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            found = list(by_group.split(train.features, train.labels, groups))
        else:
            by_class = StratifiedKFold(count, shuffle=True, random_state=seed)
            found = list(by_class.split(train.features, train.labels))
        # Groups of several sizes may leave a side without a class, or a fold without images.
        if all(len(h) and len(set(train.labels[f])) == num_classes for f, h in found):
            return found
    return []


@contextlib.contextmanager
def _convergence() -> Iterator[list[str]]:
    """Collects warnings of solvers that did not converge; other warnings are passed on."""
    failures: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield failures
    for one in caught:
        if issubclass(one.category, ConvergenceWarning):
            failures.append(str(one.message).splitlines()[0])
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _accuracy(fitted: Any, held: Examples) -> float:
    return float(np.mean(fitted.predict(held.features) == held.labels))


def _log_loss(fitted: Any, held: Examples) -> float:
    of_label = fitted.predict_proba(held.features)[np.arange(len(held.labels)), held.labels]
    return float(-np.log(np.maximum(of_label.astype(np.float64), SMALLEST)).mean())


_SCORES: dict[str, Callable[[Any, Examples], float]] = {
    "accuracy": _accuracy,
    "log loss": _log_loss,
}
