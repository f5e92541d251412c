import numpy as np

from kerasft.randomness import derive_seed, epoch_order


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
