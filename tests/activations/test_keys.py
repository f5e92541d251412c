"""Which stores a phase needs; that keys tell everything apart is in test_prefix_pass.py."""

from dataclasses import replace
from pathlib import Path

import pytest
from drawing import draw_photos
from tiny_run import small

from kerasft.activations.context import RunContext
from kerasft.activations.keys import _where, bytes_at, needs_at, passes, views_of
from kerasft.config.fields import Solved
from kerasft.config.settled import Plan
from kerasft.data.scan import scan_source
from kerasft.progress import silent
from kerasft.record import Device
from kerasft.run import Run
from kerasft.training.plan import plan_new

CPU = Device("tensorflow", "cpu", "", 2)
pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def context_and_net(tiny_backbone, tmp_path_factory):
    photos = draw_photos(tmp_path_factory.mktemp("needs") / "photos")
    config = small(photos, "augment.views=3", "cache.mode=on")
    found = scan_source(config.data, seed=0)
    plan, net = plan_new(config, found, CPU)
    machine = Device("tensorflow", "cpu", "", 2)
    return RunContext(Run(photos), plan, found, silent, machine), net


def needs_of_head(context, net):
    return needs_at(
        context.config, context.source, context.machine, context.config.phases[0], net, 0, "float16"
    )


def test_a_solved_head_needs_the_plain_view_alone(context_and_net):
    context, net = context_and_net
    phase = Solved(name="svm", method="svm")
    (need,) = needs_at(context.config, context.source, context.machine, phase, net, 0, "float16")
    assert need == needs_of_head(context, net)[0]
    assert {view for _, view in need.rows} == {0}
    assert passes(phase, 3, context.source) == 24 + 6


def test_the_first_view_is_plain_and_the_others_have_seeds_of_their_own():
    views = views_of(3)
    assert views[0] == (0, 0)
    assert [number for number, _ in views] == [0, 1, 2]
    assert len({seed for _, seed in views}) == 3
    assert views_of(2) == views[:2]  # however many there are


def test_a_cut_needs_the_plain_view_and_the_others_of_training(context_and_net):
    context, net = context_and_net
    plain, others = needs_at(
        context.config, context.source, context.machine, context.config.phases[0], net, 1, "float16"
    )
    digests, train, validation = (
        context.source.digests,
        context.source.indices("train"),
        context.source.indices("validation"),
    )
    assert plain.rows == tuple((digests[i], 0) for i in [*train, *validation])
    assert others.rows == tuple((digests[i], view) for i in train for view in (1, 2))
    assert plain.shape == others.shape == (8, 8, 4)
    assert (plain.bytes_of(30), others.bytes_of(48)) == (15360, 24576)
    assert plain.tensor.digest[:16] != others.tensor.digest[:16]
    assert passes(context.config.phases[0], 3, context.source) == 30 + 48
    assert bytes_at(net.cut(1), 78, "auto") == 15360 + 24576


def test_keys_say_what_people_see_in_the_list_of_the_cache(context_and_net):
    plain, others = needs_of_head(*context_and_net)
    assert {k: plain.tensor.facts[k] for k in ("backbone", "blocks", "dtype")} == {
        "backbone": "Tiny",
        "blocks": 0,
        "dtype": "float16",
    }
    assert "augment" not in plain.tensor.facts
    assert others.tensor.facts == {**plain.tensor.facts, "augment": [True, 0.5, 0.0]}


@pytest.mark.parametrize(
    ("head", "blocks", "facts"),
    [
        ({}, 0, {"blocks": 0}),
        ({}, 2, {"blocks": 2}),
        ({"leave_out": 2}, 0, {"blocks": 0, "leave_out": 2}),
        ({"leave_out": 2}, 1, {"blocks": 3}),  # the tensor is the same, whatever lies above it
        ({"features": "flat"}, 0, {"blocks": 0, "features": "flat"}),
        ({"features": "flat"}, 1, {"blocks": 1}),
        ({"features": "depths"}, 0, {"blocks": 0, "features": "depths"}),
        (
            {"features": "depths", "leave_out": 2},
            0,
            {"blocks": 0, "features": "depths", "leave_out": 2},
        ),
        ({"features": "fc6"}, 0, {"blocks": 0, "features": "fc6"}),
        ({"features": "fc6"}, 1, {"blocks": 1, "features": "fc6"}),
    ],
)
def test_a_key_tells_the_tensor_at_the_cut_and_leaves_defaults_out(head, blocks, facts):
    config = small(Path("photos"))
    config = config.model_copy(update={"head": config.head.model_copy(update=head)})
    assert _where(config, blocks) == facts


def test_no_key_depends_on_the_seed_or_on_which_photos_there_are(context_and_net):
    context, net = context_and_net
    data = context.config.data.model_copy(update={"fraction": 0.5})
    config = context.config.model_copy(update={"seed": 7})
    other = replace(context, plan=Plan.of(config), source=scan_source(data, seed=7))
    of_other, own = needs_of_head(other, net), needs_of_head(context, net)
    assert [need.tensor for need in of_other] == [need.tensor for need in own]
    assert [len(need.rows) for need in of_other] == [12 + 6, 2 * 12]
