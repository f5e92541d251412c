"""The text of a Caffe net definition, parsed into messages with the few fields that are needed.

Google's parser skips all other fields. The file is not trusted: there are limits for its size,
its lines and its nesting.

Source: caffe.proto of BVLC's Caffe 1.0; the names of V1 layers are those of upgrade_proto.cpp.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from kerasft.errors import UserError, did_you_mean
from kerasft.importers.caffemodel import is_text
from kerasft.text import quoted

MAX_BYTES = 4 << 20  # ResNet-152 takes 100 KB
MAX_LINE = 10_000  # characters; Google's parser copies the line for every value that it skips
MAX_ESCAPES = 10_000  # backslashes; its time is quadratic in the number of consecutive ones

V1_KINDS = {
    "NONE": "",
    "ACCURACY": "Accuracy",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DROPOUT": "Dropout",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "POOLING": "Pooling",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "ELTWISE": "Eltwise",
    "POWER": "Power",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "HINGE_LOSS": "HingeLoss",
    "MEMORY_DATA": "MemoryData",
    "ARGMAX": "ArgMax",
    "THRESHOLD": "Threshold",
    "DUMMY_DATA": "DummyData",
    "SLICE": "Slice",
    "MVN": "MVN",
    "ABSVAL": "AbsVal",
    "SILENCE": "Silence",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "EXP": "Exp",
    "DECONVOLUTION": "Deconvolution",
}

# Values are numbered from 0, in this order.
ENUMS = {
    "LayerType": list(V1_KINDS),
    "Phase": ["TRAIN", "TEST"],
    "PoolMethod": ["MAX", "AVE", "STOCHASTIC"],
    "RoundMode": ["CEIL", "FLOOR"],
    "NormRegion": ["ACROSS_CHANNELS", "WITHIN_CHANNEL"],
}

# Each field: name, number, type ("*" in front of a repeated one), default. Caffe's floats are
# doubles here, so that 0.0001 is exactly what the file says.
_MESSAGES = {
    "NetParameter": """
        layers 2 *V1LayerParameter; input 3 *string; state 6 NetState; layer 100 *LayerParameter""",
    "NetState": "stage 3 *string",
    "NetStateRule": """
        phase 1 Phase; min_level 2 int32; max_level 3 int32; stage 4 *string;
        not_stage 5 *string""",
    "LayerParameter": """
        name 1 string; type 2 string; bottom 3 *string; top 4 *string; include 8 *NetStateRule;
        exclude 9 *NetStateRule; convolution_param 106 ConvolutionParameter;
        dropout_param 108 DropoutParameter; inner_product_param 117 InnerProductParameter;
        lrn_param 118 LRNParameter; pooling_param 121 PoolingParameter;
        relu_param 123 ReLUParameter; transform_param 100 TransformationParameter""",
    "V1LayerParameter": """
        layer 1 V0LayerParameter; bottom 2 *string; top 3 *string; name 4 string;
        type 5 LayerType; convolution_param 10 ConvolutionParameter;
        dropout_param 12 DropoutParameter; inner_product_param 17 InnerProductParameter;
        lrn_param 18 LRNParameter; pooling_param 19 PoolingParameter;
        relu_param 30 ReLUParameter; include 32 *NetStateRule; exclude 33 *NetStateRule;
        transform_param 36 TransformationParameter""",
    "V0LayerParameter": "name 1 string",
    "TransformationParameter": "scale 1 double 1; mean_value 5 *double",
    "ConvolutionParameter": """
        num_output 1 uint32; bias_term 2 bool true; pad 3 *uint32; kernel_size 4 *uint32;
        group 5 uint32 1; stride 6 *uint32; pad_h 9 uint32; pad_w 10 uint32; kernel_h 11 uint32;
        kernel_w 12 uint32; stride_h 13 uint32; stride_w 14 uint32; axis 16 int32 1;
        dilation 18 *uint32""",
    "InnerProductParameter": """
        num_output 1 uint32; bias_term 2 bool true; axis 5 int32 1; transpose 6 bool false""",
    "PoolingParameter": """
        pool 1 PoolMethod; kernel_size 2 uint32; stride 3 uint32; pad 4 uint32;
        kernel_h 5 uint32; kernel_w 6 uint32; stride_h 7 uint32; stride_w 8 uint32;
        pad_h 9 uint32; pad_w 10 uint32; global_pooling 12 bool; round_mode 13 RoundMode""",
    "LRNParameter": """
        local_size 1 uint32 5; alpha 2 double 1; beta 3 double 0.75; norm_region 4 NormRegion;
        k 5 double 1""",
    "ReLUParameter": "negative_slope 1 double",
    "DropoutParameter": "dropout_ratio 1 double 0.5",
}


def parse_net(path: Path) -> Any:
    """Reads a net definition.

    Returns:
        A message, NetParameter with the fields of _MESSAGES.

    Raises:
        UserError: no such file (exit status 2); not the text of a net definition.
    """
    text = _text_of(path)
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MAX_LINE:
            raise UserError(
                f"{path}: line {number:,} has more than {MAX_LINE:,} characters. Expected a net "
                "definition, with each field on a line of its own."
            )
    if text.count("\\") > MAX_ESCAPES:
        raise UserError(
            f"{path}: has more than {MAX_ESCAPES:,} backslashes. Expected a net definition, which "
            "has next to none."
        )
    net = _net_class()()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise UserError(f"{path}: {_reason(text, error)}") from error
    except RecursionError as error:
        raise UserError(
            f"{path}: is nested too deep. Expected a net definition of Caffe, which has three or "
            "four levels."
        ) from error
    return net


def _text_of(path: Path) -> str:
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: no such file. Expected a net definition of Caffe, such as deploy.prototxt.",
            exit_code=2,
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}.") from error
    if not content.strip():
        raise UserError(f"{path}: is empty. Expected a net definition of Caffe.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is text in UTF-16. Save it in UTF-8.")
    if not is_text(content):
        raise UserError(
            f"{path}: is not text, it looks like a caffemodel; the order is PROTOTXT CAFFEMODEL."
        )
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{path}: is larger than {MAX_BYTES >> 20} MB. Expected a net definition, which has "
            "some KB."
        )
    # Comments may be in any encoding; Caffe never decodes them.
    return content.decode("utf-8-sig", "replace")


def _reason(text: str, error: text_format.ParseError) -> str:
    """Returns the message of Google's parser without the line itself, which it repeats in full."""
    reason = re.sub(r"^\d+:\d+ : ", "", str(error))
    line = error.GetLine()
    if line is not None:
        reason = reason.removeprefix(f"'{text.split(chr(10))[line - 1]}': ")
    where = "" if line is None else f"line {line:,}: "
    if found := re.search(r"has no value named (.+?)\.?$", reason):
        known = [name for names in ENUMS.values() for name in names]
        return f"{where}unknown value {quoted(found[1])}.{did_you_mean(found[1], known)}"
    # The message quotes the file in full: control characters are replaced, and it is shortened.
    reason = "".join(c if c.isprintable() else "?" for c in reason[:200]).rstrip(". ")
    return f"{where}is not what a net definition has{' there' if where else ''}: {reason}."


@cache
def _net_class() -> Any:
    """Builds the class of NetParameter in a pool of its own, so that nothing is registered."""
    file = descriptor_pb2.FileDescriptorProto(name="net.proto", package="net", syntax="proto2")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for row in fields.split(";"):
            field, number_, kind, *default = row.split()
            added = message.field.add(name=field, number=int(number_))
            repeated = kind.startswith("*")
            added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in ENUMS or kind in _MESSAGES:
                added.type = added.TYPE_ENUM if kind in ENUMS else added.TYPE_MESSAGE
                added.type_name = f".net.{kind}"
            else:
                added.type = getattr(added, f"TYPE_{kind.upper()}")
            if default:
                added.default_value = default[0]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("net.NetParameter"))
