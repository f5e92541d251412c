"""Each method equals scikit-learn run by hand: written out here, without the module's functions."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from solved import FEATURES, examples

from kerasft.errors import UserError
from kerasft.heads import estimators
from kerasft.heads.methods import METHODS, TRIES
from kerasft.heads.solved import Examples
from kerasft.heads.solver import solve

FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)


def platt(svm):
    pipeline = make_pipeline(StandardScaler(), svm)
    return CalibratedClassifierCV(pipeline, method="sigmoid", cv=FOLDS, ensemble=False)


def svm(x, y, p):
    return platt(LinearSVC(C=p["C"], random_state=0, max_iter=10000)).fit(x, y)


def rbf_svm(x, y, p):
    return platt(SVC(C=p["C"], gamma=p["gamma"])).fit(x, y)


def bayes(x, y, p):
    return GaussianNB(var_smoothing=p["var_smoothing"]).fit(x.astype("float64"), y)


def lda(x, y, p):
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=p["shrinkage"])
    return model.fit(x.astype("float64"), y)


def logistic(x, y, p):
    return make_pipeline(StandardScaler(), LogisticRegression(C=p["C"], max_iter=1000)).fit(x, y)


def knn(x, y, p):
    return KNeighborsClassifier(p["k"], metric="cosine").fit(x, y)


BY_HAND = {
    "knn": knn,
    "bayes": bayes,
    "lda": lda,
    "logistic": logistic,
    "svm": svm,
    "rbf-svm": rbf_svm,
}


def test_every_method_is_run_by_hand_below():
    assert list(METHODS) == list(BY_HAND)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_solution_is_what_scikit_learn_gives_by_hand(method, num_classes):
    train = examples([40] * num_classes, seed=0)
    validation = examples([20] * num_classes, seed=1)
    test = examples([50] * num_classes, seed=2)
    solution = solve(method, train, validation, num_classes=num_classes)
    by_hand = BY_HAND[method](train.features, train.labels, solution.parameters)
    scores = solution.estimator.predict_proba(test.features)
    # The floor of neighbours changes up to 5e-5; the others differ by the order of sums.
    limit = 5e-5 if method == "knn" else 1e-6
    np.testing.assert_allclose(scores, by_hand.predict_proba(test.features), rtol=0, atol=limit)
    assert np.mean(scores.argmax(axis=1) == test.labels) > 1.5 / num_classes  # it learns
    assert len(np.unique(scores.argmax(axis=1))) == num_classes


@pytest.mark.parametrize("num_classes", [2, 3])
def test_lda_of_more_features_than_images_is_that_of_scikit_learn_too(num_classes):
    train = examples([15] * num_classes, seed=0, features=70)
    solution = solve("lda", train, train, num_classes=num_classes)
    by_hand = lda(train.features, train.labels, solution.parameters)
    test = examples([50] * num_classes, seed=1, features=70).features
    np.testing.assert_allclose(
        solution.estimator.predict_proba(test), by_hand.predict_proba(test), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tries_as_many_settings(method):
    settings = METHODS[method].solver().settings(1280, 277)
    assert len(settings) == len({str(context) for context in settings}) == TRIES == 3


def test_neighbours_are_never_more_than_the_images():
    assert METHODS["knn"].solver().settings(1280, 10) == [{"k": 10}, {"k": 10}, {"k": 3}]


@pytest.mark.parametrize("method", METHODS)
def test_balanced_classes_give_the_rare_one_higher_scores(method):
    train, validation = examples([90, 20], seed=0), examples([45, 10], seed=1)
    rare = examples([100, 100], seed=2)
    plain, balanced = (
        solve(method, train, validation, num_classes=2, class_weight=weight)
        .estimator.predict_proba(rare.features)[:, 1]
        .mean()
        for weight in ("none", "balanced")
    )
    assert balanced > plain + 0.02


def test_balanced_neighbours_count_by_one_over_the_size_of_their_class():
    train = examples([90, 30], seed=0)
    solution = solve("knn", train, train, num_classes=2, class_weight="balanced")
    test = examples([20, 20], seed=2).features
    shares = knn(train.features, train.labels, solution.parameters).predict_proba(test)
    expected = shares * [1, 3]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(solution.estimator.predict_proba(test), expected, atol=5e-5)


def test_balanced_lda_and_bayes_have_equal_priors():
    train = examples([90, 30], seed=0)
    test = examples([20, 20], seed=2).features
    solution = solve("lda", train, train, num_classes=2, class_weight="balanced")
    by_hand = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=solution.parameters["shrinkage"], priors=[0.5, 0.5]
    ).fit(train.features.astype("float64"), train.labels)
    np.testing.assert_allclose(
        solution.estimator.predict_proba(test), by_hand.predict_proba(test), rtol=0, atol=1e-8
    )
    solution = solve("bayes", train, train, num_classes=2, class_weight="balanced")
    np.testing.assert_allclose(solution.form.log_priors, np.log([0.5, 0.5]))


def test_balanced_svms_weigh_the_images_of_platt_scaling_too():
    train, validation = examples([90, 30], seed=0), examples([45, 15], seed=1)
    solution = solve("svm", train, validation, num_classes=2, class_weight="balanced")
    svm = LinearSVC(
        C=solution.parameters["C"], class_weight="balanced", random_state=0, max_iter=10000
    )
    weights = np.where(train.labels == 0, 120 / 180, 120 / 60)
    with pytest.warns(UserWarning, match="Since Pipeline"):  # the SVM balances by itself
        by_hand = platt(svm).fit(train.features, train.labels, sample_weight=weights)
    test = examples([20, 20], seed=2).features
    np.testing.assert_allclose(
        solution.estimator.predict_proba(test), by_hand.predict_proba(test), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("method", ["svm", "rbf-svm", "logistic"])
def test_a_feature_that_is_constant_but_for_rounding_is_not_blown_up(method):
    train, validation = examples([40, 40], seed=0), examples([20, 20], seed=1)
    noise = np.random.default_rng(0).choice([-3e-8, 0, 3e-8], len(train.labels))
    train.features[:, -1] += noise.astype("float32")
    assert 0 < train.features[:, -1].std() < 1e-6
    mean, scale = solve(method, train, validation, num_classes=2).form.scaler
    assert scale[-1] == 1.0
    assert mean[-1] == pytest.approx(0.5)
    np.testing.assert_allclose(scale[:-1], train.features[:, :-1].std(axis=0), rtol=1e-5)


def test_saturated_scores_are_reported_and_others_are_not():
    labels = np.arange(80) % 2
    x = np.random.default_rng(0).normal(labels, 1, (3, 80)).T.astype("float32")
    some = Examples(x, labels)
    assert solve("bayes", some, some, num_classes=2).notes == ()
    # Each feature 40 times: a classifier that takes them for independent is far too sure.
    often = Examples(np.repeat(x, 40, axis=1), labels)
    (note,) = solve("bayes", often, often, num_classes=2).notes
    assert "% of the validation images get a score within a millionth of 1" in note


@pytest.mark.parametrize("num_classes", [2, 4])
def test_platt_sigmoids_are_fitted_to_decisions_on_images_held_out(num_classes):
    train = examples([40] * num_classes, seed=0)
    solution = solve("svm", train, train, num_classes=num_classes)
    c = solution.parameters["C"]
    pipeline = make_pipeline(StandardScaler(), LinearSVC(C=c, random_state=0, max_iter=10000))
    x, y = train.features, train.labels
    decisions = cross_val_predict(pipeline, x, y, cv=FOLDS, method="decision_function")
    own = pipeline.fit(x, y).decision_function(x)
    if num_classes == 2:
        decisions, own = decisions[:, None], own[:, None]
    scores = []
    for column, (d, final) in enumerate(zip(decisions.T, own.T, strict=True)):
        is_class = y == (1 if num_classes == 2 else column)
        inside, outside = is_class.sum(), (~is_class).sum()
        targets = np.where(is_class, (inside + 1) / (inside + 2), 1 / (outside + 2))

        def loss(ab, d=d, targets=targets):
            z = ab[0] * d + ab[1]
            return (np.logaddexp(0, z) - targets * z).sum()

        a, b = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8}).x
        scores.append(1 / (1 + np.exp(-a * final - b)))
    expected = np.stack(scores if num_classes > 2 else [1 - scores[0], scores[0]], axis=1)
    expected /= expected.sum(axis=1, keepdims=True)
    found = solution.estimator.predict_proba(x)
    # The minimum is flat: two searches end up to 1e-5 apart.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def noise(n, seed):
    """Ten classes about which the features say nothing."""
    x = np.random.default_rng(seed).normal(0, 1, (n, 20))
    return Examples(x.astype("float32"), np.arange(n) % 10)


@pytest.mark.parametrize("method", ["svm", "rbf-svm"])
def test_on_noise_the_validation_accuracy_of_an_svm_is_that_of_chance(method):
    shares = []
    for seed in range(8):
        train, validation = noise(400, seed), noise(100, 100 + seed)
        scores = solve(method, train, validation, num_classes=10).estimator.predict_proba(
            validation.features
        )
        shares.append(np.mean(scores.argmax(axis=1) == validation.labels))
    # 800 guesses, each right with a probability of 0.1: three standard errors are 0.032.
    assert np.mean(shares) == pytest.approx(0.1, abs=0.032)


def test_platt_scaling_that_turns_decisions_round_is_reported():
    train = examples([40] * 3, seed=0)
    assert solve("svm", train, train, num_classes=3).notes == ()
    # On noise, the class of an image that is held out is the rarer among the others.
    (note,) = solve("svm", noise(40, 3), noise(40, 4), num_classes=10).notes
    assert note.startswith("Platt scaling reversed classes ")
    assert "on training images that were held out the SVM does worse than chance there" in note


@pytest.mark.parametrize(
    ("slopes", "of"),
    [
        ([0.5, -0.1, 2.0, 0.0], "classes 1, 3"),
        ([-0.5], "the decision"),
        ([0.5], None),
    ],
)
def test_the_classes_whose_decisions_are_turned_round_are_named(slopes, of):
    sigmoids = [SimpleNamespace(a_=-slope, b_=0.25) for slope in slopes]
    calibrated = SimpleNamespace(estimator="svm", calibrators=sigmoids)
    fitted = SimpleNamespace(calibrated_classifiers_=[calibrated])
    task = estimators.Task(max(2, len(slopes)), "none", 0)
    svm, *numbers, notes = estimators._sigmoids_of(fitted, examples([1, 1], seed=0), task)
    assert svm == "svm"
    np.testing.assert_array_equal(numbers, [slopes, [-0.25] * len(slopes)])
    assert [note.partition(":")[0] for note in notes] == (
        [f"Platt scaling reversed {of}"] if of else []
    )


def test_the_size_of_stored_photos_is_told():
    train, validation = examples([40, 40], seed=0), examples([20, 20], seed=1)
    solution = solve("knn", train, validation, num_classes=2)
    assert solution.notes == ("The head holds the features of 80 training images, 0.0 MB.",)
    solution = solve("rbf-svm", train, validation, num_classes=2)
    count = len(solution.form.vectors)
    assert solution.notes == (f"The head holds {count} support vectors, 0.0 MB.",)
    assert solution.form.vectors.shape == (count, FEATURES)


@pytest.mark.parametrize("counts", [[20, 20], [4, 4]])
def test_lda_solves_the_smaller_system_of_features_or_images(counts, monkeypatch):
    solve_linear, rows = np.linalg.solve, []

    def recording(matrix, right):
        rows.append(len(matrix))
        return solve_linear(matrix, right)

    monkeypatch.setattr(np.linalg, "solve", recording)
    train = examples(counts, seed=0)
    estimators._Discriminant(0.5, None).fit(train.features, train.labels)
    assert rows == [min(sum(counts), FEATURES)]


def test_lda_refuses_what_has_no_spread_and_what_is_too_large(monkeypatch):
    flat = Examples(np.array([[0, 1], [1, 0]] * 6, "float32"), np.array([0, 1] * 6))
    with pytest.raises(UserError, match="training images of each class have the same features"):
        solve("lda", flat, flat, num_classes=2)
    monkeypatch.setattr(estimators, "LARGEST_MATRIX", 11)
    train = examples([40, 40], seed=0)
    with pytest.raises(UserError, match=r"with 12 rows .*, expected at most 11\. Use logistic"):
        solve("lda", train, train, num_classes=2)
