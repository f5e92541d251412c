"""Many classes at once are LinearSVC class by class, solved to the end."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from solved import examples
from threadpoolctl import threadpool_limits

from kerasft.heads.estimators import MANY, ManyClassSVC


def images(counts, *, features=30):
    found = examples(counts, seed=0, features=features)
    return StandardScaler().fit_transform(found.features), found.labels


def by_hand(c, x, y, weight=None):
    """LinearSVC, which by its own tolerance of 1e-4 would be up to 1e-4 off."""
    return LinearSVC(C=c, class_weight=weight, tol=1e-10, max_iter=100_000).fit(x, y)


def refuse_liblinear(monkeypatch):
    def fit(self, X, y):
        raise AssertionError("class after class")

    monkeypatch.setattr(LinearSVC, "fit", fit)


SHAPES = {
    "fewer features than images": ([8] * 12, 30),
    "more features than images": ([5] * 12, 90),
    "as many": ([5] * 12, 59),  # and the intercept
}


@pytest.mark.parametrize("c", [1e-4, 1e-2, 10.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_classes_get_the_weights_of_liblinear(shape, c, monkeypatch):
    counts, features = SHAPES[shape]
    x, y = images(counts, features=features)
    expected = by_hand(c, x, y)
    refuse_liblinear(monkeypatch)
    svm = ManyClassSVC(C=c).fit(x, y)
    # No curvature is below 1, so no weight is further off than the gradient is long: 91 x 1e-6.
    np.testing.assert_allclose(svm.coef_, expected.coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(svm.intercept_, expected.intercept_, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(svm.predict(x), expected.predict(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_weights_near_those_of_many_classes_have_a_lower_loss(shape):
    counts, features = SHAPES[shape]
    x, y = images(counts, features=features)
    svm = ManyClassSVC(C=1e-2).fit(x, y)
    signs = np.where(y[:, None] == np.arange(12), 1, -1)
    slack = np.maximum(0, 1 - signs * svm.decision_function(x))
    gradient = svm.coef_.T - 2e-2 * (x.T @ (signs * slack))
    of_intercept = svm.intercept_ - 2e-2 * (signs * slack).sum(axis=0)
    assert np.abs(np.vstack([gradient, of_intercept])).max() < 1.1e-6  # rounding too


def test_balanced_weighs_the_images_of_a_class_and_not_the_rest_as_liblinear_does():
    x, y = images([20, 2, 2, 2, *[8] * 8])
    svm, expected = (
        ManyClassSVC(C=1e-2, class_weight="balanced").fit(x, y),
        by_hand(1e-2, x, y, "balanced"),
    )
    np.testing.assert_allclose(svm.coef_, expected.coef_, rtol=0, atol=1e-5)
    plain = by_hand(1e-2, x, y)  # the control: the weights do something
    assert np.abs(plain.coef_ - expected.coef_).max() > 1e-2


def test_a_few_classes_are_left_to_liblinear():
    x, y = images([8] * (MANY - 1))
    svm, expected = (kind(C=1e-2, random_state=3).fit(x, y) for kind in (ManyClassSVC, LinearSVC))
    np.testing.assert_array_equal(svm.coef_, expected.coef_)


def test_classes_may_have_names():
    x, y = images([8] * 12)
    names = np.array([f"class {k:02}" for k in range(12)])
    numbered, named = ManyClassSVC(C=1e-2).fit(x, y), ManyClassSVC(C=1e-2).fit(x, names[y])
    np.testing.assert_array_equal(named.predict(x), names[numbered.predict(x)])


def test_images_may_be_there_twice():
    x, y = images([3] * 12, features=90)
    x, y = np.vstack([x, x]), np.concatenate([y, y])
    svm = ManyClassSVC(C=1e-2).fit(x, y)
    np.testing.assert_allclose(svm.coef_, by_hand(1e-2, x, y).coef_, rtol=0, atol=1e-5)


def test_features_that_say_nothing_give_weights_of_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svm = ManyClassSVC(C=1e-2).fit(np.zeros((24, 3)), np.arange(24) % 12)
    assert not svm.coef_.any()
    assert (svm.intercept_ < 0).all()  # eleven of twelve images are not of the class


def test_too_few_steps_are_told_as_scikit_learn_tells_them():
    x, y = images([8] * 12)
    with pytest.warns(ConvergenceWarning, match="no solution after 1 steps"):
        ManyClassSVC(C=1e-2, max_iter=1).fit(x, y)


def test_the_weights_are_the_same_bits_in_every_run():
    x, y = images([8] * 12)
    with threadpool_limits(1):
        one, two = (ManyClassSVC(C=1e-2, random_state=seed).fit(x, y) for seed in (0, 1))
    np.testing.assert_array_equal(one.coef_, two.coef_)
