"""Stored activations: equal to live ones, found again, never taken for others."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawing import draw_photos
from tiny_run import SECOND, small, train_head, weights, without_seconds

import kerasft
from kerasft.activations import eviction as stores_of_user
from kerasft.activations import keys, prefix_pass, segments
from kerasft.activations.context import RunContext
from kerasft.activations.keys import bytes_at, passes
from kerasft.activations.prefix_pass import activations_at
from kerasft.backbones.table import BACKBONES
from kerasft.config.load import append_phase, load_config
from kerasft.config.settled import Plan
from kerasft.data.scan import scan_source
from kerasft.errors import PhaseFailed, UserError
from kerasft.models.cut import split
from kerasft.models.net import Net
from kerasft.progress import silent
from kerasft.record import Device
from kerasft.run import Run
from kerasft.training.plan import plan_new
from kerasft.training.train import continue_run, train_run

pytestmark = pytest.mark.usefixtures("tiny_backbone")

CPU = Device("tensorflow", "cpu", "", 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def filled(tiny_backbone, drawn, tmp_path_factory):
    """RunContext, model and stores of one pass, which no test changes; and their folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASFT_CACHE", str(folder))
        context, model = setting_of(drawn)
        yield context, model, at_the_head(context, model), folder


@pytest.fixture
def known(filled, monkeypatch):
    """The folder of `filled` as the cache."""
    monkeypatch.setenv("KERASFT_CACHE", str(filled[3]))


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    return train_head(tmp_path_factory.mktemp("activations"))


def stores(folder):
    return sorted(path.name for path in folder.glob("*.npy"))


def setting_of(photos, *sets, **machine):
    config = small(photos, *sets)
    found = scan_source(config.data, seed=0)
    plan, net = plan_new(config, found, CPU)
    return RunContext(
        Run(photos), plan, found, silent, dataclasses.replace(CPU, **machine)
    ), net.model


def at_the_head(context, model):
    net = Net.of(model, "Tiny")
    return activations_at(context, 0, net, net.cut(0))


def found(context, model, dtype="float16"):
    net = Net.of(model, "Tiny")
    return prefix_pass.find(context, context.config.phases[0], net, 0, dtype)


def test_one_pass_stores_every_view_at_the_phases_cut_and_at_the_next(filled, known):
    context, model, stored, folder = filled
    assert [array.shape for array in stored.train] == [(24, 4), (24, 4)]
    assert (stored.validation.shape, stored.dtype, stored.found) == ((6, 4), "float16", False)
    assert len(stores(folder)) == 4  # two cuts, a plain view and the others
    head = context.config.phases[0]
    assert passes(head, 2, context.source) == 2 * 24 + 6
    cut = split(model, 0, BACKBONES["Tiny"])
    assert bytes_at(cut, 54, "auto") == stored.bytes == 54 * 4 * 2
    again = at_the_head(context, model)
    assert (again.found, again.part) == (True, None)
    np.testing.assert_array_equal(again.train[1], stored.train[1])


def test_what_is_stored_is_what_the_prefix_computes_of_the_same_pixels(filled):
    context, model, stored, _ = filled
    prefix = split(model, 0, BACKBONES["Tiny"]).prefix
    for array, name in ((stored.train[0], "train"), (stored.validation, "validation")):
        (pixels,) = context.batches(name)
        exact = prefix.predict_on_batch(np.asarray(pixels))
        np.testing.assert_allclose(array, exact, rtol=1e-3)  # float16 has 11 bits
    assert np.abs(np.float32(stored.train[1]) - np.float32(stored.train[0])).max() > 0.01


def test_the_same_and_what_does_not_touch_the_prefix_find_the_store(drawn, filled, known):
    assert found(*setting_of(drawn))
    assert found(*setting_of(drawn, "head.hidden=[8]", "head.dropout=0.0"))
    assert found(*setting_of(drawn, "phases.0.learning_rate=0.5", "augment.mixup=0.2"))


CHANGES = {
    "crop": (["augment.crop=0.4"], {}),
    "flip": (["augment.flip=false"], {}),
    "color": (["augment.color=0.1"], {}),
    "resize": (["data.resize=pad"], {}),
    "side": (["model.image_size=40"], {}),
    "engine": (["cache.engine=keras"], {}),
    "precision": (["cache.precision=bfloat16"], {}),
    "threads": ([], {"threads": 3}),
    "device": ([], {"device": "gpu:0"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_could_change_the_numbers_misses_the_store(change, drawn, filled, known):
    sets, machine = CHANGES[change]
    assert found(*setting_of(drawn, *sets, **machine)) is None


def test_the_dtype_is_a_part_of_the_key(filled, known):
    assert found(*filled[:2], dtype="float32") is None


class Counted:
    """Counts the images that passes compute."""

    def __init__(self):
        self.images = 0

    def __call__(self, event):
        if event.stage == "pass" and event.done == event.total:
            self.images += event.total


def counted(context):
    told = Counted()
    return dataclasses.replace(context, progress=told), told


def divided(context, seed):
    """Returns the run with the photos divided by another seed, which it has itself."""
    source = scan_source(context.config.data, seed=seed)
    config = context.config.model_copy(update={"seed": seed})
    return dataclasses.replace(context, plan=Plan.of(config), source=source)


def arrays(stored):
    return [np.asarray(one) for one in (*stored.train, stored.validation)]


def test_another_seed_computes_the_photos_that_no_run_has_seen_and_gives_the_same_bits(
    filled, cache, tmp_path, monkeypatch
):
    context, model, _, folder = filled
    shutil.copytree(folder, cache)
    other, told = counted(divided(context, 1))
    digests = context.source.digests
    seen, plain = set(), set()
    for one, split_names in ((context.source, seen), (other.source, plain)):
        split_names |= {digests[i] for name in ("train", "validation") for i in one.indices(name)}
    train = {digests[i] for i in other.source.indices("train")}
    before = {digests[i] for i in context.source.indices("train")}
    stored = at_the_head(other, model)
    # The plain view of photos that were in test, the other view of all that were not in training.
    assert told.images == len(plain - seen) + len(train - before)
    assert 0 < told.images < 30
    monkeypatch.setenv("KERASFT_CACHE", str(tmp_path / "empty"))
    for again, at_once in zip(arrays(stored), arrays(at_the_head(other, model)), strict=True):
        np.testing.assert_array_equal(again, at_once)


def test_a_share_of_the_photos_finds_all_that_it_needs(filled, known):
    context, model, stored, _ = filled
    data = context.config.data.model_copy(update={"fraction": 0.5})
    half = dataclasses.replace(context, source=scan_source(data, seed=0))
    rows = found(half, model).train[1]
    assert rows.shape == (12, 4)
    place = {
        photo: n
        for n, photo in enumerate(np.array(context.source.digests)[context.source.indices("train")])
    }
    wanted = [place[half.source.digests[i]] for i in half.source.indices("train")]
    np.testing.assert_array_equal(rows[:], stored.train[1][wanted])


def test_added_photos_are_computed_alone(drawn, filled, cache, tmp_path):
    shutil.copytree(filled[3], cache)
    photos = shutil.copytree(drawn, tmp_path / "photos")
    new = draw_photos(tmp_path / "new", per_class=2, seed=9)
    for name in ("circle", "cross", "stripes"):
        for path in (new / name).iterdir():
            shutil.copy(path, photos / name / f"new-{path.name}")
    context, model = setting_of(photos)
    context, told = counted(context)
    # The same photos stay in their splits, so what is missing is of new ones.
    at_the_head(context, model)
    assert 0 < told.images <= 6 * 2 + 2 * 3


def test_the_order_of_the_photos_and_their_places_count_for_nothing(drawn, filled, known, tmp_path):
    photos = tmp_path / "photos"
    for number, path in enumerate(sorted(drawn.glob("*/*"), reverse=True)):
        (photos / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, photos / path.parent.name / f"{number:03}{path.suffix}")
    context, model = setting_of(photos)
    stored = found(context, model)
    place = {
        photo: n
        for n, photo in enumerate(
            np.array(filled[0].source.digests)[filled[0].source.indices("train")]
        )
    }
    wanted = [place[context.source.digests[i]] for i in context.source.indices("train")]
    assert wanted != sorted(wanted)
    np.testing.assert_array_equal(np.asarray(stored.train[1]), filled[2].train[1][wanted])


def test_another_photo_misses_the_store(drawn, filled, known, tmp_path):
    photos = shutil.copytree(drawn, tmp_path / "photos")
    assert found(*setting_of(photos))  # the same files elsewhere
    other = draw_photos(tmp_path / "other", per_class=1, seed=9)
    for name in ("circle", "cross", "stripes"):
        shutil.copy(next((other / name).iterdir()), photos / name)
    assert found(*setting_of(photos)) is None


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_pass_goes_on_after_its_last_segment(drawn, filled, cache, monkeypatch):
    monkeypatch.setattr(prefix_pass, "PIECE", 32)  # a batch

    def interrupt(event):
        if event.stage == "pass" and event.done == 54:
            raise Interrupted

    context, model = setting_of(drawn)
    with pytest.raises(Interrupted):
        at_the_head(dataclasses.replace(context, progress=interrupt), model)
    assert len(stores(cache)) == 4  # the first 32 images of each tensor
    context, told = counted(context)
    stored = at_the_head(context, model)
    assert told.images == 54 - 32
    for resumed, at_once in zip(arrays(stored), arrays(filled[2]), strict=True):
        np.testing.assert_array_equal(resumed, at_once)


def test_many_small_segments_are_merged_at_the_end_of_a_pass(drawn, filled, cache, monkeypatch):
    monkeypatch.setattr(prefix_pass, "PIECE", 32)  # two pieces
    monkeypatch.setattr(segments, "MANY", 2)
    stored = at_the_head(*setting_of(drawn))
    assert len(stores(cache)) == 4  # one of each tensor
    for merged, at_once in zip(arrays(stored), arrays(filled[2]), strict=True):
        np.testing.assert_array_equal(merged, at_once)


def test_a_damaged_segment_is_said_and_computed_again(drawn, filled, cache, caplog):
    shutil.copytree(filled[3], cache)
    context, model = setting_of(drawn)
    path = next(
        path
        for path in cache.glob("*.npy")
        if json.loads(path.with_suffix(".json").read_text())["facts"]["blocks"] == 0
    )
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    context, told = counted(context)
    stored = at_the_head(context, model)
    assert f"{path} is damaged, so what it holds is computed again." in caplog.messages
    assert told.images in (24, 30)
    for again, whole in zip(arrays(stored), arrays(filled[2]), strict=True):
        np.testing.assert_array_equal(again, whole)


def test_a_damaged_segment_and_a_missing_photo_are_computed_in_one_run(
    drawn, filled, cache, tmp_path
):
    shutil.copytree(filled[3], cache)
    for path in cache.glob("*.npy"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    photos = shutil.copytree(drawn, tmp_path / "photos")
    other = draw_photos(tmp_path / "other", per_class=1, seed=9)
    for name in ("circle", "cross", "stripes"):
        shutil.copy(next((other / name).iterdir()), photos / name / "new.png")
    stored = at_the_head(*setting_of(photos))
    assert len(stored.train[0]) >= 24 and not stored.found


@pytest.mark.parametrize("shared", [0, 4])  # photos of each class that are among the others too
def test_a_cache_that_is_full_of_other_photos_makes_room_for_these(shared, drawn, cache, tmp_path):
    stores_of_user.set_limit(cache, 1000)  # bytes: 54 images take 432 and two headers
    at_the_head(*setting_of(drawn))
    assert found(*setting_of(drawn))
    others = draw_photos(tmp_path / "others", seed=9)
    for name in ("circle", "cross", "stripes"):
        for path in sorted((drawn / name).iterdir())[:shared]:
            shutil.copy(path, others / name)
    assert not at_the_head(*setting_of(others)).found
    assert found(*setting_of(others)) and found(*setting_of(drawn)) is None


def test_a_copy_that_the_run_does_not_use_is_not_read(drawn, cache):
    context, model = setting_of(drawn)
    source = context.source
    # A copy of a training photo in a split that is not used, and gone.
    digest = source.digests[int(source.indices("train")[0])]
    more = dataclasses.replace(
        source,
        paths=(*source.paths, "gone/copy.png"),
        labels=np.append(source.labels, 0).astype(source.labels.dtype),
        splits=np.append(source.splits, "unused"),
        digests=(*source.digests, digest),
        pixels=(*source.pixels, source.pixels[0]),
    )
    stored = at_the_head(dataclasses.replace(context, source=more), model)
    assert len(stored.train[0]) == 24


def test_stores_of_an_earlier_version_are_removed_with_a_sentence(drawn, cache, caplog):
    cache.mkdir()
    old = cache / f"{'0' * 32}.npy"
    np.save(old, np.zeros((3, 4), "float32"))
    old.with_suffix(".json").write_text('{"facts": {"view": 2, "images": 3}, "made": 0.0}')
    with caplog.at_level("INFO", logger="kerasft"):
        at_the_head(*setting_of(drawn))
    assert not old.exists() and not old.with_suffix(".json").exists()
    assert (
        "Removed 1 store of an earlier kerasft (176 bytes): activations are found by photo now."
    ) in caplog.messages


def test_other_weights_miss_the_store(drawn, filled, known):
    context, model = setting_of(drawn)
    kernel = model.get_layer("block_2_a_conv").kernel
    kernel.assign(kernel * 1.000001)  # the smallest change counts
    assert found(context, model) is None


@pytest.mark.parametrize("part", ["_versions", "NUMERICS"])
def test_another_version_of_a_library_or_of_the_numerics_misses(part, filled, known, monkeypatch):
    assert found(*filled[:2])
    monkeypatch.setattr(keys, part, {"_versions": lambda: ["99"], "NUMERICS": 99}[part])
    assert found(*filled[:2]) is None


def test_a_key_names_the_versions_of_what_computes_and_not_that_of_kerasft(filled):
    context, model = filled[:2]
    net, phase = Net.of(model, "Tiny"), context.config.phases[0]
    need = keys.needs_at(context.config, context.source, context.machine, phase, net, 0, "float16")[
        0
    ]
    assert need.tensor.facts["versions"] == [
        *("tensorflow", keras.__version__, tf.__version__, tf.__version__, np.__version__)
    ]
    assert kerasft.__version__ not in need.tensor.facts["versions"]


def test_values_that_float16_cannot_hold_are_stored_in_float32(drawn, cache):
    context, model = setting_of(drawn)
    norm = model.get_layer("block_2_a_norm")
    norm.gamma.assign(norm.gamma * 1e6)
    stored = at_the_head(context, model)
    assert (stored.dtype, float(np.max(stored.train[0])) > 65504) == ("float32", True)
    assert {np.load(path).dtype for path in cache.glob("*.npy")} == {np.dtype("float32")}
    assert at_the_head(context, model).found


def test_an_overflow_at_the_cut_of_the_next_phase_leaves_this_one_as_it_is(drawn, cache):
    context, model = setting_of(drawn)
    norm = model.get_layer("block_1_a_norm")  # huge in front of block 2, tamed by its norm
    norm.gamma.assign(norm.gamma * 1e6)
    after = model.get_layer("block_2_a_conv")
    after.kernel.assign(after.kernel * 1e-6)
    stored = at_the_head(context, model)
    assert stored.dtype == "float16"
    assert len(stores(cache)) == 2  # the phase's own


def test_a_photo_that_changed_since_the_scan_poisons_no_store(drawn, tmp_path, cache):
    photos = shutil.copytree(drawn, tmp_path / "photos")
    context, model = setting_of(photos)
    root, paths = context.source.root, context.source.paths
    place = int(context.source.indices("train")[0])
    root.joinpath(paths[place]).write_bytes(root.joinpath(paths[place - 1]).read_bytes())
    with pytest.raises(UserError) as caught:
        at_the_head(context, model)
    assert str(caught.value).startswith(
        f"{root / paths[place]}: a photo was removed or changed while it was in use: its bytes"
    )
    assert stores(cache) == []


def test_a_photo_that_went_away_is_one_sentence_and_leaves_no_store(drawn, tmp_path, cache):
    photos = shutil.copytree(drawn, tmp_path / "photos")
    context, model = setting_of(photos)
    context.source.root.joinpath(context.source.paths[3]).unlink()
    with pytest.raises(UserError) as caught:
        at_the_head(context, model)
    assert "a photo was removed or changed while it was in use" in str(caught.value)
    assert context.source.paths[3] in str(caught.value)
    assert stores(cache) == []


def test_a_float32_store_that_was_asked_for_is_not_taken_by_a_run_that_did_not_ask(
    drawn, filled, cache
):
    at_the_head(*setting_of(drawn, "cache.dtype=float32"))
    assert found(*filled[:2], dtype="float32") is None  # it would depend on what others ran


def test_values_that_do_not_fit_the_dtype_that_was_asked_for_are_refused(drawn, cache):
    context, model = setting_of(drawn, "cache.dtype=float16")
    norm = model.get_layer("block_2_a_norm")
    norm.gamma.assign(norm.gamma * 1e6)
    with pytest.raises(UserError) as caught:
        at_the_head(context, model)
    assert str(caught.value) == (
        "Phase 'head': the frozen part computes values that float16 cannot hold. "
        "Train this phase without a store: `phases.0.stored=false`."
    )
    assert stores(cache) == []


def test_weights_that_give_no_numbers_are_refused_and_leave_no_store(drawn, cache):
    context, model = setting_of(drawn)
    norm = model.get_layer("block_2_a_norm")
    norm.beta.assign(norm.beta + np.inf)
    with pytest.raises(UserError, match="Its weights are damaged, or do not belong to this net"):
        at_the_head(context, model)
    assert stores(cache) == []


def test_a_pass_that_was_interrupted_in_its_first_piece_leaves_no_store(drawn, cache):
    def interrupt(event):
        if event.stage == "pass":
            raise Interrupted

    context, model = setting_of(drawn)
    with pytest.raises(Interrupted):
        at_the_head(dataclasses.replace(context, progress=interrupt), model)
    assert [path.name for path in cache.iterdir() if path.suffix == ".npy"] == []
    assert not at_the_head(context, model).found


def test_stores_of_later_cuts_that_do_not_fit_are_left_out(drawn, cache, monkeypatch):
    context, model = setting_of(drawn)
    own = 54 * 4 * 2
    lack = stores_of_user.lack_of_room

    def small_disk(folder, needed, keep=()):
        return "the disk is small" if needed > own else lack(folder, needed, keep=keep)

    monkeypatch.setattr(stores_of_user, "lack_of_room", small_disk)
    assert not at_the_head(context, model).found
    assert len(stores(cache)) == 2
    monkeypatch.setattr(stores_of_user, "lack_of_room", lambda *_, **__: "the disk is full")
    stores_of_user.clear(cache)
    with pytest.raises(PhaseFailed) as caught:
        at_the_head(context, model)
    assert str(caught.value) == (
        "Phase 'head': The activations cannot be stored: the disk is full. Make room with "
        "`kerasft cache clear`. Train this phase without a store: `phases.0.stored=false`."
    )


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [[row[key] for key in ("loss", "val_loss")] for row in map(json.loads, lines)]


@pytest.mark.parametrize("views", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_stored_and_live_train_alike_with_the_same_seed(views, trained):
    runs = []
    for mode in ("on", "off"):
        runs.append(trained.folder / f"{mode}-{views}")
        sets = [f"augment.views={views}", f"cache.mode={mode}", "augment.mixup=0.4"]
        sets.append("phases.0.head_start=kept")  # a head is solved on stored features alone
        train_run(small(trained.photos, *sets), runs[-1])
        result = continue_run(runs[-1], flags=SECOND).to_json()
        stored = [bool(phase["activations"]) for phase in result["phases"]]
        assert stored == [mode == "on"] * 2
    # float16 at the cut rounds to 5e-4 of a value; twelve steps later the losses differ less.
    np.testing.assert_allclose(losses(runs[0]), losses(runs[1]), rtol=5e-4)


def test_a_warm_run_has_the_bits_of_a_cold_one(trained, cache):
    cold, warm = trained.folder / "cold", trained.folder / "warm"
    first = train_run(small(trained.photos), cold).to_json()
    second = train_run(small(trained.photos), warm).to_json()
    assert [r["phases"][0]["activations"]["found"] for r in (first, second)] == [False, True]
    assert without_seconds(first) == without_seconds(second)
    assert weights(cold) == weights(warm)
    assert (cold / "metrics.jsonl").read_bytes() == (warm / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def second(trained):
    """The run after its second phase, and what that returned."""
    run = trained.copy("second")
    return run, continue_run(run, flags=SECOND).to_json()


def test_unfreezing_finds_what_training_the_head_has_stored(second):
    _, result = second
    assert result["phases"][1]["activations"]["found"] is True
    assert [part["name"] for part in result["phases"][1]["parts"]] == ["epochs", "scoring"]


def test_a_run_whose_cache_was_cleared_goes_on_to_the_same_bits(trained, second, cache):
    whole, _ = second
    cleared = trained.copy("cleared")
    result = continue_run(cleared, flags=SECOND).to_json()
    assert result["phases"][1]["activations"]["found"] is False
    assert weights(whole) == weights(cleared)


def test_metrics_say_that_their_figures_come_from_a_store(trained):
    row = json.loads((trained.run / "metrics.jsonl").read_text().splitlines()[0])
    assert row["activations"] == "float16"
    assert trained.result["phases"][0]["gap"]["loss"] < 1e-3


def test_the_settled_config_says_what_was_chosen(trained):
    config = load_config(trained.run / "config.toml")
    assert dict(config.cache) == {
        "mode": "auto",
        "engine": "folded",
        "batch": None,  # the usual one
        "precision": "float32",
        "dtype": "auto",
    }
    assert (config.augment.views, config.phases[0].stored) == (2, True)
    longer = append_phase(config)
    assert longer.phases[1].stored is None


@pytest.mark.slow  # the same with the net Tiny: test_stored_and_live_train_alike_with_the_same_seed
def test_real_photos_and_a_real_net_train_alike_stored_and_live(assets, tmp_path, cache):
    for name in ("ants", "bees"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for path in sorted((assets / "datasets" / "ants_bees" / name).iterdir())[:16]:
            shutil.copy(path, tmp_path / "photos" / name)
    results = []
    for mode in ("on", "off"):
        sets = [f"cache.mode={mode}", "augment.views=2", "phases.0.epochs=3", "phases.0.blocks=2"]
        sets.append("phases.0.learning_rate=1e-5")  # a high one makes large of small differences
        flags = {"data.source": str(tmp_path / "photos"), "model.backbone": "MobileNet:alpha=0.25"}
        train_run(load_config(None, flags=flags, sets=sets), tmp_path / mode)
        results.append(losses(tmp_path / mode))
    # Two engines and float16 at the cut, three steps of Adam: 2e-3 of a loss.
    np.testing.assert_allclose(results[0], results[1], rtol=2e-3)
