import dataclasses
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasft.activations import reading
from kerasft.config.fields import Augment
from kerasft.data.batches import (
    Epoch,
    _are_common,
    _training_loader,
    explaining,
    image_batches,
    split_batches,
    training_batches,
    view_batches,
)
from kerasft.data.source import Source
from kerasft.errors import UserError
from kerasft.files import digest_of
from kerasft.input_rule import InputRule
from kerasft.pixels.images import square_of
from kerasft.training.feed import stored_batches

PLAIN = Augment(flip=False, crop=0.0)
FEED = {"rule": InputRule(8), "batch_size": 4}


def with_digests(source):
    """The source with the digests of its files as they are now."""
    files = [source.root / path for path in source.paths]
    digests = tuple(digest_of(file.read_bytes()) for file in files)
    return dataclasses.replace(source, digests=digests)


@pytest.fixture
def source(tmp_path):
    """13 images of one colour each: the image at position p is (10p, 0, 100).

    Those of validation come first, so that training row 0 is the image at position 5.
    """
    for number in range(13):
        Image.new("RGB", (9, 7), (10 * number, 0, 100)).save(tmp_path / f"{number:02} ü.png")
    return with_digests(
        Source(
            root=tmp_path,
            class_names=("a", "b", "c"),
            paths=tuple(f"{number:02} ü.png" for number in range(13)),
            labels=np.array([number % 3 for number in range(13)], np.int32),
            splits=np.array(["validation"] * 5 + ["train"] * 8),
            digests=("",) * 13,
        )
    )


@pytest.fixture
def noisy(source):
    """The same with noise instead of colours, so that every change shows."""
    rng = np.random.default_rng(0)
    for path in source.paths:
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(source.root / path)
    return with_digests(source)


def reds(batches):
    """Which images came, in which batches."""
    return [[round(float(image[0, 0, 0]) / 10) for image in batch] for batch in batches]


def epoch(rows, views=-1, seed=0, shares=None):
    """Training rows, each in a new view unless told otherwise, all with one seed."""
    rows = np.array(rows, np.int64)
    shares = None if shares is None else np.array(shares, np.float32)
    return Epoch(rows, np.zeros_like(rows) + views, np.full(len(rows), seed), shares)


def feed(source, rows, augment=None, seed=0, **changes):
    arguments = FEED | {"augment": augment or PLAIN} | changes
    return list(training_batches(source, [epoch(rows, seed=seed)], **arguments))


def test_a_view_is_the_same_whether_python_decodes_for_a_pipeline_or_its_graph(noisy):
    files = [str(noisy.root / path) for path in noisy.paths[:3]]
    assert _are_common([*files, str(noisy.root / "absent.png")])
    Image.open(files[1]).save(files[1], "GIF")
    assert not _are_common(files)
    rule = InputRule(8, "crop", (255, 255, 255), 8)
    shown = []
    for common in (True, False):
        load = _training_loader(rule, Augment(flip=True, crop=0.5), common)
        shown.append([load(path, "", [3, 4], view) for path in files for view in (0, 1, -1)])
    np.testing.assert_array_equal(*shown)


def test_every_image_is_counted_and_the_order_is_kept(source):
    files = [source.root / path for path in source.paths]
    batches = image_batches(files, **FEED)
    assert reds(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert len(batches) == 4
    assert [batch.shape for batch in batches] == [(4, 8, 8, 3)] * 3 + [(1, 8, 8, 3)]
    assert {batch.dtype for batch in batches} == {np.dtype("float32")}


def test_scoring_takes_images_as_square_of_makes_them(noisy):
    path = noisy.root / noisy.paths[3]
    (batch,) = image_batches([str(path)], rule=InputRule(8, "crop"))
    np.testing.assert_array_equal(batch[0], square_of(path.read_bytes(), InputRule(8, "crop")))


def test_no_files_are_no_batches(source):
    assert list(image_batches([], **FEED)) == []
    assert list(split_batches(source, "test", **FEED)) == []


def test_a_split_comes_in_the_order_of_its_indices(source):
    assert reds(split_batches(source, "validation", **FEED)) == [[0, 1, 2, 3], [4]]


def test_training_feeds_in_the_order_asked_for_with_repeats(source):
    batches = feed(source, [7, 2, 2, 0, 1])
    assert reds(x for x, _ in batches) == [[12, 7, 7, 5], [6]]
    np.testing.assert_array_equal(batches[0][1], [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert batches[1][1].dtype == tf.float32


def test_epochs_come_from_one_pipeline_and_no_batch_reaches_into_the_next(source):
    epochs = [epoch([4, 3, 2, 1, 0], seed=0), epoch([0, 1, 2, 3, 4], seed=1)]
    batches = training_batches(source, epochs, **FEED, augment=PLAIN)
    assert reds(x for x, _ in batches) == [[9, 8, 7, 6], [5], [5, 6, 7, 8], [9]]
    assert len(batches) == 4


def test_a_split_can_be_read_again(source):
    batches = split_batches(source, "validation", **FEED)
    assert reds(batches) == reds(batches) == [[0, 1, 2, 3], [4]]


def test_scoring_ends_at_a_file_that_went_away(source):
    files = [source.root / path for path in source.paths]
    files[5].unlink()
    batches = iter(image_batches(files, **FEED))
    assert reds([next(batches)]) == [[0, 1, 2, 3]]
    with pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value) == (
        f"{files[5]}: a photo was removed or changed while it was in use: No such file or "
        "directory."
    )


CHANGED = (
    "a photo was removed or changed while it was in use: its bytes are not those that were read at "
    "first. Leave the photos as they are while a run works, then run the command again."
)


@pytest.mark.parametrize("kind", ["scoring", "views", "training"])
def test_a_photo_that_has_changed_since_it_was_examined_is_refused(source, kind):
    known, files = source, [source.root / path for path in source.paths]
    split = known.splits[5]
    batches = {
        "scoring": lambda: list(split_batches(known, split, **FEED)),
        "views": lambda: list(view_batches(known, [5], [[(0, 0)]], augment=Augment(), **FEED)),
        "training": lambda: feed(known, range(len(known.indices("train")))),
    }[kind]
    batches()  # the control
    files[5].write_bytes(files[0].read_bytes())  # an image all the same
    with pytest.raises(UserError) as caught, explaining(known.root):
        batches()
    assert str(caught.value) == f"{files[5]}: {CHANGED}"


def test_a_class_weight_goes_with_each_image(source):
    ((_, _, weights),) = feed(source, [0, 1, 2, 4], sample_weights=np.array([0.5, 1.0, 4.0]))
    np.testing.assert_array_equal(weights, np.float32([4.0, 0.5, 1.0, 0.5]))


def test_without_augmentation_training_sees_what_scoring_sees(noisy):
    ((pixels, _),) = feed(noisy, [1, 0], seed=5)
    (scored,) = image_batches([noisy.root / noisy.paths[p] for p in (6, 5)], **FEED)
    np.testing.assert_array_equal(pixels, scored)


AUGMENTS = [
    Augment(flip=False, crop=0.3),
    Augment(flip=True, crop=0.0),
    Augment(flip=False, crop=0.0, color=1.0),
]


@pytest.mark.parametrize("augment", AUGMENTS, ids=["crop", "flip", "color"])
def test_augmentation_depends_on_the_seed_and_the_image_not_on_the_order(noisy, augment):
    forward = np.arange(8)
    epochs = [epoch(forward, seed=0), epoch(forward[::-1], seed=0), epoch(forward, seed=1)]
    batches = training_batches(noisy, epochs, **FEED | {"batch_size": 8}, augment=augment)
    first, again, other = [x.numpy() for x, _ in batches]
    (plain,) = split_batches(noisy, "train", **FEED | {"batch_size": 8})
    np.testing.assert_array_equal(first, again[::-1])
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, plain)


def test_a_view_depends_on_the_file_and_not_on_its_place_in_the_list(noisy):
    order = np.r_[:5, 12, 5:12]  # the last training image comes first
    moved = dataclasses.replace(
        noisy,
        paths=tuple(noisy.paths[i] for i in order),
        digests=tuple(noisy.digests[i] for i in order),
    )
    ((before, _),) = feed(noisy, [0, 7], Augment(crop=0.3))
    ((after, _),) = feed(moved, [1, 0], Augment(crop=0.3))
    np.testing.assert_array_equal(before, after)


def test_images_with_other_bytes_are_augmented_differently(noisy):
    one = (noisy.root / noisy.paths[5]).read_bytes()
    # The same pixels, other bytes: a comment at the end.
    (noisy.root / noisy.paths[6]).write_bytes(one + b" ")
    digests = list(noisy.digests)
    digests[6] = digest_of(one + b" ")
    same = dataclasses.replace(noisy, digests=tuple(digests))
    ((pixels, _),) = feed(same, [0, 1], Augment(crop=0.3))
    assert not np.array_equal(pixels[0], pixels[1])


def test_fit_takes_every_batch_of_every_epoch(source):
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    batches = training_batches(source, [epoch(range(7))] * 3, augment=PLAIN, **FEED)
    assert len(batches) == 6
    model.fit(batches, epochs=3, steps_per_epoch=2, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 6


def test_a_file_that_went_away_ends_the_feeding(source):
    (source.root / source.paths[7]).unlink()
    with pytest.raises(tf.errors.NotFoundError, match=r"07 ü\.png"):
        feed(source, range(4))


# Views: numbered, each with its seed, so that all feeding shows the same.

ALL = Augment(flip=True, crop=0.3, color=0.5)
FOUR = [(0, 0), (1, 11), (2, 22), (3, 33)]
SEEDS = np.array([0, 11, 22, 33])
TRAIN = range(5, 13)


def by_split(source, positions, views):
    """Returns the views of each position, which are those of its split."""
    return [views[source.splits[position]] for position in positions]


def views_of(source, positions, views, augment=ALL):
    """The images of all views, float32 [n,8,8,3]."""
    batches = view_batches(
        source, positions, by_split(source, positions, views), **FEED, augment=augment
    )
    return np.concatenate(list(batches))


@pytest.fixture
def shown(noisy):
    """Four views of each training image, float32 [8,4,8,8,3]."""
    return views_of(noisy, TRAIN, {"train": FOUR}).reshape(8, 4, 8, 8, 3)


@pytest.mark.parametrize("threads", [1, 8])
def test_a_view_looks_the_same_in_every_pipeline_order_and_number_of_threads(noisy, shown, threads):
    rows, views = np.divmod(np.random.default_rng(0).permutation(32), 4)
    epochs = [Epoch(rows, views, SEEDS[views]), Epoch(rows[::-1], views[::-1], SEEDS[views[::-1]])]
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    batches = training_batches(noisy, epochs, **FEED, augment=ALL).with_options(options)
    fed = np.concatenate([x for x, _ in batches])
    expected = shown[rows, views]
    np.testing.assert_array_equal(fed, np.concatenate([expected, expected[::-1]]))


def test_view_0_is_what_scoring_sees_however_much_is_augmented(noisy, shown):
    scored = np.concatenate(list(split_batches(noisy, "train", **FEED)))
    np.testing.assert_array_equal(shown[:, 0], scored)
    batches = training_batches(noisy, [epoch(range(8), views=0)], **FEED, augment=ALL)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), scored)


@pytest.mark.parametrize("augment", [*AUGMENTS[::2], ALL], ids=["crop", "color", "all"])
def test_the_views_of_an_image_all_differ(noisy, augment):
    shown = views_of(noisy, TRAIN, {"train": FOUR}, augment).reshape(8, 4, -1)
    assert [len(np.unique(views, axis=0)) for views in shown] == [4] * 8


def test_the_seed_of_a_view_says_what_it_looks_like(noisy):
    first, again, other = views_of(noisy, [5], {"train": [(2, 22), (2, 22), (2, 23)]})
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_with_flips_alone_the_second_view_is_the_mirror_image(noisy):
    flips = Augment(flip=True, crop=0.0)
    plain, mirrored = views_of(noisy, [7], {"train": FOUR[:2]}, flips)
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    assert not np.array_equal(mirrored, plain)


def test_all_views_of_an_image_come_before_the_next_and_a_split_has_its_own(source):
    views = {"train": FOUR[:3], "validation": [(0, 0)]}
    positions = [6, 5, 0, 8]
    shown = by_split(source, positions, views)
    batches = view_batches(source, positions, shown, **FEED, augment=PLAIN)
    assert reds(batches) == [[6, 6, 6, 5], [5, 5, 0, 8], [8, 8]]
    assert len(batches) == 3
    assert [batch.shape for batch in batches] == [(4, 8, 8, 3)] * 2 + [(2, 8, 8, 3)]


def test_a_plain_view_of_validation_stays_plain_beside_augmented_training(noisy):
    shown = views_of(noisy, [5, 1], {"train": [(1, 11)], "validation": [(0, 0)]})
    files = [noisy.root / noisy.paths[position] for position in (5, 1)]
    (scored,) = image_batches(files, **FEED)
    np.testing.assert_array_equal(shown[1], scored[1])
    assert not np.array_equal(shown[0], scored[0])


def test_no_images_have_no_views(source):
    batches = view_batches(source, [], [], **FEED, augment=ALL)
    assert list(batches) == []


# Stored activations: that of row r in view v is 100 v + r in all its places.

LABELS = np.array([0, 1, 1, 0, 2], np.int32)
# Two epochs of five rows, in batches of two; a row may come twice.
FIRST = Epoch(np.array([4, 0, 3, 1, 2]), np.array([0, 1, 1, 0, 2]), np.zeros(5, np.int64))
SECOND = Epoch(np.array([2, 2, 0, 4, 3]), np.array([2, 0, 0, 1, 1]), np.zeros(5, np.int64))
CODES = [[4, 100], [103, 1], [202], [202, 2], [0, 104], [103]]
BATCH_BYTES = 2 * 6 * 2  # two rows of six float16


def activations(dtype="float16"):
    """Three views of five rows, [5,2,3] each."""
    rows = np.broadcast_to(np.arange(5).reshape(5, 1, 1), (5, 2, 3))
    return [(rows + 100 * view).astype(dtype) for view in range(3)]


def codes(batches):
    """Which row and view came, in which batches, after a look at all places."""
    batches = [np.asarray(batch) for batch in batches]
    for batch in batches:
        np.testing.assert_array_equal(batch, np.broadcast_to(batch[:, :1, :1], batch.shape))
    return [batch[:, 0, 0].tolist() for batch in batches]


def fed(views, epochs, **changes):
    arguments = {"num_classes": 3, "batch_size": 2} | changes
    return stored_batches(views, LABELS, epochs, **arguments)


@pytest.mark.parametrize("slice_bytes", [1, BATCH_BYTES, 2 * BATCH_BYTES, 16 << 20])
def test_every_stored_batch_has_the_rows_and_views_of_one_epoch(monkeypatch, slice_bytes):
    monkeypatch.setattr(reading, "SLICE_BYTES", slice_bytes)
    batches = fed(activations(), [FIRST, SECOND])
    assert codes(x for x, _ in batches) == CODES
    assert len(batches) == 6


def test_labels_and_class_weights_go_with_the_stored_rows():
    weights = np.array([0.5, 1.0, 4.0])
    batches = list(fed(activations(), [FIRST], sample_weights=weights))
    np.testing.assert_array_equal(batches[0][1], [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(batches[1][1], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(batches[2][1], [[0, 1, 0]])
    assert [w.numpy().tolist() for _, _, w in batches] == [[4.0, 0.5], [0.5, 1.0], [1.0]]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_activations_on_disk_are_fed_in_the_dtype_of_the_store(tmp_path, dtype):
    for view, rows in enumerate(activations(dtype)):
        np.save(tmp_path / f"{view}.npy", rows)
    mapped = [np.load(tmp_path / f"{view}.npy", mmap_mode="r") for view in range(3)]
    assert isinstance(mapped[0], np.memmap)
    batches = fed(mapped, [FIRST, SECOND])
    assert batches.element_spec[0] == tf.TensorSpec([None, 2, 3], dtype)
    assert codes(x for x, _ in batches) == CODES


class Watched:
    """A store that can only be read by rows, and notes which."""

    def __init__(self, rows):
        self._rows, self.shape, self.dtype, self.reads = rows, rows.shape, rows.dtype, []

    def __getitem__(self, rows):
        self.reads.append(list(rows))
        return self._rows[rows]


def test_a_slice_is_read_with_one_ascending_look_into_each_view(monkeypatch):
    monkeypatch.setattr(reading, "SLICE_BYTES", 2 * BATCH_BYTES)
    stores = [Watched(rows) for rows in activations()]
    assert codes(x for x, _ in fed(stores, [FIRST])) == CODES[:3]
    # Four rows and then the last: the slices are (4, view 0), (0, 1), (3, 1), (1, 0) and (2, 2).
    assert [store.reads for store in stores] == [[[1, 4]], [[0, 3]], [[2]]]


def test_a_store_is_read_a_few_slices_ahead_and_never_whole(monkeypatch):
    monkeypatch.setattr(reading, "SLICE_BYTES", 2 * BATCH_BYTES)
    store = Watched(np.zeros((400, 2, 3), np.float16))
    everything = Epoch(np.arange(400), np.zeros(400, np.int64), np.zeros(400, np.int64))
    batches = iter(
        stored_batches([store], np.zeros(400, int), [everything], num_classes=3, batch_size=2)
    )
    next(batches)
    time.sleep(0.3)  # whoever reads ahead has the time to
    # Two batches ahead touch two slices, one waits, one is being read: 4 of 100.
    assert len(store.reads) <= 4
    assert {len(rows) for rows in store.reads} == {4}
    assert sum(1 for _ in batches) == 199
    assert len(store.reads) == 100  # the control: later all of it is read


def test_fit_takes_every_stored_batch_of_every_epoch():
    stored = keras.Input((2, 3))
    model = keras.Model(stored, keras.layers.Dense(3)(keras.layers.Flatten()(stored)))
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    batches = fed(activations(), [FIRST, SECOND])
    model.fit(batches, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 6


# Mixup: shares come beside the images, the targets are mixed already.

MIXED = epoch([0, 1, 4], views=0, shares=[0.5, 0.75, 1.0])


def test_the_target_of_an_image_is_mixed_with_that_of_the_one_before_in_the_batch():
    ((x, shares), y), ((_, alone), last) = fed(
        activations(), [epoch([0, 1, 4, 3], 0, shares=[0.5, 0.75, 1.0, 0.5])], batch_size=3
    )
    assert codes([x]) == [[0, 1, 4]]  # mixed at the cut, not here
    np.testing.assert_array_equal(shares, [0.5, 0.75, 1.0])
    # Labels 0, 1, 2; the first one is mixed with the last of its batch.
    np.testing.assert_array_equal(y, [[0.5, 0, 0.5], [0.25, 0.75, 0], [0, 0, 1]])
    np.testing.assert_array_equal(alone, [0.5])
    np.testing.assert_array_equal(last, [[1, 0, 0]])  # alone in its batch: with itself


def test_classes_are_weighed_before_they_are_mixed():
    weights = np.array([1.0, 2.0, 4.0])
    ((_, y, w),) = fed(activations(), [MIXED], batch_size=3, sample_weights=weights)
    np.testing.assert_array_equal(w, [0.5 * 1 + 0.5 * 4, 0.75 * 2 + 0.25 * 1, 4.0])
    parts = [[0.5 * 1, 0, 0.5 * 4], [0.25 * 1, 0.75 * 2, 0], [0, 0, 4.0]]
    np.testing.assert_allclose(y * w[:, None], parts, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_classes_stay_balanced_under_mixup(smoothing):
    # One image in five is of class 1. Its share of the loss was 0.437 when mixed targets were
    # weighed, instead of weighed ones mixed.
    rng = np.random.default_rng(0)
    n, labels = 2000, (np.arange(2000) % 5 == 0).astype(int)
    rows = np.zeros((n, 1), "float32")
    epochs = [
        Epoch(rng.permutation(n), np.zeros(n, int), np.zeros(n, int), shares)
        for shares in rng.uniform(0.5, 1, (4, n)).astype("float32")
    ]
    balanced = n / (2 * np.bincount(labels))
    batches = stored_batches(
        [rows], labels, epochs, num_classes=2, batch_size=50, sample_weights=balanced
    )
    total = np.zeros(2)
    for _, y, w in batches:
        smooth = (1 - smoothing) * y.numpy() + smoothing / 2  # as the loss does
        total += (smooth * w.numpy()[:, None]).sum(axis=0)
    np.testing.assert_allclose(total / total.sum(), [0.5, 0.5], atol=0.005)


def test_nothing_is_mixed_without_shares():
    ((x, y),) = fed(activations(), [epoch([0, 1, 4], views=0)], batch_size=3)  # the control
    assert codes([x]) == [[0, 1, 4]]
    np.testing.assert_array_equal(y, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("mix", [False, True], ids=["plain", "mixup"])
def test_stored_and_live_feeding_give_the_same_batches(noisy, shown, mix):
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        rows, views = rng.permutation(8), rng.integers(0, 4, 8)
        shares = rng.uniform(0.5, 1, 8).astype("float32") if mix else None
        epochs.append(Epoch(rows, views, SEEDS[views], shares))
    weights = np.array([0.5, 1.0, 4.0])
    live = list(training_batches(noisy, epochs, **FEED, augment=ALL, sample_weights=weights))
    views = [shown[:, view] for view in range(4)]
    labels = noisy.labels[noisy.indices("train")]
    stored = list(
        stored_batches(views, labels, epochs, num_classes=3, batch_size=4, sample_weights=weights)
    )
    assert len(live) == len(stored) == 4
    for one, other in zip(live, stored, strict=True):
        keras.tree.assert_same_structure(one, other)
        for value, same in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
            np.testing.assert_array_equal(value, same)
