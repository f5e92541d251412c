"""What a folder of photos means: classes, splits, or neither with both readings."""

import contextlib
import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_files import make, message_of

from kerasft.errors import UserError
from kerasft.sources.layouts import LAYOUTS, find_classes


def test_folders_are_classes(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/2.png", "README.txt")
    (tmp_path / "empty").mkdir()
    assert find_classes(tmp_path) == {"": {"cat": ["cat/1.jpg"], "dog": ["dog/2.png"], "empty": []}}


def test_folders_inside_a_class_belong_to_it(tmp_path):
    make(tmp_path, "cat/b/c/1.jpg", "cat/a.jpg", "dog/1.jpg")
    assert find_classes(tmp_path)[""]["cat"] == ["cat/a.jpg", "cat/b/c/1.jpg"]


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Val"])
def test_folders_of_splits_are_respected(tmp_path, name):
    make(tmp_path, "train/cat/1.jpg", f"{name}/cat/2.jpg", "test/cat/3.jpg")
    assert find_classes(tmp_path) == {
        "train": {"cat": ["train/cat/1.jpg"]},
        "validation": {"cat": [f"{name}/cat/2.jpg"]},
        "test": {"cat": ["test/cat/3.jpg"]},
    }


def test_a_class_may_be_called_train(tmp_path):
    make(tmp_path, "car/1.jpg", "train/1.jpg", "ship/1.jpg")
    assert sorted(find_classes(tmp_path)[""]) == ["car", "ship", "train"]


@pytest.mark.parametrize("name", ["train", "Test"])
def test_a_folder_of_a_split_without_images_is_no_class(tmp_path, name, caplog):
    make(tmp_path, "car/1.jpg", "ship/1.jpg", f"{name}/notes.txt")
    assert find_classes(tmp_path) == {"": {"car": ["car/1.jpg"], "ship": ["ship/1.jpg"]}}
    assert caplog.messages == [f"{tmp_path}: left out, without images: {name}"]


def test_folders_of_splits_with_others_beside_them_are_ambiguous(tmp_path):
    make(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "more/cat/1.jpg")
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: more, test and train may be splits or classes:\n"
        "  train: train (with the folder cat)\n"
        "  test: test (with the folder cat)\n"
        "  There are two readings:\n"
        "  Splits, more left out: pass `data.layout=splits`.\n"
        "  3 classes: pass `data.layout=classes`."
    )
    assert find_classes(tmp_path, "splits") == {
        "train": {"cat": ["train/cat/1.jpg"]},
        "test": {"cat": ["test/cat/1.jpg"]},
    }
    assert find_classes(tmp_path, "classes") == {
        "": {name: [f"{name}/cat/1.jpg"] for name in ("more", "test", "train")}
    }


def test_a_test_folder_alone_and_two_validation_folders_are_refused(tmp_path):
    make(tmp_path / "a", "test/cat/1.jpg", "val/cat/1.jpg")
    assert "holds val and test but no folder train" in message_of(find_classes, tmp_path / "a")
    make(tmp_path / "b", "train/cat/1.jpg", "val/cat/1.jpg", "valid/cat/1.jpg")
    assert "val and valid, which both mean the validation split" in message_of(
        find_classes, tmp_path / "b"
    )


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    make(tmp_path, "cat/1.jpg", "cat/.DS_Store", "cat/Thumbs.db", "cat/Desktop.ini", "cat/Icon\r")
    make(tmp_path, ".cache/1.jpg", "__MACOSX/cat/1.jpg", "dog/notes.txt")
    assert find_classes(tmp_path) == {"": {"cat": ["cat/1.jpg"], "dog": ["dog/notes.txt"]}}


def test_a_path_that_is_no_folder_is_a_mistake_in_typing(tmp_path):
    make(tmp_path, "file")
    for name, problem in [("nowhere", "no such folder"), ("file", "is a file")]:
        with pytest.raises(UserError, match=problem) as error:
            find_classes(tmp_path / name)
        assert error.value.exit_code == 2
    with pytest.raises(UserError, match=r"no such folder.*TFDS datasets are named tfds:NAME\."):
        find_classes(tmp_path / "tdfs:mnist")


def test_an_empty_folder_is_refused(tmp_path):
    assert message_of(find_classes, tmp_path).startswith(f"{tmp_path}: is empty. Expected a folder")


def test_images_beside_the_class_folders_are_refused(tmp_path):
    make(tmp_path, "1.JPG", "2.png", "cat/3.jpg", "dog/4.jpg")
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: holds 2 images outside of class folders, such as 1.JPG. Expected a folder "
        "of images per class.\n  Move them into folders named after their classes, or away; or "
        "take the labels from their paths, with `data.label_from=REGEX`, whose first group is the "
        "label."
    )


def test_a_class_whose_name_no_line_can_hold_is_refused(tmp_path):
    make(tmp_path, "cat\nfish/1.jpg", "dog/2.jpg")
    assert message_of(find_classes, tmp_path).endswith("are not UTF-8. Rename: cat\\nfish.")


SPELLINGS = [
    ("Training", "Testing"),
    ("training_set", "test_set"),
    ("train", "test1"),
    ("TrainData", "TestData"),
    ("Train Images", "Test Images"),
    ("trainset", "testset"),
    ("seg_train", "seg_test"),
    ("asl_alphabet_train", "asl_alphabet_test"),
    ("01-train", "02-holdout"),
]


@pytest.mark.parametrize(("train", "test"), SPELLINGS)
def test_splits_have_many_names_and_it_is_told_which_is_which(tmp_path, train, test, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/1.jpg", f"{test}/cat/3.jpg")
    assert find_classes(tmp_path) == {
        "train": {"cat": [f"{train}/cat/1.jpg"], "dog": [f"{train}/dog/1.jpg"]},
        "test": {"cat": [f"{test}/cat/3.jpg"]},
    }
    assert caplog.messages == [f"{tmp_path}: folders of splits: train = {train}, test = {test}"]


@pytest.mark.parametrize(
    "names",
    [
        ("test tubes", "training shoes", "boots"),
        ("valid", "invalid"),
        ("valid", "expired", "forged"),
        ("train", "car", "ship"),
        ("model train", "train station"),
        ("unknown", "cat"),
        ("1", "2", "3"),
        ("set a", "set b"),
        ("Testarossa", "Validus"),
    ],
)
def test_classes_may_have_names_like_splits(tmp_path, names):
    make(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert find_classes(tmp_path) == {"": {name: [f"{name}/1.jpg"] for name in sorted(names)}}


@pytest.mark.parametrize(
    "paths",
    [
        ("train/1.jpg", "test/1.jpg"),
        ("cat/1.jpg", "dog/1.jpg", "test/1.jpg"),
        ("cat/1.jpg", "dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg"),
        ("train/cat/1.jpg", "train/dog/1.jpg", "cat/2.jpg", "dog/2.jpg"),
        ("train/steam/1.jpg", "train/diesel/1.jpg", "car/red/1.jpg", "car/blue/1.jpg"),
        ("val/1.jpg", "cat/1.jpg", "train/1.jpg"),
    ],
)
def test_what_may_be_splits_or_classes_is_neither(tmp_path, paths):
    make(tmp_path, *paths)
    message = message_of(find_classes, tmp_path)
    assert "may be splits or classes:\n" in message
    assert message.endswith("classes: pass `data.layout=classes`.")
    names = {path.partition("/")[0] for path in paths}
    assert find_classes(tmp_path, "classes")[""].keys() == names


@pytest.mark.parametrize("names", [("images_part_1", "images_part_2"), ("fold1", "fold2")])
def test_parts_of_one_set_are_no_classes(tmp_path, names):
    make(tmp_path, *(f"{name}/1.jpg" for name in names), "metadata.csv")
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: {' and '.join(names)} look like parts of one set, by their names. There are "
        "two readings:\n"
        f"  Parts of one set, whose labels a table says: pass {tmp_path / 'metadata.csv'}.\n"
        "  2 classes: pass `data.layout=classes`."
    )
    assert find_classes(tmp_path, "classes") == {"": {name: [f"{name}/1.jpg"] for name in names}}


def test_one_more_folder_around_all_or_around_a_split_is_entered(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path / "a", "flowers/rose/1.jpg", "flowers/lily/1.jpg", "notes/readme.txt")
    assert find_classes(tmp_path / "a") == {
        "": {"lily": ["flowers/lily/1.jpg"], "rose": ["flowers/rose/1.jpg"]}
    }
    make(tmp_path / "b", "seg_train/seg_train/sea/1.jpg", "seg_train/seg_train/ice/1.jpg")
    make(tmp_path / "b", "seg_test/seg_test/sea/1.jpg", "seg_pred/seg_pred/1.jpg")
    assert find_classes(tmp_path / "b") == {
        "train": {
            "ice": ["seg_train/seg_train/ice/1.jpg"],
            "sea": ["seg_train/seg_train/sea/1.jpg"],
        },
        "test": {"sea": ["seg_test/seg_test/sea/1.jpg"]},
    }
    assert caplog.messages == [
        f"{tmp_path / 'a'}: its photos lie in flowers, which is entered.",
        f"{tmp_path / 'b'}: its photos lie in seg_train/seg_train, which is entered.",
        f"{tmp_path / 'b'}: its photos lie in seg_test/seg_test, which is entered.",
        f"{tmp_path / 'b'}: folders of splits: train = seg_train, test = seg_test",
        f"{tmp_path / 'b'}: left out 1 photo without classes in seg_pred; `predict` is for them.",
    ]


def test_the_only_class_of_a_split_is_not_entered(tmp_path):
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/a/1.jpg", "val/cat/b/2.jpg")
    assert find_classes(tmp_path)["validation"] == {"cat": ["val/cat/a/1.jpg", "val/cat/b/2.jpg"]}


@pytest.mark.parametrize(
    "path", ["test/1.jpg", "test1/1.jpg", "test/unknown/1.jpg", "test/images/1.jpg", "pred/a/1.jpg"]
)
def test_photos_that_nobody_has_labelled_are_left_out_and_told(tmp_path, path, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", path)
    assert find_classes(tmp_path).keys() == {"train"}
    assert caplog.messages[-1] == (
        f"{tmp_path}: left out 1 photo without classes in {path.partition('/')[0]}; `predict` is "
        "for them."
    )


def test_a_class_of_the_test_split_alone_is_not_taken_for_unlabelled(tmp_path):
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/wolf/1.jpg")
    assert find_classes(tmp_path)["test"] == {"wolf": ["test/wolf/1.jpg"]}


def test_folders_without_photos_beside_the_splits_do_not_matter(tmp_path):
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "annotations/1.xml", "train.csv")
    assert find_classes(tmp_path).keys() == {"train"}


@pytest.mark.parametrize(
    "names",
    [
        ("cat.{}.jpg", "dog.{}.jpg"),
        ("great_dane_{}.jpg", "Abyssinian_{}.jpg"),
        ("cat ({}).jpg", "dog ({}).jpg"),
        ("000{}_cat.jpg", "000{}-dog.jpg"),
        ("cat_a{}f.jpg", "dog_b{}e.jpg"),
        ("a{}f_cat.jpg", "b{}e_dog.jpg"),
        ("IMG_000{}_cat.jpg", "DJI_000{}_dog.jpg"),  # a person has added them
        ("P101000{}_cat.jpg", "P101000{}_dog.jpg"),
        ("DOG_000{}.jpg", "CAT_000{}.jpg"),
    ],
)
def test_labels_are_found_in_the_names_of_photos_without_folders(tmp_path, names, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path, *(name.format(number) for name in names for number in range(3)))
    found = find_classes(tmp_path)
    classes = {"cat", "dog"} if "dog" in names[1] else {"great_dane", "Abyssinian"}
    classes = {"CAT", "DOG"} if "CAT" in names[1] else classes
    assert found.keys() == {""} and found[""].keys() == classes
    assert [len(paths) for paths in found[""].values()] == [3, 3]
    told = caplog.messages[0].partition(", by ")
    assert told[0] == f"{tmp_path}: labels are taken from the names of files"
    assert find_classes(tmp_path, "auto", told[2]) == found  # what is told can be typed


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_{}.jpg", "DSC_{}.jpg"),
        ("DJI_000{}.JPG", "GOPR000{}.JPG"),
        ("DJI_000{}.JPG", "cat_000{}.JPG"),
        ("P101000{}.JPG", "L100000{}.JPG"),
        ("ABCD000{}.JPG", "EFGH000{}.JPG"),
        ("DJI_000{}_T.JPG", "DJI_000{}_W.JPG"),
        ("20230101_12000{}_HDR.jpg", "20230101_12000{}_BURST.jpg"),
        ("PXL_20230101_00{}.PORTRAIT.jpg", "PXL_20230101_00{}.NIGHT.jpg"),
        ("cat_{}.jpg",),
        ("{}.jpg",),
        ("cat_1.jpg", "dog_1.jpg"),  # once each
        ("cat_{}.jpg", "dog_{}.jpg", "whatever.jpg"),
    ],
)
def test_names_that_are_no_sure_labels_are_not_guessed(tmp_path, names):
    make(tmp_path, *{name.format(number) for name in names for number in range(3)})
    assert "outside of class folders" in message_of(find_classes, tmp_path)


def test_two_guesses_are_both_named(tmp_path):
    make(tmp_path, *(f"{a}_x{n}y_{b}.jpg" for a in ("cat", "dog") for b in "st" for n in range(3)))
    message = message_of(find_classes, tmp_path)
    assert "names can be read in several ways:\n  cat, dog: pass `data.label_from=" in message
    assert "\n  s, t: pass `data.label_from=" in message


def test_labels_in_names_and_splits_in_folders(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path, *(f"train/{name}.{number}.jpg" for name in ("cat", "dog") for number in "123"))
    make(tmp_path, "test1/1.jpg", "test1/2.jpg")
    expected = {name: [f"train/{name}.{number}.jpg" for number in "123"] for name in ("cat", "dog")}
    assert find_classes(tmp_path) == {"train": expected}
    assert caplog.messages[-1] == (
        f"{tmp_path}: left out 2 photos without classes in test1; `predict` is for them."
    )
    make(tmp_path, "val/cat.7.jpg")
    assert find_classes(tmp_path)["validation"] == {"cat": ["val/cat.7.jpg"]}


def test_an_expression_is_searched_in_the_whole_path_and_has_to_match_all(tmp_path):
    make(tmp_path, "a/red/1.jpg", "b/blue/2.jpg", "b/blue/notes.txt")
    assert find_classes(tmp_path, "auto", "/(red|blue)/") == {
        "": {"red": ["a/red/1.jpg"], "blue": ["b/blue/2.jpg"]}
    }
    assert find_classes(tmp_path, "auto", "(?P<label>[a-z])/(red|blue)")[""].keys() == {"a", "b"}
    assert message_of(find_classes, tmp_path, "auto", "/(red)/") == (
        f"{tmp_path}: 1 of 2 paths does not match /(red)/, by which labels are taken from them:\n"
        "  b/blue/2.jpg"
    )


def test_a_label_with_control_characters_is_refused(tmp_path):
    make(tmp_path, "\x071.jpg", "\x072.jpg", "x1.jpg")
    assert message_of(find_classes, tmp_path, "auto", "^(.)") == (
        f"{tmp_path}: 1 label holds control characters or is not UTF-8, out of the paths:\n"
        "  \\x071.jpg"
    )


def test_a_table_beside_photos_without_folders_is_not_passed_over(tmp_path):
    make(tmp_path, *(f"{name}.{number}.jpg" for name in ("cat", "dog") for number in "123"))
    make(tmp_path, "labels.csv")
    assert f"Pass {tmp_path / 'labels.csv'} if it holds the labels. If" in message_of(
        find_classes, tmp_path
    )


def test_a_table_beside_photos_is_named_where_no_label_is_in_their_names(tmp_path):
    make(tmp_path, *(f"train_images/{number}f.jpg" for number in range(4)), "test_images/9.jpg")
    make(tmp_path, "train.csv", "test.csv")
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: holds photos without folders of classes, and 2 tables: test.csv, train.csv. "
        f"Pass {tmp_path / 'train.csv'} if it holds the labels."
    )


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (("trainLabels.csv", "sampleSubmission.csv"), "Pass {}/trainLabels.csv if it holds the"),
        (("a.csv", "b.tsv"), "2 tables: a.csv, b.tsv. Pass the one that holds the labels. If"),
        (("meta/labels.csv",), "Pass {}/meta/labels.csv if it holds the labels. If"),
        (("labels.txt", "README.txt"), "Pass {}/labels.txt if it holds the labels. If"),
    ],
)
def test_no_labels_are_guessed_from_names_beside_any_table(tmp_path, tables, told):
    make(tmp_path, *(f"train/{n}_{side}.jpeg" for n in range(10, 13) for side in ("left", "right")))
    make(tmp_path, "test/1_left.jpeg", *tables)
    message = message_of(find_classes, tmp_path)
    assert told.format(tmp_path) in message and "`data.label_from=" in message


def test_each_of_several_tables_beside_class_folders_is_compared(tmp_path):
    make(tmp_path, "north/1.jpg", "north/2.jpg", "south/3.jpg", "a.csv")
    (tmp_path / "b.csv").write_text("path,label\nnorth/1.jpg,x\nnorth/2.jpg,y\nsouth/3.jpg,x\n")
    assert f"x, y, as the table says: pass {tmp_path / 'b.csv'}." in message_of(
        find_classes, tmp_path
    )


@pytest.mark.parametrize(
    "table",
    [
        "filename,width\n1.jpg,20\n2.jpg,30\n3.jpg,20\n",
        "filename,photographer\n1.jpg,Ann\n2.jpg,Bob\n3.jpg,Ann\n",
        "filename,label\n3.jpg,south\n",  # of one folder only, as the folder says
    ],
)
def test_a_table_without_other_labels_does_not_block_class_folders(tmp_path, table):
    make(tmp_path, "north/1.jpg", "north/2.jpg", "south/3.jpg")
    (tmp_path / "meta.csv").write_text(table)
    assert find_classes(tmp_path)[""].keys() == {"north", "south"}


def test_a_column_per_label_is_compared_with_class_folders(tmp_path):
    make(tmp_path, "north/1.jpg", "north/2.jpg", "south/3.jpg")
    (tmp_path / "meta.csv").write_text("image,mel,nv\n1.jpg,1,0\n2.jpg,0,1\n3.jpg,1,0\n")
    assert "mel, nv, as the table says: pass " in message_of(find_classes, tmp_path)


def test_splits_inside_of_classes_are_refused(tmp_path):
    make(
        tmp_path, *(f"{one}/{split}/1.jpg" for one in ("cat", "dog") for split in ("test", "train"))
    )
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: cat and dog each hold folders of splits: test, train. There are two "
        "readings:\n"
        "  Splits inside of classes, which kerasft does not read: move the photos of cat/test to "
        "test/cat, and so on.\n"
        "  2 classes, with the splits of each put together: pass `data.layout=classes`."
    )
    assert find_classes(tmp_path, "classes")[""].keys() == {"cat", "dog"}


@pytest.mark.parametrize("above", ["", "train/"])
def test_folders_that_hold_the_same_folders_are_told(tmp_path, above, caplog):
    make(tmp_path, *(f"{above}{a}/{b}/1.jpg" for a in ("color", "gray") for b in ("apple", "pear")))
    assert find_classes(tmp_path)[above.strip("/")].keys() == {"color", "gray"}
    assert caplog.messages == [
        f"{tmp_path}: the classes are color and gray; the folders in each of them, apple and pear, "
        "are not told apart."
    ]


@pytest.mark.parametrize("inner", ["", "apple/"])
def test_masks_beside_images_are_no_class(tmp_path, inner):
    make(tmp_path, f"images/{inner}1.jpg", f"masks/{inner}1.png")
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: masks may hold masks or annotations of the photos in images, by their names. "
        f"There are two readings:\n  Photos and their masks: pass {tmp_path / 'images'}.\n"
        "  2 classes: pass `data.layout=classes`."
    )


def test_mask_may_be_a_class(tmp_path):
    make(tmp_path, "mask/1.jpg", "no mask/1.jpg")
    assert find_classes(tmp_path)[""].keys() == {"mask", "no mask"}


BY_NAME = r"([a-z]+)_\d"


def test_an_expression_keeps_the_test_folder_apart_without_a_folder_train(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path, "photos/cat_1.jpg", "photos/dog_1.jpg", "test/cat_1.jpg")
    assert find_classes(tmp_path, "auto", BY_NAME) == {
        "train": {"cat": ["photos/cat_1.jpg"], "dog": ["photos/dog_1.jpg"]},
        "test": {"cat": ["test/cat_1.jpg"]},
    }
    assert caplog.messages == [
        f"{tmp_path}: 2 photos outside of test are for training, as there is no folder train."
    ]
    assert find_classes(tmp_path, "classes", BY_NAME).keys() == {""}
    assert find_classes(tmp_path, "auto", "^(.*)/")[""].keys() == {"photos", "test"}


def test_an_expression_that_leaves_it_unsure_what_is_for_training_is_refused(tmp_path):
    make(tmp_path, "photos/cat_1.jpg", "test/dog_1.jpg")
    message = message_of(find_classes, tmp_path, "auto", BY_NAME)
    assert "holds test but no folder train. There are two readings" in message
    assert find_classes(tmp_path, "splits", BY_NAME).keys() == {"train", "test"}


def test_photos_beside_a_train_folder_are_left_out_and_told(tmp_path, caplog):
    make(tmp_path, "train/cat_1.jpg", "train/dog_1.jpg", "cat_2.jpg")
    assert find_classes(tmp_path, "auto", BY_NAME).keys() == {"train"}
    assert caplog.messages == [f"{tmp_path}: left out 1 image beside the splits."]


LABELS = {
    "other": {"north/1.jpg": "a", "north/2.jpg": "b", "south/3.jpg": "a"},
    "finer": {"north/1.jpg": "a", "north/2.jpg": "b", "south/3.jpg": "c"},
    "the same": {"north/1.jpg": "0", "north/2.jpg": "0", "south/3.jpg": "1"},
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_table_that_gives_other_labels_than_the_folders_is_not_passed_over(
    tmp_path, kind, caplog
):
    caplog.set_level(logging.INFO)
    make(tmp_path, *LABELS[kind])
    rows = "".join(f"{path},{label}\n" for path, label in LABELS[kind].items())
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    if kind == "the same":
        assert find_classes(tmp_path)[""].keys() == {"north", "south"}
        told = "labels.csv is not read, the folders are the classes."
        assert caplog.messages == [f"{tmp_path}: {told}"]
        return
    labels = "a, b" if kind == "other" else "a, b, c"
    assert message_of(find_classes, tmp_path) == (
        f"{tmp_path}: its folders and the table beside them say different classes. There are two "
        "readings:\n"
        f"  {labels}, as the table says: pass {tmp_path / 'labels.csv'}.\n"
        "  north and south, as the folders say: pass `data.layout=classes`."
    )
    assert find_classes(tmp_path, "classes")[""].keys() == {"north", "south"}
    assert caplog.messages == []  # nothing was chosen of what is told


def test_one_folder_of_photos_beside_their_table_is_no_class(tmp_path):
    make(tmp_path, "images/1.jpg", "images/2.jpg")
    (tmp_path / "labels.csv").write_text("id,kind\n1,a\n2,b\n")
    assert f"a, b, as the table says: pass {tmp_path / 'labels.csv'}." in message_of(
        find_classes, tmp_path
    )


NAMES = st.sampled_from(
    ["train", "Test", "val", "valid", "cat", "dog", "images", "part_1", "pred", "1.jpg", "x.txt"]
    + [f"{name}_{number}.jpg" for name in ("cat", "dog") for number in range(4)]
    + ["labels.csv", "train.csv"]
) | st.text(min_size=1, max_size=4).filter(lambda t: not set("/\0") & set(t) and t not in "..")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=8),
    st.sampled_from(("auto", *LAYOUTS)),
)
def test_whatever_a_folder_holds_it_is_classes_of_its_own_files_or_one_refusal(paths, layout):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for parts in paths:
            with contextlib.suppress(OSError, UnicodeEncodeError):
                root.joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
                root.joinpath(*parts).write_text("1,cat\n" if "csv" in parts[-1] else "")
        try:
            found = find_classes(root, layout)
        except UserError as error:
            assert str(error).startswith(name)
        else:
            listed = [path for of in found.values() for files in of.values() for path in files]
            assert len(listed) == len(set(listed))
            assert all((root / path).is_file() for path in listed)
