"""`drift_run` on small runs: what counts, what is refused, and what the answer holds."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from drawing import draw_photos
from PIL import Image
from small_run import small_run

from kerasft.data.batches import image_batches
from kerasft.data.splits import read_rows
from kerasft.errors import UserError
from kerasft.evaluation.drift import _lacking, drift_run
from kerasft.evaluation.predict import predict
from kerasft.models import bundle
from kerasft.novelty import known
from kerasft.novelty.known import Known
from kerasft.novelty.shift import OfClass, Shift
from kerasft.novelty.two_sample import Outcome
from kerasft.results import plain
from kerasft.run import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 24 training photos that keeps their features, and 36 new photos in `fresh`."""
    run = Run(small_run(tmp_path_factory.mktemp("drift")))
    opened = bundle.load(run.model_path)
    pool = next(x for x in opened.model.layers if x.name.startswith("global_average_pooling2d"))
    same = keras.Input(pool.output.shape[1:], name="features")
    model = keras.Model(same, keras.layers.Identity(name="same")(same), name="known")
    kept = Known(pool.name, model)
    paths = [run.path.parent / "photos" / row[0] for row in training(run)]
    features = keras.Model(opened.model.inputs[0], pool.output)
    computed = bundle.compute(features, image_batches(paths, rule=opened.rule))
    known.save(known.complete(kept, computed, computed[:6]), run.known_path)
    draw_photos(run.path.parent / "fresh", seed=1)
    return run


def training(run):
    return [row for row in read_rows(run.splits_path, 3) if row[2] == "train"]


@pytest.fixture
def inbox(trained, tmp_path):
    """A folder of 12 new photos of each class, without names of classes."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for path in (trained.path.parent / "fresh").rglob("*.*"):
        shutil.copy(path, folder / path.name)
    return folder


def darken(folder, names="*"):
    for path in folder.glob(names):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        Image.fromarray(pixels // 3).save(path.with_suffix(".png"))
        if path.suffix != ".png":
            path.unlink()


def refused(run, inbox):
    with pytest.raises(UserError) as error:
        drift_run(run, inbox)
    return error.value


def test_new_photos_like_the_training_ones_have_not_shifted(trained, inbox):
    found = drift_run(trained.path, inbox)
    assert not found.shifted and found.overall.p > 0.01
    assert (found.n, found.tested, found.known) == (36, 36, 24)
    assert [one.label for one in found.classes] == ["circle", "cross", "stripes"]
    assert sum(one.new for one in found.classes) == 36
    assert sum(one.share for one in found.classes) == pytest.approx(1, abs=1e-3)
    assert [one.known for one in found.classes] == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert {one.file for one in found.photos} == {str(path) for path in inbox.iterdir()}
    witnesses = [one.witness for one in found.photos]
    assert witnesses == sorted(witnesses, reverse=True)
    assert (found.copies, found.errors, found.lacking) == ((), (), "")


def test_dark_photos_have_shifted_and_have_the_distances_of_predict(trained, inbox):
    darken(inbox)
    found = drift_run(trained.path, str(inbox))
    assert found.shifted and found.overall.p == 1 / 2000
    assert found.novel == sum(one.novel for one in found.photos) > 0
    said = {one.file: (one.distance, one.novel) for one in found.photos}
    for one in predict(trained.path, inbox):
        assert (one.distance, one.novel) == (
            pytest.approx(said[one.file][0], abs=1e-5),
            said[one.file][1],
        )
    answer = json.loads(json.dumps(plain(found)))
    assert answer["overall"] == {
        "statistic": found.overall.statistic,
        "p": 0.0005,
        "shifted": True,
    }
    assert (answer["level"], answer["permutations"], answer["seed"]) == (0.01, 1999, 0)


def test_the_same_photos_get_the_same_answer_whatever_their_names(trained, inbox):
    one = drift_run(trained.path, inbox)
    for number, path in enumerate(sorted(inbox.iterdir(), reverse=True)):
        path.rename(inbox / f"{number:03}{path.suffix}")
    other = drift_run(trained.path, inbox)
    assert one.overall.statistic == pytest.approx(other.overall.statistic, abs=1e-6)
    assert one.overall.p == pytest.approx(other.overall.p, abs=0.01)  # of last bits in batches


def test_copies_and_files_that_cannot_be_read_are_named_and_do_not_count(trained, inbox):
    before = drift_run(trained.path, inbox)
    photos, rows = trained.path.parent / "photos", training(trained)
    jpeg, png = (next(r[0] for r in rows if r[0].endswith(end)) for end in (".jpg", ".png"))
    shutil.copy(photos / jpeg, inbox / "of-training.jpg")
    with Image.open(photos / png) as image:
        image.save(inbox / "same-pixels.png", compress_level=1)
    assert (inbox / "same-pixels.png").read_bytes() != (photos / png).read_bytes()
    shutil.copy(inbox / "cross-002.png", inbox / "zz-again.png")
    (inbox / "broken.jpg").write_bytes(b"")
    found = drift_run(trained.path, inbox)
    assert found.copies == tuple(
        str(inbox / name) for name in ("of-training.jpg", "same-pixels.png", "zz-again.png")
    )
    assert [one.file for one in found.errors] == [str(inbox / "broken.jpg")]
    assert (found.n, found.overall) == (before.n, before.overall)


def test_few_photos_show_large_shifts_alone_and_the_answer_says_so(trained, inbox):
    for number, path in enumerate(sorted(inbox.iterdir())):
        if number % 3:
            path.unlink()
    assert drift_run(trained.path, inbox).lacking == (
        "With 12 photos, only a large shift is found; 30 or more show smaller ones, too."
    )


def test_a_folder_that_is_none_or_holds_no_photos_is_refused(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    missing, file, empty = (refused(trained.path, tmp_path / x) for x in ("no", "file", "empty"))
    assert (str(missing), missing.exit_code) == (
        f"{tmp_path / 'no'}: no such folder. Expected a folder of photos.",
        2,
    )
    assert (str(file), file.exit_code) == (
        f"{tmp_path / 'file'}: is a file. Expected a folder of photos.",
        2,
    )
    assert str(empty) == (
        f"{tmp_path / 'empty'}: no photo in it can be read. Expected images.\n"
        f"  {tmp_path / 'empty'}: holds no images"
    )


def test_the_training_photos_themselves_are_refused(trained, inbox):
    photos = trained.path.parent / "photos"
    for path in inbox.iterdir():
        path.unlink()
    for number, row in enumerate(training(trained)):
        shutil.copy(photos / row[0], inbox / f"{number}.png")
    (inbox / "broken.jpg").write_bytes(b"")
    assert str(refused(trained.path, inbox)) == (
        f"{inbox}: holds 0 new photos (24 copies are of training photos or of other new ones; "
        "1 file cannot be read). Expected at least 10, because fewer show nothing about the next "
        "ones."
    )


def test_a_folder_that_is_no_run_is_refused(trained, inbox):
    assert str(refused(inbox, inbox)) == f"{inbox} is not a run: no run.json in it."


def test_a_run_without_known_photos_is_refused_with_what_to_do(trained, inbox):
    run = Run(shutil.copytree(trained.path, trained.path.parent / "older"))
    run.known_path.unlink()
    assert str(refused(run.path, inbox)) == (
        f"{run.path}: keeps no features of its training photos (known.keras), which new photos are "
        f"compared with. Expected a run of a pretrained net. `calibrate_run('{run.path}')` adds "
        "them if the head alone was trained; if blocks were, train again."
    )


def test_known_photos_that_are_not_those_of_the_run_are_refused(trained, inbox):
    run = Run(shutil.copytree(trained.path, trained.path.parent / "edited"))
    kept = known.load(run.known_path)
    known.save(replace(kept, features=kept.features[:20]), run.known_path)
    assert str(refused(run.path, inbox)) == (
        f"{run.path}: splits.csv lists 24 training photos, but known.keras has features of 20. "
        "Expected 24; one of the files was changed since the run. Train again."
    )
    lines = run.splits_path.read_text("utf-8").splitlines(keepends=True)
    train = [line for line in lines if ",train," in line]
    rest = [line for line in lines if ",train," not in line]
    run.splits_path.write_text("".join([*rest, *train[:5]]), "utf-8", newline="")
    known.save(replace(kept, features=kept.features[:5]), run.known_path)
    assert str(refused(run.path, inbox)) == (
        f"{run.path}: was trained on 5 photos. Expected at least 10 to compare new ones with."
    )


def test_a_base_that_another_run_has_trained_is_warned_of(trained, inbox, caplog):
    run = Run(shutil.copytree(trained.path, trained.path.parent / "second"))
    config = run.config_path.read_text("utf-8")
    assert config.count('weights = "imagenet"') == 1
    earlier = trained.path / "model.keras"
    run.config_path.write_text(config.replace('"imagenet"', f'"{earlier.as_posix()}"'), "utf-8")
    drift_run(run.path, inbox)
    assert caplog.messages == [
        f"{run.path}: its base comes from {trained.path}. If that run has trained blocks on the "
        "same photos, new photos look shifted even if they are not."
    ]


def test_classes_that_are_left_out_of_the_tests_are_counted():
    tested = Outcome(0.0, 0.5, False)
    classes = tuple(OfClass(k, tested if k < 20 else None, None, 12 - k % 2, 40) for k in range(23))
    few = replace(classes[-1], new=1)
    shift = Shift(tested, None, tested, (*classes, few), *[np.zeros(1)] * 3, 60, 40)
    assert _lacking(60, shift) == (
        "The 20 classes with the most new photos were tested by themselves, 3 more were not."
    )
    assert _lacking(60, replace(shift, classes=classes[:20])) == ""
