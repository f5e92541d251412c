"""Copies of a picture, in whatever files, are one image: never on two sides of a split."""

import io
import shutil

import numpy as np
import pytest
from drawing import CLASSES, draw_photo, draw_photos, encode_png
from PIL import Image

from kerasft.config.fields import Data
from kerasft.data.scan import open_source, scan_source, write_classes, write_splits
from kerasft.errors import UserError
from kerasft.pixels import images


def encode(pixels, kind, **options):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return encoded.getvalue()


def exif(**tags):
    """EXIF data with an orientation, a description, or both."""
    found = Image.Exif()
    for number, name in ((0x0112, "orientation"), (0x010E, "text")):
        if name in tags:
            found[number] = tags[name]
    return found.tobytes()


def decoded(encoded):
    return images.decode_image(encoded).numpy()


def jpeg(pixels, **tags):
    return encode(pixels, "JPEG", quality=90, exif=exif(**tags))


# Two files of one picture, of different bytes.
PAIRS = {
    "png and bmp": lambda pixels: (encode_png(pixels), encode(pixels, "BMP")),
    "orientation 1 and none": lambda pixels: (
        encode(pixels, "JPEG", quality=90),
        jpeg(pixels, orientation=1),
    ),
    "exif texts": lambda pixels: (jpeg(pixels, text="spring"), jpeg(pixels, text="autumn")),
    "png saved from jpeg": lambda pixels: (
        jpeg(pixels),
        encode_png(decoded(jpeg(pixels))),
    ),
    "turned by exif and turned": lambda pixels: (
        jpeg(pixels, orientation=6),
        encode_png(np.ascontiguousarray(np.rot90(decoded(jpeg(pixels)), -1))),
    ),
    "equal files": lambda pixels: (encode_png(pixels), encode_png(pixels)),
}


def pair(kind, name, number):
    pixels = draw_photo(name, number, seed=3, size=(48, 40))
    one, two = PAIRS[kind](pixels)
    assert kind == "equal files" or one != two
    np.testing.assert_array_equal(decoded(one), decoded(two))
    return one, two


def scan(root, seed=0, **settings):
    return scan_source(Data(source=root, **settings), seed=seed)


def split_of(source):
    return dict(zip(source.paths, source.splits.tolist(), strict=True))


@pytest.fixture(params=PAIRS)
def twice(tmp_path, request):
    """A folder of 3 x 8 pictures, each of which lies there as two files."""
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            for copy, encoded in enumerate(pair(request.param, name, number)):
                (tmp_path / "photos" / name / f"{number}-{copy}.img").write_bytes(encoded)
    return tmp_path / "photos"


def test_copies_never_get_into_two_splits(twice):
    divisions = set()
    for seed in range(8):
        source = scan(twice, seed)
        split = split_of(source)
        for path in split:
            assert split[path] == split[path.replace("-0.img", "-1.img")]
        assert source.counts()["cross"] == {"train": 12, "validation": 2, "test": 2}
        divisions.add(tuple(source.splits))
    assert len(divisions) == 8


def test_a_fraction_takes_both_copies_or_none(twice):
    split = split_of(scan(twice, fraction=0.5))
    assert list(split.values()).count("unused") == 18
    assert all(split[path] == split[path.replace("-0.img", "-1.img")] for path in split)


def test_copies_with_two_labels_stay_in_training(twice, caplog):
    shutil.move(twice / "cross" / "0-1.img", twice / "circle" / "x.img")
    for seed in range(4):
        split = split_of(scan(twice, seed))
        assert split["cross/0-0.img"] == split["circle/x.img"] == "train"
    assert "1 image in two classes at once. Keep each in one:" in caplog.text


@pytest.fixture
def given(tmp_path):
    """Folders train, val and test of different pictures, ten of each class in train."""
    for seed, (split, number) in enumerate([("train", 10), ("val", 3), ("test", 3)]):
        draw_photos(tmp_path / split, per_class=number, seed=seed)
    return tmp_path


def put(given, kind, first, second):
    for path, encoded in zip((first, second), pair(kind, "cross", 99), strict=True):
        (given / path).write_bytes(encoded)


@pytest.mark.parametrize("kind", PAIRS)
def test_copies_leave_the_given_training_split(given, kind, caplog):
    before = split_of(scan(given))
    assert caplog.messages == []
    put(given, kind, "train/cross/copy.img", "test/cross/copy.img")
    source = scan(given)
    added = {"train/cross/copy.img": "unused", "test/cross/copy.img": "test"}
    assert split_of(source) == before | added
    assert caplog.messages == [
        f"{given}: 1 image in two splits at once, which would make the measured accuracy too high. "
        "Left out: 1 of train.\n  train/cross/copy.img and test/cross/copy.img"
    ]


def test_test_keeps_what_validation_has_too(given, caplog):
    put(given, "png and bmp", "val/cross/copy.img", "test/cross/copy.img")
    split = split_of(scan(given))
    assert (split["val/cross/copy.img"], split["test/cross/copy.img"]) == ("unused", "test")
    assert "Left out: 1 of validation." in caplog.text


def test_copies_in_a_column_of_splits_leave_training_too(given):
    put(given, "exif texts", "train/cross/a.img", "val/cross/b.img")
    (given / "val").rename(given / "validation")
    rows = [
        f"{path.relative_to(given)},{path.parent.name},{path.parts[-3]}"
        for path in sorted(given.rglob("*.*"))
    ]
    (given / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    split = split_of(scan(given / "table.csv"))
    assert (split["train/cross/a.img"], split["validation/cross/b.img"]) == ("unused", "validation")
    assert list(split.values()).count("unused") == 1


def test_the_drawn_validation_split_has_no_copy_of_the_given_test_split(given):
    shutil.rmtree(given / "val")
    put(given, "png and bmp", "train/cross/a.img", "test/cross/b.img")
    for seed in range(8):
        split = split_of(scan(given, seed))
        assert (split["train/cross/a.img"], split["test/cross/b.img"]) == ("unused", "test")


def test_a_training_split_that_is_mostly_copies_is_refused(given):
    shutil.rmtree(given / "test")
    shutil.copytree(given / "train", given / "test")
    with pytest.raises(UserError) as refused:
        scan(given)
    message = str(refused.value)
    assert message.startswith(f"{given}: 30 of the 30 images of train show the same picture as an")
    assert "\n  train/circle/circle-000.png and test/circle/circle-000.png\n" in message
    assert message.endswith("without splits (kerasft then keeps copies together).")


def test_the_run_keeps_the_digests_of_the_pixels(tmp_path, twice):
    source = scan(twice)
    write_splits(source, tmp_path / "splits.csv")
    write_classes(source, tmp_path / "classes.txt")
    opened = open_source(tmp_path / "splits.csv", tmp_path / "classes.txt", Data(source=twice))
    assert (opened.pixels, opened.digests) == (source.pixels, source.digests)
    assert len(set(source.pixels)) == 24 and {len(one) for one in source.pixels} == {32}
    assert opened.pictures() == source.pictures()
    header, row = (tmp_path / "splits.csv").read_text().splitlines()[:2]
    assert header == "path,label,split,digest,group,pixels,near"
    assert row.split(",")[5] == source.pixels[0]
