import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasft.config import Augment
from kerasft.data import image_batches, split_batches, training_batches
from kerasft.images import load_image
from kerasft.source import Source

PLAIN = Augment(flip=False, crop=0.0)
FEED = {"image_size": 8, "resize": "stretch", "batch_size": 4}


@pytest.fixture
def source(tmp_path):
    """13 images of one colour each: the image at position p is (10p, 0, 100)."""
    for number in range(13):
        Image.new("RGB", (9, 7), (10 * number, 0, 100)).save(tmp_path / f"{number:02} ü.png")
    return Source(
        root=tmp_path,
        class_names=("a", "b", "c"),
        paths=tuple(f"{number:02} ü.png" for number in range(13)),
        labels=np.array([number % 3 for number in range(13)], np.int32),
        splits=np.array(["train"] * 8 + ["validation"] * 5),
        digests=("",) * 13,
    )


@pytest.fixture
def noisy(source):
    """The same with noise instead of colours, so that every change shows."""
    rng = np.random.default_rng(0)
    for path in source.paths:
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(source.root / path)
    return source


def reds(batches):
    """Which images came, in which batches."""
    return [[round(float(image[0, 0, 0]) / 10) for image in batch] for batch in batches]


def feed(source, indices, augment=None, seed=0, **changes):
    arguments = FEED | {"augment": augment or PLAIN} | changes
    return list(training_batches(source, [(np.array(indices), seed)], **arguments))


def test_every_image_is_counted_and_the_order_is_kept(source):
    files = [source.root / path for path in source.paths]
    batches = image_batches(files, **FEED)
    assert reds(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert len(batches) == 4
    assert batches.element_spec.shape.as_list() == [None, 8, 8, 3]


def test_scoring_takes_images_as_load_image_makes_them(noisy):
    path = noisy.root / noisy.paths[3]
    (batch,) = image_batches([str(path)], image_size=8, resize="crop")
    np.testing.assert_array_equal(batch[0], load_image(tf.constant(str(path)), 8, "crop"))


def test_no_files_are_no_batches(source):
    assert list(image_batches([], **FEED)) == []
    assert list(split_batches(source, "test", **FEED)) == []


def test_a_split_comes_in_the_order_of_its_indices(source):
    assert reds(split_batches(source, "validation", **FEED)) == [[8, 9, 10, 11], [12]]


def test_training_feeds_in_the_order_asked_for_with_repeats(source):
    batches = feed(source, [7, 2, 2, 0, 12])
    assert reds(x for x, _ in batches) == [[7, 2, 2, 0], [12]]
    np.testing.assert_array_equal(batches[0][1], [[0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]])
    assert batches[1][1].dtype == tf.float32


def test_epochs_come_from_one_pipeline_and_no_batch_reaches_into_the_next(source):
    epochs = [(np.array([4, 3, 2, 1, 0]), 0), (np.array([0, 1, 2, 3, 4]), 1)]
    batches = training_batches(source, epochs, **FEED, augment=PLAIN)
    assert reds(x for x, _ in batches) == [[4, 3, 2, 1], [0], [0, 1, 2, 3], [4]]


def test_a_split_can_come_several_times_from_one_pipeline(source):
    batches = split_batches(source, "validation", **FEED, times=2)
    assert reds(batches) == [[8, 9, 10, 11], [12], [8, 9, 10, 11], [12]]


def test_a_class_weight_goes_with_each_image(source):
    ((_, _, weights),) = feed(source, [0, 1, 2, 4], sample_weights=np.array([0.5, 1.0, 4.0]))
    np.testing.assert_array_equal(weights, np.float32([0.5, 1.0, 4.0, 1.0]))


def test_without_augmentation_training_sees_what_scoring_sees(noisy):
    ((pixels, _),) = feed(noisy, [1, 0], seed=5)
    (scored,) = image_batches([noisy.root / noisy.paths[p] for p in (1, 0)], **FEED)
    np.testing.assert_array_equal(pixels, scored)


AUGMENTS = [
    Augment(flip=False, crop=0.3),
    Augment(flip=True, crop=0.0),
    Augment(flip=False, crop=0.0, color=1.0),
]


@pytest.mark.parametrize("augment", AUGMENTS, ids=["crop", "flip", "color"])
def test_augmentation_depends_on_the_seed_and_the_image_not_on_the_order(noisy, augment):
    forward = np.arange(13)
    epochs = [(forward, 0), (forward[::-1], 0), (forward, 1)]
    batches = training_batches(noisy, epochs, **FEED | {"batch_size": 13}, augment=augment)
    first, again, other = [x.numpy() for x, _ in batches]
    plain = [load_image(tf.constant(str(noisy.root / path)), 8, "stretch") for path in noisy.paths]
    np.testing.assert_array_equal(first, again[::-1])
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, plain)


def test_two_copies_of_an_image_are_augmented_differently(noisy):
    same = dataclasses.replace(noisy, paths=(noisy.paths[0],) * 13)
    ((pixels, _),) = feed(same, [0, 1], Augment(crop=0.3))
    assert not np.array_equal(pixels[0], pixels[1])


def test_fit_takes_every_batch_of_every_epoch(source):
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    batches = training_batches(source, [(np.arange(13), 0)] * 3, augment=PLAIN, **FEED)
    assert len(batches) == 12
    model.fit(batches, epochs=3, steps_per_epoch=4, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 12


def test_a_file_that_went_away_ends_the_feeding(source):
    (source.root / source.paths[2]).unlink()
    with pytest.raises(tf.errors.NotFoundError, match=r"02 ü\.png"):
        feed(source, range(4))
