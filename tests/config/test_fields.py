"""Fields that depend on each other; those that stand alone are tested in test_config.py."""

import pytest
from pydantic import ValidationError

from kerasft.config.fields import Augment, Cache, Data, Phase, distinct_views


def refusal(section, **fields):
    with pytest.raises(ValidationError) as refused:
        section(**fields)
    (error,) = refused.value.errors()
    return error["loc"], error["msg"]


@pytest.mark.parametrize(
    ("flip", "crop", "color", "views"),
    [
        (False, 0.0, 0.0, 1),
        (True, 0.0, 0.0, 2),
        (False, 0.5, 0.0, float("inf")),
        (True, 0.0, 0.1, float("inf")),
    ],
)
def test_flip_makes_two_views_and_only_crop_and_color_make_more(flip, crop, color, views):
    assert distinct_views(flip, crop, color) == views


def test_more_views_than_differ_are_refused():
    assert refusal(Augment, crop=0.0, views=3) == (
        ("views",),
        "Value error, expected at most 2, the views that differ of flip alone, got 3.",
    )
    assert refusal(Augment, flip=False, crop=0.0, views=2) == (
        ("views",),
        "Value error, expected at most 1, the views that differ without flip, crop and color, "
        "got 2.",
    )
    assert Augment(crop=0.0, views=2).views == 2
    assert Augment(flip=False, crop=0.0, views=0).views == 0


def test_nothing_can_be_stored_where_nothing_is_frozen():
    phase = {"name": "p", "epochs": 1, "learning_rate": 0.1}
    assert refusal(Phase, **phase, blocks="all", stored=True) == (
        ("stored",),
        "Value error, expected false with blocks = 'all', because nothing is frozen then.",
    )
    assert Phase(**phase, blocks="all", stored=False).stored is False
    assert Phase(**phase, blocks=0, stored=True).stored is True


@pytest.mark.parametrize("field", ["mode", "engine", "precision", "dtype"])
def test_the_cache_takes_the_words_that_it_knows(field):
    place, message = refusal(Cache, **{field: "maybe"})
    assert place == (field,)
    assert "'auto'" in message


def test_roles_of_columns_are_a_list_or_a_mapping_of_known_roles():
    named = ("label=breed", "path=image id")
    for given in (list(named), {"label": "breed", "path": "image id"}):
        assert Data(source="t.csv", columns=given).columns == named
    assert Data(source="t.csv", columns="label=a=b").columns == ("label=a=b",)
    with pytest.raises(ValidationError, match=r"ignore, got 'labl=x'\. Did you mean 'label'\?"):
        Data(source="t.csv", columns=["labl=x"])
    with pytest.raises(ValidationError, match="expected ROLE=NAME"):
        Data(source="t.csv", columns=["label"])


def test_label_from_is_a_regular_expression():
    assert Data(source="x", label_from="(a)").label_from == "(a)"
    with pytest.raises(ValidationError, match="is no regular expression: missing"):
        Data(source="x", label_from="(a")
