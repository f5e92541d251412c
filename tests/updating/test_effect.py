"""Both models on the old test photos: answers count by what their class is called now."""

import pytest
from run_records import put

from kerasft.updating.effect import ClassEffect, Effect, NewClass, effect_of

NOW = {"ant": "insect", "bee": "insect", "cat": "cat", "dog": ""}
BEFORE = ("ant", "bee", "cat", "dog")
AFTER = ("cat", "insect", "owl")


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def runs(wrong=(), **more):
    """An old run that takes ants 0, 1 for bees and cat 4 for a dog, and a new one with owl 7."""
    labels = [0, 0, 1, 1, 2, 2, 3]
    old = put("old", [0, 1, 4], names=BEFORE, labels=labels, splits=["test"] * 7)
    # Photo 5 was a cat and is an insect now; 6, a dog, is left out; 7 and 8 are new.
    now = [1, 1, 1, 1, 0, 1, 1, 2, 2]
    splits = ["test"] * 6 + ["unused"] + ["test"] * 2
    return old, put("new", wrong, names=AFTER, labels=now, splits=splits, **more)


def test_an_answer_is_right_if_its_class_is_part_of_the_present_one():
    old, new = runs(wrong=[2, 7])
    effect, why = effect_of(old, new, {**NOW, "owl": "owl"})
    assert why == ""
    # Photos 0 to 4: the ants that were taken for bees are insects; cat 4 was taken for a dog.
    assert effect == Effect(
        n=5,
        before=4,
        after=4,
        only_before=1,
        only_after=1,
        p=1.0,
        relabelled=1,
        classes=(ClassEffect("insect", 4, 4, 3), ClassEffect("cat", 1, 0, 1)),
        new_classes=(NewClass("owl", 2, 1, effect.new_classes[0].ci95),),
    )
    assert effect.new_classes[0].ci95 == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_where_answers_are_missing_the_reason_says_how_to_get_them():
    old, new = runs(test=None)
    assert effect_of(old, new, NOW) == (None, "new has no figures on test.")
    other = put("other", names=AFTER, labels=[0], splits=["test"])
    assert effect_of(old, other, NOW) == (None, "no old test photo has kept its label.")
    old.test_path.unlink()
    assert effect_of(old, new, NOW) == (
        None,
        "the answers of old on its test photos are not in it, as in runs of older versions. "
        "`evaluate_run('old')` writes them.",
    )
