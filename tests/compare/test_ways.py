"""The table of ways, and the settings that each tries."""

import pytest

from kerasft.compare.ways import AS_IS, FACTORS, WAYS, config_of_way, rates_of
from kerasft.config.fields import Phase, Solved
from kerasft.heads.methods import METHODS, TRIES

FLAGS = {"data.source": "photos"}


def test_every_method_that_solves_a_head_is_a_way():
    solved = {name for name, way in WAYS.items() if "phases.0.method" in way.flags}
    assert solved == set(METHODS)


def test_every_way_tries_as_many_settings():
    assert len(FACTORS) == TRIES
    trained = [name for name, way in WAYS.items() if way.trained]
    assert trained == ["linear", "fc", "depths", "unfreeze", "full", "scratch"]
    for name in trained:
        assert len(set(rates_of(name, config_of_way(name, FLAGS)))) == TRIES


@pytest.mark.parametrize(
    ("name", "weights", "rates"),
    [
        ("linear", "imagenet", (3e-4, 1e-3, 3e-3)),
        ("unfreeze", "imagenet", (1.2e-4, 4e-4, 1.2e-3)),
        ("unfreeze", "sample", (3e-4, 1e-3, 3e-3)),
        ("full", "imagenet", (6e-6, 2e-5, 6e-5)),
        ("full", "sample", (3e-4, 1e-3, 3e-3)),  # as unfreeze, which trains all there
        ("scratch", "imagenet", (3e-4, 1e-3, 3e-3)),
    ],
)
def test_the_usual_rate_is_among_those_that_are_tried(name, weights, rates):
    config = config_of_way(name, {**FLAGS, "model.weights": weights})
    assert rates_of(name, config) == rates


def test_the_config_of_a_way_is_what_train_would_make_of_its_flags():
    svm = config_of_way("svm", FLAGS).phases
    assert svm == (Solved(name="svm", method="svm"),)
    (scratch,) = config_of_way("scratch", {**FLAGS, "model.weights": "imagenet"}).phases
    assert isinstance(scratch, Phase)
    assert (scratch.blocks, scratch.batch_norm, scratch.epochs) == ("all", "train", 100)
    fc = config_of_way("fc", FLAGS)
    assert (fc.head.hidden, fc.phases[0].blocks) == ((256,), 0)
    depths = config_of_way("depths", FLAGS)
    assert (depths.head.features, depths.phases[0].blocks) == ("depths", 0)
    # What goes on from another way begins with that way's run.
    assert config_of_way("unfreeze", FLAGS) == config_of_way("linear", FLAGS)


def test_ways_stand_from_the_cheapest_to_the_costliest():
    assert list(WAYS) == [
        AS_IS,
        *("knn", "bayes", "lda", "logistic", "svm", "rbf-svm"),
        *("linear", "fc", "depths", "unfreeze", "full", "scratch"),
    ]
    costly = [name for name, way in WAYS.items() if not way.default]
    assert costly == ["depths", "full", "scratch"]
