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

from kerasft.errors import TooFewPhotos, UserError, did_you_mean
from kerasft.heads.estimators import Folds, Setting, Solver, Task, fit_calibrated
from kerasft.heads.methods import METHODS
from kerasft.heads.solved import Examples, Solution, Tried
from kerasft.metrics import Answers

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
    accuracy for SVMs, which give no probabilities before Platt scaling; that takes the same folds.
    "bayes" chooses by log loss on `validation`; so do the other methods if a class has too few
    training images (or units of them) for two folds, and then a note says so. An SVM makes no use
    of `validation`, and without two folds is refused.

    Args:
        method: name of the method, a key of METHODS.
        train: the training images.
        validation: the validation images.
        num_classes: number of classes, K, at least 2; `train` has images of each.
        class_weight: weights of the classes, "none", or "balanced" for equal total weights. The
            scores that compare settings are not weighted.
        seed: seed for the folds, and for the order of images in LinearSVC with a few classes.
        progress: the callback that receives the number of finished fits and of all fits.

    Raises:
        UserError: the method is unknown (exit code 2); a class has no training images, or for an
            SVM too few for two folds; "lda" has too many features and images, or no spread.
    """
    if method not in METHODS:
        raise UserError(
            f"method: expected one of {', '.join(METHODS)}, got '{method}'."
            f"{did_you_mean(method, METHODS)}",
            exit_code=2,
        )
    row = METHODS[method].solver()
    _check_classes(method, train, num_classes)
    task = Task(num_classes, class_weight, seed)
    folds = _folds(train, num_classes, seed) if row.folds else []
    if row.platt and not folds:
        raise _without_folds(method, train, num_classes)
    notes = []
    if row.folds and not folds:
        notes.append(
            "A class has too few training images, or groups of them, for cross-validation (copies "
            "of an image count once): the setting was chosen on the validation images."
        )
    pairs = [(train.take(fit), train.take(held)) for fit, held in folds] or [(train, validation)]
    settings = row.settings(train.features.shape[1], min(len(fit.labels) for fit, _ in pairs))
    total = len(settings) * len(pairs) + 1 + (len(folds) if row.platt else 0)
    tried, answers = _tried(row, settings, pairs, task, lambda done: progress(done, total))
    best = (max if row.score == "accuracy" else min)(tried, key=lambda one: one.score)

    with _convergence() as failures:
        fitted = row.estimator(best.parameters, task)
        if row.platt:
            fitted = fit_calibrated(fitted, train, folds, task)
        else:
            fitted.fit(train.features, train.labels)
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
        answers=answers,
    )


def _tried(
    row: Solver,
    settings: list[Setting],
    pairs: list[tuple[Examples, Examples]],
    task: Task,
    progress: Callable[[int], None],
) -> tuple[list[Tried], Answers | None]:
    """Tries settings.

    Args:
        row: the method's solver.
        settings: the settings to try.
        pairs: pairs of images to fit and images to score.
        task: the inputs of the solver other than the images.
        progress: the callback that receives the number of finished fits.

    Returns:
        The settings with their scores; their answers if there is one pair, or else None.
    """
    tried: list[Tried] = []
    answers: list[Answers] = []
    for setting in settings:
        scores = []
        for fit, held in pairs:
            fitted = row.estimator(setting, task)
            with _convergence():  # only the convergence of the chosen setting is reported
                fitted.fit(fit.features, fit.labels)
            scores.append(_SCORES[row.score](fitted, held))
            progress(len(tried) * len(pairs) + len(scores))
        # Every image counts once. Rounded, so that equal numbers of hits give equal scores,
        # however they are spread over the folds.
        score = np.average(scores, weights=[len(held.labels) for _, held in pairs])
        tried.append(Tried(setting, round(float(score), 10)))
        if len(pairs) == 1:
            answers.append(_answers(fitted, held))
    return tried, Answers.joined(answers) if answers else None


def _check_classes(method: str, train: Examples, num_classes: int) -> None:
    """Raises UserError if a class has no training images."""
    absent = sorted(set(range(num_classes)) - set(train.labels.tolist()))
    if absent:
        raise UserError(
            f"{method}: no training images of {len(absent)} of the {num_classes} classes, "
            f"numbers {', '.join(map(str, absent[:20]))} (from 0). Expected one of each."
        )


def _folds(train: Examples, num_classes: int, seed: int) -> Folds:
    """Returns pairs of rows to fit and rows to hold out, at most FOLDS; [] if two are impossible.

    The rows to fit contain every class, and no unit is on both sides. Each row is held out once.
    """
    smallest = min(_units_per_class(train, num_classes))
    apart = train.units is None or len(set(train.units)) == len(train.labels)
    for count in range(min(FOLDS, smallest), 1, -1):
        if apart:
            by_class = StratifiedKFold(count, shuffle=True, random_state=seed)
            found = list(by_class.split(train.features, train.labels))
        else:
            by_unit = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            found = list(by_unit.split(train.features, train.labels, train.units))
        # Units of several sizes may leave a side without a class, or a fold without images.
        if all(len(h) and len(set(train.labels[f])) == num_classes for f, h in found):
            return found
    return []


def _units_per_class(train: Examples, num_classes: int) -> list[int]:
    units = np.arange(len(train.labels)) if train.units is None else train.units
    return [len(set(units[train.labels == k])) for k in range(num_classes)]


def _without_folds(method: str, train: Examples, num_classes: int) -> TooFewPhotos:
    """Returns the error of a method that needs two folds where they are impossible."""
    numbers = _units_per_class(train, num_classes)
    few = [k for k, number in enumerate(numbers) if number < 2]
    got = "groups that cannot be divided so"
    if few:
        got = f"one of class {', '.join(map(str, few[:20]))} (numbered from 0)"
    return TooFewPhotos(
        f"{method}: too few training images for two folds with every class, which Platt scaling "
        "needs. Expected two of each class (copies of an image, or images of a group, count as "
        f"one), got {got}. Use logistic, which needs none, or add photos."
    )


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


def _answers(fitted: Any, held: Examples) -> Answers:
    scores = np.maximum(fitted.predict_proba(held.features).astype(np.float64), SMALLEST)
    return Answers.of(np.log(scores), held.labels)


_SCORES: dict[str, Callable[[Any, Examples], float]] = {
    "accuracy": _accuracy,
    "log loss": _log_loss,
}
