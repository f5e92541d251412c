"""Class names mapped to ImageNet's 1000 classes, and scores mapped with them."""

import json

import numpy as np
import pytest

from kerasft.backbones import imagenet_classes
from kerasft.backbones.imagenet_classes import glosses, labels, match_classes, scores_of
from kerasft.errors import UserError


def indices(*class_names):
    return [list(match.indices) for match in match_classes(class_names).each]


def match(class_name):
    (found,) = match_classes([class_name]).each
    return found


# ── the three files ──


def test_the_synsets_stand_in_the_order_of_the_published_nets(assets):
    index = json.loads((assets / "models" / "imagenet_class_index.json").read_text())
    ours = [(synset, words[0]) for synset, words in imagenet_classes._read_synonyms()]
    assert [(synset, label.replace(" ", "_")) for synset, label in ours] == [
        tuple(index[str(i)]) for i in range(1000)
    ]


def test_the_words_come_with_the_notice_that_their_license_asks_for():
    text = imagenet_classes.SYNONYMS.read_text("utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved." in text
    assert "Permission to use, copy, modify and distribute this software and database" in text
    assert 'THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS"' in text


def test_every_word_of_the_groups_stands_there_once_and_names_classes_that_there_are():
    lines = imagenet_classes._lines(imagenet_classes.GROUPS)
    words = [word.strip() for line in lines for word in line.partition(":")[0].split(",")]
    keys = [imagenet_classes._key(word) for word in words]
    assert sorted(keys) == sorted(set(keys))
    assert all(0 <= i < 1000 for group in imagenet_classes._groups().values() for i in group)


def test_a_word_that_means_nothing_would_be_a_synonym_of_wordnet_and_no_label():
    of_labels = {imagenet_classes._key(label) for label in labels()}
    blocked = [word for word, group in imagenet_classes._groups().items() if not group]
    assert len(blocked) > 20
    assert [word for word in blocked if word not in imagenet_classes._words()] == []
    assert [word for word in blocked if word in of_labels] == []


# ── one name ──


@pytest.mark.parametrize(
    ("class_name", "expected", "why"),
    [
        ("tench", [0], "name"),
        ("Tinca tinca", [0], "synonym"),
        ("Great_White-Shark", [2], "name"),
        ("GreatWhiteShark", [2], "name"),
        ("T-shirt", [610], "synonym"),
        ("tshirts", [610], "synonym, plural"),
        ("hot dog", [934], "name"),
        ("St. Bernard", [247], "synonym"),
        ("yellow lady's slipper", [986], "name"),
        ("consommé", [925], "name"),
        ("ants", [310], "name, plural"),
        ("bees", [309], "name, plural"),
        ("daisies", [985], "name, plural"),
        ("strawberries", [949], "name, plural"),
        ("flies", [308], "name, plural"),
        ("collies", [231], "name, plural"),
        ("mantises", [315], "name, plural"),
        ("torches", [862], "name, plural"),
        ("tomcats", [], ""),
        ("mice", [673], "name, plural"),
        ("geese", [99], "name, plural"),
        ("oxen", [345], "name, plural"),
        ("foxes", [277, 278, 279, 280], "group, plural"),
        ("wolves", [269, 270, 271], "group, plural"),
        ("puppies", list(range(151, 269)), "group, plural"),
        ("buses", [654, 779, 874], "group, plural"),
        ("dog", list(range(151, 269)), "group"),
        ("Cats", [281, 282, 283, 284, 285], "group, plural"),
        ("snakes", list(range(52, 69)), "group, plural"),
        ("sharks", [2, 3, 4], "group, plural"),
        ("airplane", [404, 895], "group"),
        ("01_ants", [310], "name, plural"),
        ("12. bees", [309], "name, plural"),
        ("n02206856", [309], "synset"),
        ("n02206856-bee", [309], "synset"),
        ("n02206856_whatever", [309], "synset"),
        ("n99999999", [], ""),
        ("", [], ""),
        ("42", [], ""),
        ("собака", [], ""),
    ],
)
def test_a_name_is_found(class_name, expected, why):
    found = match(class_name)
    assert (list(found.indices), found.why) == (expected, why)


@pytest.mark.parametrize("label", ["corn", "mushroom", "plane", "amphibian", "sunglasses"])
def test_only_these_labels_have_a_wider_or_another_meaning(label):
    assert label in labels()
    assert match(label).why == "group"
    wider = {"corn", "mushroom", "plane", "amphibian", "sunglasses"}
    for index, other in enumerate(labels()):
        if other not in wider:
            assert index in match(other).indices, other


@pytest.mark.parametrize("class_name", ["rose", "roses", "glass", "hips of roses", "dandelion"])
def test_a_part_of_a_class_s_words_is_not_the_class(class_name):
    assert match(class_name).to_text() == f"{class_name}: not in ImageNet"


def test_rose_hip_is_a_hip_all_the_same():
    assert indices("rose hip", "Rosehips") == [[], []]  # both the same: see below
    assert indices("rose hip") == [[989]]


def test_a_word_with_two_meanings_is_both_and_says_so():
    assert match("cranes").to_text() == (
        "cranes: crane (wading bird), crane (lifting machine); scores are added"
    )
    assert match("cardigan").indices == (264, 474)
    assert match("maillot").indices == (638, 639)


def test_a_synonym_that_hardly_anybody_means_is_left_out_and_says_why():
    assert match("light").to_text() == "light: in ImageNet only with the meaning lighter"
    assert match("moles").to_text() == "moles: in ImageNet only with the meaning breakwater"
    assert match("ai").to_text() == "ai: in ImageNet only with the meaning three-toed sloth"


def test_many_classes_are_a_count_and_the_ends():
    assert match("dogs").to_text() == (
        "dogs: 118 classes (dog), Chihuahua (151) to Mexican hairless (268)"
    )
    assert match("vehicles").to_text() == "vehicles: 62 classes (warship, aircraft, vehicle, ...)"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("whale", "whale: grey whale (147, whale), killer whale (148, whale)"),
        (
            "panda",
            "panda: lesser panda (red panda), giant panda (bear); scores are added",
        ),
        ("horn", "horn: cornet, French horn (musical instrument); in this sense only"),
        ("tennis racket", "tennis racket: racket (752, sports equipment)"),
    ],
)
def test_a_few_classes_are_named_as_long_as_they_fit_in_a_line(name, line):
    assert match(name).to_text() == line


def test_a_line_is_never_longer_than_a_terminal_less_the_indent():
    dog, *_ = match_classes(["dog", *labels()[151:171]]).each
    assert (
        dog.to_text()
        == "dog: 98 classes (dog); 20 classes counted for 'Chihuahua' and 19 more instead"
    )
    words = [*imagenet_classes._groups(), *imagenet_classes._words()]
    lines = [match(word).to_text() for word in words]
    assert 70 < max(len(line) for line in lines) <= 78
    assert [line for line in lines if line.endswith("...")] == []
    long = match(
        "a folder whose name somebody has made into a whole sentence about the kites in it"
    )
    assert long.to_text() == (
        "a folder whose name somebody has made into a whole sentence about the kites..."
    )


# ── several names ──


def test_a_closer_name_takes_its_class_from_a_group():
    dog, beagle, cat, tabby = match_classes(["dog", "beagle", "cat", "tabby"]).each
    assert beagle.indices == (162,)
    assert dog.indices == tuple(i for i in range(151, 269) if i != 162)
    assert dog.note == "1 class counted for 'beagle' instead"
    assert (cat.indices, tabby.indices) == ((282, 283, 284, 285), (281,))


def test_a_smaller_group_takes_its_classes_from_one_around_it():
    terrier, dog, airedale = match_classes(["terriers", "dogs", "airedale"]).each
    assert airedale.indices == (191,)
    assert len(terrier.indices) == 23 - 1
    assert len(dog.indices) == 118 - 23
    assert dog.note == "23 classes counted for 'terriers', 'airedale' instead"


def test_a_word_with_fewer_meanings_takes_its_class_from_one_with_more():
    assert indices("crayfish", "spiny lobster", "red panda", "panda") == [
        [124],
        [123],
        [387],
        [388],
    ]
    assert indices("horn", "French horn") == [[513], [566]]


def test_names_that_mean_the_same_get_nothing_and_say_so():
    cab, taxi, bee = match_classes(["cab", "taxis", "bee"]).each
    assert (cab.indices, taxi.indices, bee.indices) == ((), (), (309,))
    assert (cab.why, taxi.why) == ("", "")
    assert cab.to_text() == "cab: 1 class left out, because 'taxis' could mean the same"
    assert taxi.to_text() == "taxis: 1 class left out, because 'cab' could mean the same"
    assert indices("ant", "ants") == [[], []]


def test_groups_that_overlap_lose_what_they_share():
    van, car = match_classes(["van", "car"]).each
    assert van.indices == (675, 734)
    assert car.indices == (436, 468, 511, 609, 627, 661, 751, 817)
    assert van.note == "1 class left out, because 'car' could mean the same"


def test_a_group_of_whose_classes_all_have_names_of_their_own_is_left_with_nothing():
    whale, *_ = match_classes(["whale", "grey whale", "orca"]).each
    assert whale.to_text() == "whale: 2 classes counted for 'grey whale', 'orca' instead"


def test_the_order_of_the_names_does_not_matter():
    names = ["dog", "terriers", "beagle", "cab", "taxi", "van", "car", "panda", "red panda", "x"]
    forward = {found.class_name: found for found in match_classes(names).each}
    backward = {found.class_name: found.indices for found in match_classes(names[::-1]).each}
    assert {name: found.indices for name, found in forward.items()} == backward


def test_no_two_names_share_a_class():
    words = sorted(imagenet_classes._groups())
    taken = [index for found in match_classes([*words, *labels()]).each for index in found.indices]
    assert sorted(taken) == sorted(set(taken))


def test_the_flowers_that_people_begin_with():
    found = match_classes(["daisy", "dandelion", "roses", "sunflowers", "tulips"])
    assert found.mapped == [0]
    assert found.each[0].indices == (985,)
    assert found.unmatched == ["dandelion", "roses", "sunflowers", "tulips"]


def test_cifar10_but_for_the_deer():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    found = match_classes([*names, "truck"])
    assert found.unmatched == ["deer"]
    assert [len(one.indices) for one in found.each] == [2, 9, 59, 5, 0, 118, 3, 1, 5, 6]


def test_json_says_what_was_found():
    assert match("ants").to_json() == {
        "class_name": "ants",
        "indices": [310],
        "labels": ["ant"],
        "glosses": ["insect"],
        "why": "name, plural",
        "note": "",
    }


# ── scores ──


def test_scores_are_summed_over_the_classes_of_a_name_and_divided_by_those_of_all():
    scores = np.zeros((2, 1000), "float32")
    scores[0, [277, 280, 309, 5]] = [0.1, 0.2, 0.1, 0.6]
    scores[1, [309, 0]] = [0.5, 0.5]
    got = scores_of(match_classes(["foxes", "rose", "bees"]), scores)
    assert got.dtype == np.float32
    # 1e-6: float32
    np.testing.assert_allclose(got, [[0.75, 0, 0.25], [0, 0, 1]], atol=1e-6)


def test_scores_too_small_for_float32_leave_all_mapped_names_alike():
    scores = np.zeros((1, 1000), "float32")
    scores[0, 0] = 1
    got = scores_of(match_classes(["ants", "rose", "bees"]), scores)
    np.testing.assert_array_equal(got, [[0.5, 0, 0.5]])


def test_scores_that_are_no_numbers_stay_none():
    scores = np.full((1, 1000), np.nan, "float32")
    got = scores_of(match_classes(["ants", "bees"]), scores)
    np.testing.assert_array_equal(got, [[np.nan, np.nan]])


def test_fewer_than_two_names_leave_nothing_to_choose():
    scores = np.full((1, 1000), 0.001, "float32")
    with pytest.raises(UserError) as refused:
        scores_of(match_classes(["daisy", "roses", "tulips"]), scores)
    assert str(refused.value) == (
        "the pretrained net as it is knows only the classes of ImageNet. Expected at least two of "
        "the 3 class names to be among them, got 1 (daisy)."
    )
    with pytest.raises(UserError, match=r"got 0\."):
        scores_of(match_classes(["roses", "tulips"]), scores)


def test_scores_of_another_net_are_a_bug_of_the_caller():
    with pytest.raises(ValueError, match=r"expected scores \[N,1000\], got \[1, 10\]"):
        scores_of(match_classes(["ants", "bees"]), np.zeros((1, 10), "float32"))


@pytest.mark.slow
def test_the_net_as_it_is_tells_ants_from_bees(assets):
    import keras

    from kerasft.models.build import pretrained

    net, _ = pretrained("MobileNetV2")
    names = ["ants", "bees"]
    photos = [
        (label, photo)
        for label, name in enumerate(names)
        for photo in sorted((assets / "datasets" / "ants_bees" / name).glob("*.jpg"))[:40]
    ]
    assert len(photos) == 80
    pixels = np.stack([
        keras.utils.img_to_array(keras.utils.load_img(photo, target_size=(224, 224)))
        for _, photo in photos
    ])  # fmt: skip
    scores = scores_of(match_classes(names), net.predict(pixels, verbose=0))
    hits = scores.argmax(axis=1) == [label for label, _ in photos]
    assert hits.mean() > 0.9


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mouse", "mouse: mouse (673, computer mouse); in this sense only"),
        ("kites", "kites: kite (21, bird of prey); in this sense only"),
        ("ear", "ear: ear (998, ear of corn); in this sense only"),
        ("Hip", "Hip: hip (989, fruit of a rose); in this sense only"),
        ("washer", "washer: washer (897, washing machine); in this sense only"),
        ("notebook", "notebook: notebook (681, computer); in this sense only"),
        ("chest", "chest: chest (492, box with a lid); in this sense only"),
        ("groom", "groom: groom (982, bridegroom); in this sense only"),
        ("n02206856", "n02206856: bee (309, insect)"),
        ("zebra", "zebra: zebra (340, hoofed mammal)"),
    ],
)
def test_a_line_says_what_imagenet_means_and_whether_the_word_has_other_meanings(name, line):
    assert match(name).to_text() == line


def test_every_word_of_several_meanings_is_one_of_imagenets_and_of_no_group():
    words = imagenet_classes._ambiguous()
    assert len(words) > 80
    assert words <= set(imagenet_classes._words())
    assert words & set(imagenet_classes._groups()) == set()


def test_each_of_the_1000_classes_has_one_gloss_which_says_more_than_its_label():
    lines = list(imagenet_classes._lines(imagenet_classes.GLOSSES))
    indices = [i for line in lines for i in imagenet_classes._indices(line.partition(":")[2])]
    assert sorted(indices) == list(range(1000))
    names = [line.partition(":")[0] for line in lines]
    assert sorted(names) == sorted(set(names))
    assert all(2 < len(gloss) <= 26 for gloss in glosses())
    both = zip(labels(), glosses(), strict=True)
    assert [label for label, gloss in both if label.lower() == gloss.lower()] == []
    # What a label does not tell apart, its gloss does.
    pairs = set(zip(labels(), glosses(), strict=True))
    assert len(pairs) == 1000 and len(set(labels())) == 998


@pytest.mark.parametrize(
    ("index", "label", "gloss"),
    [
        (0, "tench", "fish"),
        (134, "crane", "wading bird"),
        (260, "chow", "dog"),
        (308, "fly", "insect"),
        (456, "bow", "weapon for arrows"),
        (517, "crane", "lifting machine"),
        (600, "hook", "curved holder"),
        (726, "plane", "woodworking tool"),
        (847, "tank", "military vehicle"),
        (884, "vault", "arched ceiling"),
        (923, "plate", "dish of food"),
        (999, "toilet tissue", "paper"),
    ],
)
def test_glosses_belong_to_their_labels(index, label, gloss):
    assert (labels()[index], glosses()[index]) == (label, gloss)
