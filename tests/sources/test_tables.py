import logging
import shutil

import pytest
from drawing import draw_photos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasft.config.fields import Data
from kerasft.errors import UserError
from kerasft.progress import silent
from kerasft.sources.photos import Photo
from kerasft.sources.tables import find_csv, find_list, find_parquet

THREE = "a.jpg,cat\nsub/b.jpg,dog\nc.jpg,cat\n"


@pytest.fixture
def folder(tmp_path):
    """Three files; a table of photos reads none of them."""
    (tmp_path / "sub").mkdir()
    for path in ("a.jpg", "sub/b.jpg", "c.jpg"):
        (tmp_path / path).touch()
    return tmp_path


def read(folder, text, **settings):
    (folder / "labels.csv").write_text(text)
    return find_csv(Data(source=folder / "labels.csv", **settings), silent).read()


def refusal(folder, text):
    """The message, without the name of the table that it begins with."""
    with pytest.raises(UserError) as error:
        read(folder, text)
    start = f"{folder / 'labels.csv'}: "
    assert str(error.value).startswith(start)
    assert error.value.exit_code == 1
    return str(error.value).removeprefix(start)


def test_paths_are_relative_to_the_folder_of_the_table(folder):
    (folder / "labels.csv").write_text("path,label\n" + THREE)
    place = find_csv(Data(source=folder / "labels.csv"), silent)
    assert (place.name, place.root) == (str(folder / "labels.csv"), folder)
    listed = place.read()
    assert listed.photos == [
        Photo("a.jpg", "cat"),
        Photo("sub/b.jpg", "dog"),
        Photo("c.jpg", "cat"),
    ]
    assert listed.classes == {"": ("cat", "dog")}


def test_columns_may_come_in_any_order_and_case_with_others_beside_them(folder):
    listed = read(
        folder,
        "Width;Split;LABEL; Path ;Group\n10;Train;cat;a.jpg;x\n9;VAL;dog;sub/b.jpg;\n"
        "8;test;cat;c.jpg;y\n",
    )
    assert listed.photos == [
        Photo("a.jpg", "cat", "train", "x"),
        Photo("sub/b.jpg", "dog", "validation", ""),
        Photo("c.jpg", "cat", "test", "y"),
    ]
    assert listed.classes == {"train": ("cat",), "validation": ("dog",), "test": ("cat",)}


@pytest.mark.parametrize("split", ["validation", "val", "valid", "Val"])
def test_validation_has_three_names(folder, split):
    listed = read(folder, f"path,label,split\na.jpg,cat,train\nc.jpg,cat,{split}\n")
    assert listed.photos[1].split == "validation"


def test_columns_that_are_passed_over_are_told(folder, caplog):
    caplog.set_level(logging.INFO)
    read(folder, "path,label,patient,width\na.jpg,cat,ada,10\n")
    assert caplog.messages == [f"{folder / 'labels.csv'}: ignored columns: patient, width"]


def test_a_column_of_splits_that_is_empty_says_nothing(folder):
    assert read(folder, "path,label,split\na.jpg,cat,\nc.jpg,dog,\n").classes == {
        "": ("cat", "dog")
    }


def test_names_that_can_only_mean_one_thing_are_understood(folder):
    listed = read(folder, "filename,class\n" + THREE)
    assert listed.photos[1] == Photo("sub/b.jpg", "dog")
    listed = read(folder, "image,path,label\nx.jpg,a.jpg,cat\n")  # the column's own name wins
    assert listed.photos == [Photo("a.jpg", "cat")]
    assert read(folder, "file,image,label\na.jpg,x,cat\n").photos == [Photo("a.jpg", "cat")]
    assert refusal(folder, "file,image,label\na.jpg,c.jpg,cat\n") == (
        "file and image may all name the photos. Say which one does:\n"
        "  `data.columns=path=file`\n"
        "  `data.columns=path=image`"
    )


def test_absolute_paths_below_the_folder_are_fine_and_so_are_those_of_windows(folder):
    link = folder.parent / f"{folder.name} link"
    link.symlink_to(folder)
    text = f"path,label\n{folder}/a.jpg,cat\nsub\\b.jpg,dog\n./x/../c.jpg,cat\n"
    paths = ["a.jpg", "sub/b.jpg", "c.jpg"]
    assert [photo.path for photo in read(folder, text).photos] == paths
    assert [photo.path for photo in read(link, text).photos] == paths


def test_all_rows_that_make_no_sense_are_named_at_once(folder):
    assert refusal(
        folder,
        "path,label,split\n"
        ",cat,train\n"
        "a.jpg,,train\n"
        "../b.jpg,cat,train\n"
        "/etc/passwd,cat,train\n"
        "a.jpg,cat,trian\n"
        "bell\a.jpg,cat,train\n"
        "a.jpg,c\aat,train\n"
        "a.jpg,cat\n"
        "a.jpg,cat,train\n"
        "./a.jpg,cat,train\n"
        "c.jpg,cat,\n"
        "gone.jpg,cat,train\n",
    ).splitlines() == [
        "11 of its rows can't be used:",
        "  line 2: names no file",
        "  line 3: has no label",
        f"  line 4: ../b.jpg is not below {folder}, the folder of the table. Move the table there",
        f"  line 5: /etc/passwd is not below {folder}, the folder of the table. Move the table "
        "there",
        "  line 6: split: expected train, validation or test, got 'trian'. Did you mean 'train'?",
        "  line 7: has a path with control characters, or one that is not UTF-8",
        "  line 8: has control characters",
        "  line 9: has more or fewer fields than the header",
        "  line 11: a.jpg is in line 10 already",
        "  line 12: c.jpg has no split, others have one",
        "  line 13: gone.jpg is missing",
    ]


def test_of_many_missing_files_twenty_are_named(folder):
    lines = "".join(f"{number}.jpg,cat\n" for number in range(23))
    message = refusal(folder, f"path,label\n{THREE}{lines}")
    assert message.startswith("23 of its rows can't be used:\n  line 5: 0.jpg is missing\n")
    assert message.endswith("  line 24: 19.jpg is missing\n  and 3 more")


def test_if_all_files_are_missing_the_folder_is_named_and_where_they_may_be(folder):
    assert refusal(folder, "path,label\nb.jpg,cat\nx.jpg,cat\ny.jpg,cat\n").splitlines()[-1] == (
        f"  Paths are relative to {folder}, the folder of the table. There is sub/b.jpg."
    )


def test_missing_files_can_be_skipped_like_those_that_are_no_images(folder):
    listed = read(folder, "path,label\na.jpg,cat\ngone.jpg,dog\n", bad_images="skip")
    assert [photo.path for photo in listed.photos] == ["a.jpg", "gone.jpg"]


def test_columns_that_are_missing_are_named_with_what_there_is(folder):
    header = "Expected a header with path,label and optionally split and group"
    assert refusal(folder, "path,a,b\na.jpg,x,y\nc.jpg,z,w\n") == (
        f"no column label. {header}, got path, a, b.\n"
        "  Name the column of the labels with `data.columns=label=NAME`, or read them out of the "
        "paths with `data.label_from=REGEX`."
    )
    assert refusal(folder, "x.jpg,cat\ny.jpg,dog\n") == (
        f"no column names files below {folder}. There is no file x.jpg. {header}, got no header."
    )
    assert refusal(folder, "") == (
        f"no column names files below {folder}. {header}, got an empty file."
    )
    assert refusal(folder, "path,label\n") == "lists no photos. Expected a row for each."


# columns by what they hold


@pytest.fixture
def many(tmp_path):
    """Twelve files in two folders, and what a table says of them."""
    for number in range(12):
        path = tmp_path / f"part_{number % 2}/{number:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def table(rows, header):
    return "\n".join([header, *(row.format(n=n, kind="ab"[n % 2]) for n, row in enumerate(rows))])


def read_many(folder, header, row, **settings):
    return read(folder, table([row] * 12, header), **settings).photos


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image_id,dx", "{n:02},{kind}"),
        ("id,breed", "{n:02},{kind}"),
        ("filepaths,labels", "/content/drive/{n:02}.jpg,{kind}"),
        ("Photo Number,Choice", "{n:02}.JPG,{kind}"),
        ("label,who", "{kind},/x/{n:02}.png"),
        ("url,label", "https://example.org/a/{n:02}.jpg?size=2,{kind}"),
        ("name,class id,class name", "{n:02},{kind}{kind},{kind}"),
        ("x,width,label,taken", "{n:02},640,{kind},2024-01-{n:02}"),
    ],
)
def test_files_are_found_by_name_in_any_folder_below_and_labels_by_what_repeats(
    many, header, row, caplog
):
    caplog.set_level(logging.INFO)
    photos = read_many(many, header, row)
    assert photos[:2] == [
        Photo("part_0/00.jpg", photos[0][1]),
        Photo("part_1/01.jpg", "b" * len(photos[1][1])),
    ]
    assert len(photos) == 12
    assert caplog.messages[0].startswith(f"{many / 'labels.csv'}: columns: path = ")
    assert "(files found by name)" in caplog.messages[0]


@pytest.mark.parametrize(
    "text", ["00.jpg,a\n01.jpg,b\n03.jpg,a\n", "00.jpg;a\n01.jpg;b\n03.jpg;a\n"]
)
def test_a_table_without_header_is_known_by_its_files(many, text):
    assert read(many, text).photos == [
        Photo("part_0/00.jpg", "a"),
        Photo("part_1/01.jpg", "b"),
        Photo("part_1/03.jpg", "a"),
    ]


def test_a_table_without_header_is_known_if_its_first_file_is_missing(many):
    assert read(many, "gone.jpg,a\n01.jpg,b\n03.jpg,a\n", bad_images="skip").photos == [
        Photo("gone.jpg", "a"),
        Photo("part_1/01.jpg", "b"),
        Photo("part_1/03.jpg", "a"),
    ]


def test_a_file_of_the_same_name_in_another_folder_is_another_file(many):
    rows = [f"data/part_{n % 2}/{{n:02}},{{kind}}" for n in range(12)]
    assert read(many, table(rows, "image,label")).photos[1].path == "part_1/01.jpg"
    rows[1] = "data/part_0/01.jpg,b"
    assert refusal(many, table(rows, "image,label")).splitlines()[1:] == [
        "  line 3: data/part_0/01.jpg is missing"
    ]


def test_a_name_in_two_folders_is_not_guessed_unless_the_table_says_the_split(many):
    for folder in ("train", "test"):
        (many / folder).mkdir()
        (many / folder / "00.jpg").touch()
    (many / "part_0/00.jpg").unlink()
    text = table(["{n:02},{kind}"] * 12, "id,label")
    assert "line 2: 00 may be test/00.jpg or train/00.jpg" in refusal(many, text)
    assert read(many, text.replace("00,a", "data/train/00,a")).photos[0].path == "train/00.jpg"
    (many / "train.csv").write_text(text)
    listed = find_csv(Data(source=many / "train.csv"), silent).read()
    assert listed.photos[0].path == "train/00.jpg"


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("data set", ("train", "valid", "test"), "split = data set"),
        ("fold", ("Training", "val", "Testing"), "split = fold"),
        ("is_valid", ("False", "True", "False"), "split = is_valid (1 = validation, 0 = train)"),
        ("is_test", ("0", "0", "1"), "split = is_test (1 = test, 0 = train)"),
        ("is_train", ("1", "1", "0"), "split = is_train (1 = train, 0 = test)"),
    ],
)
def test_the_split_is_known_by_its_values(many, column, values, told, caplog):
    caplog.set_level(logging.INFO)
    rows = [f"{{n:02}},{{kind}},{values[n % 3]}" for n in range(12)]
    photos = read(many, table(rows, f"image,label,{column}")).photos
    expected = {"True": "validation", "False": "train"} | {
        "valid": "validation", "val": "validation", "Training": "train", "Testing": "test"
    }  # fmt: skip
    if column == "is_test":
        expected = {"1": "test", "0": "train"}
    if column == "is_train":
        expected = {"1": "train", "0": "test"}
    assert [p.split for p in photos[:3]] == [expected.get(v, v) for v in values]
    assert caplog.messages == [
        f"{many / 'labels.csv'}: columns: path = image (files found by name); label = label; {told}"
    ]


def test_several_flags_say_one_split_each(many):
    rows = [f"{{n:02}},{{kind}},{int(n % 3 == 1)},{int(n % 3 == 2)}" for n in range(12)]
    photos = read(many, table(rows, "image,label,is_val,is_test")).photos
    assert [photo.split for photo in photos[:3]] == ["train", "validation", "test"]


def test_rows_that_are_neither_for_training_nor_validation_are_for_the_test(many, caplog):
    caplog.set_level(logging.INFO)
    rows = [f"{{n:02}},{{kind}},{int(n % 3 == 0)},{int(n % 3 == 1)}" for n in range(12)]
    photos = read(many, table(rows, "image,label,is_train,is_valid")).photos
    assert [photo.split for photo in photos[:3]] == ["train", "validation", "test"]
    assert caplog.messages[0].endswith(
        "split = is_train (1 = train); split = is_valid (1 = validation); 0 in all of them = test"
    )


@pytest.mark.parametrize(
    ("header", "names", "bare"),
    [
        ("image,label,test,x", "test", "test"),
        ("image,label,evaluation,x", "evaluation", "evaluation"),
        ("image,label,is_valid,test", "is_valid,test", "test"),
    ],
)
def test_a_lone_word_may_be_a_split_or_not_whatever_is_beside_it(many, header, names, bare):
    rows = [f"{{n:02}},{{kind}},{int(n % 3 == 0)},{int(n % 3 == 1)}" for n in range(12)]
    text = table(rows, header)
    assert refusal(many, text).endswith(
        f"`data.columns=split={names}`\n  `data.columns=ignore={bare}`"
    )
    assert read(many, text, columns=[f"split={names}"]).photos[2].split == "train"


def test_valid_alone_may_be_a_split_or_not(many):
    rows = [f"{{n:02}},{{kind}},{n % 2}" for n in range(12)]
    text = table(rows, "image,label,valid")
    assert refusal(many, text).endswith(
        "Say which:\n  `data.columns=split=valid`\n  `data.columns=ignore=valid`"
    )
    assert read(many, text, columns=["split=valid"]).photos[1].split == "validation"
    assert read(many, text, columns=["ignore=valid"]).photos[1].split == ""


def test_columns_of_which_one_is_1_are_the_label(many, caplog):
    caplog.set_level(logging.INFO)
    rows = [f"{{n:02}},{float(n % 2 == 0)},{float(n % 2 == 1)},0.0" for n in range(12)]
    photos = read(many, table(rows, "image,MEL,NV,BCC")).photos
    assert [photo.class_name for photo in photos[:2]] == ["MEL", "NV"]
    assert "label = MEL, NV, BCC" in caplog.messages[0]
    rows[3] = "{n:02},0.0,0.0,0.0"
    assert refusal(many, table(rows, "image,MEL,NV,BCC")).splitlines()[1] == (
        "  line 5: has no label"
    )


def test_where_columns_of_0_and_1_and_another_one_may_be_the_label_neither_is(many):
    rows = [f"{{n:02}},{{kind}},{n % 2},{1 - n % 2}" for n in range(12)]
    text = table(rows, "image,breed,MEL,NV")
    assert refusal(many, text) == (
        "the labels may be in breed, or in columns of 0 and 1 (MEL, NV). Say which:\n"
        "  `data.columns=label=breed`\n"
        "  `data.columns=label=MEL,NV`"
    )
    named = read(many, text, columns=["label=MEL,NV"]).photos
    assert [photo.class_name for photo in named[:2]] == ["NV", "MEL"]


def test_where_two_columns_may_be_the_label_neither_is(many):
    rows = [f"{{n:02}},{{kind}},{'xyz'[n % 3]}" for n in range(12)]
    text = table(rows, "image,breed,colour")
    assert refusal(many, text) == (
        "breed and colour may all hold the labels. Say which one does:\n"
        "  `data.columns=label=breed`\n"
        "  `data.columns=label=colour`"
    )
    listed = read(many, text, columns=["label=colour", "group=breed"])
    assert listed.photos[1] == Photo("part_1/01.jpg", "y", "", "b")


def test_a_column_of_0_and_1_is_a_label_as_likely_as_another_one(many):
    rows = [f"{{n:02}},{int(n % 3 == 0)},p{n // 2}" for n in range(12)]
    photos = read(many, table(rows, "image,malignant,patient_id")).photos
    assert [photo.class_name for photo in photos[:4]] == ["1", "0", "0", "1"]
    assert refusal(many, table(rows, "image,malignant,site")).startswith(
        "site and malignant may all hold the labels. Say which one does:"
    )
    rows = ["{n:02},p{n},2024"] + [f"{{n:02}},p{n // 2},{n}" for n in range(1, 12)]
    assert refusal(many, table(rows, "image,patient_id,n")).startswith("no column label.")


@pytest.mark.parametrize("name", ["breed", "animal"])
def test_a_label_of_few_photos_each_does_not_lose_to_a_number(many, name):
    rows = [f"{{n:02}},b{n % 8},{640 if n % 3 else 480}" for n in range(12)]
    assert refusal(many, table(rows, f"image,{name},width")).startswith(
        f"width and {name} may all hold the labels. Say which one does:"
    )


def test_a_role_may_be_given_outright_and_the_column_has_to_be_there(many):
    text = table(["{n:02},{kind},{n}"] * 12, "image,a,b")
    with pytest.raises(UserError) as error:
        read(many, text, columns=["label=c"])
    assert (error.value.exit_code, error.value.field) == (2, "data.columns")
    assert "there is no column c. It has: image, a, b." in str(error.value)


def test_web_addresses_are_refused(folder):
    text = "url,label\nhttps://example.org/1.jpg,cat\nhttps://example.org/2.jpg,dog\n"
    assert refusal(folder, text).startswith(
        "the column url holds web addresses, such as https://example.org/1.jpg. kerasft reads files"
    )


def test_a_test_split_without_labels_is_left_out_and_told(many, caplog):
    caplog.set_level(logging.INFO)
    rows = ["{n:02},{kind},train"] * 9 + ["{n:02},,test"] * 3
    photos = read(many, table(rows, "image,label,split")).photos
    assert len(photos) == 9
    assert caplog.messages[-1] == (
        f"{many / 'labels.csv'}: left out 3 photos of test without labels; `predict` is for them."
    )


def test_a_row_without_label_in_a_split_that_has_labels_is_a_problem(many):
    rows = ["{n:02},{kind},train"] * 9 + ["{n:02},,test"] + ["{n:02},{kind},test"] * 2
    assert refusal(many, table(rows, "image,label,split")).splitlines() == [
        "1 of its rows can't be used:",
        "  line 11: has no label",
    ]


@pytest.mark.parametrize("name", ["patient_id", "Lesion", "animal"])
def test_a_column_that_may_say_what_belongs_together_is_told(many, name, caplog):
    caplog.set_level("WARNING", logger="kerasft")
    rows = [f"{{n:02}},{{kind}},p{n // 2}" for n in range(12)]
    read(many, table(rows, f"image,label,{name}"))
    assert caplog.messages == [
        f"{many / 'labels.csv'}: photos with the same {name} may get into two splits, which "
        f"flatters the figures. `data.columns=group={name}` keeps them together."
    ]
    caplog.clear()
    read(many, table(rows, f"image,label,{name}"), columns=[f"group={name}"])
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index"])
def test_row_numbers_of_pandas_name_no_files(many, name):
    text = table([f"{n},{11 - n:02}.jpg,{{kind}}" for n in range(12)], f"{name},photo,label")
    assert read(many, text).photos[0] == Photo("part_1/11.jpg", "a")


def test_labels_may_come_from_the_paths_of_a_table(many):
    photos = read_many(many, "image,width", "{n:02},{n}", label_from="part_(.)")
    assert photos[1] == Photo("part_1/01.jpg", "1")


def test_a_list_of_caffe_is_a_table(many):
    (many / "train.txt").write_text(
        "".join(f"part_{n % 2}/{n:02}.jpg {n % 2}\n" for n in range(12))
    )
    listed = find_list(Data(source=many / "train.txt"), silent).read()
    assert listed.photos[1] == Photo("part_1/01.jpg", "1")


def test_labels_may_come_from_the_paths_of_a_list_which_may_hold_blanks(tmp_path):
    for name in ("cat 1", "dog 2"):
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "photos.txt").write_text("cat 1.jpg\ndog 2.jpg\n")
    data = Data(source=tmp_path / "photos.txt", label_from=r"(\w+) \d")
    assert find_list(data, silent).read().photos == [
        Photo("cat 1.jpg", "cat"),
        Photo("dog 2.jpg", "dog"),
    ]


def test_a_header_that_is_very_long_is_cut_off_in_messages(folder):
    message = refusal(folder, "x" * 61 + "," + "y" * 60 + "\n")
    assert message.endswith(f"got {'x' * 60}..., {'y' * 60}.")


def test_a_column_that_is_split_but_for_a_slip_is_not_passed_over(folder):
    assert refusal(folder, "path,label,spilt\na.jpg,cat,train\n") == (
        "unknown column 'spilt'. Did you mean 'split'? Rename it, or say what it is:\n"
        "  `data.columns=split=spilt`\n  `data.columns=ignore=spilt`"
    )
    assert refusal(folder, "path,label,groups\na.jpg,cat,x\n").startswith("unknown column 'groups'")
    read(folder, "path,label,slice,date\na.jpg,cat,1,2\n")


def test_a_table_that_is_not_there_is_a_mistake_in_typing(tmp_path):
    with pytest.raises(UserError, match=r"labels\.csv: no such file") as error:
        find_csv(Data(source=tmp_path / "labels.csv"), silent).read()
    assert error.value.exit_code == 2


cells = st.sampled_from(
    ["path", "label", "split", "a.jpg", "sub/b.jpg", "..", "train", "1", "0.5", '"', "\0", "\\", ""]
) | st.text(max_size=3)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(cells, max_size=4), max_size=6), st.sampled_from(",;\t"), st.booleans())
def test_whatever_is_in_a_table_it_is_photos_of_the_folder_or_one_refusal(
    folder, rows, mark, headed
):
    text = "path,label,split\n".replace(",", mark) * headed
    text += "\n".join(mark.join(row) for row in rows)
    (folder / "labels.csv").write_text(text, "utf-8", "surrogatepass")
    try:
        listed = find_csv(Data(source=folder / "labels.csv"), silent).read()
    except UserError as error:
        assert str(error).startswith(f"{folder / 'labels.csv'}: ")
    else:
        assert {photo.path for photo in listed.photos} <= {"a.jpg", "sub/b.jpg", "labels.csv"}


# multi-label and regression


@pytest.mark.parametrize(
    "labels",
    [
        ["cat|dog", "cat", "dog"],
        ["cat|dog", "cat|bird"],
        ["cat; dog", "dog", "bird"],
        ["cat,dog", "cat", "dog"],
    ],
)
def test_several_labels_in_a_cell_are_multi_label(folder, labels):
    text = "".join(f'{number}.jpg,"{label}"\n' for number, label in enumerate(labels))
    message = refusal(folder, "path,label\n" + text)
    assert message.startswith(f"several labels in one cell, such as '{labels[0]}': multi-label, ")
    assert "which kerasft does not support" in message


@pytest.mark.parametrize(
    "labels", [["cat, big", "cat, small", "cat"], ["apple, red", "pear, red"], ["a|", "b|"]]
)
def test_names_of_classes_may_hold_commas(folder, labels):
    for number in range(len(labels)):
        (folder / f"{number}.jpg").touch()
    text = "".join(f'{number}.jpg,"{label}"\n' for number, label in enumerate(labels))
    assert [p.class_name for p in read(folder, "path,label\n" + text).photos] == labels


def test_columns_of_0_and_1_are_multi_label(folder):
    message = refusal(folder, "path,cat,dog,width\na.jpg,1,0,10\nc.jpg,1,1,10\n")
    assert message.startswith("no column label, but columns of 0 and 1 (cat, dog): multi-label, ")
    assert "if every photo has a 1 in some of them only, `data.columns=label=A,B,C`" in message


def test_a_photo_in_two_rows_with_two_labels_is_multi_label(folder):
    assert refusal(folder, "path,label\na.jpg,cat\na.jpg,dog\n").splitlines() == [
        "1 of its rows can't be used:",
        "  line 3: a.jpg has the label dog, and cat in line 2",
        "  Photos with several labels are multi-label, which kerasft does not support: its "
        "classifiers give each photo one label.",
    ]


def test_labels_that_are_numbers_and_mostly_differ_are_regression(folder):
    text = "".join(f"{number}.jpg,{number / 7:.3f}\n" for number in range(10))
    assert refusal(folder, "path,label\n" + text).startswith(
        "the labels are numbers that mostly differ, such as 0.000: regression, which kerasft does"
    )


@pytest.mark.parametrize("labels", [["1", "2", "3"], ["1.5", "2.5", "1.5", "2.5", "1.5", "3"]])
def test_numbers_may_be_the_names_of_classes(folder, labels):
    for number in range(len(labels)):
        (folder / f"{number}.jpg").touch()
    text = "".join(f"{number}.jpg,{label}\n" for number, label in enumerate(labels))
    assert [p.class_name for p in read(folder, "path,label\n" + text).photos] == labels


# Parquet


def parquet(folder, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), folder / "labels.parquet")
    return find_parquet(Data(source=folder / "labels.parquet"), silent)


def test_a_parquet_file_lists_what_the_csv_file_lists(folder):
    place = parquet(
        folder,
        path=["a.jpg", "sub/b.jpg", "c.jpg"],
        label=["cat", "dog", "cat"],
        split=["train", "train", "test"],
        group=[7, None, 8],
    )
    assert place.read().photos == [
        Photo("a.jpg", "cat", "train", "7"),
        Photo("sub/b.jpg", "dog", "train", ""),
        Photo("c.jpg", "cat", "test", "8"),
    ]


def test_labels_of_a_parquet_file_may_be_whole_numbers(folder):
    place = parquet(folder, path=["a.jpg", "c.jpg"], label=[3, 4])
    assert place.read().classes == {"": ("3", "4")}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.jpg"], "label": [["a", "b"]]}, "its labels are lists: multi-label"),
        ({"path": ["a.jpg"], "label": [{"x": 1}]}, "the column label holds struct<x: int64>"),
        ({"image": [{"bytes": b"x"}], "label": ["a"]}, "Expected text, the path of a file."),
        ({"path": [1], "label": ["a"]}, "the column path holds number. Expected text"),
        ({"path": ["a.jpg"], "cat": [1], "dog": [1]}, "columns of 0 and 1 (cat, dog)"),
        ({"path": ["a.jpg"], "label": [None]}, "row 1: has no label"),
        ({"path": ["a.jpg"], "label": [float("nan")]}, "row 1: has no label"),
        ({"path": ["x.jpg"], "label": ["a"]}, "row 1: x.jpg is missing"),
    ],
)
def test_a_parquet_file_for_another_task_is_refused(folder, columns, message):
    with pytest.raises(UserError) as error:
        parquet(folder, **columns).read()
    assert message in str(error.value)


def test_odd_names_survive(tmp_path):
    draw_photos(tmp_path / "photos", classes=["x", "y"], per_class=1)
    shutil.move(tmp_path / "photos/x/x-000.png", tmp_path / 'photos/"a", b\u202f.png')
    (tmp_path / "photos/labels.csv").write_text('path,label\n"""a"", b\u202f.png",x\n')
    listed = find_csv(Data(source=tmp_path / "photos/labels.csv"), silent).read()
    assert listed.photos == [Photo('"a", b\u202f.png', "x")]
