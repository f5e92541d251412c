"""Which stores a phase needs; that keys tell everything apart is in test_prefix_pass.py."""

from dataclasses import replace
from pathlib import Path

import pytest
from drawing import draw_photos
from tiny_run import small

from kerasft.activations.context import RunContext
from kerasft.activations.keys import _where, bytes_at, passes, store_specs_at, views_of
from kerasft.config.fields import Solved
from kerasft.data.scan import scan_source
from kerasft.progress import silent
from kerasft.record import Device
from kerasft.run import Run
from kerasft.training.plan import plan_new

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def context_and_net(tiny_backbone, tmp_path_factory):
    photos = draw_photos(tmp_path_factory.mktemp("needs") / "photos")
    config = small(photos, "augment.views=3", "cache.mode=on")
    found = scan_source(config.data, seed=0)
    plan, net = plan_new(config, found, "cpu")
    machine = Device("tensorflow", "cpu", "", 2)
    return RunContext(Run(photos), plan, found, silent, machine), net


def specs_of_head(context, net):
    return store_specs_at(context, context.config.phases[0], net, 0, "float16")


def test_a_solved_head_needs_the_plain_view_alone(context_and_net):
    context, net = context_and_net
    phase = Solved(name="svm", method="svm")
    needs = store_specs_at(context, phase, net, 0, "float16")
    of_trained = specs_of_head(context, net)
    assert [(n.split, n.view) for n in needs] == [("train", (0, 0)), ("validation", (0, 0))]
    assert [n.key.digest for n in needs] == [
        of_trained[0].key.digest,
        of_trained[-1].key.digest,
    ]
    assert passes(phase, 3, context.source) == 24 + 6


def test_the_first_view_is_plain_and_the_others_have_seeds_of_their_own(context_and_net):
    views = views_of(context_and_net[0].config.seed, 3)
    assert views[0] == (0, 0)
    assert [number for number, _ in views] == [0, 1, 2]
    assert len({seed for _, seed in views}) == 3


def test_a_cut_needs_a_store_for_each_view_and_one_for_validation(context_and_net):
    context, net = context_and_net
    needs = store_specs_at(context, context.config.phases[0], net, 1, "float16")
    assert [(n.split, n.view[0], n.shape) for n in needs] == [
        ("train", 0, (24, 8, 8, 4)),
        ("train", 1, (24, 8, 8, 4)),
        ("train", 2, (24, 8, 8, 4)),
        ("validation", 0, (6, 8, 8, 4)),
    ]
    assert [n.bytes for n in needs] == [12288, 12288, 12288, 3072]
    assert len({n.key.digest for n in needs}) == 4
    assert passes(context.config.phases[0], 3, context.source) == 3 * 24 + 6
    assert bytes_at(net.cut(1), 3 * 24 + 6, "auto") == sum(n.bytes for n in needs)


def test_keys_say_what_people_see_in_the_list_of_the_cache(context_and_net):
    plain, first, *_ = specs_of_head(*context_and_net)
    assert {k: plain.key.facts[k] for k in ("backbone", "blocks", "images", "view", "dtype")} == {
        "backbone": "Tiny",
        "blocks": 0,
        "images": 24,
        "view": "plain",
        "dtype": "float16",
    }
    assert first.key.facts["view"] == 1


@pytest.mark.parametrize(
    ("head", "blocks", "facts"),
    [
        ({}, 0, {"blocks": 0}),
        ({}, 2, {"blocks": 2}),
        ({"leave_out": 2}, 0, {"blocks": 0, "leave_out": 2}),
        ({"leave_out": 2}, 1, {"blocks": 3}),  # the tensor is the same, whatever lies above it
        ({"features": "flat"}, 0, {"blocks": 0, "features": "flat"}),
        ({"features": "flat"}, 1, {"blocks": 1}),
        ({"features": "fc6"}, 0, {"blocks": 0, "features": "fc6"}),
        ({"features": "fc6"}, 1, {"blocks": 1, "features": "fc6"}),
    ],
)
def test_a_key_tells_the_tensor_at_the_cut_and_leaves_defaults_out(head, blocks, facts):
    config = small(Path("photos"))
    config = config.model_copy(update={"head": config.head.model_copy(update=head)})
    assert _where(config, blocks) == facts


def test_a_plain_view_does_not_depend_on_how_the_others_are_made(context_and_net):
    context, net = context_and_net
    plain, first, *_ = specs_of_head(context, net)
    assert "augment" not in plain.key.facts
    assert first.key.facts["augment"][1:] == [True, 0.5, 0.0]


def test_validation_images_are_stored_once_whatever_share_of_the_others_is_used(context_and_net):
    context, net = context_and_net
    data = context.config.data.model_copy(update={"fraction": 0.5})
    half = replace(context, source=scan_source(data, seed=0))
    of_half, of_all = specs_of_head(half, net), specs_of_head(context, net)
    assert [need.shape for need in of_half] == [(12, 4), (12, 4), (12, 4), (6, 4)]
    assert [a.key == b.key for a, b in zip(of_half, of_all, strict=True)] == [False] * 3 + [True]
