import pytest

from kerasft.config.source_names import KINDS, kind_of, short_name, tfds_name
from kerasft.errors import UserError
from kerasft.sources.find import SOURCES


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("photos", "folder"),
        ("/data/my.photos", "folder"),
        ("labels.csv", "csv"),
        ("LABELS.TSV", "csv"),
        ("labels.parquet", "parquet"),
        ("photos.zip", "archive"),
        ("photos.tar", "archive"),
        ("photos.tar.gz", "archive"),
        ("photos.tgz", "archive"),
        ("photos.gz", "folder"),
        ("tfds:mnist", "tfds"),
        ("tfds:photos.zip", "tfds"),
    ],
)
def test_the_name_says_what_kind_of_source_it_is(source, kind):
    assert kind_of(source) == kind


def test_a_folder_is_one_whatever_its_name_ends_in(tmp_path):
    (tmp_path / "photos.zip").mkdir()
    assert kind_of(str(tmp_path / "photos.zip")) == "folder"


def test_every_kind_of_source_has_the_function_that_opens_it():
    assert list(KINDS) == list(SOURCES)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("tfds:tf_flowers", "tf_flowers"),
        ("tfds:imagenette:160px", "imagenette/160px"),
        ("tfds:imagenette/160px", "imagenette/160px"),
        ("tfds:imagenette:160px:1.0.0", "imagenette/160px:1.0.0"),
        ("tfds:imagenette/160px:1.0.0", "imagenette/160px:1.0.0"),
        ("tfds:mnist:3.0.1", "mnist:3.0.1"),
        ("tfds:mnist:3.*.*", "mnist:3.*.*"),
        ("tfds:resized:8x8", "resized/8x8"),
        ("tfds:views:20.5", "views/20.5"),
    ],
)
def test_a_set_of_tfds_is_called_what_tfds_calls_it(source, name):
    assert tfds_name(source) == name


@pytest.mark.parametrize(
    "source", ["tfds:", "tfds:a b", "tfds:../a", "tfds:a/b/c", "tfds:a:", "tfds:a::1.0.0", "tfds:1"]
)
def test_what_is_no_name_of_tfds_is_a_mistake_in_typing(source):
    with pytest.raises(UserError, match="expected tfds:NAME, tfds:NAME:CONFIG or") as error:
        tfds_name(source)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/flowers", "flowers"),
        ("/data/my.flowers", "my.flowers"),
        ("/data/photos.zip", "photos"),
        ("/data/photos.tar.gz", "photos"),
        ("/data/labels.csv", "labels"),
        ("/data/.csv", ".csv"),
        ("/", "run"),
        ("tfds:imagenette:160px:1.0.0", "imagenette-160px"),
        ("tfds:mnist", "mnist"),
    ],
)
def test_a_run_is_named_after_its_photos(source, name):
    assert short_name(source) == name
