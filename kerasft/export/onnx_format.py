"""The format ONNX: pixels in, scores out, for ONNX Runtime and everything else that reads ONNX.

tf2onnx converts the frozen graph. In int8, weights have a scale for each channel and activations
one for each tensor, from the smallest and largest numbers on training photos; the head computes in
float32. On the 225 validation photos of flowers5, MobileNetV2 lost nothing like that (0.916 before,
0.920 after) in half the time. Percentiles and entropy instead of the extremes took five times as
long and were no better (0.911 and 0.916); weights of 7 bits cost 2 points, one scale for each
weight 38. Signed activations are as exact, and no faster than float32.

Shapes: N images, S side of the model's square input in pixels, K classes.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasft.errors import UserError, first_line
from kerasft.export.facts import FILE, ExportFacts, read_facts
from kerasft.export.scorer import DAMAGED, Scorer, of_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kerasft.models.bundle import Bundle

MODEL = "model.onnx"
OPSET = 17  # of March 2022, which ONNX Runtime 1.12 reads


def write(opened: Bundle, folder: Path, facts: ExportFacts, calibration: Path | None) -> None:
    """Writes MODEL: pixels float32 [batch,S,S,3], 0 to 255, to scores float32 [batch,K].

    Its metadata has the text of `facts` under the name FILE.

    Args:
        opened: model to export.
        folder: folder to write to.
        facts: what the export says about itself.
        calibration: NumPy file of training photos for int8, float32 [N,S,S,3]; None for float32.

    Raises:
        UserError: the model has an operation that ONNX lacks.
    """
    import onnx

    try:
        with _quiet():
            model = _converted(opened)
            if calibration is not None:
                model = _quantized(model, opened, calibration)
    except (ValueError, AssertionError, KeyError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"The model can't be written as ONNX: {first_line(error)}. The formats saved-model and "
            "litert have more operations."
        ) from error
    onnx.helper.set_model_props(model, {FILE: facts.to_text()})
    onnx.save(model, folder / MODEL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps away what the converters tell their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _converted(opened: Bundle) -> Any:
    """Returns the model as an onnx.ModelProto."""
    import tf2onnx
    from onnx import checker

    # Imported here, so that the process that opens an export loads no TensorFlow.
    from kerasft.models.fold import PIXELS, SCORES, frozen_graph

    tensors = {f"{PIXELS}:0": PIXELS, f"{SCORES}:0": SCORES}
    model, _ = tf2onnx.convert.from_graph_def(
        frozen_graph(opened.model),
        name="kerasft",
        input_names=[f"{PIXELS}:0"],
        output_names=[f"{SCORES}:0"],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, []), "Expm1": (_expm1, [])},
        tensors_to_rename=tensors,
    )
    del model.graph.value_info[:]  # shapes of the tensors within, under names of their own
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise UserError(
            f"The model can't be written as ONNX: {str(error).splitlines()[0]}. The formats "
            "saved-model and litert have more operations."
        ) from error
    return model


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Writes erfc(x), which ONNX lacks, as 1 - erf(x): Keras' GELU has it.

    Its factor x is small where the difference loses digits.
    """
    node.type = "Erf"
    _behind(graph, node, "Sub", lambda erf: [_number(graph, 1), erf])


def _expm1(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Writes exp(x) - 1, which ONNX lacks, as 2 exp(x/2) sinh(x/2): the head "rbf-svm" has it.

    That keeps its digits for x near 0. It is -1 already for x = -64, and further below it would be
    0 times infinity.
    """
    (x,) = node.input
    limited = graph.make_node("Max", [x, _number(graph, -64)]).output[0]
    half = graph.make_node("Mul", [limited, _number(graph, 0.5)]).output[0]
    twice = graph.make_node("Mul", [graph.make_node("Exp", [half]).output[0], _number(graph, 2)])
    node.type = "Sinh"
    graph.replace_inputs(node, [half])
    _behind(graph, node, "Mul", lambda sinh: [twice.output[0], sinh])


def _number(graph: Any, value: float) -> str:
    """Adds a constant to a graph of tf2onnx, and returns the name of its tensor."""
    from tf2onnx.utils import make_name

    name: str = graph.make_const(make_name("number"), np.array(value, np.float32)).output[0]
    return name


def _behind(graph: Any, node: Any, kind: str, inputs: Callable[[str], list[str]]) -> None:
    """Puts a node behind another one, whose place it takes for all that read it.

    Args:
        graph: graph of tf2onnx.
        node: node to be read by the new one alone.
        kind: operation of the new node.
        inputs: function from the output of `node` to the inputs of the new one.
    """
    from tf2onnx.utils import make_name

    output = node.output[0]
    new = graph.insert_new_node_on_output(kind, output, name=make_name(node.name))
    graph.replace_inputs(new, inputs(output))


def _quantized(model: Any, opened: Bundle, calibration: Path) -> Any:
    """Returns the ONNX model in int8, with its head in float32."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    photos = np.load(calibration, mmap_mode="r")

    class Photos(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(range(len(photos)))

        def get_next(self) -> Any:
            at = next(self.left, None)
            return None if at is None else {"pixels": photos[at : at + 1]}

    with tempfile.TemporaryDirectory() as name:
        plain, fused, quantized = (Path(name) / f"{step}.onnx" for step in ("1", "2", "3"))
        onnx.save(model, plain)
        # Normalisations become part of the convolutions in front of them.
        quant_pre_process(plain, fused, skip_symbolic_shape=True)
        quantization.quantize_static(
            fused,
            quantized,
            Photos(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_head_nodes(onnx.load(fused).graph, _head_layers(opened)),
        )
        return onnx.load(quantized)


def _head_layers(opened: Bundle) -> set[str]:
    """Returns the names of the layers above the features."""
    import keras

    from kerasft.heads.trained import features_of
    from kerasft.models.tta import trained_part

    classifier = trained_part(opened.model)
    head = keras.Model(features_of(classifier), classifier.outputs[0])
    return {layer.name for layer in head.layers if not isinstance(layer, keras.layers.InputLayer)}


def _head_nodes(graph: Any, layers: Iterable[str]) -> list[str]:
    """Returns the names of the nodes that some layers became, and of all nodes behind them."""
    # TensorFlow adds a number to a name that it has used already.
    named = re.compile(rf"(^|/)({'|'.join(map(re.escape, layers))})(_\d+)?(/|$)")
    reached: set[str] = set()
    names = []
    for node in graph.node:  # in the order in which they are computed
        if named.search(node.name) or reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    return names


def open_scorer(folder: Path) -> Scorer:
    """Opens an export of `write` with ONNX Runtime alone.

    Raises:
        UserError: a file that is damaged, or has other inputs and outputs.
    """
    import onnxruntime

    facts = read_facts(folder)
    path = folder / MODEL
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no class in common
        raise UserError(f"{path}: can't be loaded: {first_line(error)}. {DAMAGED}") from error
    side = facts.rule.image_size
    takes = [(value.name, value.shape[1:]) for value in session.get_inputs()]
    gives = [(value.name, value.shape[1:]) for value in session.get_outputs()]
    expected = [("pixels", [side, side, 3])], [("scores", [len(facts.class_names)])]
    if (takes, gives) != expected:
        raise UserError(
            f"{path}: is not the model of its {FILE}. Expected {expected[0]} to {expected[1]}, "
            f"got {takes} to {gives}."
        )

    def compute(pixels: np.ndarray) -> np.ndarray:
        scores: np.ndarray = session.run(["scores"], {"pixels": pixels})[0]
        return scores

    return of_pixels(compute, facts)
