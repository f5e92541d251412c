"""Phases that train and phases that solve: which fields go together."""

import pytest

from kerasft.config.fields import Phase, Solved
from kerasft.config.load import append_phase, load_config, to_toml
from kerasft.errors import UserError

FLAGS = {"data.source": "photos"}


def problems_of(*sets, toml=None, tmp_path=None):
    path = None
    if toml:
        path = tmp_path / "config.toml"
        path.write_text(toml, "utf-8")
    with pytest.raises(UserError) as refused:
        load_config(path, flags=FLAGS, sets=sets)
    assert refused.value.exit_code == 2
    return str(refused.value).splitlines()[1:]


def test_a_method_makes_the_first_phase_one_that_is_solved():
    config = load_config(None, flags={**FLAGS, "phases.0.method": "rbf-svm"})
    assert config.phases == (Solved(name="rbf-svm", method="rbf-svm"),)
    assert config.phases[0].blocks == 0


def test_what_steps_need_means_nothing_where_the_head_is_solved():
    assert problems_of("phases.0.method=svm", "phases.0.epochs=5") == [
        "  phases[0].epochs (`sets`): has no effect in a phase with a method: its head is solved, "
        "not trained."
    ]
    assert problems_of("phases.0.method=svm", "phases.0.epoch=5") == [
        "  phases[0].epoch (`sets`): unknown key. Did you mean 'epochs'?"
    ]


def test_an_unknown_method_is_told_with_the_nearest_one():
    assert problems_of("phases.0.method=svn") == [
        "  phases[0].method (`sets`): expected 'knn', 'bayes', 'lda', 'logistic', 'svm' or "
        "'rbf-svm', got 'svn'. Did you mean 'svm'?"
    ]


def test_problems_of_both_kinds_are_told_at_once_and_where_they_are(tmp_path):
    toml = (
        '[[phases]]\nname = "a"\nmethod = "svm"\npatience = 3\n'
        '[[phases]]\nname = "b"\nepochs = 0\nlearning_rate = 0.1\n'
    )
    assert problems_of(toml=toml, tmp_path=tmp_path) == [
        "  phases[0].patience: has no effect in a phase with a method: its head is solved, not "
        "trained.",
        "  phases[1].epochs: expected more than 0, got 0.",
    ]


def test_class_weights_mean_nothing_to_neighbours():
    assert problems_of("phases.0.method=knn", "phases.0.class_weight=balanced") == [
        "  phases[0].class_weight (`sets`): has no effect with method = 'knn': all neighbours "
        "count equally."
    ]
    svm = load_config(
        None, flags=FLAGS, sets=["phases.0.method=svm", "phases.0.class_weight=balanced"]
    )
    assert svm.phases[0].class_weight == "balanced"


def test_a_config_with_a_solved_phase_survives_being_written(tmp_path):
    config = load_config(None, flags={**FLAGS, "phases.0.method": "lda"})
    longer = append_phase(config, flags={"phases.-1.epochs": 3})
    (tmp_path / "config.toml").write_text(to_toml(longer, tmp_path), "utf-8")
    assert load_config(tmp_path / "config.toml") == longer
    assert [type(phase) for phase in longer.phases] == [Solved, Phase]


def test_a_method_can_follow_a_trained_head_and_gets_a_name_of_its_own():
    config = load_config(None, flags=FLAGS)
    once = append_phase(config, sets=["phases.-1.method=svm"])
    twice = append_phase(once, sets=["phases.-1.method=svm"])
    assert [phase.name for phase in twice.phases] == ["head", "svm", "svm-2"]


@pytest.mark.parametrize("method", ["knn", "bayes", "rbf-svm"])
def test_no_steps_go_on_from_a_head_without_weights_to_train(method):
    config = load_config(None, flags={**FLAGS, "phases.0.method": method})
    with pytest.raises(UserError) as refused:
        append_phase(config)
    assert str(refused.value) == (
        "the options have 1 problem:\n"
        f"  phases: 'unfreeze' cannot continue from the head of '{method}': a head solved by "
        f"'{method}' has no weights that can be trained. Expected lda, logistic, svm or a trained "
        "head in the phase before."
    )
