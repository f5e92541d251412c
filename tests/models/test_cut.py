"""The cut, the freeze and its proof; facts 1 to 5 of Keras 3.15 on our own code."""

import keras
import numpy as np
import pytest
from tiny import TINY, batch, moved, tiny_model, weights_by_name

from kerasft.errors import PhaseFailed, UserError
from kerasft.input_rule import InputRule
from kerasft.models import bundle
from kerasft.models.bundle import Bundle
from kerasft.models.cut import fingerprint, freeze, may_change, prove_frozen, split, thaw
from kerasft.models.live import LiveModel


def fit(model, *, rate=0.1, epochs=2):
    model.compile(keras.optimizers.SGD(rate), keras.losses.CategoricalCrossentropy(True))
    pixels, labels = batch()
    model.fit(pixels, labels, batch_size=4, epochs=epochs, verbose=0)


def train_from(model, blocks, *, batch_norm="frozen", rate=0.1):
    cut = split(model, blocks, TINY)
    freeze(cut, batch_norm)
    fit(LiveModel(cut.prefix, cut.suffix), rate=rate)
    return cut


def test_the_two_halves_compute_what_the_whole_computes():
    model = tiny_model()
    logits = keras.Model(model.inputs, model.get_layer("logits").output)
    pixels, _ = batch()
    expected = logits.predict(pixels, verbose=0)
    for blocks in (0, 1, 2):
        cut = split(model, blocks, TINY)
        halves = cut.suffix.predict(cut.prefix.predict(pixels, verbose=0), verbose=0)
        np.testing.assert_allclose(halves, expected, atol=1e-6)  # float32, another graph


def test_a_cut_at_the_pixels_has_no_prefix():
    for blocks in ("all", 3):
        cut = split(tiny_model(), blocks, TINY)
        assert cut.prefix is None
        assert [block.name for block in cut.blocks] == ["block_2", "block_1", "stem"]


@pytest.mark.parametrize("blocks", [4, -1])
def test_more_blocks_than_there_are_or_fewer_than_none_are_refused(blocks):
    with pytest.raises(UserError) as caught:
        split(tiny_model(), blocks, TINY)
    assert str(caught.value) == (
        f"blocks: Tiny has 3 blocks, got {blocks}. Take 0 to 3; `kerasft blocks Tiny` lists them."
    )
    assert caught.value.exit_code == 2


def test_a_split_model_can_be_split_again():
    model = tiny_model()
    split(model, 0, TINY)
    assert [b.name for b in split(model, 2, TINY).blocks] == ["block_2", "block_1"]


def test_the_head_alone_moves_when_no_block_is_unfrozen():
    model = tiny_model()
    before = weights_by_name(model)
    train_from(model, 0)
    assert moved(before, model) == ["logits/kernel", "logits/bias"]


def test_a_frozen_norm_of_the_suffix_keeps_statistics_gamma_and_beta():  # fact 2
    model = tiny_model()
    before = weights_by_name(model)
    train_from(model, 1)
    assert moved(before, model) == [
        "block_2_a_conv/kernel",
        "block_2_a_conv/bias",
        "logits/kernel",
        "logits/bias",
    ]


def test_batch_norm_train_releases_the_norms_of_the_suffix_only():
    model = tiny_model()
    before = weights_by_name(model)
    assert freeze(split(model, 1, TINY), "train") == ["block_2_a_norm"]
    train_from(model, 1, batch_norm="train")
    assert moved(before, model) == [
        "block_2_a_conv/kernel",
        "block_2_a_conv/bias",
        "block_2_a_norm/gamma",
        "block_2_a_norm/beta",
        "block_2_a_norm/moving_mean",
        "block_2_a_norm/moving_variance",
        "logits/kernel",
        "logits/bias",
    ]


def test_statistics_of_released_norms_follow_within_a_few_dozen_steps():
    model = tiny_model()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.999  # as MobileNets have it
    train_from(model, 1, batch_norm="train", rate=1e-6)  # 8 steps; the weights hardly move
    norm = model.get_layer("block_2_a_norm")
    # 1 - 0.9 ** 8 of the way from where it began; with 0.999 it would be 0.008.
    seen = keras.Model(model.inputs[0], norm.input)(batch()[0])
    way = (np.asarray(norm.moving_mean) / np.asarray(seen).mean((0, 1, 2))).mean()
    assert way == pytest.approx(0.57, abs=0.1)
    assert model.get_layer("block_1_a_norm").momentum == 0.999


def test_a_released_norm_keeps_a_momentum_that_is_lower():
    model = tiny_model()
    model.get_layer("block_2_a_norm").momentum = 0.5
    freeze(split(model, 1, TINY), "train")
    assert model.get_layer("block_2_a_norm").momentum == 0.5


def test_fit_moves_statistics_despite_training_false_in_a_functional_model():  # fact 1, control
    base = keras.Sequential(
        [keras.layers.Conv2D(4, 3, name="c"), keras.layers.BatchNormalization(name="n")]
    )
    pixels = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(pixels, training=False))
    model = keras.Model(pixels, keras.layers.Dense(2)(pooled))
    fit(model, rate=0.0)
    assert np.abs(base.get_layer("n").moving_mean.numpy()).max() > 0.1


def test_the_live_prefix_keeps_its_statistics_even_if_its_norms_are_thawed():  # fact 1
    model = tiny_model()
    cut = split(model, 1, TINY)
    freeze(cut, "frozen")
    norm = model.get_layer("stem_norm")
    norm.trainable = True  # training=False alone must hold
    fit(LiveModel(cut.prefix, cut.suffix))
    np.testing.assert_array_equal(norm.moving_mean, [0.0, 0.0, 0.0, 0.0])


def test_an_outer_thaw_reaches_every_norm_and_freeze_stops_it_again():  # fact 3
    model = tiny_model()
    model.trainable = False
    model.trainable = True
    assert model.get_layer("block_2_a_norm").trainable
    cut = split(model, 1, TINY)
    freeze(cut, "frozen")
    assert not model.get_layer("block_2_a_norm").trainable


def test_an_outer_freeze_hides_an_inner_thaw_and_freeze_does_not_fall_for_it():  # fact 3
    inner = keras.Sequential([keras.layers.Dense(2, name="dense")], name="block_2_nested")
    inner.build((None, 3))
    inner.trainable = False
    pixels = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="block_1_pool")(pixels)
    logits = keras.layers.Dense(2, name="logits")(inner(pooled))
    model = keras.Model(pixels, keras.layers.Softmax(name="scores")(logits))
    cut = split(model, 1, TINY)
    assert len(cut.suffix.trainable_variables) == 2  # the control: the head alone
    freeze(cut, "frozen")
    assert len(cut.suffix.trainable_variables) == 4


def losses(model):
    """Loss of one `fit` epoch at rate 0, and of `evaluate`."""
    model.compile(keras.optimizers.SGD(0.0), keras.losses.CategoricalCrossentropy(True))
    pixels, labels = batch(64)
    # In order, or each run would drop other pixels of other images: some hardly differ.
    history = model.fit(pixels, labels, batch_size=64, shuffle=False, verbose=0).history
    fitted = history["loss"][0]
    return fitted, model.evaluate(pixels, labels, batch_size=64, verbose=0)


def test_dropout_of_a_frozen_functional_base_is_active_in_fit():  # fact 4, control
    model = tiny_model(base_dropout=0.5)
    features = keras.Model(model.inputs, model.get_layer("pool").output)
    features.trainable = False
    pixels = keras.Input((16, 16, 3))
    logits = model.get_layer("logits")(features(pixels, training=False))
    fitted, evaluated = losses(keras.Model(pixels, logits))
    assert abs(fitted - evaluated) > 1e-3


def test_dropout_of_the_live_prefix_is_off_in_fit():  # fact 4
    cut = split(tiny_model(base_dropout=0.5), 0, TINY)
    freeze(cut, "frozen")
    fitted, evaluated = losses(LiveModel(cut.prefix, cut.suffix))
    assert abs(fitted - evaluated) < 1e-6


def test_rate_zero_is_not_frozen_and_the_proof_sees_it(tmp_path):  # fact 5
    model = tiny_model()
    start = fingerprint(model)
    cut = split(model, 1, TINY)
    freeze(cut, "train")  # the mistake: norms released, rate 0
    fit(LiveModel(cut.prefix, cut.suffix), rate=0.0)
    trained = may_change(model, cut, "frozen")
    with pytest.raises(UserError, match="2 frozen variables moved"):
        prove_frozen(start, saved(model, tmp_path), trained, "unfreeze")


def saved(model, folder):
    thaw(model)
    path = folder / "model.keras"
    whole = Bundle(model=model, class_names=("a", "b"), rule=InputRule(16))
    bundle.save(whole, path)
    return bundle.load(path).model


def test_the_proof_holds_for_an_honest_phase_and_a_saved_model_is_thawed(tmp_path):
    model = tiny_model()
    start = fingerprint(model)
    cut = train_from(model, 1)
    trained = may_change(model, cut, "frozen")
    loaded = saved(model, tmp_path)
    prove_frozen(start, loaded, trained, "unfreeze")
    assert all(layer.trainable for layer in loaded.layers)


@pytest.mark.parametrize(
    ("batch_norm", "norm"), [("frozen", []), ("train", ["gamma", "beta", "mean", "variance"])]
)
def test_a_cut_at_the_pixels_lets_no_normalization_change_and_no_frozen_norm(batch_norm, norm):
    inner = keras.Sequential(
        [keras.layers.Dense(2, name="dense"), keras.layers.BatchNormalization(name="norm")],
        name="block_2_nested",
    )
    pixels = keras.Input((16, 16, 3))
    scaled = keras.layers.Normalization(name="scale")(pixels)
    pooled = keras.layers.GlobalAveragePooling2D(name="block_1_pool")(scaled)
    logits = keras.layers.Dense(2, name="logits")(inner(pooled))
    model = keras.Model(pixels, keras.layers.Softmax(name="scores")(logits))
    places = may_change(model, split(model, "all", TINY), batch_norm)
    names = [model.weights[place].name.removeprefix("moving_") for place in sorted(places)]
    assert names == ["kernel", "bias", *norm, "kernel", "bias"]
    assert len(model.weights) == 11  # with mean, variance and count of Normalization


@pytest.mark.parametrize("layer", ["block_2_a_norm", "stem_norm", "stem_conv"])
def test_a_planted_fault_in_prefix_or_suffix_is_named(layer, tmp_path):
    model = tiny_model()
    start = fingerprint(model)
    cut = train_from(model, 1)
    trained = may_change(model, cut, "frozen")
    weight = model.get_layer(layer).weights[-1]
    weight.assign(weight.numpy() + 1e-6)
    with pytest.raises(UserError) as caught:
        prove_frozen(start, saved(model, tmp_path), trained, "unfreeze")
    assert str(caught.value).startswith(
        "Phase 'unfreeze': 1 frozen variables moved while it trained:\n"
        f"  {weight.path}\nNothing of this phase was kept."
    )


def proved(count, moved):
    """Returns what the proof says of a model with `count` variables, the first `moved` changed."""
    layers = [keras.layers.Dense(1, use_bias=False) for _ in range(count)]
    model = keras.Sequential([keras.Input((1,)), *layers])
    start = fingerprint(model)
    begun = [(f"v{i}", "other" if i < moved else digest) for i, (_, digest) in enumerate(start)]
    with pytest.raises(PhaseFailed) as caught:
        prove_frozen(begun, model, set(), "head")
    return str(caught.value).splitlines()


def test_the_proof_names_ten_variables_and_counts_the_others():
    ten = [f"  v{i}" for i in range(10)]
    said = proved(13, 13)
    assert said[0] == "Phase 'head': 13 frozen variables moved while it trained:"
    assert said[1:12] == [*ten, "  and 3 more"]
    assert proved(11, 10)[1:11] == ten
    assert proved(11, 10)[11].startswith("Nothing of this phase was kept.")


def test_the_proof_refuses_a_model_with_another_number_of_variables():
    model = tiny_model()
    with pytest.raises(PhaseFailed) as caught:
        prove_frozen(fingerprint(model)[:-1], model, set(), "head")
    assert str(caught.value) == (
        "Phase 'head': the saved model has 20 variables, the phase began with 19. "
        "Nothing of this phase was kept."
    )


def test_weights_survive_a_change_of_trainable_between_saving_and_loading(tmp_path):  # fact 7
    model = tiny_model()
    train_from(model, 1)  # saved while partly frozen
    whole = Bundle(model=model, class_names=("a", "b"), rule=InputRule(16))
    bundle.save(whole, tmp_path / "m.keras")
    loaded = bundle.load(tmp_path / "m.keras").model
    freeze(split(loaded, 0, TINY), "frozen")
    pixels, _ = batch()
    np.testing.assert_array_equal(
        loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
    )
