import numpy as np
import pytest

from kerasft.seeds import derive_seed
from kerasft.training.feed import epoch_order, epoch_views, mixup_shares


def test_a_named_choice_has_the_same_seed_on_every_machine():
    assert derive_seed(0, "split") == 743028429
    assert derive_seed(0, "phase", 1) != derive_seed(0, "phase", 2)
    assert derive_seed(1, "split") != derive_seed(0, "split")


def test_an_epoch_visits_every_image_once():
    for n in (0, 1, 13, 64, 65, 5000):
        np.testing.assert_array_equal(np.sort(epoch_order(7, 0, n)), np.arange(n))


def test_an_epochs_order_depends_on_seed_and_epoch_only():
    np.testing.assert_array_equal(epoch_order(7, 3, 100), epoch_order(7, 3, 100))
    assert not np.array_equal(epoch_order(7, 3, 100), epoch_order(7, 4, 100))
    assert not np.array_equal(epoch_order(7, 3, 100), epoch_order(8, 3, 100))


def test_the_order_of_an_epoch_is_that_of_earlier_versions():
    # Runs of kerasft 0.1 are resumed with it. 130 images are three chunks.
    assert epoch_order(0, 0, 10).tolist() == [8, 0, 2, 3, 5, 9, 4, 1, 7, 6]
    assert epoch_order(7, 3, 130)[:8].tolist() == [103, 127, 102, 2, 18, 46, 7, 19]


def test_images_of_one_class_do_not_stay_together():
    # Sources are sorted by class; 600 images of three classes, then batches of 30.
    labels = np.repeat([0, 1, 2], 200)[epoch_order(0, 0, 600)]
    per_batch = [len(set(labels[i : i + 30])) for i in range(0, 600, 30)]
    assert per_batch == [3] * 20


def test_a_long_epoch_is_read_in_stretches():
    # Beyond one buffer the store is read chunk by chunk: a stretch of 4096 images touches
    # 64 chunks (65 with the last, short one), not all of them.
    order = epoch_order(0, 0, 100_000)
    assert len(set(order[:4096] // 64)) <= 65


def test_every_view_comes_up_about_as_often_as_the_others():
    views = epoch_views(7, 0, 4000, 4)
    assert views.shape == (4000,) and views.dtype == np.int64
    counts = np.bincount(views)
    # 1000 expected, 27 is one standard deviation.
    assert len(counts) == 4 and counts.min() > 890 and counts.max() < 1110


def test_one_view_is_the_plain_one():
    assert epoch_views(7, 3, 5, 1).tolist() == [0, 0, 0, 0, 0]


def test_an_images_view_depends_on_seed_and_epoch_only():
    np.testing.assert_array_equal(epoch_views(7, 3, 100, 4), epoch_views(7, 3, 100, 4))
    assert not np.array_equal(epoch_views(7, 3, 100, 4), epoch_views(7, 4, 100, 4))
    assert not np.array_equal(epoch_views(7, 3, 100, 4), epoch_views(8, 3, 100, 4))


def test_an_image_is_shown_in_every_view_in_the_course_of_the_epochs():
    shown = np.stack([epoch_views(7, epoch, 50, 4) for epoch in range(60)])
    assert all(set(views.tolist()) == {0, 1, 2, 3} for views in shown.T)  # fails once in 1e5


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 8.0])
def test_a_mixed_image_keeps_at_least_half_of_itself(alpha):
    shares = mixup_shares(7, 0, 5000, alpha)
    assert shares.shape == (5000,) and shares.dtype == np.float32
    assert shares.min() >= 0.5 and shares.max() <= 1.0


def test_a_small_alpha_mixes_little_and_a_large_one_by_halves():
    # The larger of two uniform shares is 0.75 on average; 0.002 is one standard deviation.
    assert abs(mixup_shares(7, 0, 5000, 1.0).mean() - 0.75) < 0.01
    assert np.median(mixup_shares(7, 0, 5000, 0.1)) > 0.98
    assert np.median(mixup_shares(7, 0, 5000, 100.0)) < 0.55


def test_shares_depend_on_seed_and_epoch_only():
    np.testing.assert_array_equal(mixup_shares(7, 3, 100, 0.2), mixup_shares(7, 3, 100, 0.2))
    assert not np.array_equal(mixup_shares(7, 3, 100, 0.2), mixup_shares(7, 4, 100, 0.2))
    assert not np.array_equal(mixup_shares(7, 3, 100, 0.2), mixup_shares(8, 3, 100, 0.2))
