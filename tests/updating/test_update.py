"""A run follows its photos and classes: what is kept, what is trained, how both models compare."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from drawing import draw_photos
from photo_files import message_of
from tiny_run import FLAGS, ONE_MORE, presplit, weights

from kerasft.config.load import load_config
from kerasft.evaluation.predict import predict
from kerasft.run import Run, read_record
from kerasft.training.train import continue_run, train_run
from kerasft.updating.asked import Asked
from kerasft.updating.update import plan_update, update_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


def solved(photos):
    """Returns the config of a head that is solved."""
    flags = {key: value for key, value in FLAGS.items() if not key.startswith("phases")}
    lda = {"data.source": str(photos), "phases.0.method": "lda", "cache.mode": "on"}
    return load_config(None, flags={**flags, **lda})


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_backbone):
    """A folder with photos of three classes, and a run of a solved head on them."""
    folder = tmp_path_factory.mktemp("update")
    draw_photos(folder / "photos")
    train_run(solved(folder / "photos"), folder / "old")
    return folder


@pytest.fixture
def new(tmp_path):
    """New photos: of a class that is there and of one that is not."""
    return draw_photos(tmp_path / "new", ("circle", "zebra"), per_class=8, seed=1)


def splits(run):
    """Returns the split of each photo by its digest."""
    return {row["digest"]: row["split"] for row in rows(run)}


def rows(run):
    with (run / "splits.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digests(run):
    return [digest for _, digest in weights(run)]


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_new_photos_are_added_and_the_old_ones_keep_their_splits(made, new, tmp_path):
    before = files(made / "old")
    done = update_run(made / "old", tmp_path / "run", Asked(added=[str(new)]))
    assert files(made / "old") == before
    old, now = splits(made / "old"), splits(tmp_path / "run")
    assert {digest: now[digest] for digest in old} == old
    changes = done.changes
    assert (changes.kept, changes.new, changes.gone, changes.relabelled) == (36, 16, 0, 0)
    assert [(one.name, one.before, one.new) for one in changes.classes] == [
        ("circle", ("circle",), 8),
        ("cross", ("cross",), 0),
        ("stripes", ("stripes",), 0),
        ("zebra", (), 8),
    ]
    assert changes.classes[3].images == {"train": 6, "validation": 1, "test": 1}
    effect = done.effect
    assert effect.n == 6 and effect.relabelled == 0
    assert [(one.name, one.n) for one in effect.classes] == [
        ("circle", 2),
        ("cross", 2),
        ("stripes", 2),
    ]
    assert [(one.name, one.n) for one in effect.new_classes] == [("zebra", 1)]
    assert sum(one.after for one in effect.classes) == effect.after
    # What was stored for the old run is found: only new photos of training and validation, 13.
    record = read_record(Run(tmp_path / "run"))
    assert record.phases[0].how.method == "lda"
    # The new run comes again from its own config.
    config = load_config(tmp_path / "run" / "config.toml")
    train_run(config, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(tmp_path / "run")
    assert splits(tmp_path / "again") == now


def test_only_new_photos_go_through_the_net(made, new, tmp_path, caplog):
    asked = Asked(added=[str(new)])
    plan = plan_update(made / "old", asked)[1].to_json()
    # 13 of the 16 are for training and validation; those of the old run are stored.
    assert "33 are stored already" in plan["phases"][0]["why"] or plan["phases"][0]["passes"] <= 43


def test_a_rename_keeps_the_weights_and_all_figures_and_back_again_gives_the_same(made, tmp_path):
    there = Asked(rename={"circle": "zebra", "stripes": "circle"})
    done = update_run(made / "old", tmp_path / "there", there)
    assert digests(tmp_path / "there") == digests(made / "old")
    assert (tmp_path / "there" / "classes.txt").read_text() == "zebra\ncross\ncircle\n"
    assert splits(tmp_path / "there") == splits(made / "old")
    effect = done.effect
    assert (effect.n, effect.only_before, effect.only_after, effect.p) == (6, 0, 0, 1)
    photo = next((made / "photos" / "circle").iterdir())
    before, after = (predict(run, [photo], top=3) for run in (made / "old", tmp_path / "there"))
    names = {"circle": "zebra", "cross": "cross", "stripes": "circle"}
    assert [(names[k], s) for k, s in top(before)] == top(after)
    record, old = read_record(Run(tmp_path / "there")), read_record(Run(made / "old"))
    assert record.test.recall == {names[k]: v for k, v in old.test.recall.items()}
    again = update_run(made / "old", tmp_path / "there", there, resume=True)
    assert again.effect == effect
    back = Asked(rename={"zebra": "circle", "circle": "stripes"})
    update_run(tmp_path / "there", tmp_path / "back", back)
    for name in ("run.json", "test.csv", "classes.txt", "metrics.jsonl", "answers.npz"):
        assert (tmp_path / "back" / name).read_bytes() == (made / "old" / name).read_bytes(), name
    assert digests(tmp_path / "back") == digests(made / "old")
    # Trained again from its config, a renamed run gets the same weights.
    train_run(load_config(tmp_path / "there" / "config.toml"), tmp_path / "again")
    assert digests(tmp_path / "again") == digests(made / "old")


def top(answers):
    (answer,) = answers
    return [(one.label, one.score) for one in answer.labels]


def test_classes_are_merged_dropped_and_divided(made, tmp_path):
    asked = Asked(merge={"figure": ["circle", "cross"]})
    done = update_run(made / "old", tmp_path / "merged", asked)
    assert (tmp_path / "merged" / "classes.txt").read_text() == "figure\nstripes\n"
    assert [(one.name, one.n) for one in done.effect.classes] == [("figure", 4), ("stripes", 2)]
    done = update_run(made / "old", tmp_path / "dropped", Asked(drop=["cross"]))
    assert (done.changes.dropped, done.changes.gone_classes) == (12, ("cross",))
    assert done.effect.n == 4
    parts = tmp_path / "parts"
    known = {row["path"]: row["split"] for row in rows(made / "old")}
    stripes = sorted((made / "photos" / "stripes").iterdir())
    stripes.sort(key=lambda photo: known[f"stripes/{photo.name}"])  # half of each split
    for number, photo in enumerate(stripes):
        to = parts / ("wide" if number % 2 else "narrow") / photo.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, to)
    asked = Asked(divide={"stripes": str(parts)})
    done = update_run(made / "old", tmp_path / "divided", asked)
    assert (done.changes.kept, done.changes.dropped, done.changes.new) == (36, 0, 0)
    assert [one.name for one in done.changes.classes] == ["circle", "cross", "narrow", "wide"]
    assert done.effect.n == 4 and done.effect.relabelled == 2
    old = splits(made / "old")
    assert {digest: split for digest, split in splits(tmp_path / "divided").items()} == old


def test_photos_that_lie_in_another_class_now_are_counted_and_learned_there(made, tmp_path):
    moved = shutil.copytree(made / "photos", tmp_path / "photos")
    (moved / "circle" / "circle-000.png").rename(moved / "cross" / "was-a-circle.png")
    (moved / "circle" / "circle-001.jpg").unlink()
    found, plan = plan_update(made / "old", Asked(data=str(moved)))
    changes = found.changes
    assert (changes.kept, changes.gone, changes.relabelled, changes.new) == (35, 1, 1, 0)
    assert plan.to_json()["images"]["cross"]["train"] + 4 <= 13


def test_the_base_of_a_later_phase_that_improved_is_kept(made, tmp_path):
    run = tmp_path / "deeper"
    shutil.copytree(made / "old", run)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("../photos", str(made / "photos")))
    deeper = {**ONE_MORE, "phases.-1.learning_rate": 1e-2, "phases.-1.epochs": 3}
    result = continue_run(run, flags=deeper)
    assert result.phases[-1].improved  # the control
    done = update_run(run, tmp_path / "next", Asked(drop=["cross"]))
    assert Path(done.start) == run / "model.keras"
    assert done.phases == ("lda",)
    base = {one for one in digests(run)}
    assert len(base & set(digests(tmp_path / "next"))) >= len(base) - 2  # all but the head


def test_photos_with_splits_of_their_own_stay_on_their_side(made, new, tmp_path):
    divided = presplit(made / "photos", tmp_path / "divided", swap_test=False)
    train_run(solved(divided), tmp_path / "old")
    asked = Asked(added=[str(new)], merge={"circle": ["circle", "zebra"]})
    done = update_run(tmp_path / "old", tmp_path / "run", asked)
    assert done.changes.classes[0].images == {"train": 22, "validation": 3, "test": 3}
    assert done.effect.n == 9
    (divided / "test" / "circle" / "circle-000.png").rename(
        divided / "train" / "circle" / "circle-000.png"
    )
    assert message_of(update_run, tmp_path / "old", tmp_path / "next", asked) == (
        f"1 photo is in another split than in {tmp_path}/old:\n"
        "  divided/train/circle/circle-000.png (test, now train)\n"
        "  What a model was trained on proves nothing on test. Move them back."
    )


def test_what_cannot_be_done_is_refused_and_nothing_is_left(made, new, tmp_path):
    def refused(**asked):
        text = message_of(update_run, made / "old", tmp_path / "run", Asked(**asked))
        assert not (tmp_path / "run").exists()
        return text

    assert refused() == (
        f"Nothing has changed since {made}/old was made: 36 photos, with the same labels."
    )
    assert refused(rename={"circle": "cross"}).startswith("The classes can't be changed so:\n")
    assert refused(data=str(new)) == (
        f"data: {new} has none of the photos of {made}/old, which are to be kept. Pass all photos "
        "as they are now, or further ones as `added=SRC`."
    )
    two = tmp_path / "two"
    for name in ("circle", "stripes"):
        shutil.copytree(made / "photos" / name, two / name)
    assert refused(data=str(two)) == (
        "No photo is left of cross. If the run is to forget this class, pass `drop=cross`; if the "
        "photos are elsewhere, pass all places; if they are gone, `photos_gone=True` goes on with "
        "what the run has kept of them."
    )
    shutil.copytree(new / "zebra", new / "stripes")
    assert refused(divide={"stripes": str(new)}) == (
        f"{new} holds a folder or label stripes, the class that is divided. Give its photos there "
        "the name of a new class."
    )
    few = draw_photos(tmp_path / "few", ("yak",), per_class=2, seed=3)
    shutil.copytree(new / "circle", few / "circle")
    assert "yak" in refused(added=[str(few)])  # none would be left to test
    shutil.copytree(made / "old", tmp_path / "broken")
    record = json.loads((tmp_path / "broken" / "run.json").read_text())
    (tmp_path / "broken" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    text = message_of(update_run, tmp_path / "broken", tmp_path / "run", Asked(drop=["cross"]))
    assert text.startswith(f"{tmp_path}/broken was interrupted before it was finished.")


def test_an_update_that_was_interrupted_goes_on(made, tmp_path):
    asked = Asked(drop=["cross"])
    update_run(made / "old", tmp_path / "run", asked)
    first = digests(tmp_path / "run")
    again = update_run(made / "old", tmp_path / "run", asked, resume=True)
    assert digests(tmp_path / "run") == first and again.effect.n == 4
    text = message_of(update_run, made / "old", tmp_path / "run", asked)
    assert text.startswith(f"{tmp_path}/run already holds a run.")
