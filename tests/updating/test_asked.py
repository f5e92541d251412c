"""What is asked of classes is checked as a whole, and becomes a table of labels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasft.errors import UserError
from kerasft.sources.classes import mapped
from kerasft.sources.photos import Listing, Photo
from kerasft.updating.asked import Asked, classes_of, new_labels, table_of

NAMES = ("ant", "bee", "cat")


def test_classes_keep_their_order_under_their_new_names():
    asked = Asked(rename={"bee": "hornet"}, merge={"pet": ["ant", "cat"]})
    assert classes_of(asked, NAMES) == {"ant": "pet", "bee": "hornet", "cat": "pet"}
    assert classes_of(Asked(drop=["ant"], divide={"cat": "cats"}), NAMES) == {
        "ant": "",
        "bee": "bee",
        "cat": "",
    }
    assert list(classes_of(Asked(rename={"ant": "bee", "bee": "ant"}), NAMES).values()) == [
        "bee",
        "ant",
        "cat",
    ]


def test_all_that_is_wrong_is_said_at_once():
    asked = Asked(
        rename={"ant": "bee", "catt": "dog", "bee": " x"},
        merge={"cat": ["ant", "bee"]},
        drop=["dog"],
    )
    with pytest.raises(UserError) as error:
        classes_of(asked, NAMES)
    assert error.value.exit_code == 2
    assert str(error.value) == (
        "The classes can't be changed so:\n"
        "  rename: the run has no class 'catt'. Did you mean 'cat'?\n"
        "  drop: the run has no class 'dog'.\n"
        "  ant is named 2 times.\n"
        "  bee is named 2 times.\n"
        "  rename: expected a name for bee, on one line, got ' x'.\n"
        "  merge: cat is the name of another class. If that is to be part of the new one: "
        "`merge=ant,bee,cat=cat`.\n"
        "  Classes of the run: ant, bee, cat."
    )


def test_new_labels_are_merged_with_classes_and_get_other_names():
    asked = Asked(merge={"ant": ["ant", "ants"]}, rename={"cow": "cattle"}, drop=["fog"])
    new = new_labels(
        asked, NAMES, {"stone": "", "hive": "bee"}, ["ants", "cow", "fog", "stone", "hive"]
    )
    assert new == ["ants", "cow", "fog"]
    now = classes_of(asked, NAMES, new)
    assert now == {
        "ant": "ant",
        "bee": "bee",
        "cat": "cat",
        "ants": "ant",
        "cow": "cattle",
        "fog": "",
    }
    assert table_of(now, {}, ["ant", "ants", "bee", "cat", "cow", "fog"]) == now
    # The folder was renamed, too: not a new class of that name.
    assert new_labels(Asked(rename={"bee": "hornet"}), NAMES, {}, ["ant", "cat", "hornet"]) == []
    with pytest.raises(UserError, match="rename: bee, hornet would all be hornet"):
        classes_of(Asked(rename={"bee": "hornet"}), NAMES, ["hornet"])


def test_a_rename_onto_another_class_is_a_merge_and_says_so():
    with pytest.raises(UserError) as error:
        classes_of(Asked(rename={"ant": "bee"}), NAMES)
    assert (
        "  rename: ant, bee would all be bee. To make one class of them: `merge=ant,bee=bee`.\n"
        in str(error.value)
    )


def test_the_table_has_the_labels_that_there_are_in_the_order_of_the_classes():
    now = {"pet": "animal", "bee": "bee", "weed": ""}
    before = {"cat": "pet", "dog": "pet", "bee": "bee", "stone": ""}
    labels = ["bee", "cat", "dog", "stone", "weed", "zebra"]
    table = table_of(now, before, labels)
    assert list(table.items()) == [
        ("cat", "animal"),
        ("dog", "animal"),
        ("bee", "bee"),
        ("weed", ""),
        ("stone", ""),
    ]


def test_the_table_of_the_old_run_stays_where_nothing_is_asked():
    assert table_of({"pet": "pet"}, {"cat": "pet"}, ["cat", "owl"]) == {"cat": "pet"}


def test_a_folder_that_has_the_new_name_already_keeps_the_place_of_the_class():
    table = table_of({"ant": "zebra", "bee": "bee"}, {}, ["bee", "zebra"])
    assert list(table.items()) == [("zebra", "zebra"), ("bee", "bee")]
    assert table_of({"ant": "ant", "bee": "bee"}, {}, ["ant", "bee", "cow"]) == {}


@settings(deadline=None)
@given(st.permutations(list("abcdef")), st.lists(st.sampled_from("abcdef"), min_size=1))
def test_a_renaming_and_its_inverse_give_the_photos_their_labels_back(names, labels):
    listed = Listing.of([Photo(f"{i}.jpg", label) for i, label in enumerate(labels)])
    classes = listed.classes[""]
    there = dict(zip("abcdef", names, strict=True))
    first = table_of(
        classes_of(Asked(rename={one: there[one] for one in classes}), classes), {}, classes
    )
    renamed = mapped(listed, first).classes[""]
    assert renamed == tuple(there[one] for one in classes)
    back = classes_of(Asked(rename={there[one]: one for one in classes}), renamed)
    again = mapped(listed, table_of(back, first, classes))
    assert (again.photos, again.classes) == (listed.photos, listed.classes)
