"""Classes are added, merged and dropped where the photos of the run are gone."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw_photos
from photo_files import message_of
from tiny_run import FLAGS, ONE_MORE, small, weights

from kerasft.answers import read_labels
from kerasft.config.load import load_config
from kerasft.data.scan import open_images
from kerasft.data.splits import read_rows
from kerasft.errors import UserError
from kerasft.evaluation.evaluate import evaluate_run
from kerasft.evaluation.predict import predict
from kerasft.export.export import _spread
from kerasft.heads import sums
from kerasft.metrics import Figures
from kerasft.models import bundle
from kerasft.models.net import Net
from kerasft.novelty import known
from kerasft.progress import silent
from kerasft.run import Run, read_record
from kerasft.training.train import continue_run, train_run
from kerasft.updating import from_sums
from kerasft.updating.asked import Asked
from kerasft.updating.update import plan_update, update_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_backbone):
    """Runs with one and with two phases, whose photos of three classes are gone, and new photos."""
    folder = tmp_path_factory.mktemp("gone")
    draw_photos(folder / "photos")
    train_run(small(folder / "photos"), folder / "head")
    weak = {"phases.0.head_start": "kept", "phases.0.epochs": 1}  # so that there is more to learn
    train_run(small(folder / "photos", **weak), folder / "tuned")
    tuned = continue_run(folder / "tuned", flags={**ONE_MORE, "phases.-1.learning_rate": 0.01})
    assert tuned.phases[1].improved
    draw_photos(folder / "new", ("circle", "zebra"), per_class=8, seed=1)
    draw_photos(folder / "zebras" / "in", ("zebra",), per_class=8, seed=1)
    (folder / "photos").rename(folder / "away")
    return folder


def gone(*added, **changes):
    return Asked(added=[str(place) for place in added], photos_gone=True, **changes)


@pytest.fixture(scope="module")
def longer(made):
    """A run with one more class, and what `update_run` returned."""
    done = update_run(made / "head", made / "longer", gone(made / "new"))
    return made / "longer", done


def scores(run, photo):
    (answer,) = predict(run, [photo], top=4)
    return {one.label: one.score for one in answer.labels}


def rows(run, classes):
    return read_rows(run / "splits.csv", classes)


def truth(made, run, tmp_path):
    """Evaluates a run on its test photos, which are back: figures from pixels."""
    for place in ("away", "new"):
        for photo in (made / place).rglob("*.*g"):
            folder = tmp_path / "all" / photo.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder / f"{place}-{photo.name}")
    return evaluate_run(run, data=tmp_path / "all", split="test")


def test_a_run_keeps_sums_of_its_training_photos_and_features_of_the_others(made):
    for name in ("head", "tuned"):
        kept = sums.load(made / name / "sums.npz")
        opened = bundle.load(made / name / "model.keras")
        net = Net.of(opened.model, "Tiny")
        width = net.features.shape[1]
        assert kept.sums.counts.tolist() == [8, 8, 8]
        assert kept.sums.means.shape == (3, width)
        assert kept.validation.shape == kept.test.shape == (6, width)
        head = net.cut(0).suffix
        logits = bundle.compute(head, [kept.test])
        told = np.array([label == said for label, said in read_labels(made / name / "test.csv")])
        labels = np.array([int(row[1]) for row in rows(made / name, 3) if row[2] == "test"])
        assert ((logits.argmax(axis=1) == labels) == told).all()
        labels = np.array([int(row[1]) for row in rows(made / name, 3) if row[2] == "validation"])
        held = Figures.of(bundle.compute(head, [kept.validation]), labels)
        assert held.loss == pytest.approx(read_record(Run(made / name)).validation.loss, abs=2e-3)


def test_a_class_is_added_and_the_figures_are_those_of_the_photos(made, longer, tmp_path):
    run, done = longer
    assert (run / "classes.txt").read_text() == "circle\ncross\nstripes\nzebra\n"
    changes = done.changes
    assert (changes.kept, changes.new, changes.gone, changes.dropped) == (36, 16, 0, 0)
    assert [(one.name, one.before, one.new) for one in changes.classes] == [
        ("circle", ("circle",), 8),
        ("cross", ("cross",), 0),
        ("stripes", ("stripes",), 0),
        ("zebra", (), 8),
    ]
    assert (done.effect.n, [one.name for one in done.effect.new_classes]) == (6, ["zebra"])
    record = read_record(Run(run))
    assert (record.phases[0].how.method, record.test.n, record.validation.n) == ("lda", 8, 8)
    found = truth(made, run, tmp_path)
    assert found.accuracy == record.test.accuracy
    assert found.loss == pytest.approx(record.test.loss, abs=2e-3)


def test_the_base_and_the_old_run_stay_as_they_were(made, longer):
    run, _ = longer
    head = ("logits/kernel", "logits/bias")
    old, new = (
        {path: digest for path, digest in weights(one) if not path.endswith(head)}
        for one in (made / "head", run)
    )
    assert old and old == new


def test_what_it_keeps_is_kept_on(made, longer):
    run, _ = longer
    kept = sums.load(run / "sums.npz")
    assert kept.sums.counts.tolist() == [14, 8, 8, 6]
    assert (len(kept.validation), len(kept.test)) == (8, 8)
    assert known.load(run / "known.keras") is None  # weights "none": nothing is pretrained
    again = update_run(run, made / "fewer", gone(drop=["cross"], rename={"zebra": "horse"}))
    assert (made / "fewer" / "classes.txt").read_text() == "circle\nstripes\nhorse\n"
    assert again.changes.gone_classes == ("cross",)
    assert (again.effect.n, again.effect.before <= again.effect.after) == (6, True)
    assert sums.load(made / "fewer" / "sums.npz").sums.counts.tolist() == [14, 8, 6]


def test_merged_classes_have_their_scores_summed_and_the_head_stays(made, tmp_path):
    merged = {"shape": ["cross", "circle"]}
    done = update_run(made / "tuned", tmp_path / "run", gone(merge=merged))
    photo = next((made / "new" / "circle").iterdir())
    before, after = scores(made / "tuned", photo), scores(tmp_path / "run", photo)
    assert after["shape"] == pytest.approx(before["circle"] + before["cross"], abs=1e-5)
    assert after["stripes"] == pytest.approx(before["stripes"], abs=1e-5)
    assert [phase.name for phase in done.run.phases] == ["head", "unfreeze"]
    again = update_run(
        tmp_path / "run", tmp_path / "all", gone(made / "new", merge={"any": ["shape", "zebra"]})
    )
    assert [one.name for one in again.changes.classes] == ["any", "stripes"]
    assert sums.load(tmp_path / "all" / "sums.npz").sums.class_of.tolist() == [0, 0, 1, 0]


def test_a_second_merge_sums_the_sums(made, longer, tmp_path):
    update_run(longer[0], tmp_path / "a", gone(merge={"x": ["circle", "zebra"]}))
    update_run(tmp_path / "a", tmp_path / "b", gone(merge={"y": ["x", "cross"]}))
    photo = next((made / "new" / "zebra").iterdir())
    first, second = scores(longer[0], photo), scores(tmp_path / "b", photo)
    total = first["circle"] + first["zebra"] + first["cross"]
    assert second["y"] == pytest.approx(total, abs=1e-5)


def test_a_rename_alone_needs_no_photo(made, tmp_path):
    done = update_run(made / "head", tmp_path / "run", gone(rename={"circle": "ring"}))
    assert (tmp_path / "run" / "classes.txt").read_text() == "ring\ncross\nstripes\n"
    assert weights(tmp_path / "run") == weights(made / "head")
    assert (tmp_path / "run" / "sums.npz").read_bytes() == (made / "head/sums.npz").read_bytes()
    assert done.effect.p == 1


def test_a_single_new_class_is_enough_and_known_photos_count_once(made, tmp_path, caplog):
    shutil.copytree(made / "new", tmp_path / "in")
    caplog.set_level("INFO")
    known_one = next((made / "away" / "circle").iterdir())
    shutil.copy(known_one, tmp_path / "in" / "circle" / f"again{known_one.suffix}")
    done = update_run(made / "head", tmp_path / "run", gone(tmp_path / "in"))
    assert done.changes.new == 16
    assert "1 of the new photos are photos of" in caplog.text
    alone = update_run(made / "head", tmp_path / "alone", gone(made / "zebras" / "in"))
    assert [one.name for one in alone.changes.classes if one.new] == ["zebra"]


def test_a_dry_run_says_what_would_change_and_writes_nothing(made, tmp_path):
    before = sorted(made.iterdir())
    plan, planned = plan_update(made / "head", gone(made / "new"))
    assert (plan.changes.new, plan.photos_gone, planned) == (16, True, None)
    assert sorted(made.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "x"}, "names all photos, and `photos_gone=True` says that there are none"),
        ({"divide": {"circle": "x"}}, "needs the photos of the class that is divided"),
        ({"drop": ["circle", "cross"]}, "One class would be left, stripes"),
        ({"rename": {"circle": "cross"}}, "would all be cross"),
        ({}, "Nothing has changed"),
    ],
)
def test_what_cannot_be_is_refused(made, tmp_path, changes, said):
    asked = gone(**changes)
    assert said in message_of(update_run, made / "head", tmp_path / "run", asked)
    assert not (tmp_path / "run").exists()


def test_a_run_that_kept_nothing_is_refused(made, tmp_path):
    shutil.copytree(made / "head", tmp_path / "old")
    (tmp_path / "old" / "sums.npz").unlink()
    with pytest.raises(UserError, match=r"has no sums\.npz, so nothing is known of photos"):
        update_run(tmp_path / "old", tmp_path / "run", gone(made / "new"))


def test_sums_of_another_model_are_refused(made, tmp_path):
    shutil.copytree(made / "head", tmp_path / "old")
    kept = sums.load(made / "head" / "sums.npz")
    narrow = sums.Sums(
        kept.sums.counts, kept.sums.means[:, :2], kept.sums.scatter[:2, :2], kept.sums.class_of
    )
    less = sums.Memory(narrow, kept.validation[:, :2], kept.test[:, :2])
    sums.save(less, tmp_path / "old" / "sums.npz")
    with pytest.raises(UserError, match="belongs to another run"):
        update_run(tmp_path / "old", tmp_path / "run", gone(made / "new"))
    assert not (tmp_path / "run").exists()


def test_sums_of_a_run_with_other_photos_are_refused(made, longer, tmp_path):
    shutil.copytree(longer[0], tmp_path / "old")
    kept = sums.load(longer[0] / "sums.npz")
    one_less = replace(kept.sums, counts=kept.sums.counts - [1, 0, 0, 0])
    sums.save(replace(kept, sums=one_less), tmp_path / "old" / "sums.npz")
    with pytest.raises(UserError, match="belongs to another run"):
        update_run(tmp_path / "old", tmp_path / "run", gone(drop=["cross"]))


def test_an_export_is_proven_on_the_photos_that_are_there(made, longer, caplog):
    run, names = Run(longer[0]), ("circle", "cross", "stripes", "zebra")
    found = open_images(run, names, data=None, some=True, progress=silent)
    held = found.indices("validation").tolist()
    there = [found.root / found.paths[i] for i in held if found.paths[i]]
    assert len(held) == 8
    assert sorted(path.parent.name for path in there) == ["circle", "zebra"]
    assert sorted(_spread(found, "validation", 64)) == sorted(there)
    assert "6 of the 8 validation photos are missing: the export is proven on" in caplog.text
    lost = replace(found, paths=("",) * len(found.paths))
    with pytest.raises(UserError, match=r"All validation photos of the run are missing.*`data="):
        _spread(lost, "validation", 64)
    with pytest.raises(UserError, match=r"34 of the 52 images|36 of the 52 images"):
        open_images(run, names, data=None, progress=silent)


def test_where_the_photos_have_no_place_any_more_the_way_on_is_named(made, tmp_path):
    with pytest.raises(UserError, match=r"is not there any more.*`photos_gone=True` goes on"):
        update_run(made / "head", tmp_path / "run", Asked(added=[str(made / "new")]))


def test_a_phase_that_reads_pixels_leaves_no_sums(made, tmp_path):
    shutil.copytree(made / "away", tmp_path / "photos")
    shutil.copytree(made / "head", tmp_path / "run")
    continue_run(
        tmp_path / "run", flags={**ONE_MORE, "phases.-1.stored": False}, data=tmp_path / "photos"
    )
    record = read_record(Run(tmp_path / "run"))
    assert (tmp_path / "run" / "sums.npz").exists() != record.phases[1].improved


def test_a_config_leads_to_it_again_once_the_photos_are_back(made, longer):
    config = load_config(longer[0] / "config.toml")
    assert [phase.method for phase in config.phases] == ["lda"]
    assert config.data.added == (str(made / "new"),)
    assert json.loads((longer[0] / "run.json").read_text())["status"] == "finished"
    assert FLAGS["model.backbone"] == config.model.backbone


def test_new_photos_of_groups_that_were_held_out_teach_nothing(tmp_path):
    draw_photos(tmp_path / "photos")
    draw_photos(tmp_path / "new", ("circle", "zebra"), per_class=4, seed=1)

    def table(folder, groups=()):
        lines = ["path,label,group"]
        for number, photo in enumerate(sorted((tmp_path / folder).rglob("*.*g"))):
            name = groups[number % len(groups)] if groups else f"g{number}"
            lines.append(f"{photo.relative_to(tmp_path / folder)},{photo.parent.name},{name}")
        (tmp_path / folder / "list.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / folder / "list.csv"

    train_run(small(table("photos")), tmp_path / "old")
    held = [row[4] for row in rows(tmp_path / "old", 3) if row[2] != "train"][:3]
    asked = gone(table("new", held))
    said = message_of(update_run, tmp_path / "old", tmp_path / "run", asked)
    assert "circle, zebra: no new photo can be for training, because all are in groups" in said
    assert not (tmp_path / "run").exists()


@pytest.fixture
def known_ones(made, tmp_path):
    """A place with the photos of "circle" that the run knows, as photos of "ring"."""
    shutil.copytree(made / "away" / "circle", tmp_path / "in" / "ring")
    return tmp_path / "in"


def test_a_new_class_of_photos_that_count_elsewhere_is_refused(made, known_ones, tmp_path, caplog):
    said = message_of(update_run, made / "head", tmp_path / "run", gone(known_ones))
    assert said.startswith("ring: no new photos for training are left.")
    assert "12 of them have another class than in" in caplog.text
    assert "ring/circle-000.png: circle, not ring" in caplog.text
    assert not (tmp_path / "run").exists()


def test_photos_of_a_class_that_is_left_out_can_be_given_again(made, known_ones, tmp_path):
    done = update_run(made / "head", tmp_path / "run", gone(known_ones, drop=["circle"]))
    assert (tmp_path / "run" / "classes.txt").read_text() == "cross\nstripes\nring\n"
    assert sum(done.changes.classes[2].images.values()) == 12
    assert sums.load(tmp_path / "run" / "sums.npz").sums.counts.tolist() == [8, 8, 8]


def test_what_the_base_was_trained_on_stays_in_training(made, known_ones, tmp_path):
    update_run(made / "tuned", tmp_path / "run", gone(known_ones, drop=["circle"]))
    before = {row[3]: row[2] for row in rows(made / "tuned", 3)}
    after = {row[3]: row[2] for row in rows(tmp_path / "run", 3)}
    assert after == {digest: before[digest] for digest in after}
    assert len(after) == 36


def test_another_update_is_not_taken_for_one_that_is_resumed(made, longer):
    again = update_run(made / "head", longer[0], gone(made / "new"), resume=True)
    assert again.run.to_json() == longer[1].run.to_json()
    with pytest.raises(UserError, match="is finished, with other photos or classes"):
        update_run(made / "head", longer[0], gone(drop=["cross"]), resume=True)


def test_a_directory_that_is_taken_is_refused_before_anything_is_computed(made, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    events = []
    with pytest.raises(UserError, match="is there already"):
        update_run(made / "head", tmp_path / "run", gone(made / "new"), progress=events.append)
    assert {event.stage for event in events} == {"images"}


def test_photos_that_are_still_there_are_pointed_out(made, tmp_path, caplog):
    shutil.copytree(made / "head", tmp_path / "head")
    shutil.copytree(made / "away" / "cross", tmp_path / "photos" / "cross")
    config = (tmp_path / "head" / "config.toml").read_text()
    assert 'source = "../photos"' in config
    plan_update(tmp_path / "head", gone(drop=["cross"]))
    assert "12 of the 36 photos of" in caplog.text
    caplog.clear()
    plan_update(made / "head", gone(drop=["cross"]))
    assert "still in" not in caplog.text


def test_a_new_class_like_an_old_one_but_for_case_is_pointed_out(made, tmp_path, caplog):
    shutil.copytree(made / "zebras" / "in" / "zebra", tmp_path / "in" / "Circle")
    plan_update(made / "head", gone(tmp_path / "in"))
    assert "'circle' and 'Circle'" in caplog.text


def test_a_plan_names_what_the_new_run_begins_with(made):
    plan, _ = plan_update(made / "tuned", gone(made / "new"))
    assert (plan.start, plan.phases) == (str(made / "tuned"), ("head",))
    plan, _ = plan_update(made / "tuned", gone(drop=["cross"]))
    assert (plan.start, plan.phases) == ("none", ("head", "unfreeze"))


def known_photos(n):
    features = np.eye(4, dtype=np.float16)[np.arange(n) % 4]
    return known.Known("layer", None, features, 0.5, 9)


def test_known_photos_follow_the_training_photos_or_go_with_a_warning(monkeypatch, caplog):
    stay = np.array([True, False, True, True, True])
    seen = from_sums._still_known(known_photos(5), stay)
    assert seen.features.argmax(axis=1).tolist() == [0, 2, 3, 0]
    more = from_sums._with_new(seen, np.array([[0, 3.0, 0, 4.0]]))
    np.testing.assert_allclose(more.features[4], [0, 0.6, 0, 0.8], atol=1e-3)
    assert from_sums._still_known(known_photos(3), np.ones(5, bool)).features.shape == (3, 4)
    assert not caplog.text
    assert from_sums._still_known(known_photos(3), stay) is None
    monkeypatch.setattr(from_sums, "MOST", 4)
    assert from_sums._with_new(seen, np.ones((1, 4))) is None
    assert caplog.text.count("The new run has no known.keras") == 2
