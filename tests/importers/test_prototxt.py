"""Net definitions as chains of layers: the published ones, both formats, and nets without chain."""

from pathlib import Path

import numpy as np
import pytest
from caffe_files import ALEXNET_DEPLOY, CAFFENET_DEPLOY, refusal, write_caffemodel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasft.errors import UserError
from kerasft.importers.prototxt import Step, read_prototxt

QUICK = settings(
    deadline=None, max_examples=100, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.prototxt"


def steps_of(path: Path, content: str) -> list[Step]:
    path.write_text(content, "utf-8")
    return read_prototxt(path)


def message_of(path, content):
    return refusal(steps_of, path, content, most=1_200)


def kinds_of(steps):
    return [(step.name, step.kind) for step in steps]


def one(kind: str, parameters: str = "") -> str:
    """Writes a net of a single layer."""
    return (
        'input: "data"\n'
        f'layer {{ name: "it" type: "{kind}" bottom: "data" top: "out" {parameters} }}'
    )


def settings_of(path, kind, parameters=""):
    (step,) = steps_of(path, one(kind, parameters))
    assert (step.name, step.kind) == ("it", kind)
    return step.settings


def relu(name: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "{bottom}" top: "{top}" {more} }}\n'


INPUT = 'input: "data"\n'

CONV2 = {
    "num_output": 256,
    "kernel": (5, 5),
    "stride": (1, 1),
    "pad": (2, 2),
    "dilation": (1, 1),
    "group": 2,
    "bias_term": True,
}
POOL = {
    "pool": "MAX",
    "kernel": (3, 3),
    "stride": (2, 2),
    "pad": (0, 0),
    "global_pooling": False,
    "round_mode": "CEIL",
}
NORM = {
    "local_size": 5,
    "alpha": 0.0001,
    "beta": 0.75,
    "k": 1.0,
    "norm_region": "ACROSS_CHANNELS",
}
ENDING = [
    ("conv3", "Convolution"),
    ("relu3", "ReLU"),
    ("conv4", "Convolution"),
    ("relu4", "ReLU"),
    ("conv5", "Convolution"),
    ("relu5", "ReLU"),
    ("pool5", "Pooling"),
    ("fc6", "InnerProduct"),
    ("relu6", "ReLU"),
    ("drop6", "Dropout"),
    ("fc7", "InnerProduct"),
    ("relu7", "ReLU"),
    ("drop7", "Dropout"),
    ("fc8", "InnerProduct"),
    ("prob", "Softmax"),
]


def test_caffenet_pools_before_it_normalizes(path):
    steps = steps_of(path, CAFFENET_DEPLOY)
    assert kinds_of(steps) == [
        ("conv1", "Convolution"),
        ("relu1", "ReLU"),
        ("pool1", "Pooling"),
        ("norm1", "LRN"),
        ("conv2", "Convolution"),
        ("relu2", "ReLU"),
        ("pool2", "Pooling"),
        ("norm2", "LRN"),
        *ENDING,
    ]


def test_alexnet_normalizes_before_it_pools(path):
    steps = steps_of(path, ALEXNET_DEPLOY)
    assert kinds_of(steps) == [
        ("conv1", "Convolution"),
        ("relu1", "ReLU"),
        ("norm1", "LRN"),
        ("pool1", "Pooling"),
        ("conv2", "Convolution"),
        ("relu2", "ReLU"),
        ("norm2", "LRN"),
        ("pool2", "Pooling"),
        *ENDING,
    ]


@pytest.mark.parametrize("content", [CAFFENET_DEPLOY, ALEXNET_DEPLOY])
def test_settings_of_the_published_nets_are_complete(path, content):
    found = {step.name: step.settings for step in steps_of(path, content)}
    assert found["conv1"] == {
        "num_output": 96,
        "kernel": (11, 11),
        "stride": (4, 4),
        "pad": (0, 0),
        "dilation": (1, 1),
        "group": 1,
        "bias_term": True,
    }
    assert found["conv2"] == CONV2
    assert [found[f"conv{number}"]["group"] for number in (1, 2, 3, 4, 5)] == [1, 2, 1, 2, 2]
    assert found["relu1"] == {"negative_slope": 0.0}
    assert found["pool1"] == found["pool5"] == POOL
    assert found["norm1"] == found["norm2"] == NORM
    assert found["fc8"] == {
        "num_output": 1000,
        "bias_term": True,
        "axis": 1,
        "transpose": False,
    }
    assert found["drop6"] == {"dropout_ratio": 0.5}
    assert found["prob"] == {}


V1 = """
name: "CaffeNet"
layers {
  name: "data"
  type: DATA
  top: "data"
  top: "label"
  data_param { source: "examples/imagenet/ilsvrc12_val_lmdb" backend: LMDB batch_size: 50 }
  transform_param { crop_size: 227 mean_file: "imagenet_mean.binaryproto" mirror: false }
  include: { phase: TEST }
}
layers {
  name: "conv1"
  type: CONVOLUTION
  bottom: "data"
  top: "conv1"
  blobs_lr: 1
  blobs_lr: 2
  weight_decay: 1
  weight_decay: 0
  convolution_param {
    num_output: 96
    kernel_size: 11
    stride: 4
    weight_filler { type: "gaussian" std: 0.01 }
    bias_filler { type: "constant" value: 0 }
  }
}
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers {
  name: "pool1" type: POOLING bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layers {
  name: "norm1" type: LRN bottom: "pool1" top: "norm1"
  lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }
}
layers {
  name: "fc8" type: INNER_PRODUCT bottom: "norm1" top: "fc8"
  inner_product_param { num_output: 1000 }
}
layers { name: "drop" type: DROPOUT bottom: "fc8" top: "fc8" exclude { phase: TEST } }
layers {
  name: "accuracy" type: ACCURACY bottom: "fc8" bottom: "label" top: "accuracy"
  include: { phase: TEST }
}
layers { name: "loss" type: SOFTMAX_LOSS bottom: "fc8" bottom: "label" top: "loss" }
"""


def test_layers_of_v1_get_the_spelling_of_v2(path):
    steps = steps_of(path, V1)
    assert kinds_of(steps) == [
        ("conv1", "Convolution"),
        ("relu1", "ReLU"),
        ("pool1", "Pooling"),
        ("norm1", "LRN"),
        ("fc8", "InnerProduct"),
        ("loss", "Softmax"),
    ]
    assert steps[0].settings["stride"] == (4, 4)
    assert steps[2].settings == POOL
    assert steps[3].settings == NORM


TRAIN_VAL = """
name: "small"
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TRAIN }
  transform_param { mirror: true crop_size: 227 }
}
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TEST }
}
layer { name: "noise" type: "Dropout" bottom: "data" top: "data" include { phase: TRAIN } }
layer {
  name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer {
  name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include { phase: TEST }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_a_training_definition_is_read_as_it_is_at_test_time(path):
    assert kinds_of(steps_of(path, TRAIN_VAL)) == [("fc", "InnerProduct"), ("loss", "Softmax")]


def test_a_softmax_loss_is_left_out_beside_a_softmax(path):
    prob = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
    assert kinds_of(steps_of(path, TRAIN_VAL + prob)) == [
        ("fc", "InnerProduct"),
        ("prob", "Softmax"),
    ]


def test_other_losses_accuracies_silence_and_outputs_are_left_out(path):
    content = INPUT + relu("a", "data", "a")
    for kind in ("HingeLoss", "EuclideanLoss", "Accuracy", "Silence", "HDF5Output"):
        content += f'layer {{ name: "{kind}" type: "{kind}" bottom: "a" bottom: "label" }}\n'
    assert kinds_of(steps_of(path, content)) == [("a", "ReLU")]


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        ("include { phase: TEST }", True),
        ("include { phase: TRAIN }", False),
        ("include { phase: TRAIN } include { phase: TEST }", True),
        ("exclude { phase: TEST }", False),
        ("exclude { phase: TRAIN }", True),
        ("include { }", True),
        ("exclude { }", False),
        ("include { stage: 'deploy' }", False),
        ("include { not_stage: 'deploy' }", True),
        ("include { phase: TEST stage: 'val' }", True),
        ("include { not_stage: 'val' }", False),
        ("include { min_level: 1 }", False),
        ("include { min_level: 0 max_level: 3 }", True),
        ("include { max_level: -1 }", False),
        ("phase: TRAIN", True),  # it says how a layer works, not whether it is there
    ],
)
def test_rules_say_which_layers_are_there_at_test_time(path, rule, stays):
    content = "state { stage: 'val' }" + INPUT + relu("a", "data", "a") + relu("b", "a", "a", rule)
    expected = [("a", "ReLU"), ("b", "ReLU")] if stays else [("a", "ReLU")]
    assert kinds_of(steps_of(path, content)) == expected


def test_copies_are_seen_through(path):
    content = (
        INPUT
        + 'layer { name: "s" type: "Split" bottom: "data" top: "data_1" top: "data_2" }\n'
        + relu("a", "data_1", "a")
        + 'layer { name: "t" type: "Split" bottom: "a" top: "a_1" top: "a_2" }\n'
        + relu("b", "a_2", "b")
    )
    assert kinds_of(steps_of(path, content)) == [("a", "ReLU"), ("b", "ReLU")]


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        ("kernel_size: 3", ((3, 3), (1, 1), (0, 0), (1, 1))),
        ("kernel_size: 3 kernel_size: 5", ((3, 5), (1, 1), (0, 0), (1, 1))),
        ("kernel_size: [3, 5] stride: [1, 2]", ((3, 5), (1, 2), (0, 0), (1, 1))),
        ("kernel_h: 1 kernel_w: 7 pad_w: 3", ((1, 7), (1, 1), (0, 3), (1, 1))),
        ("kernel_size: 3 stride_h: 2 stride_w: 4", ((3, 3), (2, 4), (0, 0), (1, 1))),
        ("kernel_size: 3 pad: 1 pad: 2 dilation: 6", ((3, 3), (1, 1), (1, 2), (6, 6))),
        ("kernel_size: 3 pad_h: 1 pad_w: 2", ((3, 3), (1, 1), (1, 2), (1, 1))),
    ],
)
def test_sizes_of_a_convolution_are_read_however_they_are_given(path, given_as, expected):
    found = settings_of(path, "Convolution", f"convolution_param {{ num_output: 4 {given_as} }}")
    assert tuple(found[key] for key in ("kernel", "stride", "pad", "dilation")) == expected


@pytest.mark.parametrize(
    ("given_as", "changes"),
    [
        ("kernel_size: 3 stride: 2", {}),
        ("kernel_h: 3 kernel_w: 3 stride_h: 2 stride_w: 2", {}),
        ("pool: AVE kernel_size: 3 stride: 2 pad: 1", {"pool": "AVE", "pad": (1, 1)}),
        ("kernel_h: 2 kernel_w: 4", {"kernel": (2, 4), "stride": (1, 1)}),
        ("kernel_size: 3 pad_h: 2 pad_w: 1", {"stride": (1, 1), "pad": (2, 1)}),
        ("pool: STOCHASTIC kernel_size: 3 stride: 2", {"pool": "STOCHASTIC"}),
        ("kernel_size: 3 stride: 2 round_mode: FLOOR", {"round_mode": "FLOOR"}),
        (
            "pool: AVE global_pooling: true",
            {"pool": "AVE", "global_pooling": True, "kernel": None, "stride": (1, 1)},
        ),
    ],
)
def test_settings_of_pooling_are_read_however_they_are_given(path, given_as, changes):
    assert settings_of(path, "Pooling", f"pooling_param {{ {given_as} }}") == {**POOL, **changes}


def test_settings_of_other_layers_are_read(path):
    assert settings_of(
        path,
        "InnerProduct",
        "inner_product_param { num_output: 7 bias_term: false axis: 2 transpose: true }",
    ) == {"num_output": 7, "bias_term": False, "axis": 2, "transpose": True}
    assert settings_of(
        path, "LRN", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL k: 2 }"
    ) == {
        "local_size": 3,
        "alpha": 1.0,
        "beta": 0.75,
        "k": 2.0,
        "norm_region": "WITHIN_CHANNEL",
    }
    assert settings_of(path, "ReLU", "relu_param { negative_slope: 0.1 }") == {
        "negative_slope": 0.1
    }
    assert settings_of(path, "Dropout", "dropout_param { dropout_ratio: 0.7 }") == {
        "dropout_ratio": 0.7
    }
    assert settings_of(path, "Dropout") == {"dropout_ratio": 0.5}
    assert settings_of(path, "PReLU", "prelu_param { channel_shared: true }") == {}


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("Convolution", "", "num_output is 0, expected 1 to 1,000,000."),
        ("Convolution", "convolution_param { num_output: 4 }", "has no kernel_size."),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 kernel_h: 3 }",
            "has kernel_size and kernel_h or kernel_w, expected one of the two ways.",
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_h: 3 }",
            "kernel is 0, expected 1 to 1,000,000.",
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: [1, 2, 3] }",
            "has 3 values of kernel_size, expected 1 or 2.",
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 0 }",
            "stride is 0, expected 1 to 1,000,000.",
        ),
        (
            "Convolution",
            "convolution_param { num_output: 5 kernel_size: 3 group: 2 }",
            "num_output is 5, expected a multiple of group, which is 2.",
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 group: 0 }",
            "group is 0, expected 1 to 1,000,000.",
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 axis: 2 }",
            "axis is 2, expected 1: the channels of images.",
        ),
        (
            "InnerProduct",
            "inner_product_param { num_output: 4000000000 }",
            "num_output is 4,000,000,000, expected 1 to 1,000,000.",
        ),
        ("Pooling", "", "has no kernel_size."),
        (
            "Pooling",
            "pooling_param { kernel_size: 2 pad: 2 }",
            "pad is (2, 2), expected less than the kernel, which is (2, 2).",
        ),
        (
            "Pooling",
            "pooling_param { global_pooling: true kernel_size: 2 }",
            "has global_pooling and a kernel, stride or pad, expected one of the two.",
        ),
        ("LRN", "lrn_param { local_size: 4 }", "local_size is 4, expected an odd number."),
        ("LRN", "lrn_param { alpha: nan }", "alpha is nan, expected a finite number."),
        ("LRN", "lrn_param { beta: 1e39 }", "beta is 1e+39, expected a finite number."),
        (
            "Dropout",
            "dropout_param { dropout_ratio: 1 }",
            "dropout_ratio is 1.0, expected at least 0 and less than 1.",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(path, kind, parameters, expected):
    assert message_of(path, one(kind, parameters)) == f"layer 'it': {expected}"


ADVICE = " Only a net whose layers form a single chain can be read."


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            relu("a", "data", "a") + relu("b", "data", "b"),
            "layer 'b': takes 'data', expected 'a', which the layer before it, 'a', gives."
            + ADVICE,
        ),
        (
            relu("a", "data", "a") + relu("b", "a", "b") + relu("c", "a", "c"),
            "layer 'c': takes 'a', expected 'b', which the layer before it, 'b', gives." + ADVICE,
        ),
        (
            relu("a", "data", "a")
            + 'layer { name: "s" type: "Split" bottom: "a" top: "x" top: "y" }'
            + relu("b", "x", "b")
            + relu("c", "y", "c"),
            "layer 'c': takes 'y', expected 'b', which the layer before it, 'b', gives." + ADVICE,
        ),
        (
            relu("a", "data", "a")
            + 'layer { name: "cat" type: "Concat" bottom: "a" bottom: "data" top: "cat" }',
            "layer 'cat': takes 2 things: 'a', 'data', expected one." + ADVICE,
        ),
        (
            relu("a", "data", "a")
            + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "a" top: "sum" }',
            "layer 'sum': takes 2 things: 'a', 'a', expected one." + ADVICE,
        ),
        (
            'layer { name: "fc" type: "InnerProduct" top: "fc" }',
            "layer 'fc': takes nothing, expected one." + ADVICE,
        ),
        (
            'layer { name: "fc" type: "ReLU" bottom: "data" }',
            "layer 'fc': gives nothing, expected one." + ADVICE,
        ),
        (
            'layer { name: "cut" type: "Slice" bottom: "data" top: "a" top: "b" }',
            "layer 'cut': gives 2 things: 'a', 'b', expected one." + ADVICE,
        ),
        (
            relu("a", "image", "a"),
            "layer 'a': takes 'image', which is neither an input of the net nor comes from a "
            "data layer.",
        ),
        (
            relu("a", "data", "a") + relu("a", "a", "a"),
            "layer 'a': two layers have this name. Give each one of its own.",
        ),
    ],
)
def test_what_is_no_chain_is_refused_by_the_name_of_the_layer(path, layers, expected):
    assert message_of(path, INPUT + layers) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            'name: "n"',
            "holds no layers. Expected a net definition: deploy.prototxt or train_val.prototxt.",
        ),
        (
            INPUT + relu("a", "data", "a", "include { phase: TRAIN }"),
            "holds no layers. Expected a net definition: deploy.prototxt or train_val.prototxt.",
        ),
        (
            'layer { name: "data" type: "Input" top: "data" }',
            "no layer does anything with an image when the net is tested.",
        ),
        (
            'layers { layer { name: "conv1" type: "conv" } bottom: "data" top: "conv1" }',
            "holds layers of V0, Caffe's format before 2014. Convert it with Caffe's "
            "upgrade_net_proto_text.",
        ),
        (
            relu("a", "data", "a") + 'layers { name: "b" type: RELU }',
            "holds layers of V2 ('layer') and V1 ('layers'). Expected one of the two.",
        ),
        (
            'layer { bottom: "data" }',
            "layer number 1, without a name: has no type. Expected one, such as Convolution.",
        ),
        (
            INPUT + 'layer { type: "ReLU" bottom: "data" top: "a" }',
            "a layer of type 'ReLU' has no name. Give it one.",
        ),
        (
            relu("a", "data", "a", "include { } exclude { }"),
            "layer 'a': has rules to include and to exclude it. Expected one kind.",
        ),
        ("layer { }\n" * 5_001, "has more than 5,000 layers."),
    ],
)
def test_what_is_no_net_is_refused(path, content, expected):
    assert message_of(path, content) == expected


def test_a_name_with_control_characters_does_not_reach_the_terminal(path):
    message = message_of(path, relu("\\x1b[2J" + "n" * 100, "x", "y"))
    assert message.isprintable()
    assert message.startswith("layer '\\x1b[2Jnnnn")
    assert len(message) < 200


def test_a_caffemodel_where_text_belongs_is_refused(path):
    write_caffemodel(path, [("fc", "InnerProduct", [np.ones((2, 3))])])
    with pytest.raises(UserError, match="the order is PROTOTXT CAFFEMODEL"):
        read_prototxt(path)


def test_a_missing_file_is_the_fault_of_the_command(tmp_path):
    with pytest.raises(UserError) as error:
        read_prototxt(tmp_path / "no.prototxt")
    assert error.value.exit_code == 2


NAMES = st.sampled_from(["data", "a", "b", "label", ""])
KINDS = st.sampled_from(
    ["Input", "Convolution", "Pooling", "ReLU", "LRN", "Split", "Softmax", "SoftmaxWithLoss", ""]
)


@st.composite
def layers(draw):
    bottoms = "".join(f' bottom: "{name}"' for name in draw(st.lists(NAMES, max_size=2)))
    tops = "".join(f' top: "{name}"' for name in draw(st.lists(NAMES, max_size=2)))
    rule = draw(st.sampled_from(["", "include { phase: TEST }", "exclude { phase: TEST }"]))
    size = draw(st.integers(-1, 5))
    kernel = f"{{ kernel_size: {size} stride: {size} pad: {draw(st.integers(0, 3))} }}"
    parameters = draw(st.sampled_from(["", f"pooling_param {kernel}"]))
    name = draw(st.sampled_from(["a", "b", "c", "d"]))
    return f'layer {{ name: "{name}" type: "{draw(KINDS)}"{bottoms}{tops} {rule} {parameters} }}\n'


@QUICK
@given(content=st.lists(layers(), max_size=5).map("".join))
def test_any_layers_are_read_as_a_chain_or_refused(tmp_path, content):
    path = tmp_path / "net.prototxt"
    path.write_text(INPUT + content, "utf-8")
    try:
        steps = read_prototxt(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert steps
