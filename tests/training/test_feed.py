import numpy as np

from kerasft.config.load import load_config
from kerasft.training.feed import class_weights


def test_balanced_class_weights_make_every_class_count_the_same():
    labels = np.array([0, 0, 0, 1])
    config = load_config(None, flags={"data.source": "x"}, sets=["phases.0.class_weight=balanced"])
    np.testing.assert_allclose(class_weights(config.phases[0], labels, 2), [2 / 3, 2.0])


def test_classes_count_as_they_are_unless_asked_otherwise():
    config = load_config(None, flags={"data.source": "x"})
    assert class_weights(config.phases[0], np.array([0, 0, 0, 1]), 2) is None
