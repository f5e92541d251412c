"""Stores are fed without TensorFlow as tf.data feeds them: the same batches, in the same order."""

import threading

import keras
import numpy as np
import pytest
from mapped_memory import SMAPS, mapped_bytes

from kerasft.activations import reading
from kerasft.activations.reading import numpy_batches
from kerasft.activations.store import release
from kerasft.data.batches import Epoch
from kerasft.training.feed import stored_batches

BATCH_BYTES = 4 * 6 * 2  # four rows of six float16


def stores(n, *, views=2, dtype="float16"):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 2, 3)).astype(dtype) for _ in range(views)]


def epochs(n, *, count=3, views=2, mix=False):
    """Epochs in random orders, with random views and shares."""
    rng = np.random.default_rng(1)
    return [
        Epoch(
            rng.permutation(n),
            rng.integers(0, views, n),
            np.zeros(n, np.int64),
            rng.uniform(0.5, 1, n).astype("float32") if mix else None,
        )
        for _ in range(count)
    ]


def fed(n, made, **changes):
    labels = (np.arange(n) % 3).astype(np.int32)
    arguments = {"num_classes": 3, "batch_size": 4} | changes
    return [feed(stores(n), labels, made, **arguments) for feed in (numpy_batches, stored_batches)]


def assert_same_batches(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        keras.tree.assert_same_structure(one, other)
        for value, same in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
            assert (value.dtype, value.shape) == (same.numpy().dtype, same.shape)
            assert value.tobytes() == same.numpy().tobytes()


WEIGHTS = np.array([0.3, 1.0, 4.7])


@pytest.mark.parametrize("slice_bytes", [1, 2 * BATCH_BYTES, 16 << 20])
@pytest.mark.parametrize("n", [12, 14, 3], ids=["no rest", "a rest", "less than a batch"])
@pytest.mark.parametrize("mix", [False, True], ids=["plain", "mixup"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_numpy_and_tensorflow_feed_the_same_bits(monkeypatch, slice_bytes, n, mix, weights):
    monkeypatch.setattr(reading, "SLICE_BYTES", slice_bytes)
    assert_same_batches(*fed(n, epochs(n, mix=mix), sample_weights=weights))


def test_a_resumed_phase_is_fed_what_is_left():
    made = epochs(10, mix=True)
    everything, _ = fed(10, made)
    rest, _ = fed(10, made[1:])
    everything = [keras.tree.flatten(batch) for batch in everything]
    rest = [keras.tree.flatten(batch) for batch in rest]
    assert (len(everything), len(rest)) == (9, 6)
    for one, other in zip(everything[3:], rest, strict=True):
        for value, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(value, same)


class Watched:
    """A store that notes which rows are read, and in which thread; it may fail at a reading."""

    def __init__(self, rows, fails_at=None):
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self.reads, self.threads, self._fails_at = [], set(), fails_at

    def __getitem__(self, rows):
        if len(self.reads) == self._fails_at:
            raise OSError("the disk is gone")
        self.reads.append(list(rows))
        self.threads.add(threading.current_thread())
        return self._rows[rows]


def watched_feed(store):
    n = len(store._rows)
    everything = Epoch(np.arange(n)[::-1], np.zeros(n, np.int64), np.zeros(n, np.int64))
    labels = np.zeros(n, np.int32)
    return numpy_batches([store], labels, [everything], num_classes=3, batch_size=4)


def test_one_thread_reads_ahead_in_ascending_slices_and_ends_with_the_feed(monkeypatch):
    monkeypatch.setattr(reading, "SLICE_BYTES", 2 * BATCH_BYTES)
    store = Watched(stores(400)[0])
    batches = watched_feed(store)
    assert store.threads == set()  # nothing runs before the first batch is asked for
    next(batches)
    batches.close()
    assert 1 <= len(store.reads) <= 3  # one in use, one waits, one is being read: of 50
    assert store.reads[0] == list(range(392, 400))
    (reader,) = store.threads
    assert reader is not threading.current_thread()
    assert not reader.is_alive()


def test_the_thread_ends_when_the_feed_is_let_go():
    store = Watched(stores(12)[0])
    batches = watched_feed(store)
    next(batches)
    del batches
    assert [reader.is_alive() for reader in store.threads] == [False]


def test_an_error_in_the_thread_is_raised_where_the_batches_are_used(monkeypatch):
    monkeypatch.setattr(reading, "SLICE_BYTES", BATCH_BYTES)
    store = Watched(stores(12)[0], fails_at=1)
    batches = watched_feed(store)
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert [reader.is_alive() for reader in store.threads] == [False]


def test_fit_takes_every_batch_of_every_epoch_and_ends_the_thread():
    stored = keras.Input((2, 3))
    model = keras.Model(stored, keras.layers.Dense(3)(keras.layers.Flatten()(stored)))
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    store = Watched(stores(10)[0])
    made = epochs(10, views=1)
    batches = numpy_batches([store], np.zeros(10, int), made, num_classes=3, batch_size=4)
    model.fit(batches, epochs=3, steps_per_epoch=3, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 9
    assert next(batches, None) is None
    assert [reader.is_alive() for reader in store.threads] == [False]


@pytest.mark.skipif(not SMAPS.is_file(), reason="the memory of a map is told by Linux alone")
def test_scattered_rows_take_no_memory_for_what_lies_between_them(tmp_path, monkeypatch):
    path = tmp_path / "store.npy"
    np.save(path, np.zeros((4096, 4096), "float16"))  # 32 MB
    array = np.load(path, mmap_mode="r")
    array[::7].sum()  # in the disk cache, as after a pass
    release(array)
    most = []

    class Watched:
        """The store; notes how much of it is in memory after each read."""

        shape, dtype = array.shape, array.dtype
        _mmap = array._mmap

        def __getitem__(self, index):
            rows = array[index]
            most.append(mapped_bytes(path))
            return rows

    monkeypatch.setattr(reading, "MAPPED_ROWS", 32)
    rows = np.random.default_rng(0).permutation(4096)[:1024]
    reading._gathered([Watched()], rows, np.zeros(1024, np.int64))
    assert len(most) == 32
    # 64 KB around each row, and at times more, as the kernel likes: not all 32 MB.
    assert max(most) <= 8 << 20
    assert mapped_bytes(path) == 0
