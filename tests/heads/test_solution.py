import numpy as np

from kerasft.heads.solved import Examples


def test_some_of_the_images_keep_their_features_and_labels():
    features = np.array([[1, 2], [3, 4], [5, 6]], "float32")
    taken = Examples(features, np.array([0, 1, 2]), np.array([0, 1, 0])).take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.features, [[5, 6], [1, 2]])
    np.testing.assert_array_equal(taken.labels, [2, 0])
    assert taken.units is None
