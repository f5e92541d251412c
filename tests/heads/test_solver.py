import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from solved import examples
from threadpoolctl import threadpool_limits

from kerasft.errors import UserError
from kerasft.heads import estimators
from kerasft.heads.methods import METHODS
from kerasft.heads.solved import Examples
from kerasft.heads.solver import _folds, solve


@pytest.fixture
def train():
    return examples([40] * 3, seed=0)


@pytest.fixture
def validation():
    return examples([20] * 3, seed=1)


def test_a_setting_is_chosen_by_log_loss_in_cross_validation(train, validation):
    solution = solve("logistic", train, validation, num_classes=3, seed=7)
    folds = StratifiedKFold(5, shuffle=True, random_state=7)
    expected = [
        -cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)),
            train.features,
            train.labels,
            cv=folds,
            scoring="neg_log_loss",
        ).mean()
        for c in (1e-2, 1e-1, 1.0)
    ]
    assert solution.score == "log loss in 5-fold cross-validation"
    np.testing.assert_allclose([one.score for one in solution.tried], expected, rtol=1e-6)
    best = int(np.argmin(expected))
    assert solution.parameters == solution.tried[best].parameters


def test_a_setting_of_an_svm_is_chosen_by_accuracy(train, validation):
    solution = solve("svm", train, validation, num_classes=3)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = [
        cross_val_score(
            make_pipeline(StandardScaler(), LinearSVC(C=c, random_state=0, max_iter=10000)),
            train.features,
            train.labels,
            cv=folds,
        ).mean()
        for c in (1e-4, 1e-3, 1e-2)
    ]
    assert solution.score == "accuracy in 5-fold cross-validation"
    np.testing.assert_allclose([one.score for one in solution.tried], expected, atol=1e-9)


def test_many_classes_are_scored_as_by_scikit_learn_whatever_the_number_of_threads():
    many, held = examples([12] * 15, seed=0), examples([4] * 15, seed=1)
    solutions = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            solutions.append(solve("svm", many, held, num_classes=15))
    one, two = solutions
    expected = [
        cross_val_score(
            make_pipeline(StandardScaler(), LinearSVC(C=c, tol=1e-8, max_iter=100_000)),
            many.features,
            many.labels,
            cv=StratifiedKFold(5, shuffle=True, random_state=0),
        ).mean()
        for c in (1e-4, 1e-3, 1e-2)
    ]
    np.testing.assert_allclose([each.score for each in one.tried], expected, atol=1e-9)
    assert one.tried == two.tried and one.converged and one.notes == two.notes
    np.testing.assert_array_equal(one.form.kernel, two.form.kernel)
    np.testing.assert_array_equal(one.form.bias, two.form.bias)


def test_of_equal_scores_the_simplest_setting_is_taken():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = rng.normal(0, 0.1, (60, 5)) + 10 * labels[:, None]  # far apart: all settings are right
    apart = Examples(x.astype("float32"), labels)
    solution = solve("svm", apart, apart, num_classes=2)
    assert [one.score for one in solution.tried] == [1.0, 1.0, 1.0]
    assert solution.parameters == {"C": 1e-4}


def test_bayes_chooses_by_log_loss_on_the_validation_images(train, validation):
    solution = solve("bayes", train, validation, num_classes=3)
    assert solution.score == "log loss on the validation images"
    scores = solution.estimator.predict_proba(validation.features)
    loss = -np.log(scores[np.arange(60), validation.labels]).mean()
    chosen = next(o for o in solution.tried if o.parameters == solution.parameters)
    assert chosen.score == pytest.approx(loss)
    assert chosen.score == min(one.score for one in solution.tried)
    assert [one.parameters["var_smoothing"] for one in solution.tried] == [0.1, 3e-3, 1e-4]
    # What the choice was made among is kept, an answer of each setting to each image.
    assert solution.answers.right.shape == (3, 60)
    losses = solution.answers.losses.mean(axis=1)
    np.testing.assert_allclose(losses, [one.score for one in solution.tried], rtol=1e-6)


@pytest.mark.parametrize("method", ["lda", "logistic", "knn", "svm", "rbf-svm"])
def test_validation_images_are_not_looked_at_where_nothing_needs_them(method, train, validation):
    other = Examples(validation.features[::-1] * 3, np.zeros(60, int))
    one, two = (solve(method, train, v, num_classes=3) for v in (validation, other))
    assert one.tried == two.tried
    assert one.answers is None
    np.testing.assert_array_equal(
        one.estimator.predict_proba(train.features), two.estimator.predict_proba(train.features)
    )
    for name, number in vars(one.form).items():
        np.testing.assert_array_equal(number, vars(two.form)[name])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(method, train, validation):
    one, two = (solve(method, train, validation, num_classes=3, seed=5) for _ in range(2))
    assert one.tried == two.tried
    np.testing.assert_array_equal(
        one.estimator.predict_proba(train.features), two.estimator.predict_proba(train.features)
    )


def test_another_seed_gives_other_folds(train, validation):
    one, two = (solve("lda", train, validation, num_classes=3, seed=seed) for seed in (5, 6))
    assert one.tried != two.tried


def shots(together):
    """Series of four shots, alike but for noise, labels at random: only a leak can be right."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(0, 1, (30, 8)), 4, axis=0) + rng.normal(0, 1e-3, (120, 8))
    units = np.arange(120) // 4
    return Examples(x.astype("float32"), np.repeat(units[::4] % 2, 4), units if together else None)


def test_photos_of_a_unit_are_never_on_both_sides_of_a_fold():
    plain, grouped = shots(together=False), shots(together=True)
    leaky = solve("knn", plain, plain, num_classes=2)
    assert leaky.tried[-1].score < 0.2  # the control: k = 3 finds the other shots of a series
    honest = solve("knn", grouped, grouped, num_classes=2)
    assert honest.tried[-1].score > 0.6
    assert honest.score == "log loss in 5-fold cross-validation"


def copied():
    """Sixty images of three classes, labels at random, of which every second is there thrice."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), np.where(np.arange(60) % 2, 3, 1))
    x = rng.normal(0, 1, (60, 8))[units]
    return Examples(x.astype("float32"), (np.arange(60) // 2 % 3)[units], units)


def test_copies_are_in_one_fold_and_each_image_is_held_out_once():
    some = copied()
    folds = _folds(some, 3, seed=0)
    assert len(folds) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in folds])), range(120))
    for fit, held in folds:
        assert not set(some.units[fit]) & set(some.units[held])
    # The control: without units, copies are on both sides.
    leaky = _folds(replace(some, units=None), 3, seed=0)
    assert all(set(some.units[fit]) & set(some.units[held]) for fit, held in leaky)


def test_units_of_one_image_each_change_nothing(train, validation):
    apart = replace(train, units=np.arange(120))
    one, two = (solve("lda", some, validation, num_classes=3) for some in (train, apart))
    assert one.tried == two.tried


def test_a_small_class_makes_the_folds_fewer(validation):
    few = examples([40, 40, 3], seed=0)
    solution = solve("logistic", few, validation, num_classes=3)
    assert solution.score == "log loss in 3-fold cross-validation"


@pytest.mark.parametrize(
    "few",
    [
        examples([40, 40, 1], seed=0),
        replace(examples([20, 20, 4], seed=0), units=np.zeros(44, int)),
    ],
    ids=["one photo", "one unit"],
)
def test_without_two_folds_the_setting_is_chosen_on_the_validation_images(few, validation):
    solution = solve("logistic", few, validation, num_classes=3)
    assert solution.score == "log loss on the validation images"
    assert len(solution.tried) == 3
    assert solution.notes[0].startswith("A class has too few training images, or groups of them")


@pytest.mark.parametrize("method", ["svm", "rbf-svm"])
def test_an_svm_without_two_folds_is_refused(method, validation):
    few = examples([40, 1, 40], seed=0)
    with pytest.raises(UserError) as caught:
        solve(method, few, validation, num_classes=3)
    assert str(caught.value) == (
        f"{method}: too few training images for two folds with every class, which Platt scaling "
        "needs. Expected two of each class (copies of an image, or images of a group, count as "
        "one), got one of class 1 (numbered from 0). Use logistic, which needs none, or add photos."
    )
    copies = replace(examples([3, 3, 3], seed=0), units=np.array([0, 0, 0, 0, 0, 0, 0, 0, 1]))
    with pytest.raises(UserError, match=r"got one of class \d, \d \(numbered from 0\)"):
        solve(method, copies, validation, num_classes=3)
    # Each class is in two of three groups, so the fold without a group lacks a class.
    tangled = Examples(np.eye(6, 12), np.array([0, 1, 0, 2, 1, 2]), np.array([0, 0, 1, 1, 2, 2]))
    with pytest.raises(UserError, match="got groups that cannot be divided so"):
        solve(method, tangled, validation, num_classes=3)


@pytest.mark.parametrize("method", METHODS)
def test_one_photo_of_each_class_is_enough_or_a_clear_message(method, validation):
    three = Examples(np.eye(3, 12, dtype="float32"), np.arange(3))
    refused = {"lda": "no variance to learn", "svm": "too few", "rbf-svm": "too few"}
    if method in refused:
        with pytest.raises(UserError, match=refused[method]):
            solve(method, three, validation, num_classes=3)
    else:
        solution = solve(method, three, validation, num_classes=3)
        assert solution.estimator.predict_proba(validation.features).shape == (60, 3)


def test_progress_counts_every_fit(train, validation):
    told = []
    solve("knn", train, validation, num_classes=3, progress=lambda *now: told.append(now))
    assert told == [(done, 16) for done in range(1, 17)]
    told.clear()
    solve("bayes", train, validation, num_classes=3, progress=lambda *now: told.append(now))
    assert told == [(done, 4) for done in range(1, 5)]
    told.clear()
    solve("svm", train, validation, num_classes=3, progress=lambda *now: told.append(now))
    # Five folds and the final fit for Platt scaling are one step.
    assert told == [(done, 21) for done in (*range(1, 16), 21)]


def use(monkeypatch, estimator):
    """Has the method "logistic" make another estimator."""
    solver = replace(estimators.LOGISTIC, estimator=estimator)
    row = replace(METHODS["logistic"], solver=lambda: solver)
    monkeypatch.setitem(METHODS, "logistic", row)


def test_a_solver_that_did_not_converge_says_so(train, validation, monkeypatch):
    assert solve("logistic", train, validation, num_classes=3).converged

    def hasty(setting, task):
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1))

    use(monkeypatch, hasty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is in the notes is not said twice
        solution = solve("logistic", train, validation, num_classes=3)
    assert not solution.converged
    assert solution.notes[0].startswith("The solver stopped before it had converged: ")


def test_no_other_warning_is_swallowed(train, validation, monkeypatch):
    class Noisy(LogisticRegression):
        def fit(self, X, y):
            warnings.warn("something else", UserWarning, stacklevel=1)
            return super().fit(X, y)

    use(monkeypatch, lambda setting, task: make_pipeline(StandardScaler(), Noisy(max_iter=1000)))
    with pytest.warns(UserWarning, match="something else"):
        assert solve("logistic", train, validation, num_classes=3).converged


@pytest.mark.parametrize("method", METHODS)
def test_solving_warns_of_nothing(method, train, validation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(method, train, validation, num_classes=3, class_weight="balanced")


def test_an_unknown_method_is_named_with_the_nearest(train, validation):
    with pytest.raises(UserError, match=r"got 'svn'\. Did you mean 'svm'\?") as caught:
        solve("svn", train, validation, num_classes=3)
    assert caught.value.exit_code == 2
    assert "expected one of knn, bayes, lda, logistic, svm, rbf-svm" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_training_images_is_named(method, train, validation):
    with pytest.raises(UserError, match="no training images of 1 of the 4 classes, numbers 3"):
        solve(method, train, validation, num_classes=4)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_needs_validation_images_of_every_class(method, train):
    solve(method, train, examples([20, 0, 20], seed=1), num_classes=3)
