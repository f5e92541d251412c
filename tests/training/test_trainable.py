"""One function sets a phase up, for training, for the learning-rate finder and for the plan."""

import pytest
from tiny_run import SECOND, small, train_head

from kerasft.config.fields import Solved
from kerasft.errors import UserError
from kerasft.models.cut import freeze
from kerasft.models.live import LiveModel
from kerasft.training import trainable
from kerasft.training.find_lr import find_rate
from kerasft.training.train import continue_run, plan_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")
LIVE = {**SECOND, "phases.-1.stored": False, "phases.-1.epochs": 1}


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    return train_head(tmp_path_factory.mktemp("trainable"))


def test_a_change_where_a_phase_is_set_up_reaches_training_and_the_finder(trained, monkeypatch):
    made = []

    class Counted(LiveModel):
        def __init__(self, prefix, suffix, norm_mean):
            made.append(suffix)
            super().__init__(prefix, suffix, norm_mean)

    monkeypatch.setattr(trainable, "LiveModel", Counted)
    continue_run(trained.copy("fit"), flags=LIVE)
    assert len(made) == 1
    find_rate(trained.copy("find"), flags=LIVE, steps=20)
    assert len(made) == 2


def test_a_change_where_a_phase_is_set_up_reaches_the_plan(trained, monkeypatch):
    config = small(trained.photos, "phases.0.blocks=1")
    before = plan_run(config).to_json()["phases"][0]["trainable_parameters"]

    def release(cut, batch_norm):
        return freeze(cut, "train")

    monkeypatch.setattr(trainable, "freeze", release)
    after = plan_run(config).to_json()["phases"][0]["trainable_parameters"]
    assert after > before > 0  # the norms' scales and shifts


def test_a_solved_phase_takes_no_steps():
    with pytest.raises(UserError, match="is solved by 'svm': it takes no steps") as caught:
        trainable.trained(Solved(name="svm", method="svm"))
    assert caught.value.exit_code == 2
