"""A discriminant is the same from sums as from photos, whatever was added to them and when."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from kerasft.errors import UserError
from kerasft.heads import sums
from kerasft.heads.sums import Memory, Sums, class_logits, solve

F = 5


def photos(seed, *counts):
    """Returns features [N,F] around a centre for each class, and labels; class k has counts[k]."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(0).normal(scale=2, size=(len(counts), F))
    return (centres[labels] + rng.normal(size=(len(labels), F))).astype(np.float32), labels


def sums_of(features, labels, classes, batch=7):
    starts = range(0, len(labels), batch)
    return Sums.of(((features[i : i + batch], labels[i : i + batch]) for i in starts), classes)


def logits_of(some, features, shrinkage=0.3):
    kernel, bias = some.discriminant(shrinkage)
    return features @ kernel + bias


def assert_same(one, other):
    np.testing.assert_allclose(one.counts, other.counts)
    np.testing.assert_allclose(one.means, other.means, atol=1e-9)
    np.testing.assert_allclose(one.scatter, other.scatter, atol=1e-6)
    assert one.class_of.tolist() == other.class_of.tolist()


def test_the_discriminant_is_that_of_scikit_learn():
    features, labels = photos(1, 20, 9, 14)
    # scikit-learn shrinks after each feature was scaled; equal scales make both the same.
    scale = np.sqrt(sums_of(features, labels, 3).scatter.diagonal() / len(labels))
    even = (features / scale).astype(np.float32)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(even, labels)
    found = logits_of(sums_of(even, labels, 3), even)
    expected = fitted.decision_function(even)
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=2e-4,
    )


def test_sums_of_two_sets_are_those_of_both_at_once():
    first, second = photos(1, 20, 9, 14), photos(2, 5, 0, 8)
    both = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    assert_same(sums_of(*first, 3).plus(sums_of(*second, 3)), sums_of(*both, 3))


def test_a_class_that_is_added_later_is_one_that_was_always_there():
    features, labels = photos(1, 20, 9, 14)
    old, new = labels < 2, labels == 2
    later = sums_of(features[old], labels[old], 3).plus(sums_of(features[new], labels[new], 3))
    assert_same(later, sums_of(features, labels, 3))


def test_far_from_zero_nothing_is_lost():
    features, labels = photos(1, 20, 9)
    far = features.astype(np.float64) + 1e5
    near, off = sums_of(features, labels, 2), Sums.of([(far, labels)], 2)
    np.testing.assert_allclose(off.scatter, near.scatter, atol=1e-4)


def test_a_merged_class_has_the_scores_of_its_parts_summed():
    features, labels = photos(1, 20, 9, 14)
    three = sums_of(features, labels, 3)
    merged = three.taken([1, 0, 1])
    assert merged.class_of.tolist() == [1, 0, 1]
    parts = np.exp(logits_of(three, features))
    parts /= parts.sum(axis=1, keepdims=True)
    now = np.exp(class_logits(logits_of(merged, features), merged.class_of, 2))
    np.testing.assert_allclose(now[:, 0], parts[:, 1], atol=1e-9)
    np.testing.assert_allclose(now[:, 1], parts[:, 0] + parts[:, 2], atol=1e-9)


def test_photos_of_a_merged_class_are_a_part_of_their_own():
    features, labels = photos(1, 20, 9, 14)
    merged = sums_of(features, labels, 3).taken([1, 0, 1])
    more = merged.plus(sums_of(features[labels == 1], np.ones(9, int), 2))
    assert more.class_of.tolist() == [1, 0, 1, 1]
    assert more.counts.tolist() == [20, 9, 14, 9]


def test_a_class_that_is_left_out_leaves_the_others_as_they_were():
    features, labels = photos(1, 20, 9, 14)
    left = sums_of(features, labels, 3).taken([0, -1, 1])
    assert left.counts.tolist() == [20, 14]
    whole = logits_of(sums_of(features, labels, 3), features)[:, [0, 2]]
    ours = logits_of(left, features)
    np.testing.assert_allclose(np.diff(ours), np.diff(whole), atol=1e-9)


def test_validation_chooses_the_shrinkage():
    features, labels = photos(1, 20, 9, 14)
    held, truth = photos(2, 10, 10, 10)
    found = solve(sums_of(features, labels, 3), held, truth, 3)
    assert [shrinkage for shrinkage, _ in found.tried] == [0.9, 0.6, 0.3]
    losses = [loss for _, loss in found.tried]
    assert found.shrinkage == found.tried[int(np.argmin(losses))][0]
    assert found.plain


def test_photos_that_are_all_alike_are_refused():
    same = np.ones((4, F), np.float32)
    with pytest.raises(UserError, match="no variance to learn from"):
        sums_of(same, np.array([0, 0, 1, 1]), 2).discriminant(0.3)


def test_the_file_holds_what_was_kept(tmp_path):
    features, labels = photos(1, 20, 9, 14)
    held, tested = photos(2, 3, 3, 3)[0], photos(3, 2, 2, 2)[0]
    sums.save(Memory(sums_of(features, labels, 3), held, tested), tmp_path / "sums.npz")
    read = sums.load(tmp_path / "sums.npz")
    np.testing.assert_allclose(read.sums.scatter, sums_of(features, labels, 3).scatter, rtol=1e-5)
    np.testing.assert_allclose(read.sums.means, sums_of(features, labels, 3).means, rtol=1e-6)
    assert (read.validation == held.astype(np.float16)).all()
    assert (read.test == tested.astype(np.float16)).all()
    assert sums.load(tmp_path / "none.npz") is None


def test_features_beyond_16_bits_are_kept_in_32():
    assert sums.narrow(np.array([[1e5, 1.0]], np.float32)).dtype == np.float32
    assert sums.narrow(np.array([[60000.0, 1.0]], np.float32)).dtype == np.float16


DAMAGES = {
    "shape": lambda arrays: {"scatter": arrays["scatter"][:-1]},
    "missing": lambda arrays: {"scatter": None},
    "nan": lambda arrays: {"means": np.full_like(arrays["means"], np.nan)},
    "infinite": lambda arrays: {"test": np.full_like(arrays["test"], np.inf)},
    "empty": lambda arrays: {"counts": arrays["counts"] * 0},
    "negative": lambda arrays: {"class_of": arrays["class_of"] - 1},
    "halves": lambda arrays: {"class_of": arrays["class_of"] / 2},
}


@pytest.mark.parametrize("damage", ["cut", *DAMAGES])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "sums.npz"
    features, labels = photos(1, 4, 4)
    sums.save(Memory(sums_of(features, labels, 2), features, features), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        arrays = dict(np.load(path))
        arrays |= DAMAGES[damage](arrays)
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=r"sums\.npz is damaged"):
        sums.load(path)
