"""Which stores a phase needs; that their keys tell everything apart is in test_activations.py."""

from dataclasses import replace

import pytest
from drawing import draw_photos
from tiny_run import small

from kerasft.activations.context import RunContext
from kerasft.activations.keys import bytes_at, passes, store_specs_at, views_of
from kerasft.backbones.table import BACKBONES
from kerasft.config.fields import Solved
from kerasft.data.scan import scan_source
from kerasft.models.cut import split
from kerasft.progress import silent
from kerasft.run import Run
from kerasft.training.plan import resolve_new

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def setting_and_model(tiny_backbone, tmp_path_factory):
    photos = draw_photos(tmp_path_factory.mktemp("needs") / "photos")
    config = small(photos, "augment.views=3", "cache.mode=on")
    found = scan_source(config.data, seed=0)
    config, model, _ = resolve_new(config, found, "cpu")
    machine = {"device": "cpu", "name": "", "threads": 2}
    return RunContext(Run(photos), config, found, silent, machine), model


def needs_of_head(context, model):
    return store_specs_at(context, context.config.phases[0], model, 0, "float16")


def test_a_solved_head_needs_the_plain_view_alone(setting_and_model):
    context, model = setting_and_model
    phase = Solved(name="svm", method="svm")
    needs = store_specs_at(context, phase, model, 0, "float16")
    of_trained = needs_of_head(context, model)
    assert [(n.split, n.view) for n in needs] == [("train", (0, 0)), ("validation", (0, 0))]
    assert [n.key.digest for n in needs] == [
        of_trained[0].key.digest,
        of_trained[-1].key.digest,
    ]
    assert passes(context.config, phase, context.source) == 24 + 6


def test_the_first_view_is_plain_and_the_others_have_seeds_of_their_own(setting_and_model):
    views = views_of(setting_and_model[0].config)
    assert views[0] == (0, 0)
    assert [number for number, _ in views] == [0, 1, 2]
    assert len({seed for _, seed in views}) == 3


def test_a_cut_needs_a_store_for_each_view_and_one_for_validation(setting_and_model):
    context, model = setting_and_model
    needs = store_specs_at(context, context.config.phases[0], model, 1, "float16")
    assert [(n.split, n.view[0], n.shape) for n in needs] == [
        ("train", 0, (24, 8, 8, 4)),
        ("train", 1, (24, 8, 8, 4)),
        ("train", 2, (24, 8, 8, 4)),
        ("validation", 0, (6, 8, 8, 4)),
    ]
    assert [n.bytes for n in needs] == [12288, 12288, 12288, 3072]
    assert len({n.key.digest for n in needs}) == 4
    assert passes(context.config, context.config.phases[0], context.source) == 3 * 24 + 6
    phase, cut = context.config.phases[0], split(model, 1, BACKBONES["Tiny"])
    assert bytes_at(context.config, phase, context.source, cut) == sum(n.bytes for n in needs)


def test_keys_say_what_people_see_in_the_list_of_the_cache(setting_and_model):
    plain, first, *_ = needs_of_head(*setting_and_model)
    assert {k: plain.key.facts[k] for k in ("backbone", "blocks", "images", "view", "dtype")} == {
        "backbone": "Tiny",
        "blocks": 0,
        "images": 24,
        "view": "plain",
        "dtype": "float16",
    }
    assert first.key.facts["view"] == 1


def test_a_plain_view_does_not_depend_on_how_the_others_are_made(setting_and_model):
    context, model = setting_and_model
    plain, first, *_ = needs_of_head(context, model)
    assert "augment" not in plain.key.facts
    assert first.key.facts["augment"][1:] == [True, 0.5, 0.0]


def test_validation_images_are_stored_once_whatever_share_of_the_others_is_used(setting_and_model):
    context, model = setting_and_model
    data = context.config.data.model_copy(update={"fraction": 0.5})
    half = replace(context, source=scan_source(data, seed=0))
    of_half, of_all = needs_of_head(half, model), needs_of_head(context, model)
    assert [need.shape for need in of_half] == [(12, 4), (12, 4), (12, 4), (6, 4)]
    assert [a.key == b.key for a, b in zip(of_half, of_all, strict=True)] == [False] * 3 + [True]
