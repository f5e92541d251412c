"""An interrupted run with a damaged checkpoint ends with the bits of an undisturbed one."""

import json
import shutil
import struct
import zipfile

import pytest
from drawing import draw_photos
from tiny_run import both_phases, weights

from kerasft.errors import UserError
from kerasft.models import bundle
from kerasft.training.train import train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def folder(tiny_backbone, tmp_path_factory):
    """Photos, a whole run, and what it was after its first epoch and after its last."""
    folder = tmp_path_factory.mktemp("damaged")
    photos, run = draw_photos(folder / "photos"), folder / "whole"
    moments = {("epoch", "head", 1): "first", ("epoch", "unfreeze", 2): "last"}

    def copy(event):
        if name := moments.get((event.stage, event.phase, event.done)):
            shutil.copytree(run, folder / name)

    train_run(both_phases(photos), run, progress=copy)
    return folder


def flip(path):
    """Changes a bit in the middle of the longest content of a zip file."""
    with zipfile.ZipFile(path) as archive:
        longest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    lengths = struct.unpack_from("<HH", content, longest.header_offset + 26)
    content[longest.header_offset + 30 + sum(lengths) + longest.compress_size // 2] ^= 1
    path.write_bytes(content)


def flip_all(*names):
    def damage(checkpoints):
        for name in names:
            flip(checkpoints / name)

    return damage


def remove(name):
    return lambda checkpoints: (checkpoints / name).unlink()


def say_another_loss(checkpoints):
    path = checkpoints / "state.json"
    facts = json.loads(path.read_text())
    facts["progress"]["best_loss"] += 0.5
    path.write_text(json.dumps(facts))


def break_the_list(checkpoints):
    (checkpoints / "state.json").write_text("{")


def damage_everything(checkpoints):
    flip_all("state-1.npz", "state-2.npz")(checkpoints)
    break_the_list(checkpoints)


BEFORE = "the checkpoint is damaged; phase 'unfreeze' goes on after epoch 1."
SAME = "the checkpoint is damaged; phase 'unfreeze' goes on after epoch 2."
ANEW = "the checkpoint is damaged; phase 'unfreeze' begins anew."
DAMAGES = {
    "the last state": ("last", flip_all("state-2.npz"), BEFORE),
    "the last state, lost": ("last", remove("state-2.npz"), BEFORE),
    "both states": ("last", flip_all("state-1.npz", "state-2.npz"), ANEW),
    "the weights that are best in both states": ("last", flip_all("best-1.npz"), ANEW),
    "the list of files": ("last", break_the_list, SAME),
    "a figure in the list": ("last", say_another_loss, SAME),
    "everything": ("last", damage_everything, ANEW),
    "the model it began with": (
        "last",
        flip_all("start.keras"),
        "start.keras is damaged, so model.keras is copied there again.",
    ),
    "the only state": (
        "first",
        flip_all("state-1.npz"),
        "the checkpoint is damaged; phase 'head' begins anew.",
    ),
}


FAST = ("the last state",)


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[] if what in FAST else pytest.mark.slow) for what in DAMAGES],
)
def test_a_damaged_checkpoint_is_said_and_the_run_ends_with_the_same_bits(what, folder, caplog):
    begun, damage, said = DAMAGES[what]
    run = folder / what.replace(" ", "-")
    shutil.copytree(folder / begun, run)
    damage(run / "checkpoints")
    resumed = train_run(both_phases(folder / "photos"), run, resume=True)
    ours = [one for one in caplog.records if one.name == "kerasft"]
    warnings = [one.getMessage() for one in ours if one.levelname == "WARNING"]
    assert [text.endswith(said) for text in warnings] == [True]
    whole = folder / "whole"
    for name in ("metrics.jsonl", "answers.npz", "config.toml"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert weights(run) == weights(whole)
    record = json.loads((whole / "run.json").read_text())
    assert resumed.to_json()["test"] == record["test"]
    assert not (run / "checkpoints").exists()


def test_a_damaged_start_whose_model_was_replaced_is_named(folder):
    """As if the process had ended between model.keras and run.json."""
    run = folder / "replaced"
    shutil.copytree(folder / "last", run)
    flip(run / "checkpoints" / "start.keras")
    later = bundle.load(run / "model.keras")
    later.model.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
    bundle.save(later, run / "model.keras")
    with pytest.raises(UserError, match=r"start\.keras: not a Keras model file"):
        train_run(both_phases(folder / "photos"), run, resume=True)
