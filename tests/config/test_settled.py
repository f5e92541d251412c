"""Plans: read from a config in which everything is settled, refused from any other."""

import pytest

from kerasft.config.load import load_config
from kerasft.config.settled import Plan, Storing
from kerasft.errors import UserError

SETTLED = {
    "data.source": "photos",
    "model.image_size": 96,
    "augment.views": 4,
    "phases.0.blocks": 2,
    "phases.0.stored": True,
    "phases.0.precision": "float32",
    "cache.engine": "keras",
    "cache.precision": "float32",
}


def settled(**fields):
    return load_config(None, flags={**SETTLED, **fields})


def test_a_plan_has_the_values_of_its_config():
    plan = Plan.of(settled(**{"cache.batch": 64}))
    assert (plan.image_size, plan.views, plan.engine, plan.precision) == (96, 4, "keras", "float32")
    assert plan.batch == 64
    (phase,) = plan.phases
    assert (phase.name, phase.blocks, phase.stored, phase.storing) == ("head", 2, True, None)


def test_32_images_are_computed_at_once_where_a_run_says_nothing_else():
    assert Plan.of(settled()).batch == 32


@pytest.mark.parametrize(
    ("fields", "lacking"),
    [
        ({"model.image_size": None}, "model.image_size"),
        ({"augment.views": None}, "augment.views"),
        ({"phases.0.blocks": None}, "phases.0.blocks"),
        ({"phases.0.stored": None}, "phases.0.stored"),
        ({"phases.0.precision": "auto"}, "phases.0.precision"),
        ({"cache.engine": "auto"}, "cache.engine"),
        ({"cache.precision": "auto", "augment.views": None}, "augment.views, cache.precision"),
    ],
)
def test_open_fields_are_told_by_their_names(fields, lacking):
    with pytest.raises(UserError) as caught:
        Plan.of(settled(**fields))
    assert str(caught.value) == (
        f"The config of this run lacks {lacking}, which every run records when it begins. "
        "Restore the config, or train a new run."
    )


def test_where_nothing_is_stored_engine_and_precision_may_be_open():
    open_ones = {"cache.engine": "auto", "cache.precision": "auto"}
    plan = Plan.of(settled(**{"phases.0.stored": False}, **open_ones))
    assert (plan.engine, plan.precision) == ("auto", "auto")


def test_a_solved_phase_has_no_precision():
    config = settled()
    flags = {"data.source": "photos", "phases.0.method": "svm", "phases.0.stored": True}
    solved = config.model_copy(update={"phases": load_config(None, flags=flags).phases})
    assert [phase.blocks for phase in Plan.of(solved).phases] == [0]


def test_decisions_belong_to_the_last_phases():
    config = settled()
    first, stored = config.phases[0], Storing(True, "it pays", 10, 100)
    later = first.model_copy(update={"name": "later"})
    two = config.model_copy(update={"phases": (first, later)})
    assert [phase.storing for phase in Plan.of(two, [stored]).phases] == [None, stored]
