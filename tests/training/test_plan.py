"""What a config leaves open, settled before anything is trained."""

import logging

import numpy as np
import pytest
from drawing import draw_photos
from tiny_run import SECOND, small

from kerasft import cache
from kerasft.activations import engines, eviction, pace, segments
from kerasft.activations.keys import needs_at
from kerasft.config.load import append_phase, load_config, to_toml
from kerasft.data.scan import scan_source
from kerasft.errors import UserError
from kerasft.record import Device
from kerasft.training import plan
from kerasft.training.plan import plan_new, settle

CPU = Device("tensorflow", "cpu", "", 2)
pytestmark = pytest.mark.usefixtures("tiny_backbone", "own_cache")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("resolve") / "photos")


def resolved(photos, *sets, **flags):
    config = small(photos, *sets, **flags)
    return plan_new(config, scan_source(config.data, seed=0), CPU)


def why(photos, *sets, **flags):
    storing = resolved(photos, *sets, **flags)[0].phases[0].storing
    return storing.stored, storing.why, storing.passes


@pytest.mark.parametrize(
    ("sets", "views"),
    [
        ([], 4),
        (["augment.crop=0.0", "augment.color=0.5"], 4),
        (["augment.crop=0.0"], 2),
        (["augment.crop=0.0", "augment.flip=false"], 1),
        (["phases.0.blocks=all"], 0),  # nothing is frozen: a new one in every epoch costs nothing
    ],
)
def test_as_many_views_as_differ_at_most_four(photos, sets, views):
    assert resolved(photos, *sets, **{"augment.views": None})[0].views == views


def test_side_and_blocks_come_from_the_backbone(photos):
    config = small(photos, **{"model.image_size": None})
    config = append_phase(append_phase(config, flags={"phases.-1.epochs": 1}))
    planned, net = plan_new(config, scan_source(config.data, seed=0), CPU)
    assert planned.image_size == planned.config.model.image_size == 224
    assert [phase.blocks for phase in planned.phases] == [0, 1, 2]
    assert net.model.input_shape == (None, 224, 224, 3)


def test_a_store_pays_where_it_saves_passes(photos):
    # 24 training images and 6 of validation, 2 epochs: 2 x 24 + 6 with two views.
    assert why(photos) == (True, "54 images through the frozen part instead of 60", 54)
    assert why(photos, "augment.views=3") == (
        False,
        "78 images would go through the frozen part to fill the store, only 60 without one",
        60,
    )


def store_rows(photos, count=None, blocks=0, **settled):
    """Stores zeros for what the first phase needs at a cut, or for its first `count` rows."""
    planned, net = resolved(photos, "cache.mode=on", *(f"{k}={v}" for k, v in settled.items()))
    config = planned.config
    found = scan_source(config.data, seed=0)
    for need in needs_at(config, found, CPU, config.phases[0], net, blocks, "float16"):
        rows = need.rows[:count]
        with segments.writing(
            cache.cache_folder(), need.tensor, rows, need.shape, "float16"
        ) as writer:
            writer.append(np.zeros((len(rows), *need.shape), "float16"))
    return planned, net


def test_what_is_stored_already_costs_nothing(photos):
    store_rows(photos, **{"augment.views": 3})
    # With three views it would not pay if nothing were there, see above.
    assert why(photos, "augment.views=3") == (
        True,
        "0 images through the frozen part instead of 60; 78 are stored already",
        0,
    )
    assert why(photos, "augment.views=4")[1] == (  # of the fourth, the 24 are missing
        "24 images through the frozen part instead of 60; 78 are stored already"
    )
    assert why(photos, "augment.views=3", "augment.color=0.2")[1] == (  # other views, same photos
        "48 images through the frozen part instead of 60; 30 are stored already"
    )


def test_stores_of_weights_that_will_change_before_do_not_count(photos):
    store_rows(photos)
    config = append_phase(
        small(photos, "phases.0.blocks=1"),
        flags={"phases.-1.blocks": 0, "phases.-1.epochs": 2},
    )
    planned, _ = plan_new(config, scan_source(config.data, seed=0), CPU)
    assert planned.phases[1].storing.passes == 54  # the first phase trains the block below it


def test_stores_in_bfloat16_are_used_where_bfloat16_pays(photos, own_cache, monkeypatch):
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    planned, net = store_rows(photos, **{"cache.precision": "bfloat16"})
    key = pace._key_of_gain(planned.config, net.cut(0).prefix, 0)
    for difference, precision, lacking in ((0.1, "float32", 54), (0.01, "bfloat16", 0)):
        cache.remember(own_cache, key, {"speed": 2.0, "difference": difference})
        found = resolved(photos)[0]
        assert (found.precision, found.phases[0].storing.passes) == (precision, lacking)
    store_rows(photos, **{"cache.precision": "float32"})  # then that is taken
    assert resolved(photos)[0].precision == "float32"


def test_stores_in_float32_are_not_counted_where_bfloat16_is_chosen(photos, own_cache, monkeypatch):
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(pace, "WORTH_MEASURING", 30)
    planned, net = store_rows(photos, count=10, **{"cache.precision": "float32"})
    key = pace._key_of_gain(planned.config, net.cut(0).prefix, 0)
    cache.remember(own_cache, key, {"speed": 2.0, "difference": 0.01})
    found = resolved(photos)[0]
    # 20 of the 54 are there, but in float32.
    assert (found.precision, found.phases[0].storing.passes) == ("bfloat16", 54)
    assert found.phases[0].storing.why == "54 images through the frozen part instead of 60"


def test_what_is_asked_for_comes_before_what_pays(photos):
    assert why(photos, "augment.views=3", "cache.mode=on")[0]
    assert why(photos, "augment.views=3", "phases.0.stored=true")[0]
    assert why(photos, "cache.mode=off") == (False, "switched off", 60)
    assert why(photos, "cache.mode=on", "phases.0.stored=false") == (False, "switched off", 60)


def test_new_views_in_every_epoch_and_a_cut_at_the_pixels_store_nothing(photos):
    assert why(photos, "cache.mode=on", "augment.views=0") == (
        False,
        "augment.views = 0 makes a new view in every epoch",
        60,
    )
    assert why(photos, "cache.mode=on", "phases.0.blocks=all") == (False, "nothing is frozen", 0)


def test_without_room_a_store_is_left_out_or_refused_where_it_was_asked_for(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path))
    eviction.set_limit(tmp_path, 100)
    stored, reason, passes = why(photos)
    assert (stored, passes) == (False, 60)
    assert reason.startswith("432 bytes are needed, but the cache's limit is 100 bytes")
    with pytest.raises(UserError) as caught:
        why(photos, "cache.mode=on")
    assert str(caught.value).startswith(
        "Phase 'head': The activations cannot be stored: 432 bytes are needed, but "
    )


def test_the_reason_against_a_store_is_said(photos, caplog):
    with caplog.at_level(logging.INFO, logger="kerasft"):
        resolved(photos, "augment.views=0")
    assert caplog.messages == [
        "head: the activations are not stored: augment.views = 0 makes a new view in every epoch."
    ]


def test_a_settled_config_is_settled_the_same_again(photos, tmp_path):
    planned, net = resolved(photos)
    (tmp_path / "config.toml").write_text(to_toml(planned.config, tmp_path))
    again = load_config(tmp_path / "config.toml")
    assert again == planned.config
    assert settle(again, scan_source(again.data, seed=0), net, CPU) == planned


def test_a_new_phase_leaves_what_was_settled(photos):
    planned, net = resolved(photos, "cache.engine=keras")
    longer = append_phase(planned.config, flags={**SECOND, "phases.-1.epochs": 9})
    settled = settle(longer, scan_source(longer.data, seed=0), net, CPU, done=1)
    assert settled.config.cache == planned.config.cache
    assert settled.phases[0].storing is None
    assert settled.phases[1].storing.stored


def test_a_finished_phase_is_not_decided_again(photos, tmp_path, monkeypatch):
    planned, net = resolved(photos)
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path))
    eviction.set_limit(tmp_path, 100)  # too small for the head by now
    longer = append_phase(planned.config, flags=SECOND)
    settled = settle(longer, scan_source(longer.data, seed=0), net, CPU, done=1)
    assert [phase.stored for phase in settled.phases] == [True, False]
    assert settled.phases[1].storing.why.startswith(
        "27.6 kB are needed, but the cache's limit is 100 bytes"
    )


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (["augment.views=0"], "augment.views = 0 makes a new view in every epoch"),
        (["phases.0.blocks=3"], "nothing is frozen"),
    ],
)
def test_a_store_that_cannot_be_is_refused_where_the_phase_asks_for_it(photos, sets, why):
    with pytest.raises(UserError) as caught:
        resolved(photos, "phases.0.stored=true", *sets)
    assert str(caught.value) == f"phases[0].stored: expected false, since {why}; got true."
    assert caught.value.exit_code == 2


def test_the_folded_engine_is_refused_where_it_cannot_run(photos):
    config = small(photos, "cache.engine=folded")
    with pytest.raises(UserError) as caught:
        plan_new(config, scan_source(config.data, seed=0), Device("tensorflow", "gpu:0", "", 2))
    assert str(caught.value) == (
        "cache.engine: 'folded' needs Keras on TensorFlow and a CPU, got tensorflow on gpu:0. "
        "Leave it out, or use 'keras'."
    )


@pytest.mark.parametrize(("device", "engine"), [("cpu", "folded"), ("gpu:0", "keras")])
def test_a_run_that_moved_to_another_device_goes_on_with_an_engine_of_it(photos, device, engine):
    config = small(photos, "cache.engine=folded")
    assert plan.for_device(config, Device("tensorflow", device, "", 2)).cache.engine == engine


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_a_run_with_an_engine_that_runs_everywhere_stays_as_it_is(photos, engine):
    config = small(photos, f"cache.engine={engine}", "cache.batch=64")
    for device in ("cpu", "gpu:0"):
        assert plan.for_device(config, Device("tensorflow", device, "", 2)) is config


def test_a_run_of_an_older_version_goes_on_as_it_was_trained(photos):
    old = small(photos, **{"augment.views": None})
    config = plan.of_older_version(old)
    assert (config.augment.views, config.augment.mixup) == (0, 0.0)
    assert [phase.stored for phase in config.phases] == [False]
    assert [(phase.head_start, phase.wise) for phase in config.phases] == [("kept", False)]
    assert plan.of_older_version(config) is config


@pytest.mark.parametrize(
    ("speed", "difference", "taken"),
    [(1.8, 0.005, "bfloat16"), (1.1, 0.005, "float32"), (1.8, 0.1, "float32")],
)
def test_bfloat16_is_taken_where_it_is_faster_and_close(
    photos, tmp_path, monkeypatch, caplog, speed, difference, taken
):
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path))
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(pace, "WORTH_MEASURING", 10)
    measured = iter([pace.Gain(speed, difference)])
    monkeypatch.setattr(pace, "compare_precisions", lambda *_: next(measured))
    with caplog.at_level(logging.INFO, logger="kerasft"):
        planned, _ = resolved(photos)
    assert planned.precision == taken
    said = "taken" if taken == "bfloat16" else "not taken"
    assert caplog.messages == [
        f"bfloat16 for the frozen part: {speed:.1f} times as fast as float32, activations differ "
        f"by {100 * difference:.1f}%: {said}."
    ]
    assert resolved(photos)[0].precision == taken  # remembered, not measured again


def test_few_images_are_not_worth_measuring(photos, monkeypatch):
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    assert resolved(photos)[0].precision == "float32"


def test_the_compiled_engine_is_refused_where_there_is_no_jax(photos):
    with pytest.raises(UserError) as refused:
        resolved(photos, "cache.engine=compiled")
    assert str(refused.value) == (
        "cache.engine: 'compiled' needs Keras on JAX, got tensorflow. Leave it out, or use 'keras'."
    )
    assert (refused.value.field, refused.value.exit_code) == ("cache.engine", 2)
    # A run that a GPU began goes on here.
    config = small(photos, "cache.engine=compiled", "cache.batch=256")
    cpu = Device("tensorflow", "cpu", "", 2)
    carried = plan.for_device(config, cpu).cache
    assert (carried.engine, carried.batch) == ("keras", None)


@pytest.mark.parametrize(
    ("fits", "sets", "settled"),
    [(32, [], None), (256, [], 256), (8, [], 8), (256, ["cache.batch=64"], 64)],
)
def test_what_fits_a_gpu_is_written_down_where_it_is_not_the_usual_batch(
    photos, monkeypatch, fits, sets, settled
):
    compiled = pytest.importorskip("kerasft.activations.compiled", exc_type=ImportError)
    monkeypatch.setattr(compiled, "memory", lambda: 0)
    monkeypatch.setattr(compiled, "batch_for", lambda *_: fits)
    config = small(photos, "cache.engine=compiled", *sets)
    assert plan._settle_batch(config, None, 100).cache.batch == settled
    assert plan._settle_batch(small(photos), None, 100).cache.batch is None


def test_a_step_of_more_batches_than_an_epoch_has_is_refused(photos):
    resolved(photos, "phases.0.accumulate=3")  # 24 training images in batches of 8
    with pytest.raises(UserError) as caught:
        resolved(photos, "phases.0.accumulate=4")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "phases.0.accumulate: expected at most 3, the batches of an epoch: 24 training images in "
        "batches of 8; got 4. Lower it, or lower `phases.0.batch_size`."
    )


def test_an_appended_phase_is_refused_and_a_finished_one_is_left_alone(photos):
    planned, net = resolved(photos)
    found = scan_source(planned.config.data, seed=0)
    longer = append_phase(planned.config, flags={**SECOND, "phases.-1.accumulate": 4})
    with pytest.raises(UserError, match=r"^phases\.1\.accumulate: expected at most 3"):
        settle(longer, found, net, CPU, done=1)
    first = planned.config.phases[0].model_copy(update={"accumulate": 4})
    older = planned.config.model_copy(update={"phases": (first,)})  # before it was refused
    settle(append_phase(older, flags=SECOND), found, net, CPU, done=1)
