import importlib.util
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tfds_set import builder_class, drawn, write_set

from kerasft.config.fields import Data
from kerasft.data.files import examine
from kerasft.errors import UserError
from kerasft.progress import silent
from kerasft.sources.tfds import find_tfds
from kerasft.unpacked import clear, list_unpacked, photo_folder

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("importlib_resources")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of prepared sets."""
    folder = tmp_path_factory.mktemp("sets")
    write_set(folder, "MyShapes", {"train": 3, "validation": 1, "test": 2})
    write_set(folder, "OnlyTrain", {"train": 4})
    write_set(folder, "OddSplits", {"full": 2})
    return folder


def find(name, data_dir, **settings):
    return find_tfds(Data(source=f"tfds:{name}", data_dir=data_dir, **settings), silent)


def message_of(name, data_dir):
    with pytest.raises(UserError) as error:
        find(name, data_dir)
    assert list_unpacked(photo_folder()) == []
    return str(error.value)


def test_the_encoded_images_become_files_with_tfds_splits_and_ids(sets):
    place = find("my_shapes", sets)
    assert place.name == "tfds:my_shapes"
    listed = place.read()
    names = ("circle", "cross", "stripes")
    assert listed.classes == {"train": names, "validation": names, "test": names}
    assert len(listed.photos) == 18
    path, name, split, group = sorted(listed.photos)[0]
    assert path == "test/circle/my_shapes-test.tfrecord-00000-of-00001__0.png"
    assert (name, split, group) == ("circle", "test", "")
    for photo in listed.photos:
        assert examine(place.root / photo.path).reason == ""


def test_the_bytes_are_those_of_the_set_and_not_encoded_again(sets):
    place = find("my_shapes", sets)
    pixels = {
        Image.open(place.root / photo.path).tobytes()
        for photo in place.read().photos
        if photo.split == "validation"
    }
    assert pixels == {example["image"].tobytes() for example in drawn("validation", 1)}
    builder = tfds.builder("my_shapes", data_dir=str(sets))
    raw = builder.as_dataset(
        split="validation", decoders={"image": tfds.decode.SkipDecoding()}
    ).as_numpy_iterator()
    files = [p for p in place.read().photos if p.split == "validation"]
    assert {example["image"] for example in raw} == {
        (place.root / photo.path).read_bytes() for photo in files
    }


def test_a_second_time_nothing_is_read_and_a_cleared_cache_is_filled_alike(sets):
    place = find("my_shapes", sets)
    before = {p: (place.root / p.path).read_bytes() for p in place.read().photos}
    (place.root / "photos.csv").chmod(0o400)
    again = find("my_shapes", sets)
    assert again.root == place.root
    place.held.release()
    again.held.release()
    assert clear(photo_folder())[0] == 1
    anew = find("my_shapes", sets)
    assert {p: (anew.root / p.path).read_bytes() for p in anew.read().photos} == before


def test_another_set_of_the_same_name_is_another_one(sets, tmp_path):
    write_set(tmp_path / "sets", "MyShapes", {"train": 1})
    assert len(find("my_shapes", sets).read().photos) == 18
    assert len(find("my_shapes", tmp_path / "sets").read().photos) == 3


def test_the_version_may_be_named(sets):
    assert len(find("my_shapes:1.0.0", sets).read().photos) == 18


def test_a_set_with_training_images_only_leaves_the_splits_to_us(sets):
    assert list(find("only_train", sets).read().classes) == ["train"]
    assert list(find("odd_splits", sets).read().classes) == [""]


def test_the_folder_of_sets_may_come_from_the_environment(sets, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(sets))
    assert len(find("only_train", None).read().photos) == 12


def test_a_config_is_named_behind_the_name(tmp_path):
    cls = builder_class("WithConfigs", {"train": 1})
    cls.BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("small", "8x8")]
    cls(data_dir=str(tmp_path), config="8x8").download_and_prepare()
    assert "TFDS does not know this dataset" in message_of("with_configs:small", tmp_path)
    assert len(find("with_configs:8x8", tmp_path).read().photos) == 3


def test_a_set_that_is_not_prepared_yet_is_prepared(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    cls = builder_class("NotPrepared", {"train": 2})
    monkeypatch.setitem(tfds.core.registered._DATASET_REGISTRY, "not_prepared", cls)
    assert len(find("not_prepared", tmp_path / "sets").read().photos) == 6
    assert f"tfds:not_prepared: not in {tmp_path / 'sets'} yet; TFDS downloads" in caplog.text
    assert (tmp_path / "sets/not_prepared/1.0.0/dataset_info.json").is_file()


def test_a_download_that_fails_is_one_sentence_with_a_way_out(tmp_path, monkeypatch):
    cls = builder_class("NoNetwork", {"train": 2})

    def fail(*_):
        raise ConnectionError("Name or service not known\nand more")

    cls._split_generators = fail
    monkeypatch.setitem(tfds.core.registered._DATASET_REGISTRY, "no_network", cls)
    assert message_of("no_network", tmp_path / "sets") == (
        f"tfds:no_network: TFDS could not prepare it in {tmp_path / 'sets'}. If there is no "
        "network here, prepare it elsewhere, copy its folder, and pass `data.data_dir=DIR`. The "
        "reason: Name or service not known"
    )


def test_an_unknown_name_is_a_mistake_in_typing(tmp_path):
    with pytest.raises(UserError) as error:
        find("mnits", tmp_path)
    assert str(error.value) == (
        f"tfds:mnits: TFDS does not know this dataset, and it is not prepared in {tmp_path}. Did "
        "you mean 'mnist'? If it is prepared in another folder, pass `data.data_dir=DIR`."
    )
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": None}, "expected one Image and one ClassLabel, got image (Image)."),
        ({"image": None}, "expected one Image and one ClassLabel, got label (ClassLabel)."),
        (
            {"image": lambda: tfds.features.Image(shape=(40, 48, 1), dtype=np.float32)},
            "its images are of type float32. Expected uint8 or uint16.",
        ),
        (
            {"mask": lambda: tfds.features.Image(shape=(8, 8, 1))},
            "expected one Image and one ClassLabel, got image (Image), label (ClassLabel), mask",
        ),
    ],
)
def test_a_set_for_another_task_is_refused(tmp_path, features, message):
    made = {key: make and make() for key, make in features.items()}
    cls = builder_class("OtherTask", {"train": 1}, **made)
    if "float32" in message:
        examples = [(0, {"image": np.zeros((40, 48, 1), np.float32), "label": 0})]
        cls._generate_examples = lambda self, split: iter(examples)
    cls(data_dir=str(tmp_path)).download_and_prepare()
    assert message in message_of("other_task", tmp_path)


def test_several_labels_per_image_are_refused(tmp_path):
    several = tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b"]))
    cls = builder_class("SeveralLabels", {"train": 1}, label=several)
    examples = [(0, {"image": drawn("train", 1)[0]["image"], "label": ["a", "b"]})]
    cls._generate_examples = lambda self, split: iter(examples)
    cls(data_dir=str(tmp_path)).download_and_prepare()
    assert message_of("several_labels", tmp_path).endswith(
        "kerasft does not support several labels per image."
    )


def test_other_splits_are_left_out_and_images_without_a_label(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cls = builder_class("Unlabelled", {"train": 2, "extra": 1, "test": 1})
    made = cls._generate_examples

    def some_without(self, split):
        for number, example in made(self, split):
            yield number, example | ({"label": -1} if split == "test" else {})

    cls._generate_examples = some_without
    cls(data_dir=str(tmp_path)).download_and_prepare()
    assert list(find("unlabelled", tmp_path).read().classes) == ["train"]
    assert "tfds:unlabelled: left out its other splits: extra" in caplog.text
    assert "tfds:unlabelled: left out 3 images without a label" in caplog.text


def test_splits_of_which_none_is_training_are_named(tmp_path):
    write_set(tmp_path, "TwoVals", {"validation": 1, "val": 1, "train": 1})
    assert "has the splits train, val, validation. Expected train" in message_of(
        "two_vals", tmp_path
    )


def test_a_damaged_set_is_one_sentence(sets, tmp_path):
    shutil.copytree(sets / "only_train", tmp_path / "sets/only_train")
    (record,) = (tmp_path / "sets").rglob("*.tfrecord*")
    os.truncate(record, record.stat().st_size // 2)
    assert message_of("only_train", tmp_path / "sets").startswith(
        "tfds:only_train: TFDS can't read it: "
    )


def test_a_full_disk_is_known_before_it_is_full(sets, monkeypatch):
    monkeypatch.setattr("kerasft.sources.tfds.room", lambda: 1000)
    assert "can't be unpacked: the disk of" in message_of("my_shapes", sets)


def test_progress_is_told(sets):
    events = []
    find_tfds(Data(source="tfds:my_shapes", data_dir=sets), events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [
        ("unpack", number, 18) for number in range(1, 19)
    ]
    assert events[0].figures == {"what": "unpacking tfds:my_shapes"}


def test_without_tfds_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        find("mnist", tmp_path)
    assert str(error.value).endswith("Install them: pip install 'kerasft[tfds]'")
    assert error.value.exit_code == 2
