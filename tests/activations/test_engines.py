"""Engines: the prefix's own numbers, image by image, in float32 and bfloat16."""

import platform

import keras
import numpy as np
import pytest
from tiny import TINY, batch, moved, tiny_model, weights_by_name

from kerasft.activations import engines
from kerasft.activations.engines import (
    build,
    computes_bfloat16,
    folds,
    processor,
    relative_error,
)
from kerasft.activations.pace import compare_precisions
from kerasft.models.cut import split

# Elsewhere TensorFlow may leave all of a folded graph in float32.
needs_bfloat16 = pytest.mark.skipif(
    not computes_bfloat16(), reason="this processor computes no bfloat16"
)


@pytest.fixture
def model():
    """Whole model with dropout in the base, its BatchNorm far from where it begins."""
    model = tiny_model(base_dropout=0.5)
    rng = np.random.default_rng(0)
    for place in ("stem", "block_1_a", "block_2_a"):
        scale, variance = rng.uniform(0.5, 2, (2, 4))
        offset, mean = rng.normal(0, 0.5, (2, 4))
        model.get_layer(f"{place}_norm").set_weights([scale, offset, mean, variance])
    return model


@pytest.fixture
def prefix(model):
    """Pixels to the features [B,4] and to what enters block_2 [B,4,4,4]."""
    cuts = [split(model, blocks, TINY).prefix.outputs[0] for blocks in (0, 1)]
    return keras.Model(model.inputs[0], cuts)


PIXELS = batch(32)[0]
HERE = ("folded", "keras")  # "compiled" needs JAX: test_compiled.py


@pytest.mark.parametrize("engine", HERE)
def test_an_engine_computes_what_the_prefix_predicts(prefix, engine):
    expected = prefix.predict(PIXELS, verbose=0)
    given = build(prefix, engine, "float32")(PIXELS)
    assert [output.shape for output in given] == [(32, 4), (32, 4, 4, 4)]
    for output, exact in zip(given, expected, strict=True):
        assert output.dtype == np.float32
        # Numbers up to 1.3; folding BatchNorm into the kernels rounds in another place: 4e-7.
        np.testing.assert_allclose(output, exact, atol=5e-6)


def test_batch_norm_and_dropout_of_the_prefix_would_show(prefix):
    plain = tiny_model()  # the controls: the test above can fail
    others = split(plain, 0, TINY).prefix.predict(PIXELS, verbose=0)
    exact = prefix.predict(PIXELS, verbose=0)[0]
    assert np.abs(others - exact).max() > 0.1
    assert np.abs(prefix(PIXELS, training=True)[0] - exact).max() > 0.1


@pytest.mark.parametrize("engine", HERE)
def test_a_prefix_with_one_output_gives_a_list_of_one(model, engine):
    one = split(model, 0, TINY).prefix
    (given,) = build(one, engine, "float32")(PIXELS)
    np.testing.assert_allclose(given, one.predict(PIXELS, verbose=0), atol=5e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", HERE)
def test_the_numbers_of_an_image_do_not_depend_on_its_neighbours(prefix, engine, precision):
    compute = build(prefix, engine, precision)
    whole = compute(PIXELS)
    for start, count in ((0, 1), (5, 1), (3, 2), (7, 17), (1, 31)):
        part = compute(PIXELS[start : start + count])
        for output, all_of_it in zip(part, whole, strict=True):
            # Equal on most processors; on some, another kernel takes a rest: the last bit differs.
            np.testing.assert_allclose(output, all_of_it[start : start + count], rtol=1e-6)
    turned = compute(PIXELS[::-1])
    np.testing.assert_allclose(turned[1], whole[1][::-1], rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", HERE)
def test_an_engine_leaves_the_prefix_as_it_is(prefix, engine, precision):
    exact = prefix.predict(PIXELS, verbose=0)
    before = weights_by_name(prefix)
    flags = [layer.trainable for layer in prefix.layers]
    compute = build(prefix, engine, precision)
    first, again = compute(PIXELS), compute(PIXELS)
    np.testing.assert_array_equal(first[1], again[1])
    assert moved(before, prefix) == []
    assert [layer.trainable for layer in prefix.layers] == flags
    assert {layer.dtype_policy.name for layer in prefix.layers} == {"float32"}
    for output, same in zip(prefix.predict(PIXELS, verbose=0), exact, strict=True):
        np.testing.assert_array_equal(output, same)


@pytest.mark.parametrize("engine", HERE)
def test_an_engine_in_bfloat16_changes_none_in_float32_built_before_or_after(prefix, engine):
    before = build(prefix, engine, "float32")
    expected = before(PIXELS)
    rough = build(prefix, engine, "bfloat16")
    first = rough(PIXELS)
    after = build(prefix, engine, "float32")
    # In turns: what computes in bfloat16 must not carry over from call to call.
    for compute, exact in (
        (before, expected),
        (after, expected),
        (rough, first),
        (before, expected),
    ):
        for output, same in zip(compute(PIXELS), exact, strict=True):
            np.testing.assert_array_equal(output, same)


# bfloat16 has 8 bits: 4e-3 in each rounding, which partly cancel. float32 is off by 1e-6.
BFLOAT16_ERROR = (1e-3, 2e-2)


@pytest.mark.parametrize("engine", ["keras", pytest.param("folded", marks=needs_bfloat16)])
def test_an_engine_in_bfloat16_is_off_by_the_rounding_of_bfloat16(prefix, engine):
    exact = prefix.predict(PIXELS, verbose=0)
    rough = build(prefix, engine, "bfloat16")(PIXELS)
    least, most = BFLOAT16_ERROR
    for output, expected in zip(rough, exact, strict=True):
        assert output.dtype == np.float32
        assert least < relative_error(expected, output) < most


def test_the_relative_error_is_the_mean_over_the_images():
    exact = np.float32([[3, 4], [0, 10], [6, 8]])
    rough = np.float32([[3, 5], [0, 10], [0, 0]])
    # 1 of 5, nothing, and all of it.
    assert relative_error(exact, rough) == pytest.approx(0.4, abs=1e-6)  # float32


def test_the_norm_is_over_all_of_an_image():
    exact = np.float32([3, 0, 0, 4]).reshape(1, 2, 2, 1)
    rough = np.float32([3, 1, 0, 4]).reshape(1, 2, 2, 1)
    assert relative_error(exact, rough) == pytest.approx(0.2, abs=1e-6)  # float32


def test_an_image_without_activations_has_no_error_if_it_stays_so():
    assert relative_error(np.zeros((2, 3), "float32"), np.zeros((2, 3), "float32")) == 0.0


@pytest.mark.parametrize(
    "line, known",
    [
        ("flags\t\t: fpu avx512f avx512_bf16 clzero", True),
        ("flags\t\t: fpu amx_bf16 avx512f", True),
        ("Features\t: fp asimd i8mm bf16 dgh", True),
        ("flags\t\t: fpu avx2 fma avx512f avx512_vnni", False),
        ("flags\t\t: fpu no_bf16_here xbf16", False),
        ("", False),
    ],
)
def test_the_processors_flags_say_whether_it_computes_bfloat16(tmp_path, line, known):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: AMD EPYC\n{line}\nbogomips\t: 5400.00\n")
    assert computes_bfloat16(cpuinfo) is known


def test_without_a_description_of_the_processor_it_is_not_known_to(tmp_path):
    assert computes_bfloat16(tmp_path / "cpuinfo") is False
    assert computes_bfloat16(tmp_path) is False


def test_the_folded_engine_is_for_processors_and_keras_for_all_else():
    assert folds("cpu")
    assert not folds("gpu:0")


def test_the_processor_is_named_as_linux_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu\n" * 2)
    machine, name, onednn = processor(cpuinfo)
    assert (machine != "", name, onednn) == (True, "AMD EPYC 9R14", "0")
    assert processor(tmp_path / "absent")[1] == platform.processor()


@pytest.mark.parametrize("engine", HERE)
def test_comparing_says_how_much_faster_and_how_far_off_bfloat16_is(prefix, engine):
    compared = compare_precisions(prefix, engine, PIXELS)
    assert compared.speed > 0
    least, most = BFLOAT16_ERROR
    assert 0 <= compared.difference < most
    if engine == "folded" and not computes_bfloat16():
        pytest.skip("this processor computes no bfloat16")
    assert compared.difference > least


def test_the_difference_is_the_largest_over_the_outputs(prefix, monkeypatch):
    ones = np.ones((32, 4), "float32")
    made = {"float32": [ones, ones], "bfloat16": [1.5 * ones, 1.25 * ones]}
    monkeypatch.setitem(
        engines.ENGINES, "fixed", lambda _, precision, batch: lambda _: made[precision]
    )
    assert compare_precisions(prefix, "fixed", PIXELS).difference == 0.5
