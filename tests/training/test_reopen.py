"""An existing run, opened again: what may differ from it, and what stays as it was."""

import pytest
from drawing import draw_photos
from tiny_run import SECOND, small, train_head

from kerasft.config.load import load_config
from kerasft.errors import UserError
from kerasft.progress import silent
from kerasft.run import open_run
from kerasft.training.reopen import config_of, next_phase
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("eagerly", "tiny_backbone")


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    return train_head(tmp_path_factory.mktemp("reopen"))


def test_the_next_phase_is_settled_and_nothing_is_written(trained):
    run = open_run(trained.copy("next"))
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    context, net = next_phase(run, flags=SECOND, sets=(), data=None, progress=silent)
    assert [phase.name for phase in context.config.phases] == ["head", "unfreeze"]
    assert (context.plan.phases[1].blocks, context.plan.phases[1].stored) == (1, True)
    assert net.model.output_shape == (None, 3)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_photos_that_are_elsewhere_now_change_nothing_else_of_the_config(trained, tmp_path):
    run = open_run(trained.run)
    recorded, now = config_of(run, None), config_of(run, tmp_path)
    assert (recorded.data.source, now.data.source) == (str(trained.photos), str(tmp_path))
    place = {"source": recorded.data.source}
    assert now.model_copy(update={"data": now.data.model_copy(update=place)}) == recorded


def test_an_auto_that_was_settled_meanwhile_does_not_contradict(trained):
    sets = ["cache.engine=auto", "cache.precision=auto", "phases.0.precision=auto"]
    assert (
        train_run(small(trained.photos, *sets), trained.run, resume=True).to_json()
        == trained.result
    )
    with pytest.raises(UserError, match=r"cache\.engine: the run has 'folded', got 'keras'"):
        train_run(small(trained.photos, "cache.engine=keras"), trained.run, resume=True)


def test_defaults_of_a_file_do_not_contradict_what_was_typed_at_the_start(trained, tmp_path):
    assert (
        train_run(small(trained.photos, seed=0), trained.run, resume=True).to_json()
        == trained.result
    )
    (tmp_path / "mine.toml").write_text("[model]\nbackbone = 'Tiny'\nweights = 'none'\n")
    loaded = load_config(
        tmp_path / "mine.toml", flags={"data.source": str(trained.photos), "phases.0.blocks": 0}
    )
    with pytest.raises(UserError) as caught:  # only what the default phase says itself
        train_run(loaded, trained.run, resume=True)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:-1]] == [
        "  phases.0.epochs"
    ]


class Interrupted(Exception):
    """Stands for Ctrl-C after the first epoch."""


def after_an_epoch(event):
    if event.stage == "epoch":
        raise Interrupted


def test_resuming_and_continuing_name_photos_that_were_moved_to_another_class(
    tiny_backbone, tmp_path, caplog
):
    photos = draw_photos(tmp_path / "photos")
    config, run = small(photos, "phases.0.epochs=2"), tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(config, run, progress=after_an_epoch)
    (photos / "circle" / "circle-003.jpg").rename(photos / "cross" / "circle-003.jpg")
    said = (
        f"{run}: 1 photo now lies in another class than when the run was made:\n"
        "  cross/circle-003.jpg (circle, now cross)\n"
        "  Trained by the old class, as before. For the present one, start a new run."
    )
    before = (run / "splits.csv").read_bytes()
    train_run(config, run, resume=True)
    assert caplog.messages.count(said) == 1
    continue_run(run, flags={**SECOND, "phases.-1.epochs": 1})
    assert caplog.messages.count(said) == 2
    assert (run / "splits.csv").read_bytes() == before
    train_run(config, tmp_path / "new")  # the control
    assert caplog.messages.count(said) == 2
