"""The text of net definitions: valid ones, invalid ones, and ones made to be read for ever."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from caffe_files import CAFFENET_DEPLOY, refusal, write_caffemodel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasft.errors import UserError
from kerasft.importers.prototxt_text import ENUMS, V1_KINDS, parse_net

QUICK = settings(
    deadline=None, max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.prototxt"


def parsed(path: Path, content: str | bytes):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parse_net(path)


def message_of(path, content):
    return refusal(parsed, path, content, most=600)


def test_layers_of_v2_are_read(path):
    net = parsed(path, CAFFENET_DEPLOY)
    assert len(net.layer) == 24
    assert [layer.name for layer in net.layer[:4]] == ["data", "conv1", "relu1", "pool1"]
    assert net.layer[1].convolution_param.num_output == 96


def test_layers_of_v1_are_read(path):
    net = parsed(path, "layers { name: 'conv1' type: CONVOLUTION bottom: 'data' top: 'conv1' }")
    assert [(one.name, ENUMS["LayerType"][one.type]) for one in net.layers] == [
        ("conv1", "CONVOLUTION")
    ]


def test_numbers_of_v1_types_are_those_of_caffe():
    types = ENUMS["LayerType"]
    assert [types.index(name) for name in ("CONVOLUTION", "INNER_PRODUCT", "SOFTMAX_LOSS")] == [
        4,
        14,
        21,
    ]
    assert types.index("DECONVOLUTION") == 39 == len(types) - 1
    assert V1_KINDS["HDF5_DATA"] == "HDF5Data"


def test_defaults_are_those_of_caffe(path):
    layer = parsed(path, "layer { name: 'x' }").layer[0]
    assert layer.convolution_param.bias_term is True
    assert layer.convolution_param.group == 1
    assert (layer.lrn_param.local_size, layer.lrn_param.alpha) == (5, 1.0)
    assert (layer.lrn_param.beta, layer.lrn_param.k) == (0.75, 1.0)
    assert layer.dropout_param.dropout_ratio == 0.5
    assert layer.inner_product_param.axis == 1


def test_fields_that_nobody_needs_are_passed_over(path):
    net = parsed(
        path,
        'name: "n" force_backward: true\n'
        "layer { name: 'x' loss_weight: [1, 2] param { lr_mult: 1 } param { lr_mult: 2 }\n"
        "  transform_param { mean_value: 104 crop_size: 227 new_thing { inner < a: -1.5e3 > } }\n"
        "  blobs { data: 1 } convolution_param { weight_filler { type: 'gaussian' std: 0.01 } } }",
    )
    assert net.layer[0].name == "x"


def test_comments_in_any_encoding_and_a_byte_order_mark_are_fine(path):
    comment = "# 卷积\n".encode("gbk")
    assert parsed(path, comment + b"layer { name: 'x' }").layer[0].name == "x"
    assert parsed(path, b"\xef\xbb\xbflayer { name: 'x' }\r\n").layer[0].name == "x"


def test_a_file_that_is_not_there_is_the_fault_of_the_command(tmp_path):
    for missing in (tmp_path / "no.prototxt", tmp_path):
        with pytest.raises(UserError, match=re.escape(f"{missing}: no such file")) as error:
            parse_net(missing)
        assert error.value.exit_code == 2


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_file_is_refused(path, content):
    assert message_of(path, content) == "is empty. Expected a net definition of Caffe."


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_caffemodel_where_text_belongs_is_refused_and_the_order_said(path, version):
    write_caffemodel(path, [("fc", "InnerProduct", [np.ones((2, 3))])], version=version)
    assert message_of(path, path.read_bytes()) == (
        "is not text, it looks like a caffemodel; the order is PROTOTXT CAFFEMODEL."
    )


def test_a_caffemodel_larger_than_the_limit_is_still_called_a_caffemodel(path):
    write_caffemodel(path, [("fc", "InnerProduct", [np.ones(2_000_000, "float32")])])
    assert "looks like a caffemodel" in message_of(path, path.read_bytes())


def test_text_in_utf_16_is_refused(path):
    assert message_of(path, CAFFENET_DEPLOY.encode("utf-16")) == (
        "is text in UTF-16. Save it in UTF-8."
    )


def test_a_definition_larger_than_4_mb_is_refused(path):
    assert message_of(path, "# comment\n" * 420_000).startswith("is larger than 4 MB.")


def test_a_line_that_takes_for_ever_is_refused(path):
    message = message_of(path, "name: 'n'\n" + "a: 1 " * 3_000)
    assert message.startswith("line 2 has more than 10,000 characters.")


def test_backslashes_that_take_for_ever_are_refused(path):
    message = message_of(path, ("a: '" + "\\\\" * 2_000 + "'\n") * 3)
    assert message.startswith("has more than 10,000 backslashes.")


@pytest.mark.parametrize("nesting", ["a {\n" * 5_000, "layer {" + "a { " * 2_000, "a < " * 2_000])
def test_nesting_that_has_no_end_is_refused(path, nesting):
    assert message_of(path, nesting).startswith("is nested too deep.")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("layer {\n  name 'x'\n}", 'line 2: is not what a net definition has there: Expected ":".'),
        (
            "layer {\n  type: CONVOLUTION\n}",
            "line 2: is not what a net definition has there: Expected string but found: "
            "'CONVOLUTION'.",
        ),
        ("layer { name: 'x'", 'line 1: is not what a net definition has there: Expected "}".'),
        (
            "layer {\n\n  convolution_param { num_output: -1 } }",
            "line 3: is not what a net definition has there: Value out of range: -1.",
        ),
        ("layers { type: CONVOLUTON }", "line 1: unknown value 'CONVOLUTON'."),
        (
            "layer { pooling_param {\n pool: MEAN } }",
            "line 2: unknown value 'MEAN'.",
        ),
        ("<!DOCTYPE html>", "line 1: is not what a net definition has there: "),
    ],
)
def test_a_mistake_is_named_with_its_line(path, content, expected):
    assert message_of(path, content).startswith(expected)


def test_a_mistyped_value_gets_a_proposal(path):
    assert message_of(path, "layers { type: CONVOLUTON }").endswith("Did you mean 'CONVOLUTION'?")


@pytest.mark.parametrize(
    "content",
    [
        "layer { name: 'a' name: 'b' }",
        "layer { name: '\\xff' }",
        "layer { name: 'a\\",
        "layer { name: '\\ud800' }",
        "[ext]: 1",
        "a: \0",
        "layer { name: 'a\0b\x1b' ?",
        "}",
        "a: ,",
        "a: 0x" + "f" * 9_000 + "\nb",
        "layers { type: 99 }",
        "layer { name: " + "'" + "n" * 5_000,
    ],
)
def test_other_mistakes_are_one_sentence_without_control_characters(path, content):
    assert message_of(path, content)


WORDS = "layer layers { } < > : name type 'x' \" 1 -1 1e999 [ ] , pooling_param pool MAX # \\ é"
MORE_WORDS = "kernel_size include phase TEST state stage nan true . / \x00 \n"
TOKENS = st.sampled_from([*WORDS.split(" "), *MORE_WORDS.split(" ")])


@QUICK
@given(
    content=st.one_of(
        st.lists(TOKENS, max_size=40).map(" ".join),
        st.text(max_size=60),
        st.binary(max_size=60),
    )
)
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "net.prototxt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's of unknown escapes
        try:
            parsed(path, content)
        except UserError as error:
            assert len(str(error)) < 600 + len(str(path))


@QUICK
@given(position=st.integers(0, len(CAFFENET_DEPLOY) - 1), change=st.integers(1, 255))
def test_a_published_definition_with_any_byte_changed_is_read_or_refused(
    tmp_path, position, change
):
    content = bytearray(CAFFENET_DEPLOY.encode())
    content[position] ^= change
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            parsed(tmp_path / "net.prototxt", bytes(content))
        except UserError as error:
            assert str(error).count("\n") == 0
