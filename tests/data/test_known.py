"""Photos that earlier runs know keep their splits; a run here is its splits.csv and config.toml."""

import json
import logging
import shutil
from collections import Counter

import numpy as np
import pytest
from drawing import draw_photos
from PIL import Image

from kerasft.config.fields import Data
from kerasft.config.load import load_config, to_toml
from kerasft.data.scan import scan_source, write_classes, write_splits
from kerasft.errors import UserError

SPLITS = ("train", "validation", "test")


@pytest.fixture
def photos(tmp_path):
    return draw_photos(tmp_path / "photos")


def scan(photos, weights="none", seed=0, **data):
    return scan_source(Data(source=str(photos), **data), seed=seed, weights=weights)


def past_run(folder, source, weights="none"):
    """Writes what a run leaves of its photos and weights; returns the path of its model."""
    folder.mkdir(parents=True)
    write_splits(source, folder / "splits.csv")
    write_classes(source, folder / "classes.txt")
    (folder / "run.json").write_text(json.dumps({"schema": 1}))
    flags = {"data.source": str(source.root), "model.weights": weights}
    (folder / "config.toml").write_text(to_toml(load_config(flags=flags), folder))
    return str(folder / "model.keras")


def sides(source):
    return dict(zip(source.digests, source.splits.tolist(), strict=True))


def sizes(source):
    return [len(source.indices(split)) for split in SPLITS]


def test_another_seed_keeps_the_splits_of_the_run_that_the_weights_come_from(
    photos, tmp_path, caplog
):
    before = scan(photos)
    weights = past_run(tmp_path / "first", before)
    assert sides(scan(photos, seed=1)) != sides(before)  # the control
    with caplog.at_level(logging.INFO, logger="kerasft"):
        source = scan(photos, weights, seed=1)
    assert sides(source) == sides(before)
    assert source.splits_from == tmp_path / "first"
    assert caplog.messages == [
        f"{photos}: 36 photos keep the split that they have in {tmp_path / 'first'}, whose "
        "weights are taken; 0 are new."
    ]


def test_none_splits_all_photos_anew(photos, tmp_path):
    weights = past_run(tmp_path / "first", scan(photos))
    source = scan(photos, weights, seed=1, splits_from="none")
    assert sides(source) == sides(scan(photos, seed=1))
    assert source.splits_from is None


def test_a_run_of_other_photos_changes_nothing(photos, tmp_path, caplog):
    others = draw_photos(tmp_path / "others", seed=5)
    weights = past_run(tmp_path / "first", scan(others))
    with caplog.at_level(logging.INFO, logger="kerasft"):
        source = scan(photos, weights, seed=1)
    assert sides(source) == sides(scan(photos, seed=1))
    assert (source.splits_from, caplog.messages) == (None, [])


def test_photos_that_the_run_was_only_judged_on_may_be_split_anew(photos, tmp_path):
    before = scan(photos)
    before.splits[before.splits == "train"] = "unused"
    weights = past_run(tmp_path / "first", before)
    assert scan(photos, weights, seed=1).splits_from is None


def test_the_run_may_be_named_whatever_the_weights(photos, tmp_path, caplog):
    before = scan(photos)
    past_run(tmp_path / "first", before)
    with caplog.at_level(logging.INFO, logger="kerasft"):
        source = scan(photos, seed=1, splits_from=str(tmp_path / "first"))
    assert sides(source) == sides(before)
    assert source.splits_from == tmp_path / "first"
    assert caplog.messages == [
        f"{photos}: 36 photos keep the split that they have in {tmp_path / 'first'}; 0 are new."
    ]


def test_a_chain_of_bases_keeps_what_each_was_trained_on_in_training(photos, tmp_path, caplog):
    first = scan(photos)
    weights = past_run(tmp_path / "first", first)
    # As a version that split by the seed alone may have made it: a photo of each class has changed
    # its side between training and validation, and one between training and test.
    second = scan(photos)
    for label in range(3):
        of_class = np.flatnonzero(first.labels == label)
        for split, place in (("validation", 0), ("test", 1)):
            trained = of_class[first.splits[of_class] == "train"][place]
            other = of_class[first.splits[of_class] == split][0]
            second.splits[[trained, other]] = split, "train"
    weights = past_run(tmp_path / "second", second, weights)
    with caplog.at_level(logging.INFO, logger="kerasft"):
        third = scan(photos, weights, seed=2)
    trained_on = (first.splits == "train") | (second.splits == "train")
    assert trained_on.sum() == 30  # 24 by each
    assert third.splits[trained_on].tolist() == ["train"] * 30
    assert third.splits[~trained_on].tolist() == second.splits[~trained_on].tolist()
    assert third.splits_from == tmp_path / "second"
    assert caplog.messages == [
        f"{photos}: 30 photos keep the split that they have in {tmp_path / 'second'}, whose "
        "weights are taken; 0 are new.",
        f"{photos}: 6 photos of validation or test in {tmp_path / 'second'} can't stay there: "
        "copies of a photo and photos of a group stay together, and what the weights were trained "
        "on stays in training.",
    ]
    # The recorded name gives the same splits again.
    again = scan(photos, weights, seed=3, splits_from=str(tmp_path / "second"))
    assert sides(again) == sides(third)


def test_the_nearest_run_that_knows_the_photos_counts(photos, tmp_path):
    first = scan(photos)
    weights = past_run(tmp_path / "first", first)
    others = draw_photos(tmp_path / "others", seed=5)
    weights = past_run(tmp_path / "second", scan(others), weights)
    source = scan(photos, weights, seed=1)
    assert (sides(source), source.splits_from) == (sides(first), tmp_path / "first")


def test_new_photos_fill_the_shares(photos, tmp_path, caplog):
    before = scan(photos)
    weights = past_run(tmp_path / "first", before)
    draw_photos(photos, per_class=20)  # the 12 are the same, 8 are new
    with caplog.at_level(logging.INFO, logger="kerasft"):
        source = scan(photos, weights, seed=1)
    after = sides(source)
    assert {digest: after[digest] for digest in before.digests} == sides(before)
    # 3 of 20 are 15%: each class had 8, 2 and 2.
    assert {tuple(numbers.values()) for numbers in source.counts().values()} == {(14, 3, 3)}
    assert caplog.messages[-1].endswith("whose weights are taken; 24 are new.")
    assert sides(scan(photos, weights, seed=2)) != after  # the seed draws among the new ones


def test_no_known_photo_moves_however_large_the_shares_are(photos, tmp_path):
    before = scan(photos)
    weights = past_run(tmp_path / "first", before)
    for shares in ({"validation": 0.4, "test": 0.3}, {"validation": 0.05, "test": 0.05}):
        assert sides(scan(photos, weights, seed=1, **shares)) == sides(before)
    draw_photos(photos, per_class=14)
    source = scan(photos, weights, seed=1, validation=0.4, test=0.2)
    # Of 14, 6 are wanted for validation: both new ones go there.
    assert {tuple(numbers.values()) for numbers in source.counts().values()} == {(8, 4, 2)}


def test_photos_that_the_run_left_out_are_new_to_it(photos, tmp_path, caplog):
    before = scan(photos, fraction=0.5)
    assert Counter(before.splits.tolist())["unused"] == 12
    weights = past_run(tmp_path / "first", before)
    with caplog.at_level(logging.INFO, logger="kerasft"):
        source = scan(photos, weights, seed=1)
    assert sizes(source) == [24, 6, 6]
    assert caplog.messages[-1].endswith("whose weights are taken; 12 are new.")
    # Validation and test have their shares already, so that new photos are for training.
    assert sides(source) == sides(scan(photos))


def test_a_photo_is_known_by_its_pixels_too(photos, tmp_path):
    before = scan(photos)
    weights = past_run(tmp_path / "first", before)
    for path in photos.rglob("*.png"):
        with Image.open(path) as image:
            image.convert("RGB").save(path.with_suffix(".bmp"))
        path.unlink()
    source = scan(photos, weights, seed=1)
    assert not set(source.digests) >= set(before.digests)
    by_pixels = dict(zip(before.pixels, before.splits.tolist(), strict=True))
    assert [by_pixels[one] for one in source.pixels] == source.splits.tolist()


def grouped(folder, groups):
    """Writes a table of the photos in a folder, with the group of some of them."""
    rows = [
        f"{path.relative_to(folder)},{path.parent.name},{groups.get(path.stem, '')}\n"
        for path in sorted(folder.rglob("*-*.*"))
    ]
    (folder / "photos.csv").write_text("path,label,group\n" + "".join(rows))
    return folder / "photos.csv"


def test_a_group_with_a_photo_of_training_is_for_training(photos, tmp_path, caplog):
    before = scan(photos)
    names = [path.rpartition("/")[2].partition(".")[0] for path in before.paths]
    trained, tested = (int(before.indices(split)[0]) for split in ("train", "test"))
    weights = past_run(tmp_path / "first", before)
    draw_photos(photos, per_class=13)
    groups = dict.fromkeys((names[trained], names[tested], "circle-012"), "together")
    source = scan(grouped(photos, groups), weights, seed=1)
    of_group = [i for i, group in enumerate(source.groups) if group == "together"]
    assert [source.splits[i] for i in of_group] == ["train"] * 3
    assert caplog.messages == [
        f"{photos / 'photos.csv'}: 1 photo of validation or test in {tmp_path / 'first'} can't "
        "stay there: copies of a photo and photos of a group stay together, and what the weights "
        "were trained on stays in training."
    ]


def test_a_new_photo_follows_its_copy_and_its_group(photos, tmp_path):
    before = scan(photos)
    tested = before.paths[before.indices("test")[0]]
    weights = past_run(tmp_path / "first", before)
    shutil.copy(photos / tested, photos / "circle" / "copy-1.png")
    source = scan(photos, weights, seed=1)
    assert source.splits[source.paths.index("circle/copy-1.png")] == "test"


def test_own_splits_of_the_source_and_a_run_exclude_each_other(photos, tmp_path):
    before = scan(photos)
    weights = past_run(tmp_path / "first", before)
    for path, split in zip(before.paths, before.splits.tolist(), strict=True):
        split = {"train": "validation", "validation": "train"}.get(split, split)
        (tmp_path / "own" / split / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / path, tmp_path / "own" / split / path)
    source = scan(tmp_path / "own", weights)
    assert (source.splits_from, sizes(source)) == (None, [6, 24, 6])
    assert sizes(scan(tmp_path / "own", weights, splits_from="none")) == [6, 24, 6]
    with pytest.raises(UserError) as refused:
        scan(tmp_path / "own", splits_from=str(tmp_path / "first"))
    assert refused.value.message == (
        f"{tmp_path / 'own'}: has splits of its own (train, validation, test), got those of "
        f"{tmp_path / 'first'} as well. Leave out `data.splits_from`, or pass the photos without "
        "splits."
    )
    assert (refused.value.field, refused.value.exit_code) == ("data.splits_from", 2)


def test_a_run_that_is_none_or_knows_nothing_is_refused(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    past_run(tmp_path / "others", scan(draw_photos(tmp_path / "drawn", seed=5)))
    past_run(tmp_path / "damaged", scan(photos))
    (tmp_path / "damaged" / "splits.csv").unlink()
    for name, said in (
        ("gone", f"{tmp_path / 'gone'}: no such directory."),
        ("empty", f"{tmp_path / 'empty'} is not a run: no run.json in it."),
        (
            "others",
            f"{tmp_path / 'others'} knows none of the 36 photos of {photos}. Expected a run of "
            "the same photos. Leave out `data.splits_from`, or name another run.",
        ),
        ("damaged", f"{tmp_path / 'damaged' / 'splits.csv'}: cannot be read: No such file or "),
    ):
        with pytest.raises(UserError) as refused:
            scan(photos, splits_from=str(tmp_path / name))
        assert refused.value.message.startswith(said)
        assert (refused.value.field, refused.value.exit_code) == ("data.splits_from", 2)


def test_classes_without_photos_for_a_split_are_refused_with_what_there_is(photos, tmp_path):
    before = scan(photos)
    weights = past_run(tmp_path / "first", before)
    known = sides(before)
    for split, path in zip(before.splits.tolist(), before.paths, strict=True):
        if (path.startswith("circle") and split == "test") or (
            path.startswith("cross") and split == "train"
        ):
            (photos / path).unlink()
    with pytest.raises(UserError) as refused:
        scan(photos, weights, seed=1)
    assert str(refused.value) == (
        f"{photos}: with the splits of {tmp_path / 'first'}, 2 of 3 classes are too small. "
        "Expected at least 3 images of each class, and some in each of training, validation, "
        "test:\n"
        "  circle: 8 for training, 2 for validation, 0 for test, 0 new\n"
        "  cross: 0 for training, 2 for validation, 2 for test, 0 new\n"
        "  Add photos that no run before has seen. `data.splits_from=none` splits all photos "
        "anew, but figures on photos that the weights were trained on flatter.\n"
        "  `data.small_classes=leave_out` leaves these classes out, "
        "`data.small_classes=train_only` takes all of their images for training."
    )
    apart = scan(photos, weights, seed=1, small_classes="train_only")  # cross has none for training
    assert {name: tuple(n.values()) for name, n in apart.counts().items()} == {
        "circle": (8, 2, 0),
        "stripes": (8, 2, 2),
    }
    # A new photo of each is enough.
    draw_photos(tmp_path / "more", per_class=13)
    for name in ("circle", "cross"):
        shutil.copy(tmp_path / "more" / name / f"{name}-012.png", photos / name)
    source = scan(photos, weights, seed=1)
    assert [tuple(numbers.values()) for numbers in source.counts().values()] == [
        (8, 2, 1),
        (1, 2, 2),
        (8, 2, 2),
    ]
    kept = {digest: split for digest, split in sides(source).items() if digest in known}
    assert kept == {digest: known[digest] for digest in kept}


def test_known_photos_for_testing_are_tested_even_without_a_share(photos, tmp_path):
    weights = past_run(tmp_path / "first", scan(photos))
    assert sizes(scan(photos, weights, seed=1, test=0.0)) == [24, 6, 6]


def test_a_class_that_is_new_to_the_run_is_split_as_usual(photos, tmp_path):
    weights = past_run(tmp_path / "first", scan(photos))
    draw_photos(tmp_path / "more", classes=("a", "b", "c", "dots"), per_class=12)
    shutil.copytree(tmp_path / "more" / "dots", photos / "dots")
    source = scan(photos, weights, seed=1)
    assert tuple(source.counts()["dots"].values()) == (8, 2, 2)
    assert np.unique(source.labels).tolist() == [0, 1, 2, 3]
